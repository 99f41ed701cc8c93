"""From states to the weight of one site: average pooling down, tiling up."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def pool(state: Tensor, shape: Sequence[int]) -> Tensor:
    """Average-pool ``state`` to ``shape``, axis by axis (paper, section 3.3).

    Args:
        state: channels, channels, kernel height, kernel width.
        shape: four numbers, none larger than the state's.
    """
    if state.shape[0] != shape[0]:
        state = _pool_first(state.permute(0, 2, 3, 1), shape[0]).permute(0, 3, 1, 2)
    if state.shape[1] != shape[1]:
        state = _pool_first(state.transpose(0, 1), shape[1]).transpose(0, 1)
    if tuple(state.shape[2:]) != tuple(shape[2:]):
        state = F.adaptive_avg_pool2d(state, (shape[2], shape[3]))
    return state


def _pool_first(tensor: Tensor, length: int) -> Tensor:
    """Adaptive average pooling of the first axis; the result is contiguous.

    The windows are bags of rows of a table: on CPUs that takes a twentieth of the time of
    ``adaptive_avg_pool2d`` over planes.
    """
    windows = _windows(tensor.shape[0], length)
    members = [row for window in windows for row in window]
    firsts = [0, *itertools.accumulate(len(window) for window in windows[:-1])]
    means = F.embedding_bag(
        torch.tensor(members, device=tensor.device),
        tensor.reshape(tensor.shape[0], -1),
        torch.tensor(firsts, device=tensor.device),
        mode="mean",
    )
    return means.unflatten(1, tensor.shape[1:])


def _windows(total: int, length: int) -> list[range]:
    """What each of ``length`` averages is over, as in ``adaptive_avg_pool2d``."""
    return [range(i * total // length, -(-(i + 1) * total // length)) for i in range(length)]


def pool_macs(shape: Sequence[int], pooled: Sequence[int]) -> int:
    """Multiply-adds of :func:`pool` that fvcore counts, which are those of pooling kernel axes."""
    return 0 if shape[2:] == pooled[2:] else math.prod((*pooled[:2], *shape[2:]))


def tile(
    states: Iterable[Tensor],
    grid: tuple[int, int],
    shape: Sequence[int],
    *,
    transposed: bool = False,
) -> Tensor:
    """Lay a weight out from ``grid[0] * grid[1]`` consecutive states, row by row.

    Each state is pooled to its tile; tiles differ by at most one channel in each direction.

    Args:
        states: the states of consecutive Euler steps.
        grid: tiles along the first and the second channel axis.
        shape: of the weight, its first two axes in the state's order.
        transposed: whether the weight gets these two in the other order.

    Returns:
        A new contiguous tensor.
    """
    down, right = (1, 0) if transposed else (0, 1)
    # Without kernel axes, whose order in memory torch.cat would take from its arguments.
    cells = (cell.transpose(0, down).flatten(2) for cell in map(pool, states, tiles(grid, shape)))
    if torch.is_grad_enabled():
        rows = [torch.cat(list(itertools.islice(cells, grid[1])), right) for _ in range(grid[0])]
        weight = torch.cat(rows, down) if len(rows) > 1 else rows[0]
    else:
        weight = _lay(cells, down, right, shape)
    return weight.unflatten(2, tuple(shape[2:]))


def _lay(cells: Iterator[Tensor], down: int, right: int, shape: Sequence[int]) -> Tensor:
    """The same without gradients, with one cell at a time in memory."""
    weight: Tensor | None = None
    top = left = 0
    for cell in cells:
        if weight is None:
            weight = cell.new_empty(shape[down], shape[right], math.prod(shape[2:]))
        part = weight.narrow(down, top, cell.shape[down]).narrow(right, left, cell.shape[right])
        part.copy_(cell)
        left += cell.shape[right]
        if left == shape[1]:
            top, left = top + cell.shape[down], 0
    assert weight is not None
    return weight


def tiles(grid: tuple[int, int], shape: Sequence[int]) -> list[tuple[int, ...]]:
    """Shapes of the tiles that :func:`tile` lays out, row by row."""
    heights, widths = split(shape[0], grid[0]), split(shape[1], grid[1])
    return [(height, width, *shape[2:]) for height in heights for width in widths]


def split(total: int, parts: int) -> list[int]:
    """``parts`` numbers that sum to ``total`` and differ by at most one, larger ones first."""
    return [total // parts + (part < total % parts) for part in range(parts)]


def rescale(weight: Tensor, gain: Tensor, *, in_place: bool = False) -> Tensor:
    """Give ``weight`` the variance ``gain ** 2 / fan_in`` about zero.

    Pooling and tanh leave a site's scale to chance; this sets it (He et al., 2015, up to the gain).

    Args:
        weight: output channels, input channels per group, kernel height, kernel width.
        gain: a scalar.
        in_place: change ``weight`` itself, where no gradient has to flow.
    """
    energy = torch.linalg.vector_norm(weight.flatten(1), dim=1).square()  # of fan_in numbers
    factor = gain * torch.rsqrt(energy.mean() + torch.finfo(weight.dtype).tiny)
    return weight.mul_(factor) if in_place else weight * factor
