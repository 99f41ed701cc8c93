"""What stands where a generated weight will be."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from puppetize.errors import PuppetizeError


class Left(dict[str, Tensor]):
    """Weights of a puppet's last call with gradients, by name, for the backward pass after it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Left, ()  # a copy of a puppet has made no call yet


class Placeholder:
    """The ``weight`` of a ``Conv2d`` between calls of its puppet: a shape without numbers.

    Computing with it raises, because the numbers of an earlier call may be out of date. The one
    exception is a backward pass, in which activation checkpointing runs layers once more.

    Args:
        name: of the ``Conv2d``.
        shape: of its weight.
        left: what its puppet's last call left behind.
    """

    def __init__(self, name: str, shape: Sequence[int], left: Left) -> None:
        self.name = name
        self.shape = torch.Size(shape)
        self.left = left

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def dim(self) -> int:
        """As ``Tensor.dim``."""
        return self.ndim

    def numel(self) -> int:
        """As ``Tensor.numel``."""
        return math.prod(self.shape)

    def size(self, dim: int | None = None) -> torch.Size | int:
        """As ``Tensor.size``."""
        return self.shape if dim is None else self.shape[dim]

    def __repr__(self) -> str:
        return f"Placeholder({self.name!r}, {tuple(self.shape)})"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._in_backward(f".{name}"), name)

    @classmethod
    def __torch_function__(
        cls,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        def unwrap(value: Any) -> Any:
            if isinstance(value, (tuple, list)):
                return type(value)(map(unwrap, value))
            if not isinstance(value, Placeholder):
                return value
            return value._in_backward(getattr(function, "__name__", "a function"))

        kwargs = {key: unwrap(value) for key, value in (kwargs or {}).items()}
        return function(*map(unwrap, args), **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return Placeholder, (self.name, tuple(self.shape), self.left)

    def _in_backward(self, use: str) -> Tensor:
        left = self.left.get(self.name)
        if left is not None and torch._C._current_graph_task_id() != -1:
            return left
        raise MissingWeightError(
            f"the weight of {self.name!r} is generated and only there while its Puppet is called, "
            f"but something used it now ({use}): call the puppet or its methods, not its parts, or "
            "puppet.bake() for a plain model"
        )


class MissingWeightError(PuppetizeError, AttributeError):
    """Use of a generated weight outside a call of its puppet.

    It is an ``AttributeError`` too, so that ``hasattr`` and ``getattr`` with a default work.
    """
