"""The rules of differentiation against digits recorded by mpmath, against JAX and
against differences of f.
"""

import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from research.derivatives import finite_difference, rules
from research.derivatives.rules import (
    DERIVATIVE_RULES,
    find_derivative_rule,
    verify_derivative_rule,
)

COMPILE_QUICKLY = True  # tests/conftest.py

RECORDED = json.loads(
    (Path(__file__).parent.parent / "reference" / "derivative_rules.json").read_text(
        "utf-8"
    )
)["cases"]
u = lambda x, c: mpmath.sin(c["a"] * x)
v = lambda x, c: 2 + mpmath.tanh(c["b"] * x)
# Every f once more, in mpmath, whose numerical derivative knows no rule.
IN_MPMATH = {
    "constant": lambda x, c: mpmath.mpf(c["c"]),
    "identity": lambda x, c: x,
    "power with a whole exponent": lambda x, c: x ** int(c["n"]),
    "power": lambda x, c: x ** mpmath.mpf(c["r"]),
    "square root": lambda x, c: mpmath.sqrt(x),
    "reciprocal": lambda x, c: 1 / x,
    "absolute value": lambda x, c: abs(x),
    "exponential": lambda x, c: mpmath.exp(x),
    "exponential of base a": lambda x, c: mpmath.mpf(c["a"]) ** x,
    "logarithm": lambda x, c: mpmath.log(x),
    "logarithm of base a": lambda x, c: mpmath.log(x, c["a"]),
    "constant multiple": lambda x, c: c["b"] * u(x, c),
    "sum": lambda x, c: u(x, c) + v(x, c),
    "difference": lambda x, c: u(x, c) - v(x, c),
    "product": lambda x, c: u(x, c) * v(x, c),
    "quotient": lambda x, c: u(x, c) / v(x, c),
    "chain": lambda x, c: u(v(x, c), c),
    "inverse function": lambda x, c: mpmath.findroot(
        lambda y: y**3 + c["a"] * y - x, x / c["a"] / 2
    ),
    "power of functions": lambda x, c: v(x, c) ** u(x, c),
    "sine": lambda x, c: mpmath.sin(x),
    "cosine": lambda x, c: mpmath.cos(x),
    "tangent": lambda x, c: mpmath.tan(x),
    "arcsine": lambda x, c: mpmath.asin(x),
    "arccosine": lambda x, c: mpmath.acos(x),
    "arctangent": lambda x, c: mpmath.atan(x),
    "hyperbolic sine": lambda x, c: mpmath.sinh(x),
    "hyperbolic cosine": lambda x, c: mpmath.cosh(x),
    "hyperbolic tangent": lambda x, c: mpmath.tanh(x),
    "sigmoid": lambda x, c: 1 / (1 + mpmath.exp(-x)),
    "softplus": lambda x, c: mpmath.log(1 + mpmath.exp(x)),
    "rectifier": lambda x, c: max(x, mpmath.mpf(0)),
}
POINTS = (
    0.375,
    0.625,
    -0.5,
    2.25,
)  # Exact in binary; those in a rule's domain are recorded, whatever its interval.
CONSTANTS = {
    "a": (1.25, 1.75, 0.75, 1.5),
    "b": (0.5, -1.25, 1.0, 0.25),
    "c": (4.5, -3.0, 2.0, 0.25),
}
CONSTANTS |= {"n": (1, 2, 3, 6), "r": (-1.5, 0.5, 2.75, 3.25)}


def record():
    """What the file in tests/reference/ holds: f and f' by mpmath at 60 digits, 30 of
    them kept.
    """
    cases = []
    for name, f in IN_MPMATH.items():
        rule = DERIVATIVE_RULES[name]
        for i, x in enumerate(POINTS):
            constants = {k: CONSTANTS[k][i] for k in rule.constants}
            if not rule.contains(x, constants) or (abs(x) > 1 and rule.interval[1] < 1):
                continue
            with mpmath.workdps(60):
                at_constants = lambda t, f=f, c=constants: f(t, c)
                value = at_constants(mpmath.mpf(x))
                slope = mpmath.diff(at_constants, mpmath.mpf(x))
                digits = [mpmath.nstr(number, 30) for number in (value, slope)]
            cases.append(
                {
                    "rule": name,
                    "x": x,
                    "constants": constants,
                    "f": digits[0],
                    "derivative": digits[1],
                }
            )
    return cases


def test_recorded_digits_are_those_of_mpmath():
    # mpmath.diff at 60 digits is right to about 30; a digit of slack for releases that
    # round otherwise.
    again = record()
    assert [(c["rule"], c["x"], c["constants"]) for c in RECORDED] == [
        (c["rule"], c["x"], c["constants"]) for c in again
    ]
    for old, new in zip(RECORDED, again, strict=True):
        for part in ("f", "derivative"):
            assert mpmath.almosteq(
                mpmath.mpf(old[part]), mpmath.mpf(new[part]), 1e-14
            ), old
    assert {c["rule"] for c in RECORDED} == set(DERIVATIVE_RULES)


@pytest.mark.parametrize("name", DERIVATIVE_RULES)
def test_rule_equals_the_recorded_digits(name):
    rule, cases = DERIVATIVE_RULES[name], [c for c in RECORDED if c["rule"] == name]
    assert len(cases) >= 2
    for case in cases:
        x = jnp.asarray(case["x"])
        np.testing.assert_allclose(
            rule.function(x, case["constants"]),
            float(case["f"]),
            rtol=1e-14,
            atol=1e-15,
        )
        slope = rule.derivative(x, case["constants"])
        np.testing.assert_allclose(
            slope, float(case["derivative"]), rtol=3e-14, atol=1e-15
        )


@pytest.mark.on_ci("the inverse function", but="^quotient")
@pytest.mark.thorough(
    "the other rules; test_rule_equals_the_recorded_digits has them all",
    but=r"^(quotient|inverse function)\]",
)
@pytest.mark.parametrize("name", DERIVATIVE_RULES)
def test_rule_agrees_with_jax_and_with_differences(name):
    # Differences of smooth functions at many steps lose three digits at most.
    check = verify_derivative_rule(name, jax.random.key(1))
    assert check.residual_jax < 3e-15
    assert check.residual_differences < 2e-12


@pytest.mark.on_ci("the inverse function", but="^quotient")
@pytest.mark.thorough("the other rules", but=r"^(quotient|inverse function)\]")
@pytest.mark.parametrize(
    "name",
    [
        "constant",
        "power",
        "product",
        "quotient",
        "chain",
        "inverse function",
        "sigmoid",
    ],
)
def test_check_sees_a_rule_that_is_a_millionth_off(monkeypatch, name):
    rule = DERIVATIVE_RULES[name]
    scale = lambda x, c: (
        rule.derivative(x, c) + 1e-6 * jnp.abs(rule.function(x, c)) + 1e-6
    )
    monkeypatch.setitem(DERIVATIVE_RULES, name, rule._replace(derivative=scale))
    check = verify_derivative_rule(name, jax.random.key(1))
    assert check.residual_jax > 1e-8
    assert check.residual_differences > 1e-8


def test_differences_are_those_of_finite_difference_and_nan_at_a_kink(monkeypatch):
    rule = DERIVATIVE_RULES["logarithm"]
    check = verify_derivative_rule("logarithm", points=[0.5, 2.0])
    for x, value in zip(check.points, check.by_differences, strict=True):
        assert value == finite_difference(jnp.log, float(x)).value
    kink = lambda x, c: jnp.abs(x - 0.5)
    monkeypatch.setitem(DERIVATIVE_RULES, "logarithm", rule._replace(function=kink))
    check = verify_derivative_rule("logarithm", points=[0.5, 2.0])
    assert np.isnan(check.by_differences[0])
    assert check.by_differences[1] == 1


def test_check_sees_a_chain_rule_with_the_outer_derivative_at_the_wrong_place(
    monkeypatch,
):
    wrong = lambda x, c: (
        c["a"] * jnp.cos(c["a"] * x) * c["b"] * (1 - jnp.tanh(c["b"] * x) ** 2)
    )
    monkeypatch.setitem(
        DERIVATIVE_RULES, "chain", DERIVATIVE_RULES["chain"]._replace(derivative=wrong)
    )
    check = verify_derivative_rule("chain", jax.random.key(1))
    assert min(check.residual_jax, check.residual_differences) > 0.1


def test_points_are_drawn_inside_the_domain_and_differ_by_key():
    for rule in DERIVATIVE_RULES.values():
        assert rule.interval[0] < rule.interval[1]
    one, two = (
        verify_derivative_rule("logarithm", jax.random.key(k)).points for k in (0, 1)
    )
    assert one.shape == (32,)
    assert (one != two).all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: verify_derivative_rule("logarithm", points=[1.0, -2.0]),
            "points of the rule logarithm must lie in its domain, x > 0; got x = -2.",
        ),
        (
            lambda: verify_derivative_rule("arcsine", points=1.5),
            "must lie in its domain, |x| < 1; got x = 1.5",
        ),
        (lambda: verify_derivative_rule("rectifier", points=0.0), "x ≠ 0; got x = 0"),
        (
            lambda: verify_derivative_rule("produkt", jax.random.key(0)),
            "unknown rule 'produkt'; did you mean 'product'",
        ),
        (lambda: find_derivative_rule("gossip"), "unknown rule 'gossip'. Known: "),
        (lambda: verify_derivative_rule("sine"), "key or points must be given"),
        (
            lambda: verify_derivative_rule("sine", points=np.ones((2, 2))),
            "of shape (n,) with n >= 1; got shape (2, 2). Pass np.ravel(points)",
        ),
        (
            lambda: verify_derivative_rule("sine", points=[]),
            "of shape (n,) with n >= 1; got shape (0,)",
        ),
        (
            lambda: verify_derivative_rule("sine", points=[1.0, np.nan]),
            "points must be finite; got points=[1.0, nan]",
        ),
    ],
)
def test_bad_input_is_named_with_what_to_do(call, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        call()


def test_every_public_name_is_there():
    assert {
        "DERIVATIVE_RULES",
        "Rule",
        "RuleCheck",
        "find_derivative_rule",
        "verify_derivative_rule",
    } == set(rules.__all__)


@pytest.mark.on_ci("one rule at one point; nothing shorter has it")
def test_the_first_power_has_its_derivative_at_zero():
    found = verify_derivative_rule(
        "power with a whole exponent", jax.random.key(0), points=[0.0] * 20
    )
    assert found.residual_jax < 1e-12
