import dataclasses
import json

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

import zoo_adapters
from puppetize import PuppetConfig, PuppetizeError, puppetize
from puppetize.adapter import pool, rescale, split, tile
from puppetize.derivative import build, count
from puppetize.ode import euler
from puppetize.plan import Plan

ARCHITECTURES = [
    "timm/resnet18",
    "timm/mobilenetv3_small_100",
    "timm/regnety_002",
    "timm/inception_v3",
    "torchvision/squeezenet1_1",
]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def puppet(request):
    with torch.device("meta"):
        return puppetize(zoo_adapters.create(request.param, num_classes=10))


def test_json_round_trip(puppet):
    plan = puppet.plan
    assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan


def test_every_convolution_has_a_place_and_a_fate(puppet):
    convs = {n: m for n, m in puppet.network.named_modules() if isinstance(m, nn.Conv2d)}
    plan = puppet.plan
    assert set(plan.order) == set(convs)
    assert len(plan.order) == len(convs)
    for item in (*plan.sites, *plan.kept):
        assert item.shape == tuple(convs[item.name].weight.shape)
    text = str(plan)
    assert all(name in text for name in plan.order)


def test_tiles_cover_each_weight_and_fit_the_state(puppet):
    for group in puppet.plan.groups:
        step = 1
        for site in group.sites:
            assert site.first_step == step
            step += site.steps
            for axis in (0, 1):
                parts = split(site.state_shape[axis], site.grid[axis])
                assert sum(parts) == site.state_shape[axis]
                assert max(parts) <= group.state[axis]
                assert min(parts) > 0
        assert group.steps == step - 1
        assert len({site.shape[2:] for site in group.sites}) == 1


def test_generating_a_group_saves_what_the_config_asks_for(puppet):
    config = puppet.config
    for group in puppet.plan.groups:
        numbers = count(config.derivative, group.state[1], group.state[2:]) + len(group.sites)
        assert numbers * config.min_saving <= sum(site.numel for site in group.sites)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.pop("groups"), "groups"),
        (lambda d: d["groups"][0].update(state=[64, 3, 7]), "4 numbers"),
        (lambda d: d["groups"][0].update(state=[64, -3, 7, 7]), "positive integers"),
        (lambda d: d["groups"][0].update(state=[8, 3, 7, 7]), "conv1"),
        (lambda d: d["groups"][0].update(derivatives=[5]), "5 steps"),
        (lambda d: d["groups"][1]["sites"][1].update(first_step=9), "at step 2"),
        (lambda d: d["order"].append("nowhere"), "order"),
        (lambda d: d.update(groups=7), "TypeError"),
        (lambda d: d["groups"][0]["sites"].append(None), "TypeError"),
    ],
)
def test_malformed_plans_are_refused(change, said):
    with torch.device("meta"):
        plan = puppetize(zoo_adapters.create("timm/resnet18")).plan
    values = json.loads(json.dumps(plan.to_dict()))
    change(values)
    with pytest.raises(PuppetizeError, match=f"the plan is malformed.*{said}"):
        Plan.from_dict(values)


def test_reasons_to_keep():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 64, 3, padding=1)
            self.depthwise = nn.Conv2d(64, 64, 3, padding=1, groups=64)
            self.normed = weight_norm(nn.Conv2d(64, 64, 3, padding=1))
            self.body = nn.Conv2d(64, 64, 3, padding=1)
            self.tiny = nn.Conv2d(64, 2, 1, groups=2)
            self.never = nn.Conv2d(64, 64, 3)

        def forward(self, x):
            return self.tiny(self.body(self.normed(self.depthwise(self.stem(x)))))

    kept = {kept.name: kept.reason for kept in puppetize(Odd()).plan.kept}
    assert kept == {
        "depthwise": "depthwise",
        "normed": "its weight is computed by a parametrization",
        "tiny": "generating would cost more than it saves",
        "never": "never executed",
    }
    squeezenet = zoo_adapters.create("torchvision/squeezenet1_1", num_classes=10)
    assert [k.reason for k in puppetize(squeezenet).plan.kept] == ["classifier"]


def test_a_state_is_capped_and_sites_are_tiled():
    network = nn.Sequential(nn.Conv2d(3, 96, 3), nn.Conv2d(96, 80, 3))
    (group,) = puppetize(network, PuppetConfig(width=32, height=40)).plan.groups
    assert group.state == (40, 32, 3, 3)
    assert [site.grid for site in group.sites] == [(3, 1), (3, 3)]
    assert [site.transposed for site in group.sites] == [False, True]
    assert group.steps == 12


def test_average_pooling_by_hand():
    state = torch.randn(7, 6, 3, 3, dtype=torch.float64)
    found = pool(state, (3, 2, 1, 2)).numpy()

    def bins(size, parts):
        return [(size * i // parts, -(-size * (i + 1) // parts)) for i in range(parts)]

    expected = np.empty((3, 2, 1, 2))
    for i, (a, b) in enumerate(bins(7, 3)):
        for j, (c, d) in enumerate(bins(6, 2)):
            for k, (e, f) in enumerate(bins(3, 1)):
                for m, (g, h) in enumerate(bins(3, 2)):
                    expected[i, j, k, m] = state[a:b, c:d, e:f, g:h].mean()
    np.testing.assert_allclose(found, expected)


def test_a_site_of_the_states_shape_is_the_state():
    state = torch.randn(4, 5, 3, 3)
    assert torch.equal(pool(state, state.shape), state)
    assert torch.equal(tile([state], (1, 1), state.shape), state)


def test_rescaling_sets_the_variance():
    weight = 7 * torch.randn(8, 4, 3, 3)
    scaled = rescale(weight, torch.tensor(1.5))
    assert scaled.square().mean().item() == pytest.approx(1.5**2 / 36, rel=1e-5)
    torch.testing.assert_close(scaled / scaled[0, 0, 0, 0], weight / weight[0, 0, 0, 0])
    assert torch.equal(rescale(torch.zeros(2, 2, 1, 1), torch.tensor(1.0)), torch.zeros(2, 2, 1, 1))


@pytest.mark.parametrize("step_size", [0.5, 1.0])
@pytest.mark.parametrize("dynamics", ["free", "driven"])
def test_weights_by_hand(dynamics, step_size):
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 10, 3), nn.Conv2d(10, 4, 3))
    config = PuppetConfig(width=4, height=6, min_saving=0.0, dynamics=dynamics, step_size=step_size)
    puppet = puppetize(network, config)
    (group,) = puppet.plan.groups
    (ode,) = puppet.puppeteer.groups
    assert [site.grid for site in group.sites] == [(2, 1), (2, 2), (2, 1)]
    (derivative,) = ode.derivatives
    if dynamics == "free":
        assert ode.start.shape == group.state == (6, 4, 3, 3)
        h = list(euler([derivative] * 8, ode.start, step_size))
    else:
        field, h = ode.start, []
        assert field.shape == (8, 5, 3, 3)
        state = field[:6, :4]
        for step in range(1, 9):
            # Three offsets in steps of 2, two in steps of 1.
            rows, columns = 2 * step % 3, step % 2
            drive = field[rows : rows + 6, columns : columns + 4]
            state = state + step_size * (derivative(state + drive) - state)
            h.append(state)
    second = torch.cat(
        [
            torch.cat([pool(h[2], (5, 4, 3, 3)), pool(h[3], (5, 4, 3, 3))], 1),
            torch.cat([pool(h[4], (5, 4, 3, 3)), pool(h[5], (5, 4, 3, 3))], 1),
        ]
    )
    third = torch.cat([pool(h[6], (5, 4, 3, 3)), pool(h[7], (5, 4, 3, 3))]).transpose(0, 1)
    weights = puppet.weights()
    for name, raw, gain in (("1", second, ode.gains[1]), ("2", third, ode.gains[2])):
        torch.testing.assert_close(weights[name], rescale(raw, gain))


def test_gains_start_at_the_originals_scale():
    model = timm.create_model("test_resnet", num_classes=10)
    for name, weight in puppetize(model).weights().items():
        original = model.get_submodule(name).weight
        assert weight.square().mean().item() == pytest.approx(
            original.square().mean().item(), rel=1e-4
        )


@pytest.mark.parametrize("kernel", [(1, 1), (1, 7), (2, 2), (3, 3), (7, 7)])
@pytest.mark.parametrize("kind", ["normalised", "paper"])
def test_derivatives_keep_the_states_shape(kind, kernel):
    state = torch.randn(6, 4, *kernel)
    out = build(kind, 4, kernel)(state)
    assert out.shape == state.shape
    assert out.abs().max() <= 1
    taps = (3 if kernel[0] > 1 else 1) * (3 if kernel[1] > 1 else 1)
    depthwise = taps * 4 if taps > 1 else 0
    assert count(kind, 4, kernel) == (16 + 15 * 4 if kind == "paper" else 16 + 2 * 4 + depthwise)


@pytest.mark.parametrize(
    "bad",
    [
        {"start": "random"},
        {"seed": -1},
        {"seed": 2**64},
        {"width": 0},
        {"height": -3},
        {"step_size": 0.0},
        {"step_size": float("nan")},
        {"min_saving": -1.0},
        {"tiling": False},
        {"version": 2},
    ],
)
def test_bad_settings(bad):
    with pytest.raises(PuppetizeError, match="PuppetConfig"):
        PuppetConfig(**bad)


def test_config_round_trip():
    config = dataclasses.replace(PuppetConfig.paper(), seed=5)
    assert PuppetConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(PuppetizeError, match="no field flavour"):
        PuppetConfig.from_dict({**config.to_dict(), "flavour": 1})
