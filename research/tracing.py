"""Advice on the errors that JAX raises if a traced function needs concrete values."""

import contextlib
from types import TracebackType

import jax

# Raised for float() and `if`, for NumPy, for range(), and for x[x > 0], in this order.
LOOKS_AT_VALUES = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
)
OF_DERIVATIVES = (
    "finite_difference(f, x) estimates a derivative from values, and "
    "check_derivative(f, x, key, derivative) checks a derivative that you have"
)
OF_MINIMA = "scipy.optimize.minimize finds a minimum from values"


class AdviceOnTracing(contextlib.AbstractContextManager[None]):
    """Context manager that adds advice to JAX's errors about concrete values.

    If a traced function needs the values of its arguments, JAX raises such an error.
    The advice is added to the error as a note. Code such as a NumPy call or an `if`
    needs values, and the note says what to write instead.

    Args:
      otherwise: Advice for a function that cannot be changed. This text ends the
        sentence "If the function must stay as it is, ...". The default says how to
        estimate or check a derivative of such a function from its values.
    Example:
      >>> import numpy
      >>> try:
      ...     with AdviceOnTracing():
      ...         shape = jax.eval_shape(lambda x: numpy.exp(x), 1.0)
      ... except jax.errors.TracerArrayConversionError as error:
      ...     print(error.__notes__[-1][:54])
      JAX traces this function, and traced arrays have no va
    """

    def __init__(self, otherwise: str = OF_DERIVATIVES):
        self.otherwise = otherwise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Add the note. If contexts are nested, the note is added only once."""
        if not isinstance(error, LOOKS_AT_VALUES):
            return
        begin = "JAX traces this function, and traced arrays have no values."
        if any(note.startswith(begin) for note in getattr(error, "__notes__", ())):
            return
        error.add_note(
            f"{begin} Use jax.numpy instead of numpy and math, jnp.where or "
            "jax.lax.cond instead of `if`, and no float() or int(). If the function "
            f"must stay as it is, {self.otherwise}."
        )
