"""The bar that training shows."""

from __future__ import annotations

from types import TracebackType

from rich import progress
from typing_extensions import Self


class Progress:
    """Epoch, loss, accuracy, images a second and time left.

    Args:
        epochs: of the run.
        steps: an epoch.
        enabled: show anything at all.
    """

    def __init__(self, epochs: int, steps: int, enabled: bool) -> None:
        self._epochs = epochs
        self._bar = progress.Progress(
            progress.TextColumn("epoch {task.fields[epoch]}"),
            progress.BarColumn(bar_width=24),
            progress.TextColumn("loss {task.fields[loss]}"),
            progress.TextColumn("val top-1 {task.fields[top1]}"),
            progress.TextColumn("{task.fields[rate]} img/s"),
            progress.TimeRemainingColumn(),
            disable=not enabled,
        )
        self._task = self._bar.add_task(
            "train", total=epochs * steps, epoch=f"1/{epochs}", loss="-", top1="-", rate="-"
        )

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def advance(self, epoch: int, loss: float, rate: float, top1: float | None) -> None:
        """One more step is done."""
        self._bar.update(
            self._task,
            advance=1,
            epoch=f"{epoch + 1}/{self._epochs}",
            loss=f"{loss:.3f}",
            top1="-" if top1 is None else f"{top1:.1f}",
            rate=f"{rate:.0f}",
        )
