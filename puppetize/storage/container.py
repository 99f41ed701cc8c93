"""One safetensors file: tensors and one JSON document, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from puppetize.errors import PuppetizeError

_T = TypeVar("_T")

_ALIGNMENT = 8
_LENGTH_BYTES = 8
# In the order in which the format's writer lays tensors out.
_DTYPES = {
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float64: "F64",
    torch.complex64: "C64",
    torch.float32: "F32",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_RANKS = {dtype: rank for rank, dtype in enumerate(_DTYPES)}
_KEY = "puppetize"
_DIGEST = "sha256"
_DIGEST_DIGITS = 64


def file_size(tensors: Mapping[str, Tensor], document: Mapping[str, Any] | None = None) -> int:
    """Bytes of the file that :func:`write` makes, without making it.

    Args:
        tensors: by name; only shapes and dtypes are looked at, so ``meta`` tensors do.
        document: what goes into the header's metadata.
    """
    header: dict[str, Any] = {}
    if document is not None:
        header["__metadata__"] = {_KEY: _sealed(document, "0" * _DIGEST_DIGITS)}
    offset = 0
    _check_dtypes(tensors)
    for name in sorted(tensors, key=lambda n: (_RANKS[tensors[n].dtype], n)):
        tensor = tensors[name]
        end = offset + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    length = len(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode())
    return _LENGTH_BYTES + -(-length // _ALIGNMENT) * _ALIGNMENT + offset


def encode(document: Mapping[str, Any]) -> str:
    """Compact JSON with sorted keys: one text for one document."""
    return json.dumps(document, separators=(",", ":"), sort_keys=True, allow_nan=False)


def write(
    path: Path, tensors: Mapping[str, Tensor], document: Mapping[str, Any] | None = None
) -> None:
    """Write a safetensors file; ``document`` goes into its metadata."""
    _check_dtypes(tensors)
    own = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = None
    if document is not None:
        metadata = {_KEY: _sealed(document, _digest(own, document))}
    atomically(path, lambda target: save_file(own, target, metadata=metadata))


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and document of a file that :func:`write` made.

    Raises:
        PuppetizeError: missing, truncated, altered or foreign file.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if _KEY not in metadata:
                raise PuppetizeError(
                    f"{path}: a safetensors file, but not one that puppetize wrote (its metadata "
                    f"has no {_KEY!r}); give the directory of Puppet.save_pretrained"
                )
            document = json.loads(metadata[_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise PuppetizeError(f"{path}: no such file") from error
    except (safetensors.SafetensorError, OSError, ValueError, RecursionError) as error:
        if isinstance(error, PuppetizeError):
            raise
        raise PuppetizeError(
            f"{path}: damaged or not a safetensors file ({error}); copy or save it again"
        ) from error
    if not isinstance(document, dict):
        raise PuppetizeError(f"{path}: its metadata is not a JSON object; save it again")
    if document.pop(_DIGEST, None) != _digest(tensors, document):
        raise PuppetizeError(
            f"{path}: its contents do not match their checksum, so it was damaged or altered after "
            "it was written; copy or save it again"
        )
    return tensors, document


def _sealed(document: Mapping[str, Any], digest: str) -> str:
    return encode({**document, _DIGEST: digest})


def _digest(tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> str:
    """SHA-256 of the document and of all tensors, in the order of their names."""
    digest = hashlib.sha256(encode(document).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def atomically(path: Path, make: Callable[[str], _T]) -> _T:
    """Let ``make`` write a temporary file beside ``path``, then rename it.

    Raises:
        PuppetizeError: the directory cannot be written to, or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
    except OSError as error:
        raise PuppetizeError(f"{path}: cannot be written: {error}") from error
    try:
        made = make(temporary)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except (OSError, safetensors.SafetensorError) as error:
        raise PuppetizeError(f"{path}: cannot be written: {error}") from error
    finally:
        Path(temporary).unlink(missing_ok=True)
    return made


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    atomically(path, lambda target: Path(target).write_text(text, encoding="utf-8"))


def _check_dtypes(tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPES:
            raise PuppetizeError(f"{name!r} has dtype {tensor.dtype}, which cannot be stored")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
