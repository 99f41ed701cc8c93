"""What puppetizing every model of a zoo gives: a resumable sweep and its tables."""

from puppetize.sweep.local import LocalEngine, cores
from puppetize.sweep.progress import ConsoleProgress
from puppetize.sweep.ray_engine import RayEngine
from puppetize.sweep.row import Row, Status
from puppetize.sweep.run import Engine, Progress, sweep
from puppetize.sweep.settings import Limits, Settings, Shard

__all__ = [
    "ConsoleProgress",
    "Engine",
    "Limits",
    "LocalEngine",
    "Progress",
    "RayEngine",
    "Row",
    "Settings",
    "Shard",
    "Status",
    "cores",
    "sweep",
]
