"""Data sets by name, split into training, validation and test."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from timm.data import create_dataset
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import transforms
from torchvision.datasets import ImageFolder

from puppetize.errors import PuppetizeError
from zoo_adapters import DataConfig

Images = Dataset[tuple[Any, int]]
Transform = Callable[[Any], Tensor]

# Part of the training set that is held out for choosing epochs and settings.
VALIDATION_PART = 0.1
# Up to this side images are shifted and flipped for training; larger ones are cropped at random.
_SMALL_SIDE = 64
_DIGITS_TEST_PART = 0.2

DATASETS = ("digits", "cifar10", "cifar100", "folder")


class Splits(NamedTuple):
    """Loaders of one data set.

    Attributes:
        train: shuffled and augmented; the last incomplete batch is left out.
        val: held out of the training set.
        test: the data set's own test split, or the ``val`` folder.
        num_classes: of labels.
    """

    train: DataLoader[Any]
    val: DataLoader[Any]
    test: DataLoader[Any]
    num_classes: int


def native_config(name: str, default: DataConfig) -> DataConfig:
    """How images of a data set are fed to a network that is trained on it.

    Args:
        name: one of :data:`DATASETS`.
        default: what the network expects, kept for image folders.
    """
    if name == "digits":
        return DataConfig((1, 32, 32), (0.305,), (0.32,), "bilinear", 1.0)
    if name == "cifar10":
        mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
        return DataConfig((3, 32, 32), mean, std, "bilinear", 1.0)
    if name == "cifar100":
        mean, std = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
        return DataConfig((3, 32, 32), mean, std, "bilinear", 1.0)
    return default


def load(
    name: str,
    data_dir: str | os.PathLike[str] | None,
    config: DataConfig,
    *,
    batch_size: int = 128,
    workers: int = 0,
    seed: int = 0,
) -> Splits:
    """Open a data set.

    Args:
        name: ``digits`` (comes with scikit-learn), ``cifar10``, ``cifar100`` (downloaded to
            ``data_dir`` where they are missing), or ``folder`` (``data_dir/train/CLASS/*`` and
            ``data_dir/val/CLASS/*``).
        data_dir: where it lies.
        config: size and normalisation of the images.
        batch_size: images a batch.
        workers: processes that load images.
        seed: of the held-out part and of the shuffling.

    Raises:
        PuppetizeError: unknown name, missing or empty folder, or no network to download from.
    """
    if name not in DATASETS:
        raise PuppetizeError(f"unknown data set {name!r}; known: {', '.join(DATASETS)}")
    for_train, for_test = _transforms(name, config)
    training, testing, classes = _open(name, data_dir, config)
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(training))  # type: ignore[arg-type]
    held_out = max(1, round(VALIDATION_PART * len(order)))
    generator = torch.Generator().manual_seed(seed)

    def loader(images: Images, transform: Transform, train: bool) -> DataLoader[Any]:
        return DataLoader(
            _Transformed(images, transform),
            batch_size=batch_size,
            shuffle=train,
            drop_last=train and len(images) >= batch_size,  # type: ignore[arg-type]
            num_workers=workers,
            generator=generator,
        )

    return Splits(
        loader(Subset(training, order[held_out:].tolist()), for_train, train=True),
        loader(Subset(training, order[:held_out].tolist()), for_test, train=False),
        loader(testing, for_test, train=False),
        classes,
    )


class _Transformed(Dataset[tuple[Tensor, int]]):
    def __init__(self, images: Images, transform: Transform) -> None:
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = self.images[index]
        return self.transform(image), label


class _Digits(Dataset[tuple[Any, int]]):
    """1,797 handwritten digits of 8x8 pixels in 17 shades (Alpaydin and Kaynak, 1998)."""

    def __init__(self, indices: Sequence[int]) -> None:
        digits = load_digits()
        self.images = (digits.images[list(indices)] * (255 / 16)).astype(np.uint8)
        self.labels = digits.target[list(indices)]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return Image.fromarray(self.images[index]), int(self.labels[index])


def _open(
    name: str, data_dir: str | os.PathLike[str] | None, config: DataConfig
) -> tuple[Images, Images, int]:
    if name == "digits":
        order = np.random.Generator(np.random.Philox(0)).permutation(1797).tolist()
        tested = round(_DIGITS_TEST_PART * len(order))
        return _Digits(order[tested:]), _Digits(order[:tested]), 10
    if data_dir is None:
        raise PuppetizeError(f"{name}: say where the images lie (--data-dir)")
    root = Path(data_dir)
    if name == "folder":
        for part in ("train", "val"):
            if not (root / part).is_dir():
                raise PuppetizeError(
                    f"{root / part}: no such folder; expected {root}/train/CLASS/*.jpg and "
                    f"{root}/val/CLASS/*.jpg"
                )
        try:
            training, testing = ImageFolder(root / "train"), ImageFolder(root / "val")
        except FileNotFoundError as error:
            raise PuppetizeError(f"{root}: {error}") from error
        if training.classes != testing.classes:
            raise PuppetizeError(f"{root}: train and val have different classes")
        return training, testing, len(training.classes)
    try:
        sets = [
            create_dataset(f"torch/{name}", root=str(root), split=split, download=True)
            for split in ("train", "validation")
        ]
    except (OSError, RuntimeError) as error:
        raise PuppetizeError(
            f"{name}: not found in {root} and it cannot be downloaded ({error}); put torchvision's "
            "files there"
        ) from error
    return sets[0], sets[1], len(sets[0].classes)


def _transforms(name: str, config: DataConfig) -> tuple[Transform, Transform]:
    channels, *size = config.input_size
    how = transforms.InterpolationMode(config.interpolation)
    convert = [transforms.Grayscale()] if channels == 1 else [_to_rgb]
    finish = [transforms.ToTensor(), transforms.Normalize(config.mean, config.std)]
    if max(size) <= _SMALL_SIDE:
        resize = [*convert, transforms.Resize(size, how)]
        move = [
            transforms.RandomCrop(size, padding=max(size) // 8),
            transforms.RandomHorizontalFlip(),
        ]
        # Digits come centred, and a mirrored digit is none.
        train = [*resize, *([] if name == "digits" else move), *finish]
        return transforms.Compose(train), transforms.Compose([*resize, *finish])
    crop = [
        transforms.RandomResizedCrop(size, interpolation=how),
        transforms.RandomHorizontalFlip(),
    ]
    larger = [round(side / config.crop_pct) for side in size]
    centre = [transforms.Resize(min(larger), how), transforms.CenterCrop(size)]
    train = [*convert, *crop, *finish]
    return transforms.Compose(train), transforms.Compose([*convert, *centre, *finish])


def _to_rgb(image: Image.Image) -> Image.Image:
    return image.convert("RGB")
