"""Laws of limit_table: the U-curve has its bottom where theory says, and its two errors
account for what is seen.
"""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from research.derivatives import errors
from research.derivatives.limit import limit_table

# f, f' and a point where f, f' and the higher derivatives are of the order of 1, as the
# rule of thumb assumes.
FUNCTIONS = {
    "exp": (np.exp, np.exp, 1.0),
    "sin": (np.sin, np.cos, 1.0),
    "cos": (np.cos, lambda x: -np.sin(x), 0.7),
    "tan": (np.tan, lambda x: 1 + np.tan(x) ** 2, 0.5),
    "log": (np.log, lambda x: 1 / x, 2.0),
    "sqrt": (np.sqrt, lambda x: 0.5 / np.sqrt(x), 3.0),
    "fifth power": (lambda x: x**5, lambda x: 5 * x**4, 1.3),
    "reciprocal": (lambda x: 1 / x, lambda x: -1 / x**2, 1.7),
    "tanh": (np.tanh, lambda x: 1 - np.tanh(x) ** 2, 0.6),
    "sinh": (np.sinh, np.cosh, 1.2),
    "cosh": (np.cosh, np.sinh, 0.9),
    "arctan": (np.arctan, lambda x: 1 / (1 + x**2), 1.5),
    "bell": (lambda x: np.exp(-x * x), lambda x: -2 * x * np.exp(-x * x), 0.4),
    "witch": (lambda x: 1 / (1 + x * x), lambda x: -2 * x / (1 + x * x) ** 2, 0.8),
    "x exp": (lambda x: x * np.exp(x), lambda x: (1 + x) * np.exp(x), 0.5),
    "sigmoid": (
        lambda x: 1 / (1 + np.exp(-x)),
        lambda x: 0.25 / np.cosh(x / 2) ** 2,
        1.1,
    ),
    "softplus": (lambda x: np.log(1 + np.exp(x)), lambda x: 1 / (1 + np.exp(-x)), 0.3),
    "arcsinh": (np.arcsinh, lambda x: 1 / np.sqrt(1 + x * x), 1.4),
    "damped": (
        lambda x: np.sin(x) * np.exp(-x),
        lambda x: (np.cos(x) - np.sin(x)) * np.exp(-x),
        0.2,
    ),
    "logistic of square": (
        lambda x: 1 / (1 + np.exp(x * x)),
        lambda x: -0.5 * x / np.cosh(x * x / 2) ** 2,
        0.9,
    ),
}
SQUIRE_TRAPP = lambda x: np.exp(x) / np.sqrt(np.sin(x) ** 3 + np.cos(x) ** 3)
SQUIRE_TRAPP_SLOPE = 4.0534278938986206  # At 1.5, from 60 digits.
POWERS = {"forward": 1 / 2, "central": 1 / 3, "richardson": 1 / 5}


@pytest.mark.thorough(
    "the other schemes and dtypes", but="forward-float64|richardson-float32"
)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("scheme", POWERS)
def test_best_step_is_within_a_decade_of_theory_on_twenty_functions(scheme, dtype):
    theory = np.finfo(dtype).eps ** POWERS[scheme]
    off = {}
    for name, (f, _, x) in FUNCTIONS.items():
        table = limit_table(f, x, scheme, dtype=dtype)
        assert table.theory == pytest.approx(theory * max(x, 1.0))
        off[name] = np.log10(table.steps[table.best] / theory)
    assert len(off) == 20
    assert max(map(abs, off.values())) <= 1, off


SETTLED = {
    "underflow": (lambda z: 1e-300 * z, 1.0, math.nan),
    "fast": (lambda z: np.tanh(1e110 * z), 0.0, math.nan),
    "vertical": (np.sqrt, 0.0, math.nan),
    "zero": (lambda z: z**3, 0.0, 0.0),
    "even": (np.cos, 0.0, 0.0),
    "tiny place": (lambda z: z**2, 1e-95, 2e-95),
    "small": (lambda z: 1e-150 * np.sin(z), 1.0, 1e-150 * math.cos(1.0)),
    "large": (lambda z: 1e150 * np.exp(z), 1.0, 1e150 * math.e),
}


@pytest.mark.parametrize("name", SETTLED)
def test_limit_of_the_complex_step_is_the_derivative_or_nan(name):
    f, x, slope = SETTLED[name]
    found = limit_table(f, x, "complex").limit
    np.testing.assert_allclose(found, slope, rtol=1e-11, atol=1e-50 * (slope == 0))


@pytest.mark.on_ci(
    "the central difference and Richardson's", but="forward-float32|complex"
)
@pytest.mark.thorough(
    "the other dtype of each scheme",
    but="forward-float32|central-float64|richardson-float32|complex-float64",
)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("scheme", [*POWERS, "complex"])
def test_truncation_and_rounding_bound_the_error_at_every_step(scheme, dtype):
    for name, (f, slope, x) in FUNCTIONS.items():
        point = float(dtype(x))
        if name in ("arctan", "softplus") and scheme == "complex":
            continue  # A branch cut within the largest step.
        table = limit_table(f, x, scheme, dtype=dtype)
        error = np.abs(table.estimates - slope(point))
        bound = (
            table.truncation + 4 * table.rounding
        )  # A function of NumPy may be off by more than half a unit.
        assert np.all(error <= bound + 1e-12 * abs(slope(point))), name


@pytest.mark.parametrize("scheme", POWERS)
def test_truncation_and_rounding_are_not_far_above_the_error(scheme):
    table = limit_table(np.exp, 1.0, scheme)
    error = np.abs(table.estimates - math.e)
    large = (table.truncation > 100 * table.rounding) & (table.steps < 0.1)
    small = table.rounding > 100 * table.truncation
    assert np.median(table.truncation[large] / error[large]) < 2
    # The bound is of the largest rounding error, which is rarely met.
    assert np.median(table.rounding[small] / error[small]) < 50


@pytest.mark.parametrize("scheme", POWERS)
def test_error_falls_with_the_power_of_the_scheme_and_rises_as_one_over_the_step(
    scheme,
):
    table = limit_table(np.exp, 1.0, scheme, steps=np.logspace(-1, -15, 57))
    error = np.abs(table.estimates - math.e)
    power = {"forward": 1, "central": 2, "richardson": 4}[scheme]
    large, small = table.steps > 30 * table.theory, table.steps < table.theory / 100
    slope = np.polyfit(np.log(table.steps[large]), np.log(error[large]), 1)[0]
    assert slope == pytest.approx(power, rel=0.05)
    assert np.polyfit(np.log(table.steps[small]), np.log(error[small] + 1e-16), 1)[
        0
    ] == pytest.approx(-1, abs=0.35)


@pytest.mark.parametrize(
    ("scheme", "dtype", "step", "error"),
    [
        ("forward", np.float64, 1e-8, 2e-7),
        ("central", np.float64, 3.2e-6, 5e-11),
        ("richardson", np.float64, 1e-3, 5e-12),
        ("central", np.float32, 3.2e-3, 5e-4),
    ],
)
def test_squire_and_trapps_function_has_its_known_best_steps(
    scheme, dtype, step, error
):
    table = limit_table(SQUIRE_TRAPP, 1.5, scheme, dtype=dtype)
    assert 0.2 * step < table.steps[table.best] < 5 * step
    assert abs(table.estimates[table.best] - SQUIRE_TRAPP_SLOPE) < error


def test_tiny_step_loses_every_digit_and_the_complex_step_none():
    forward = limit_table(SQUIRE_TRAPP, 1.5, "forward", steps=[1e-15])
    assert abs(forward.estimates[0] / SQUIRE_TRAPP_SLOPE - 1) == pytest.approx(
        0.31, abs=0.01
    )
    complex_step = limit_table(
        SQUIRE_TRAPP, 1.5, "complex", steps=[1e-20, 1e-100, 1e-200]
    )
    np.testing.assert_allclose(complex_step.estimates, SQUIRE_TRAPP_SLOPE, rtol=4e-16)
    assert complex_step.theory == 0


@pytest.mark.parametrize("scheme", [*POWERS, "complex"])
def test_single_precision_is_computed_in_single_precision(scheme):
    seen = set()

    def f(x):
        seen.add(np.asarray(x).dtype)
        return np.exp(x)

    table = limit_table(f, 1.0, scheme, dtype=np.float32, steps=[1e-3])
    wanted = {np.dtype(np.complex64 if scheme == "complex" else np.float32)}
    assert wanted <= seen
    assert float(np.float32(table.estimates[0])) == table.estimates[0]
    if scheme == "forward":
        h, x = np.float32(1e-3), np.float32(1.0)
        assert table.estimates[0] == (np.exp(x + h) - np.exp(x)) / h


def test_quotients_of_a_line_have_no_truncation_and_of_a_kink_no_limit():
    assert not limit_table(lambda x: 2 * x, 1.0, "forward").truncation.any()
    kink = limit_table(np.abs, 0.0, "forward")
    assert np.isnan(kink.limit)
    assert np.all(kink.estimates == 1.0)


def test_functions_of_jax_and_large_points_are_tabulated():
    assert limit_table(jnp.sin, 1.0).estimates[12] == pytest.approx(
        math.cos(1.0), rel=1e-9
    )
    table = limit_table(np.sqrt, 2e6, "central")
    assert table.steps[0] == 1e6
    assert table.estimates[table.best] == pytest.approx(0.5 / math.sqrt(2e6), rel=1e-9)


@pytest.mark.parametrize(
    ("f", "x", "keywords", "error", "message"),
    [
        (
            np.sin,
            1.0,
            {"steps": [1e-3, 1e-17]},
            errors.StepUnderflowError,
            "step of 1e-17 at x=1.0",
        ),
        (
            np.sin,
            1.0,
            {"steps": [1e-9], "dtype": np.float32},
            errors.StepUnderflowError,
            "step of 1e-09",
        ),
        (np.sin, 1.0, {"steps": [1e-3, -1.0]}, ValueError, r"steps=\[0.001, -1.0\]"),
        (np.sin, 1.0, {"steps": []}, ValueError, "steps must be positive"),
        (np.sin, 1.0, {"scheme": "best"}, ValueError, "scheme='best'"),
        (
            np.sin,
            1.0,
            {"dtype": np.int32},
            ValueError,
            "dtype must be float64 or float32",
        ),
        (np.sin, np.ones(2), {}, TypeError, "x must be one real number"),
        (np.sin, (1.0, [2.0, 3.0]), {}, TypeError, "x must be one real number"),
        (np.sin, math.nan, {}, ValueError, "x must be finite; got x=nan"),
        (
            math.sin,
            1.0,
            {"dtype": np.float32},
            TypeError,
            "returns float64 for float32",
        ),
        (abs, 1.0, {"scheme": "complex"}, TypeError, "scheme='central'"),
        (lambda x: np.array([x, x]), 1.0, {}, errors.NotScalarError, r"shape \(2,\)"),
    ],
)
def test_bad_input_is_named_with_its_value_and_a_remedy(f, x, keywords, error, message):
    with pytest.raises(error, match=message):
        limit_table(f, x, **keywords)


def test_limit_is_nan_where_there_is_no_derivative():
    wave = lambda x: x * 0 if x == 0 else x * np.sin(2 * np.pi * np.log2(abs(x)))
    assert math.isnan(limit_table(wave, 0.0, "central", steps=[1e-1, 1e-4]).limit)


def test_printed_table_has_the_limit_a_row_for_each_step_and_a_mark_at_the_best():
    table = limit_table(np.sin, 1.0, "forward", steps=[1e-2, 1e-8, 1e-14])
    assert str(table) == f"{table}" == table.text()
    lines = table.text().splitlines()
    assert (
        lines[0]
        == "Limit: 0.540302305868. Best step: 1.0e-08; theory suggests 1.5e-08."
    )
    assert [line.split()[0] for line in lines[1:]] == [
        "step",
        "1.0e-02",
        "1.0e-08",
        "1.0e-14",
    ]
    assert [line.endswith("*") for line in lines[1:]] == [False, False, True, False]
    assert "none was found" in limit_table(np.abs, 0.0, "forward").text()
    assert (
        "any step that is small enough works"
        in limit_table(np.sin, 1.0, "complex").text()
    )


def test_the_complex_step_fits_the_point_and_the_value():
    flat = limit_table(lambda x: np.exp(-(x**2)), 25.0, "complex")
    np.testing.assert_allclose(flat.limit, -50 * np.exp(-625.0), rtol=1e-12)
    assert limit_table(np.log, 1e-120, "complex").limit == pytest.approx(1e120)


CANCELLING = {  # f by NumPy, and the first terms of its derivative near 0.
    "(1 - cos x) / x^2": (lambda x: (1 - np.cos(x)) / x**2, lambda x: -x / 12),
    "(exp x - 1) / x": (lambda x: (np.exp(x) - 1) / x, lambda x: 0.5 + x / 3),
    "log(1 + x) / x": (lambda x: np.log(1 + x) / x, lambda x: -0.5 + 2 * x / 3),
}


@pytest.mark.thorough("the other functions", but="log")
@pytest.mark.parametrize("name", CANCELLING)
def test_complex_step_loses_no_three_digits_inside_f_in_silence(name):
    f, series = CANCELLING[name]
    for x in np.geomspace(1e-5, 1e-3, 12):
        table = limit_table(f, float(x), "complex")
        truth, rest = series(x), x**2  # The terms that are left out are smaller.
        claimed = table.truncation[table.best] + table.rounding[table.best]
        if np.isfinite(table.limit):
            off = abs(table.estimates[table.best] - truth)
            assert off <= 10 * claimed + 1e-3 * abs(truth) + rest, (x, table.limit)


def test_complex_step_keeps_its_digits_where_nothing_cancels():
    for x in np.geomspace(1e-6, 10.0, 12):
        table = limit_table(np.sin, float(x), "complex")
        assert table.limit == pytest.approx(np.cos(x), rel=1e-14)
        assert table.rounding[table.best] <= 1e-15


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_complex_step_is_trusted_near_poles_far_from_zero_and_for_fast_waves(dtype):
    for f, slope, x in (
        (lambda z: 1 / (z - 1), lambda x: -1 / (x - 1) ** 2, 1 + 2.0**-16),
        (np.arcsin, lambda x: 1 / np.sqrt(1 - x**2), 1 - 2.0**-16),
        (lambda z: 1 / z, lambda x: -1 / x**2, 1e-15),
        (np.sin, np.cos, 1e5),
        (lambda z: np.sin(1e6 * z), lambda x: 1e6 * np.cos(1e6 * x), 1.0),
        (lambda z: 1e16 + np.sin(z), np.cos, 1.0),
    ):
        x = float(dtype(x))
        table = limit_table(f, x, "complex", dtype=dtype)
        accuracy = 64 * float(np.finfo(dtype).eps)
        assert table.limit == pytest.approx(slope(x), rel=1e-12)
        assert table.estimates[table.best] == pytest.approx(slope(x), rel=accuracy)
        assert table.rounding[table.best] <= accuracy * abs(table.limit)


def test_no_step_is_best_where_no_error_is_known():
    table = limit_table(np.abs, 0.0)
    assert table.best == -1
    assert "Best step: none" in table.text()
    assert "*" not in table.text()


def test_a_step_that_underflows_is_refused_with_its_dtype():
    with pytest.raises(ValueError, match="steps must be positive numbers in float32"):
        limit_table(np.sin, 1.0, steps=[1e-3, 1e-50], dtype=np.float32)
