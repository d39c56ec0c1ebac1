"""Losses against recorded digits, mpmath, finite differences and optax; at the
extremes; and what they refuse.
"""

import functools
import json
from fractions import Fraction
from pathlib import Path

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import optax
import pytest

from research import losses

COMPILE_QUICKLY = True  # tests/conftest.py
DRAWS_NO_KEYS = True  # tests/conftest.py

REFERENCE = Path(__file__).parent / "reference"
RECORDED = {
    case["name"]: case
    for case in json.loads((REFERENCE / "losses.json").read_text())["cases"]
}
EDGES = {
    case["name"]: case
    for case in json.loads((REFERENCE / "edge_cases.json").read_text())["cases"]
}

logistics = jax.vmap(losses.logistic)
cross_entropies = jax.vmap(losses.softmax_cross_entropy)


@functools.cache
def three(loss):
    """Value, gradient and Hessian in the first argument, as one program."""
    return jax.jit(
        lambda p, y: (loss(p, y), jax.grad(loss)(p, y), jax.hessian(loss)(p, y))
    )


@functools.cache
def at_each(loss):
    """The three of each of many predictions of one target."""
    return jax.jit(jax.vmap(three(loss), (0, None)))


def mean_over_elements(loss):
    return lambda p, c: jnp.mean(jax.vmap(loss)(p, c["y"]))


def smoothed(p, c):
    targets = losses.smooth_labels(jax.nn.one_hot(c["labels"], 3, dtype=p.dtype), 0.5)
    return jnp.mean(jax.vmap(losses.softmax_cross_entropy_one_hot)(p, targets))


def focal(p, c):
    loss = cross_entropies(p, c["labels"])
    return jnp.mean(jnp.expm1(-loss) ** 2 * loss)


def gaussian(p, c):
    mean, log_variance = p[0::2], p[1::2]
    return jnp.mean(
        0.5 * log_variance
        + jnp.exp(-log_variance) * jax.vmap(losses.squared_error)(mean, c["y"])
    )


# The recorded definitions, in our losses: means and sums through vmap, the rest by the
# chain rule.
OURS = {
    "mse_sum_half": lambda p, c: losses.squared_error(p, c["y"]),
    "mae_mean": mean_over_elements(losses.absolute_error),
    "huber_delta0.5": mean_over_elements(lambda p, y: losses.huber(p, y, 0.5)),
    "huber_delta2.0": mean_over_elements(lambda p, y: losses.huber(p, y, delta=2.0)),
    "log_cosh": mean_over_elements(losses.log_cosh),
    "bce_with_logits": mean_over_elements(losses.logistic),
    "bce_with_logits_saturated": mean_over_elements(losses.logistic),
    "bce_pos_weight3": lambda p, c: jnp.mean((1 + 2 * c["y"]) * logistics(p, c["y"])),
    "bce_probabilities": lambda p, c: jnp.mean(
        logistics(jnp.log(p) - jnp.log1p(-p), c["y"])
    ),
    "ce_logits": lambda p, c: jnp.mean(cross_entropies(p, c["labels"])),
    "ce_sum": lambda p, c: jnp.sum(cross_entropies(p, c["labels"])),
    "ce_label_smoothing0.5": smoothed,
    "focal_gamma2": focal,
    "gaussian_nll": gaussian,
    "logsumexp": lambda p, c: losses.softmax_cross_entropy(p, 0) + p[0],
}


@pytest.fixture(scope="module")
def recorded_ones():
    """Name -> our value, gradient and Hessian: all are one program."""
    given = {
        name: {k: np.array(v) for k, v in RECORDED[name]["inputs"].items()}
        for name in OURS
    }

    def found(name, inputs):
        shape, rest = inputs["pred"].shape, {**inputs}
        flat = rest.pop("pred").ravel()
        return three(lambda p, rest: OURS[name](p.reshape(shape), rest))(flat, rest)

    return jax.jit(lambda given: {name: found(name, given[name]) for name in given})(
        given
    )


@pytest.mark.on_ci(
    "15 losses in one large program; the docstrings' examples have a value of each "
    "loss, and the tests of single losses below have derivatives of most"
)
@pytest.mark.parametrize("name", OURS)
def test_value_gradient_and_hessian_equal_the_recorded_digits(recorded_ones, name):
    case, found = RECORDED[name], recorded_ones[name]
    for derivative, entry in zip(found, ("value", "gradient", "hessian"), strict=True):
        expected = np.array(
            case[entry], dtype=float
        )  # Entries below 1e-308 become 0, as ours do.
        np.testing.assert_allclose(derivative, expected, rtol=1e-12, atol=0)


def focal_by_hand(margin, gamma):
    q = 1 / (1 + mpmath.exp(-margin))
    return -((1 - q) ** gamma) * mpmath.log(q)


# Each formula as printed in the docstring, in mpmath; then points (prediction, target)
# off every kink.
FORMULAS = {
    "squared_error": (losses.squared_error, lambda p, y: (p - y) ** 2 / 2, "real"),
    "absolute_error": (losses.absolute_error, lambda p, y: abs(p - y), "real"),
    "huber": (
        losses.huber,
        lambda p, y: (p - y) ** 2 / 2 if abs(p - y) <= 1 else abs(p - y) - 0.5,
        "real",
    ),
    "log_cosh": (losses.log_cosh, lambda p, y: mpmath.log(mpmath.cosh(p - y)), "real"),
    "logistic": (
        losses.logistic,
        lambda z, y: mpmath.log(1 + mpmath.exp(z)) - y * z,
        "label",
    ),
    "hinge": (
        losses.hinge,
        lambda s, y: max(mpmath.mpf(0), 1 - (2 * y - 1) * s),
        "label",
    ),
    "quantile": (
        lambda p, y: losses.quantile(p, y, 0.75),
        lambda p, y: max(0.75 * (y - p), (y - p) / -4),
        "real",
    ),
    "focal": (
        losses.focal,
        lambda z, y: focal_by_hand((2 * y - 1) * z, 2),
        "label",
    ),
    "focal, γ = 0.5": (
        lambda z, y: losses.focal(z, y, 0.5),
        lambda z, y: focal_by_hand((2 * y - 1) * z, mpmath.mpf("0.5")),
        "label",
    ),
}


@pytest.mark.on_ci(
    "the quantile; nothing shorter shows this",
    but="^(hinge|focal)",
)
@pytest.mark.thorough(
    "the losses of which there are recorded digits, and another gamma",
    but="^(?!squared|absolute|huber|log|focal,)",
)
@pytest.mark.parametrize(("loss", "formula", "kind"), FORMULAS.values(), ids=FORMULAS)
def test_formula_finite_difference_and_gradient_agree(loss, formula, kind):
    rng = np.random.default_rng(0)
    p = rng.normal(scale=3.0, size=12)
    y = rng.normal(size=12) if kind == "real" else rng.integers(0, 2, 12).astype(float)
    with mpmath.workdps(60):
        truth = [
            [
                float(mpmath.diff(lambda t, c=c: formula(t, c), mpmath.mpf(a), order))
                for a, c in zip(p, y, strict=True)
            ]
            for order in (0, 1, 2)
        ]
    np.testing.assert_allclose(
        jax.vmap(three(loss))(p, y), truth, rtol=1e-13, atol=1e-16
    )
    h = (
        2.0**-17
        # Near the cube root of machine epsilon: truncation and rounding errors are both
        # about 1e-10.
    )
    batched = jax.jit(jax.vmap(loss))
    np.testing.assert_allclose(
        (batched(p + h, y) - batched(p - h, y)) / (2 * h),
        truth[1],
        rtol=1e-9,
        atol=1e-9,
    )


@pytest.mark.on_ci("logits near 0; those near 1,000 differ by as much", but="1000")
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_softmax_cross_entropy_formula_finite_difference_and_gradient_agree(offset):
    rng = np.random.default_rng(1)
    z, label, one_hot = rng.normal(scale=2.0, size=5) + offset, 3, np.eye(5)[3]
    with mpmath.workdps(50):
        exponentials = [mpmath.exp(mpmath.mpf(t)) for t in z]
        p = np.array([float(e / mpmath.fsum(exponentials)) for e in exponentials])
        value = float(mpmath.log(mpmath.fsum(exponentials)) - mpmath.mpf(z[label]))
    for loss, target in (
        (losses.softmax_cross_entropy, label),
        (losses.softmax_cross_entropy_one_hot, one_hot),
    ):
        found = three(loss)(z, target)
        np.testing.assert_allclose(found[0], value, rtol=1e-14)
        np.testing.assert_allclose(found[1], p - one_hot, rtol=1e-13)
        np.testing.assert_allclose(
            found[2], np.diag(p) - np.outer(p, p), rtol=1e-13, atol=1e-17
        )
        direction = np.array(
            [1.0, -1.0, -1.0, 1.0, -1.0]
        )  # Signs, so that z ± h d is exact even near 1e3.
        h = 2.0**-17
        difference = (
            loss(z + h * direction, target) - loss(z - h * direction, target)
        ) / (2 * h)
        np.testing.assert_allclose(difference, direction @ (p - one_hot), rtol=1e-9)


# optax, brought to our conventions: summed, or its labels mapped from {-1, +1}.
OPTAX = {
    "squared_error": (
        losses.squared_error,
        lambda p, y: jnp.sum(optax.l2_loss(p, y)),
        "real",
    ),
    "absolute_error": (
        losses.absolute_error,
        lambda p, y: jnp.sum(jnp.abs(p - y)),
        "real",
    ),
    "huber": (losses.huber, lambda p, y: jnp.sum(optax.huber_loss(p, y)), "real"),
    "log_cosh": (losses.log_cosh, lambda p, y: jnp.sum(optax.log_cosh(p, y)), "real"),
    "logistic": (losses.logistic, optax.sigmoid_binary_cross_entropy, "label"),
    "hinge": (losses.hinge, lambda s, y: optax.hinge_loss(s, 2 * y - 1), "label"),
    "softmax": (
        losses.softmax_cross_entropy,
        optax.softmax_cross_entropy_with_integer_labels,
        "class",
    ),
    "one_hot": (
        losses.softmax_cross_entropy_one_hot,
        optax.softmax_cross_entropy,
        "distribution",
    ),
    "focal": (losses.focal, optax.sigmoid_focal_loss, "label"),
    "margin": (losses.multiclass_margin, optax.losses.multiclass_hinge_loss, "class"),
    "cosine": (losses.cosine_distance, optax.cosine_distance, "real"),
    "kl": (
        losses.kl_divergence,
        lambda z, q: optax.kl_divergence(jax.nn.log_softmax(z), q),
        "distribution",
    ),
}


# Other tests compare these with mpmath and with recorded digits.
ELSEWHERE = {*FORMULAS, "softmax", "one_hot"}


@functools.cache
def beside_optax(elsewhere):
    """Name -> our value, gradient and Hessian, and optax's: all in ELSEWHERE, or all
    that are not, are one program.
    """
    rng = np.random.default_rng(2)
    one, four = rng.normal(scale=3.0, size=20), rng.normal(scale=3.0, size=(20, 4))
    given = {
        "real": (four, rng.normal(size=(20, 4))),
        "label": (one, rng.integers(0, 2, 20)),
        "class": (four, rng.integers(0, 4, 20)),
        "distribution": (four, rng.dirichlet(np.ones(4), 20)),
    }

    def found(given):
        return {
            name: [jax.vmap(three(f))(*given[kind]) for f in (ours, theirs)]
            for name, (ours, theirs, kind) in OPTAX.items()
            if (name in ELSEWHERE) == elsewhere
        }

    return jax.jit(found)(given)


@pytest.mark.on_ci(
    "the margin loss, the cosine and the divergence beside optax; three tests below "
    "have their values"
)
@pytest.mark.thorough(
    "the losses that other tests compare with mpmath or with recorded digits",
    but="|".join(name for name in OPTAX if name not in ELSEWHERE),
)
@pytest.mark.parametrize("name", OPTAX)
def test_loss_equals_optax(name):
    for mine, other in zip(*beside_optax(name in ELSEWHERE)[name], strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-12, atol=1e-14)


@pytest.mark.on_ci("what the docstrings say of optax, which changes with optax alone")
def test_where_optax_differs_is_as_the_docstrings_say():
    optaxs = optax.softmax_cross_entropy_with_integer_labels

    @jax.jit  # One program.
    def found(zero, one, three, points, logits, below):
        return {
            "huber": jax.vmap(jax.hessian(losses.huber), (0, None))(points, 0.0),
            "optax's huber": jax.hessian(optax.huber_loss)(one, zero),
            "hinge": jax.grad(losses.hinge)(one, 1),
            "optax's hinge": jax.grad(optax.hinge_loss)(one, 1.0),
            "label -1": losses.softmax_cross_entropy(logits, below),
            "optax's label -1": optaxs(logits, below),
            "optax's label 1": optaxs(logits, -below),
            "optax's -inf": optax.softmax_cross_entropy(
                jnp.array([0.0, -jnp.inf]) + zero, jnp.array([1.0, 0.0])
            ),
            "square": losses.squared_error(three, zero),
            "optax's square": optax.squared_error(three, zero),
        }

    given = (0.0, 1.0, 3.0, np.array([0.0, 1.0, -1.0]), np.array([0.0, 1.0]), -1)
    said = jax.tree.map(np.asarray, found(*map(jnp.asarray, given)))
    np.testing.assert_array_equal(said["huber"], [1.0, 1.0, 1.0])
    assert said["optax's huber"] == 0.25
    assert (said["hinge"], said["optax's hinge"]) == (0, -0.5)
    assert said["optax's label -1"] == said["optax's label 1"]
    assert np.isnan(said["label -1"])
    assert np.isnan(said["optax's -inf"])
    assert said["optax's square"] == 2 * said["square"]


@pytest.mark.on_ci(
    "a large program; test_logistic_keeps_its_relative_precision_when_right_and_sure "
    "has extreme logits, and "
    "test_softmax_cross_entropy_formula_finite_difference_and_gradient_agree has "
    "logits near 1,000"
)
@pytest.mark.thorough("the other dtype", but="float64")
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_extreme_logits_give_finite_values_gradients_and_hessians(dtype):
    z = np.array(
        [-1e3, -88.75, 0.0, 88.75, 1e3]
    )  # exp overflows in float32 beyond 88.72; all are exact there.
    sigma = np.array([0.0, 0.0, 0.5, 1.0, 1.0])  # To the last digit of float32.
    for y in (0, 1):
        expected = [np.logaddexp(0, z) - y * z, sigma - y, sigma * (1 - sigma)]
        found = at_each(losses.logistic)(z.astype(dtype), y)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-30)
    logits = np.stack([z, -z, np.zeros(5)], axis=1)
    p, one_hot = np.array(jax.nn.softmax(logits)), np.eye(3)[1]
    expected = [
        np.logaddexp.reduce(logits, axis=1) + z,
        p - one_hot,
        p[:, :, None] * (np.eye(3) - p[:, None, :]),
    ]
    for loss, target in (
        (losses.softmax_cross_entropy, 1),
        (losses.softmax_cross_entropy_one_hot, one_hot),
    ):
        found = at_each(loss)(logits.astype(dtype), target)
        for ours, truth in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, truth, rtol=1e-6, atol=1e-30)
    for loss in (losses.hinge, losses.huber, losses.log_cosh, losses.absolute_error):
        assert np.isfinite(at_each(loss)(z.astype(dtype), 1)).all()


@pytest.mark.parametrize("z", [-700.0, -40.0, -1e-3, 0.0, 1e-3, 40.0, 700.0])
def test_logistic_keeps_its_relative_precision_when_right_and_sure(z):
    y = int(z > 0)
    with mpmath.workdps(350):
        sigma = 1 / (1 + mpmath.exp(-mpmath.mpf(z)))
        truth = [
            float(-mpmath.log(sigma if y else 1 - sigma)),
            float(sigma - y),
            float(sigma * (1 - sigma)),
        ]
    np.testing.assert_allclose(three(losses.logistic)(z, y), truth, rtol=1e-12, atol=0)
    np.testing.assert_allclose(
        three(losses.logistic)(z, 1 - y)[2], truth[2], rtol=1e-12
    )  # Wrong and sure.


@pytest.mark.on_ci(
    "derivatives up to the fourth; "
    "test_logistic_keeps_its_relative_precision_when_right_and_sure has two of them "
    "at 0"
)
def test_even_losses_keep_their_derivatives_at_exactly_zero():
    # log(1 + e^z) = log 2 + z/2 + z²/8 - z⁴/192 + ...; log cosh r = r²/2 - r⁴/12 + ...
    f, expected = losses.logistic, [-0.5, 0.25, 0.0, -0.125]
    g, even = losses.log_cosh, [0.0, 1.0, 0.0, -2.0]
    for i in range(4):
        f, g = jax.grad(f), jax.grad(g)
        np.testing.assert_allclose(
            [jax.jit(f)(0.0, 1.0), jax.jit(g)(0.0, 0.0)],
            [expected[i], even[i]],
            atol=1e-15,
        )


# Two traps of edge_cases.json are met directly; three are functions of ours.
EDGE_FUNCTIONS = {
    "signed_square": lambda x: x * losses.absolute_error(x, 0.0),
    "abs_cubed": lambda x: losses.absolute_error(x, 0.0) ** 3,
    "relu_squared": lambda x: losses.hinge(1 - x, 1) ** 2,
}


@pytest.mark.on_ci("the other two kinks", but="abs_cubed")
@pytest.mark.parametrize("name", EDGE_FUNCTIONS)
def test_kinks_smoothed_by_a_factor_have_their_derivatives(name):
    case, f = EDGES[name], EDGE_FUNCTIONS[name]
    for expected in case["derivatives_0_to_k"]:
        assert f(case["x"]) == float(Fraction(expected))
        f = jax.grad(f)


@pytest.mark.on_ci(
    "a logit of -inf; "
    "test_kl_is_the_cross_entropy_less_the_entropy_and_0_at_its_minimum has a "
    "probability of 0"
)
def test_zero_times_log_zero_is_zero():
    assert EDGES["xlogx"]["derivatives_0_to_k"] == ["0"]
    logits, q = jnp.array([1.0, -jnp.inf, 2.0]), jnp.array([0.25, 0.0, 0.75])
    kept = jnp.array([0, 2])
    loss = losses.softmax_cross_entropy_one_hot
    assert loss(logits, q) == loss(logits[kept], q[kept])
    np.testing.assert_array_equal(
        jax.grad(loss)(logits, q)[kept], jax.grad(loss)(logits[kept], q[kept])
    )
    for derivative in (jax.hessian(loss), jax.grad(loss, argnums=1)):
        assert np.isfinite(jax.jit(derivative)(logits, q)).all()
    # Where nothing is ruled out, a zero entry keeps its derivative -log softmax(z)_k.
    slope = jax.grad(loss, argnums=1)(jnp.zeros(4), jnp.array([1.0, 0.0, 0.0, 0.0]))
    np.testing.assert_allclose(slope, np.full(4, np.log(4)), rtol=1e-15)


def test_large_residuals_do_not_overflow_where_their_square_would():
    x = EDGES["hypot_large"]["x"]
    assert jnp.isinf(losses.squared_error(x, 0.0))
    for loss in (losses.absolute_error, losses.huber, losses.log_cosh):
        np.testing.assert_array_equal(three(loss)(x, 0.0), [x, 1.0, 0.0])


def test_gradient_of_absolute_error_at_its_kink_is_zero():
    np.testing.assert_array_equal(
        jax.grad(losses.absolute_error)(jnp.array([2.0, 1.0]), jnp.array([2.0, 3.0])),
        [0, -1],
    )


def test_logistic_takes_a_probability_as_label():
    z = 0.7
    mixture = 0.3 * losses.logistic(z, 1) + 0.7 * losses.logistic(z, 0)
    np.testing.assert_allclose(losses.logistic(z, 0.3), mixture, rtol=1e-15)


@pytest.mark.thorough(
    "test_value_gradient_and_hessian_equal_the_recorded_digits has both losses"
)
def test_two_class_softmax_is_logistic():
    z = jnp.linspace(-30.0, 30.0, 13)
    for y in (0, 1):
        two = jax.vmap(
            lambda t, y=y: losses.softmax_cross_entropy(
                jnp.stack([jnp.zeros_like(t), t]), y
            )
        )(z)
        np.testing.assert_allclose(
            two, jax.vmap(losses.logistic, (0, None))(z, y), rtol=1e-14, atol=1e-15
        )


# Name: (loss, shape of a prediction, a target of another dtype).
EXAMPLES = {
    "squared_error": (losses.squared_error, (3,), np.array([1, 2, 3])),
    "absolute_error": (losses.absolute_error, (3,), np.array([1.0, 2.0, 3.0])),
    "huber": (losses.huber, (3,), np.array([1.0, 2.0, 3.0])),
    "log_cosh": (losses.log_cosh, (3,), np.array([1.0, 2.0, 3.0])),
    "logistic": (losses.logistic, (), np.array(True)),
    "hinge": (losses.hinge, (), np.array(1)),
    "softmax_cross_entropy": (
        losses.softmax_cross_entropy,
        (3,),
        np.array(2, dtype=np.uint8),
    ),
    "softmax_cross_entropy_one_hot": (
        losses.softmax_cross_entropy_one_hot,
        (3,),
        np.array([0.0, 0.0, 1.0]),
    ),
    "quantile": (
        functools.partial(losses.quantile, level=0.25),
        (3,),
        np.array([1, 2, 3]),
    ),
    "cosine_distance": (losses.cosine_distance, (3,), np.array([1, 2, 3])),
    "focal": (losses.focal, (), np.array(True)),
    "multiclass_margin": (losses.multiclass_margin, (3,), np.array(2, dtype=np.uint8)),
    "kl_divergence": (losses.kl_divergence, (3,), np.array([0.0, 0.25, 0.75])),
    "smooth_labels": (losses.smooth_labels, (3,), np.array(0.5)),
}


@pytest.mark.thorough("the other dtypes", but="bfloat16")
@pytest.mark.parametrize(("loss", "shape", "target"), EXAMPLES.values(), ids=EXAMPLES)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32, jnp.float64])
def test_dtype_of_the_prediction_is_kept(loss, shape, target, dtype):
    with jax.numpy_dtype_promotion("strict"):
        p = jnp.ones(shape, dtype)
        value, slope = (
            jax.eval_shape(g, p, target) for g in (loss, jax.jacobian(loss))
        )
    assert value.dtype == slope.dtype == dtype
    assert value.shape == (shape if loss is losses.smooth_labels else ())


@pytest.mark.on_ci(
    "hinge and quantile, which other tests have under jit or vmap",
    but="^(cosine|multiclass|kl)",
)
@pytest.mark.thorough(
    "the losses that other tests compare with digits under jit and vmap",
    but="^(quantile|hinge|cosine|multiclass|kl)",
)
@pytest.mark.parametrize(("loss", "shape", "target"), EXAMPLES.values(), ids=EXAMPLES)
def test_jit_equals_eager_and_vmap_equals_the_loop(loss, shape, target):
    p = np.random.default_rng(3).normal(size=(5, *shape))
    y = np.stack([target] * 5)
    loop = np.stack([loss(*map(jnp.asarray, pair)) for pair in zip(p, y, strict=True)])
    both = jax.jit(lambda p, y: (jax.vmap(loss)(p, y), loss(p[0], y[0])))(p, y)
    np.testing.assert_allclose(both[0], loop, rtol=1e-14)
    np.testing.assert_allclose(both[1], loop[0], rtol=1e-14)


@pytest.mark.parametrize(("loss", "shape", "target"), EXAMPLES.values(), ids=EXAMPLES)
def test_integer_prediction_is_refused_and_the_cure_named(loss, shape, target):
    with pytest.raises(TypeError, match=r"must be floating; got dtype int64.*astype"):
        loss(jnp.ones(shape, int), target)


@pytest.mark.parametrize(
    ("loss", "shape", "target"), list(EXAMPLES.values())[:-1], ids=list(EXAMPLES)[:-1]
)
def test_shapes_are_never_broadcast(loss, shape, target):
    for wrong in (np.ones((*shape, 1)), np.ones((2, *shape))):
        with pytest.raises(ValueError, match=r"one example.*shape"):
            loss(jnp.array(wrong), target)
    with pytest.raises(ValueError, match=r"one example.*shape"):
        loss(jnp.ones(shape), np.stack([target, target]))


@pytest.mark.parametrize(
    ("loss", "prediction", "target", "advice"),
    [
        (losses.logistic, (5,), (5,), "Use jax.vmap"),
        (losses.softmax_cross_entropy, (5, 3), (5,), "Use jax.vmap"),
        (losses.sequence_cross_entropy, (2, 4, 3), (2, 4), "Use jax.vmap"),
        (losses.kl_divergence, (5, 3), (5, 3), "Use jax.vmap"),
        (losses.squared_error, (3,), (2,), "Give the target the shape"),
        (losses.squared_error, (1,), (), "Give the target the shape"),
        (losses.kl_divergence, (3,), (2,), "Give one probability for each class"),
        (losses.sequence_cross_entropy, (4, 3), (3,), "Give one label for each"),
        (losses.softmax_cross_entropy_one_hot, (3,), (), "use softmax_cross_entropy."),
        (losses.softmax_cross_entropy, (3,), (3,), "softmax_cross_entropy_one_hot."),
        (losses.softmax_cross_entropy, (), (), "Give them these shapes"),
        (losses.softmax_cross_entropy, (0,), (), "logits must hold a number for each"),
        (losses.kl_divergence, (0,), (0,), "logits must hold a number for each class"),
    ],
)
def test_vmap_is_advised_for_a_batch_only(loss, prediction, target, advice):
    with pytest.raises(ValueError, match=advice) as told:
        loss(jnp.zeros(prediction), jnp.zeros(target, int))
    assert ("vmap" in str(told.value)) == ("vmap" in advice)


def test_vmap_is_not_advised_for_weights_of_another_length():
    three = jnp.zeros(3)
    with pytest.raises(ValueError, match=r"weights must have the shape \(3,\)") as told:
        losses.squared_error(three, three, weights=jnp.ones(2))
    assert "vmap" not in str(told.value)
    with pytest.raises(ValueError, match=r"weights must have the shape .* jax\.vmap"):
        losses.squared_error(three, three, weights=jnp.ones((5, 3)))


@pytest.mark.parametrize(
    "name",
    [
        "squared_error",
        "absolute_error",
        "huber",
        "log_cosh",
        "softmax_cross_entropy_one_hot",
        "quantile",
        "cosine_distance",
        "kl_divergence",
    ],
)
def test_an_axis_of_length_one_is_not_stretched(name):
    for lengths in ((3, 1), (1, 3)):
        with pytest.raises(
            ValueError, match=r"one example.*got shapes \(\d,\) and \(\d,\)"
        ):
            EXAMPLES[name][0](*(jnp.ones(length) for length in lengths))


WRONG_LABELS = [
    (losses.logistic, 0.5, -1),
    (losses.logistic, 0.5, 2.0),
    (losses.logistic, 0.5, np.nan),
    (losses.hinge, 0.5, -1),
    (losses.hinge, 0.5, 0.5),
    (losses.softmax_cross_entropy, np.zeros(3), 3),
    (losses.softmax_cross_entropy, np.zeros(3), -1),
    (losses.multiclass_margin, np.array([9.0, 0.0, 0.0]), 3),
    (losses.focal, 0.5, 0.5),
]


@pytest.mark.on_ci(
    "focal and margin; make test has the other three",
    but="hinge|logistic|softmax",
)
@pytest.mark.thorough("other wrong labels", but=r"-(3|0\.5|nan)\]")
@pytest.mark.parametrize(("loss", "prediction", "label"), WRONG_LABELS)
def test_wrong_label_raises_when_concrete_and_gives_nan_when_traced(
    loss, prediction, label
):
    with pytest.raises(ValueError, match=rf"label must be .*; got label={label}"):
        loss(jnp.array(prediction), label)
    assert jnp.isnan(jax.jit(loss)(jnp.array(prediction), label))
    assert jnp.isnan(jax.vmap(loss)(jnp.array([prediction]), jnp.array([label]))[0])


@pytest.mark.on_ci("256 classes; nothing shorter has so many")
def test_labels_of_eight_bits_name_as_many_classes_as_they_can():
    logits, labels = (
        jnp.arange(768.0).reshape(3, 256) % 7,
        jnp.array([0, 127, 255], jnp.uint8),
    )
    expected = -jax.nn.log_softmax(logits)[jnp.arange(3), labels.astype(int)]
    np.testing.assert_array_equal(
        jax.vmap(losses.softmax_cross_entropy)(logits, labels), expected
    )
    np.testing.assert_allclose(
        losses.sequence_cross_entropy(logits, labels), expected.mean(), rtol=1e-15
    )


def test_class_of_floating_dtype_is_refused():
    with pytest.raises(
        TypeError, match=r"label must be an integer class; got dtype float64.*one_hot"
    ):
        losses.softmax_cross_entropy(jnp.zeros(3), 1.0)


def test_huber_refuses_a_delta_that_is_not_positive_and_takes_a_traced_one():
    for delta in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match=r"delta must be positive; got delta="):
            losses.huber(1.0, 0.0, delta)
    np.testing.assert_allclose(
        jax.vmap(losses.huber, (None, None, 0))(3.0, 0.0, jnp.array([1.0, 2.0])),
        [2.5, 4.0],
    )


def test_smoothed_labels_are_optax_s_and_still_a_distribution():
    q = jax.nn.one_hot(jnp.array([[0, 2], [1, 1]]), 3)
    for smoothing in (0.0, 0.1, 1.0):
        ours = losses.smooth_labels(q, smoothing)
        np.testing.assert_allclose(ours, optax.smooth_labels(q, smoothing), rtol=1e-15)
        np.testing.assert_allclose(ours.sum(-1), np.ones((2, 2)), rtol=1e-15)
    for wrong in (-0.1, 1.1, np.nan):
        with pytest.raises(
            ValueError, match=r"smoothing must lie in 0\.\.1; got smoothing="
        ):
            losses.smooth_labels(q, wrong)
    with pytest.raises(ValueError, match=r"axis of classes.*jax\.nn\.one_hot"):
        losses.smooth_labels(1.0, 0.1)


def test_check_labels_shows_the_first_wrong_label_and_its_index():
    for fine in ([0, 1, 2], [0.0, 2.0], [], [[0], [2]], [True, False]):
        losses.check_labels(np.array(fine), 3)
    for wrong, shown in (
        ([0, 3], "3 at index 1"),
        ([-1, 1], "-1 at index 0"),
        ([0.0, 0.5], "0.5 at index 1"),
        ([np.nan], "nan at index 0"),
        ([[0, 1], [7, 8]], r"7 at index \(1, 0\)"),
    ):
        with pytest.raises(
            ValueError, match=rf"whole numbers in 0\.\.2; got {shown}\. .*np\.unique"
        ):
            losses.check_labels(np.array(wrong), 3)
    jax.jit(lambda y: losses.check_labels(y, 2))(jnp.array([5]))  # A tracer passes.
    mapped = np.unique(["no", "yes", "no"], return_inverse=True)[1]
    losses.check_labels(mapped, 2)


# Loss, prediction, target, and a target of which an entry is NaN or no class.
TERMS = {
    "squared_error": losses.squared_error,
    "absolute_error": losses.absolute_error,
    "huber": losses.huber,
    "log_cosh": losses.log_cosh,
    "quantile": functools.partial(losses.quantile, level=0.3),
}


@pytest.mark.on_ci("the other losses", but="huber|quantile")
@pytest.mark.parametrize("name", TERMS)
def test_weighted_terms_equal_the_sum_written_out_and_masked_ones_have_no_effect(name):
    loss, rng = TERMS[name], np.random.default_rng(12)
    p, y, weights = rng.normal(size=(3, 6))
    weights, where = np.abs(weights), np.array([1, 0, 1, 1, 0, 1], bool)
    both = jax.jit(
        jax.value_and_grad(lambda p, y: loss(p, y, where=where, weights=weights))
    )
    expected = sum(weights[i] * loss(p[i], y[i]) for i in range(6) if where[i])
    value, slope = both(p, y)
    np.testing.assert_allclose(value, expected, rtol=1e-14)
    for junk in (np.nan, np.inf):
        again = both(np.where(where, p, junk), np.where(where, y, junk))
        np.testing.assert_array_equal(again[0], value)
        np.testing.assert_array_equal(again[1], slope)
    assert not slope[~where].any()


@pytest.mark.on_ci("the other losses", but="logistic")
@pytest.mark.parametrize("loss", [losses.logistic, losses.hinge, losses.focal])
def test_a_masked_example_counts_nothing_and_a_weight_is_a_factor(loss):
    z, y = np.array([0.3, np.nan, -2.0]), np.array([1, 7, 0])
    where, weights = np.array([True, False, True]), np.array([2.0, 5.0, 0.5])
    f = lambda z, y, where, weights: loss(z, y, where=where, weights=weights)
    value, slope = jax.vmap(jax.value_and_grad(f))(z, y, where, weights)
    np.testing.assert_allclose(
        value, [2 * loss(0.3, 1), 0.0, loss(-2.0, 0) / 2], rtol=1e-15
    )
    assert slope[1] == 0
    assert np.isfinite(slope).all()
    assert f(np.nan, 7, False, 1.0) == 0  # Concrete, too.


@pytest.mark.on_ci(
    "four losses with and without a mask; nothing shorter has a mask of classes"
)
def test_classes_that_do_not_exist_leave_the_loss_of_the_others():
    z, where = np.array([1.0, np.nan, 2.0, -1.0]), np.array([1, 0, 1, 1], bool)
    kept = np.flatnonzero(where)
    weights, q = np.array([0.5, 9.0, 2.0, 1.0]), np.array([0.25, 0.0, 0.75, 0.0])
    for loss, target, fewer in (
        (losses.softmax_cross_entropy, 2, 1),
        (losses.multiclass_margin, 2, 1),
        (losses.softmax_cross_entropy_one_hot, q, q[kept]),
        (losses.kl_divergence, q, q[kept]),
    ):
        f = lambda z, y, **more: loss(z, y, **more)  # noqa: B023
        value, slope = jax.value_and_grad(f)(z, target, where=where, weights=weights)
        expected = jax.value_and_grad(f)(z[kept], fewer, weights=weights[kept])
        np.testing.assert_allclose(value, expected[0], rtol=1e-14)
        np.testing.assert_allclose(slope[kept], expected[1], rtol=1e-14, atol=1e-16)
        assert slope[1] == 0
    for loss in (losses.softmax_cross_entropy, losses.multiclass_margin):
        with pytest.raises(ValueError, match=r"label must be in 0\.\.3; got label=1"):
            loss(np.zeros(4), 1, where=where)
        traced = jax.jit(loss)(np.array([9.0, 0, 0, 0]), 1, where=where)
        assert jnp.isnan(traced)
    assert losses.softmax_cross_entropy(np.zeros(4), 2, weights=weights) == (
        2 * losses.softmax_cross_entropy(np.zeros(4), 2)
    )


@pytest.mark.on_ci("the other integers", but="^uint8")
@pytest.mark.parametrize(
    "dtype", ["uint8", "uint16", "uint32", "uint64", "int8", "int32", "int64"]
)
def test_where_ignores_positions_whatever_the_integers_of_the_labels_are(dtype):
    logits, labels = np.random.default_rng(14).normal(size=(3, 4)), np.array([1, 2, 9])
    f = lambda labels: losses.sequence_cross_entropy(
        logits, labels, where=np.array([True, True, False])
    )
    found = f(jnp.asarray(labels, dtype))
    np.testing.assert_array_equal(found, f(labels))
    expected = losses.sequence_cross_entropy(logits[:2], labels[:2])
    np.testing.assert_allclose(found, expected, rtol=1e-15)
    outside = jax.jit(f)(jnp.asarray([9, 2, 1], dtype))
    assert np.isnan(outside)


@pytest.mark.on_ci(
    "the weights of a sequence; test_a_mask_and_weights_may_be_lists only calls with "
    "weights"
)
def test_a_weighted_sequence_is_the_weighted_mean_of_what_counts():
    rng = np.random.default_rng(13)
    logits, labels = rng.normal(size=(5, 3)), np.array([0, 2, -1, 1, 9])
    where, weights = (
        np.array([1, 1, 1, 1, 0], bool),
        np.array([1.0, 3.0, 9.0, 0.0, 2.0]),
    )
    logits[4] = np.nan
    each = [losses.softmax_cross_entropy(logits[t], labels[t]) for t in (0, 1)]
    f = lambda z: losses.sequence_cross_entropy(z, labels, where=where, weights=weights)
    value, slope = jax.value_and_grad(f)(logits)
    np.testing.assert_allclose(value, (each[0] + 3 * each[1]) / 4, rtol=1e-14)
    assert np.isfinite(slope).all()
    assert not slope[2:].any()
    plain = losses.sequence_cross_entropy(logits[:2], labels[:2])
    np.testing.assert_allclose(
        losses.sequence_cross_entropy(logits[:2], labels[:2], weights=np.full(2, 7.0)),
        plain,
        rtol=1e-15,
    )
    assert losses.sequence_cross_entropy(logits, labels, where=np.zeros(5, bool)) == 0
    few, none = (logits[:3], labels[:3]), np.zeros(3)
    assert losses.sequence_cross_entropy(*few, weights=none) == 0


@pytest.mark.parametrize(
    ("more", "error", "words"),
    [
        ({"where": np.ones(3)}, TypeError, "where must be boolean"),
        ({"where": np.ones(2, bool)}, ValueError, r"where must have the shape \(3,\)"),
        ({"weights": np.ones((3, 1))}, ValueError, r"weights must have the shape"),
        ({"weights": -np.ones(3)}, ValueError, "weights must be finite and at least 0"),
        ({"weights": np.full(3, np.nan)}, ValueError, "weights must be finite"),
    ],
)
@pytest.mark.parametrize(
    "name", ["huber", "cosine_distance", "multiclass_margin", "kl_divergence"]
)
def test_wrong_masks_and_weights_are_refused(name, more, error, words):
    loss, _, target = EXAMPLES[name]
    with pytest.raises(error, match=words):
        loss(jnp.ones(3), target, **more)


@pytest.mark.parametrize(
    ("loss", "prediction", "target"),
    [
        (losses.squared_error, [0.5, 2.0, 1.0], [1.0, 1.0, 0.0]),
        (losses.softmax_cross_entropy, [0.5, 2.0, 1.0], 0),
        (losses.sequence_cross_entropy, [[0.5, 2.0]] * 3, [1, 1, 0]),
    ],
)
def test_a_mask_and_weights_may_be_lists(loss, prediction, target):
    mask, weights = [True, False, True], [1.0, 2.0, 3.0]
    of = lambda **more: loss(jnp.array(prediction), jnp.array(target), **more)
    in_arrays = of(where=jnp.array(mask), weights=jnp.array(weights))
    assert of(where=mask, weights=weights) == in_arrays


@pytest.mark.on_ci("the formula stays in make test")
def test_the_quantile_minimises_the_quantile_loss_and_half_is_the_median():
    y = np.random.default_rng(14).normal(size=101)
    grid = np.sort(y)
    mean = jax.vmap(lambda p, level: losses.quantile(jnp.full(101, p), y, level))
    for level in (0.1, 0.5, 0.9):
        best = grid[int(jnp.argmin(mean(grid, np.full(101, level))))]
        assert best == np.quantile(y, level)
    np.testing.assert_allclose(
        losses.quantile(y, y[::-1], 0.5), losses.absolute_error(y, y[::-1]) / 2
    )
    assert jax.grad(losses.quantile)(1.0, 1.0, 0.9) == 0
    for level in (0.0, 1.0, np.nan):
        with pytest.raises(ValueError, match="level must be between 0 and 1"):
            losses.quantile(1.0, 0.0, level)


def test_the_cosine_depends_on_directions_alone_and_keeps_small_distances():
    p, y = np.random.default_rng(15).normal(size=(2, 5))
    plain = losses.cosine_distance(p, y)
    cosine = p @ y / np.linalg.norm(p) / np.linalg.norm(y)
    np.testing.assert_allclose(plain, 1 - cosine, rtol=1e-14)
    for factor in (1e-200, 1e200):
        np.testing.assert_allclose(
            losses.cosine_distance(factor * p, y / factor), plain, rtol=1e-14
        )
    near = p + 1e-9 * np.array([p[1], -p[0], 0, 0, 0])  # At a right angle to p.
    angle = 1e-9 * np.hypot(p[0], p[1]) / np.linalg.norm(p)
    np.testing.assert_allclose(losses.cosine_distance(near, p), angle**2 / 2, rtol=1e-6)
    assert jnp.isnan(losses.cosine_distance(np.zeros(5), y))
    where, weights = np.array([1, 1, 0, 1, 0], bool), np.array([1.0, 2, 3, 0.5, 1])
    root = np.sqrt(weights)[where]
    np.testing.assert_allclose(
        losses.cosine_distance(p, y, where=where, weights=weights),
        losses.cosine_distance(root * p[where], root * y[where]),
        rtol=1e-14,
    )
    slope = jax.jit(jax.grad(losses.cosine_distance))(p, y)
    np.testing.assert_allclose(slope @ p, 0, atol=2e-15)


@pytest.mark.on_ci("a large entry of weight 0; nothing shorter has one")
@pytest.mark.thorough("the other dtypes", but="float16")
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_cosine_ignores_the_size_of_an_entry_of_weight_0(dtype):
    p, y = (jnp.array([a, 1.0, b], dtype) for a, b in ((6e4, 0.5), (3.0, -0.5)))
    weights = jnp.array([0.0, 1.0, 1.0], dtype)
    f = lambda p, **terms: losses.cosine_distance(p, y, **terms)
    for compute in (f, jax.grad(f)):
        found, among = compute(p, weights=weights), compute(p, where=weights > 0)
        np.testing.assert_array_equal(found, among)
    eps = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(f(p, weights=weights), 1 - 0.75 / 1.25, rtol=4 * eps)


def test_kl_is_the_cross_entropy_less_the_entropy_and_0_at_its_minimum():
    z, q = np.random.default_rng(16).normal(size=4), np.array([0.1, 0.0, 0.4, 0.5])
    entropy = -np.sum(q[q > 0] * np.log(q[q > 0]))
    cross = losses.softmax_cross_entropy_one_hot(z, q)
    np.testing.assert_allclose(losses.kl_divergence(z, q), cross - entropy, rtol=1e-13)
    np.testing.assert_allclose(
        jax.grad(losses.kl_divergence)(z, q), jax.nn.softmax(z) - q, atol=1e-15
    )
    np.testing.assert_allclose(
        losses.kl_divergence(z, jax.nn.softmax(z)), 0, atol=1e-15
    )


def test_the_margin_loss_is_zero_beyond_its_margin_and_keeps_its_kink():
    loss = losses.multiclass_margin
    assert loss(np.array([3.0, 1.5, 2.0]), 0) == 0
    np.testing.assert_array_equal(
        jax.grad(loss)(np.array([3.0, 1.0, 2.0]), 0), np.zeros(3)
    )  # At the kink.
    np.testing.assert_array_equal(
        jax.grad(loss)(np.array([3.0, 1.0, 2.5]), 0), [-1, 0, 1]
    )
    assert loss(np.array([3.0]), 0) == 0
    assert loss(np.array([1.0, 0.5]), 0, 0.25) == 0
    for margin in (0.0, -1.0):
        with pytest.raises(ValueError, match="margin must be a positive number"):
            loss(np.zeros(2), 0, margin)
    with pytest.raises(ValueError, match="gamma must be a number of at least 0"):
        losses.focal(0.0, 1, -1.0)


def test_ignored_positions_may_hold_nan():
    logits = jnp.array([[0.0, 0.0], [jnp.nan, -jnp.inf]])
    labels = jnp.array([1, losses.IGNORED])
    value, slope = jax.value_and_grad(losses.sequence_cross_entropy)(logits, labels)
    np.testing.assert_allclose(value, np.log(2))
    np.testing.assert_allclose(slope, [[0.5, -0.5], [0.0, 0.0]])


@pytest.mark.on_ci("20,000 positions; nothing shorter overflows")
def test_a_long_sequence_in_float16_does_not_overflow():
    logits, labels = jnp.zeros((20_000, 50), "float16"), jnp.zeros(20_000, int)
    found = losses.sequence_cross_entropy(logits, labels)
    assert found.dtype == jnp.float16
    np.testing.assert_allclose(found, np.log(50), rtol=1e-3)


@pytest.mark.on_ci("the other sizes", but=r"^1e-08\]")
@pytest.mark.parametrize("size", [1e-8, 1e-4, 0.3, 0.999, 1.0, 1.5, 30.0])
def test_log_cosh_is_exact_relative_to_small_residuals(size):
    for dtype, most in (("float32", 3e-7), ("float64", 1e-15)):
        r = jnp.array(size, dtype)
        value, slope = jax.value_and_grad(losses.log_cosh)(r, jnp.zeros((), dtype))
        with mpmath.workdps(40):
            exact = mpmath.log(mpmath.cosh(float(r)))
            assert abs(float(value) / exact - 1) < 2 * most
            assert abs(float(slope) / mpmath.tanh(float(r)) - 1) < 2 * most
