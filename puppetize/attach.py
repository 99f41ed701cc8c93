"""A network without its generated weights, and how it gets them for the time of a call.

A generated ``weight`` is a plain attribute of its ``Conv2d``: in no state dict, in no optimiser.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from puppetize.errors import PuppetizeError
from puppetize.placeholder import Left, Placeholder
from puppetize.plan import Kept, Plan, Site
from puppetize.twin import tensors_of


def strip(network: nn.Module, plan: Plan) -> nn.Module:
    """A copy of ``network`` without the weights of the plan's sites; they are never copied."""
    memo: dict[int, Any] = {}
    for tensor in tensors_of(network):
        if not tensor.is_leaf:  # pruning and weight norm leave computed weights, which refuse
            memo[id(tensor)] = tensor.detach().clone()
    for site in plan.sites:
        for conv in convs(network, site):
            memo[id(conv.weight)] = _stand_in(conv.weight, site)
    stripped = copy.deepcopy(network, memo)
    clear(stripped, plan, Left())
    return stripped


def _stand_in(weight: object, site: Site) -> object:
    if isinstance(weight, nn.Parameter):
        return nn.Parameter(torch.empty(site.shape, device="meta"))
    return Placeholder(site.name, site.shape, Left())


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


def put(network: nn.Module, plan: Plan, weights: Mapping[str, Tensor]) -> None:
    """Let ``network`` compute with ``weights`` (by site name)."""
    for site in plan.sites:
        for conv in convs(network, site):
            conv.weight = weights[site.name]


@contextmanager
def swapped(pairs: Iterable[tuple[nn.Module, Tensor]]) -> Iterator[None]:
    """Let each module compute with the weight beside it inside the block."""
    held: list[tuple[nn.Module, Any]] = []
    for conv, weight in pairs:
        held.append((conv, conv.weight))
        conv.weight = weight
    try:
        yield
    finally:
        for conv, before in held:
            conv.weight = before


def clear(network: nn.Module, plan: Plan, left: Left) -> None:
    """Put placeholders where generated weights may be; they find what a call leaves in ``left``."""
    for site in plan.sites:
        for conv in convs(network, site):
            conv._parameters.pop("weight", None)
            conv.__dict__["weight"] = Placeholder(site.name, site.shape, left)


def leave(weights: Mapping[str, Tensor], left: Left) -> None:
    """Keep ``weights`` through which gradients flow, as detached aliases that share their memory.

    Activation checkpointing runs layers once more in the backward pass.
    """
    for name, weight in weights.items():
        if weight.requires_grad:
            alias = weight.detach().requires_grad_()
            alias.register_hook(_refuse_gradient)
            left[name] = alias


def write(network: nn.Module, plan: Plan, weights: Mapping[str, Tensor]) -> None:
    """Make ``weights`` ordinary parameters of ``network``, in their original place."""
    for site in plan.sites:
        parameter = nn.Parameter(weights[site.name])
        for conv in convs(network, site):
            conv.__dict__.pop("weight", None)
            others = dict(conv._parameters)
            conv._parameters.clear()
            conv._parameters.update({"weight": parameter, **others})


def _refuse_gradient(gradient: Tensor) -> None:
    raise PuppetizeError(
        "a gradient arrived at a generated weight after its forward pass: reentrant activation "
        "checkpointing would lose it. Use torch.utils.checkpoint with use_reentrant=False (in "
        "timm: timm.layers.set_reentrant_ckpt(False))"
    )
