"""The call that everything is about."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

import zoo_adapters
from puppetize import attach
from puppetize.config import PuppetConfig
from puppetize.dial import turn
from puppetize.errors import PuppetizeError, PuppetizeWarning
from puppetize.plan import Plan
from puppetize.planner import Sizing, make_plan
from puppetize.puppet import Puppet
from puppetize.puppeteer import Puppeteer
from puppetize.storage.container import file_size
from puppetize.storage.estimate import Estimate
from puppetize.storage.files import stored_tensors
from puppetize.walk import conv_names, walk
from zoo_adapters import DataConfig


def puppetize(
    model: nn.Module,
    config: PuppetConfig | None = None,
    *,
    ratio: float | None = None,
    example_inputs: Sequence[Any] | None = None,
) -> Puppet:
    """Replace the weights of a CNN's ``Conv2d`` layers by generated ones.

    Args:
        model: any network with a ``Conv2d``; it is not changed. Its norms, biases and classifier
            are copied, its convolution weights only in scale.
        config: how weights are generated; the default is meant for training.
        ratio: how many times smaller than the original's safetensors file the stored file is to
            be. Without it, states are as large as their sites, up to ``config.width``.
        example_inputs: positional arguments of ``model.forward``, for networks that do not take
            one batch of images of a usual size.

    Returns:
        A :class:`Puppet` in the model's mode, on its device and in its dtype.

    Raises:
        PuppetizeError: no ``Conv2d``, a model that is a Puppet already, a network that does not
            run on its inputs, or a ratio that cannot be reached.
    """
    config = config or PuppetConfig()
    if ratio is not None and not 0 < ratio < math.inf:
        raise PuppetizeError(f"ratio={ratio!r}: expected a positive number")
    if ratio is not None and not config.tiling:
        raise PuppetizeError(
            "ratio= narrows states and tiles sites from them; this config has tiling=False (as "
            "PuppetConfig.paper() has): leave ratio out, or set tiling=True"
        )
    _check(model)
    adapter = zoo_adapters.adapter_for(model)
    data_config = adapter.data_config(model)
    found = walk(model, adapter.trace_options(model), data_config.input_size, example_inputs)
    if found.input_size is not None and found.input_size != data_config.input_size:
        data_config = replace(data_config, input_size=found.input_size)
    if config.start == "constant":
        warnings.warn(
            "a constant start makes every generated weight rank 1 along one channel axis, which "
            "costs most of the accuracy; the default PuppetConfig() starts from seeded numbers",
            PuppetizeWarning,
            stacklevel=2,
        )
    original_bytes = file_size(stored_tensors(model))

    def plan_with(sizing: Sizing | None) -> Plan:
        return make_plan(
            found.convs,
            config,
            classifier=adapter.classifier(model),
            parametrized=_parametrized(model),
            sizing=sizing,
        )

    if ratio is None:
        plan = plan_with(None)
    else:
        size = Estimate(model, config, data_config, original_bytes)
        plan = turn(plan_with, size, original_bytes, ratio, found.convs)
    if not plan.groups:
        reasons = ", ".join(sorted({kept.reason for kept in plan.kept}))
        raise PuppetizeError(
            f"{type(model).__name__}: none of its {len(plan.kept)} Conv2d layers can be generated "
            f"({reasons}); there is nothing to compress"
        )
    return _build(model, plan, config, data_config, original_bytes)


def _check(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise PuppetizeError(
            f"expected a torch.nn.Module, got {type(model).__name__}; zoo_adapters.create(name) "
            "builds one by name"
        )
    name = type(model).__name__
    for module in model.modules():
        if isinstance(module, Puppet):
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


def _parametrized(model: nn.Module) -> list[str]:
    """Convolutions whose weight is not a parameter of their own (weight norm, pruning masks)."""
    modules = dict(model.named_modules(remove_duplicate=False))
    names = [name for first, rest in conv_names(model).items() for name in (first, *rest)]
    return [name for name in names if modules[name]._parameters.get("weight") is None]


def _build(
    model: nn.Module,
    plan: Plan,
    config: PuppetConfig,
    data_config: DataConfig,
    original_bytes: int,
) -> Puppet:
    weight = model.get_submodule(next(plan.sites).name).weight
    assert isinstance(weight, Tensor)
    on_meta = weight.device.type == "meta"
    with torch.device("meta" if on_meta else "cpu"):
        puppeteer = Puppeteer(plan, config, _scales(model, plan))
    return Puppet(
        attach.strip(model, plan),
        puppeteer.to(weight.device, weight.dtype),
        plan,
        config,
        data_config,
        original_bytes,
        zoo_adapters.guess(model),
    )


def _scales(model: nn.Module, plan: Plan) -> dict[str, float]:
    """Gains with which each site starts at the scale of ``model``'s own weight."""
    modules = dict(model.named_modules(remove_duplicate=False))
    scales = {}
    for site in plan.sites:
        weight = modules[site.name].weight
        if isinstance(weight, Tensor) and weight.device.type != "meta":
            mean_square = weight.detach().double().square().mean().item()
            scales[site.name] = (mean_square * weight[0].numel()) ** 0.5
    return scales
