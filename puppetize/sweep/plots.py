"""Pictures of a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from puppetize.plots import save_figure
from puppetize.sweep.row import Row
from puppetize.sweep.summary import families, measured_cnns, setting

# The same as in the page's script.
_COLOURS = (
    "#4269d0", "#efb118", "#ff725c", "#3ca951", "#a463f2", "#6cc5b0", "#ff8ab7", "#9c6b4e",
)  # fmt: skip
_OTHERS_COLOUR = "#9498a0"
_PART_COLOURS = {
    "generated convolutions": "#4269d0",
    "linear layers": "#efb118",
    "puppeteer": "#a463f2",
    "kept convolutions": "#6cc5b0",
    "norms": "#ff8ab7",
    "convolution biases": "#9c6b4e",
    "other": "#9498a0",
    "gains": "#3ca951",
    "container": "#c3c6cc",
}
_BINS = 10


def plot_ratios(rows: Sequence[Row], path: Path) -> None:
    """How many times smaller the CNNs become against their size, by family: a point a model."""
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    groups = families(rows)
    top = dict(list(groups.items())[: len(_COLOURS)])
    others = [row for name, own in groups.items() if name not in top for row in own]
    for axes, column, title in (
        (panels[0], "ratio", f"with {setting(rows)[0]}"),
        (panels[1], "max_ratio", "largest feasible"),
    ):
        if others:
            _points(axes, others, column, f"{len(groups) - len(top)} others", _OTHERS_COLOUR)
        for (name, own), colour in zip(top.items(), _COLOURS, strict=False):
            _points(axes, own, column, name, colour)
        axes.set(xscale="log", yscale="log", xlabel="parameters [M]", title=title)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
        axes.grid(alpha=0.25)
        axes.set_axisbelow(True)
    panels[0].set_ylabel("times smaller on disk")
    handles, labels = panels[0].get_legend_handles_labels()
    start = 1 if others else 0  # the others lie below and come last
    order = [*range(start, len(labels)), *range(start)]
    handles, labels = [handles[i] for i in order], [labels[i] for i in order]
    figure.legend(handles, labels, loc="outside lower center", ncols=9, frameon=False, fontsize=9)
    save_figure(figure, path)


def plot_parts(rows: Sequence[Row], path: Path) -> None:
    """Share of bytes by part, original beside puppet, in tenths of the CNNs by size.

    A bar is the mean over models of the part's share of the original's bytes, so the puppet's bars
    are as long as the puppet is large.
    """
    cnns = [row for row in measured_cnns(rows) if row.original_bytes and row.stored_parts]
    cnns.sort(key=lambda row: row.params or 0)
    edges = [len(cnns) * i // _BINS for i in range(_BINS + 1)]
    bins = [cnns[a:b] for a, b in pairwise(edges) if b > a]
    figure = Figure(figsize=(11, 6.2), layout="constrained")
    axes = figure.subplots()
    shown: set[str] = set()
    for place, own in enumerate(bins):
        for shift, column in ((-0.2, "original_parts"), (0.2, "stored_parts")):
            left = 0.0
            for part, share in _shares(own, column).items():
                label = "_" if part in shown else part
                shown.add(part)
                axes.barh(
                    place + shift, 100 * share, height=0.36, left=left, label=label,
                    color=_PART_COLOURS.get(part, _OTHERS_COLOUR),
                )  # fmt: skip
                left += 100 * share
            name = "original" if column == "original_parts" else f"puppet {left:.0f} %"
            axes.annotate(
                name, (left, place + shift), xytext=(4, 0),
                textcoords="offset points", va="center", fontsize=8,
            )  # fmt: skip
    axes.set_yticks(range(len(bins)), [_size_range(own) for own in bins])
    axes.invert_yaxis()
    axes.set_xlim(0, 108)
    axes.set(
        xlabel="share of the original's bytes, mean over models [%]",
        ylabel="parameters",
        title=f"What the bytes are: {len(cnns):,} CNNs in tenths by size, with {setting(rows)[0]}",
    )
    axes.spines[["top", "right"]].set_visible(False)
    if shown:
        figure.legend(loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    save_figure(figure, path)


def _points(axes: Axes, rows: Sequence[Row], column: str, label: str, colour: str) -> None:
    points = [
        (row.params / 1e6, value) for row in rows if row.params and (value := getattr(row, column))
    ]
    axes.scatter(
        [x for x, _ in points], [y for _, y in points], s=16, label=label, color=colour,
        alpha=0.8, linewidths=0.3, edgecolors="white",
    )  # fmt: skip


def _shares(rows: Sequence[Row], column: str) -> Mapping[str, float]:
    """Mean share of the original's bytes by part, parts in the order of their colours."""
    sums: dict[str, float] = {}
    for row in rows:
        for part, size in getattr(row, column).items():
            sums[part] = sums.get(part, 0.0) + size / (row.original_bytes or 1)
    order = [*_PART_COLOURS, *sorted(sums.keys() - _PART_COLOURS.keys())]
    return {part: sums[part] / len(rows) for part in order if part in sums}


def _size_range(rows: Sequence[Row]) -> str:
    sizes = [(row.params or 0) / 1e6 for row in (rows[0], rows[-1])]
    return " to ".join(f"{size:,.0f}" if size >= 100 else f"{size:.3g}" for size in sizes) + " M"
