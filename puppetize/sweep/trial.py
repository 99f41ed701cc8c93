"""A model with numbers in it: does the puppet compute what its baked model does, and how fast."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from puppetize.analysis import Analysis
from puppetize.api import puppetize
from puppetize.errors import PuppetizeError
from puppetize.sweep.settings import Settings

_REPEATS = 5
# One image where that works; some networks normalise over the batch even in evaluation.
_BATCHES = (1, 2)


def run_trial(model: nn.Module, found: Analysis, settings: Settings) -> dict[str, Any]:
    """Puppetize ``model``, compare baked with generated logits bit for bit, and time all three.

    Args:
        model: with numbers, in eval mode.
        found: what :func:`puppetize.analysis.analyse` says of it.
        settings: of the sweep.

    Returns:
        Columns of the row.

    Raises:
        PuppetizeError: the logits differ, or the puppet's file has another size than foreseen.
    """
    with torch.no_grad():
        inputs = _inputs(model, found, settings.device)
        columns = {
            "batch": len(inputs[0]),
            "threads": torch.get_num_threads(),
            "forward_ms": _milliseconds(lambda: model(*inputs), settings.device),
        }
        puppet = puppetize(model, settings.config, ratio=settings.ratio).eval()
        stored = puppet.report(macs=False).stored_bytes
        if stored != found.stored_bytes:
            raise PuppetizeError(
                f"the puppet's file has {stored:,} bytes where its plan foresaw "
                f"{found.stored_bytes:,}"
            )
        baked = puppet.bake().eval()
        for generated, plain in zip(_logits(puppet, inputs), _logits(baked, inputs), strict=True):
            if not torch.equal(_bits(generated), _bits(plain)):
                raise PuppetizeError(
                    "baked logits differ from generated ones by up to "
                    f"{(generated - plain).abs().max().item():.3g}"
                )
        timed = {
            "generation_ms": lambda: puppet.puppeteer(),
            "forward_ms_puppet": lambda: puppet(*inputs),
            "forward_ms_baked": lambda: baked(*inputs),
        }
        return columns | {name: _milliseconds(f, settings.device) for name, f in timed.items()}


def _inputs(model: nn.Module, found: Analysis, device: str) -> tuple[Tensor, ...]:
    size = found.data_config.input_size
    dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
    for batch in _BATCHES:
        generator = torch.Generator().manual_seed(batch)
        images = torch.randn(batch, *size, generator=generator).to(device, dtype)
        try:
            model(images)
        except (RuntimeError, ValueError):
            if batch == _BATCHES[-1]:
                raise
        else:
            break
    return (images,)


def _logits(model: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    torch.manual_seed(0)
    return [leaf for leaf in tree_leaves(model(*inputs)) if isinstance(leaf, Tensor)]


def _bits(tensor: Tensor) -> Tensor:
    """Comparable where random weights give no numbers, too."""
    return tensor.contiguous().view(torch.uint8)


def _milliseconds(call: Callable[[], Any], device: str) -> float:
    times = []
    for _ in range(_REPEATS + 1):
        started = time.perf_counter()
        call()
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        times.append((time.perf_counter() - started) * 1000)
    return statistics.median(times[1:])
