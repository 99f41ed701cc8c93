from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from sweep_zoo import gone, install

from puppetize import PuppetizeError
from puppetize.sweep import Limits, RayEngine, Settings

# A cluster on this machine: a head without cores, and two workers with one core each. When the
# first row is there and a model is being measured, that model's worker is killed.
PROGRAM = """
import os, sys, time
from pathlib import Path
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
sizes = {"num_cpus": 1, "memory": 2 * 2**30, "object_store_memory": 80 * 2**20}
workers = [cluster.add_node(**sizes) for _ in range(2)]

from puppetize import PuppetizeError
from puppetize.sweep import Limits, RayEngine, Settings, sweep

_, output, *names = sys.argv

class Killer:
    killed = False

    def start(self, done, total):
        pass

    def advance(self, row):
        if self.killed:
            return
        self.killed = True
        pids = Path(os.environ["SWEEP_PIDS"])
        while not pids.exists():
            time.sleep(0.01)
        raylet = int(pids.read_text().split()[2])
        by_pid = {worker.all_processes["raylet"][0].process.pid: worker for worker in workers}
        cluster.remove_node(by_pid[raylet], allow_graceful=False)
        print("killed", flush=True)

engine = RayEngine(Limits(memory=1), cluster.address)
sweep(names, Path(output), Settings(), engine, progress=Killer())
try:
    next(RayEngine(Limits(memory=3), cluster.address).rows(names, Settings()))
except PuppetizeError as error:
    print(error)
other = Settings(versions={**Settings().versions, "timm": "0.1"})
print(next(engine.rows(names[:1], other)).reason)
cluster.shutdown()
"""


@pytest.mark.timeout(600)  # seven processes import torch
def test_a_worker_dies_and_no_row_is_lost_or_twice(tmp_path):
    names = ["hangsonce", "crashes", *(f"good{i}" for i in range(4))]
    output, pids = tmp_path / "out", tmp_path / "pids"
    environment = {
        **os.environ,
        "PYTHONPATH": str(install(tmp_path / "path")),
        "SWEEP_PIDS": str(pids),
        "PYTHONWARNINGS": "ignore",
        "RAY_USAGE_STATS_ENABLED": "0",
        # A dead worker is noticed after a second instead of half a minute.
        "RAY_health_check_initial_delay_ms": "500",
        "RAY_health_check_period_ms": "500",
        "RAY_health_check_failure_threshold": "3",
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(output), *(f"sweep/{name}" for name in names)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "killed" in done.stdout
    assert all(gone(pid) for pid in pids.read_text().split()[:2])
    found = [json.loads(line) for line in (output / "rows.jsonl").read_text().splitlines()]
    assert sorted(row["model"] for row in found) == sorted(names)
    said = {row["model"]: (row["status"], row["reason"]) for row in found}
    assert said.pop("crashes") == ("failed", "its process was ended by SIGSEGV")
    assert set(said.values()) == {("passed", "")}
    assert "no machine of the Ray cluster has what a model asks for" in done.stdout
    assert "the machine that it came to has timm" in done.stdout


def test_what_a_model_asks_for_is_checked():
    with pytest.raises(PuppetizeError, match=r"gpus=-1: expected zero or more"):
        RayEngine(Limits(), gpus=-1)


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(PuppetizeError, match=r"pip install 'puppetize\[ray\]'"):
        next(RayEngine(Limits()).rows(["timm/test_resnet"], Settings()))
