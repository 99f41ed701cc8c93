"""What generating a network's weights costs in memory and time, and how close it gets to two aims.

The aims: making a puppet and baking it within 2.5 times the model's memory, original included; and
generating resnet50's weights at ratio 10 in less time than its forward pass of 8 images. The first
is met by the larger networks only (see `benchmarks/results/generation.csv`): small ones hold states
that are large beside them, and ConvNeXts keep most weights, which original, puppet and baked model
each hold. The matrix product of the derivative bounds the time.

One fresh process a network measures

- `peak_over_model_bytes`: the highest resident memory of `puppetize()` and `bake()`, which
  generates the weights, less what was resident before the model was built (after all this was done
  with a tiny network, so that code is loaded), over the bytes of the model's parameters and
  buffers. The model, which stays alive, counts 1 in it, the baked one another 1.
- `puppetize_s`, and medians of `generate_s` (all weights once, without gradients), `backward_s`
  (the backward pass of generation alone) and `forward8_s` (the original on 8 images of 224 px,
  without gradients), turn by turn. Seconds are CPU time of the process at one thread, which is the
  wall time of a core of one's own; `load` is the machine's, since other work slows it, too.
- `backward_peak_over_model_bytes`: the same for generation with gradients and its backward pass,
  less what was resident before it: the weights and their gradients count 2 in it. Both columns of
  the backward pass are empty where the machine had too little memory for it.

Memory is what the operating system sees: what the allocator keeps for later is in it.
GMACs are of generation as `generation_macs` has them, of the network as torch counts convolutions
and matrix products. Rows that are there for the same versions are not measured again. From the
smallest to the largest, or those named:

    uv run python benchmarks/generation.py
    uv run python benchmarks/generation.py resnet50 resnet50:10 --force
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from puppetize import puppetize
from puppetize.macs import generation_macs
from puppetize.storage.container import atomically

LADDER = (
    "efficientnet_b0",
    "densenet121",
    "resnet18",
    "resnet50",
    "resnet50:10",
    "convnext_tiny",
    "resnet152",
    "wide_resnet101_2",
    "vgg16",
    "convnext_large",
    "resnetv2_50x3_bit",
    "resnetv2_101x3_bit",
    "resnetv2_152x4_bit",
)
RESULT = Path(__file__).parent / "results" / "generation.csv"
COLUMNS = (
    "network",
    "ratio",
    "peak_over_model_bytes",
    "puppetize_s",
    "generate_s",
    "backward_s",
    "forward8_s",
    "generate_over_forward8",
    "backward_peak_over_model_bytes",
    "model_bytes",
    "generation_gmacs",
    "forward8_gmacs",
    "generation_gmacs_per_s",
    "forward8_gmacs_per_s",
    "load",
    "versions",
    "command",
)
VERSIONS = " ".join(f"{name}={version(name)}" for name in ("puppetize", "torch", "timm"))
REPEATS = 5
ENOUGH_SECONDS = 60.0
# Times the model's bytes that must be free: to start, and for the backward pass of large networks.
NEEDS, BACKWARD_NEEDS = 3.5, 7.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("networks", nargs="*", metavar="NETWORK[:RATIO]", help="timm's names")
    parser.add_argument("--force", action="store_true", help="measure again what is there")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one)))
        return
    for case in options.networks or LADDER:
        rows = read()
        if not options.force and rows.get(case, {}).get("versions") == VERSIONS:
            continue
        needed, free = NEEDS * size(timm_on_meta(case.partition(":")[0])), available()
        if free < needed:
            print(f"{case}: needs {needed / 2**30:.1f} GiB, {free / 2**30:.1f} are free: left out")
            continue
        command = [sys.executable, __file__, "--one", case]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        child = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
        if child.returncode:
            print(f"{case}: failed with exit status {child.returncode}")
            continue
        row = json.loads(child.stdout.splitlines()[-1])
        print(*(f"{name}={row[name]}" for name in COLUMNS[:-2]), flush=True)
        write({**read(), case: row})


def measure(case: str) -> dict[str, Any]:
    torch.set_num_threads(1)
    name, _, ratio = case.partition(":")
    tiny = torch.nn.Sequential(*(torch.nn.Conv2d(128, 128, k) for k in (1, 3, 1, 3))).eval()
    puppetize(tiny, example_inputs=(torch.zeros(1, 128, 8, 8),)).bake()
    resident = memory("VmRSS")
    model = timm.create_model(name).eval()
    reset_peak()
    puppetize_s, puppet = timed(lambda: puppetize(model, ratio=float(ratio) if ratio else None))
    puppet.bake()
    peak = memory("VmHWM") - resident

    images = torch.randn(8, 3, 224, 224)
    seconds: dict[str, list[float]] = {"generate": [], "forward8": [], "backward": []}
    backward_peak = 0
    first = time.process_time()
    for _ in range(REPEATS):
        with torch.no_grad():
            seconds["generate"].append(timed(puppet.puppeteer)[0])
            seconds["forward8"].append(timed(lambda: model(images))[0])
        if available() < BACKWARD_NEEDS * size(model):
            break
        before = memory("VmRSS")
        reset_peak()
        weights = list(puppet.puppeteer().values())
        gradients = [torch.ones_like(weight) for weight in weights]
        backward = timed(lambda w=weights, g=gradients: torch.autograd.backward(w, g))
        seconds["backward"].append(backward[0])
        backward_peak = max(backward_peak, memory("VmHWM") - before)
        del weights, gradients
        if time.process_time() - first > ENOUGH_SECONDS:
            break
    medians = {key: statistics.median(values) for key, values in seconds.items() if values}
    generation_gmacs = generation_macs(puppet.plan, puppet.config) / 1e9
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        timm_on_meta(name)(images.to("meta"))
    forward8_gmacs = counter.get_total_flops() / 2e9
    row = {
        "network": name,
        "ratio": ratio or "none",
        "peak_over_model_bytes": peak / size(model),
        "puppetize_s": puppetize_s,
        **{f"{key}_s": medians.get(key, "") for key in seconds},
        "generate_over_forward8": medians["generate"] / medians["forward8"],
        "backward_peak_over_model_bytes": backward_peak / size(model) if backward_peak else "",
        "model_bytes": size(model),
        "generation_gmacs": generation_gmacs,
        "forward8_gmacs": forward8_gmacs,
        "generation_gmacs_per_s": generation_gmacs / medians["generate"],
        "forward8_gmacs_per_s": forward8_gmacs / medians["forward8"],
        "load": os.getloadavg()[0],
        "versions": VERSIONS,
        "command": f"uv run python benchmarks/generation.py {case}",
    }
    return {key: round(value, 3) if type(value) is float else value for key, value in row.items()}


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    first = time.process_time()
    result = run()
    return time.process_time() - first, result


def timm_on_meta(name: str) -> torch.nn.Module:
    with torch.device("meta"):
        return timm.create_model(name).eval()


def size(model: torch.nn.Module) -> int:
    tensors = [*model.parameters(), *model.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def memory(field: str) -> int:
    """Bytes that Linux has for this process: VmRSS now, VmHWM at most since the last reset."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def available() -> int:
    lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) * 1024


def read() -> dict[str, dict[str, Any]]:
    """Rows of the result by case."""
    if not RESULT.exists():
        return {}
    with RESULT.open(newline="", encoding="utf-8") as file:
        return {row["command"].split()[-1]: row for row in csv.DictReader(file)}


def write(rows: dict[str, dict[str, Any]]) -> None:
    order = {case: place for place, case in enumerate(LADDER)}

    def save(target: str) -> None:
        with open(target, "w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            table.writeheader()
            table.writerows(rows[case] for case in sorted(rows, key=lambda c: order.get(c, 999)))

    atomically(RESULT, save)


if __name__ == "__main__":
    main()
