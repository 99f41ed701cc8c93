"""torchvision: ``torchvision.models``."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from typing import Any

import torchvision
from torch import nn

from zoo_adapters.plain import PlainAdapter
from zoo_adapters.protocol import DataConfig, ModelSource

# Children of a root module that hold the layers which give the logits.
_HEADS = ("fc", "classifier", "head", "heads", "aux_classifier")
_INCEPTION_SIZE = 299


class TorchvisionAdapter(PlainAdapter):
    """Every architecture of ``torchvision.models.list_models()``."""

    def list_models(self) -> list[str]:
        return torchvision.models.list_models()

    def create(self, name: str, **kwargs: Any) -> nn.Module:
        builder = torchvision.models.get_model_builder(name)
        if "weights_backbone" in inspect.signature(builder).parameters:
            kwargs.setdefault("weights_backbone", None)
        with warnings.catch_warnings():
            # GoogLeNet and Inception announce a future change of their initialisation.
            warnings.filterwarnings("ignore", message=".*default weight initialization.*")
            return torchvision.models.get_model(name, **kwargs)

    def owns(self, model: nn.Module) -> bool:
        return type(model).__module__.startswith("torchvision.")

    def candidates(self, model: nn.Module) -> Iterator[ModelSource]:
        home = type(model).__module__
        kwargs: dict[str, Any] = {}
        classes = self._num_classes(model)
        if classes is not None:
            kwargs["num_classes"] = classes
        if hasattr(model, "aux_logits"):
            kwargs["aux_logits"] = model.aux_logits
        for name in torchvision.models.list_models():
            if torchvision.models.get_model_builder(name).__module__ == home:
                yield ModelSource("torchvision", name, kwargs)

    def data_config(self, model: nn.Module) -> DataConfig:
        plain = super().data_config(model)
        if type(model).__name__ == "Inception3":
            return DataConfig((plain.input_size[0], _INCEPTION_SIZE, _INCEPTION_SIZE))
        return plain

    def classifier(self, model: nn.Module) -> tuple[str, ...]:
        last = (_last_layer(model, head) for head in _HEADS)
        return tuple(name for name in last if name is not None)

    def _num_classes(self, model: nn.Module) -> int | None:
        for name in self.classifier(model):
            layer = model.get_submodule(name)
            return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels  # type: ignore[return-value]
        return None


def _last_layer(model: nn.Module, head: str) -> str | None:
    child = getattr(model, head, None)
    if not isinstance(child, nn.Module):
        return None
    layers = [n for n, m in child.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    return f"{head}.{layers[-1]}".rstrip(".") if layers else None
