"""The one exception of both packages."""


class PuppetizeError(ValueError):
    """Raised for any input that the library cannot work with.

    The message names the model or file, the layer where there is one, what was expected, what
    came, and what to do about it.
    """
