"""What puppetizing a model would do, before anything is built: walk, plan and bytes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from torch import nn

import zoo_adapters
from puppetize.config import PuppetConfig
from puppetize.dial import Dial
from puppetize.errors import PuppetizeError
from puppetize.keep import Patterns, reasons_to_keep
from puppetize.module import PuppetModule
from puppetize.plan import Plan
from puppetize.planner import Sizing, make_plan
from puppetize.storage.estimate import Estimate
from puppetize.walk import Walk, walk
from zoo_adapters import DataConfig


@dataclass(frozen=True)
class Analysis:
    """The plan for a model and the bytes it leads to.

    Attributes:
        walk: every convolution in execution order.
        plan: what is generated and what is kept; it may keep everything.
        data_config: the images that the model expects.
        estimate: gives the bytes of a plan's file.
        dial: finds plans by ratio; None for a config without tiling.
    """

    walk: Walk
    plan: Plan
    data_config: DataConfig
    estimate: Estimate
    dial: Dial | None

    @property
    def original_bytes(self) -> int:
        """Of the original's state dict as a safetensors file."""
        return self.estimate.original_bytes

    @cached_property
    def stored_bytes(self) -> int:
        """Of the file that ``save_pretrained`` would write."""
        return self.estimate(self.plan)

    @property
    def original_parts(self) -> dict[str, int]:
        """Bytes of the original by part."""
        return self.estimate.original_parts(self.plan)

    @property
    def stored_parts(self) -> dict[str, int]:
        """Bytes of the file by part."""
        return self.estimate.stored_parts(self.plan)

    @cached_property
    def largest_ratio(self) -> float:
        """The largest ratio that the dial reaches."""
        if self.dial is None:
            return self.original_bytes / self.stored_bytes
        return self.original_bytes / self.estimate(self.dial.smallest())


def analyse(
    model: nn.Module,
    config: PuppetConfig | None = None,
    *,
    ratio: float | None = None,
    example_inputs: Any = None,
    include: Patterns = None,
    exclude: Patterns = None,
) -> Analysis:
    """Walk ``model`` and plan; arguments and errors as of :func:`puppetize.puppetize`.

    A model of which every convolution is kept is no error here: its plan has no groups.
    """
    config = config or PuppetConfig()
    check_ratio(ratio, config)
    _check_model(model)
    adapter = zoo_adapters.adapter_for(model)
    keep = reasons_to_keep(model, adapter.classifier(model), include, exclude)
    data_config = adapter.data_config(model)
    found = walk(model, adapter.trace_options(model), data_config.input_size, example_inputs)
    if found.input_size is not None and found.input_size != data_config.input_size:
        data_config = replace(data_config, input_size=found.input_size)
    estimate = Estimate(model, config, data_config)

    def plan_with(sizing: Sizing) -> Plan:
        return make_plan(found.convs, config, keep, sizing)

    dial = Dial(plan_with, estimate, found.convs, config) if config.tiling else None
    plan = plan_with(Sizing()) if dial is None or ratio is None else dial.turn(ratio)
    return Analysis(found, plan, data_config, estimate, dial)


def check_ratio(ratio: object, config: PuppetConfig) -> None:
    """Refuse a ratio that no model could have with ``config``.

    Raises:
        PuppetizeError: not a positive number, or a config without tiling.
    """
    if ratio is None:
        return
    if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not 0 < ratio < math.inf:
        raise PuppetizeError(f"ratio={ratio!r}: expected a positive number")
    if not config.tiling:
        raise PuppetizeError(
            "ratio= narrows states and tiles sites from them; this config has tiling=False (as "
            "PuppetConfig.paper() has): leave ratio out, or set tiling=True"
        )


def _check_model(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise PuppetizeError(
            f"expected a torch.nn.Module, got {type(model).__name__}; zoo_adapters.create(name) "
            "builds one by name"
        )
    name = type(model).__name__
    for module in model.modules():
        if isinstance(module, PuppetModule):
            raise PuppetizeError(
                f"{name} is or contains a Puppet already; puppetize the original, or puppet.bake()"
            )
        if (
            isinstance(module, nn.modules.lazy.LazyModuleMixin)
            and module.has_uninitialized_params()
        ):
            raise PuppetizeError(
                f"{name} contains {type(module).__name__} without weights yet; run the model on "
                "one batch first"
            )
    if not any(isinstance(module, nn.Conv2d) for module in model.modules()):
        raise PuppetizeError(f"{name} has no Conv2d layer; puppetize compresses convolutions only")
