"""Training a puppet, with or without a teacher."""

from puppetize.finetune.evaluate import Metrics, evaluate
from puppetize.finetune.loop import Epoch, FinetuneResult, finetune

__all__ = ["Epoch", "FinetuneResult", "Metrics", "evaluate", "finetune"]
