"""Sparse matrices: equal to dense ones, few colours, wrong patterns refused."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from jax import lax
from jax.flatten_util import ravel_pytree

from research.derivatives import (
    NotInexactError,
    NotScalarError,
    PatternError,
    UnsupportedPrimitiveError,
    sparse_hessian,
    sparse_jacobian,
)
from research.derivatives.sparse.colouring import coloured
from research.derivatives.sparse.detection import detect

COMPILE_QUICKLY = True  # tests/conftest.py
DRAWS_NO_KEYS = True  # tests/conftest.py

RANDOM = np.random.default_rng(0)
KERNEL = jnp.asarray(RANDOM.normal(size=(1, 1, 3, 3)))
HOLES = jnp.asarray((RANDOM.random((8, 6)) < 0.3) * RANDOM.normal(size=(8, 6)))


@jax.custom_vjp
def reverse_alone(x):
    return x**2


reverse_alone.defvjp(lambda x: (x**2, x), lambda x, ct: (2 * x * ct,))


def convolved(x):
    image = x.reshape(1, 1, 4, 5)
    return jnp.tanh(lax.conv(image, KERNEL, (1, 1), "SAME")).ravel()


def strided(x):
    return lax.conv_general_dilated(
        x.reshape(2, 3, 3, 3).transpose(0, 2, 3, 1),
        jnp.ones((2, 2, 1, 3)),
        (2, 1),
        [(1, 0), (0, 1)],
        feature_group_count=3,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def looped(x):
    return lax.while_loop(
        lambda s: s[0] < 3, lambda s: (s[0] + 1, jnp.roll(s[1], 1) * x), (0, x)
    )[1]


# Function, number of inputs, entries of the pattern.
FUNCTIONS = {
    "arrow": (lambda x: jnp.append(x[1:] ** 2 * x[0], jnp.sum(x**2)), 20, 58),
    "banded": (lambda x: x**2 + jnp.roll(x, 1) * jnp.sin(x), 9, 18),
    "convolution": (convolved, 20, 130),
    "strides_and_groups": (strided, 54, 90),
    "product_with_zeros": (lambda x: HOLES @ x**2, 6, int(jnp.sum(HOLES != 0))),
    "outer_product": (lambda x: jnp.outer(x, jnp.sin(x)), 5, 45),
    "products_of_a_batch": (
        lambda x: jnp.einsum("bij,bjk->bik", x.reshape(2, 2, 3), x.reshape(2, 3, 2)),
        12,
        36,
    ),
    "cumulative_sum": (lambda x: jnp.cumsum(x**2), 8, 36),
    "sort": (lambda x: jnp.sort(x.reshape(3, 4), axis=1), 12, 48),
    "where": (lambda x: jnp.where(x > 0, x[::-1], x**2), 9, 17),
    "cond": (lambda x: lax.cond(x[0] > 0, jnp.square, jnp.flip, x), 6, 12),
    "scan": (lambda x: lax.scan(lambda c, a: (c * a, c + a), x[0], x)[1], 7, 28),
    "while": (looped, 7, 49),
    "gather": (lambda x: x[jnp.array([3, 1, 1, 0])] ** 2, 5, 4),
    "stack": (lambda x: jnp.stack([*x.reshape(2, 3)[::-1], x[:3] ** 2]), 6, 9),
    "scatter_add": (
        lambda x: jnp.zeros(7).at[jnp.array([3, 1, 1, 0, 9])].add(x**2),
        5,
        4,
    ),
    "scatter": (lambda x: x.at[jnp.array([3, 1])].set(x[:2] ** 2), 5, 5),
    "moving_slice": (
        lambda x: lax.dynamic_slice(x, (jnp.argmax(x),), (3,)),
        8,
        24,
    ),
    "softmax": (lambda x: jax.nn.softmax(x.reshape(3, 4)), 12, 48),
    "solve": (lambda x: jnp.linalg.solve(jnp.eye(4) + jnp.diag(x), x), 4, 16),
    "constant": (lambda x: jnp.ones(3) + 0 * x[0], 4, 0),
    "nothing": (lambda x: x**2, 0, 0),
    "mapped": (lambda x: jax.vmap(lambda a: a @ a)(x.reshape(4, 3)), 12, 12),
    "reverse_only": (lambda x: reverse_alone(x) + jnp.roll(x, 1), 6, 12),
}


def dense(matrix):
    """The matrix as a NumPy array: `todense` compiles anew for each size."""
    full = np.zeros(matrix.shape)
    np.add.at(full, tuple(np.asarray(matrix.indices).T), np.asarray(matrix.data))
    return full


@pytest.mark.on_ci(
    "a convolution, and sums at indices",
    but=r"^(arrow|where|scan|nothing|reverse_only)\]",
)
@pytest.mark.thorough(
    "the other functions",
    but=r"^(arrow|convolution|where|scan|scatter_add|nothing|reverse_only)\]",
)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_jacobian_is_the_dense_one(name):
    f, size, entries = FUNCTIONS[name]
    x = jnp.asarray(np.random.default_rng(1).normal(size=size))
    transform = jax.jacfwd if name == "while" else jax.jacrev
    # One program: the tests below call it outside of jax.jit.
    matrix, truth = jax.jit(
        lambda x: (
            sparse_jacobian(f, x).matrix,
            transform(lambda y: ravel_pytree(f(y))[0])(x),
        )
    )(x)
    np.testing.assert_allclose(dense(matrix), truth, rtol=1e-12, atol=1e-14)
    assert matrix.nse == entries


@pytest.mark.thorough("random programs")
@pytest.mark.parametrize("seed", range(4))
def test_jacobian_of_a_random_program_is_the_dense_one(seed):
    # Random operations that move, mix and multiply entries.
    random = np.random.default_rng(seed)
    size = int(random.integers(6, 14))
    kinds = random.integers(0, 7, size=6)
    order, picks = random.permutation(size), random.integers(0, size, size)

    def f(x):
        for kind in kinds:
            x = [
                lambda x: x[order] * 1.1,
                lambda x: jnp.sin(x) * x[0],
                lambda x: x.at[picks].add(x**2),
                lambda x: jnp.pad(x[2:], (1, 1)) + 0.5 * x,
                lambda x: jnp.where(x > 0, x, jnp.roll(x, 1)),
                lambda x: jnp.concatenate([x[3:], jnp.tanh(x[:3])]),
                lambda x: x + jnp.sum(x[:2]) * jnp.eye(size)[1],
            ][kind](x)
        return x

    x = jnp.asarray(random.normal(size=size))
    found = sparse_jacobian(f, x).matrix.todense()
    np.testing.assert_allclose(found, jax.jacfwd(f)(x), rtol=1e-11, atol=1e-13)


def rosenbrock(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


@pytest.mark.thorough(
    "an arrow, a diagonal, a full matrix", but=r"^(rosenbrock|linear)\]"
)
@pytest.mark.parametrize(
    ("f", "size", "colours"),
    [
        (rosenbrock, 30, 3),
        (lambda x: jnp.sum(x**3) + x[0] ** 2 * jnp.sum(x**3), 30, 2),
        (lambda x: x @ (jnp.diag(jnp.arange(1.0, 7.0)) @ x), 6, 1),
        (jax.nn.logsumexp, 6, 6),
        (jnp.sum, 5, 0),
    ],
    ids=["rosenbrock", "arrow", "diagonal", "dense", "linear"],
)
def test_hessian_is_the_dense_one(f, size, colours):
    x = jnp.asarray(np.random.default_rng(1).normal(size=size))
    told = []

    def ours(x):
        found = sparse_hessian(f, x)
        told.append(found.colours)
        return found.matrix

    # The arrow outside of jax.jit, the others as one program.
    matrix = (ours if colours == 2 else jax.jit(ours))(x)
    np.testing.assert_allclose(
        dense(matrix), jax.jit(jax.hessian(f))(x), rtol=1e-12, atol=1e-12
    )
    assert told == [colours]


def test_arrow_takes_three_colours_for_any_size():
    for size in (10, 2000):
        index = np.arange(size)
        arrow = scipy.sparse.lil_matrix((size, size), dtype=bool)
        arrow[index, index] = arrow[0, :] = arrow[:, 0] = True
        arrow = arrow.tocsr()
        assert coloured(arrow, True, True).total == 3
        assert coloured(arrow, True, True, symmetric=True).total == 2
        assert coloured(arrow, True, False).total == size


@pytest.mark.parametrize("seed", range(20))
def test_every_entry_can_be_read_from_its_product(seed):
    random = np.random.default_rng(seed)
    m, n = random.integers(1, 30, 2)
    dense = random.random((m, n)) < random.choice([0.05, 0.2, 0.6])
    dense[random.integers(m)] = True
    dense[:, random.integers(n)] = True
    pattern = scipy.sparse.csr_matrix(dense)
    own = coloured(pattern, True, True)
    rows, columns = dense.nonzero()
    for row, column, by_row in zip(rows, columns, own.by_row, strict=True):
        if by_row:
            group = own.rows == own.rows[row]
            assert own.rows[row] >= 0
            assert np.sum(dense[group, column]) == 1
        else:
            group = own.columns == own.columns[column]
            assert own.columns[column] >= 0
            assert np.sum(dense[row, group]) == 1
    assert own.total <= min(dense.sum(1).max() * 9, max(m, n))


def test_pattern_that_does_not_hold_is_refused():
    f = lambda x: x**2 + 1e-3 * jnp.roll(x, 1)
    x = jnp.arange(1.0, 6.0)
    words = "pattern does not hold: row 0 has an entry outside the pattern"
    with pytest.raises(PatternError, match=words):
        sparse_jacobian(f, x, pattern=np.eye(5))
    with pytest.raises(PatternError):
        sparse_hessian(lambda x: jnp.sum(x) ** 2, x, pattern=np.eye(5))
    found = jax.jit(lambda x: sparse_jacobian(f, x, pattern=np.eye(5)).matrix.data)(x)
    assert jnp.all(jnp.isnan(found))
    right = np.eye(5) + np.roll(np.eye(5), 1, 0)
    assert sparse_jacobian(f, x, pattern=right).matrix.nse == 10


@pytest.mark.thorough(
    "stages of lower precision; test_cost.py checks what finds the precision, in "
    "test_lowest_precision_is_of_what_depends_on_the_arguments"
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_stage_of_lower_precision_is_no_missing_entry(dtype):
    weights = np.eye(6) + np.roll(np.eye(6), 1, 0)

    def f(x):
        return jnp.tanh(jnp.asarray(weights, dtype) @ x.astype(dtype)).astype(x.dtype)

    for seed in range(3):
        x = jax.random.normal(jax.random.key(seed), (6,), "float32")
        x = x if dtype == "bfloat16" else x.astype(float)
        dense = jax.jacobian(f)(x)
        for run in (sparse_jacobian, jax.jit(sparse_jacobian, static_argnums=0)):
            found = run(f, x).matrix
            assert jnp.max(jnp.abs(found.todense() - dense)) <= 0.02
        with pytest.raises(PatternError):
            sparse_jacobian(lambda x: f(x) + jnp.sum(x), x, pattern=weights)


@pytest.mark.on_ci("three programs; nothing shorter shows this")
def test_f_may_use_traced_values_although_x_is_known():
    x = jnp.linspace(-1.0, 1.0, 5)
    both = lambda a: sparse_jacobian(lambda x: a * x**2 + jnp.roll(x, 1), x).matrix.data
    np.testing.assert_allclose(jax.jit(both)(2.0), both(2.0))
    several = jnp.array([2.0, 3.0])
    np.testing.assert_allclose(jax.vmap(both)(several), list(map(both, several)))


@pytest.mark.thorough(
    "the other branch at another x; test_jacobian_is_the_dense_one counts both "
    "branches of where"
)
def test_pattern_of_a_branch_that_is_not_taken_is_kept():
    f = lambda x: jnp.where(x > 0, x**2, x[::-1])
    first = sparse_jacobian(f, jnp.ones(4))
    again = sparse_jacobian(f, -jnp.ones(4), pattern=first.pattern)
    np.testing.assert_array_equal(again.matrix.todense(), np.eye(4)[::-1])


def test_patterns_are_taken_in_each_form():
    f, x = lambda x: x**2, jnp.ones(3)
    first = sparse_jacobian(f, x)
    for pattern in (
        np.eye(3, dtype=bool),
        scipy.sparse.coo_matrix(np.eye(3)),
        first.matrix,
        first.pattern,
    ):
        found = sparse_jacobian(f, x, pattern=pattern)
        np.testing.assert_array_equal(found.matrix.todense(), 2 * np.eye(3))


def test_trees_are_flattened_and_programs_compile():
    f = lambda p: {"a": p["u"] * p["v"][0], "b": p["v"] ** 2}
    x = {"u": jnp.ones(3), "v": jnp.arange(1.0, 3.0)}
    found = jax.jit(lambda x: sparse_jacobian(f, x).matrix.todense())(x)
    flat, unravel = ravel_pytree(x)
    truth = jax.jacfwd(lambda y: ravel_pytree(f(unravel(y)))[0])(flat)
    np.testing.assert_allclose(found, truth)


@pytest.mark.on_ci(
    "the check of a detected pattern; test_jacobian_is_the_dense_one counts the "
    "entries that are detected, and test_pattern_that_does_not_hold_is_refused has "
    "the check of a given one",
    caught_by="test_jacobian_is_the_dense_one",
)
def test_missing_dependence_in_the_detection_is_seen(monkeypatch):
    # A mutant that forgets the last input.
    from research.derivatives import sparse

    def forgetful(f, x):
        full = detect(f, x).tolil()
        full[:, -1] = False
        return full.tocsr()

    monkeypatch.setattr(sparse, "detect", forgetful)
    with pytest.raises(PatternError):
        sparse_jacobian(lambda x: jnp.cumsum(x), jnp.ones(4))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: sparse_jacobian(jnp.sin, 1), NotInexactError, "x must be real"),
        (
            lambda: sparse_hessian(jnp.sin, jnp.ones(3)),
            NotScalarError,
            "sparse_hessian needs a function that returns one real number",
        ),
        (
            lambda: sparse_jacobian(jnp.sin, jnp.ones(3), pattern=np.eye(4)),
            ValueError,
            "pattern must have the shape (outputs, inputs) = (3, 3); got (4, 4)",
        ),
        (lambda: sparse_jacobian(None, jnp.ones(3)), TypeError, "f must be a function"),  # pyright: ignore[reportArgumentType]
        (  # JAX has no derivative rule for it.
            lambda: sparse_jacobian(lambda x: x.at[1].apply(jnp.sin), jnp.ones(3)),
            UnsupportedPrimitiveError,
            "has no derivative rule for forward or reverse mode here",
        ),
    ],
)
def test_bad_input_is_named(call, error, words):
    with pytest.raises(error, match=re.escape(words)):
        call()


@pytest.mark.thorough(
    "patterns of the other kind of matrix; test_patterns_are_taken_in_each_form has "
    "those of a Jacobian"
)
def test_a_pattern_is_coloured_again_for_the_other_kind_of_matrix():
    f = lambda x: jnp.sum(x**2) + x[0] * jnp.sum(x)
    x = jnp.arange(1.0, 7.0)
    hessian = sparse_hessian(f, x)
    again = sparse_jacobian(jax.grad(f), x, pattern=hessian.pattern)
    np.testing.assert_allclose(again.matrix.todense(), hessian.matrix.todense())
    back = sparse_hessian(f, x, pattern=again.pattern)
    np.testing.assert_allclose(back.matrix.todense(), jax.hessian(f)(x))


@pytest.mark.on_ci("two functions without jax.jit; nothing shorter shows this")
def test_a_filled_entry_and_a_padded_pattern_are_no_entries():
    f = lambda x: x.at[jnp.array([0, 7])].get(mode="fill", fill_value=100.0)
    found = sparse_jacobian(f, jnp.ones(5)).matrix.todense()
    np.testing.assert_array_equal(found, [[1, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
    padded = jax.experimental.sparse.BCOO.fromdense(jnp.eye(3), nse=7)
    found = sparse_jacobian(jnp.sin, jnp.ones(3), pattern=padded)
    np.testing.assert_allclose(found.matrix.todense(), np.cos(1.0) * np.eye(3))


@pytest.mark.thorough("one operation; test_jacobian_is_the_dense_one has others")
def test_the_sign_of_a_complex_number_depends_on_it():
    f = lambda x: jnp.real(lax.sign(lax.complex(x, x[::-1])))
    x = jnp.arange(1.0, 4.0)
    found = sparse_jacobian(f, x).matrix.todense()
    np.testing.assert_allclose(found, jax.jacobian(f)(x), atol=1e-15)


def test_an_entry_that_a_function_is_applied_to_depends_on_itself():
    applied = lambda x: x.at[1].apply(lambda y: y * y)
    assert detect(applied, jnp.ones(3)).toarray()[1, 1]
