"""Which examples, in which order: batch, stochastic and mini-batch descent are one rule fed by these samplers."""

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
    check_numbers,
)
from research.sizes import check_most, check_room
from research.types import Array, Batch, Key, Sampler


def full_batch(n: int) -> Sampler:
    """One batch an epoch: the whole dataset, which is then neither permuted nor gathered.

    Args:
      n: Number of examples, at least 1.
    Returns:
      A sampler whose `indices` gives None.
    Raises:
      ValueError: n is not a positive integer.
    Example:
      >>> full_batch(5).indices(jax.random.key(0)) is None
      True
    """
    _check_count("n", n)
    return Sampler(1, n, lambda key: None, n)


def minibatch(n: int, batch_size: int, *, replacement: bool = False) -> Sampler:
    """Batches of a fixed size, with or without replacement.

    Without replacement an epoch is the first b ⌊n/b⌋ places of a fresh permutation cut into ⌊n/b⌋ batches: no example
    comes twice in an epoch, and n mod b of them sit it out. With replacement an epoch is the same number of batches,
    each of b independent uniform draws, so that its gradient is unbiased given the past: this is the case that the
    theory of stochastic approximation describes, and the other is what is used in practice.

    Args:
      n: Number of examples.
      batch_size: b, in 1..n.
      replacement: Whether an example may be drawn again within an epoch.
    Returns:
      A sampler of num_batches = ⌊n/b⌋; an epoch costs b ⌊n/b⌋ example gradients.
    Raises:
      ValueError: n is not a positive integer, or batch_size does not lie in 1..n.
    References:
      Bottou, Curtis & Nocedal, Optimization methods for large-scale machine learning, SIAM Review 2018, section 4
      (with replacement); Gürbüzbalaban, Ozdaglar & Parrilo, Why random reshuffling beats stochastic gradient descent,
      Mathematical Programming 2021 (without).
    Example:
      >>> sampler = minibatch(10, 3)
      >>> sampler.indices(jax.random.key(0)).shape
      (3, 3)
    """
    _check_count("n", n)
    _check_count("batch_size", batch_size)
    check_flag("replacement", replacement)
    if batch_size > n:
        raise ValueError(
            f"batch_size must lie in 1..n; got batch_size={batch_size}, n={n}. Use full_batch(n) for all."
        )
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
    """One example a step: `minibatch(n, 1)`.

    Args:
      n: Number of examples.
      replacement: As in `minibatch`.
    Returns:
      A sampler of n batches of one.
    Raises:
      ValueError: n is not a positive integer.
    References:
      Robbins & Monro, A stochastic approximation method, Annals of Mathematical Statistics 1951.
    Example:
      >>> stochastic(4).num_batches
      4
    """
    return minibatch(n, 1, replacement=replacement)


def num_examples(dataset: Batch | None) -> int | None:
    """The number of examples of a dataset: the length of every leaf of x and y along its leading axis.

    Args:
      dataset: A Batch, or None for an objective without data.
    Returns:
      n; None without data.
    Raises:
      TypeError: The dataset is not a Batch, or a leaf does not hold numbers.
      ValueError: The leaves differ in length, one has no leading axis, or there is no example.
    Example:
      >>> num_examples(Batch(np.zeros((5, 2)), np.zeros(5)))
      5
    """
    if dataset is None:
        return None
    if not isinstance(dataset, Batch):
        raise TypeError(
            f"dataset must be a research.types.Batch; got {type(dataset).__name__}. Write Batch(x, y)."
        )
    leaves = {
        f"{name}{jax.tree_util.keystr(path)}": leaf
        for name in ("x", "y")
        for path, leaf in jax.tree_util.tree_leaves_with_path(getattr(dataset, name))
    }
    for name, leaf in leaves.items():
        given = leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
        if given.kind in "OSUMm":  # JAX has dtypes of kind V.
            raise TypeError(
                f"a dataset must hold numbers; its {name} is of dtype {given}. np.unique(y, return_inverse=True)[1] numbers "
                "labels that are words."
            )
    shapes = {name: jnp.shape(leaf) for name, leaf in leaves.items()}
    lengths = {shape[:1] for shape in shapes.values()}
    if len(lengths) != 1 or () in lengths:
        listed = (
            ", ".join(f"{name} of shape {shape}" for name, shape in shapes.items())
            or "no array at all"
        )
        raise ValueError(
            f"each x needs its y: leading axes of a dataset must be alike; got {listed}."
        )
    (n,) = next(iter(lengths))
    if not n:
        raise ValueError("the dataset has no examples.")
    return n


def check_sampler(sampler: Sampler, n: int | None) -> None:
    """Refuses a sampler that was made for another dataset. It is the one check of step, run, train and lanes.

    JAX reads the last example where an index is too large, and says nothing. A sampler for fewer examples never draws the
    rest. A sampler that does not state `num_examples` is asked for one epoch's indices, which must lie in 0..n-1.

    Args:
      sampler: What is to feed the steps.
      n: Examples in the dataset, from `num_examples`; None for an objective without data.
    Raises:
      TypeError: It is not a Sampler, or its indices are not integers.
      ValueError: It is made for another n, its batches are not what it says, or it draws indices where there are no data.
    Example:
      >>> check_sampler(minibatch(13, 4), 12)
      Traceback (most recent call last):
      ValueError: the sampler is made for num_examples=13, but the dataset has 12. Make it with n=12.
    """
    check_form(sampler)
    if n is not None:
        check_count("n", n)
    shape = (sampler.num_batches, sampler.batch_size)
    drawn = jax.eval_shape(lambda: sampler.indices(jax.random.key(0)))
    if drawn is not None and (not hasattr(drawn, "shape") or drawn.shape != shape):
        raise ValueError(
            f"the sampler's indices must have the shape (num_batches, batch_size) = {shape}; got "
            f"{getattr(drawn, 'shape', drawn)}."
        )
    if drawn is not None and not jnp.issubdtype(drawn.dtype, jnp.integer):
        raise TypeError(
            f"the sampler's indices must be integers; got dtype {drawn.dtype}."
        )
    stated = sampler.num_examples if drawn is not None else sampler.batch_size
    if n is None:
        if drawn is not None and stated != 1:
            raise ValueError(
                f"the sampler draws batches of {sampler.batch_size} examples, but there is no dataset. Give the dataset, or "
                "samplers.full_batch(1) for an objective without data."
            )
    elif stated is None:
        with jax.ensure_compile_time_eval():
            check_indices(np.asarray(sampler.indices(jax.random.key(0))), n)
    elif stated != n:
        raise ValueError(
            f"the sampler is made for num_examples={stated}, but the dataset has {n}. Make it with n={n}."
        )


def check_form(sampler: Any) -> None:
    """Refuses what is no Sampler, or one of nonsensical sizes.

    Raises:
      TypeError, ValueError: It is.
    Example:
      >>> check_form(32)
      Traceback (most recent call last):
      TypeError: sampler must be a Sampler; got sampler=32. Make one, such as research.samplers.minibatch(n, 32).
    """
    check_instance(
        "sampler",
        sampler,
        Sampler,
        "Make one, such as research.samplers.minibatch(n, 32).",
    )
    for name in ("num_batches", "batch_size"):
        _check_count(f"sampler.{name}", getattr(sampler, name))
    check_callable("sampler.indices", sampler.indices, "key")


def check_indices(indices: Any, n: int) -> None:
    """Refuses concrete indices outside of 0..n-1; tracers, and None for all examples, pass.

    Args:
      indices: Integers of any shape, or None.
      n: Examples in the dataset.
    Raises:
      ValueError: An index lies outside; the message has it and n.
    Example:
      >>> check_indices([0, 12], 12)
      Traceback (most recent call last):
      ValueError: the sampler draws example 12 of a dataset of 12; make it with n=12.
    """
    if indices is None or isinstance(indices, Tracer):
        return
    check_count("n", n)
    check_numbers("indices", indices, kinds="iu")
    if not np.size(indices):
        return
    values = np.asarray(indices)
    for index in (values.max(), values.min()):
        if not 0 <= index < n:
            raise ValueError(
                f"the sampler draws example {index} of a dataset of {n}; make it with n={n}."
            )


def _permutation(key: Key, n: int) -> Array:
    """The order of n random words of 64 bits, of which the last ones are the index instead, so that none is equal.

    Every order is as likely, up to the chance that two words agree in their random bits: below n³ / 2^64. It is what
    `jax.random.permutation` does, five to ten times as fast on CPU: XLA sorts one word at once, but a pair (random word,
    index) by calling a comparison. The order is int32 and the same whether float64 is on or off.
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
