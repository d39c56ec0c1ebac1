"""A function along lines through a point, in float64 where it traces, with its derivatives along them."""

import contextlib
import functools
import importlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from research.derivatives.check.rounding import NUDGE, rounding_of
from research.derivatives.check.slopes import NUDGED_OFFSETS, OFFSETS
from research.derivatives.costs.jaxprs import inner, lowest_precision
from research.derivatives.errors import NotInexactError
from research.derivatives.exact.arguments import title

BATCH = 2**22  # Numbers of x, or of the largest array that f makes of it, at a time.
SMALL = (
    2**12
)  # So large is the largest array in an f whose program takes longer to compile than to run.
UNOPTIMIZED = (("xla_backend_optimization_level", 0),)
NO_RULE = (TypeError, ValueError, NotImplementedError)
LOOKS_AT_VALUES = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
)


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
    turn_on = (
        jax.enable_x64
        if hasattr(jax, "enable_x64")
        else importlib.import_module("jax.experimental").enable_x64
    )
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

    A `jax.tree_util.Partial` is compiled once for all of its arguments, any other f anew for each line: what else a
    function depends on may have changed.

    Attributes:
      flat: x as one vector.
      shape: Of what f gives.
      leaves: Of x.
      scales: For each number of x the size of its leaf, which a step of 1 moves by.
    """

    def __init__(self, f: Callable, x: Any, derivative: Callable | None):
        self.f, self.x, self.given = f, x, derivative
        flat, self._unravel = ravel_pytree(x)
        self.flat = np.asarray(flat, np.float64)
        self.value = f(x)
        if not isinstance(self.value, jax.Array) or not jnp.issubdtype(
            self.value.dtype, jnp.floating
        ):
            got = getattr(self.value, "dtype", type(self.value).__name__)
            raise NotInexactError(
                f"{title(f)} must give one real floating array; it gives {got}."
            )
        self.shape = self.value.shape
        self.leaves = list(_leaves(x))
        self.scales = np.concatenate(
            [np.full(leaf.size, leaf.scale) for leaf in self.leaves]
        )
        self._pushed, self._sampled = (
            _program(_push, f),
            _program(_sample, f, static_argnames="largest"),
        )

    @functools.cached_property
    def jaxpr(self) -> Any:
        """f's equations; None where it looks at its values, so that it has none."""
        try:
            return jax.make_jaxpr(self.f)(self.x).jaxpr
        except LOOKS_AT_VALUES:
            return None

    @functools.cached_property
    def _largest(self) -> int:
        return _largest(self.jaxpr)

    @functools.cached_property
    def _nudged(self) -> Callable:
        quick = UNOPTIMIZED if self._largest <= SMALL else ()
        return _program(_nudge, self.f, quick, static_argnames="largest")

    @property
    def chooses(self) -> bool:
        """Whether f selects between two values that are both computed, as `where` does."""
        return self.jaxpr is not None and _has(self.jaxpr, "select_n")

    def sampled(self, v: np.ndarray, w: np.ndarray) -> np.ndarray:
        """⟨w, f(x + h v)⟩ at each of OFFSETS."""
        if self.jaxpr is None:  # An f that looks at its values runs by itself at each.
            return np.array(
                [float(_at(self.f, self.x, self._like_x(v), w, h)) for h in OFFSETS]
            )
        return np.asarray(
            self._sampled(self.x, self._like_x(v), w, largest=self._largest)
        )

    def rounding(
        self, v: np.ndarray, w: np.ndarray, seed: int, values: np.ndarray
    ) -> np.ndarray:
        """The size of the error that rounding leaves in the values that `sampled` gave, at NUDGED_OFFSETS; NaN if unknown."""
        count = len(NUDGED_OFFSETS)
        if self.jaxpr is None:
            return np.full(count, np.nan)
        seeds = float(seed * count + 1) + np.arange(count, dtype=float)
        nudged = np.asarray(
            self._nudged(self.x, self._like_x(v), w, seeds, largest=self._largest)
        )
        return np.abs(nudged - values[np.isin(OFFSETS, NUDGED_OFFSETS)]) / NUDGE

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
        tangent = self._unravel(jnp.asarray(v, ravel_pytree(self.x)[0].dtype))
        try:
            pushed = self._pushed(self.x, tangent)
        except LOOKS_AT_VALUES:
            pushed = jax.jvp(self.f, (self.x,), (tangent,))[1]
        except NO_RULE:
            return float("nan")
        rate = float(np.sum(w * np.asarray(pushed, np.float64)))
        return rate if np.isfinite(rate) else float("inf")

    def _like_x(self, v: np.ndarray) -> Any:
        """v in the structure of x, in float64."""
        leaves, structure = jax.tree.flatten(self.x)
        pairs = zip(self.leaves, leaves, strict=True)
        parts = [
            v[own.start : own.start + own.size].reshape(np.shape(leaf))
            for own, leaf in pairs
        ]
        return jax.tree.unflatten(structure, parts)


def _program(
    run: Callable, f: Callable, compiler: tuple = (), **options: Any
) -> Callable:
    if isinstance(f, jax.tree_util.Partial):
        return functools.partial(_compiled_for_all(run, compiler, **options), f)
    return jax.jit(
        functools.partial(run, f), compiler_options=dict(compiler), **options
    )


@functools.cache
def _compiled_for_all(run: Callable, compiler: tuple, **options: Any) -> Callable:
    return jax.jit(run, compiler_options=dict(compiler), **options)


def _push(f: Callable, x: Any, v: Any) -> Any:
    return jax.jvp(f, (x,), (v,))[1]


def _sample(f: Callable, x: Any, v: Any, w: Any, largest: int) -> Any:
    return _mapped(lambda h: _at(f, x, v, w, h), jnp.asarray(OFFSETS), largest)


def _nudge(f: Callable, x: Any, v: Any, w: Any, seeds: Any, largest: int) -> Any:
    """⟨w, f(x + h v)⟩ with nudges of 8 ε, at each of NUDGED_OFFSETS."""
    evaluate = rounding_of(jax.make_jaxpr(f)(x))
    nudged = lambda seed: lambda moved: evaluate(seed, jax.tree.leaves(moved))[0]
    at = lambda given: _at(nudged(given[1]), x, v, w, given[0])
    return _mapped(at, (jnp.asarray(NUDGED_OFFSETS), seeds), largest)


def _at(f: Callable, x: Any, v: Any, w: Any, h: Any) -> Any:
    moved = jax.tree.map(
        lambda leaf, d: (leaf.astype(float) + h * d).astype(leaf.dtype), x, v
    )
    return jnp.sum(w * f(moved).astype(float))


def _mapped(at: Callable, given: Any, largest: int) -> Any:
    """At each of them, as many at a time as memory allows and each time as many, so that one body is compiled."""
    count = len(jax.tree.leaves(given)[0])
    at_a_time = max(
        b
        for b in range(1, count + 1)
        if count % b == 0 and (b == 1 or b * largest <= BATCH)
    )
    return (
        jax.vmap(at)(given)
        if at_a_time == count
        else jax.lax.map(at, given, batch_size=at_a_time)
    )


def _largest(jaxpr: Any) -> int:
    """How many numbers the largest array has."""
    own = [v for equation in jaxpr.eqns for v in equation.outvars]
    sizes = [int(np.prod(getattr(v.aval, "shape", ()))) for v in (*jaxpr.invars, *own)]
    return max(
        [
            1,
            *sizes,
            *(_largest(held) for equation in jaxpr.eqns for held in inner(equation)),
        ]
    )


def _has(jaxpr: Any, primitive: str) -> bool:
    return any(
        equation.primitive.name == primitive
        or any(_has(held, primitive) for held in inner(equation))
        for equation in jaxpr.eqns
    )


def _leaves(x: Any) -> Iterator[Leaf]:
    start = 0
    for path, leaf in jax.tree_util.tree_flatten_with_path(x)[0]:
        values = np.asarray(leaf, np.float64)
        scale = float(np.sqrt(np.mean(values**2))) if values.size else 0.0
        yield Leaf(
            "x" + jax.tree_util.keystr(path),
            start,
            values.size,
            scale if 0 < scale < np.inf else 1.0,
        )
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
    parts = [
        np.tensordot(w, np.asarray(leaf, np.float64), w.ndim).ravel()
        for leaf in jax.tree.leaves(jacobian)
    ]
    return np.concatenate(parts)
