"""Networks of no zoo, and what all zoos have in common."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from zoo_adapters.errors import PuppetizeError
from zoo_adapters.protocol import DataConfig, ModelSource, TraceOptions


def in_channels(model: nn.Module) -> int:
    """Channels of the first ``Conv2d``, in registration order; 3 where there is none."""
    return next((m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)), 3)


class PlainAdapter:
    """Answers for any ``nn.Module``: ImageNet-sized input, nothing special to trace."""

    def list_models(self) -> list[str]:
        return []

    def create(self, name: str, **kwargs: Any) -> nn.Module:
        raise PuppetizeError(f"{name!r} is in no zoo; build the network yourself and pass it")

    def owns(self, model: nn.Module) -> bool:
        return True

    def candidates(self, model: nn.Module) -> Iterator[ModelSource]:
        return iter(())

    def data_config(self, model: nn.Module) -> DataConfig:
        channels = in_channels(model)
        if channels == len(DataConfig().mean):
            return DataConfig()
        return DataConfig((channels, 224, 224), mean=(0.5,) * channels, std=(0.5,) * channels)

    def trace_options(self, model: nn.Module) -> TraceOptions:
        return TraceOptions()

    def example_inputs(self, model: nn.Module) -> tuple[Any, ...] | None:
        return None

    def classifier(self, model: nn.Module) -> tuple[str, ...]:
        return ()
