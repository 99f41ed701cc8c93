"""Threads that share one puppet."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor

Weights = Mapping[str, Tensor]


class Turns:
    """Threads that compute with the same weights do so together; others wait for their turn."""

    def __init__(self) -> None:
        self._free = threading.Condition()
        self._weights: Weights | None = None
        self._inside: Counter[int] = Counter()

    def __reduce__(self) -> tuple[type[Turns], tuple[()]]:
        return Turns, ()  # a copy is nobody's yet

    @contextmanager
    def take(
        self,
        weights: Weights,
        put: Callable[[Weights], None],
        remove: Callable[[Weights], None],
    ) -> Iterator[None]:
        """Keep ``weights`` in place inside the block; blocks of one thread may nest.

        Args:
            weights: told apart by identity.
            put: puts weights in place.
            remove: takes them out again.
        """
        me = threading.get_ident()
        with self._free:
            self._free.wait_for(
                lambda: not self._inside or self._weights is weights or me in self._inside
            )
            before, self._weights = self._weights, weights
            if before is not weights:
                put(weights)
            self._inside[me] += 1
        try:
            yield
        finally:
            with self._free:
                self._inside[me] -= 1
                self._inside += Counter()  # drops those who left
                if not self._inside:
                    remove(weights)
                    self._weights = None
                    self._free.notify_all()
                elif before is not None and before is not weights:
                    put(before)
                    self._weights = before
