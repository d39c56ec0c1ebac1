"""Factorisations of small matrices in loops of our own: equal to LAPACK's, and without
a call of LAPACK in the compiled program. Those of larger matrices, which call it, have
the same laws.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.descent import minimise
from research.update_rules import _second_order as second_order
from research.update_rules._least_squares import levenberg_marquardt
from tests.rules import mgh, nist

COMPILE_QUICKLY = True  # tests/conftest.py
DRAWS_NO_KEYS = True  # tests/conftest.py

SHAPES = [(1, 1), (5, 3), (4, 4), (2, 4)]


@functools.cache
def program(name, most):
    """A function of the library, traced anew for each size of the largest matrix."""
    return jax.jit(lambda *arrays: getattr(second_order, name)(*arrays))


@pytest.fixture(
    params=[second_order.MOST_IN_OWN_LOOPS, 0], ids=["own loops", "by LAPACK"]
)
def compiled(request, monkeypatch):
    """name -> its program, in loops of our own or by calls of LAPACK."""
    monkeypatch.setattr(second_order, "MOST_IN_OWN_LOOPS", request.param)
    return functools.partial(program, most=request.param)


def matrices(shape, dtype):
    """A random one, one with columns of very different sizes, one with dependent
    columns, one with entries whose squares overflow, and zero.
    """
    rng = np.random.default_rng(0)
    plain = rng.standard_normal(shape)
    dependent = plain.copy()
    dependent[:, -1] = dependent[:, 0]
    sizes = 10.0 ** np.linspace(-8, 8, shape[1])
    largest = np.sqrt(np.finfo(dtype).max)
    for matrix in (plain, plain * sizes, dependent, 10 * largest * plain, 0 * plain):
        yield matrix.astype(dtype), rng.standard_normal(shape[0]).astype(dtype)


@pytest.mark.on_ci(
    "wide matrices in float32, and LAPACK", but="own loops-shape1-float64"
)
@pytest.mark.thorough(
    "the other pairs of shape and dtype", but="shape1-float64|shape3-float32"
)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("shape", SHAPES)
def test_triangle_is_that_of_lapack(compiled, shape, dtype):
    """RᵀR = AᵀA and RᵀQᵀb = Aᵀb, relatively to the lengths of the columns."""
    bound = 40 * np.finfo(dtype).eps
    for matrix, b in matrices(shape, dtype):
        upper, target = (np.asarray(a) for a in compiled("triangle")(matrix, b))
        assert (upper == np.triu(upper)).all()
        size = float(np.max(np.abs(matrix))) or 1.0
        exact, found = (a.astype("float64") / size for a in (matrix, upper))
        lengths = np.maximum(np.linalg.norm(exact, axis=0), 1e-100)
        off = np.abs(found.T @ found - exact.T @ exact) / np.outer(lengths, lengths)
        assert off.max() <= bound
        off = np.abs(found.T @ target.astype("float64") - exact.T @ b) / lengths
        assert off.max() <= bound * np.linalg.norm(b)


@pytest.mark.on_ci("wide matrices in float32", but="shape1-float64")
@pytest.mark.thorough(
    "the other pairs of shape and dtype", but="shape1-float64|shape3-float32"
)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("shape", SHAPES)
def test_singular_values_are_those_of_lapack(compiled, shape, dtype):
    bound = 20 * np.finfo(dtype).eps
    for matrix, b in matrices(shape, dtype):
        s, projected, v = (
            np.asarray(a, "float64") for a in compiled("singular_values")(matrix, b)
        )
        size = float(np.max(np.abs(matrix))) or 1.0
        exact, s = matrix.astype("float64") / size, s / size
        theirs = np.linalg.svd(exact, compute_uv=False)
        ours = np.sort(s)[::-1][: len(theirs)]
        assert np.abs(ours - theirs).max() <= bound * max(theirs[0], 1.0)
        np.testing.assert_allclose(v.T @ v, np.eye(len(s)), atol=bound)
        # V diag(s) Uᵀb = Aᵀb.
        np.testing.assert_allclose(
            v @ (s * projected), exact.T @ b, atol=bound * max(theirs[0], 1.0) * 4
        )


@pytest.mark.on_ci("two rows in float32", but="5-float64")
@pytest.mark.thorough("the other pairs of size and dtype", but="5-float64|2-float32")
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_eigenvalues_are_those_of_lapack(compiled, n, dtype):
    rng, bound = np.random.default_rng(n), 30 * np.finfo(dtype).eps
    plain = rng.standard_normal((n, n))
    signs = np.diag(np.where(np.arange(n) % 2, -1.0, 1.0))  # Both of 1 and of -1.
    mirror = np.eye(n) - 2 / n  # One eigenvalue of -1, the others 1.
    for matrix in (plain + plain.T, signs, mirror, 0 * plain):
        values, vectors = (
            np.asarray(a, "float64")
            for a in compiled("symmetric_eigen")(matrix.astype(dtype))
        )
        size = np.abs(matrix).sum() + 1.0
        theirs = np.linalg.eigvalsh(matrix)
        assert np.abs(np.sort(values) - theirs).max() <= bound * size
        np.testing.assert_allclose(
            matrix @ vectors, vectors * values, atol=bound * size
        )
        np.testing.assert_allclose(vectors.T @ vectors, np.eye(n), atol=bound)


def test_triangular_systems_are_solved_and_a_zero_pivot_shows(compiled):
    upper = np.triu(np.random.default_rng(0).standard_normal((4, 4))) + 3 * np.eye(4)
    found = compiled("solve_upper")(upper, np.ones(4))
    np.testing.assert_allclose(upper @ found, 1.0, rtol=1e-14)
    upper[2, 2] = 0.0
    assert not np.isfinite(compiled("solve_upper")(upper, np.ones(4))).all()


@pytest.mark.on_ci("the same by LAPACK", but="own loops")
def test_what_is_not_finite_stays_so_and_ends_the_loops(compiled):
    for name in ("triangle", "singular_values"):
        found = compiled(name)(np.array([[1.0, np.nan], [2.0, 1.0]]), np.ones(2))
        assert not np.isfinite(found[0]).all()


@pytest.mark.on_ci("the program of a whole fit; nothing shorter shows this")
def test_a_small_fit_calls_no_library():
    """One call would keep XLA from compiling the whole loop to one function."""
    residuals, start = mgh.residuals_of("beale"), jnp.ones(2)
    rule = levenberg_marquardt()
    fit = jax.jit(lambda x: minimise(None, rule, x, residual_fn=residuals).params)
    text = str(fit.lower(start).compile().as_text())
    assert "while" in text
    assert "custom-call" not in text


@pytest.mark.thorough(
    "large matrices in these loops; test_walk_is_that_of_the_formula "
    "(test_least_squares.py) has small ones in them"
)
@pytest.mark.parametrize("start", [0, 1])
@pytest.mark.parametrize("name", nist.CASES)
def test_every_regression_of_nist_is_fitted_without_lapack(name, start, monkeypatch):
    monkeypatch.setattr(second_order, "MOST_IN_OWN_LOOPS", 10**9)
    digits, steps, _ = nist.fitted(RULE, name, start, (name,))
    assert digits >= min(max(nist.CASES[name]["minpack_digits"][start], 6), 11.5)
    assert steps <= 400


RULE = levenberg_marquardt()  # Its own, because programs are kept for a rule.
