"""Which convolutions stay as they are: by pattern, and where generating would break something."""

import pytest
import timm
import torch
import torch.nn.functional as F
from networks import SMALL, Plain
from torch import nn

from puppetize import PuppetizeError, puppetize


def sites(model, **kwargs):
    return [site.name for site in puppetize(model, SMALL, **kwargs).plan.sites]


@pytest.fixture(scope="module")
def resnet():
    with torch.device("meta"):
        return timm.create_model("resnet18", num_classes=10)


def test_include_takes_names_patterns_and_modules(resnet):
    every = sites(resnet)
    assert sites(resnet, include="layer4") == [n for n in every if n.startswith("layer4.")]
    assert sites(resnet, include="*.conv2") == [n for n in every if n.endswith(".conv2")]
    assert sites(resnet, include=["conv1", "layer1.0"]) == [
        "conv1",
        "layer1.0.conv1",
        "layer1.0.conv2",
    ]


def test_exclude_wins_over_include(resnet):
    assert sites(resnet, include="layer4.0", exclude="*.conv1") == [
        "layer4.0.conv2",
        "layer4.0.downsample.0",
    ]


def test_reasons_are_on_the_report(resnet):
    report = puppetize(resnet, SMALL, include="layer*", exclude="layer1").report(macs=False)
    reasons = {site.name: site.reason for site in report.sites if site.fate == "kept"}
    assert reasons.pop("conv1") == "not included"
    assert set(reasons.values()) == {"excluded"}
    assert set(reasons) == {f"layer1.{i}.conv{j}" for i in (0, 1) for j in (1, 2)}


def test_a_ratio_with_exclusions(resnet):
    puppet = puppetize(resnet, ratio=10, exclude="conv1")
    assert puppet.report(macs=False).ratio == pytest.approx(10, rel=0.05)
    assert "conv1" in {kept.name for kept in puppet.plan.kept}


@pytest.mark.parametrize("option", ["include", "exclude"])
def test_a_pattern_that_fits_nothing_is_a_mistake(resnet, option):
    with pytest.raises(PuppetizeError, match=rf"{option}='layer9' fits no Conv2d of ResNet"):
        puppetize(resnet, **{option: ["layer1", "layer9"]})


def test_nothing_left_to_generate(resnet):
    with pytest.raises(PuppetizeError, match=r"none of its 20 .* \(excluded\)"):
        puppetize(resnet, exclude="*")


class Tied(Plain):
    def __init__(self, tie):
        super().__init__()
        tie(self)

    def forward(self, x):
        x = F.relu(self.stem(x))
        x = self.use(x)
        return super().forward(x[:, :3])


def transposed(model):
    model.other = nn.ConvTranspose2d(32, 32, 3, padding=1)
    model.other.weight = model.body[0].weight
    model.use = model.other


def parameter(model):
    model.filters = model.body[0].weight
    object.__setattr__(model, "use", lambda x: F.conv2d(x, model.filters, padding=1))


@pytest.mark.parametrize(("tie", "owner"), [(transposed, "other.weight"), (parameter, "filters")])
def test_a_weight_that_is_something_else_too_is_kept(tie, owner):
    model = Tied(tie).eval()
    puppet = puppetize(model, SMALL)
    (kept,) = puppet.plan.kept
    assert kept.name == "body.0"
    assert kept.reason == f"its weight is also {owner}"
    assert puppet.network.body[0].weight.shape == (32, 32, 3, 3)
    assert torch.equal(puppet.network.body[0].weight, model.body[0].weight)


def test_original_weights_given_to_a_puppet_are_refused():
    puppet = puppetize(Plain(), SMALL)
    for strict in (True, False):
        with pytest.raises(PuppetizeError, match=r"none of the .* tensors belongs to this Puppet"):
            puppet.load_state_dict(Plain().state_dict(), strict=strict)
    puppet.load_state_dict({}, strict=False)
    puppet.load_state_dict({"network.fc.bias": torch.ones(10)}, strict=False)
    assert puppet.fc.bias.eq(1).all()
