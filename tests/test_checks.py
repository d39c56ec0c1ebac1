"""Checks of arguments: the quick path for common values says what the slow one says."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import checks


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


def test_a_refused_configuration_changes_nothing():
    from research import backend

    jnp.zeros(1).block_until_ready()
    with pytest.raises(RuntimeError, match="already started"):
        backend.configure(pool=7, x64=False)
    assert jnp.zeros(1).dtype == jnp.float64
