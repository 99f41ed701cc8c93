"""The sweep's engine on one machine: a fresh process a model, with a time and a memory limit."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import types
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from puppetize.errors import PuppetizeError
from puppetize.sweep.measure import empty_row, measure
from puppetize.sweep.row import Row, one_line
from puppetize.sweep.settings import Limits, Settings

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

# The first process waits for the fork server's imports.
_START_UP_SECONDS = 300.0


@dataclass(frozen=True)
class LocalEngine:
    """Measures models in processes of this machine.

    Processes are forked from a server that has torch and the zoos in memory, which takes
    milliseconds. A model that outlasts its time is killed with all that it started, and so is
    every process when the sweep ends, however it ends.

    The memory limit is Linux's ``RLIMIT_DATA``; on other systems there is none.

    Attributes:
        limits: of each model, and how many models at a time.
        threads: of torch in each process; by default the cores are shared out.
    """

    limits: Limits
    threads: int | None = None

    def rows(self, names: Sequence[str], settings: Settings) -> Iterator[Row]:
        """Measure ``names``; rows come in the order in which they are done.

        Closing the iterator kills what is running.
        """
        waiting = deque(names)
        running: list[_Task] = []
        threads = self.threads or max(1, cores() // self.limits.jobs)
        with TemporaryDirectory(prefix="puppetize-zoo-") as logs:
            try:
                while waiting or running:
                    while waiting and len(running) < self.limits.jobs:
                        log = Path(logs) / f"{len(waiting)}.txt"
                        task = _Task(waiting.popleft(), settings, self.limits, threads, log)
                        running.append(task)
                    _sleep_until_news(running)
                    for task in list(running):
                        row = task.result()
                        if row is not None:
                            running.remove(task)
                            yield row
            finally:
                for task in running:
                    task.kill()


def cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Task:
    """One model in its process.

    Attributes:
        deadline: on the monotonic clock.
        signs: what becomes readable when there is news.
    """

    def __init__(
        self, name: str, settings: Settings, limits: Limits, threads: int, log: Path
    ) -> None:
        self._row = empty_row(name, settings)
        self._limits = limits
        self._log = log
        self._started = time.monotonic()
        self.deadline = self._started + _START_UP_SECONDS
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["puppetize.sweep.warm"])
        self._connection, theirs = context.Pipe()
        arguments = (theirs, name, settings, limits.memory, threads, str(log))
        self._process: ForkServerProcess = context.Process(target=_child, args=arguments)
        try:
            with _without_main_module():
                self._process.start()
        except (EOFError, OSError) as error:
            raise PuppetizeError(
                "the process that forks one process a model ended while it started; its message "
                "is above. The sweep goes on where it stopped when it is started again"
            ) from error
        theirs.close()
        self.signs: list[Connection | int] = [self._process.sentinel, self._connection]

    def result(self) -> Row | None:
        """The row, if there is one by now; the process has ended then."""
        row = self._news()
        if row is not None:
            self.kill()
        return row

    def _news(self) -> Row | None:
        ended = bool(wait([self._process.sentinel], 0))  # before looking for a last message
        try:
            while self._connection in self.signs and self._connection.poll():
                message = self._connection.recv()
                if isinstance(message, Row):
                    return message
                self._started = time.monotonic()
                self.deadline = self._started + self._limits.timeout
        except (EOFError, OSError):  # nothing more will come
            self.signs.remove(self._connection)
        if ended:
            self._process.join()
            return self._failed(_obituary(self._process.exitcode, self._log))
        if time.monotonic() > self.deadline:
            return self._failed(f"time limit of {self._limits.timeout:g} seconds")
        return None

    def _failed(self, reason: str) -> Row:
        seconds = time.monotonic() - self._started
        return replace(self._row, status="failed", reason=one_line(reason), seconds=seconds)

    def kill(self) -> None:
        """End the process and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # type: ignore[arg-type]
        self._process.kill()  # where it did not get as far as to lead a group
        self._process.join()
        self._process.close()
        self._connection.close()


def _sleep_until_news(running: Sequence[_Task]) -> None:
    pause = min(task.deadline for task in running) - time.monotonic()
    wait([sign for task in running for sign in task.signs], max(0.0, pause) + 0.01)


@contextlib.contextmanager
def _without_main_module() -> Iterator[None]:
    """Keep multiprocessing from running the caller's script again in each process."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _obituary(exit_code: int | None, log: Path) -> str:
    last = ""
    if log.exists():
        lines = log.read_text(errors="replace").split("\n")
        last = next((f": {line.strip()}" for line in reversed(lines) if line.strip()), "")
    if exit_code is None or exit_code >= 0:
        return f"its process ended with exit code {exit_code} and no result{last}"
    name = signal.Signals(-exit_code).name
    hint = " (the system may have run out of memory)" if name == "SIGKILL" else ""
    return f"its process was ended by {name}{hint}{last}"


# What follows runs in the model's process.


def _child(
    connection: Connection, name: str, settings: Settings, memory: float, threads: int, log: str
) -> None:
    os.setsid()  # a group of its own, so that it can be killed with all that it starts
    threading.Thread(target=_end_with_parent, daemon=True).start()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    _limit_memory(memory)
    torch.set_num_threads(threads)
    connection.send("started")
    row = measure(name, settings)
    if row.reason.startswith("out of memory"):
        row = replace(row, reason=f"memory limit of {memory:g} GiB: {row.reason}")
    connection.send(row)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.killpg(0, signal.SIGKILL)


def _limit_memory(gibibytes: float) -> None:
    status = Path("/proc/self/status")
    if resource is None or not status.exists():
        return
    taken = next(line for line in status.read_text().splitlines() if line.startswith("VmData"))
    allowed = int(taken.split()[1]) * 2**10 + int(gibibytes * 2**30)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        allowed = min(allowed, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, allowed))
