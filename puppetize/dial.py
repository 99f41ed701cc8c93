"""The ratio dial: which sizing of the plan gives a file of the wanted size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from puppetize.config import PuppetConfig
from puppetize.errors import PuppetizeError
from puppetize.plan import Plan
from puppetize.planner import MIN_WIDTH, Sizing
from puppetize.storage.estimate import Estimate
from puppetize.walk import ConvRecord

# A file this much larger or smaller than asked for still counts as what was asked for.
TOLERANCE = 0.05
# Sites are stored until the file is this close to its target.
_CLOSE = 0.01
# Where bytes are short a group is generated if that saves anything at all.
_ANY_SAVING = 1.0


class Dial:
    """Finds the plan whose file is so many times smaller than the original's.

    From the plan without a ratio, the dial goes down by narrowing states (sites are tiled from
    more steps) and up by giving each group more derivatives. Sites are stored to make up the rest.

    Args:
        plan_with: makes a plan from a sizing.
        estimate: bytes of a plan's file.
        records: of all convolutions.
        config: the settings that plans are made with.
    """

    def __init__(
        self,
        plan_with: Callable[[Sizing], Plan],
        estimate: Estimate,
        records: Sequence[ConvRecord],
        config: PuppetConfig,
    ) -> None:
        self._plan_with = plan_with
        self._estimate = estimate
        self._widest = max((max(record.shape[:2]) for record in records), default=MIN_WIDTH)
        self._most = max(len(records), 1)
        self._config = config

    def smallest(self) -> Plan:
        """The plan with the smallest file: narrowest states for all that they make smaller."""
        return self._plan_with(Sizing(MIN_WIDTH, min_saving=_ANY_SAVING))

    def turn(self, ratio: float) -> Plan:
        """The plan whose file is ``ratio`` times smaller than the original's.

        Raises:
            PuppetizeError: the ratio is out of reach; the message names the nearest that is not,
                and what takes the bytes.
        """
        target = self._estimate.original_bytes / ratio
        worthwhile = min(self._config.min_saving, ratio)
        tried = []
        for min_saving in dict.fromkeys([worthwhile, _ANY_SAVING]):
            sizing = self._largest_within(target, min_saving)
            plan = self.smallest() if sizing is None else self._filled(sizing, target)
            if self._miss(plan, target) <= TOLERANCE:
                return plan
            tried.append(plan)
        raise self._out_of_reach(min(tried, key=lambda plan: self._miss(plan, target)), ratio)

    def _miss(self, plan: Plan, target: float) -> float:
        return abs(target / self._estimate(plan) - 1)

    def _largest_within(self, target: float, min_saving: float) -> Sizing | None:
        """The sizing that gives the largest file within its target, before sites are stored."""
        widest = Sizing(self._widest, min_saving=min_saving)

        def too_large(sizing: Sizing) -> bool:
            return self._estimate(self._plan_with(sizing)) > target

        derivatives = _smallest(1, self._most, lambda n: too_large(replace(widest, derivatives=n)))
        if derivatives is None:
            return replace(widest, derivatives=self._most)
        sizing = replace(widest, derivatives=derivatives)
        width = _smallest(
            MIN_WIDTH, self._widest, lambda width: too_large(replace(sizing, width=width))
        )
        if width is not None and width > MIN_WIDTH:
            return replace(sizing, width=width - 1)
        return replace(widest, derivatives=derivatives - 1) if derivatives > 1 else None

    def _filled(self, sizing: Sizing, target: float) -> Plan:
        """The plan that stores sites, largest first, until the file is just within its target.

        A stored site also saves the bytes that generated it, or makes its group not worth its own,
        so each plan is measured.
        """
        plan = self._plan_with(sizing)
        reached = self._estimate(plan)
        for site in sorted(plan.sites, key=lambda site: -site.numel):
            if reached >= target * (1 - _CLOSE):
                break
            larger = replace(sizing, stored=sizing.stored | {site.name})
            candidate = self._plan_with(larger)
            size = self._estimate(candidate)
            if reached < size <= target:
                plan, sizing, reached = candidate, larger, size
        return plan

    def _out_of_reach(self, nearest: Plan, ratio: float) -> PuppetizeError:
        original = self._estimate.original_bytes
        smallest = self.smallest()
        what = "nearest"
        if original / self._estimate(smallest) < ratio:
            nearest, what = smallest, "largest"
        size = self._estimate(nearest)
        parts = sorted(self._estimate.stored_parts(nearest).items(), key=lambda item: -item[1])
        tensors = self._estimate.kept_tensors(nearest)[:3]
        return PuppetizeError(
            f"ratio={ratio:g} cannot be reached: the {what} is {original / size:.2f}, {size:,} of "
            f"{original:,} bytes. They are "
            + ", ".join(f"{part} {count:,}" for part, count in parts if count)
            + "; the largest tensors that are stored as they are: "
            + (", ".join(f"{name} {count:,} B" for count, name in tensors) or "none")
            + f". Ask for ratio={original / size:.4g}"
            + (", or shrink what stands in the way (num_classes)" if what == "largest" else "")
        )


def _smallest(low: int, high: int, holds: Callable[[int], bool]) -> int | None:
    """The smallest number in [low, high] for which a monotone condition holds, if any."""
    if not holds(high):
        return None
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low
