"""Generated weights are in place during a call of their puppet, and only then."""

import copy
import threading

import pytest
import torch
import torch.nn.functional as F
from networks import SMALL, Plain, get, loss_of
from torch import nn

from puppetize import PuppetizeError, puppetize

IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(4))


@pytest.fixture(params=[True, False], ids=["train", "eval"])
def puppet(request):
    return puppetize(Plain(), SMALL).train(request.param)


PARTS = {
    "network": lambda p: p.network(IMAGES),
    "convolution": lambda p: p.stem(IMAGES),
    "children": lambda p: nn.Sequential(p.network.stem)(IMAGES),
    "function": lambda p: F.conv2d(IMAGES, p.stem.weight),
    "keyword": lambda p: F.conv2d(IMAGES, weight=p.stem.weight),
    "list": lambda p: torch.cat([p.stem.weight, p.stem.weight]),
    "method": lambda p: p.stem.weight.abs(),
    "operator": lambda p: p.stem.weight.data,
}


@pytest.mark.parametrize("use", PARTS.values(), ids=PARTS)
@pytest.mark.parametrize("called", [False, True], ids=["fresh", "called"])
def test_use_outside_a_call_is_an_error(puppet, use, called):
    if called:  # weights of an earlier call may be out of date
        loss_of(puppet(IMAGES)).backward()
    with pytest.raises(PuppetizeError, match=r"weight of 'stem' is generated.*bake\(\)"):
        use(puppet)


def test_questions_that_need_no_numbers(puppet):
    weight = puppet.stem.weight
    assert weight.shape == weight.size() == (32, 3, 3, 3)
    assert weight.size(1) == 3
    assert weight.dim() == weight.ndim == 4
    assert weight.numel() == 32 * 27
    assert not hasattr(weight, "anything")
    assert "stem" in repr(weight)


def in_threads(number, work):
    failures = []

    def run():
        try:
            work()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert not failures


@pytest.mark.parametrize("no_grad", [True, False])
def test_threads_share_a_puppet(puppet, no_grad):
    puppet.network.norm.eval()
    expected = puppet(IMAGES).detach()
    found = []

    def work():
        for _ in range(10):
            with torch.set_grad_enabled(not no_grad):
                found.append(torch.equal(puppet(IMAGES).detach(), expected))

    in_threads(4, work)
    assert found == [True] * 40


@pytest.mark.parametrize("training", [True, False])
def test_a_call_inside_a_call(training):
    puppet = puppetize(Plain(norm=False), SMALL).train(training)
    expected = puppet(IMAGES).detach()
    inner = []

    def hook(module, args, output):
        if not inner:
            inner.append(None)
            inner[0] = puppet(IMAGES).detach()

    puppet.network.body[1].register_forward_hook(hook)
    assert torch.equal(puppet(IMAGES).detach(), expected)
    assert torch.equal(inner[0], expected)
    with pytest.raises(PuppetizeError):
        puppet.network(IMAGES)


def test_an_error_inside_a_call_leaves_no_weights(puppet):
    with pytest.raises(RuntimeError, match="channels"):
        puppet(IMAGES[:, :2])
    with pytest.raises(PuppetizeError):
        puppet.stem(IMAGES)
    assert puppet(IMAGES).isfinite().all()


def test_copies_after_a_call_hold_no_weights():
    puppet = puppetize(get("nf_resnet26").build(), SMALL).train()
    images = get("nf_resnet26").images()
    loss_of(puppet(images)).backward()
    twin = copy.deepcopy(puppet)
    held = sum(t.numel() for t in twin.state_dict().values())
    assert held < sum(site.numel for site in twin.plan.sites)
    with pytest.raises(PuppetizeError):
        twin.network(images)
    assert torch.equal(twin.eval()(images), puppet.eval()(images))


def test_torch_func_in_eval():
    puppet = puppetize(Plain(), SMALL).eval()
    parameters = {name: p.detach() for name, p in puppet.named_parameters()}

    def loss(parameters, images):
        return loss_of(torch.func.functional_call(puppet, parameters, (images,)))

    gradients = torch.func.grad(loss)(parameters, IMAGES)
    loss_of(puppet(IMAGES)).backward()
    for name, parameter in puppet.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, msg=name)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_torch_jit_trace():
    puppet = puppetize(Plain(), SMALL).eval()
    traced = torch.jit.trace(puppet, IMAGES, check_trace=False)
    torch.testing.assert_close(traced(IMAGES), puppet(IMAGES))


@pytest.mark.parametrize("between", ["no_grad", "bake", "copy"])
def test_a_call_without_gradients_between_forward_and_backward(between):
    network = get("resnet18")
    puppet = puppetize(network.build(), SMALL).train()
    images = network.images()
    puppet.set_grad_checkpointing()
    loss = loss_of(puppet(images))
    if between == "no_grad":
        with torch.no_grad():
            puppet(images)
    elif between == "bake":
        puppet.bake()
    else:
        copy.deepcopy(puppet)
    loss.backward()
    assert all(p.grad is not None for p in puppet.puppeteer.parameters())


def test_second_derivatives_of_the_puppeteer_in_eval_are_refused():
    puppet = puppetize(Plain(), SMALL).eval()
    parameters = list(puppet.puppeteer.parameters())
    first = torch.autograd.grad(loss_of(puppet(IMAGES)), parameters, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        sum(g.square().sum() for g in first).backward()


def test_gradient_penalties_of_the_input():
    images = IMAGES.clone().requires_grad_()
    puppet = puppetize(Plain(), SMALL).eval()
    plain = puppet.bake()
    found = []
    for module in (puppet, plain):
        (slope,) = torch.autograd.grad(loss_of(module(images)), images, create_graph=True)
        slope.square().sum().backward()
        found.append(module.fc.weight.grad)
    torch.testing.assert_close(*found)
    assert all(p.grad is not None for p in puppet.puppeteer.parameters())


def test_attributes_of_the_network_can_be_deleted():
    puppet = puppetize(Plain(), SMALL)
    puppet.mark = 3
    puppet.network.other = nn.Identity()
    del puppet.mark, puppet.other
    assert not hasattr(puppet.network, "other")
    with pytest.raises(AttributeError):
        del puppet.other
