"""The command line: ``puppetize demo``, ``report``, ``finetune``, ``eval``, ``bake``, ``zoo``."""

from __future__ import annotations

import json
import shlex
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.markup import escape
from safetensors.torch import load_file
from torch import nn

import zoo_adapters
from puppetize import __version__, data
from puppetize import demo as demo_module
from puppetize.api import puppetize
from puppetize.config import PuppetConfig
from puppetize.errors import PuppetizeError
from puppetize.export import write_onnx
from puppetize.finetune import Metrics, evaluate
from puppetize.finetune import finetune as run_finetune
from puppetize.puppet import Puppet
from puppetize.storage.container import write
from puppetize.storage.files import stored_tensors
from puppetize.sweep import (
    ConsoleProgress,
    Engine,
    Limits,
    LocalEngine,
    RayEngine,
    Settings,
    Shard,
    cores,
    sweep,
)
from puppetize.sweep.journal import read_rows
from puppetize.sweep.results import write_results

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
_out = Console()
_err = Console(stderr=True)


class Dataset(str, Enum):
    """Names that ``--data`` takes."""

    DIGITS = "digits"
    CIFAR10 = "cifar10"
    CIFAR100 = "cifar100"
    FOLDER = "folder"


class EngineName(str, Enum):
    """Names that ``zoo --engine`` takes."""

    LOCAL = "local"
    RAY = "ray"


class BakeFormat(str, Enum):
    """Names that ``bake --format`` takes."""

    SAFETENSORS = "safetensors"
    ONNX = "onnx"


ModelName = Annotated[
    str, typer.Argument(help="Zoo and model, such as timm/resnet18 (see: puppetize zoo --list).")
]
Saved = Annotated[Path, typer.Argument(help="Directory that save_pretrained or finetune wrote.")]
Ratio = Annotated[
    float | None,
    typer.Option(help="How many times smaller than the original's file; without it, full states."),
]
Include = Annotated[
    list[str] | None,
    typer.Option(help="Pattern of layers that may be generated, such as 'layer4'; repeatable."),
]
Exclude = Annotated[
    list[str] | None, typer.Option(help="Pattern of layers that are stored; repeatable.")
]
Classes = Annotated[int | None, typer.Option(min=1, help="Classes of the model's head.")]
Paper = Annotated[bool, typer.Option("--paper", help="The paper to the letter, for comparison.")]
DataName = Annotated[Dataset, typer.Option("--data", help="Data set.")]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Where it lies; CIFAR is downloaded there, folder means train/ and val/."),
]
Workers = Annotated[int, typer.Option(help="Processes that load images.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Images a batch.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps ...")]
Amp = Annotated[bool, typer.Option("--amp", help="Compute in bfloat16 where that is safe.")]
ChannelsLast = Annotated[bool, typer.Option("--channels-last", help="Memory format of images.")]


def _print_version(asked: bool) -> None:
    if asked:
        print(f"puppetize {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Say and leave."),
    ] = False,
) -> None:
    """Compress CNNs: a small neural ODE generates the weights of their convolutions."""


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Directory for the result.")] = Path(
        "puppetize-demo"
    ),
    seed: Annotated[int, typer.Option(help="Of every random choice but the split.")] = 0,
) -> None:
    """Train a CNN on real handwritten digits, puppetize, fine-tune, save, load, bake, compare.

    Takes less than two minutes on two CPU cores and needs no network. Writes the puppet, two
    pictures and a page to the output directory.
    """
    demo_module.run(output, seed=seed, console=_out)


@app.command()
def report(
    model: ModelName,
    ratio: Ratio = None,
    num_classes: Classes = None,
    include: Include = None,
    exclude: Exclude = None,
    paper: Paper = False,
    sites: Annotated[bool, typer.Option("--sites", help="One line a convolution too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,
) -> None:
    """What puppetizing a model would gain, without training: bytes, parameters, MACs."""
    puppet = puppetize(
        _create(model, num_classes),
        _config(paper),
        ratio=ratio,
        include=include,
        exclude=exclude,
    )
    result = puppet.report()
    if as_json:
        print(json.dumps(result.to_dict(), indent=2))
        return
    print(result)
    if sites:
        print()
        print(result.sites_table())


@app.command()
def finetune(
    model: ModelName,
    output: Annotated[Path, typer.Option(help="Directory for log.csv, best/ and last/.")],
    data_name: DataName,
    data_dir: DataDir = None,
    ratio: Ratio = None,
    include: Include = None,
    exclude: Exclude = None,
    paper: Paper = False,
    weights: Annotated[
        Path | None,
        typer.Option(help="Trained weights of the model, a safetensors state dict: the teacher."),
    ] = None,
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Download the zoo's own trained weights.")
    ] = False,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training set.")] = 30,
    batch_size: BatchSize = 128,
    opt: Annotated[str, typer.Option(help="Optimiser, by its timm name.")] = "adamw",
    lr: Annotated[float, typer.Option(help="Highest learning rate.")] = 2e-3,
    weight_decay: Annotated[float, typer.Option(help="Of matrices and filters.")] = 0.02,
    sched: Annotated[str, typer.Option(help="Schedule, by its timm name.")] = "cosine",
    warmup_epochs: Annotated[int, typer.Option(min=0, help="Of linear warm-up.")] = 0,
    smoothing: Annotated[float, typer.Option(help="Label smoothing.")] = 0.0,
    distillation_weight: Annotated[
        float, typer.Option(min=0, max=1, help="Of the teacher's part of the loss.")
    ] = 0.5,
    clip_grad: Annotated[float | None, typer.Option(help="Largest gradient norm.")] = None,
    workers: Workers = 0,
    seed: Annotated[int, typer.Option(help="Of every random choice.")] = 0,
    device: Device = "cpu",
    amp: Amp = False,
    channels_last: ChannelsLast = False,
) -> None:
    """Puppetize a zoo model and train the puppet.

    With trained weights (--weights or --pretrained) the original is the teacher and its norms,
    biases and classifier are the start; otherwise the puppet trains from scratch. A tenth of the
    training set is held out to choose the best epoch; the test split is evaluated once, at the end.
    """
    torch.manual_seed(seed)
    native = data.native_config(data_name.value, zoo_adapters.DataConfig())
    kwargs: dict[str, Any] = {"in_chans": 1} if native.input_size[0] == 1 else {}
    if pretrained:
        kwargs["pretrained" if model.startswith("timm/") else "weights"] = (
            True if model.startswith("timm/") else "DEFAULT"
        )
    expected = zoo_adapters.adapter_for(probe := _create(model, None)).data_config(probe)
    config = data.native_config(data_name.value, expected)
    splits = data.load(
        data_name.value, data_dir, config, batch_size=batch_size, workers=workers, seed=seed
    )
    original = _create(model, splits.num_classes, **kwargs)
    if weights is not None:
        _load_weights(original, weights)
    trained = pretrained or weights is not None
    puppet = puppetize(original, _config(paper), ratio=ratio, include=include, exclude=exclude)
    puppet.data_config = config
    print(puppet.report())
    run_finetune(
        puppet,
        splits.train,
        splits.val,
        original if trained else None,
        epochs=epochs,
        opt=opt,
        lr=lr,
        weight_decay=weight_decay,
        sched=sched,
        warmup_epochs=warmup_epochs,
        smoothing=smoothing,
        distillation_weight=distillation_weight,
        clip_grad=clip_grad,
        device=device,
        amp=amp,
        channels_last=channels_last,
        output=output,
        progress=_out.is_terminal,
    )
    tested = evaluate(puppet, splits.test, device=device, amp=amp)
    _tell(f"{output / 'best'}: {puppet.report(macs=False).stored_bytes:,} bytes", tested)
    if weights is not None:
        _tell("original", evaluate(original, splits.test, device=device, amp=amp))


@app.command("eval")
def evaluate_saved(
    saved: Saved,
    data_name: DataName,
    data_dir: DataDir = None,
    batch_size: BatchSize = 256,
    workers: Workers = 0,
    device: Device = "cpu",
    amp: Amp = False,
) -> None:
    """Accuracy of a saved puppet on the test split of a data set."""
    puppet = Puppet.from_pretrained(saved)
    splits = data.load(
        data_name.value, data_dir, puppet.data_config, batch_size=batch_size, workers=workers
    )
    _tell(str(saved), evaluate(puppet, splits.test, device=device, amp=amp))


@app.command()
def bake(
    saved: Saved,
    output: Annotated[Path, typer.Option(help="File to write.")],
    file_format: Annotated[
        BakeFormat | None, typer.Option("--format", help="By default what the file's name says.")
    ] = None,
) -> None:
    """Turn a saved puppet into an ordinary model: a state dict for the zoo's model, or ONNX."""
    if file_format is None:
        file_format = _format_of(output)
    puppet = Puppet.from_pretrained(saved)
    baked = puppet.bake().eval()
    if file_format is BakeFormat.ONNX:
        write_onnx(baked, puppet.data_config.input_size, output)
    else:
        write(output, stored_tensors(baked))
    print(f"{output}: {output.stat().st_size:,} bytes")


@app.command()
def zoo(
    patterns: Annotated[
        list[str] | None, typer.Argument(help="Such as 'timm/resnet*'; '*' means every model.")
    ] = None,
    list_only: Annotated[
        bool, typer.Option("--list", help="Only name the models that match.")
    ] = False,
    output: Annotated[
        Path, typer.Option(help="Directory for tables, a summary, plots and a page.")
    ] = Path("results/zoo"),
    ratio: Ratio = None,
    num_classes: Classes = None,
    paper: Paper = False,
    run: Annotated[
        bool,
        typer.Option(
            "--run",
            help="With random numbers in the models: compare baked with generated logits, time.",
        ),
    ] = False,
    device: Annotated[str, typer.Option(help="With --run: cpu, cuda, cuda:1 ...")] = "cpu",
    jobs: Annotated[
        int | None, typer.Option(help="Models at a time; by default one a processor core.")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds a model.")] = Limits.timeout,
    memory: Annotated[float, typer.Option(help="GiB a model.")] = Limits.memory,
    shard: Annotated[
        str, typer.Option(metavar="I/N", help="Only the I-th of N parts of the models.")
    ] = "1/1",
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Measure models again that failed before.")
    ] = False,
    engine_name: Annotated[
        EngineName,
        typer.Option("--engine", help="This machine, or a Ray cluster: pip install puppetize[ray]"),
    ] = EngineName.LOCAL,
    address: Annotated[
        str | None,
        typer.Option(help="Of the Ray cluster; by default the one that runs on this machine."),
    ] = None,
    gpus: Annotated[
        float | None,
        typer.Option(help="With Ray: GPUs a model; by default one where --device is cuda."),
    ] = None,
) -> None:
    """Measure what puppetizing each model of a zoo would gain, or list the models.

    Each model has a process of its own, with a time and a memory limit; one that fails leaves its
    reason in its row. Each row is on disk at once: an interrupted sweep, started again, goes on
    where it stopped.
    """
    if not patterns and not list_only:
        raise PuppetizeError(
            "zoo: expected a pattern of models to measure, such as 'timm/resnet*', or --list to "
            "see their names"
        )
    names = []
    for pattern in patterns or ["*"]:
        found = zoo_adapters.list_models(pattern)
        if not found:
            raise PuppetizeError(f"no model matches {pattern!r}; try 'timm/*' or 'torchvision/*'")
        names += [name for name in found if name not in names]
    if list_only:
        print("\n".join(names))
        return
    settings = Settings(_config(paper), ratio, num_classes, run, device)
    part = Shard.parse(shard)
    limits = Limits(timeout, memory, cores() if jobs is None else jobs)
    engine: Engine = LocalEngine(limits)
    if engine_name is EngineName.RAY:
        if jobs is not None:
            raise PuppetizeError("--jobs: Ray decides how many models run at a time; leave it out")
        if gpus is None:
            gpus = float(device.startswith("cuda"))
        engine = RayEngine(limits, address, gpus)
    elif address is not None or gpus is not None:
        raise PuppetizeError("--address and --gpus are for --engine ray; add it or leave them out")
    with ConsoleProgress(_out) as progress:
        sweep(
            names,
            output,
            settings,
            engine,
            shard=part,
            retry_failed=retry_failed,
            progress=progress,
        )
    rows = list(read_rows(output, settings.key).values())
    write_results(rows, output, shlex.join(["puppetize", *sys.argv[1:]]))
    print(f"{output}: {progress.counts()}; see index.html there")


def _create(name: str, num_classes: int | None, **kwargs: Any) -> nn.Module:
    if num_classes is not None:
        kwargs["num_classes"] = num_classes
    return zoo_adapters.create(name, **kwargs)


def _format_of(output: Path) -> BakeFormat:
    known = {f".{each.value}": each for each in BakeFormat}
    if output.suffix not in known:
        raise PuppetizeError(
            f"--output {output}: its name ends in none of {', '.join(known)}, so say --format"
        )
    return known[output.suffix]


def _config(paper: bool) -> PuppetConfig:
    return PuppetConfig.paper() if paper else PuppetConfig()


def _load_weights(model: nn.Module, path: Path) -> None:
    try:
        model.load_state_dict(load_file(path))
    except Exception as error:  # safetensors and torch raise several kinds
        raise PuppetizeError(
            f"{path}: not a safetensors state dict of this {type(model).__name__}: {error}"
        ) from error


def _tell(what: str, metrics: Metrics) -> None:
    print(
        f"{what}: top-1 {metrics.top1:.2f} %, top-5 {metrics.top5:.2f} %, loss {metrics.loss:.4f} "
        f"on {metrics.images:,} test images"
    )


def main() -> None:
    """Entry point: bad input ends with exit code 2 and one line."""
    try:
        app()
    except PuppetizeError as error:
        _err.print(f"puppetize: {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2)
