"""The torch.fx walk: every ``Conv2d`` of a model, in execution order, with shapes and MACs.

The walk interprets the model's graph on fake tensors (shapes without numbers), so it allocates
nothing and the model itself never runs.
"""

from __future__ import annotations

import copy
import functools
import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torchvision
from torch import Tensor, fx, nn
from torch._subclasses import FakeTensorMode
from torch.utils._pytree import tree_map_only
from torchvision.models.feature_extraction import NodePathTracer

from zoo_adapters import PuppetizeError, TraceOptions

# Tried in turn for a network whose input size nobody has told.
# Two images: a batch norm in training mode refuses a single value a channel.
WALK_BATCH = 2

FALLBACK_SIDES = (224, 32, 28, 64, 96, 128, 299, 384, 512)


@dataclass(frozen=True)
class ConvRecord:
    """One ``Conv2d`` as the walk saw it.

    Attributes:
        name: qualified module name; the first one where a module has several.
        aliases: other modules (and names) that share this weight.
        shape: of the weight: output channels, input channels per group, height, width.
        stride: vertical, horizontal.
        groups: of the convolution.
        calls: how often one forward pass runs it; 0 if it was never reached.
        macs: multiply-adds of one image's forward pass, all calls together.
        mode: ``"eval"``, or ``"train"`` if only a training pass reaches it, or ``""``.
    """

    name: str
    aliases: tuple[str, ...]
    shape: tuple[int, int, int, int]
    stride: tuple[int, int]
    groups: int
    calls: int
    macs: int
    mode: str


@dataclass(frozen=True)
class Walk:
    """All convolutions of a model: those that run, in execution order, then those that do not.

    Attributes:
        convs: one record a convolution weight.
        input_size: channels, height and width that the walk used; None for given inputs.
        traced: whether ``torch.fx`` could trace the model; if not, it was run with hooks instead.
        why_not_traced: the tracer's complaint.
    """

    convs: tuple[ConvRecord, ...]
    input_size: tuple[int, int, int] | None
    traced: bool
    why_not_traced: str = ""


class _Tracer(NodePathTracer):
    """torchvision's tracer, which keeps every ``Conv2d`` whole, whatever its subclass does."""

    def is_leaf_module(self, m: nn.Module, module_qualname: str) -> bool:
        return isinstance(m, nn.Conv2d) or super().is_leaf_module(m, module_qualname)


def trace(model: nn.Module, options: TraceOptions) -> fx.GraphModule:
    """Symbolic trace of ``model`` as it stands (train or eval), every ``Conv2d`` one node.

    Raises:
        Exception: whatever ``torch.fx`` raises for a model with data-dependent control flow.
    """
    tracer = _Tracer(
        autowrap_modules=(math, torchvision.ops),
        autowrap_functions=options.leaf_functions,
        leaf_modules=list(options.leaf_modules),
    )
    return fx.GraphModule(model, tracer.trace(model))


def walk(
    model: nn.Module,
    options: TraceOptions,
    input_size: tuple[int, int, int],
    example_inputs: Sequence[Any] | None = None,
) -> Walk:
    """Find every ``Conv2d`` of ``model`` in execution order.

    One pass in eval mode finds what inference runs; a second in train mode, where something is
    still missing, finds the rest (auxiliary heads).

    Args:
        model: any module, on any device (``meta`` included); it is neither run nor changed.
        options: how to trace it.
        input_size: channels, height, width of the images to walk with. Where they do not fit the
            model, other usual sizes are tried.
        example_inputs: positional arguments of ``forward`` instead, for models that take more
            than one image tensor.

    Raises:
        PuppetizeError: no input was found with which the model runs.
    """
    failure: Exception | None = None
    for inputs, size in _inputs(model, input_size, example_inputs):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # they are about images that are none
                return _walk(model, options, inputs, size)
        except Exception as error:  # a network may raise anything for an input it was not made for
            failure = failure or error
    tried = "the given example_inputs" if example_inputs else f"images of size {tuple(input_size)}"
    raise PuppetizeError(
        f"{type(model).__name__} does not run on {tried}: {type(failure).__name__}: {failure}. "
        "Pass puppetize(model, example_inputs=(...)) with the arguments of its forward"
    )


def conv_names(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Every ``Conv2d`` weight's first name in ``named_modules()`` order, with all other names."""
    names: dict[int, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, nn.Conv2d):
            weight = module._parameters.get("weight")
            names.setdefault(id(module if weight is None else weight), []).append(name)
    return {first: tuple(rest) for first, *rest in names.values()}


def _walk(
    model: nn.Module,
    options: TraceOptions,
    inputs: Sequence[Any],
    size: tuple[int, int, int] | None,
) -> Walk:
    aliases = conv_names(model)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    twin = _fake_twin(model, mode)
    why = ""
    seen: dict[str, _Seen] = {}
    for training in (False, True):
        if len(seen) == len(aliases):
            break
        twin.train(training)
        try:
            found, complaint = _run(twin, aliases, options, mode, inputs)
        except Exception:
            if not training:
                raise
            continue  # training may ask for more arguments; what only it runs stays unseen
        why = why or complaint
        label = "train" if training else "eval"
        for name, (calls, macs) in found.items():
            seen.setdefault(name, _Seen(calls, macs // len(inputs[0]), label))
    modules = dict(model.named_modules(remove_duplicate=False))
    order = [*seen, *(name for name in aliases if name not in seen)]
    convs = tuple(
        _record(name, aliases[name], modules[name], seen.get(name, _Seen())) for name in order
    )
    return Walk(convs, size, not why, why)


class _Seen(NamedTuple):
    calls: int = 0
    macs: int = 0
    mode: str = ""


def _record(name: str, aliases: tuple[str, ...], conv: nn.Module, seen: _Seen) -> ConvRecord:
    assert isinstance(conv, nn.Conv2d)
    shape = (conv.out_channels, conv.in_channels // conv.groups, *conv.kernel_size)
    stride = tuple(conv.stride)
    return ConvRecord(name, aliases, shape, stride, conv.groups, *seen)  # type: ignore[arg-type]


def _run(
    twin: nn.Module,
    aliases: Mapping[str, tuple[str, ...]],
    options: TraceOptions,
    mode: FakeTensorMode,
    inputs: Sequence[Any],
) -> tuple[dict[str, tuple[int, int]], str]:
    """Calls and multiply-adds by name, in execution order, and why tracing failed if it did."""
    with mode, torch.no_grad(), _quiet():
        arguments = tree_map_only(Tensor, _fake, inputs)
        try:
            with _counting(twin, aliases) as found:
                fx.Interpreter(trace(twin, options)).run(*arguments)
            return found, ""
        except Exception as error:  # torch.fx raises many kinds for control flow on values
            complaint = f"{type(error).__name__}: {error}"
        with _counting(twin, aliases) as found:
            twin(*arguments)
        return found, complaint


@contextmanager
def _quiet() -> Iterator[None]:
    """Fake tensors log a traceback for each input that does not fit; it is raised as well."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


@contextmanager
def _counting(
    twin: nn.Module, aliases: Mapping[str, tuple[str, ...]]
) -> Iterator[dict[str, tuple[int, int]]]:
    first = {name: head for head, rest in aliases.items() for name in (head, *rest)}
    found: dict[str, tuple[int, int]] = {}

    def count(name: str, conv: nn.Conv2d, args: Any, out: Tensor) -> None:
        calls, macs = found.get(name, (0, 0))
        per_output = conv.in_channels // conv.groups * math.prod(conv.kernel_size)
        found[name] = (calls + 1, macs + out.numel() * per_output)

    handles = [
        conv.register_forward_hook(functools.partial(count, first[name]))
        for name, conv in twin.named_modules()
        if isinstance(conv, nn.Conv2d)
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _fake(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype)


def _fake_twin(model: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """A copy of ``model`` whose parameters and buffers are fake, all on the CPU."""
    memo: dict[int, Any] = {}
    with mode:
        for tensor in (*model.parameters(), *model.buffers()):
            if isinstance(tensor, nn.Parameter):
                memo[id(tensor)] = nn.Parameter(_fake(tensor), requires_grad=tensor.requires_grad)
            else:
                memo[id(tensor)] = _fake(tensor)
    return copy.deepcopy(model, memo)


def _inputs(
    model: nn.Module, input_size: tuple[int, int, int], example_inputs: Sequence[Any] | None
) -> Iterator[tuple[Sequence[Any], tuple[int, int, int] | None]]:
    if example_inputs is not None:
        yield tuple(example_inputs), None
        return
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
    channels = input_size[0]
    fallback = [(channels, side, side) for side in FALLBACK_SIDES]
    for size in dict.fromkeys([input_size, *fallback]):
        yield (torch.empty(WALK_BATCH, *size, dtype=dtype, device="meta"),), size
