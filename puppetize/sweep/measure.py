"""One model's row."""

from __future__ import annotations

import dataclasses
import math
import time
import warnings
from collections import Counter
from typing import Any

import torch
from torch import nn

import zoo_adapters
from puppetize.analysis import Analysis, analyse
from puppetize.macs import generation_macs
from puppetize.sweep.row import Row, Status, one_line
from puppetize.sweep.settings import Settings
from puppetize.sweep.trial import run_trial

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

# How torch, the C++ library and CUDA word it; the first also through errors that quote another's.
_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "bad_alloc", "out of memory")


def measure(name: str, settings: Settings) -> Row:
    """Find out what puppetizing ``zoo/model`` gives; whatever goes wrong is the row's reason.

    Args:
        name: with its zoo in front.
        settings: without ``run``, the model is built on the meta device and nothing is computed.
    """
    started = time.perf_counter()
    columns: dict[str, Any] = {}
    status, reason = _fill(columns, name, settings)
    columns.update(status=status, reason=one_line(reason), seconds=time.perf_counter() - started)
    if resource is not None:
        columns["max_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return dataclasses.replace(empty_row(name, settings), **columns)


def empty_row(name: str, settings: Settings) -> Row:
    """What is known of a row before anything is measured."""
    zoo, _, model = name.partition("/")
    return Row(
        model, zoo=zoo, key=settings.key, options=settings.options(), versions=settings.versions
    )


def _fill(columns: dict[str, Any], name: str, settings: Settings) -> tuple[Status, str]:
    """Fill in columns as far as it goes; the status and the reason for it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = _build(name, settings)
            columns.update(_facts(name, model))
            found = analyse(model, settings.config, ratio=settings.ratio)
            columns.update(_structure(found, settings))
            if not found.plan.groups:
                reasons = ", ".join(columns["kept_reasons"])
                return "skipped", f"none of its Conv2d layers can be generated ({reasons})"
            if settings.run:
                columns.update(run_trial(model, found, settings))
    except MemoryError:
        return "failed", "out of memory"
    except Exception as error:  # a sweep goes on whatever a model raises
        if columns.get("convs") == 0:
            return "skipped", str(error)
        if any(words in str(error) for words in _OUT_OF_MEMORY):
            return "failed", f"out of memory: {error}"
        known = isinstance(error, zoo_adapters.PuppetizeError)
        return "failed", str(error) if known else f"{type(error).__name__}: {error}"
    return "passed", ""


def _build(name: str, settings: Settings) -> nn.Module:
    classes = settings.num_classes
    kwargs = {} if classes is None else {"num_classes": classes}
    if settings.run:
        torch.manual_seed(0)
        return zoo_adapters.create(name, **kwargs).to(settings.device).eval()
    try:
        with torch.device("meta"):
            return zoo_adapters.create(name, **kwargs)
    except Exception:  # a model that looks at its own numbers while it is built
        return zoo_adapters.create(name, **kwargs)


def _facts(name: str, model: nn.Module) -> dict[str, Any]:
    convs = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    weights = {
        id(conv._parameters.get("weight", conv)): math.prod(
            (conv.out_channels, conv.in_channels // conv.groups, *conv.kernel_size)
        )
        for conv in convs
    }
    params = sum(parameter.numel() for parameter in model.parameters())
    return {
        "family": _family(name, model),
        "params": params,
        "param_count": round(params / 1e6, 2),
        "convs": len(convs),
        "conv_params": sum(weights.values()),
    }


def _family(name: str, model: nn.Module) -> str:
    """What the zoo's adapter says, if it has a ``family(name)``; else the home of the class."""
    zoo, _, short = name.partition("/")
    family = getattr(zoo_adapters.zoos()[zoo], "family", None)
    return type(model).__module__.rpartition(".")[2] if family is None else family(short)


def _structure(found: Analysis, settings: Settings) -> dict[str, Any]:
    return {
        "img_size": found.data_config.input_size[-1] if found.walk.input_size else None,
        "input_size": found.walk.input_size,
        "gmacs": None if found.walk.macs is None else found.walk.macs / 1e9,
        "original_bytes": found.original_bytes,
        "stored_bytes": found.stored_bytes,
        "ratio": found.original_bytes / found.stored_bytes,
        "max_ratio": found.largest_ratio,
        "sites": len(list(found.plan.sites)),
        "kept": len(found.plan.kept),
        "kept_reasons": dict(Counter(kept.reason for kept in found.plan.kept)),
        "traced": found.walk.traced,
        "why_not_traced": one_line(found.walk.why_not_traced),
        "generation_macs": generation_macs(found.plan, settings.config),
        "original_parts": found.original_parts,
        "stored_parts": found.stored_parts,
    }
