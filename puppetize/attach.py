"""A network without its generated weights, and how it gets them for the time of a call.

A generated ``weight`` is a plain attribute of its ``Conv2d``: in no state dict, in no optimiser.
Between calls it is a placeholder on the ``meta`` device, so that code which asks for shapes works.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from puppetize.errors import PuppetizeError
from puppetize.plan import Kept, Plan, Site


def strip(model: nn.Module, plan: Plan) -> nn.Module:
    """A copy of ``model`` without the weights of the plan's sites; they are never copied."""
    modules = dict(model.named_modules(remove_duplicate=False))
    memo: dict[int, Any] = {}
    for site in plan.sites:
        weight = modules[site.name].weight
        memo[id(weight)] = nn.Parameter(_placeholder(site, weight.dtype), weight.requires_grad)
    network = copy.deepcopy(model, memo)
    clear(network, plan)
    return network


def convs(network: nn.Module, site: Site) -> Iterator[nn.Conv2d]:
    """The modules that hold the site's weight, where the network still has them."""
    for name in (site.name, *site.aliases):
        try:
            conv = network.get_submodule(name)
        except AttributeError:
            continue
        if isinstance(conv, nn.Conv2d):
            yield conv


def check(network: nn.Module, plan: Plan) -> None:
    """Raise unless ``network`` has a ``Conv2d`` of the right shape for each site.

    Raises:
        PuppetizeError: naming the first layer that does not fit, and both shapes.
    """
    modules = dict(network.named_modules(remove_duplicate=False))
    items: list[Site | Kept] = [*plan.sites, *plan.kept]
    for item in items:
        for name in (item.name, *item.aliases):
            conv = modules.get(name)
            if not isinstance(conv, nn.Conv2d):
                found = "nothing" if conv is None else f"a {type(conv).__name__}"
                raise PuppetizeError(
                    f"{type(network).__name__}: the plan expects a Conv2d at {name!r} and finds "
                    f"{found}; give the model that was puppetized"
                )
            shape = (conv.out_channels, conv.in_channels // conv.groups, *conv.kernel_size)
            if shape != item.shape:
                raise PuppetizeError(
                    f"{type(network).__name__}: {name!r} has a weight of shape {shape}, the plan "
                    f"expects {item.shape}; give the model that was puppetized"
                )


def clear(network: nn.Module, plan: Plan) -> None:
    """Put placeholders where generated weights may be."""
    for site in plan.sites:
        for conv in convs(network, site):
            held = conv.__dict__.get("weight", conv._parameters.pop("weight", None))
            assert held is not None
            conv.__dict__["weight"] = _placeholder(site, held.dtype)


@contextmanager
def attached(network: nn.Module, plan: Plan, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Let ``network`` compute with ``weights`` (by site name) inside the block.

    Where gradients flow, each weight leaves behind a detached alias that shares its memory:
    activation checkpointing runs layers once more during the backward pass, after this block.
    """
    held = [(conv, site.name, conv.weight) for site in plan.sites for conv in convs(network, site)]
    for conv, name, _ in held:
        conv.weight = weights[name]
    try:
        yield
    finally:
        # A compiler handles checkpointing by itself.
        leave = not torch.compiler.is_compiling()
        left = {name: _leave(weight) for name, weight in weights.items()} if leave else {}
        for conv, name, before in held:
            conv.weight = left.get(name, before)


def write(network: nn.Module, plan: Plan, weights: Mapping[str, Tensor]) -> None:
    """Make ``weights`` ordinary parameters of ``network``, in their original place."""
    for site in plan.sites:
        parameter = nn.Parameter(weights[site.name])
        for conv in convs(network, site):
            conv.__dict__.pop("weight", None)
            others = dict(conv._parameters)
            conv._parameters.clear()
            conv._parameters.update({"weight": parameter, **others})


def _placeholder(site: Site, dtype: torch.dtype) -> Tensor:
    return torch.empty(site.shape, dtype=dtype, device="meta")


def _leave(weight: Tensor) -> Tensor:
    if not weight.requires_grad:
        return torch.empty_like(weight, device="meta")
    left = weight.detach().requires_grad_()
    left.register_hook(_refuse_gradient)
    return left


def _refuse_gradient(gradient: Tensor) -> None:
    raise PuppetizeError(
        "a gradient arrived at a generated weight after its forward pass: reentrant activation "
        "checkpointing would lose it. Use torch.utils.checkpoint with use_reentrant=False (in "
        "timm: timm.layers.set_reentrant_ckpt(False))"
    )
