"""The checker of derivatives accepts what is right and rejects what is wrong at the
same settings, and says why.
"""

import functools
import math
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from research.derivatives.check import check_derivative
from research.derivatives.check.rounding import NUDGE, rounding_of
from research.derivatives.check.slopes import OFFSETS, slope_at_middle
from research.derivatives.errors import NotInexactError
from research.models.activations import gelu

COMPILE_QUICKLY = True  # tests/conftest.py
DRAWS_NO_KEYS = True  # tests/conftest.py

KEY = jax.random.key(0)
rng = np.random.default_rng(0)
A = jnp.asarray(rng.normal(size=(6, 6)))
S = A @ A.T + 0.3 * jnp.eye(6)
X, LABELS = jnp.asarray(rng.normal(size=(20, 4))), jnp.asarray(rng.integers(0, 3, 20))


def cross_entropy(p):
    return -jnp.mean(
        jax.nn.log_softmax(X @ p["w"] + p["b"][None])[jnp.arange(20), LABELS]
    )


ZOO = {
    "rosenbrock": (
        lambda x: jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2),
        rng.normal(size=8),
    ),
    "cross entropy": (
        cross_entropy,
        {"w": rng.normal(size=(4, 3)), "b": rng.normal(size=3)},
    ),
    "linear": (lambda x: 3 * jnp.sum(x), rng.normal(size=6)),
    "solve": (
        lambda x: jnp.sum(jnp.linalg.solve(S + jnp.diag(x**2), jnp.ones(6))),
        rng.normal(size=6),
    ),
    "eigenvalue": (
        lambda x: jnp.linalg.eigvalsh(S + jnp.diag(x))[2],
        rng.normal(size=6),
    ),
    "fast": (lambda x: jnp.sum(jnp.sin(100 * x)), rng.normal(size=3)),
    "tiny x": (lambda x: jnp.sum(jnp.sin(1e6 * x)), 1e-6 * rng.normal(size=3)),
    "huge x": (lambda x: jnp.sum(jnp.log(x)), 1e8 * (1 + rng.random(3))),
    "on a hill": (lambda x: 1e6 + jnp.sum(x**2), rng.normal(size=3)),
    "product": (jnp.prod, 1 + 0.3 * rng.normal(size=12)),
    "fft": (lambda x: jnp.sum(jnp.abs(jnp.fft.fft(x)) ** 3), rng.normal(size=8)),
}
SINGLE = (
    "rosenbrock",
    "cross entropy",
    "linear",
    "tiny x",
    "product",
)  # Pinned to float32: the rest lies below.


def wrong_by(f, x, error):
    """f's gradient with an error of that relative size in a random direction."""
    flat, unravel = ravel_pytree(jax.grad(f)(x))
    off = np.random.default_rng(3).normal(size=flat.shape)
    off = jnp.asarray(error * np.linalg.norm(flat) * off / np.linalg.norm(off))
    return lambda y: jax.tree.map(
        lambda g, o: g + o.astype(g.dtype),
        jax.grad(f)(y),
        unravel(off.astype(flat.dtype)),
    )


@pytest.mark.thorough(
    "the other functions",
    but="hill",
    caught_by="test_right_is_accepted_and_one_in_ten_thousand_rejected_in_float64",
)
@pytest.mark.parametrize("name", ZOO)
def test_right_is_accepted_and_one_in_ten_thousand_rejected_in_float64(name):
    f, x = ZOO[name][0], jax.tree.map(jnp.asarray, ZOO[name][1])
    report = check_derivative(f, x, jax.random.key(1))
    assert report.verdict == "right", report.text()
    assert report.smallest_error < 1e-7
    assert (
        check_derivative(f, x, jax.random.key(1), wrong_by(f, x, 1e-4)).verdict
        == "wrong"
    )


@pytest.mark.thorough(
    "the other functions",
    but="product",
    caught_by="test_right_is_accepted_and_one_in_a_hundred_rejected_in_float32",
)
@pytest.mark.parametrize("name", SINGLE)
def test_right_is_accepted_and_one_in_a_hundred_rejected_in_float32(name):
    f = lambda x: ZOO[name][0](jax.tree.map(lambda leaf: leaf.astype(jnp.float32), x))
    x = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), ZOO[name][1])
    report = check_derivative(f, x, jax.random.key(1))
    assert report.verdict == "right", report.text()
    assert "computes in float32" in report.precision
    assert report.smallest_error < 1e-2
    assert (
        check_derivative(f, x, jax.random.key(1), wrong_by(f, x, 1e-2)).verdict
        == "wrong"
    )


@pytest.mark.thorough(
    "the other seeds",
    but=r"^0\]",
    caught_by=(
        "test_error_of_the_size_that_is_printed_is_caught_and_one_far_below_is_not"
    ),
)
@pytest.mark.parametrize("seed", range(12))
def test_error_of_the_size_that_is_printed_is_caught_and_one_far_below_is_not(seed):
    f, x = ZOO["rosenbrock"][0], jnp.asarray(ZOO["rosenbrock"][1])
    smallest = check_derivative(f, x, jax.random.key(seed)).smallest_error
    assert (
        check_derivative(
            f, x, jax.random.key(seed), wrong_by(f, x, 4 * smallest)
        ).verdict
        == "wrong"
    )
    assert (
        check_derivative(
            f, x, jax.random.key(seed), wrong_by(f, x, smallest / 400)
        ).verdict
        == "right"
    )


@pytest.mark.thorough("the other dtypes", but="bfloat16")
@pytest.mark.on_ci(
    "bfloat16; test_outputs_whose_sum_overflows_in_the_dtype_of_x_are_no_nan has an "
    "x in float16"
)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_low_precision_is_lifted_to_float64_and_its_own_floor_is_stated(dtype):
    f, x = lambda x: jnp.sum(jnp.tanh(x) ** 2), jnp.asarray([0.3, 0.7, -1.2], dtype)
    report = check_derivative(f, x, jax.random.key(0))
    assert report.verdict == "right"
    assert report.smallest_error < 1e-9
    assert f"(x has {jnp.dtype(dtype)})" in report.text()
    assert 0 < report.own_precision_gap < 5 * jnp.finfo(dtype).eps
    assert (
        check_derivative(f, x, jax.random.key(0), wrong_by(f, x, 0.1)).verdict
        == "wrong"
    )


def test_code_pinned_to_bfloat16_is_unresolved_not_accepted():
    # A correct and a 10 % wrong gradient look alike in it.
    f, x = (
        lambda x: jnp.sum(jnp.tanh(x.astype(jnp.bfloat16)) ** 2),
        jnp.asarray([0.3, 0.7, -1.2], jnp.bfloat16),
    )
    report = check_derivative(f, x, jax.random.key(0))
    assert report.verdict == "unresolved"
    assert report.smallest_error > 0.1
    assert "computes in bfloat16" in report.text()


def test_no_leaf_is_blamed_if_rounding_hides_the_steps_in_all_leaves():
    values = jnp.array([0.5, -1.2, 0.7])
    f = lambda x: (
        jnp.sum(jnp.sin(x["a"].astype(jnp.bfloat16)))
        + jnp.sum(x["b"].astype(jnp.bfloat16) ** 2)
    )
    report = check_derivative(f, {"a": values, "b": values}, jax.random.key(0))
    assert report.verdict == "unresolved"
    assert "too coarse or too noisy near the point" in report.text()
    assert "other leaves fixed" not in report.text()


@pytest.mark.thorough(
    "a sine; test_derivative_not_finite_in_the_dtype_of_x_is_not_right has float64 off"
)
def test_with_float64_off_f_is_lifted_all_the_same(float64_off):
    with float64_off:
        f, x = lambda x: jnp.sum(jnp.sin(x) ** 2), jnp.ones(3)
        assert x.dtype == jnp.float32
        report = check_derivative(f, x, jax.random.key(0))
        wrong = check_derivative(
            f, x, jax.random.key(0), lambda x: 2.0002 * jnp.sin(x) * jnp.cos(x)
        )
        assert jnp.ones(3).dtype == jnp.float32
    assert (report.verdict, wrong.verdict) == ("right", "wrong")
    assert report.smallest_error < 1e-9


@pytest.mark.on_ci("three reports; nothing shorter has the order of the remainder")
def test_taylor_slope_is_two_where_right_and_one_where_wrong():
    f, x = ZOO["rosenbrock"][0], jnp.asarray(ZOO["rosenbrock"][1])
    assert check_derivative(f, x, jax.random.key(0)).taylor_slope == pytest.approx(
        2, abs=0.05
    )
    assert check_derivative(
        f, x, jax.random.key(0), wrong_by(f, x, 1e-4)
    ).taylor_slope == pytest.approx(1, abs=0.05)
    assert np.isnan(
        check_derivative(ZOO["linear"][0], jnp.ones(3), jax.random.key(0)).taylor_slope
    )


@jax.custom_jvp
def wrong_sine(x):
    return jnp.sin(x)


wrong_sine.defjvp(lambda p, t: (jnp.sin(p[0]), 1.0001 * jnp.cos(p[0]) * t[0]))


@jax.custom_vjp
def flipped(x):
    return jnp.sin(x)


flipped.defvjp(lambda x: (jnp.sin(x), x), lambda x, ct: (-ct * jnp.cos(x),))


def test_failure_names_the_leaf_and_the_ratio():
    report = check_derivative(
        lambda p: jnp.sum(wrong_sine(p["a"])) + jnp.sum(p["b"] ** 2),
        {"a": jnp.ones(3), "b": jnp.ones(2)},
        jax.random.key(0),
    )
    assert report.verdict == "wrong"
    assert "A bug in x['a']: along leaf x['a']" in report.explanation
    assert "a ratio of 1.0001" in report.explanation
    assert "x['b']" not in report.explanation
    assert not report.is_right


@pytest.mark.on_ci(
    "two reports; test_failure_names_the_leaf_and_the_ratio has another ratio"
)
def test_failure_names_a_sign_and_a_factor_of_two():
    assert (
        "the sign"
        in check_derivative(
            lambda x: jnp.sum(flipped(x)), jnp.ones(2), jax.random.key(0)
        ).explanation
    )
    double = check_derivative(
        lambda x: jnp.sum(x**2), jnp.ones(2), jax.random.key(0), lambda x: 4 * x
    )
    assert "a factor of 2" in double.explanation


def test_dot_products_see_a_reverse_rule_that_is_not_the_forward_ones_transpose():
    @jax.custom_jvp
    def f(x):
        return x**2

    # Linear in the tangent, but transposed wrongly: a linear call with a transpose of
    # its own.
    def double(t):
        return jax.custom_derivatives.linear_call(
            lambda _, v: 2 * v, lambda _, ct: 3 * ct, (), t
        )

    f.defjvp(lambda p, t: (p[0] ** 2, p[0] * double(t[0])))
    report = check_derivative(lambda x: jnp.sum(f(x)), jnp.ones(3), jax.random.key(0))
    assert report.dot_product_gap > 0.1
    assert "in reverse mode only" in report.explanation
    assert (
        check_derivative(
            lambda x: jnp.sum(x**2), jnp.ones(3), jax.random.key(0)
        ).dot_product_gap
        < 1e-14
    )


@pytest.mark.thorough("the other kinks", but=r"-x1\]")
@pytest.mark.parametrize(
    ("f", "x"),
    [
        (lambda x: jnp.sum(jax.nn.relu(x)), [1.0, 0.0]),
        (
            lambda x: jnp.sum(jnp.abs(x)),
            [0.0],
        ),  # Central differences and JAX agree on 0, and there is no derivative.
        (lambda x: jnp.maximum(x[0], 2 * x[1]), [2.0, 1.0]),
    ],
)
def test_kink_is_told_from_a_bug(f, x):
    report = check_derivative(f, jnp.asarray(x), jax.random.key(0))
    assert report.verdict == "kink"
    assert "has a kink here, and the check finds no other error" in report.text()


@pytest.mark.thorough("the other functions", but=r"-(x3|1\.00001)\]")
@pytest.mark.on_ci(
    "near a kink; test_a_kink_closer_than_the_first_steps_is_none_at_the_point has one",
    but=r"-x3\]",
)
@pytest.mark.parametrize(
    ("f", "x"),
    [
        (lambda x: jnp.abs(x - 1) + x**2, 1 + 1e-5),
        (lambda x: jnp.sum(jnp.abs(x) ** 1.5), [0.0]),
        (lambda x: jnp.sum(x * jnp.abs(x)), [0.0]),
        (lambda x: jax.nn.logsumexp(x) - jnp.mean(x), [0.0, 0.0, 0.0]),
        (lambda x: 3 + 0 * jnp.sum(x), [1.0, 2.0]),
    ],
)
def test_near_a_kink_and_at_a_stationary_point_right_is_accepted(f, x):
    assert check_derivative(f, jnp.asarray(x), jax.random.key(0)).verdict == "right"


NEAR_AN_EDGE = {
    "log": (lambda z: jnp.sum(jnp.log(z - 0.999)), jnp.ones(2)),
    "entropy": (lambda p: -jnp.sum(p * jnp.log(p)), jnp.array([0.9, 0.09, 0.01])),
    "sqrt": (lambda z: jnp.sum(jnp.sqrt(z)), jnp.array([100.0, 0.09, 1.0])),
    "arccos": (lambda z: jnp.sum(jnp.arccos(z)), jnp.array([0.99, -0.9])),
    "cholesky": (
        lambda a: jnp.sum(jnp.linalg.cholesky(a)),
        jnp.array([[1.0, 0.99], [0.99, 1.0]]),
    ),
}


@pytest.mark.thorough("the other factors and functions", but=r"^log-1\.")
@pytest.mark.on_ci(
    "the right derivative; "
    "test_a_function_that_raises_beyond_its_domain_is_checked_inside has one",
    but=r"-1\.001\]",
)
@pytest.mark.parametrize("factor", [1.0, -1.0, 2.0, 1.001])
@pytest.mark.parametrize("name", NEAR_AN_EDGE)
def test_where_f_is_undefined_at_long_steps_the_short_ones_decide(name, factor):
    f, x = NEAR_AN_EDGE[name]
    report = check_derivative(
        f, x, jax.random.key(0), lambda x: factor * jax.grad(f)(x)
    )
    assert report.verdict == ("right" if factor == 1 else "wrong")


@pytest.mark.thorough("the other numbers and distances of kinks", but="^3-1e-09")
@pytest.mark.parametrize("distance", [1e-9, 1e-8, 1e-7, 1e-6, 1e-5])
@pytest.mark.parametrize("n", [2, 3, 10])
def test_a_correct_derivative_close_to_kinks_is_not_rejected(n, distance):
    x = jnp.ones(n)
    away = distance * jax.random.uniform(jax.random.key(1), (n,), minval=1, maxval=2)
    report = check_derivative(
        lambda z: jnp.sum(jnp.abs(z - x - away) + z**2), x, jax.random.key(0)
    )
    assert report.verdict in ("right", "unresolved")


@pytest.mark.thorough(
    "all sizes and rates; in .ci/run, "
    "test_a_fast_wave_just_above_the_rounding_error_is_no_bug has others"
)
@pytest.mark.parametrize("rate", [1e6, 1e8, 1e9, 1e10, 1e12])
@pytest.mark.parametrize("size", [1e-3, 1e-6, 1e-9])
def test_a_correct_derivative_of_a_fast_wave_is_not_rejected(rate, size):
    f = lambda z: jnp.sum(z**2 + z + size * jnp.sin(rate * z))
    for x in (jnp.zeros(2), jnp.array([1.0, 0.7])):
        assert check_derivative(f, x, jax.random.key(0)).verdict in (
            "right",
            "unresolved",
        )


@pytest.mark.thorough(
    "kinks of 1e-8 to 1e-6; test_kink_is_told_from_a_bug has one of 1"
)
def test_a_small_kink_is_one():
    for size in (1e-8, 1e-7, 1e-6):
        f = lambda z, size=size: jnp.sum(size * jnp.abs(z - 1) + z)
        assert check_derivative(f, jnp.ones(3), jax.random.key(0)).verdict == "kink"


def test_of_an_f_that_hardly_changes_errors_are_told_relative_to_its_size():
    report = check_derivative(
        lambda z: 1e6 + 1e-9 * jnp.sum(z),
        jnp.ones(3),
        jax.random.key(0),
        lambda z: 0 * z,
    )
    assert "of the size of" in report.explanation
    with pytest.raises(ValueError, match="x must have at least one entry"):
        check_derivative(lambda q: jnp.ones(()), {}, jax.random.key(0))


@pytest.mark.on_ci(
    "two reports; "
    "test_where_the_gradient_vanishes_the_report_says_so_and_claims_nothing_relative "
    "has another tiny gradient"
)
def test_a_gradient_that_is_all_rounding_is_unresolved_and_one_of_the_other_sign_too():
    """Both are within rounding of 0, which is the gradient: nothing tells the right one
    from the wrong one.
    """
    f, x = (
        lambda x: jax.nn.logsumexp(x) - x @ jnp.array([0.7, 0.2, 0.1]),
        jnp.log(jnp.array([0.7, 0.2, 0.1])),
    )
    assert 0 < jnp.max(jnp.abs(jax.grad(f)(x))) < 1e-15
    other = lambda x: -jax.grad(f)(x)
    for derivative in (None, other):
        report = check_derivative(f, x, jax.random.key(0), derivative)
        assert report.verdict == "unresolved"
        assert "not larger than the rounding error" in report.explanation


def test_jump_and_waves_finer_than_the_steps_are_unresolved():
    step = check_derivative(
        lambda x: jnp.sum(jnp.where(x > 1, x + 1, x)),
        jnp.array([1.0, 2.0]),
        jax.random.key(0),
    )
    waves = check_derivative(
        lambda x: jnp.sum(jnp.sin(1e12 * x)), jnp.array([1.0]), jax.random.key(0)
    )
    assert {step.verdict, waves.verdict} == {"unresolved"}
    assert step.explanation


TIES = {  # At three or more equal entries, JAX's derivative is a mean of slopes.
    "max of min": lambda x: jnp.maximum(jnp.minimum(x[0], x[1]), x[2]) + x[3] ** 2,
    "min of max": lambda x: jnp.sin(jnp.minimum(jnp.maximum(x[0], x[1]), x[2])) * x[3],
    "max of max": lambda x: jnp.maximum(jnp.maximum(x[0], x[1]), x[2]) + x[3] ** 2,
    "median": lambda x: jnp.median(x[:3]) + x[3] ** 2,
    "sort": lambda x: jnp.sort(x[:3]) @ jnp.array([1.0, -3.0, 2.0]) + x[3] ** 2,
    "top 2": lambda x: jnp.sum(jax.lax.top_k(x[:3], 2)[0]) + x[3] ** 2,
    "pool": lambda x: (
        jax.lax.reduce_window(x[:3], -jnp.inf, jax.lax.max, (2,), (1,), "VALID")
        @ jnp.array([1.0, -2.0])
        + x[3] ** 2
    ),
    "relu of max": lambda x: jax.nn.relu(jnp.max(x[:3]) - x[0]) + x[3] ** 2,
}


@pytest.mark.thorough(
    "all ties; in .ci/run, test_a_tie_excuses_no_error_outside_it has one"
)
@pytest.mark.parametrize("name", TIES)
def test_a_tie_is_a_kink(name):
    """No derivative exists at a tie. The slopes of the pieces say what is allowed."""
    for x in (jnp.ones(4), jnp.array([0.0, 0.0, 0.0, 1.5])):
        assert check_derivative(TIES[name], x, jax.random.key(0)).verdict == "kink"


@pytest.mark.thorough("the other ties", but="max of min")
@pytest.mark.on_ci(
    "three reports; test_at_a_kink_a_derivative_lies_between_the_slopes has a kink "
    "with a slope that is allowed and one that is not"
)
@pytest.mark.parametrize("name", TIES)
def test_a_tie_excuses_no_error_outside_it(name):
    f, key = TIES[name], jax.random.key(0)
    tree = lambda p: f(jnp.concatenate([p["tied"], p["free"][None]]))
    p = {"tied": jnp.ones(3), "free": jnp.array(1.5)}
    assert check_derivative(tree, p, key).verdict == "kink"
    for wrong in ({"free": jnp.array(7.0)}, {"tied": jnp.array([9.0, -9.0, 9.0])}):
        said = check_derivative(tree, p, key, lambda p, w=wrong: jax.grad(tree)(p) | w)
        assert said.verdict == "wrong"


@pytest.mark.on_ci("two kinks that cancel; nothing shorter has them")
def test_a_wrong_derivative_where_terms_with_kinks_make_a_smooth_function_is_wrong():
    # relu(x) - relu(-x) is x. JAX's derivative at 0 is 0.
    f = lambda x: jnp.sum(jax.nn.relu(x) - jax.nn.relu(-x))
    assert check_derivative(f, jnp.zeros(2), jax.random.key(0)).verdict == "wrong"


WAVES = {  # Functions of (rate, x) that vary within the rounding of x.
    "sine": lambda rate, x: jnp.sum(jnp.sin(rate * x)),
    "beside a slope": lambda rate, x: jnp.sum(jnp.sin(rate * x) + 1000 * x),
    "of the square": lambda rate, x: jnp.sum(jnp.cos(rate * x**2)),
    "of a sum": lambda rate, x: jnp.tanh(jnp.sin(rate * jnp.sum(x))),
}


@pytest.mark.thorough(
    "the other waves, and the rates between", but=r"^sine-1e\+(13|100)"
)
@pytest.mark.on_ci("the rate 1e13", but=r"e\+100")
@pytest.mark.parametrize(
    "rate", [1e13, 1e14, 1e15, 1e16, 1e20, 1e100], ids="{:.0e}".format
)
@pytest.mark.parametrize("name", WAVES)
def test_waves_shorter_than_the_rounding_of_x_are_unresolved(name, rate):
    f = jax.tree_util.Partial(WAVES[name], rate)
    for x in (jnp.array([1.0]), jnp.array([1.0, 0.7])):
        report = check_derivative(f, x, jax.random.key(0))
        assert report.verdict == "unresolved", (rate, report.text())


@pytest.mark.on_ci("a slope that is wrong by 1e20; nothing shorter has one")
def test_a_slope_that_long_steps_show_is_resolved_however_large_the_wrong_one_is():
    smooth = check_derivative(
        lambda x: jnp.sum(x**2), jnp.ones(2), jax.random.key(0), lambda x: 1e20 * x
    )
    assert smooth.verdict == "wrong"


LOST = {  # Functions of (rate, x) of which the values show nothing at large rates.
    "remainder": lambda rate, x: jnp.sum((rate * x) % 1.0),
    "fraction": lambda rate, x: jnp.sum(rate * x - jnp.floor(rate * x)),
    "triangle": lambda rate, x: jnp.sum(jnp.abs((rate * x) % 2.0 - 1)),
    "below a large term": lambda rate, x: jnp.sum(jnp.sin(rate * x) + 1e-30 * rate * x),
}


@pytest.mark.thorough("the other functions", but="fraction")
@pytest.mark.parametrize("name", LOST)
def test_waves_that_no_value_shows_are_unresolved(name):
    for rate in (1e45, 1e80):
        f = jax.tree_util.Partial(LOST[name], rate)
        report = check_derivative(f, jnp.array([1.1, 0.7]), jax.random.key(0))
        assert report.verdict == "unresolved", (rate, report.text())


def test_derivative_that_is_not_finite_is_told_from_f_that_is_not():
    where = check_derivative(
        lambda x: jnp.where(x > 0, jnp.sqrt(x), 0.0), jnp.array(0.0), jax.random.key(0)
    )
    assert where.verdict == "nan"
    assert "first_nonfinite()" in where.explanation
    outside = check_derivative(
        lambda x: jnp.sum(jnp.log(x)), jnp.array([-1.0]), jax.random.key(0)
    )
    assert outside.verdict == "nan"
    assert "not finite at x itself" in outside.explanation


@pytest.mark.thorough(
    "one of each; test_the_precision_of_several_outputs_is_seen_in_their_values has "
    "outputs, test_a_rule_that_looks_at_its_values_is_checked_in_forward_mode one "
    "mode, test_in_float32_an_f_that_cannot_be_traced_is_checked a branch with a given "
    "derivative"
)
def test_many_outputs_one_mode_and_python_branches_are_checked():
    loop = lambda x: jax.lax.while_loop(
        lambda s: s[0] < 5, lambda s: (s[0] + 1, jnp.sin(s[1]) + x[1]), (0, x[0])
    )[1]
    branch = lambda x: jnp.sum(x * x) if x[0] > 0 else jnp.sum(x * x * x)
    for f in (lambda x: jnp.outer(x, jnp.exp(x)), loop, branch):
        assert (
            check_derivative(f, jnp.array([0.5, -0.3]), jax.random.key(0)).verdict
            == "right"
        )
    for f, wrong in (
        (lambda x: x**2, lambda x: jnp.diag(2.1 * x)),
        (branch, lambda x: 2.1 * x if x[0] > 0 else x),
    ):
        report = check_derivative(f, jnp.ones(2), jax.random.key(0), wrong)
        assert report.verdict == "wrong"


@pytest.mark.thorough(
    "the wrong rule; test_in_float32_an_f_that_cannot_be_traced_is_checked has a "
    "wrong derivative",
    but="right",
)
@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "right"), (1.01, "wrong")])
def test_a_rule_that_looks_at_its_values_is_checked_in_forward_mode(factor, verdict):
    @jax.custom_jvp
    def g(x):
        return jnp.sum(jnp.sin(x))

    @g.defjvp
    def _(primals, tangents):
        x = primals[0]
        slope = factor * jnp.cos(x) if float(x[0]) > 0 else jnp.zeros_like(x)
        return g(x), jnp.sum(slope * tangents[0])

    def f(x):
        steps = lambda s: (s[0] + 1, jnp.sin(s[1]))  # No reverse mode.
        return g(x) + jax.lax.while_loop(lambda s: s[0] < 3, steps, (0, x[0]))[1]

    x = jnp.array([0.5, -0.3, 1.1])
    assert check_derivative(f, x, jax.random.key(0)).verdict == verdict


def test_every_report_prints_what_it_would_have_caught():
    f, x = ZOO["linear"][0], jnp.ones(3)
    for derivative in (None, lambda x: 4 * x):
        report = check_derivative(f, x, jax.random.key(0), derivative)
        assert f"would catch: {report.smallest_error:.1e}" in report.text()
        assert len(report.text().splitlines()) >= 5 + len(report.probes)


def test_slope_of_samples_is_the_derivative_within_its_error():
    for f, truth in (
        (np.exp, 1.0),
        (np.sin, 1.0),
        (lambda h: np.cos(h) + 1e3, 0.0),
        (lambda h: h**5 - 2 * h, -2.0),
    ):
        values = f(OFFSETS)
        slope = slope_at_middle(values, 2.2e-16 * np.abs(values).max())
        assert abs(slope.value - truth) <= slope.error < 1e-9
        assert slope.jump == 0
    assert (
        slope_at_middle(OFFSETS**2, 0.0).jump == 0
    )  # Without any noise, so that the smallest step is seen.
    kink = slope_at_middle(np.abs(OFFSETS) + 0.5 * OFFSETS, 1e-16)
    assert (kink.jump, kink.left, kink.right) == (2, -0.5, 1.5)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda key: check_derivative(jnp.sum, jnp.arange(3), key),
            NotInexactError,
            "x must be real floating",
        ),
        (
            lambda key: check_derivative(jnp.argmax, jnp.ones(3), key),
            NotInexactError,
            "array; got int",
        ),
        (
            lambda key: check_derivative(lambda x: (x, x), 1.0, key),
            NotInexactError,
            "array; got tuple",
        ),
        (
            lambda key: check_derivative(jnp.sum, jnp.ones(3), key, lambda x: x[:2]),
            ValueError,
            "derivative must return the structure of x with leaves of shape [(3,)]",
        ),
    ],
)
def test_bad_input_is_named_with_what_to_do(call, error, words):
    with pytest.raises(error, match=re.escape(words)):
        call(jax.random.key(0))


def test_waves_that_long_steps_miss_are_not_taken_for_a_small_slope():
    # In float32 the differences over whole waves agree with each other better than
    # those within one do.
    for phase in np.linspace(0.1, 1.4, 12):
        values = np.sin(
            np.float32(100) * OFFSETS.astype(np.float32) + np.float32(phase)
        ).astype(np.float64)
        slope = slope_at_middle(values, 3e-6)
        assert abs(slope.value - 100 * np.cos(phase)) <= 5 * slope.error


@pytest.mark.thorough(
    "kinks in a leaf; in .ci/run, test_a_tie_excuses_no_error_outside_it has a tie"
)
def test_a_kink_in_one_leaf_excuses_no_error_in_another():
    f = lambda p: jnp.sum(jnp.abs(p["b"])) + jnp.sum(p["w"] ** 2)
    p, key = {"b": jnp.zeros(2), "w": jnp.array([1.0, 2.0])}, jax.random.key(0)
    assert check_derivative(f, p, key).verdict == "kink"
    report = check_derivative(f, p, key, lambda p: jax.grad(f)(p) | {"w": 7 * p["w"]})
    assert report.verdict == "wrong"
    assert "A bug in x['w']" in report.text()
    beyond = check_derivative(
        f, p, key, lambda p: jax.grad(f)(p) | {"b": jnp.array([4.0, -4.0])}
    )  # Not between -1 and 1.
    assert beyond.verdict == "wrong"


@pytest.mark.thorough("the other distances", but="^1e-06")
@pytest.mark.on_ci(
    "six reports; test_near_a_kink_and_at_a_stationary_point_right_is_accepted has "
    "a stationary point"
)
@pytest.mark.parametrize("distance", [1e-3, 1e-6, 1e-8, 0.0])
def test_right_is_accepted_near_a_minimum_at_which_f_vanishes(distance):
    for seed in range(3):
        x = jnp.asarray(1 + distance * np.random.default_rng(seed).normal(size=4))
        f = ZOO["rosenbrock"][0]
        report = check_derivative(f, x, jax.random.key(seed))
        assert report.verdict == "right", report.text()
        if distance:
            assert (
                check_derivative(
                    f, x, jax.random.key(seed), wrong_by(f, x, 0.1)
                ).verdict
                == "wrong"
            )


@pytest.mark.thorough("the other functions of one number", but="^gelu")
@pytest.mark.parametrize(
    ("f", "x"),
    [
        (gelu, -6.0),
        (lambda x: jnp.log(jnp.cosh(x)), 2.0**-10),
        (lambda x: x / (jnp.exp(x) - 1), 1e-3),
        (lambda x: jnp.log(1 + jnp.exp(x)), -40.0),
        (lambda x: (1 - jnp.cos(x)) / x**2, 1e-3),
        (lambda x: (1e8 + x) - 1e8 + x**2, 0.3),
    ],
)
def test_a_function_noisier_than_its_value_is_not_rejected(f, x):
    for seed in range(3):
        assert check_derivative(f, jnp.array(x), jax.random.key(seed)).verdict in (
            "right",
            "unresolved",
        )


@pytest.mark.on_ci(
    "four reports; test_a_function_noisier_than_its_value_is_not_rejected has an f "
    "that loses digits"
)
def test_a_derivative_that_loses_its_digits_before_f_is_not_rejected():
    """Both terms of the derivative of (1 - cos x) / x² are about 1 / x near 0, and the
    rest is x / 12.
    """
    f = lambda x: jnp.sum((1 - jnp.cos(x)) / x**2)
    for x in ([0.0246, 3.0e-5], [0.36, 1.2e-4], [1e-3, 2e-6]):
        report = check_derivative(f, jnp.array(x), jax.random.key(3))
        assert report.verdict in ("right", "unresolved")

    twice = lambda x: 2 * (x**3 / 180 - x / 12)
    at = jnp.array([0.36, 0.2])
    assert check_derivative(f, at, jax.random.key(3), twice).verdict == "wrong"


@pytest.mark.thorough(
    "four sizes; in .ci/run, test_a_leaf_of_many_sizes_has_no_kink has three"
)
def test_a_leaf_whose_entries_have_no_common_size_is_not_rejected():
    sizes = jnp.array([1e-18, 1e-7, 1e29, 1e11])
    f = lambda x: jnp.sum(jnp.tanh(x / sizes)) + jnp.prod(jnp.cos(x / sizes))
    report = check_derivative(f, 0.7 * sizes, jax.random.key(0))
    assert report.verdict in ("right", "unresolved")


@pytest.mark.on_ci(
    "three sizes in a leaf; "
    "test_an_error_in_a_leaf_that_hardly_changes_f_is_not_called_right has two leaves "
    "of two sizes"
)
def test_a_leaf_of_many_sizes_has_no_kink():
    sizes = jnp.array([1e-7, 1.0, 1e4])
    f, x = lambda x: jnp.sum(jnp.sin(x / sizes)), sizes * jnp.array([0.3, 0.7, -1.2])
    assert check_derivative(f, x, jax.random.key(0)).verdict == "right"
    assert (
        check_derivative(f, x, jax.random.key(0), wrong_by(f, x, 1e-3)).verdict
        == "wrong"
    )


def test_a_kink_closer_than_the_first_steps_is_none_at_the_point():
    assert (
        check_derivative(
            lambda x: jnp.abs(x - 1) + x**2, jnp.array(1 + 1e-9), jax.random.key(0)
        ).verdict
        == "right"
    )


def test_where_the_gradient_vanishes_the_report_says_so_and_claims_nothing_relative():
    f, x = (
        lambda x: 1 + jnp.sum(x**4),
        jnp.full(3, 1e-7),
    )  # A gradient of 4e-21, beside values of 1.
    for derivative in (jax.grad(f), lambda x: -8 * x**3):
        report = check_derivative(f, x, jax.random.key(0), derivative)
        assert report.verdict == "unresolved" or (
            report.smallest_error > 2 and "vanishes" in str(report)
        )
    assert "times the gradient" not in str(
        check_derivative(lambda x: x @ x, jnp.zeros(2), jax.random.key(0))
    )


@pytest.mark.on_ci(
    "three reports; test_derivative_that_is_not_finite_is_told_from_f_that_is_not "
    "has a where, without the remedy"
)
def test_nan_of_a_where_is_explained_with_its_remedy():
    f = lambda x: jnp.where(x == 0, 1.0, jnp.sin(x) / jnp.where(False, 1.0, x))
    report = check_derivative(f, 0.0, jax.random.key(0))
    assert report.verdict == "nan"
    assert "in reverse mode only" in report.explanation
    assert "the double where" in report.explanation
    assert "Central differences of f show the slope" in report.explanation
    safe = lambda x: jnp.where(x == 0, 1.0, jnp.sin(x) / jnp.where(x == 0, 1.0, x))
    assert check_derivative(safe, 0.0, jax.random.key(0)).verdict == "right"
    root = check_derivative(
        lambda x: jnp.sum(jnp.sqrt(x)), jnp.zeros(1), jax.random.key(0)
    )
    assert "double where" not in root.explanation


def test_a_report_prints_its_text():
    report = check_derivative(lambda x: x @ x, jnp.ones(2), jax.random.key(0))
    assert str(report) == f"{report}" == report.text()
    assert len(str(report)) < 2000


ROUNDED = {
    "product": (lambda x: jnp.prod(x), 1.1),
    "cancellation": (lambda x: jnp.sum((1 - jnp.cos(x)) / x**2), 1e-2),
    # Cancellation within, of which what goes in and comes out says nothing.
    "scan": (
        lambda x: jax.lax.scan(
            lambda c, a: (jnp.sin(c) + a, (c + a + 1e3) - 1e3), x[0], x
        )[1].sum(),
        0.7,
    ),
    "while": (
        lambda x: jax.lax.while_loop(
            lambda s: s[0] < 9,
            lambda s: (s[0] + 1, (s[1] * 0.9 + x + 1e3) - 1e3),
            (0, x),
        )[1][0],
        0.7,
    ),
    "cond": (
        lambda x: jax.lax.cond(
            x[0] > 0,
            lambda y: jnp.sum((jnp.exp(y) + 1e3) - 1e3),
            lambda y: jnp.sum(y),
            x,
        ),
        0.7,
    ),
    "custom": (lambda x: jnp.sum(jax.nn.relu(x) * jax.nn.softmax(x)), 0.7),
}


@pytest.mark.thorough("loops, cancellation and custom rules", but="^(product|cond)")
@pytest.mark.on_ci("a condition", but="product")
@pytest.mark.parametrize("name", ROUNDED)
def test_measured_rounding_is_that_of_float32_against_float64(name):
    f, centre = ROUNDED[name]
    points = [
        np.float32(centre * (1 + 0.1 * np.random.default_rng(i).normal(size=6)))
        for i in range(12)
    ]
    evaluate = jax.jit(lambda seed, x: rounding_of(jax.make_jaxpr(f)(x))(seed, [x])[0])
    with (
        jax.disable_jit()
    ):  # As it is written: some compilers take (x + 1000) - 1000 in a loop for x.
        plain = np.array([f(jnp.asarray(x)) for x in points], float)
    nudged = np.array(
        [evaluate(float(i + 1), jnp.asarray(x)) for i, x in enumerate(points)], float
    )
    exact = np.array([f(jnp.asarray(x, jnp.float64)) for x in points])
    measured = np.sqrt(np.mean((nudged - plain) ** 2)) / NUDGE
    actual = np.sqrt(np.mean((plain - exact) ** 2))
    assert actual < measured < 50 * actual


@pytest.mark.on_ci(
    "six reports; test_waves_shorter_than_the_rounding_of_x_are_unresolved has a "
    "partial function"
)
def test_a_partial_is_compiled_once_for_all_of_its_arguments():
    traced = []

    def fit(data, x):
        traced.append(1)
        return jnp.sum((data * x) ** 2)

    for scale in (1.0, 2.0, 3.0):
        f = jax.tree_util.Partial(fit, scale * jnp.arange(3.0))
        assert check_derivative(f, jnp.ones(3), jax.random.key(0)).verdict == "right"
        assert (
            check_derivative(
                f,
                jnp.ones(3),
                jax.random.key(0),
                lambda x, scale=scale: 2.1 * (scale * jnp.arange(3.0)) ** 2 * x,
            ).verdict
            == "wrong"
        )


def test_the_scale_of_a_huge_leaf_does_not_overflow():
    f, x = (lambda x: jnp.sin(x / 1e160)), jnp.array(1e160)
    assert check_derivative(f, x, jax.random.key(0)).verdict == "right"
    wrong = check_derivative(f, x, jax.random.key(0), lambda x: jnp.zeros_like(x))
    assert wrong.verdict == "wrong"


@pytest.mark.on_ci(
    "four reports; test_jumps_that_cancel_along_some_directions_are_never_right has "
    "larger jumps"
)
def test_a_small_jump_and_a_slope_without_a_limit_are_unresolved():
    key = jax.random.key(0)
    jump = lambda x: x + 1e-6 * jnp.sign(x)
    assert check_derivative(jump, jnp.array(0.0), key).verdict != "right"
    other = lambda x: jnp.where(x > 1, x**2, 2 * x - 1 + 1e-6)
    assert check_derivative(other, jnp.array(1.0), key).verdict != "right"
    drift = lambda x: jnp.sum(x * jnp.log(jnp.abs(x) + 1e-30))
    for x in (jnp.array([0.0, 0.5]), jnp.array([0.0])):
        assert check_derivative(drift, x, key).verdict != "wrong"


@pytest.mark.thorough("the other powers", but="^-900")
@pytest.mark.on_ci(
    "three reports; test_the_scale_of_a_huge_leaf_does_not_overflow has a huge x"
)
@pytest.mark.parametrize("power", [-900, -600, 600, 900])
def test_a_huge_or_tiny_f_is_checked_as_another(power):
    f = lambda x: jnp.sum(jnp.sin(x) * jnp.arange(1.0, 5.0))
    scaled = lambda x: 2.0**power * f(x)
    wrong = lambda x: jax.grad(scaled)(x) * (1 + 1e-9)
    x, key = 0.3 * jnp.arange(1.0, 5.0), jax.random.key(0)
    plain, report = check_derivative(f, x, key), check_derivative(scaled, x, key)
    assert report.verdict == plain.verdict == "right"
    assert report.smallest_error == pytest.approx(plain.smallest_error, rel=1e-3)
    assert check_derivative(scaled, x, key, wrong).verdict == "wrong"


def test_a_constant_has_the_derivative_0():
    f, x, key = lambda x: jnp.asarray(3.0), jnp.ones(3), jax.random.key(0)
    assert check_derivative(f, x, key).verdict == "right"
    assert check_derivative(f, x, key, lambda x: 1e-3 * x).verdict == "wrong"


@pytest.mark.thorough("the other seeds and sizes", but="^0-3030")
@pytest.mark.on_ci(
    "a small term in float32; "
    "test_right_is_accepted_and_one_in_a_hundred_rejected_in_float32 has all of f in "
    "it"
)
@pytest.mark.parametrize("size", [300.0, 808.0, 3030.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_small_float32_term_of_a_large_f_is_no_bug(size, seed):
    """The rounding error of f is that of its small term, not ε of float32 times f."""
    f = lambda x: (
        jnp.sum(jnp.sin(2 * x).astype(jnp.float32)).astype(x.dtype) + jnp.sum(x**2)
    )
    x = jnp.array([size, -size / 2])
    assert check_derivative(f, x, jax.random.key(seed)).verdict in (
        "right",
        "unresolved",
    )
    wrong = lambda x: 1.01 * jax.grad(f)(x)
    assert check_derivative(f, x, jax.random.key(seed), wrong).verdict == "wrong"


@pytest.mark.thorough("the other seeds", but=r"^0\]")
@pytest.mark.on_ci(
    "a wave beside an exp; test_waves_shorter_than_the_rounding_of_x_are_unresolved "
    "has a shorter wave"
)
@pytest.mark.parametrize("seed", range(8))
def test_a_fast_wave_just_above_the_rounding_error_is_no_bug(seed):
    rates, sizes = jnp.array([2.34e9, 5e5]), jnp.array([7.5e-13, 2.5e-9])
    f = lambda x: jnp.sum(jnp.exp(x) + sizes * jnp.sin(rates * x))
    report = check_derivative(f, jnp.array([1.3, 0.4]), jax.random.key(seed))
    assert report.verdict == "unresolved", report.text()


@pytest.mark.thorough("the other scales and sizes", but=r"^1\.0-(0\.0001|1e-16)\]")
@pytest.mark.on_ci("the scale 1e-4", but=r"-1e-16\]")
@pytest.mark.parametrize("scale", [1e-16, 1e-12, 1e-8, 1e-4, 1.0])
@pytest.mark.parametrize("large", [1.0, 1e4, 1e8])
def test_an_error_in_a_leaf_that_hardly_changes_f_is_not_called_right(scale, large):
    """Right means: smaller than the smallest error, also within one leaf."""
    x = {"small": scale * jnp.array([1.0, 2.0]), "other": jnp.array([1.0, 2.0])}
    f = lambda x: (
        jnp.sum(x["small"] ** 2) / scale + large * jnp.sum(jnp.sin(x["other"]))
    )
    true = jax.grad(f)(x)
    wrong = lambda x: {"small": -3 * true["small"], "other": true["other"]}
    report = check_derivative(f, x, jax.random.key(0), wrong)
    norm = np.linalg.norm(np.concatenate([true["small"], true["other"]]))
    size = np.linalg.norm(4 * true["small"]) / norm
    assert report.verdict == "wrong" or report.smallest_error >= size, report.text()
    if report.verdict == "unresolved":
        assert "x['small']" in report.explanation


@pytest.mark.thorough(
    "waves of random rates; in .ci/run, "
    "test_a_fast_wave_just_above_the_rounding_error_is_no_bug has others"
)
@pytest.mark.parametrize("seed", range(4))
def test_a_wave_that_the_rounding_error_hides_is_no_bug(seed):
    """Values show only the mean of the slope over the smallest step that shows it."""
    random = np.random.default_rng(seed)
    rate, slope = 10 ** random.uniform(10, 12), 10 ** random.uniform(-3, 1)
    f = lambda x: jnp.sum(jnp.exp(x) + slope / rate * jnp.sin(rate * x))
    x = jnp.asarray(random.uniform(-3, 3, 1))
    report = check_derivative(f, x, jax.random.key(seed))
    assert report.verdict in ("right", "unresolved"), report.text()


@pytest.mark.thorough(
    "the tip of a cone; test_a_correct_derivative_close_to_kinks_is_not_rejected has "
    "points beside kinks"
)
@pytest.mark.parametrize("distance", [1e-13, 1e-12, 1e-10])
def test_a_point_beside_the_tip_of_a_cone_is_no_bug(distance):
    centre = jnp.array([0.3, -1.1, 0.8])
    f = lambda x: jnp.linalg.norm(x - centre) + jnp.linalg.norm(x)
    x = centre + distance * jnp.array([1.0, -0.5, 2.0])
    for seed in range(4):
        report = check_derivative(f, x, jax.random.key(seed))
        assert report.verdict != "wrong", report.text()


@pytest.mark.thorough(
    "a term in float16; in .ci/run, test_a_small_float32_term_of_a_large_f_is_no_bug "
    "has one in float32"
)
@pytest.mark.parametrize("seed", range(3))
def test_a_term_in_float16_does_not_make_chance_a_bug(seed):
    f = lambda x: (
        jnp.sum(jnp.sin(1.3 * x).astype(jnp.float16)).astype(x.dtype) + jnp.sum(x**2)
    )
    x = jnp.asarray(np.random.default_rng(seed).normal(size=3) * 10.0)
    assert check_derivative(f, x, jax.random.key(seed)).verdict != "wrong"


@pytest.mark.thorough("the other seeds and numbers of outputs", but=r"^0-5\]")
@pytest.mark.parametrize("number", [2, 5, 40])
@pytest.mark.parametrize("seed", range(3))
def test_an_error_in_one_output_is_found_beside_the_kink_of_another(number, seed):
    f = lambda x: jnp.concatenate(
        [jnp.abs(x), jnp.sin(jnp.arange(1, number) * x + 0.3)]
    )
    x, jacobian = jnp.array([0.0]), jax.jacobian(f)
    assert check_derivative(f, x, jax.random.key(seed)).verdict == "kink"
    wrong = lambda x: jacobian(x).at[number // 2].multiply(1.1)
    report = check_derivative(f, x, jax.random.key(seed), wrong)
    assert report.verdict == "wrong", report.text()


@pytest.mark.thorough(
    "errors beside tiny leaves; "
    "test_an_error_in_a_leaf_that_hardly_changes_f_is_not_called_right has errors in "
    "one"
)
@pytest.mark.parametrize("scale", [1e-14, 1e-9, 1e-2])
def test_a_tiny_leaf_does_not_hide_an_error_of_another(scale):
    random = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(random.normal(size=shape))
    inputs, targets = draw(16, 4), draw(16)

    def loss(p):
        hidden = jnp.tanh(inputs @ p["W"] + p["b"][None])
        return jnp.mean((hidden @ p["v"] + p["c"] - targets) ** 2)

    x = {"W": draw(4, 6), "b": draw(6) * scale, "v": draw(6), "c": draw() * scale}
    gradient, key = jax.grad(loss), jax.random.key(1)
    twice = lambda x: jax.tree.map(lambda g: 2 * g, gradient(x))
    one_off = lambda x: gradient(x) | {"W": 1.001 * gradient(x)["W"]}
    for wrong in (twice, one_off):
        assert check_derivative(loss, x, key, wrong).verdict == "wrong"
    if scale > 1e-10:
        assert check_derivative(loss, x, key).verdict == "right"


DRAWS = {
    "normal": lambda key: jax.random.normal(key, (6,)),
    "uniform": lambda key: jax.random.uniform(key, (6,)),
    "choice": lambda key: jax.random.choice(key, 50, (6,)).astype(float),
    "with a dtype": lambda key: jax.random.normal(key, (6,), jnp.float32),
}


@pytest.mark.thorough("the other dtype", but="float32")
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_constant_that_f_keeps_for_its_next_call_is_no_tracer(dtype):
    grid = functools.cache(lambda: jnp.linspace(0.0, 1.0, 5))
    f = lambda x: jnp.sum(jnp.sin(x) * grid())
    x = jnp.arange(1.0, 6.0, dtype=dtype)
    assert check_derivative(f, x, jax.random.key(0)).verdict == "right"
    assert jnp.isfinite(f(x))


def test_a_reverse_rule_that_prints_its_values_is_checked():
    f = jax.custom_vjp(lambda x: jnp.sum(x**2))
    printed = []

    def backward(x, cotangent):
        printed.append(f"{cotangent:.3g}")  # A TypeError if it is a tracer.
        return (2 * cotangent * x,)

    f.defvjp(lambda x: (jnp.sum(x**2), x), backward)
    report = check_derivative(f, jnp.arange(1.0, 4.0), jax.random.key(0))
    assert printed
    assert report.verdict == "right"


@pytest.mark.thorough("the other draws", but="uniform")
@pytest.mark.on_ci("draws with float64 off; nothing shorter has draws")
@pytest.mark.parametrize("name", DRAWS)
def test_other_random_numbers_in_float64_are_no_bug(name, float64_off):
    with float64_off:
        draw = lambda: DRAWS[name](jax.random.key(7))
        drawn = draw()
        loss = lambda x, z: jnp.sum(jnp.tanh(x * z) ** 2)
        f, x = lambda x: loss(x, draw()), jnp.linspace(-1.0, 1.0, 6)
        right = lambda x: jax.grad(loss)(x, drawn)
        report = check_derivative(f, x, jax.random.key(0), right)
        wrong = check_derivative(
            f, x, jax.random.key(0), lambda x: 1.01 * right(x)
        ).verdict
    if name == "with a dtype":
        assert (report.verdict, wrong) == ("right", "wrong")
    else:
        assert report.verdict == "unresolved"
        assert "jax.random depend on the dtype" in report.explanation


@pytest.mark.thorough("twelve points beside a minimum; nothing shorter has the text")
def test_a_gradient_that_cancels_in_float32_is_told(float64_off):
    """Beside a minimum, rounding may hide a wrong sign; the text then says so."""
    reports = []
    with float64_off:
        for seed in range(12):
            random = np.random.default_rng(seed)
            unit = jnp.float32(10 ** random.uniform(-6, 6))

            def himmelblau(x, unit=unit):
                a, b = x * unit
                return (a**2 + b - 11) ** 2 + (a + b**2 - 7) ** 2

            near = 1 + 10 ** random.uniform(-12, -7) * random.normal(size=2)
            x = jnp.asarray(np.array([3.0, 2.0]) * near, jnp.float32) / unit
            wrong = lambda x, f=himmelblau: -jax.grad(f)(x)
            reports.append(check_derivative(himmelblau, x, jax.random.key(seed), wrong))
    hidden = [each for each in reports if each.verdict == "unresolved"]
    assert {each.verdict for each in reports} == {"wrong", "unresolved"}
    assert all("Close to a minimum" in each.explanation for each in hidden)


@pytest.mark.thorough("the other grid", but="logspace")
@pytest.mark.on_ci(
    "constants in float32 beside an f in float64; nothing shorter has them"
)
@pytest.mark.parametrize("grid", [jnp.linspace, jnp.logspace])
def test_a_derivative_that_holds_constants_in_float32_is_no_bug(grid, float64_off):
    with float64_off:
        held = grid(0.1, 1.0, 12)
        loss = lambda x, c: jnp.sum(jnp.tanh(x * c) ** 2)
        f = lambda x: loss(x, grid(0.1, 1.0, 12))
        x, key = jnp.linspace(-1.0, 1.3, 12), jax.random.key(0)
        right = lambda x: jax.grad(loss)(x, held)
        wrong = lambda x: right(x).at[3].multiply(1.001)
        assert check_derivative(f, x, key, right).verdict == "right"
        assert check_derivative(f, x, key, wrong).verdict == "wrong"


@pytest.mark.thorough(
    "leaves of 20 and 60 entries; test_check_cases.py has one error beside kinks in a "
    "leaf of eight"
)
@pytest.mark.parametrize("number", [20, 60])
def test_an_error_is_found_although_most_entries_of_its_leaf_have_kinks(number):
    """As in a lasso, where most of the weights are 0."""
    random = np.random.default_rng(number)
    chosen = random.choice(number, number // 5, replace=False)
    x = np.zeros(number)
    x[chosen] = random.normal(size=len(chosen))
    inputs = random.normal(size=(2 * number, number))
    targets = inputs @ x + random.normal(size=2 * number)
    f = lambda x: jnp.mean((inputs @ x - targets) ** 2) + 0.3 * jnp.sum(jnp.abs(x))
    factors = np.ones(number)
    factors[chosen[0]] = 2.0
    wrong = lambda x: jax.grad(f)(x) * factors
    key = jax.random.key(0)
    assert check_derivative(f, jnp.asarray(x), key).verdict == "kink"
    report = check_derivative(f, jnp.asarray(x), key, wrong)
    assert report.verdict == "wrong", report.text()


LOOPS = {
    "while": lambda a: jax.lax.while_loop(
        lambda s: jnp.abs(s) > 1e-3, lambda s: 0.5 * s, a
    ),
    "newton": lambda a: jax.lax.fori_loop(0, 8, lambda _, s: 0.5 * (s + a / s), a),
}


@pytest.mark.thorough("the other loop", but="while")
@pytest.mark.parametrize("name", LOOPS)
def test_a_batch_of_loops_is_checked(name):
    """Each has a number of steps of its own, so that the condition is an array."""
    f = lambda x: jnp.sum(jax.vmap(LOOPS[name])(x) ** 2)
    x = jnp.array([1.0, 5.0, 40.0])
    assert check_derivative(f, x, jax.random.key(0)).verdict == "right"


WHOLE = {
    "sinc": jnp.sinc,
    "lanczos": lambda x: jnp.sinc(x) * jnp.sinc(x / 3),
    "triangle wave": lambda x: jnp.where(
        2 * jnp.floor(x / 2) == jnp.floor(x),
        x - jnp.floor(x),
        1 - (x - jnp.floor(x)),
    ),
    "table": lambda x: (
        x * jnp.sin(jnp.arange(200.0))[(10 * (jnp.floor(10 * x) / 10)).astype(int)]
    ),
}


@pytest.mark.thorough("the other functions", but="^triangle")
@pytest.mark.parametrize("name", WHOLE)
def test_whole_numbers_that_are_compared_are_not_perturbed(name):
    f = lambda x: jnp.sum(WHOLE[name](x))
    for seed in range(4):
        x = jnp.asarray(np.random.default_rng(seed).uniform(0.1, 6.0, 4))
        report = check_derivative(f, x, jax.random.key(seed))
        assert report.verdict == "right", report.text()


def test_in_float32_an_f_that_cannot_be_traced_is_checked():
    f = lambda x: jnp.sum(x * x) if float(x[0]) > 0 else jnp.sum(jnp.sin(x))
    x, key = jnp.array([0.5, 1.2], jnp.float32), jax.random.key(0)
    for factor, verdict in ((2.0, "right"), (2.02, "wrong")):
        report = check_derivative(f, x, key, lambda x, a=factor: a * x)
        assert report.verdict == verdict


@pytest.mark.on_ci(
    "cancellation; test_right_is_accepted_and_one_in_a_hundred_rejected_in_float32 "
    "has a wrong derivative in float32"
)
def test_cancellation_in_float32_excuses_no_wrong_derivative(float64_off):
    with float64_off:
        f = lambda x: jnp.sum((1 - jnp.cos(x)) / x**2)
        x = jnp.array([1e-2, 2e-2, 5e-3])
        report = check_derivative(f, x, jax.random.key(0), lambda x: x / 12)
    assert report.verdict == "wrong"  # It is -x / 12.


BESIDE = {
    "abs": (jnp.abs, 0.0, (1.0, 0.2, -1.0), (1.1, 1.4, -1.2)),
    "relu": (jax.nn.relu, 0.0, (0.0, 0.4, 1.0), (-0.2, 1.2)),
    "largest": (
        jnp.max,
        jnp.array([1.0, 1.0, 0.5]),
        ([1.0, 0, 0], [0.4, 0.6, 0]),
        ([1.2, -0.2, 0],),
    ),
    "sum of abs": (
        lambda x: jnp.sum(jnp.abs(x)),
        jnp.zeros(3),
        ([0.9, 0, -1],),
        ([1.4, 0, 0],),
    ),
}


@pytest.mark.thorough("the kinks of one entry and of a maximum", but="sum")
@pytest.mark.parametrize("name", BESIDE)
def test_at_a_kink_a_derivative_lies_between_the_slopes(name):
    f, x, right, wrong = BESIDE[name]
    key = jax.random.key(0)
    for verdict, given in (("kink", right), ("wrong", wrong)):
        for value in given:
            found = check_derivative(f, x, key, lambda x, v=value: jnp.asarray(v))
            assert found.verdict == verdict


@pytest.mark.thorough("the other slopes", but="154")
@pytest.mark.parametrize(
    ("f", "x"),
    [(jnp.square, 1e-200), (jnp.exp, 705.0), (jnp.square, 1e154)],
)
def test_slopes_beyond_the_range_of_floats_are_no_nan(f, x):
    report = check_derivative(f, x, jax.random.key(0))
    assert report.verdict == "unresolved"
    assert "beyond the range of float64" in report.explanation
    assert report.smallest_error == np.inf
    assert "the derivative is not finite" not in report.text()


@pytest.mark.thorough(
    "slopes above 1e38; test_derivative_not_finite_in_the_dtype_of_x_is_not_right has "
    "float32 with float64 off"
)
def test_slopes_beyond_the_range_are_found_with_float64_off(float64_off):
    f = lambda size: lambda x: size * jnp.sin(1e9 * x[0]) + x[1]
    with float64_off:
        x, key = jnp.array([1e-9, 1e10]), jax.random.key(0)
        assert check_derivative(f(1e27), x, key).verdict != "nan"
        # This slope, 1e39, is beyond the range of float32.
        report = check_derivative(f(1e30), x, key)
    assert "not finite in float32" in report.explanation


@pytest.mark.parametrize(
    ("f", "x", "derivative", "words"),
    [
        (jnp.nansum, jnp.array([1.0, np.nan]), None, "1 of the 2 entries of x are NaN"),
        (
            lambda x: jnp.nansum(x["w"]),
            {"w": jnp.array([np.nan])},
            None,
            "entries of x['w'] are NaN",
        ),
        (lambda x: np.float64(1.0), 1.0, None, "Use jax.numpy in it"),
        (jnp.square, 1.0, lambda x: None, "it returned None"),
    ],
)
def test_what_cannot_be_checked_is_named(f, x, derivative, words):
    with pytest.raises((ValueError, NotInexactError), match=re.escape(words)):
        check_derivative(f, x, jax.random.key(0), derivative)


EVERY_OTHER = jnp.arange(12) % 2 == 0
masked = lambda x: jnp.where(EVERY_OTHER, x, -jnp.inf)
MASKED = {
    "logsumexp": lambda x: jax.nn.logsumexp(masked(x)),
    "log_softmax": lambda x: -jax.nn.log_softmax(masked(x))[2],
}


@pytest.mark.thorough("the other function", but="log_softmax")
@pytest.mark.on_ci("four reports; nothing shorter has a mask")
@pytest.mark.parametrize("name", MASKED)
def test_an_infinity_of_a_mask_has_no_rounding_error(name):
    f, x = MASKED[name], jnp.linspace(-1.0, 1.0, 12)
    gradient = jax.grad(f)
    for key in jax.random.split(jax.random.key(0), 2):
        assert check_derivative(f, x, key, gradient).verdict == "right"
        wrong = check_derivative(f, x, key, lambda x: -gradient(x))
        assert wrong.verdict == "wrong"


@pytest.mark.thorough(
    "confident predictions; in .ci/run, "
    "test_an_infinity_of_a_mask_has_no_rounding_error has the mask"
)
def test_a_confident_masked_prediction_is_no_bug():
    x = jax.random.normal(jax.random.key(5), (12,))
    for f in (
        lambda x: -jax.nn.log_softmax(masked(x.at[2].add(30.0)))[2],
        lambda x: 1 - jax.nn.softmax(masked(x.at[2].add(30.0)))[2],
    ):
        report = check_derivative(f, x, jax.random.key(0))
        assert report.verdict in ("right", "unresolved"), report.text()


# JAX cannot trace these: they leave it for NumPy.
ROUNDED_IN_NUMPY = {
    "float32": lambda x: jnp.asarray(np.sum(np.exp(np.asarray(x, np.float32)))),
    "float32, as float64": lambda x: jnp.asarray(
        np.float64(np.sum(np.exp(np.asarray(x, np.float32))))
    ),
    "six digits": lambda x: jnp.asarray(np.round(np.sum(np.exp(np.asarray(x))), 6)),
}


@pytest.mark.thorough(
    "float32, which test_the_precision_of_several_outputs_is_seen_in_their_values has",
    but="^six digits",
)
@pytest.mark.on_ci(
    "six digits; test_the_precision_of_several_outputs_is_seen_in_their_values has "
    "float32"
)
@pytest.mark.parametrize(
    ("name", "dtype"), [*((n, "float64") for n in ROUNDED_IN_NUMPY), ("float32",) * 2]
)
def test_rounding_that_jax_cannot_see_is_no_bug_and_hides_none(name, dtype):
    f = ROUNDED_IN_NUMPY[name]
    gradient = lambda x: np.exp(np.asarray(x, np.float64))
    for seed in (0, 2):
        x = jax.random.normal(jax.random.key(seed), (3,), dtype)
        key = jax.random.key(seed)
        right = check_derivative(f, x, key, gradient)
        assert right.verdict == "right", right.text()
        assert "look rounded to float32" in right.precision
        wrong = check_derivative(f, x, key, lambda x: 1.03 * gradient(x))
        assert wrong.verdict == "wrong", wrong.text()


def test_the_precision_of_several_outputs_is_seen_in_their_values():
    f = lambda x: jnp.asarray(np.tanh(np.asarray(x, np.float32)).astype(np.float64))
    x = jax.random.normal(jax.random.key(0), (4,))
    jacobian = lambda x: np.diag(1 - np.tanh(np.asarray(x, np.float64)) ** 2)
    report = check_derivative(f, x, jax.random.key(0), jacobian)
    assert report.verdict == "right", report.text()
    assert "look rounded to float32" in report.precision


STEPS_IN_NUMPY = {
    "relu": lambda x: np.sum(np.maximum(x - 2, 0.0)),
    "floor": lambda x: np.sum(np.floor(100 * x)) / 100,
    "a count": lambda x: float(np.sum(np.digitize(x, [-1, -0.5, 0.0, 0.5, 1]))),
    "0-1 loss": lambda x: np.mean(np.sin(np.arange(300)).reshape(100, 3) @ x > 0),
}


@pytest.mark.on_ci("the floor and the count", but="relu|loss")
@pytest.mark.parametrize("name", STEPS_IN_NUMPY)
def test_the_derivative_0_of_steps_that_jax_cannot_see_is_no_bug(name):
    f = lambda x: jnp.asarray(STEPS_IN_NUMPY[name](np.asarray(x)))
    for seed in range(2):
        x = jax.random.normal(jax.random.key(seed), (3,))
        report = check_derivative(f, x, jax.random.key(seed), jnp.zeros_like)
        assert report.verdict == "right", report.text()


@pytest.mark.thorough("the other dtype", but="^float16")
@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float16])
def test_values_of_a_narrow_dtype_are_not_held_against_a_derivative(dtype):
    f = lambda x: jnp.asarray(
        np.float64(np.asarray(np.sum(np.exp(np.asarray(x)))).astype(dtype))
    )
    x = jax.random.normal(jax.random.key(1), (3,))
    gradient = lambda x: np.exp(np.asarray(x))
    report = check_derivative(f, x, jax.random.key(0), gradient)
    assert report.verdict in ("right", "unresolved"), report.text()


@pytest.mark.thorough(
    "rounding to thousandths; "
    "test_values_of_a_narrow_dtype_are_not_held_against_a_derivative has float16"
)
@pytest.mark.parametrize("scale", [0.02, 0.1])
def test_coarse_rounding_that_jax_cannot_see_is_no_bug(scale):
    f = lambda x: jnp.asarray(np.floor(np.sum(np.exp(np.asarray(x))) * 1000) / 1000)
    for seed in range(3):
        x = scale * jax.random.normal(jax.random.key(seed), (3,))
        report = check_derivative(
            f, x, jax.random.key(seed), lambda x: np.exp(np.asarray(x))
        )
        assert report.verdict in ("right", "unresolved"), report.text()


@pytest.mark.on_ci(
    "a flat part; test_a_function_that_jax_cannot_trace_is_checked_by_calls has "
    "another wrong slope"
)
def test_a_slope_of_a_flat_part_that_jax_cannot_see_is_a_bug():
    f = lambda x: jnp.asarray(np.sum(np.maximum(np.asarray(x), 0.0)))
    x = jnp.array([-0.3, -1.2, -0.17])
    for seed in range(2):
        report = check_derivative(f, x, jax.random.key(seed), jnp.ones_like)
        assert report.verdict == "wrong", report.text()


BOLTZMANN = 1.380649e-23  # In joule per kelvin.


def free_energy(p):
    """Free energy of a level of energy E at the temperature T, in joule."""
    return -BOLTZMANN * p["T"] * jnp.logaddexp(0.0, -p["E"] / (BOLTZMANN * p["T"]))


@pytest.mark.thorough(
    "energies in joule; test_a_term_of_any_scale_at_0_is_found has such scales"
)
@pytest.mark.parametrize("temperature", [3000.0, 300.0, 4.2, 0.01])
def test_energies_of_atoms_at_0_joule_are_smooth(temperature):
    """f varies over 1e-20 of a step of 1 joule, and floats are dense around 0."""
    x = {"T": jnp.asarray(temperature), "E": jnp.zeros(())}
    key, gradient = jax.random.key(0), jax.grad(free_energy)
    assert check_derivative(free_energy, x, key).verdict == "right"
    for leaf in x:
        wrong = lambda p, leaf=leaf: gradient(p) | {leaf: 2 * gradient(p)[leaf]}
        assert check_derivative(free_energy, x, key, wrong).verdict == "wrong"


@pytest.mark.thorough("the other scales", but="e-(15|42)")
@pytest.mark.on_ci("the scale 1e-15", but="e-42")
@pytest.mark.parametrize("scale", 10.0 ** -np.arange(3, 43, 3))
def test_a_term_of_any_scale_at_0_is_found(scale):
    f, key = lambda q: q + scale * jnp.arctan(q / scale), jax.random.key(1)
    assert check_derivative(f, jnp.zeros(()), key).verdict == "right"
    without = lambda q: jnp.ones(())
    assert check_derivative(f, jnp.zeros(()), key, without).verdict == "wrong"


@pytest.mark.thorough("the other functions and sizes", but="^softplus-1e.20")
@pytest.mark.on_ci(
    "entries that are 0; test_the_scale_of_a_huge_leaf_does_not_overflow has a huge one"
)
@pytest.mark.parametrize("size", [1e12, 1e20, 1e25])
@pytest.mark.parametrize("smooth", [jax.nn.silu, jax.nn.gelu, jax.nn.softplus])
def test_entries_that_are_0_beside_a_huge_one_are_smooth(size, smooth):
    f = lambda p: jnp.log(p[0]) + jnp.sum(smooth(p[1:]))
    x, key = jnp.asarray([size, 0.0, 0.0]), jax.random.key(0)
    assert check_derivative(f, x, key).verdict == "right"
    kinked = lambda p: jnp.log(p[0]) + jnp.sum(jax.nn.relu(p[1:]))
    assert check_derivative(kinked, x, key).verdict == "kink"


def filled(value):
    """sinc with a value at 0; the right one is 1."""

    def f(x):
        safe = jnp.where(x == 0, 1.0, x)
        return jnp.sum(jnp.where(x == 0, value, jnp.sin(safe) / safe))

    return f


@pytest.mark.thorough("the larger errors", but="^1e-09")
@pytest.mark.parametrize("off", [1.0, -0.5, 1e-3, 1e-6, 1e-9])
def test_a_wrong_value_at_a_single_point_is_told(off):
    x, key = jnp.asarray([0.0, 0.5, 1.0]), jax.random.key(0)
    assert check_derivative(filled(1.0), x, key).verdict == "right"
    report = check_derivative(filled(1.0 + off), x, key)
    assert report.verdict == "unresolved"
    assert "seems to jump at the point" in report.explanation


@pytest.mark.thorough("the other seeds", but=r"-0\]")
@pytest.mark.on_ci("the other functions", but="-x0-")
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    ("f", "x"),
    [
        (lambda x: jnp.sum(jnp.sin(x)) + jnp.sum(jnp.sign(x)), [2.0, 0.5, 0.0, 0.0]),
        (lambda x: jnp.sum(jnp.round(x) + x), [0.5, 1.5]),
        (lambda x: jnp.floor(x[0]) - jnp.floor(x[1]) + jnp.sum(x), [2.0, 1.0]),
    ],
)
def test_jumps_that_cancel_along_some_directions_are_never_right(f, x, seed):
    report = check_derivative(f, jnp.asarray(x), jax.random.key(seed))
    assert report.verdict == "unresolved"


def in_float32(x):
    return jnp.sum(jnp.sin(x.astype(jnp.float32)))


ROUNDED_AT_0 = {
    "float32 inside": in_float32,
    "a product in float32": lambda x: jnp.sum(
        jnp.tanh(x.astype(jnp.float32) @ jnp.ones((3, 2), jnp.float32))
    ),
    "both precisions": lambda x: in_float32(x) + 1e-3 * jnp.sum(x),
    "cancelling": lambda x: jnp.dot(
        jnp.asarray([1.0, 1.0, -1.0]), jnp.stack([1.0, x[0], 1.0])
    ),
}


@pytest.mark.thorough("the other functions", but="^float32 inside")
@pytest.mark.on_ci(
    "two reports; test_a_stopped_gradient_in_float32_at_0_is_wrong has the same "
    "function"
)
@pytest.mark.parametrize("name", ROUNDED_AT_0)
def test_digits_that_are_lost_close_to_0_are_no_slope(name):
    """Very short steps see only the zeros to which f is rounded."""
    f, x, key = ROUNDED_AT_0[name], jnp.zeros(3), jax.random.key(0)
    assert check_derivative(f, x, key).verdict == "right"
    assert check_derivative(f, x, key, jnp.zeros_like).verdict != "right"


def test_a_stopped_gradient_in_float32_at_0_is_wrong():
    stopped = lambda x: in_float32(jax.lax.stop_gradient(x))
    assert check_derivative(stopped, jnp.zeros(3), jax.random.key(0)).verdict == "wrong"


def at_a_zero_row(activation, units, seed):
    """Return a loss whose units are all at their kink for one row, and its params."""
    random = np.random.default_rng(seed)
    x, y = random.normal(size=(5, 4)), random.normal(size=5)
    x[2] = 0.0
    params = {
        "W": jnp.asarray(random.normal(size=(4, units))),
        "b": jnp.zeros(units),
        "v": jnp.asarray(random.normal(size=units)),
    }
    hidden = lambda p: activation(x @ p["W"] + p["b"][None])
    loss = lambda p: jnp.mean((hidden(p) @ p["v"] - y) ** 2)
    return loss, params


@pytest.mark.thorough(
    "a layer at 0; test_check_kinks.py has "
    "test_rectifiers_at_0_of_several_entries_each_are_no_bug"
)
@pytest.mark.parametrize("activation", [jax.nn.relu, jax.nn.leaky_relu])
def test_many_rectifiers_at_their_kink_at_once_are_no_bug(activation):
    loss, params = at_a_zero_row(activation, 16, seed=0)
    report = check_derivative(loss, params, jax.random.key(0))
    assert report.verdict == "kink", report.text()
    bug = lambda p: (g := jax.grad(loss)(p)) | {"v": g["v"].at[1].multiply(1.01)}
    assert check_derivative(loss, params, jax.random.key(0), bug).verdict == "wrong"


@pytest.mark.thorough(
    "networks in float16; test_float16_beside_bfloat16_underflows_without_a_bug and "
    "test_term_in_float32_that_underflows_hides_no_error have both laws"
)
@pytest.mark.parametrize("seed", range(2))
def test_values_that_underflow_in_float16_are_no_bug_and_hide_none(seed):
    half = lambda value: value.astype(jnp.float16)
    random = np.random.default_rng(seed)
    x, down = (jnp.asarray(random.normal(size=shape)) for shape in ((6, 4), (4, 2)))
    # A zero-initialised factor, and a residual branch at 0.
    for f, zero in (
        (lambda b: jnp.sum((half(x) @ half(down) @ half(b)).astype(float)), (2, 3)),
        (lambda w: jnp.sum(w + jnp.tanh(half(x[:4] @ w)).astype(float)), (4,)),
    ):
        at, key = jnp.zeros(zero, jnp.float32), jax.random.key(seed)
        report = check_derivative(f, at, key)
        assert report.verdict in ("right", "unresolved"), report.text()
        twice = lambda b, f=f: 2 * jax.grad(f)(b)
        assert check_derivative(f, at, key, twice).verdict == "wrong"


@pytest.mark.thorough(
    "flat parts of tiny widths; test_a_term_of_any_scale_at_0_is_found has terms of "
    "tiny scales"
)
@pytest.mark.parametrize("scale", [4e-21, 1e-40, 1e-60])
def test_dead_zone_of_any_width_around_0_is_smooth(scale):
    f = lambda x: jnp.sum(jnp.arange(1.0, 3) * jax.nn.relu(jnp.abs(x) - scale))
    report = check_derivative(f, jnp.zeros(2), jax.random.key(0))
    assert report.verdict == "right", report.text()
    bug = lambda x: jnp.array([0.0, 0.5])
    assert check_derivative(f, jnp.zeros(2), jax.random.key(0), bug).verdict == "wrong"


@pytest.mark.thorough(
    "tiny scales without forward mode; test_a_term_of_any_scale_at_0_is_found has "
    "them with it, test_term_in_float32_that_underflows_hides_no_error a NumPy f at 0"
)
@pytest.mark.parametrize("scale", [4.14e-21, 1e-23])
def test_tiny_scales_at_0_are_seen_without_forward_mode(scale):
    fermi = lambda e: 1 / (1 + np.exp(np.asarray(e) / scale))
    f = lambda e: jnp.asarray(scale * np.logaddexp(0, -np.asarray(e) / scale))
    key = jax.random.key(0)
    report = check_derivative(f, jnp.asarray(0.0), key, lambda e: -fermi(e))
    assert report.verdict == "right", report.text()
    bug = lambda e: -1.01 * fermi(e)
    assert check_derivative(f, jnp.asarray(0.0), key, bug).verdict == "wrong"
    # A custom rule for reverse mode alone, which has nothing to do with the scale.
    same = jax.custom_vjp(lambda x: x)
    same.defvjp(lambda x: (x, None), lambda _, ct: (ct,))
    smooth = lambda e: same(scale * jnp.logaddexp(0, -e / scale))
    report = check_derivative(smooth, jnp.asarray(0.0), key)
    assert report.verdict == "right", report.text()


HIDDEN_AT_0 = {
    "rounded tip": lambda x, s: jnp.sum(jnp.sqrt(x**2 + s**2)),
    "Huber": lambda x, s: jnp.sum(
        jnp.where(jnp.abs(x) < s, x**2 / (2 * s), jnp.abs(x) - s / 2)
    ),
    "soft threshold": lambda x, s: jnp.sum(
        jnp.arange(1.0, 4) * jnp.sign(x) * jax.nn.relu(jnp.abs(x) - s)
    ),
}


@pytest.mark.thorough("the other functions and widths", but="^rounded tip-1e-25")
@pytest.mark.on_ci("two reports; nothing shorter has a rounded tip")
@pytest.mark.parametrize("scale", [1e-15, 1e-25, 1e-38])
@pytest.mark.parametrize("name", HIDDEN_AT_0)
def test_smooth_features_that_rounding_hides_are_unresolved(name, scale):
    f = lambda x: HIDDEN_AT_0[name](x, scale)
    x, key = jnp.array([0.0, 0.3, -0.7]), jax.random.key(0)
    report = check_derivative(f, x, key)
    assert report.verdict == "unresolved", report.text()
    assert "JAX's derivative of f changes" in report.explanation
    bug = lambda x: jax.grad(f)(x) * jnp.array([1, 1.01, 1])
    assert check_derivative(f, x, key, bug).verdict == "wrong"


@pytest.mark.thorough(
    "a kink and a rule that is wrong only at 0; test_kink_is_told_from_a_bug has the "
    "kink"
)
def test_real_kinks_and_rules_that_are_wrong_only_at_0_are_not_called_hidden():
    x, key = jnp.array([0.0, 0.3, -0.7]), jax.random.key(0)
    assert check_derivative(lambda x: jnp.sum(jnp.abs(x)), x, key).verdict == "kink"
    f = jax.custom_jvp(lambda x: jnp.sum(jnp.sin(x)))
    f.defjvp(lambda x, t: (f(*x), jnp.sum((1.0 + (x[0] == 0)) * jnp.cos(x[0]) * t[0])))
    assert check_derivative(f, x, key).verdict == "wrong"


@pytest.mark.thorough("with float64", but="False")
@pytest.mark.parametrize("x64", [True, False])
def test_derivative_not_finite_in_the_dtype_of_x_is_not_right(x64, enable_x64):
    softplus = lambda x: jnp.sum(jax.nn.softplus(x))
    naive = lambda x: jnp.exp(x) / (1 + jnp.exp(x))
    trap = lambda x: jnp.sum(jnp.where(x > 50, x, jnp.log1p(jnp.exp(x))))
    with enable_x64(x64):
        x, key = jnp.array([100.0, 1.0], jnp.float32), jax.random.key(0)
        for f, derivative in ((softplus, naive), (trap, None)):
            report = check_derivative(f, x, key, derivative)
            assert (report.verdict, report.own_precision_gap) == ("nan", np.inf)
            assert "not finite in float32" in report.explanation
            assert check_derivative(f, x / 4, key, derivative).verdict == "right"


BROKEN_RULES = {
    "no tuple": lambda x, ct: ct * jnp.cos(x),
    "a wrong shape": lambda x, ct: (ct * jnp.sum(jnp.cos(x)),),
    "an error of its own": lambda x, ct: (ct * jnp.reshape(x, (7, 9)),),
}


@pytest.mark.parametrize("name", BROKEN_RULES)
def test_error_of_a_broken_custom_rule_is_raised(name):
    f = jax.custom_vjp(lambda x: jnp.sum(jnp.sin(x)))
    f.defvjp(lambda x: (jnp.sum(jnp.sin(x)), x), BROKEN_RULES[name])
    with pytest.raises((TypeError, ValueError)) as of_jax:
        jax.grad(f)(jnp.ones(3))
    with pytest.raises(type(of_jax.value), match=re.escape(str(of_jax.value)[:40])):
        check_derivative(f, jnp.ones(3), jax.random.key(0))


@pytest.mark.on_ci(
    "custom rules in float32; test_in_float32_an_f_that_cannot_be_traced_is_checked "
    "has an x in float32"
)
def test_custom_rules_and_derivatives_in_float32_are_checked_in_their_precision():
    key = jax.random.key(0)
    for factor, verdict in ((1.0, "right"), (1.01, "wrong")):
        given = lambda x, factor=factor: np.float32(factor * np.cos(x))
        x = jnp.array([0.3, -0.2, 0.5])
        report = check_derivative(lambda x: jnp.sum(jnp.sin(x)), x, key, given)
        assert report.verdict == verdict, report.text()
        # This rule fails for an x of float64.
        f = jax.custom_jvp(lambda x: jnp.sum(jnp.sin(x)))
        f.defjvp(
            lambda x, t, f=f, factor=factor: (
                f(*x), jnp.sum(factor * jnp.cos(x[0]) * t[0]).astype(jnp.float32)
            )
        )  # fmt: skip
        report = check_derivative(f, x.astype(jnp.float32), key)
        assert report.verdict == verdict, report.text()


@pytest.mark.on_ci("the digits of an explanation; nothing shorter shows this")
def test_numbers_of_a_bug_have_as_many_digits_as_differ():
    wrong = lambda x: 2 * x * (1 + 1e-10)
    x = jnp.array([0.3, -0.2, 0.5])
    text = check_derivative(lambda x: x @ x, x, jax.random.key(0), wrong).explanation
    said, shown = re.search(
        r"derivative is ([-\d.]+), .* is ([-\d.]+) on", text
    ).groups()
    assert said != shown
    assert "A bug, or an approximate derivative" in text


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: {"a": x}, "PyTreeDef({'a': *})"),
        (lambda x: x + 1j, "real numbers; it returned complex"),
    ],
)
def test_derivative_of_another_structure_or_dtype_is_refused(call, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        check_derivative(lambda x: x @ x, jnp.ones(3), jax.random.key(0), call)


def test_function_without_outputs_is_refused():
    with pytest.raises(ValueError, match="at least one number"):
        check_derivative(lambda x: x[:0], jnp.ones(3), jax.random.key(0))


def test_given_derivatives_of_integers_and_booleans_are_exact():
    key = jax.random.key(0)
    assert check_derivative(lambda x: 3 * x, 1.0, key, lambda x: 3).is_right
    x, positive = jnp.array([-1.0, 1.0, 2.0]), lambda x: np.asarray(x) > 0
    assert check_derivative(lambda x: np.maximum(x, 0).sum(), x, key, positive).is_right


def test_outputs_whose_sum_overflows_in_the_dtype_of_x_are_no_nan():
    for f, x in (
        (lambda x: jnp.array([3e38, 3e38], x.dtype) * x, jnp.float32(0.5)),
        (lambda x: jnp.full(1000, 100.0, x.dtype) * x, jnp.float16(1.5)),
    ):
        report = check_derivative(f, x, jax.random.key(0))
        assert report.verdict == "right", report.text()


@pytest.mark.on_ci(
    "three reports; test_term_in_float32_that_underflows_hides_no_error has a term "
    "in float32"
)
def test_low_precision_that_does_not_matter_hides_no_error():
    act = jax.custom_jvp(jnp.tanh)
    act.defjvp(
        lambda x, t: (
            y := jnp.tanh(x[0]), jnp.mean(y.astype(jnp.bfloat16)),
            1.05 * (1 - y**2) * t[0],
        )[::2]
    )  # fmt: skip
    x, key = jnp.ones(3), jax.random.key(0)
    assert check_derivative(lambda x: jnp.sum(act(x)), x, key).verdict == "wrong"
    # One leaf of the derivative is in float16, and the other is wrong by 1 %.
    f = lambda p: p["a"] @ p["a"] + p["b"] @ p["b"]
    for factor, verdict in ((2.02, "wrong"), (2.0, "unresolved")):
        given = lambda p, factor=factor: {
            "a": factor * p["a"],
            "b": (2 * p["b"]).astype(jnp.float16),
        }
        report = check_derivative(f, {"a": x, "b": x}, key, given)
        assert report.verdict == verdict, report.text()
    assert "returned in floats with a spacing" in report.explanation


@pytest.mark.thorough(
    "errors of other entries; in .ci/run, "
    "test_smooth_features_that_rounding_hides_are_unresolved has one"
)
def test_feature_that_rounding_hides_excuses_no_error_of_another_entry():
    f = lambda x: jnp.sqrt(x[0] ** 2 + 1e-60) + jnp.sin(x[1]) + 1.0
    key = jax.random.key(0)
    assert check_derivative(f, jnp.zeros(2), key).verdict == "unresolved"
    for x, bug in (([0.0, 0.0], [1.0, 1.2]), ([0.0, 1.0], [3.0, 1.0])):
        wrong = lambda x, bug=bug: (
            jnp.array(bug) * jax.grad(f)(x) + jnp.array([bug[0] - 1.0, 0.0])
        )
        report = check_derivative(f, jnp.array(x), key, wrong)
        assert report.verdict == "wrong", report.text()


def test_report_names_the_function_of_a_given_derivative():
    class Bowl:
        def __call__(self, x):
            return jnp.sum(x**2)

    text = check_derivative(Bowl(), jnp.ones(3), jax.random.key(0), jnp.zeros_like)
    assert "slope of Bowl is" in text.explanation


def test_term_in_float32_that_underflows_hides_no_error():
    f = lambda x: float(np.sum(np.asarray(x) + 3 * np.asarray(x).astype(np.float32)))
    x, key = jnp.zeros(2), jax.random.key(0)
    assert check_derivative(f, x, key, lambda x: jnp.ones(2)).verdict != "right"
    # The rule of JAX lacks this term, too.
    stopped = lambda x: jnp.sum(x + jax.lax.stop_gradient(3 * x.astype(jnp.float32)))
    assert check_derivative(stopped, x, key).verdict != "right"


def test_float16_beside_bfloat16_underflows_without_a_bug():
    def f(x):
        return jnp.sum(x + 3 * x.astype(jnp.float16) + 2 * x.astype(jnp.bfloat16))

    report = check_derivative(f, jnp.zeros(3), jax.random.key(0))
    assert report.verdict in ("right", "unresolved"), report.text()


@pytest.mark.thorough(
    "a missing term in joule; test_a_term_of_any_scale_at_0_is_found misses one, too"
)
def test_wrong_custom_rule_at_a_tiny_scale_is_not_excused_as_a_kink():
    scale = 4.14e-21
    f = jax.custom_jvp(lambda e: scale * jax.nn.softplus(-e / scale))
    f.defjvp(lambda x, t: (f(*x), 0 * t[0]))
    report = check_derivative(f, jnp.asarray(0.0), jax.random.key(0))
    assert report.verdict in ("wrong", "unresolved"), report.text()


@pytest.mark.on_ci(
    "each function with its other factor",
    but=r"^1\.0-(f1|<)|^1\.001-f0",
)
@pytest.mark.parametrize(
    ("f", "derivative"),
    [
        (jax.tree_util.Partial(lambda x: float(np.sin(x))), np.cos),
        (jax.tree_util.Partial(lambda x: np.sin(x)), np.cos),
        (lambda x: math.sin(x), lambda x: math.cos(x)),
    ],
)
@pytest.mark.parametrize("factor", [1.0, 1.001])
def test_a_function_that_jax_cannot_trace_is_checked_by_calls(f, derivative, factor):
    report = check_derivative(f, 0.5, KEY, lambda x: factor * derivative(x))
    assert report.verdict == ("right" if factor == 1 else "wrong")


def test_a_function_that_raises_beyond_its_domain_is_checked_inside():
    f, derivative = math.log, lambda x: 1 / x
    assert check_derivative(f, 0.5, KEY, derivative).verdict == "right"
    at_the_edge = check_derivative(
        math.acos, 1 - 1e-9, KEY, lambda x: -1 / math.sqrt(1 - float(x) ** 2)
    )
    assert at_the_edge.verdict in ("right", "unresolved")
    with pytest.raises(ValueError, match=r"math domain|expected a positive"):
        check_derivative(f, -0.5, KEY, derivative)


@pytest.mark.on_ci(
    "the wrong derivative; "
    "test_a_function_that_jax_cannot_trace_is_checked_by_calls has one",
    but=r"^1\.0\]",
)
@pytest.mark.parametrize("factor", [1.0, 1.001])
def test_a_callback_of_any_vmap_method_is_called_point_by_point(factor):
    f = lambda x: jnp.sum(
        jax.pure_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x)
    )
    report = check_derivative(f, jnp.ones(2) / 2, KEY, lambda x: factor * jnp.cos(x))
    assert report.verdict == ("right" if factor == 1 else "wrong")


@pytest.mark.on_ci(
    "a power at 0; test_a_function_that_raises_beyond_its_domain_is_checked_inside "
    "has points close to an edge"
)
def test_a_point_at_the_edge_of_the_domain_is_called_that():
    f = lambda p: jnp.sum(jnp.sin(p["a"])) + p["b"] ** 1.5
    report = check_derivative(f, {"a": jnp.ones(3), "b": jnp.asarray(0.0)}, KEY)
    assert report.verdict == "unresolved"
    assert "not finite at points beside x" in report.explanation


@pytest.mark.on_ci(
    "two reports; test_derivative_not_finite_in_the_dtype_of_x_is_not_right has the "
    "verdict and the infinite gap"
)
def test_a_derivative_that_is_not_finite_has_no_measured_remainder_and_no_warning():
    with warnings.catch_warnings(action="error"):
        report = check_derivative(
            lambda x: jnp.sum(jnp.sqrt(x)), jnp.zeros(2, "f4"), KEY
        )
        infinite = check_derivative(
            lambda x: jnp.sum(jnp.exp(-x)), jnp.array([1.0, jnp.inf], "f4"), KEY
        )
    assert report.verdict == "nan"
    assert report.own_precision_gap == math.inf
    assert "is linear" not in report.text()
    assert infinite.verdict == "right"


@pytest.mark.on_ci(
    "a given derivative in float32; "
    "test_error_of_the_size_that_is_printed_is_caught_and_one_far_below_is_not has "
    "float64"
)
@pytest.mark.parametrize("key", range(3))
def test_smallest_error_counts_that_a_given_derivative_is_rounded_to_float32(key):
    f = lambda x: jnp.sum(jnp.sin(x) ** 2)
    x, key = jnp.ones(3, jnp.float32), jax.random.key(key)
    report = check_derivative(f, x, key, jax.grad(f))
    assert report.verdict == "right"
    off = lambda error: lambda x: jax.grad(f)(x) * (1 + error)
    found = check_derivative(f, x, key, off(3 * report.smallest_error))
    assert found.verdict == "wrong"
    # The report does not promise what float32 cannot show.
    assert report.smallest_error > 1e-6


FEATURES, ROWS = np.random.default_rng(0).standard_normal((4, 3)), np.array([1, 3])
NODES, HEIGHTS = np.arange(5.0), np.arange(5.0) ** 2
CLOSING_OVER_NUMPY = {
    "a product": (lambda w: jnp.mean((FEATURES @ w) ** 2), np.ones(3)),
    "an index": (lambda e: jnp.sum(e[ROWS] ** 2), np.ones((5, 3))),
    "a table": (lambda t: jnp.sum(jnp.interp(t, NODES, HEIGHTS)), np.array([0.3, 2.6])),
}


@pytest.mark.parametrize("name", CLOSING_OVER_NUMPY)
@pytest.mark.parametrize("given", [True, False])
def test_function_that_closes_over_numpy_is_checked_without_float64(
    name, given, enable_x64
):
    # The arrays keep float64, but JAX converts them while its float64 is off.
    f, x = CLOSING_OVER_NUMPY[name]
    with enable_x64(False):
        x = jnp.asarray(x, jnp.float32)
        # A program in float32 that is in memory, as that of a training.
        compiled, gradient = jax.jit(f), jax.jit(jax.grad(f))
        before = compiled(x), gradient(x)
        key, mine = jax.random.key(0), gradient if given else None
        assert check_derivative(f, x, key, mine).verdict == "right"
        wrong = check_derivative(f, x, key, lambda x: 1.01 * gradient(x))
        assert wrong.verdict == "wrong"
        # The function can be used as before.
        np.testing.assert_array_equal(f(x), before[0], strict=True)
        np.testing.assert_array_equal(jax.grad(f)(x), before[1], strict=True)


def test_derivative_that_cancels_to_rounding_is_wrong_where_f_slopes():
    """A body moves in the field of others; the wrong rule gives it the mean force."""
    key, f = jax.random.key(0), lambda x: jnp.sum(jnp.sin(x))
    for factor in (1e-14, 1e-15, 1e-16, 1e-20, 1e-300):
        tiny = lambda x, factor=factor: factor * jnp.cos(x)
        assert check_derivative(f, jnp.ones(3), key, tiny).verdict == "wrong"

    def potential(x):
        apart = jnp.sum((x[:, None] - x[None]) ** 2, axis=2)
        return -jnp.sum(jnp.triu(1 / jnp.sqrt(apart + jnp.eye(len(x))), 1))

    def mean_of_all(x):
        return jnp.broadcast_to(jnp.mean(jax.grad(potential)(x), axis=0), x.shape)

    x = jax.random.normal(key, (6, 3))
    assert check_derivative(potential, x, key).verdict == "right"
    assert check_derivative(potential, x, key, mean_of_all).verdict == "wrong"
