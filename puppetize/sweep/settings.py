"""What a sweep measures, with which limits, and on which part of the models."""

from __future__ import annotations

import functools
import hashlib
import json
import math
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import torch

from puppetize.analysis import check_ratio
from puppetize.config import PuppetConfig
from puppetize.errors import PuppetizeError

_PACKAGES = ("puppetize", "torch", "timm", "torchvision")
_DIGEST_CHARACTERS = 12


@functools.cache
def installed_versions() -> dict[str, str]:
    """Versions of what decides the result, as installed here."""
    return {package: version(package) for package in _PACKAGES}


@dataclass(frozen=True)
class Settings:
    """Everything that a row depends on besides the model.

    Attributes:
        config: how weights are generated.
        ratio: as of :func:`puppetize.puppetize`.
        num_classes: of each model's head; None for the zoo's own.
        run: build models with random numbers, compare baked with generated logits, and time them;
            otherwise only their structure is looked at.
        device: where models run.
        versions: of the packages that the result depends on.
    """

    config: PuppetConfig = field(default_factory=PuppetConfig)
    ratio: float | None = None
    num_classes: int | None = None
    run: bool = False
    device: str = "cpu"
    versions: dict[str, str] = field(default_factory=installed_versions)

    def __post_init__(self) -> None:
        check_ratio(self.ratio, self.config)
        if self.num_classes is not None and self.num_classes < 1:
            raise PuppetizeError(f"num_classes={self.num_classes!r}: expected at least one")
        try:
            torch.device(self.device)
        except RuntimeError as error:
            raise PuppetizeError(
                f"device {self.device!r}: expected one of torch's, such as cpu, cuda or cuda:1"
            ) from error
        if self.device != "cpu" and not self.run:
            raise PuppetizeError(
                f"device {self.device!r}: without --run (run=True) nothing is computed; add it, or "
                "leave the device out"
            )

    def options(self) -> dict[str, Any]:
        """All but the versions, ready for JSON."""
        return {
            "config": self.config.to_dict(),
            "ratio": self.ratio,
            "num_classes": self.num_classes,
            "run": self.run,
            "device": self.device,
        }

    @functools.cached_property
    def key(self) -> str:
        """Short digest of all settings: rows with the same key and model say the same."""
        text = json.dumps([self.options(), self.versions], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_CHARACTERS]


@dataclass(frozen=True)
class Limits:
    """What one model may use.

    Attributes:
        timeout: seconds, from the moment its process starts to work.
        memory: GiB (2**30 bytes) on top of what the imported libraries take.
        jobs: models at a time on this machine.
    """

    timeout: float = 600.0
    memory: float = 8.0
    jobs: int = 1

    def __post_init__(self) -> None:
        for name in ("timeout", "memory"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                unit = "seconds" if name == "timeout" else "GiB"
                raise PuppetizeError(f"{name}={value!r}: expected a positive number of {unit}")
        if self.jobs < 1:
            raise PuppetizeError(f"jobs={self.jobs!r}: expected at least one")


@dataclass(frozen=True)
class Shard:
    """Every ``count``-th model, from the ``index``-th on; the first is 1."""

    index: int = 1
    count: int = 1

    @staticmethod
    def parse(text: str) -> Shard:
        """From text such as ``2/4``.

        Raises:
            PuppetizeError: anything else.
        """
        index, slash, count = text.partition("/")
        if slash and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count):
            return Shard(int(index), int(count))
        raise PuppetizeError(
            f"shard {text!r}: expected i/n with i from 1 to n, such as 2/4 for the second of four"
        )

    def of(self, names: list[str]) -> list[str]:
        """The part of ``names`` that is this shard's."""
        return names[self.index - 1 :: self.count]
