"""Multiply-adds, counted by fvcore (which calls them flops)."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Sequence

import torch
from torch import nn

from puppetize import adapter, derivative
from puppetize.config import PuppetConfig
from puppetize.plan import Plan

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # fvcore decorates functions with the deprecated torch.jit
    from fvcore.nn import FlopCountAnalysis


def count_macs(module: nn.Module, input_sizes: Sequence[tuple[int, ...]]) -> int | None:
    """Multiply-adds by fvcore; None where it cannot run the module."""
    parameter = next(module.parameters())
    inputs = tuple(
        torch.zeros(1, *size, dtype=parameter.dtype, device=parameter.device)
        for size in input_sizes
    )
    analysis = FlopCountAnalysis(module, inputs)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            total = analysis.total()
    except Exception:  # torch.jit raises many kinds: data-dependent models, the meta device
        return None
    finally:
        logging.disable(previous)
    return None if math.isnan(total) else int(total)


def generation_macs(plan: Plan, config: PuppetConfig) -> int:
    """Multiply-adds of generating all weights once, from the plan alone.

    What :func:`count_macs` finds for the plan's puppeteer, which it would have to run.
    """
    total = 0
    for group in plan.groups:
        total += group.steps * derivative.macs(config.derivative, group.state)
        for site in group.sites:
            cells = adapter.tiles(site.grid, site.state_shape)
            total += sum(adapter.pool_macs(group.state, cell) for cell in cells)
    return total
