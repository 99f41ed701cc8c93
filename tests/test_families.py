"""The smallest CNN of every family of both zoos: forward, backward, baking, saving.

A family is a file of its zoo; a CNN has more than half of its parameters in ``Conv2d``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from networks import SMALL, wake
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import zoo_adapters
from puppetize import Puppet, puppetize


@dataclass(frozen=True)
class Family:
    """A family's smallest CNN, and the side of small images that it takes."""

    name: str
    side: int = 32
    kwargs: Mapping[str, Any] = field(default_factory=lambda: {"num_classes": 10})
    slow: bool = False

    def build(self) -> nn.Module:
        torch.manual_seed(0)
        return zoo_adapters.create(self.name, **self.kwargs)

    def inputs(self) -> tuple[Any, ...]:
        """Arguments of the forward pass in training mode, or in eval mode without the targets."""
        generator = torch.Generator().manual_seed(1)
        images = torch.randn(2, 3, self.side, self.side, generator=generator)
        if "raft" in self.name:
            return images, images.roll(2, -1)
        if self.detects:
            return [*images.sigmoid()], [self._target(), self._target()]
        return (images,)

    @property
    def detects(self) -> bool:
        return any(kind in self.name for kind in ("rcnn", "fcos", "retinanet", "ssd"))

    def _target(self) -> dict[str, Tensor]:
        low, high = self.side / 8, self.side * 7 / 8
        masks = torch.zeros(1, self.side, self.side, dtype=torch.uint8)
        masks[:, int(low) : int(high), int(low) : int(high)] = 1
        return {
            "boxes": torch.tensor([[low, low, high, high]]),
            "labels": torch.ones(1, dtype=torch.int64),
            "masks": masks,
            "keypoints": torch.full((1, 17, 3), self.side / 2),
        }


# Small images, and detections however unsure.
_DENSE = {"num_classes": 10, "min_size": 64, "max_size": 64, "score_thresh": 0.0}
_RCNN = {"num_classes": 10, "min_size": 64, "max_size": 64, "box_score_thresh": 0.0}
_SSD = {"num_classes": 10, "score_thresh": 0.0}

FAMILIES = [
    Family("timm/convmixer_768_32", slow=True),
    Family("timm/convnext_zepto_rms"),
    Family("timm/cpubone_s0"),
    Family("timm/cs3darknet_focus_s"),
    Family("timm/cspnext_tiny"),
    Family("timm/densenet121", slow=True),
    Family("timm/dla46x_c"),
    Family("timm/dpn48b", slow=True),
    Family("timm/efficientformer_l1", 224, slow=True),
    Family("timm/efficientformerv2_s0", 224),
    Family("timm/efficientvim_m1"),
    Family("timm/efficientvit_b1"),
    Family("timm/efficientvit_m0"),
    Family("timm/ese_vovnet19b_slim_dw"),
    Family("timm/fasternet_t0"),
    Family("timm/fastvit_t8"),
    Family("timm/focalnet_tiny_srf", slow=True),
    Family("timm/ghostnetv3_050", 64, slow=True),
    Family("timm/halonet_h1", 256, slow=True),
    Family("timm/hardcorenas_b"),
    Family("timm/hgnetv2_b0"),
    Family("timm/hrnet_w18_small", slow=True),
    Family("timm/iformer_t"),
    Family("timm/inception_next_atto"),
    Family("timm/inception_resnet_v2", 96, slow=True),
    Family("timm/inception_v3", 96, slow=True),
    Family("timm/inception_v4", 96, slow=True),
    Family("timm/lcnetv2_small"),
    Family("timm/legacy_seresnet18"),
    Family("timm/legacy_xception", slow=True),
    Family("timm/levit_conv_128s", 224),
    Family("timm/lowformer_b0"),
    Family("timm/mobilenetv2_075"),
    Family("timm/mobilenetv3_small_100"),
    Family("timm/mobilenetv5_base", slow=True),
    Family("timm/mobileone_s1", slow=True),
    Family("timm/mobilevitv2_050"),
    Family("timm/nasnetalarge", slow=True),
    Family("timm/nextvit_small", slow=True),
    Family("timm/nf_regnet_b0", slow=True),
    Family("timm/pnasnet5large", slow=True),
    Family("timm/poolformerv2_s12"),
    Family("timm/rdnet_tiny", slow=True),
    Family("timm/regnetx_002"),
    Family("timm/repghostnet_080"),
    Family("timm/repvit_m1", slow=True),
    Family("timm/res2next50", slow=True),
    Family("timm/resnest14d"),
    Family("timm/resnetv2_18"),
    Family("timm/rexnet_100", slow=True),
    Family("timm/selecsls42", slow=True),
    Family("timm/shvit_s1", slow=True),
    Family("timm/skresnet18"),
    Family("timm/starnet_s050"),
    Family("timm/swiftformer_xs"),
    Family("timm/test_coatnet", 160),
    Family("timm/test_resnet"),
    Family("timm/tresnet_m", slow=True),
    Family("timm/vgg11", kwargs={"num_classes": 10, "mlp_ratio": 1 / 32}),
    Family("timm/visformer_tiny", 224, slow=True),
    Family("timm/xception41p", slow=True),
    Family("torchvision/deeplabv3_mobilenet_v3_large", slow=True),
    Family("torchvision/densenet121", slow=True),
    Family("torchvision/efficientnet_b0"),
    Family("torchvision/fasterrcnn_mobilenet_v3_large_320_fpn", 64, kwargs=_RCNN),
    Family("torchvision/fasterrcnn_resnet50_fpn", 64, kwargs=_RCNN, slow=True),
    Family("torchvision/fcn_resnet50", slow=True),
    Family("torchvision/fcos_resnet50_fpn", 64, kwargs=_DENSE),
    Family("torchvision/inception_v3", 299, slow=True),
    Family("torchvision/keypointrcnn_resnet50_fpn", 64, kwargs=_RCNN, slow=True),
    Family("torchvision/lraspp_mobilenet_v3_large"),
    Family("torchvision/maskrcnn_resnet50_fpn", 64, kwargs=_RCNN, slow=True),
    Family("torchvision/mnasnet0_75"),
    Family("torchvision/mobilenet_v2"),
    Family("torchvision/mobilenet_v3_large"),
    Family("torchvision/quantized_inception_v3", 299, slow=True),
    Family("torchvision/quantized_mobilenet_v2"),
    Family("torchvision/quantized_mobilenet_v3_large"),
    Family("torchvision/quantized_resnet18"),
    Family("torchvision/quantized_shufflenet_v2_x1_0"),
    Family("torchvision/raft_small", 128, kwargs={}),
    Family("torchvision/regnet_y_400mf"),
    Family("torchvision/resnet18"),
    Family("torchvision/retinanet_resnet50_fpn", 64, kwargs=_DENSE, slow=True),
    Family("torchvision/shufflenet_v2_x1_0"),
    Family("torchvision/squeezenet1_1"),
    Family("torchvision/ssd300_vgg16", 64, kwargs=_SSD, slow=True),
    Family("torchvision/ssdlite320_mobilenet_v3_large", 64, kwargs=_SSD),
]


class Case:
    def __init__(self, family: Family, folder):
        self.family, self.folder = family, folder
        self.puppet = puppetize(family.build(), SMALL).eval()
        self.inputs = family.inputs()
        self.outputs = self.run(self.puppet)

    def run(self, module: nn.Module) -> list[Tensor]:
        with torch.no_grad():
            inputs = self.inputs[:1] if self.family.detects else self.inputs
            return tree_leaves(module(*inputs))

    @cached_property
    def saved(self) -> Puppet:
        self.puppet.save_pretrained(self.folder)
        return Puppet.from_pretrained(self.folder).eval()


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(f, id=f.name, marks=[pytest.mark.slow] if f.slow else []) for f in FAMILIES
    ],
)
def case(request, tmp_path_factory):
    return Case(request.param, tmp_path_factory.mktemp("saved"))


def same(found: list[Tensor], expected: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def loss_of(outputs: Any) -> Tensor:
    """A detection model's own losses; of logits, of each pixel or image, the cross-entropy; of
    flow, the distance to none.
    """
    if isinstance(outputs, Tensor):
        classes = outputs.shape[1]
        if classes == 2:
            return outputs.abs().mean()
        labels = torch.arange(outputs[:, 0].numel()).reshape(outputs[:, 0].shape) % classes
        return F.cross_entropy(outputs, labels)
    if isinstance(outputs, dict) and all(not loss.dim() for loss in outputs.values()):
        return sum(outputs.values())
    return sum(map(loss_of, tree_leaves(outputs)))


def test_forward(case):
    assert case.outputs
    assert all(output.isfinite().all() for output in case.outputs)
    assert all(output.numel() for output in case.outputs)


def test_baked_equals_generated(case):
    baked = case.puppet.bake()
    assert type(baked) is type(case.puppet.network)
    assert same(case.run(baked), case.outputs)


def test_loaded_equals_saved(case):
    assert same(case.run(case.saved), case.outputs)


def test_backward_reaches_the_puppeteer(case):
    puppet = case.saved.train()
    wake(puppet)
    loss = loss_of(puppet(*case.inputs))
    loss.backward()
    assert loss.isfinite()
    for name, parameter in puppet.puppeteer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
