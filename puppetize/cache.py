"""Weights that are generated once and reused until the puppeteer changes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from puppetize.puppeteer import Puppeteer


class WeightCache:
    """The last weights of a puppeteer, and what its parameters were then.

    Parameters are compared by value: code that writes through ``.data`` leaves no other trace, and
    a puppeteer is small next to the weights that it would have to generate.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget."""
        self._weights: dict[str, Tensor] | None = None
        self._seen: Tensor | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> WeightCache:
        return WeightCache()

    def __getstate__(self) -> dict[str, Any]:
        return {"_weights": None, "_seen": None}

    def get(self, puppeteer: Puppeteer, memory_format: torch.memory_format) -> dict[str, Tensor]:
        """The puppeteer's weights, generated anew only if something changed.

        Gradients flow to the puppeteer where they are enabled: generation is then repeated in the
        backward pass.
        """
        parameters = list(puppeteer.parameters())
        with torch.inference_mode(False), torch.no_grad():
            weights = self.held(puppeteer)
            if weights is None:
                self.clear()  # frees what is there before as much is made
                weights = self._weights = laid_out(puppeteer(), memory_format)
                self._seen = _numbers(puppeteer)
        if not (torch.is_grad_enabled() and any(p.requires_grad for p in parameters)):
            return weights
        reused = _Reuse.apply(puppeteer, tuple(weights.values()), *parameters)
        return dict(zip(weights, reused, strict=True))

    def held(self, puppeteer: Puppeteer) -> dict[str, Tensor] | None:
        """The weights that are there already, if nothing changed since they were made."""
        if self._weights is None or not _same(self._seen, _numbers(puppeteer)):
            return None
        return self._weights


def laid_out(weights: dict[str, Tensor], memory_format: torch.memory_format) -> dict[str, Tensor]:
    """The same dictionary with weights in ``memory_format``, of which none is there twice."""
    for name in weights:
        weights[name] = weights[name].contiguous(memory_format=memory_format)
    return weights


def _numbers(puppeteer: Puppeteer) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in puppeteer.parameters()])


def _same(before: Tensor | None, now: Tensor) -> bool:
    if before is None or before.dtype != now.dtype or before.device != now.device:
        return False
    return torch.equal(before, now)


class _Reuse(torch.autograd.Function):
    """Weights already at hand; the puppeteer runs again only if they get a gradient."""

    @staticmethod
    def forward(
        ctx: Any, puppeteer: Puppeteer, weights: tuple[Tensor, ...], *parameters: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.puppeteer = puppeteer
        ctx.save_for_backward(*parameters)
        return tuple(weight.view_as(weight) for weight in weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        # Those of the forward pass: torch.func.functional_call has put others back by now.
        parameters = [p.detach().requires_grad_(p.requires_grad) for p in ctx.saved_tensors]
        names = [name for name, _ in ctx.puppeteer.named_parameters()]
        with torch.enable_grad():
            made = torch.func.functional_call(
                ctx.puppeteer, dict(zip(names, parameters, strict=True)), ()
            )
        wanted = [p for p in parameters if p.requires_grad]
        found = iter(
            torch.autograd.grad(tuple(made.values()), wanted, gradients, allow_unused=True)
        )
        return None, None, *(next(found) if p.requires_grad else None for p in parameters)
