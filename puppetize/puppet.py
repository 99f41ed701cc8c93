"""The puppet: what :func:`puppetize.puppetize` returns."""

from __future__ import annotations

import os
from pathlib import Path

from torch import fx, nn

from puppetize import card, graph, report, storage
from puppetize.module import PuppetModule
from puppetize.report import Report


class Puppet(PuppetModule):
    """A network and the puppeteer that generates its convolution weights.

    It is called like the network, trains like any module, and passes every other attribute and
    method on to the network (``forward_features``, ``default_cfg``, ``reset_classifier``, ...).
    Made by :func:`puppetize.puppetize` or :meth:`from_pretrained`.
    """

    def graph_module(self) -> fx.GraphModule:
        """The puppet as a ``torch.fx`` graph: the puppeteer on top, weights as edges.

        It shares the puppet's parameters, and stands for the mode (train or eval) that the puppet
        is in.

        Raises:
            PuppetizeError: the network cannot be traced; the message says why.
        """
        return graph.graph_module(self)

    def report(self, macs: bool = True) -> Report:
        """What was gained: bytes, parameters, multiply-adds, and the fate of each convolution.

        Args:
            macs: count multiply-adds, which runs the network once on one image.
        """
        return report.make_report(self, macs=macs)

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write ``model.safetensors``, ``config.json`` and a model card to ``directory``.

        The first is complete: the other two repeat what is in it. Each is written under another
        name and renamed.
        """
        storage.save(self, Path(directory), card.model_card(self.report(macs=False)))

    @classmethod
    def from_pretrained(
        cls, path: str | os.PathLike[str], model: nn.Module | None = None
    ) -> Puppet:
        """Load what :meth:`save_pretrained` wrote: its directory or its safetensors file.

        Args:
            path: directory or file.
            model: a network of the same architecture, for one that no zoo builds; it is not
                changed, and none of its numbers are used.

        Raises:
            PuppetizeError: the file is missing, damaged, from a newer version, or does not fit.
        """
        return cls(**storage.load(Path(path), model))
