"""From states to the weight of one site: average pooling down, tiling up."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def pool(state: Tensor, shape: Sequence[int]) -> Tensor:
    """Average-pool ``state`` to ``shape``, axis by axis (paper, section 3.3).

    Args:
        state: channels, channels, kernel height, kernel width.
        shape: four numbers, none larger than the state's.
    """
    if tuple(state.shape[:2]) != tuple(shape[:2]):
        planes = state.permute(2, 3, 0, 1).flatten(0, 1)[None]
        planes = F.adaptive_avg_pool2d(planes, (shape[0], shape[1]))
        state = planes[0].unflatten(0, state.shape[2:]).permute(2, 3, 0, 1)
    if tuple(state.shape[2:]) != tuple(shape[2:]):
        state = F.adaptive_avg_pool2d(state, (shape[2], shape[3]))
    return state


def pool_macs(state: Sequence[int], shape: Sequence[int]) -> int:
    """Multiply-adds of :func:`pool`, counted as fvcore does: one a number that is averaged."""
    channels = tuple(state[:2]) != tuple(shape[:2])
    pixels = tuple(state[2:]) != tuple(shape[2:])
    return channels * math.prod(state) + pixels * math.prod((*shape[:2], *state[2:]))


def tile(states: Sequence[Tensor], grid: tuple[int, int], shape: Sequence[int]) -> Tensor:
    """Lay a weight out from ``grid[0] * grid[1]`` consecutive states, row by row.

    Each state is pooled to its tile; tiles differ by at most one channel in each direction.

    Args:
        states: the states of consecutive Euler steps.
        grid: tiles along the first and the second channel axis.
        shape: of the weight, its first two axes in the state's order.
    """
    cells = [pool(h, cell) for h, cell in zip(states, tiles(grid, shape), strict=True)]
    columns = grid[1]
    rows = [torch.cat(cells[i : i + columns], dim=1) for i in range(0, len(cells), columns)]
    return torch.cat(rows, dim=0)


def tiles(grid: tuple[int, int], shape: Sequence[int]) -> list[tuple[int, ...]]:
    """Shapes of the tiles that :func:`tile` lays out, row by row."""
    heights, widths = split(shape[0], grid[0]), split(shape[1], grid[1])
    return [(height, width, *shape[2:]) for height in heights for width in widths]


def split(total: int, parts: int) -> list[int]:
    """``parts`` numbers that sum to ``total`` and differ by at most one, larger ones first."""
    return [total // parts + (part < total % parts) for part in range(parts)]


def rescale(weight: Tensor, gain: Tensor) -> Tensor:
    """Give ``weight`` the variance ``gain ** 2 / fan_in`` about zero.

    Pooling and tanh leave a site's scale to chance; this sets it (He et al., 2015, up to the gain).

    Args:
        weight: output channels, input channels per group, kernel height, kernel width.
        gain: a scalar.
    """
    fan_in = weight[0].numel()
    mean_square = weight.square().mean()
    return weight * (gain * torch.rsqrt(mean_square * fan_in + torch.finfo(weight.dtype).tiny))
