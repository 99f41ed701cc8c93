"""The whole way on real images that come with the installation."""

from __future__ import annotations

import html
import time
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from torch import nn

import zoo_adapters
from puppetize import data
from puppetize.api import puppetize
from puppetize.config import PuppetConfig
from puppetize.finetune import Epoch, evaluate, finetune
from puppetize.plots import plot_accuracy, plot_bytes
from puppetize.puppet import Puppet
from puppetize.report import Report
from puppetize.storage.container import write_text

MODEL = "timm/resnet10t"
RATIO = 100.0
# A low state wastes less on the narrow layers of this small network.
CONFIG = PuppetConfig(height=256)
_BATCH = 64
_ORIGINAL_EPOCHS, _ORIGINAL_LR = 6, 3e-3
_PUPPET_EPOCHS, _PUPPET_LR = 10, 4e-3


class DemoResult(NamedTuple):
    """What the demo measured, on 359 test images that neither training nor choices saw.

    Attributes:
        original_top1: of the trained original, in percent.
        puppet_top1: of the puppet after saving, loading and baking, in percent.
        report: of the puppet.
        baked_equals_loaded: whether the plain model's logits are the puppet's, bit for bit.
        seconds: of everything.
    """

    original_top1: float
    puppet_top1: float
    report: Report
    baked_equals_loaded: bool
    seconds: float


def run(output: Path, *, seed: int = 0, console: Console | None = None) -> DemoResult:
    """Train a timm CNN on handwritten digits, puppetize, fine-tune, save, load, bake, compare.

    Args:
        output: directory for the saved puppet, two pictures and ``index.html``.
        seed: of every random choice but the split.
        console: where to tell what happens.
    """
    console = console or Console()
    start = time.perf_counter()
    torch.manual_seed(seed)
    name = MODEL.partition("/")[2]
    config = data.native_config("digits", zoo_adapters.DataConfig())
    splits = data.load("digits", None, config, batch_size=_BATCH, seed=seed)

    console.rule(f"1  train {name} on handwritten digits")
    original = zoo_adapters.create(MODEL, num_classes=splits.num_classes, in_chans=1)
    before = _train(original, splits, None, _ORIGINAL_EPOCHS, _ORIGINAL_LR, console)
    original_top1 = evaluate(original, splits.test).top1

    console.rule(
        f"2  puppetize it, {RATIO:.0f} times smaller, and fine-tune with the original as teacher"
    )
    puppet = puppetize(original, CONFIG, ratio=RATIO)
    puppet.data_config = config
    after = _train(puppet, splits, original, _PUPPET_EPOCHS, _PUPPET_LR, console)

    console.rule("3  save, load, bake, compare")
    folder = output / "puppet"
    puppet.save_pretrained(folder)
    loaded = Puppet.from_pretrained(folder)
    baked = loaded.bake()
    images = next(iter(splits.test))[0]
    with torch.no_grad():
        equal = torch.equal(loaded(images), baked(images))
    result = DemoResult(
        original_top1,
        evaluate(baked, splits.test).top1,
        loaded.report(),
        equal,
        time.perf_counter() - start,
    )
    plot_accuracy(
        {"original": _points(before), "puppet": _points(after)},
        output / "accuracy.png",
        f"{name} on handwritten digits",
    )
    plot_bytes(result.report, output / "bytes.png")
    write_text(output / "index.html", _page(name, result))
    console.print(str(result.report), highlight=False)
    console.print(_summary(result), highlight=False)
    console.print(f"puppet, pictures and page: {output / 'index.html'}", highlight=False)
    return result


def _train(
    model: nn.Module,
    splits: data.Splits,
    teacher: nn.Module | None,
    epochs: int,
    lr: float,
    console: Console,
) -> tuple[Epoch, ...]:
    result = finetune(
        model,
        splits.train,
        splits.val,
        teacher,
        epochs=epochs,
        lr=lr,
        channels_last=True,
        progress=console.is_terminal,
    )
    best = result.best
    console.print(
        f"best of {epochs} epochs: validation top-1 {best.val_top1:.1f} % "
        f"({best.images_per_second:.0f} images/s, {result.history[-1].seconds:.0f} s)",
        highlight=False,
    )
    return result.history


def _points(history: tuple[Epoch, ...]) -> list[tuple[float, float]]:
    return [(epoch.seconds, epoch.val_top1) for epoch in history]


def _summary(result: DemoResult) -> str:
    report = result.report
    same = "bit for bit" if result.baked_equals_loaded else "NOT"
    change = result.puppet_top1 - result.original_top1
    return (
        f"{report.original_bytes:,} bytes, top-1 {result.original_top1:.1f} %  ->  "
        f"{report.stored_bytes:,} bytes, top-1 {result.puppet_top1:.1f} %: "
        f"{report.ratio:.0f} times smaller, {change:+.1f} points on the test images; the baked "
        f"plain model gives the puppet's logits {same}; {result.seconds:.0f} s"
    )


def _page(name: str, result: DemoResult) -> str:
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>puppetize demo: {name}</title>
<style>
body {{ font: 16px/1.5 system-ui; max-width: 50rem; margin: 2rem auto; padding: 0 1rem }}
img {{ max-width: 100% }} pre {{ background: #f4f4f6; padding: 1rem; overflow-x: auto }}
</style>
<h1>{name}, puppetized</h1>
<p>{html.escape(_summary(result))}</p>
<img src="accuracy.png" alt="validation accuracy of original and puppet over training time">
<img src="bytes.png" alt="bytes by part before and after">
<pre>{html.escape(str(result.report))}</pre>
<pre>{html.escape(result.report.sites_table())}</pre>
<p>Load it: <code>Puppet.from_pretrained("puppet")</code>; a plain timm model:
<code>.bake()</code>.</p>
</html>
"""
