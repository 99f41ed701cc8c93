from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import timm
import torch
from sweep_zoo import gone, install

from puppetize import PuppetizeError, cli
from puppetize.analysis import analyse
from puppetize.sweep import Limits, LocalEngine, Row, Settings, Shard, sweep

GOOD = [f"sweep/good{i}" for i in range(8)]


@pytest.fixture(scope="module", autouse=True)
def _zoo(tmp_path_factory):
    """The fork server, which starts with the first sweep, knows a third zoo."""
    folder = tmp_path_factory.mktemp("zoo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(install(folder / "path")))
        patch.setenv("SWEEP_PIDS", str(folder / "pids"))
        yield


@pytest.fixture
def pids():
    """Where the model that hangs writes its process and the one that it starts."""
    path = Path(os.environ["SWEEP_PIDS"])
    path.unlink(missing_ok=True)
    return path


class Told:
    def __init__(self, and_then=lambda row: None):
        self.done, self.rows, self.and_then = [], [], and_then

    def start(self, done, total):
        self.done = list(done)

    def advance(self, row):
        self.rows.append(row.full_name)
        self.and_then(row)


class Saying:
    """An engine that measures nothing."""

    def __init__(self, status="passed"):
        self.status = status

    def rows(self, names, settings):
        for name in names:
            zoo, _, model = name.partition("/")
            yield Row(model, zoo=zoo, status=self.status, key=settings.key)


def local(**limits):
    return LocalEngine(Limits(**{"timeout": 120, "memory": 1, "jobs": 2, **limits}))


def journal(folder):
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


def test_whatever_a_model_does_is_a_row(tmp_path):
    names = ["crashes", "depthwise", "exits", "fails", "good0", "hungry", "linear", "murdered"]
    rows = sweep([f"sweep/{name}" for name in names], tmp_path, Settings(), local())
    assert [row.model for row in rows] == names
    found = {row.model: (row.status, row.reason) for row in rows}
    assert found["good0"] == ("passed", "")
    assert found["crashes"] == ("failed", "its process was ended by SIGSEGV")
    assert found["exits"] == (
        "failed",
        "its process ended with exit code 3 and no result: so long",
    )
    assert found["fails"] == ("failed", "KeyError: 'no such\\n thing'")
    assert found["murdered"][1].startswith("its process was ended by SIGKILL")
    assert found["linear"][0] == found["depthwise"][0] == "skipped"
    assert "has no Conv2d layer" in found["linear"][1]
    assert "depthwise" in found["depthwise"][1]
    assert found["hungry"][0] == "failed"
    assert found["hungry"][1].startswith("memory limit of 1 GiB: out of memory: ")
    assert all(row.seconds is not None and "\n" not in row.reason for row in rows)


def test_a_model_that_hangs_is_ended_with_what_it_started(tmp_path, pids):
    (row,) = sweep(["sweep/hangs"], tmp_path, Settings(), local(timeout=1))
    assert (row.status, row.reason) == ("failed", "time limit of 1 seconds")
    assert all(gone(pid) for pid in pids.read_text().split()[:2])


def test_rows_say_what_the_library_says(tmp_path):
    names = ["timm/test_resnet", "torchvision/squeezenet1_1"]
    settings = Settings(num_classes=10)
    rows = sweep(names, tmp_path, settings, local())
    with torch.device("meta"):
        model = timm.create_model("test_resnet", num_classes=10)
    said = analyse(model)
    row = rows[0]
    assert (row.original_bytes, row.stored_bytes) == (said.original_bytes, said.stored_bytes)
    assert [row.family for row in rows] == ["resnet", "squeezenet"]
    assert row.ratio == said.original_bytes / said.stored_bytes
    assert row.max_ratio == said.largest_ratio
    assert row.sites + row.kept == len(said.plan.order)
    assert row.kept == sum(row.kept_reasons.values())
    assert row.params == sum(p.numel() for p in model.parameters())
    assert (sum(row.original_parts.values()), sum(row.stored_parts.values())) == (
        row.original_bytes,
        row.stored_bytes,
    )
    assert [json.loads(row.to_json()) for row in rows] == sorted(
        journal(tmp_path), key=lambda values: values["zoo"]
    )
    for row in rows:
        with (tmp_path / f"{row.zoo}.csv").open() as file:
            (cells,) = csv.DictReader(file)
        assert list(cells)[:4] == ["model", "img_size", "param_count", "gmacs"]
        assert int(cells["stored_bytes"]) == row.stored_bytes
        assert float(cells["ratio"]) == pytest.approx(row.ratio, rel=1e-5)
        assert int(cells["stored_bytes_puppeteer"]) == row.stored_parts["puppeteer"]
        assert cells["forward_ms"] == ""


def test_with_numbers(tmp_path):
    names = ["sweep/counting", "sweep/good1"]
    counting, good = sweep(names, tmp_path, Settings(run=True), local())
    assert counting.status == "failed"
    assert "baked logits differ from generated ones" in counting.reason
    assert good.status == "passed"
    timed = (good.generation_ms, good.forward_ms, good.forward_ms_puppet, good.forward_ms_baked)
    assert all(milliseconds > 0 for milliseconds in timed)
    assert good.batch == 1


def test_a_second_start_measures_what_is_missing(tmp_path):
    names = ["timm/a", "timm/b", "timm/c"]
    settings = Settings()
    sweep(names[:2], tmp_path, settings, Saying())
    told = Told()
    rows = sweep(names, tmp_path, settings, Saying(), progress=told)
    assert [row.full_name for row in told.done] == names[:2]
    assert told.rows == names[2:]
    assert [row.full_name for row in rows] == names
    assert len(journal(tmp_path)) == 3


def test_other_settings_and_versions_are_other_rows(tmp_path):
    kinds = [Settings(), Settings(ratio=2.0), Settings(versions={"torch": "0"})]
    for settings in kinds:
        told = Told()
        sweep(["timm/a"], tmp_path, settings, Saying(), progress=told)
        assert told.rows == ["timm/a"]
    assert len({values["key"] for values in journal(tmp_path)}) == len(kinds)
    assert len((tmp_path / "timm.csv").read_text().splitlines()) == 2


def test_failed_models_are_measured_again_on_request(tmp_path):
    names = ["timm/a", "timm/b"]
    sweep(names[:1], tmp_path, Settings(), Saying("failed"))
    sweep(names[1:], tmp_path, Settings(), Saying())
    told = Told()
    assert sweep(names, tmp_path, Settings(), Saying(), progress=told)[0].status == "failed"
    assert told.rows == []
    rows = sweep(names, tmp_path, Settings(), Saying(), retry_failed=True, progress=told)
    assert told.rows == names[:1]
    assert [row.status for row in rows] == ["passed", "passed"]


@pytest.mark.parametrize("torn", [b'{"model":"b","ke', b"\0\0\0", b"{"])
def test_a_torn_last_line_is_measured_again(tmp_path, torn):
    names = ["timm/a", "timm/b"]
    sweep(names[:1], tmp_path, Settings(), Saying())
    with (tmp_path / "rows.jsonl").open("ab") as file:
        file.write(torn)
    told = Told()
    sweep(names, tmp_path, Settings(), Saying(), progress=told)
    assert told.rows == ["timm/b"]
    assert [values["model"] for values in journal(tmp_path)] == ["a", "b"]


def test_a_foreign_line_is_named(tmp_path):
    (tmp_path / "rows.jsonl").write_text("model,ratio\n")
    with pytest.raises(PuppetizeError, match=r"rows.jsonl, line 1: not a row of a sweep"):
        sweep(["timm/a"], tmp_path, Settings(), Saying())


def test_two_sweeps_do_not_write_one_file(tmp_path):
    def second(row):
        with pytest.raises(PuppetizeError, match="another sweep is writing it"):
            sweep(["timm/b"], tmp_path, Settings(), Saying())

    sweep(["timm/a"], tmp_path, Settings(), Saying(), progress=Told(second))
    assert len(journal(tmp_path)) == 1


def test_shards_share_a_directory_and_the_models(tmp_path):
    names = [f"timm/{letter}" for letter in "abcdefg"]
    parts = [
        [row.full_name for row in sweep(names, tmp_path, Settings(), Saying(), shard=Shard(i, 3))]
        for i in (1, 2, 3)
    ]
    assert sorted(name for part in parts for name in part) == names
    assert {len(part) for part in parts} == {2, 3}
    with (tmp_path / "timm.csv").open() as file:
        assert [cells["model"] for cells in csv.DictReader(file)] == list("abcdefg")


def test_an_interrupt_ends_all_processes_and_keeps_all_rows(tmp_path, pids):
    def interrupt(row):
        while not pids.exists():
            time.sleep(0.01)
        signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    names = ["sweep/hangs", *GOOD]
    with pytest.raises(SystemExit):
        sweep(names, tmp_path, Settings(), local(), progress=Told(interrupt))
    assert signal.getsignal(signal.SIGTERM) is before
    assert all(gone(pid) for pid in pids.read_text().split()[:2])
    assert [values["model"] for values in journal(tmp_path)] == ["good0"]
    assert len((tmp_path / "sweep.csv").read_text().splitlines()) == 2


def test_killed_in_the_middle_and_started_again(tmp_path, pids):
    rows = tmp_path / "rows.jsonl"
    program = "from puppetize.cli import main; main()"
    options = ["--output", str(tmp_path), "--jobs", "2", "--memory", "1"]
    with (tmp_path / "log").open("w") as log:
        first = subprocess.Popen(
            [sys.executable, "-c", program, "zoo", "sweep/*s", *options],
            stdout=log,
            stderr=log,
        )
        try:
            while not pids.exists() or not rows.exists() or b"\n" not in rows.read_bytes():
                assert first.poll() is None, (tmp_path / "log").read_text()
                time.sleep(0.01)
        finally:
            first.send_signal(signal.SIGKILL)
            first.wait()
    assert all(gone(pid) for pid in pids.read_text().split()[:2])
    names = [f"sweep/{name}" for name in ("crashes", "exits", "fails", "hangs")]
    sweep(names, tmp_path, Settings(), local(timeout=1))
    assert sorted(values["model"] for values in journal(tmp_path)) == [
        name.partition("/")[2] for name in names
    ]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"num_classes": 0}, "num_classes=0: expected at least one"),
        ({"ratio": -2.0}, r"ratio=-2.0: expected a positive number"),
        ({"device": "abacus", "run": True}, "device 'abacus'"),
    ],
)
def test_settings_that_no_model_could_have(values, expected):
    with pytest.raises(PuppetizeError, match=expected):
        Settings(**values)


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["puppetize", "zoo", *map(str, args)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_command(run, tmp_path):
    code, out, err = run("timm/test_byobnet", "--jobs", 1, "--timeout", 120)
    assert (code, err) == (0, "")
    assert "results/zoo: 1 passed, 0 skipped, 0 failed" in out
    again = run("timm/test_byobnet", "--jobs", 1)
    assert "1 of 1 models were measured before" in again[1]
    assert len(journal(tmp_path / "results" / "zoo")) == 1


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ((), "expected a pattern"),
        (("nothing*",), "no model matches"),
        (("timm/test_*", "--shard", "0/4"), "shard '0/4': expected i/n"),
        (("timm/test_*", "--shard", "5/4"), "shard '5/4': expected i/n"),
        (("timm/test_*", "--shard", "half"), "shard 'half': expected i/n"),
        (("timm/test_*", "--timeout", "0"), "timeout=0.0: expected a positive number of seconds"),
        (("timm/test_*", "--memory", "nan"), "memory=nan: expected a positive number of GiB"),
        (("timm/test_*", "--jobs", "-1"), "jobs=-1: expected at least one"),
        (("timm/test_*", "--ratio", "-2"), "ratio=-2.0: expected a positive number"),
        (("timm/test_*", "--ratio", "2", "--paper"), "tiling=False"),
        (("timm/test_*", "--device", "abacus", "--run"), "device 'abacus'"),
        (("timm/test_*", "--device", "cuda"), "--run"),
        (("timm/test_*", "--address", "x"), "--engine ray"),
        (("timm/test_*", "--gpus", "1"), "--engine ray"),
        (("timm/test_*", "--engine", "ray", "--gpus", "-1"), "gpus=-1.0: expected zero or more"),
        (("timm/test_*", "--engine", "ray", "--jobs", "2"), "--jobs: Ray decides"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run, tmp_path, args, expected):
    code, _, err = run(*args)
    assert code == 2
    assert err.startswith("puppetize: ")
    assert expected in err
    assert len(err.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
