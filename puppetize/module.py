"""A network whose convolution weights a puppeteer generates, as an ``nn.Module``."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Self

from puppetize import attach
from puppetize.cache import WeightCache, laid_out
from puppetize.config import PuppetConfig
from puppetize.errors import PuppetizeError
from puppetize.placeholder import Left
from puppetize.plan import Plan
from puppetize.puppeteer import Puppeteer, transforming
from puppetize.turns import Turns
from puppetize.walk import Walk
from zoo_adapters import DataConfig, ModelSource

_PREFIX = "network."


class PuppetModule(nn.Module):
    """What a :class:`puppetize.Puppet` does as a module: weights, forward, attributes, baking.

    In training mode weights are generated once a forward pass. In evaluation mode they are
    generated once and reused until a parameter of the puppeteer changes; under ``torch.compile``
    the compiled graph generates them in each call (:meth:`bake` for deployment).

    Args:
        network: a network without the weights of the plan's sites (``attach.strip``).
        puppeteer: generates them.
        plan: which convolutions are generated, and how.
        config: the settings that the plan was made with.
        data_config: the images that the network expects; part of the saved file.
        original_bytes: of the original network's state dict as a safetensors file.
        source: what the network was built from, if known; verified when saving.
    """

    def __init__(
        self,
        network: nn.Module,
        puppeteer: Puppeteer,
        plan: Plan,
        config: PuppetConfig,
        data_config: DataConfig,
        original_bytes: int,
        source: ModelSource | None = None,
    ) -> None:
        super().__init__()
        self.plan = plan
        self.config = config
        self.data_config = data_config
        self.original_bytes = original_bytes
        self.source = source
        self.puppeteer = puppeteer
        self.network = network
        self._cache = WeightCache()
        self._turns = Turns()
        self._left = Left()
        attach.clear(network, plan, self._left)
        self.walked: Walk | None = None  # by puppetize(); a loaded puppet is walked on demand
        self._channels_last = False
        # Starts never change, so DistributedDataParallel need not send them round.
        starts = [name for name, _ in self.named_buffers() if name.startswith("puppeteer.")]
        self._ddp_params_and_buffers_to_ignore = starts
        self.register_load_state_dict_post_hook(_forget)
        self.train(network.training)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The network's forward pass with generated weights."""
        with self._attached():
            return self.network(*args, **kwargs)

    def weights(self) -> dict[str, Tensor]:
        """Every generated weight by the name of its ``Conv2d``.

        Gradients flow to the puppeteer where they are enabled. In evaluation mode these are the
        tensors that forward passes use: copy before writing to them.
        """
        return dict(self._weights())

    def _weights(self) -> dict[str, Tensor]:
        if self.training or transforming():
            return laid_out(self.puppeteer(), self._layout)
        return self._cache.get(self.puppeteer, self._layout)

    @property
    def _layout(self) -> torch.memory_format:
        return torch.channels_last if self._channels_last else torch.contiguous_format

    @contextmanager
    def _attached(self) -> Iterator[None]:
        if torch.compiler.is_compiling():
            weights, sites = self._weights(), self.plan.sites
            pairs = [(c, weights[s.name]) for s in sites for c in attach.convs(self.network, s)]
            with attach.swapped(pairs):
                yield
            return
        if torch.is_grad_enabled():
            self._left.clear()  # of an earlier call, before new weights are made
        with self._turns.take(self._weights(), self._put, self._remove):
            yield

    def _put(self, weights: Mapping[str, Tensor]) -> None:
        attach.put(self.network, self.plan, weights)

    def _remove(self, weights: Mapping[str, Tensor]) -> None:
        if not transforming():
            attach.leave(weights, self._left)
        attach.clear(self.network, self.plan, self._left)

    def bake(self) -> nn.Module:
        """A plain model of the original class with the generated weights in place.

        It shares no memory with the puppet and keeps no trace of this library. Its mode (train or
        eval), dtype and device are the puppet's.
        """
        with torch.inference_mode(False), torch.no_grad():
            held = None if self.training else self._cache.held(self.puppeteer)
            if held is None:
                weights = laid_out(self.puppeteer(), self._layout)
            else:
                weights = {name: weight.clone() for name, weight in held.items()}
        baked = attach.strip(self.network, self.plan)
        attach.write(baked, self.plan, weights)
        return baked

    # What follows makes a puppet behave like the network it holds.

    def train(self, mode: bool = True) -> Self:
        """As in ``nn.Module``; also forgets generated weights when training starts."""
        if mode:
            self._cache.clear()
        return super().train(mode)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """As in ``nn.Module``; a state dict of the original is refused, strict or not."""
        own = self.state_dict()
        if state_dict and not any(name in own for name in state_dict):
            raise PuppetizeError(
                f"none of the {len(state_dict)} tensors belongs to this Puppet of a "
                f"{type(self.network).__name__} (the first is {next(iter(state_dict))!r}, ours are "
                f"called {next(iter(own))!r} ...); load weights into the original and puppetize it"
            )
        return super().load_state_dict(state_dict, strict, assign)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._cache.clear()
        self._left.clear()
        probe = fn(torch.empty(2, 2, 2, 2).contiguous(memory_format=self._layout))
        self._channels_last = not probe.is_contiguous()
        super()._apply(fn, recurse)
        return self

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "network":  # not there yet: the network's own attributes cannot be either
                raise
        try:
            value = getattr(self.network, name)
        except AttributeError:
            raise AttributeError(
                f"neither Puppet nor its {type(self.network).__name__} has an attribute {name!r}"
            ) from None
        if getattr(value, "__self__", None) is not self.network:
            return value
        return self._with_weights(value)

    def _with_weights(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            with self._attached():
                return method(*args, **kwargs)

        return call

    def __setattr__(self, name: str, value: Any) -> None:
        inside = self.__dict__.get("_modules", {}).get("network")
        own = name in self.__dict__ or name in self._modules or hasattr(type(self), name)
        if inside is not None and not own and hasattr(inside, name):
            setattr(inside, name, value)  # such as `puppet.fc = nn.Linear(...)`
        else:
            super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if name in self.__dict__ or name in self._modules or name in self._parameters:
            super().__delattr__(name)
        else:
            delattr(self.network, name)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Timm's parameter groups by depth, for the names that parameters have here."""
        groups = self.network.group_matcher(coarse=coarse)  # type: ignore[operator]
        return {key: _prefix_patterns(spec) for key, spec in groups.items()}

    def no_weight_decay(self) -> set[str]:
        """Timm's parameters without weight decay, by the names that they have here."""
        inner = getattr(self.network, "no_weight_decay", set)
        return {_PREFIX + name for name in inner()}


def _forget(puppet: PuppetModule, incompatible_keys: Any) -> None:
    puppet._cache.clear()


def _prefix_patterns(spec: str | Sequence[tuple[str, Any]] | None) -> Any:
    if spec is None:
        return None
    if isinstance(spec, str):
        unanchored = re.sub(r"(?<!\[)\^", "", spec)
        return rf"^{re.escape(_PREFIX)}(?:{unanchored})"
    return [(_prefix_patterns(pattern), suffix) for pattern, suffix in spec]
