import copy
from collections import Counter

import pytest
import timm
import torch
from networks import SMALL, Plain, get, params

from puppetize import PuppetConfig, puppetize


def equal(found, expected):
    assert found.keys() == expected.keys()
    return all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.fixture(scope="module", params=params("resnet18", "mobilenetv3_small_100", "nf_resnet26"))
def puppet(request):
    return puppetize(request.param.build(), PuppetConfig(width=128))


@pytest.mark.filterwarnings("ignore::puppetize.PuppetizeWarning")
@pytest.mark.parametrize(
    ("network", "config"),
    [
        pytest.param(get("mobilenetv3_small_100").build, SMALL, id="seeded"),
        pytest.param(Plain, PuppetConfig.paper(), id="paper"),
    ],
)
def test_training_and_evaluation_generate_the_same_bits(network, config):
    puppet = puppetize(network(), config)
    trained = puppet.train().weights()
    assert equal(puppet.eval().weights(), trained)
    with torch.no_grad():
        assert equal(puppet.weights(), trained)
    with torch.inference_mode():
        assert equal(puppet.weights(), trained)
    puppet(torch.randn(2, 3, 64, 64))
    puppet.train()(torch.randn(2, 3, 64, 64))
    assert equal(puppet.weights(), trained)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("training", [False, True])
def test_autocast_changes_no_weight(puppet, training, dtype):
    expected = copy.deepcopy(puppet).train(training).weights()
    with torch.autocast("cpu", dtype):
        found = copy.deepcopy(puppet).train(training).weights()
    assert {weight.dtype for weight in found.values()} == {torch.float32}
    assert equal(found, expected)


def test_generates_each_site_in_its_shape(puppet):
    weights = puppet.weights()
    assert {name: tuple(w.shape) for name, w in weights.items()} == {
        site.name: site.shape for site in puppet.plan.sites
    }
    assert all(weight.is_contiguous() for weight in weights.values())
    assert all(weight.isfinite().all() for weight in weights.values())


def test_weights_differ_from_site_to_site(puppet):
    weights = list(puppet.weights().values())
    for number, weight in enumerate(weights):
        for other in weights[:number]:
            assert weight.shape != other.shape or not torch.equal(weight, other)


def test_seed_decides_the_start_and_nothing_else():
    starts = []
    for seed in (0, 0, 1):
        puppet = puppetize(Plain(), PuppetConfig(seed=seed))
        starts.append(puppet.puppeteer.groups[0].start)
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])


def test_start_is_stored_nowhere_and_survives_dtypes():
    puppet = puppetize(Plain())
    start = puppet.puppeteer.groups[0].start.clone()
    assert not any(name.endswith("start") for name in puppet.state_dict())
    for dtype in (torch.bfloat16, torch.float16, torch.float64, torch.float32):
        puppet.to(dtype)
        assert torch.equal(puppet.puppeteer.groups[0].start, start)


def test_start_is_filled_in_when_memory_is():
    puppet = puppetize(Plain())
    with torch.device("meta"):
        shell = puppetize(Plain())
    assert {p.device.type for p in shell.parameters()} == {"meta"}
    shell.to_empty(device="cpu")
    shell.load_state_dict(puppet.state_dict())
    assert equal(shell.train().weights(), puppet.train().weights())


def test_the_puppeteer_is_registered_once():
    puppet = puppetize(Plain(), SMALL)
    owners = Counter(name.partition(".")[0] for name, _ in puppet.named_parameters())
    assert set(owners) == {"puppeteer", "network"}
    assert not any("puppeteer" in name for name, _ in puppet.network.named_modules())


@pytest.mark.parametrize("shared", ["module", "parameter"])
def test_shared_weights_stay_shared(shared):
    model = Plain()
    if shared == "module":
        model.body[2] = model.body[1]
    else:
        model.body[2].weight = model.body[1].weight
    puppet = puppetize(model, SMALL)
    site = next(site for site in puppet.plan.sites if site.name == "body.1")
    assert site.aliases == ("body.2",)
    images = torch.randn(2, 3, 16, 16)
    baked = puppet.eval().bake()
    assert baked.body[2].weight is baked.body[1].weight
    assert list(baked.state_dict()) == list(model.state_dict())
    with torch.no_grad():
        assert torch.equal(baked(images), puppet(images))


@pytest.mark.parametrize(("name", "ratio"), [("resnet50", 50), ("efficientnet_b0", 10)])
def test_generated_weights_are_conditioned_like_random_ones(name, ratio):
    # Also after hundreds of Euler steps: otherwise signals grow from layer to layer, and networks
    # without norms, with frozen ones, or in eval mode before training, overflow.
    puppet = puppetize(timm.create_model(name, num_classes=10), ratio=ratio).eval()
    assert max(group.steps for group in puppet.plan.groups) > 50
    for site, weight in puppet.weights().items():
        matrix = weight.detach().flatten(1)
        random = torch.randn_like(matrix) * matrix.std()
        largest, expected = (torch.linalg.matrix_norm(m, 2) for m in (matrix, random))
        assert largest < 1.7 * expected, site
