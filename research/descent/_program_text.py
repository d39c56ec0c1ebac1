"""The text of a program before it is compiled, for comparing programs."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

from research.derivatives.costs.jaxprs import inner


def program_text(traced: Any, lowered: Any = None) -> str:
    """Return the text of a program: its operations, shapes, dtypes and constants.

    The text is that which JAX writes before it compiles. It is the same in every
    process on the same kind of device. It does not have the code of Python functions
    that the compiled program calls (callbacks).

    Args:
      traced: Result of `jax.jit(function).trace(*arguments)`.
      lowered: Result of `traced.lower()`; None means that it is lowered here.
    """
    text = (lowered or traced.lower()).as_text()
    if "jax.const" not in text:
        return text
    # JAX then only counts the constants in the text.
    return f"{text} {arrays_digest(_constants(traced.jaxpr.jaxpr))}"


def program_facts(traced: Any, lowered: Any) -> dict[str, str]:
    """Return what identifies a program in a checkpoint, as JSON values.

    Texts of two versions of JAX, or for two kinds of device, are not comparable, so
    both facts stand beside the digest of the text. If the program calls Python
    functions, the digest is empty.
    """
    text = program_text(traced, lowered)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return {
        "jax": jax.__version__,
        "platform": jax.default_backend(),
        "digest": "" if "callback" in text else digest,
    }


def arrays_digest(arrays: Iterable[Any]) -> str:
    """Return a digest of the dtypes, shapes and bytes of arrays."""
    digest = hashlib.sha256()
    for array in map(np.asarray, arrays):
        digest.update(f"{array.dtype} {array.shape} ".encode() + array.tobytes())
    return digest.hexdigest()


def _constants(jaxpr: Any) -> Iterator[Any]:
    """Yield the arrays that are written into the equations of a jaxpr."""
    for equation in jaxpr.eqns:
        values = (getattr(operand, "val", 0.0) for operand in equation.invars)
        yield from (value for value in values if np.ndim(value))
        for part in inner(equation):
            yield from _constants(part)
