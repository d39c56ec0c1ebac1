"""Other packages that experiments compare with, where they are installed."""

import importlib
from typing import Any

NOT_INSTALLED = "not installed"


def peer(name: str) -> Any:
    """Import a package by name, or return None if it is not installed or is broken.

    A package that raises ImportError or AttributeError when it is imported, usually
    because it does not fit the installed JAX, counts as not installed.

    Example:
      >>> peer("no_such_package") is None
      True
    """
    try:
        return importlib.import_module(name)
    except (ImportError, AttributeError):
        return None
