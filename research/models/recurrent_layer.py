"""One recurrent layer: its initial parameters, and its scan over time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Float, Int

from research.models._linear import dense
from research.models.cells import Carry, Cell
from research.models.initialisers import glorot_uniform, orthogonal
from research.types import Array, Key, Params


def draw_layer(
    key: Key, cell: Cell, num_inputs: int, num_hidden: int, dtype: DTypeLike
) -> Params:
    """Draw the initial parameters of one layer.

    The input weights and the recurrent weights each consist of `cell.num_blocks` blocks
    of H columns, side by side. H is the number of hidden units, and d is the number of
    inputs. Input weights are drawn by `glorot_uniform` with fan-in d and fan-out H.
    Each block of recurrent weights is an `orthogonal` matrix. Biases are 0, except for
    the bias of the LSTM's forget gate, the second of four blocks. This bias is 1, so
    that the layer initially remembers.

    Args:
      key: Key for this layer.
      cell: Cell from `CELLS`.
      num_inputs: Number d of inputs.
      num_hidden: Width H of the layer.
      dtype: Dtype of the parameters.
    Returns:
      {"input": {"weights": (d, blocks * H), "bias": (blocks * H,)}, "recurrent":
      {"weights": (H, blocks * H)}}, where `blocks` is `cell.num_blocks`. For the GRU,
      "recurrent" also contains "bias": (H,).
    References:
      Glorot & Bengio, Understanding the difficulty of training deep feedforward neural
      networks, AISTATS 2010, eq. 16.
      Saxe et al., Exact solutions to the nonlinear dynamics of learning in deep linear
      neural networks, ICLR 2014.
      Jozefowicz et al., An empirical exploration of recurrent network architectures,
      ICML 2015 (the bias of 1).
    Example:
      >>> from research.models.cells import CELLS
      >>> params = draw_layer(jax.random.key(0), CELLS["lstm"], 3, 2, jnp.float32)
      >>> print(params["input"]["weights"].shape, params["input"]["bias"])
      (3, 8) [0. 0. 1. 1. 0. 0. 0. 0.]
    """
    shape = (num_inputs, cell.num_blocks * num_hidden)
    weights = glorot_uniform(
        jax.random.fold_in(key, 0), shape, dtype, num_inputs, num_hidden
    )
    bias = jnp.zeros(shape[1], dtype)
    if cell.forget_block is not None:
        bias = bias.at[
            cell.forget_block * num_hidden : (cell.forget_block + 1) * num_hidden
        ].set(1)
    keys = [jax.random.fold_in(key, block) for block in range(1, cell.num_blocks + 1)]
    blocks = [orthogonal(key, (num_hidden, num_hidden), dtype) for key in keys]
    recurrent = {"weights": jnp.concatenate(blocks, axis=1)}
    if cell.has_recurrent_bias:
        recurrent["bias"] = jnp.zeros(num_hidden, dtype)
    return {"input": {"weights": weights, "bias": bias}, "recurrent": recurrent}


def unroll(
    cell: Cell,
    params: Params,
    x: Float[Array, "T n d"],
    carry: Carry,
    window: int | None = None,
) -> Carry:
    """Run one layer over time and return the carry after each step.

    The carry is a tuple of arrays that each step passes to the next step. The first
    array is the hidden state h. Let W be the input weights, b the bias and U the
    recurrent weights. One matrix product before the loop computes the input part p =
    W x + b of all steps. Only the product q = U h is inside the loop.

    The derivative is written by hand as a JVP rule. JAX transposes the rule, so forward
    mode, reverse mode and second derivatives all work. Let h_t be the hidden state
    after step t = 0, ..., T - 1, and let h_(-1) be h before the first step. The
    differential dcarry_t of the carry after step t is a linear function D_t(dp, dq,
    dcarry) of the differentials of p, of q and of the carry before the step. The
    function `differential` of the `Cell` computes D_t. With dq_t = U dh_(t-1) +
    dU h_(t-1), dcarry_t is a sum of two terms:

        dcarry_t = D_t(0, U dh_(t-1), dcarry_(t-1)) + D_t(dp_t, dU h_(t-1), 0).

    Here dp_t contains the differentials of W, x and b. (For the GRU, the differential
    of the recurrent bias is added to dU h_(t-1).) The second term is computed for all
    steps at once. The transpose of this term gives the gradient of U. One matrix
    product after the backward loop therefore computes this gradient, instead of a sum
    over the steps.

    Args:
      cell: Cell from `research.models.cells.CELLS`.
      params: Params of the layer, from `draw_layer`.
      x: Inputs, time first, shape (T, n, d).
      carry: Carry before the first step, arrays of shape (n, H).
      window: Number of steps in a window of truncated backpropagation. At each step t
        that is a positive multiple of `window`, dcarry_(t-1) and dh_(t-1) are set to 0.
        None means the full derivative.
    Returns:
      The carry after each step: a tuple of arrays of shape (T, n, H).
    References:
      Werbos, Backpropagation through time: what it does and how to do it, Proceedings
      of the IEEE 1990.
    """
    projected = dense(x, **params["input"])
    weights, bias = params["recurrent"]["weights"], params["recurrent"].get("bias")
    if bias is not None:  # Only the last block has this bias.
        bias = jnp.concatenate(
            [jnp.zeros(weights.shape[1] - len(bias), bias.dtype), bias]
        )[None]
    # Do not cut before step 0, because the first carry may be a learned parameter.
    steps = jnp.arange(len(x))
    cuts = None if window is None else (steps % window == 0) & (steps > 0)
    return _over_time(cell, cuts)(projected, weights, bias, carry)


def _over_time(
    cell: Cell, cuts: Array | None
) -> Callable[[Array, Array, Array | None, Carry], Carry]:
    """Build the function (projected, weights, bias, carry) -> carry after each step.

    The function is a scan with the derivative that `unroll` describes.
    """

    def forward(
        projected: Array, weights: Array, bias: Array | None, carry: Carry
    ) -> tuple[Carry, Any]:
        def step(carry: Carry, inputs: tuple[Array, Any]) -> tuple[Carry, Any]:
            now, cut = inputs
            # Second derivatives need this cut, because they differentiate this loop.
            carry = _cut(carry, jax.lax.stop_gradient(carry), cut)
            product = carry[0] @ weights
            carry, kept = cell.advance(
                now, product if bias is None else product + bias, carry
            )
            return carry, (carry, kept)

        return jax.lax.scan(step, carry, (projected, cuts))[1]

    @jax.custom_jvp
    def over_time(
        projected: Array, weights: Array, bias: Array | None, carry: Carry
    ) -> Carry:
        return forward(projected, weights, bias, carry)[0]

    @over_time.defjvp
    def differential(
        primals: tuple[Any, ...], tangents: tuple[Any, ...]
    ) -> tuple[Carry, Carry]:
        weights, carry = primals[1], primals[3]
        dprojected, dweights, dbias, dcarry = tangents
        later, kept = forward(*primals)
        earlier = tuple(
            jnp.concatenate([first[None], after[:-1]])
            for first, after in zip(carry, later, strict=True)
        )
        # The carry is a constant at a cut, also for second derivatives.
        if cuts is not None:
            earlier = _cut(earlier, jax.lax.stop_gradient(earlier), cuts[:, None, None])
        slopes = cell.slopes(kept, earlier, later)
        dproduct = dense(
            earlier[0],
            dweights,
            jnp.zeros((), dweights.dtype) if dbias is None else dbias[0],
        )
        zeros = jax.tree.map(jnp.zeros_like, later)
        from_outside = cell.differential(slopes, dprojected, dproduct, zeros)

        def step(dcarry: Carry, inputs: tuple[Any, Any, Any]) -> tuple[Carry, Carry]:
            outside, slopes, cut = inputs
            dcarry = _cut(dcarry, jax.tree.map(jnp.zeros_like, dcarry), cut)
            inside = cell.differential(slopes, None, dcarry[0] @ weights, dcarry)
            dcarry = jax.tree.map(jnp.add, inside, outside)
            return dcarry, dcarry

        def linear(dcarry: Carry, from_outside: Carry) -> Carry:
            return jax.lax.scan(step, dcarry, (from_outside, slopes, cuts))[1]

        # The differential of a linear function is the function itself. JAX 0.7 needs
        # this form to transpose the loop.
        nothing = jax.tree.map(jnp.zeros_like, (dcarry, from_outside))
        return later, jax.jvp(linear, nothing, (dcarry, from_outside))[1]

    return over_time


def _cut(carry: Carry, instead: Carry, cut: Array | None) -> Carry:
    return (
        carry
        if cut is None
        else jax.tree.map(lambda a, b: jnp.where(cut, b, a), carry, instead)
    )


def at_end(
    first: Float[Array, "n H"],
    later: Float[Array, "T n H"],
    length: Int[Array, " n"] | None,
) -> Float[Array, "n H"]:
    """Return one array of a layer's state after the last step of each sequence.

    The state of a recurrent layer (the carry) is a tuple of arrays, which each step
    passes to the next step. The function treats one of these arrays, for n sequences
    and H hidden units.

    Args:
      first: The array before the first step, shape (n, H).
      later: The array after each step, shape (T, n, H).
      length: Number of steps of each sequence, shape (n,). A length of 0 selects
        `first`. None means that all sequences have T steps.
    Returns:
      The array after the last step of each sequence, shape (n, H).
    Example:
      >>> later = jnp.arange(1.0, 7.0).reshape(3, 2, 1)
      >>> print(at_end(jnp.zeros((2, 1)), later, jnp.array([3, 0])).ravel())
      [5. 0.]
    """
    if length is None:
        return later[-1]
    at = jnp.clip(length - 1, 0, len(later) - 1)
    reached = jnp.take_along_axis(later, at[None, :, None], axis=0)[0]
    return jnp.where((length > 0)[:, None], reached, first)
