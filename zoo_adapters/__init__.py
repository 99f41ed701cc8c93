"""Zoos of models behind one small protocol.

An adapter knows how its zoo builds, names, feeds and traces models, and nothing of how their
weights are generated.
"""

from zoo_adapters.errors import PuppetizeError
from zoo_adapters.protocol import DataConfig, ModelSource, TraceOptions, ZooAdapter
from zoo_adapters.rebuild import fingerprint
from zoo_adapters.registry import (
    adapter_for,
    create,
    guess,
    identify,
    list_models,
    rebuild,
    zoos,
)

__all__ = [
    "DataConfig",
    "ModelSource",
    "PuppetizeError",
    "TraceOptions",
    "ZooAdapter",
    "adapter_for",
    "create",
    "fingerprint",
    "guess",
    "identify",
    "list_models",
    "rebuild",
    "zoos",
]
