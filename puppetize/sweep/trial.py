"""A model with numbers in it: does the puppet compute what its baked model does, and how fast."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

import zoo_adapters
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
        # Before anything runs: a forward pass may leave traces in a model's attributes.
        puppet = puppetize(model, settings.config, ratio=settings.ratio).eval()
        stored = puppet.report(macs=False).stored_bytes
        if stored != found.stored_bytes:
            raise PuppetizeError(
                f"the puppet's file has {stored:,} bytes where its plan foresaw "
                f"{found.stored_bytes:,}"
            )
        inputs = _inputs(model, found, settings.device)
        columns = {
            "batch": len(inputs[0]) if isinstance(inputs[0], Tensor) else None,
            "threads": torch.get_num_threads(),
            "forward_ms": _milliseconds(lambda: model(*inputs), settings.device),
        }
        baked = puppet.bake().eval()
        for generated, plain in zip(_logits(puppet, inputs), _logits(baked, inputs), strict=True):
            if not torch.equal(_bits(generated), _bits(plain)):
                raise PuppetizeError(
                    f"baked logits differ from generated ones{_by(generated, plain)}"
                )
        timed = {
            "generation_ms": lambda: puppet.puppeteer(),
            "forward_ms_puppet": lambda: puppet(*inputs),
            "forward_ms_baked": lambda: baked(*inputs),
        }
        return columns | {name: _milliseconds(f, settings.device) for name, f in timed.items()}


def _inputs(model: nn.Module, found: Analysis, device: str) -> tuple[Any, ...]:
    of_zoo = zoo_adapters.adapter_for(model).example_inputs(model)
    if of_zoo is not None:
        return tuple(tree_map_only(Tensor, lambda tensor: _real(tensor, device), of_zoo))
    size = found.data_config.input_size
    dtypes = (p.dtype for p in model.parameters() if p.is_floating_point())
    dtype = next(dtypes, torch.float32)
    for batch in _BATCHES:
        images = _real(torch.empty(batch, *size, dtype=dtype, device="meta"), device)
        try:
            model(images)
        except (RuntimeError, ValueError):
            if batch == _BATCHES[-1]:
                raise
        else:
            break
    return (images,)


def _real(tensor: Tensor, device: str) -> Tensor:
    """Numbers in [0, 1) for a tensor without any; one that has some keeps them."""
    if tensor.device.type != "meta":
        return tensor.to(device)
    generator = torch.Generator().manual_seed(0)
    return torch.rand(tensor.shape, generator=generator).to(device, tensor.dtype)


def _logits(model: nn.Module, inputs: tuple[Any, ...]) -> list[Tensor]:
    torch.manual_seed(0)
    return [leaf for leaf in tree_leaves(model(*inputs)) if isinstance(leaf, Tensor)]


def _bits(tensor: Tensor) -> Tensor:
    """Comparable where random weights give no numbers, too."""
    return tensor.reshape(-1).contiguous().view(torch.uint8)


def _by(one: Tensor, other: Tensor) -> str:
    if one.shape != other.shape:
        return f": shape {tuple(other.shape)} instead of {tuple(one.shape)}"
    return f" by up to {(one.double() - other.double()).abs().max().item():.3g}"


def _milliseconds(call: Callable[[], Any], device: str) -> float:
    times = []
    for _ in range(_REPEATS + 1):
        started = time.perf_counter()
        call()
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        times.append((time.perf_counter() - started) * 1000)
    return statistics.median(times[1:])
