"""In evaluation mode weights are generated once, and anew whenever the puppeteer changed."""

import copy

import pytest
import torch
from networks import SMALL, Plain, loss_of

from puppetize import puppetize

IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(4))


class Counted:
    def __init__(self, puppet):
        self.puppet = puppet
        self.runs = 0
        puppet.puppeteer.register_forward_hook(self.count)

    def count(self, *_):
        self.runs += 1

    def logits(self):
        with torch.no_grad():
            return self.puppet(IMAGES.to(next(self.puppet.parameters()).dtype))


@pytest.fixture
def counted():
    return Counted(puppetize(Plain(), SMALL).eval())


def test_generated_once_for_many_forwards(counted):
    logits = [counted.logits() for _ in range(5)]
    assert counted.runs == 1
    assert all(torch.equal(logits[0], other) for other in logits)
    counted.puppet.eval()
    counted.logits()
    assert counted.runs == 1


def test_training_generates_in_each_forward(counted):
    counted.puppet.train()
    for _ in range(3):
        counted.puppet(IMAGES)
    assert counted.runs == 3


def in_place(puppet):
    with torch.no_grad():
        next(puppet.puppeteer.parameters()).mul_(1.5)


def through_data(puppet):
    next(puppet.puppeteer.parameters()).data.mul_(1.5)


def new_data(puppet):
    parameter = next(puppet.puppeteer.parameters())
    parameter.data = parameter.data * 1.5


def one_number_through_data(puppet):
    list(puppet.puppeteer.parameters())[-1].data.view(-1)[0] += 1


def load(puppet):
    state = {name: tensor * 1.5 for name, tensor in puppet.state_dict().items()}
    puppet.load_state_dict(state)


def load_of_puppeteer(puppet):
    state = {name: tensor * 1.5 for name, tensor in puppet.puppeteer.state_dict().items()}
    puppet.puppeteer.load_state_dict(state)


def replaced(puppet):
    trajectory = puppet.puppeteer.groups[0]
    trajectory.gains = torch.nn.Parameter(2 * trajectory.gains.detach())


def optimiser_step(puppet):
    optimizer = torch.optim.SGD(puppet.parameters(), 1.0)
    loss_of(puppet(IMAGES)).backward()
    optimizer.step()


def to_double(puppet):
    puppet.double()


@pytest.mark.parametrize(
    "change",
    [
        in_place,
        through_data,
        new_data,
        one_number_through_data,
        load,
        load_of_puppeteer,
        replaced,
        optimiser_step,
        to_double,
    ],
)
def test_sees_change(counted, change):
    before = counted.logits()
    change(counted.puppet)
    fresh = copy.deepcopy(counted.puppet)
    counted.runs = 0
    after = counted.logits()
    assert counted.runs == 1
    assert not torch.equal(before, after)
    assert torch.equal(after, Counted(fresh).logits())
    counted.logits()
    assert counted.runs == 1


def test_training_forgets(counted):
    counted.logits()
    counted.puppet.train().eval()
    counted.logits()
    assert counted.runs == 2


def test_bake_uses_the_weights_at_hand(counted):
    logits = counted.logits()
    baked = counted.puppet.bake()
    assert counted.runs == 1
    with torch.no_grad():
        assert torch.equal(baked(IMAGES), logits)
        for parameter in baked.parameters():
            parameter.zero_()
    assert torch.equal(counted.logits(), logits)


def test_inference_mode_then_training(counted):
    with torch.inference_mode():
        inferred = counted.puppet(IMAGES)
        assert torch.equal(counted.puppet(IMAGES), inferred)
    assert counted.runs == 1
    output = counted.puppet(IMAGES)
    assert torch.equal(output.detach(), inferred)
    loss_of(output).backward()
    loss_of(counted.puppet.train()(IMAGES)).backward()
    assert counted.puppet.puppeteer.groups[0].gains.grad.any()


def test_gradients_in_eval_equal_those_in_training(counted):
    puppet = counted.puppet
    reference = copy.deepcopy(puppet).train()
    reference.network.eval()
    for _ in range(2):  # the second forward takes its weights from the cache
        puppet.zero_grad()
        loss_of(puppet(IMAGES)).backward()
    loss_of(reference(IMAGES)).backward()
    expected = dict(reference.named_parameters())
    for name, parameter in puppet.named_parameters():
        assert parameter.grad.any(), name
        torch.testing.assert_close(parameter.grad, expected[name].grad, msg=name)


def test_frozen_puppeteer_in_eval(counted):
    counted.puppet.puppeteer.requires_grad_(False)
    loss_of(counted.puppet(IMAGES)).backward()
    assert counted.puppet.network.fc.weight.grad.any()
    assert all(p.grad is None for p in counted.puppet.puppeteer.parameters())
    assert not any(w.requires_grad for w in counted.puppet.weights().values())


def test_partly_frozen_puppeteer_in_eval(counted):
    trajectory = counted.puppet.puppeteer.groups[0]
    trajectory.gains.requires_grad_(False)
    loss_of(counted.puppet(IMAGES)).backward()
    assert trajectory.gains.grad is None
    assert trajectory.derivatives[0][1].weight.grad.any()


def test_gradients_of_weights_and_inputs_in_eval(counted):
    images = IMAGES.clone().requires_grad_()
    loss_of(counted.puppet(images)).backward()
    assert images.grad.any()
    weight = next(iter(counted.puppet.weights().values()))
    assert weight.requires_grad
    weight.sum().backward()


def test_copy_does_not_share_the_cache(counted):
    before = counted.logits()
    twin = copy.deepcopy(counted.puppet)
    in_place(twin)
    assert not torch.equal(Counted(twin).logits(), before)
    assert torch.equal(counted.logits(), before)


def test_a_puppet_is_pickled_by_those_who_must(tmp_path):
    puppet = puppetize(Plain(), SMALL).train()
    loss_of(puppet(IMAGES)).backward()
    torch.save(puppet, tmp_path / "whole.pt")
    again = torch.load(tmp_path / "whole.pt", weights_only=False).eval()
    with torch.no_grad():
        assert torch.equal(again(IMAGES), puppet.eval()(IMAGES))
