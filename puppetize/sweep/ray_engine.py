"""The sweep's engine on several machines: Ray Core gives each model to a machine that has room."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from puppetize.errors import PuppetizeError
from puppetize.sweep.local import LocalEngine
from puppetize.sweep.measure import empty_row
from puppetize.sweep.row import Row, one_line
from puppetize.sweep.settings import Limits, Settings, installed_versions

_GIBIBYTE = 2**30


@dataclass(frozen=True)
class RayEngine:
    """Measures models as tasks of a Ray cluster.

    Each task asks Ray for one core, its memory and its part of a GPU, and has the model measured in
    a fresh process of that machine by :class:`LocalEngine`, so limits and reasons are the same as
    there. When a machine or a worker dies, Ray gives its tasks to others. Rows come to this process
    alone, one for each model.

    Every machine needs puppetize, torch, timm and torchvision in the same versions as here; a model
    that comes to another one fails with that reason.

    Attributes:
        limits: of each model; ``jobs`` is Ray's to decide.
        address: of the cluster, as ``ray.init`` takes it; None for the one that runs on this
            machine, or a new one of this machine alone.
        gpus: that each model asks for; a half puts two models on one.
        retries: how often a model is given to another worker when its worker or machine dies.
    """

    limits: Limits
    address: str | None = None
    gpus: float = 0.0
    retries: int = 3

    def __post_init__(self) -> None:
        if not self.gpus >= 0:
            raise PuppetizeError(f"gpus={self.gpus!r}: expected zero or more")

    def rows(self, names: Sequence[str], settings: Settings) -> Iterator[Row]:
        """Measure ``names``; rows come in the order in which they are done.

        Closing the iterator ends all tasks.

        Raises:
            PuppetizeError: Ray is not installed, there is no such cluster, or no machine of it has
                what a model asks for.
        """
        if not names:
            return
        ray = _import_ray()
        mine = not ray.is_initialized()
        if mine:
            _connect(ray, self.address)
        try:
            self._check(ray)
            yield from self._measure(ray, names, settings)
        finally:
            if mine:
                ray.shutdown()

    def _measure(self, ray: Any, names: Sequence[str], settings: Settings) -> Iterator[Row]:
        task = ray.remote(_measure_here).options(
            name="puppetize zoo",
            num_cpus=1,
            num_gpus=self.gpus,
            memory=int(self.limits.memory * _GIBIBYTE),
            max_retries=self.retries,
        )
        limits = replace(self.limits, jobs=1)
        running = {task.remote(name, settings, limits): name for name in names}
        try:
            while running:
                (done, *_), _ = ray.wait(list(running), num_returns=1)
                name = running.pop(done)
                try:
                    row = ray.get(done)
                except ray.exceptions.RayError as error:
                    reason = one_line(f"Ray, with {self.retries} retries: {_last_line(error)}")
                    row = replace(empty_row(name, settings), reason=reason)
                yield row
        finally:
            for task in running:
                ray.cancel(task, force=True)

    def _check(self, ray: Any) -> None:
        """Refuse what no machine has: Ray would wait for one for ever."""
        wanted = {"CPU": 1.0, "GPU": self.gpus, "memory": self.limits.memory * _GIBIBYTE}
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if any(all(node.get(k, 0) >= v for k, v in wanted.items()) for node in nodes):
            return
        have = "; ".join(
            f"{node.get('CPU', 0):g} cores, {node.get('GPU', 0):g} GPUs, "
            f"{node.get('memory', 0) / _GIBIBYTE:.1f} GiB"
            for node in nodes
        )
        raise PuppetizeError(
            f"no machine of the Ray cluster has what a model asks for (1 core, {self.gpus:g} GPUs, "
            f"{self.limits.memory:g} GiB): {have or 'none'}. Ask for less with --memory or --gpus, "
            "or add a machine"
        )


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise PuppetizeError(
            f"the engine 'ray' needs Ray ({error}): pip install 'puppetize[ray]', on all machines"
        ) from error
    return ray


def _connect(ray: Any, address: str | None) -> None:
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = "a Ray cluster" if address is None else f"the Ray cluster {address!r}"
        raise PuppetizeError(
            f"{where} cannot be reached ({one_line(str(error))}); start one with ray start --head, "
            "and pass its address"
        ) from error


def _last_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[-1]}"


# What follows runs on the cluster's machines.


def _measure_here(name: str, settings: Settings, limits: Limits) -> Row:
    here = installed_versions()
    if here != settings.versions:
        differing = ", ".join(
            f"{package} {here[package]} instead of {wanted}"
            for package, wanted in settings.versions.items()
            if here[package] != wanted
        )
        reason = f"the machine that it came to has {differing}; install the same everywhere"
        return replace(empty_row(name, settings), reason=reason)
    (row,) = LocalEngine(limits, threads=1).rows([name], settings)
    return row
