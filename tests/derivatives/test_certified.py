"""Laws of the certified layer: exact values lie inside, and nothing more is claimed."""

import functools
import time

import flint
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import io_callback

from research.derivatives import certified
from research.derivatives.certified import (
    elementary,
    enclosing,
    intervals,
    matrices,
    searching,
)
from research.derivatives.certified.enclosing import Batched
from research.derivatives.errors import (
    NotScalarError,
    UnsupportedPrimitiveError,
)
from tests.derivatives import certified_cases

COMPILE_QUICKLY = True  # tests/conftest.py
DRAWS_NO_KEYS = True  # tests/conftest.py

rng = np.random.default_rng(0)


def himmelblau(x):
    return (x[0] ** 2 + x[1] - 11) ** 2 + (x[0] + x[1] ** 2 - 7) ** 2


def camel(x):
    return (
        (4 - 2.1 * x[0] ** 2 + x[0] ** 4 / 3) * x[0] ** 2
        + x[0] * x[1]
        + (-4 + 4 * x[1] ** 2) * x[1] ** 2
    )


def rosenbrock(x):
    return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2


def rastrigin(x):
    return 20 + jnp.sum(x**2 - 10 * jnp.cos(2 * jnp.pi * x))


def styblinski_tang(x):
    return 0.5 * jnp.sum(x**4 - 16 * x**2 + 5 * x)


# Containment, against Arb.


@pytest.mark.parametrize(
    "points",
    [
        6_000,
        pytest.param(60_000, marks=pytest.mark.thorough("ten times as many numbers")),
    ],
)
def test_exact_values_and_derivatives_lie_inside(points):
    found = certified_cases.run(points, seed=7)
    assert not found.violations, found.violations[:5]
    assert np.median(found.ulps) <= 200


@pytest.mark.parametrize(
    ("module", "name", "mutant"),
    [
        (intervals, "down", lambda x: x),  # One ulp missing below.
        (intervals, "up", lambda x: x),  # One ulp missing above.
        (
            intervals,
            "add_up",
            lambda a, b: intervals.add_down(a, b),
        ),  # Rounded inwards.
    ],
)
def test_a_missing_rounding_is_seen(monkeypatch, module, name, mutant):
    monkeypatch.setattr(module, name, mutant)
    assert certified_cases.run(3_000, seed=7).violations


EXACT = {  # Names here, and of Arb's methods; the scale of the arguments.
    "exp": ("exp", 30.0),
    "expm1": ("expm1", 3.0),
    "log": ("log", 30.0),
    "log1p": ("log1p", 3.0),
    "sin": ("sin", 100.0),
    "cos": ("cos", 100.0),
    "tan": ("tan", 10.0),
    "tanh": ("tanh", 3.0),
    "sinh": ("sinh", 10.0),
    "cosh": ("cosh", 10.0),
    "atan": ("atan", 3.0),
    "asin": ("asin", 1.0),
    "acos": ("acos", 1.0),
    "asinh": ("asinh", 30.0),
    "acosh": ("acosh", 30.0),
    "atanh": ("atanh", 1.0),
    "erf": ("erf", 3.0),
}


def misses(name: str) -> int:
    """How many exact values of an elementary function lie outside."""
    flint.ctx.prec = certified_cases.BITS  # At 53 bits, its balls are as wide as ours.
    method, scale = EXACT[name]
    low = scale * rng.uniform(-1, 1, 100) * 10.0 ** -rng.integers(0, 6, 100)
    low = np.abs(low) if name == "log" else 1 + np.abs(low) if name == "acosh" else low
    width = np.where(np.arange(100) % 2, 10.0 ** rng.uniform(-9, 0, 100), 0.0)
    high = np.minimum(low + width, 1.0) if scale == 1.0 else low + width
    with np.errstate(all="ignore"):
        found = getattr(elementary, name)(
            intervals.Interval(low, high, np.asarray(0, np.uint8))
        )
    points = low + rng.uniform(size=100) * (high - low)
    outside = 0
    for x, a, b in zip(points, found.low, found.high, strict=True):
        exact = getattr(flint.arb(x), method)()
        if exact.is_finite():
            outside += not certified_cases.is_inside(exact, a, b)
    return outside


@pytest.mark.parametrize("name", EXACT)
def test_elementary_functions_are_enclosed(name):
    assert misses(name) == 0


@pytest.mark.parametrize(
    ("constant", "mutant", "name"),
    [
        ("INVERSE_FACTORIALS", elementary.INVERSE_FACTORIALS[:12] * 2, "exp"),
        ("LN2_REST", intervals.point(0.0), "log"),
        ("HALF_PI_PARTS", elementary.HALF_PI_PARTS[:2], "sin"),
        ("ODD_INVERSES", elementary.ODD_INVERSES[:8], "log1p"),
        ("ALTERNATING", elementary.ALTERNATING[:6], "atan"),
    ],
)
def test_a_wrong_constant_or_a_missing_term_is_seen(
    monkeypatch, constant, mutant, name
):
    monkeypatch.setattr(elementary, constant, mutant)
    assert misses(name) > 0


def test_a_box_of_1e_6_is_enclosed_within_ten_times_the_range():
    low = rng.normal(size=(200, 1))
    high = low + 1e-6
    for f, steepest in ((jnp.exp, np.exp), (jnp.tanh, lambda x: 1 / np.cosh(x) ** 2)):
        found = Batched(lambda x, f=f: f(x[0]), 1)(low, high)
        assert np.median((found.high - found.low) / (1e-6 * steepest(low[:, 0]))) <= 10


@pytest.mark.thorough(
    "20 points; test_elementary_functions_are_enclosed has erf, and "
    "test_higher_derivatives_of_erf_and_the_values_of_sinc_are_enclosed its "
    "derivatives"
)
def test_erf_and_its_derivative_are_enclosed():
    for x in rng.normal(size=20) * 2:
        value = certified.enclose(jax.scipy.special.erf, x, x)
        slope = certified.derivative_enclosure(jax.scipy.special.erf, x)
        exact = (
            flint.arb(x).erf(),
            2 / flint.arb.pi().sqrt() * (-(flint.arb(x) ** 2)).exp(),
        )
        for found, true in zip((value, slope), exact, strict=True):
            assert flint.arb(float(found.low)) <= true <= flint.arb(float(found.high))
            assert found.high - found.low < 1e-12


def test_enclosures_nest():
    low = rng.normal(size=(100, 2))
    wide, narrow = (
        Batched(lambda x: jnp.sin(x[0] * x[1]) + jnp.exp(x[1]) / (3 + x[0] ** 2), 2)(
            low - pad, low + pad
        )
        for pad in (0.3, 0.1)
    )
    assert np.all((wide.low <= narrow.low) & (narrow.high <= wide.high))


PROGRAMS = {
    "softmax": lambda x: jnp.sum(jax.nn.softmax(x) ** 2),
    "logsumexp": jax.nn.logsumexp,
    "relu": lambda x: jnp.sum(jax.nn.relu(x - 0.1) ** 2),
    "where": lambda x: jnp.where(x[0] > 5, jnp.log(x[0] - 5), x[1] * x[2]),
    "cond": lambda x: jax.lax.cond(x[0] < 9, jnp.sum, jnp.prod, x),
    "scan": lambda x: jax.lax.scan(lambda c, a: (jnp.tanh(c + a), c), 0.1, x)[0],
    "while": lambda x: jax.lax.fori_loop(0, 4, lambda i, c: c * x[i % 3] + 1, 1.0),
    "index": lambda x: x[jnp.array([0, 2, 2])] @ x,
    "scatter": lambda x: jnp.sum(jnp.zeros(4).at[jnp.array([1, 1, 3])].add(x) ** 2),
    "solve": lambda x: jnp.linalg.solve(4 * jnp.eye(3) + jnp.outer(x, x), x)[0],
    "determinant": lambda x: jnp.linalg.slogdet(jnp.eye(3) + jnp.outer(x, x))[1],
    "conv": lambda x: jnp.sum(jnp.convolve(x, jnp.array([1.0, -2.0, 0.5])) ** 2),
    "dot": lambda x: jnp.tanh(jnp.outer(x, x) @ x).sum(),
    "cumsum": lambda x: jnp.sum(jnp.cumsum(x) ** 3),
    "norm": lambda x: jnp.linalg.norm(x),
    "jit": lambda x: jax.jit(lambda y: jnp.mean(y) * jnp.tanh(y[2]))(x),
}


@pytest.mark.on_ci("three programs more", but=r"^(scan|dot)\]")
@pytest.mark.thorough("the other programs", but=r"^(relu|cond|scan|conv|dot)\]")
@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_are_enclosed_with_their_derivatives(name):
    """JAX's value at points of the box lies inside, up to its own rounding."""
    f, x = PROGRAMS[name], np.array([0.5, -0.8, 1.3])
    low, high = x - 1e-4, x + 1e-4
    points = jnp.asarray(rng.uniform(low, high, (5, 3)))
    at_all = lambda x: [jax.vmap(own)(x) for own in (f, jax.grad(f), jax.hessian(f))]
    for order, values in enumerate(map(np.asarray, jax.jit(at_all)(points))):
        found = (
            certified.derivative_enclosure(f, low, high, order)
            if order
            else certified.enclose(f, low, high)
        )
        assert found.smooth, found.lines
        for value in values:
            slack = 1e-12 * (1 + np.abs(value))
            assert np.all((found.low - slack <= value) & (value <= found.high + slack))
        assert np.max(found.high - found.low) < 1.0


# Roots, minima, curvature: the numbers of the literature.


@pytest.mark.thorough("the other functions", but="styblinski_tang-bounds3")
@pytest.mark.parametrize(
    ("f", "bounds", "minima", "saddles", "maxima"),
    [
        (himmelblau, [(-5, 5)] * 2, 4, 4, 1),
        pytest.param(
            camel,
            [(-3, 3), (-2, 2)],
            6,
            7,
            2,
            marks=pytest.mark.thorough("a third polynomial of two variables"),
        ),
        (rosenbrock, [(-2, 2), (-1, 3)], 1, 0, 0),
        (styblinski_tang, [(-5, 5)] * 2, 4, 4, 1),
        pytest.param(
            rastrigin,
            [(-5, 6)] * 2,
            144,
            264,
            121,
            marks=pytest.mark.thorough("529 points"),
        ),
        pytest.param(
            styblinski_tang,
            [(-5, 5)] * 4,
            16,
            64,
            1,
            marks=pytest.mark.thorough("four dimensions"),
        ),
    ],
)
def test_all_critical_points_are_proved(f, bounds, minima, saddles, maxima):
    found = certified.certified_critical_points(f, bounds)
    kinds = [point.kind for point in found.points]
    assert found.complete
    assert not found.undecided
    assert (kinds.count("minimum"), kinds.count("saddle"), kinds.count("maximum")) == (
        minima,
        saddles,
        maxima,
    )
    slope = jax.jit(jax.grad(f))
    for point in found.points:
        assert np.all(point.high - point.low < 1e-9)
        assert np.max(np.abs(slope(jnp.asarray(point.x)))) < 1e-6


@pytest.mark.thorough("the other points", but="0")
@pytest.mark.parametrize(
    "f",
    [
        lambda x: x[0] ** 4 + x[1] ** 2,
        lambda x: x[0] ** 3 - 3 * x[0] * x[1] ** 2,
        lambda x: (x[0] - x[1]) ** 2,
    ],
)
def test_a_degenerate_point_gets_no_certificate(f):
    found = certified.certified_critical_points(f, [(-1, 1.1)] * 2, seconds=1)
    assert not found.points
    assert not found.complete
    assert found.undecided
    assert (
        "singular" in found.undecided[0].reason or "time" in found.undecided[0].reason
    )


def test_a_jump_is_refused_with_its_line():
    with pytest.raises(ValueError, match=r"f jumps near .*test_certified\.py:\d+"):
        certified.certified_critical_points(
            lambda x: jnp.where(x[0] > 0.3, 1.0, 0.0) + x[0] ** 2, [(-1, 1)]
        )


@pytest.mark.thorough("the other kinks", but="0")
@pytest.mark.parametrize(
    "f",
    [
        lambda x: jnp.abs(x[0]) + x[0] ** 2,
        lambda x: jnp.maximum(x[0], -2 * x[0]) + x[0] ** 2,
        lambda x: jnp.where(x[0] > 0, x[0], x[0] ** 2) + 0.0,
    ],
)
def test_a_kink_is_never_a_proved_point(f):
    found = certified.certified_critical_points(f, [(-1, 1.2)])
    assert not found.complete
    assert all(abs(point.x[0]) > 1e-3 for point in found.points)


def test_where_f_is_undefined_the_rest_is_proved():
    found = certified.certified_critical_points(
        lambda x: jnp.log(x[0]) - x[0], [(-1, 3)]
    )
    assert [point.kind for point in found.points] == ["maximum"]
    assert not found.complete
    assert "undefined" in found.undecided[0].reason


def test_a_root_at_a_face_of_two_boxes_is_counted_once():
    # Cuts lie at 0.4921875 of a box: put a root exactly there.
    root = -1 + 0.4921875 * 2
    found = certified.certified_critical_points(
        lambda x: (x[0] - root) ** 2 + x[1] ** 2, [(-1, 1)] * 2
    )
    assert len(found.points) == 1
    assert found.complete


@pytest.mark.on_ci("two searches; nothing shorter shows this")
def test_scaling_by_powers_of_two_scales_the_points():
    for a, b in ((30, -20), (-25, 17)):
        found = certified.certified_critical_points(
            lambda x, a=a, b=b: 2.0**a * himmelblau(x * 2.0**-b),
            np.array([(-5, 5)] * 2) * 2.0**b,
        )
        assert len(found.points) == 9
        assert found.complete


def test_the_time_limit_leaves_undecided_boxes():
    found = certified.certified_critical_points(rastrigin, [(-50, 60)] * 2, seconds=0.2)
    assert not found.complete
    assert "time" in found.undecided[0].reason


class Clock:
    """A clock that moves on by one second when up to 4 boxes are enclosed."""

    def __init__(self, monkeypatch) -> None:
        self.now, self.last_single, enclosed = 0.0, True, Batched._chunk
        monkeypatch.setattr("time.monotonic", lambda: self.now)
        monkeypatch.setattr(enclosing, "CHUNKS", (2, 4))

        def slow(batched, low, *others):
            self.now += 1.0
            self.last_single = len(low) == 1
            return enclosed(batched, low, *others)

        monkeypatch.setattr(Batched, "_chunk", slow)


@pytest.mark.thorough("the longer time", but="-3.5")
@pytest.mark.parametrize("seconds", [3.5, 40.5])
@pytest.mark.parametrize(
    "search",
    [
        lambda bounds, **limit: certified.certified_roots(
            jax.grad(rastrigin), bounds, **limit
        ),
        lambda bounds, **limit: certified.certified_critical_points(
            rastrigin, bounds, **limit
        ),
        lambda bounds, **limit: certified.certified_critical_points(
            lambda x: jnp.sum(jnp.abs(x)), bounds, **limit
        ),
        lambda bounds, **limit: certified.certified_minimum(
            lambda x: rastrigin(x) * rastrigin(x), bounds, **limit
        ),
        lambda bounds, **limit: certified.curvature_bound(
            lambda x: rastrigin(x) * rastrigin(x), bounds, tolerance=1e-9, **limit
        ),
    ],
    ids=["roots", "critical points", "kinks", "minimum", "curvature"],
)
def test_a_search_ends_within_one_box_after_its_time(monkeypatch, search, seconds):
    clock = Clock(monkeypatch)
    found = search([(-5, 6)] * 2, seconds=seconds)
    assert not getattr(found, "complete", False)
    assert clock.now >= seconds
    # One box is examined to its end, which takes at most 24 enclosures of it.
    assert clock.now <= seconds + (24 if clock.last_single else 1)


def test_thousands_of_undecided_boxes_are_joined_quickly():
    """5,000 open boxes on a line apart from each other once took 8 seconds."""
    limit, nothing = searching._TimeLimit(9.0), Batched(lambda x: x, 1)
    ends = np.zeros(1), np.ones(1)
    search = searching._Search(nothing, nothing, *ends, limit, None)
    low = 2.0 * np.arange(5000.0)[:, None]
    touching = [(low[-1] + 1.0, low[-1] + 1.5, "open")]
    search.open_boxes = [(x, x + 1.0, "open") for x in low] + touching
    started = time.process_time()
    found = search.undecided()
    assert time.process_time() - started < 2.0
    assert len(found) == 5000
    assert found[-1] == (low[-1], low[-1] + 1.5, "open")
    assert all(box.low == x for box, x in zip(found, low, strict=True))


@pytest.mark.on_ci("a function with four minima", but="lambda")
@pytest.mark.thorough("the other functions", but="styblinski|lambda")
@pytest.mark.parametrize(
    ("f", "bounds", "minimum"),
    [
        (himmelblau, [(-5, 5)] * 2, 0.0),
        (camel, [(-3, 3), (-2, 2)], -1.0316284534898774),
        (rastrigin, [(-5, 6)] * 2, 0.0),
        (styblinski_tang, [(-5, 5)] * 2, -78.33233140754282),
        (lambda x: jnp.abs(x[0] - 0.3) + x[1] ** 2, [(-1, 1)] * 2, 0.0),
    ],
)
def test_the_global_minimum_is_enclosed(f, bounds, minimum):
    found = certified.certified_minimum(f, bounds)
    assert found.complete
    slack = 1e-13 if minimum else 0.0  # Of the rounded number of the literature.
    assert found.low - slack <= minimum <= found.high + slack
    assert found.high - found.low <= 1e-8
    assert f(jnp.asarray(found.x)) <= found.high + 1e-12


@pytest.mark.thorough(
    "bounds of two functions; "
    "test_derivative_of_a_maximum_is_enclosed_where_one_entry_is_the_largest has a "
    "closer one"
)
def test_curvature_is_bounded_and_the_bound_is_close():
    for f, bounds in ((himmelblau, [(-2, 2)] * 2), (camel, [(-1, 1)] * 2)):
        found = certified.curvature_bound(f, bounds, tolerance=0.1)
        grid = np.stack(np.meshgrid(*(np.linspace(*b, 41) for b in bounds)), -1)
        eigenvalues = np.linalg.eigvalsh(
            jax.jit(jax.vmap(jax.hessian(f)))(jnp.asarray(grid.reshape(-1, 2)))
        )
        assert found.low <= eigenvalues.min()
        assert eigenvalues.max() <= found.high
        assert found.reached <= found.high <= 1.11 * eigenvalues.max()


def test_the_curvature_at_a_jump_of_the_slope_is_not_bounded():
    found = certified.curvature_bound(
        lambda x: jnp.abs(x[0]) + x[0] ** 2, [(-1, 1)], seconds=0.5
    )
    assert np.isinf(found.high)


def test_signs_of_eigenvalues_are_those_of_exact_matrices():
    for n in (1, 2, 5):
        values = rng.normal(size=(50, n))
        basis = np.linalg.qr(rng.normal(size=(50, n, n)))[0]
        matrices_ = basis * values[:, None, :] @ np.swapaxes(basis, 1, 2)
        pad = 1e-9
        positive, negative = matrices.signs_of_eigenvalues(
            intervals.Interval(
                matrices_ - pad, matrices_ + pad, np.asarray(0, np.uint8)
            )
        )
        assert np.all(positive + negative == n)
        assert np.array_equal(positive, np.sum(values > 0, axis=1))


def test_a_singular_matrix_has_no_signs():
    singular = intervals.point(np.array([[[1.0, 1.0], [1.0, 1.0]]]))
    positive, negative = matrices.signs_of_eigenvalues(singular)
    assert positive[0] == negative[0] == 0


@pytest.mark.on_ci(
    "two equations with four roots; the example of certified_roots has one equation"
)
def test_roots_of_a_system():
    found = certified.certified_roots(
        lambda x: jnp.stack([x[0] ** 2 + x[1] ** 2 - 4, x[0] * x[1] - 1]), [(-3, 3)] * 2
    )
    assert found.complete
    assert len(found.low) == 4


# Systems of M. W. Smiley and C. Chun, J. Comput. Appl. Math. 137 (2001), 293, with the
# numbers of roots that they report.


def smiley_2_2(x):
    line = x[1] * (x[0] - 1.995) * (x[1] - x[0] ** 2) * (x[1] - x[0] + 1)
    return jnp.stack([x[0] ** 2 + 4 * x[1] ** 2 - 4, line])


def smiley_5_2(x):
    square, plane = x @ x, 0.5 * x[0] + 0.5 * x[1] + x[2]
    sine, cosine = (f(np.arange(1, 4) * np.pi / 3) for f in (np.sin, np.cos))
    v, c = -0.5 * (cosine + sine), 0.5 * (sine - cosine)
    planes = (0.5 * v - sine) * x[0] + (cosine - 0.5 * v) * x[1] + c * x[2] - 0.2 * c
    return jnp.stack(
        [(square - 1) * (square - 4), (plane - 0.2) * (plane + 0.7), jnp.prod(planes)]
    )


def smiley_5_4(x):
    a, b = x[0], x[1]
    return jnp.stack(
        [
            1.069e-5 * a**4 + 200 * a**3 * b + 1e5 * a**3 - 1.8e5 * a - 1.283e-4,
            0.02 * a * b**2 + 10 * b**2 - 10,
        ]
    )


def smiley_5_5(x):
    def once(x):
        first, second = np.exp(-np.pi / 5), np.exp(-2 * np.pi / 5)
        a = x[2] - 5 * jnp.sin(x[0]) * jnp.cos(x[1])
        b = x[3] - 5 * jnp.cos(x[0]) * jnp.sin(x[1])
        return jnp.stack(
            [
                (1 - first) / (np.pi / 5) * a + x[0],
                (1 - second) / (2 * np.pi / 5) * b + x[1],
                first * a,
                second * b,
            ]
        )

    return once(once(x)) - x


@pytest.mark.thorough(
    "systems of the literature; test_roots_of_a_system has another one"
)
@pytest.mark.parametrize(
    ("f", "box", "roots"),
    [
        (smiley_2_2, [(-3, 3)] * 2, 8),
        (smiley_5_2, [(-3, 3)] * 3, 24),
        (smiley_5_4, [(-510, 1.4), (-510, 1.1)], 7),
        pytest.param(
            smiley_5_5,
            [(-1.02 * np.pi, 1.02 * np.pi)] * 2 + [(-0.5 * np.pi, 0.5 * np.pi)] * 2,
            41,
            marks=pytest.mark.thorough("two minutes for one system"),
        ),
    ],
)
def test_all_roots_of_systems_are_proved(f, box, roots):
    found = certified.certified_roots(f, box, seconds=1_000)
    assert found.complete
    assert len(found.low) == roots


@pytest.mark.parametrize("seed", range(3))
def test_short_forms_of_polynomials_give_the_bounds_of_interval_arithmetic(seed):
    drawn = np.random.default_rng(seed)
    ends = np.sort(drawn.uniform(-0.36, 0.36, (2, 1_000)), axis=0)
    ends[:, :4] = [[0.0, 0.0, -0.36, -1e-300], [0.0, 0.36, 0.0, 1e-300]]
    x = intervals.Interval(*ends, np.asarray(intervals.FINE))
    square = intervals.multiply(x, x)
    square = square._replace(low=np.maximum(square.low, 0.0))
    for short, series, at in (
        (intervals.positive_polynomial, elementary.INVERSE_FACTORIALS[:14], x),
        (intervals.polynomial_of_square, elementary.SINE_SERIES, square),
        (intervals.polynomial_of_square, elementary.ODD_INVERSES, square),
    ):
        expected = series[-1]
        for coefficient in series[-2::-1]:
            product = intervals.multiply(at, expected)
            expected = intervals.add(coefficient, product)
        found = short(series, at)
        np.testing.assert_array_equal(found.low, expected.low)
        np.testing.assert_array_equal(found.high, expected.high)


# Bad input.


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: certified.enclose(lambda x: jnp.sort(x), np.zeros(3), np.ones(3)),
            UnsupportedPrimitiveError,
            r"sort at test_certified\.py:\d+ cannot be enclosed",
        ),
        (
            lambda: certified.enclose(jnp.sin, 1.0, 0.0),
            ValueError,
            "low must not be above",
        ),
        (
            lambda: certified.enclose(jnp.sin, 0.0, np.inf),
            ValueError,
            "high must be finite",
        ),
        (lambda: certified.enclose(3, 0.0, 1.0), TypeError, "f must be"),
        (
            lambda: certified.enclose(jnp.sin, "a", 1.0),
            TypeError,
            "low must be an array of real",
        ),
        (
            lambda: certified.derivative_enclosure(jnp.sin, 0.0, order=0),
            ValueError,
            "order",
        ),
        (
            lambda: certified.derivative_enclosure(lambda x: x, np.zeros(2)),
            NotScalarError,
            r"one number; it returns an array of shape \(2,\)\.",
        ),
        (
            lambda: certified.certified_roots(jnp.sum, [(0, 1)]),
            ValueError,
            "it returns a number",
        ),
        (
            lambda: certified.certified_critical_points(himmelblau, [(0, 1, 2)]),
            ValueError,
            r"shape \(n, 2\)",
        ),
        (
            lambda: certified.certified_critical_points(himmelblau, [(0, np.inf)] * 2),
            ValueError,
            "finite",
        ),
        (
            lambda: certified.certified_minimum(
                himmelblau, [(0, 1)] * 2, tolerance=0.0
            ),
            ValueError,
            "tolerance must be above 0",
        ),
    ],
)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_integers_that_another_program_computes_are_refused():
    def f(x):
        told = jax.ShapeDtypeStruct((), jnp.int32)
        return x * io_callback(lambda i: np.int32(i), told, 3)

    with pytest.raises(UnsupportedPrimitiveError, match="it has side effects"):
        certified.enclose(f, 0.0, 1.0)


def test_an_integer_may_be_printed(capfd):
    def f(x):
        jax.debug.print("{}", jnp.int32(3))
        return x * x

    found = certified.enclose(f, 1.0, 2.0)
    assert found.low <= 1 <= 4 <= found.high


def test_an_array_whose_sine_is_kept_cannot_change():
    x = np.array([0.5])
    elementary.sin(intervals.Interval(x, x, np.asarray(intervals.FINE)))
    with pytest.raises(ValueError, match="read-only"):
        x[0] = 1.5


def test_orders_that_would_trace_for_hours_are_refused():
    with pytest.raises(ValueError, match="order must be at most 10; got order=101"):
        certified.derivative_enclosure(jnp.sin, 1.0, order=101)


def test_integers_are_read_as_floats():
    found = certified.derivative_enclosure(lambda x: x**3, 2)
    assert found.low <= 12 <= found.high


# What must not be claimed: a step, hidden behind operations that could lose its mark.


def step(x):
    return jnp.where(x > 0, 1.0, 0.0)


HIDDEN = {
    "power": lambda x: step(x) ** 2.5,
    "power of an array": lambda x: jnp.power(step(x), jnp.array([2.0]))[0],
    "cumsum of integers": lambda x: jnp.cumsum(jnp.stack([x, x]) > 0)[1] * 1.0,
    "kernel of a convolution": lambda x: jnp.convolve(
        jnp.ones(3), jnp.stack([step(x), 0.0])
    )[0],
    "cond": lambda x: jax.lax.cond(x > 0, lambda: 1.0, lambda: 0.0),
    "floor": lambda x: jnp.floor(x),
    "max of bools": lambda x: jnp.maximum(x > 0, x > 1) * 1.0,
    "index": lambda x: jnp.array([0.0, 1.0])[(x > 0).astype(int)],
    "while": lambda x: jax.lax.while_loop(
        lambda c: c < step(x), lambda c: c + 1.0, 0.0
    ),
    "sign": lambda x: jnp.sign(x),
    "remainder": lambda x: jnp.fmod(x, 1.0) - x,
}


@pytest.mark.on_ci("four of seven steps", but=r"^(floor|index|while)\]")
@pytest.mark.thorough(
    "the slowest of the hidden steps", but=r"^(?!kernel|power\]|cumsum|cond)"
)
@pytest.mark.parametrize("name", HIDDEN)
def test_a_hidden_step_is_marked_or_refused_and_gives_no_root(name):
    f = HIDDEN[name]
    try:
        found = certified.enclose(f, -1.0, 1.0)
        roots = certified.certified_roots(lambda x: x + f(x[0]) - 0.5, [(-1.0, 1.0)])
    except UnsupportedPrimitiveError:
        return
    assert not found.smooth
    assert found.low <= f(-1.0) <= found.high
    assert found.low <= f(0.5) <= found.high
    assert not roots.complete or all(f(0.5) == 0 for _ in roots.low)
    if f(0.5) == 1.0:
        assert len(roots.low) == 0
        assert not roots.complete


@pytest.mark.parametrize(
    ("f", "low", "high"),
    [
        (lambda x: jnp.where(jnp.sqrt(x) < 5.0, 1.0, 2.0), -1.0, 1.0),
        (lambda x: jnp.where(1 / x >= -jnp.inf, 1.0, 2.0), -1.0, 1.0),
        (lambda x: jnp.where(jnp.isfinite(jnp.log(x)), 0.0, -5.0), -1.0, 1.0),
        (
            lambda x: jax.lax.cond(jnp.sqrt(x) < 5.0, lambda: 1.0, lambda: 2.0),
            -1.0,
            1.0,
        ),
        (lambda x: x * jnp.nan, 1.0, 2.0),
        (lambda x: x * jnp.inf, -1.0, 1.0),
    ],
)
def test_nan_is_a_value_that_may_be_anything(f, low, high):
    found = certified.enclose(f, low, high)
    assert not found.smooth
    for x in (low, 0.0, high):
        value = float(f(jnp.asarray(x)))
        assert np.isnan(value) or found.low <= value <= found.high


FILLED = np.arange(10.0, 15.0)


@pytest.mark.on_ci("eight programs more", but=r"low[0179]-|300\.0|2\.5")
@pytest.mark.parametrize(
    ("f", "low", "high"),
    [
        (lambda x: jnp.power(x, jnp.array([2.0, 3.0])), [-2.0, -2.0], [-1.0, -1.0]),
        (lambda x: jnp.power(x[0], x[1]), [-2.0, 1.0], [-2.0, 3.0]),
        (
            lambda x: x.at[jnp.array([7])].get(mode="fill", fill_value=3.0),
            FILLED,
            FILLED,
        ),
        (lambda x: jnp.take(x, jnp.array([7])), FILLED, FILLED),
        (lambda x: jnp.arcsinh(jnp.exp(x)), 300.0, 301.0),
        (lambda x: jax.lax.round(x, jax.lax.RoundingMethod.AWAY_FROM_ZERO), 0.5, 0.5),
        (lambda x: jax.lax.round(x, jax.lax.RoundingMethod.TO_NEAREST_EVEN), 2.5, 2.5),
        (lambda x: jnp.cumsum(x * 1e308), [1.0, 1.0], [1.5, 1.5]),
        (lambda x: jnp.logical_not(jnp.maximum(x > 0, x > 1)) * 1.0, -1.0, 2.0),
        (lambda x: x + jnp.sum(x[jnp.arange(3)[jnp.array([2, 0])]]), FILLED, FILLED),
        (lambda x: x * jnp.zeros(3, int).at[jnp.array([0, 0, 2])].add(1)[0], 1.0, 2.0),
        (lambda x: jax.lax.scan(lambda c, a: (c + a, c), x, jnp.zeros(0))[0], 1.0, 2.0),
        (lambda x: jax.lax.pad(x, 2.0, [(-1, 2, 1)]), FILLED, FILLED),
        (lambda x: jax.lax.dynamic_slice(x, (4,), (3,)), FILLED, FILLED),
    ],
)
def test_values_at_the_ends_lie_inside(f, low, high):
    low, high = np.asarray(low, float), np.asarray(high, float)
    found = certified.enclose(f, low, high)
    for x in (low, high):
        value = np.asarray(f(jnp.asarray(x)))
        inside = (found.low <= value) & (value <= found.high)
        assert np.all(inside | ~np.isfinite(value))
    assert np.all(found.low <= found.high)


@pytest.mark.parametrize(
    ("f", "x"),
    [
        (jnp.abs, 0.0),
        (jax.nn.relu, 0.0),
        (lambda x: jnp.where(x >= 1, x, 0.0), 1.0),
    ],
)
def test_a_point_on_a_kink_is_not_smooth(f, x):
    assert not certified.derivative_enclosure(f, x).smooth


@jax.custom_jvp
def exp_neg_sq(x):
    return x + 1


exp_neg_sq.defjvp(lambda primals, tangents: (exp_neg_sq(*primals), 5.0 * tangents[0]))


def test_a_derivative_that_need_not_be_that_of_the_values_is_refused():
    found = certified.enclose(exp_neg_sq, 2.0, 2.0)
    assert found.low <= 3 <= found.high
    for f in (
        lambda x: jax.lax.stop_gradient((x[0] - 0.3) ** 2),
        lambda x: exp_neg_sq(x[0]) ** 2,
    ):
        with pytest.raises(UnsupportedPrimitiveError, match="cannot be trusted"):
            certified.certified_minimum(f, [(-1.0, 1.0)])
    with pytest.raises(UnsupportedPrimitiveError, match="stop_gradient at test_cert"):
        certified.certified_roots(lambda x: x - jax.lax.stop_gradient(x), [(-1.0, 1.2)])


@pytest.mark.parametrize(
    "f",
    [
        lambda x: (x * 300).astype(jnp.int32).astype(jnp.uint8) * 1.0,
        lambda x: x.astype(jnp.int32) * 1e-300,
        lambda x: jax.lax.reduce(x[None], 0.0, lambda a, b: a + b + a * b, (0,)),
    ],
)
def test_what_the_real_numbers_do_not_describe_is_refused(f):
    with pytest.raises(UnsupportedPrimitiveError):
        certified.enclose(f, 1.0, 1e10)


def test_a_system_needs_as_many_values_as_arguments():
    with pytest.raises(ValueError, match=r"shape \(1,\)"):
        certified.certified_roots(lambda x: x[0] ** 2 - 2, [(0.0, 2.0)])


def test_derivative_of_a_maximum_is_enclosed_where_one_entry_is_the_largest():
    def f(x):
        rows = jnp.stack([x[0] ** 2, 3 * x[0] + 1, x[1] - x[0]]).reshape(1, 3)
        return jnp.sum(jnp.sin(jnp.max(rows, axis=1))) + jnp.min(x)

    # At (4, -1) the largest is x² (16 against 13 and -5), and the least entry is x[1].
    found = certified.derivative_enclosure(f, [3.99, -1.0], [4.01, -0.5])
    assert found.smooth
    for at in (3.99, 4.0, 4.01):
        truth = [2 * at * np.cos(at**2), 1.0]
        assert np.all((found.low <= truth) & (truth <= found.high))
    # In [3.2, 3.4] the two cross, at (3 + √13) / 2 = 3.303. A tie is a kink, too.
    assert not certified.derivative_enclosure(f, [3.2, -1.0], [3.4, -0.5]).smooth
    assert not certified.derivative_enclosure(jnp.max, [1.0, 3.0, 3.0]).smooth
    bound = certified.curvature_bound(
        lambda x: jnp.max(jnp.stack([x[0] ** 2, 5 * x[1] ** 2 + 10])), [(-1, 1)] * 2
    )
    assert bound.low <= 0
    assert 10 <= bound.high <= 10.001
    # Where the two cross, nothing is claimed, and NumPy warns of nothing.
    crossing = lambda x: jnp.max(jnp.stack([x[0] ** 2, 1 - x[0] ** 2]))
    assert np.isinf(certified.curvature_bound(crossing, [(-1, 1)], most_boxes=9).high)
    box = [(-1.0, 1.5)]
    found = certified.certified_critical_points(crossing, box, seconds=1.0)
    assert not found.complete


def test_higher_derivatives_of_erf_and_the_values_of_sinc_are_enclosed():
    x = flint.arb(0.4)
    slope = 2 / flint.arb.pi().sqrt() * (-(x**2)).exp()
    for order, truth in ((2, -2 * x * slope), (3, (4 * x**2 - 2) * slope)):
        found = certified.derivative_enclosure(jax.scipy.special.erf, 0.4, order=order)
        assert found.low <= float(truth) <= found.high
        assert found.high - found.low <= 1e-13
    for x in (0.0, 0.3, 0.5):
        found = certified.enclose(jnp.sinc, x, x)
        truth = flint.arb(x).sinc_pi()
        assert flint.arb(float(found.low)) <= truth
        assert truth <= flint.arb(float(found.high))
        assert found.high - found.low <= 1e-12


@pytest.mark.parametrize(
    ("f", "low", "high", "order"),
    [
        (jnp.abs, -1.0, 1.0, 2),
        (jax.nn.relu, -1.0, 1.0, 2),
        (lambda x: x + jnp.floor(x), -0.5, 0.5, 1),
        (lambda x: x + jnp.sign(x), -1.0, 1.0, 1),
        (lambda x: x + (x > 0.5), 0.0, 1.0, 1),
        (lambda x: x * x.astype(jnp.int32), 2.0, 2.0, 1),
        (lambda x: x + jnp.fmod(x, 1.0), 3.0, 3.0, 1),
    ],
)
def test_no_derivative_is_smooth_where_f_or_a_lower_derivative_jumps(
    f, low, high, order
):
    found = certified.derivative_enclosure(f, low, high, order=order)
    assert not found.smooth
    assert found.lines


def test_a_derivative_is_smooth_between_the_jumps_of_f():
    found = certified.derivative_enclosure(lambda x: x + jnp.floor(x), 0.25, 0.75)
    assert found.smooth
    assert found.low == found.high == 1.0


def nan_is_not_above(x):
    return 1.0 * (jnp.sqrt(x) > -1.0)


TWO = np.array([[1.0, 0.0], [1.5, 1.0]]), np.array([[2.0, 0.0], [1.6, 1.0]])
INFINITE = jnp.inf


@pytest.mark.parametrize(
    ("f", "low", "high", "x", "value"),
    [
        (nan_is_not_above, -1.0, 1.0, -0.5, 0.0),
        (lambda x: jnp.sqrt(x).astype(bool) * 1.0, -1.0, 1.0, -0.5, 1.0),
        (lambda x: x.reshape(-1, order="F"), *[np.arange(6.0).reshape(2, 3)] * 2, 0, 0),
        (lambda x: x + INFINITE - INFINITE, 0.0, 1.0, 0.5, np.nan),
        (lambda x: jnp.where(jnp.isnan(INFINITE * x), 5.0, 0.0), 0.0, 0.0, 0.0, 5.0),
        (
            lambda x: jnp.where(jnp.isfinite(jnp.where(x > 0, x, INFINITE)), 1.0, 2.0),
            -1.0,
            -0.5,
            -0.75,
            2.0,
        ),
        (
            lambda x: jnp.where(
                jnp.isnan(jnp.linalg.cholesky(jnp.array([[1.0, 0], [0, x]]))[0, 0]),
                5.0,
                0.0,
            ),
            -1.0,
            -0.5,
            -0.75,
            5.0,
        ),
        (lambda x: (1 + (x > 0).astype(int)) ** 2 * 1.0, -1.0, 1.0, -1.0, 1.0),
    ],
)
def test_a_value_that_jax_gives_lies_within_the_bounds(f, low, high, x, value):
    found = certified.enclose(f, low, high)
    if np.ndim(low):
        np.testing.assert_array_equal(found.low, f(jnp.asarray(low)))
        return
    exact = float(f(jnp.asarray(x)))
    np.testing.assert_equal(exact, value)
    if np.isnan(value):
        assert not found.smooth
    else:
        assert found.low <= value <= found.high


TERMS = jnp.array([INFINITE, -INFINITE, 1.0])


@pytest.mark.parametrize(
    "f",
    [
        lambda x: jnp.sum(x + TERMS),
        lambda x: jnp.cumsum(x + TERMS)[2],
        lambda x: jax.lax.cumsum(x + TERMS, reverse=True)[0],
        lambda x: jnp.dot(x + jnp.ones(3), TERMS),
        lambda x: jnp.dot(jnp.where(x > 0.5, 1.0, 2.0) * TERMS, jnp.arange(3.0)),
        lambda x: jnp.convolve(x + TERMS, jnp.ones(2), mode="valid")[0],
        lambda x: jnp.sin(x + INFINITE),
        lambda x: jnp.cos(x - INFINITE),
        lambda x: jnp.fmod(x - INFINITE, 1.0),
    ],
)
def test_a_number_that_may_be_nan_is_found_to_be_nan(f):
    # IEEE 754: inf - inf, 0 inf, sin(inf) and fmod(inf, 1) are NaN.
    assert np.isnan(f(jnp.asarray(0.5)))
    assert not certified.enclose(f, 0.0, 1.0).smooth
    answer = certified.enclose(lambda x: jnp.where(jnp.isnan(f(x)), 5.0, 0.0), 0.0, 1.0)
    assert answer.low <= 5.0 <= answer.high


def test_one_unbounded_term_leaves_a_sum_defined():
    # inf + inf is inf, not NaN.
    found = certified.enclose(lambda x: jnp.sum(x + TERMS[jnp.array([0, 2, 0])]), 0, 1)
    assert found.smooth
    assert np.isinf(found.high)


@pytest.mark.parametrize("x", [-INFINITE, INFINITE])
def test_angles_and_powers_of_infinity_are_those_of_ieee_754(x):
    for f, value in (
        (lambda y: jnp.arctan2(y + INFINITE, x), np.arctan2(np.inf, x)),
        (lambda y: jnp.arctan2(y - INFINITE, x), np.arctan2(-np.inf, x)),
        (lambda y: jnp.power(jnp.asarray(x), 2.5 + 0 * y), np.power(x, 2.5)),
    ):
        found = certified.enclose(f, 0.0, 1.0)
        assert found.low <= value <= found.high


@pytest.mark.parametrize(
    ("f", "low", "high"),
    [
        (lambda x: ((x > 0).astype(jnp.uint8) + 15) ** 2 * 1.0, -1.0, 1.0),
        (lambda x: (1 + (x > 0).astype(int)) ** 2 // 2 * 1.0, -1.0, 1.0),
        (lambda x: jnp.int64(2**53 + 1), 0.0, 1.0),
        (lambda x: jnp.uint64(2**64 - 1), 0.0, 1.0),
        (lambda x: jnp.arange(3.0)[jnp.sqrt(x).astype(int)], -1.0, 1.0),
        (lambda a: jax.scipy.linalg.lu(a)[2], *TWO),
    ],
)
def test_what_cannot_be_bounded_is_refused(f, low, high):
    with pytest.raises(UnsupportedPrimitiveError, match="cannot be enclosed"):
        certified.enclose(f, low, high)


@pytest.mark.on_ci("four functions of matrices; nothing shorter shows this")
def test_solutions_and_determinants_do_not_depend_on_the_order_of_pivots():
    for f in (
        lambda a: jnp.linalg.solve(a, jnp.ones(2)),
        lambda a: jnp.linalg.slogdet(a)[1],
        jnp.linalg.inv,
        jnp.linalg.det,
    ):
        found = certified.enclose(f, *TWO)
        for a in np.random.default_rng(0).uniform(*TWO, (20, 2, 2)):
            assert np.all((found.low <= f(a)) & (f(a) <= found.high))


@jax.custom_gradient
def flat(x):
    return (x - 0.3) ** 2, lambda ct: 0.0 * ct


flat_sine = jax.custom_jvp(jnp.sin)
flat_sine.defjvps(lambda t, ans, x: 0.0 * t)


class FlatRule:
    """A derivative rule that is an object, not a function."""

    def __call__(self, primals, tangents):
        return jnp.sin(*primals), 0.0 * tangents[0]

    def kept(self, x):
        return jnp.sin(x), x

    def back(self, x, ct):
        return (0.0 * ct,)


def sine_with(rule):
    sine = jax.custom_jvp(jnp.sin)
    sine.defjvp(rule)
    return sine


class Kept(FlatRule):
    __call__ = FlatRule.kept


class Back(FlatRule):
    __call__ = FlatRule.back


flat_backwards = jax.custom_vjp(jnp.sin)
flat_backwards.defvjp(Kept(), Back())


def straight_through(x):
    return jax.tree.map(lax.stop_gradient, (x - 0.3) ** 2)


def mapped_stop(x):
    return jax.vmap(lax.stop_gradient)((x[None] - 0.3) ** 2)[0]


def stop_along(x):
    return jnp.apply_along_axis(lax.stop_gradient, 0, (x[None] - 0.3) ** 2)[0]


def stop_in_pieces(x):
    return jnp.piecewise((x - 0.3) ** 2, [x > 0], [lax.stop_gradient, 0.0])


def unfinished(x):
    matrix = lambda v: jnp.stack([x * v[0], v[1]])
    return jax.scipy.sparse.linalg.cg(matrix, jnp.ones(2), maxiter=1)[0][0]


def own_solver(x):
    return lax.custom_linear_solve(lambda v: x * v, 1.0, lambda mv, b: b)


@pytest.mark.parametrize(
    "f",
    [
        flat,
        flat_sine,
        sine_with(FlatRule()),
        sine_with(FlatRule().__call__),
        sine_with(jax.jit(FlatRule())),
        sine_with(functools.lru_cache(FlatRule())),
        sine_with(functools.wraps(jnp.sin)(FlatRule())),
        flat_backwards,
        straight_through,
        mapped_stop,
        stop_along,
        stop_in_pieces,
        unfinished,
        own_solver,
    ],
)
def test_a_derivative_rule_of_the_user_in_the_clothes_of_jax_is_refused(f):
    with pytest.raises(UnsupportedPrimitiveError, match="cannot be trusted"):
        certified.derivative_enclosure(f, 0.5, 0.75)
    with pytest.raises(UnsupportedPrimitiveError, match="cannot be trusted"):
        certified.certified_minimum(lambda x: f(x[0]), [(0.25, 0.75)])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_rounded_constant_of_another_precision_is_widened(dtype):
    f = lambda x: jax.scipy.special.erf(x.astype(dtype)).astype(float)
    found = certified.derivative_enclosure(f, 0.5)
    exact = flint.arb(2) / flint.arb.pi().sqrt() * (-flint.arb("0.25")).exp()
    assert found.low <= float(exact) <= found.high


def test_a_float_that_is_made_a_bool_jumps_at_zero():
    f = lambda x: jnp.where(x.astype(bool), 1.0, 0.0)
    assert not certified.derivative_enclosure(f, 0.0).smooth
    assert certified.derivative_enclosure(f, 0.5).smooth


def test_a_rule_that_is_typed_into_an_interpreter_is_not_of_jax():
    typed = {"jax": jax, "jnp": jnp}
    exec(
        "import functools\n"
        "sine = jax.custom_jvp(jnp.sin)\n"
        "sine.defjvps(functools.wraps(jnp.sin)(lambda t, ans, x: 0.0 * t))\n",
        typed,
    )
    with pytest.raises(UnsupportedPrimitiveError, match="cannot be trusted"):
        certified.derivative_enclosure(typed["sine"], 0.5)


@pytest.mark.on_ci("another function", but="relu")
@pytest.mark.thorough("the other functions", but=r"^(relu|logsumexp)\]")
@pytest.mark.parametrize(
    "name", ["relu", "silu", "gelu", "softplus", "elu", "selu", "softmax", "logsumexp"]
)
def test_the_rules_of_jax_are_trusted(name):
    f = getattr(jax.nn, name)
    g = lambda x: jnp.sum(f(jnp.stack([x, 2 * x])) ** 2)
    found = certified.derivative_enclosure(g, 0.5)
    assert found.smooth
    assert found.low <= float(jax.grad(g)(0.5)) + 1e-15
    assert found.high >= float(jax.grad(g)(0.5)) - 1e-15


def test_a_curvature_bound_looks_at_no_more_boxes_than_asked_for():
    # A search looks at whole pairs of boxes, so each may look at one box more.
    bumpy = lambda x: jnp.sum(jnp.sin(3 * x) * x**2) + x[0] * x[1]
    for most in (10, 101, 1500):
        found = certified.curvature_bound(
            bumpy, [(-2.0, 2.0)] * 2, tolerance=1e-9, most_boxes=most
        )
        assert most - 2 <= found.boxes <= most + 2
