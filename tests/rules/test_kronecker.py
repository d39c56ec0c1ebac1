"""Shampoo and SOAP: their identities, their roots and bases, and what they do with
leaves of any shape.
"""

from typing import Any

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import optax
import pytest
import scipy.linalg

from research.update_rules import _kronecker as kronecker
from research.update_rules import (
    adagrad,
    adam,
    muon,
    shampoo,
    skip_nonfinite,
    soap,
    with_state_dtype,
)
from research.update_rules._kronecker import (
    by_eigenvalues,
    by_newton,
    root_residual,
)

COMPILE_QUICKLY = True  # tests/conftest.py
DRAWS_NO_KEYS = True  # tests/conftest.py

SHAPES = [(4, 4), (3, 5), (5, 3), (1, 4)]


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


def init(rule, params) -> Any:
    return rule.init(params)


def updates_of(rule, gradients, params, state=None) -> list[Any]:
    """The updates a rule answers to a list of gradients, at params that stay."""
    state = rule.init(params) if state is None else state
    found, update = [], jax.jit(rule.update)
    for g in gradients:
        updates, state = update(g, state, params)
        found.append(updates)
    return found


def polar_factor(a):
    u, _, vt = np.linalg.svd(a, full_matrices=False)
    return u @ vt


# Inverse roots


def definite(seed, size, condition):
    """A matrix with eigenvalues from 1 / condition to 1, evenly spread on a log
    scale.
    """
    q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((size, size)))
    return (q * np.logspace(-np.log10(condition), 0.0, size)) @ q.T


@pytest.mark.on_ci("the first and the third root", but=r"-4\]")
@pytest.mark.thorough(
    "the other roots, and better conditions", but=r"100000\.0-(1|3|4)\]"
)
@pytest.mark.parametrize("order", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("condition", [1.0, 1e2, 1e5])
@pytest.mark.parametrize("inverse_root", [by_eigenvalues, by_newton])
def test_inverse_roots_are_those_of_fifty_digits(inverse_root, condition, order):
    a = definite(order, 4, condition)
    found = np.asarray(inverse_root(jnp.asarray(a), order))
    with mpmath.workdps(50):
        values, vectors = mpmath.eigsy(mpmath.matrix(a.tolist()))
        powers = mpmath.diag([v ** (-mpmath.mpf(1) / order) for v in values])
        exact = np.array((vectors * powers * vectors.T).tolist(), float)
    # The smallest eigenvalue has a relative error of a few eps times the condition.
    tolerance = 50 * np.finfo(float).eps * condition
    assert np.abs(found - exact).max() <= tolerance * np.abs(exact).max()


@pytest.mark.on_ci(
    "a matrix of 16 rows; test_inverse_roots_are_those_of_fifty_digits has smaller ones"
)
@pytest.mark.thorough(
    "the other sizes, conditions and dtype", but=r"^16-10000\.0-float64\]"
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("condition", [1e1, 1e4])
@pytest.mark.parametrize("size", [1, 2, 16, 64])
def test_newton_and_eigenvalues_agree_and_their_residual_is_rounding(
    size, condition, dtype
):
    a = jnp.asarray(definite(size, size, condition), dtype)
    eps = np.finfo(dtype).eps
    by_numpy = scipy.linalg.fractional_matrix_power(np.asarray(a, float), -0.25)
    for inverse_root in (by_eigenvalues, by_newton):
        x = jax.jit(inverse_root, static_argnums=1)(a, 4)
        assert x.dtype == dtype
        # X⁴A - I has the errors of X, times those of A: eps times the condition.
        assert np.max(root_residual(x, a, 4)) <= 50 * size * eps * condition
        error = np.abs(np.asarray(x, float) - by_numpy).max() / np.abs(by_numpy).max()
        assert error <= 50 * size * eps * condition


def test_residual_sees_a_wrong_root():
    a = jnp.asarray(definite(0, 8, 100.0))
    right = by_eigenvalues(a, 4)
    assert np.max(root_residual(right, a, 4)) < 1e-12
    assert np.max(root_residual(right * (1 + 1e-6), a, 4)) > 3e-6
    assert np.max(root_residual(by_eigenvalues(a, 3), a, 4)) > 0.1


@pytest.mark.on_ci("a matrix without a root; nothing shorter shows this")
def test_newton_ends_where_there_is_no_root_and_its_residual_shows_that():
    wrong = jnp.diag(jnp.array([1.0, -1.0]))
    assert not np.max(root_residual(by_newton(wrong, 4), wrong, 4)) < 1.0
    np.testing.assert_array_equal(by_newton(jnp.zeros((3, 3)), 4), np.zeros((3, 3)))


@pytest.mark.on_ci("counted steps; nothing shorter shows this")
def test_newton_ends_where_rounding_keeps_the_error_from_falling(monkeypatch):
    """The eighth root of one number: |M - 1| stays at 2 eps, and 1 eps is wanted."""
    power, steps = kronecker._matrix_power, []

    def counted(x, order):
        if order == 8:
            jax.debug.callback(lambda: steps.append(1))
        return power(x, order)

    monkeypatch.setattr(kronecker, "_matrix_power", counted)
    found = by_newton(jnp.array([[0.5]]), 8)
    jax.effects_barrier()
    assert 5 < len(steps) < 20  # The most is 100.
    np.testing.assert_allclose(found, 0.5 ** (-1 / 8), rtol=1e-15)


# Shampoo


@pytest.mark.on_ci(
    "the first step; test_shampoo_is_a_second_implementation_for_any_number_of_axes "
    "has five steps"
)
@pytest.mark.thorough("the other shapes", but="shape1")
@pytest.mark.parametrize("shape", SHAPES)
def test_first_step_of_shampoo_is_the_polar_factor(shape):
    """L^(-1/4) G R^(-1/4) = U S^(-1/2) S S^(-1/2) Vᵀ for G = U S Vᵀ."""
    g = normal(1, *shape)
    (step,) = updates_of(shampoo(0.1, b1=0.0, eps=0.0), [g], g)
    np.testing.assert_allclose(step, -0.1 * polar_factor(g), atol=1e-9)


@pytest.mark.thorough(
    "Muon's limit; test_first_step_of_shampoo_is_the_polar_factor has that factor"
)
@pytest.mark.parametrize("shape", SHAPES)
def test_first_step_of_shampoo_is_the_limit_of_muon(shape):
    g = normal(2, *shape)
    scale = np.sqrt(max(1.0, shape[1] / shape[0]))
    ours = updates_of(shampoo(0.1, b1=0.0, eps=0.0), [g], g)[0]
    theirs = updates_of(
        muon(0.1, eps=0.0, ns_coeffs="polar_express", ns_steps=20), [g], g
    )[0]
    np.testing.assert_allclose(ours, theirs / scale, atol=1e-9)


@pytest.mark.on_ci(
    "scalars; test_shampoo_of_diagonals_alone_is_adagrad_for_vectors has vectors"
)
def test_shampoo_of_scalars_is_adagrad():
    x = {"s": jnp.array(0.5)}
    gradients = [{"s": g} for g in normal(3, 6)]
    ours = updates_of(shampoo(0.1, b1=0.0, eps=0.01), gradients, x)
    theirs = updates_of(
        adagrad(0.1, initial_accumulator_value=0.01, eps=0.0), gradients, x
    )
    for u, v in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(u["s"], v["s"], rtol=1e-13)


def test_shampoo_of_diagonals_alone_is_adagrad_for_vectors():
    x = normal(4, 5)
    gradients = [normal(k, 5) for k in range(6)]
    ours = updates_of(shampoo(0.1, b1=0.0, eps=0.01, max_size=0), gradients, x)
    theirs = updates_of(
        adagrad(0.1, initial_accumulator_value=0.01, eps=0.0), gradients, x
    )
    for u, v in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(u, v, rtol=1e-13)


def shampoo_in_numpy(gradients, rate, eps, b1=0.0, b2=None, every=1):
    """Algorithm 2 of Gupta et al. by scipy's powers of matrices and einsum."""
    found, m, letters = [], 0.0, "abcdef"
    power: Any = scipy.linalg.fractional_matrix_power
    sums = [np.zeros((n, n)) for n in gradients[0].shape]
    for t, g in enumerate(map(np.asarray, gradients)):
        m = b1 * m + (1 - b1) * g
        axes = letters[: g.ndim]
        for k, letter in enumerate(axes):
            other = axes.replace(letter, "z")
            new = np.einsum(f"{axes},{other}->{letter}z", g, g)
            sums[k] = sums[k] + new if b2 is None else b2 * sums[k] + (1 - b2) * new
        if t % every == 0:
            roots = [
                power(a + eps * np.eye(len(a)), -1 / (2 * g.ndim)).real for a in sums
            ]
        step = m
        for k, letter in enumerate(axes):
            other = axes.replace(letter, "z")
            step = np.einsum(f"{letter}z,{axes}->{other}", roots[k], step)
        found.append(-rate * step)
    return found


@pytest.mark.thorough("the other pairs", but="shape2-newton")
@pytest.mark.parametrize("method", ["eigh", "newton"])
@pytest.mark.parametrize("shape", [(4,), (3, 5), (2, 3, 4), (2, 2, 3, 2)])
def test_shampoo_is_a_second_implementation_for_any_number_of_axes(shape, method):
    gradients = [normal(k, *shape) for k in range(5)]
    options: dict[str, Any] = {"b1": 0.5, "b2": 0.8}
    rule = shampoo(0.1, eps=0.01, refresh_every=2, method=method, **options)
    ours = updates_of(rule, gradients, gradients[0])
    theirs = shampoo_in_numpy(gradients, 0.1, 0.01, every=2, **options)
    for u, v in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(u, v, atol=1e-11)


@pytest.mark.on_ci("three rules; nothing shorter shows this")
def test_grafted_steps_have_the_length_of_the_other_rule_and_shampoo_s_direction():
    gradients = [normal(k, 3, 4) for k in range(4)]
    ours = updates_of(shampoo(0.1, graft=adagrad), gradients, gradients[0])
    plain = updates_of(shampoo(0.1), gradients, gradients[0])
    wanted = updates_of(adagrad(0.1), gradients, gradients[0])
    for u, v, w in zip(ours, plain, wanted, strict=True):
        assert np.linalg.norm(u) == pytest.approx(np.linalg.norm(w), rel=1e-12)
        np.testing.assert_allclose(
            u / np.linalg.norm(u), v / np.linalg.norm(v), atol=1e-12
        )


@pytest.mark.on_ci("a step on a matrix; nothing shorter shows this")
@pytest.mark.thorough("the other way to the roots", but="eigh")
@pytest.mark.parametrize("method", ["eigh", "newton"])
def test_residual_of_the_roots_is_in_the_state(method):
    g = normal(5, 6, 6)
    rule = shampoo(0.1, eps=0.1, method=method)
    _, state = rule.update(g, rule.init(g), g)
    assert 0 < optax.tree.get(state, "residual") < 1e-11


@pytest.mark.on_ci("three programs; nothing shorter shows this")
def test_residual_is_the_largest_of_all_roots_in_any_order_of_the_leaves():
    good, bad = jnp.eye(3), jnp.asarray(np.vander(np.linspace(1, 2, 6)))
    rule = shampoo(0.1, eps=1e-9)

    def residual(tree):
        _, state = jax.jit(rule.update)(tree, rule.init(tree), tree)
        return float(optax.tree.get(state, "residual"))

    alone = residual(bad)
    for both in ({"a": good, "b": bad}, {"a": bad, "b": good}):
        assert residual(both) == pytest.approx(alone, rel=0.5)


# SOAP


def soap_in_numpy(gradients, rate, b1, b2, eps, every, refresh):
    """Algorithms 3 and 4 of Vyas et al., with the first step and the order of their
    code.
    """
    found, m, v = [], 0.0, 0.0
    g = np.asarray(gradients[0])
    left, right = (1 - b2) * g @ g.T, (1 - b2) * g.T @ g
    ql, qr = (np.linalg.eigh(a)[1][:, ::-1] for a in (left, right))
    found.append(0 * g)
    for t, g in enumerate(map(np.asarray, gradients[1:]), 1):
        rotated = ql.T @ g @ qr
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * rotated**2
        inside = (ql.T @ m @ qr / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
        found.append(-rate * ql @ inside @ qr.T)
        left, right = b2 * left + (1 - b2) * g @ g.T, b2 * right + (1 - b2) * g.T @ g
        if t % every == 0:
            rows = np.argsort(-np.diag(ql.T @ left @ ql))
            columns = np.argsort(-np.diag(qr.T @ right @ qr))
            v = v[rows][:, columns]
            if refresh == "eigh":
                ql, qr = (np.linalg.eigh(a)[1][:, ::-1] for a in (left, right))
            else:
                ql = np.linalg.qr(left @ ql[:, rows])[0]
                qr = np.linalg.qr(right @ qr[:, columns])[0]
    return found


@pytest.mark.thorough(
    "the other shapes, and the other way to the bases", but="shape1-qr"
)
@pytest.mark.parametrize("refresh", ["qr", "eigh"])
@pytest.mark.parametrize("shape", [(4, 4), (3, 4), (4, 3)])
def test_soap_is_a_second_implementation(shape, refresh):
    gradients = [normal(k, *shape) for k in range(12)]
    options = {"b1": 0.8, "b2": 0.9, "eps": 1e-3, "refresh": refresh}
    ours = updates_of(soap(0.1, refresh_every=3, **options), gradients, gradients[0])
    theirs = soap_in_numpy(gradients, 0.1, every=3, **options)
    for u, v in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(u, v, atol=1e-11)


def with_bases_of_identity(state):
    """The state after the first call, with every basis I."""
    soap_state = state[0]
    bases = jax.tree.map(lambda q: jnp.eye(len(q), dtype=q.dtype), soap_state.bases)
    return (soap_state._replace(bases=bases), *state[1:])


@pytest.mark.thorough(
    "frozen bases; test_soap_of_diagonal_gradients_is_adam_a_call_later has such bases"
)
def test_soap_with_frozen_bases_of_identity_is_adam():
    x = {"w": normal(1, 3, 4), "b": normal(2, 3), "k": normal(3, 2, 3, 2)}
    gradients = [jax.tree.map(lambda a, k=k: jnp.cos(k * a), x) for k in range(1, 8)]
    rule = soap(0.1, 0.9, 0.999, refresh_every=1_000)
    nothing, state = jax.jit(rule.update)(gradients[0], rule.init(x), x)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(nothing))
    ours = updates_of(rule, gradients[1:], x, with_bases_of_identity(state))
    theirs = updates_of(adam(0.1, 0.9, 0.999), gradients[1:], x)
    for u, v in zip(ours, theirs, strict=True):
        for name in x:
            np.testing.assert_allclose(u[name], v[name], rtol=1e-13)


@pytest.mark.on_ci(
    "what follows from the formula; test_soap_is_a_second_implementation has it"
)
@pytest.mark.thorough(
    "qr, with which SOAP meets its second implementation in make test", but="eigh"
)
@pytest.mark.parametrize("refresh", ["qr", "eigh"])
def test_soap_of_diagonal_gradients_is_adam_a_call_later(refresh):
    """Their eigenvectors are the axes, so that the bases are I up to order and sign."""
    gradients = [jnp.diag(jnp.cos(normal(k, 4))) for k in range(9)]
    x = gradients[0]
    ours = updates_of(
        soap(0.1, 0.9, 0.99, refresh_every=2, refresh=refresh), gradients, x
    )
    theirs = updates_of(adam(0.1, 0.9, 0.99), gradients[1:], x)
    for u, v in zip(ours[1:], theirs, strict=True):
        np.testing.assert_allclose(u, v, atol=1e-13)


@pytest.mark.thorough(
    "what follows from the formula; test_soap_is_a_second_implementation has it"
)
def test_soap_turns_with_the_gradient():
    p, q = (
        jnp.asarray(np.linalg.qr(np.asarray(normal(k, n, n)))[0])
        for k, n in ((1, 3), (2, 4))
    )
    gradients = [normal(k, 3, 4) for k in range(6)]
    x = jnp.zeros((3, 4))
    rule = soap(0.1, refresh_every=2)
    plain = updates_of(rule, gradients, x)
    turned = updates_of(rule, [p @ g @ q for g in gradients], x)
    for u, v in zip(plain, turned, strict=True):
        np.testing.assert_allclose(v, p @ u @ q, atol=1e-10)


@pytest.mark.thorough(
    "400 steps; test_soap_is_a_second_implementation has the same bases"
)
def test_bases_stay_orthogonal_and_turn_towards_the_eigenvectors():
    rng = np.random.default_rng(0)
    scales = np.array([8.0, 4.0, 2.0, 1.0])
    q, _ = np.linalg.qr(rng.standard_normal((4, 4)))
    draws = rng.standard_normal((400, 4, 5))
    gradients = [jnp.asarray((q * scales) @ draw) for draw in draws]
    rule = soap(0.1, b2=0.99, refresh_every=5)
    state, update = init(rule, gradients[0]), jax.jit(rule.update)
    for g in gradients:
        _, state = update(g, state, g)
    left = np.asarray(state[0].bases[0])
    np.testing.assert_allclose(left.T @ left, np.eye(4), atol=1e-13)
    exact = np.linalg.eigh(np.asarray(state[0].factors[0]))[1][:, ::-1]
    overlaps = np.abs(np.sum(left * exact, 0))
    assert (overlaps > 0.99).all(), overlaps


# Leaves of any shape, and bad input

LEAVES = {
    "w": normal(6, 3, 4),
    "b": normal(7, 5),
    "s": jnp.array(0.5, float),
    "kernel": normal(8, 2, 3, 4),
    "row": normal(9, 1, 4),
    "empty": jnp.zeros((0, 3)),
    "none": jnp.zeros((0,)),
}
RULES = {
    "shampoo": shampoo(0.1),
    "soap": soap(0.1),
    "newton": shampoo(0.1, eps=1e-3, method="newton"),
}


@pytest.mark.thorough(
    "leaves of many shapes; test_a_nan_shows_in_its_leaf_alone has two that do not "
    "see each other, and the second implementations have matrices and three axes"
)
@pytest.mark.parametrize(
    "alone",  # Each compiles anew.
    [("w", "empty"), pytest.param(("kernel",), marks=pytest.mark.thorough)],
    ids=" and ".join,
)
@pytest.mark.parametrize("name", ["shampoo", "soap"])
def test_leaves_of_any_shape_move_and_do_not_see_each_other(name, alone):
    rule = RULES[name]
    gradients = [jax.tree.map(lambda a, k=k: jnp.cos(k * a), LEAVES) for k in (1, 2)]
    together = updates_of(rule, gradients, LEAVES)
    for key, x in LEAVES.items():
        assert x.size == 0 or np.all(together[-1][key] != 0)
    for key in alone:
        updates = updates_of(rule, [g[key] for g in gradients], LEAVES[key])
        for u, v in zip(together, updates, strict=True):
            np.testing.assert_allclose(u[key], v, rtol=1e-9, atol=1e-12)


@pytest.mark.on_ci("SOAP", but="shampoo")
@pytest.mark.thorough("shampoo with its other way to the roots", but=r"shampoo|soap")
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_nan_shows_in_its_leaf_alone(rule):
    x = {"w": normal(1, 2, 3), "v": normal(2, 2, 3)}
    bad = {"w": x["w"].at[0, 1].set(jnp.nan), "v": x["v"]}
    for gradients in ([bad, x, x], [x, bad, x]):
        *_, last = updates_of(rule, gradients, x)
        assert np.isnan(last["w"]).all() or gradients[0] is bad
        assert np.isfinite(last["v"]).all()
        assert any(np.isnan(u["w"]).any() for u in updates_of(rule, gradients, x))


@pytest.mark.on_ci("skip_nonfinite around Shampoo; nothing shorter shows this")
@pytest.mark.thorough("SOAP, and Shampoo's other way to the roots", but="shampoo")
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_nan_can_be_skipped(rule):
    x = {"w": normal(1, 2, 3), "v": normal(2, 2, 3)}
    bad = {"w": x["w"].at[0, 1].set(jnp.nan), "v": x["v"]}
    skipped = updates_of(skip_nonfinite(rule), [x, bad, x], x)
    plain = updates_of(rule, [x, x], x)
    np.testing.assert_array_equal(skipped[1]["w"], np.zeros((2, 3)))
    np.testing.assert_allclose(skipped[2]["w"], plain[1]["w"], rtol=1e-13)


@pytest.mark.thorough("Shampoo's other way to the roots", but=r"shampoo|soap")
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_half_precision_has_matrices_of_float32(rule):
    x = {"w": normal(1, 3, 4).astype(jnp.bfloat16)}
    state = rule.init(x)
    squares = [
        a for a in jax.tree.leaves(state) if a.ndim == 2 and a.shape[0] == a.shape[1]
    ]
    assert squares
    assert {a.dtype for a in squares} == {jnp.dtype("float32")}


@pytest.mark.thorough(
    "steps in half precision; laws/test_every_rule.py has the dtypes of every rule"
)
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_half_precision_is_kept(rule):
    x = {"w": normal(1, 3, 4).astype(jnp.bfloat16)}
    wide = with_state_dtype(rule, "float32")
    for one in (rule, wide):
        *_, last = updates_of(one, [x, jax.tree.map(jnp.cos, x)], x)
        assert last["w"].dtype == jnp.bfloat16
        assert np.isfinite(last["w"].astype(float)).all()


def test_sizes_beyond_the_longest_have_no_matrix():
    x = normal(1, 3, 5)
    assert [q.shape for q in init(soap(0.1, max_size=4), x)[0].bases] == [(3, 3)]
    assert init(soap(0.1, max_size=0), x)[0].bases == ()
    roots = init(shampoo(0.1, max_size=4), x)[0].roots
    assert [r.shape for r in roots] == [(3, 3), (5,)]


def test_bad_input_raises():
    for rule in (soap, shampoo):
        with pytest.raises(
            ValueError, match="refresh_every must be an integer, positive"
        ):
            rule(0.1, refresh_every=0)
        with pytest.raises(ValueError, match="max_size must be an integer, at least 0"):
            rule(0.1, max_size=-1)
        with pytest.raises(TypeError, match=r"max_size cannot be traced.* static_args"):
            jax.jit(lambda n, rule=rule: rule(0.1, max_size=n).init(jnp.ones((2, 2))))(
                3
            )
        made, x = rule(0.1), jnp.ones((2, 2))
        with pytest.raises(ValueError, match=r"call update\(grads, state, params\)"):
            made.update(x, made.init(x))
        with pytest.raises(TypeError, match="defined for real params only"):
            rule(0.1).init(jnp.ones((2, 2), complex))
    with pytest.raises(
        ValueError, match="refresh must be one of qr, eigh; got refresh='lu'"
    ):
        soap(0.1, refresh="lu")
    with pytest.raises(ValueError, match="method must be one of eigh, newton"):
        shampoo(0.1, method="qr")
    with pytest.raises(
        ValueError, match="root must be an integer, positive; got root=0"
    ):
        shampoo(0.1, root=0)
    with pytest.raises(TypeError, match="graft must be a constructor"):
        shampoo(0.1, graft=adagrad(0.1))  # pyright: ignore[reportArgumentType]
