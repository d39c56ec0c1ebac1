"""LAMB and Muon: what their steps do to lengths and singular values, and what they leave alone."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.update_rules import adam, adamw, heavy_ball, lamb, muon, nadam
from research.update_rules._layerwise import NEWTON_SCHULZ, newton_schulz

CONVERGING = (15 / 8, -10 / 8, 3 / 8)
SHAPES = [(4, 4), (3, 5), (5, 3), (1, 4)]


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


def rotation(seed, size):
    return jnp.asarray(
        np.linalg.qr(np.random.default_rng(seed).standard_normal((size, size)))[0]
    )


def updates_of(rule, gradients, params):
    """The updates a rule answers to a list of gradients, at params that stay."""
    state, found, update = rule.init(params), [], jax.jit(rule.update)
    for g in gradients:
        updates, state = update(g, state, params)
        found.append(updates)
    return found


def polynomial(s, coefficients=NEWTON_SCHULZ, steps=5):
    a, b, c = coefficients
    for _ in range(steps):
        s = a * s + b * s**3 + c * s**5
    return s


@pytest.mark.parametrize("shape", SHAPES)
def test_newton_schulz_maps_singular_values_and_keeps_singular_vectors(shape):
    a = normal(0, *shape)
    u, s, vt = np.linalg.svd(a, full_matrices=False)
    expected = (u * polynomial(s / np.linalg.norm(a))[None]) @ vt
    np.testing.assert_allclose(newton_schulz(a, eps=0.0), expected, atol=1e-13)


def test_newton_schulz_brings_singular_values_near_one():
    s = polynomial(np.linspace(0.01, 1.0, 100_001))
    assert 0.68 < s.min() < 0.69
    assert 1.13 < s.max() < 1.14
    assert polynomial(1e-9) / 1e-9 == pytest.approx(3.4445**5)
    assert round(3.4445**5) == 485


@pytest.mark.parametrize("shape", SHAPES)
def test_newton_schulz_with_converging_coefficients_is_the_polar_factor(shape):
    u, _, vt = np.linalg.svd(normal(1, *shape), full_matrices=False)
    found = newton_schulz(normal(1, *shape), ns_steps=30, ns_coeffs=CONVERGING, eps=0.0)
    np.testing.assert_allclose(found, u @ vt, atol=1e-12)


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_muon_steps_along_an_orthogonal_gradient_whatever_its_size(size):
    q = rotation(0, 4)
    (step,) = updates_of(muon(0.1, eps=0.0), [size * q], q)
    np.testing.assert_allclose(
        step, -0.1 * polynomial(0.5) * q, atol=1e-14
    )  # |Q| = √4.


def test_muon_turns_with_the_gradient():
    p, q, gradients = (
        rotation(1, 3),
        rotation(2, 5),
        [normal(k, 3, 5) for k in range(3)],
    )
    x = jnp.zeros((3, 5))
    plain, turned = (
        updates_of(muon(0.1), gs, x)
        for gs in (gradients, [p @ g @ q for g in gradients])
    )
    for u, v in zip(plain, turned, strict=True):
        np.testing.assert_allclose(v, p @ u @ q, atol=1e-13)


@pytest.mark.thorough("the other shapes", but="shape0|shape1")
@pytest.mark.parametrize("shape", SHAPES)
def test_muon_gives_a_step_one_spectral_norm_by_shape(shape):
    rule = muon(0.1, ns_steps=30, ns_coeffs=CONVERGING, eps=0.0)
    (step,) = updates_of(rule, [normal(3, *shape)], jnp.zeros(shape))
    inputs, outputs = shape
    singular = np.linalg.svd(step, compute_uv=False)
    np.testing.assert_allclose(
        singular, 0.1 * np.sqrt(max(1.0, outputs / inputs)), rtol=1e-12
    )


@pytest.mark.parametrize(("correction", "printed"), [(False, 0.463), (True, 0.374)])
def test_muon_weighs_the_older_of_two_gradients_as_it_says(correction, printed):
    older, newer = normal(4, 3, 3), normal(5, 3, 3)
    step = updates_of(
        muon(1.0, eps=0.0, bias_correction=correction), [older, newer], older
    )[1]
    beta = 0.95
    ratio = (1 - beta**2) / (1 - beta**3) if correction else 1.0
    weight = ratio * beta**2 / (1 + ratio * beta)
    assert round(weight, 3) == printed
    np.testing.assert_allclose(
        step, -newton_schulz(weight * older + newer, eps=0.0), atol=1e-12
    )


def test_muon_with_every_convention_of_optax_is_optax():
    x = {"w": normal(6, 3, 4), "b": normal(7, 3)}
    gradients = {"w": normal(8, 10, 3, 4), "b": normal(9, 10, 3)}
    ours = muon(0.1, eps=1e-8, weight_decay=0.1, bias_correction=True, inner=nadam)
    theirs = optax.contrib.muon(0.1, weight_decay=0.1)

    def updates_at_rest(rule):
        def step(state, g):
            updates, state = rule.update(g, state, x)
            return state, updates

        return jax.lax.scan(step, rule.init(x), gradients)[1]

    found, expected = jax.jit(
        lambda: (updates_at_rest(ours), updates_at_rest(theirs))
    )()
    chex.assert_trees_all_close(found, expected, rtol=1e-11)


PARAMS = {
    "w": normal(8, 3, 4),
    "b": normal(9, 3),
    "kernel": normal(10, 2, 2, 2),
    "empty": jnp.zeros((2, 0)),
}


@pytest.mark.parametrize("inner", [adam, adamw, heavy_ball])
def test_muon_leaves_what_is_no_matrix_to_the_inner_rule(inner):
    others = {key: PARAMS[key] for key in ("b", "kernel")}
    found = updates_of(muon(0.1, inner=inner), [PARAMS] * 3, PARAMS)
    alone = updates_of(inner(0.1), [others] * 3, others)
    for u, v in zip(found, alone, strict=True):
        for key in others:
            np.testing.assert_allclose(u[key], v[key], rtol=1e-14)


def test_muon_takes_the_matrices_it_is_told():
    mask = {"w": False, "b": False, "kernel": False, "empty": True}
    found = updates_of(muon(0.1, matrices=mask), [PARAMS] * 2, PARAMS)
    alone = updates_of(adam(0.1), [PARAMS["w"]] * 2, PARAMS["w"])
    for u, v in zip(found, alone, strict=True):
        np.testing.assert_allclose(u["w"], v, rtol=1e-14)
    by_function = updates_of(
        muon(0.1, matrices=lambda params: mask), [PARAMS] * 2, PARAMS
    )
    np.testing.assert_array_equal(by_function[1]["w"], found[1]["w"])


def test_lamb_moves_every_leaf_by_the_rate_times_its_length():
    gradients = [jax.tree.map(lambda a, k=k: jnp.sin(k + a), PARAMS) for k in range(4)]
    for u in updates_of(lamb(0.01, weight_decay=0.1), gradients, PARAMS):
        for key in ("w", "b", "kernel"):
            assert np.linalg.norm(u[key]) == pytest.approx(
                0.01 * np.linalg.norm(PARAMS[key]), rel=1e-13
            )


def test_lamb_sees_neither_the_scale_of_a_gradient_nor_that_of_the_params_but_moves_with_them():
    gradients = [normal(k, 3, 4) for k in range(4)]
    x = PARAMS["w"]
    plain = updates_of(lamb(0.01, eps=0.0), gradients, x)
    for u, v in zip(
        updates_of(lamb(0.01, eps=0.0), [1e-9 * g for g in gradients], x),
        plain,
        strict=True,
    ):
        np.testing.assert_allclose(u, v, rtol=1e-12)
    for u, v in zip(
        updates_of(lamb(0.01, eps=0.0), gradients, 8.0 * x), plain, strict=True
    ):
        np.testing.assert_allclose(u, 8.0 * v, rtol=1e-14)


def test_lamb_moves_a_leaf_that_is_zero_as_adam_does():
    gradients = [normal(k, 3) for k in range(4)]
    for u, v in zip(
        *(
            updates_of(r, gradients, jnp.zeros(3))
            for r in (lamb(0.1), adam(0.1, eps=1e-6))
        ),
        strict=True,
    ):
        np.testing.assert_allclose(u, v, rtol=1e-15)


@pytest.mark.parametrize("rule", [lamb(0.1), muon(0.1)], ids=["lamb", "muon"])
def test_a_nan_shows_in_its_leaf_alone(rule):
    x = {"w": jnp.ones((2, 3)), "v": jnp.ones((2, 3))}
    (u,) = updates_of(rule, [{"w": x["w"].at[0, 1].set(jnp.nan), "v": x["v"]}], x)
    assert np.isnan(u["w"]).all()
    assert np.isfinite(u["v"]).all()


def test_bad_input_raises():
    with pytest.raises(
        ValueError,
        match=r"muon orthogonalises matrices, but the leaf at \['b'\] .* has shape \[3\]",
    ):
        muon(0.1, matrices={"b": True}).init({"b": jnp.ones(3)})
    with pytest.raises(ValueError, match="mask does not fit the params"):
        muon(0.1, matrices={"b": True}).init({"b": jnp.ones((3, 3)), "w": jnp.ones(3)})
    with pytest.raises(
        ValueError,
        match=r"beta must be a finite number, at least 0 and below 1; got beta=1\.0",
    ):
        muon(0.1, beta=1.0)
    with pytest.raises(
        ValueError, match="ns_steps must be an integer, positive; got ns_steps=0"
    ):
        muon(0.1, ns_steps=0)
    with pytest.raises(
        ValueError,
        match=r"ns_coeffs must be three numbers, the coefficients of x, x³ and x⁵; got ns_coeffs=\(1\.0, 2\.0\)",
    ):
        muon(0.1, ns_coeffs=(1.0, 2.0))  # pyright: ignore[reportArgumentType]
    for rule in (muon(0.1), lamb(0.1)):
        with pytest.raises(ValueError, match=r"call update\(grads, state, params\)"):
            rule.update(jnp.ones((2, 2)), rule.init(jnp.ones((2, 2))))
