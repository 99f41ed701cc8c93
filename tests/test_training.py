"""A puppet under what training code does to modules."""

import collections
import copy

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from networks import SMALL, Plain, get, loss_of
from timm.layers import set_reentrant_ckpt
from timm.utils import ModelEmaV3
from torch import nn
from torch.utils.checkpoint import checkpoint

from puppetize import Puppet, PuppetizeError, puppeteer, puppetize

IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(3))


def backward(puppet, images=IMAGES):
    puppet.zero_grad()
    loss_of(puppet(images)).backward()
    return {name: p.grad.clone() for name, p in puppet.named_parameters()}


def close(found, expected, rtol=1e-3, atol=1e-5):
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=rtol, atol=atol, msg=name)


@pytest.fixture
def puppet():
    return puppetize(Plain(), SMALL)


def test_loss_falls(puppet):
    optimizer = torch.optim.Adam(puppet.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = loss_of(puppet(IMAGES))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("after", ["nothing", "forward", "backward", "open graph"])
def test_deepcopy(puppet, training, after):
    puppet.train(training)
    if after == "forward":
        with torch.no_grad():
            puppet(IMAGES)
    elif after == "backward":
        backward(puppet)
    elif after == "open graph":
        loss = loss_of(puppet(IMAGES))
    twin = copy.deepcopy(puppet)
    assert twin.training == training
    close(backward(twin), backward(copy.deepcopy(puppet)), rtol=0, atol=0)
    before = backward(puppet)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(0.5)
    close(backward(puppet), before, rtol=0, atol=0)
    if after == "open graph":
        puppet.zero_grad()
        loss.backward()
        assert puppet.puppeteer.groups[0].gains.grad.any()


def test_ema(puppet):
    average = ModelEmaV3(puppet, decay=0.75)
    average.module.eval()
    start = copy.deepcopy(dict(puppet.named_parameters()))
    with torch.no_grad():
        before = average.module(IMAGES)
    optimizer = torch.optim.SGD(puppet.parameters(), 0.1)
    backward(puppet)
    optimizer.step()
    average.update(puppet)
    assert isinstance(average.module, Puppet)
    for name, parameter in average.module.named_parameters():
        expected = start[name].lerp(dict(puppet.named_parameters())[name], 0.25)
        torch.testing.assert_close(parameter, expected, rtol=1e-5, atol=1e-7)
    with torch.no_grad():
        after = average.module(IMAGES)
        assert not torch.equal(before, after)
        assert torch.equal(average.module.bake()(IMAGES), after)


def test_functional_call(puppet):
    doubled = {name: 2 * p.detach() for name, p in puppet.named_parameters()}
    expected = copy.deepcopy(puppet)
    expected.load_state_dict(doubled, strict=False)
    for training in (True, False):
        puppet.train(training), expected.train(training)
        found = torch.func.functional_call(puppet, doubled, (IMAGES,))
        torch.testing.assert_close(found, expected(IMAGES))


@pytest.fixture
def recomputing(monkeypatch):
    monkeypatch.setattr(puppeteer, "_WORTH_RECOMPUTING", 0)


def test_generation_computed_anew_in_backward(recomputing, monkeypatch):
    puppet = puppetize(get("resnet18").build(), SMALL).train()
    images = get("resnet18").images()
    found = backward(puppet, images)
    runs = collections.Counter()
    for ode in puppet.puppeteer.groups:
        assert len(ode._pieces()) > 1 or len(ode.group.sites) == 1
        ode.derivatives[0].register_forward_hook(lambda *_: runs.update(["derivative"]))
    loss_of(puppet(images)).backward()
    steps = sum(group.steps for group in puppet.plan.groups)
    assert steps < runs["derivative"] <= 2 * steps
    monkeypatch.undo()
    close(found, backward(puppet, images))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("recompute", [False, True])
def test_functional_call_gradients(puppet, recompute, training, request):
    puppet.train(training)
    if recompute:
        request.getfixturevalue("recomputing")
    doubled = {name: 2 * p.detach() for name, p in puppet.named_parameters()}
    expected = copy.deepcopy(puppet)
    expected.load_state_dict(doubled, strict=False)
    for parameter in doubled.values():
        parameter.requires_grad_()
    loss_of(torch.func.functional_call(puppet, doubled, (IMAGES,))).backward()
    close({name: p.grad for name, p in doubled.items()}, backward(expected))
    assert all(parameter.grad is None for parameter in puppet.parameters())


def test_generated_weights_are_in_no_state_dict_and_no_optimiser(puppet):
    generated = {f"network.{site.name}.weight" for site in puppet.plan.sites}
    assert generated
    backward(puppet)
    assert not generated & set(puppet.state_dict())
    assert not generated & set(dict(puppet.named_parameters()))
    assert len(list(puppet.parameters())) == len({id(p) for p in puppet.parameters()})


def test_shapes_of_generated_weights_cost_nothing(puppet):
    site = next(puppet.plan.sites)
    weight = puppet.network.get_submodule(site.name).weight
    assert weight.shape == site.shape
    assert (weight.ndim, weight.numel()) == (4, site.numel)


def test_autocast():
    puppet = puppetize(Plain(norm=False), SMALL)
    expected = backward(puppet)
    with torch.autocast("cpu", torch.bfloat16):
        output = puppet(IMAGES)
    assert output.dtype == torch.bfloat16
    puppet.zero_grad()
    loss_of(output.float()).backward()
    for name, parameter in puppet.named_parameters():
        assert parameter.grad.dtype == torch.float32
        assert parameter.grad.isfinite().all()
        error = (parameter.grad - expected[name]).norm() / expected[name].norm()
        assert error < 0.1, name


@pytest.mark.parametrize("training", [False, True])
def test_channels_last(training):
    network = get("resnet18")
    puppet = puppetize(network.build(), SMALL).train(training)
    images = network.images()
    expected = backward(puppet, images)
    logits = puppet(images)
    twin = copy.deepcopy(puppet).to(memory_format=torch.channels_last)
    for site in puppet.plan.sites:
        weight = twin.weights()[site.name]
        assert weight.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(weight, puppet.weights()[site.name])
    images = images.to(memory_format=torch.channels_last)
    torch.testing.assert_close(twin(images), logits, rtol=1e-3, atol=1e-4)
    close(backward(twin, images), expected, rtol=1e-2, atol=1e-3)
    back = twin.to(memory_format=torch.contiguous_format)
    assert all(weight.is_contiguous() for weight in back.weights().values())


@pytest.mark.parametrize(
    "name", ["resnet18", "densenet121", "convnext_atto", "efficientnet_b0", "nf_resnet26"]
)
def test_timm_grad_checkpointing(name):
    network = get(name)
    puppet = puppetize(network.build(), SMALL).train()
    images = network.images()
    reference = copy.deepcopy(puppet)
    torch.manual_seed(1)
    expected = backward(reference, images)
    runs = collections.Counter()
    for name, module in puppet.network.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(lambda *_, name=name: runs.update([name]))
    puppet.set_grad_checkpointing()
    torch.manual_seed(1)
    close(backward(puppet, images), expected)
    assert max(runs.values()) > 1


class Checkpointed(Plain):
    def __init__(self, **kwargs):
        super().__init__(norm=False)
        self.kwargs = kwargs

    def forward(self, x):
        x = self.stem(x)
        for conv in self.body:
            x = checkpoint(conv, x, **self.kwargs)
        return self.fc(self.expand(x).mean((2, 3)))


@pytest.mark.parametrize("training", [False, True])
def test_checkpointing_in_the_network(training):
    puppet = puppetize(Checkpointed(use_reentrant=False)).train(training)
    plain = Checkpointed(use_reentrant=False)
    plain.load_state_dict(puppet.bake().state_dict())
    found = backward(puppet)
    loss_of(plain(IMAGES)).backward()
    for name, parameter in plain.named_parameters():
        if f"network.{name}" in found:
            torch.testing.assert_close(found[f"network.{name}"], parameter.grad)


def test_checkpointing_around_the_puppet(puppet):
    expected = backward(copy.deepcopy(puppet))
    puppet.zero_grad()
    loss_of(checkpoint(puppet, IMAGES, use_reentrant=False)).backward()
    close({n: p.grad for n, p in puppet.named_parameters()}, expected)


@pytest.mark.parametrize("training", [False, True])
def test_reentrant_checkpointing_is_refused(training):
    puppet = puppetize(Checkpointed(use_reentrant=True)).train(training)
    with pytest.raises(PuppetizeError, match="use_reentrant=False"):
        backward(puppet)


def test_reentrant_checkpointing_in_timm_is_refused():
    puppet = puppetize(get("resnet18").build(), SMALL).train()
    puppet.set_grad_checkpointing()
    set_reentrant_ckpt(True)
    try:
        with pytest.raises(PuppetizeError, match="set_reentrant_ckpt"):
            backward(puppet, get("resnet18").images())
    finally:
        set_reentrant_ckpt(False)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes(puppet, dtype):
    puppet.eval()
    with torch.no_grad():
        expected = puppet(IMAGES)
        converted = puppet.to(dtype)
        logits = converted(IMAGES.to(dtype))
        assert logits.dtype == dtype
        assert {weight.dtype for weight in converted.weights().values()} == {dtype}
        tolerance = {torch.float16: 1e-2, torch.bfloat16: 6e-2, torch.float64: 1e-4}[dtype]
        torch.testing.assert_close(logits.float(), expected, rtol=tolerance, atol=tolerance)
        assert torch.equal(converted.bake()(IMAGES.to(dtype)), logits)
    backward(converted.train(), IMAGES.to(dtype))


@pytest.mark.parametrize("convert", ["half", "bfloat16", "double", "float"])
def test_conversion_methods(puppet, convert):
    getattr(puppet, convert)()
    dtypes = {p.dtype for p in puppet.parameters()}
    assert dtypes == {w.dtype for w in puppet.weights().values()}
    assert dtypes == {getattr(torch, convert)}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_saved_in_another_dtype(tmp_path, dtype):
    network = get("resnet18")
    puppet = puppetize(network.build(), SMALL).eval().to(dtype)
    puppet.save_pretrained(tmp_path)
    loaded = Puppet.from_pretrained(tmp_path)
    assert {p.dtype for p in loaded.parameters()} == {dtype}
    images = network.images().to(dtype)
    with torch.no_grad():
        assert torch.equal(loaded(images), puppet(images))
    report = puppet.report(macs=False)
    assert report.stored_bytes == (tmp_path / "model.safetensors").stat().st_size


def test_puppetize_keeps_dtype_and_mode():
    model = Plain().bfloat16().eval()
    puppet = puppetize(model, SMALL)
    assert not puppet.training
    assert {p.dtype for p in puppet.parameters()} == {torch.bfloat16}
    assert puppetize(model.train(), SMALL).training


def test_frozen_original_weights_stay_trainable_parameters_of_the_puppeteer():
    model = Plain()
    model.fc.requires_grad_(False)
    puppet = puppetize(model, SMALL)
    assert not puppet.network.fc.weight.requires_grad
    assert all(p.requires_grad for p in puppet.puppeteer.parameters())


def step_on(rank, world, folder, puppet, images):
    """One step on this rank's part of the batch; ranks start from other numbers than rank 0."""
    puppet = copy.deepcopy(puppet)  # what arrives shares its memory with the other processes
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=world)
    with torch.no_grad():
        puppet.puppeteer.groups[0].gains.add_(rank)
    wrapped = nn.parallel.DistributedDataParallel(puppet)
    optimizer = torch.optim.SGD(wrapped.parameters(), 0.1)
    for _ in range(2):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(
            wrapped(images[rank::world]), (torch.arange(len(images)) % 10)[rank::world]
        ).backward()
        optimizer.step()
    torch.save(puppet.state_dict(), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available(), reason="torch is built without distributed")
def test_data_parallel(tmp_path):
    puppet = puppetize(Plain(norm=False), SMALL)
    mp.spawn(step_on, (2, str(tmp_path), puppet, IMAGES), nprocs=2)
    optimizer = torch.optim.SGD(puppet.parameters(), 0.1)
    for _ in range(2):
        backward(puppet)
        optimizer.step()
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for name, tensor in puppet.state_dict().items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], tensor, rtol=1e-4, atol=1e-6, msg=name)
