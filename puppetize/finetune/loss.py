"""What training minimises."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Weight of an auxiliary head's loss (Szegedy et al., 2015, "Going deeper with convolutions").
_AUXILIARY_WEIGHT = 0.3


class DistillationLoss(nn.Module):
    """Cross entropy with the labels, mixed with the teacher's softened predictions.

    ``(1 - weight) * CE(logits, labels) + weight * T**2 * KL(teacher / T || logits / T)``
    (Hinton et al., 2015, "Distilling the knowledge in a neural network"). Without a teacher it is
    the cross entropy alone. Auxiliary heads (GoogLeNet, Inception) get cross entropy at weight 0.3.

    Args:
        teacher: a frozen network with the same classes, or None.
        weight: of the teacher's part, from 0 to 1.
        temperature: ``T``, positive.
        smoothing: label smoothing of the cross entropy.
    """

    def __init__(
        self,
        teacher: nn.Module | None,
        weight: float = 0.5,
        temperature: float = 4.0,
        smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        # Not a submodule: the teacher is neither trained nor moved nor saved with the loss.
        self._teacher = (teacher,)
        self.weight = weight
        self.temperature = temperature
        self.smoothing = smoothing

    def forward(self, output: Any, images: Tensor, labels: Tensor) -> Tensor:
        """Mean loss over the batch, in float32.

        Args:
            output: of the network: logits of shape (batch, classes), or a tuple of them in which
                auxiliary heads follow the main one.
            images: the batch, for the teacher.
            labels: class numbers of shape (batch,).
        """
        logits, *auxiliary = output if isinstance(output, tuple) else (output,)
        loss = self._cross_entropy(logits, labels)
        for other in auxiliary:
            if isinstance(other, Tensor):
                loss = loss + _AUXILIARY_WEIGHT * self._cross_entropy(other, labels)
        (teacher,) = self._teacher
        if teacher is None:
            return loss
        with torch.no_grad():
            target = teacher(images).float() / self.temperature
        soft = F.kl_div(
            F.log_softmax(logits.float() / self.temperature, dim=-1),
            F.log_softmax(target, dim=-1),
            reduction="batchmean",
            log_target=True,
        )
        return (1 - self.weight) * loss + self.weight * self.temperature**2 * soft

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits.float(), labels, label_smoothing=self.smoothing)
