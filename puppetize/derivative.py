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
_FEWEST_CHANNELS = 128
_HAS_ONEDNN = torch.backends.mkldnn.is_available()
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
        return _norm(state, _cast(self.weight, state), _cast(self.bias, state))


class StateNormTanh(StateNorm):
    """The same norm and a tanh after it.

    The tanh is ``2 sigmoid(2 x) - 1``, with the inner factor in the norm: equal up to 1e-7, and
    several times faster than ``torch.tanh`` on CPUs.
    """

    def forward(self, state: Tensor) -> Tensor:
        doubled = _norm(state, 2 * _cast(self.weight, state), 2 * _cast(self.bias, state))
        if torch.is_grad_enabled():
            return torch.sigmoid(doubled).mul(2).sub_(1)
        return doubled.sigmoid_().mul_(2).sub_(1)


def _norm(state: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
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
    """One square matrix that mixes the channels: a matrix product over all pixels.

    It starts orthogonal: applied once a step, any other would let its largest singular values win.
    """

    def __init__(self, channels: int, *, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, channels))
        if self.weight.device.type != "meta":
            nn.init.orthogonal_(self.weight)
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None

    def forward(self, state: Tensor) -> Tensor:
        weight, bias = _cast(self.weight, state), _cast(self.bias, state)
        rows = state.permute(0, 2, 3, 1)
        images = _images(rows)
        if images is None:
            return F.linear(rows, weight, bias).permute(0, 3, 1, 2)
        strips = rows.reshape(images, 1, -1, rows.shape[-1]).permute(0, 3, 1, 2)
        mixed = F.conv2d(strips, weight[:, :, None, None], bias)
        return mixed.permute(0, 2, 3, 1).reshape(rows.shape).permute(0, 3, 1, 2)


def _images(rows: Tensor) -> int | None:
    """Into how many images to cut ``rows`` so that oneDNN multiplies; None where it should not.

    On CPUs torch gives matrix products to MKL, which leaves half of an AVX-512 core idle unless it
    is Intel's, and 1x1 convolutions to oneDNN, which does not, from 16 images on. Few channels are
    not worth the reordering, nor are images of few pixels.
    """
    if rows.device.type != "cpu" or rows.dtype != torch.float32 or not _HAS_ONEDNN:
        return None
    if rows.shape[-1] < _FEWEST_CHANNELS:
        return None
    pixels = rows.shape[0] * rows.shape[1] * rows.shape[2]
    return next((n for n in range(16, 65) if pixels % n == 0), None)


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
            StateNormTanh(channels),
        )
    layers: list[nn.Module] = []
    if reach != (1, 1):
        layers.append(Depthwise(channels, reach, bias=False))
    layers += [Pointwise(channels, bias=False), StateNormTanh(channels)]
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
