"""A scan whose derivative needs little memory, or at most a given amount."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp

from research.checks import (
    check_callable,
    check_leaves_not_deleted,
    check_number,
    shown,
)
from research.derivatives.costs.jaxprs import is_inexact
from research.sizes import check_most

__all__ = ["checkpoint_scan"]

MOST_LEVELS = 3
MOST_STEPS = 2**31 - 1  # The largest int32.


def checkpoint_scan(
    f: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any,
    *,
    levels: int = 2,
    memory_bytes: int | None = None,
    length: int | None = None,
) -> tuple[Any, Any]:
    """Scan f over xs like `jax.lax.scan`, with less memory in reverse mode.

    In a scan of T steps, reverse mode of `jax.lax.scan` stores the intermediate values
    of f in each step. `checkpoint_scan` stores carries, and computes the other values
    again:

    - levels=1 stores the carry of each step.
    - levels=2 divides the steps into about √T parts. It stores the first carry of each
      part. While reverse mode goes back through one part, the carries inside this part
      are stored.
    - levels=3 divides the steps into about T^(1/3) parts, and each part into about
      T^(1/3) smaller parts. It stores the first carry of each part. While reverse mode
      goes back through one part, this part is handled as with levels=2.

    With L levels, about L T^(1/L) carries and the intermediate values of one step are
    stored at the same time. To compute the value and the gradient, f is evaluated L + 1
    times for each step.

    If `memory_bytes` is given, it limits the temporary memory of XLA, which is the
    memory in addition to arguments and results. The smallest number of levels within
    this limit is used. To measure the memory, `checkpoint_scan` compiles a test program
    with 1 level. If this needs too much memory, the test program is compiled with 2
    levels, and then with 3. The test program computes the sum of squares of all
    outputs, and the gradient of this sum with respect to init, xs and the arrays that f
    uses. The measured memory includes the memory of ys, the stacked outputs y. So if
    you do not need ys, let f return None as y.

    The value is bit-identical to that of `jax.lax.scan`. Forward mode and derivatives
    of derivatives work too. T need not be divisible into equal parts.

    Args:
      f: Function (carry, x) -> (carry, y), as for `jax.lax.scan`.
      init: First carry, a pytree of arrays.
      xs: A pytree of arrays of shape (T, ...), or None if `length` is given.
      levels: Number of levels, 1, 2 or 3. Not used if memory_bytes is given.
      memory_bytes: Limit of the temporary memory of XLA in bytes, or None to use
        `levels`. Under `jax.vmap`, the limit holds for one element of the batch.
      length: Number T of steps. If xs is not None, `length` may be None, which means
        the length of the first axis of the arrays in xs.
    Returns:
      (last carry, ys), as `jax.lax.scan`.
    Raises:
      ValueError: `levels` is not 1, 2 or 3, `memory_bytes` is not positive, or `length`
        is negative or above 2^31 - 1. Or xs and `length` are both None. Or the first
        axes of the arrays in xs differ in length from each other or from `length`. Or
        1, 2 and 3 levels all need more than `memory_bytes`. In this case, the message
        says how much memory each number of levels needs.
      TypeError: f is not a function of (carry, x), memory_bytes is not a number, or
        `length` is not an integer.
    References:
      Griewank & Walther, Evaluating Derivatives, 2nd ed., SIAM 2008, chapter 12.
    Example:
      >>> step = lambda h, x: (jnp.tanh(h + x), h)
      >>> last = lambda xs: checkpoint_scan(step, 0.5, xs, levels=2)[0]
      >>> plain = lambda xs: jax.lax.scan(step, 0.5, xs)[0]
      >>> xs = jnp.linspace(0.0, 1.0, 100)
      >>> bool(last(xs) == plain(xs))
      True
      >>> bool(jnp.allclose(jax.grad(last)(xs), jax.grad(plain)(xs)))
      True
    """
    check_callable("f", f, "carry", "x")
    if (
        isinstance(levels, bool)
        or not isinstance(levels, int)
        or not 1 <= levels <= MOST_LEVELS
    ):
        raise ValueError(
            f"levels must be an integer in 1..{MOST_LEVELS}; got "
            f"levels={shown(levels)}."
        )
    check_leaves_not_deleted("init", init)
    check_leaves_not_deleted("xs", xs)
    xs = jax.tree.map(jnp.asarray, xs)
    count = _length(xs, length)
    if memory_bytes is not None:
        check_number("memory_bytes", memory_bytes, positive=True)
    if memory_bytes is not None and count:
        levels = _levels_within(f, init, xs, count, memory_bytes)
    return _scan(f, init, xs, count, levels)


def _length(xs: Any, length: int | None) -> int:
    """Return the number of steps."""
    if length is not None:
        check_number("length", length, integer=True)
        check_most(MOST_STEPS, length=length)
    counts: set[Any] = {
        leaf.shape[0] if leaf.ndim else None for leaf in jax.tree.leaves(xs)
    }
    if length is not None:
        counts.add(int(length))
    if len(counts) != 1 or None in counts:
        shapes = [leaf.shape for leaf in jax.tree.leaves(xs)]
        raise ValueError(
            "xs must hold arrays with the same first axis, whose size is the number "
            f"of steps; got arrays of shapes {shapes} and length={shown(length)}."
        )
    return counts.pop()


def _scan(f: Callable, init: Any, xs: Any, count: int, levels: int) -> tuple[Any, Any]:
    """Scan `count` steps in parts. With more levels, each part has parts of its own."""
    size = _part(count, levels)
    if size is None:
        # In a scan, XLA cannot merge the second computation of a step with the first.
        step = jax.checkpoint(f, prevent_cse=False)
        return jax.lax.scan(step, init, xs, length=count)
    parts, rest = divmod(count, size)
    inside = jax.tree.map(
        lambda leaf: leaf[: parts * size].reshape(parts, size, *leaf.shape[1:]), xs
    )

    def part(carry: Any, x: Any) -> tuple[Any, Any]:
        return _scan(f, carry, x, size, levels - 1)

    carry, ys = jax.lax.scan(
        jax.checkpoint(part, prevent_cse=False), init, inside, length=parts
    )
    ys = jax.tree.map(lambda leaf: leaf.reshape(parts * size, *leaf.shape[2:]), ys)
    if rest:
        remaining = jax.tree.map(lambda leaf: leaf[parts * size :], xs)
        # A checkpoint of its own: its carries are not stored during the other parts.
        last = jax.checkpoint(
            lambda carry, xs: _scan(f, carry, xs, rest, max(levels - 1, 1))
        )
        carry, more = last(carry, remaining)
        ys = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), ys, more)
    return carry, ys


def _part(count: int, levels: int) -> int | None:
    """Return the number of steps in a part, or None if the steps are not divided.

    Each part has at least two steps, and so has the rest, if there is one. The reason
    is that XLA unrolls a loop of one step, and this may change the last bits of the
    result. The best number is the one that needs the fewest carries. A divisor of
    `count` is preferred if it needs at most 1.3 times as many carries as the best
    number.
    """
    if levels == 1:
        return None

    def carries(size: int) -> float:
        inside = (levels - 1) * size ** (1 / (levels - 1))
        return count // size + inside + count % size / size

    # carries(s) is count / s + inside: it falls up to this size, and then rises.
    middle = round(count ** ((levels - 1) / levels))
    near = range(max(2, middle - 8), min(count // 2, middle + 8) + 1)
    sizes = [s for s in near if count % s != 1]
    if not sizes:
        return None
    best = min(sizes, key=carries)
    small = [s for s in range(2, math.isqrt(count) + 1) if count % s == 0]
    divisors = small + [count // s for s in reversed(small)]
    if divisors:
        divisor = min(divisors, key=carries)
        if carries(divisor) <= 1.3 * carries(best):
            return divisor
    return best


def _levels_within(
    f: Callable, init: Any, xs: Any, count: int, memory_bytes: int
) -> int:
    """Return the smallest number of levels that needs at most `memory_bytes`."""
    # lax.scan may promote a weakly typed carry, such as the number 0.
    carried = jax.eval_shape(lambda: jax.lax.scan(f, init, xs, length=count)[0])
    init = jax.tree.map(lambda a, to: jnp.asarray(a, to.dtype), init, carried)
    needed = []
    for levels in range(1, MOST_LEVELS + 1):
        needed.append(_temporary_bytes(f, init, xs, count, levels))
        if needed[-1] <= memory_bytes:
            return levels
    listed = ", ".join(f"{n:,} with {k}" for k, n in enumerate(needed, 1))
    raise ValueError(
        f"memory_bytes={shown(memory_bytes)} is too little. XLA's temporary memory, in "
        f"bytes for each number of levels, would be {listed}. Pass at least the "
        "smallest of these, make the carry smaller, or return None as y if it is not "
        "used."
    )


def _temporary_bytes(f: Callable, init: Any, xs: Any, count: int, levels: int) -> int:
    """Return XLA's temporary memory for the gradient of the outputs' sum of squares.

    Only shapes are used, so the values may be traced.
    """
    first = jax.tree.map(lambda leaf: leaf[0], xs)
    jaxpr, shapes = jax.make_jaxpr(f, return_shape=True)(init, first)
    structure = jax.tree.structure(shapes)

    def squares(moving: list[Any], fixed: list[Any]) -> jax.Array:
        init, xs, consts = merged(moving, fixed)

        def step(carry: Any, x: Any) -> Any:
            given = jax.tree.leaves((carry, x))
            results = jax.core.eval_jaxpr(jaxpr.jaxpr, consts, *given)
            return jax.tree.unflatten(structure, results)

        outputs = jax.tree.leaves(_scan(step, init, xs, count, levels))
        terms = [jnp.sum(jnp.abs(y) ** 2) for y in outputs if is_inexact(y)]
        return functools.reduce(jnp.add, terms, jnp.zeros(()))

    arguments = (init, xs, list(jaxpr.consts))
    shaped, tree = jax.tree.flatten(jax.eval_shape(lambda given: given, arguments))
    places = [i for i, leaf in enumerate(shaped) if is_inexact(leaf)]

    def merged(moving: list[Any], fixed: list[Any]) -> Any:
        leaves = list(fixed)
        for place, leaf in zip(places, moving, strict=True):
            leaves[place] = leaf
        return jax.tree.unflatten(tree, leaves)

    moving = [shaped[i] for i in places]
    fixed = [None if i in places else leaf for i, leaf in enumerate(shaped)]
    compiled = jax.jit(jax.value_and_grad(squares)).lower(moving, fixed).compile()
    analysis: Any = compiled.memory_analysis()
    return int(analysis.temp_size_in_bytes)
