"""Copies of a model to run: without numbers, which costs nothing, or with them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

from puppetize.errors import PuppetizeError


def fake_twin(model: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """A copy of ``model`` whose tensors are fake, all on the CPU.

    Raises:
        PuppetizeError: the model holds something that cannot be copied.
    """
    memo: dict[int, Any] = {}
    with mode:
        for tensor in tensors_of(model):
            if isinstance(tensor, nn.Parameter):
                memo[id(tensor)] = nn.Parameter(fake(tensor), requires_grad=tensor.requires_grad)
            else:
                memo[id(tensor)] = fake(tensor)
    return _copy(model, memo)


def real_twin(model: nn.Module) -> nn.Module:
    """A copy of ``model`` on the CPU, with numbers; where the model has none, they are small.

    Raises:
        PuppetizeError: the model holds something that cannot be copied.
    """
    memo: dict[int, Any] = {}
    for tensor in tensors_of(model):
        if tensor.device.type == "meta":
            value = torch.full(tensor.shape, 0.01, dtype=tensor.dtype, device="cpu")
        else:
            value = tensor.detach().to("cpu", copy=True)
        if isinstance(tensor, nn.Parameter):
            value = nn.Parameter(value, requires_grad=tensor.requires_grad)
        memo[id(tensor)] = value
    return _copy(model, memo)


def _copy(model: nn.Module, memo: dict[int, Any]) -> nn.Module:
    try:
        return copy.deepcopy(model, memo)
    except Exception as error:  # whatever the model's attributes raise
        raise PuppetizeError(
            f"{type(model).__name__} cannot be copied ({type(error).__name__}: {error}), and "
            "puppetize works on a copy; copy.deepcopy(model) must work: take what it cannot copy "
            "(open files, locks, generators) out of the modules' attributes"
        ) from error


def fake(tensor: Tensor) -> Tensor:
    """A tensor of the same shape and dtype; to be called under a fake tensor mode."""
    return torch.empty(tensor.shape, dtype=tensor.dtype)


def tensors_of(model: nn.Module) -> Iterator[Tensor]:
    """All tensors that modules hold: parameters, buffers, and those in plain attributes."""
    for module in model.modules():
        yield from _tensors(vars(module))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
