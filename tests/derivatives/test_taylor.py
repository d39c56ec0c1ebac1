"""Taylor series against Arb's, against nested derivatives, and the laws of series:
product, chain, reversal.
"""

import itertools
import math
import re

import flint
import jax
import jax.numpy as jnp
import jax.scipy.special as special
import mpmath
import numpy as np
import pytest
from jax import lax

from research.derivatives import NotInexactError, UnsupportedPrimitiveError
from research.derivatives._taylor import equality, recurrences
from research.derivatives.costs.jaxprs import inner
from research.derivatives.exact import derivative, taylor
from tests.derivatives.taylor_probes import PROBES, network

COMPILE_QUICKLY = True  # tests/conftest.py
DRAWS_NO_KEYS = True  # tests/conftest.py

X = 0.8


def arb_i0e(x):
    """e^(-x) I_0(x) for x > 0 as Σ (x/2)^(2 m) / m!²."""
    terms = (
        (x * x / 4) ** m * (flint.arb(1) / math.factorial(m) ** 2) for m in range(40)
    )
    return sum(terms, flint.arb_series([0])) * (-x).exp()


# The same function for JAX and for Arb.
ELEMENTARY = {
    "exp": (jnp.exp, lambda x: x.exp()),
    "log": (jnp.log, lambda x: x.log()),
    "log1p": (jnp.log1p, lambda x: (1 + x).log()),
    "expm1": (jnp.expm1, lambda x: x.exp() - 1),
    "exp2": (jnp.exp2, lambda x: (x * flint.arb(2).log()).exp()),
    "sqrt": (jnp.sqrt, lambda x: x.sqrt()),
    "rsqrt": (lax.rsqrt, lambda x: x.rsqrt()),
    "cbrt": (jnp.cbrt, lambda x: (x.log() / 3).exp()),
    "power": (lambda x: x**2.5, lambda x: (x.log() * 2.5).exp()),
    "negative_power": (lambda x: x**-3, lambda x: 1 / (x * x * x)),
    "own_power": (lambda x: x**x, lambda x: (x.log() * x).exp()),
    "sin": (jnp.sin, lambda x: x.sin()),
    "cos": (jnp.cos, lambda x: x.cos()),
    "tan": (jnp.tan, lambda x: x.tan()),
    "arcsin": (jnp.arcsin, lambda x: x.asin()),
    "arccos": (jnp.arccos, lambda x: x.acos()),
    "arctan": (jnp.arctan, lambda x: x.atan()),
    "sinh": (jnp.sinh, lambda x: (x.exp() - (-x).exp()) / 2),
    "cosh": (jnp.cosh, lambda x: (x.exp() + (-x).exp()) / 2),
    "tanh": (jnp.tanh, lambda x: 1 - 2 / ((2 * x).exp() + 1)),
    "arcsinh": (jnp.arcsinh, lambda x: (x + (x * x + 1).sqrt()).log()),
    "arctanh": (jnp.arctanh, lambda x: ((1 + x) / (1 - x)).log() / 2),
    "logistic": (jax.nn.sigmoid, lambda x: 1 / (1 + (-x).exp())),
    "softplus": (jax.nn.softplus, lambda x: (1 + x.exp()).log()),
    "logit": (special.logit, lambda x: (x / (1 - x)).log()),
    "gelu": (
        lambda x: jax.nn.gelu(x, approximate=False),
        lambda x: x / 2 * (1 + (x / flint.arb(2).sqrt()).erf()),
    ),
    "erf": (special.erf, lambda x: x.erf()),
    "erfc": (special.erfc, lambda x: x.erfc()),
    "gammaln": (special.gammaln, lambda x: x.lgamma()),
    "i0e": (special.i0e, arb_i0e),
    "entropy": (special.entr, lambda x: -x * x.log()),
    "sinc": (jnp.sinc, lambda x: (x * flint.arb.pi()).sin() / (x * flint.arb.pi())),
    "nested": (
        lambda x: jnp.tanh(jnp.sin(x) * jnp.exp(-(x**2) / 4)),
        lambda x: 1 - 2 / ((2 * x.sin() * (-x * x / 4).exp()).exp() + 1),
    ),
}


def arb_series(f, x, order):
    """Coefficients by Arb at 100 digits, rounded to double."""
    before = flint.ctx.cap, flint.ctx.prec
    try:
        flint.ctx.cap, flint.ctx.prec = order + 1, 333
        found = f(flint.arb_series([flint.arb(x), 1])).coeffs()
    finally:
        flint.ctx.cap, flint.ctx.prec = before
    found = [float(c.mid()) for c in found]
    return np.array(found + [0.0] * (order + 1 - len(found)))


def error_from_arb(name, x, order):
    """Largest error of a coefficient, relative to itself or to the largest before
    it.
    """
    ours, theirs = ELEMENTARY[name]
    found, truth = (
        np.asarray(taylor(ours, x, 1.0, order)),
        arb_series(theirs, x, order),
    )
    return np.max(np.abs(found - truth) / np.maximum.accumulate(np.abs(truth)))


@pytest.mark.thorough(
    "relatives of erf, sin and power", but="^(?!gelu|sinc|own_power|cbrt)"
)
@pytest.mark.parametrize("name", ELEMENTARY)
def test_series_is_arbs(name):
    assert error_from_arb(name, X, order=10) < 1e-13


def test_series_of_the_inverse_error_function_is_its_reversion():
    inside = flint.arb(float(special.erfinv(X)))
    before = flint.ctx.cap
    try:
        flint.ctx.cap = 11
        shifted = flint.arb_series([inside, 1]).erf()
        through_zero = flint.arb_series([0, *shifted.coeffs()[1:]])
        truth = [float(c.mid()) for c in through_zero.reversion().coeffs()]
    finally:
        flint.ctx.cap = before
    np.testing.assert_allclose(
        taylor(special.erfinv, X, 1.0, 10)[1:], truth[1:], rtol=1e-13
    )


def bessel_derivative(n, x, order, scaled):
    """Derivative of I_n(x), or of e^(-|x|) I_n(x), in 50 digits.

    I_n' = (I_(n - 1) + I_(n + 1)) / 2 (DLMF 10.29.1), applied `order` times.
    """
    with mpmath.workdps(50):
        x = mpmath.mpf(x)

        def plain(k):
            terms = (
                mpmath.binomial(k, j) * mpmath.besseli(n - k + 2 * j, x)
                for j in range(k + 1)
            )
            return mpmath.fsum(terms) / 2**k

        if not scaled:
            return float(plain(order))
        terms = (
            mpmath.binomial(order, j) * (-mpmath.sign(x)) ** (order - j) * plain(j)
            for j in range(order + 1)
        )
        return float(mpmath.exp(-abs(x)) * mpmath.fsum(terms))


@pytest.mark.thorough(
    "29 points of four functions; "
    "test_bessel_functions_of_a_function_near_zero_are_arbs has two of them"
)
@pytest.mark.parametrize("name", ["i0", "i1", "i0e", "i1e"])
def test_bessel_functions_keep_their_digits_near_zero(name):
    series = lambda x: taylor(getattr(special, name), x, 1.0, 8)
    found = jax.jit(jax.vmap(series))
    places = 10.0 ** np.arange(-6, 0.5, 0.5)
    x = np.concatenate([places, -places, [1e-300, 1.999, 2.001]])
    factorials = np.array([math.factorial(k) for k in range(9)])
    truth = [
        [bessel_derivative(int(name[1]), a, k, name.endswith("e")) for k in range(9)]
        for a in x
    ]
    # The factor e^(-|x|) cancels digits, as in the terms 2^k of its derivative.
    rtol = 3e-12 if name.endswith("e") else 1e-12
    np.testing.assert_allclose(np.asarray(found(x)) * factorials, truth, rtol=rtol)


def test_bessel_functions_of_a_function_near_zero_are_arbs():
    ours = lambda x: special.i0(x * jnp.sin(x)) + special.i1(x * jnp.sin(x))

    def theirs(x):
        x = x * x.sin()
        term = lambda m, n: (
            flint.arb(1)
            / (2 ** (2 * m + n) * math.factorial(m) * math.factorial(m + n))
        )
        even, odd = (
            sum(((x * x) ** m * term(m, n) for m in range(30)), flint.arb_series([0]))
            for n in (0, 1)
        )
        return even + x * odd

    for x in (1e-3, 0.05, 0.9):
        np.testing.assert_allclose(
            taylor(ours, x, 1.0, 9), arb_series(theirs, x, 9), rtol=1e-11
        )


def nested(f, x, v, order):
    """Coefficients by nested forward mode."""

    def at(t):
        own = lambda t: f(jax.tree.map(lambda a, b: a + t * b, x, v))
        rows = [own]
        for _ in range(order):
            rows.append((lambda g: lambda t: jax.jvp(g, (t,), (1.0,))[1])(rows[-1]))
        return [g(t) / math.factorial(k) for k, g in enumerate(rows)]

    return jnp.stack(jax.jit(at)(0.0))


@pytest.mark.on_ci("five more functions", but=r"^(scan|custom_jvp_twice)\]")
@pytest.mark.thorough(
    "the other functions",
    but=r"^(relu|sort|cond|scan|while_loop|custom_jvp_twice|custom_root)\]",
)
@pytest.mark.parametrize("name", PROBES)
def test_series_is_that_of_nested_derivatives(name):
    probe, order = PROBES[name], 3
    found = jax.jit(lambda x: taylor(probe.f, x, probe.v, order))(probe.x)
    truth = nested(probe.f, probe.x, probe.v, order)
    axes = tuple(range(1, truth.ndim))
    scale = jnp.max(jnp.abs(truth), axis=axes, keepdims=True) + 1e-3
    assert float(jnp.max(jnp.abs(found - truth) / scale)) < 1e-12


def test_derivative_of_orders_one_and_two_is_nested_forward_mode():
    f = lambda x: jnp.tanh(jnp.exp(x) * x**2.5)
    first = lambda x: jax.jvp(f, (x,), (1.0,))[1]
    second = lambda x: jax.jvp(first, (x,), (1.0,))[1]
    x = jnp.asarray(0.7)
    assert derivative(f, x, 1) == first(x)
    assert derivative(f, x, 2) == second(x)
    np.testing.assert_allclose(
        derivative(f, x, 4), 24 * nested(f, x, 1.0, 4)[4], rtol=1e-12
    )


def test_derivative_of_high_order_neither_overflows_nor_underflows():
    x = jnp.asarray(1.0, jnp.float32)
    np.testing.assert_allclose(derivative(jnp.exp, x, 100), math.e, rtol=1e-5)
    assert derivative(jnp.exp, x, 100).dtype == jnp.float32
    np.testing.assert_allclose(
        derivative(lambda x: 1 / (1 - x), 0.0, 100),
        float(math.factorial(100)),
        rtol=1e-13,
    )


SMOOTH = {
    "exp_sin": lambda x: jnp.exp(jnp.sin(3 * x)),
    "quotient": lambda x: x / (1 + x**2),
    "root": lambda x: jnp.sqrt(2 + jnp.cos(x)),
}


@pytest.mark.parametrize(("f", "g"), list(itertools.combinations(SMOOTH.values(), 2)))
def test_series_of_a_product_is_the_product_of_series(f, g):
    own, other = taylor(f, X, 1.0, 8), taylor(g, X, 1.0, 8)
    np.testing.assert_allclose(
        taylor(lambda x: f(x) * g(x), X, 1.0, 8),
        np.convolve(own, other)[:9],
        rtol=1e-12,
        atol=1e-12,
    )


def test_series_of_a_composition_is_the_composition_of_series():
    f, g = SMOOTH["exp_sin"], SMOOTH["quotient"]
    outer, inside = taylor(f, g(X), 1.0, 8), np.asarray(taylor(g, X, 1.0, 8))
    power, composed = np.eye(9)[0], np.zeros(9)
    moved = np.where(np.arange(9), inside, 0)
    for coefficient in np.asarray(outer):
        composed += coefficient * power
        power = np.convolve(power, moved)[:9]
    np.testing.assert_allclose(
        taylor(lambda x: f(g(x)), X, 1.0, 8), composed, rtol=1e-11, atol=1e-12
    )


def test_series_of_an_inverse_undoes_the_function():
    line = np.eye(11)[1] + 0.8 * np.eye(11)[0]
    for f, inverse in (
        (jnp.exp, jnp.log),
        (jnp.tan, jnp.arctan),
        (jnp.sin, jnp.arcsin),
        (jnp.tanh, jnp.arctanh),
        (special.erf, special.erfinv),
    ):
        found = taylor(lambda x, f=f, inverse=inverse: inverse(f(x)), 0.8, 1.0, 10)
        np.testing.assert_allclose(found, line, atol=2e-11)


def test_reversed_and_scaled_direction_change_signs_and_powers():
    x, v = PROBES["network"].x, PROBES["network"].v
    own = taylor(network, x, v, 6)
    powers = (-2.0) ** np.arange(7)
    np.testing.assert_allclose(taylor(network, x, -2 * v, 6), powers * own, rtol=1e-12)


def test_slope_of_a_coefficient_is_the_next_coefficient():
    f = SMOOTH["exp_sin"]
    slopes = jax.jacrev(lambda x: taylor(f, x, 1.0, 4))(X)
    np.testing.assert_allclose(
        slopes[:4], np.arange(1, 5) * taylor(f, X, 1.0, 4)[1:], rtol=1e-12
    )


def test_mapped_series_are_those_of_each_point():
    points = jnp.linspace(0.2, 0.9, 3)
    f = lambda x: taylor(lambda y: lax.cond(y > 0.5, jnp.sin, jnp.exp, y), x, 1.0, 5)
    np.testing.assert_allclose(
        jax.vmap(f)(points), jnp.stack([f(x) for x in points]), rtol=1e-14
    )


def test_trees_and_dtypes_are_kept():
    f = lambda p: {
        "sum": [p["a"] + jnp.sum(p["b"])],
        "same": p["b"] * 2,
        "fixed": jnp.ones(2),
    }
    x = {"a": jnp.float32(2.0), "b": jnp.ones(3, jnp.float32)}
    found = taylor(f, x, x, 2)
    assert jax.tree.map(jnp.shape, found) == {
        "sum": [(3,)],
        "same": (3, 3),
        "fixed": (3, 2),
    }
    assert found["same"].dtype == jnp.float32
    assert found["fixed"].tolist() == [[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize(
    ("exponent", "order"), [(3.0, 3), (4.0, 3), (3.0, 4), (3.5, 3)]
)
def test_powers_at_zero_have_their_derivatives(exponent, order):
    # JAX's own rule treats a base of 0; the recurrence divides by it.
    truth = math.factorial(order) if order == exponent else 0.0
    assert derivative(lambda x: x**exponent, 0.0, order) == truth
    if order <= exponent:  # Above, JAX's rule for a traced exponent is NaN too.
        traced = jax.jit(lambda a: derivative(lambda x: x**a, 0.0, order))
        assert traced(exponent) == truth


def equations(f, x):
    def count(jaxpr):
        return sum(1 + sum(map(count, inner(e))) for e in jaxpr.eqns)

    return count(jax.make_jaxpr(f)(x).jaxpr)


@pytest.mark.thorough("the largest program", but="^(?!i1e)")
@pytest.mark.parametrize(
    "name",
    [
        "exp",
        "power",
        "erfinv",
        "sinc",
        "digamma",
        "custom_jvp_twice",
        "custom_root",
        "i1e",
        "network",
        "scan",
    ],
)
def test_equations_grow_with_the_square_of_the_order(name):
    # Without the memo of the general rule they double with each order.
    probe = PROBES[name]
    few, many = (
        equations(lambda x, n=n: taylor(probe.f, x, probe.v, n), probe.x)
        for n in (5, 10)
    )
    assert many <= 4.5 * few


def test_functions_with_one_body_and_two_rules_are_not_confused():
    def sine(slope):
        @jax.custom_jvp
        def own(x):
            return jnp.sin(x)

        @own.defjvp
        def _(primals, tangents):
            return own(primals[0]), slope * jnp.cos(primals[0]) * tangents[0]

        return own

    one, two = sine(1.0), sine(2.0)

    @jax.custom_jvp
    def both(x):
        return one(x) + two(x)

    both.defjvp(lambda x, dx: (both(x[0]), (one(x[0]) + two(x[0])) * dx[0]))
    for f in (lambda x: one(x) + two(x), both):
        np.testing.assert_allclose(
            taylor(f, X, 1.0, 3), nested(f, X, 1.0, 3), rtol=1e-14
        )


INSIDE = {
    "plain": lambda f: f,
    "jit": jax.jit,
    "jit in jit": lambda f: jax.jit(lambda x: jax.jit(f)(x)),
    "checkpoint": jax.checkpoint,
    "cond": lambda f: lambda x: lax.cond(x > 0, jax.jit(f), lambda x: x, x),
    "scan": lambda f: (
        lambda x: lax.scan(lambda c, _: (jax.jit(f)(c), None), x, None, length=1)[0]
    ),
}


def polynomial(coefficients, inside, rule_inside):
    @jax.custom_jvp
    def own(x):
        return INSIDE[inside](lambda x: jnp.polyval(coefficients, x))(x)

    @own.defjvp
    def _(primals, tangents):
        slope = lambda x: jnp.polyval(jnp.polyder(coefficients), x)
        return own(primals[0]), INSIDE[rule_inside](slope)(primals[0]) * tangents[0]

    return own


def product_by_rule(one, two):
    """The product, with the rule of Leibniz as its own rule."""

    @jax.custom_jvp
    def both(x):
        return one(x) * two(x)

    @both.defjvp
    def _(primals, tangents):
        a, slope_a = jax.jvp(one, primals, tangents)
        b, slope_b = jax.jvp(two, primals, tangents)
        return both(*primals), a * slope_b + b * slope_a

    return both


@pytest.mark.on_ci("the other way to call a function", but="jit")
@pytest.mark.thorough("the other ways to call a function", but=r"^(plain|jit)\]")
@pytest.mark.parametrize("inside", INSIDE)
def test_functions_that_differ_in_constants_alone_are_not_confused(inside):
    # The other polynomial has the same text. NumPy multiplies the coefficients.
    one, two = np.array([1.0, 2.0, 3.0]), np.array([10.0, 20.0, 40.0])
    for kinds in ((inside, inside), ("plain", inside), (inside, "plain")):
        own = [polynomial(jnp.asarray(c), *kinds) for c in (one, two)]
        whole = np.polymul(one, two)
        for order in range(3, 6):
            np.testing.assert_allclose(
                derivative(product_by_rule(*own), 2.0, order),
                np.polyval(np.polyder(whole, order), 2.0),
                rtol=1e-13,
                atol=1e-10,
            )


def test_functions_that_differ_in_an_inner_rule_are_not_confused():
    # Equal values and equal slopes; the rules of the slopes differ.
    def square(second):
        @jax.custom_jvp
        def double(x):
            return 2 * x

        double.defjvp(lambda x, dx: (double(*x), second * dx[0]))

        @jax.custom_jvp
        def own(x):
            return x * x

        own.defjvp(lambda x, dx: (own(*x), jax.jit(double)(*x) * dx[0]))
        return own

    f = product_by_rule(square(2.0), square(5.0))
    np.testing.assert_allclose(
        taylor(f, X, 1.0, 4), nested(f, X, 1.0, 4), rtol=1e-13, atol=1e-14
    )


def test_constants_are_equal_by_their_bits():
    nan = float("nan")
    for a, b in ((nan, nan), (np.array([nan]), np.array([nan])), ((1, 2), (1, 2))):
        assert equality.equal(a, b)
    ones = np.ones(2)
    for b in (np.ones(3), np.ones(1), np.ones(2, "float32"), np.ones((2, 1)), [1, 1]):
        assert not equality.equal(ones, b)
    assert not equality.equal(0.0, -0.0)
    assert not equality.equal(np.zeros(2), -np.zeros(2))
    assert not equality.equal((1, 2), (1, 2, 3))
    assert not equality.equal(1, 1.0)
    key = jax.random.key
    assert not equality.equal(key(0), key(1))
    seen = []
    jax.jit(lambda x, y: seen.append((equality.equal(x, x), equality.equal(x, y))))(
        1.0, 1.0
    )
    assert seen == [(True, False)]  # A tracer equals itself alone.


@jax.custom_vjp
def reverse_alone(x):
    return x**2


reverse_alone.defvjp(lambda x: (x**2, x), lambda x, ct: (2 * x * ct,))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda: taylor(jnp.sin, 1.0, 1.0, 0),
            ValueError,
            "order=0. For order 0, call f(x)",
        ),
        (
            lambda: taylor(jnp.sin, 1.0, 1.0, -3),
            ValueError,
            "order must be an integer in 1..100; got order=-3",
        ),
        (lambda: taylor(jnp.sin, 1.0, 1.0, True), ValueError, "order=True"),
        (
            lambda: taylor(jnp.sin, 3, 1.0, 2),
            NotInexactError,
            "x must be real floating numbers; got int",
        ),
        (lambda: taylor(jnp.sin, 3.0, 1, 2), NotInexactError, "v must be real"),
        (
            lambda: taylor(jnp.sin, jnp.ones(2), jnp.ones(3), 2),
            ValueError,
            "v must have the structure",
        ),
        (
            lambda: taylor(jnp.argmax, jnp.ones(2), jnp.ones(2), 2),
            NotInexactError,
            "it returns int",
        ),
        (
            lambda: taylor(3, 1.0, 1.0, 2),  # pyright: ignore[reportArgumentType]
            TypeError,
            "f",
        ),
        (
            lambda: taylor(reverse_alone, 1.0, 1.0, 2),
            UnsupportedPrimitiveError,
            "reverse_alone has its own rule for reverse mode only (jax.custom_vjp)",
        ),
        (
            lambda: derivative(lambda x: reverse_alone(x) + x, 1.0, 3),
            UnsupportedPrimitiveError,
            "reverse_alone has its own rule",
        ),
        (
            lambda: taylor(lambda a: special.gammainc(a, 1.0), 1.0, 1.0, 3),
            UnsupportedPrimitiveError,
            "igamma_grad_a has no derivative rule",
        ),
        (
            lambda: taylor(
                lambda x: x.at[0].apply(jnp.sin), jnp.ones(2), jnp.ones(2), 2
            ),
            UnsupportedPrimitiveError,
            "The primitive scatter has no derivative rule for forward mode",
        ),
    ],
)
def test_bad_input_is_named_with_what_to_call(call, error, words):
    with pytest.raises(error, match=re.escape(words)):
        call()


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("exp", "exp"),
        ("sqrt", "sqrt"),
        ("tanh", "tanh"),
        ("tan", "tan"),
        ("log", "log"),
    ],
)
def test_wrong_recurrence_is_seen(monkeypatch, name, rule):
    own = recurrences.RECURRENCES[rule]
    wrong = lambda operation, x: (
        c if k == 0 or c is None else c * (1 + 1e-12)
        for k, c in enumerate(own(operation, x) or ())
    )
    monkeypatch.setitem(recurrences.RECURRENCES, rule, wrong)
    assert error_from_arb(name, X, order=10) > 1e-13


@jax.custom_jvp
def close_constants(x):
    return jnp.exp(x)


@close_constants.defjvp
def close_constants_jvp(primals, tangents):
    (x,), (d,) = primals, tangents
    # Two constants that agree in the eight digits that the repr of an array shows.
    a, b = jnp.float64(0.12345678901), jnp.float64(0.12345678902)
    return jnp.exp(x), (jnp.exp(x * a) - jnp.exp(x * b)) * 1e11 * d


@pytest.mark.on_ci("cube roots", but=r"-0\.7\]")
@pytest.mark.thorough(
    "close constants; test_constants_are_equal_by_their_bits has other pairs",
    but="lambda",
)
@pytest.mark.parametrize(
    ("f", "x"),
    [
        (close_constants, 1.0),
        (lambda x: jnp.real((x + 1j) ** 2.5), 0.7),
        (lambda x: jnp.cbrt(x), -2.0),
        (lambda x: jnp.cbrt(x), 0.0),
    ],
)
def test_constants_complex_powers_and_roots_are_those_of_nested_derivatives(f, x):
    forward = jax.jacfwd
    found, expected = derivative(f, x, 3), forward(forward(forward(f)))(x)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_large_whole_power_at_zero_has_one_coefficient():
    found = taylor(lambda x: x**65.0, 0.0, 2.0, order=70)
    expected = np.zeros(71)
    expected[65] = 2.0**65
    np.testing.assert_array_equal(np.asarray(found), expected)
