import os

import pytest
import timm
import torch

import zoo_adapters
from puppetize import PuppetConfig, PuppetizeError, puppetize


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


@pytest.mark.parametrize("ratio", [0, -1, float("nan"), float("inf"), float("-inf")])
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
