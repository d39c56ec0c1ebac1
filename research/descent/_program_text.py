"""The text of a program before it is compiled, for comparing programs."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np

from research.derivatives.costs.jaxprs import inner


def program_text(traced: Any, lowered: Any = None) -> str:
    """Return the text of a program: its operations, shapes, dtypes and constants.

    The text is that which JAX writes before it compiles. It is the same in every
    process on the same kind of device. It does not contain the code of Python functions
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

    Texts of two versions of JAX or jaxlib, or for two kinds of device, are not
    comparable, so these facts stand beside the digest of the text.
    """
    text = program_text(traced, lowered)
    return {
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "platform": jax.default_backend(),
        "digest": hashlib.sha256(text.encode()).hexdigest(),
    }


def arrays_digest(arrays: Iterable[Any]) -> str:
    """Return a digest of the dtypes, shapes and bytes of arrays."""
    digest = hashlib.sha256()
    for array in map(np.asarray, arrays):
        digest.update(f"{array.dtype} {array.shape} ".encode() + array.tobytes())
    return digest.hexdigest()


def _constants(jaxpr: Any) -> Iterator[Any]:
    """Yield the arrays that are written into the equations of a jaxpr."""
    operands = [operand for equation in jaxpr.eqns for operand in equation.invars]
    for operand in (*operands, *jaxpr.outvars):
        value: Any = getattr(operand, "val", 0.0)
        if np.ndim(value):
            is_key = jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
            yield jax.random.key_data(value) if is_key else value
    for equation in jaxpr.eqns:
        for part in inner(equation):
            yield from _constants(part)
