"""The training loop."""

from __future__ import annotations

import copy
import csv
import io
import math
import os
import time
from collections.abc import Sized
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch import Tensor, nn

from puppetize.errors import PuppetizeError
from puppetize.finetune.evaluate import evaluate, move
from puppetize.finetune.loss import DistillationLoss
from puppetize.finetune.progress import Progress
from puppetize.puppet import Puppet
from puppetize.storage.container import write, write_text
from puppetize.storage.files import stored_tensors


class Loader(Sized, Protocol):
    """What ``torch.utils.data.DataLoader`` is to the loop: sized batches of (images, labels)."""

    def __iter__(self) -> Any: ...


class Epoch(NamedTuple):
    """One line of the log.

    Attributes:
        epoch: from 0.
        lr: learning rate of the last step.
        train_loss: mean over the epoch's steps.
        val_loss: cross entropy on the validation set, in nats.
        val_top1: percent.
        val_top5: percent.
        images_per_second: training throughput.
        seconds: since training began.
    """

    epoch: int
    lr: float
    train_loss: float
    val_loss: float
    val_top1: float
    val_top5: float
    images_per_second: float
    seconds: float


class FinetuneResult(NamedTuple):
    """What training gave.

    Attributes:
        history: one entry an epoch.
        best: the entry with the highest ``val_top1``.
    """

    history: tuple[Epoch, ...]
    best: Epoch


def finetune(
    model: nn.Module,
    train_loader: Loader,
    val_loader: Loader,
    teacher: nn.Module | None = None,
    *,
    epochs: int = 10,
    opt: str = "adamw",
    lr: float = 2e-3,
    weight_decay: float = 0.02,
    momentum: float = 0.9,
    sched: str = "cosine",
    warmup_epochs: int = 0,
    clip_grad: float | None = None,
    smoothing: float = 0.0,
    distillation_weight: float = 0.5,
    temperature: float = 4.0,
    device: torch.device | str | None = None,
    amp: bool = False,
    channels_last: bool = False,
    restore_best: bool = True,
    output: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> FinetuneResult:
    """Train ``model`` in place.

    Args:
        model: a :class:`puppetize.Puppet`, or any classifier.
        train_loader: batches of images and class numbers.
        val_loader: the same, for choosing the best epoch; not the test split.
        teacher: a trained network with the same classes whose predictions are imitated too.
        epochs: passes over ``train_loader``.
        opt: optimiser, by its timm name.
        lr: highest learning rate.
        weight_decay: of tensors with two or more axes; norms, biases and gains get none.
        momentum: for optimisers that have one.
        sched: learning rate schedule, by its timm name, stepped every batch.
        warmup_epochs: of linear warm-up.
        clip_grad: largest norm of the gradient.
        smoothing: of labels.
        distillation_weight: of the teacher's part of the loss, from 0 to 1.
        temperature: of both sets of logits in that part.
        device: to train on; the model's own by default.
        amp: bfloat16 autocast.
        channels_last: memory format of model and images.
        restore_best: leave ``model`` with the numbers of the best epoch, not the last.
        output: directory for ``log.csv`` and the checkpoints ``best`` and ``last``; each is what
            ``save_pretrained`` writes for a puppet, a safetensors state dict otherwise.
        progress: show a bar.

    Raises:
        PuppetizeError: empty loader, or a loss that is not finite; checkpoints stay.
    """
    if epochs < 1 or not len(train_loader):
        raise PuppetizeError(
            f"finetune: {epochs} epochs of {len(train_loader)} batches: nothing to do"
        )
    device = torch.device(device or next(model.parameters()).device)
    model.to(device)
    if channels_last:
        model.to(memory_format=torch.channels_last)
    if teacher is not None:
        teacher.to(device).eval()
    loss_of = DistillationLoss(teacher, distillation_weight, temperature, smoothing)
    optimizer = create_optimizer_v2(
        model, opt=opt, lr=lr, weight_decay=weight_decay, momentum=momentum
    )
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched=sched,
        num_epochs=epochs,
        warmup_epochs=warmup_epochs,
        warmup_prefix=True,
        step_on_epochs=False,
        updates_per_epoch=len(train_loader),
    )
    folder = None if output is None else Path(output)
    history: list[Epoch] = []
    best_state: dict[str, Tensor] = {}
    start = time.perf_counter()
    step = 0
    with Progress(epochs, len(train_loader), enabled=progress) as bar:
        for epoch in range(epochs):
            model.train()
            epoch_start, loss_sum, images_seen = time.perf_counter(), 0.0, 0
            for images, labels in train_loader:
                images, labels = move(images, device, channels_last), labels.to(device)
                if scheduler is not None:
                    scheduler.step_update(step)
                with torch.autocast(device.type, torch.bfloat16, enabled=amp):
                    loss = loss_of(model(images), images, labels)
                optimizer.zero_grad()
                loss.backward()
                if clip_grad is not None:
                    nn.utils.clip_grad_norm_(model.parameters(), clip_grad)
                value = loss.item()
                if not math.isfinite(value):
                    raise _diverged(value, epoch, step, folder)
                optimizer.step()
                step += 1
                loss_sum += value
                images_seen += len(images)
                rate = images_seen / (time.perf_counter() - epoch_start)
                bar.advance(epoch, value, rate, history[-1].val_top1 if history else None)
            metrics = evaluate(
                model, val_loader, device=device, amp=amp, channels_last=channels_last
            )
            history.append(
                Epoch(
                    epoch=epoch,
                    lr=optimizer.param_groups[0]["lr"],
                    train_loss=loss_sum / len(train_loader),
                    val_loss=metrics.loss,
                    val_top1=metrics.top1,
                    val_top5=metrics.top5,
                    images_per_second=rate,
                    seconds=time.perf_counter() - start,
                )
            )
            is_best = metrics.top1 >= max(past.val_top1 for past in history)
            if is_best and restore_best:
                best_state = copy.deepcopy(model.state_dict())
            if folder is not None:
                _checkpoint(model, folder, is_best, history)
    if best_state:
        model.load_state_dict(best_state)
    return FinetuneResult(
        tuple(history), max(history, key=lambda past: (past.val_top1, past.epoch))
    )


def _checkpoint(model: nn.Module, folder: Path, is_best: bool, history: list[Epoch]) -> None:
    for name in ("last", "best") if is_best else ("last",):
        if isinstance(model, Puppet):
            model.save_pretrained(folder / name)
        else:
            write(folder / f"{name}.safetensors", stored_tensors(model))
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(Epoch._fields)
    rows.writerows(history)
    write_text(folder / "log.csv", text.getvalue())


def _diverged(value: float, epoch: int, step: int, folder: Path | None) -> PuppetizeError:
    kept = "" if folder is None or epoch == 0 else f" The epoch before is in {folder / 'last'}."
    return PuppetizeError(
        f"finetune: the loss became {value} in epoch {epoch}, step {step}; lower lr, or set "
        f"clip_grad.{kept}"
    )
