"""Loss of a sequence of classes, such as the next token or a label at every step."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, Num

from research.losses.checks import (
    check_terms,
    floating,
    numeric,
    one_example,
    one_or_nan,
    wide,
)

IGNORED = -1  # Label of a position that the loss ignores, such as padding.


def sequence_cross_entropy(
    logits: Float[ArrayLike, "T K"],
    labels: Int[ArrayLike, "T"],
    *,
    where: Bool[ArrayLike, "T"] | None = None,
    weights: Num[ArrayLike, "T"] | None = None,
) -> Float[Array, ""]:
    """Compute the mean cross-entropy over the positions of one sequence, in nats.

    A position is ignored if its label is negative (such as IGNORED = -1), or if `where`
    is False for this position. The loss is

      (1/m) Σ_t (log Σ_k exp(z_(t,k)) - z_(t,y_t)).

    Here z_(t,k) is the logit of class k at position t, y_t is the label of position t,
    and t runs over the m positions that are not ignored. The term of position t equals
    optax.softmax_cross_entropy_with_integer_labels at this position.

    PyTorch's cross_entropy(ignore_index=-1) is one mean over a whole batch, without the
    ignored positions. If some sequences have more ignored positions than others, this
    mean may differ from the mean of the losses of the sequences.

    Args:
      logits: Logits z, floating, shape (T, K).
      labels: Labels y_t, integers in 0..K-1, shape (T,). A position with a negative
        label is ignored.
      where: Booleans, shape (T,). If entry t is False, position t is ignored, too. None
        means that only the positions with a negative label are ignored.
      weights: Weights w_t of the positions, shape (T,), finite and at least 0. The loss
        is then the weighted mean: each term has the factor w_t, and m is the sum of w_t
        over the positions that are not ignored. None means that all weights are 1.
    Returns:
      The loss in the dtype of the logits, shape (). The loss is 0 if all positions are
      ignored or have weight 0. It is NaN if the label of a position that is not ignored
      is K or larger.
    Raises:
      TypeError: logits are not floating, labels are not integers, weights are not
        numbers, or `where` is not boolean.
      ValueError: The shapes are not (T, K) and (T,), or a concrete weight is negative
        or not finite.
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
                "logits of shape (T, K) and labels of shape (T,)",
                logits,
                labels,
                ranks=(2, 1),
                hint="Give one label for each position.",
            )
        )
    check_terms(labels.shape, "labels", where, weights)
    labels = wide(labels)
    # Unsigned labels have no negative number that could stand for an ignored position.
    counts = labels >= 0
    if where is not None:
        counts = counts & jnp.asarray(where)
    labels = jnp.where(counts, labels, 0)
    # Logits of ignored positions may be NaN; the gradient must not be.
    logits = jnp.where(counts[:, None], logits, 0)
    log_probabilities = jax.nn.log_softmax(logits)
    chosen = jnp.take_along_axis(
        log_probabilities, jnp.minimum(labels, logits.shape[1] - 1)[:, None], axis=1
    )[:, 0]
    chosen = chosen * one_or_nan(labels < logits.shape[1], chosen.dtype)
    # A sum of many terms overflows in float16.
    terms = jnp.where(counts, chosen, 0)
    terms = terms.astype(jnp.promote_types(terms.dtype, jnp.float32))
    if weights is None:
        total, mean = jnp.sum(counts).astype(terms.dtype), jnp.sum(terms)
    else:
        factors = jnp.where(counts, jnp.asarray(weights, terms.dtype), 0)
        total, mean = jnp.sum(factors), jnp.sum(factors * terms)
    return (-mean / jnp.where(total > 0, total, 1)).astype(logits.dtype)
