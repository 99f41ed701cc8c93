"""Puppets as files."""

from puppetize.storage.container import file_size
from puppetize.storage.files import load, save

__all__ = ["file_size", "load", "save"]
