"""One model's result: the columns of the tables."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["passed", "skipped", "failed"]

_LONGEST_REASON = 500


@dataclass(frozen=True)
class Row:
    """What the sweep found out about one model; None where it did not get so far.

    The first four columns have the names and units of timm's result files.

    Attributes:
        model: name in its zoo.
        img_size: width of the image in pixels.
        param_count: parameters in millions.
        gmacs: multiply-adds of one image, in units of 1e9.
        zoo: the zoo's name.
        family: the file of the zoo that defines the model.
        status: ``"passed"``; ``"skipped"`` where nothing can be generated; ``"failed"``.
        reason: why it was skipped or failed, one line.
        original_bytes: of the original's safetensors file.
        stored_bytes: of the file that ``save_pretrained`` writes.
        ratio: the first over the second.
        max_ratio: the largest that the dial reaches.
        params: parameters, exactly.
        convs: ``Conv2d`` modules, those that share a weight counted each.
        conv_params: numbers in their weights, shared ones counted once.
        sites: weights that are generated.
        kept: convolution weights that are stored.
        kept_reasons: of those, how many for which reason.
        traced: whether ``torch.fx`` could trace the model.
        why_not_traced: the tracer's complaint.
        input_size: channels, height, width of the image; None where inputs are not one image.
        generation_macs: multiply-adds of generating all weights once.
        generation_ms: milliseconds of generating all weights once, median.
        forward_ms: of one forward pass of the original in eval mode, median.
        forward_ms_puppet: of the puppet, weights generated before.
        forward_ms_baked: of the baked model.
        batch: images in a timed pass.
        threads: of a timed pass.
        original_parts: bytes of the original by part.
        stored_parts: bytes of the file by part.
        seconds: that the model took in all.
        max_rss_mb: largest resident memory, 2**20 bytes, the imported libraries included.
        key: digest of all settings and versions.
        options: the settings.
        versions: of the packages that the result depends on.
    """

    model: str
    img_size: int | None = None
    param_count: float | None = None
    gmacs: float | None = None
    zoo: str = ""
    family: str = ""
    status: Status = "failed"
    reason: str = ""
    original_bytes: int | None = None
    stored_bytes: int | None = None
    ratio: float | None = None
    max_ratio: float | None = None
    params: int | None = None
    convs: int | None = None
    conv_params: int | None = None
    sites: int | None = None
    kept: int | None = None
    kept_reasons: dict[str, int] = field(default_factory=dict)
    traced: bool | None = None
    why_not_traced: str = ""
    input_size: tuple[int, int, int] | None = None
    generation_macs: int | None = None
    generation_ms: float | None = None
    forward_ms: float | None = None
    forward_ms_puppet: float | None = None
    forward_ms_baked: float | None = None
    batch: int | None = None
    threads: int | None = None
    original_parts: dict[str, int] = field(default_factory=dict)
    stored_parts: dict[str, int] = field(default_factory=dict)
    seconds: float | None = None
    max_rss_mb: int | None = None
    key: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def full_name(self) -> str:
        """``zoo/model``."""
        return f"{self.zoo}/{self.model}"

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(dataclasses.asdict(self), separators=(",", ":"))

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Row:
        """Inverse of :meth:`to_json`, parsed.

        Raises:
            TypeError: the values are not those of a row.
        """
        size = values.get("input_size")
        return Row(**{**values, "input_size": None if size is None else tuple(size)})


def one_line(text: str) -> str:
    """``text`` without line breaks, cut where nobody reads on."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_REASON else line[: _LONGEST_REASON - 3] + "..."
