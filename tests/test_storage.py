import copy
import json
import os
import pickle
import struct

import pytest
import timm
import torch
import torchvision
from networks import Plain
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from puppetize import Puppet, PuppetConfig, PuppetizeError, PuppetizeWarning, puppetize
from puppetize.storage import container, file_size

SMALL = PuppetConfig(width=16, height=32)


@pytest.fixture(scope="module")
def puppet():
    torch.manual_seed(0)
    return puppetize(timm.create_model("test_resnet", num_classes=10), SMALL).eval()


@pytest.fixture
def saved(puppet, tmp_path):
    puppet.save_pretrained(tmp_path / "out")
    return tmp_path / "out"


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {"a": torch.zeros(3)},
        {'ü"\\\n': torch.zeros(2, 3), "b": torch.zeros((), dtype=torch.int64)},
        {f"t{n}": torch.zeros(n, 7, dtype=torch.float16) for n in range(40)},
        {
            str(dtype): torch.zeros(5, dtype=dtype)
            for dtype in (torch.float64, torch.bfloat16, torch.int8, torch.bool, torch.uint8)
        },
        {"empty": torch.zeros(0, 4), "after": torch.zeros(1)},
    ],
)
@pytest.mark.parametrize("document", [None, {}, {"k": ["ü", 1, {"x": None}]}])
def test_file_size_is_the_size_of_the_file(tensors, document, tmp_path):
    container.write(tmp_path / "f.safetensors", tensors, document)
    assert file_size(tensors, document) == os.path.getsize(tmp_path / "f.safetensors")
    if document is not None:
        read, again = container.read(tmp_path / "f.safetensors")
        assert again == document
        assert read.keys() == tensors.keys()


def test_the_file_alone_is_enough(puppet, saved, tmp_path):
    alone = tmp_path / "alone.safetensors"
    os.replace(saved / "model.safetensors", alone)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(Puppet.from_pretrained(alone)(images), puppet(images))


def test_saving_twice_gives_the_same_bytes(puppet, saved, tmp_path):
    Puppet.from_pretrained(saved).save_pretrained(tmp_path / "again")
    for name in ("model.safetensors", "config.json", "README.md"):
        assert (tmp_path / "again" / name).read_bytes() == (saved / name).read_bytes()


def test_nothing_is_stored_twice_nor_pickled(puppet, saved):
    assert {path.name for path in saved.iterdir()} == {
        "model.safetensors",
        "config.json",
        "README.md",
    }
    with safe_open(saved / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(puppet.state_dict())
        document = json.loads(file.metadata()["puppetize"])
    assert len(document.pop("sha256")) == 64
    assert document == json.loads((saved / "config.json").read_text())
    generated = {f"network.{site.name}.weight" for site in puppet.plan.sites}
    assert not generated & set(puppet.state_dict())


def test_the_global_generator_is_left_alone_by_loading(saved):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    Puppet.from_pretrained(saved)
    assert torch.equal(torch.rand(2), expected)


def test_a_failed_write_leaves_the_old_file(puppet, saved, monkeypatch):
    before = {path.name: path.read_bytes() for path in saved.iterdir()}

    def full(tensors, target, metadata=None):
        with open(target, "wb") as file:
            file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(container, "save_file", full)
    with pytest.raises(PuppetizeError, match=r"model\.safetensors: cannot be written: .*No space"):
        puppet.save_pretrained(saved)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


def test_a_directory_that_is_a_file(puppet, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PuppetizeError, match="is a file"):
        puppet.save_pretrained(tmp_path / "file")


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 9, 100, 0.5, 0.99, -1])
def test_truncated_files(saved, keep):
    path = saved / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: keep if isinstance(keep, int) else int(keep * len(whole))])
    with pytest.raises(PuppetizeError, match=r"model\.safetensors: damaged"):
        Puppet.from_pretrained(saved)


def test_flipped_bits_in_the_header_never_escape(saved):
    path = saved / "model.safetensors"
    whole = path.read_bytes()
    (saved / "config.json").unlink()
    (length,) = struct.unpack("<Q", whole[:8])
    for place in range(0, 8 + length, max(1, length // 60)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        try:
            Puppet.from_pretrained(saved)
        except PuppetizeError:
            continue


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (pickle.dumps({"a": 1}), "damaged or not a safetensors file"),
        (b"\xff" * 64, "damaged or not a safetensors file"),
        (struct.pack("<Q", 2**40) + b"{}", "damaged or not a safetensors file"),
        (b"PK\x03\x04" + bytes(100), "damaged or not a safetensors file"),
    ],
)
def test_foreign_files(tmp_path, content, said):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(PuppetizeError, match=said):
        Puppet.from_pretrained(tmp_path)


def test_a_foreign_safetensors_file(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(PuppetizeError, match="not one that puppetize wrote"):
        Puppet.from_pretrained(tmp_path)


def test_a_missing_file(tmp_path):
    with pytest.raises(PuppetizeError, match="no such file"):
        Puppet.from_pretrained(tmp_path)
    with pytest.raises(PuppetizeError, match="no such file"):
        Puppet.from_pretrained(tmp_path / "nowhere")


def rewrite(folder, change):
    path = folder / "model.safetensors"
    tensors, document = container.read(path)
    change(tensors, document)
    container.write(path, tensors, document)
    (folder / "config.json").unlink()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t, d: t.pop("network.fc.bias"), r"lacks 1 tensors .*network\.fc\.bias"),
        (lambda t, d: t.update(extra=torch.zeros(1)), "has 1 tensors .*extra"),
        (
            lambda t, d: t.update({"network.fc.bias": torch.zeros(7)}),
            r"'network\.fc\.bias' has shape \(7,\) in the file and \(10,\)",
        ),
        (
            lambda t, d: t.update({"network.fc.bias": torch.zeros(10, dtype=torch.int32)}),
            r"'network\.fc\.bias' has dtype torch\.int32",
        ),
        (lambda t, d: d.update(format_version=2), "format version 2.*upgrade"),
        (lambda t, d: d.pop("plan"), "malformed.*plan"),
        (lambda t, d: d["config"].update(flavour=1), "no field flavour"),
        (lambda t, d: d["config"].update(width=-4), r"PuppetConfig\.width=-4"),
        (lambda t, d: d["plan"]["groups"][0].update(state=[1, 1, 1, 1]), "malformed"),
        (lambda t, d: d.update(source=5), "malformed"),
        (lambda t, d: d["source"].update(name="resnet_of_mine"), "unknown model"),
        (lambda t, d: d["source"].update(name="test_vit"), "expects a Conv2d at"),
        (lambda t, d: d["data_config"].pop("mean"), "malformed.*mean"),
    ],
)
def test_files_that_do_not_fit(saved, change, said):
    rewrite(saved, change)
    with pytest.raises(PuppetizeError, match=rf"model\.safetensors: .*{said}"):
        Puppet.from_pretrained(saved)


def test_an_edited_copy_of_the_configuration(saved):
    config = json.loads((saved / "config.json").read_text())
    config["config"]["seed"] = 5
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(PuppetizeError, match=r"config\.json: differs"):
        Puppet.from_pretrained(saved)
    (saved / "config.json").write_text("{")
    with pytest.raises(PuppetizeError, match=r"config\.json: cannot be read"):
        Puppet.from_pretrained(saved)


def test_a_network_of_no_zoo_is_given_again(tmp_path):
    network = Plain()
    puppet = puppetize(network, SMALL).eval()
    puppet.save_pretrained(tmp_path)
    with pytest.raises(PuppetizeError, match=r"it comes from no known zoo.*model=\.\.\."):
        Puppet.from_pretrained(tmp_path)
    other = Plain()
    before = copy.deepcopy(other.state_dict())
    loaded = Puppet.from_pretrained(tmp_path, model=other)
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(loaded(images), puppet(images))
    assert all(torch.equal(before[key], value) for key, value in other.state_dict().items())


def test_a_changed_zoo_model_says_what_changed(tmp_path):
    model = timm.create_model("test_resnet", num_classes=10)
    model.layer1[0].conv1 = nn.Conv2d(
        model.layer1[0].conv1.in_channels, model.layer1[0].conv1.out_channels, 5, padding=2
    )
    with pytest.warns(
        PuppetizeWarning, match=r"cannot be built again by name .*'layer1\.0\.conv1'"
    ):
        puppetize(model, SMALL).save_pretrained(tmp_path)
    with pytest.raises(PuppetizeError, match=r"timm/test_resnet has .* at 'layer1\.0\.conv1'"):
        Puppet.from_pretrained(tmp_path)
    assert Puppet.from_pretrained(tmp_path, model=model).plan.order[0] == "conv1.0"


def add_hook(network):
    network.layer1.register_forward_hook(lambda module, args, output: 2 * output)


def add_pre_hook(network):
    network.layer1.register_forward_pre_hook(lambda module, args: (2 * args[0],))


def replace_forward(network):
    before = network.layer1.forward
    network.layer1.forward = lambda x: 2 * before(x)


@pytest.mark.parametrize("change", [add_hook, add_pre_hook, replace_forward])
def test_a_network_that_computes_something_else_is_not_built_by_name(tmp_path, change):
    puppet = puppetize(timm.create_model("test_resnet", num_classes=10), SMALL)
    change(puppet.network)
    with pytest.warns(PuppetizeWarning, match="'layer1'"):
        puppet.save_pretrained(tmp_path)
    with pytest.raises(PuppetizeError, match="model="):
        Puppet.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.body.__setitem__(0, nn.Conv2d(32, 32, 3, padding=1, dilation=1, stride=2)),
        lambda m: setattr(m, "norm", nn.InstanceNorm2d(32, affine=True, track_running_stats=True)),
        lambda m: setattr(m.norm, "eps", 1e-3),
    ],
)
def test_a_given_model_with_other_layers_or_settings_is_told_of(tmp_path, change):
    puppetize(Plain(), SMALL).save_pretrained(tmp_path)
    other = Plain()
    change(other)
    with pytest.warns(PuppetizeWarning, match="other layers or settings"):
        Puppet.from_pretrained(tmp_path, model=other)


def test_state_dicts_that_modules_convert_on_loading(tmp_path):
    torch.manual_seed(0)
    puppet = puppetize(torchvision.models.mnasnet0_5(num_classes=10), SMALL).eval()
    puppet.save_pretrained(tmp_path)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(Puppet.from_pretrained(tmp_path)(images), puppet(images))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions_come_back(tmp_path, dtype):
    puppet = puppetize(timm.create_model("test_resnet", num_classes=10), SMALL).eval().to(dtype)
    puppet.save_pretrained(tmp_path)
    assert puppet.report(macs=False).stored_bytes == os.path.getsize(tmp_path / "model.safetensors")
    loaded = Puppet.from_pretrained(tmp_path)
    assert {p.dtype for p in loaded.parameters()} == {dtype}
    images = torch.randn(2, 3, 64, 64, dtype=dtype)
    with torch.no_grad():
        assert torch.equal(loaded(images), puppet(images))
