from __future__ import annotations

import csv
import math

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from puppetize import Puppet, PuppetConfig, PuppetizeError, evaluate, finetune, puppetize
from puppetize.finetune import Epoch
from puppetize.finetune.loss import DistillationLoss

SMALL = PuppetConfig(width=16, height=32)


def stripes(count, seed):
    """Images of horizontal (0) or vertical (1) stripes of random phase, in noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (count,), generator=generator)
    phase = torch.rand(count, 1, 1, generator=generator) * 8
    wave = torch.sin((torch.arange(16.0)[None, None] + phase) * math.pi / 4).expand(-1, 16, -1)
    images = torch.where(labels[:, None, None] == 1, wave, wave.transpose(1, 2))
    images = images + 0.1 * torch.randn(count, 16, 16, generator=generator)
    return TensorDataset(images[:, None], labels)


def loaders():
    train = DataLoader(
        stripes(256, 0), batch_size=32, shuffle=True, generator=torch.Generator().manual_seed(0)
    )
    return train, DataLoader(stripes(128, 1), batch_size=64)


def small_puppet(seed=0):
    torch.manual_seed(seed)
    network = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 2)),
    )
    return puppetize(network, PuppetConfig(min_saving=1))


def test_training_learns_the_task():
    puppet = small_puppet()
    train, val = loaders()
    before = evaluate(puppet, val)
    result = finetune(puppet, train, val, epochs=4, lr=1e-2, progress=False)
    assert before.top1 < 80
    assert result.best.val_top1 > 95
    assert [epoch.epoch for epoch in result.history] == [0, 1, 2, 3]


def test_the_best_epoch_is_restored():
    puppet = small_puppet()
    train, val = loaders()
    result = finetune(puppet, train, val, epochs=3, lr=1e-2, progress=False)
    now = evaluate(puppet, val)
    assert now.top1 == result.best.val_top1
    assert now.loss == pytest.approx(result.best.val_loss, rel=1e-5)


def test_log_and_checkpoints(tmp_path):
    torch.manual_seed(0)
    puppet = puppetize(timm.create_model("test_resnet", num_classes=2, in_chans=1), SMALL)
    train, val = loaders()
    result = finetune(
        puppet, train, val, epochs=2, output=tmp_path, restore_best=False, progress=False
    )
    with open(tmp_path / "log.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == Epoch._fields
    assert [float(row["val_top1"]) for row in rows] == [e.val_top1 for e in result.history]
    last = Puppet.from_pretrained(tmp_path / "last")
    images = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(last(images), puppet.eval()(images))
    best = Puppet.from_pretrained(tmp_path / "best")
    assert evaluate(best, val).top1 == result.best.val_top1


def test_plain_networks_train_too(tmp_path):
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=2, in_chans=1)
    train, val = loaders()
    finetune(network, train, val, epochs=1, output=tmp_path, progress=False)
    state = load_file(tmp_path / "best.safetensors")
    assert all(torch.equal(state[name], value) for name, value in network.state_dict().items())


def test_evaluate_by_hand():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.anchor = nn.Parameter(torch.zeros(()))

        def forward(self, images):
            return images.flatten(1) + self.anchor

    logits = torch.tensor([[3.0, 1, 0, 0, 0, 0, 0], [9, 8, 7, 6, 5, 4, 3], [0, 0, 0, 2, 0, 0, 1]])
    labels = torch.tensor([0, 6, 6])
    model = Fixed().train()
    metrics = evaluate(model, [(logits[:2], labels[:2]), (logits[2:], labels[2:])])
    assert metrics.top1 == pytest.approx(100 / 3)
    assert metrics.top5 == pytest.approx(200 / 3)
    assert metrics.loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-6)
    assert metrics.images == 3
    assert model.training


def test_distillation_of_the_teacher_itself_costs_nothing():
    teacher = nn.Linear(4, 3)
    images, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])
    loss = DistillationLoss(teacher, weight=1.0)
    assert loss(teacher(images), images, labels).item() == pytest.approx(0, abs=1e-6)
    other = loss(teacher(images) + torch.randn(5, 3), images, labels)
    assert other.item() > 1e-3
    assert list(loss.parameters()) == []


def test_distillation_by_hand():
    logits, images, labels = torch.randn(4, 3), torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    loss = DistillationLoss(nn.Identity(), weight=0.25, temperature=2.0)(logits, images, labels)
    target, found = F.softmax(images / 2, -1), F.softmax(logits / 2, -1)
    soft = (target * (target.log() - found.log())).sum() / 4
    expected = 0.75 * F.cross_entropy(logits, labels) + 0.25 * 4 * soft
    torch.testing.assert_close(loss, expected)


def test_auxiliary_heads_count():
    main, aux, labels = torch.randn(2, 3), torch.randn(2, 3), torch.tensor([0, 1])
    loss = DistillationLoss(None)((main, None, aux), torch.empty(2), labels)
    expected = F.cross_entropy(main, labels) + 0.3 * F.cross_entropy(aux, labels)
    torch.testing.assert_close(loss, expected)


def test_a_loss_that_is_not_finite_is_an_error_and_keeps_the_checkpoint(tmp_path):
    class Breaks(list):
        def __iter__(self):
            self.passes = getattr(self, "passes", 0) + 1
            for images, labels in super().__iter__():
                yield (images * float("nan") if self.passes > 1 else images), labels

    puppet = small_puppet()
    train, val = loaders()
    with pytest.raises(PuppetizeError, match="the loss became nan in epoch 1, step 8; lower lr"):
        finetune(puppet, Breaks(train), val, epochs=3, output=tmp_path, progress=False)
    network = small_puppet().bake()
    assert Puppet.from_pretrained(tmp_path / "last", model=network).report(macs=False)


def test_nothing_to_do_is_an_error():
    puppet = small_puppet()
    train, val = loaders()
    with pytest.raises(PuppetizeError, match="0 epochs"):
        finetune(puppet, train, val, epochs=0)
    with pytest.raises(PuppetizeError, match="0 batches"):
        finetune(puppet, [], val)
    with pytest.raises(PuppetizeError, match="no images"):
        evaluate(puppet, [])


def test_bfloat16_and_sgd():
    puppet = small_puppet()
    train, val = loaders()
    result = finetune(
        puppet, train, val, epochs=3, opt="sgd", lr=0.1, warmup_epochs=1, amp=True,
        channels_last=True, clip_grad=1.0, smoothing=0.1, progress=False,
    )  # fmt: skip
    assert result.best.val_top1 > 90
    assert result.history[0].lr == pytest.approx(0.1 * 7 / 8, rel=1e-2)
    assert all(p.dtype == torch.float32 for p in puppet.parameters())
