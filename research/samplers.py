"""Which examples, in which order: batch, stochastic and mini-batch descent are one rule fed by these samplers."""

import jax
import jax.numpy as jnp

from research.checks import check_count, check_flag, check_key
from research.types import Array, Key, Sampler


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
    return Sampler(1, n, lambda key: None)


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
        raise ValueError(f"batch_size must lie in 1..n; got batch_size={batch_size}, n={n}. Use full_batch(n) for all.")
    num_batches = n // batch_size

    def indices(key: Key) -> Array:
        check_key("key", key)
        if replacement:
            return jax.random.randint(key, (num_batches, batch_size), 0, n, dtype=jnp.int32)
        return _permutation(key, n)[: num_batches * batch_size].reshape(num_batches, batch_size)

    return Sampler(num_batches, batch_size, indices)


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
        low = jax.lax.sort((high.astype(jnp.uint64) << 32) | low.astype(jnp.uint64)).astype(jnp.uint32)
    else:
        _, low = jax.lax.sort((high, low), num_keys=2)
    return (low & jnp.uint32(2**bits - 1)).astype(jnp.int32)


def _check_count(name: str, value: int) -> None:
    check_count(name, value)
