"""The first state of an ODE: seeded numbers that are the same everywhere and for ever.

Philox4x64-10 (Salmon et al., 2011, "Parallel random numbers: as easy as 1, 2, 3"), key
``(seed, stream)``, counter from 1, gives one 64-bit word an element, in row-major order. The word
is cut into four 16-bit integers ``a, b, c, d``, and the element is

    (a + b + c + d - 131070) * sqrt(3 / (2**32 - 1))

computed in float64 and rounded to float32. The sum is exact, its mean is 0 and its variance 1, and
nothing but one multiplication is rounded: no library function whose last bit varies is involved.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

# Offsets along the two channel axes advance by these shares of their range (the plastic number's
# powers, which spread points evenly over a plane).
_RATIOS = (0.7548776662466927, 0.5698402909980532)
# Windows move within one part in this many of the state's size.
_SLACK = 4
_LANES = 4
_LANE_BITS = 16
_LANE_MAX = 2**_LANE_BITS - 1
_MEAN = _LANES * _LANE_MAX // 2
# A uniform integer below 2**16 has variance (2**32 - 1) / 12; four of them a third of 2**32 - 1.
_UNIT = math.sqrt(3 / (2**32 - 1))
# Elements at a time: what is computed on the way takes ten times the memory of the result.
_CHUNK = 2**18


def seeded(shape: Sequence[int], seed: int, stream: int) -> Tensor:
    """Independent numbers of mean 0 and variance 1, nearly Gaussian (a sum of four uniforms).

    Args:
        shape: of the result.
        seed: first word of the Philox key.
        stream: second word of the key; states of one model differ in it.

    Returns:
        A float32 tensor on the CPU.
    """
    philox = np.random.Philox(key=np.array([seed, stream], dtype=np.uint64))
    numbers = np.empty(math.prod(shape), dtype=np.float32)
    for first in range(0, len(numbers), _CHUNK):
        part = numbers[first : first + _CHUNK]
        words = philox.random_raw(len(part))
        total = np.full(words.shape, -_MEAN, dtype=np.int64)
        for lane in range(_LANES):
            shift = np.uint64(_LANE_BITS * lane)
            total += ((words >> shift) & np.uint64(_LANE_MAX)).view(np.int64)
        part[:] = total * _UNIT
    return torch.from_numpy(numbers.reshape(tuple(shape)))


def constant(shape: Sequence[int], value: float) -> Tensor:
    """One repeated value (paper, Eq. 11)."""
    return torch.full(tuple(shape), value)


def field_shape(state: Sequence[int]) -> tuple[int, ...]:
    """Shape of the numbers in which windows of the state's shape move: a quarter more channels."""
    return (*(size + _slack(size) for size in state[:2]), *state[2:])


def window(field: Tensor, state: Sequence[int], step: int) -> Tensor:
    """The part of ``field`` that drives Euler step ``step``; a view.

    Along each channel axis its offset is ``step * stride`` modulo the number of offsets, where the
    stride is coprime with that number, so that every offset is used before one is used again.

    Args:
        field: numbers of shape ``field_shape(state)``.
        state: shape of the state.
        step: from 0, whose window begins at the first number.
    """
    for axis, ratio in enumerate(_RATIOS):
        offsets = _slack(state[axis]) + 1
        stride = round(offsets * ratio)
        while math.gcd(stride, offsets) != 1:
            stride += 1
        field = field.narrow(axis, step * stride % offsets, state[axis])
    return field


def _slack(size: int) -> int:
    return -(-size // _SLACK)
