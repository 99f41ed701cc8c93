import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from fvcore.nn import FlopCountAnalysis
from torch import nn
from torch.nn.utils import prune

import zoo_adapters
from puppetize import PuppetizeError, puppetize
from puppetize.walk import conv_names, walk
from zoo_adapters import TraceOptions


def walked(model, size=(3, 64, 64), example_inputs=None):
    options = zoo_adapters.adapter_for(model).trace_options(model)
    return walk(model, options, size, example_inputs)


def by_name(found):
    return {conv.name: conv for conv in found.convs}


def test_execution_order_is_not_registration_order():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Conv2d(8, 4, 1)
            self.first = nn.Conv2d(3, 8, 3)

        def forward(self, x):
            return self.last(self.first(x))

    assert [conv.name for conv in walked(Backwards()).convs] == ["first", "last"]


@pytest.mark.parametrize("name", ["ghostnet_100", "hrnet_w18_small", "nf_resnet26", "vgg11_bn"])
def test_order_is_that_of_a_real_forward_pass(name):
    model = timm.create_model(name, num_classes=10, **_slim(name)).eval()
    seen = []
    handles = [
        module.register_forward_hook(lambda m, a, o, n=n: seen.append(n))
        for n, module in model.named_modules()
        if isinstance(module, nn.Conv2d)
    ]
    with torch.no_grad():
        model(torch.randn(1, 3, 64, 64))
    for handle in handles:
        handle.remove()
    found = walked(model)
    assert found.traced
    assert [conv.name for conv in found.convs] == list(dict.fromkeys(seen))


def _slim(name):
    return {"mlp_ratio": 1 / 32} if name.startswith("vgg") else {}


def fvcores(model, *inputs):
    analysis = FlopCountAnalysis(model, inputs)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    return analysis.by_operator()


@pytest.mark.parametrize("name", ["resnet50", "mobilenetv3_small_100", "nf_resnet26"])
def test_macs_are_fvcores_without_norms_and_pooling(name):
    model = timm.create_model(name, num_classes=10).eval()
    found = walked(model, (3, 64, 64))
    theirs = fvcores(model, torch.randn(1, 3, 64, 64))
    assert sum(conv.macs for conv in found.convs) == theirs["conv"]
    assert found.macs == theirs["conv"] + theirs["linear"]


def test_macs_of_attention_and_recurrent_layers():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.patch = nn.Conv2d(3, 8, 4, 4)
            self.qkv = nn.Linear(8, 24)
            self.lstm = nn.LSTM(8, 5, batch_first=True)

        def forward(self, x):
            q, k, v = self.qkv(self.patch(x).flatten(2).mT).chunk(3, -1)
            return self.lstm(
                F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
            )

    found = walked(Tokens(), (3, 16, 16))
    assert found.macs == 16 * (8 * 48 + 8 * 24 + 2 * 16 * 8 + 4 * 5 * (8 + 5))


def test_macs_of_other_libraries_are_unknown():
    @torch.library.custom_op("puppetize_tests::same", mutates_args=())
    def same(x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    same.register_fake(torch.empty_like)

    class Foreign(nn.Sequential):
        def forward(self, x):
            return same(super().forward(x))

    found = walked(Foreign(nn.Conv2d(3, 4, 3)))
    assert found.macs is None
    assert found.convs[0].macs == 4 * 27 * 62 * 62


def test_shapes_strides_and_groups():
    conv = nn.Conv2d(8, 12, (3, 5), stride=(2, 1), groups=4)
    (record,) = walked(nn.Sequential(conv), (8, 9, 9)).convs
    assert record.shape == tuple(conv.weight.shape) == (12, 2, 3, 5)
    assert record.stride == (2, 1)
    assert record.groups == 4
    assert record.calls == 1
    assert record.macs == 12 * 4 * 5 * 2 * 3 * 5


def test_shared_tied_and_unused_convolutions():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.twice = nn.Conv2d(3, 3, 3, padding=1)
            self.again = self.twice
            self.one, self.other = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
            self.other.weight = self.one.weight
            self.never = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return self.other(self.one(self.again(self.twice(x))))

    found = by_name(walked(Odd(), (3, 8, 8)))
    assert list(found) == ["twice", "one", "never"]
    assert found["twice"].aliases == ("again",)
    assert found["one"].aliases == ("other",)
    assert found["twice"].calls == found["one"].calls == 2
    assert found["twice"].macs == 2 * 64 * 9 * 9
    assert (found["never"].calls, found["never"].mode) == (0, "")


def test_auxiliary_heads_run_in_training_only():
    with torch.device("meta"):
        model = zoo_adapters.create("torchvision/googlenet", num_classes=10)
    found = walked(model, (3, 224, 224))
    assert [c.name for c in found.convs if c.mode == "train"] == [
        "aux1.conv.conv",
        "aux2.conv.conv",
    ]
    assert set(by_name(found)) == set(conv_names(model))


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.other = nn.Conv2d(4, 4, 3)

    def forward(self, x):
        x = self.conv(x)
        if x.shape[0] > 0 and x.dim() == 4:
            for _ in range(int(x.shape[-1] > 2)):
                x = self.other(x)
        return x


def test_control_flow_that_torch_fx_cannot_trace():
    found = walked(Branching(), (3, 16, 16))
    assert not found.traced
    assert "symbolically traced" in found.why_not_traced
    assert [conv.calls for conv in found.convs] == [1, 1]


def test_a_graph_needs_a_trace():
    puppet = puppetize(nn.Sequential(Branching(), nn.Conv2d(4, 64, 3)))
    with pytest.raises(PuppetizeError, match=r"cannot be traced by torch\.fx"):
        puppet.graph_module()


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_the_model_is_left_alone(device):
    with torch.device(device):
        model = torchvision.models.resnet18(num_classes=10).train()
    before = {name: (t, t._version) for name, t in model.state_dict(keep_vars=True).items()}
    walked(model)
    assert all(m.training for m in model.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    for name, tensor in model.state_dict(keep_vars=True).items():
        assert before[name] == (tensor, tensor._version) or tensor is before[name][0]
        assert tensor._version == before[name][1]


def test_other_usual_sizes_are_tried():
    network = nn.Sequential(nn.Conv2d(1, 32, 5), nn.Flatten(), nn.Linear(32 * 24 * 24, 2))
    assert walked(network, (1, 224, 224)).input_size == (1, 28, 28)
    assert puppetize(network).data_config.input_size == (1, 28, 28)


def test_example_inputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 16, 3)

        def forward(self, left, right):
            return self.conv(left) + self.conv(right)

    with pytest.raises(PuppetizeError, match=r"Two does not run on images .* example_inputs"):
        walked(Two())
    inputs = (torch.zeros(4, 3, 8, 8), torch.zeros(4, 3, 8, 8))
    found = walk(Two(), TraceOptions(), (3, 8, 8), inputs)
    assert found.input_size is None
    assert found.convs[0].macs == 2 * 16 * 36 * 27
    puppet = puppetize(Two(), example_inputs=inputs)
    assert puppet(*inputs).shape == (4, 16, 6, 6)
    with pytest.raises(PuppetizeError, match="the given example_inputs"):
        walked(Two(), example_inputs=(torch.zeros(1, 5, 8, 8),))


class Odd(nn.Module):
    """A convolution, ``b``, whose use is up to ``way``."""

    def __init__(self, way):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 1)
        self.way = way

    def forward(self, x):
        return self.c(self.way(self.b, self.a(x)))


@pytest.mark.parametrize(
    ("way", "macs"),
    [
        (lambda b, x: F.conv2d(x, b.weight), 8 * 72 * 36),
        (lambda b, x: F.conv2d(x, b.weight / b.weight.norm()), 8 * 72 * 36),
        (lambda b, x: F.conv2d(F.conv2d(x, b.weight), b.weight), 8 * 72 * (36 + 16)),
        (lambda b, x: F.linear(x.mean((2, 3)), b.weight.sum((2, 3)))[..., None, None], 64),
        (lambda b, x: x * b.weight.norm(), 0),
    ],
)
def test_a_convolution_that_is_used_through_its_weight(way, macs):
    found = walked(Odd(way), (3, 8, 8))
    assert [(conv.name, conv.mode) for conv in found.convs] == [(n, "eval") for n in "abc"]
    assert found.convs[1].macs == macs
    assert found.convs[1].calls == (2 if macs > 8 * 72 * 36 else 1)
    assert found.macs == sum(conv.macs for conv in found.convs)


def test_a_model_that_is_a_convolution():
    (record,) = walked(nn.Conv2d(8, 4, 3), (8, 6, 6)).convs
    assert (record.name, record.calls, record.macs, record.mode) == ("", 1, 16 * 4 * 72, "eval")


def test_pruned_and_weight_normed_convolutions():
    model = nn.Sequential(nn.Conv2d(3, 64, 3), nn.Conv2d(64, 64, 3), nn.Conv2d(64, 64, 3))
    prune.random_unstructured(model[1], "weight", 0.5)
    with pytest.warns(FutureWarning):
        nn.utils.weight_norm(model[2])
    model(torch.zeros(1, 3, 8, 8))
    assert [conv.calls for conv in walked(model).convs] == [1, 1, 1]
    puppet = puppetize(nn.Sequential(*model, nn.Conv2d(64, 64, 3)))
    reasons = {kept.name: kept.reason for kept in puppet.plan.kept}
    assert reasons["1"] == reasons["2"] == "its weight is computed by a parametrization"


class Asks(nn.Module):
    """A network whose forward pass gets its images from what it is called with."""

    def __init__(self, get):
        super().__init__()
        self.conv, self.get = nn.Conv2d(3, 4, 1), get

    def forward(self, *args, **kwargs):
        return self.conv(self.get(*args, **kwargs))


@pytest.mark.parametrize(
    ("get", "example_inputs"),
    [
        (lambda x: x, torch.zeros(5, 3, 8, 8)),
        (lambda x: x, (torch.zeros(5, 3, 8, 8),)),
        (lambda x: x["images"], ({"images": torch.zeros(5, 3, 8, 8)},)),
        (lambda *, images: images, {"images": torch.zeros(5, 3, 8, 8)}),
        (torch.stack, ([torch.zeros(3, 8, 8)] * 5,)),
        (torch.cat, ([torch.zeros(5, 3, 8, 8)],)),
    ],
)
def test_inputs_of_any_structure(get, example_inputs):
    found = walked(Asks(get), example_inputs=example_inputs)
    assert found.convs[0].macs == found.macs == 12 * 64


def test_a_single_example_reaches_what_only_training_runs():
    class Auxiliary(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 8), nn.BatchNorm2d(4)
            self.aux = nn.Conv2d(4, 4, 1)

        def forward(self, x):
            x = self.norm(self.conv(x))
            return self.aux(x) if self.training else x

    found = walked(Auxiliary(), example_inputs=torch.zeros(1, 3, 8, 8))
    assert [conv.mode for conv in found.convs] == ["eval", "train"]


def test_shapes_that_depend_on_values():
    class Choosy(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 1), nn.Linear(4, 2)

        def forward(self, x):
            x = self.conv(x)
            if (x.sum() < 0).item():
                raise ValueError(float(x.sum()))
            rows = x.permute(0, 2, 3, 1)
            return self.head(rows[rows[..., 0] > 0])

    found = walked(Choosy(), (3, 8, 8))
    assert "_local_scalar_dense" in found.assumed
    assert found.macs == 64 * (12 + 8)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_operations_that_need_numbers(device):
    class Foreign(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.first = nn.Conv2d(4, 4, 1), nn.Conv2d(3, 4, 1)

        def forward(self, x):
            x = self.first(x)
            return self.last(torch.from_numpy(np.tanh(x.numpy())))

    with torch.device(device):
        model = Foreign()
    found = walked(model, (3, 8, 8))
    assert [conv.name for conv in found.convs] == ["first", "last"]
    assert found.macs == 64 * (12 + 16)
    assert not found.traced


def test_the_error_names_the_layer_the_inputs_and_the_fix():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(7, 7))
    expected = (
        r"Sequential does not run on images of size 3x64x64, .*: RuntimeError at '2' \(Linear\): "
        r".*Pass example_inputs= .* a tuple of positional arguments, or a dict"
    )
    with pytest.raises(PuppetizeError, match=expected):
        walked(network)


def test_what_cannot_be_copied_is_said():
    model = nn.Conv2d(3, 4, 3)
    model.rows = (row for row in ())
    with pytest.raises(PuppetizeError, match=r"Conv2d cannot be copied \(TypeError: .*generator"):
        walked(model)
