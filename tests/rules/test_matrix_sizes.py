"""NorMuon and hyperball: the sizes of their steps and matrices, and second
implementations in NumPy.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.update_rules import MatrixAxes, adam, heavy_ball, hyperball, muon, normuon
from research.update_rules._layerwise import matrices_of, newton_schulz

COMPILE_QUICKLY = True  # tests/conftest.py
DRAWS_NO_KEYS = True  # tests/conftest.py

SHAPES = [(4, 4), (3, 5), (5, 3)]


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


def walk(rule, gradients, params) -> list[Any]:
    """The params after each of some given gradients."""
    state, found, update = rule.init(params), [], jax.jit(rule.update)
    for g in gradients:
        updates, state = update(g, state, params)
        params = jax.tree.map(jnp.add, params, updates)
        found.append(params)
    return found


def updates_of(rule, gradients, params) -> list[Any]:
    """The updates to some given gradients, at params that stay."""
    state, found, update = rule.init(params), [], jax.jit(rule.update)
    for g in gradients:
        updates, state = update(g, state, params)
        found.append(updates)
    return found


# NorMuon


def normuon_of_the_authors(gradients, rate, beta=0.95, beta2=0.95):
    """Their code in NumPy, with matrices of shape (outputs, inputs)."""
    found, m, v = [], 0.0, 0.0
    for g in (np.asarray(g).T for g in gradients):
        m = beta * m + (1 - beta) * g
        o = np.asarray(newton_schulz(jnp.asarray((1 - beta) * g + beta * m)))
        before = np.linalg.norm(o)
        v = beta2 * v + (1 - beta2) * np.mean(o * o, -1, keepdims=True)
        o = o / (np.sqrt(v) + 1e-10)
        o = o * before / (np.linalg.norm(o) + 1e-10)
        found.append(-rate * max(1, g.shape[0] / g.shape[1]) ** 0.5 * o.T)
    return found


@pytest.mark.thorough("the other shapes", but="shape1")
@pytest.mark.parametrize("shape", SHAPES)
def test_normuon_is_the_authors_code(shape):
    gradients = [normal(k, *shape) for k in range(6)]
    ours = updates_of(normuon(0.1), gradients, gradients[0])
    theirs = normuon_of_the_authors(gradients, 0.1)
    for u, v in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(u, v, atol=1e-13)


@pytest.mark.thorough("the other shapes", but="shape1")
@pytest.mark.parametrize("shape", SHAPES)
def test_normuon_keeps_the_norm_of_muon_s_step_and_first_gives_each_output_one_size(
    shape,
):
    gradients = [normal(k, *shape) for k in range(4)]
    ours = updates_of(normuon(0.1), gradients, gradients[0])
    plain = updates_of(muon(0.1), gradients, gradients[0])
    for u, v in zip(ours, plain, strict=True):
        assert np.linalg.norm(u) == pytest.approx(np.linalg.norm(v), rel=1e-9)
    columns = np.linalg.norm(ours[0], axis=0)
    # √v is at least 0.02 here, of which δ = 1e-10 is 5e-9.
    np.testing.assert_allclose(columns, columns[0], rtol=5e-9)


@pytest.mark.thorough("four steps; the example of normuon has one of a consistent RMS")
def test_normuon_with_a_consistent_rms_has_it():
    gradients = [normal(k, 3, 5) for k in range(4)]
    for u in updates_of(normuon(0.1, consistent_rms=0.2), gradients, gradients[0]):
        assert np.sqrt(np.mean(u**2)) == pytest.approx(0.02, rel=1e-9)


@pytest.mark.on_ci("three walks; nothing shorter has heads")
def test_normuon_treats_each_head_alone():
    x, axes = normal(1, 4, 6), MatrixAxes(output_heads=2)
    gradients = [normal(k, 4, 6) for k in range(3)]
    whole = updates_of(normuon(0.1, matrices=axes), gradients, x)
    for k in range(2):
        blocks = [matrices_of(g, axes)[k] for g in gradients]
        alone = updates_of(normuon(0.1), blocks, blocks[0])
        for u, v in zip(whole, alone, strict=True):
            np.testing.assert_allclose(matrices_of(u, axes)[k], v, atol=1e-13)


# Hyperball


PARAMS = {"w": normal(1, 3, 4), "b": normal(2, 3), "zero": jnp.zeros((2, 3))}


@pytest.mark.on_ci(
    "60 steps; the next test has the norms, and laws/test_every_rule.py has a leaf "
    "that is no matrix"
)
@pytest.mark.thorough("the other inner rules", but="heavy_ball")
@pytest.mark.parametrize("inner", [None, adam, muon, heavy_ball])
def test_hyperball_keeps_norms_and_leaves_other_leaves_to_the_inner_rule(inner):
    gradients = [jax.tree.map(lambda a, k=k: jnp.cos(k + a), PARAMS) for k in range(60)]
    walked = walk(hyperball(0.1, inner), gradients, PARAMS)
    alone = walk((inner or adam)(0.1), gradients, PARAMS)
    radius = np.linalg.norm(PARAMS["w"])
    for x, y in zip(walked, alone, strict=True):
        assert np.linalg.norm(x["w"]) == pytest.approx(radius, rel=1e-13)
        for name in ("b", "zero"):  # A matrix that starts at 0 has no sphere.
            np.testing.assert_allclose(x[name], y[name], rtol=1e-9)


@pytest.mark.thorough("another inner rule", but="adam")
@pytest.mark.parametrize("inner", [adam, muon])
def test_hyperball_is_the_authors_formula(inner):
    """W <- Norm(W - η Norm(u) R) R, with u from the inner rule at the same params."""
    x = normal(3, 3, 4)
    gradients = [normal(k, 3, 4) for k in range(8)]
    ours = walk(hyperball(0.1, inner), gradients, x)
    rule, radius = inner(1.0), float(np.linalg.norm(x))
    state, y = rule.init(x), np.asarray(x)
    for g, found in zip(gradients, ours, strict=True):
        u, state = rule.update(g, state, jnp.asarray(y))
        y = y + 0.1 * np.asarray(u) / np.linalg.norm(u) * radius
        y = y / np.linalg.norm(y) * radius
        np.testing.assert_allclose(found, y, atol=1e-13)


@pytest.mark.on_ci("200 steps in bfloat16; the test above has the sphere in float64")
def test_hyperball_in_half_precision_does_not_leave_its_sphere():
    x = {"w": normal(1, 8, 8).astype(jnp.bfloat16)}
    gradients = [jax.tree.map(lambda a, k=k: jnp.cos(k + a), x) for k in range(200)]
    last = walk(hyperball(0.05), gradients, x)[-1]["w"]
    assert last.dtype == jnp.bfloat16
    radii = [np.linalg.norm(a.astype(float)) for a in (x["w"], last)]
    assert radii[1] == pytest.approx(radii[0], rel=2**-8)


@pytest.mark.on_ci(
    "a longer gradient; test_hyperball_is_the_authors_formula divides by its length"
)
def test_hyperball_does_not_see_the_length_of_the_direction():
    gradients = [normal(k, 3, 4) for k in range(4)]
    x = normal(5, 3, 4)
    for a, b in zip(
        walk(hyperball(0.1, heavy_ball), gradients, x),
        walk(hyperball(0.1, heavy_ball), [1e6 * g for g in gradients], x),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.on_ci(
    "matrices of extreme sizes; test_norms_of_extreme_entries_are_those_of_a_multiple "
    "in test_optimistic.py has their norms"
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("inner", [heavy_ball, adam])
def test_hyperball_scales_with_matrices_of_extreme_sizes(inner, dtype):
    """The params 2^k X have the steps 2^k U, exactly, if X has the steps U."""
    x = normal(5, 3, 4).astype(dtype)
    gradients = [normal(k, 3, 4).astype(dtype) for k in range(3)]
    power = {"float32": 90.0, "float64": 900.0}[dtype]
    plain = walk(hyperball(0.1, inner), gradients, x)
    for k in (power, -power):
        size = jnp.asarray(2.0**k, dtype)
        sizes = size if inner is heavy_ball else jnp.ones((), dtype)
        given = [sizes * g for g in gradients]
        for a, b in zip(
            walk(hyperball(0.1, inner), given, size * x), plain, strict=True
        ):
            np.testing.assert_array_equal(a, size * b)


@pytest.mark.on_ci("float16; nothing shorter has a column without gradient")
def test_normuon_leaves_a_column_without_gradient_in_float16():
    g = normal(7, 4, 3).astype("float16").at[:, 1].set(0.0)
    u, still = updates_of(
        normuon(0.1, beta=0.0, consistent_rms=0.2), [g, 0.0 * g], jnp.ones_like(g)
    )
    np.testing.assert_array_equal(u[:, 1], np.zeros(4))
    assert np.all(np.isfinite(u))
    np.testing.assert_array_equal(still, np.zeros((4, 3)))


def test_hyperball_stays_where_the_direction_is_zero():
    x = normal(6, 3, 4)
    np.testing.assert_array_equal(walk(hyperball(0.1), [0.0 * x], x)[0], x)


@pytest.mark.on_ci("the other rule", but="normuon")
@pytest.mark.parametrize(
    "rule", [normuon(0.1), hyperball(0.1)], ids=["normuon", "hyperball"]
)
def test_a_nan_shows_in_its_leaf_alone(rule):
    x = {"w": normal(1, 2, 3), "v": normal(2, 2, 3)}
    (u,) = updates_of(rule, [{"w": x["w"].at[0, 1].set(jnp.nan), "v": x["v"]}], x)
    assert np.isnan(u["w"]).all()
    assert np.isfinite(u["v"]).all()


def test_bad_input_raises():
    with pytest.raises(ValueError, match=r"beta2 must be .* below 1; got beta2=1\.0"):
        normuon(0.1, beta2=1.0)
    with pytest.raises(ValueError, match="ns_coeffs must be three numbers"):
        normuon(0.1, ns_coeffs=(1.0,))
    for rule in (normuon, hyperball):
        name = rule.__name__
        with pytest.raises(ValueError, match=f"{name} takes matrices, but the leaf at"):
            rule(0.1, matrices={"b": True}).init({"b": jnp.ones(3)})
        with pytest.raises(TypeError, match=f"{name} is defined for real params only"):
            rule(0.1).init(jnp.ones((2, 2), complex))
        made, x = rule(0.1), jnp.ones((2, 2))
        with pytest.raises(ValueError, match=r"call update\(grads, state, params\)"):
            made.update(x, made.init(x))
    with pytest.raises(TypeError, match="inner must be a constructor"):
        hyperball(0.1, adam(0.1))  # pyright: ignore[reportArgumentType]
