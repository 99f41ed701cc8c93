"""How a sweep tells people how it goes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import timedelta

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from typing_extensions import Self

from puppetize.sweep.row import Row

# Between lines where no terminal can show a bar.
_SECONDS = 30.0


class ConsoleProgress(AbstractContextManager["ConsoleProgress"]):
    """A bar with counts and the time left; a line now and then where there is no terminal.

    Models that fail are named as they fail.

    Args:
        console: where to write.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._counts: Counter[str] = Counter()
        self._before = 0
        self._total = 0
        self._started = self._told = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.completed}/{task.total}"),
            BarColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            TextColumn("left:"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=None)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def start(self, done: Sequence[Row], total: int) -> None:
        """See :class:`puppetize.sweep.Progress`."""
        self._counts.update(row.status for row in done)
        self._before, self._total = len(done), total
        self._started = time.monotonic()
        if done:
            self._say(f"{len(done)} of {total} models were measured before")
        self._bar.reset(self._task, total=total, completed=len(done), description=self.counts())

    def advance(self, row: Row) -> None:
        """See :class:`puppetize.sweep.Progress`."""
        self._counts[row.status] += 1
        if row.status == "failed":
            self._say(f"failed: {row.full_name}: {row.reason}")
        self._bar.update(self._task, advance=1, description=self.counts())
        now = time.monotonic()
        done = self._counts.total()
        if not self._console.is_terminal and (now - self._told > _SECONDS or done == self._total):
            self._told = now
            left = (now - self._started) / (done - self._before) * (self._total - done)
            self._say(
                f"{done}/{self._total}: {self.counts()}, {timedelta(seconds=round(left))} left"
            )

    def counts(self) -> str:
        """How many of each status."""
        return ", ".join(f"{self._counts[s]} {s}" for s in ("passed", "skipped", "failed"))

    def _say(self, line: str) -> None:
        self._console.print(escape(line), highlight=False, soft_wrap=True)
