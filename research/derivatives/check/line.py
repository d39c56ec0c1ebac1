"""A function along lines through a point, in float64 where it traces, with its derivatives along them."""

import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from research.derivatives.check.slopes import OFFSETS
from research.derivatives.cost.jaxprs import lowest_precision
from research.derivatives.errors import NotInexactError
from research.derivatives.exact.arguments import title

BATCH = 2**21  # Numbers of x that are evaluated at a time.
NO_RULE = (TypeError, ValueError, NotImplementedError)
LOOKS_AT_VALUES = (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError)


class Leaf(NamedTuple):
    """A leaf of x: its name, where it lies in the flattened x, and how large its numbers are."""

    name: str
    start: int
    size: int
    scale: float


@contextlib.contextmanager
def in_float64() -> Iterator[None]:
    """Arrays may be float64 within, whatever the settings outside."""
    # jax.experimental has it up to jax 0.8.
    turn_on = jax.enable_x64 if hasattr(jax, "enable_x64") else importlib.import_module("jax.experimental").enable_x64
    with turn_on(True):
        yield


def lift(f: Callable, x: Any) -> tuple[Any, Any]:
    """x in float64, and the lowest precision that f then passes through; x as it is where f refuses float64."""
    lifted = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf, np.float64)), x)
    try:
        return lifted, lowest_precision(f, lifted)
    except LOOKS_AT_VALUES:
        return lifted, np.dtype(np.float64)
    except NO_RULE:
        dtypes = [leaf.dtype for leaf in jax.tree.leaves(x)]
        return x, max(dtypes, key=lambda dtype: jnp.finfo(dtype).eps)


class Line:
    """f around x.

    Attributes:
      flat: x as one vector.
      shape: Of what f gives.
      leaves: Of x.
      scales: For each number of x the size of its leaf, which a step of 1 moves by.
    """

    def __init__(self, f: Callable, x: Any, derivative: Callable | None):
        self.f, self.x, self.given = f, x, derivative
        flat, self.unravel = ravel_pytree(x)
        self.flat, self.dtype = np.asarray(flat, np.float64), flat.dtype
        self.value = f(x)
        if not isinstance(self.value, jax.Array) or not jnp.issubdtype(self.value.dtype, jnp.floating):
            got = getattr(self.value, "dtype", type(self.value).__name__)
            raise NotInexactError(f"{title(f)} must give one real floating array; it gives {got}.")
        self.shape = self.value.shape
        self.leaves = list(_leaves(x))
        self.scales = np.concatenate([np.full(leaf.size, leaf.scale) for leaf in self.leaves])
        batch = int(np.clip(BATCH // max(self.flat.size, 1), 1, 32))
        self._sampled = jax.jit(
            lambda v, w: jax.lax.map(lambda h: self._at(h, v, w), jnp.asarray(OFFSETS), batch_size=batch)
        )

        self._pushed = jax.jit(lambda v: jax.jvp(f, (x,), (v,))[1])

    def _at(self, h: Any, v: Any, w: Any) -> Any:
        moved = (jnp.asarray(self.flat) + h * v).astype(self.dtype)
        return jnp.sum(w * self.f(self.unravel(moved)).astype(float))

    def sampled(self, v: np.ndarray, w: np.ndarray) -> np.ndarray:
        """⟨w, f(x + h v)⟩ at each of OFFSETS."""
        try:
            return np.asarray(self._sampled(v, w))
        except LOOKS_AT_VALUES:  # An f that looks at its values runs by itself at each.
            return np.array([float(self._at(h, v, w)) for h in OFFSETS])

    def reverse(self, w: np.ndarray) -> np.ndarray | None:
        """Jᵀ w, flat; None where f has no rule for reverse mode."""
        if self.given is not None:
            return _contracted(self.given(self.x), self, w)
        try:
            pulled = jax.vjp(self.f, self.x)[1](jnp.asarray(w, self.value.dtype))[0]
        except LOOKS_AT_VALUES:
            raise
        except NO_RULE:
            return None
        return np.asarray(ravel_pytree(pulled)[0], np.float64)

    def forward(self, v: np.ndarray, w: np.ndarray) -> float:
        """⟨w, J v⟩; NaN where f has no rule for forward mode, or where a derivative is given."""
        if self.given is not None:
            return float("nan")
        tangent = self.unravel(jnp.asarray(v, self.dtype))
        try:
            pushed = self._pushed(tangent)
        except LOOKS_AT_VALUES:
            pushed = jax.jvp(self.f, (self.x,), (tangent,))[1]
        except NO_RULE:
            return float("nan")
        rate = float(np.sum(w * np.asarray(pushed, np.float64)))
        return rate if np.isfinite(rate) else float("inf")


def _leaves(x: Any) -> Iterator[Leaf]:
    start = 0
    for path, leaf in jax.tree_util.tree_flatten_with_path(x)[0]:
        values = np.asarray(leaf, np.float64)
        scale = float(np.sqrt(np.mean(values**2))) if values.size else 0.0
        yield Leaf("x" + jax.tree_util.keystr(path), start, values.size, scale if 0 < scale < np.inf else 1.0)
        start += values.size


def _contracted(jacobian: Any, line: Line, w: np.ndarray) -> np.ndarray:
    """wᵀ J of a Jacobian that was given, flat."""
    shapes = [line.shape + leaf.shape for leaf in jax.tree.leaves(line.x)]
    got = [np.shape(leaf) for leaf in jax.tree.leaves(jacobian)]
    if jax.tree.structure(jacobian) != jax.tree.structure(line.x) or got != shapes:
        raise ValueError(
            f"derivative must give the structure of x with leaves of shape {shapes}, f's shape and then the leaf's; "
            f"it gives leaves of shape {got}."
        )
    parts = [np.tensordot(w, np.asarray(leaf, np.float64), w.ndim).ravel() for leaf in jax.tree.leaves(jacobian)]
    return np.concatenate(parts)
