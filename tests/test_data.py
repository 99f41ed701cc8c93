from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from puppetize import PuppetizeError, data
from zoo_adapters import DataConfig


def test_digits_are_split_without_overlap():
    config = data.native_config("digits", DataConfig())
    splits = data.load("digits", None, config, batch_size=32)
    sizes = [len(loader.dataset) for loader in (splits.train, splits.val, splits.test)]
    assert sum(sizes) == 1797
    assert sizes[1] == round(0.1 * (sizes[0] + sizes[1]))
    train, val = splits.train.dataset.images, splits.val.dataset.images
    assert not set(train.indices) & set(val.indices)
    seen = {image.tobytes() for image in train.dataset.images}
    tested = [image.tobytes() for image in splits.test.dataset.images.images]
    assert len(seen.intersection(tested)) < 5  # two people may write the same 8x8 pixels
    images, labels = next(iter(splits.test))
    assert images.shape == (32, 1, 32, 32)
    assert abs(images.mean()) < 0.1
    assert abs(images.std() - 1) < 0.1
    assert set(labels.tolist()) <= set(range(10))


def test_the_split_follows_the_seed():
    config = data.native_config("digits", DataConfig())
    held_out = [
        data.load("digits", None, config, seed=seed).val.dataset.images.indices
        for seed in (0, 0, 1)
    ]
    assert held_out[0] == held_out[1]
    assert held_out[0] != held_out[2]


@pytest.fixture
def folder(tmp_path):
    pixels = np.random.default_rng(0)
    for part, count in (("train", 20), ("val", 4)):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(count):
                image = pixels.integers(0, 256, (90, 120, 3), dtype=np.uint8)
                Image.fromarray(image).save(tmp_path / part / name / f"{number}.png")
    return tmp_path


def test_folder_of_images(folder):
    splits = data.load("folder", folder, DataConfig((3, 80, 80)), batch_size=8)
    assert splits.num_classes == 2
    assert [len(x.dataset) for x in (splits.train, splits.val, splits.test)] == [36, 4, 8]
    for loader in splits[:3]:
        assert next(iter(loader))[0].shape[1:] == (3, 80, 80)


def test_evaluation_images_are_the_same_each_time(folder):
    splits = data.load("folder", folder, DataConfig((3, 32, 32)), batch_size=8)
    first, second = (next(iter(splits.test))[0] for _ in range(2))
    assert torch.equal(first, second)


def test_grey_networks_see_grey_images(folder):
    config = DataConfig((1, 32, 32), (0.5,), (0.5,))
    assert next(iter(data.load("folder", folder, config).test))[0].shape == (8, 1, 32, 32)


def test_bad_input(folder, tmp_path):
    with pytest.raises(PuppetizeError, match="unknown data set 'mnist1d'"):
        data.load("mnist1d", None, DataConfig())
    with pytest.raises(PuppetizeError, match="say where the images lie"):
        data.load("cifar10", None, DataConfig())
    with pytest.raises(PuppetizeError, match="no such folder"):
        data.load("folder", tmp_path / "nowhere", DataConfig())
    (folder / "val" / "mouse").mkdir()
    Image.new("RGB", (8, 8)).save(folder / "val" / "mouse" / "0.png")
    with pytest.raises(PuppetizeError, match="different classes"):
        data.load("folder", folder, DataConfig())
