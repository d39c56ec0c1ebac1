"""Critical points against lists that are complete by Sturm's theorem; the degenerate
ones by hand; and what is refused.
"""

import functools
import json
import pickle
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.derivatives.critical import (
    classify_critical_point,
    critical_points,
    grid_of_starts,
    sampling,
)
from research.derivatives.critical.landscape import Landscape
from research.derivatives.errors import NotInexactError, NotScalarError

COMPILE_QUICKLY = True  # tests/conftest.py
DRAWS_NO_KEYS = True  # tests/conftest.py

FILE = Path(__file__).parent.parent / "reference" / "critical_points.json"
COMPLETE = {case["name"]: case for case in json.loads(FILE.read_text("utf-8"))["cases"]}
KINDS = {
    "min": "minimum",
    "max": "maximum",
    "saddle": "saddle",
    "degenerate": "degenerate",
}


def function(case):
    return lambda x: eval(
        case["expression"], {f"x{i + 1}": x[i] for i in range(case["n"])}
    )


@pytest.mark.on_ci("two more functions", but="six_hump")
@pytest.mark.thorough("the other functions", but="six_hump|monkey|wood")
@pytest.mark.parametrize("name", COMPLETE)
def test_all_critical_points_are_found_from_a_lattice_and_classified(name):
    case = COMPLETE[name]
    found = critical_points(
        function(case), grid_of_starts(case["box"], 12), case["box"]
    )
    truth = case["critical_points"]
    assert len(found) == len(truth)
    for known in truth:
        x = np.array(known["x"], float)
        point = min(found, key=lambda p: np.linalg.norm(p.x - x))
        np.testing.assert_allclose(point.x, x, rtol=1e-12, atol=1e-13)
        assert point.kind == KINDS[known["type"]]
        np.testing.assert_allclose(
            point.value, float(known["f"]), rtol=1e-12, atol=1e-12
        )
        scale = np.abs(np.array(known["hess_eigs"], float)).max()
        eigenvalues = np.sort(np.array(known["hess_eigs"], float))
        np.testing.assert_allclose(
            point.eigenvalues, eigenvalues, rtol=1e-7, atol=1e-11 * scale + 1e-50
        )


def test_himmelblau_has_four_minima_four_saddles_and_a_maximum():
    case = COMPLETE["himmelblau"]
    found = critical_points(function(case), grid_of_starts(case["box"], 6), case["box"])
    assert [p.kind for p in found] == ["minimum"] * 4 + ["saddle"] * 4 + ["maximum"]
    assert [p.value for p in found] == sorted(p.value for p in found)


# Every one is degenerate at 0; what it is follows by hand.
DEGENERATE = {
    "x⁴": (lambda x: x[0] ** 4, 1, 4, "a minimum"),
    "-x⁴": (lambda x: -(x[0] ** 4), 1, 4, "a maximum"),
    "x³": (lambda x: x[0] ** 3, 1, 3, "no extremum"),
    "x⁶": (lambda x: x[0] ** 6, 1, 0, "a minimum"),
    "monkey saddle": (lambda x: x[0] ** 3 - 3 * x[0] * x[1] ** 2, 2, 3, "no extremum"),
    # Peano: a minimum along every line through 0, and yet none; between the parabolas
    # it is negative.
    "Peano": (lambda x: (x[1] - x[0] ** 2) * (x[1] - 3 * x[0] ** 2), 2, 4, "a saddle"),
    "bent valley": (lambda x: (x[1] - x[0] ** 2) ** 2 + x[0] ** 4, 2, 4, "a minimum"),
    "x⁴ + y⁴": (lambda x: x[0] ** 4 + x[1] ** 4, 2, 4, "a minimum"),
    "x⁴ - y⁴": (lambda x: x[0] ** 4 - x[1] ** 4, 2, 4, "a saddle"),
    "x⁴ - y²": (lambda x: x[0] ** 4 - x[1] ** 2, 2, 4, "a saddle"),
    "both signs": (lambda x: x[0] ** 2 - x[1] ** 2 + x[2] ** 4, 3, 2, "a saddle"),
    "trough": (lambda x: x[0] ** 2 + 0 * x[1], 2, 0, "undecided"),
    "Powell": (
        lambda x: (
            (x[0] + 10 * x[1]) ** 2
            + 5 * (x[2] - x[3]) ** 2
            + (x[1] - 2 * x[2]) ** 4
            + 10 * (x[0] - x[3]) ** 4
        ),
        4,
        4,
        "a minimum",
    ),
}


@pytest.mark.on_ci("two more points", but="Peano|trough")
@pytest.mark.thorough("the other points", but="^-x|Peano|trough|both")
@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_point_is_what_higher_orders_say(name):
    f, n, order, note = DEGENERATE[name]
    point = classify_critical_point(f, jnp.zeros(n))
    assert point.kind == "degenerate"
    assert (point.order, point.newton_radius) == (order, 0)
    assert point.note.startswith(note)


def test_degenerate_point_is_seen_from_where_newton_s_method_stops():
    # Linear convergence ends short of 0, where the Hessian 12 x² is positive but no
    # word on a minimum.
    for offset in (1e-8, 1e-20, 0.0):
        assert (
            classify_critical_point(lambda x: x[0] ** 4, jnp.array([offset])).kind
            == "degenerate"
        )
    nearly = classify_critical_point(
        lambda x: x[0] ** 4 + 1e-6 * x[0] ** 2, jnp.array([0.0])
    )
    assert nearly.kind == "minimum"


def test_ill_conditioned_minimum_is_not_degenerate():
    assert (
        classify_critical_point(
            lambda x: 1e8 * x[0] ** 2 + 1e-2 * x[1] ** 2, jnp.zeros(2)
        ).kind
        == "minimum"
    )


@pytest.mark.thorough("the other function", but="himmelblau")
@pytest.mark.parametrize("name", ["himmelblau", "three_hump_camel"])
def test_newton_s_method_converges_from_within_its_estimated_radius(name):
    # Plain steps, from sixteen points at 0.99 of the radius around each critical point.
    case = COMPLETE[name]
    f = function(case)
    step = jax.jit(
        jax.vmap(lambda x: x - jnp.linalg.solve(jax.hessian(f)(x), jax.grad(f)(x)))
    )
    angle = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    for point in critical_points(f, grid_of_starts(case["box"], 12), case["box"]):
        x = point.x + 0.99 * point.newton_radius * ring
        for _ in range(30):
            x = step(x)
        np.testing.assert_allclose(x, np.broadcast_to(point.x, x.shape), atol=1e-9)


@pytest.mark.on_ci(
    "four searches; test_a_plateau_by_rounding_is_no_critical_point has a flat tail, "
    "test_a_slope_that_goes_on_where_the_hessian_is_zero_is_no_critical_point a "
    "slope, and test_what_became_of_every_start_is_told a point outside"
)
def test_flat_tails_slopes_and_outside_points_are_no_critical_points():
    bounds = [(-30.0, 2.0)]
    starts = grid_of_starts(bounds, 9)
    assert critical_points(lambda x: jnp.exp(x[0]), starts, bounds) == ()
    # Newton's steps there are all of length 1: after 200 the gradient is below 1e-100,
    # and still it is no critical point.
    assert (
        critical_points(
            lambda x: jnp.exp(x[0]), grid_of_starts([(-100.0, 2.0)], 9), [(-400.0, 2.0)]
        )
        == ()
    )
    assert critical_points(lambda x: 3 * x[0], starts, bounds) == ()
    assert critical_points(lambda x: (x[0] - 5) ** 2, starts, bounds) == ()


@pytest.mark.thorough(
    "scales of f alone; test_points_scale_with_the_coordinates_and_kinds_stay scales f "
    "and x"
)
def test_kinds_and_places_do_not_depend_on_the_scale_of_f():
    case = COMPLETE["three_hump_camel"]
    starts, f = grid_of_starts(case["box"], 12), function(case)
    plain = critical_points(f, starts, case["box"])
    for scale in (1e-12, 1e12):
        scaled = critical_points(
            lambda x, scale=scale: scale * f(x), starts, case["box"]
        )
        assert [p.kind for p in scaled] == [p.kind for p in plain]


def test_function_of_one_number_is_classified():
    assert classify_critical_point(jnp.cos, 0.0).kind == "maximum"


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda: classify_critical_point(lambda x: x @ x, jnp.ones(2)),
            ValueError,
            "has length 2.83",
        ),
        (
            lambda: classify_critical_point(lambda x: x @ x, np.zeros(2, int)),
            NotInexactError,
            "got dtype int64",
        ),
        (
            lambda: classify_critical_point(jnp.sin, jnp.ones(2)),
            NotScalarError,
            "Use jacobian",
        ),
        (
            lambda: critical_points(jnp.sum, jnp.ones(2), [(0, 1), (0, 1)]),
            ValueError,
            "Pass [x] for one start",
        ),
        (
            lambda: critical_points(jnp.sum, jnp.ones((1, 2)), [(0, 1), (1, 1)]),
            ValueError,
            "low < high",
        ),
        (
            lambda: critical_points(jnp.sum, np.ones((1, 1), int), [(0, 1)]),
            NotInexactError,
            "starts must be floating",
        ),
        (
            lambda: critical_points(jnp.sum, jnp.ones((1, 1)), [(0, 1)], separation=0),
            ValueError,
            "separation=0",
        ),
    ],
)
def test_bad_input_is_named_with_what_to_do(call, error, words):
    with pytest.raises(error, match=re.escape(words)):
        call()


@pytest.mark.thorough("the other dtype", but="float64")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_slope_that_goes_on_where_the_hessian_is_zero_is_no_critical_point(dtype):
    bounds = [(-1.0, 1.0), (-10.0, 10.0)]
    starts = jnp.asarray(grid_of_starts(bounds, 3), dtype)
    assert critical_points(lambda x: x[0] + 1000 * x[1] ** 2, starts, bounds) == ()
    valley = critical_points(
        lambda x: (x[0] + 3 * x[1]) ** 2, starts, bounds
    )  # All of its bottom is critical.
    assert valley
    assert {point.kind for point in valley} == {"degenerate"}


def test_a_minimum_without_a_hessian_is_called_undecided():
    point = classify_critical_point(
        lambda x: jnp.sum(x**2 + (x**2) ** 1.25), jnp.zeros(2)
    )
    assert (point.kind, point.order, point.note) == (
        "degenerate",
        0,
        "undecided: the Hessian is not finite",
    )


def said(point):
    """minimum, maximum, saddle, no extremum or undecided, whichever way it is told."""
    words = point.note.partition(":")[0].removeprefix("a ").partition(" by ")[0]
    return words if point.kind == "degenerate" else point.kind


# Every one is degenerate, or not twice differentiable, at 0; what it is follows by
# hand.
HARD = {
    "x²y² - x⁶": (lambda x: x[0] ** 2 * x[1] ** 2 - x[0] ** 6, 2, "saddle"),
    "1e-5 x³ + x⁴": (lambda x: 1e-5 * x[0] ** 3 + x[0] ** 4, 1, "no extremum"),
    "|x|³": (lambda x: jnp.abs(x[0]) ** 3, 1, "minimum"),
    "x|x|": (lambda x: x[0] * jnp.abs(x[0]), 1, "no extremum"),
    "where(x > 0, x², -x²)": (
        lambda x: jnp.where(x[0] > 0, x[0] ** 2, -(x[0] ** 2)),
        1,
        "no extremum",
    ),
    "x⁵": (lambda x: x[0] ** 5, 1, "no extremum"),
    "-x⁶": (lambda x: -(x[0] ** 6), 1, "maximum"),
    "10x⁵ + x⁴": (lambda x: 10 * x[0] ** 5 + x[0] ** 4, 1, "minimum"),
    "sin x - x": (lambda x: jnp.sin(x[0]) - x[0], 1, "no extremum"),
    "x³y": (lambda x: x[0] ** 3 * x[1], 2, "saddle"),
    "x²y + y⁴": (lambda x: x[0] ** 2 * x[1] + x[1] ** 4, 2, "no extremum"),
    "Peano": (lambda x: (x[1] - x[0] ** 2) * (2 * x[0] ** 2 - x[1]), 2, "saddle"),
    "a valley that falls on one side": (
        lambda x: (x[1] - x[0] ** 2) ** 2 + x[0] ** 5,
        2,
        "no extremum",
    ),
    "a valley that falls": (lambda x: (x[1] - x[0] ** 2) ** 2 - x[0] ** 6, 2, "saddle"),
    "x⁴ - 3x²y² + y⁴": (
        lambda x: x[0] ** 4 - 3 * x[0] ** 2 * x[1] ** 2 + x[1] ** 4,
        2,
        "saddle",
    ),
    "x⁴ - 1.9x²y² + y⁴": (
        lambda x: x[0] ** 4 - 1.9 * x[0] ** 2 * x[1] ** 2 + x[1] ** 4,
        2,
        "minimum",
    ),
    "x² + y² - 3|xy|": (
        lambda x: x[0] ** 2 + x[1] ** 2 - 3 * jnp.abs(x[0] * x[1]),
        2,
        "saddle",
    ),
    "x² + y⁴ - z⁴": (lambda x: x[0] ** 2 + x[1] ** 4 - x[2] ** 4, 3, "saddle"),
}


@pytest.mark.thorough("the other points", but=r"falls\]")
@pytest.mark.parametrize("name", HARD)
def test_hard_point_is_never_called_what_it_is_not(name):
    # At 0, and at a random place in rotated coordinates of random scales. "undecided"
    # is no wrong kind.
    f, n, kind = HARD[name]
    assert said(classify_critical_point(f, jnp.zeros(n))) == kind
    random = np.random.default_rng(list(HARD).index(name))
    place = random.uniform(-2, 2, n)
    turned = jnp.asarray(
        np.linalg.qr(random.normal(size=(n, n)))[0] * 2.0 ** random.integers(-3, 4)
    )
    moved = classify_critical_point(lambda x: 3 * f(turned @ (x - place)) + 1, place)
    neither = {"saddle", "no extremum"}
    assert (
        said(moved) == kind
        or said(moved) == "undecided"
        or {said(moved), kind} <= neither
    )


def turned_in_a_plane(degrees):
    """f of x²y² - x⁶ in coordinates that are turned by an angle."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))

    def f(x):
        u, v = c * x[0] + s * x[1], c * x[1] - s * x[0]
        return u**2 * v**2 - u**6

    return f


FALLS_ALONG_A_LINE = {
    "x²y² - x⁶, turned by 22 degrees": turned_in_a_plane(22),
    "whole numbers": lambda x: (
        (x[0] + 2 * x[1]) ** 2 * (2 * x[0] - x[1]) ** 2 - (x[0] + 2 * x[1]) ** 6
    ),
    "two lines": lambda x: (x[0] ** 2 - 5 * x[1] ** 2) ** 2 - x[0] ** 6,
    "one line": lambda x: (x[1] - 0.3 * x[0]) ** 2 * (x @ x) - x[0] ** 6,
}


@pytest.mark.on_ci(
    "a fall along a line; test_hard_point_is_never_called_what_it_is_not has one "
    "along a curve"
)
@pytest.mark.thorough(
    "the other sign of each, and the other functions", but="two lines--1"
)
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name", FALLS_ALONG_A_LINE)
def test_a_fall_along_a_line_beside_the_grid_of_directions_is_no_minimum(name, sign):
    # The fourth derivative has one sign, and is 0 along the line.
    f = FALLS_ALONG_A_LINE[name]
    found = classify_critical_point(lambda x: sign * f(x), jnp.zeros(2))
    assert said(found) in ("saddle", "undecided")


@pytest.mark.thorough(
    "lines in space; "
    "test_a_fall_along_a_line_beside_the_grid_of_directions_is_no_minimum has lines in "
    "a plane"
)
@pytest.mark.parametrize("seed", range(4))
def test_a_fall_along_a_line_in_space_is_no_minimum(seed):
    turned = jnp.asarray(
        np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    )

    def f(x):
        u, v, w = turned @ x
        return u**2 * v**2 + (w**4 if seed % 2 else v**2 * w**2) - u**6

    assert said(classify_critical_point(f, jnp.zeros(3))) in ("saddle", "undecided")


def random_degenerate(rng):
    """(f, its critical point, what that is): powers of bent, skewed and scaled
    coordinates, at least one of them degenerate.
    """
    n = int(rng.integers(1, 4))
    kind = rng.choice(
        ["minimum", "maximum", "saddle" if n > 1 else "no extremum", "no extremum"]
    )
    exponents = np.where(rng.random(n) < 0.4, 2, 4)
    exponents[rng.integers(n)] = 3 if kind == "no extremum" else 4
    signs = {"minimum": np.ones(n), "maximum": -np.ones(n)}.get(
        kind, rng.choice([-1.0, 1.0], n)
    )
    if kind == "saddle":
        signs[rng.permutation(n)[:2]] = 1.0, -1.0
    factors = signs * 10.0 ** rng.uniform(-2, 2, n)
    skew = np.linalg.qr(rng.normal(size=(n, n)))[0] * rng.uniform(0.5, 2, n)
    bend = 0.5 * rng.normal(size=(n, n, n))
    place, scale = rng.uniform(-2, 2, n), 2.0 ** rng.integers(-4, 5, n)

    def f(x):
        y = (x - place) / scale
        u = skew @ y + jnp.einsum("kij,i,j->k", bend, y, y)
        return sum(
            c * u[i] ** int(p)
            for i, (c, p) in enumerate(zip(factors, exponents, strict=True))
        )

    return f, place, kind


@pytest.mark.thorough(
    "random points; test_hard_point_is_never_called_what_it_is_not turns, scales and "
    "moves one"
)
@pytest.mark.parametrize(
    "count", [2, pytest.param(10, marks=pytest.mark.thorough("eight points more"))]
)
def test_random_degenerate_points_are_never_called_what_they_are_not_seldom_undecided(
    count,
):
    rng, neither, undecided = (
        np.random.default_rng(0),
        {"saddle", "no extremum"},
        0,
    )
    for _ in range(count):
        f, place, kind = random_degenerate(rng)
        found = said(classify_critical_point(f, place))
        undecided += found == "undecided"
        assert found in (kind, "undecided") or {found, kind} <= neither
    assert undecided <= count / 5


def test_a_tiny_coefficient_counts_and_what_is_left_of_terms_that_cancel_does_not():
    assert (
        said(classify_critical_point(lambda x: 1e-30 * x**3 + x**4, 0.0))
        == "no extremum"
    )
    assert (
        said(classify_critical_point(lambda x: x**4 - 1e-20 * x**2, 0.0)) == "maximum"
    )
    # The second derivatives of the two terms differ by rounding, here to the wrong
    # side.
    for k in (39.7, 0.0263, 1 / 3e-3):
        f = lambda x, k=k: jnp.cosh(k * x) - (k * x) ** 2 / 2
        assert said(classify_critical_point(f, 0.0)) in ("minimum", "undecided")


@pytest.mark.thorough(
    "single points; test_points_scale_with_the_coordinates_and_kinds_stay scales a "
    "function"
)
def test_classifying_does_not_depend_on_the_units():
    assert classify_critical_point(lambda x: jnp.cos(2e6 * x), 0.0).kind == "maximum"
    assert (
        classify_critical_point(lambda x: 1e20 * (x**2 - 1e-20) ** 2, 1e-10).kind
        == "minimum"
    )
    for size in (1.0, 3.4e-10, 1e-15):
        well = lambda x, size=size: (size / x) ** 12 - (size / x) ** 6
        point = classify_critical_point(well, 2 ** (1 / 6) * size)
        assert point.kind == "minimum"
        assert (
            0.02 < point.newton_radius / size < 0.03
        )  # Sampled at quarters of an octave.
        with pytest.raises(ValueError, match="must be a critical point"):
            classify_critical_point(well, 2.5 * size)


@pytest.mark.thorough("the other functions", but="monkey")
@pytest.mark.parametrize("name", ["himmelblau", "monkey_saddle", "wood_pair_ill"])
def test_points_scale_with_the_coordinates_and_kinds_stay(name):
    case = COMPLETE[name]
    box, f = np.array(case["box"], float), function(case)
    plain = critical_points(f, grid_of_starts(box, 5), box)
    random = np.random.default_rng(0)
    height, lengths = (
        2.0 ** int(random.integers(-40, 41)),
        2.0 ** random.integers(-40, 41, case["n"]),
    )
    scaled = critical_points(
        lambda x: height * f(x / lengths),
        grid_of_starts(box, 5) * lengths,
        box * lengths[:, None],
        separation=1e-5 * 6 * lengths,
    )
    assert [point.kind for point in scaled] == [point.kind for point in plain]
    for one, other in zip(plain, scaled, strict=True):
        np.testing.assert_allclose(other.x / lengths, one.x, rtol=1e-14, atol=1e-15)


def test_no_coordinate_is_no_point():
    with pytest.raises(ValueError, match="at least one coordinate"):
        classify_critical_point(jnp.sum, jnp.zeros(0))


@pytest.mark.thorough(
    "Peano's valley; "
    "test_a_valley_that_narrows_faster_than_peano_s_is_followed_to_its_end has a "
    "narrower one"
)
def test_peano_s_point_is_found_from_near_it():
    f, bounds = HARD["Peano"][0], [(-1.0, 1.0), (-1.0, 1.0)]
    (point,) = critical_points(f, [[0.1, 0.1], [0.01, -0.02], [-0.3, 0.2]], bounds)
    np.testing.assert_allclose(point.x, 0, atol=1e-9)
    assert said(point) == "saddle"


@pytest.mark.thorough("the other power", but="3")
@pytest.mark.parametrize("power", [3, 4])
def test_a_valley_that_narrows_faster_than_peano_s_is_followed_to_its_end(power):
    # Along the valley the curvature falls below ε times that across it, long before 0.
    f = lambda x: (x[1] - x[0] ** power) * (x[1] - 2 * x[0] ** power)
    random = np.random.default_rng(0)
    near = [size * random.uniform(-1, 1, (8, 2)) for size in (1e-4, 1e-2, 0.1, 0.9)]
    found = critical_points(f, np.concatenate(near), [(-1.0, 1.0)] * 2)
    (point,) = found
    np.testing.assert_allclose(point.x, 0, atol=1e-9)
    assert (found.converged, said(point)) == (32, "saddle")


def test_nothing_is_critical_where_f_is_not_finite_nor_beside_it():
    # where() takes the constant branch at x, whose gradient is 0.
    for value in (jnp.nan, jnp.inf):
        f = lambda x, v=value: jnp.where(x[0] == 0.25, v, (x[0] - 0.25) ** 2)
        with pytest.raises(ValueError, match=r"f must be finite at x; got f\(x\)="):
            classify_critical_point(f, jnp.array([0.25]))
    # The zero of the gradient is hidden: the points beside the gap have a slope.
    f = lambda x: jnp.where(jnp.abs(x[0] - 0.1) < 1e-3, jnp.nan, (x[0] - 0.1) ** 2)
    bounds = [(-1.0, 1.0)]
    assert critical_points(f, grid_of_starts(bounds, 11), bounds) == ()


@pytest.mark.thorough("the other functions", but="cubic")
@pytest.mark.parametrize("name", ["cubic", "quintic", "valley"])
def test_a_gradient_that_only_comes_near_0_has_no_zero(name):
    for slope in (1e-4, 1e-9, 1e-12):
        f, n = {
            "cubic": (lambda x, e=slope: x[0] ** 3 / 3 + e * x[0], 1),
            "quintic": (lambda x, e=slope: (x[0] - 0.3) ** 5 + e * x[0], 1),
            "valley": (
                lambda x, e=slope: (
                    (x[1] - x[0] ** 2) ** 2 + (x[0] - 0.3) ** 3 + e * x[0]
                ),
                2,
            ),
        }[name]
        bounds = [(-1.0, 1.0)] * n
        found = critical_points(f, grid_of_starts(bounds, 5), bounds)
        assert (found, found.converged) == ((), 0), found.text()


@pytest.mark.thorough(
    "zeros of orders 2 to 8; test_a_flat_minimum_is_no_plateau finds two of orders 3 "
    "and 7"
)
def test_zeros_of_high_multiplicity_are_still_found():
    for power in (3, 4, 6, 9):
        (point,) = critical_points(
            lambda x, power=power: (x[0] - 0.3) ** power,
            [[0.9], [-0.5]],
            [(-1.0, 1.0)],
        )
        assert point.x[0] == pytest.approx(0.3, abs=1e-3)
        assert said(point) in ("no extremum" if power % 2 else "minimum", "undecided")


def test_what_became_of_every_start_is_told():
    bounds = [(-1.0, 1.0)]
    nowhere = critical_points(
        lambda x: jnp.where(x[0] > 0, x[0] ** 2, jnp.nan),
        grid_of_starts(bounds, 5),
        bounds,
    )
    assert (nowhere, nowhere.starts, nowhere.not_finite) == ((), 5, 5)
    assert "not finite" in nowhere.text()
    ramp = critical_points(
        lambda x: jnp.maximum(x[0], 0), grid_of_starts(bounds, 6), bounds
    )
    assert (ramp, ramp.flat, ramp.stalled) == ((), 3, 3)
    far = critical_points(lambda x: (x[0] - 5) ** 2, grid_of_starts(bounds, 6), bounds)
    assert (far, far.outside) == ((), 6)
    one = critical_points(lambda x: (x[0] - 0.3) ** 2, [[0.3]], bounds)
    assert (len(one), one.converged) == (1, 1)
    assert str(one).startswith("1 critical point found from 1 start")


def test_values_that_contradict_the_derivative_decide_nothing():
    lying = lambda x: x[0] ** 2 - 2 * jax.lax.stop_gradient(x[0] ** 2)
    assert said(classify_critical_point(lying, jnp.zeros(1))) == "undecided"


def test_one_program_is_compiled_for_all_points():
    case, counted = COMPLETE["himmelblau"], []
    f = function(case)
    found = critical_points(
        lambda x: counted.append(1) or f(x), grid_of_starts(case["box"], 6), case["box"]
    )
    assert len(found) == 9
    assert (
        len(counted) <= 2
    )  # Traced once, by the one program; a trace for each point would be nine.


def test_a_jitted_function_is_compiled_once_for_all_calls():
    counted, scale = [], [1.0]
    own = lambda x: counted.append(1) or scale[0] * jnp.sum(x**4 + x**2)
    jitted = jax.jit(own)
    for x in (jnp.zeros(2), jnp.zeros(())):
        first = classify_critical_point(jitted, x)
        count = len(counted)
        again = classify_critical_point(jitted, x)
        assert len(counted) == count
        np.testing.assert_array_equal(again.eigenvalues, first.eigenvalues)
    # A function that is not jitted may read a variable that has changed.
    before = classify_critical_point(own, jnp.zeros(2)).eigenvalues
    scale[0] = 3.0
    after = classify_critical_point(own, jnp.zeros(2)).eigenvalues
    np.testing.assert_allclose(after, 3 * before)


def test_a_search_says_how_many_points_it_has_missed():
    # cos x has critical points at -π, 0 and π; one start finds one of them.
    f = lambda x: jnp.cos(x[0]) + x[1] ** 2
    bounds, start = [(-4.0, 4.0), (-1.0, 1.0)], [[0.1, 0.1]]
    found = critical_points(f, start, bounds, prove_seconds=60.0)
    assert (len(found), found.missed, found.unexplored) == (1, 2, 0)
    assert "2 more are proved to lie inside the bounds, and there are no" in str(found)
    assert pickle.loads(pickle.dumps(found)).missed == 2
    assert critical_points(f, start, bounds).missed is None


def test_a_point_is_classified_in_the_precision_of_jax(float64_off):
    with float64_off:
        f = lambda x: (x[0] - 1) ** 4
        kinds = [
            classify_critical_point(f, x).kind
            for x in (np.array([1.0]), jnp.array([1.0]))
        ]
    assert kinds[0] == kinds[1]


@pytest.mark.thorough(
    "double zeros; "
    "test_a_tiny_coefficient_counts_and_what_is_left_of_terms_that_cancel_does_not has "
    "a derivative whose sign rounding changes"
)
def test_a_double_zero_that_rounding_has_split_is_no_minimum():
    found = 0
    for a in np.random.default_rng(4).uniform(-1.5, 1.5, 12):
        slope = np.polynomial.Polynomial([-a, 1]) ** 2  # Of (x - a)³ / 3, expanded.
        coefficients = jnp.asarray(slope.integ().coef[::-1])
        f = lambda x, c=coefficients: jnp.polyval(c, x[0])
        points = critical_points(f, np.linspace(-2, 2, 12)[:, None], [(-2.5, 2.5)])
        assert {said(point) for point in points} <= {"no extremum", "undecided"}
        found += len(points)
    assert found >= 10


@pytest.mark.on_ci("882 starts; nothing shorter has a search that stops early")
def test_a_search_that_stopped_early_gives_no_second_point():
    centre = jnp.array([0.5223217, 0.90674041])
    f = lambda x: (
        jnp.sum((x - centre) ** 2) / 2
        + jnp.sum(jnp.abs(x)) / 2
        + 0.3 * jnp.sin(3 * x[0] * x[1])
    )
    bounds = [(-2.0, 2.0)] * 2
    for separation in (None, 1e-9):
        options = {} if separation is None else {"separation": separation}
        found = critical_points(f, grid_of_starts(bounds, 21), bounds, **options)
        assert [point.kind for point in found] == ["minimum", "saddle"] * 2


PLATEAUS = {
    "relu": lambda x: jax.nn.relu(x[0] - 1.3),
    "floor": lambda x: jnp.floor(x[0]),
    "hinges": lambda x: jnp.sum(jax.nn.relu(jnp.array([1.0, -0.7]) * x[0] - 0.2)),
}


@pytest.mark.parametrize("name", PLATEAUS)
def test_a_plateau_has_no_point_even_close_to_its_edge(name):
    bounds = [(-2.0, 3.0)]
    found = critical_points(PLATEAUS[name], grid_of_starts(bounds, 41), bounds)
    assert not found
    assert found.flat


def test_a_flat_minimum_is_no_plateau():
    for f in (lambda x: 1 + x[0] ** 4, lambda x: x[0] ** 8 - 3):
        found = critical_points(f, grid_of_starts([(-2.0, 3.0)], 11), [(-2.0, 3.0)])
        assert [said(point) for point in found] == ["minimum"]


BOWL = np.random.default_rng(3)
BOWLS = [
    (a @ a.T + 0.3 * np.eye(2), BOWL.normal(size=2), 10.0 ** BOWL.uniform(-6, -1))
    for a in BOWL.normal(size=(6, 2, 2))
]
BREAKS = {
    "kink": lambda x, way, height: -height * jax.nn.relu(way @ x),
    "jump": lambda x, way, height: -height * (way @ x > 0),
    "other value": lambda x, way, height: height * jnp.all(x == 0),
}


@pytest.mark.thorough(
    "six bowls with each, and another value at the point; "
    "test_large_distances_do_not_decide_where_f_is_rough has kinks and jumps"
)
@pytest.mark.parametrize("name", BREAKS)
def test_a_point_at_a_kink_or_a_jump_is_no_minimum(name):
    # f falls on one side, or f is higher at the point than around it.
    for hessian, way, height in BOWLS:
        f = lambda x, h=hessian, a=way, k=height: (
            0.5 * x @ h @ x + BREAKS[name](x, a, k)
        )
        point = classify_critical_point(f, jnp.zeros(2))
        assert (point.kind, point.note[:9]) == ("degenerate", "undecided")


def test_search_lists_no_minimum_at_a_kink():
    f = lambda x: x[0] ** 2 - 0.1 * jax.nn.relu(x[0])
    bounds = [(-1.0, 1.3)]
    found = critical_points(f, grid_of_starts(bounds, 5), bounds)
    (minimum,) = [point for point in found if point.kind == "minimum"]
    assert minimum.x == pytest.approx([0.05])


@pytest.mark.thorough("the other heights", but="1.3")
@pytest.mark.parametrize("height", [1.3, 1.6, 2.0, 2.9, 4.0])
def test_a_narrow_maximum_in_a_wide_bowl_is_one(height):
    f = lambda x: 0.5 * x**2 + height / 2500 * jnp.exp(-1250 * x**2)
    point = classify_critical_point(f, 0.0)
    assert point.kind == "maximum"
    assert point.eigenvalues == pytest.approx([1 - height])


def wedge(x):
    return jax.nn.relu(jnp.minimum(x[0], x[1]))


ROUGH = {
    # At the point, f falls to one side, or in a wedge between the axes.
    "kink between two parabolas": (
        lambda x: jnp.where(x > 1, 3 * (x - 1) ** 2 - 0.01 * (x - 1), (x - 1) ** 2),
        1.0,
    ),
    "power 3/2": (
        lambda x: x**2 - 0.1 * jnp.where(x > 0, jnp.where(x > 0, x, 1.0) ** 1.5, 0.0),
        0.0,
    ),
    "kink in a wedge": (
        lambda x: x[0] ** 2 + 2 * x[1] ** 2 - 0.05 * wedge(x),
        jnp.zeros(2),
    ),
    "jump in a quadrant": (
        lambda x: jnp.sum((x - 0.5) ** 2) - 0.05 * ((x[0] > 0.5) & (x[1] > 0.5)),
        jnp.full(2, 0.5),
    ),
}


@pytest.mark.on_ci(
    "the kink; test_search_lists_no_minimum_at_a_kink has another", but="jump"
)
@pytest.mark.thorough("the other functions", but="jump|parabolas")
@pytest.mark.parametrize("name", ROUGH)
def test_large_distances_do_not_decide_where_f_is_rough(name):
    f, x = ROUGH[name]
    point = classify_critical_point(f, x)
    assert point.kind == "degenerate"
    assert point.note.startswith(("undecided", "no extremum"))


@pytest.mark.on_ci(
    "points closer than the separation; "
    "test_a_search_says_how_many_points_it_has_missed counts others"
)
@pytest.mark.thorough("the other distances", but="3e-06")
@pytest.mark.parametrize("apart", [1e-6, 3e-6, 1e-5])
def test_a_listed_point_accounts_for_one_proved_point(apart):
    # A maximum between two minima, closer together than `separation` lists them.
    f = lambda x: ((x[0] - 0.3) ** 2 / apart**2 - 1) ** 2
    bounds = [(-1.0, 1.0)]
    starts = grid_of_starts(bounds, 9)
    found = critical_points(f, starts, bounds, prove_seconds=60.0)
    assert len(found) + found.missed == 3
    assert (found.unexplored, found.around) == (0, 0)


def test_others_may_lie_around_a_degenerate_point():
    bounds = [(-1.0, 1.0)]
    starts = grid_of_starts(bounds, 9)
    found = critical_points(lambda x: x[0] ** 4, starts, bounds, prove_seconds=60.0)
    assert (len(found), found.missed, found.unexplored, found.around) == (1, 0, 0, 1)
    assert str(found).endswith("and 1 box around listed points may contain others.")
    assert pickle.loads(pickle.dumps(found)).around == 1


@pytest.mark.on_ci("36 starts; nothing shorter has a stiff valley")
@pytest.mark.thorough("the other tilts and scales", but="1e-07-40")
@pytest.mark.parametrize("exponent", [-60, 0, 40])
@pytest.mark.parametrize("tilt", [1e-7, 1e-8])
def test_a_stiff_curved_valley_has_a_minimum_and_a_saddle(tilt, exponent):
    f = lambda x: 2.0**exponent * ((x @ x - 1) ** 2 + tilt * x[0])
    bounds = [(-2.0, 2.1), (-2.0, 2.2)]
    found = critical_points(f, grid_of_starts(bounds, 6), bounds)
    assert [point.kind for point in found] == ["minimum", "saddle", "maximum"]


def test_the_rounding_of_steps_does_not_look_like_a_kink():
    f = lambda x: 1e-8 * x[0] ** 2 + (x[1] - 1.3 - x[0] ** 2) ** 2
    assert classify_critical_point(f, jnp.array([0.0, 1.3])).kind == "minimum"


@pytest.mark.on_ci(
    "a sector that begins at the point; "
    "test_large_distances_do_not_decide_where_f_is_rough has a jump in a quadrant"
)
@pytest.mark.thorough("the other sectors", but="2.0-30.0-1.2")
@pytest.mark.parametrize("angle", np.linspace(0.0, 3.0, 6))
@pytest.mark.parametrize(("slope", "depth"), [(2.0, 30.0), (4.0, 30.0), (6.0, 100.0)])
def test_a_sector_in_which_f_falls_is_found(slope, depth, angle):
    """At a tie of jnp.maximum the Hessian is arbitrary, and f is no sum of squares."""
    c, s = np.cos(angle), np.sin(angle)
    turn = jnp.asarray([[c, -s], [s, c]])

    def f(x):
        a, b = turn @ x
        return a**2 + b**2 - depth * jnp.maximum(b - slope * jnp.abs(a), 0) ** 2

    found = classify_critical_point(f, jnp.zeros(2))
    assert found.note.startswith(("no extremum", "undecided"))


BESIDE_A_CURVE = {
    "ring": (lambda x: (jnp.sum(x**2) - 1) ** 2, np.array([0.6, 0.8])),
    "sphere": (lambda x: (jnp.sum(x**2) - 1) ** 2, np.array([0.48, 0.64, 0.6])),
    "hyperbola": (lambda x: (x[0] * x[1] - 1) ** 2, np.array([2.0, 0.5])),
}


@pytest.mark.on_ci(
    "six points beside a ring; "
    "test_a_slope_that_goes_on_where_the_hessian_is_zero_is_no_critical_point has a "
    "valley all of whose bottom is critical"
)
@pytest.mark.thorough("the other curves, and maxima", but="ring-1")
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name", BESIDE_A_CURVE)
def test_point_beside_a_curve_of_extrema_is_not_called_a_strict_one(name, sign):
    # The Hessian beside the curve has an eigenvalue of either sign, as at a saddle.
    f, on_curve = BESIDE_A_CURVE[name]
    for exponent in (8, 10, 13):
        for side in (1, -1):
            x = on_curve * (1 + side * 10.0**-exponent)
            point = classify_critical_point(lambda x: sign * f(x), jnp.asarray(x))
            assert point.kind == "degenerate", (exponent, point)
            assert point.note.startswith("undecided"), (exponent, point)


SQUARES_THAT_UNDERFLOW = {  # Saddles; at a tie of two zeros, JAX's Hessian is definite.
    "max": lambda a, b: jnp.maximum(a - 2 * b, b - 2 * a),
    "min": lambda a, b: jnp.minimum(3 * a - b, 3 * b - a),
    "relu": lambda a, b: jax.nn.relu(a - b) - 0.3 * (a + b),
}


@pytest.mark.on_ci("squares of float32 that underflow; nothing shorter has them")
@pytest.mark.thorough("the other functions, and points in float32", but="max-True")
@pytest.mark.parametrize("is_inside", [False, True])
@pytest.mark.parametrize("name", SQUARES_THAT_UNDERFLOW)
def test_squares_that_underflow_in_float32_decide_nothing(name, is_inside):
    def f(x):
        x = x.astype(jnp.float32)
        return SQUARES_THAT_UNDERFLOW[name](*(x * x)).astype(dtype)

    dtype = jnp.float64 if is_inside else jnp.float32
    point = classify_critical_point(f, jnp.zeros(2, dtype))
    assert said(point) in ("saddle", "undecided"), point


@pytest.mark.thorough(
    "Hessians with zeros on the diagonal; "
    "test_himmelblau_has_four_minima_four_saddles_and_a_maximum has other saddles"
)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_saddle_whose_hessian_has_zeros_on_its_diagonal_is_regular(dtype):
    random = np.random.default_rng(0)
    for _ in range(6):
        p, q, a, b = random.normal(size=4).astype(dtype)
        long = np.hypot(a, b)
        on_circle = np.array([-a / long, -b / long, long / 2])
        saddles = (  # A bilinear game, and points of two Lagrangians.
            (lambda z: (z[0] - p) * (z[1] - q), np.array([p, q])),  # noqa: B023
            (
                lambda z: z[0] ** 2 / 2 + z[1] * (z[0] - p),  # noqa: B023
                np.array([p, -p]),
            ),
            (
                lambda z: (
                    a * z[0] + b * z[1] + z[2] * (z[0] ** 2 + z[1] ** 2 - 1)  # noqa: B023
                ),
                on_circle,
            ),
        )
        for f, x in saddles:
            point = classify_critical_point(f, jnp.asarray(x, dtype))
            assert point.kind == "saddle", point


VALLEY = [(1e-6, 0.0), (1e-8, 100.0), (0.0, 0.0)]


@pytest.mark.on_ci("the other valleys", but="1e-06")
@pytest.mark.parametrize(("curvature", "level"), VALLEY)
def test_a_saddle_whose_curvature_float32_hides_is_no_minimum(curvature, level):
    """Along (1, -2), f - level is 9 t² (9 t² - curvature), in float32 without noise."""

    def f(z):
        along, across = z[0] - z[1], 2 * z[0] + z[1]
        return across**2 - curvature * along**2 + along**4 + level

    point = classify_critical_point(f, jnp.zeros(2, jnp.float32))
    assert point.kind == "degenerate"
    assert point.note == (
        "undecided: values in float32 show a minimum, but the Hessian in float64 shows "
        "a saddle"
        if curvature
        else "a minimum by the fourth derivative"
    )


@pytest.mark.parametrize(
    ("a", "sign", "b"), [(4, 1, 2), (4, -1, 4), (2, -1, 4), (3, 1, 4), (6, 1, 4)]
)
@pytest.mark.parametrize("centre", [0.0, -1.0])
def test_an_exponent_that_is_a_float_changes_nothing(a, sign, b, centre):
    """The derivative of x**4.0 is 4.0 x**(4.0 - 1.0), with a computed exponent."""
    at = jnp.array([centre, centre])
    whole, broken, of_array = (
        classify_critical_point(f, at)
        for f in (
            lambda x: (x[0] - centre) ** a + sign * (x[1] - centre) ** b,
            lambda x: (x[0] - centre) ** float(a) + sign * (x[1] - centre) ** float(b),
            lambda x: jnp.array([1, sign]) @ (x - at) ** np.array([a, b]),
        )
    )
    assert (broken.kind, broken.note) == (whole.kind, whole.note)
    assert (of_array.kind, of_array.note) == (whole.kind, whole.note)
    assert "undecided" not in whole.note


def test_an_f_that_accepts_only_float32_is_classified():
    f = lambda x: jax.lax.mul(x[0], jnp.float32(2)) ** 4
    point = classify_critical_point(f, jnp.zeros(1, jnp.float32))
    assert point.note == "a minimum by the fourth derivative"


@pytest.mark.thorough("the other scales", but="6.6e-34")
@pytest.mark.parametrize("scale", [1.0, 1e-20, 6.6e-34])
def test_a_kink_in_float32_is_no_minimum_whatever_the_scale_of_f(scale):
    f = lambda x: jnp.float32(scale) * jnp.sum(x * x - 0.05 * jnp.maximum(x, -x))
    point = classify_critical_point(f, jnp.zeros(1, jnp.float32))
    assert said(point) in ("maximum", "undecided"), point


@pytest.mark.thorough(
    "points to eight digits; test_point_beside_a_degenerate_minimum_is_the_minimum has "
    "points as close"
)
@pytest.mark.parametrize("power", [4, 6])
def test_point_to_eight_digits_beside_a_flat_direction_is_not_refused(power):
    for seed in range(3):
        random = np.random.default_rng(seed)
        at, (a, b) = random.uniform(-2, 2, 2), random.uniform(0.5, 2, 2)
        f = lambda x: a * (x[0] - at[0]) ** power + b * (x[1] - at[1]) ** 2  # noqa: B023
        point = classify_critical_point(f, jnp.array([float(f"{v:.8g}") for v in at]))
        assert said(point) in ("minimum", "undecided"), point
        np.testing.assert_allclose(point.x, at, atol=1e-8)


@pytest.mark.thorough("the other power", but="4")
@pytest.mark.parametrize("power", [4, 6])
def test_point_beside_a_degenerate_minimum_is_the_minimum(power):
    f = lambda x: x[0] ** power + x[1] ** 2
    for exponent in (8, 10, 12):
        point = classify_critical_point(f, jnp.array([10.0**-exponent, 0.0]))
        assert point.note.startswith("a minimum"), (exponent, point)


@pytest.mark.on_ci(
    "a small eigenvalue; test_point_beside_a_degenerate_minimum_is_the_minimum has "
    "an eigenvalue of 0"
)
def test_point_beside_a_minimum_with_a_small_eigenvalue_is_the_minimum():
    # The small eigenvalue is negative at the given point.
    f = lambda x: x[1] ** 2 + x[1] * x[0] ** 2 + 1e-9 * x[0] ** 2
    for height in (-1e-8, -1e-9, 1e-8):
        point = classify_critical_point(f, jnp.array([0.0, height]))
        assert point.kind == "minimum", (height, point)


def test_short_gradient_without_a_zero_nearby_is_named():
    f = lambda x: (x[1] - x[0] ** 2) * (x[1] - 2 * x[0] ** 2)
    with pytest.raises(ValueError, match="no zero of the gradient was found near x"):
        classify_critical_point(f, jnp.array([1e-6, 1.5e-12]))


def test_pytree_is_refused_with_how_to_flatten_it():
    with pytest.raises(TypeError, match="ravel_pytree"):
        classify_critical_point(lambda p: p["a"] ** 2, {"a": jnp.zeros(2)})


def test_points_further_apart_than_the_separation_stay_apart_near_0():
    f = lambda x: jnp.sum(jnp.cos(1e6 * x))
    starts = np.linspace(-1e-5, 1e-5, 41)[:, None]
    found = critical_points(f, starts, [(-1.0, 1.0)], separation=1e-8)
    x = np.sort([float(p.x[0]) for p in found])
    inside = x[np.abs(x) < 1e-5]
    np.testing.assert_allclose(inside, np.pi * 1e-6 * np.arange(-3, 4), atol=1e-12)


@pytest.mark.on_ci("the other powers and distances", but=r"1e-05-6\]")
@pytest.mark.parametrize("power", [6, 10])
@pytest.mark.parametrize("beyond", [1e-5, 3e-4])
def test_a_point_outside_the_bounds_is_not_listed(power, beyond):
    f = lambda x: jnp.sum((x - 1.0 - beyond) ** power)
    bounds = [(0.0, 1.0)]
    found = critical_points(f, grid_of_starts(bounds, 4), bounds)
    assert not found
    wide = [(0.0, 1.0 + 2 * beyond)]
    assert critical_points(f, grid_of_starts(wide, 4), wide)


def test_the_error_of_a_rise_contains_the_rounding_errors_of_the_gradient():
    # Σ (x + c)² - 2 c x - c² is Σ x², but its terms cancel, so the gradient has large
    # rounding errors. Four times the error is what critical_points allows.
    c = 10.0
    land = Landscape(
        lambda x: jnp.cosh(jnp.sum((x + c) ** 2 - 2 * c * x - c * c)),
        np.ones(2),
        np.dtype(float),
    )
    steps = 0.03 * np.random.default_rng(0).standard_normal((400, 2))
    rise, error, _ = land.rise(np.zeros(2), steps)
    squares = np.sum(np.asarray(steps, np.longdouble) ** 2, axis=1)
    exact = 2 * np.sinh(squares / 2) ** 2  # cosh z - 1
    assert np.mean(np.abs(rise - exact) > 4 * error) < 0.2


@pytest.mark.on_ci(
    "two and three coordinates; "
    "test_a_tiny_coefficient_counts_and_what_is_left_of_terms_that_cancel_does_not "
    "has a tiny cube in one"
)
@pytest.mark.parametrize(
    ("f", "n"),
    [
        pytest.param(
            lambda x: x[0] ** 4 + x[1] ** 4 + 1e-20 * x[0] ** 3, 2, id="1e-20 cube"
        ),
        pytest.param(
            lambda x: x[0] ** 4 + x[1] ** 4 + 1e-50 * x[0] ** 3, 2, id="1e-50 cube"
        ),
        pytest.param(
            lambda x: x[0] ** 4 + 2 * x[1] ** 4 + 1e-18 * x[0] ** 2 * x[1],
            2,
            id="1e-18 mixed",
        ),
        pytest.param(
            lambda x: jnp.sum(x**4) + 1e-25 * x[0] * x[1] * x[2], 3, id="1e-25 xyz"
        ),
    ],
)
def test_a_tiny_cube_beside_fourth_powers_is_no_extremum(f, n):
    note = classify_critical_point(f, jnp.zeros(n)).note
    assert note == "no extremum: the third derivative does not vanish"


@pytest.mark.on_ci("three coordinates; nothing shorter has a saddle with a slope")
def test_a_saddle_of_two_coordinates_is_no_saddle_if_f_slopes_along_the_third():
    slope = lambda x: x[0] ** 2 - x[1] ** 2 + 1e-7 * x[2]
    with pytest.raises(ValueError, match="no zero of the gradient was found near x"):
        classify_critical_point(slope, jnp.zeros(3))
    cube = lambda x: x[0] ** 2 - x[1] ** 2 + x[2] ** 3
    assert classify_critical_point(cube, jnp.zeros(3)).note.startswith("a saddle")


@pytest.mark.on_ci("the other plateau", but="tanh")
@pytest.mark.parametrize(
    ("f", "bounds"),
    [(jnp.tanh, (-50.0, 51.0)), (jax.nn.sigmoid, (-100.0, 50.0))],
    ids=["tanh", "sigmoid"],
)
def test_a_plateau_by_rounding_is_no_critical_point(f, bounds):
    found = critical_points(lambda x: f(x[0]), grid_of_starts([bounds], 41), [bounds])
    assert not list(found)
    assert found.converged == 0
    assert found.flat > 0


@pytest.mark.on_ci("the other power", but="3.95")
@pytest.mark.parametrize("power", [3.95, 4.05])
def test_a_power_beside_the_fourth_is_not_called_the_fourth_derivative(power):
    point = classify_critical_point(
        lambda x: jnp.sum(x**2) ** (power / 2), jnp.zeros(2)
    )
    assert point.kind == "degenerate"
    assert "fourth" not in point.note
    assert point.order == 0


def test_points_on_a_curve_of_minima_are_listed_whatever_the_rounding_of_the_gradient():
    bounds = [(-2.0, 2.0), (-2.0, 2.0)]
    valley = lambda x: (x[0] + x[1] - 1 / 3) ** 2
    found = critical_points(valley, grid_of_starts(bounds, 3), bounds)
    assert len(found) > 1
    assert found.flat == 0


@pytest.mark.on_ci(
    "12 programs; "
    "test_a_tiny_coefficient_counts_and_what_is_left_of_terms_that_cancel_does_not "
    "has a small square at 0, where floats are fine"
)
@pytest.mark.parametrize("power", [3, 4])
def test_square_is_not_overlooked_where_floats_are_coarse(power):
    """Closer to the point than the floats show well, the square decides."""
    random = np.random.default_rng(power)
    forms = {
        3: lambda u: u[0] ** 3 - 3 * u[0] * u[1] ** 2,
        4: lambda u: u[0] ** 4 + u[1] ** 4,
    }

    def f(x, point, turn, square):
        u = turn @ ((x - point) * 72.0)
        return forms[power](u) - square * (u @ u)

    for _ in range(12):
        angle = random.uniform(0, 6)
        cos, sin = np.cos(angle), np.sin(angle)
        turn = jnp.array([[cos, -sin], [sin, cos]])
        point = jnp.asarray(random.uniform(-1000, 1000, 2))
        square = 10 ** random.uniform(-9 if power == 3 else -16, -6)
        bound = functools.partial(f, point=point, turn=turn, square=square)
        found = classify_critical_point(bound, point, scale=0.0138)
        assert found.kind == "maximum" or "undecided" in found.note, (square, found)


@pytest.mark.parametrize(
    ("f", "reason"),
    [
        # A minimum with a kink: f is 1 + 2 |x| + x².
        (lambda x: jnp.maximum((x[0] - 1) ** 2, (x[0] + 1) ** 2), "too inexact, or ju"),
        (lambda x: jnp.maximum(x[0], 0.0) ** 2, "beyond rounding on some side"),
    ],
)
def test_a_note_does_not_say_that_f_is_constant_where_it_changes(f, reason):
    point, *_ = critical_points(f, jnp.array([[0.0]]), [(-2.0, 2.0)])
    assert point.kind == "degenerate"
    assert point.note.startswith("undecided: ")
    assert point.note.partition(reason)[1], point.note


def test_a_sign_varies_only_if_two_signs_were_seen():
    """As for (x² + y² - 1)², which is never negative, in float32."""
    assert sampling._run(["?", "rise", "?", "?"], 3) == (None, None)
    _, reason = sampling._run(["fall", "rise", "fall", "rise"], 3)
    assert reason == "the sign of the change of f varies with the distance"


def test_a_search_that_ends_at_a_flat_point_says_what_flat_means():
    found = critical_points(
        lambda p: p[0] ** 2 * p[1] ** 2,
        np.array([[0.5, 0.3]], np.float32),
        [(-2.0, 2.0), (-2.0, 2.0)],
    )
    assert (found, found.flat) == ((), 1)
    assert "or changes by less than its rounding errors" in found.text()
