"""Rows back from a zoo's CSV file."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

from puppetize.errors import PuppetizeError
from puppetize.sweep.row import Row

_KINDS = get_type_hints(Row)
_PARTS = {"original_bytes_": "original_parts", "stored_bytes_": "stored_parts"}
_COUNT = re.compile(r"(\d+) (.*?)(?:; (?=\d+ )|$)")


def read_table(path: Path) -> list[Row]:
    """Rows of a file that :func:`puppetize.sweep.table.write_tables` wrote.

    What the file does not hold (the options) is empty in them, and numbers have six digits.

    Raises:
        PuppetizeError: it cannot be read or is no such file.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [_row(path.stem, values) for values in csv.DictReader(file)]
    except (OSError, TypeError, ValueError, KeyError) as error:
        raise PuppetizeError(
            f"{path}: not a table of a sweep: {error}; `puppetize zoo` writes them"
        ) from error


def _row(zoo: str, values: Mapping[str, str]) -> Row:
    fields: dict[str, Any] = {"zoo": zoo, "original_parts": {}, "stored_parts": {}}
    for name, text in values.items():
        for prefix, parts in _PARTS.items():
            if name.startswith(prefix) and text:
                fields[parts][name.removeprefix(prefix).replace("_", " ")] = int(text)
        if name in _KINDS and (text or _KINDS[name] is str):
            fields[name] = _value(_KINDS[name], name, text)
    return Row(**fields)


def _value(kind: Any, name: str, text: str) -> Any:
    if name == "versions":
        return dict(item.split("=", 1) for item in text.split())
    if name == "kept_reasons":
        return {reason: int(number) for number, reason in _COUNT.findall(text)}
    if name == "input_size":
        return tuple(map(int, text.split("x")))
    for number, optional in ((int, int | None), (float, float | None)):
        if kind == optional:
            return number(text)
    if kind == bool | None:
        return text == "True"
    return text
