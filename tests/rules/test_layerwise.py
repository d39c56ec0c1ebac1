"""LAMB and Muon: what their steps do to lengths and singular values, and what they
leave alone.
"""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.update_rules import (
    adafactor,
    adam,
    adamw,
    fromage,
    heavy_ball,
    hyperball,
    lamb,
    muon,
    nadam,
    novograd,
    with_state_dtype,
)
from research.update_rules._layerwise import (
    COEFFICIENTS,
    DION,
    NEWTON_SCHULZ,
    POLAR_EXPRESS,
    MatrixAxes,
    leaf_of,
    matrices_of,
    newton_schulz,
)

COMPILE_QUICKLY = True  # tests/conftest.py
DRAWS_NO_KEYS = True  # tests/conftest.py

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


@pytest.mark.thorough("the other shapes", but="shape1")
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


# The Polar Express: arXiv:2505.16932, appendix A, written as its code is.


def polar_express(a, steps):
    """The paper's code in NumPy, in float64."""
    safe = [
        (a / 1.01, b / 1.01**3, c / 1.01**5)
        for a, b, c in [
            (8.28721201814563, -23.595886519098837, 17.300387312530933),
            (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
            (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
            (3.3184196573706015, -2.488488024314874, 0.51004894012372),
            (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
            (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
            (1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
        ]
    ]
    safe += [(1.875, -1.25, 0.375)] * steps
    x = a.T if a.shape[0] > a.shape[1] else a
    x = x / (np.linalg.norm(x) * 1.01 + 1e-7)
    for first, third, fifth in safe[:steps]:
        square = x @ x.T
        x = first * x + (third * square + fifth * square @ square) @ x
    return x.T if a.shape[0] > a.shape[1] else x


@pytest.mark.thorough("the other numbers of steps", but=r"-5\]")
@pytest.mark.parametrize("steps", [1, 5, 10])
@pytest.mark.parametrize("shape", SHAPES)
def test_polar_express_is_the_paper_s_code(shape, steps):
    a = normal(11, *shape)
    found = newton_schulz(a, steps, "polar_express", 1e-7 / 1.01)
    np.testing.assert_allclose(found, polar_express(np.asarray(a), steps), atol=1e-13)


def test_polar_express_brings_singular_values_near_one_as_the_docstring_says():
    def after(steps):
        s = np.linspace(0.01, 1.0, 100_001)
        for triple in POLAR_EXPRESS[:steps]:
            s = polynomial(s, triple, 1)
        return s

    assert 0.87 < after(5).min() < after(5).max() < 1.13
    assert np.abs(after(6) - 1.0).max() < 0.003


def test_coefficients_by_iteration_are_used_in_order_and_the_last_repeats():
    a = normal(12, 3, 5)
    u, s, vt = np.linalg.svd(a, full_matrices=False)
    s = s / np.linalg.norm(a)
    for triple in (*DION[:2], DION[1], DION[1]):
        s = polynomial(s, triple, 1)
    for steps in (4, jnp.int32(4)):
        found = jax.jit(newton_schulz, static_argnums=2)(a, steps, DION[:2], 0.0)
        np.testing.assert_allclose(found, (u * s[None]) @ vt, atol=1e-12)


@pytest.mark.thorough("the other shapes", but="shape1")
@pytest.mark.parametrize("shape", SHAPES)
def test_a_consistent_rms_is_that_of_the_step_for_every_shape(shape):
    rule = muon(0.1, eps=0.0, ns_coeffs="polar_express", ns_steps=9, consistent_rms=0.2)
    (step,) = updates_of(rule, [normal(13, *shape)], jnp.zeros(shape))
    # The polar factor of a matrix of full rank has min(m, n) singular values 1.
    expected = 0.1 * 0.2
    assert np.sqrt(np.mean(step**2)) == pytest.approx(expected, rel=1e-12)


HEADS = {
    "query": MatrixAxes(output_heads=2),  # (model, heads * head)
    "out": MatrixAxes(input_heads=2),  # (heads * head, model)
    "kernel": MatrixAxes((0, 1, 2), 3),
    "experts": MatrixAxes(-2, -1),
    "flipped": MatrixAxes(1, 0),
}
OF_HEADS = {
    "query": normal(14, 6, 8),
    "out": normal(15, 8, 6),
    "kernel": normal(16, 3, 2, 4, 5),
    "experts": normal(17, 3, 4, 2),
    "flipped": normal(18, 5, 3),
}


@pytest.mark.on_ci(
    "leaves of five kinds; the examples of MatrixAxes and leaf_of have three"
)
def test_matrices_are_blocks_and_the_leaf_comes_back():
    q = OF_HEADS["query"]
    found = matrices_of(q, HEADS["query"])
    np.testing.assert_array_equal(found[0], q[:, :4])
    np.testing.assert_array_equal(found[1], q[:, 4:])
    o = OF_HEADS["out"]
    np.testing.assert_array_equal(matrices_of(o, HEADS["out"])[1], o[4:])
    k = OF_HEADS["kernel"]
    np.testing.assert_array_equal(matrices_of(k, HEADS["kernel"])[0], k.reshape(24, 5))
    for name, x in OF_HEADS.items():
        found = matrices_of(x, HEADS[name])
        np.testing.assert_array_equal(leaf_of(found, x.shape, HEADS[name]), x)
    both = MatrixAxes((2, 0), 3, input_heads=3, output_heads=5)
    np.testing.assert_array_equal(leaf_of(matrices_of(k, both), k.shape, both), k)


@pytest.mark.thorough(
    "heads; test_matrix_sizes.py has them, and "
    "test_muon_s_options_are_those_of_optax the other axes"
)
def test_muon_treats_each_head_as_a_matrix_of_its_own():
    rule = muon(0.1, matrices=HEADS)
    gradients = [jax.tree.map(lambda a, k=k: jnp.cos(k + a), OF_HEADS) for k in (1, 2)]
    for u, g in zip(
        updates_of(rule, gradients, OF_HEADS), _heads_by_hand(gradients), strict=True
    ):
        for name, blocks in g.items():
            found = matrices_of(u[name], HEADS[name])
            np.testing.assert_allclose(found, blocks, atol=1e-13)


def _heads_by_hand(gradients):
    found, state = [], {}
    for g in gradients:
        step = {}
        for name, axes in HEADS.items():
            blocks = np.asarray(matrices_of(g[name], axes))
            m = state[name] = 0.95 * state.get(name, 0.0) + 0.05 * blocks
            scale = np.sqrt(max(1.0, blocks.shape[2] / blocks.shape[1]))
            ahead = [0.95 * a + 0.05 * b for a, b in zip(m, blocks, strict=True)]
            step[name] = [-0.1 * scale * newton_schulz(jnp.asarray(a)) for a in ahead]
        found.append(step)
    return found


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_muon_steps_along_an_orthogonal_gradient_whatever_its_size(size):
    q = rotation(0, 4)
    (step,) = updates_of(muon(0.1, eps=0.0), [size * q], q)
    np.testing.assert_allclose(
        step, -0.1 * polynomial(0.5) * q, atol=1e-14
    )  # |Q| = √4.


@pytest.mark.thorough(
    "what follows from the formula; test_muon_s_options_are_those_of_optax has it"
)
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


@pytest.mark.on_ci(
    "a step; test_muon_with_every_convention_of_optax_is_optax has the factor of the "
    "shape"
)
@pytest.mark.thorough("the other shapes", but="shape1")
@pytest.mark.parametrize("shape", SHAPES)
def test_muon_gives_a_step_one_spectral_norm_by_shape(shape):
    rule = muon(0.1, ns_steps=30, ns_coeffs=CONVERGING, eps=0.0)
    (step,) = updates_of(rule, [normal(3, *shape)], jnp.zeros(shape))
    inputs, outputs = shape
    singular = np.linalg.svd(step, compute_uv=False)
    np.testing.assert_allclose(
        singular, 0.1 * np.sqrt(max(1.0, outputs / inputs)), rtol=1e-12
    )


@pytest.mark.on_ci(
    "two steps; test_muon_with_every_convention_of_optax_is_optax has ten"
)
@pytest.mark.thorough("without correction", but="True")
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


@pytest.mark.on_ci("matrices along other axes; nothing shorter shows this")
@pytest.mark.thorough("the other lists of coefficients", but="polar")
@pytest.mark.parametrize("coefficients", COEFFICIENTS)
def test_muon_s_options_are_those_of_optax(coefficients):
    """All that optax.contrib.muon has as well; its lists of coefficients end at
    ns_steps.
    """
    triples = COEFFICIENTS[coefficients][:5]
    of_optax: Any = triples[0] if coefficients == "standard" else triples
    axes = {k: v for k, v in HEADS.items() if k not in ("query", "out")}
    x = {k: OF_HEADS[k] for k in axes} | {"b": normal(7, 3)}
    gradients = [jax.tree.map(lambda a, k=k: jnp.cos(k * a), x) for k in range(1, 6)]
    ours = muon(
        0.1,
        eps=1e-8,
        weight_decay=0.1,
        ns_coeffs=coefficients,
        bias_correction=True,
        matrices={**axes, "b": False},
        inner=nadam,
        consistent_rms=0.2,
    )
    numbers: Any = {"b": None} | {
        k: optax.contrib.MuonDimensionNumbers(a.inputs, a.outputs)
        for k, a in axes.items()
    }
    theirs = optax.contrib.muon(
        0.1,
        of_optax,
        weight_decay=0.1,
        muon_weight_dimension_numbers=numbers,
        consistent_rms=0.2,
    )
    for u, v in zip(
        updates_of(ours, gradients, x), updates_of(theirs, gradients, x), strict=True
    ):
        chex.assert_trees_all_close(u, v, rtol=1e-10, atol=1e-15)


@pytest.mark.thorough(
    "Muon in with_state_dtype; test_combinators.py has heavy_ball in it"
)
def test_muon_s_step_may_be_half_precision_with_a_state_of_float32():
    x = normal(8, 3, 4).astype(jnp.bfloat16)
    rule = with_state_dtype(muon(0.1), "float32")
    updates, state = rule.update(x, rule.init(x), x)
    assert isinstance(updates, jax.Array)
    assert updates.dtype == jnp.bfloat16
    found = [a for a in jax.tree.leaves(state) if a.ndim == 2]
    assert [a.dtype for a in found] == [jnp.float32]
    wide = x.astype("float32")
    (exact,) = updates_of(muon(0.1), [wide], wide)
    np.testing.assert_allclose(updates.astype(float), exact, rtol=2**-8)


PARAMS = {
    "w": normal(8, 3, 4),
    "b": normal(9, 3),
    "kernel": normal(10, 2, 2, 2),
    "empty": jnp.zeros((2, 0)),
}


@pytest.mark.thorough("the other inner rules", but="heavy_ball")
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


@pytest.mark.on_ci("what follows from the formula; test_every_rule.py has LAMB's")
def test_lamb_moves_every_leaf_by_the_rate_times_its_length():
    gradients = [jax.tree.map(lambda a, k=k: jnp.sin(k + a), PARAMS) for k in range(4)]
    for u in updates_of(lamb(0.01, weight_decay=0.1), gradients, PARAMS):
        for key in ("w", "b", "kernel"):
            assert np.linalg.norm(u[key]) == pytest.approx(
                0.01 * np.linalg.norm(PARAMS[key]), rel=1e-13
            )


@pytest.mark.thorough(
    "scales; in .ci/run, "
    "test_lamb_moves_every_leaf_by_the_rate_times_its_length has lengths"
)
def test_lamb_sees_no_scale_of_a_gradient_or_of_the_params_but_moves_with_the_params():
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


@pytest.mark.on_ci("Muon", but="lamb")
@pytest.mark.parametrize("rule", [lamb(0.1), muon(0.1)], ids=["lamb", "muon"])
def test_a_nan_shows_in_its_leaf_alone(rule):
    x = {"w": jnp.ones((2, 3)), "v": jnp.ones((2, 3))}
    (u,) = updates_of(rule, [{"w": x["w"].at[0, 1].set(jnp.nan), "v": x["v"]}], x)
    assert np.isnan(u["w"]).all()
    assert np.isfinite(u["v"]).all()


def test_bad_input_raises():
    with pytest.raises(
        ValueError,
        match=r"muon takes matrices, but the leaf at \['b'\] .* has shape \[3\]",
    ):
        muon(0.1, matrices={"b": True}).init({"b": jnp.ones(3)})
    with pytest.raises(ValueError, match="matrices do not fit the params"):
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
        match=r"ns_coeffs must be three numbers .*; got ns_coeffs=\(1\.0, 2\.0\)",
    ):
        muon(0.1, ns_coeffs=(1.0, 2.0))
    for wrong in ([], [(1.0, 2.0)], {}, {1.0}, 1.0, None, [[1.0, 2.0, [3.0]]]):
        with pytest.raises((TypeError, ValueError), match="ns_coeffs"):
            muon(0.1, ns_coeffs=wrong)
    with pytest.raises(ValueError, match="did you mean 'polar_express'"):
        muon(0.1, ns_coeffs="polar_expres")
    with pytest.raises(ValueError, match="consistent_rms must be a finite number"):
        muon(0.1, consistent_rms=-0.2)
    with pytest.raises(ValueError, match="output_heads must be an integer, positive"):
        MatrixAxes(output_heads=0)
    x = {"k": jnp.ones((2, 3, 4))}
    for axes, said in (
        (True, r"at \['k'\] that `matrices` chooses has shape \[2, 3, 4\].*MatrixAxes"),
        (MatrixAxes(3, 1), r"does not fit .* at \['k'\]: the leaf has no axis 3"),
        (MatrixAxes((0, 1), -2), "name each axis once"),
        (MatrixAxes(0, 1, output_heads=2), "output_heads must divide 3"),
    ):
        with pytest.raises(ValueError, match=said):
            muon(0.1, matrices={"k": axes}).init(x)
    for rule in (muon, hyperball):
        for entry in (1.5, 2**63):
            with pytest.raises(
                TypeError,
                match=f"matrices must hold True, False or MatrixAxes; got {entry} at k",
            ):
                rule(0.1, matrices={"k": entry}).init(x)
    for rule in (muon(0.1), lamb(0.1)):
        with pytest.raises(ValueError, match=r"call update\(grads, state, params\)"):
            rule.update(jnp.ones((2, 2)), rule.init(jnp.ones((2, 2))))


@pytest.mark.parametrize("make_rule", [novograd, fromage])
def test_a_leaf_without_gradient_does_not_become_nan_in_float16(make_rule):
    rule, x = make_rule(0.1), jnp.ones(2, "float16")
    assert np.all(np.isfinite(rule.update(0.0 * x, rule.init(x), x)[0]))


@pytest.mark.on_ci("steps in float16; nothing shorter shows this")
def test_novograd_and_adafactor_square_in_float32():
    rule, x = novograd(0.1), jnp.ones(2, "float16")
    updates = rule.update(jnp.array([300.0, 400.0], "float16"), rule.init(x), x)[0]
    np.testing.assert_allclose(updates, [-0.06, -0.08], rtol=2e-3)
    rule, x = adafactor(0.01), jnp.full(4, 300.0, "float16")
    updates = rule.update(jnp.ones(4, "float16"), rule.init(x), x)[0]
    assert np.all(np.isfinite(updates))
