"""Whether two models are the same architecture, whatever their numbers."""

from __future__ import annotations

from typing import Any

from torch import nn

# Set by users while they work with a model; building it again need not repeat them.
_TRANSIENT = {"training", "grad_checkpointing"}


def difference(rebuilt: nn.Module, model: nn.Module) -> str:
    """The first difference in structure, as a phrase; an empty string where there is none.

    Compared are module names and classes, their printed settings, tensor shapes, and attributes
    that are plain values. Functions and other objects that a module may hold are not.
    """
    ours, theirs = dict(model.named_modules()), dict(rebuilt.named_modules())
    for name in [*theirs, *ours]:
        where = name or "the model"
        if name not in ours or name not in theirs:
            return f"{'lacks' if name not in theirs else 'has'} a module {where!r}"
        a, b = theirs[name], ours[name]
        if type(a) is not type(b):
            return f"has {type(a).__name__} where the model has {type(b).__name__} at {where!r}"
        if a.extra_repr() != b.extra_repr():
            return f"has ({a.extra_repr()}) where the model has ({b.extra_repr()}) at {where!r}"
        for kind, xs, ys in (("setting", _plain(a), _plain(b)), ("shape", _shapes(a), _shapes(b))):
            for key in xs.keys() & ys.keys():
                if xs[key] != ys[key]:
                    return f"has {kind} {key}={xs[key]} where the model has {ys[key]} at {where!r}"
    return ""


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


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    tensors = {**module._parameters, **module._buffers}
    return {key: tuple(value.shape) for key, value in tensors.items() if value is not None}
