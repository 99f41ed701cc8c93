"""From the walk's records to a plan."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from puppetize.adapter import split
from puppetize.config import PuppetConfig
from puppetize.derivative import count
from puppetize.plan import Group, Kept, PaperCount, Plan, Shape, Site
from puppetize.walk import ConvRecord

# Narrowest state that is worth a derivative of its own.
MIN_WIDTH = 4


@dataclass(frozen=True)
class Sizing:
    """What the ratio dial turns.

    Attributes:
        width: most mixed channels of any state; None leaves it to the config.
        derivatives: derivatives a group, each serving a run of consecutive sites.
        stored: sites that are stored instead, by name.
        min_saving: replaces the config's where it is lower.
    """

    width: int | None = None
    derivatives: int = 1
    stored: frozenset[str] = field(default_factory=frozenset)
    min_saving: float = math.inf


def make_plan(
    records: Iterable[ConvRecord],
    config: PuppetConfig,
    keep: Mapping[str, str] | None = None,
    sizing: Sizing | None = None,
) -> Plan:
    """Decide which convolutions are generated, and how.

    Args:
        records: the walk's, in execution order.
        config: settings.
        keep: convolutions that must not be generated, and why.
        sizing: what the ratio dial asks for.
    """
    records = list(records)
    sizing = sizing or Sizing()
    kept: list[Kept] = []
    buckets: dict[tuple[object, ...], list[ConvRecord]] = {}
    for record in records:
        reason = _reason_to_keep(record, config, keep or {}, sizing)
        if reason:
            kept.append(_keep(record, reason))
        else:
            buckets.setdefault(_bucket(record, config), []).append(record)
    groups = []
    for members in buckets.values():
        group = _group(members, config, sizing)
        if group is None:
            kept += [
                _keep(record, "generating would cost more than it saves") for record in members
            ]
        else:
            groups.append(group)
    return Plan(tuple(groups), tuple(kept), tuple(record.name for record in records))


def paper_count(plan: Plan, config: PuppetConfig) -> PaperCount:
    """The plan's size as the paper would print it (Table 5), in parameters and 10**6 bytes."""
    derivatives = sum(_stored(group.state, len(group.derivatives), config) for group in plan.groups)
    starts = sum(math.prod(group.state) for group in plan.groups)
    return PaperCount(params=starts + derivatives, megabytes=4 * derivatives / 1e6)


def _reason_to_keep(
    record: ConvRecord, config: PuppetConfig, keep: Mapping[str, str], sizing: Sizing
) -> str:
    if not record.mode:
        return "never executed"
    if record.name in keep:
        return keep[record.name]
    if record.groups > 1 and record.shape[1] == 1 and not config.depthwise:
        return "depthwise"
    if record.name in sizing.stored:
        return "stored to meet the ratio"
    return ""


def _keep(record: ConvRecord, reason: str) -> Kept:
    return Kept(record.name, record.aliases, record.shape, reason)


def _bucket(record: ConvRecord, config: PuppetConfig) -> tuple[object, ...]:
    if config.sharing == "all":
        return ()
    return (record.shape[2:], record.groups > 1)


def _group(members: list[ConvRecord], config: PuppetConfig, sizing: Sizing) -> Group | None:
    oriented = [_oriented(record, config) for record in members]
    largest: Shape = tuple(max(shape[axis] for shape, _ in oriented) for axis in range(4))  # type: ignore[assignment]
    caps = [cap for cap in (config.width, sizing.width) if cap is not None]
    height, width = min(largest[0], config.height or largest[0]), min([largest[1], *caps])
    weights = sum(math.prod(record.shape) for record in members)
    derivatives = min(sizing.derivatives, len(members))
    min_saving = min(config.min_saving, sizing.min_saving)

    def cost(width: int) -> int:
        numbers = _stored((height, width, *largest[2:]), derivatives, config)
        return numbers + len(members) * config.site_gains

    narrowest = min(width, MIN_WIDTH) if config.tiling else width
    widths = range(narrowest, width + 1)
    affordable = bisect.bisect_right(widths, float(weights), key=lambda w: cost(w) * min_saving)
    if not affordable:
        return None
    width = widths[affordable - 1]
    state: Shape = (height, width, *largest[2:])
    sites: list[Site] = []
    step = 1
    for record, (shape, transposed) in zip(members, oriented, strict=True):
        grid = (math.ceil(shape[0] / height), math.ceil(shape[1] / width))
        sites.append(Site(record.name, record.aliases, record.shape, transposed, grid, step))
        step += sites[-1].steps
    return Group(state, _runs(sites, derivatives), tuple(sites))


def _oriented(record: ConvRecord, config: PuppetConfig) -> tuple[Shape, bool]:
    first, second, *kernel = record.shape
    transposed = config.narrow_axis and first < second
    shape = (second, first, *kernel) if transposed else record.shape
    return shape, transposed  # type: ignore[return-value]


def _runs(sites: list[Site], derivatives: int) -> tuple[int, ...]:
    """Euler steps of each of ``derivatives`` runs of consecutive sites."""
    steps = iter([site.steps for site in sites])
    return tuple(sum(next(steps) for _ in range(n)) for n in split(len(sites), derivatives))


def _stored(state: Shape, derivatives: int, config: PuppetConfig) -> int:
    return derivatives * count(config.derivative, state[1], state[2:])
