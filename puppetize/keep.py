"""Convolutions whose weights must stay as they are, and why."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Iterator, Mapping, Sequence

from torch import nn

from puppetize.errors import PuppetizeError
from puppetize.walk import conv_names

Patterns = str | Sequence[str] | None


def reasons_to_keep(
    model: nn.Module,
    classifier: Collection[str] = (),
    include: Patterns = None,
    exclude: Patterns = None,
) -> dict[str, str]:
    """Names of convolutions that must not be generated, each with a phrase that says why.

    Args:
        model: the network.
        classifier: names of the layers that give its logits.
        include: patterns of the convolutions that may be generated; None for all.
        exclude: patterns of convolutions that may not.

    Raises:
        PuppetizeError: a pattern that fits no ``Conv2d``.
    """
    names = {first: (first, *rest) for first, rest in conv_names(model).items()}
    modules = dict(model.named_modules(remove_duplicate=False))
    owners = _owners(model)
    included = _matching("include", include, names, model)
    excluded = _matching("exclude", exclude, names, model)
    reasons = {}
    for first, all_names in names.items():
        weight = modules[first]._parameters.get("weight")
        elsewhere = [] if weight is None else owners[id(weight)]
        if weight is None:
            reasons[first] = "its weight is computed by a parametrization"
        elif elsewhere:
            reasons[first] = f"its weight is also {elsewhere[0]}"
        elif set(all_names) & set(classifier):
            reasons[first] = "classifier"
        elif first in excluded:
            reasons[first] = "excluded"
        elif include is not None and first not in included:
            reasons[first] = "not included"
    return reasons


def _owners(model: nn.Module) -> dict[int, list[str]]:
    """By the identity of each parameter, the places where it is something else than a filter."""
    owners: dict[int, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        for attribute, parameter in module._parameters.items():
            places = owners.setdefault(id(parameter), [])
            if not (isinstance(module, nn.Conv2d) and attribute == "weight"):
                places.append(f"{name}.{attribute}".lstrip("."))
    return owners


def _matching(
    option: str, patterns: Patterns, names: Mapping[str, tuple[str, ...]], model: nn.Module
) -> set[str]:
    found = set()
    for pattern in [patterns] if isinstance(patterns, str) else patterns or ():
        hits = {
            first
            for first, all_names in names.items()
            if any(
                fnmatch.fnmatchcase(part, pattern)
                for name in all_names
                for part in (name, *_modules_around(name))
            )
        }
        if not hits:
            some = ", ".join(list(names)[:3])
            raise PuppetizeError(
                f"{option}={pattern!r} fits no Conv2d of {type(model).__name__}, nor a module that "
                f"holds one; its Conv2d layers are called {some} ..."
            )
        found |= hits
    return found


def _modules_around(name: str) -> Iterator[str]:
    while "." in name:
        name = name.rpartition(".")[0]
        yield name
