"""PSGD with Kronecker factors: its formula in NumPy on the same draws, whitening, and
bad input.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.update_rules import psgd_draws, psgd_kron, skip_nonfinite
from research.update_rules._kronecker import norm_lower_bound

COMPILE_QUICKLY = True  # tests/conftest.py

KEY = jax.random.key(3)


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


def updates_of(rule, gradients, params) -> list[Any]:
    state, found, update = rule.init(params), [], jax.jit(rule.update)
    for g in gradients:
        updates, state = update(g, state, params)
        found.append(updates)
    return found


def along(matrices, x):
    """Each axis of x times a matrix."""
    for k, matrix in enumerate(matrices):
        x = np.moveaxis(np.tensordot(matrix, x, (1, k)), 0, k)
    return x


def bound(a):
    largest = np.abs(a).max()
    a = a / largest
    x = a @ a[:, np.argmax((a * a).sum(0))]
    return largest * np.linalg.norm(a @ x) / np.linalg.norm(x)


def psgd_in_numpy(gradients, draws, rate, b1, factor_rate, probability):
    """The formula with full matrices; the factors of vectors and short axes are
    diagonal.
    """
    shapes = {k: np.shape(x) or (1,) for k, x in gradients[0].items()}
    factors = {k: [np.eye(n) for n in shape] for k, shape in shapes.items()}
    found: list[Any] = []
    m: dict[str, Any] = {k: 0.0 for k in shapes}
    size = sum(np.prod(shape) for shape in shapes.values())
    for g, drawn in zip(gradients, draws, strict=True):
        steps = {}
        for k, shape in shapes.items():
            m[k] = b1 * m[k] + (1 - b1) * np.asarray(g[k]).reshape(shape)
            qs = factors[k]
            if drawn.uniform < probability:
                a = along(qs, m[k])
                v = np.asarray(drawn.noise[k]).reshape(shape)
                b = along([np.linalg.inv(q).T for q in qs], v)
                for axis, q in enumerate(list(qs)):
                    rows = [np.moveaxis(x, axis, 0).reshape(len(q), -1) for x in (a, b)]
                    of_a, of_b = (x @ x.T for x in rows)
                    if len(shape) == 1 or len(q) == 1:
                        of_a, of_b = (np.diag(np.diag(x)) for x in (of_a, of_b))
                        length = np.diag(of_a + of_b).max()
                    else:
                        length = bound(of_a + of_b)
                    qs[axis] = q - factor_rate / length * np.triu(of_a - of_b) @ q
            steps[k] = along([q.T for q in qs], along(qs, m[k]))
        norm = np.sqrt(sum((s**2).sum() for s in steps.values()))
        scale = np.sqrt(size) / max(norm, np.sqrt(size))
        found.append(
            {
                k: -rate * np.clip(scale * s, -1, 1).reshape(np.shape(g[k]))
                for k, s in steps.items()
            }
        )
    return found


X = {
    "w": normal(1, 4, 3),
    "b": normal(2, 3),
    "k": normal(3, 2, 3, 4),
    "row": normal(4, 1, 3),
    "s": jnp.array(0.5, float),  # Not of weak type: that would be compiled anew.
}


OPTIONS = {"b1": 0.8, "factor_rate": 0.3}


@jax.jit  # One program for all probabilities.
def traced_update(probability, g, state):
    rule = psgd_kron(0.1, KEY, probability=probability, **OPTIONS)
    return rule.update(g, state, X)


traced_draws = jax.jit(lambda step: psgd_draws(KEY, step, X))


@pytest.mark.on_ci("factors that are updated in each step", but=r"0\.5")
@pytest.mark.parametrize("probability", [1.0, 0.5])
def test_psgd_is_its_formula_on_the_same_draws(probability):
    gradients = [
        jax.tree.map(lambda a, k=k: 0.1 * k * np.cos(k * np.asarray(a)), X)
        for k in range(1, 13)
    ]
    draws = [traced_draws(t) for t in range(12)]
    used = [float(d.uniform) < probability for d in draws]
    assert all(used) if probability == 1.0 else {True, False} == set(used)
    state, ours = psgd_kron(0.1, KEY).init(X), []
    for g in gradients:
        updates, state = traced_update(probability, g, state)
        ours.append(updates)
    theirs = psgd_in_numpy(gradients, draws, 0.1, probability=probability, **OPTIONS)
    for u, v in zip(ours, theirs, strict=True):
        for name in X:
            np.testing.assert_allclose(u[name], v[name], atol=1e-12)


@pytest.mark.thorough(
    "3000 steps; test_psgd_is_its_formula_on_the_same_draws has the factors"
)
def test_factors_whiten_the_gradients():
    """Gradients with covariance C have Qᵀ Q near C^(-1/2) along each axis, up to a
    factor.
    """
    scales = np.array([4.0, 1.0, 0.25])
    rule = psgd_kron(0.1, KEY, b1=0.0, factor_rate=0.05)
    draws = np.random.default_rng(0).standard_normal((3_000, 3, 5))
    gradients = jnp.asarray(draws * scales[None, :, None])

    def step(state, g):
        return rule.update(g, state, g)[1], None

    first = gradients[0]
    state: Any = jax.jit(lambda gs: jax.lax.scan(step, rule.init(first), gs)[0])(
        gradients
    )
    q = np.asarray(state[0].factors[0])
    np.testing.assert_array_equal(q, np.triu(q))
    whitened = np.diag(q.T @ q) * scales
    assert whitened.max() / whitened.min() < 1.5, whitened


@pytest.mark.on_ci(
    "steps of three keys; test_psgd_is_its_formula_on_the_same_draws has one key"
)
@pytest.mark.parametrize(
    "names",
    [("w", "b"), pytest.param(tuple(X), marks=pytest.mark.thorough)],
    ids=["two leaves", "all leaves"],
)
def test_steps_differ_by_key_and_repeat_with_it(names):
    x = {name: X[name] for name in names}

    @jax.jit  # One program for all keys.
    def third(key):
        rule = psgd_kron(0.1, key)
        step: Any = lambda state, g: rule.update(g, state, g)[::-1]
        gradients = jax.tree.map(lambda a: jnp.stack([a] * 3), x)
        return jax.lax.scan(step, rule.init(x), gradients)[1]["w"][-1]

    a, b, c = (third(jax.random.key(k)) for k in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > 1e-4
    draws = [psgd_draws(KEY, t, X).noise["w"] for t in range(2)]
    assert np.all(draws[0] != draws[1])


@pytest.mark.thorough(
    "schedules and vmap; test_psgd_is_its_formula_on_the_same_draws has the steps, "
    "and test_steps_differ_by_key_and_repeat_with_it a scan of traced keys"
)
def test_psgd_steps_under_scan_vmap_and_schedules_as_in_a_loop():
    gradients = jnp.stack([normal(k, 3, 4) for k in range(5)])
    rate, chance = (lambda t: 0.1 / (1 + t)), (lambda t: 1.0 - 0.1 * t)

    def last(key):
        rule = psgd_kron(rate, key, probability=chance)
        step: Any = lambda state, g: rule.update(g, state, g)[::-1]
        return jax.lax.scan(step, rule.init(gradients[0]), gradients)[1][-1]

    keys = jax.random.split(jax.random.key(5), 2)
    together = jax.jit(jax.vmap(last))(keys)
    for key, found in zip(
        jax.random.split(jax.random.key(5), 2), together, strict=True
    ):
        rule = psgd_kron(rate, key, probability=chance)
        alone = updates_of(rule, list(gradients), gradients[0])[-1]
        np.testing.assert_allclose(found, alone, atol=1e-13)


@pytest.mark.on_ci("very small and very large gradients; nothing shorter shows this")
@pytest.mark.thorough("the sizes between", but=r"^(0\.0|1e\+38)\]")
@pytest.mark.parametrize("size", [0.0, 1e-38, 1e20, 1e38])
def test_gradients_of_any_size_make_finite_steps(size):
    g = (size * normal(1, 3, 3)).astype("float32")
    for u in updates_of(psgd_kron(0.1, KEY), [g, -g, g], g):
        assert np.isfinite(u).all()


@pytest.mark.on_ci("NaN in a gradient; nothing shorter shows this")
def test_a_nan_shows():
    x = {"w": normal(1, 2, 3)}
    bad = {"w": x["w"].at[0, 1].set(jnp.nan)}
    *_, last = updates_of(psgd_kron(0.1, KEY), [x, bad, x], x)
    assert np.isnan(last["w"]).all()


@pytest.mark.thorough("PSGD in skip_nonfinite; test_kronecker.py has Shampoo in it")
def test_a_nan_can_be_skipped():
    x = {"w": normal(1, 2, 3)}
    bad = {"w": x["w"].at[0, 1].set(jnp.nan)}
    *_, last = updates_of(skip_nonfinite(psgd_kron(0.1, KEY)), [x, bad, x], x)
    assert np.isfinite(last["w"]).all()


@pytest.mark.thorough(
    "the bound alone; test_psgd_is_its_formula_on_the_same_draws has it"
)
def test_norm_lower_bound_is_one_and_close():
    for seed in range(20):
        a = np.asarray(normal(seed, 6, 9))
        exact = np.linalg.norm(a @ a.T, 2)
        found = norm_lower_bound(jnp.asarray(a @ a.T))
        assert exact / np.sqrt(2) <= found <= exact * (1 + 1e-14)
    assert norm_lower_bound(jnp.zeros((3, 3))) == 0


def test_bad_input_raises():
    with pytest.raises(TypeError, match=r"key must be a key, such as jax\.random\.key"):
        psgd_kron(0.1, 0)  # pyright: ignore[reportArgumentType]
    with pytest.raises(
        ValueError, match="probability must be a finite number, at least 0"
    ):
        psgd_kron(0.1, KEY, probability=-0.5)
    for probability in (50, np.float64(1.0 + 1e-9)):
        with pytest.raises(ValueError, match="probability must lie between 0 and 1"):
            psgd_kron(0.1, KEY, probability=probability)
    with pytest.raises(ValueError, match="max_size must be an integer, at least 0"):
        psgd_kron(0.1, KEY, max_size=-1)
    with pytest.raises(TypeError, match="defined for real params only"):
        psgd_kron(0.1, KEY).init(jnp.ones((2, 2), complex))
