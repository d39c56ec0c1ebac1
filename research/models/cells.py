"""Recurrent cells (vanilla, GRU and LSTM) and the differential of one step."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from research.types import Array

# State that one step passes to the next. The hidden state h is the first array.
Carry = tuple[Array, ...]


class Cell(NamedTuple):
    """One kind of recurrent layer, such as the LSTM.

    A layer has H units. Its carry is the tuple of arrays that one step passes to the
    next. The first of these arrays is the hidden state h. Each step first computes p =
    W x + b from the input x, and q = U h from the state h, with the input weights W,
    the bias b and the recurrent weights U. The cell computes the next carry from p, q
    and the carry. p and q each consist of num_blocks blocks of H columns, side by side.

    Attributes:
      num_blocks: Number of blocks of p, which is also the number of blocks of q.
      num_carried: Number of arrays in the carry.
      has_recurrent_bias: If True, a bias is added to the last block of q.
      forget_block: Index of the block of b whose entries are initially 1. All other
        entries of b are initially 0. None means that all entries are initially 0.
      advance: Function (p, q, carry) -> (next carry, values). p and q have shape (n,
        num_blocks * H) for n sequences. The values are intermediate results, which
        `slopes` needs.
      slopes: Function (values, carry, next carry) -> partial derivatives of the next
        carry with respect to p, q and the carry. The arrays may have any leading axes,
        so one call can treat all time steps.
      differential: Function (partial derivatives, dp, dq, dcarry) -> differential of
        the next carry, which is linear in dp, dq and dcarry. dp=None means dp = 0.
    """

    num_blocks: int
    num_carried: int
    has_recurrent_bias: bool
    forget_block: int | None
    advance: Callable[[Array, Array, Carry], tuple[Carry, Any]]
    slopes: Callable[[Any, Carry, Carry], Any]
    differential: Callable[[Any, Array | None, Array, Carry], Carry]


def vanilla(
    p: Float[Array, "n H"], q: Float[Array, "n H"], carry: Carry
) -> tuple[Carry, Any]:
    """Compute one step of the vanilla (Elman) network: h' = tanh(W x + b + U h).

    Here x is the input, h the state and h' the next state. W are the input weights, b
    is the bias, and U are the recurrent weights.

    Args:
      p: Input part W x + b, shape (n, H) for n sequences and H units.
      q: Product U h, shape (n, H).
      carry: Carry (h,). The state h is used only through q.
    Returns:
      The pair (next carry, values): the next carry is (h',), and the values are the
      empty tuple (). Other cells return values that their derivative needs. The
      derivative of this step, `vanilla_slopes`, needs only the carries.
    References:
      Elman, Finding structure in time, Cognitive Science 1990. (PyTorch and Flax also
      use tanh by default.)
    Example:
      >>> half = jnp.array([[0.5]])
      >>> print(vanilla(half, -half, (jnp.array([[0.3]]),))[0][0])
      [[0.]]
    """
    del carry
    return (jnp.tanh(p + q),), ()


def vanilla_slopes(kept: Any, before: Carry, after: Carry) -> Float[Array, "... H"]:
    """Compute 1 - h'², the derivative of h' = tanh(s) with respect to s = p + q.

    Here h' is the next state, not a derivative. `vanilla` defines p and q. `after` is
    the next carry (h',). `kept` and `before` are not used, but other cells use them.
    """
    del kept, before
    return 1 - after[0] ** 2


def vanilla_differential(
    slopes: Float[Array, "... H"],
    dp: Float[Array, "... H"] | None,
    dq: Float[Array, "... H"],
    dcarry: Carry,
) -> Carry:
    """Compute dh' = (1 - h'²) (dp + dq), for p = W x + b and q = U h.

    This is the differential of the next state h' = tanh(p + q). `slopes` is 1 - h'²
    from `vanilla_slopes`, and dp and dq are the differentials of p and q. dp=None means
    dp = 0. `dcarry` is not used here, but by other cells. The result is the tuple
    (dh',).
    """
    del dcarry
    return (slopes * _sum(dp, dq),)


def gru(
    p: Float[Array, "n 3H"], q: Float[Array, "n 3H"], carry: Carry
) -> tuple[Carry, Any]:
    """Compute one step of the gated recurrent unit (GRU).

    r = σ(W_r x + b_r + U_r h), z = σ(W_z x + b_z + U_z h),
    n = tanh(W_n x + b_n + r (U_n h + c_n)), h' = (1 - z) n + z h.

    Here x is the input, h the state, h' the next state, and σ the sigmoid. W are input
    weights, U recurrent weights, b and c_n biases. Products with r and z are
    elementwise. The reset gate r acts after the product U_n h, as in cuDNN, PyTorch and
    Flax. The three products with h can therefore be computed as one product. In Cho et
    al., r acts before the product: n = tanh(W_n x + b_n + U_n (r h)). The recurrent
    bias c_n is separate from b_n, because r multiplies c_n.

    Args:
      p: Blocks W_r x + b_r, W_z x + b_z and W_n x + b_n side by side, shape (batch,
        3 H) for H units.
      q: Blocks U_r h, U_z h and U_n h + c_n side by side, shape (batch, 3 H).
      carry: Carry (h,), where h has shape (batch, H).
    Returns:
      The next carry (h',), and the values that `gru_slopes` needs: r and z side by
      side, n, and U_n h + c_n.
    References:
      Cho et al., Learning phrase representations using RNN encoder-decoder for
      statistical machine translation, EMNLP 2014, section 2.3.
      `torch.nn.GRU` and `flax.linen.GRUCell` (the reset after the product).
    Example:
      >>> carry = (jnp.array([[2.0]]),)
      >>> p = jnp.array([[0.0, 100.0, 0.0]])  # z = 1, so the state does not change.
      >>> print(gru(p, jnp.zeros((1, 3)), carry)[0][0])
      [[2.]]
    """
    (h,) = carry
    width = h.shape[-1]
    # Compute σ by tanh, which is faster.
    gates = 0.5 * jnp.tanh(0.5 * (p[:, : 2 * width] + q[:, : 2 * width])) + 0.5
    new = jnp.tanh(p[:, 2 * width :] + gates[:, :width] * q[:, 2 * width :])
    return (new + gates[:, width:] * (h - new),), (gates, new, q[:, 2 * width :])


def gru_slopes(
    kept: Any, before: Carry, after: Carry
) -> tuple[Float[Array, "... 3H"], Float[Array, "... H"], Float[Array, "... H"]]:
    """Compute the partial derivatives of h' in one GRU step.

    `gru` defines the symbols. `kept` are the values that `gru` returns with the next
    carry, and `before` is the carry (h,). `after` is the next carry (h',) and is not
    used. The result has three parts: the derivatives with respect to q (three blocks
    side by side), with respect to the last block W_n x + b_n of p, and with respect to
    h. In the first two blocks, `gru` uses only the sum of p and q. So the derivatives
    with respect to the first two blocks of p are equal to those with respect to the
    first two blocks of q, and are not returned again. The derivative with respect to h
    is z, because q is held fixed.
    """
    del after
    gates, new, reset_from = kept
    r, z = jnp.split(gates, 2, axis=-1)
    by_new = (1 - z) * (1 - new**2)
    of_blocks = (
        by_new * reset_from * r * (1 - r),
        (before[0] - new) * z * (1 - z),
        by_new * r,
    )
    return jnp.concatenate(of_blocks, axis=-1), by_new, z


def gru_differential(
    slopes: tuple[Float[Array, "... 3H"], Float[Array, "... H"], Float[Array, "... H"]],
    dp: Float[Array, "... 3H"] | None,
    dq: Float[Array, "... 3H"],
    dcarry: Carry,
) -> Carry:
    """Compute dh' = z dh + (1 - z) dn + (h - n) dz, the differential of the GRU's step.

    `gru` defines r, z, n, h and h', and the three blocks of its arguments p and q. The
    index of p and q names the block: dz = z (1 - z) (dp_z + dq_z), dr = r (1 - r)
    (dp_r + dq_r) and dn = (1 - n²) (dp_n + r dq_n + q_n dr).

    `slopes` is the result of `gru_slopes`, and dp=None means dp = 0. `dcarry` is the
    tuple (dh,), and the result is the tuple (dh',).
    """
    of_blocks, by_new, z = slopes
    by_r, by_z, by_n = jnp.split(of_blocks * dq, 3, axis=-1)
    total = by_r + by_z + by_n + z * dcarry[0]
    if dp is None:
        return (total,)
    of_r, of_z, _ = jnp.split(of_blocks, 3, axis=-1)
    dp_r, dp_z, dp_n = jnp.split(dp, 3, axis=-1)
    return (total + of_r * dp_r + of_z * dp_z + by_new * dp_n,)


def lstm(
    p: Float[Array, "n 4H"], q: Float[Array, "n 4H"], carry: Carry
) -> tuple[Carry, Any]:
    """Compute one step of the LSTM with a forget gate and without peepholes.

    i = σ(W_i x + b_i + U_i h), f = σ(W_f x + b_f + U_f h),
    g = tanh(W_g x + b_g + U_g h), o = σ(W_o x + b_o + U_o h),
    c' = f c + i g, h' = o tanh(c').

    Here x is the input, h and c are the state, h' and c' the next state, and σ is the
    sigmoid. W are input weights, U recurrent weights, and b biases. Products with i, f
    and o are elementwise. There are n sequences and H units.

    Args:
      p: Blocks W_i x + b_i, W_f x + b_f, W_g x + b_g and W_o x + b_o side by side,
        shape (n, 4 H).
      q: Blocks U_i h, U_f h, U_g h and U_o h side by side, shape (n, 4 H).
      carry: Carry (h, c), each of shape (n, H). h is used only through q.
    Returns:
      The next carry (h', c'), and the values that `lstm_slopes` needs: i, f, g and o
      side by side.
    References:
      Hochreiter & Schmidhuber, Long short-term memory, Neural Computation 1997.
      Gers, Schmidhuber & Cummins, Learning to forget: continual prediction with LSTM,
      Neural Computation 2000 (the forget gate).
    Example:
      >>> keep = jnp.array([[-100.0, 100.0, 0.0, 100.0]])  # i = 0, f = 1, o = 1
      >>> carry = (jnp.zeros((1, 1)), jnp.array([[0.5]]))
      >>> (h, c), _ = lstm(keep, jnp.zeros((1, 4)), carry)
      >>> print(c, h.round(4))
      [[0.5]] [[0.4621]]
    """
    # One tanh for all four gates is faster: σ(x) = (1 + tanh(x / 2)) / 2.
    scale = jnp.asarray(
        np.repeat([0.5, 0.5, 1.0, 0.5], carry[1].shape[-1])[None], p.dtype
    )
    gates = scale * jnp.tanh(scale * (p + q)) + (1 - scale)
    i, f, g, o = jnp.split(gates, 4, axis=-1)
    c = f * carry[1] + i * g
    return (o * jnp.tanh(c), c), gates


def lstm_slopes(
    kept: Float[Array, "... 4H"], before: Carry, after: Carry
) -> tuple[Float[Array, "... 4H"], Float[Array, "... H"], Float[Array, "... H"]]:
    """Compute the partial derivatives of one LSTM step.

    `lstm` defines the symbols. `kept` are the gates i, f, g and o that `lstm` returns
    with the next carry. `before` is the carry (h, c), and `after` is the next carry
    (h', c').

    The first array of the result has four blocks side by side. Each block contains
    derivatives with respect to the same block of p + q, where p and q are the arguments
    of `lstm`. The blocks for i, f and g are derivatives of c'. The block for o is the
    derivative of h' with c' held fixed. The second array is ∂c'/∂c = f. The third array
    is ∂h'/∂c'.
    """
    i, f, g, o = jnp.split(kept, 4, axis=-1)
    squashed = jnp.tanh(after[1])
    of_gates = (
        g * i * (1 - i),
        before[1] * f * (1 - f),
        i * (1 - g**2),
        squashed * o * (1 - o),
    )
    return jnp.concatenate(of_gates, axis=-1), f, o * (1 - squashed**2)


def lstm_differential(
    slopes: tuple[Float[Array, "... 4H"], Float[Array, "... H"], Float[Array, "... H"]],
    dp: Float[Array, "... 4H"] | None,
    dq: Float[Array, "... 4H"],
    dcarry: Carry,
) -> Carry:
    """Compute the differential of one LSTM step.

    dc' = f dc + c df + g di + i dg and dh' = tanh(c') do + o (1 - tanh²(c')) dc'.

    `lstm` defines i, f, g, o, c, c' and h', and the blocks of its arguments p and q.
    The index of p and q names the block: dg = (1 - g²) (dp_g + dq_g), and di =
    i (1 - i) (dp_i + dq_i). The formulas for df and do are those for di, with f or o
    instead of i.

    `slopes` is the result of `lstm_slopes`, and dp=None means dp = 0. `dcarry` is the
    tuple (dh, dc), and the result is the tuple (dh', dc').
    """
    of_gates, f, by_c = slopes
    by_i, by_f, by_g, by_o = jnp.split(of_gates * _sum(dp, dq), 4, axis=-1)
    dc = f * dcarry[1] + by_i + by_f + by_g
    return by_o + by_c * dc, dc


CELLS: dict[str, Cell] = {
    "vanilla": Cell(1, 1, False, None, vanilla, vanilla_slopes, vanilla_differential),
    "gru": Cell(3, 1, True, None, gru, gru_slopes, gru_differential),
    "lstm": Cell(4, 2, False, 1, lstm, lstm_slopes, lstm_differential),
}


def find_cell(name: str) -> Cell:
    """Return the cell with this name: "vanilla", "gru" or "lstm".

    In the example, the GRU has three blocks of weights: one for each of its two gates,
    and one for its candidate state.

    Raises:
      ValueError: The name is unknown.
    Example:
      >>> find_cell("gru").num_blocks
      3
    """
    if not isinstance(name, str) or name not in CELLS:
        raise ValueError(
            f"cell must be one of {', '.join(CELLS)}; got cell={name!r}. Pass one of "
            "these names."
        )
    return CELLS[name]


def _sum(dp: Array | None, dq: Array) -> Array:
    return dq if dp is None else dp + dq
