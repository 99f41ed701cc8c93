"""Euler's method (paper, Eq. 7), for ODEs of two forms."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

Derivative = Callable[[Tensor], Tensor]


def euler(derivatives: Iterable[Derivative], state: Tensor, step_size: float) -> Iterator[Tensor]:
    """States ``h_1, h_2, ...`` of ``h_{t+1} = h_t + step_size * g_t(h_t)``, one a derivative.

    Args:
        derivatives: ``g_0, g_1, ...``; an autonomous ODE repeats one of them.
        state: ``h_0``, of any shape; it is not yielded.
        step_size: ``dt``, in units of the ODE's time.
    """
    for derivative in derivatives:
        state = torch.add(state, derivative(state), alpha=step_size)
        yield state


def relax(targets: Iterable[Derivative], state: Tensor, step_size: float) -> Iterator[Tensor]:
    """Euler's method for ``dh/dt = f(h, t) - h``: states relax towards ever new targets.

    ``h_{t+1} = h_t + step_size * (f_t(h_t) - h_t)``; with a step of 1, ``h_{t+1} = f_t(h_t)``.

    Args:
        targets: ``f_0, f_1, ...``, one a step.
        state: ``h_0``, of any shape; it is not yielded.
        step_size: ``dt``, in units of the ODE's time.
    """
    for target in targets:
        reached = target(state)
        state = reached if step_size == 1 else torch.lerp(state, reached, step_size)
        yield state
