"""From a sweep's journals to one CSV file a zoo."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from puppetize.storage.container import write_text
from puppetize.sweep.row import Row

# Columns that differ from row to row, or that the key stands for.
_UNFOLDED = ("original_parts", "stored_parts")
_LEFT_OUT = ("zoo", "options", *_UNFOLDED)


def write_tables(directory: Path, rows: Iterable[Row]) -> list[Path]:
    """Write ``directory/zoo.csv`` for each zoo, sorted by model.

    The columns are those of :class:`Row`, timm's first, and one for each part of the bytes, such
    as ``stored_bytes_norms``. Each file is written whole or not at all.
    """
    by_zoo: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_zoo[row.zoo].append(row)
    paths = []
    for zoo, own in sorted(by_zoo.items()):
        path = directory / f"{zoo}.csv"
        write_text(path, _csv(sorted(own, key=lambda row: row.model)))
        paths.append(path)
    return paths


def _csv(rows: Sequence[Row]) -> str:
    plain = [f.name for f in dataclasses.fields(Row) if f.name not in _LEFT_OUT]
    parts = sorted({_column(f, part) for f in _UNFOLDED for r in rows for part in getattr(r, f)})
    text = io.StringIO()
    writer = csv.DictWriter(text, [*plain, *parts], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        values = {name: _cell(getattr(row, name)) for name in plain}
        values["versions"] = " ".join(f"{name}={number}" for name, number in row.versions.items())
        for name in _UNFOLDED:
            values |= {_column(name, part): n for part, n in getattr(row, name).items()}
        writer.writerow(values)
    return text.getvalue()


def _column(name: str, part: str) -> str:
    return name.replace("parts", "bytes_") + part.replace(" ", "_")


def _cell(value: Any) -> Any:
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    if isinstance(value, dict):
        return "; ".join(f"{number} {what}" for what, number in value.items())
    if isinstance(value, float):
        return f"{value:.6g}"
    return value
