"""The append-only file of a sweep: one JSON object a line, on disk before the next model ends."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typing_extensions import Self

from puppetize.errors import PuppetizeError
from puppetize.sweep.row import Row
from puppetize.sweep.settings import Shard

try:
    import fcntl
except ImportError:  # Windows: two sweeps that write one file at a time go unnoticed
    fcntl = None  # type: ignore[assignment]


class Journal:
    """Rows of one sweep, appended one by one.

    A kill at any moment costs at most the row that was being written: its torn line has no line
    break at its end, is ignored when reading, and is cut off when the file is opened again.

    Args:
        path: of the file; it is created with its directory.

    Raises:
        PuppetizeError: it cannot be written, or another sweep is writing it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b")
        except OSError as error:
            raise PuppetizeError(f"{path}: cannot be written: {error}") from error
        try:
            self._lock()
            self._repair()
        except BaseException:
            self._file.close()
            raise

    def append(self, row: Row) -> None:
        """Write ``row`` and wait until the disk has it.

        Raises:
            PuppetizeError: the disk is full or gone.
        """
        try:
            self._file.write(row.to_json().encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise PuppetizeError(
                f"{self._path}: cannot be written: {error}; free some space and start the sweep "
                "again, it goes on where it stopped"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise PuppetizeError(
                f"{self._path}: another sweep is writing it; wait for it, or give --output another "
                "directory, or split the models with --shard"
            ) from error
        except OSError:
            pass  # a file system without locks

    def _repair(self) -> None:
        self._file.seek(0)
        content = self._file.read()
        self._file.truncate(content.rfind(b"\n") + 1)
        self._file.seek(0, os.SEEK_END)


def journal_path(directory: Path, shard: Shard) -> Path:
    """Each shard has a file of its own, so that several machines can share a directory."""
    if shard.count == 1:
        return directory / "rows.jsonl"
    return directory / f"rows-{shard.index}-of-{shard.count}.jsonl"


def read_rows(directory: Path, key: str) -> dict[str, Row]:
    """Rows of all journals in ``directory`` that were made with the settings ``key``.

    Returns:
        The last row of each ``zoo/model``; one that failed does not replace one that did not.

    Raises:
        PuppetizeError: a whole line is no row.
    """
    found: dict[str, Row] = {}
    for path in sorted(directory.glob("rows*.jsonl")):
        for values in _lines(path):
            if values.get("key") != key:
                continue
            row = Row.from_dict(values)
            before = found.get(row.full_name)
            if before is None or before.status == "failed" or row.status != "failed":
                found[row.full_name] = row
    return found


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        if not line.endswith(b"\n"):
            return
        try:
            values = json.loads(line)
            if not isinstance(values, dict):
                raise ValueError(f"expected an object, found {type(values).__name__}")
        except ValueError as error:
            raise PuppetizeError(
                f"{path}, line {number}: not a row of a sweep ({error}); delete the line, its "
                "model is then measured again"
            ) from error
        yield values
