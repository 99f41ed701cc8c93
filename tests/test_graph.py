"""The whole system as one torch.fx graph."""

import pytest
import torch
import torch.nn.functional as F
from networks import SMALL, Plain, get, loss_of, params
from torch import nn

from puppetize import puppetize


@pytest.fixture(
    scope="module",
    # nf_resnet26 and tf_efficientnet_b0 subclass Conv2d; vgg11_bn has some in leaf modules.
    params=params(
        "resnet18", "nf_resnet26", "mobilenetv3_small_100", "vgg11_bn", "tf_efficientnet_b0"
    ),
)
def case(request):
    network = request.param
    puppet = puppetize(network.build(), SMALL).eval()
    return network, puppet, puppet.graph_module()


def test_equals_the_puppet(case):
    network, puppet, graph = case
    with torch.no_grad():
        assert torch.equal(graph(network.images()), puppet(network.images()))


def test_the_puppeteer_is_on_top(case):
    _, puppet, graph = case
    nodes = [node for node in graph.graph.nodes if node.op != "placeholder"]
    assert nodes[0].op == "call_module"
    assert graph.get_submodule(nodes[0].target) is puppet.puppeteer
    assert sum(node.target == nodes[0].target for node in nodes) == 1


def test_each_generated_weight_is_an_edge(case):
    _, puppet, graph = case
    (puppeteer,) = (node for node in graph.graph.nodes if node.name == "puppeteer")
    edges = {node.args[1]: node for node in puppeteer.users}
    assert set(edges) == {site.name for site in puppet.plan.sites}
    for site, edge in edges.items():
        assert edge.users, site


def test_shares_the_parameters(case):
    _, puppet, graph = case
    assert {id(p) for p in graph.parameters()} == {id(p) for p in puppet.parameters()}


def test_code_and_graph_can_be_read(case):
    _, _, graph = case
    assert "self.puppeteer()" in graph.code
    assert graph.print_readable(print_output=False)
    graph.graph.lint()


def test_making_it_leaves_the_puppet_alone(case):
    network, puppet, _ = case
    names = [name for name, _ in puppet.named_modules()]
    kinds = [type(module) for module in puppet.modules()]
    with torch.no_grad():
        before = puppet(network.images())
        puppet.graph_module()
        assert torch.equal(puppet(network.images()), before)
    assert [name for name, _ in puppet.named_modules()] == names
    assert [type(module) for module in puppet.modules()] == kinds


def test_gradients_flow():
    network = get("resnet18")
    puppet = puppetize(network.build(), SMALL).eval()
    graph = puppet.graph_module()
    gradients = []
    for module in (puppet, graph):
        puppet.zero_grad()
        loss_of(module(network.images())).backward()
        gradients.append([p.grad.clone() for p in puppet.parameters()])
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected)


def test_follows_the_parameters():
    puppet = puppetize(Plain(), SMALL).eval()
    graph = puppet.graph_module()
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        before = graph(images)
        for parameter in puppet.puppeteer.parameters():
            parameter.mul_(1.1)
        after = graph(images)
        assert not torch.equal(before, after)
        assert torch.equal(after, puppet(images))


def test_convolutions_inside_modules_that_are_kept_whole():
    puppet = puppetize(get("vgg11_bn").build(), SMALL).eval()
    graph = puppet.graph_module()
    wrapped = [m for m in graph.modules() if type(m).__name__ == "Generated"]
    assert wrapped
    assert all(str(m.names[0]) in repr(m) for m in wrapped)


def test_a_shared_convolution_gets_its_weight_at_both_places():
    model = Plain()
    model.body[2] = model.body[1]
    model.body[3].weight = model.body[0].weight
    puppet = puppetize(model, SMALL).eval()
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(puppet.graph_module()(images), puppet(images))


@pytest.mark.parametrize(
    "way",
    [
        lambda conv, x: F.conv2d(x, conv.weight, conv.bias),
        lambda conv, x: conv(x) + conv.bias.view(1, -1, 1, 1),
        lambda conv, x: conv(x) * conv.weight.norm() + conv.bias.mean(),
    ],
)
def test_a_convolution_whose_tensors_are_read(way):
    class Reads(Plain):
        def forward(self, x):
            return self.expand(way(self.body[0], self.stem(x)))

    puppet = puppetize(Reads(), SMALL).eval()
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(puppet.graph_module()(images), puppet(images))


def test_a_puppet_of_a_single_convolution():
    puppet = puppetize(nn.Conv2d(64, 64, 3), SMALL).eval()
    images = torch.randn(2, 64, 8, 8)
    with torch.no_grad():
        assert torch.equal(puppet.graph_module()(images), puppet(images))
        assert torch.equal(puppet.bake()(images), puppet(images))
