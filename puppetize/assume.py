"""Runs on fake tensors of models whose shapes depend on values, such as detection models."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class Assume(TorchDispatchMode):
    """Answers, in place of numbers that fake tensors have not, what makes shapes largest.

    Whatever is selected by its value is selected in full, and no two boxes suppress each other; all
    values are of one kind; a number that is asked for is 1, a truth value is False.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = f"{func.namespace}.{func._overloadpacket.__name__}"
        answer = _ANSWERS.get(name)
        if answer is not None:
            return answer(*args)
        if name in ("aten.index", "aten.index_put_") and any(map(_is_mask, args[1])):
            if name == "aten.index_put_":
                return args[0]
            return func(args[0], _without_masks(args[1]))
        return func(*args, **(kwargs or {}))


def _number(tensor: Tensor) -> bool | int | float:
    if tensor.dtype is torch.bool:
        return False
    return 1.0 if tensor.is_floating_point() else 1


def _nonzero(tensor: Tensor) -> Tensor:
    return tensor.new_zeros((tensor.numel(), tensor.dim()), dtype=torch.int64)


def _masked_select(tensor: Tensor, mask: Tensor) -> Tensor:
    return tensor.new_zeros(torch.broadcast_shapes(tensor.shape, mask.shape)).flatten()


def _nms(boxes: Tensor, *rest: Any) -> Tensor:
    return torch.arange(len(boxes))


def _unique(tensor: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    indices = tensor.new_zeros(tensor.shape, dtype=torch.int64)
    return tensor.new_zeros(1), indices, indices.new_zeros(1)


_ANSWERS: dict[str, Callable[..., Any]] = {
    "aten._local_scalar_dense": _number,
    "aten.nonzero": _nonzero,
    "aten._unique2": _unique,
    "aten.masked_select": _masked_select,
    "torchvision.nms": _nms,
}


def _is_mask(index: Tensor | None) -> bool:
    return index is not None and index.dtype in (torch.bool, torch.uint8)


def _without_masks(indices: Iterable[Tensor | None]) -> list[Tensor | None]:
    found: list[Tensor | None] = []
    for index in indices:
        if index is not None and _is_mask(index):
            places = index.new_zeros(index.numel(), dtype=torch.int64)
            found += [places] * index.dim()
        else:
            found.append(index)
    return found
