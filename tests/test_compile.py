import copy
import shutil

import pytest
import torch
from networks import SMALL, Plain, get, loss_of

from puppetize import PuppetConfig, puppetize

HAS_COMPILER = shutil.which("g++") is not None


def gradients(module):
    return {name: p.grad for name, p in module.named_parameters()}


@pytest.mark.parametrize(
    ("backend", "network"),
    [
        pytest.param(
            "inductor",
            lambda: Plain(8),
            marks=pytest.mark.skipif(not HAS_COMPILER, reason="inductor needs a C++ compiler"),
            id="inductor-plain",
        ),
        pytest.param("aot_eager", lambda: get("resnet18").build(), id="aot_eager-resnet18"),
    ],
)
def test_compiled_equals_eager_without_graph_breaks(backend, network):
    torch.compiler.reset()
    puppet = puppetize(network(), PuppetConfig(width=128))
    plain = copy.deepcopy(puppet)
    compiled = torch.compile(puppet, fullgraph=True, backend=backend)
    images = torch.randn(2, 3, 32, 32)

    puppet.eval(), plain.eval()
    with torch.no_grad():
        torch.testing.assert_close(compiled(images), plain(images), rtol=1e-3, atol=1e-4)

    puppet.train(), plain.train()
    for module in (compiled, plain):
        loss_of(module(images)).backward()
    expected = gradients(plain)
    assert any(gradient is not None for gradient in expected.values())
    for name, gradient in gradients(puppet).items():
        if expected[name] is None:
            assert gradient is None
        else:
            torch.testing.assert_close(gradient, expected[name], rtol=1e-2, atol=1e-4, msg=name)


def test_compiled_in_eval_sees_changed_parameters():
    torch.compiler.reset()
    puppet = puppetize(Plain(), SMALL).eval()
    compiled = torch.compile(puppet, fullgraph=True, backend="aot_eager")
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        before = compiled(images)
        puppet.puppeteer.groups[0].gains.mul_(2)
        after = compiled(images)
        assert not torch.allclose(before, after)
        torch.testing.assert_close(after, puppet(images), rtol=1e-4, atol=1e-5)
