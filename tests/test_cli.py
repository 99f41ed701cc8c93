from __future__ import annotations

import json
import sys

import onnxruntime
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from puppetize import Puppet, PuppetConfig, cli, puppetize
from puppetize.data import DATASETS

SMALL = PuppetConfig(width=16, height=32)


@pytest.fixture
def run(capsys, monkeypatch):
    def call(*args):
        monkeypatch.setattr(sys, "argv", ["puppetize", *map(str, args)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=10, in_chans=1)
    puppet = puppetize(model, SMALL).eval()
    puppet.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved", puppet


@pytest.mark.parametrize("command", ["demo", "report", "finetune", "eval", "bake", "zoo"])
def test_every_command_explains_itself(run, command):
    code, out, _ = run(command, "--help")
    assert code == 0
    assert f"Usage: puppetize {command}" in out
    assert len(out.splitlines()) > 5


def test_report_prints_what_the_library_reports(run):
    code, out, _ = run("report", "timm/test_resnet", "--num-classes", 10, "--sites")
    assert code == 0
    report = puppetize(timm.create_model("test_resnet", num_classes=10)).report()
    assert f"{report.stored_bytes:,}" in out
    assert all(site.name in out for site in report.sites)


def test_report_as_json(run):
    code, out, _ = run("report", "torchvision/squeezenet1_1", "--ratio", 1.5, "--json")
    assert code == 0
    values = json.loads(out)
    assert values["ratio"] == pytest.approx(1.5, rel=0.05)
    assert len(values["sites"]) == 26


@pytest.mark.filterwarnings("ignore::puppetize.PuppetizeWarning")
def test_report_of_the_paper(run):
    code, out, _ = run("report", "timm/test_resnet", "--paper")
    assert code == 0
    assert "one" not in out.splitlines()[0]
    assert "by the paper's count" in out


def test_zoo_lists_models(run):
    code, out, _ = run("zoo", "torchvision/resnet1*", "--list")
    assert code == 0
    assert out.split() == [f"torchvision/resnet{n}" for n in (101, 152, 18)]


def test_values_out_of_range_are_refused(run):
    code, _, err = run("report", "timm/test_resnet", "--num-classes", "-3")
    assert code == 2
    assert "--num-classes" in err


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (("report", "timm/resnet_18"), "timm/resnet18"),
        (("report", "resnet18"), "torchvision/resnet18"),
        (("report", "nozoo/resnet18"), "timm, torchvision"),
        (("report", "timm/test_resnet", "--ratio", "0"), "positive"),
        (("report", "timm/test_resnet", "--ratio", "1e9"), "the largest is"),
        (("report", "timm/test_resnet", "--exclude", "conv9"), "fits no Conv2d"),
        (("bake", "nowhere", "--output", "x.foo"), "say --format"),
        (("eval", "nowhere", "--data", "digits"), "no such file"),
        (("bake", "nowhere", "--output", "x.safetensors"), "no such file"),
        (("zoo", "nothing*", "--list"), "no model matches"),
        (("zoo",), "--list"),
        (
            ("finetune", "timm/test_resnet", "--output", "x", "--data", "folder"),
            "--data-dir",
        ),
        (
            (
                "finetune",
                "timm/test_resnet",
                "--output",
                "x",
                "--data",
                "folder",
                "--data-dir",
                "x",
            ),
            "no such folder",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run, tmp_path, monkeypatch, args, expected):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(*args)
    assert code == 2
    assert err.startswith("puppetize: ")
    assert expected in err
    assert len(err.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("args", [("report",), ("eval", "x", "--data", "nodata"), ("nocommand",)])
def test_bad_usage_is_exit_code_2(run, args):
    assert run(*args)[0] == 2


def test_dataset_names_agree():
    assert tuple(dataset.value for dataset in cli.Dataset) == DATASETS


def test_bake_gives_what_plain_timm_loads(run, saved, tmp_path):
    folder, puppet = saved
    code, out, _ = run("bake", folder, "--output", tmp_path / "plain.safetensors")
    assert code == 0
    assert f"{(tmp_path / 'plain.safetensors').stat().st_size:,} bytes" in out
    plain = timm.create_model("test_resnet", num_classes=10, in_chans=1).eval()
    plain.load_state_dict(load_file(tmp_path / "plain.safetensors"))
    images = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(plain(images), puppet(images))


def test_bake_gives_onnx_of_any_batch_size(run, saved, tmp_path):
    folder, puppet = saved
    puppet.data_config = type(puppet.data_config)((1, 32, 32), (0.5,), (0.5,))
    puppet.save_pretrained(folder)
    code, _, err = run("bake", folder, "--output", tmp_path / "plain.onnx")
    assert code == 0, err
    session = onnxruntime.InferenceSession(tmp_path / "plain.onnx")
    for batch in (1, 3):
        images = torch.randn(batch, 1, 32, 32)
        (logits,) = session.run(None, {"images": images.numpy()})
        with torch.no_grad():
            torch.testing.assert_close(
                torch.from_numpy(logits), puppet(images), rtol=1e-3, atol=1e-4
            )


def test_finetune_then_eval(run, tmp_path):
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=10, in_chans=1)
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    code, out, err = run(
        *("finetune", "timm/test_resnet", "--data", "digits", "--output", tmp_path / "out"),
        *("--weights", tmp_path / "weights.safetensors", "--ratio", 18, "--epochs", 2),
        *("--batch-size", 64, "--lr", 5e-3, "--channels-last"),
    )
    assert code == 0, err
    assert "original: top-1" in out
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"best", "last", "log.csv"}
    puppet = Puppet.from_pretrained(tmp_path / "out" / "best")
    assert puppet.report(macs=False).ratio == pytest.approx(18, rel=0.05)
    assert puppet.data_config.input_size == (1, 32, 32)
    code, again, _ = run("eval", tmp_path / "out" / "best", "--data", "digits")
    assert code == 0
    told = [line for line in out.splitlines() if "best" in line and "top-1" in line][-1]
    assert told.partition("top-1")[2] == again.strip().partition("top-1")[2]


def test_weights_of_another_model_are_refused(run, tmp_path):
    save_file({"x": torch.zeros(3)}, tmp_path / "other.safetensors")
    code, _, err = run(
        *("finetune", "timm/test_resnet", "--data", "digits", "--output", tmp_path / "out"),
        *("--weights", tmp_path / "other.safetensors"),
    )
    assert code == 2
    assert "other.safetensors" in err
    assert not (tmp_path / "out").exists()
