"""Saving and loading puppets."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import zoo_adapters
from puppetize import attach
from puppetize.errors import PuppetizeError, PuppetizeWarning
from puppetize.module import PuppetModule
from puppetize.puppeteer import Puppeteer
from puppetize.storage import container
from puppetize.storage.manifest import Manifest

MODEL_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
CARD_FILE = "README.md"


def manifest_of(puppet: PuppetModule) -> Manifest:
    """What goes beside the puppet's tensors; the network's recipe is verified."""
    return Manifest(
        *zoo_adapters.identify(puppet.network, puppet.source),
        zoo_adapters.fingerprint(puppet.network),
        puppet.config,
        puppet.plan,
        puppet.data_config,
        puppet.original_bytes,
    )


def stored_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The state dict with tensors that share memory listed once, under their first name."""
    seen: set[tuple[Any, ...]] = set()
    kept = {}
    for name, tensor in module.state_dict().items():
        if not isinstance(tensor, Tensor):
            continue  # extra state of a module: no array, and no pickle is ever written
        storage = tensor.untyped_storage()
        where = storage.data_ptr() if tensor.device.type != "meta" else id(storage)
        place = (where, tensor.storage_offset(), tensor.shape, tensor.stride())
        if tensor.numel() == 0 or place not in seen:
            kept[name] = tensor
        seen.add(place)
    return kept


def save(puppet: PuppetModule, folder: Path, card: str) -> None:
    """Write the three files; see :meth:`puppetize.Puppet.save_pretrained`."""
    if folder.exists() and not folder.is_dir():
        raise PuppetizeError(f"{folder}: is a file; save_pretrained writes a directory")
    manifest = manifest_of(puppet)
    if manifest.source is None and zoo_adapters.guess(puppet.network) is not None:
        warnings.warn(
            f"{folder}: {type(puppet.network).__name__} cannot be built again by name "
            f"({manifest.why_no_source}), so from_pretrained will want model=, a network of the "
            "same architecture",
            PuppetizeWarning,
            stacklevel=3,
        )
    document = manifest.to_dict()
    container.write(folder / MODEL_FILE, stored_tensors(puppet), document)
    text = json.dumps(document, indent=2, sort_keys=True)
    container.write_text(folder / CONFIG_FILE, text + "\n")
    container.write_text(folder / CARD_FILE, card)


def load(file: Path, model: nn.Module | None) -> dict[str, Any]:
    """Arguments of a puppet's constructor; see :meth:`puppetize.Puppet.from_pretrained`."""
    if file.is_dir() or file.name == CONFIG_FILE:
        file = (file if file.is_dir() else file.parent) / MODEL_FILE
    tensors, document = container.read(file)
    _check_copy(file.parent / CONFIG_FILE, document)
    try:
        # Networks are built with random numbers, all of which the file replaces.
        with torch.random.fork_rng(devices=[]):
            return _rebuild(tensors, Manifest.from_dict(document), model)
    except PuppetizeError as error:
        raise PuppetizeError(f"{file}: {error}") from error


def _check_copy(path: Path, document: Mapping[str, Any]) -> None:
    if not path.exists():
        return
    try:
        copy = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise PuppetizeError(
            f"{path}: cannot be read ({error}); delete it or save again"
        ) from error
    if copy != document:
        raise PuppetizeError(
            f"{path}: differs from the configuration inside {MODEL_FILE}, which it only repeats; "
            "delete it or save again"
        )


def _rebuild(
    tensors: dict[str, Tensor], manifest: Manifest, model: nn.Module | None
) -> dict[str, Any]:
    name = "the given model" if manifest.source is None else manifest.source.full_name
    given = True
    if model is None:
        # First without memory: a damaged file may ask for any amount.
        with torch.device("meta"):
            _compare(_parts(_original(manifest), manifest), tensors, name)
        model, given = _original(manifest), False
    parts = _parts(model, manifest)
    _compare(parts, tensors, name)
    if given and zoo_adapters.fingerprint(model) != manifest.structure:
        warnings.warn(
            f"the given {type(model).__name__} has other layers or settings than the network that "
            "was saved (an activation, a stride, ...); its tensors fit, but outputs may differ",
            PuppetizeWarning,
            stacklevel=5,
        )
    _fill(parts, tensors)
    return {
        **parts.eval(),
        "plan": manifest.plan,
        "config": manifest.config,
        "data_config": manifest.data_config,
        "original_bytes": manifest.original_bytes,
        "source": manifest.source,
    }


def _parts(model: nn.Module, manifest: Manifest) -> nn.ModuleDict:
    attach.check(model, manifest.plan)
    return nn.ModuleDict(
        {
            "puppeteer": Puppeteer(manifest.plan, manifest.config),
            "network": attach.strip(model, manifest.plan),
        }
    )


def _original(manifest: Manifest) -> nn.Module:
    if manifest.source is None:
        raise PuppetizeError(
            f"the network cannot be built by name: {manifest.why_no_source}. Pass "
            "Puppet.from_pretrained(path, model=...) with a network of the same architecture"
        )
    with torch.random.fork_rng(devices=[]):
        return zoo_adapters.rebuild(manifest.source)


def _compare(parts: nn.Module, tensors: Mapping[str, Tensor], name: str) -> None:
    """Raise unless ``parts`` has the names, shapes and kinds of number of ``tensors``."""
    expected = stored_tensors(parts)
    for kind, names in (("lacks", expected.keys() - tensors), ("has", tensors.keys() - expected)):
        if names:
            some = ", ".join(sorted(names)[:3])
            raise PuppetizeError(
                f"it {kind} {len(names)} tensors that {name} does not have: {some}"
                if kind == "has"
                else f"it lacks {len(names)} tensors of {name}: {some}"
            )
    for key, tensor in tensors.items():
        if tensor.shape != expected[key].shape:
            raise PuppetizeError(
                f"{key!r} has shape {tuple(tensor.shape)} in the file and "
                f"{tuple(expected[key].shape)} in {name}"
            )
        if tensor.is_floating_point() != expected[key].is_floating_point():
            raise PuppetizeError(f"{key!r} has dtype {tensor.dtype} in the file, not in {name}")


def _fill(parts: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    # Not by load_state_dict: modules convert what they take for state dicts of older versions.
    own = parts.state_dict(keep_vars=True)
    for key, tensor in tensors.items():
        own[key].data = own[key].data.to(tensor.dtype).copy_(tensor)
