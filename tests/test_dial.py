import os

import pytest
import timm
import torch
import torchvision
from torch import nn

import zoo_adapters
from puppetize import PuppetConfig, PuppetizeError, puppetize
from puppetize.analysis import analyse


@pytest.mark.parametrize("ratio", [1.5, 4, 10, 25])
@pytest.mark.parametrize("name", ["resnet18", "regnety_002", "densenet121", "convnext_atto"])
def test_the_file_has_the_size_that_was_asked_for(name, ratio):
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=10)
    report = puppetize(model, ratio=ratio).report(macs=False)
    assert report.ratio == pytest.approx(ratio, rel=0.05)


@pytest.mark.parametrize("ratio", [3, 12])
def test_what_was_promised_is_what_is_written(tmp_path, ratio):
    puppet = puppetize(timm.create_model("test_resnet", num_classes=10), ratio=ratio)
    puppet.save_pretrained(tmp_path)
    size = os.path.getsize(tmp_path / "model.safetensors")
    assert puppet.report(macs=False).stored_bytes == size
    assert puppet.original_bytes / size == pytest.approx(ratio, rel=0.05)


def resnet18_of_small_images():
    model = torchvision.models.resnet18(num_classes=10)
    model.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    return model


@pytest.mark.parametrize("ratio", [1.1, 2, 5, 12, 20, 22, 28])
@pytest.mark.parametrize(
    "build",
    [
        lambda: timm.create_model("resnet10t", num_classes=10),
        lambda: timm.create_model("convnext_atto", num_classes=10),
        resnet18_of_small_images,
    ],
    ids=["resnet10t", "convnext_atto", "resnet18_of_small_images"],
)
def test_the_dial_has_no_holes(build, ratio):
    with torch.device("meta"):
        analysis = analyse(build(), ratio=ratio)
    assert analysis.largest_ratio >= ratio
    assert analysis.original_bytes / analysis.stored_bytes == pytest.approx(ratio, rel=0.05)


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_100", "vit_tiny_patch16_224"])
def test_the_largest_ratio_is_reached_and_no_larger_one(name):
    with torch.device("meta"):
        model = timm.create_model(name)
        largest = analyse(model).largest_ratio
        report = puppetize(model, ratio=largest).report(macs=False)
        assert report.ratio == pytest.approx(largest, rel=1e-3)
        with pytest.raises(PuppetizeError, match=rf"the largest is {largest:.2f}"):
            puppetize(model, ratio=1.2 * largest)


def test_what_a_file_will_hold_is_known_beforehand():
    with torch.device("meta"):
        model = timm.create_model("mobilenetv3_small_100", num_classes=10)
        analysis = analyse(model, ratio=4)
        report = puppetize(model, ratio=4).report(macs=False)
    assert analysis.stored_bytes == report.stored_bytes
    assert analysis.stored_parts == report.stored_parts
    assert analysis.original_parts == report.original_parts
    assert analysis.original_bytes == sum(analysis.original_parts.values())
    assert analysis.stored_bytes == sum(analysis.stored_parts.values())


def test_low_ratios_add_derivatives_and_then_store_sites():
    with torch.device("meta"):
        model = timm.create_model("resnet18", num_classes=10)
    plain, several, stored = (puppetize(model, ratio=r).plan for r in (36, 10, 2))
    assert [len(group.derivatives) for group in plain.groups] == [1, 1, 1]
    assert max(len(group.derivatives) for group in several.groups) > 1
    assert not several.kept
    assert {kept.reason for kept in stored.kept} == {"stored to meet the ratio"}


def test_high_ratios_narrow_states_and_tile():
    with torch.device("meta"):
        model = timm.create_model("resnet18", num_classes=10)
    group = puppetize(model, ratio=200).plan.groups[1]
    assert group.state[1] < 256
    assert group.sites[-1].grid[1] > 2


def test_the_limit_is_named_with_what_stands_in_the_way():
    with torch.device("meta"):
        model = timm.create_model("resnet50")
    with pytest.raises(PuppetizeError, match=r"largest is 11\.8.*fc\.weight 8,192,000 B"):
        puppetize(model, ratio=50)


@pytest.mark.parametrize(
    "ratio", ["20", [20], True, 1j, 0, -1, float("nan"), float("inf"), float("-inf")]
)
def test_ratios_that_are_none(ratio):
    model = timm.create_model("test_resnet")
    with pytest.raises(PuppetizeError, match="expected a positive number"):
        puppetize(model, ratio=ratio)


def test_a_file_larger_than_the_original_is_out_of_reach():
    model = zoo_adapters.create("timm/test_resnet")
    with pytest.raises(PuppetizeError, match=r"ratio=0\.5 cannot be reached"):
        puppetize(model, ratio=0.5)


@pytest.mark.filterwarnings("ignore::puppetize.PuppetizeWarning")
def test_the_paper_has_no_dial():
    model = timm.create_model("test_resnet", num_classes=10)
    with pytest.raises(PuppetizeError, match="tiling"):
        puppetize(model, PuppetConfig.paper(), ratio=10)
