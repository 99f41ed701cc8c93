"""How weights are generated: a versioned, frozen dataclass that goes to JSON and back."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from puppetize.errors import PuppetizeError

CONFIG_VERSION = 1

Start = Literal["seeded", "constant"]
Sharing = Literal["kernel", "all"]
Dynamics = Literal["driven", "free"]
DerivativeKind = Literal["normalised", "paper"]

_CHOICES = {
    "start": ("seeded", "constant"),
    "sharing": ("kernel", "all"),
    "dynamics": ("driven", "free"),
    "derivative": ("normalised", "paper"),
}


@dataclass(frozen=True)
class PuppetConfig:
    """Settings of the puppeteer and of the plan it follows.

    Attributes:
        start: first state of every ODE. ``"seeded"``: independent numbers from Philox bits, which
            cost no bytes. ``"constant"``: one repeated value (paper, Eq. 11).
        seed: key of the seeded start; any integer from 0 to 2**64 - 1.
        sharing: which sites share one state. ``"kernel"``: those with the same kernel size.
            ``"all"``: every site (paper, section 3.3).
        dynamics: ``"driven"``: ``dh/dt = g(h + xi(t)) - h``, where ``xi(t)`` are windows of the
            seeded start that move from step to step, so that states of many steps do not fall
            into line with each other. ``"free"``: ``dh/dt = g(h)`` (paper, Eq. 6).
        derivative: ``g``. ``"normalised"``: depthwise, pointwise, norm, tanh, without the biases
            that a norm cancels. ``"paper"``: biases, and a norm after both convolutions (the count
            of the paper's Table 5).
        step_size: Euler step ``dt`` (paper, Eq. 7).
        width: most channels that the derivative mixes; sites with more are tiled from several
            states. None: the maximum over the sites.
        height: the same for the state's other channel axis, which costs memory but no bytes.
        narrow_axis: mix the narrower channel axis of a site, transposing weights where needed;
            else always the input channels.
        tiling: lay sites that are larger than their state out from consecutive Euler steps.
        site_gains: rescale each weight to variance ``gain ** 2 / fan_in``, with one learned gain a
            site that starts at the original weight's own scale.
        depthwise: generate depthwise convolutions too.
        min_saving: a group of sites is generated only if that stores this many times fewer
            numbers than the weights themselves; its state is narrowed until it does.
        version: of this class; newer versions are refused by older libraries.
    """

    start: Start = "seeded"
    seed: int = 0
    sharing: Sharing = "kernel"
    dynamics: Dynamics = "driven"
    derivative: DerivativeKind = "normalised"
    step_size: float = 1.0
    width: int | None = 512
    height: int | None = 512
    narrow_axis: bool = True
    tiling: bool = True
    site_gains: bool = True
    depthwise: bool = False
    min_saving: float = 10.0
    version: int = CONFIG_VERSION

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                self._refuse(name, "one of " + ", ".join(map(repr, choices)))
        for name in ("seed", "width", "height", "version"):
            value = getattr(self, name)
            if type(value) is not int and not (value is None and name in ("width", "height")):
                self._refuse(name, "an integer")
        for name in ("step_size", "min_saving"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not math.isfinite(value):
                self._refuse(name, "a finite number")
        for name in ("narrow_axis", "tiling", "site_gains", "depthwise"):
            if type(getattr(self, name)) is not bool:
                self._refuse(name, "True or False")
        if not 0 <= self.seed < 2**64:
            self._refuse("seed", "an integer from 0 to 2**64 - 1")
        for name in ("width", "height"):
            value = getattr(self, name)
            if value is not None and value < 1:
                self._refuse(name, "a positive number of channels, or None")
        if not self.step_size > 0:
            self._refuse("step_size", "a positive number")
        if not self.min_saving >= 0:
            self._refuse("min_saving", "zero or more")
        if self.dynamics == "driven" and self.start == "constant":
            raise PuppetizeError(
                "PuppetConfig: the windows of a constant start do not differ, so they cannot drive "
                "the ODE; set dynamics='free', or start='seeded'"
            )
        if not self.tiling and (self.width is not None or self.height is not None):
            raise PuppetizeError(
                "PuppetConfig: without tiling a state must be as large as its largest site; set "
                "width=None and height=None, or tiling=True"
            )
        if self.version != CONFIG_VERSION:
            self._refuse("version", f"{CONFIG_VERSION}, the newest known here; upgrade puppetize")

    def _refuse(self, name: str, expected: str) -> None:
        raise PuppetizeError(f"PuppetConfig.{name}={getattr(self, name)!r}: expected {expected}")

    @staticmethod
    def paper() -> PuppetConfig:
        """The paper to the letter: one state over all sites, constant start, pooling only.

        The complexity of the input (Eq. 9) is taken as 1: every image gets the same weights. A
        constant start gives weights of rank 1 along one channel axis, and :func:`puppetize` warns
        of it; the default exists because of that.
        """
        return PuppetConfig(
            start="constant",
            sharing="all",
            dynamics="free",
            derivative="paper",
            width=None,
            height=None,
            narrow_axis=False,
            tiling=False,
            site_gains=False,
            depthwise=True,
            min_saving=0.0,
        )

    def to_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> PuppetConfig:
        """Inverse of :meth:`to_dict`.

        Raises:
            PuppetizeError: unknown fields (they are named) or values out of range.
        """
        known = {field.name for field in dataclasses.fields(PuppetConfig)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise PuppetizeError(
                f"PuppetConfig has no field {', '.join(unknown)}; the file may come from a newer "
                "puppetize: upgrade it"
            )
        try:
            return PuppetConfig(**values)
        except TypeError as error:
            raise PuppetizeError(f"PuppetConfig cannot be read: {error}") from error
