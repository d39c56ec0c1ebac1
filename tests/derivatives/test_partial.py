"""Partial and total derivatives: closed forms, jax.grad of the composition on random
graphs, and what is refused.
"""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.derivatives.errors import NotInexactError
from research.derivatives.partial import partial_derivative, total_derivative

COMPILE_QUICKLY = True  # tests/conftest.py


def energy(x, y, z=2.0, *, scale=1):
    return scale * (x**2 * y + jnp.sin(y) * z)


@pytest.mark.parametrize(
    ("argument", "truth"),
    [(0, 6.0), ("x", 6.0), (1, 4 + 2 * np.cos(1.5)), ("y", 4 + 2 * np.cos(1.5))],
)
def test_partial_derivative_by_position_or_name_is_the_closed_form(argument, truth):
    np.testing.assert_allclose(
        partial_derivative(energy, argument, 2.0, 1.5), truth, rtol=1e-15
    )


def test_partial_derivative_holds_the_rest_whatever_it_is():
    assert partial_derivative(energy, "z", 2.0, 1.5, z=3.0, scale=5) == pytest.approx(
        5 * np.sin(1.5)
    )
    found = partial_derivative(
        lambda mode, w, n: jnp.sum(w["a"] ** n),
        "w",
        "fast",
        {"a": jnp.array([1.0, 2.0])},
        3,
    )
    assert found["a"].tolist() == [3.0, 12.0]


def test_partial_derivative_of_many_outputs_is_the_jacobian():
    f = lambda x, y: jnp.outer(x, y)
    x, y = jnp.arange(2.0), jnp.arange(3.0)
    np.testing.assert_array_equal(
        partial_derivative(f, 1, x, y), jax.jacfwd(f, argnums=1)(x, y)
    )


def random_graph(rng, size, shape):
    """A random acyclic dependency, and the same as one function of x; every function
    takes some of those before it.
    """
    dependencies, functions = {}, {}
    for i in range(size):
        known = ["x", *dependencies]
        taken = [name for name in known if rng.random() < 0.5] or [known[-1]]
        functions[f"v{i}"] = make(taken, rng, shape)
        dependencies[f"v{i}"] = functions[f"v{i}"]
    unused = [
        n for n in dependencies if not any(n in g.names for g in functions.values())
    ]
    f = make(["x", *unused], rng, ())
    return f, dependencies


def make(taken, rng, shape):
    weights = {name: rng.normal() for name in taken}

    def of(values):
        mixed = sum(
            jnp.sin(weights[name] * values[name] + i) for i, name in enumerate(taken)
        )
        return jnp.sum(mixed) if shape == () else mixed * values[taken[-1]]

    space = {"of": of}
    exec(
        f"def g({', '.join(taken)}): return "
        f"of(dict({', '.join(f'{n}={n}' for n in taken)}))",
        space,
    )
    space["g"].names = taken
    return space["g"]


def composed(f, dependencies):
    def whole(x):
        values = {"x": x}
        for (
            name,
            g,
        ) in dependencies.items():  # In an order in which they can be computed.
            values[name] = g(**{n: values[n] for n in g.names})
        return f(**{n: values[n] for n in f.names})

    return whole


@pytest.mark.thorough("seven more graphs", but=r"0\]")
@pytest.mark.parametrize("seed", range(8))
def test_total_equals_jax_on_the_composition_of_a_random_graph(seed):
    rng = np.random.default_rng(seed)
    shape = [(3,), (2, 2)][seed % 2]
    f, dependencies = random_graph(rng, 2 + seed % 4, shape)
    shuffled = {
        name: dependencies[name] for name in rng.permutation(list(dependencies))
    }
    x = jnp.asarray(rng.normal(size=shape))
    found = total_derivative(f, x, shuffled)
    truth = jax.grad(composed(f, dependencies))(x)
    scale = 1e-12 * np.abs(truth).max()
    np.testing.assert_allclose(found.total, truth, rtol=1e-12, atol=scale)
    np.testing.assert_allclose(
        found.direct + sum(found.via.values()), truth, rtol=1e-12, atol=scale
    )
    np.testing.assert_allclose(
        sum(path.value for path in found.paths), truth, rtol=1e-12, atol=scale
    )


def test_each_path_is_the_product_of_its_steps():
    # z = x y, y = x², f = x + 3 y z: x, x -> y, x -> z, x -> y -> z.
    f = lambda x, y, z: x + 3 * y * z
    x = 1.5
    found = total_derivative(f, x, {"z": lambda x, y: x * y, "y": lambda x: x**2})
    y, z = x**2, x**3
    truth = {("x", "f"): 1, ("x", "y", "f"): 3 * z * 2 * x, ("x", "z", "f"): 3 * y * y}
    truth["x", "y", "z", "f"] = 3 * y * x * 2 * x
    assert {
        path.names: pytest.approx(float(path.value)) for path in found.paths
    } == truth
    assert found.direct == 1
    assert found.via == {
        "y": pytest.approx(3 * z * 2 * x),
        "z": pytest.approx(3 * y * 3 * x**2),
    }
    assert found.total == pytest.approx(1 + 15 * x**4)


@pytest.mark.on_ci(
    "a tree and two outputs; "
    "test_total_equals_jax_on_the_composition_of_a_random_graph has one array and one "
    "output"
)
def test_trees_and_many_outputs_are_those_of_jax():
    f = lambda p, y: jnp.stack([p["a"] * y, p["b"].sum() + y**2])
    g = lambda p: p["a"] ** 2 + p["b"] @ p["b"]
    x = {"a": 1.5, "b": jnp.array([0.5, -1.0])}
    found, truth = total_derivative(f, x, {"y": g}), jax.jacrev(lambda p: f(p, g(p)))(x)
    chex.assert_trees_all_close(found.total, truth, rtol=1e-13)


def test_a_variable_that_x_reaches_only_through_others_has_no_direct_part():
    found = total_derivative(lambda x, y: y**2, 3.0, {"y": lambda x: 2 * x})
    assert (found.direct, found.total) == (0, 24)
    found = total_derivative(lambda x, y, n=2: y**n, 3.0, {"y": lambda x: 2 * x})
    assert found.total == 24


@pytest.mark.on_ci("eleven variables; nothing shorter has too many paths")
def test_paths_are_left_out_where_they_are_too_many_and_the_total_is_not():
    # Every variable takes all before it: 2^11 paths.
    dependencies = {}
    for i in range(11):
        names = ["x", *dependencies]
        dependencies[f"v{i}"] = eval(
            f"lambda {', '.join(names)}: 0.5 * ({' + '.join(names)})"
        )
    f = eval(f"lambda x, {', '.join(dependencies)}: x + {' + '.join(dependencies)}")
    found = total_derivative(f, 1.0, dependencies)
    assert found.paths == ()
    assert found.total == pytest.approx(1.5**11)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda: partial_derivative(energy, "w", 1.0, 2.0),
            ValueError,
            "argument must be one of the arguments of energy: x, y, z, scale; got "
            "argument='w'",
        ),
        (
            lambda: partial_derivative(energy, "z", 1.0, 2.0),
            ValueError,
            "energy needs a value for z",
        ),
        (lambda: partial_derivative(energy, 2, 1.0, 2.0), ValueError, "argument=2"),
        (lambda: partial_derivative(energy, -1, 1.0, 2.0), ValueError, "argument=-1"),
        (lambda: partial_derivative(energy, "x", 1, 2.0), NotInexactError, "got int"),
        (
            lambda: total_derivative(energy, 1.0, {}),
            ValueError,
            "energy takes 'y', which is neither x nor",
        ),
        (
            lambda: total_derivative(energy, 1.0, {"y": lambda x, w: x}),
            ValueError,
            "dependencies['y'] takes 'w', which is neither x nor a dependency (y)",
        ),
        (
            lambda: total_derivative(energy, 1.0, {"y": lambda x: x, "w": lambda x: x}),
            ValueError,
            "no function takes 'w'",
        ),
        (
            lambda: total_derivative(energy, 1.0, {"x": lambda y: y, "y": lambda x: x}),
            ValueError,
            "'x', which is x",
        ),
        (
            lambda: total_derivative(
                energy, 1.0, {"y": lambda z: z, "z": lambda x, y: y}
            ),
            ValueError,
            "dependencies must not form a cycle; got",
        ),
        (
            lambda: partial_derivative(lambda a, b: a * b, "b", 1.0, b=2),
            NotInexactError,
            "b must be real floating",
        ),
        (
            lambda: partial_derivative(lambda a, *c: a * c[1], 2, 1.0, 3.0, 2),
            NotInexactError,
            "c[1] must be real floating",
        ),
        (
            lambda: total_derivative(energy, 1, {"y": lambda x: x}),
            NotInexactError,
            "x must be real floating",
        ),
        (
            lambda: total_derivative(energy, 1.0, {"y": lambda x: 3}),
            NotInexactError,
            "y must be real floating",
        ),
        (
            lambda: total_derivative(lambda x, y: (x, y), 1.0, {"y": lambda x: x}),
            ValueError,
            "must return one array",
        ),
        (
            lambda: total_derivative(lambda x, *y: x, 1.0, {"y": lambda x: x}),
            ValueError,
            "must take 'y' as one argument; it takes *y",
        ),
        (
            lambda: partial_derivative(lambda a, b: a * b, -1, 1.0, 2.0),
            ValueError,
            "argument=-1",
        ),
    ],
)
def test_bad_input_is_named_with_what_to_do(call, error, words):
    with pytest.raises(error, match=re.escape(words)):
        call()


def test_arguments_may_be_called_as_the_functions_own():
    assert (
        float(
            partial_derivative(
                lambda f, argument: f * argument, "f", f=2.0, argument=3.0
            )
        )
        == 3.0
    )


def test_an_argument_by_position_is_passed_by_position():
    found = total_derivative(lambda x, y: x * y, 2.0, {"y": jnp.sin})
    np.testing.assert_allclose(found.total, np.sin(2.0) + 2.0 * np.cos(2.0))


@pytest.mark.on_ci("one more set of arguments", but=r"[06]\]")
@pytest.mark.thorough("the other sets of arguments", but=r"[036]\]")
@pytest.mark.parametrize(
    "names", [(), ("a",), ("b",), ("c",), ("a", "c"), ("b", "c"), ("a", "b", "c")]
)
def test_arguments_by_position_alone_equal_arguments_by_name(names):
    # Defaults that are skipped stand before, between and after the given arguments.
    def by_name(x, a=2.0, b=1.0, c=5.0):
        return a * x + 100 * b + x * c**2

    def by_place(x, a=2.0, b=1.0, c=5.0, /):
        return by_name(x, a, b, c)

    def mixed(x, a=2.0, /, b=1.0, *, c=5.0):
        return by_name(x, a, b, c)

    functions = {"a": jnp.sin, "b": jnp.square, "c": jnp.exp}
    composed = lambda x: by_name(x, **{name: functions[name](x) for name in names})
    truth = jax.grad(composed)(3.0)
    dependencies = {name: lambda x, g=functions[name]: g(x) for name in names}
    for f in (by_name, by_place, mixed):
        found = total_derivative(f, 3.0, dependencies)
        np.testing.assert_allclose(found.total, truth, rtol=1e-14)
        assert list(found.via) == list(names)
