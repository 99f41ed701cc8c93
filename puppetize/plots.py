"""Pictures of what was gained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from puppetize.report import Report
from puppetize.storage.container import atomically

# The original comes first in every picture, the puppet second.
_COLOURS = ("#efb118", "#4269d0", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2", "#97bbf5")


def plot_accuracy(
    curves: Mapping[str, Sequence[tuple[float, float]]], path: Path, title: str
) -> None:
    """Accuracy over training time.

    Args:
        curves: points (seconds, top-1 in percent) by label.
        path: PNG file to write.
        title: above the picture.
    """
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for (label, points), colour in zip(curves.items(), _COLOURS, strict=False):
        axes.plot(*zip(*points, strict=True), marker="o", label=label, color=colour)
    axes.set(xlabel="training time [s]", ylabel="validation top-1 [%]", title=title)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    save_figure(figure, path)


def plot_bytes(report: Report, path: Path) -> None:
    """Bytes by part, before and after, on one logarithmic axis."""
    parts = list(dict.fromkeys([*report.original_parts, *report.stored_parts]))
    figure = Figure(figsize=(7, 1.6 + 0.45 * len(parts)), layout="constrained")
    axes = figure.subplots()
    sides = (
        ("original", report.original_parts, -0.2, _COLOURS[0], report.original_bytes),
        ("puppet", report.stored_parts, 0.2, _COLOURS[1], report.stored_bytes),
    )
    for label, sizes, shift, colour, total in sides:
        rows = [(row, sizes[part]) for row, part in enumerate(parts) if sizes.get(part)]
        axes.barh(
            [row + shift for row, _ in rows],
            [size for _, size in rows],
            height=0.38,
            color=colour,
            label=f"{label}: {total:,} bytes",
        )
        for row, size in rows:
            axes.annotate(
                f"{size:,}", (size, row + shift), xytext=(4, 0), textcoords="offset points",
                va="center", fontsize=8,
            )  # fmt: skip
    axes.set_yticks(range(len(parts)), parts)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(right=10 * report.original_bytes)
    axes.set(xlabel="bytes on disk", title=f"{report.model}: {report.ratio:.0f} times smaller")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2, frameon=False)
    save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG file whole or not at all."""
    atomically(path, lambda target: figure.savefig(target, dpi=150, format="png"))
