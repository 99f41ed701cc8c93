"""Finding zoos and their models by name."""

from __future__ import annotations

import difflib
import fnmatch
import functools
import itertools
import json
import math
import weakref
from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Any

import torch
from torch import nn

from zoo_adapters.errors import PuppetizeError
from zoo_adapters.plain import PlainAdapter
from zoo_adapters.protocol import ModelSource, ZooAdapter
from zoo_adapters.rebuild import differences
from zoo_adapters.timm_zoo import TimmAdapter
from zoo_adapters.torchvision_zoo import TorchvisionAdapter

ENTRY_POINT_GROUP = "puppetize.zoos"

_created: weakref.WeakKeyDictionary[nn.Module, ModelSource] = weakref.WeakKeyDictionary()


@functools.cache
def zoos() -> dict[str, ZooAdapter]:
    """All zoos by name: timm, torchvision, and those that installed packages register.

    Raises:
        PuppetizeError: two packages register one name, or what is registered is no adapter.
    """
    found: dict[str, ZooAdapter] = {"timm": TimmAdapter(), "torchvision": TorchvisionAdapter()}
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.name in found:
            raise PuppetizeError(
                f"entry point {ENTRY_POINT_GROUP!r} registers the zoo {point.name!r} a second time "
                f"({point.value}); uninstall one of the packages or rename its zoo"
            )
        loaded = point.load()
        adapter = loaded() if isinstance(loaded, type) else loaded
        if not isinstance(adapter, ZooAdapter):
            raise PuppetizeError(
                f"entry point {point.name} = {point.value} of group {ENTRY_POINT_GROUP!r} gives a "
                f"{type(adapter).__name__}, which lacks methods of zoo_adapters.ZooAdapter"
            )
        found[point.name] = adapter
    return found


def list_models(pattern: str = "*") -> list[str]:
    """Names ``zoo/model`` that match a shell-style pattern such as ``torchvision/*``.

    A pattern without a slash is matched against the model's name in every zoo.
    """
    full = pattern if "/" in pattern else f"*/{pattern}"
    names = (f"{zoo}/{name}" for zoo, adapter in zoos().items() for name in adapter.list_models())
    return [name for name in names if fnmatch.fnmatchcase(name, full)]


def create(name: str, **kwargs: Any) -> nn.Module:
    """Build the model ``zoo/name`` with its zoo's own keyword arguments.

    Without a zoo in front, ``name`` must exist in one zoo only.

    Raises:
        PuppetizeError: no such model (close matches are named), or the zoo refuses the arguments.
    """
    zoo, short = _split(name)
    try:
        model = zoos()[zoo].create(short, **kwargs)
    except (TypeError, ValueError, RuntimeError, ImportError) as error:
        raise PuppetizeError(f"{zoo}/{short} cannot be built with {kwargs}: {error}") from error
    recipe = {key: value for key, value in kwargs.items() if not _brings_numbers(key)}
    _created[model] = ModelSource(zoo, short, recipe)
    return model


def rebuild(source: ModelSource) -> nn.Module:
    """Build the architecture of a recipe that may come from a file of somebody else's.

    Raises:
        PuppetizeError: as :func:`create`; or the recipe asks for a download, or for another file.
    """
    for key, value in source.kwargs.items():
        if value and _brings_numbers(key):
            raise PuppetizeError(
                f"{source.full_name} with {key}={value!r}: a recipe must not fetch numbers; the "
                "file was not written by puppetize"
            )
    return create(source.full_name, **source.kwargs)


def _brings_numbers(key: str) -> bool:
    return key.startswith(("pretrained", "weights")) or key == "checkpoint_path"


def adapter_for(model: nn.Module) -> ZooAdapter:
    """The adapter of the zoo that ``model`` comes from; a general one for any other network."""
    return next((zoo for zoo in zoos().values() if zoo.owns(model)), PlainAdapter())


def guess(model: nn.Module) -> ModelSource | None:
    """The most likely recipe of ``model``, not verified; None for a network of no zoo."""
    return next(_candidates(model), None)


def identify(model: nn.Module, hint: ModelSource | None = None) -> tuple[ModelSource | None, str]:
    """The recipe that builds ``model`` again, verified by building it without memory.

    Args:
        model: any network; only its structure is looked at.
        hint: a recipe to try first.

    Returns:
        The recipe and an empty string, or None and what stands in the way.
    """
    closest, reason = math.inf, "it comes from no known zoo"
    for source in itertools.chain(filter(None, [hint]), _candidates(model)):
        try:
            source = ModelSource(**json.loads(json.dumps(source.to_dict())))
            with torch.device("meta"):
                twin = zoos()[source.zoo].create(source.name, **source.kwargs)
        except Exception as error:  # a zoo may raise anything for arguments that it does not know
            if closest == math.inf:
                reason = f"{source.full_name} cannot be built with {dict(source.kwargs)}: {error}"
            continue
        found = list(differences(twin, model))
        if not found:
            return source, ""
        if len(found) < closest:
            closest, reason = len(found), f"{source.full_name} {found[0]}"
    return None, reason


def _candidates(model: nn.Module) -> Iterator[ModelSource]:
    recorded = _created.get(model)
    if recorded is not None:
        yield recorded
    for adapter in zoos().values():
        if adapter.owns(model):
            yield from adapter.candidates(model)


def _split(name: str) -> tuple[str, str]:
    zoo, slash, short = name.partition("/")
    if slash and zoo not in zoos():
        raise PuppetizeError(
            f"unknown zoo {zoo!r} in {name!r}; zoos: {', '.join(zoos())}"
            + _close(short, list_models(), "close matches")
        )
    homes = [z for z in zoos() if (z == zoo or not slash)]
    short = short if slash else name
    exact = [z for z in homes if short in zoos()[z].list_models()]
    if len(exact) == 1:
        return exact[0], short
    if exact:
        raise PuppetizeError(
            f"{name!r} is in several zoos; say " + " or ".join(f"{z}/{name}" for z in exact)
        )
    known = [f"{z}/{n}" for z in homes for n in zoos()[z].list_models()]
    raise PuppetizeError(f"unknown model {name!r}" + _close(short, known, "close matches"))


def _close(short: str, known: list[str], label: str) -> str:
    by_short = {full.partition("/")[2]: full for full in reversed(known)}
    close = difflib.get_close_matches(short, by_short, n=3, cutoff=0.5)
    return f"; {label}: {', '.join(by_short[c] for c in close)}" if close else ""
