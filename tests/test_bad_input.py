import copy

import pytest
import timm
import torch
from torch import nn

from puppetize import Puppet, PuppetizeError, puppetize


def test_a_model_without_convolutions():
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    with pytest.raises(PuppetizeError, match="Sequential has no Conv2d layer"):
        puppetize(network)


def test_nothing_worth_generating():
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Conv2d(2, 2, 3, groups=2))
    with pytest.raises(PuppetizeError, match=r"none of its 2 Conv2d.*depthwise.*cost more"):
        puppetize(network)


def test_a_puppet_is_not_puppetized_again():
    puppet = puppetize(timm.create_model("test_resnet", num_classes=10))
    with pytest.raises(PuppetizeError, match="Puppet is or contains a Puppet already"):
        puppetize(puppet)
    with pytest.raises(PuppetizeError, match="Sequential is or contains a Puppet already"):
        puppetize(nn.Sequential(puppet, nn.Conv2d(3, 3, 3)))
    assert isinstance(puppetize(puppet.bake()), Puppet)


@pytest.mark.parametrize("model", ["resnet18", None, 3, nn.Conv2d])
def test_not_a_module(model):
    with pytest.raises(PuppetizeError, match=r"expected a torch\.nn\.Module.*zoo_adapters\.create"):
        puppetize(model)


@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_a_lazy_convolution():
    network = nn.Sequential(nn.LazyConv2d(64, 3))
    with pytest.raises(PuppetizeError, match="LazyConv2d without weights yet"):
        puppetize(network)
    network(torch.zeros(1, 3, 8, 8))
    assert puppetize(network).plan.order == ("0",)


def test_the_error_names_model_and_layer_when_shapes_differ(tmp_path):
    model = timm.create_model("test_resnet", num_classes=10)
    puppetize(model).save_pretrained(tmp_path)
    other = copy.deepcopy(model)
    other.layer2[0].conv1 = nn.Conv2d(7, 5, 3)
    with pytest.raises(
        PuppetizeError, match=r"ResNet: 'layer2\.0\.conv1' has a weight of shape \(5, 7, 3, 3\)"
    ):
        Puppet.from_pretrained(tmp_path, model=other)
    other.layer2[0].conv1 = nn.Identity()
    with pytest.raises(PuppetizeError, match=r"expects a Conv2d at 'layer2\.0\.conv1'.*Identity"):
        Puppet.from_pretrained(tmp_path, model=other)
