"""The size of a puppet's file before the puppet exists."""

from __future__ import annotations

import functools

import torch
from torch import nn

import zoo_adapters
from puppetize.config import PuppetConfig
from puppetize.parts import bytes_by_part
from puppetize.plan import Plan
from puppetize.puppeteer import Puppeteer
from puppetize.storage.container import file_size
from puppetize.storage.files import stored_tensors
from puppetize.storage.manifest import Manifest
from zoo_adapters import DataConfig, ModelSource


class Estimate:
    """Bytes of the file that a plan leads to; exact, and without generating anything.

    Args:
        model: the original.
        config: settings that every plan is made with.
        data_config: goes into the file.

    Attributes:
        original_bytes: of the original's state dict as a safetensors file.
    """

    def __init__(self, model: nn.Module, config: PuppetConfig, data_config: DataConfig) -> None:
        self._model = model
        self._tensors = stored_tensors(model)
        self._config = config
        self._data_config = data_config
        self.original_bytes = file_size(self._tensors)

    @functools.cached_property
    def _identity(self) -> tuple[ModelSource | None, str, str]:
        # Builds the network again, so only for those who ask for a size.
        return (*zoo_adapters.identify(self._model), zoo_adapters.fingerprint(self._model))

    def __call__(self, plan: Plan) -> int:
        """Bytes of the whole file."""
        return self._size(plan, self._puppeteer(plan))

    def original_parts(self, plan: Plan) -> dict[str, int]:
        """Bytes of the original's file by part."""
        modules = dict(self._model.named_modules(remove_duplicate=False))
        return bytes_by_part(self._tensors, modules, self.original_bytes, _generated(plan))

    def stored_parts(self, plan: Plan) -> dict[str, int]:
        """Bytes of the puppet's file by part."""
        puppeteer = self._puppeteer(plan)
        modules = {
            **dict(self._model.named_modules(prefix="network", remove_duplicate=False)),
            **dict(puppeteer.named_modules(prefix="puppeteer")),
        }
        return bytes_by_part(self._stored(plan, puppeteer), modules, self._size(plan, puppeteer))

    def kept_tensors(self, plan: Plan) -> list[tuple[int, str]]:
        """Tensors that ``plan`` stores as they are: bytes and names, in falling order."""
        generated = _generated(plan)
        sizes = [
            (tensor.numel() * tensor.element_size(), name)
            for name, tensor in self._tensors.items()
            if name not in generated
        ]
        return sorted(sizes, reverse=True)

    def _size(self, plan: Plan, puppeteer: Puppeteer) -> int:
        manifest = Manifest(
            *self._identity, self._config, plan, self._data_config, self.original_bytes
        )
        return file_size(self._stored(plan, puppeteer), manifest.to_dict())

    def _stored(self, plan: Plan, puppeteer: Puppeteer) -> dict[str, torch.Tensor]:
        generated = _generated(plan)
        tensors = {f"puppeteer.{name}": t for name, t in puppeteer.state_dict().items()}
        for name, tensor in self._tensors.items():
            if name not in generated:
                tensors[f"network.{name}"] = tensor
        return tensors

    def _puppeteer(self, plan: Plan) -> Puppeteer:
        with torch.device("meta"):
            puppeteer = Puppeteer(plan, self._config)
        first = next(iter(_generated(plan) & self._tensors.keys()), None)
        return puppeteer if first is None else puppeteer.to(self._tensors[first].dtype)


def _generated(plan: Plan) -> set[str]:
    """State-dict names of the original's weights that are not stored."""
    return {f"{name}.weight" for site in plan.sites for name in (site.name, *site.aliases)}
