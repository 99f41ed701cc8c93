"""The networks that tests run over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

import zoo_adapters
from puppetize import PuppetConfig

# For tests whose point does not depend on the default's size.
SMALL = PuppetConfig(width=64, height=128)


@dataclass(frozen=True)
class Network:
    """A zoo's network with ten classes, and the side of the smallest images worth feeding it."""

    name: str
    side: int = 64
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def build(self) -> nn.Module:
        torch.manual_seed(0)
        zoo, _, short = self.name.partition("/")
        if self.kwargs or short == "googlenet":  # the adapter knows googlenet's warning
            return zoo_adapters.create(self.name, num_classes=10, **self.kwargs)
        if zoo == "timm":
            return timm.create_model(short, num_classes=10)
        return torchvision.models.get_model(short, num_classes=10)

    def images(self, batch: int = 2) -> Tensor:
        return torch.randn(
            batch, 3, self.side, self.side, generator=torch.Generator().manual_seed(1)
        )


NETWORKS = [
    Network("timm/resnet18"),
    Network("timm/resnet50"),
    # The default's first fully connected layer is a convolution with 400 MB of weights.
    Network("timm/vgg11_bn", kwargs={"mlp_ratio": 1 / 32}),
    Network("timm/densenet121"),
    Network("timm/mobilenetv3_small_100"),
    Network("timm/efficientnet_b0"),
    Network("timm/nf_resnet26"),
    Network("timm/convnext_atto"),
    Network("timm/ghostnet_100"),
    Network("timm/inception_v3", side=107),
    Network("timm/resnetv2_50x1_bit"),
    Network("timm/tf_efficientnet_b0"),
    Network("torchvision/shufflenet_v2_x0_5"),
    Network("torchvision/squeezenet1_1"),
    Network("torchvision/googlenet"),
]


def params(*names: str) -> list[Any]:
    """``pytest.param`` for networks of the list, all where none is named."""
    chosen = [n for n in NETWORKS if not names or n.name.partition("/")[2] in names]
    assert not names or len(chosen) == len(names)
    return [pytest.param(n, id=n.name.partition("/")[2]) for n in chosen]


def get(name: str) -> Network:
    return params(name)[0].values[0]


class Plain(nn.Module):
    """A network of no zoo, with batch norm on request."""

    def __init__(self, width: int = 32, norm: bool = True, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width) if norm else nn.Identity()
        self.body = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(4))
        self.expand = nn.Conv2d(width, 2 * width, 1)
        self.fc = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        for conv in self.body:
            x = x + F.relu(conv(x))
        return self.fc(F.relu(self.expand(x)).mean((2, 3)))


def loss_of(output: Any) -> Tensor:
    """Cross-entropy to fixed labels, summed over the logits and those of auxiliary heads."""
    if isinstance(output, Tensor):
        output = (output,)
    labels = torch.arange(len(output[0])) % output[0].shape[1]
    return sum(F.cross_entropy(logits, labels) for logits in output)


def wake(network: nn.Module) -> None:
    """Norms and gains that start at zero keep gradients from their branch; give them ones."""
    for name, parameter in network.named_parameters():
        if name.endswith((".weight", ".gain")) and not parameter.any():
            nn.init.ones_(parameter)
