"""The puppeteer: the small module whose trajectories are cut into a network's weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn
from typing_extensions import Self

from puppetize import adapter, derivative, start
from puppetize.config import PuppetConfig
from puppetize.ode import euler
from puppetize.plan import Group, Plan, Site

# Complexity of every image, until the input decides (paper, Eq. 9 and 11).
_COMPLEXITY = 1.0


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
        if torch.get_default_device().type == "meta":
            return torch.empty(self.group.state)
        if self.config.start == "constant":
            return start.constant(self.group.state, _COMPLEXITY)
        return start.seeded(self.group.state, self.config.seed, self.stream)

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
        dtype = next(self.parameters()).dtype
        state = self.start.to(torch.promote_types(dtype, torch.float32))
        states = euler(
            self._steps(),
            state.contiguous(memory_format=torch.channels_last),
            self.config.step_size,
        )
        return {
            site.name: self._weight(site, number, states).to(dtype)
            for number, site in enumerate(self.group.sites)
        }

    def _steps(self) -> Iterator[nn.Module]:
        for module, steps in zip(self.derivatives, self.group.derivatives, strict=True):
            for _ in range(steps):
                yield module

    def _weight(self, site: Site, number: int, states: Iterator[Tensor]) -> Tensor:
        weight = adapter.tile(
            [next(states) for _ in range(site.steps)], site.grid, site.state_shape
        )
        if site.transposed:
            weight = weight.transpose(0, 1)
        weight = weight.contiguous()
        if self.gains is None:
            return weight
        return adapter.rescale(weight, self.gains[number].to(weight.dtype))
