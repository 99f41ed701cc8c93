"""torchvision: ``torchvision.models``."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from typing import Any

import torch
import torchvision
from torch import nn
from torch.overrides import TorchFunctionMode
from torchvision.models import Inception3
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.ssd import SSD
from torchvision.models.optical_flow import RAFT

from zoo_adapters.plain import PlainAdapter
from zoo_adapters.protocol import DataConfig, ModelSource

# Children of a root module that hold the layers which give the logits.
_HEADS = ("fc", "classifier", "head", "heads", "aux_classifier")
_DETECTORS = (GeneralizedRCNN, RetinaNet, FCOS, SSD)
# Attributes of heads: of RetinaNet and FCOS, and of SSD.
_CLASSES_OF_DETECTORS = ("num_classes", "num_columns")
_INCEPTION_SIZE = 299
_RAFT_SIZE = (128, 128)
_DETECTION_SIDE = 800


class TorchvisionAdapter(PlainAdapter):
    """Every architecture of ``torchvision.models.list_models()``."""

    def list_models(self) -> list[str]:
        return torchvision.models.list_models()

    def create(self, name: str, **kwargs: Any) -> nn.Module:
        builder = torchvision.models.get_model_builder(name)
        if "weights_backbone" in inspect.signature(builder).parameters:
            kwargs.setdefault("weights_backbone", None)
        with warnings.catch_warnings(), _RangesOnCPU():
            # GoogLeNet and Inception announce a future change of their initialisation.
            warnings.filterwarnings("ignore", message=".*default weight initialization.*")
            return torchvision.models.get_model(name, **kwargs)

    def family(self, name: str) -> str:
        """The file of torchvision that defines ``name``, such as ``resnet``."""
        return torchvision.models.get_model_builder(name).__module__.rpartition(".")[2]

    def owns(self, model: nn.Module) -> bool:
        return type(model).__module__.startswith("torchvision.")

    def candidates(self, model: nn.Module) -> Iterator[ModelSource]:
        home, detector = type(model).__module__, isinstance(model, _DETECTORS)
        kwargs: dict[str, Any] = {}
        classes = self._num_classes(model)
        if classes is not None:
            kwargs["num_classes"] = classes
        if hasattr(model, "aux_logits"):
            kwargs["aux_logits"] = model.aux_logits
        for name in torchvision.models.list_models():
            built_by = torchvision.models.get_model_builder(name).__module__
            if built_by == home or (detector and ".detection." in built_by):
                yield ModelSource("torchvision", name, kwargs)

    def data_config(self, model: nn.Module) -> DataConfig:
        plain = super().data_config(model)
        if isinstance(model, Inception3):
            return DataConfig((plain.input_size[0], _INCEPTION_SIZE, _INCEPTION_SIZE))
        return plain

    def example_inputs(self, model: nn.Module) -> tuple[Any, ...] | None:
        if isinstance(model, RAFT):
            frames = torch.empty(2, 3, *_RAFT_SIZE, device="meta")
            return frames, frames
        if isinstance(model, _DETECTORS):
            return _detection_inputs(next(model.parameters()).dtype)
        return None

    def classifier(self, model: nn.Module) -> tuple[str, ...]:
        if isinstance(model, _DETECTORS):
            return tuple(_logits_of_detector(model))
        last = (_last_layer(model, head) for head in _HEADS)
        return tuple(name for name in last if name is not None)

    def _num_classes(self, model: nn.Module) -> int | None:
        if isinstance(model, _DETECTORS):
            for module in model.modules():
                for attribute in _CLASSES_OF_DETECTORS:
                    if hasattr(module, attribute):
                        return getattr(module, attribute)
        for name in self.classifier(model):
            layer = model.get_submodule(name)
            return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels  # type: ignore[return-value]
        return None


class _RangesOnCPU(TorchFunctionMode):
    """Keeps arithmetic about sizes on the CPU when a model is built on the ``meta`` device.

    RegNets compute their widths with a few small tensors and read the values.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.arange, torch.tensor):
            kwargs.setdefault("device", "cpu")
        return func(*args, **kwargs)


def _detection_inputs(dtype: torch.dtype) -> tuple[Any, ...]:
    """Two images with one object each: all that any head learns from."""
    side = _DETECTION_SIDE
    image = torch.empty(3, side, side, dtype=dtype, device="meta")
    target = {
        "boxes": torch.tensor([[0.0, 0.0, side, side]]),
        "labels": torch.ones(1, dtype=torch.int64),
        "masks": torch.ones(1, side, side, dtype=torch.uint8),
        "keypoints": torch.ones(1, 17, 3),
    }
    return [image, image], [target, target]


def _last_layer(model: nn.Module, head: str) -> str | None:
    child = getattr(model, head, None)
    if not isinstance(child, nn.Module):
        return None
    kinds = (nn.Linear, nn.Conv2d, nn.Conv3d)
    layers = [n for n, m in child.named_modules() if isinstance(m, kinds)]
    return f"{head}.{layers[-1]}".rstrip(".") if layers else None


def _logits_of_detector(model: nn.Module) -> Iterator[str]:
    """The layers that tell classes, boxes being told by others."""
    for name, module in model.named_modules():
        of_ssd = "classification_head.module_list." in name and isinstance(module, nn.Conv2d)
        if of_ssd or name.endswith(("classification_head.cls_logits", "box_predictor.cls_score")):
            yield name
