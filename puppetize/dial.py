"""The ratio dial: which sizing of the plan gives a file of the wanted size."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from puppetize.errors import PuppetizeError
from puppetize.plan import Plan
from puppetize.planner import MIN_WIDTH, Sizing
from puppetize.storage.estimate import Estimate
from puppetize.walk import ConvRecord

# A file this much larger or smaller than asked for still counts as what was asked for.
TOLERANCE = 0.05

PlanWith = Callable[[Sizing | None], Plan]


def turn(
    plan_with: PlanWith,
    size: Estimate,
    original_bytes: int,
    ratio: float,
    records: Sequence[ConvRecord],
) -> Plan:
    """The plan whose file is ``ratio`` times smaller than the original's.

    From the plan without a ratio, the dial goes down by narrowing states (sites are tiled from
    more steps) and up, first by giving each group more derivatives, then by storing sites.

    Args:
        plan_with: makes a plan from a sizing.
        size: bytes of a plan's file.
        original_bytes: of the original.
        ratio: wanted.
        records: of all convolutions.

    Raises:
        PuppetizeError: the ratio is out of reach; the message names the reachable ones and what
            takes the bytes.
    """
    target = original_bytes / ratio
    widest = max((max(record.shape[:2]) for record in records), default=MIN_WIDTH)
    most = max(len(records), 1)

    def make(width: int, derivatives: int, stored: frozenset[str] = frozenset()) -> Plan:
        return plan_with(Sizing(width, derivatives, stored, min_saving=ratio))

    def bytes_of(width: int, derivatives: int) -> int:
        return size(make(width, derivatives))

    derivatives = _smallest(1, most, lambda n: bytes_of(widest, n) >= target)
    if derivatives is None:
        plan = _fill(lambda stored: make(widest, most, stored), size, target)
    else:
        width = _smallest(MIN_WIDTH, widest, lambda w: bytes_of(w, derivatives) > target)
        near = {width or widest, max((width or widest) - 1, MIN_WIDTH)}
        plan = min(
            (make(w, derivatives) for w in near), key=lambda p: abs(math.log(size(p) / target))
        )
    reached = original_bytes / size(plan)
    if abs(reached / ratio - 1) > TOLERANCE:
        raise _out_of_reach(size, plan, original_bytes, ratio)
    return plan


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


def _fill(
    make: Callable[[frozenset[str]], Plan], size: Callable[[Plan], int], target: float
) -> Plan:
    """The plan that stores sites, largest first, until the file is just within its target.

    A stored site also saves the bytes that generated it, or makes its group not worth its own, so
    each plan is measured.
    """
    stored: frozenset[str] = frozenset()
    plan = make(stored)
    reached = size(plan)
    for site in sorted(plan.sites, key=lambda site: -site.numel):
        if reached >= target * (1 - TOLERANCE / 5):
            break
        larger = make(stored | {site.name})
        bytes_now = size(larger)
        if reached < bytes_now <= target:
            plan, stored, reached = larger, stored | {site.name}, bytes_now
    return plan


def _out_of_reach(size: Estimate, plan: Plan, original_bytes: int, ratio: float) -> PuppetizeError:
    reached = original_bytes / size(plan)
    parts = size.kept_parts(plan)
    largest = ", ".join(f"{name} {count:,} B" for count, name in parts[:3])
    total = sum(count for count, _ in parts)
    return PuppetizeError(
        f"ratio={ratio:g} cannot be reached: the nearest is {reached:.2f} ({size(plan):,} of "
        f"{original_bytes:,} bytes), of which {total:,} bytes are stored as they are, most of all "
        f"{largest or 'nothing'}; a smaller classifier or the nearest ratio would do"
    )
