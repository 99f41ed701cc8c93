"""The paper's own numbers."""

import itertools
import warnings

import pytest
import timm
import torch
from torch import nn

from puppetize import PuppetConfig, PuppetizeWarning, puppetize

TABLE_5 = [
    (64, "0.04", "0.02"),
    (128, "0.17", "0.07"),
    (256, "0.66", "0.28"),
    (512, "2.63", "1.08"),
    (1024, "10.50", "4.26"),
    (2048, "41.97", "16.90"),
    (4096, "167.83", "67.35"),
]


@pytest.mark.filterwarnings("ignore::puppetize.PuppetizeWarning")
@pytest.mark.parametrize(("channels", "params", "megabytes"), TABLE_5)
def test_table_5(channels, params, megabytes):
    widths = [3, channels // 8, channels // 4, channels, channels]
    with torch.device("meta"):
        layers = [
            layer
            for inputs, outputs in itertools.pairwise(widths)
            for layer in (nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs))
        ]
        network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    count = puppetize(network, PuppetConfig.paper()).report(macs=False).paper_count
    assert f"{count.params / 1e6:.2f}" == params
    assert f"{count.megabytes:.2f}" == megabytes


def relative_ranks(puppet):
    for weight in puppet.weights().values():
        weight = weight.detach().double()
        for matrix in (weight.flatten(1), weight.transpose(0, 1).flatten(1)):
            yield torch.linalg.matrix_rank(matrix).item(), min(matrix.shape)


def test_default_weights_have_full_rank():
    puppet = puppetize(timm.create_model("resnet18", num_classes=10))
    assert all(rank > 0.95 * full for rank, full in relative_ranks(puppet))


def test_a_constant_start_gives_rank_1():
    model = timm.create_model("test_resnet", num_classes=10)
    with pytest.warns(PuppetizeWarning, match="rank 1") as caught:
        puppet = puppetize(model, PuppetConfig.paper())
    assert len(caught) == 1
    for weight in puppet.weights().values():
        slices = weight.detach().double()
        assert torch.linalg.matrix_rank(slices.flatten(1)) == 1
        assert torch.equal(slices, slices[:1].expand_as(slices))


def test_the_default_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        puppetize(timm.create_model("test_resnet", num_classes=10))


@pytest.mark.filterwarnings("ignore::puppetize.PuppetizeWarning")
def test_the_paper_keeps_one_state_for_all_sites():
    with torch.device("meta"):
        model = timm.create_model("resnet18", num_classes=10)
    (group,) = puppetize(model, PuppetConfig.paper()).plan.groups
    assert group.state == (512, 512, 7, 7)
    assert group.steps == len(group.sites) == 20
