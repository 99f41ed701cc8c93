import subprocess
import sys
import textwrap

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.utils._pytree import tree_map_only

import zoo_adapters
from zoo_adapters import ModelSource, PuppetizeError


def test_all_names_of_both_zoos():
    assert len(zoo_adapters.list_models("timm/*")) == len(timm.list_models())
    names = zoo_adapters.list_models("torchvision/*")
    assert names == [f"torchvision/{n}" for n in torchvision.models.list_models()]
    assert zoo_adapters.list_models("resnet18") == ["timm/resnet18", "torchvision/resnet18"]


def test_create_passes_arguments_on():
    model = zoo_adapters.create("timm/test_resnet", num_classes=7, in_chans=1)
    assert model(torch.zeros(2, 1, 64, 64)).shape == (2, 7)
    only_in_timm = zoo_adapters.create("test_resnet")
    assert type(only_in_timm) is type(model)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("timm/resnet19x", "unknown model 'timm/resnet19x'; close matches: timm/resn"),
        ("nozoo/resnet18", "unknown zoo 'nozoo'.*zoos: timm, torchvision.*timm/resnet18"),
        ("resnet18", "in several zoos; say timm/resnet18 or torchvision/resnet18"),
        ("qqqqqqqqqq", "unknown model 'qqqqqqqqqq'$"),
    ],
)
def test_unknown_names(name, said):
    with pytest.raises(PuppetizeError, match=said):
        zoo_adapters.create(name)


def test_arguments_that_a_zoo_refuses():
    with pytest.raises(PuppetizeError, match=r"timm/resnet18 cannot be built with \{'colour': 3\}"):
        zoo_adapters.create("timm/resnet18", colour=3)


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda: timm.create_model("resnet18"), ModelSource("timm", "resnet18")),
        (
            lambda: timm.create_model("resnet18", num_classes=3, in_chans=1),
            ModelSource("timm", "resnet18", {"num_classes": 3, "in_chans": 1}),
        ),
        (
            lambda: timm.create_model(
                "resnet18", global_pool="max", drop_rate=0.2, drop_path_rate=0.1
            ),
            ModelSource(
                "timm",
                "resnet18",
                {"global_pool": "max", "drop_rate": 0.2, "drop_path_rate": 0.1},
            ),
        ),
        (
            lambda: torchvision.models.squeezenet1_1(num_classes=5),
            ModelSource("torchvision", "squeezenet1_1", {"num_classes": 5}),
        ),
        (
            lambda: torchvision.models.resnet34(num_classes=10),
            ModelSource("torchvision", "resnet34", {"num_classes": 10}),
        ),
        (
            lambda: zoo_adapters.create("torchvision/googlenet", num_classes=10),
            ModelSource("torchvision", "googlenet", {"num_classes": 10}),
        ),
    ],
)
def test_models_are_recognised(build, expected):
    with torch.device("meta"):
        model = build()
    assert zoo_adapters.identify(model) == (expected, "")


def test_what_makes_a_model_unrecognisable_is_named():
    model = timm.create_model("resnet18")
    model.conv1 = nn.Conv2d(3, 64, 3, bias=False)
    source, why = zoo_adapters.identify(model)
    assert source is None
    assert "timm/resnet18" in why
    assert "'conv1'" in why
    assert zoo_adapters.identify(nn.Linear(2, 2)) == (None, "it comes from no known zoo")


@pytest.mark.parametrize("name", ["resnet18", "regnet_y_400mf", "shufflenet_v2_x1_0"])
def test_of_many_architectures_the_closest_is_named(name):
    model = torchvision.models.get_model(name, num_classes=10)
    layer = next(n for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d))
    model.get_submodule(layer).eps = 0.5
    source, why = zoo_adapters.identify(model)
    assert source is None
    assert why.startswith(f"torchvision/{name} has")
    assert layer in why


def test_a_setting_that_changes_the_forward_pass_counts():
    with torch.device("meta"):
        model = zoo_adapters.create("torchvision/googlenet", num_classes=10)
    model.transform_input = True
    source, why = zoo_adapters.identify(model)
    assert source is None
    assert "transform_input" in why


@pytest.mark.parametrize(
    ("name", "classifier", "size"),
    [
        ("timm/resnet18", ("fc",), (3, 224, 224)),
        ("timm/inception_v3", ("fc",), (3, 299, 299)),
        ("torchvision/squeezenet1_1", ("classifier.1",), (3, 224, 224)),
        ("torchvision/fcn_resnet50", ("classifier.4",), (3, 224, 224)),
        ("torchvision/quantized_inception_v3", ("fc",), (3, 299, 299)),
        ("torchvision/regnet_y_400mf", ("fc",), (3, 224, 224)),
        ("timm/tresnet_m", ("head.fc",), (3, 224, 224)),
    ],
)
def test_adapters_know_their_models(name, classifier, size):
    with torch.device("meta"):
        model = zoo_adapters.create(name)
    adapter = zoo_adapters.adapter_for(model)
    assert adapter.classifier(model) == classifier
    assert adapter.data_config(model).input_size == size


@pytest.mark.parametrize("name", ["resnet18", "tresnet_m", "vit_tiny_patch16_224"])
def test_images_of_other_channels(name):
    with torch.device("meta"):
        model = timm.create_model(name, in_chans=4)
    adapter = zoo_adapters.adapter_for(model)
    assert adapter.data_config(model).input_size == (4, 224, 224)
    assert zoo_adapters.identify(model) == (ModelSource("timm", name, {"in_chans": 4}), "")


def test_a_model_of_sizes_that_are_computed_has_no_memory_on_meta():
    with torch.device("meta"):
        model = zoo_adapters.create("torchvision/regnet_y_400mf")
    assert {t.device.type for t in model.state_dict().values()} == {"meta"}


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("name", ["ssdlite320_mobilenet_v3_large", "raft_small"])
def test_inputs_that_are_not_one_batch_of_images(name, mode):
    model = zoo_adapters.create(f"torchvision/{name}").train(mode)
    inputs = zoo_adapters.adapter_for(model).example_inputs(model)
    real = tree_map_only(
        torch.Tensor,
        lambda t: t if t.device.type == "cpu" else t.new_zeros((*t.shape,), device="cpu"),
        inputs,
    )
    with torch.no_grad():
        model(*real)
    assert zoo_adapters.adapter_for(nn.Conv2d(3, 3, 1)).example_inputs(model) is None


ZOO = """
import torch
from torch import nn
from zoo_adapters import DataConfig, TraceOptions

class Tiny(nn.Sequential):
    def __init__(self, width=32):
        super().__init__(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, width, 3))

class Zoo:
    def list_models(self): return ["tiny"]
    def create(self, name, **kwargs): return Tiny(**kwargs)
    def owns(self, model): return isinstance(model, Tiny)
    def candidates(self, model): return iter(())
    def data_config(self, model): return DataConfig((3, 16, 16))
    def trace_options(self, model): return TraceOptions()
    def example_inputs(self, model): return None
    def classifier(self, model): return ()
"""


def install(folder, entry_points):
    """A distribution as an installer leaves it."""
    (folder / "thirdzoo.py").write_text(ZOO)
    info = folder / "thirdzoo-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: thirdzoo\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[puppetize.zoos]\n{entry_points}\n")


def in_a_new_process(folder, code):
    program = f"import sys; sys.path.insert(0, {str(folder)!r})\n{textwrap.dedent(code)}"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_third_zoo_registers_itself(tmp_path):
    install(tmp_path, "third = thirdzoo:Zoo")
    code = f"""
    import torch, zoo_adapters
    from puppetize import Puppet, puppetize
    print(zoo_adapters.list_models("third/*"))
    puppet = puppetize(zoo_adapters.create("third/tiny", width=64)).eval()
    puppet.save_pretrained({str(tmp_path / "saved")!r})
    again = Puppet.from_pretrained({str(tmp_path / "saved")!r})
    images = torch.zeros(1, 3, 16, 16) + 1
    print(torch.equal(puppet(images), again(images)), puppet.report().model)
    """
    assert in_a_new_process(tmp_path, code) == "['third/tiny']\nTrue third/tiny"


@pytest.mark.parametrize(
    ("entry_point", "said"),
    [
        ("timm = thirdzoo:Zoo", "registers the zoo 'timm' a second time"),
        ("third = thirdzoo:Tiny", "gives a Tiny, which lacks methods"),
    ],
)
def test_registrations_that_are_refused(tmp_path, entry_point, said):
    install(tmp_path, entry_point)
    code = """
    import zoo_adapters
    try:
        zoo_adapters.zoos()
    except zoo_adapters.PuppetizeError as error:
        print(error)
    """
    assert said in in_a_new_process(tmp_path, code)
