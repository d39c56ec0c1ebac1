"""Laws of check_derivative where numbers are too small for floats."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.derivatives import check_derivative

COMPILE_QUICKLY = DRAWS_NO_KEYS = True  # tests/conftest.py
KEY = jax.random.key(0)
FUNCTIONS = {
    "square, scaled after": lambda x: jnp.sum(x * x * 1e300),
    "cube, scaled after": lambda x: jnp.sum(x**3) * 1e200,
    "square of a scaled x": lambda x: jnp.sum((x * 1e200) ** 2),
    "sin of a scaled x": lambda x: jnp.sum(jnp.sin(x * 1e290)),
    "linear": lambda x: jnp.sum(3 * x),
    "sin": lambda x: jnp.sum(jnp.sin(x)),
    "log1p": lambda x: jnp.sum(jnp.log1p(x)),
    "square root": lambda x: jnp.sum(jnp.sqrt(x)),
    "x log x": lambda x: jnp.sum(x * jnp.log(x)),
    "norm": lambda x: jnp.sqrt(jnp.dot(x, x)),
    "product, scaled after": lambda x: jnp.prod(x * 1e100) * 1e300,
    "cumulative product": lambda x: jnp.sum(jnp.cumprod(x * 1e100)) * 1e300,
    "convolution": lambda x: jnp.sum(jnp.convolve(x, x)) * 1e300,
    "matrix product": lambda x: jnp.sum(jnp.outer(x, x) @ x) * 1e300,
    "power with an integer": lambda x: jnp.sum(x ** jnp.array(3)) * 1e300,
    "moments": lambda x: jnp.sum(x * x) / jnp.sqrt(jnp.sum(x**4)),
}
SCALES = (1e-80, 1e-155, 1e-165, 1e-200, 1e-295, 1e-300, 1e-306, 3e-308, 1e-310)


@pytest.mark.on_ci(
    "the other functions",
    but="square, scaled after|^sin-|square root",
)
@pytest.mark.thorough("the other scales", but="-1e-165|-1e-306")
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_right_derivative_of_tiny_numbers_is_not_called_wrong(name, scale):
    """JAX's derivatives of these functions follow from the exact rules."""
    x = jnp.asarray(np.array([1.3, 0.7, 2.1]) * scale)
    report = check_derivative(FUNCTIONS[name], x, KEY)
    assert report.verdict in ("right", "unresolved", "nan"), report.text()


def masked(logits):
    """A softmax in which the weights of two entries underflow to 0."""
    weights = jnp.exp(logits - jnp.array([0.0, 0.0, 1e30, 800.0]))
    return jnp.log(jnp.sum(weights))


def far_out(x):
    """A mixture of two normal densities, one of which underflows to 0."""
    return jnp.sum(jnp.exp(-(x**2)) + jnp.exp(-((x - 60.0) ** 2)))


@pytest.mark.on_ci("the other function", but="masked")
@pytest.mark.parametrize("f", [masked, far_out])
def test_numbers_that_underflow_do_not_hide_an_error(f):
    """An error of 1e-3 is called wrong, because what underflows does not matter."""
    x = jnp.array([0.3, -0.4, 0.9, 0.2])
    right = jax.grad(f)
    assert check_derivative(f, x, KEY).verdict == "right"
    off = lambda x: right(x) * jnp.array([1.001, 1.0, 1.0, 1.0])
    assert check_derivative(f, x, KEY, off).verdict == "wrong"


def test_report_says_that_numbers_are_too_small():
    x = jnp.array([1.3, 0.7, 2.1]) * 1e-200
    report = check_derivative(FUNCTIONS["square, scaled after"], x, KEY)
    assert report.verdict == "unresolved"
    assert "Check a scaled function of a scaled x." in report.text()


OPERATIONS = {
    "row sums": lambda x: jnp.sum(jnp.sum(x**2, axis=1) ** 2),
    "products of rows": lambda x: jnp.sum(jnp.prod(x, axis=1)),
    "standard deviations": lambda x: jnp.sum(jnp.std(x, axis=1)),
    "softmax": lambda x: jnp.sum(jax.nn.log_softmax(x, axis=1)[:, 0]),
    "convolution": lambda x: jnp.sum(jnp.convolve(x.ravel(), x[0]) ** 3),
    "Fourier transform": lambda x: jnp.sum(jnp.abs(jnp.fft.rfft(x)) ** 3),
    "matrix products": lambda x: jnp.sum((x @ x.T) ** 2),
    "linear solve": lambda x: jnp.sum(jnp.linalg.solve(x[:3] + 9 * jnp.eye(3), x[3])),
    "power of a number": lambda x: jnp.sum(2.0 ** (x / 9)),
    "sort and cumulative sum": lambda x: jnp.sum(jnp.cumsum(jnp.sort(x, 0), 1) ** 2),
    "largest": lambda x: jnp.sum(jnp.max(x, axis=1) ** 2),
    "gathered": lambda x: jnp.sum(x[jnp.array([0, 2, 2])] ** 3),
    "scan": lambda x: jax.lax.scan(lambda c, r: (c * 0.5 + r @ r, c), 0.0, x)[0],
    "while": lambda x: jax.lax.fori_loop(0, 3, lambda i, y: jnp.sin(y) + x, x).sum(),
    "cond": lambda x: jax.lax.cond(x[0, 0] > 0, jnp.sum, jnp.prod, x**2),
    "in float32": lambda x: jnp.sum(x.astype("float32") ** 2).astype(float),
}


@pytest.mark.on_ci("the other operations", but="row sums|linear solve")
@pytest.mark.parametrize("name", OPERATIONS)
def test_wrong_derivative_is_called_wrong_for_many_operations(name):
    """The check measures underflow before it calls a derivative wrong."""
    f, x = OPERATIONS[name], jnp.arange(1.0, 13.0).reshape(4, 3) ** 1.1
    wrong = lambda x: 2 * jax.grad(f)(x)
    assert check_derivative(f, x, KEY, wrong).verdict == "wrong"


def test_tiny_leaf_does_not_hide_an_error_in_another():
    f = lambda x: jnp.sum(x["w"] ** 2) + jnp.sum(x["b"])
    x = {"w": jnp.arange(1.0, 4.0), "b": jnp.array([1.3, 0.7]) * 1e-306}
    wrong = lambda x: {"w": 2.1 * x["w"], "b": jnp.ones(2)}
    assert check_derivative(f, x, KEY, wrong).verdict == "wrong"


def test_derivative_may_underflow_where_f_does_not():
    """The derivative of the second term is 2e-200, times 1e-200 and then 1e300."""
    first = lambda x: jnp.sum(x)
    given = lambda x: (x * 1e-200) * 1e-200 * 1e300 + jnp.ones(3)
    x = jnp.array([1.3, 0.7, 2.1])
    assert check_derivative(first, x, KEY, given).verdict == "right"
    cubes = lambda x: jnp.sum((x * 1e100) ** 3) / 3
    through_0 = lambda x: (x * x) * 1e300
    report = check_derivative(cubes, x * 1e-170, KEY, through_0)
    assert report.verdict == "unresolved"
    assert "inside f or its derivative" in report.text().replace("<lambda>", "f")
