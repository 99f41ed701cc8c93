"""What users rely on, over the whole list of networks."""

import copy
import os
from functools import cached_property

import pytest
import torch
from networks import Network, loss_of, params, wake
from safetensors.torch import save_file
from torch import nn

from puppetize import Puppet, puppetize


class Case:
    def __init__(self, network: Network, folder):
        self.network = network
        self.folder = folder
        self.model = network.build().eval()
        next(self.model.children()).train()  # a mode of its own must survive
        self.before = snapshot(self.model)
        self.puppet = puppetize(self.model).eval()
        self.images = network.images()
        self.logits = self.run(self.puppet)
        assert self.logits.isfinite().all()

    def run(self, module: nn.Module):
        with torch.no_grad():
            return module(self.images)

    @cached_property
    def baked(self):
        return self.puppet.bake()

    @cached_property
    def report(self):
        return self.puppet.report(macs=False)


def snapshot(model):
    """Everything that a module holds: identities of all objects, and the bits of tensors."""
    return {
        name: (
            type(module),
            module.training,
            repr(module),
            {key: id(value) for key, value in vars(module).items()},
            {
                key: [(inner, id(value)) for inner, value in held.items()]
                for key, held in vars(module).items()
                if isinstance(held, dict)
            },
            {
                key: (tensor.clone(), tensor.requires_grad)
                for key, tensor in {**module._parameters, **module._buffers}.items()
                if tensor is not None
            },
        )
        for name, module in model.named_modules(remove_duplicate=False)
    }


@pytest.fixture(scope="module", params=params())
def case(request, tmp_path_factory):
    return Case(request.param, tmp_path_factory.mktemp("saved"))


def test_original_is_unchanged(case):
    after = snapshot(case.model)
    assert after.keys() == case.before.keys()
    for name, (*objects, tensors) in case.before.items():
        *objects_after, tensors_after = after[name]
        assert objects_after == objects, name
        for key, (tensor, requires_grad) in tensors.items():
            same, requires_grad_after = tensors_after[key]
            assert torch.equal(same, tensor), f"{name}.{key}"
            assert requires_grad_after == requires_grad, f"{name}.{key}"


def test_shares_no_memory_with_original(case):
    original = {t.data_ptr() for t in case.model.state_dict().values() if t.numel()}
    assert not original & {t.data_ptr() for t in case.puppet.state_dict().values() if t.numel()}


def test_baked_equals_generated(case):
    assert torch.equal(case.run(case.baked), case.logits)


def test_baked_is_a_plain_model(case):
    assert type(case.baked) is type(case.model)
    ours, theirs = case.baked.state_dict(), case.model.state_dict()
    assert list(ours) == list(theirs)
    assert all(ours[key].shape == theirs[key].shape for key in ours)
    assert all(ours[key].dtype == theirs[key].dtype for key in ours)
    modules = dict(case.model.named_modules(remove_duplicate=False))
    for name, module in case.baked.named_modules(remove_duplicate=False):
        assert type(module) is type(modules[name])
        assert set(vars(module)) == set(vars(modules[name])), name
        assert repr(module) == repr(modules[name])
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert list(module._parameters) == list(modules[name]._parameters)
    parameters = dict(case.baked.named_parameters())
    for name, parameter in case.model.named_parameters():
        assert parameters[name].requires_grad == parameter.requires_grad


def test_baked_is_independent(case):
    held = {t.data_ptr() for t in case.puppet.state_dict().values() if t.numel()}
    held |= {weight.data_ptr() for weight in case.puppet.weights().values()}
    assert not held & {t.data_ptr() for t in case.baked.state_dict().values() if t.numel()}


def test_saved_and_loaded_equals(case):
    case.puppet.save_pretrained(case.folder)
    file = case.folder / "model.safetensors"
    assert case.report.stored_bytes == os.path.getsize(file)
    loaded = Puppet.from_pretrained(case.folder)
    assert not loaded.training
    assert list(loaded.state_dict()) == list(case.puppet.state_dict())
    assert torch.equal(case.run(loaded), case.logits)
    assert loaded.report(macs=False) == case.report


def test_original_bytes_is_size_of_safetensors_file(case, tmp_path):
    file = tmp_path / "original.safetensors"
    save_file(case.model.state_dict(), file)
    assert case.report.original_bytes == os.path.getsize(file)


def test_report_has_each_convolution_in_execution_order(case):
    convs = {n: m for n, m in case.model.named_modules() if isinstance(m, nn.Conv2d)}
    assert sorted(site.name for site in case.report.sites) == sorted(convs)
    for site in case.report.sites:
        assert site.shape == tuple(convs[site.name].weight.shape)

    ran = []
    model = case.network.build()
    wanted = {module: name for name, module in model.named_modules() if name in convs}
    for module in wanted:
        module.register_forward_hook(lambda m, args, out: ran.append(wanted[m]))
    case.run(model.eval())
    case.run(model.train())
    assert [site.name for site in case.report.sites] == list(dict.fromkeys(ran))


def test_every_parameter_learns(case):
    puppet = copy.deepcopy(case.puppet).train()
    wake(puppet)
    baked = puppet.bake()
    images = case.network.images(batch=3)
    for module in (puppet, baked):
        torch.manual_seed(2)  # dropout
        loss_of(module(images)).backward()
    plain = {name: p.grad for name, p in baked.named_parameters()}
    for name, parameter in puppet.puppeteer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
    for name, parameter in puppet.network.named_parameters():
        torch.testing.assert_close(parameter.grad, plain[name], rtol=1e-3, atol=1e-5, msg=name)
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any() == plain[name].any(), name
