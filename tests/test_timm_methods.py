"""A puppet has what its network has, by the names that things have in the puppet."""

import copy

import pytest
import timm
import torch
import torchvision
from networks import SMALL, Plain, get, params
from timm.models._manipulate import group_with_matcher
from timm.optim import create_optimizer_v2
from torch import nn

from puppetize import puppetize


@pytest.fixture(scope="module")
def made():
    return puppetize(get("resnet18").build(), SMALL).eval()


@pytest.fixture
def puppet(made):
    return copy.deepcopy(made)


IMAGES = get("resnet18").images()


def test_features_and_head(puppet):
    with torch.no_grad():
        features = puppet.forward_features(IMAGES)
        assert features.shape == (2, 512, 2, 2)
        assert torch.equal(puppet.forward_head(features), puppet(IMAGES))
        assert puppet.forward_head(features, pre_logits=True).shape == (2, 512)
        assert torch.equal(puppet.bake().forward_features(IMAGES), features)
        *_, last = puppet.forward_intermediates(IMAGES, intermediates_only=True)
        assert last.shape == (2, 512, 2, 2)


def test_gradients_through_methods(puppet):
    puppet.train().forward_features(IMAGES).square().mean().backward()
    assert all(p.grad is not None for p in puppet.puppeteer.parameters())


def test_attributes_are_the_networks(puppet):
    assert puppet.default_cfg is puppet.network.default_cfg
    assert puppet.num_classes == 10
    assert puppet.num_features == 512
    assert puppet.fc is puppet.network.fc
    assert puppet.get_classifier() is puppet.network.fc


def test_unknown_attributes(puppet):
    with pytest.raises(AttributeError, match=r"neither Puppet nor its ResNet has an .* 'flavour'"):
        _ = puppet.flavour
    assert not hasattr(puppet, "flavour")
    assert not hasattr(puppetize(Plain(), SMALL), "forward_features")


def test_reset_classifier(puppet, tmp_path):
    puppet.reset_classifier(7)
    assert puppet.num_classes == 7
    with torch.no_grad():
        logits = puppet(IMAGES)
        assert logits.shape == (2, 7)
        assert torch.equal(puppet.bake()(IMAGES), logits)
        puppet.save_pretrained(tmp_path)
        assert torch.equal(type(puppet).from_pretrained(tmp_path)(IMAGES), logits)
    assert puppet.report(macs=False).stored_bytes == (tmp_path / "model.safetensors").stat().st_size


def test_reset_classifier_to_none(puppet):
    puppet.reset_classifier(0)
    with torch.no_grad():
        assert puppet(IMAGES).shape == (2, 512)


def test_assigned_modules_reach_the_network():
    puppet = puppetize(torchvision.models.resnet18(num_classes=10), SMALL).eval()
    head = nn.Linear(512, 3)
    puppet.fc = head
    assert puppet.network.fc is head
    assert "fc" not in puppet._modules
    with torch.no_grad():
        assert puppet(IMAGES).shape == (2, 3)
        assert type(puppet.bake()) is torchvision.models.ResNet


def test_own_attributes_stay_on_the_puppet(puppet):
    puppet.note = "mine"
    assert puppet.note == "mine"
    assert not hasattr(puppet.network, "note")


def test_freezing_reaches_what_is_kept(puppet):
    puppet.requires_grad_(False)
    assert not any(p.requires_grad for p in puppet.parameters())


def test_no_weight_decay():
    puppet = puppetize(timm.create_model("convnext_atto", num_classes=10), SMALL)
    inner = puppet.network.no_weight_decay() if hasattr(puppet.network, "no_weight_decay") else ()
    assert puppet.no_weight_decay() == {f"network.{name}" for name in inner}
    puppet.network.no_weight_decay = lambda: {"stem.0.bias"}
    assert puppet.no_weight_decay() == {"network.stem.0.bias"}
    assert "network.stem.0.bias" in dict(puppet.named_parameters())


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize(
    "network",
    params(
        "resnet18", "densenet121", "mobilenetv3_small_100", "convnext_atto", "resnetv2_50x1_bit"
    ),
)
def test_groups_by_depth(network, coarse):
    model = network.build()
    puppet = puppetize(model, SMALL)
    groups = group_with_matcher(puppet.named_parameters(), puppet.group_matcher(coarse=coarse))
    expected = group_with_matcher(model.named_parameters(), model.group_matcher(coarse=coarse))
    place = {name: group for group, names in groups.items() for name in names}
    assert place.keys() == {name for name, _ in puppet.named_parameters()}
    depth = {name: group for group, names in expected.items() for name in names}
    kept = [name for name, _ in puppet.network.named_parameters()]
    for a in kept:
        for b in kept:
            before, after = depth[a] < depth[b], place[f"network.{a}"] < place[f"network.{b}"]
            assert before == after, (a, b)
    shared = {place[f"puppeteer.{name}"] for name, _ in puppet.puppeteer.named_parameters()}
    assert shared == {max(groups)}  # the puppeteer serves all depths: full learning rate


def test_layer_decay():
    puppet = puppetize(get("resnet18").build(), SMALL)
    optimizer = create_optimizer_v2(puppet, "adamw", lr=1.0, weight_decay=0.1, layer_decay=0.5)
    names = {id(p): name for name, p in puppet.named_parameters()}
    scales = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            scales[names.pop(id(parameter))] = group["lr_scale"]
    assert not names
    assert scales["network.bn1.weight"] == min(scales.values()) < 1
    assert scales["network.fc.weight"] == 1
    assert all(s == 1 for name, s in scales.items() if name.startswith("puppeteer."))


def test_set_grad_checkpointing(puppet):
    puppet.set_grad_checkpointing(True)
    assert puppet.network.grad_checkpointing
    puppet.set_grad_checkpointing(False)
    assert not puppet.network.grad_checkpointing
