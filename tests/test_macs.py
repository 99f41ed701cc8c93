import dataclasses

import pytest
import torch
from networks import SMALL, Plain, get
from torch import nn

from puppetize import PuppetConfig, puppetize
from puppetize.macs import count_macs, generation_macs

NARROW = PuppetConfig(width=24, height=56)
PAPER = dataclasses.replace(PuppetConfig.paper(), start="seeded")


def oblong():
    """Kernels whose sides differ, and channels that pool unevenly."""
    sides = [(16, 48, (1, 7)), (48, 40, (1, 7)), (40, 40, (7, 1)), (40, 56, (5, 3)), (56, 9, 1)]
    return nn.Sequential(*(nn.Conv2d(a, b, k, padding="same") for a, b, k in sides))


@pytest.mark.parametrize(
    ("network", "config"),
    [
        pytest.param(Plain, PuppetConfig(), id="plain"),
        pytest.param(Plain, NARROW, id="tiles"),
        pytest.param(get("resnet18").build, SMALL, id="resnet18"),
        pytest.param(oblong, NARROW, id="oblong"),
        pytest.param(get("nf_resnet26").build, PuppetConfig(width=256), id="nf_resnet26"),
        pytest.param(lambda: Plain(16), PAPER, id="paper"),
    ],
)
def test_the_closed_form_is_what_fvcore_counts(network, config):
    images = (torch.zeros(1, 16, 12, 12),) if network is oblong else None
    puppet = puppetize(network(), config, example_inputs=images)
    assert generation_macs(puppet.plan, puppet.config) == count_macs(puppet.puppeteer, ())


def test_counts_without_memory():
    with torch.device("meta"):
        shell = puppetize(get("resnet18").build(), ratio=20)
    puppet = puppetize(get("resnet18").build(), ratio=20)
    assert generation_macs(shell.plan, shell.config) == count_macs(puppet.puppeteer, ())
