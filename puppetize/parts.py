"""Bytes by part of a network: what takes the room in a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

from torch import Tensor, nn

GENERATED = "generated convolutions"
PUPPETEER = "puppeteer"
GAINS = "gains"
CONTAINER = "container"


def bytes_by_part(
    tensors: Mapping[str, Tensor],
    modules: Mapping[str, nn.Module],
    total: int,
    generated: Collection[str] = (),
) -> dict[str, int]:
    """Bytes of a file by what they are for; the parts sum to ``total``.

    Args:
        tensors: what the file holds, by the names of a state dict.
        modules: owners of the tensors, by name.
        total: bytes of the file.
        generated: tensors that a puppet generates.
    """
    parts: Counter[str] = Counter()
    for name, tensor in tensors.items():
        owner, _, attribute = name.rpartition(".")
        part = GENERATED if name in generated else _part(modules[owner], owner, attribute)
        parts[part] += tensor.numel() * tensor.element_size()
    parts[CONTAINER] = total - sum(parts.values())
    return dict(parts)


def _part(module: nn.Module, owner: str, attribute: str) -> str:
    if owner.startswith("puppeteer."):
        return GAINS if attribute == "gains" else PUPPETEER
    if "norm" in type(module).__name__.lower():
        return "norms"
    if isinstance(module, nn.Linear):
        return "linear layers"
    if isinstance(module, nn.Conv2d):
        return "kept convolutions" if attribute == "weight" else "convolution biases"
    return "other"
