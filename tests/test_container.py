"""The safetensors file: its size in closed form, and that it is written whole or not at all."""

import os
import stat

import pytest
import torch
from safetensors.torch import save, save_file

from puppetize import PuppetizeError
from puppetize.storage.container import file_size, read, write, write_text

DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
    torch.uint16,
    torch.uint32,
    torch.uint64,
    torch.complex64,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
]

SETS = {
    "nothing": {},
    "scalar": {"a": torch.tensor(1.0)},
    "empty": {"a": torch.zeros(0), "b": torch.zeros(3, 0, 2)},
    "every dtype": {str(d): torch.zeros(n + 1, dtype=d) for n, d in enumerate(DTYPES)},
    "order of wide dtypes": {
        "b": torch.zeros(12345, dtype=torch.float64),
        "a": torch.zeros(1, dtype=torch.int64),
        "c": torch.zeros(1, dtype=torch.float64),
    },
    "order of narrow dtypes": {
        "b": torch.zeros(12345, dtype=torch.float16),
        "a": torch.zeros(1, dtype=torch.bfloat16),
        "c": torch.zeros(1, dtype=torch.int16),
    },
    "names": {
        name: torch.zeros(2, 3)
        for name in (
            "ü",
            "日本.weight",
            "a😀",
            'quote"',
            "back\\slash",
            "\x1f\t\n\x7f\u2028",
            "/",
            "",
        )
    },
    "not contiguous": {"a": torch.zeros(4, 6).t(), "b": torch.zeros(8, 2, 3, 3)[::2]},
    "channels last": {"a": torch.zeros(2, 3, 4, 4).to(memory_format=torch.channels_last)},
}
DOCUMENTS = [None, {}, {"text": 'é"\\/\n😀', "numbers": [1, 2.5, -1e-9], "none": None}]


@pytest.mark.parametrize("document", DOCUMENTS, ids=["none", "empty", "unicode"])
@pytest.mark.parametrize("tensors", SETS.values(), ids=SETS)
def test_size_in_closed_form(tmp_path, tensors, document):
    file = tmp_path / "t.safetensors"
    write(file, tensors, document)
    assert file_size(tensors, document) == os.path.getsize(file)
    on_meta = {name: torch.empty_like(t, device="meta") for name, t in tensors.items()}
    assert file_size(on_meta, document) == os.path.getsize(file)


@pytest.mark.parametrize("length", range(1, 20))
def test_header_is_padded(length):
    tensors = {"n" * length: torch.zeros(length)}
    assert file_size(tensors) == len(save(tensors))


@pytest.mark.parametrize("tensors", SETS.values(), ids=SETS)
def test_what_is_read_is_what_was_written(tmp_path, tensors):
    file = tmp_path / "t.safetensors"
    write(file, tensors, DOCUMENTS[2])
    found, document = read(file)
    assert document == DOCUMENTS[2]
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert (
            found[name]
            .contiguous()
            .view(-1)
            .view(torch.uint8)
            .equal(tensor.contiguous().view(-1).view(torch.uint8))
        )


def test_dtypes_that_the_format_lacks(tmp_path):
    tensors = {"a": torch.zeros(2, dtype=torch.complex128)}
    with pytest.raises(PuppetizeError, match=r"'a' has dtype torch\.complex128"):
        file_size(tensors)
    with pytest.raises(PuppetizeError):
        write(tmp_path / "t.safetensors", tensors)
    assert not list(tmp_path.iterdir())


def test_permissions_are_those_of_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    write(tmp_path / "t.safetensors", {"a": torch.zeros(1)})
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert len(modes) == 1


@pytest.mark.parametrize("where", ["in the middle", "at the rename"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_file(tmp_path, monkeypatch, where, error):
    file = tmp_path / "t.safetensors"
    write(file, {"a": torch.ones(3)}, {})
    before = file.read_bytes()

    def half(tensors, path, metadata=None):
        with open(path, "wb") as target:
            target.write(b"half")
        raise error

    def no_rename(*_):
        raise error

    if where == "in the middle":
        monkeypatch.setattr("puppetize.storage.container.save_file", half)
    else:
        monkeypatch.setattr("os.replace", no_rename)
    expected = PuppetizeError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        write(file, {"a": torch.zeros(3)}, {})
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_text_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    file = tmp_path / "t.json"
    write_text(file, "old")

    def no_rename(*_):
        raise OSError("no")

    monkeypatch.setattr("os.replace", no_rename)
    with pytest.raises(PuppetizeError, match="cannot be written"):
        write_text(file, "new")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(PuppetizeError, match="cannot be written"):
        write(tmp_path / "file" / "t.safetensors", {"a": torch.zeros(1)})


def test_a_foreign_file_is_named_as_such(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "t.safetensors")
    with pytest.raises(PuppetizeError, match="not one that puppetize wrote"):
        read(tmp_path / "t.safetensors")


@pytest.mark.parametrize("text", ["", "nonsense", "[1]", "3", "[" * 100_000, "9" * 10_000])
def test_metadata_that_is_no_document(tmp_path, text):
    save_file({"a": torch.zeros(1)}, tmp_path / "t.safetensors", metadata={"puppetize": text})
    with pytest.raises(PuppetizeError):
        read(tmp_path / "t.safetensors")
