"""Loss of a sequence of classes, such as the next token or a label at every step."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from research.losses.checks import floating, numeric, one_example, one_or_nan, wide

IGNORED = -1  # Label of a position that the loss ignores, such as padding.


def sequence_cross_entropy(
    logits: Float[ArrayLike, "T K"], labels: Int[ArrayLike, "T"]
) -> Float[Array, ""]:
    """Compute the mean cross-entropy over the positions of one sequence, in nats.

    For logits z, the loss is (1/m) Σ_t (log Σ_k exp(z_tk) - z_t,label_t). The sum runs
    over the m positions whose label is not negative. Each term of the sum is
    optax.softmax_cross_entropy_with_integer_labels. PyTorch's
    cross_entropy(ignore_index=-1) averages over the positions of all sequences of a
    batch together. So its result for a batch differs from the mean of this loss if
    different numbers of positions are ignored in the sequences.

    Args:
      logits: Logits z, floating, shape (T, K).
      labels: Labels, integers in 0..K-1, shape (T,). A position with a negative label
        is ignored.
    Returns:
      The loss in the dtype of the logits, shape (). The loss is 0 if all positions are
      ignored, and NaN if a label is K or larger.
    Raises:
      TypeError: logits are not floating, or labels are not integers.
      ValueError: The shapes are not (T, K) and (T,).
    References:
      Bengio, Ducharme, Vincent & Jauvin, A neural probabilistic language model, JMLR
      2003, section 2.
    Example:
      >>> labels = jnp.array([2, 0, IGNORED])
      >>> print(f"{sequence_cross_entropy(jnp.zeros((3, 4)), labels):.4f}")  # log 4
      1.3863
    """
    logits, labels = floating("logits", logits), numeric("labels", labels)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(
            f"labels must be integer classes; got dtype {labels.dtype}. Convert them "
            "with .astype(int)."
        )
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(
            one_example(
                "logits of shape (T, K) and labels of shape (T,)", logits, labels
            )
        )
    labels = wide(labels)
    counts = labels >= 0
    log_probabilities = jax.nn.log_softmax(logits)
    chosen = jnp.take_along_axis(
        log_probabilities, jnp.clip(labels, 0, logits.shape[1] - 1)[:, None], axis=1
    )[:, 0]
    chosen = chosen * one_or_nan(labels < logits.shape[1], chosen.dtype)
    return -jnp.sum(jnp.where(counts, chosen, 0)) / jnp.maximum(
        jnp.sum(counts), 1
    ).astype(logits.dtype)
