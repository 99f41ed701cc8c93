"""The document beside the tensors: everything about a puppet that is not a tensor."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from puppetize.config import PuppetConfig
from puppetize.errors import PuppetizeError
from puppetize.plan import Plan
from zoo_adapters import DataConfig, ModelSource

FORMAT_VERSION = 1


class Manifest(NamedTuple):
    """What rebuilds a puppet, given its tensors.

    Attributes:
        source: recipe of the network; None for one that no zoo builds.
        why_no_source: what stands in the way, for the message that asks for ``model=``.
        structure: fingerprint of the network, to be compared with that of ``model=``.
        config: the puppeteer's settings.
        plan: the plan, so that later planners cannot change old files.
        data_config: the images that the network expects.
        original_bytes: of the original network's state dict as a safetensors file.
    """

    source: ModelSource | None
    why_no_source: str
    structure: str
    config: PuppetConfig
    plan: Plan
    data_config: DataConfig
    original_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "format_version": FORMAT_VERSION,
            "source": None if self.source is None else self.source.to_dict(),
            "why_no_source": self.why_no_source,
            "structure": self.structure,
            "config": self.config.to_dict(),
            "plan": self.plan.to_dict(),
            "data_config": dataclasses.asdict(self.data_config),
            "original_bytes": self.original_bytes,
        }

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Manifest:
        """Inverse of :meth:`to_dict`, after a trip through JSON.

        Raises:
            PuppetizeError: another format version, or anything malformed.
        """
        version = values.get("format_version")
        if version != FORMAT_VERSION:
            raise PuppetizeError(
                f"the file has format version {version!r}, this library reads {FORMAT_VERSION}; "
                "upgrade puppetize"
            )
        try:
            source = values["source"]
            return Manifest(
                source=None if source is None else ModelSource.from_dict(source),
                why_no_source=str(values["why_no_source"]),
                structure=str(values["structure"]),
                config=PuppetConfig.from_dict(values["config"]),
                plan=Plan.from_dict(values["plan"]),
                data_config=DataConfig.from_dict(values["data_config"]),
                original_bytes=_positive(values["original_bytes"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, PuppetizeError):
                raise
            raise PuppetizeError(
                f"the file's configuration is malformed ({type(error).__name__}: {error}); it is "
                "damaged or was not written by puppetize"
            ) from error


def _positive(number: Any) -> int:
    if type(number) is not int or number < 1:
        raise ValueError(f"original_bytes {number!r}: expected a positive integer")
    return number
