"""The whole system as one ``torch.fx`` graph."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx, nn

from puppetize import attach
from puppetize.errors import PuppetizeError
from puppetize.module import PuppetModule
from puppetize.plan import Plan
from puppetize.walk import trace
from zoo_adapters import adapter_for


class Generated(nn.Module):
    """A module whose convolution weights arrive as inputs.

    Args:
        module: a ``Conv2d``, or a module that the tracer keeps whole and that contains some.
        names: weights of ``module`` that arrive, in the order of the first inputs.
    """

    def __init__(self, module: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.module = module
        self.names = names

    def forward(self, weights: tuple[Tensor, ...], *args: Any, **kwargs: Any) -> Any:
        """Call ``module`` with ``weights`` in place."""
        convs = [self.module.get_submodule(name.rpartition(".")[0]) for name in self.names]
        with attach.swapped(zip(convs, weights, strict=True)):
            return self.module(*args, **kwargs)

    def extra_repr(self) -> str:
        return f"weights={', '.join(self.names)}"


def graph_module(puppet: PuppetModule) -> fx.GraphModule:
    """See :meth:`puppetize.Puppet.graph_module`."""
    network, plan = puppet.network, puppet.plan
    # While it is traced the network has parameters where weights will be, because torch.fx makes
    # nodes of parameters only.
    empty = {site.name: torch.empty(site.shape, device="meta") for site in plan.sites}
    attach.write(network, plan, empty)
    try:
        traced = trace(network, adapter_for(network).trace_options(network))
    except Exception as error:  # torch.fx raises many kinds for control flow on values
        raise PuppetizeError(
            f"{type(network).__name__} cannot be traced by torch.fx ({type(error).__name__}: "
            f"{error}); the puppet itself works without a graph"
        ) from error
    finally:
        attach.clear(network, plan, puppet._left)
    root = nn.Module()
    root.puppeteer = puppet.puppeteer
    root.network = traced
    return _Builder(root, traced, _sites_of(plan)).build()


def _sites_of(plan: Plan) -> dict[str, str]:
    return {name: site.name for site in plan.sites for name in (site.name, *site.aliases)}


class _Builder:
    """Copies a traced network node by node, giving each site its weight from the puppeteer."""

    def __init__(self, root: nn.Module, traced: fx.GraphModule, sites: dict[str, str]) -> None:
        self.root, self.traced, self.sites = root, traced, sites
        self.graph = fx.Graph()
        self.edges: dict[str, fx.Node] = {}

    def build(self) -> fx.GraphModule:
        copied: dict[fx.Node, Any] = {}
        generated: fx.Node | None = None
        for node in self.traced.graph.nodes:
            if generated is None and node.op != "placeholder":
                generated = self.graph.call_module("puppeteer")
                for site in dict.fromkeys(self.sites.values()):
                    self.edges[site] = self.graph.call_function(operator.getitem, (generated, site))
            copied[node] = self._copy(node, copied)
        for node in self.graph.nodes:
            if node.op == "get_attr":
                node.target = self._through(str(node.target))
        return fx.GraphModule(self.root, self.graph, type(self.traced).__name__)

    def _copy(self, node: fx.Node, copied: dict[fx.Node, Any]) -> fx.Node:
        target = str(node.target)
        owner, _, attribute = target.rpartition(".")
        if node.op == "get_attr" and attribute == "weight" and owner in self.sites:
            return self.edges[self.sites[owner]]
        new = self.graph.node_copy(node, lambda old: copied[old])
        if node.op in ("call_module", "get_attr"):
            new.target = f"network.{target}"
        if node.op == "call_module":
            inside = self._inside(target)
            if inside:
                wrapped = self.root.get_submodule(str(new.target))
                if not isinstance(wrapped, Generated):
                    self._replace(str(new.target), Generated(wrapped, tuple(inside)))
                new.args = (tuple(self.edges[site] for site in inside.values()), *new.args)
        return new

    def _inside(self, target: str) -> dict[str, str]:
        """Weights of sites in the module ``target``: name relative to it, and site."""
        prefix = f"{target}."
        return {
            f"{name}.weight".removeprefix(prefix): site
            for name, site in self.sites.items()
            if f"{name}.".startswith(prefix)
        }

    def _through(self, target: str) -> str:
        """The path of a tensor after the module that owns it may have been wrapped."""
        owner, _, attribute = target.rpartition(".")
        wrapped = isinstance(self.root.get_submodule(owner), Generated)
        return f"{owner}.module.{attribute}" if wrapped else target

    def _replace(self, path: str, module: nn.Module) -> None:
        parent, _, name = path.rpartition(".")
        setattr(self.root.get_submodule(parent), name, module)
