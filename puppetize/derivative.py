"""Right-hand sides of the ODE: ``g(h; phi)`` of the paper's Eq. 6.

A state is read as a batch: its first channel axis counts samples, its second channels, its kernel
axes height and width. One depthwise-separable convolution mixes the second axis; the same numbers
serve every slice along the first.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from puppetize.config import DerivativeKind

_EPS = 1e-5
_REACH = 3
_NORM_MACS = 5  # what fvcore counts for one number in a norm with scale and shift


class StateNorm(nn.Module):
    """Batch norm by the state's own statistics, in training and in evaluation alike.

    One norm serves many Euler steps whose statistics differ, so running statistics, which average
    over steps, would belong to none of them.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, state: Tensor) -> Tensor:
        weight, bias = _cast(self.weight, state), _cast(self.bias, state)
        return F.batch_norm(state, None, None, weight, bias, training=True, eps=_EPS)


class Depthwise(nn.Module):
    """One small filter a mixed channel, zero-padded: the state keeps its shape."""

    def __init__(self, channels: int, reach: tuple[int, int], *, bias: bool) -> None:
        super().__init__()
        self.padding = (reach[0] // 2, reach[1] // 2)
        fan_in = reach[0] * reach[1]
        self.weight = nn.Parameter(torch.randn(channels, 1, *reach) * fan_in**-0.5)
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None

    def forward(self, state: Tensor) -> Tensor:
        weight, bias = _cast(self.weight, state), _cast(self.bias, state)
        return F.conv2d(state, weight, bias, padding=self.padding, groups=state.shape[1])


class Pointwise(nn.Module):
    """One square matrix that mixes the channels.

    It is applied as a matrix product over all pixels of all samples: a 1x1 convolution of
    3x3-pixel images does the same an order of magnitude slower on CPUs, in its backward pass.
    """

    def __init__(self, channels: int, *, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, channels) * channels**-0.5)
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None

    def forward(self, state: Tensor) -> Tensor:
        weight, bias = _cast(self.weight, state), _cast(self.bias, state)
        return F.linear(state.permute(0, 2, 3, 1), weight, bias).permute(0, 3, 1, 2)


@overload
def _cast(tensor: Tensor, state: Tensor) -> Tensor: ...
@overload
def _cast(tensor: Tensor | None, state: Tensor) -> Tensor | None: ...
def _cast(tensor: Tensor | None, state: Tensor) -> Tensor | None:
    """A parameter in the precision of the state, which is never below float32."""
    return None if tensor is None else tensor.to(state.dtype)


def build(kind: DerivativeKind, channels: int, kernel: tuple[int, int]) -> nn.Module:
    """The derivative of states with ``channels`` mixed channels and kernels of ``kernel`` pixels.

    ``"normalised"``: depthwise, pointwise, norm, tanh; ``C**2 + 11 C`` numbers for 3x3 kernels
    (a depthwise convolution of 1x1 kernels would repeat what the pointwise one does: left out).
    ``"paper"``: biases and a norm after each convolution, ``C**2 + 15 C`` numbers (Table 5).
    """
    reach = (_REACH if kernel[0] > 1 else 1, _REACH if kernel[1] > 1 else 1)
    if kind == "paper":
        reach = (_REACH, _REACH)
        return nn.Sequential(
            Depthwise(channels, reach, bias=True),
            StateNorm(channels),
            Pointwise(channels, bias=True),
            StateNorm(channels),
            nn.Tanh(),
        )
    layers: list[nn.Module] = []
    if reach != (1, 1):
        layers.append(Depthwise(channels, reach, bias=False))
    layers += [Pointwise(channels, bias=False), StateNorm(channels), nn.Tanh()]
    return nn.Sequential(*layers)


@functools.cache
def count(kind: DerivativeKind, channels: int, kernel: tuple[int, int]) -> int:
    """Numbers that :func:`build` stores."""
    with torch.device("meta"):
        return sum(p.numel() for p in build(kind, channels, kernel).parameters())


def macs(kind: DerivativeKind, state: Sequence[int]) -> int:
    """Multiply-adds of one evaluation on a state of this shape, counted as fvcore does."""
    channels, kernel = state[1], (state[2], state[3])
    numel = math.prod(state)
    with torch.device("meta"):
        layers = build(kind, channels, kernel)
    total = 0
    for layer in layers.children():
        if isinstance(layer, Depthwise):
            total += numel * layer.weight[0].numel()
        elif isinstance(layer, Pointwise):
            total += numel * channels
        elif isinstance(layer, StateNorm):
            total += numel * _NORM_MACS
    return total
