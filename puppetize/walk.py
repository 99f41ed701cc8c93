"""The walk: every ``Conv2d`` of a model, in execution order, with shapes and MACs.

A copy of the model runs once on fake tensors (shapes without numbers), which allocates nothing,
and is traced by ``torch.fx``; the model itself never runs. Only where an operation refuses fake
tensors does a copy with numbers run.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torchvision
from torch import Tensor, fx, nn
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedFakeTensorException,
    UnsupportedOperatorException,
)
from torch.utils._pytree import tree_leaves, tree_map_only

from puppetize.assume import Assume
from puppetize.errors import PuppetizeError
from puppetize.twin import fake, fake_twin, real_twin
from puppetize.watch import Watch
from zoo_adapters import TraceOptions, adapter_for

# Two images: a batch norm in training mode refuses a single value a channel.
WALK_BATCH = 2

# Tried in turn for a network whose input size nobody has told.
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
        traced: whether ``torch.fx`` can trace the model symbolically.
        why_not_traced: the tracer's complaint.
        macs: multiply-adds of one image's forward pass in eval mode: convolutions, linear layers,
            products of matrices, attention, recurrent layers. None where the model calls
            operations of other libraries.
        assumed: the operation whose result has a shape that depends on values, where the model
            has one; then shapes, and multiply-adds with them, are the largest possible.
    """

    convs: tuple[ConvRecord, ...]
    input_size: tuple[int, int, int] | None
    traced: bool
    why_not_traced: str = ""
    macs: int | None = None
    assumed: str = ""


class _Tracer(fx.Tracer):
    """Keeps every ``Conv2d`` whole, whatever its subclass does, and a zoo's leaf modules."""

    def __init__(self, options: TraceOptions) -> None:
        super().__init__((math, torchvision.ops), options.leaf_functions)
        self._leaves: tuple[type[nn.Module], ...] = (nn.Conv2d, *options.leaf_modules)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, self._leaves) or super().is_leaf_module(m, module_qualified_name)


def trace(model: nn.Module, options: TraceOptions) -> fx.GraphModule:
    """Symbolic trace of ``model`` as it stands (train or eval), every ``Conv2d`` one node.

    Raises:
        Exception: whatever ``torch.fx`` raises for a model with data-dependent control flow.
    """
    return fx.GraphModule(model, _Tracer(options).trace(model))


def walk(
    model: nn.Module,
    options: TraceOptions,
    input_size: tuple[int, int, int],
    example_inputs: Any = None,
) -> Walk:
    """Find every ``Conv2d`` of ``model`` in execution order.

    One pass in eval mode finds what inference runs; a second in train mode, where something is
    still missing, finds the rest (auxiliary heads).

    Args:
        model: any module, on any device (``meta`` included); it is neither run nor changed.
        options: how to trace it.
        input_size: channels, height, width of the images to walk with. Where they do not fit the
            model, other usual sizes are tried.
        example_inputs: arguments of ``forward`` instead, for models that take more than one batch
            of images: a sequence of positional arguments, a mapping of keyword arguments, or one
            tensor. Without it, the adapter of the model's zoo is asked.

    Raises:
        PuppetizeError: no input was found with which the model runs, or it cannot be copied.
    """
    inputs = [*_inputs(model, input_size, example_inputs)]
    names = conv_names(model)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    twin = fake_twin(model, mode)
    failed: _Pass | None = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are about images that are none
        for arguments in inputs:
            found = _run(twin.eval(), names, mode, arguments)
            if found.error is None:
                return _finish(model, twin, options, names, mode, arguments, found)
            if _refuses_fake_tensors(found.error):
                real = real_twin(model)
                found = _run(real.eval(), names, None, arguments)
                if found.error is None:
                    return _finish(model, real, options, names, None, arguments, found)
            failed = failed or found
    assert failed is not None
    raise PuppetizeError(_complaint(model, failed, [a.label for a in inputs]))


def conv_names(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Every ``Conv2d`` weight's first name in ``named_modules()`` order, with all other names."""
    names: dict[int, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, nn.Conv2d):
            weight = module._parameters.get("weight")
            names.setdefault(id(module if weight is None else weight), []).append(name)
    return {first: tuple(rest) for first, *rest in names.values()}


class _Arguments(NamedTuple):
    """What ``forward`` is called with, and how many images that is."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    batch: int
    size: tuple[int, int, int] | None
    label: str


class _Pass(NamedTuple):
    """One run of the twin: what it used, what had to be assumed, and the error that ended it."""

    watch: Watch
    assumed: str
    error: Exception | None


class _Seen(NamedTuple):
    calls: int = 0
    macs: int = 0
    mode: str = ""


def _finish(
    model: nn.Module,
    twin: nn.Module,
    options: TraceOptions,
    names: Mapping[str, tuple[str, ...]],
    mode: FakeTensorMode | None,
    arguments: _Arguments,
    found: _Pass,
) -> Walk:
    seen = _seen(found.watch, arguments.batch, "eval")
    if len(seen) < len(names):
        # It may stop where training asks for more arguments; what it reached until then counts.
        training = _run(twin.train(), names, mode, arguments)
        if training.error is not None and arguments.batch == 1:
            arguments = _twice(arguments)
            training = _run(twin.train(), names, mode, arguments)
        seen = {**_seen(training.watch, arguments.batch, "train"), **seen}
        late = [name for name in seen if seen[name].mode == "train"]
        seen = {name: seen[name] for name in [*found.watch.calls, *late]}
    modules = dict(model.named_modules(remove_duplicate=False))
    order = [*seen, *(name for name in names if name not in seen)]
    convs = tuple(
        _record(name, names[name], modules[name], seen.get(name, _Seen())) for name in order
    )
    watch = found.watch
    macs = None if watch.unknown else watch.total // arguments.batch
    why = _why_not_traced(twin.eval(), options, mode)
    return Walk(convs, arguments.size, not why, why, macs, found.assumed)


def _seen(watch: Watch, batch: int, mode: str) -> dict[str, _Seen]:
    return {
        name: _Seen(max(calls, 1), watch.macs[name] // batch, mode)
        for name, calls in watch.calls.items()
    }


def _record(name: str, aliases: tuple[str, ...], conv: nn.Module, seen: _Seen) -> ConvRecord:
    assert isinstance(conv, nn.Conv2d)
    shape = (conv.out_channels, conv.in_channels // conv.groups, *conv.kernel_size)
    stride = tuple(conv.stride)
    return ConvRecord(name, aliases, shape, stride, conv.groups, *seen)  # type: ignore[arg-type]


def _run(
    twin: nn.Module,
    names: Mapping[str, tuple[str, ...]],
    mode: FakeTensorMode | None,
    arguments: _Arguments,
) -> _Pass:
    assumed = ""
    while True:
        watch = Watch(twin, names)
        with mode or nullcontext(), torch.no_grad(), _quiet():
            convert = _with_numbers if mode is None else fake
            args, kwargs = tree_map_only(Tensor, convert, (arguments.args, arguments.kwargs))
            try:
                with Assume() if assumed else nullcontext(), watch.watching():
                    twin(*args, **kwargs)
                return _Pass(watch, assumed, None)
            except (DynamicOutputShapeException, DataDependentOutputException) as error:
                if assumed:
                    return _Pass(watch, assumed, error)
                assumed = str(error.func)
            except Exception as error:  # a network may raise anything for what does not fit it
                return _Pass(watch, assumed, error)


def _refuses_fake_tensors(error: Exception) -> bool:
    refused = (UnsupportedOperatorException, UnsupportedFakeTensorException)
    said = ("FakeTensor", "tensor subclasses")  # by .numpy() and by what reads memory
    return isinstance(error, refused) or any(words in str(error) for words in said)


def _why_not_traced(twin: nn.Module, options: TraceOptions, mode: FakeTensorMode | None) -> str:
    with mode or nullcontext(), torch.no_grad(), _quiet():
        try:
            trace(twin, options)
        except Exception as error:  # torch.fx raises many kinds for control flow on values
            return f"{type(error).__name__}: {error}"
    return ""


def _complaint(model: nn.Module, failed: _Pass, tried: list[str]) -> str:
    error, name = failed.error, type(model).__name__
    layer = failed.watch.where
    place = f" at {layer!r} ({type(model.get_submodule(layer)).__name__})" if layer else ""
    shown = ", ".join(tried[:3]) + (", ..." if len(tried) > 3 else "")
    return (
        f"{name} does not run on {shown}: {type(error).__name__}{place}: {_short(str(error))}. "
        f"Pass example_inputs= with what {name}.forward takes: a tuple of positional arguments, "
        "or a dict of keyword arguments"
    )


def _short(text: str, limit: int = 300) -> str:
    line = " ".join(text.split()).rstrip(".")
    return line if len(line) <= limit else f"{line[:limit]} ..."


def _with_numbers(tensor: Tensor) -> Tensor:
    on_meta = tensor.device.type == "meta"
    return torch.zeros(tensor.shape, dtype=tensor.dtype) if on_meta else tensor.cpu()


@contextmanager
def _quiet() -> Iterator[None]:
    """Fake tensors log a traceback for each input that does not fit; it is raised as well."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _inputs(
    model: nn.Module, input_size: tuple[int, int, int], example_inputs: Any
) -> Iterator[_Arguments]:
    if example_inputs is not None:
        yield _arguments(example_inputs, "the given example_inputs")
        return
    of_zoo = adapter_for(model).example_inputs(model)
    if of_zoo is not None:
        yield _arguments(of_zoo, "the inputs that its zoo gives for it")
        return
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
    channels = dict.fromkeys([input_size[0], 3])
    fallback = [(c, side, side) for c in channels for side in FALLBACK_SIDES]
    for size in dict.fromkeys([input_size, *fallback]):
        images = torch.empty(WALK_BATCH, *size, dtype=dtype, device="meta")
        label = "images of size " + "x".join(map(str, size))
        yield _Arguments((images,), {}, WALK_BATCH, size, label)


def _arguments(values: Any, label: str) -> _Arguments:
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    if isinstance(values, Tensor):
        args = (values,)
    elif isinstance(values, Mapping):
        kwargs = dict(values)
    elif isinstance(values, Sequence) and not isinstance(values, str):
        args = tuple(values)
    else:
        raise PuppetizeError(
            f"example_inputs is a {type(values).__name__}: expected a tensor, a sequence of "
            "positional arguments of forward, or a mapping of keyword arguments"
        )
    return _Arguments(args, kwargs, _batch([*args, *kwargs.values()]), None, label)


def _batch(arguments: list[Any]) -> int:
    """Images in the first argument that has any: a list of images may hold them one by one."""
    for argument in arguments:
        if isinstance(argument, Tensor):
            return len(argument) if argument.dim() else 1
        tensors = [leaf for leaf in tree_leaves(argument) if isinstance(leaf, Tensor)]
        if tensors:
            alone = isinstance(argument, (list, tuple)) and tensors[0].dim() < 4
            return len(tensors) if alone else _batch(tensors)
    return 1


def _twice(arguments: _Arguments) -> _Arguments:
    """Two of a single image, for batch norms in training mode."""

    def repeat(tensor: Tensor) -> Tensor:
        batched = tensor.dim() > 1 and len(tensor) == 1
        return tensor.expand(2, *tensor.shape[1:]) if batched else tensor

    args, kwargs = tree_map_only(Tensor, repeat, (arguments.args, arguments.kwargs))
    return arguments._replace(args=args, kwargs=kwargs, batch=2)
