"""The puppeteer: the small module whose trajectories are cut into a network's weights."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from typing_extensions import Self

from puppetize import adapter, derivative, start
from puppetize.config import PuppetConfig
from puppetize.ode import Derivative, euler, relax
from puppetize.plan import Group, Plan

# Complexity of every image, until the input decides (paper, Eq. 9 and 11).
_COMPLEXITY = 1.0
# Tensors of the state's size that an Euler step keeps for its backward pass.
_KEPT_STATES = 5
# Bytes kept for a group's backward pass from which on computing anew is worth its time.
_WORTH_RECOMPUTING = 2**30


class Puppeteer(nn.Module):
    """One ODE a group of the plan; calling it gives every generated weight.

    Args:
        plan: sites and states.
        config: settings; with ``plan`` they determine every shape and every start.
        scales: initial gains by site name: root mean square of the original weight times the
            square root of its fan-in. 1 where a name is missing.
    """

    def __init__(
        self, plan: Plan, config: PuppetConfig, scales: Mapping[str, float] | None = None
    ) -> None:
        super().__init__()
        self.groups = nn.ModuleList(
            Trajectory(group, config, stream, scales or {})
            for stream, group in enumerate(plan.groups)
        )

    def forward(self) -> dict[str, Tensor]:
        """All weights by site name, in the parameters' dtype, on their device.

        They do not depend on training mode, nor on autocast: generation runs in float32 or better.
        """
        device = next(self.parameters()).device.type
        with torch.autocast(device, enabled=False):
            return {name: w for group in self.groups for name, w in group().items()}


class Trajectory(nn.Module):
    """The ODE of one group of sites: start, derivatives, and one gain a site."""

    start: Tensor

    def __init__(
        self, group: Group, config: PuppetConfig, stream: int, scales: Mapping[str, float]
    ) -> None:
        super().__init__()
        self.group = group
        kernel = (group.state[2], group.state[3])
        self.derivatives = nn.ModuleList(
            derivative.build(config.derivative, group.state[1], kernel) for _ in group.derivatives
        )
        gains = torch.tensor([scales.get(site.name, 1.0) for site in group.sites])
        self.gains = nn.Parameter(gains) if config.site_gains else None
        self.config, self.stream = config, stream
        self.register_buffer("start", self._start(), persistent=False)

    def _start(self) -> Tensor:
        shape: tuple[int, ...] = self.group.state
        if self._driven:
            shape = start.field_shape(shape)
        if torch.get_default_device().type == "meta":
            return torch.empty(shape)
        if self.config.start == "constant":
            numbers = start.constant(shape, _COMPLEXITY)
        else:
            numbers = start.seeded(shape, self.config.seed, self.stream)
        return numbers.contiguous(memory_format=torch.channels_last)

    @property
    def _driven(self) -> bool:
        return self.config.dynamics == "driven"

    @property
    def _integrate(self) -> Callable[[Iterable[Derivative], Tensor, float], Iterator[Tensor]]:
        return relax if self._driven else euler

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = self.start
        super()._apply(fn, recurse)
        # The start is not stored, so it must not depend on the dtypes that a puppet went through.
        if self.start.device.type != "meta":
            exact = self._start() if before.device.type == "meta" else before
            self.start = exact.to(self.start.device)
        return self

    def forward(self) -> dict[str, Tensor]:
        """Weights of the group's sites by name."""
        if self._recomputes():
            return self._recomputed()
        # No name for the first state, so that it does not outlive the first step.
        states = self._integrate(
            self._steps(self.derivatives), self._first_state(), self.config.step_size
        )
        return self._weights(range(len(self.group.sites)), states, self.gains)

    def _numbers(self) -> Tensor:
        """The start in the precision of the states."""
        return self.start.to(torch.promote_types(next(self.parameters()).dtype, torch.float32))

    def _first_state(self) -> Tensor:
        first = self._numbers()
        if self._driven:
            first = start.window(first, self.group.state, 0)
        return first.contiguous(memory_format=torch.channels_last)

    def _recomputes(self) -> bool:
        """Whether the backward pass is to compute states anew instead of keeping all of them."""
        if not torch.is_grad_enabled() or transforming():
            return False
        kept = _KEPT_STATES * self.group.steps * self.start.numel() * self.start.element_size()
        return kept >= _WORTH_RECOMPUTING and any(p.requires_grad for p in self.parameters())

    def _pieces(self) -> list[range]:
        """Runs of sites that are computed anew together, by their numbers.

        One state a piece is kept, and what one piece computes is there at a time: the sum of both
        is least where a piece has ``sqrt(steps / _KEPT_STATES)`` steps.
        """
        sites = self.group.sites
        length = math.sqrt(self.group.steps / _KEPT_STATES)
        pieces: list[range] = []
        first = 0
        for number, site in enumerate(sites, start=1):
            steps = site.first_step + site.steps - sites[first].first_step
            if steps >= length or number == len(sites):
                pieces.append(range(first, number))
                first = number
        return pieces

    def _recomputed(self) -> dict[str, Tensor]:
        # Parameters as they are now: torch.func.functional_call will have put others back when
        # the backward pass comes.
        derivatives = [
            functools.partial(torch.func.functional_call, module, dict(module.named_parameters()))
            for module in self.derivatives
        ]
        steps = list(self._steps(derivatives))
        gains = self.gains

        def run(numbers: range, state: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            first, last = self.group.sites[numbers[0]], self.group.sites[numbers[-1]]
            piece = steps[first.first_step - 1 : last.first_step - 1 + last.steps]
            states = list(self._integrate(piece, state, self.config.step_size))
            return states[-1], self._weights(numbers, iter(states), gains)

        state = self._first_state()
        weights: dict[str, Tensor] = {}
        for numbers in self._pieces():
            state, made = checkpoint(
                run, numbers, state, use_reentrant=False, preserve_rng_state=False
            )
            weights |= made
        return weights

    def _steps(self, derivatives: Iterable[Derivative]) -> Iterator[Derivative]:
        runs = zip(derivatives, self.group.derivatives, strict=True)
        modules = (module for module, steps in runs for _ in range(steps))
        if not self._driven:
            yield from modules
            return
        numbers = self._numbers()
        for step, module in enumerate(modules, start=1):
            yield functools.partial(_target, module, start.window(numbers, self.group.state, step))

    def _weights(
        self, numbers: range, states: Iterator[Tensor], gains: Tensor | None
    ) -> dict[str, Tensor]:
        weights = {}
        dtype = next(self.parameters()).dtype
        for number in numbers:
            site = self.group.sites[number]
            cells = map(_branch, itertools.islice(states, site.steps))
            weight = adapter.tile(cells, site.grid, site.state_shape, transposed=site.transposed)
            if gains is not None:
                gain = gains[number].to(weight.dtype)
                weight = adapter.rescale(weight, gain, in_place=not torch.is_grad_enabled())
            weights[site.name] = weight.to(dtype)
        return weights


def _target(derivative: Derivative, drive: Tensor, state: Tensor) -> Tensor:
    return derivative(state + drive)


def transforming() -> bool:
    """Whether numbers are not to be looked at: under torch.compile, torch.func and torch.jit."""
    return (
        torch.compiler.is_compiling()
        or torch._C._is_tracing()
        or torch._C._functorch.maybe_current_level() is not None
    )


def _branch(state: Tensor) -> Tensor:
    """``state``, for the weights; the gradient from there gets the layout of the ODE's own.

    Adding gradients of two layouts, and norms that get one of another, take several times longer.
    """
    if not state.requires_grad or torch.compiler.is_compiling():
        return state
    branch = state.view_as(state)
    branch.register_hook(_channels_last)
    return branch


def _channels_last(gradient: Tensor) -> Tensor:
    return gradient.contiguous(memory_format=torch.channels_last)
