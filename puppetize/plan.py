"""Which sites are generated, by which state, at which Euler steps: pure data, no tensors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from puppetize.errors import PuppetizeError

Shape = tuple[int, int, int, int]


class PaperCount(NamedTuple):
    """Size as the paper's Table 5 states it.

    It leaves out what the paper leaves out: the puppet's norms, biases and classifier, and any
    container. ``megabytes`` does not contain the states' start, which ``params`` counts.
    """

    params: int
    megabytes: float


@dataclass(frozen=True)
class Site:
    """One convolution weight that is generated.

    Attributes:
        name: of the ``Conv2d`` in ``named_modules()``.
        aliases: other names under which the same weight is found.
        shape: output channels, input channels per group, kernel height, kernel width.
        transposed: whether the state's first channel axis is the site's input axis.
        grid: tiles along the state's first and second channel axis.
        first_step: number of the Euler step that gives the first tile; the first step is 1.
    """

    name: str
    aliases: tuple[str, ...]
    shape: Shape
    transposed: bool
    grid: tuple[int, int]
    first_step: int

    @property
    def steps(self) -> int:
        """Euler steps that the site takes: its number of tiles."""
        return self.grid[0] * self.grid[1]

    @property
    def state_shape(self) -> Shape:
        """The weight's shape with the channel axes in the state's order."""
        first, second, *kernel = self.shape
        return (second, first, *kernel) if self.transposed else self.shape  # type: ignore[return-value]

    @property
    def numel(self) -> int:
        """Numbers in the weight."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Group:
    """Sites that share one state.

    Attributes:
        state: shape of the state: channels, mixed channels, kernel height, kernel width.
        derivatives: Euler steps that each derivative serves, in order; one number where one
            derivative serves all.
        sites: in execution order.
    """

    state: Shape
    derivatives: tuple[int, ...]
    sites: tuple[Site, ...]

    @property
    def steps(self) -> int:
        """Euler steps from the start to the last site."""
        return sum(self.derivatives)


@dataclass(frozen=True)
class Kept:
    """A ``Conv2d`` whose weight is stored as it is, and why.

    Attributes:
        name: of the ``Conv2d``.
        aliases: other names under which the same weight is found.
        shape: of its weight.
        reason: a phrase.
    """

    name: str
    aliases: tuple[str, ...]
    shape: Shape
    reason: str


@dataclass(frozen=True)
class Plan:
    """All convolutions of a network.

    Attributes:
        groups: of generated sites.
        kept: convolutions that stay.
        order: names of all convolutions in execution order, those that never run last.
    """

    groups: tuple[Group, ...]
    kept: tuple[Kept, ...]
    order: tuple[str, ...]

    @property
    def sites(self) -> Iterator[Site]:
        """Generated sites, group by group."""
        return (site for group in self.groups for site in group.sites)

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Plan:
        """Inverse of :meth:`to_dict`, after a trip through JSON.

        Raises:
            PuppetizeError: the plan is not one that this library could have made.
        """
        try:
            plan = Plan(
                groups=tuple(
                    Group(
                        _ints(group["state"], 4),  # type: ignore[arg-type]
                        _ints(group["derivatives"]),
                        tuple(_site(site) for site in group["sites"]),
                    )
                    for group in values["groups"]
                ),
                kept=tuple(
                    Kept(
                        str(kept["name"]),
                        tuple(map(str, kept["aliases"])),
                        _ints(kept["shape"], 4),  # type: ignore[arg-type]
                        str(kept["reason"]),
                    )
                    for kept in values["kept"]
                ),
                order=tuple(map(str, values["order"])),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise PuppetizeError(
                f"the plan is malformed ({type(error).__name__}: {error}); the file is damaged or "
                "was not written by puppetize"
            ) from error
        plan._check()
        return plan

    def _check(self) -> None:
        named = [site.name for site in self.sites] + [kept.name for kept in self.kept]
        if sorted(named) != sorted(self.order) or len(set(named)) != len(named):
            raise PuppetizeError("the plan is malformed: its order does not name each site once")
        for group in self.groups:
            # No state is larger than its sites, and no grid finer than it must be: otherwise a
            # few bytes of a damaged file would ask for any amount of memory or time.
            shapes = [site.state_shape for site in group.sites]
            largest = tuple(max(axis) for axis in zip(*shapes, strict=True))
            if not shapes or any(a > b for a, b in zip(group.state, largest, strict=True)):
                raise PuppetizeError(
                    f"the plan is malformed: the state {group.state} is larger than its sites, "
                    f"{largest or 'of which it has none'}"
                )
            step = 1
            for site in group.sites:
                grid = tuple(math.ceil(site.state_shape[i] / group.state[i]) for i in (0, 1))
                fits = site.grid == grid and all(
                    a <= b for a, b in zip(site.shape[2:], group.state[2:], strict=True)
                )
                if site.first_step != step or not fits:
                    raise PuppetizeError(
                        f"the plan is malformed: {site.name} with shape {site.shape} in a grid of "
                        f"{site.grid} from step {site.first_step} does not follow from the state "
                        f"{group.state} at step {step}"
                    )
                step += site.steps
            if group.steps != step - 1:
                raise PuppetizeError(
                    f"the plan is malformed: derivatives for {group.steps} steps, sites for "
                    f"{step - 1}"
                )

    def __str__(self) -> str:
        lines = []
        for number, group in enumerate(self.groups):
            lines.append(
                f"group {number}: state {_by(group.state)}, {group.steps} Euler steps, "
                f"{len(group.derivatives)} derivative(s), {len(group.sites)} sites"
            )
            for site in group.sites:
                last = site.first_step + site.steps - 1
                steps = f"{site.first_step}" if site.steps == 1 else f"{site.first_step}-{last}"
                turned = ", transposed" if site.transposed else ""
                lines.append(f"  {site.name:<40} {_by(site.shape):<20} step {steps}{turned}")
        if self.kept:
            lines.append("kept:")
            lines += [f"  {k.name:<40} {_by(k.shape):<20} {k.reason}" for k in self.kept]
        return "\n".join(lines)


def _site(values: Mapping[str, Any]) -> Site:
    grid = _ints(values["grid"], 2)
    return Site(
        name=str(values["name"]),
        aliases=tuple(map(str, values["aliases"])),
        shape=_ints(values["shape"], 4),  # type: ignore[arg-type]
        transposed=bool(values["transposed"]),
        grid=grid,  # type: ignore[arg-type]
        first_step=int(values["first_step"]),
    )


def _ints(values: Any, length: int | None = None) -> tuple[int, ...]:
    numbers = tuple(values)
    if length is not None and len(numbers) != length:
        raise ValueError(f"expected {length} numbers, found {len(numbers)}")
    if not all(type(n) is int and n > 0 for n in numbers):
        raise ValueError(f"expected positive integers, found {numbers}")
    return numbers


def _by(shape: Shape) -> str:
    return "x".join(map(str, shape))
