import io

import pytest
import torch
from PIL import Image
from rich.console import Console

from puppetize import Puppet, demo


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """The demo with one epoch each; what it reaches in full is in benchmarks/demo.py."""
    folder = tmp_path_factory.mktemp("demo")
    patch = pytest.MonkeyPatch()
    patch.setattr(demo, "_ORIGINAL_EPOCHS", 1)
    patch.setattr(demo, "_PUPPET_EPOCHS", 1)
    text = io.StringIO()
    result = demo.run(folder, console=Console(file=text, width=200))
    patch.undo()
    return folder, result, text.getvalue()


def test_it_goes_the_whole_way(shown):
    _, result, _ = shown
    assert result.baked_equals_loaded
    assert result.report.ratio == pytest.approx(demo.RATIO, rel=0.05)
    assert max(result.original_top1, result.puppet_top1) > 20


def test_it_leaves_puppet_pictures_and_page(shown):
    folder, result, text = shown
    puppet = Puppet.from_pretrained(folder / "puppet")
    size = (folder / "puppet" / "model.safetensors").stat().st_size
    assert puppet.report(macs=False).stored_bytes == result.report.stored_bytes == size
    assert puppet(torch.zeros(1, 1, 32, 32)).shape == (1, 10)
    for name in ("accuracy.png", "bytes.png"):
        with Image.open(folder / name) as picture:
            assert picture.width > 500
            assert len(picture.convert("RGB").getcolors(maxcolors=10**6)) > 5
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert 'src="accuracy.png"' in page
    assert 'src="bytes.png"' in page
    assert f"{size:,} bytes" in page
    assert f"{size:,} bytes" in text
    assert all(site.name in page for site in result.report.sites)
    assert {path.name for path in folder.iterdir()} == {
        "accuracy.png",
        "bytes.png",
        "index.html",
        "puppet",
    }
