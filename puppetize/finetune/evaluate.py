"""Accuracy of a network on a data set."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from puppetize.errors import PuppetizeError


class Metrics(NamedTuple):
    """Means over a data set.

    Attributes:
        loss: cross entropy in nats.
        top1: percent of images whose best class is right.
        top5: percent of images whose five best classes contain the right one.
        images: how many there were.
    """

    loss: float
    top1: float
    top5: float
    images: int


@torch.no_grad()
def evaluate(
    model: nn.Module,
    loader: Iterable[tuple[Tensor, Tensor]],
    *,
    device: torch.device | str | None = None,
    amp: bool = False,
    channels_last: bool = False,
) -> Metrics:
    """Run ``model`` in evaluation mode over ``loader``; its mode is put back afterwards.

    Args:
        model: gives logits of shape (batch, classes).
        loader: batches of images and class numbers.
        device: to run on; the model's own by default.
        amp: compute in bfloat16 where autocast does.
        channels_last: feed images in that memory format.

    Raises:
        PuppetizeError: the loader gives no images.
    """
    device = torch.device(device or next(model.parameters()).device)
    was_training = model.training
    model.to(device).eval()
    total = torch.zeros(3, dtype=torch.float64)
    images_seen = 0
    try:
        for images, labels in loader:
            images, labels = move(images, device, channels_last), labels.to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=amp):
                logits = model(images)
            logits = logits.float()
            best = logits.topk(min(5, logits.shape[-1])).indices == labels[:, None]
            loss = F.cross_entropy(logits, labels, reduction="sum")
            total += torch.stack([loss, best[:, 0].sum(), best.sum()]).double().cpu()
            images_seen += len(images)
    finally:
        model.train(was_training)
    if not images_seen:
        raise PuppetizeError("evaluate: the loader gave no images; is the data set empty?")
    loss_sum, top1, top5 = (total / images_seen).tolist()
    return Metrics(loss_sum, 100 * top1, 100 * top5, images_seen)


def move(images: Tensor, device: torch.device, channels_last: bool) -> Tensor:
    """Images on ``device``, in the wanted memory format."""
    layout = torch.channels_last if channels_last else torch.preserve_format
    return images.to(device, non_blocking=True, memory_format=layout)
