"""Checks of arguments: the quick path for common values says what the slow one says."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import (
    checks,
    datasets,
    descent,
    runs,
    samplers,
    statistics,
    update_rules,
)
from research.derivatives import (
    certified,
    check_derivative,
    classify_critical_point,
    critical_points,
    finite_difference,
    fornberg_weights,
    grid_derivative,
    limit_table,
)
from research.types import Batch


def one(x):
    return x


def with_default(x, y=1):
    return x + y


def keyword(x, *, y):
    return x + y


def keyword_with_default(x, *, y=1):
    return x + y


def several(*xs):
    return xs


@functools.wraps(one)
def wrapped(*args):
    return one(*args)


class Callable:
    """An object that is called like a function."""

    def __call__(self, x):
        return x


FUNCTIONS = [
    one,
    with_default,
    keyword,
    keyword_with_default,
    several,
    wrapped,
    lambda: 0,
    lambda x, y: x,
    functools.partial(with_default, 1),
    Callable(),
    Callable().__call__,
    len,
]


@pytest.mark.parametrize("arguments", [("x",), ("x", "y")])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_is_taken_as_its_signature_says(function, arguments):
    try:
        inspect.signature(function).bind(*arguments)
        fits = True
    except TypeError:
        fits = False
    if fits:
        checks.check_callable("f", function, *arguments)
    else:
        with pytest.raises(TypeError, match="f must be a function of"):
            checks.check_callable("f", function, *arguments)


def test_arrays_of_floats_are_known_by_their_dtype():
    for dtype in ("float16", "float32", "float64"):
        assert checks.is_float_array(np.ones(2, dtype))
        assert checks.is_float_array(jnp.ones((), dtype))
    found = []
    jax.jit(lambda x: found.append(checks.is_float_array(x)))(1.0)
    assert found == [True]
    for other in (1.0, [1.0], "1", None, np.ones(2, int), jnp.ones(2, "bfloat16")):
        assert not checks.is_float_array(other)


@pytest.mark.parametrize("value", [1, 2**31, 2**70, np.int32(3)])
def test_integers_are_taken_up_to_the_limit(value):
    checks.check_number("n", value, positive=True, integer=True)
    with pytest.raises(ValueError, match="n must be an integer"):
        checks.check_number("n", value, integer=True, below=1.0)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("enclose", lambda x: certified.enclose(jnp.sin, x, x)),
        ("derivative_enclosure", lambda x: certified.derivative_enclosure(jnp.sin, x)),
        ("certified_roots", lambda x: certified.certified_roots(jnp.sin, [(0.0, x)])),
        ("critical_points", lambda x: critical_points(jnp.sum, [[x]], [(0.0, 1.0)])),
        ("classify_critical_point", lambda x: classify_critical_point(jnp.sin, x)),
        ("check_derivative", lambda x: check_derivative(jnp.sin, x, jax.random.key(0))),
        ("finite_difference", lambda x: finite_difference(jnp.sin, x)),
        ("limit_table", lambda x: limit_table(jnp.sin, x)),
        ("grid_derivative", lambda x: grid_derivative(np.ones(2), [0.0, x])),
        ("fornberg_weights", lambda x: fornberg_weights([0.0, 1.0], x, 1)),
        ("mean_interval", lambda x: statistics.mean_interval([x, x])),
        ("split", lambda x: datasets.split(np.ones((9, 1)), x * np.ones(9))),
        ("hash_arrays", lambda x: runs.hash_arrays({"x": x})),
        ("minibatch", lambda x: samplers.minibatch(x, 4)),
        ("train", lambda x: trained(x)),
    ],
)
@pytest.mark.parametrize("transform", [jax.jit, jax.grad], ids=["jit", "grad"])
def test_a_traced_value_is_refused_by_name(name, call, transform):
    words = rf"{name} needs concrete numbers .*; \w+ is traced\. Call it outside\."
    with pytest.raises(TypeError, match=words):
        transform(call)(1.0)


def trained(x):
    """A training from traced params."""
    data, rule = Batch(jnp.ones(2), jnp.ones(2)), update_rules.gradient_descent(0.1)
    given = {"num_epochs": 1, "params": x, "key": jax.random.key(0)}
    sampler = samplers.full_batch(2)
    return descent.train(lambda p, batch: p**2, rule, data, sampler, **given).params


@pytest.mark.parametrize("value", ["yes", 1, None])
def test_a_configuration_that_is_no_flag_is_refused(value):
    from research import backend

    with pytest.raises(
        TypeError, match=f"x64 must be True or False; got x64={value!r}"
    ):
        backend.configure(x64=value)


def test_a_refused_configuration_changes_nothing():
    from research import backend

    jnp.zeros(1).block_until_ready()
    with pytest.raises(RuntimeError, match=r"already started .* devices=1, pool=7 "):
        backend.configure(pool=7, x64=False)
    assert jnp.zeros(1).dtype == jnp.float64


def with_base(of):
    @functools.wraps(of)
    def shorter(t):
        return of(t, 0.5)

    return shorter


def test_a_decorator_may_change_what_a_function_takes():
    schedule = lambda t, base: base / (1 + t)
    rule = update_rules.adam(with_base(schedule))
    rule.update(jnp.ones(2), rule.init(jnp.ones(2)))
    with pytest.raises(TypeError, match="learning_rate must be a function of"):
        update_rules.adam(schedule)
