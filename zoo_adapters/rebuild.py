"""Whether two models are the same architecture, whatever their numbers."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from typing import Any

from torch import nn

# Set by users while they work with a model; building it again need not repeat them.
_TRANSIENT = {"training", "grad_checkpointing"}
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_DIGITS = 16


def differences(rebuilt: nn.Module, model: nn.Module) -> Iterator[str]:
    """All differences in structure, as phrases about ``rebuilt``.

    Compared are module names and classes, their printed settings, tensor shapes, attributes that
    are plain values, forward hooks and methods that were replaced on an instance. What hooks do,
    and other objects that a module may hold, cannot be compared.
    """
    ours, theirs = dict(model.named_modules()), dict(rebuilt.named_modules())
    for name in dict.fromkeys([*theirs, *ours]):
        where = name or "the model"
        if name not in ours or name not in theirs:
            yield f"{'lacks' if name not in theirs else 'has'} a module {where!r}"
            continue
        a, b = theirs[name], ours[name]
        if type(a) is not type(b):
            yield f"has {type(a).__name__} where the model has {type(b).__name__} at {where!r}"
        elif a.extra_repr() != b.extra_repr():
            yield f"has ({a.extra_repr()}) where the model has ({b.extra_repr()}) at {where!r}"
        elif _hooks(a) != _hooks(b):
            yield f"has {_hooks(a)} forward hooks where the model has {_hooks(b)} at {where!r}"
        elif _replaced(a) != _replaced(b):
            methods = ", ".join(sorted(_replaced(a) ^ _replaced(b)))
            yield f"does not have the method(s) {methods} that the model's {where!r} has"
        pairs = (("setting", _plain(a), _plain(b)), ("shape", _shapes(a), _shapes(b)))
        for kind, xs, ys in pairs:
            for key in xs.keys() & ys.keys():
                # None in a fresh model: filled by its first forward pass (torchvision's RoI pools).
                if xs[key] is not None and not _same(xs[key], ys[key]):
                    yield f"has {kind} {key}={xs[key]} where the model has {ys[key]} at {where!r}"


def fingerprint(model: nn.Module) -> str:
    """Sixteen hexadecimal digits that differ where module names, classes or settings differ."""
    structure = [
        (name, type(module).__name__, sorted(_plain(module).items()))
        for name, module in model.named_modules()
    ]
    text = json.dumps(structure, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def _hooks(module: nn.Module) -> int:
    return sum(len(getattr(module, kind)) for kind in _HOOKS)


def _replaced(module: nn.Module) -> set[str]:
    """Methods of the class that an attribute of the instance hides."""
    return {
        name
        for name, value in vars(module).items()
        if callable(value) and callable(getattr(type(module), name, None))
    }


def _plain(module: nn.Module) -> dict[str, Any]:
    return {
        key: value
        for key, value in vars(module).items()
        if not key.startswith("_") and key not in _TRANSIENT and _is_plain(value)
    }


def _is_plain(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, (bool, int, float, str))


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other)  # schedules of rates differ in the last bit
    return one == other


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    tensors = {**module._parameters, **module._buffers}
    return {key: tuple(value.shape) for key, value in tensors.items() if value is not None}
