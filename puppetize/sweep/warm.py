"""What the fork server imports once, so that a model's process starts with it in memory.

Importing this module analyses one small network: the first analysis of a process loads half of
torch. The server must stay with one thread, or its children would inherit locks that nobody holds:
torch computes on one, and tqdm (torch.fx has a progress bar) starts no monitor.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import os

import torch
from torch import nn
from tqdm import tqdm

import zoo_adapters
from puppetize.analysis import analyse

torch.set_num_threads(1)
tqdm.monitor_interval = 0
with contextlib.suppress(zoo_adapters.PuppetizeError):  # each model's row says it then
    zoo_adapters.zoos()
with torch.device("meta"):
    analyse(nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.Conv2d(64, 64, 3)))
# Children share these pages as long as no garbage collection writes to them.
gc.collect()
gc.freeze()
# The server ends in the middle of an import, with frames that still hold what C++ extensions then
# report as leaked, line by line.
atexit.register(os._exit, 0)
