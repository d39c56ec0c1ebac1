"""Functions that JAX cannot trace: the error says what to write instead."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import derivatives
from research.derivatives import check_derivative
from research.descent import implicit_minimum, minimise
from research.tracing import LOOKS_AT_VALUES
from research.update_rules import lbfgs, levenberg_marquardt

X, KEY = jnp.array([1.0, -2.0, 0.5]), jax.random.key(0)
# The functions look at the values of x in each way for which JAX has an error.
UNTRACEABLE = {
    "NumPy": lambda x: np.sum(np.sin(x) ** 2),
    "float": lambda x: float(jnp.sum(x**2)),
    "range": lambda x: sum(x[0] * i for i in range(jnp.argmax(x) + 3)),
    "boolean mask": lambda x: jnp.sum(x[x > 0] ** 2),
}
CALLS = {
    "derivative": lambda f: derivatives.derivative(lambda t: f(t * X), 1.0),
    "taylor": lambda f: derivatives.taylor(f, X, X, 3),
    "gradient": lambda f: derivatives.gradient(f, X),
    "jacobian": lambda f: derivatives.jacobian(lambda x: f(x) * x, X),
    "hessian": lambda f: derivatives.hessian(f, X),
    "hessian_diagonal": lambda f: derivatives.hessian_diagonal(f, X),
    "laplacian": lambda f: derivatives.laplacian(f, X),
    "laplacian_estimate": lambda f: derivatives.laplacian_estimate(f, X, KEY, 4),
    "hessian_spectrum": lambda f: derivatives.hessian_spectrum(f, X, KEY),
    "explain": lambda f: derivatives.explain(f, X),
    "cost": lambda f: derivatives.cost(f, X),
    "counted_cost": lambda f: derivatives.counted_cost(f, X),
    "sparse_hessian": lambda f: derivatives.sparse_hessian(f, X),
    "sparse_jacobian": lambda f: derivatives.sparse_jacobian(f, X),
    "classify_critical_point": lambda f: derivatives.classify_critical_point(f, X),
    "critical_points": lambda f: derivatives.critical_points(
        f, bounds=np.stack([X - 5, X + 5], axis=1), starts=X[None]
    ),
    "enclose": lambda f: derivatives.enclose(f, X, X + 1),
    "certified_minimum": lambda f: derivatives.certified_minimum(
        f, np.stack([X, X + 1], axis=1)
    ),
    "minimise": lambda f: minimise(f, lbfgs(), X),
    "implicit_minimum": lambda f: implicit_minimum(
        lambda x, theta: f(x), X, 1.0, rule=lbfgs()
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_error_for_numpy_says_once_what_to_write_instead(name):
    with pytest.raises(jax.errors.TracerArrayConversionError) as caught:
        CALLS[name](UNTRACEABLE["NumPy"])
    notes = [note for note in caught.value.__notes__ if "jax.numpy instead" in note]
    assert len(notes) == 1


@pytest.mark.parametrize("way", UNTRACEABLE)
def test_every_error_of_jax_for_a_look_at_values_has_the_note(way):
    with pytest.raises(LOOKS_AT_VALUES) as caught:
        derivatives.explain(UNTRACEABLE[way], X)
    assert "finite_difference(f, x)" in caught.value.__notes__[-1]


def test_other_errors_of_a_function_have_no_note():
    with pytest.raises(ZeroDivisionError) as caught:
        derivatives.explain(lambda x: x[0] / 0 if 1 // 0 else x[0], X)
    assert not any("jax.numpy" in note for note in caught.value.__notes__)


def test_residuals_in_numpy_get_the_note_of_a_minimum():
    with pytest.raises(jax.errors.TracerArrayConversionError) as caught:
        minimise(None, levenberg_marquardt(), X, residual_fn=np.sin)
    assert "scipy.optimize.minimize" in caught.value.__notes__[-1]


@pytest.mark.thorough(
    "JAX's derivative of a mask; test_in_float32_an_f_that_cannot_be_traced_is_checked "
    "(derivatives/test_check.py) has a given derivative of a Python branch"
)
def test_function_that_jax_differentiates_without_tracing_it_is_checked():
    f = UNTRACEABLE["boolean mask"]
    right = check_derivative(f, X, KEY)
    assert right.verdict == "right", right.text()
    wrong = check_derivative(f, X, KEY, lambda x: 1.001 * jax.grad(f)(x))
    assert wrong.verdict == "wrong", wrong.text()


VALUES_OF_NUMPY = {
    "a NumPy number": lambda x: np.sum(np.asarray(x) ** 2),
    "a float": lambda x: sum(value**2 for value in x.tolist()),
    "an array": lambda x: np.asarray(np.sum(np.asarray(x) ** 2)),
}


@pytest.mark.on_ci("a function of a float", but="array")
@pytest.mark.thorough(
    "the other pairs of a kind and a dtype", but="array-float32|a float-float64"
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", VALUES_OF_NUMPY)
def test_given_derivative_of_a_numpy_function_is_checked(kind, dtype):
    f, x = VALUES_OF_NUMPY[kind], X.astype(dtype)
    right = check_derivative(f, x, KEY, lambda x: 2 * np.asarray(x))
    assert right.verdict == "right", right.text()
    wrong = check_derivative(f, x, KEY, lambda x: 2 * np.asarray(x) * [1, 1, 1.01])
    assert wrong.verdict == "wrong", wrong.text()


def test_numpy_values_without_a_derivative_are_refused_with_a_remedy():
    with pytest.raises(derivatives.NotInexactError, match="pass the derivative"):
        check_derivative(VALUES_OF_NUMPY["a float"], X, KEY)
