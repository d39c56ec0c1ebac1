"""Recurrent networks: vanilla, GRU and LSTM layers."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike, DTypeLike

from research.checks import check_instance, check_numbers, shown
from research.models._dropout import check_dropout_rate
from research.models._dropout import dropout as dropped
from research.models._linear import (
    check_drawn,
    check_model_dtype,
    check_size,
    dense,
    draw_normal,
)
from research.models.cells import Carry, Cell, find_cell
from research.models.embedding import (
    check_length,
    check_tokens,
    embed,
    values_and_length,
)
from research.models.initialisers import glorot_uniform
from research.models.parameters import (
    architecture_check,
    with_own_parameters,
)
from research.models.recurrent_layer import at_end, draw_layer, unroll
from research.sizes import MOST_LAYERS, check_most
from research.types import Array, Key, Model, Params, Sequences

Carries = tuple[Carry, ...]  # One carry for each layer.


class Recurrence(NamedTuple):
    """A recurrent network whose carry is an explicit argument.

    The carry is the state of all layers. Each step passes the carry to the next step.
    With an explicit carry, the network can process a long sequence in parts, or one
    step at a time.

    Attributes:
      init: Function that takes a key and returns the params, as in `recurrent`.
      start: Function that takes a tuple `leading` and returns the carry before the
        first step. `leading` is the shape of the leading axes of the inputs x: (n,) for
        n sequences, or () for one sequence without a leading axis. All arrays of this
        carry are zero.
      advance: Function (params, x, carry, key=None) -> (outputs, carry). x has the form
        that the model of `recurrent` accepts. The outputs have shape (..., T,
        num_outputs), where T is the number of steps in x. The returned carry is the
        carry at the end of each sequence. The key is for dropout.
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
    outputs: Literal["last", "mean", "every"] = "last",
    embedding: int | None = None,
    dropout: float = 0.0,
    window: int | None = None,
    initial_state: Literal["learned"] | Sequence[Sequence[ArrayLike]] | None = None,
    dtype: DTypeLike | None = None,
) -> Model:
    """Build a recurrent network with a linear output layer.

    A sequence has the inputs x_1, ..., x_T. The state after step t = 1, ..., T is h_t =
    cell(x_t, h_(t-1)). By default, h_0 is 0 (see `initial_state`). An LSTM has a second
    state c_t. The inputs of layer l + 1 are the states h_t of layer l.

    Pad sequences of different lengths to one length T, and pass them as
    `research.types.Sequences`. The network first replaces the padding by zeros. The
    values in the padding therefore have no effect on the results.

    The argument `window` truncates backpropagation and does not change the predictions.
    Time is divided into windows of `window` steps, counted from the start. Inside a
    window, the gradient flows from each state to the previous state. The gradient does
    not flow from one window into the previous window. The gradient of a loss at step t
    therefore goes back through at most `window` steps.

    Args:
      num_inputs: Number d of inputs of a step. With an embedding, d is the number of
        symbols.
      num_hidden: Width H of each layer.
      num_outputs: Number K of outputs.
      cell: Name of the recurrent cell: "vanilla", "gru" or "lstm".
      num_layers: Number of layers.
      outputs: Which states h_t of the last layer give the predictions. "last" means one
        prediction, from the state at the end of each sequence. "mean" means one
        prediction, from the mean of the states. "every" means a prediction after each
        step.
      embedding: Width of the learned vector for each symbol. The vectors are initially
        standard normal. None means that x is floating and is not embedded.
      dropout: Dropout rate between layers and before the output layer. Dropout is
        active only if apply gets a key. There is no dropout between time steps.
      window: Number of steps in a window of truncated backpropagation. None means the
        full gradient. With a window, the gradient of a learned initial state comes from
        the outputs of the first window only.
      initial_state: State before the first step of every sequence. None means zeros.
        "learned" makes the state a part of the params, with zeros as initial values. A
        fixed state is a sequence with one tuple for each layer: (h,), or (h, c) for an
        LSTM. h and c have shape (H,). If each sequence has its own initial state, use
        `recurrence`.
      dtype: Dtype of the parameters. None means JAX's default.
    Returns:
      A `Model`. Its apply accepts floats of shape (..., T, d). With an embedding, apply
      accepts integer symbols of shape (..., T) instead. For sequences of different
      lengths, pass `Sequences` with padded floats or symbols as the values. The result
      of apply has shape (..., K) for "last" and "mean", and (..., T, K) for "every".
      With "every", the outputs after the end of a sequence are zero.

      The params are {"layer_1": ..., "output": {"weights": (H, K), "bias": (K,)}}.
      `recurrent_layer.draw_layer` describes the params of a layer. With an embedding,
      the params also contain {"embedding": {"weights": (num_inputs, embedding)}}. With
      a learned initial state, they also contain {"initial_state": {"layer_1":
      {"state_1": (H,), ...}}}, where state_1 is h and an LSTM's state_2 is c.
    Raises:
      ValueError: A count is not a positive integer, a name is unknown, dropout lies
        outside [0, 1), or initial_state does not have the layers, arrays and shapes of
        the network. In apply: x has the wrong shape, a length lies outside 1..T, or a
        symbol lies outside 0..num_inputs - 1. Under jit, lengths and symbols cannot be
        checked. Call `check_sequences` on the data before training.
      TypeError: dtype is not floating.
    References:
      Zaremba et al., Recurrent neural network regularization, arXiv 1409.2329, 2014
      (the places of dropout).
      Williams & Peng, An efficient gradient-based algorithm for on-line training of
      recurrent network trajectories, Neural Computation 1990 (truncation).
    Example:
      >>> model = recurrent(12, 8, 9, cell="lstm")
      >>> params = model.init(jax.random.key(0))
      >>> x = Sequences(jnp.ones((5, 29, 12)), jnp.array([7, 8, 9, 10, 29]))
      >>> model.apply(params, x).shape
      (5, 9)
    """
    if not isinstance(outputs, str) or outputs not in ("last", "mean", "every"):
        raise ValueError(
            f'outputs must be "last", "mean" or "every"; got outputs={shown(outputs)}.'
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
        _fixed_or_learned(initial_state),
    )
    _check_network(network)

    def apply(
        params: Params, x: ArrayLike | Sequences, key: Key | None = None
    ) -> Array:
        values, length, leading = _flatten(network, x)
        if isinstance(x, Sequences):
            check_length(x.length, (*leading, values.shape[1]))
        carries = _initial(network, (len(values),), params)
        hidden, carries = _advance_layers(network, params, values, length, carries, key)
        if outputs != "every":
            state = carries[-1][0] if outputs == "last" else _mean(hidden, length)
            return _read(network, params, state, key).reshape(*leading, num_outputs)
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
    """Build the network of `recurrent`, with the carry as an explicit argument.

    The carry is the state of all layers. Each step passes the carry to the next step.
    With an explicit carry, the network can process a long sequence in parts, or one
    step at a time.

    Args:
      num_inputs, num_hidden, num_outputs, cell, num_layers, embedding, dropout, dtype:
        As in `recurrent`.
    Returns:
      A `Recurrence` with the same params as `recurrent`. `start(leading)` returns a
      carry of zeros. Here `leading` is the shape of the leading axes of x: (n,) for n
      sequences, or () for one sequence. `advance(params, x, carry)` applies the
      network, and returns the pair (outputs, carry). x is the input, as in `recurrent`.
      The outputs have shape (..., T, num_outputs) for T steps in x. A carry is a tuple
      with one tuple for each layer: (h,), or (h, c) for an LSTM. h and c have shape
      (..., num_hidden).
    Raises:
      ValueError: As in `recurrent`. In `advance`: the carry does not fit the network or
        the leading axes of x, or the length of a sequence lies outside 0..T. Length 0
        is allowed here, unlike in `recurrent`. The carry of such a sequence does not
        change.
      TypeError: As in `recurrent`.
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
    check_architecture = architecture_check(lambda key: _init(network, key))

    def advance(
        params: Params, x: ArrayLike | Sequences, carry: Carries, key: Key | None = None
    ) -> tuple[Array, Carries]:
        check_architecture(params)
        if jax.tree.structure(carry) != jax.tree.structure(_start(network, ())):
            raise ValueError(
                f"carry must have {num_layers} layers of {network.cell.num_carried} "
                "arrays. Pass a carry from start or advance."
            )
        values, length, leading = _flatten(network, x)
        if isinstance(x, Sequences):
            check_length(x.length, (*leading, values.shape[1]), least=0)
        wanted = (*leading, num_hidden)
        if any(jnp.shape(a) != wanted for a in jax.tree.leaves(carry)):
            raise ValueError(
                f"carry must have arrays of shape {wanted} for this x; got "
                f"{sorted({jnp.shape(a) for a in jax.tree.leaves(carry)})}. Pass "
                f"start({leading}), or a carry from advance."
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
    """Raise an error if a length or a symbol of padded sequences is out of range.

    A model cannot check lengths and symbols under jit. Call this function on the data
    before training.

    Args:
      sequences: `Sequences` with values of shape (..., T, d), or symbols of shape (...,
        T), not traced by JAX.
      num_symbols: Number of symbols. None means that the values are not symbols, and
        only the lengths are checked.
    Raises:
      TypeError: The argument is not `Sequences`, or the lengths or symbols are not
        integers.
      ValueError: The shapes of values and lengths do not fit, a length lies outside
        1..T, or a symbol before the end of a sequence lies outside 0..num_symbols - 1.
    Example:
      >>> check_sequences(Sequences(np.zeros((2, 5, 12)), np.array([5, 0])))
      Traceback (most recent call last):
      ValueError: length must lie in 1..5; the length of sequence 1 is 0. ...
    """
    check_instance(
        "sequences",
        sequences,
        Sequences,
        "Create it with research.types.Sequences(values, length).",
    )
    check_numbers("sequences.values", sequences.values)
    check_numbers("sequences.length", sequences.length)
    if num_symbols is not None:
        check_size("num_symbols", num_symbols, 1)
    values, length = np.asarray(sequences.values), np.asarray(sequences.length)
    if values.shape[: length.ndim] != length.shape or values.ndim == length.ndim:
        raise ValueError(
            "values must be (..., T, d) or (..., T) for length of shape "
            f"{length.shape}; got {values.shape}."
        )
    steps = values.shape[length.ndim]
    check_length(length, (*length.shape, steps))
    if num_symbols is not None:
        if values.ndim != length.ndim + 1:
            raise ValueError(
                "values must be tokens (..., T) if num_symbols is given; got shape "
                f"{values.shape}."
            )
        check_tokens(
            np.where(np.arange(steps) < length[..., None], values, 0), num_symbols
        )


class _Network(NamedTuple):
    """Arguments of `recurrent`."""

    num_inputs: int
    num_hidden: int
    num_outputs: int
    cell: Cell
    num_layers: int
    embedding: int | None
    dropout: float
    window: int | None
    dtype: DTypeLike | None
    initial_state: Any = None  # None, "learned", or the carry of each layer.


def _fixed_or_learned(initial_state: Any) -> Any:
    """Check the form of `initial_state`, and convert a fixed state to tuples."""
    if initial_state is None or (
        isinstance(initial_state, str) and initial_state == "learned"
    ):
        return initial_state
    if not isinstance(initial_state, list | tuple) or not all(
        isinstance(carry, list | tuple) for carry in initial_state
    ):
        raise ValueError(
            'initial_state must be None, "learned", or a tuple of arrays for each '
            f"layer, such as ((h,),); got initial_state={shown(initial_state)}."
        )
    for carry in initial_state:
        for array in carry:
            check_numbers("each array of initial_state", array)
    return tuple(tuple(map(jnp.asarray, carry)) for carry in initial_state)


def _initial(network: _Network, leading: tuple[int, ...], params: Params) -> Carries:
    """Return the carry of each layer before the first step."""
    zeros = _start(network, leading, params)
    if network.initial_state is None:
        return zeros
    fixed = network.initial_state
    if isinstance(fixed, str):
        state = params["initial_state"]
        fixed = tuple(
            tuple(state[f"layer_{layer}"][f"state_{i + 1}"] for i in range(len(carry)))
            for layer, carry in enumerate(zeros, 1)
        )
    return jax.tree.map(
        lambda zero, a: jnp.broadcast_to(a.astype(zero.dtype), zero.shape), zeros, fixed
    )


def _check_network(network: _Network) -> None:
    for name in ("num_inputs", "num_hidden", "num_outputs", "num_layers"):
        check_size(name, getattr(network, name), 1)
    check_most(MOST_LAYERS, num_layers=network.num_layers)
    for name in ("embedding", "window"):
        if getattr(network, name) is not None:
            check_size(name, getattr(network, name), 1)
    check_dropout_rate("dropout", network.dropout)
    check_model_dtype(network.dtype)
    if isinstance(network.initial_state, tuple):
        wanted = ((network.num_hidden,),) * network.cell.num_carried
        given = [tuple(map(jnp.shape, carry)) for carry in network.initial_state]
        if given != [wanted] * network.num_layers:
            raise ValueError(
                f"initial_state must have {network.num_layers} layers with arrays of "
                f"shapes {wanted}; got {given}."
            )


def _init(network: _Network, key: Key) -> Params:
    """Draw the params of the network.

    The output layer uses child 0 of the key, layer l uses child l, and the embedding
    uses child num_layers + 1.
    """
    dtype = jnp.result_type(float) if network.dtype is None else network.dtype
    width = network.num_inputs if network.embedding is None else network.embedding
    params: dict[str, Params] = {}
    if network.embedding is not None:
        check_drawn(key, (network.num_inputs, width), dtype)
        key_embedding = jax.random.fold_in(key, network.num_layers + 1)
        params["embedding"] = {
            "weights": draw_normal(
                key_embedding, (network.num_inputs, width), 1.0, dtype
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
    if network.initial_state == "learned":
        state = {
            f"state_{i + 1}": jnp.zeros(network.num_hidden, dtype)
            for i in range(network.cell.num_carried)
        }
        params["initial_state"] = {
            f"layer_{layer}": state for layer in range(1, network.num_layers + 1)
        }
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
    """Flatten the leading axes of x, and set values after the end of a sequence to 0.

    Returns values (n, T) or (n, T, d), lengths (n,) or None, and the leading axes.
    """
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
                f"x must be integer symbols (..., T); got dtype {values.dtype}, shape "
                f"{values.shape}."
            )
        leading, shape = values.shape[:-1], values.shape[-1:]
    if shape[0] == 0:
        raise ValueError(f"x must have at least one step; got shape {values.shape}.")
    if length is not None:
        if length.shape != leading:
            raise ValueError(
                f"length must have the sequences' leading axes {leading}; got shape "
                f"{length.shape}."
            )
        # Convert to int32, because 8 bits cannot hold every step number.
        length = length.reshape(-1).astype(jnp.int32)
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
    key: Key | None,
) -> tuple[Array, Carries]:
    """Run all layers over time.

    Return h of the top layer, shape (T, n, H), and the carry of each layer at the end
    of each sequence.
    """
    # Put time first, because the scan reads one step after the other.
    below = jnp.swapaxes(values, 0, 1)
    if network.embedding is not None:
        below = embed(params["embedding"]["weights"], below)
    ends = []
    for layer, carry in enumerate(carries, 1):
        # The loop's carry needs one dtype: the result type of all its inputs.
        dtype = jnp.result_type(below, *carry, params["output"]["weights"])
        carry = tuple(array.astype(dtype) for array in carry)
        if layer > 1 and key is not None:
            below = dropped(jax.random.fold_in(key, layer), below, network.dropout)
        carried = unroll(
            network.cell, params[f"layer_{layer}"], below, carry, network.window
        )
        ends.append(
            tuple(
                map(lambda first, later: at_end(first, later, length), carry, carried)
            )
        )
        below = carried[0]
    return below, tuple(ends)


def _read(network: _Network, params: Params, hidden: Array, key: Key | None) -> Array:
    if key is not None:
        hidden = dropped(jax.random.fold_in(key, 0), hidden, network.dropout)
    return dense(hidden, **params["output"])


def _mean(hidden: Array, length: Array | None) -> Array:
    """Return the mean of the states (T, n, H) over the steps of each sequence."""
    if length is None:
        return jnp.mean(hidden, axis=0)
    inside = jnp.arange(len(hidden))[:, None] < length[None]
    total = jnp.sum(jnp.where(inside[..., None], hidden, 0), axis=0)
    return total / length[:, None].astype(total.dtype)


def _read_every(
    network: _Network,
    params: Params,
    hidden: Array,
    length: Array | None,
    key: Key | None,
) -> Array:
    """Return the outputs of every step, shape (n, T, K).

    Outputs after the end of a sequence are zero.
    """
    outputs = jnp.swapaxes(_read(network, params, hidden, key), 0, 1)
    if length is None:
        return outputs
    inside = jnp.arange(len(hidden))[None] < length[:, None]
    return jnp.where(inside[..., None], outputs, jnp.zeros((), outputs.dtype))
