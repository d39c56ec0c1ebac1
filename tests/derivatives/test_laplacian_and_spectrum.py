"""Laplacians and eigenvalues of Hessians agree with formulas and dense matrices."""

import importlib.util
import re
import sys
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from research.derivatives import (
    NotInexactError,
    NotScalarError,
    UnsupportedPrimitiveError,
    hessian_spectrum,
    laplacian,
    laplacian_estimate,
)

COMPILE_QUICKLY = True  # tests/conftest.py

METHODS = ["forward", "loop", *(["folx"] if importlib.util.find_spec("folx") else [])]


ZERO: Any = 0
WRONG: Any = "trace"


def key():
    return jax.random.key(0)


def quadratic(n, eigenvalues):
    """Return A, of known eigenvalues, and x -> xᵀ A x / 2."""
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(n, n)))[0]
    matrix = basis * eigenvalues @ basis.T
    return matrix, lambda x: 0.5 * x @ jnp.asarray(matrix) @ x


@pytest.mark.on_ci("the other methods", but="forward")
@pytest.mark.parametrize("method", METHODS)
def test_laplacian_of_functions_with_a_formula(method):
    x = {"a": jnp.array([0.3, -1.2]), "b": jnp.array(0.7)}
    flat = np.array([0.3, -1.2, 0.7])

    def f(x):
        y = jnp.concatenate([x["a"], x["b"][None]])
        square = jnp.sum(y**2)
        return {
            "gauss": jnp.exp(-square / 2),  # (r² - n) exp(-r² / 2).
            "harmonic": jnp.array([1 / jnp.sqrt(square), x["b"]]),  # 0 in 3-d.
            "cubes": jnp.sum(y**3),  # 6 (x_1 + ... + x_n).
        }

    found = laplacian(f, x, method)
    square = flat @ flat
    truth = (square - 3) * np.exp(-square / 2)
    np.testing.assert_allclose(found["gauss"], truth, rtol=1e-13)
    np.testing.assert_allclose(found["harmonic"], [0.0, 0.0], atol=1e-13)
    np.testing.assert_allclose(found["cubes"], 6 * flat.sum(), rtol=1e-13)
    compiled = jax.jit(lambda x: laplacian(f, x, method))(x)
    np.testing.assert_allclose(compiled["gauss"], truth, rtol=1e-13)


def test_estimate_of_the_laplacian_has_the_stated_mean_and_variance():
    n, samples, count = 6, 4, 20_000
    matrix, f = quadratic(n, np.arange(1.0, n + 1))
    keys = jax.random.split(key(), count)
    found = jax.jit(jax.vmap(lambda k: laplacian_estimate(f, jnp.ones(n), k, samples)))(
        keys
    )
    variance = 2 * (np.sum(matrix**2) - np.sum(np.diag(matrix) ** 2)) / samples
    away = np.mean(found.value) - np.trace(matrix)
    assert abs(away) <= 5 * np.sqrt(variance / count)
    squares = np.asarray(found.standard_error) ** 2
    spread = np.std(squares) / np.sqrt(count)
    assert abs(np.mean(squares) - variance) <= 5 * spread <= 0.05 * variance
    diagonal = laplacian_estimate(lambda x: jnp.sum(x**3), jnp.ones(n), key(), 2)
    np.testing.assert_allclose(diagonal, (6.0 * n, 0.0), rtol=1e-14)


@pytest.mark.on_ci("other ends of a small matrix", but="^60|3-largest")
@pytest.mark.parametrize("which", ["largest", "smallest", "magnitude"])
@pytest.mark.parametrize("n", [3, 60])
def test_eigenvalues_and_vectors_are_those_of_the_dense_matrix(which, n):
    planted = np.linspace(-2.0, 1.5, n) ** 3
    matrix, f = quadratic(n, planted)
    found = hessian_spectrum(f, jnp.ones(n), key(), 3, which)
    order = {
        "largest": -planted,
        "smallest": planted,
        "magnitude": -np.abs(planted),
    }[which]
    np.testing.assert_allclose(found.values, planted[np.argsort(order)][:3], rtol=1e-12)
    vectors = np.asarray(found.vectors)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(3), atol=1e-12)
    away = matrix @ vectors.T - vectors.T * found.values
    np.testing.assert_allclose(
        found.residuals, np.linalg.norm(away, axis=0), atol=2e-14
    )
    assert found.products <= (n + 3 if n == 3 else 200)


def test_residuals_and_products_are_those_of_vectors_that_are_wrong(monkeypatch):
    module = sys.modules["research.derivatives._hessian_spectrum"]
    own, product, calls = module.scipy.sparse.linalg.eigsh, module._compiled_along, []

    def noisy(*rest, **named):
        values, vectors = own(*rest, **named)
        vectors += 1e-3 * np.random.default_rng(0).normal(size=vectors.shape)
        return values, vectors / np.linalg.norm(vectors, axis=0)

    monkeypatch.setattr(module.scipy.sparse.linalg, "eigsh", noisy)
    monkeypatch.setattr(
        module, "_compiled_along", lambda *rest: calls.append(1) or product(*rest)
    )
    matrix, f = quadratic(60, np.linspace(1.0, 5.0, 60))
    found = hessian_spectrum(jax.jit(f), jnp.ones(60), key(), 3)
    vectors = np.asarray(found.vectors)
    away = np.linalg.norm(matrix @ vectors.T - vectors.T * found.values, axis=0)
    assert np.all(away > 1e-3)
    np.testing.assert_allclose(found.residuals, away, rtol=1e-6)
    assert found.products == len(calls) > 3


@pytest.mark.on_ci("float32 and a larger matrix", but="float64")
@pytest.mark.thorough("the other units", but="float32-1e-11-80|float64-1e-200-20")
@pytest.mark.parametrize("n", [20, 80])
@pytest.mark.parametrize(
    ("dtype", "unit"),
    [("float32", 1e-11), ("float32", 1e30), ("float64", 1e-200), ("float64", 1e200)],
)
def test_eigenvalues_keep_their_digits_in_any_unit(dtype, unit, n):
    planted = np.linspace(0.5, 1.0, n)
    scales = jnp.asarray(planted * unit, dtype)
    f = lambda x: 0.5 * jnp.sum(scales * x * x)
    found = hessian_spectrum(f, jnp.zeros(n, dtype), key(), 3)
    accuracy = 1e-5 if dtype == "float32" else 1e-12
    values, residuals = (
        np.asarray(each, float) / unit for each in (found.values, found.residuals)
    )
    np.testing.assert_allclose(values, planted[:-4:-1], rtol=accuracy)
    assert np.all(residuals <= accuracy)


@pytest.mark.on_ci("the other sign", but="smallest")
@pytest.mark.parametrize(("which", "sign"), [("smallest", 1), ("largest", -1)])
def test_an_eigenvalue_that_is_exactly_zero_is_found(which, sign):
    scales = sign * jnp.arange(60.0)
    f = lambda x: 0.5 * jnp.sum(scales * x**2)
    found = hessian_spectrum(f, jnp.ones(60), key(), 2, which)
    np.testing.assert_allclose(found.values, [0.0, sign], atol=1e-11)


@pytest.mark.on_ci(
    "a network; test_eigenvalues_and_vectors_are_those_of_the_dense_matrix has a "
    "quadratic function of one array"
)
def test_spectrum_of_a_network_is_that_of_its_dense_hessian():
    random = np.random.default_rng(1)
    data = jnp.asarray(random.normal(size=(20, 5)))
    params = {"in": random.normal(size=(5, 6)), "out": random.normal(size=6)}
    traces = []

    @jax.jit
    def loss(p):
        traces.append(1)
        return jnp.mean((jnp.tanh(data @ p["in"]) @ p["out"] - data[:, 0]) ** 2)

    found = hessian_spectrum(loss, params, key(), 2)
    flat, unravel = ravel_pytree(params)
    own = lambda z: loss(unravel(z))
    dense = np.linalg.eigvalsh(jax.jit(jax.hessian(own))(flat))
    np.testing.assert_allclose(found.values, dense[:-3:-1], rtol=1e-12)
    assert found.vectors["in"].shape == (2, 5, 6)
    # A compiled loss is traced once for all points.
    count = len(traces)
    moved = jax.tree.map(lambda leaf: leaf + 0.1, params)
    assert hessian_spectrum(loss, moved, key()).values[0] != found.values[0]
    assert len(traces) == count
    single = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
    lower = hessian_spectrum(lambda p: loss(p).astype(jnp.float32), single, key(), 2)
    np.testing.assert_allclose(lower.values, dense[:-3:-1], rtol=1e-5)


def test_a_function_that_reads_a_changed_variable_is_compiled_anew():
    scale = [1.0]
    f = lambda x: scale[0] * jnp.sum(x**2)
    before = hessian_spectrum(f, jnp.ones(40), key()).values[0]
    scale[0] = 3.0
    assert hessian_spectrum(f, jnp.ones(40), key()).values[0] == pytest.approx(
        3 * before
    )


def test_a_hessian_without_curvature_has_eigenvalues_zero():
    found = hessian_spectrum(jnp.sum, jnp.ones(50), key(), 3)
    np.testing.assert_array_equal(found.values, np.zeros(3))
    np.testing.assert_allclose(found.vectors @ found.vectors.T, np.eye(3), atol=1e-14)


def test_an_iteration_that_does_not_converge_is_an_error(monkeypatch):
    module = sys.modules["research.derivatives._hessian_spectrum"]
    own = module.scipy.sparse.linalg.eigsh
    monkeypatch.setattr(
        module.scipy.sparse.linalg,
        "eigsh",
        lambda *rest, **named: own(*rest, **named, maxiter=1),
    )
    _, f = quadratic(60, np.linspace(1.0, 1.1, 60))
    with pytest.raises(RuntimeError, match="found 0 of 1 eigenvalues in"):
        hessian_spectrum(f, jnp.ones(60), key())


def test_folx_is_called_if_it_is_installed_and_its_errors_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "folx", None)
    with pytest.raises(ModuleNotFoundError, match="pip install folx"):
        laplacian(jnp.sum, jnp.ones(2), "folx")
    fake: Any = types.ModuleType("folx")
    fake.forward_laplacian = lambda f: (
        lambda x: types.SimpleNamespace(laplacian=f(x) + 40.0)
    )
    monkeypatch.setitem(sys.modules, "folx", fake)
    assert laplacian(jnp.sum, jnp.ones(2), "folx") == 42.0
    fake.forward_laplacian = lambda f: {}["scan"]
    with pytest.raises(UnsupportedPrimitiveError, match="KeyError: 'scan'"):
        laplacian(jnp.sum, jnp.ones(2), "folx")


@jax.custom_vjp
def reverse_only(x):
    return jnp.sum(x)


reverse_only.defvjp(lambda x: (jnp.sum(x), x), lambda x, g: (g * jnp.ones_like(x),))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda x: laplacian(jnp.sum, 1), NotInexactError, "x must be real"),
        (lambda x: laplacian(jnp.sum, x, WRONG), ValueError, "method"),
        (lambda x: laplacian(reverse_only, x), UnsupportedPrimitiveError, "custom_vjp"),
        (lambda x: laplacian(jnp.argmax, x), NotInexactError, "int"),
        (lambda x: laplacian_estimate(jnp.sum, x, key(), 1), ValueError, "samples=1"),
        (lambda x: laplacian_estimate(jnp.sum, x, key(), 10**9), ValueError, "samples"),
        (lambda x: laplacian_estimate(jnp.sum, x, ZERO, 2), TypeError, "key"),
        (lambda x: hessian_spectrum(jnp.sin, x, key()), NotScalarError, "one real"),
        (lambda x: hessian_spectrum(jnp.sum, x, key(), 4), ValueError, "count=4"),
        (lambda x: hessian_spectrum(jnp.sum, x, key(), 0), ValueError, "count=0"),
        (lambda x: hessian_spectrum(jnp.sum, x, key(), 1, WRONG), ValueError, "which"),
        (lambda x: hessian_spectrum(jnp.sum, x, ZERO), TypeError, "key"),
        (lambda x: hessian_spectrum(jnp.sum, x[:0], key()), ValueError, "at least one"),
        (
            lambda x: hessian_spectrum(lambda y: jnp.sum(jnp.sqrt(y - 1)), x, key()),
            ValueError,
            "not finite",
        ),
        (
            lambda x: jax.jit(lambda y: hessian_spectrum(jnp.sum, y, key()).values)(x),
            NotInexactError,
            "Call it outside",
        ),
    ],
)
def test_bad_input_is_named(call, error, words):
    with pytest.raises(error, match=re.escape(words)):
        call(jnp.ones(3))


@pytest.mark.thorough("the other dtype", but="^float16")
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sums_in_half_precision_do_not_stop_growing(dtype):
    f = lambda x: jnp.sum(x**2)
    assert laplacian(f, jnp.ones(1000, dtype), method="loop") == 2000
    square = lambda x: jnp.sum(x) ** 2
    key = jax.random.key(0)
    half = laplacian_estimate(square, jnp.ones(3, dtype), key, 4000)
    full = laplacian_estimate(square, jnp.ones(3, "float32"), key, 4000)
    assert half.value.dtype == half.standard_error.dtype == dtype
    np.testing.assert_allclose(half.value, full.value, rtol=0.02)
    np.testing.assert_allclose(half.standard_error, full.standard_error, rtol=0.05)
