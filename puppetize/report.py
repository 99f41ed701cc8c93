"""What was gained: bytes on disk first, then parameters and multiply-adds."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from typing import Any

from torch import nn

from puppetize.errors import PuppetizeError
from puppetize.macs import count_macs, generation_macs
from puppetize.module import PuppetModule
from puppetize.parts import CONTAINER, GAINS, GENERATED, PUPPETEER, bytes_by_part
from puppetize.plan import PaperCount
from puppetize.planner import paper_count
from puppetize.storage.container import file_size
from puppetize.storage.files import manifest_of, stored_tensors
from puppetize.walk import Walk, walk
from zoo_adapters import adapter_for

_GENERATED, _KEPT = "generated", "kept"


@dataclass(frozen=True)
class SiteReport:
    """One ``Conv2d`` of the original.

    Attributes:
        name: in ``named_modules()``.
        shape: of its weight.
        fate: ``"generated"`` or ``"kept"``.
        reason: why it is kept, or which state and Euler steps generate it.
        macs: multiply-adds for one image; None where they were not counted.
    """

    name: str
    shape: tuple[int, ...]
    fate: str
    reason: str
    macs: int | None


@dataclass(frozen=True)
class Report:
    """What puppetizing a model gains. ``str(report)`` is a table.

    Attributes:
        model: name in its zoo, or its class.
        original_bytes: of the original's state dict as a safetensors file.
        stored_bytes: of the file that ``save_pretrained`` writes, from which the model is rebuilt.
        original_params: trainable numbers of the original.
        stored_params: trainable numbers of the puppet.
        input_size: channels, height, width of the image that MACs are for; None for a network
            that was walked with inputs of its own.
        macs: multiply-adds of the network on one image (fvcore), batch norms included; for inputs
            of its own, those that the walk counted: convolutions and products of matrices.
        generation_macs: multiply-adds of generating all weights once (fvcore).
        paper_count: size by the paper's count, which leaves out norms, biases and the classifier.
        original_parts: bytes of the original by part; they sum to ``original_bytes``.
        stored_parts: bytes of the file by part; they sum to ``stored_bytes``.
        sites: every ``Conv2d`` of the original, in execution order.
    """

    model: str
    original_bytes: int
    stored_bytes: int
    original_params: int
    stored_params: int
    input_size: tuple[int, ...] | None
    macs: int | None
    generation_macs: int
    paper_count: PaperCount
    original_parts: dict[str, int]
    stored_parts: dict[str, int]
    sites: tuple[SiteReport, ...]

    @property
    def ratio(self) -> float:
        """Original bytes over stored bytes."""
        return self.original_bytes / self.stored_bytes

    def to_dict(self) -> dict[str, Any]:
        """All fields and the ratio, ready for JSON."""
        return {**dataclasses.asdict(self), "ratio": self.ratio}

    def __str__(self) -> str:
        paper = self.paper_count
        generated = [site for site in self.sites if site.fate == _GENERATED]
        rows = [
            ("bytes on disk", f"{self.original_bytes:,}", f"{self.stored_bytes:,}"),
            ("  times smaller", "1.0", f"{self.ratio:.1f}"),
            ("parameters", f"{self.original_params:,}", f"{self.stored_params:,}"),
            *self._macs_rows(),
            ("convolutions", f"{len(self.sites)}", f"{len(generated)} generated"),
        ]
        for part in dict.fromkeys([*self.original_parts, *self.stored_parts]):
            before, after = self.original_parts.get(part), self.stored_parts.get(part)
            rows.append((f"bytes: {part}", _count(before), _count(after)))
        lines = [_row((self.model, "original", "puppet")), "-" * 66, *map(_row, rows), "-" * 66]
        kept = Counter(site.reason for site in self.sites if site.fate == _KEPT)
        lines += [f"kept: {number} convolution(s), {reason}" for reason, number in kept.items()]
        lines.append(
            f"by the paper's count (no norms, biases, classifier or container): "
            f"{paper.params / 1e6:.2f} M parameters, {paper.megabytes:.2f} MB"
        )
        return "\n".join(lines)

    def _macs_rows(self) -> list[tuple[str, str, str]]:
        size = "x".join(map(str, self.input_size or ()))
        what = f"one {size} image" if size else "the given inputs"
        rows = []
        if self.macs is not None:
            rows.append((f"MACs, {what}", _count(self.macs), _count(self.macs)))
        return [*rows, ("MACs, generating once", "-", _count(self.generation_macs))]

    def sites_table(self) -> str:
        """One line a convolution, in execution order."""
        lines = [f"{'convolution':<40} {'weight':<18} {'MACs':>14}  fate"]
        for site in self.sites:
            shape = "x".join(map(str, site.shape))
            fate = f"{site.fate}: {site.reason}"
            lines.append(f"{site.name:<40} {shape:<18} {_count(site.macs):>14}  {fate}")
        return "\n".join(lines)


def make_report(puppet: PuppetModule, macs: bool) -> Report:
    """See :meth:`puppetize.Puppet.report`."""
    manifest = manifest_of(puppet)
    document = manifest.to_dict()
    tensors = stored_tensors(puppet)
    stored_bytes = file_size(tensors, document)
    modules = dict(puppet.named_modules(remove_duplicate=False))
    stored_parts = bytes_by_part(tensors, modules, stored_bytes)
    kept = {k: v for k, v in stored_parts.items() if k not in (CONTAINER, PUPPETEER, GAINS)}
    generated = sum(site.numel for site in puppet.plan.sites) * _width(puppet)
    original_parts = {GENERATED: generated, **kept}
    original_parts[CONTAINER] = puppet.original_bytes - sum(original_parts.values())
    found = network_macs = None
    if macs:
        baked = puppet.bake().eval()
        found = puppet.walked or _walk(puppet, baked)
        if found is not None and found.input_size is None:
            network_macs = found.macs
        else:
            network_macs = count_macs(baked, (puppet.data_config.input_size,))
    walked = found or puppet.walked
    own_inputs = walked is not None and walked.input_size is None
    return Report(
        model=type(puppet.network).__name__
        if manifest.source is None
        else manifest.source.full_name,
        original_bytes=puppet.original_bytes,
        stored_bytes=stored_bytes,
        original_params=sum(site.numel for site in puppet.plan.sites)
        + sum(p.numel() for p in puppet.network.parameters()),
        stored_params=sum(p.numel() for p in puppet.parameters()),
        input_size=None if own_inputs else puppet.data_config.input_size,
        macs=network_macs,
        generation_macs=generation_macs(puppet.plan, puppet.config),
        paper_count=paper_count(puppet.plan, puppet.config),
        original_parts=original_parts,
        stored_parts=stored_parts,
        sites=_sites(puppet, found),
    )


def _sites(puppet: PuppetModule, walked: Walk | None) -> tuple[SiteReport, ...]:
    macs = {} if walked is None else {conv.name: conv.macs for conv in walked.convs}
    found = {}
    for number, group in enumerate(puppet.plan.groups):
        for site in group.sites:
            last = site.first_step + site.steps - 1
            steps = f"step {last}" if site.steps == 1 else f"steps {site.first_step}-{last}"
            found[site.name] = (site.shape, _GENERATED, f"state {number}, {steps}")
    for kept in puppet.plan.kept:
        found[kept.name] = (kept.shape, _KEPT, kept.reason)
    return tuple(SiteReport(name, *found[name], macs.get(name)) for name in puppet.plan.order)


def _width(puppet: PuppetModule) -> int:
    """Bytes of one generated number in the original."""
    return next(puppet.puppeteer.parameters()).element_size()


def _walk(puppet: PuppetModule, baked: nn.Module) -> Walk | None:
    try:
        options = adapter_for(baked).trace_options(baked)
        return walk(baked, options, puppet.data_config.input_size)
    except PuppetizeError:
        return None  # a network with inputs of its own, which are not stored


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"


def _row(cells: tuple[str, str, str]) -> str:
    return f"{cells[0]:<32} {cells[1]:>16} {cells[2]:>16}"
