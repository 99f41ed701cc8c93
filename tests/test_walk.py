import pytest
import timm
import torch
import torchvision
from fvcore.nn import FlopCountAnalysis
from torch import nn

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


def test_macs_are_fvcores():
    model = timm.create_model("resnet50", num_classes=10).eval()
    found = walked(model, (3, 64, 64))
    analysis = FlopCountAnalysis(model, torch.randn(1, 3, 64, 64))
    analysis.unsupported_ops_warnings(False)
    assert sum(conv.macs for conv in found.convs) == analysis.by_operator()["conv"]


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
