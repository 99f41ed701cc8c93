"""The sweep's rows in figures and in Markdown."""

from __future__ import annotations

import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

from puppetize.config import PuppetConfig
from puppetize.sweep.row import Row

QUANTILES = (0, 10, 25, 50, 75, 90, 100)

_SHOWN_REASONS = 12
_SHOWN_NAMES = 8


def is_cnn(row: Row) -> bool:
    """Whether more than half of the parameters are weights of ``Conv2d`` layers."""
    return bool(row.params and row.conv_params and 2 * row.conv_params > row.params)


def measured_cnns(rows: Iterable[Row]) -> list[Row]:
    """Those that passed and that :func:`is_cnn` is true for."""
    return [row for row in rows if row.status == "passed" and is_cnn(row)]


def quantiles(values: Iterable[float]) -> tuple[float, ...]:
    """At the percentages :data:`QUANTILES`, between neighbours linearly; empty for no values."""
    ordered = sorted(values)
    if not ordered:
        return ()
    found = []
    for percent in QUANTILES:
        place = percent * (len(ordered) - 1) / 100
        low = int(place)
        high = min(low + 1, len(ordered) - 1)
        found.append(ordered[low] + (place - low) * (ordered[high] - ordered[low]))
    return tuple(found)


def families(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Measured CNNs by family, largest families first."""
    members: dict[str, list[Row]] = defaultdict(list)
    for row in measured_cnns(rows):
        members[row.family].append(row)
    return dict(sorted(members.items(), key=lambda item: (-len(item[1]), item[0])))


def general_reason(row: Row) -> str:
    """Why a row did not pass, without the class or model that the reason starts with."""
    reason = re.sub(r"^[\w./-]+: ", "", row.reason)
    return re.sub(r"^\w+ has no ", "no ", reason) or "no reason given"


def setting(rows: Sequence[Row]) -> tuple[str, str]:
    """How the models were puppetized: a phrase after "with", and flags of ``puppetize report``."""
    options = rows[0].options if rows else {}
    config = options.get("config")
    phrases, flags = [], []
    if config == PuppetConfig.paper().to_dict():
        phrases.append("the paper's settings")
        flags.append("--paper")
    elif config not in (None, PuppetConfig().to_dict()):
        phrases.append("settings of their own")
    for name in ("ratio", "num_classes"):
        if options.get(name) is not None:
            phrases.append(f"{name}={options[name]:g}")
            flags.append(f"--{name.replace('_', '-')} {options[name]:g}")
    return ", ".join(phrases) or "default settings", " ".join(flags)


def versions(rows: Iterable[Row]) -> str:
    """Of the packages that decided the result, such as ``torch 2.9.0, timm 1.0.31``."""
    found = dict.fromkeys(item for row in rows for item in row.versions.items())
    return ", ".join(f"{package} {number}" for package, number in found)


def lead(rows: Sequence[Row]) -> str:
    """The result in two or three sentences of plain text."""
    passed = sum(row.status == "passed" for row in rows)
    text = (
        f"Puppetized with {setting(rows)[0]}: {passed:,} of {len(rows):,} models ({_zoos(rows)})."
    )
    cnns = measured_cnns(rows)
    if cnns:
        are = "is a CNN" if len(cnns) == 1 else "are CNNs"
        text += (
            f" {len(cnns):,} of them {are} (more than half of the parameters in Conv2d), in the "
            f"median {_median(cnns, _ratio)} times smaller on disk, and "
            f"{_median(cnns, _max_ratio)} times at the largest feasible ratio."
        )
    return f"{text} Structure only: accuracy was not measured."


def make_summary(rows: Sequence[Row], command: str) -> str:
    """Everything in tables, as Markdown.

    Args:
        rows: of one or more zoos.
        command: that measured them.
    """
    parts = [
        "# What puppetizing gives, model by model",
        f"{_text(lead(rows))} Bytes are those of whole safetensors files.",
        f"Made by `{command}`" + (f" with {versions(rows)}." if versions(rows) else "."),
        "## Models",
        _counts(rows),
        "## How many times smaller",
        "Over the CNNs that passed, by zoo: *ratio* is the original's bytes over the puppet's with "
        f"{setting(rows)[0]}; *largest feasible* is the largest `ratio=` that can be asked for. "
        "A classifier of 1,000 classes is kept and bounds both; fewer classes mean higher ones.",
        _distribution(rows),
        "## Convolution weights",
        _fates(rows),
        "## By family",
        "CNNs that passed; medians.",
        _by_family(rows),
        "## Not puppetized",
        _left_out(rows),
    ]
    return "\n\n".join(parts) + "\n"


def coverage(rows: Sequence[Row], command: str, results: str) -> str:
    """The README's section on what is covered and what is not, as Markdown.

    Args:
        rows: of one or more zoos.
        command: that measured them.
        results: where the results lie, seen from the README.
    """
    made = f" ({versions(rows)})" if versions(rows) else ""
    parts = [
        f"`{command}` puppetizes every model of both zoos{made}: structure only, no accuracy.",
        _counts(rows),
        "*CNNs* have more than half of their parameters in `Conv2d` layers. How many times smaller "
        "their files become, and how many times at most:",
        _distribution(rows),
        "What is not covered:",
        _reasons(rows),
        f"Every model: [tables, plots and summary]({results}/README.md), and a page to search, "
        f"`{results}/index.html`, which works from the file.",
    ]
    return "\n\n".join(parts)


def _counts(rows: Sequence[Row]) -> str:
    def cells(own: Sequence[Row]) -> list[str]:
        statuses = Counter(row.status for row in own)
        numbers = (len(own), statuses["passed"], statuses["skipped"], statuses["failed"])
        cnns = f"{len(measured_cnns(own)):,} of {sum(map(is_cnn, own)):,}"
        return [*(f"{number:,}" for number in numbers), cnns]

    header = ["zoo", "models", "puppetized", "nothing to generate", "failed", "CNNs puppetized"]
    return _table(header, [[zoo, *cells(own)] for zoo, own in _by_zoo(rows)])


def _distribution(rows: Sequence[Row]) -> str:
    names = {0: "least", 50: "median", 100: "most"}
    body = []
    for zoo, own in _by_zoo(rows):
        cnns = measured_cnns(own)
        for what, value in (("ratio", _ratio), ("largest feasible", _max_ratio)):
            numbers = quantiles(found for row in cnns if (found := value(row)) is not None)
            if numbers:
                body.append([f"{zoo}: {what}", *map(_number, numbers)])
    return _table(["", *(names.get(q, f"{q} %") for q in QUANTILES)], body)


def _fates(rows: Sequence[Row]) -> str:
    seen = [row for row in rows if row.sites is not None]
    generated = [row.sites for row in seen if row.sites]
    body = [["generated", f"{sum(generated):,}", f"{len(generated):,}"]]
    kept: Counter[str] = Counter()
    models: Counter[str] = Counter()
    for row in seen:
        kept.update(row.kept_reasons)
        models.update(row.kept_reasons.keys())
    body += [
        [f"kept: {_text(reason)}", f"{number:,}", f"{models[reason]:,}"]
        for reason, number in sorted(kept.items(), key=lambda item: (-item[1], item[0]))
    ]
    return _table(["fate", "weights", "models"], body)


def _by_family(rows: Sequence[Row]) -> str:
    body = [
        [_text(name), f"{len(own):,}", _median(own, _ratio), _median(own, _max_ratio)]
        for name, own in families(rows).items()
    ]
    return _table(["family", "models", "ratio", "largest feasible"], body)


def _left_out(rows: Sequence[Row]) -> str:
    left = sorted(
        (row for row in rows if row.status != "passed"), key=lambda row: (row.status, row.full_name)
    )
    if not left:
        return "Every model was puppetized."
    body = [[f"`{_code(row.full_name)}`", row.status, _text(row.reason)] for row in left]
    return _table(["model", "status", "reason"], body, numbers=False)


def _reasons(rows: Sequence[Row]) -> str:
    """Models that did not pass, gathered by reason; the most frequent first."""
    models: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in rows:
        if row.status != "passed":
            models[row.status, general_reason(row)].append(row.full_name)
    if not models:
        return "- Nothing: every model was puppetized."
    ordered = sorted(models.items(), key=lambda item: (-len(item[1]), item[0]))
    lines = []
    for (status, reason), names in ordered[:_SHOWN_REASONS]:
        shown = ", ".join(f"`{_code(name)}`" for name in sorted(names)[:_SHOWN_NAMES])
        more = f" and {len(names) - _SHOWN_NAMES:,} more" if len(names) > _SHOWN_NAMES else ""
        lines.append(f"- {len(names):,} {status}: {_text(reason)}: {shown}{more}")
    rest = sum(len(names) for _, names in ordered[_SHOWN_REASONS:])
    if rest:
        lines.append(f"- {rest:,} for other reasons, which the summary lists")
    return "\n".join(lines)


def _by_zoo(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    names = sorted({row.zoo for row in rows})
    for name in names:
        yield name, [row for row in rows if row.zoo == name]
    if len(names) > 1:
        yield "both" if len(names) == 2 else "all", list(rows)


def _zoos(rows: Sequence[Row]) -> str:
    return ", ".join(sorted({row.zoo for row in rows})) or "no zoo"


def _ratio(row: Row) -> float | None:
    return row.ratio


def _max_ratio(row: Row) -> float | None:
    return row.max_ratio


def _median(rows: Iterable[Row], value: Callable[[Row], float | None]) -> str:
    values = [found for row in rows if (found := value(row)) is not None]
    return _number(statistics.median(values)) if values else "-"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 99.5 else f"{value:.1f}" if value >= 1.95 else f"{value:.2f}"


def _table(header: Sequence[str], body: Iterable[Sequence[str]], numbers: bool = True) -> str:
    rule = ["---", *(["---:" if numbers else "---"] * (len(header) - 1))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *body))


def _text(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_{}\[\]<>|#~$&])", r"\\\1", " ".join(text.split()))


def _code(text: str) -> str:
    """Text for a code span in a table."""
    return " ".join(text.split()).replace("`", "'").replace("|", "\\|")
