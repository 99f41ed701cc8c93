"""The sweep's rows as one HTML file that needs no network and no server."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from puppetize.storage.container import write_text
from puppetize.sweep.row import Row
from puppetize.sweep.summary import families, general_reason, is_cnn, lead, setting, versions

# Names in the page's script, which writes its own by JavaScript's custom.
_COLUMNS: dict[str, Callable[[Row], Any]] = {
    "name": lambda row: row.full_name,
    "zoo": lambda row: row.zoo,
    "family": lambda row: row.family,
    "cnn": is_cnn,
    "status": lambda row: row.status,
    "reason": lambda row: row.reason,
    "general": lambda row: None if row.status == "passed" else general_reason(row),
    "size": lambda row: row.img_size,
    "params": lambda row: row.params,
    "macs": lambda row: None if row.gmacs is None else round(row.gmacs * 1e9),
    "convs": lambda row: row.convs,
    "sites": lambda row: row.sites,
    "kept": lambda row: list(row.kept_reasons.items()),
    "original": lambda row: row.original_bytes,
    "stored": lambda row: row.stored_bytes,
    "ratio": lambda row: _digits(row.ratio),
    "maxRatio": lambda row: _digits(row.max_ratio),
    "before": lambda row: row.original_parts,
    "after": lambda row: row.stored_parts,
    "generationMacs": lambda row: row.generation_macs,
    "generationMs": lambda row: _digits(row.generation_ms),
    "forwardMs": lambda row: _digits(row.forward_ms),
    "forwardPuppetMs": lambda row: _digits(row.forward_ms_puppet),
    "batch": lambda row: row.batch,
    "threads": lambda row: row.threads,
}


def make_page(rows: Sequence[Row], command: str) -> str:
    """A page to search, sort, filter and plot the rows.

    Args:
        rows: of one or more zoos.
        command: that measured them; the page names it.

    Returns:
        HTML with the data, the style and the script inside.
    """
    phrase, flags = setting(rows)
    data = {
        "columns": list(_COLUMNS),
        "rows": [[value(row) for value in _COLUMNS.values()] for row in rows],
        "families": list(families(rows)),
        "lead": lead(rows),
        "setting": phrase,
        "flags": flags,
        "command": command,
        "versions": versions(rows),
    }
    page = _asset("page.html")
    # The data come last: what stands in them is never read as a place to fill.
    for place, text in (
        ("/*{{style}}*/", _asset("page.css")),
        ("/*{{script}}*/", _asset("page.js")),
        ("/*{{data}}*/", _json(data)),
    ):
        page = page.replace(place, text)
    return page


def write_page(rows: Sequence[Row], path: Path, command: str) -> None:
    """Write :func:`make_page` to a file."""
    write_text(path, make_page(rows, command))


def _digits(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.5g}")


def _json(data: object) -> str:
    """JSON that no HTML parser takes for markup, wherever ``<``, ``>`` or ``&`` stand in it."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _asset(name: str) -> str:
    return files("puppetize.sweep").joinpath(name).read_text(encoding="utf-8")
