"""timm: PyTorch Image Models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import timm
from timm.data import resolve_model_data_config
from timm.layers import (
    DropPath,
    SelectAdaptivePool2d,
    SpaceToDepth,
    get_notrace_functions,
    get_notrace_modules,
)
from torch import nn

from zoo_adapters.plain import PlainAdapter, in_channels
from zoo_adapters.protocol import DataConfig, ModelSource, TraceOptions


class TimmAdapter(PlainAdapter):
    """Every architecture of ``timm.list_models()``."""

    def list_models(self) -> list[str]:
        return timm.list_models()

    def create(self, name: str, **kwargs: Any) -> nn.Module:
        return timm.create_model(name, **kwargs)

    def family(self, name: str) -> str:
        """The file of timm that defines ``name``, such as ``resnet``."""
        return timm.models.model_entrypoint(name).__module__.rpartition(".")[2]

    def owns(self, model: nn.Module) -> bool:
        return type(model).__module__.split(".")[0] == "timm"

    def candidates(self, model: nn.Module) -> Iterator[ModelSource]:
        name = _config(model).get("architecture")
        if not name:
            return
        kwargs: dict[str, Any] = {}
        classes = getattr(model, "num_classes", None)
        if isinstance(classes, int) and classes != _config(model).get("num_classes"):
            kwargs["num_classes"] = classes
        channels = _channels(model)
        if channels != _config(model).get("input_size", (channels,))[0]:
            kwargs["in_chans"] = channels
        yield ModelSource("timm", name, kwargs)
        settings = _settings(model)
        if settings:
            yield ModelSource("timm", name, {**kwargs, **settings})

    def data_config(self, model: nn.Module) -> DataConfig:
        if not _config(model):
            return super().data_config(model)
        config = resolve_model_data_config(model)
        channels = _channels(model)
        mean, std = (_per_channel(config[key], channels) for key in ("mean", "std"))
        return DataConfig(
            input_size=(channels, *config["input_size"][1:]),
            mean=mean,
            std=std,
            interpolation=config["interpolation"],
            crop_pct=config["crop_pct"],
        )

    def trace_options(self, model: nn.Module) -> TraceOptions:
        return TraceOptions(tuple(get_notrace_modules()), tuple(get_notrace_functions()))

    def classifier(self, model: nn.Module) -> tuple[str, ...]:
        named = _config(model).get("classifier") or ()
        modules = dict(model.named_modules())
        names = (named,) if isinstance(named, str) else tuple(named)
        return tuple(name for name in names if name in modules)


def _config(model: nn.Module) -> dict[str, Any]:
    return getattr(model, "pretrained_cfg", None) or {}


def _settings(model: nn.Module) -> dict[str, Any]:
    """Arguments of ``create_model`` that leave traces in a model, where they may be no default."""
    found: dict[str, Any] = {}
    paths = [m.drop_prob for m in model.modules() if isinstance(m, DropPath)]
    pools = [m.pool_type for m in model.modules() if isinstance(m, SelectAdaptivePool2d)]
    if pools:
        found["global_pool"] = pools[-1]
    if getattr(model, "drop_rate", 0):
        found["drop_rate"] = model.drop_rate
    if paths:
        found["drop_path_rate"] = max(paths)  # it grows to the rate with depth
    return found


def _channels(model: nn.Module) -> int:
    """Of the images: what the first convolution sees, unless a stem folds space into channels."""
    first = _config(model).get("first_conv")
    folded = 1
    for name, module in model.named_modules():
        if isinstance(module, SpaceToDepth):
            folded = module.bs**2
        if name == first and isinstance(module, nn.Conv2d):
            return module.in_channels // folded
    declared = _config(model).get("input_size")
    return declared[0] if declared else in_channels(model)


def _per_channel(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    if len(values) == channels:
        return tuple(values)
    return (sum(values) / len(values),) * channels
