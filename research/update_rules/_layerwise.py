"""Rules that treat each leaf as a whole: LAMB, Muon, NorMuon and hyperball.

LAMB uses the norm of each leaf. Muon uses the singular values of each matrix. NorMuon
also uses the size of each column. hyperball keeps the norm of each matrix.
"""

import dataclasses
import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jaxtyping import Float, Int

from research.checks import check_number, shown
from research.naming import known_names
from research.schedules import Schedule
from research.sizes import check_most
from research.types import Array, Integer, Params, Scalar
from research.update_rules._adam import adam
from research.update_rules._bias_correction import bias_correction as correction_of
from research.update_rules._checks import check_rate, checked, make_inner, rate_at
from research.update_rules._edges import (
    complete,
    norm_of,
    quotient,
    range_scale,
    with_range,
)
from research.update_rules._entry import MOMENTUM, Range, RuleEntry, step_rate
from research.update_rules._groups import checked_mask, spread_labels
from research.update_rules._second_order import require
from research.update_rules._transforms import (
    add_decayed_weights,
    cast,
    constant_rate,
    descend,
    direction_of,
    increment,
    like,
    moving_average,
)

# Keller Jordan's coefficients, chosen for a large slope at 0. Five iterations raise it
# to 3.4445^5 = 485. The singular values do not converge to 1.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
# Coefficients of each iteration as printed by Amsel et al., The Polar Express (2025),
# appendix A. Each polynomial is the best one for the interval that the iterations
# before it leave.
_OF_THE_PAPER = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
    (1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
    (1.875, -1.25, 0.375),
)


def _shrunk(coefficients: tuple[float, ...], factor: float) -> tuple[float, ...]:
    """Return the coefficients of p(x / factor), given those of the polynomial p(x)."""
    a, b, c = coefficients
    return a / factor, b / factor**3, c / factor**5


# The paper's code divides the argument of every polynomial but the last by 1.01,
# against rounding above 1. It also multiplies the norm of the matrix by 1.01 before the
# first.
POLAR_EXPRESS = (
    _shrunk(_shrunk(_OF_THE_PAPER[0], 1.01), 1.01),
    *(_shrunk(c, 1.01) for c in _OF_THE_PAPER[1:-1]),
    _OF_THE_PAPER[-1],
)
# Ahn et al., Dion: distributed orthonormalized updates (2025); as in
# optax.contrib.muon.
DION = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)
COEFFICIENTS: dict[str, tuple[tuple[float, ...], ...]] = {
    "standard": (NEWTON_SCHULZ,),
    "polar_express": POLAR_EXPRESS,
    "dion": DION,
}


@checked
def lamb(
    learning_rate: Scalar | Schedule,
    b1: Scalar = 0.9,
    b2: Scalar = 0.999,
    eps: Scalar = 1e-6,
    eps_root: Scalar = 0.0,
    weight_decay: Scalar = 0.0,
    mask: Any = None,
) -> optax.GradientTransformation:
    """Scale AdamW's step for each leaf to the norm of the leaf.

    u_t = -η_t (|x_t| / |d_t|) d_t for each leaf, with d_t = m̂_t / (√(v̂_t + ε_root) +
    ε) + λ x_t as in `adamw`. Here u_t is the update and x_t are the params of the leaf,
    |.| is the Euclidean norm of a leaf, η_t is the learning rate and λ is weight_decay.
    m̂_t and v̂_t are the averages of the gradients and of their squares, with bias
    correction. If |x_t| or |d_t| is 0, the ratio |x_t| / |d_t| is replaced by 1, as in
    the authors' code. Without this replacement, a leaf that starts at 0 would have the
    ratio 0 and could never move.

    In the paper by You et al., a function φ may clip |x_t|. In this rule, φ is the
    identity. optax.lamb is the same rule. The authors' code (ALBERT) does not correct
    the bias. timm's Lamb is the same rule with max_grad_norm=None and
    always_adapt=True. By default timm's Lamb clips the global norm of the gradient to
    1, and leaves out the ratio for leaves with λ = 0. torch does not have LAMB.

    Use it for large batches on models with many layers of different scales, with a
    warm-up of the rate. On small problems, LAMB rarely has an advantage over AdamW.
    With η = 0.1, the norm of a leaf's step is a tenth of the norm of the leaf, even
    near a minimum. Therefore let the rate decay.

    Args:
      learning_rate: Learning rate η. A number of at least 0, a traced scalar, or a
        schedule (number of earlier steps -> η).
      b1, b2: Decay rates β1 and β2 in [0, 1); may be traced.
      eps, eps_root: Constants ε and ε_root, at least 0; may be traced.
      weight_decay: Factor λ, at least 0; may be traced.
      mask: Pytree of booleans (a prefix of the params), or a function from params to
        such a pytree. Leaves marked True are decayed. None means all leaves.
    Returns:
      The rule; its update needs params.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type,
        mask does not fit the params, or update got no params.
    References:
      You et al., Large batch optimization for deep learning: training BERT in 76
      minutes, ICLR 2020, algorithm 2.
    Example:
      >>> rule, x = lamb(0.5, eps=0.0), jnp.array([3.0, 4.0, 0.0, 0.0])
      >>> print(rule.update(jnp.array([8.0, -8.0, 8.0, 8.0]), rule.init(x), x)[0])
      [-1.25  1.25 -1.25 -1.25]
    """
    direction = direction_of(adam(1.0, b1, b2, eps, eps_root))
    return optax.chain(
        direction,
        add_decayed_weights(weight_decay, mask),
        _as_long_as_the_leaf(),
        descend(learning_rate),
    )


def _as_long_as_the_leaf() -> optax.GradientTransformation:
    def scale(d: Array, x: Array):
        of_x, of_d = norm_of(x), norm_of(d)
        ratio = jnp.where(
            (of_x == 0) | (of_d == 0), 1.0, of_x / of_d
        )  # NaN != 0, so a NaN stays visible.
        return cast(ratio, d) * d

    def update(updates: Params, state: Any, params: Params | None = None):
        return jax.tree.map(
            scale, updates, params
        ), state  # The decay before this link checked params.

    return complete(optax.GradientTransformation(optax.init_empty_state, update))


@dataclasses.dataclass(frozen=True)
class MatrixAxes:
    """Axes of a leaf that `muon` reads as the rows and the columns of matrices.

    The input axes are merged into the rows of a matrix, and the output axes into the
    columns, in the given order. Each index of the remaining axes gives one matrix. Then
    every matrix may be cut into equal blocks (heads), and each block is read as one
    matrix. `matrices_of` returns these matrices. optax.contrib.MuonDimensionNumbers
    has fields for the axes, but cannot cut a matrix into blocks.

    Attributes:
      inputs, outputs: Input axes and output axes of the leaf. Each is the number of an
        axis, or a tuple of such numbers. Negative numbers count from the last axis.
      input_heads, output_heads: Number of blocks into which the rows are cut, and
        number of blocks into which the columns are cut. 1 means no cut.
    Raises:
      ValueError, TypeError: An axis is not an integer, or a number of blocks is not a
        positive integer.
    Example:
      >>> queries = MatrixAxes(inputs=0, outputs=1, output_heads=8)  # (model, 8 * head)
      >>> matrices_of(jnp.zeros((16, 32)), queries).shape
      (8, 16, 4)
      >>> kernel = MatrixAxes(inputs=(0, 1, 2), outputs=3)  # (height, width, in, out)
      >>> matrices_of(jnp.zeros((3, 3, 4, 5)), kernel).shape
      (1, 36, 5)
    """

    inputs: int | tuple[int, ...] = 0
    outputs: int | tuple[int, ...] = 1
    input_heads: int = 1
    output_heads: int = 1

    def __post_init__(self):
        for name in ("inputs", "outputs"):
            for axis in _several(getattr(self, name)):
                check_number(f"an axis of {name}", axis, integer=True, signed=True)
        for name in ("input_heads", "output_heads"):
            check_number(name, getattr(self, name), positive=True, integer=True)


def _several(axes: int | tuple[int, ...]) -> tuple[int, ...]:
    return tuple(axes) if isinstance(axes, tuple | list) else (axes,)


class _Layout(NamedTuple):
    order: tuple[int, ...]  # Axes of the leaf, transposed: batch, inputs, outputs.
    blocks: tuple[int, ...]  # (batch, input heads, rows, output heads, columns)


def _layout(shape: tuple[int, ...], axes: MatrixAxes, where: str = "") -> _Layout:
    given = _several(axes.inputs), _several(axes.outputs)
    outside = [k for part in given for k in part if not -len(shape) <= k < len(shape)]
    inputs, outputs = ([k % max(len(shape), 1) for k in part] for part in given)
    said = f"{axes} does not fit a leaf of shape {list(shape)}{where}: "
    if outside:
        raise ValueError(f"{said}the leaf has no axis {outside[0]}.")
    if len({*inputs, *outputs}) < len(inputs) + len(outputs):
        raise ValueError(f"{said}name each axis once.")
    batch = [k for k in range(len(shape)) if k not in (*inputs, *outputs)]
    m, n = (math.prod(shape[k] for k in part) for part in (inputs, outputs))
    for name, size, heads in (
        ("input_heads", m, axes.input_heads),
        ("output_heads", n, axes.output_heads),
    ):
        if size % heads:
            raise ValueError(f"{said}{name} must divide {size}.")
    blocks = (
        math.prod(shape[k] for k in batch),
        axes.input_heads,
        m // axes.input_heads,
        axes.output_heads,
        n // axes.output_heads,
    )
    return _Layout((*batch, *inputs, *outputs), blocks)


def matrices_of(
    x: Float[Array, "*shape"], axes: MatrixAxes
) -> Float[Array, "matrices rows columns"]:
    """Return the matrices of a leaf, shape (number of matrices, rows, columns).

    x is the leaf, and `axes` describes how the leaf is read as matrices.

    Raises:
      ValueError: axes do not fit the shape of the leaf.
    Example:
      >>> print(
      ...     matrices_of(
      ...         jnp.arange(4.0).reshape(2, 2), MatrixAxes(input_heads=2)
      ...     ).shape
      ... )
      (2, 1, 2)
    """
    order, (b, i, m, o, n) = _layout(x.shape, axes)
    blocks = x.transpose(order).reshape(b, i, m, o, n).transpose(0, 1, 3, 2, 4)
    return blocks.reshape(b * i * o, m, n)


def leaf_of(
    matrices: Float[Array, "matrices rows columns"],
    shape: tuple[int, ...],
    axes: MatrixAxes,
) -> Float[Array, "*shape"]:
    """Return the leaf that has the given matrices and shape; inverse of `matrices_of`.

    `axes` describes how the leaf is read as matrices.

    Example:
      >>> axes = MatrixAxes(1, 0, output_heads=2)
      >>> x = jnp.arange(8.0).reshape(4, 2)
      >>> bool((leaf_of(matrices_of(x, axes), x.shape, axes) == x).all())
      True
    """
    order, (b, i, m, o, n) = _layout(shape, axes)
    blocks = matrices.reshape(b, i, o, m, n).transpose(0, 1, 3, 2, 4)
    back = sorted(range(len(order)), key=order.__getitem__)
    return blocks.reshape([shape[k] for k in order]).transpose(back)


_PLAIN = MatrixAxes()


def _by_matrix(function: Callable[[Array], Array], a: Array, axes: MatrixAxes) -> Array:
    """Apply a function to each matrix of a leaf."""
    if a.ndim == 2 and axes == _PLAIN:
        return function(a)
    return leaf_of(jax.vmap(function)(matrices_of(a, axes)), a.shape, axes)


class MuonState(NamedTuple):
    """State of `muon` and `normuon` for the leaves that are read as matrices.

    Attributes:
      count: Number t of steps taken, int32, shape ().
      mu: Moving average M_t of gradients, shaped like the params.
    """

    count: Int[Array, ""]
    mu: Params


@checked
def muon(
    learning_rate: Scalar | Schedule,
    beta: Scalar = 0.95,
    nesterov: bool = True,
    eps: Scalar = 1e-7,
    weight_decay: Scalar = 0.0,
    ns_steps: Integer = 5,
    ns_coeffs: Any = NEWTON_SCHULZ,
    bias_correction: bool = False,
    matrices: Any = None,
    inner: Callable[..., optax.GradientTransformation] | None = None,
    consistent_rms: Scalar | None = None,
) -> optax.GradientTransformation:
    """Orthogonalise the momentum of each matrix before the step.

    U_t = -η_t (s O(β M_t + (1 - β) G_t) + λ X_t), with M_t = β M_(t-1) + (1 - β) G_t
    and the scale s = √max(1, n / m). X_t is the matrix, G_t its gradient and U_t its
    update, of shape (m, n) for m inputs and n outputs. η_t is the learning rate, λ is
    weight_decay, β is beta, and M_t is the momentum, from M_0 = 0. The function O is
    defined in the next paragraph. With nesterov=False, O is applied to M_t in place of
    β M_t + (1 - β) G_t.

    O(A) keeps the singular vectors of A and brings its singular values close to 1. The
    computation of O(A) starts from Y = A / (|A| + ε), where |A| is the Frobenius norm,
    and repeats Y <- a Y + b Y Yᵀ Y + c Y Yᵀ Y Yᵀ Y for ns_steps iterations. The
    defaults are five iterations, and the a, b and c of the reference implementation by
    Jordan et al. These defaults map singular values of at least 0.01 |A| to values
    between 0.68 and 1.14. With the coefficients (15/8, -10/8, 3/8), the singular values
    converge to 1, but this takes more iterations. If the coefficients differ between
    iterations, fewer iterations are needed. The coefficients of the Polar Express
    (ns_coeffs="polar_express") map singular values of at least 0.01 |A| to values
    between 0.87 and 1.13 in five iterations. After six iterations, these values differ
    from 1 by at most 0.003.

    If consistent_rms is a number r, then s = r √max(m, n), and the root mean square of
    s times the value of O is about r for every shape. With r = 0.2, this root mean
    square is about as large as that of Adam's step, so the learning rate and the weight
    decay of AdamW can be used.

    The rule differs from the reference implementation in two ways. First, the reference
    rounds to bfloat16 inside O. This rule computes in the leaf's dtype. Second, for
    kernels of convolutions, the reference computes s from the height and the width of
    the kernel, so that s is 1 for a square kernel. This rule computes s from the m and
    n of the matrices that the argument `matrices` describes.

    torch.optim.Muon rounds to bfloat16 inside O, too, and divides A by max(|A|, ε)
    instead of |A| + ε. Its adjust_lr_fn="match_rms_adamw" is consistent_rms=0.2 here.

    optax.contrib.muon differs in four ways. First, optax corrects the bias, as this
    rule does with bias_correction=True. In β M_t + (1 - β) G_t, optax divides M_t by 1
    - β^(t+1) and G_t by 1 - β^t. For example, let β be 0.95. In β M_2 + (1 - β) G_2,
    the weight of G_1 is 0.374 times the weight of G_2 with the correction, and 0.463
    times without it. Second, optax's ε is 1e-8.
    Third, optax's `nesterov`, which is on by default, also turns the Adam for the other
    leaves into NAdam. Fourth, optax makes one iteration for each triple of a list of
    coefficients, and refuses a list of more than ns_steps triples. This rule always
    makes ns_steps iterations. It ignores further triples, and repeats the last triple
    of a shorter list, as the paper of the Polar Express does.

    The state of a matrix has one number per parameter, for M_t. The state of any other
    leaf is that of the rule from `inner`. For Adam, this is two numbers per parameter.

    Use it for the weight matrices between hidden layers of deep networks, where it
    converges fast. Leave input layers, output layers, biases and gains to `inner`. The
    step does not shrink with the gradient, so the params only converge if the rate
    decays.

    Args:
      learning_rate: Learning rate η of all leaves. A number of at least 0, a traced
        scalar, or a schedule (number of earlier steps -> η).
      beta: Decay rate β in [0, 1); may be traced.
      nesterov: Whether to use the look-ahead β M_t + (1 - β) G_t instead of M_t.
      eps: Constant ε, at least 0; may be traced.
      weight_decay: Factor λ for the matrices, at least 0; may be traced. The decay is
        decoupled, that is, not part of the momentum.
      ns_steps: Number of iterations, an integer from 1 to 1000; may be traced.
      ns_coeffs: Coefficients a, b and c, or a sequence of such triples, one for each
        iteration. Iterations beyond the last triple use the last triple. Names of
        published coefficients are accepted, too: "standard" (those of the reference
        implementation, the default), "polar_express" and "dion".
      bias_correction: Whether to correct the bias, as optax does. With nesterov=True,
        M_t is divided by 1 - β^(t+1) and G_t by 1 - β^t. With nesterov=False, M_t is
        divided by 1 - β^t.
      matrices: Pytree of True, False and `MatrixAxes` (a prefix of the params), or a
        function from params to such a pytree. A leaf marked True must have two axes,
        and is one matrix. A leaf marked False uses the rule from `inner`. `MatrixAxes`
        names the axes of a leaf that become the rows and the columns of a matrix. Each
        index of the remaining axes gives one matrix, for example one for each attention
        head. m and n are then the numbers of rows and columns of one matrix. None
        selects the leaves with two axes.
      inner: Function from a rate to the rule for the other leaves; None means adam. The
        rule is made with the rate 1, and its updates are multiplied by η_t. For
        example, `lambda rate: adamw(0.1 * rate)` is AdamW at a tenth of the rate.
      consistent_rms: Approximate root mean square r of s O(...), at least 0; may be
        traced. The step without weight decay is -η_t s O(...). None means
        s = √max(1, n / m).
    Returns:
      The rule; its update needs params.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type; a
        selected leaf is not a matrix; update got no params; in init, a selected leaf is
        complex.
    References:
      Jordan et al., Muon: an optimizer for hidden layers in neural networks, 2024
      (kellerjordan.github.io/posts/muon). Liu et al., Muon is scalable for LLM
      training, arXiv:2502.16982 (2025), section 2.2 on consistent_rms. Amsel et al.,
      The Polar Express, arXiv:2505.16932 (2025), appendix A.
    Example:
      >>> rule, x = (
      ...     muon(1.0, eps=0.0, ns_coeffs=(1.875, -1.25, 0.375), ns_steps=9),
      ...     {"w": jnp.eye(2), "b": jnp.ones(1)},
      ... )
      >>> updates, _ = rule.update(
      ...     {"w": jnp.array([[0.0, 3.0], [-2.0, 0.0]]), "b": jnp.full(1, 8.0)},
      ...     rule.init(x),
      ...     x,
      ... )
      >>> print(updates["w"].round(6) + 0.0, updates["b"])
      [[ 0. -1.]
       [ 1.  0.]] [-1.]
    """
    check_number("beta", beta, below=1.0)
    check_number("eps", eps)
    check_number("weight_decay", weight_decay)
    check_number("ns_steps", ns_steps, positive=True, integer=True)
    check_most(1_000, ns_steps=ns_steps)
    if consistent_rms is not None:
        check_number("consistent_rms", consistent_rms)
    coefficients = _coefficients(ns_coeffs)
    layout_of = _layouts("muon", matrices)

    def orthogonalise(a: Array):
        found = newton_schulz(a, ns_steps, coefficients, eps)
        return _scale(a.shape, consistent_rms, a) * found

    def of_matrices(layouts: list[MatrixAxes]):
        return optax.chain(
            _momentum(beta, nesterov, bias_correction, orthogonalise, layouts),
            add_decayed_weights(weight_decay),
        )

    return complete(
        optax.chain(
            _split(layout_of, of_matrices, direction_of(make_inner(inner, 1.0, adam))),
            descend(learning_rate),
        )
    )


def _scale(shape: tuple[int, ...], consistent_rms: Any, a: Array) -> Any:
    m, n = shape
    if consistent_rms is None:
        return math.sqrt(max(1.0, n / max(m, 1)))
    return cast(consistent_rms, a) * cast(math.sqrt(max(m, n)), a)


def _coefficients(ns_coeffs: Any) -> tuple[tuple[Any, ...], ...]:
    """Return a triple of coefficients for each of the first iterations."""
    if isinstance(ns_coeffs, str):
        if ns_coeffs not in COEFFICIENTS:
            raise ValueError(
                f"unknown ns_coeffs {ns_coeffs!r}{known_names(ns_coeffs, COEFFICIENTS)}"
            )
        return COEFFICIENTS[ns_coeffs]
    if isinstance(ns_coeffs, tuple | list) or jnp.ndim(_array_or_0(ns_coeffs)):
        rows = list(ns_coeffs)
        if len(rows) == 3 and all(jnp.ndim(_array_or_0(x)) == 0 for x in rows):
            rows = [rows]
        if rows and all(_is_triple(row) for row in rows):
            for number in (x for row in rows for x in row):
                check_number("each of ns_coeffs", number, signed=True)
            return tuple(tuple(row) for row in rows)
    raise ValueError(
        "ns_coeffs must be three numbers (the coefficients of x, x³ and x⁵), one such "
        f"triple for each iteration, or one of {', '.join(map(repr, COEFFICIENTS))}; "
        f"got ns_coeffs={shown(ns_coeffs)}."
    )


def _array_or_0(value: Any) -> Any:
    """Return zeros for a tuple or list, the value if it has a shape, otherwise 0.

    The zeros have the length of the tuple or list.
    """
    if isinstance(value, tuple | list):
        return np.zeros(len(value))
    return value if hasattr(value, "shape") else 0


def _is_triple(row: Any) -> bool:
    return jnp.shape(_array_or_0(row)) == (3,)


def _layouts(rule: str, matrices: Any) -> Callable[[Params], Any]:
    """Return a function from params to a pytree with an entry for each leaf.

    The entry is MatrixAxes for a leaf that is read as matrices, and False for others.
    `rule` is the name of the rule, for error messages.
    """
    as_flag = lambda entry: True if isinstance(entry, MatrixAxes) else entry
    flags = lambda entries: jax.tree.map(as_flag, entries)
    if matrices is None:
        matrices = _two_axes
    entries_at = lambda params: matrices(params) if callable(matrices) else matrices
    by_function = lambda params: flags(entries_at(params))
    chosen = checked_mask(
        by_function if callable(matrices) else flags(matrices),
        "matrices",
        "True, False or MatrixAxes",
    )

    def layouts(params: Params) -> Any:
        mask = chosen(params)
        entries = spread_labels("matrices", entries_at(params), params)
        axes = lambda on, entry: (
            entry if isinstance(entry, MatrixAxes) else on and _PLAIN
        )
        found = jax.tree.map(axes, mask, entries)
        pairs = jax.tree_util.tree_leaves_with_path(params)
        for (path, x), entry in zip(pairs, jax.tree.leaves(found), strict=True):
            where = jax.tree_util.keystr(path) or "the top"
            if entry is _PLAIN and jnp.ndim(x) != 2:
                raise ValueError(
                    f"{rule} takes matrices, but the leaf at {where} that "
                    f"`matrices` chooses has shape {list(jnp.shape(x))}. Choose leaves "
                    "with two axes, or pass MatrixAxes to name the axes of the matrix."
                )
            if isinstance(entry, MatrixAxes):
                _layout(jnp.shape(x), entry, f" at {where}")
        return found

    return layouts


def _two_axes(tree: Params) -> Any:
    return jax.tree.map(lambda x: jnp.ndim(x) == 2, tree)


def _split(
    layouts_of: Callable[[Params], Any],
    of_matrices: Callable[[list[MatrixAxes]], optax.GradientTransformation],
    others: optax.GradientTransformation,
) -> optax.GradientTransformation:
    """Return a rule that updates matrices and other leaves by different rules.

    `of_matrices` makes the rule of the matrices from their axes.
    """

    def parts(params: Params) -> optax.GradientTransformationExtraArgs:
        layouts = layouts_of(params)
        chosen = jax.tree.map(lambda a: isinstance(a, MatrixAxes), layouts)
        axes = [a for a in jax.tree.leaves(layouts) if isinstance(a, MatrixAxes)]
        rule = of_matrices(axes)
        rest = jax.tree.map(operator.not_, chosen)
        return optax.chain(optax.masked(rule, chosen), optax.masked(others, rest))

    def init(params: Params):
        return parts(params).init(params)

    def update(updates: Params, state: Any, params: Params | None = None, **extra: Any):
        shapes = updates if params is None else params
        return parts(shapes).update(updates, state, params, **extra)

    return complete(optax.GradientTransformationExtraArgs(init, update))


def _momentum(
    beta: Scalar,
    nesterov: bool,
    bias_correction: bool,
    orthogonalise: Callable[[Array], Array],
    layouts: list[MatrixAxes],
    rule: str = "muon",
) -> optax.GradientTransformation:
    def init(params: Params):
        return MuonState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params))

    def update(updates: Params, state: Any, params: Params | None = None):
        del params
        count = increment(state.count)
        mu = moving_average(beta, state.mu, updates)

        def corrected(a: Array, t: Array):
            return a / cast(correction_of(beta, t), a) if bias_correction else a

        def averaged(g: Array, m: Array):
            if not nesterov:
                return corrected(m, count)
            ahead = corrected(m, increment(count))
            newest = corrected(g.astype(m.dtype), count)
            return cast(beta, m) * ahead + cast(1.0 - beta, m) * newest

        def direction(g: Array, m: Array, axes: MatrixAxes):
            return _by_matrix(orthogonalise, averaged(g, m), axes).astype(g.dtype)

        axes = jax.tree.unflatten(jax.tree.structure(updates), layouts)
        return jax.tree.map(direction, updates, mu, axes), MuonState(count, mu)

    return complete(optax.GradientTransformation(init, update), only_real=rule)


def newton_schulz(
    a: Float[Array, "rows columns"],
    ns_steps: Integer = 5,
    ns_coeffs: Any = NEWTON_SCHULZ,
    eps: Scalar = 1e-7,
) -> Float[Array, "rows columns"]:
    """Return a matrix with the singular vectors of `a` and singular values near 1.

    The matrix is divided by its Frobenius norm, and then an odd polynomial of degree
    five is applied repeatedly to its singular values. This enlarges small singular
    values, with the defaults by a factor of at most 485. Singular values that are much
    smaller than 1/485 of the norm therefore stay far below 1. If a singular value is 0,
    its rounding error is enlarged by up to this factor.

    Args:
      a: Matrix, shape (m, n).
      ns_steps: Number of iterations, an integer from 1 to 1000; may be traced.
      ns_coeffs: Coefficients p, q and r of the polynomial p x + q x³ + r x⁵, or a
        sequence of such triples, or a name, as in `muon`.
      eps: Constant that is added to the norm of the matrix, at least 0; may be traced.
    Returns:
      The matrix, shape (m, n), with the dtype of a.
    Raises:
      ValueError, TypeError: ns_coeffs is not of this form, or ns_steps is above 1000.
    Example:
      >>> print(
      ...     newton_schulz(
      ...         jnp.diag(jnp.array([3.0, 4.0])), 9, (1.875, -1.25, 0.375)
      ...     ).round(6)
      ... )
      [[1. 0.]
       [0. 1.]]
    """
    triples = _coefficients(ns_coeffs)
    x = a if a.shape[0] <= a.shape[1] else a.T  # Use the smaller of XXᵀ and XᵀX.
    norm = norm_of(x)
    x = (x.astype(norm.dtype) / (norm + cast(eps, norm))).astype(x.dtype)

    def iterate(coefficients: Any, x: Array):
        first, third, fifth = (cast(c, a) for c in coefficients)
        square = _product(x, x.T)
        return first * x + _product(
            third * square + fifth * _product(square, square), x
        )

    last = len(triples) - 1
    if not isinstance(ns_steps, Tracer):
        check_most(1_000, ns_steps=ns_steps)
        for k in range(ns_steps):
            x = iterate(triples[min(k, last)], x)
    else:  # For example under optax.inject_hyperparams.
        table = jnp.asarray(triples, x.dtype)
        at = lambda k: triples[0] if not last else table[jnp.minimum(k, last)]
        x = jax.lax.fori_loop(0, ns_steps, lambda k, x: iterate(at(k), x), x)
    return x if a.shape[0] <= a.shape[1] else x.T


def _product(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision="highest")


class NeuronState(NamedTuple):
    """State of the normalisation of `normuon`.

    Attributes:
      nu: For each leaf, the moving average of the mean square of each column of the
        orthogonalised momentum, shape (number of matrices, 1, number of columns).
    """

    nu: Params


@checked
def normuon(
    learning_rate: Scalar | Schedule,
    beta: Scalar = 0.95,
    beta2: Scalar = 0.95,
    nesterov: bool = True,
    eps: Scalar = 1e-7,
    weight_decay: Scalar = 0.0,
    ns_steps: Integer = 5,
    ns_coeffs: Any = NEWTON_SCHULZ,
    matrices: Any = None,
    inner: Callable[..., optax.GradientTransformation] | None = None,
    consistent_rms: Scalar | None = None,
) -> optax.GradientTransformation:
    """Scale the step of Muon separately for each output of a matrix.

    U_t = -η_t (s P_t + λ X_t), with
    P_t = O_t / (√v_t + δ), column by column,
    v_t = β2 v_(t-1) + (1 - β2) (mean of the squares of each column of O_t).

    X_t is a matrix of shape (m, n) for m inputs and n outputs, and U_t is its update.
    v_t has a number for each column, that is, for each output (neuron), and v_0 is 0.
    η_t is the learning rate, δ is 1e-10, β2 is beta2 and λ is weight_decay.

    O_t is the orthogonalised momentum of `muon`: O(β M_t + (1 - β) G_t), or O(M_t) with
    nesterov=False. Here G_t is the gradient, and M_t is the moving average of the
    gradients with the decay β, which is beta. O(A) has the singular vectors of A and
    singular values close to 1. The docstring of `muon` defines O.

    The factor is s = √max(1, n / m) |O_t| / (|P_t| + δ), where |.| is the Frobenius
    norm. With this factor, the step has the same norm as the step of Muon. If
    consistent_rms is a number c, then s = c √(m n) / (|P_t| + δ), and the root mean
    square of s P_t is c.

    The authors' code is the same rule, except that the code rounds to bfloat16 inside
    O. The algorithm of Li et al. has consistent_rms=0.2. In the authors' code,
    matrices have shape (outputs, inputs), so v_t has a number for each row. optax and
    torch do not have NorMuon.

    The state of a matrix has 1 + 1 / m numbers per parameter, for M_t and v_t. Leaves
    that `matrices` does not select use the rule from `inner` and have the state of that
    rule. Adam, the default, stores two numbers per parameter.

    Use it instead of Muon where some outputs of a layer get much larger updates than
    others, as in the training of language models.

    Args:
      learning_rate, beta, nesterov, eps, weight_decay, ns_steps, ns_coeffs, matrices,
        inner: As in `muon`.
      beta2: Decay rate β2 in [0, 1); may be traced.
      consistent_rms: Root mean square c of s P_t, at least 0; may be traced. The step
        without weight decay is -η_t s P_t. None gives this step the norm of Muon's
        step.
    Returns:
      The rule; its update needs params.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type; a
        selected leaf is not a matrix; update got no params; in init, a selected leaf is
        complex.
    References:
      Li et al., NorMuon: making Muon more efficient and scalable, arXiv:2510.05491
      (2025), algorithm 1 (github.com/zichongli5/NorMuon).
    Example:
      >>> rule, x = (
      ...     normuon(1.0, beta=0.0, beta2=0.0, consistent_rms=0.5),
      ...     jnp.zeros((2, 2)),
      ... )
      >>> print(
      ...     rule.update(jnp.diag(jnp.array([8.0, -2.0])), rule.init(x), x)[0].round(6)
      ...     + 0.0
      ... )
      [[-0.707107  0.      ]
       [ 0.        0.707107]]
    """
    check_number("beta", beta, below=1.0)
    check_number("beta2", beta2, below=1.0)
    check_number("eps", eps)
    check_number("weight_decay", weight_decay)
    check_number("ns_steps", ns_steps, positive=True, integer=True)
    check_most(1_000, ns_steps=ns_steps)
    if consistent_rms is not None:
        check_number("consistent_rms", consistent_rms)
    coefficients = _coefficients(ns_coeffs)

    def of_matrices(layouts: list[MatrixAxes]):
        orthogonalise = lambda a: newton_schulz(a, ns_steps, coefficients, eps)
        return optax.chain(
            _momentum(beta, nesterov, False, orthogonalise, layouts, "normuon"),
            _by_neuron(beta2, consistent_rms, layouts),
            add_decayed_weights(weight_decay),
        )

    others = direction_of(make_inner(inner, 1.0, adam))
    return complete(
        optax.chain(
            _split(_layouts("normuon", matrices), of_matrices, others),
            descend(learning_rate),
        )
    )


_NEVER_ZERO = 1e-10  # The δ of the authors' code.


def _by_neuron(
    beta2: Scalar, consistent_rms: Any, layouts: list[MatrixAxes]
) -> optax.GradientTransformation:
    def axes_like(tree: Params) -> Params:
        return jax.tree.unflatten(jax.tree.structure(tree), layouts)

    def init(params: Params):
        def of_leaf(x: Array, axes: MatrixAxes):
            _, (b, i, _, o, n) = _layout(x.shape, axes)
            return jnp.zeros((b * i * o, 1, n), x.dtype)

        return NeuronState(jax.tree.map(of_leaf, params, axes_like(params)))

    def update(updates: Params, state: Any, params: Params | None = None):
        del params

        def squares(u: Array, axes: MatrixAxes):
            return jnp.mean(jnp.square(matrices_of(u, axes)), 1, keepdims=True)

        def normalised(u: Array, nu: Array, axes: MatrixAxes):
            a = matrices_of(u, axes)
            p = quotient(a, (jnp.sqrt(nu) + cast(_NEVER_ZERO, nu)).astype(a.dtype))
            of_a, of_p = _norms(a), _norms(p)
            m, n = a.shape[1:]
            wanted = (
                math.sqrt(max(1.0, n / max(m, 1))) * of_a
                if consistent_rms is None
                else cast(consistent_rms, of_p) * math.sqrt(m * n)
            )
            scale = wanted / (of_p + cast(_NEVER_ZERO, of_p))
            p = with_range(p)
            return leaf_of(like(scale.astype(p.dtype) * p, a), u.shape, axes)

        axes = axes_like(updates)
        nu = moving_average(beta2, state.nu, jax.tree.map(squares, updates, axes))
        return jax.tree.map(normalised, updates, nu, axes), NeuronState(nu)

    return complete(optax.GradientTransformation(init, update))


class HyperballState(NamedTuple):
    """State of `hyperball`, whose docstring defines the symbols.

    Attributes:
      count: Number of steps taken, int32, shape ().
      learning_rate: Learning rate η of the last step, shape (). Before the first step,
        the rate that the first step will use.
      radii: For each leaf that is read as matrices, the Frobenius norms of these
        matrices at the start, shape (number of matrices, 1, 1). Other leaves have None.
      inner: State of the inner rule.
    """

    count: Int[Array, ""]
    learning_rate: Float[Array, ""]
    radii: Params
    inner: optax.OptState


@checked
def hyperball(
    learning_rate: Scalar | Schedule,
    inner: Callable[..., optax.GradientTransformation] | None = None,
    matrices: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """Keep the Frobenius norm of each weight matrix constant.

    X_(t+1) = R Y_t / |Y_t|, with Y_t = X_t - η_t R D_t / |D_t| and R = |X_0|. X_t is
    the matrix, |.| is the Frobenius norm, η_t is the learning rate, and D_t is -1 times
    the update of another rule (inner) with the rate 1. The step of a matrix depends
    only on the direction of D_t, not on its length. If D_t is orthogonal to X_t, the
    matrix turns by the angle arctan(η_t), which is about η_t radians. All other leaves
    take the step of the inner rule, multiplied by η_t. This rule is called AdamH if the
    inner rule is Adam, and MuonH if the inner rule is Muon.

    If D_t is 0, the matrix does not change. A matrix that starts at 0 has no norm to
    keep, so it takes the step of the inner rule, multiplied by η_t. For a matrix that
    keeps its norm, weight decay in the inner rule only changes the direction of D_t.
    The norms |X_0| and |D_t| must be in the range of the dtype in which they are
    computed (at least float32).

    Wen et al. replace AdamW with the rate η_A and the decay λ by this rule with the
    rate η = √(η_A λ). In the long run, the weights then turn about as fast as with
    AdamW. optax and torch do not have the rule.

    The rule stores one number per matrix, in addition to the state of the inner rule.

    Use it instead of weight decay for networks whose outputs do not depend on the norms
    of the matrices, for example because of a normalisation after every matrix. Do not
    use it for models that must learn the norms, such as regressions.

    Args:
      learning_rate: Learning rate η: a number of at least 0, a traced scalar, or a
        schedule (number of earlier steps -> η).
      inner: Function from a rate to the inner rule; None means adam. The function is
        called with the rate 1. For leaves that do not keep their norms, the updates of
        the inner rule are multiplied by η_t.
      matrices: Mask of the leaves that keep their norms, in the form of the argument
        `matrices` of `muon`. None selects the leaves with two axes.
    Returns:
      The rule; its update needs params, and the arguments that the inner rule needs.
    Raises:
      ValueError, TypeError: A concrete argument is out of range or of the wrong type; a
        selected leaf is not a matrix; update got no params; in init, the params are
        complex.
    References:
      Wen et al., Fantastic pretraining optimizers and where to find them 2.1: hyperball
      optimization, 2025 (whenwen.github.io/blog/2025/weight-decay-hyperball-part-1).
    Example:
      >>> rule, x = hyperball(1.0), jnp.array([[3.0, 4.0]])
      >>> updates, _ = rule.update(jnp.array([[8.0, 0.0]]), rule.init(x), x)
      >>> print((x + updates).round(3), jnp.linalg.norm(x + updates).round(6))
      [[-2.236  4.472]] 5.0
    """
    check_rate(learning_rate)
    rule = direction_of(make_inner(inner, 1.0, adam))
    layouts_of = _layouts("hyperball", matrices)

    def init(params: Params):
        def radius(x: Array, axes: Any):
            if not isinstance(axes, MatrixAxes):
                return None
            return _norms(matrices_of(x, axes))

        rate = constant_rate(rate_at(learning_rate, jnp.zeros((), jnp.int32)))
        radii = jax.tree.map(radius, params, layouts_of(params))
        return HyperballState(jnp.zeros((), jnp.int32), rate, radii, rule.init(params))

    def update(updates: Params, state: Any, params: Params | None = None, **extra: Any):
        require("hyperball", params=params)
        rate = constant_rate(rate_at(learning_rate, state.count))
        directions, inner_state = rule.update(updates, state.inner, params, **extra)

        def move(d: Array, x: Array, axes: Any, radius: Array | None):
            plain = -cast(rate, d) * d
            if radius is None:
                return plain
            x, along = (matrices_of(a, axes).astype(radius.dtype) for a in (x, d))
            # The step is proportional to the matrix, so a power of two keeps its bits.
            scale, back = range_scale(radius)
            # A choice, not a product by 1, which would change how XLA fuses and rounds.
            usual = scale == 1
            x, radius = (jnp.where(usual, a, scale * a) for a in (x, radius))
            length, own, step = _norms(along), _norms(x), cast(rate, radius) * radius
            unit = along / jnp.where(length == 0, 1.0, length)
            after = _norms(x - step * unit)
            # R² - |Y|², without the difference of two large numbers.
            gap = (radius - own) * (radius + own) + step * (
                2.0 * jnp.sum(x * unit, (1, 2), keepdims=True) - step
            )
            after = jnp.where(after == 0, 1.0, after)
            grown = gap / (after * (radius + after))  # ρ - 1 for the factor ρ = R / |Y|
            found = grown * x - (1.0 + grown) * step * unit
            found = jnp.where(usual, found, back * found)
            found = jnp.where(length == 0, 0.0, found)
            still = jnp.broadcast_to(radius == 0, x.shape)
            found, still = (leaf_of(a, d.shape, axes) for a in (found, still))
            return jnp.where(still, plain, found.astype(d.dtype))

        leaves, structure = jax.tree.flatten(directions)
        parts = (params, layouts_of(params), state.radii)
        rows = zip(leaves, *map(structure.flatten_up_to, parts), strict=True)
        moved = structure.unflatten([move(*row) for row in rows])
        count = increment(state.count)
        return moved, HyperballState(count, rate, state.radii, inner_state)

    return complete(
        optax.GradientTransformationExtraArgs(init, update), only_real="hyperball"
    )


def _norms(a: Array) -> Array:
    """Return the Frobenius norm of each of several matrices, shape (number, 1, 1)."""
    return jax.vmap(norm_of)(a)[:, None, None]


RULES = (
    RuleEntry(lamb, {"learning_rate": step_rate(1e-3), "b1": MOMENTUM}),
    RuleEntry(
        muon,
        {
            "learning_rate": step_rate(0.02),
            "beta": Range(0.0, 0.999, "one_minus", 0.95),
        },
    ),
    RuleEntry(
        normuon,
        {
            "learning_rate": step_rate(0.02),
            "beta": Range(0.0, 0.999, "one_minus", 0.95),
        },
    ),
    RuleEntry(hyperball, {"learning_rate": step_rate(0.01)}, aliases=("adamh",)),
)
