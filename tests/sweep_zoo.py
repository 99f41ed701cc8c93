"""A zoo whose models do what models in a sweep should not do, installed for other processes."""

import time
from pathlib import Path

ZOO = """
import ctypes, itertools, os, pathlib, subprocess, sys, time
import torch
from torch import nn
from zoo_adapters import DataConfig
from zoo_adapters.plain import PlainAdapter

class Tiny(nn.Sequential):
    pass

CALLS = itertools.count(1)

class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(64, 64, 3)
        self.first = nn.Conv2d(3, 64, 3)

    def forward(self, x):
        return self.conv(self.first(x)) * next(CALLS)

def convs(first=64, groups=1):
    return Tiny(nn.Conv2d(3, first, 3), nn.ReLU(), nn.Conv2d(first, 64, 3, groups=groups))

def hang():
    child = subprocess.Popen(["sleep", "1000"])
    path = pathlib.Path(os.environ["SWEEP_PIDS"])
    pids = os.getpid(), child.pid, os.environ.get("RAY_RAYLET_PID")
    path.with_suffix(".new").write_text(" ".join(map(str, pids)))
    path.with_suffix(".new").rename(path)
    print("hanging", flush=True)
    time.sleep(1000)

def fail():
    raise KeyError("no such\\n thing")

def hang_once():
    if not pathlib.Path(os.environ["SWEEP_PIDS"]).exists():
        hang()
    return convs()

MODELS = {
    **{f"good{i}": lambda i=i: convs(32 + i) for i in range(8)},
    "counting": Counting,
    "crashes": lambda: ctypes.string_at(0),
    "depthwise": lambda: Tiny(nn.Conv2d(3, 3, 3, groups=3)),
    "exits": lambda: (print("so long", flush=True), sys.exit(3)),
    "fails": fail,
    "hangs": hang,
    "hangsonce": hang_once,
    "hungry": lambda: torch.empty(2**40, device="cpu"),
    "linear": lambda: Tiny(nn.Linear(2, 2)),
    "murdered": lambda: os.kill(os.getpid(), 9),
}

class Zoo(PlainAdapter):
    def list_models(self): return sorted(MODELS)
    def create(self, name, **kwargs): return MODELS[name]()
    def owns(self, model): return isinstance(model, (Tiny, Counting))
    def data_config(self, model): return DataConfig((3, 16, 16))
"""


def install(folder):
    """A distribution as an installer leaves it; ``folder`` goes on PYTHONPATH."""
    folder.mkdir(exist_ok=True)
    (folder / "sweepzoo.py").write_text(ZOO)
    info = folder / "sweepzoo-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sweepzoo\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[puppetize.zoos]\nsweep = sweepzoo:Zoo\n")
    return folder


def gone(pid):
    """Whether a process ends within ten seconds."""
    for _ in range(1000):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False
