"""What one forward pass does: which convolution weights it uses, in which order, at what cost."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

_KNOWN_NAMESPACES = ("aten", "prim", "prims", "torchvision")


class Watch(TorchDispatchMode):
    """Records, while it is active, what happens to the convolution weights of ``network``.

    A ``Conv2d`` is used when it is called, or when an operation outside it takes its weight.

    Args:
        network: what will run.
        names: of all ``Conv2d`` weights, each with its other names.

    Attributes:
        calls: by name, in the order of first use; 0 where no multiplication used the weight.
        macs: multiply-adds by name.
        total: multiply-adds of everything: convolutions, linear layers, products of matrices,
            attention, recurrent layers.
        unknown: operations of other libraries, whose multiply-adds nobody can tell.
    """

    supports_higher_order_operators = True

    def __init__(self, network: nn.Module, names: Mapping[str, tuple[str, ...]]) -> None:
        super().__init__()
        self.calls: dict[str, int] = {}
        self.macs: dict[str, int] = {}
        self.total = 0
        self.unknown: set[str] = set()
        self._network = network
        self._first = {name: head for head, rest in names.items() for name in (head, *rest)}
        self._path: list[str] = []
        self._running: list[str] = []  # convolutions among them, by their first names
        # Tensors that depend on no input: parameters, buffers and what is computed from them.
        # What comes from a convolution's weight belongs to that convolution, the rest to None.
        self._owner: WeakIdKeyDictionary = WeakIdKeyDictionary()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Everything that runs inside the block is recorded."""
        handles = []
        for tensor in (*self._network.parameters(), *self._network.buffers()):
            self._owner[tensor] = None
        for name, module in self._network.named_modules():
            if isinstance(module, nn.Conv2d) and module._parameters.get("weight") is not None:
                self._owner[module.weight] = self._first[name]
            enter = functools.partial(self._enter, name)
            handles.append(module.register_forward_pre_hook(enter))
            handles.append(module.register_forward_hook(self._leave))
        try:
            with self:
                yield
        finally:
            for handle in handles:
                handle.remove()

    @property
    def where(self) -> str:
        """Name of the innermost module that is running, or was when an error ended the pass."""
        return self._path[-1] if self._path else ""

    def _enter(self, name: str, module: nn.Module, args: Any) -> None:
        self._path.append(name)
        if isinstance(module, nn.Conv2d):
            self._use(self._first[name], calls=1)
            self._running.append(self._first[name])

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self._path.pop()
        if isinstance(module, nn.Conv2d):
            self._running.pop()

    def _use(self, name: str, calls: int = 0, macs: int = 0) -> None:
        self.calls[name] = self.calls.get(name, 0) + calls
        self.macs[name] = self.macs.get(name, 0) + macs

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if getattr(func, "namespace", "") not in _KNOWN_NAMESPACES:
            self.unknown.add(str(func))
            return out
        formula = _FORMULAS.get(f"{func.namespace}.{func._overloadpacket.__name__}")
        tensors = [*_flat(args)]
        owners = [self._owner.get(tensor) for tensor in tensors]
        named = [owner for owner in owners if owner is not None]
        for name in named:
            self._use(name)
        if formula is not None:
            macs = formula(args, out)
            self.total += macs
            running = self._running[-1] if self._running else None
            name = named[0] if named else running
            if name is not None:
                self._use(name, calls=int(name != running), macs=macs)
        elif named and all(tensor in self._owner for tensor in tensors):
            for tensor in _flat((out,)):
                self._owner[tensor] = named[0]
        return out


def _flat(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _flat(value)


Formula = Callable[[tuple[Any, ...], Any], int]


def _convolution(args: tuple[Any, ...], out: Tensor) -> int:
    image, weight, transposed = args[0], args[1], args[6]
    return (image if transposed else out).numel() * weight[0].numel()


def _deformable(args: tuple[Any, ...], out: Tensor) -> int:
    return out.numel() * math.prod(args[1].shape[1:])


def _product(args: tuple[Any, ...], out: Tensor) -> int:
    return out.numel() * args[0].shape[-1]


def _sum_and_product(args: tuple[Any, ...], out: Tensor) -> int:
    return out.numel() * args[1].shape[-1]


def _attention(args: tuple[Any, ...], out: Any) -> int:
    query, key, value = args[:3]
    return math.prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1])


def _recurrent(args: tuple[Any, ...], out: Any) -> int:
    steps = math.prod(args[0].shape[:2])  # of all sequences
    return steps * (math.prod(args[1].shape) + math.prod(args[2].shape))


_FORMULAS: dict[str, Formula] = {
    "aten.convolution": _convolution,
    "aten.mm": _product,
    "aten.bmm": _product,
    "aten.addmm": _sum_and_product,
    "aten.baddbmm": _sum_and_product,
    "aten._scaled_dot_product_flash_attention_for_cpu": _attention,
    "aten._scaled_dot_product_flash_attention": _attention,
    "aten._scaled_dot_product_efficient_attention": _attention,
    "aten._scaled_dot_product_fused_attention_overrideable": _attention,
    "aten.mkldnn_rnn_layer": _recurrent,
    "torchvision.deform_conv2d": _deformable,
}
