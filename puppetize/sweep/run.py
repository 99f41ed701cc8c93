"""The sweep itself: what is still to do, through an engine, into the journal and the tables."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NoReturn, Protocol

from puppetize.sweep.journal import Journal, journal_path, read_rows
from puppetize.sweep.row import Row
from puppetize.sweep.settings import Settings, Shard
from puppetize.sweep.table import write_tables


class Engine(Protocol):
    """Where models are measured."""

    def rows(self, names: Sequence[str], settings: Settings) -> Iterator[Row]:
        """One row for each of ``names``, in any order; closing the iterator stops the work."""
        ...


class Progress(Protocol):
    """Who is told how it goes."""

    def start(self, done: Sequence[Row], total: int) -> None:
        """``done`` of ``total`` models were measured before."""
        ...

    def advance(self, row: Row) -> None:
        """One more is measured, and on disk."""
        ...


def sweep(
    names: Sequence[str],
    output: Path,
    settings: Settings,
    engine: Engine,
    *,
    shard: Shard | None = None,
    retry_failed: bool = False,
    progress: Progress | None = None,
) -> list[Row]:
    """Measure each model once, however often the sweep is interrupted and started again.

    Args:
        names: ``zoo/model`` of all models; every machine with a shard gives the same list.
        output: directory of the journal and the tables. Rows of other settings or versions in it
            stay, and count as not there.
        settings: what is measured.
        engine: where.
        shard: part of the models to measure now; the tables hold those of all shards.
        retry_failed: measure models again that failed before.
        progress: is told of each row.

    Returns:
        Rows of this shard's models, in their order.

    Raises:
        PuppetizeError: the directory cannot be written to, or another sweep writes it now.
    """
    shard = shard or Shard()
    own = shard.of(list(names))
    with Journal(journal_path(output, shard)) as journal:
        before = read_rows(output, settings.key)
        done = [
            before[name]
            for name in own
            if name in before and not (retry_failed and before[name].status == "failed")
        ]
        finished = {row.full_name for row in done}
        todo = [name for name in own if name not in finished]
        if progress is not None:
            progress.start(done, len(own))
        try:
            rows = engine.rows(todo, settings)
            with _sigterm_ends_orderly(), closing(rows):  # type: ignore[type-var]
                for row in rows:
                    journal.append(row)
                    if progress is not None:
                        progress.advance(row)
        finally:
            after = read_rows(output, settings.key)
            write_tables(output, after.values())
    return [after[name] for name in own]


@contextmanager
def _sigterm_ends_orderly() -> Iterator[None]:
    """Let SIGTERM end the sweep as Ctrl-C does: through ``finally``, where processes are ended."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
