"""timm: PyTorch Image Models."""

from __future__ import annotations

import itertools
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
from timm.models import FeatureInfo
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
        info = getattr(model, "feature_info", None)
        if isinstance(info, FeatureInfo) and classes is None:
            kwargs |= {"features_only": True, "out_indices": info.out_indices}
        for settings in _settings(model):
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


def _settings(model: nn.Module) -> Iterator[dict[str, Any]]:
    """Arguments of ``create_model`` that leave traces in a model, fewest first.

    A trace may come from a default of the architecture, so each subset is a candidate.
    """
    found: dict[str, list[Any]] = {}
    modules: list[Any] = list(model.modules())
    paths = [m.drop_prob for m in modules if isinstance(m, DropPath) and m.drop_prob]
    rates = [m.drop_rate for m in modules if isinstance(getattr(m, "drop_rate", None), float)]
    rates += [m.p for m in modules if isinstance(m, nn.Dropout)]
    pools = [m.pool_type for m in modules if isinstance(m, SelectAdaptivePool2d)]
    pools += [m.global_pool for m in modules if isinstance(getattr(m, "global_pool", None), str)]
    dilations = {max(m.dilation) for m in modules if isinstance(m, nn.Conv2d)}
    if any(rates):
        found["drop_rate"] = [max(rates)]
    if paths:
        # It grows with depth, to the rate itself or to one step short of it.
        found["drop_path_rate"] = [max(paths), round(max(paths) * (1 + 1 / len(paths)), 9)]
    if pools:
        found["global_pool"] = [pools[-1]]
    if dilations - {1}:
        found["output_stride"] = [8 if 4 in dilations else 16]
    for size in range(len(found) + 1):
        for keys in itertools.combinations(found, size):
            for values in itertools.product(*(found[key] for key in keys)):
                yield dict(zip(keys, values, strict=True))


def _channels(model: nn.Module) -> int:
    """Of the images: what the first convolution sees, unless a stem folds space into channels."""
    first = _config(model).get("first_conv") or ()
    firsts = (first,) if isinstance(first, str) else tuple(first)
    folded = 1
    for name, module in model.named_modules():
        if isinstance(module, SpaceToDepth):
            folded = module.bs**2
        if name in firsts and isinstance(module, nn.Conv2d):
            return module.in_channels // folded
    declared = _config(model).get("input_size")
    return declared[0] if declared else in_channels(model)


def _per_channel(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    if len(values) == channels:
        return tuple(values)
    return (sum(values) / len(values),) * channels
