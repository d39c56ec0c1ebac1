"""Recurrent networks: vanilla, GRU and LSTM layers over time, read at each sequence's own end or at every step."""

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike, DTypeLike

from research.checks import check_instance, check_numbers, shown
from research.models._dropout import check_dropout_rate
from research.models._dropout import dropout as dropped
from research.models._linear import check_count, check_drawn, check_model_dtype, dense
from research.models.cells import Carry, Cell, find_cell
from research.models.embedding import (
    check_length,
    check_tokens,
    embed,
    values_and_length,
)
from research.models.initialisers import glorot_uniform
from research.models.parameters import (
    check_same_architecture,
    shapes_of,
    with_own_parameters,
)
from research.models.recurrent_layer import at_end, draw_layer, unroll
from research.sizes import MOST_LAYERS, check_most
from research.types import Array, Key, Model, Params, Sequences

Carries = tuple[Carry, ...]  # One carry a layer.


class Recurrence(NamedTuple):
    """A recurrent network that hands out its carry, for windows of a long sequence and for one token at a time.

    Attributes:
      init: key -> params, those of `recurrent`.
      start: leading axes -> the carry before the first step, zeros; () is one sequence's.
      advance: (params, x, carry, key=None) -> (outputs (..., T, num_outputs), the carry at each sequence's own end).
    """

    init: Callable[[Key], Params]
    start: Callable[[tuple[int, ...]], Carries]
    advance: Callable[..., tuple[Array, Carries]]


def recurrent(
    num_inputs: int,
    num_hidden: int,
    num_outputs: int,
    *,
    cell: str = "gru",
    num_layers: int = 1,
    outputs: Literal["last", "every"] = "last",
    embedding: int | None = None,
    dropout: float = 0.0,
    window: int | None = None,
    dtype: DTypeLike | None = None,
) -> Model:
    """A recurrent network: h_t = cell(x_t, h_(t-1)) from h_0 = 0, and the prediction is an affine map of h.

    Layer l + 1 reads the h of layer l. What stands after the end of a sequence changes neither predictions nor
    gradients, not by one bit: it is replaced by zeros before anything is computed.

    With a window, backpropagation is truncated: predictions stay what they are, but the gradient flows through the carry
    within windows of that many steps, counted from the start, and not from one into the one before. A loss at step t is
    thus differentiated through at most `window` steps.

    Args:
      num_inputs: d, the numbers a step gets; with an embedding, how many symbols there are.
      num_hidden: H, the width of each layer.
      num_outputs: K.
      cell: A name in `research.models.cells.CELLS`.
      num_layers: Layers, each reading the one before.
      outputs: "last": one prediction, read at each sequence's own end; "every": one after each step.
      embedding: The width of the learned vector that stands for a symbol, drawn standard normal; None where x is floats.
      dropout: Probability of zeroing an entry between layers and before the output, where a key is given; the way through
        time has none.
      window: Steps in a window of truncated backpropagation; None is the full gradient.
      dtype: Of the parameters; None means JAX's default.
    Returns:
      A model with params {"layer_1": ..., "output": {"weights": (H, K), "bias": (K,)}}, a layer's as in
      `recurrent_layer.draw_layer`, and "embedding": {"weights": (num_inputs, embedding)} where there is one. Its apply
      maps x, floats (..., T, d) or integer symbols (..., T), or `Sequences` of either, to (..., K) or to (..., T, K),
      there with zeros after a sequence's end.
    Raises:
      ValueError: A count is no positive integer, a name is unknown, or dropout lies outside [0, 1); in apply, x has
        another shape, or a length that is concrete lies outside 1..T. Under jit lengths and symbols out of range cannot be
        seen: `check_sequences` is for the data.
    References:
      Zaremba et al., Recurrent neural network regularization, arXiv 1409.2329, 2014 (where dropout goes); Williams & Peng,
      An efficient gradient-based algorithm for on-line training of recurrent network trajectories, Neural Computation
      1990 (truncation).
    Example:
      >>> model = recurrent(12, 8, 9, cell="lstm")
      >>> params = model.init(jax.random.key(0))
      >>> x = Sequences(jnp.ones((5, 29, 12)), jnp.array([7, 8, 9, 10, 29]))
      >>> model.apply(params, x).shape
      (5, 9)
    """
    if not isinstance(outputs, str) or outputs not in ("last", "every"):
        raise ValueError(
            f'outputs must be "last" or "every"; got outputs={shown(outputs)}.'
        )
    network = _Network(
        num_inputs,
        num_hidden,
        num_outputs,
        find_cell(cell),
        num_layers,
        embedding,
        dropout,
        window,
        dtype,
    )
    _check_network(network)

    def apply(
        params: Params, x: ArrayLike | Sequences, key: Key | None = None
    ) -> Array:
        values, length, leading = _flatten(network, x)
        if isinstance(x, Sequences):
            check_length(x.length, (*leading, values.shape[1]))
        carries = _start(network, (len(values),), params)
        hidden, carries = _advance_layers(network, params, values, length, carries, key)
        if outputs == "last":
            return _read(network, params, carries[-1][0], key).reshape(
                *leading, num_outputs
            )
        return _read_every(network, params, hidden, length, key).reshape(
            *leading, values.shape[1], num_outputs
        )

    return with_own_parameters(lambda key: _init(network, key), apply)


def recurrence(
    num_inputs: int,
    num_hidden: int,
    num_outputs: int,
    *,
    cell: str = "gru",
    num_layers: int = 1,
    embedding: int | None = None,
    dropout: float = 0.0,
    dtype: DTypeLike | None = None,
) -> Recurrence:
    """The network of `recurrent` with the same params, advanced from any carry: by a window, or by one step.

    Args:
      num_inputs, num_hidden, num_outputs, cell, num_layers, embedding, dropout, dtype: As in `recurrent`.
    Returns:
      A `Recurrence`. A carry is a tuple over layers of (h,) or (h, c), of shape (..., num_hidden) each.
    Raises:
      ValueError: As in `recurrent`; in advance, the carry's shapes are not those that start makes for x's leading axes.
    Example:
      >>> network = recurrence(65, 8, 65, embedding=4)
      >>> params, carry = network.init(jax.random.key(0)), network.start(())
      >>> for token in (7, 12):
      ...     logits, carry = network.advance(params, jnp.array([token]), carry)
      >>> logits.shape
      (1, 65)
    """
    network = _Network(
        num_inputs,
        num_hidden,
        num_outputs,
        find_cell(cell),
        num_layers,
        embedding,
        dropout,
        None,
        dtype,
    )
    _check_network(network)
    expected = functools.cache(lambda: shapes_of(lambda key: _init(network, key)))

    def advance(
        params: Params, x: ArrayLike | Sequences, carry: Carries, key: Key | None = None
    ):
        check_same_architecture(params, expected())
        if jax.tree.structure(carry) != jax.tree.structure(_start(network, ())):
            raise ValueError(
                f"carry must hold {num_layers} layers of {network.cell.num_carried} arrays; take it from start or advance."
            )
        values, length, leading = _flatten(network, x)
        if isinstance(x, Sequences):
            check_length(x.length, (*leading, values.shape[1]), least=0)
        wanted = (*leading, num_hidden)
        if any(jnp.shape(a) != wanted for a in jax.tree.leaves(carry)):
            raise ValueError(
                f"carry must hold arrays of shape {wanted} for this x, as start({leading}) makes them; got "
                f"{sorted({jnp.shape(a) for a in jax.tree.leaves(carry)})}."
            )
        flat = jax.tree.map(lambda a: a.reshape(-1, num_hidden), carry)
        hidden, flat = _advance_layers(network, params, values, length, flat, key)
        outputs = _read_every(network, params, hidden, length, key).reshape(
            *leading, values.shape[1], num_outputs
        )
        return outputs, jax.tree.map(lambda a: a.reshape(*leading, num_hidden), flat)

    return Recurrence(
        lambda key: _init(network, key),
        lambda leading: _start(network, leading),
        advance,
    )


def check_sequences(sequences: Sequences, num_symbols: int | None = None) -> None:
    """Refuses what a network cannot see under jit: a length outside 1..T, and symbols out of range.

    Args:
      sequences: NumPy arrays, before they go to the device.
      num_symbols: How many symbols there are; None where the values are floats.
    Raises:
      ValueError: A length lies outside 1..T (an empty sequence has no end to be read at), or a symbol before a sequence's
        end lies outside 0..num_symbols - 1.
    Example:
      >>> check_sequences(Sequences(np.zeros((2, 5, 12)), np.array([5, 0])))
      Traceback (most recent call last):
      ValueError: length must lie in 1..5; that of sequence 1 is 0. Leave empty sequences out.
    """
    check_instance(
        "sequences",
        sequences,
        Sequences,
        "Make one by research.types.Sequences(values, length).",
    )
    check_numbers("sequences.values", sequences.values)
    check_numbers("sequences.length", sequences.length)
    if num_symbols is not None:
        check_count("num_symbols", num_symbols, 1)
    values, length = np.asarray(sequences.values), np.asarray(sequences.length)
    if values.shape[: length.ndim] != length.shape or values.ndim == length.ndim:
        raise ValueError(
            f"values must be (..., T, d) or (..., T) for length of shape {length.shape}; got {values.shape}."
        )
    steps = values.shape[length.ndim]
    check_length(length, (*length.shape, steps))
    if num_symbols is not None:
        if values.ndim != length.ndim + 1:
            raise ValueError(
                f"values must be tokens (..., T) where num_symbols is given; got shape {values.shape}."
            )
        check_tokens(
            np.where(np.arange(steps) < length[..., None], values, 0), num_symbols
        )


class _Network(NamedTuple):
    """What `recurrent` was asked for."""

    num_inputs: int
    num_hidden: int
    num_outputs: int
    cell: Cell
    num_layers: int
    embedding: int | None
    dropout: float
    window: int | None
    dtype: DTypeLike | None


def _check_network(network: _Network) -> None:
    for name in ("num_inputs", "num_hidden", "num_outputs", "num_layers"):
        check_count(name, getattr(network, name), 1)
    check_most(MOST_LAYERS, num_layers=network.num_layers)
    for name in ("embedding", "window"):
        if getattr(network, name) is not None:
            check_count(name, getattr(network, name), 1)
    check_dropout_rate("dropout", network.dropout)
    check_model_dtype(network.dtype)


def _init(network: _Network, key: Key) -> Params:
    """Layer l has child l of the key, the output child 0, the embedding the child after the layers."""
    dtype = jnp.result_type(float) if network.dtype is None else network.dtype
    width = network.num_inputs if network.embedding is None else network.embedding
    params: dict[str, Params] = {}
    if network.embedding is not None:
        check_drawn(key, (network.num_inputs, width), dtype)
        key_embedding = jax.random.fold_in(key, network.num_layers + 1)
        params["embedding"] = {
            "weights": jax.random.normal(
                key_embedding, (network.num_inputs, width), dtype
            )
        }
    for layer in range(1, network.num_layers + 1):
        key_layer = jax.random.fold_in(key, layer)
        params[f"layer_{layer}"] = draw_layer(
            key_layer, network.cell, width, network.num_hidden, dtype
        )
        width = network.num_hidden
    weights = glorot_uniform(
        jax.random.fold_in(key, 0), (width, network.num_outputs), dtype
    )
    return params | {
        "output": {"weights": weights, "bias": jnp.zeros(network.num_outputs, dtype)}
    }


def _start(
    network: _Network, leading: tuple[int, ...], params: Params | None = None
) -> Carries:
    dtype = network.dtype if params is None else params["output"]["weights"].dtype
    zeros = jnp.zeros(
        (*leading, network.num_hidden),
        jnp.result_type(float) if dtype is None else dtype,
    )
    return tuple((zeros,) * network.cell.num_carried for _ in range(network.num_layers))


def _flatten(
    network: _Network, x: ArrayLike | Sequences
) -> tuple[Array, Array | None, tuple[int, ...]]:
    """Values (n, T) or (n, T, d), lengths (n,) or None, and the leading axes; zeros stand after each end."""
    values, length = values_and_length(x)
    if network.embedding is None:
        if values.ndim < 2 or values.shape[-1] != network.num_inputs:
            raise ValueError(
                f"x must have shape (..., T, {network.num_inputs}); got {values.shape}."
            )
        leading, shape = values.shape[:-2], values.shape[-2:]
    else:
        if values.ndim < 1 or not jnp.issubdtype(values.dtype, jnp.integer):
            raise ValueError(
                f"x must be integer symbols (..., T); got {values.dtype}{list(values.shape)}."
            )
        leading, shape = values.shape[:-1], values.shape[-1:]
    if shape[0] == 0:
        raise ValueError(f"x must have at least one step; got shape {values.shape}.")
    if length is not None:
        if length.shape != leading:
            raise ValueError(
                f"length must have the sequences' leading axes {leading}; got shape {length.shape}."
            )
        length = length.reshape(-1).astype(
            jnp.int32
        )  # In 8 bits a step's number would wrap round.
    values = values.reshape(-1, *shape)
    if length is not None:
        steps = jax.lax.broadcasted_iota(length.dtype, values.shape, 1)
        ends = length.reshape(-1, *(1,) * (values.ndim - 1))
        values = jnp.where(steps < ends, values, jnp.zeros((), values.dtype))
    if network.embedding is not None and not isinstance(values, Tracer):
        check_tokens(np.asarray(values), network.num_inputs)
    return values, length, leading


def _advance_layers(
    network: _Network,
    params: Params,
    values: Array,
    length: Array | None,
    carries: Carries,
    key,
):
    """The top layer's h, shape (T, n, H), and each layer's carry at each sequence's own end."""
    below = jnp.swapaxes(
        values, 0, 1
    )  # Time first, once: the scan reads one step after the other.
    if network.embedding is not None:
        below = embed(params["embedding"]["weights"], below)
    ends = []
    for layer, carry in enumerate(carries, 1):
        # The loop's carry has one dtype throughout: that of all that enters it, as elsewhere x of float64 makes y so.
        dtype = jnp.result_type(below, *carry, params["output"]["weights"])
        carry = tuple(array.astype(dtype) for array in carry)
        if layer > 1 and key is not None:
            below = dropped(jax.random.fold_in(key, layer), below, network.dropout)
        seen = unroll(
            network.cell, params[f"layer_{layer}"], below, carry, network.window
        )
        ends.append(
            tuple(map(lambda first, later: at_end(first, later, length), carry, seen))
        )
        below = seen[0]
    return below, tuple(ends)


def _read(network: _Network, params: Params, hidden: Array, key: Key | None) -> Array:
    if key is not None:
        hidden = dropped(jax.random.fold_in(key, 0), hidden, network.dropout)
    return dense(hidden, params["output"]["weights"], params["output"]["bias"])


def _read_every(
    network: _Network,
    params: Params,
    hidden: Array,
    length: Array | None,
    key: Key | None,
) -> Array:
    """Shape (n, T, K), with zeros after each end."""
    outputs = jnp.swapaxes(_read(network, params, hidden, key), 0, 1)
    if length is None:
        return outputs
    inside = jnp.arange(len(hidden))[None] < length[:, None]
    return jnp.where(inside[..., None], outputs, jnp.zeros((), outputs.dtype))
