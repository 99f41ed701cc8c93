"""Files that were made to do harm: one documented exception, in bounded time and memory."""

import json
import random
import struct

import pytest
import timm
import torch
from networks import Plain
from torch import nn

import zoo_adapters
from puppetize import Puppet, PuppetConfig, PuppetizeError, PuppetizeWarning, puppetize
from puppetize.storage import container

SMALL = PuppetConfig(width=16, height=32)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("original")
    puppetize(timm.create_model("test_resnet", num_classes=10), SMALL).save_pretrained(folder)
    return folder / "model.safetensors"


@pytest.fixture
def change(original, tmp_path):
    """Writes the original's tensors and document once more, after a change to either."""

    def changed(edit):
        tensors, document = container.read(original)
        edit(tensors, document)
        container.write(tmp_path / "model.safetensors", tensors, document)
        return tmp_path

    return changed


def first_group(document):
    return document["plan"]["groups"][0]


HUGE = 10**7


@pytest.mark.parametrize(
    "edit",
    [
        lambda t, d: d["source"]["kwargs"].update(num_classes=10**9),
        lambda t, d: d["source"]["kwargs"].update(in_chans=10**8),
        lambda t, d: first_group(d).update(state=[HUGE, HUGE, 3, 3]),
        lambda t, d: first_group(d).update(state=[*first_group(d)["state"][:2], HUGE, HUGE]),
        lambda t, d: first_group(d).update(derivatives=[1] * HUGE),
        lambda t, d: first_group(d).update(derivatives=[10**12]),
        lambda t, d: first_group(d).update(sites=[], derivatives=[]),
        lambda t, d: first_group(d)["sites"][0].update(grid=[10**9, 1]),
        lambda t, d: first_group(d)["sites"][0].update(shape=[HUGE, HUGE, 3, 3]),
        lambda t, d: d["plan"]["groups"].extend([first_group(d)] * 1000),
        lambda t, d: d["data_config"].update(input_size=[3, -1, 5]),
        lambda t, d: d["data_config"].update(input_size="abc"),
        lambda t, d: d["data_config"].update(mean=None),
        lambda t, d: d["config"].update(seed="zero"),
        lambda t, d: d["config"].update(seed=1.5),
        lambda t, d: d["config"].update(step_size=None),
        lambda t, d: d["config"].update(width="wide"),
        lambda t, d: d["config"].update(tiling="yes"),
        lambda t, d: d.update(config=[]),
        lambda t, d: d.update(plan="plan"),
        lambda t, d: d.update(original_bytes=None),
        lambda t, d: d.update(format_version=[1]),
        lambda t, d: d["source"].update(kwargs=[1]),
        lambda t, d: d["source"].update(kwargs={"no_such_argument": 1}),
        lambda t, d: d["source"].update(zoo="zoo_of_mine"),
        lambda t, d: d["source"].update(name="../../etc/passwd"),
        lambda t, d: d["source"].update(name=["resnet18"]),
        lambda t, d: d["source"].update(zoo={}),
        lambda t, d: d.clear(),
    ],
)
def test_documents_that_ask_for_too_much_or_make_no_sense(change, edit):
    with pytest.raises(PuppetizeError):
        Puppet.from_pretrained(change(edit))


@pytest.mark.parametrize(
    "kwargs",
    [
        {"pretrained": True},
        {"pretrained": True, "pretrained_cfg": {"url": "http://localhost/x.pth"}},
        {"checkpoint_path": "elsewhere.pth"},
        {"pretrained_cfg_overlay": {"file": "elsewhere.pth"}},
    ],
)
def test_a_recipe_fetches_nothing(change, kwargs):
    folder = change(lambda t, d: d["source"]["kwargs"].update(kwargs))
    with pytest.raises(PuppetizeError, match="a recipe must not fetch numbers"):
        Puppet.from_pretrained(folder)


def test_a_recipe_fetches_nothing_from_torchvision(change):
    def edit(tensors, document):
        document["source"] = {
            "zoo": "torchvision",
            "name": "resnet18",
            "kwargs": {"weights": "DEFAULT"},
        }

    with pytest.raises(PuppetizeError, match="a recipe must not fetch numbers"):
        Puppet.from_pretrained(change(edit))


def test_any_flipped_bit_of_the_header_is_noticed_or_harmless(original, tmp_path):
    whole = original.read_bytes()
    (length,) = struct.unpack("<Q", whole[:8])
    (tmp_path / "config.json").write_bytes((original.parent / "config.json").read_bytes())
    expected = Puppet.from_pretrained(original)
    places = random.Random(0)
    noticed = 0
    for _ in range(150):
        damaged = bytearray(whole)
        damaged[places.randrange(8 + length)] ^= 1 << places.randrange(8)
        (tmp_path / "model.safetensors").write_bytes(damaged)
        try:
            loaded = Puppet.from_pretrained(tmp_path)
        except PuppetizeError:
            noticed += 1
            continue
        for name, tensor in expected.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], tensor), name
    assert noticed > 100


def test_any_flipped_bit_of_the_numbers_is_noticed(original, tmp_path):
    whole = original.read_bytes()
    (length,) = struct.unpack("<Q", whole[:8])
    places = random.Random(0)
    for _ in range(20):
        damaged = bytearray(whole)
        damaged[places.randrange(8 + length, len(whole))] ^= 1 << places.randrange(8)
        (tmp_path / "model.safetensors").write_bytes(damaged)
        with pytest.raises(PuppetizeError, match="checksum"):
            Puppet.from_pretrained(tmp_path)


def test_numbers_that_are_none_still_load(change):
    folder = change(lambda t, d: t["network.fc.bias"].fill_(float("nan")))
    assert Puppet.from_pretrained(folder).network.fc.bias.isnan().all()


@pytest.mark.parametrize("path", ["a\0b", ""])
def test_paths_that_are_none(tmp_path, path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PuppetizeError):
        Puppet.from_pretrained(path)


def test_a_model_file_that_is_a_folder(tmp_path):
    (tmp_path / "model.safetensors" / "model.safetensors").mkdir(parents=True)
    with pytest.raises(PuppetizeError):
        Puppet.from_pretrained(tmp_path)


def test_a_configuration_that_is_a_folder_or_no_text(original, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(original.read_bytes())
    (tmp_path / "config.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PuppetizeError, match=r"config\.json: cannot be read"):
        Puppet.from_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").mkdir()
    with pytest.raises(PuppetizeError, match=r"config\.json: cannot be read"):
        Puppet.from_pretrained(tmp_path)


def test_a_given_model_that_is_a_puppet_or_none(tmp_path):
    puppet = puppetize(Plain(), SMALL)
    puppet.save_pretrained(tmp_path)
    for model in (nn.Linear(2, 2), puppet, nn.Sequential(nn.Conv2d(3, 3, 3))):
        with pytest.raises(PuppetizeError, match="give the model that was puppetized"):
            Puppet.from_pretrained(tmp_path, model=model)


def test_recorded_arguments_rebuild_the_model(tmp_path):
    puppet = puppetize(
        zoo_adapters.create("timm/resnet18", num_classes=10, stem_type="deep", stem_width=16),
        SMALL,
    ).eval()
    puppet.save_pretrained(tmp_path)
    document = json.loads((tmp_path / "config.json").read_text())
    assert document["source"] == {
        "zoo": "timm",
        "name": "resnet18",
        "kwargs": {"num_classes": 10, "stem_type": "deep", "stem_width": 16},
    }
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(Puppet.from_pretrained(tmp_path)(images), puppet(images))


def test_arguments_that_json_lacks_need_the_model(tmp_path):
    model = zoo_adapters.create("timm/test_resnet", num_classes=10, act_layer=nn.SiLU)
    puppet = puppetize(model, SMALL, ratio=5).eval()
    assert puppet.report(macs=False).stored_bytes < puppet.original_bytes
    with pytest.warns(PuppetizeWarning, match="SiLU"):
        puppet.save_pretrained(tmp_path)
    with pytest.raises(PuppetizeError, match=r"model=\.\.\."):
        Puppet.from_pretrained(tmp_path)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        loaded = Puppet.from_pretrained(tmp_path, model=model)
        assert torch.equal(loaded(images), puppet(images))


def test_recipes_do_not_repeat_where_the_numbers_came_from(monkeypatch):
    build = timm.create_model
    asked = []

    def offline(name, pretrained=False, **kwargs):
        asked.append(pretrained)
        return build(name, **kwargs)

    monkeypatch.setattr(timm, "create_model", offline)
    model = zoo_adapters.create("timm/test_resnet", num_classes=10, pretrained=True)
    source, _ = zoo_adapters.identify(model)
    assert asked == [True, False]
    assert source.kwargs == {"num_classes": 10}
