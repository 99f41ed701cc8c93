"""Everything that people read of a sweep: a summary, plots and a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from puppetize.errors import PuppetizeError
from puppetize.storage.container import write_text
from puppetize.sweep.page import write_page
from puppetize.sweep.plots import plot_parts, plot_ratios
from puppetize.sweep.row import Row
from puppetize.sweep.summary import coverage, make_summary

_BEGIN, _END = "<!-- coverage: begin -->", "<!-- coverage: end -->"


def write_results(rows: Sequence[Row], folder: Path, command: str) -> list[Path]:
    """Write ``README.md``, ``ratio.png``, ``parts.png`` and ``index.html`` to a folder.

    Args:
        rows: of one or more zoos.
        folder: where the tables lie; it must exist.
        command: that measured the rows; the files name it.

    Returns:
        The files.
    """
    rows = sorted(rows, key=lambda row: row.full_name)
    summary, ratios, parts, page = (
        folder / name for name in ("README.md", "ratio.png", "parts.png", "index.html")
    )
    plot_ratios(rows, ratios)
    plot_parts(rows, parts)
    pictures = (
        f"![times smaller against parameters, by family]({ratios.name})\n\n"
        f"![share of bytes by part, before and after]({parts.name})\n"
    )
    write_text(summary, f"{make_summary(rows, command)}\n## Plots\n\n{pictures}")
    write_page(rows, page, command)
    return [summary, ratios, parts, page]


def update_coverage(readme: Path, rows: Sequence[Row], command: str, results: str) -> None:
    """Put :func:`puppetize.sweep.summary.coverage` between the two comments in a README.

    Args:
        readme: a Markdown file with the lines ``<!-- coverage: begin -->`` and ``end``.
        rows: of one or more zoos.
        command: that measured them.
        results: where the results lie, seen from the README.

    Raises:
        PuppetizeError: the comments are not there.
    """
    text = readme.read_text(encoding="utf-8")
    read_coverage(readme)
    before, after = text.split(_BEGIN)[0], text.split(_END)[1]
    section = coverage(rows, command, results)
    write_text(readme, f"{before}{_BEGIN}\n{section}\n{_END}{after}")


def read_coverage(readme: Path) -> str:
    """What stands between the comments.

    Raises:
        PuppetizeError: the comments are not there.
    """
    text = readme.read_text(encoding="utf-8")
    if text.count(_BEGIN) != 1 or text.count(_END) != 1 or text.index(_END) < text.index(_BEGIN):
        raise PuppetizeError(f"{readme}: expected one line {_BEGIN!r} and, below, one {_END!r}")
    return text.split(_BEGIN)[1].split(_END)[0].strip("\n")
