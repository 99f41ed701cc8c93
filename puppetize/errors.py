"""Home of the library's one exception, and of its one warning."""

from zoo_adapters import PuppetizeError


class PuppetizeWarning(UserWarning):
    """Something legitimate that will probably not give what its caller hopes for."""


__all__ = ["PuppetizeError", "PuppetizeWarning"]
