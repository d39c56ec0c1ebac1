"""Derivatives and gradient descent in JAX, as pure functions.

Importing this package loads no submodule, builds no array and starts no backend. Each
submodule, such as `research.descent`, is imported when it is first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
