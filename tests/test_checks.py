"""Checks of arguments: the quick path for common values says what the slow one says."""

import functools
import inspect
import os
import sys
from decimal import Decimal
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import (
    checks,
    cluster,
    comparison,
    datasets,
    derivatives,
    descent,
    losses,
    models,
    naming,
    objectives,
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


def pair(carry, x):
    return carry + x, x


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


def test_a_decimal_number_is_told_from_a_float():
    with pytest.raises(TypeError, match=r"It is a Decimal; pass float\(b1\)\."):
        checks.check_number("b1", Decimal("0.1"))


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


def test_a_number_of_devices_is_an_integer_of_any_kind():
    from research import backend

    pool = int(os.environ.get("NPROC", 2))
    for devices in (np.int64(pool + 1), np.array(pool + 1)):
        with pytest.raises(ValueError, match=f"devices={pool + 1}, pool={pool}"):
            backend.configure(devices=devices, pool=np.int64(pool))
    for size in (0, True, 1.0, 10**400):
        with pytest.raises(ValueError, match="pool must be a positive integer"):
            backend.configure(pool=size)


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


MASKED = np.ma.masked_array([1.0, 2.0, 999.0, 3.0], [0, 0, 1, 0])


@pytest.mark.parametrize(
    "call",
    [
        lambda x: statistics.mean_interval(x),
        lambda x: statistics.median_interval(x),
        lambda x: statistics.passes_to_target(np.arange(4.0), x[None], 1.5),
        lambda x: datasets.mean_and_sd(x[:, None]),
        lambda x: grid_derivative(x, 0.1),
        lambda x: finite_difference(lambda z: (z**2).sum(), x),
        lambda x: update_rules.adam(0.1).init({"w": x}),
        lambda x: objectives.l2_penalty(0.1)({"w": x}),
        lambda x: losses.squared_error(x[0], x[2]),
        lambda x: update_rules.adam(x[2]),
    ],
)
def test_an_entry_that_is_masked_is_refused(call):
    with pytest.raises(TypeError, match="mask"):
        call(MASKED)


def test_a_masked_array_without_masked_entries_is_an_array():
    whole = np.ma.masked_array([1.0, 2.0, 3.0])
    assert statistics.mean_interval(whole) == statistics.mean_interval([1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("leaf", "told"),
    [
        (np.ones(3, ">f8" if sys.byteorder == "little" else "<f8"), "order of another"),
        (np.longdouble(1), "which JAX lacks"),
    ],
)
def test_numbers_that_jax_lacks_are_refused_with_their_place(leaf, told):
    if np.dtype(np.longdouble).itemsize == 8 and told == "which JAX lacks":
        return  # Here a long double is a double.
    with pytest.raises(TypeError, match=rf"params\['w'\].*{told}.* Convert it: "):
        checks.check_tree("params", {"w": leaf})


def test_an_integer_of_more_than_64_bits_is_refused_for_its_size():
    with pytest.raises(TypeError, match="an integer of more than 64 bits"):
        update_rules.adam(0.1).init({"w": 2**63})


def test_a_value_is_shown_on_one_line():
    assert "\n" in repr(jax.random.key(0))
    assert checks.shown(jax.random.key(0)) == " ".join(repr(jax.random.key(0)).split())


def test_a_tree_whose_leaves_jax_cannot_list_is_refused_by_name():
    circle = []
    circle.append(circle)
    for tree in ({"w": circle}, {1: 1.0, "a": 2.0}):
        with pytest.raises(TypeError, match=r"params must be a pytree .* can list"):
            checks.check_tree("params", tree)


@pytest.mark.parametrize(
    "value",
    [np.timedelta64(3, "s"), Fraction(9, 10), 10**400],
    ids=["a span of time", "a fraction", "too large for a float"],
)
def test_what_is_no_share_is_refused_by_name(value):
    with pytest.raises((TypeError, ValueError), match=r"level must .* between 0 and 1"):
        statistics.mean_interval([1.0, 2.0, 4.0], level=value)


def test_a_span_of_time_is_no_number():
    span = np.timedelta64(3, "s")
    with pytest.raises(TypeError, match="learning_rate must be a finite number"):
        update_rules.adam(span)
    with pytest.raises(ValueError, match="must be a positive integer"):
        samplers.minibatch(10, span)


@pytest.mark.parametrize("search", [["zoom"], {"zoom": 1}, {"zoom"}, np.ones(2)])
@pytest.mark.parametrize("rule", ["lbfgs", "bfgs", "nonlinear_conjugate_gradient"])
def test_a_line_search_that_is_no_name_is_refused_by_name(rule, search):
    with pytest.raises(ValueError, match="linesearch must be one of"):
        getattr(update_rules, rule)(1.0, linesearch=search)


def deleted(value):
    """An array of JAX whose numbers were deleted."""
    array = jnp.copy(value)
    array.delete()
    return array


def state_of_adam():
    state = update_rules.adam(0.1).init({"w": jnp.ones(2)})
    return jax.tree.map(deleted, state)


ONES = {"w": jnp.ones(2)}


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda x: checks.check_number("b1", x[0]), "b1"),
        (lambda x: checks.check_real("delta", x[0]), "delta"),
        (lambda x: checks.check_count("n", x[0]), "n"),
        (lambda x: checks.check_sequence("texts", x), "texts"),
        (lambda x: checks.check_numbers("costs", x), "costs"),
        (lambda x: checks.check_key("key", deleted(jax.random.key(0))), "key"),
        (lambda x: checks.check_tree("params", {"w": x}), "params['w']"),
        (lambda x: derivatives.explain(jnp.sum, x), "args[0]"),
        (lambda x: derivatives.cost(jnp.sum, x), "args[0]"),
        (lambda x: derivatives.cost_ratio(jax.grad, jnp.sum, x), "args[0]"),
        (lambda x: classify_critical_point(jnp.sum, x), "x"),
        (lambda x: derivatives.checkpoint_scan(pair, x, ONES["w"]), "init"),
        (lambda x: derivatives.checkpoint_scan(pair, ONES["w"], x), "xs"),
        (lambda x: descent.minimise(jnp.sum, update_rules.adam(0.1), x), "params"),
        (lambda x: update_rules.adam(0.1).init({"w": x}), "params['w']"),
        (lambda x: update_rules.adam(0.1).update({"w": x}, None), "updates['w']"),
        (
            lambda x: update_rules.adam(0.1).update(ONES, state_of_adam(), ONES),
            "state[0].count",
        ),
        (lambda x: models.named_arrays({"w": x}), "w of params"),
        (lambda x: models.dense(x, jnp.ones((2, 3)), jnp.ones(3)), "x"),
        (lambda x: losses.check_targets(losses.huber, ONES["w"], x), "targets"),
    ],
)
def test_a_deleted_array_is_refused_by_name(call, name):
    # A scalar is deleted as a whole: no entry of a deleted array can be taken.
    x = (deleted(1.0),) if name in ("b1", "delta", "n") else deleted(jnp.ones(2))
    with pytest.raises(RuntimeError) as caught:
        call(x)
    assert str(caught.value).startswith(
        f"{name} must be an array with numbers; got a deleted array of "
    )


def test_parameters_that_were_given_away_can_be_counted_and_compared():
    params = {"w": deleted(jnp.ones((2, 3)))}
    assert models.count_parameters(params) == 6
    models.check_same_architecture({"w": jnp.ones((2, 3))}, params)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: naming.nearest("a", 3), "known must be a collection of names"),
        (lambda: naming.closest("a", [1]), "every name in known must be a str"),
        (lambda: naming.closest(jnp.array([1j]), ["a"]), "name must be a str; got"),
        (lambda: cluster.variables("a:1", [0, 2]), "place must be a Place; got"),
        (
            lambda: comparison.parse_command(["adam"], str, evaluations=""),
            "evaluations must be a list of texts such as mine=2; got evaluations=''",
        ),
        (
            lambda: comparison.parse_command(["adam"], str, spaces="adam.b1=0..1"),
            "spaces must be a list of texts",
        ),
    ],
)
def test_a_value_of_another_kind_is_refused_by_the_name_of_its_argument(call, words):
    with pytest.raises(TypeError) as caught:
        call()
    assert words in str(caught.value)
