"""The size of a puppet's file before the puppet exists."""

from __future__ import annotations

import torch
from torch import nn

import zoo_adapters
from puppetize.config import PuppetConfig
from puppetize.plan import Plan
from puppetize.puppeteer import Puppeteer
from puppetize.storage.container import file_size
from puppetize.storage.files import stored_tensors
from puppetize.storage.manifest import Manifest
from zoo_adapters import DataConfig


class Estimate:
    """Bytes of the file that a plan leads to; exact, and without generating anything.

    Args:
        model: the original.
        config: settings that every plan is made with.
        data_config: goes into the file.
        original_bytes: goes into the file.
    """

    def __init__(
        self, model: nn.Module, config: PuppetConfig, data_config: DataConfig, original_bytes: int
    ) -> None:
        self._tensors = stored_tensors(model)
        self._dtypes = {name: tensor.dtype for name, tensor in self._tensors.items()}
        self._config = config
        self._source, self._why = zoo_adapters.identify(model)
        self._data_config = data_config
        self._original_bytes = original_bytes

    def __call__(self, plan: Plan) -> int:
        generated = _generated(plan)
        with torch.device("meta"):
            puppeteer = Puppeteer(plan, self._config)
        for name in generated & self._dtypes.keys():
            puppeteer.to(self._dtypes[name])
            break
        manifest = Manifest(
            self._source,
            self._why,
            self._config,
            plan,
            self._data_config,
            self._original_bytes,
        )
        tensors = {f"puppeteer.{name}": t for name, t in puppeteer.state_dict().items()}
        for name, tensor in self._tensors.items():
            if name not in generated:
                tensors[f"network.{name}"] = tensor
        return file_size(tensors, manifest.to_dict())

    def kept_parts(self, plan: Plan) -> list[tuple[int, str]]:
        """Largest tensors that ``plan`` stores as they are: bytes and names, in falling order."""
        generated = _generated(plan)
        sizes = [
            (tensor.numel() * tensor.element_size(), name)
            for name, tensor in self._tensors.items()
            if name not in generated
        ]
        return sorted(sizes, reverse=True)


def _generated(plan: Plan) -> set[str]:
    """State-dict names of the original's weights that are not stored."""
    return {f"{name}.weight" for site in plan.sites for name in (site.name, *site.aliases)}
