"""Compress the CNNs that people already use: small neural ODEs generate their weights."""

from importlib.metadata import version

from puppetize.api import puppetize
from puppetize.config import PuppetConfig
from puppetize.errors import PuppetizeError, PuppetizeWarning
from puppetize.finetune import evaluate, finetune
from puppetize.puppet import Puppet
from puppetize.report import Report

__version__ = version("puppetize")

__all__ = [
    "Puppet",
    "PuppetConfig",
    "PuppetizeError",
    "PuppetizeWarning",
    "Report",
    "evaluate",
    "finetune",
    "puppetize",
]
