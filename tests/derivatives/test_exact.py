"""Exact derivatives against closed forms and JAX's own; which mode is taken; and what
is refused, and how.
"""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import losses
from research.derivatives import (
    check_derivative,
    enclose,
    finite_difference,
    fornberg_weights,
    limit_table,
)
from research.derivatives.errors import (
    NotInexactError,
    NotScalarError,
    UnsupportedPrimitiveError,
)
from research.derivatives.exact import (
    chosen_mode,
    derivative,
    directional_derivative,
    gradient,
    hessian,
    hessian_diagonal,
    hessian_vector_product,
    jacobian,
)

COMPILE_QUICKLY = True  # tests/conftest.py
DRAWS_NO_KEYS = True  # tests/conftest.py

PARAMS = {
    "w": jnp.arange(1.0, 7.0).reshape(2, 3) / 5,
    "b": (jnp.array([0.3, -0.2]), 0.7),
}


def network(params):
    hidden = jnp.tanh(params["w"] @ jnp.array([1.0, -2.0, 0.5]) + params["b"][0])
    return jnp.sum(hidden**3) * jnp.exp(params["b"][1])


@jax.custom_vjp
def reverse_alone(x):
    return jnp.sum(x**2)


reverse_alone.defvjp(lambda x: (jnp.sum(x**2), x), lambda x, ct: (2 * x * ct,))


def forward_alone(x):
    return jax.lax.while_loop(
        lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] * jnp.sum(x)), (0, 1.0)
    )[1]


def test_derivative_of_any_order_is_the_closed_form():
    # (e^{ax} sin bx)^(n) is the imaginary part of (a + ib)^n e^{(a + ib) x}.
    a, b, x = 0.7, 1.9, 0.4
    found = jax.jit(
        lambda x: [
            derivative(lambda t: jnp.exp(a * t) * jnp.sin(b * t), x, order=n)
            for n in range(7)
        ]
    )(x)
    factor = complex(a, b)
    truth = [
        (factor**n * complex(math.cos(b * x), math.sin(b * x)) * math.exp(a * x)).imag
        for n in range(7)
    ]
    np.testing.assert_allclose(found, truth, rtol=1e-13)


def test_derivative_of_arrays_and_trees_is_that_of_each_entry():
    found = derivative(
        lambda t: {"circle": jnp.stack([jnp.cos(t), jnp.sin(t)]), "line": 3 * t},
        0.5,
        order=2,
    )
    np.testing.assert_allclose(
        found["circle"], [-math.cos(0.5), -math.sin(0.5)], rtol=1e-15
    )
    assert found["line"] == 0


def test_derivative_passes_loops_and_branches():
    def power(x):
        return jax.lax.fori_loop(0, 5, lambda i, y: y * x, 1.0)

    assert derivative(power, 2.0, order=3) == 60 * 2.0**2
    assert (
        derivative(lambda x: jax.lax.cond(x > 0, jnp.square, jnp.negative, x), 3.0) == 6
    )


def test_derivative_maps_over_points():
    points = jnp.linspace(-1, 1, 7)
    np.testing.assert_allclose(
        jax.vmap(lambda x: derivative(jnp.sin, x, 2))(points),
        -np.sin(points),
        rtol=1e-15,
    )


true_derivatives = jax.jit(lambda p: (jax.grad(network)(p), jax.hessian(network)(p)))


@pytest.mark.thorough("forward mode", but="auto|reverse")
@pytest.mark.parametrize("mode", ["auto", "forward", "reverse"])
def test_gradient_hessian_and_products_of_a_tree_equal_jax(mode):
    grads, square = true_derivatives(PARAMS)
    close = lambda a, b: jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-14), a, b
    )
    close(gradient(network, PARAMS, mode), grads)
    if mode != "reverse":
        close(hessian(network, PARAMS, mode), square)
    close(jacobian(network, PARAMS, mode), grads)


@pytest.mark.on_ci(
    "products for a network; the docstrings' examples have small functions"
)
def test_products_are_those_of_the_whole_matrix():
    v = jax.tree.map(lambda leaf: jnp.cos(3 * jnp.asarray(leaf) + 1), PARAMS)
    flat, unravel = jax.flatten_util.ravel_pytree(PARAMS)
    along, _ = jax.flatten_util.ravel_pytree(v)
    square = jax.hessian(lambda p: network(unravel(p)))(flat)
    ravelled = lambda tree: jax.flatten_util.ravel_pytree(tree)[0]
    np.testing.assert_allclose(
        ravelled(hessian_vector_product(network, PARAMS, v)), square @ along, rtol=1e-12
    )
    np.testing.assert_allclose(
        ravelled(hessian_diagonal(network, PARAMS)),
        np.diag(square),
        rtol=1e-12,
        atol=1e-15,
    )
    slope = jnp.vdot(ravelled(jax.grad(network)(PARAMS)), along)
    np.testing.assert_allclose(
        directional_derivative(network, PARAMS, v), slope, rtol=1e-13
    )


@pytest.mark.parametrize(
    ("f", "x", "mode"),
    [
        (jnp.sum, np.ones(3), "reverse"),
        (jnp.sum, np.ones(1), "forward"),
        (jnp.sin, np.ones(3), "forward"),
        (lambda x: x[:2], np.ones(3), "reverse"),
        (lambda x: jnp.outer(x, x), np.ones(3), "forward"),
        (
            forward_alone,
            np.ones(3),
            "forward",
        ),  # By shape it were reverse, but a while has no reverse rule.
        (reverse_alone, np.ones(1), "reverse"),
    ],
)
def test_mode_is_chosen_by_shape_and_by_the_rules_there_are(f, x, mode):
    chosen = chosen_mode(f, x)
    assert chosen.name == mode
    assert f"({chosen.inputs})" in chosen.reason
    assert f"({chosen.outputs})" in chosen.reason


def test_mode_that_is_said_is_the_mode_that_is_taken():
    # Its reverse rule is wrong, and forward it has none: the gradient tells which was
    # used.
    @jax.custom_vjp
    def wrong(x):
        return jnp.sin(x)

    wrong.defvjp(lambda x: (jnp.sin(x), x), lambda x, ct: (7 * ct,))
    f = lambda x: wrong(x[0]) + 0 * x[1]
    assert chosen_mode(f, jnp.ones(2)).name == "reverse"
    assert gradient(f, jnp.ones(2)).tolist() == [7, 0]
    with pytest.raises(TypeError, match="custom_vjp"):
        gradient(f, jnp.ones(2), mode="forward")
    # A loop without a reverse rule has a forward one, and of one input and three
    # outputs that is the choice.
    many = lambda x: jnp.stack([forward_alone(x), x, x])
    assert chosen_mode(many, 1.5).name == "forward"
    assert jacobian(many, 1.5).tolist() == [3 * 1.5**2, 1, 1]


def test_functions_with_one_kind_of_rule_have_gradients():
    np.testing.assert_allclose(gradient(forward_alone, jnp.array([1.0, 2.0])), 27.0)
    assert gradient(reverse_alone, jnp.array([3.0])).tolist() == [6.0]
    np.testing.assert_allclose(
        hessian(forward_alone, jnp.array([1.0, 2.0])), np.full((2, 2), 18.0)
    )


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda: derivative(jnp.sin, 3),
            NotInexactError,
            "x must be real floating numbers; got int",
        ),
        (lambda: derivative(jnp.sin, 1j), NotInexactError, "real and imaginary part"),
        (lambda: derivative(jnp.sin, "a"), NotInexactError, "got x='a'"),
        (lambda: derivative(jnp.sin, jnp.ones(2)), NotScalarError, "gradient(f, x)"),
        (lambda: derivative(jnp.sin, 1.0, order=-1), ValueError, "order=-1"),
        (lambda: derivative(jnp.sin, 1.0, order=1.5), ValueError, "order=1.5"),
        (
            lambda: derivative(lambda x: 3, 1.0),
            NotInexactError,
            "f must return real floating numbers; it returns int",
        ),
        (
            lambda: derivative(reverse_alone, 1.0),
            UnsupportedPrimitiveError,
            "Use gradient(f, x)",
        ),
        (
            lambda: gradient(jnp.sin, jnp.ones(2)),
            NotScalarError,
            "sin returns an array of shape (2,). Use jacobian(f, x)",
        ),
        (
            lambda: gradient(lambda x: (x, x), 1.0),
            NotScalarError,
            "a tuple of 2 leaves",
        ),
        (
            lambda: gradient(jnp.sum, {"a": jnp.ones(2), "n": [3]}),
            NotInexactError,
            "x['n'][0] must be real floating",
        ),
        (
            lambda: gradient(jnp.sum, jnp.ones(2), mode="back"),
            ValueError,
            "mode='back'",
        ),
        (
            lambda: hessian(jnp.sin, jnp.ones(2)),
            NotScalarError,
            "hessian needs a function that returns one real number",
        ),
        (
            lambda: hessian_vector_product(jnp.sin, jnp.ones(2), jnp.ones(2)),
            NotScalarError,
            "hessian_vector_product needs a function",
        ),
        (
            lambda: gradient(jnp.sum, {1, 2}),
            NotInexactError,
            "got x={1, 2}. Pass a number, an array, or a pytree of arrays.",
        ),
        (lambda: jacobian(jnp.argmax, jnp.ones(2)), NotInexactError, "it returns int"),
        (
            lambda: hessian_vector_product(jnp.sum, jnp.ones(2), jnp.ones(3)),
            ValueError,
            "v must have the structure",
        ),
        (
            lambda: directional_derivative(jnp.sum, jnp.ones(2), [1.0]),
            ValueError,
            "v is a list of 1 leaves",
        ),
        (
            lambda: directional_derivative(jnp.sum, jnp.ones(2), jnp.arange(2)),
            NotInexactError,
            "v must be real",
        ),
    ],
)
def test_bad_input_is_named_with_what_to_call(call, error, words):
    with pytest.raises(error, match=re.escape(words)):
        call()


@pytest.mark.parametrize(
    ("call", "instead"),
    [
        (lambda x: derivative(reverse_alone, x[0]), "gradient(f, x)"),
        (lambda x: derivative(reverse_alone, x[0], 2), "hessian(f, x)"),
        (jax.jit(lambda x: derivative(reverse_alone, x[0], 2)), "hessian(f, x)"),
        (lambda x: hessian_diagonal(reverse_alone, x), "the diagonal of hessian(f, x)"),
        (lambda x: directional_derivative(reverse_alone, x, x), "jacobian(f, x)"),
    ],
)
def test_a_function_with_a_rule_for_reverse_mode_only_is_named(call, instead):
    words = (
        f"reverse_alone has its own rule for reverse mode only.*{re.escape(instead)}"
    )
    with pytest.raises(UnsupportedPrimitiveError, match=words):
        call(jnp.ones(2))


def deleted(shape):
    x = jnp.ones(shape)
    x.delete()
    return x


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: derivative(jnp.sin, deleted(())), "x"),
        (lambda: gradient(lambda x: x["a"].sum(), {"a": deleted(3)}), "x['a']"),
        (lambda: hessian(jnp.sum, deleted(3)), "x"),
        (lambda: directional_derivative(jnp.sum, jnp.ones(3), deleted(3)), "v"),
        (lambda: check_derivative(jnp.sum, deleted(3), jax.random.key(0)), "x"),
        (lambda: finite_difference(jnp.sin, deleted(())), "x"),
        (lambda: limit_table(jnp.sin, deleted(())), "x"),
        (lambda: enclose(jnp.sin, 0.0, deleted(())), "high"),
        (lambda: fornberg_weights(deleted(3), 0.0, 1), "nodes"),
        (lambda: losses.squared_error(deleted(3), jnp.ones(3)), "prediction"),
        (lambda: losses.squared_error(jnp.ones(3), deleted(3)), "target"),
    ],
)
def test_an_array_that_was_deleted_is_named(call, name):
    message = f"{name} must be an array with numbers; got a deleted array of float64"
    with pytest.raises(RuntimeError, match=re.escape(message)):
        call()


@pytest.mark.parametrize("function", [gradient, jacobian, hessian])
def test_a_pytree_without_arrays_is_refused(function):
    with pytest.raises(ValueError, match=r"hold at least one array; got x=\{\}"):
        function(lambda x: jnp.asarray(0.0), {})


def test_mistake_in_f_is_raised_as_it_is():
    def mistaken(x):
        raise ValueError("two rivers")

    with pytest.raises(ValueError, match="two rivers"):
        gradient(mistaken, jnp.ones(2))


def test_hessian_diagonal_of_nothing_is_nothing():
    assert hessian_diagonal(lambda x: jnp.sum(x), jnp.zeros(0)).shape == (0,)


def test_a_product_with_the_hessian_of_one_number_may_use_reverse_mode():
    @jax.custom_vjp
    def square(x):
        return jnp.sum(x**2)

    square.defvjp(lambda x: (jnp.sum(x**2), x), lambda x, ct: (2 * x * ct,))
    found = hessian_vector_product(square, jnp.array([3.0]), jnp.array([5.0]))
    np.testing.assert_allclose(found, [10.0])
