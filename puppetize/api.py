"""The call that everything is about."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

import zoo_adapters
from puppetize import attach
from puppetize.analysis import Analysis, analyse
from puppetize.config import PuppetConfig
from puppetize.errors import PuppetizeError, PuppetizeWarning
from puppetize.keep import Patterns
from puppetize.plan import Plan
from puppetize.puppet import Puppet
from puppetize.puppeteer import Puppeteer


def puppetize(
    model: nn.Module,
    config: PuppetConfig | None = None,
    *,
    ratio: float | None = None,
    example_inputs: Any = None,
    include: Patterns = None,
    exclude: Patterns = None,
) -> Puppet:
    """Replace the weights of a CNN's ``Conv2d`` layers by generated ones.

    Args:
        model: any network with a ``Conv2d``; it is not changed. Its norms, biases and classifier
            are copied, its convolution weights only in scale.
        config: how weights are generated; the default is meant for training.
        ratio: how many times smaller than the original's safetensors file the stored file is to
            be. Without it, states are as large as their sites, up to ``config.width``.
        example_inputs: positional arguments of ``model.forward``, for networks that do not take
            one batch of images of a usual size; a tensor stands for itself alone.
        include: shell-style patterns of the convolutions that may be generated, or of modules
            that hold them (``"layer4"``, ``"*.conv2"``). None: all.
        exclude: patterns of convolutions that are stored as they are.

    Returns:
        A :class:`Puppet` in the model's mode, on its device and in its dtype.

    Raises:
        PuppetizeError: no ``Conv2d``, a model that is a Puppet already, a network that does not
            run on its inputs, a pattern that fits nothing, or a ratio that cannot be reached.
    """
    config = config or PuppetConfig()
    analysis = analyse(
        model,
        config,
        ratio=ratio,
        example_inputs=example_inputs,
        include=include,
        exclude=exclude,
    )
    if config.start == "constant":
        warnings.warn(
            "a constant start makes every generated weight rank 1 along one channel axis, which "
            "costs most of the accuracy; the default PuppetConfig() starts from seeded numbers",
            PuppetizeWarning,
            stacklevel=2,
        )
    kept = analysis.plan.kept
    if not analysis.plan.groups:
        reasons = ", ".join(sorted({each.reason for each in kept}))
        raise PuppetizeError(
            f"{type(model).__name__}: none of its {len(kept)} Conv2d layers can be generated "
            f"({reasons}); there is nothing to compress"
        )
    return _build(model, analysis, config)


def _build(model: nn.Module, analysis: Analysis, config: PuppetConfig) -> Puppet:
    plan = analysis.plan
    weight = model.get_submodule(next(plan.sites).name).weight
    assert isinstance(weight, Tensor)
    on_meta = weight.device.type == "meta"
    with torch.device("meta" if on_meta else "cpu"):
        puppeteer = Puppeteer(plan, config, _scales(model, plan))
    puppet = Puppet(
        attach.strip(model, plan),
        puppeteer.to(weight.device, weight.dtype),
        plan,
        config,
        analysis.data_config,
        analysis.original_bytes,
        zoo_adapters.guess(model),
    )
    puppet.walked = analysis.walk
    return puppet


def _scales(model: nn.Module, plan: Plan) -> dict[str, float]:
    """Gains with which each site starts at the scale of ``model``'s own weight."""
    modules = dict(model.named_modules(remove_duplicate=False))
    scales = {}
    for site in plan.sites:
        weight = modules[site.name].weight
        if isinstance(weight, Tensor) and weight.device.type != "meta":
            rows = torch.linalg.vector_norm(weight.detach().flatten(1).float(), dim=1)
            scales[site.name] = rows.double().square().mean().sqrt().item()
    return scales
