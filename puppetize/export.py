"""Baked models in other formats."""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path

import torch
from torch import nn

from puppetize.errors import PuppetizeError
from puppetize.storage.container import atomically


def write_onnx(baked: nn.Module, input_size: tuple[int, int, int], path: Path) -> None:
    """Write a baked model as one ONNX file, for batches of any size.

    Args:
        baked: what :meth:`puppetize.Puppet.bake` gives, in evaluation mode.
        input_size: channels, height, width of the images.
        path: file to write.

    Raises:
        PuppetizeError: the extra ``puppetize[onnx]`` is not installed, or the export fails.
    """
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise PuppetizeError("ONNX needs an extra: pip install 'puppetize[onnx]'") from error
    example = torch.zeros(2, *input_size)
    batch = torch.export.Dim("batch")
    try:
        # The exporter reports its progress with print and with warnings about its own internals.
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                baked,
                (example,),
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=({0: batch},),
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # the exporter raises many kinds
        raise PuppetizeError(
            f"{type(baked).__name__} cannot be exported to ONNX: {type(error).__name__}: {error}"
        ) from error
    assert program is not None
    atomically(path, lambda target: program.save(target))
