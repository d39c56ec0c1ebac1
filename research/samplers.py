"""Samplers of examples, for full-batch, mini-batch and stochastic descent."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from research.checks import (
    check_callable,
    check_count,
    check_flag,
    check_instance,
    check_key,
    check_not_deleted,
    check_numbers,
    is_array,
    refuse_traced,
)
from research.sizes import check_most, check_room
from research.types import Array, Batch, Key, Sampler

_MOST_SHOWN = 6  # Largest number of arrays of a dataset whose shapes a message lists.


def full_batch(n: int) -> Sampler:
    """Return a sampler whose only batch in an epoch is the whole dataset.

    The dataset is neither permuted nor copied.

    Args:
      n: Number of examples, at least 1.
    Returns:
      A sampler whose function `indices` returns None, which means all examples.
    Raises:
      ValueError: n is not an integer from 1 to 2^31 - 1.
    Example:
      >>> full_batch(5).indices(jax.random.key(0)) is None
      True
    """
    _check_count("n", n)
    return Sampler(1, int(n), lambda key: None, int(n))


def minibatch(n: int, batch_size: int, *, replacement: bool = False) -> Sampler:
    """Return a sampler of batches of a fixed size, with or without replacement.

    Let n be the number of examples and b the batch size. In both cases, an epoch has
    ⌊n/b⌋ batches.

    Without replacement, each epoch draws a new permutation of the examples. The first
    b ⌊n/b⌋ entries of the permutation are cut into batches. No example occurs twice in
    an epoch, and n mod b examples are left out. Batches without replacement are usual
    in practice.

    With replacement, each batch has b independent uniform draws. The expected gradient
    on a batch, given all earlier batches, is then the gradient on all examples. The
    theory of stochastic approximation assumes this property.

    Args:
      n: Number of examples.
      batch_size: Batch size b, in 1..n.
      replacement: If True, draw with replacement, so that an example may occur several
        times in an epoch.
    Returns:
      A sampler with num_batches = ⌊n/b⌋. An epoch costs the gradients of b ⌊n/b⌋
      examples.
    Raises:
      ValueError: n is not an integer from 1 to 2^31 - 1, batch_size is not an integer
        in 1..n, or a permutation of n examples would not fit in memory.
      TypeError: replacement is neither True nor False.
    References:
      Bottou, Curtis & Nocedal, Optimization methods for large-scale machine learning,
      SIAM Review 2018, section 4 (with replacement).
      Gürbüzbalaban, Ozdaglar & Parrilo, Why random reshuffling beats stochastic
      gradient descent, Mathematical Programming 2021 (without replacement).
    Example:
      >>> sampler = minibatch(10, 3)
      >>> sampler.indices(jax.random.key(0)).shape
      (3, 3)
    """
    refuse_traced("minibatch", n=n, batch_size=batch_size)
    _check_count("n", n)
    _check_count("batch_size", batch_size)
    check_flag("replacement", replacement)
    if batch_size > n:
        raise ValueError(
            f"batch_size must lie in 1..n; got batch_size={batch_size}, n={n}. Use "
            "full_batch(n) for batches of all examples."
        )
    n, batch_size = int(n), int(batch_size)  # NumPy's integers may overflow.
    check_room(f"n={n} examples in random order", n, itemsize=16)
    num_batches = n // batch_size

    def indices(key: Key) -> Array:
        check_key("key", key)
        if replacement:
            return jax.random.randint(
                key, (num_batches, batch_size), 0, n, dtype=jnp.int32
            )
        return _permutation(key, n)[: num_batches * batch_size].reshape(
            num_batches, batch_size
        )

    return Sampler(num_batches, batch_size, indices, n)


def stochastic(n: int, *, replacement: bool = False) -> Sampler:
    """Return a sampler with one example in each batch: `minibatch(n, 1)`.

    Args:
      n: Number of examples.
      replacement: If True, draw with replacement, so that an example may occur several
        times in an epoch.
    Returns:
      A sampler. An epoch has n batches, each with one example.
    Raises:
      ValueError, TypeError: As in `minibatch`.
    References:
      Robbins & Monro, A stochastic approximation method, Annals of Mathematical
      Statistics 1951.
    Example:
      >>> stochastic(4).num_batches
      4
    """
    return minibatch(n, 1, replacement=replacement)


def num_examples(dataset: Batch | None) -> int | None:
    """Count the examples of a dataset.

    The number is the length of the first axis of x and y. If x is a pytree, the first
    axes of all its leaves must have this length.

    Args:
      dataset: A Batch, or None for an objective without data.
    Returns:
      The number n of examples, or None if the dataset is None.
    Raises:
      TypeError: The dataset is not a Batch, a leaf of x or y does not hold numbers, or
        x or y is a list of numbers instead of an array.
      ValueError: The leaves differ in the length of the first axis, a leaf has no axis,
        or there are no examples.
    Example:
      >>> num_examples(Batch(np.zeros((5, 2)), np.zeros(5)))
      5
    """
    if dataset is None:
        return None
    if not isinstance(dataset, Batch):
        raise TypeError(
            f"dataset must be a research.types.Batch; got {type(dataset).__name__}. "
            "Write Batch(x, y)."
        )
    leaves = {
        f"{name}{jax.tree_util.keystr(path)}": leaf
        for name in ("x", "y")
        for path, leaf in jax.tree_util.tree_leaves_with_path(getattr(dataset, name))
    }
    for name, leaf in leaves.items():
        given = leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
        # JAX has dtypes of kind V, and the dtype of keys has no kind.
        if getattr(given, "kind", "O") in "OSUMm":
            hint = (
                " Convert labels that are words to numbers with np.unique(y, "
                "return_inverse=True)[1]."
            )
            raise TypeError(
                f"a dataset must hold numbers; its {name} has dtype {given}."
                f"{hint if name.startswith('y') else ''}"
            )
    shapes = {name: jnp.shape(leaf) for name, leaf in leaves.items()}
    lengths = {shape[:1] for shape in shapes.values()}
    if len(lengths) != 1 or () in lengths:
        for name in ("x", "y"):
            _check_no_list(name, getattr(dataset, name))
        listed = ", ".join(
            f"{name} of shape {shape}"
            for name, shape in itertools.islice(shapes.items(), _MOST_SHOWN)
        )
        left = len(shapes) - _MOST_SHOWN
        listed = f"{listed} and {left} more" if left > 0 else listed or "no arrays"
        raise ValueError(
            "all arrays of a dataset must have the same number of examples along "
            f"their first axis; got {listed}."
        )
    (n,) = next(iter(lengths))
    if not n:
        raise ValueError("the dataset has no examples. Pass at least one example.")
    return n


def _check_no_list(name: str, value: Any) -> None:
    """Raise TypeError if a value is a list of numbers instead of an array.

    JAX treats such a list as a pytree in which each number is a leaf.
    """
    is_list = type(value) in (list, tuple)
    if is_list and value and not any(map(is_array, jax.tree.leaves(value))):
        raise TypeError(
            f"dataset.{name} must be an array, or a pytree of arrays; got a "
            f"{type(value).__name__} of numbers. Write jnp.asarray({name})."
        )


def check_sampler(sampler: Sampler, n: int | None) -> None:
    """Raise an error if a sampler does not fit a dataset.

    Without this check, two mistakes would cause no error. If a sampler is made for more
    than n examples, some indices are too large, and JAX then reads the last example. If
    a sampler is made for fewer than n examples, the other examples are never drawn.

    The field `num_examples` of the sampler says for how many examples the sampler is
    made. If this field is None, `check_sampler` draws the indices of one epoch, and
    checks that they lie in 0..n-1. If the function `indices` of the sampler returns
    None, each batch is the whole dataset. In this case `batch_size` must be n, and
    `num_examples` is not used.

    Args:
      sampler: The sampler.
      n: Number of examples in the dataset. None for an objective without data.
    Raises:
      TypeError: `sampler` is not a Sampler, or its indices are not integers.
      ValueError: The sampler is made for another number of examples, its indices do not
        have the shape (num_batches, batch_size), or a drawn index lies outside 0..n-1.
        Or n is None, but `indices` does not return None, and `num_examples` is not 1.
    Example:
      >>> check_sampler(minibatch(13, 4), 12)
      Traceback (most recent call last):
      ValueError: the sampler was built for num_examples=13, but the dataset has 12 ...
    """
    check_form(sampler)
    if n is not None:
        check_count("n", n)
    shape = (sampler.num_batches, sampler.batch_size)
    drawn = jax.eval_shape(lambda: sampler.indices(jax.random.key(0)))
    if drawn is not None and (not hasattr(drawn, "shape") or drawn.shape != shape):
        raise ValueError(
            "the sampler's indices must have the shape (num_batches, batch_size) = "
            f"{shape}; got {getattr(drawn, 'shape', drawn)}."
        )
    if drawn is not None and not jnp.issubdtype(drawn.dtype, jnp.integer):
        raise TypeError(
            f"the sampler's indices must be integers; got dtype {drawn.dtype}."
        )
    stated = sampler.num_examples if drawn is not None else sampler.batch_size
    if n is None:
        if drawn is not None and stated != 1:
            raise ValueError(
                f"the sampler draws batches of {sampler.batch_size} examples, but "
                "dataset is None. Pass the dataset, or use samplers.full_batch(1) for "
                "an objective without data."
            )
    elif stated is None:
        with jax.ensure_compile_time_eval():
            check_indices(np.asarray(sampler.indices(jax.random.key(0))), n)
    elif stated != n:
        raise ValueError(
            f"the sampler was built for num_examples={stated}, but the dataset has {n} "
            f"examples. Build it with n={n}."
        )


def check_form(sampler: Any) -> None:
    """Raise an error unless a value is a Sampler with valid fields.

    Raises:
      TypeError, ValueError: `sampler` is not a Sampler, its field num_batches or
        batch_size is not an integer from 1 to 2^31 - 1, or its field `indices` is not a
        function of a key.
    Example:
      >>> check_form(32)
      Traceback (most recent call last):
      TypeError: sampler must be a Sampler; got sampler=32. Build one, such as ...
    """
    check_instance(
        "sampler",
        sampler,
        Sampler,
        "Build one, such as research.samplers.minibatch(n, 32).",
    )
    for name in ("num_batches", "batch_size"):
        _check_count(f"sampler.{name}", getattr(sampler, name))
    check_callable("sampler.indices", sampler.indices, "key")


def check_indices(indices: Any, n: int) -> None:
    """Raise an error if a concrete index lies outside 0..n-1.

    Traced indices are not checked. None is always valid, because it means all examples.

    Args:
      indices: Integers of any shape, or None.
      n: Number of examples in the dataset.
    Raises:
      ValueError: An index lies outside 0..n-1. The message contains the index and n.
      TypeError: indices are not integers.
    Example:
      >>> check_indices([0, 12], 12)
      Traceback (most recent call last):
      ValueError: the sampler draws index 12, which is outside the dataset of 12 ...
    """
    if indices is None or isinstance(indices, Tracer):
        return
    check_count("n", n)
    check_numbers("indices", indices, kinds="iu")
    if (index := index_outside(indices, n)) is not None:
        raise ValueError(
            f"the sampler draws index {index}, which is outside the dataset of {n} "
            f"examples. Build the sampler with n={n}."
        )


def index_outside(indices: Any, n: int) -> int | None:
    """Return an index that lies outside 0..n-1, or None if all indices lie inside.

    Args:
      indices: Concrete integers of any shape.
      n: Number of examples in the dataset.
    Raises:
      ValueError: n is not an integer of at least 0.
    Example:
      >>> index_outside([0, 12], 12), index_outside([0, 11], 12)
      (12, None)
    """
    check_not_deleted("indices", indices)
    check_count("n", n, 0)
    values = np.asarray(indices)
    ends = (values.max(), values.min()) if values.size else ()
    return next((int(index) for index in ends if not 0 <= index < n), None)


def _permutation(key: Key, n: int) -> Array:
    """Return a random permutation of 0..n-1, int32.

    The function sorts n random 64-bit words. In each word, the last bits are replaced
    by the index of the word, so that no two words are equal. All permutations are
    equally likely, unless the random bits of two words agree. The probability of such
    an agreement is below n³ / 2^64.

    In JAX's 64-bit mode on a CPU, this function is two to four times as fast as
    `jax.random.permutation`, which sorts pairs (random word, index). For pairs, XLA
    calls a comparison function. For single 64-bit words, it does not. Without 64-bit
    mode, the words are sorted as pairs of 32-bit words, and the result is the same.
    """
    bits = max(1, (n - 1).bit_length())
    high, low = jax.random.bits(key, (2, n), jnp.uint32)
    low = (low << bits) | jnp.arange(n, dtype=jnp.uint32)
    if jax.dtypes.canonicalize_dtype(jnp.uint64) == jnp.uint64:
        low = jax.lax.sort(
            (high.astype(jnp.uint64) << 32) | low.astype(jnp.uint64)
        ).astype(jnp.uint32)
    else:
        _, low = jax.lax.sort((high, low), num_keys=2)
    return (low & jnp.uint32(2**bits - 1)).astype(jnp.int32)


def _check_count(name: str, value: int) -> None:
    check_count(name, value)
    check_most(**{name: value})
