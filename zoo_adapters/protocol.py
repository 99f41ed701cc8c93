"""What a zoo has to tell the library: the protocol, and the records that cross it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import nn


@dataclass(frozen=True)
class ModelSource:
    """The recipe that builds a model again: ``create(f"{zoo}/{name}", **kwargs)``."""

    zoo: str
    name: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def full_name(self) -> str:
        """``zoo/name``, as the command line takes it."""
        return f"{self.zoo}/{self.name}"

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"zoo": self.zoo, "name": self.name, "kwargs": dict(self.kwargs)}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> ModelSource:
        """Inverse of :meth:`to_dict`, after a trip through JSON.

        Raises:
            ValueError: values of other types.
        """
        source = ModelSource(**values)
        if not all(isinstance(name, str) for name in (source.zoo, source.name)):
            raise ValueError(f"zoo {source.zoo!r}, name {source.name!r}: expected text")
        if not isinstance(source.kwargs, dict):
            raise ValueError(f"kwargs {source.kwargs!r}: expected an object")
        return source


@dataclass(frozen=True)
class TraceOptions:
    """How ``torch.fx`` should look at a zoo's models.

    Attributes:
        leaf_modules: module classes whose ``forward`` is not traced into.
        leaf_functions: functions that are recorded as one call.
    """

    leaf_modules: tuple[type[nn.Module], ...] = ()
    leaf_functions: tuple[Callable[..., Any], ...] = ()


@dataclass(frozen=True)
class DataConfig:
    """The images a model expects: RGB (or grey) in [0, 1], minus ``mean``, over ``std``.

    Attributes:
        input_size: channels, height, width in pixels.
        mean: one number a channel.
        std: one number a channel.
        interpolation: how images are resized, by the names of ``torchvision.transforms``.
        crop_pct: side of the centre crop over the side of the resized image, at evaluation.
    """

    input_size: tuple[int, int, int] = (3, 224, 224)
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: str = "bicubic"
    crop_pct: float = 0.875

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> DataConfig:
        """Inverse of ``dataclasses.asdict`` after a trip through JSON.

        Raises:
            ValueError: a value that no image has.
        """
        channels, height, width = values["input_size"]
        if not all(type(n) is int and n > 0 for n in (channels, height, width)):
            raise ValueError(f"input_size {values['input_size']}: expected positive integers")
        mean, std = (tuple(map(float, values[key])) for key in ("mean", "std"))
        if len(mean) != channels or len(std) != channels:
            raise ValueError(f"mean {mean} and std {std}: expected {channels} numbers each")
        return DataConfig(
            input_size=(channels, height, width),
            mean=mean,
            std=std,
            interpolation=str(values["interpolation"]),
            crop_pct=float(values["crop_pct"]),
        )


@runtime_checkable
class ZooAdapter(Protocol):
    """One zoo of models, seen from outside.

    A package brings its own zoo by naming an object with these methods in the entry point group
    ``puppetize.zoos``; the entry point's name is the zoo's name.
    """

    def list_models(self) -> list[str]:
        """Names of all architectures, without the zoo's name in front."""
        ...

    def create(self, name: str, **kwargs: Any) -> nn.Module:
        """Build ``name`` (one of ``list_models()``) with the zoo's own keyword arguments."""
        ...

    def owns(self, model: nn.Module) -> bool:
        """Whether ``model`` was built from this zoo's code."""
        ...

    def candidates(self, model: nn.Module) -> Iterator[ModelSource]:
        """Recipes that may build ``model`` again, best guess first; the caller verifies them."""
        ...

    def data_config(self, model: nn.Module) -> DataConfig:
        """The images that ``model`` expects."""
        ...

    def trace_options(self, model: nn.Module) -> TraceOptions:
        """How to trace ``model``."""
        ...

    def example_inputs(self, model: nn.Module) -> tuple[Any, ...] | None:
        """Positional arguments of the forward pass; None where it takes one batch of images.

        They must do for both modes (training targets included), hold at least two images, and may
        be on the ``meta`` device.
        """
        ...

    def classifier(self, model: nn.Module) -> tuple[str, ...]:
        """Names of the modules that give the logits; empty where there are none."""
        ...
