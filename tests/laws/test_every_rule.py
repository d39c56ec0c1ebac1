"""What holds for every rule of the table: it is what its authorities say, and it is a
good citizen of JAX and optax.
"""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.update_rules import RULE_TABLE, UPDATE_RULES
from research.verification import CARDS, PROBLEMS
from research.verification.card import rate_on
from research.verification.problems import NUM_STEPS
from research.verification.recorded import variants
from research.verification.table import AUTHORITIES, BOUND, verification_table
from research.verification.walks import (
    Walk,
    _rows,
    _walk_down,
    _with,
    distance,
    paths,
    walk,
    walk_constructed,
    walk_exactly,
)

COMPILE_QUICKLY = True  # tests/conftest.py
DRAWS_NO_KEYS = True  # tests/conftest.py

# Two with coupled decay, which here is a chain, and one with another line search, whose
# limit points alone compare: tests/laws/test_rule_trajectories.py and
# tests/rules/test_quasi_newton.py.
ELSEWHERE = {
    "sgd/L2 weight decay 0.1",
    "adam/L2 weight decay 0.1 (coupled)",
    "lbfgs/line search, memory 10",
}
ON = PROBLEMS["softmax_regression"]


@functools.cache
def cells(name, dtype):
    return verification_table(
        [name], [dtype], AUTHORITIES if dtype == "float64" else ["formula"]
    )


@pytest.mark.thorough(
    "every problem and authority; make test has the formula on one problem, below"
)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", UPDATE_RULES)
def test_rule_is_what_every_authority_says(name, dtype):
    found = cells(name, dtype)
    for cell in found:
        assert (cell.reason is None) != (cell.deviation is None)
        assert cell.reason is None or len(cell.reason.split()) >= 4, (
            f"no sentence: {cell}"
        )
        assert cell.reason or cell.deviation.largest <= cell.bound, cell
    assert (
        len([c for c in found if c.authority == "formula" and c.reason is None]) >= 2
    ), "on two problems at least"


@pytest.mark.parametrize("name", UPDATE_RULES)
def test_rule_is_what_its_formula_says_on_one_problem(names, name):
    card = CARDS[name]
    ours = ("quadratic", "rosenbrock", "softmax_regression", "scales")
    problem = next(PROBLEMS[p] for p in ours if p not in card.reasons)
    arguments = {"learning_rate": rate(name, problem)}
    if problem.name == "quadratic":
        found = walked(names, name, on="quadratic")
    else:
        found = walk_constructed(UPDATE_RULES[name], arguments, problem, "float64")
    exact = walk_exactly(CARDS[name].formula.iterates, problem, **arguments)
    bound = card.bounds.get("formula", BOUND) * np.finfo("float64").eps
    assert distance(found, exact, problem).largest <= bound


def test_every_recorded_trajectory_is_met():
    used = {
        r.variant
        for card in CARDS.values()
        if not isinstance(card.recorded, str)
        for r in card.recorded
    }
    assert used | ELSEWHERE == variants()


def rate(name, problem=ON):
    return rate_on(problem, CARDS[name])


WALKED_ON = pytest.mark.parametrize(
    "on",
    [
        "quadratic",
        pytest.param(
            "softmax_regression",
            marks=pytest.mark.thorough("params of several leaves, compiled thrice"),
        ),
    ],
)


def dtype_on(problem):
    """The softmax regression in float32, and what is compiled fast in float64."""
    return "float32" if problem is ON else "float64"


@pytest.fixture(scope="module")
def names(request):
    """The rules that a selected test of this file is about: one program holds them."""
    items = [i for i in request.session.items if i.path == Path(__file__)]
    asked = {i.callspec.params.get("name") for i in items if hasattr(i, "callspec")}
    return tuple(name for name in UPDATE_RULES if name in asked)


@functools.cache
def program(names, on):
    """{rule: rate} -> its walk as in the table: scanned, jitted, the rates traced."""
    objective, x = PROBLEMS[on].objective, start(on=PROBLEMS[on])

    def walks(rates):
        return {
            name: _walk_down(
                _with(UPDATE_RULES[name], ()),
                objective,
                NUM_STEPS,
                {"learning_rate": rates[name]},
                x,
            )
            for name in names
        }

    return jax.jit(walks)


@functools.cache
def walks(names, factor, on):
    rates = {name: factor * rate(name, PROBLEMS[on]) for name in names}
    leaves = paths(PROBLEMS[on].start)
    return {
        name: Walk(
            *map(_rows, found[:2]),
            leaves,
            None if found[2] is None else _rows(found[2]),
        )
        for name, found in program(names, on)(rates).items()
    }


def walked(names, name, factor=1.0, on=ON.name):
    return walks(names, factor, on)[name]


def assert_near(name, ours, theirs, num_steps, dtype):
    """Within 32 eps, or as far as the rule's card says that it carries rounding."""
    assert ours.shape == theirs[:num_steps].shape
    scale, eps = 1.0 + np.abs(theirs[:num_steps]), np.finfo(dtype).eps
    assert (
        np.max(np.abs(ours[:num_steps] - theirs[:num_steps]) / scale)
        <= max(32.0, CARDS[name].bounds.get("formula", 0.0)) * eps
    )


def extras(x, on=ON):
    """A gradient, and the extra arguments that a step of descent passes."""
    value_fn = lambda params, indices=None: on.objective(params)
    value, gradient = jax.value_and_grad(value_fn)(x)
    return gradient, {
        "value": value,
        "grad": gradient,
        "value_fn": value_fn,
        "indices": None,
    }


def start(dtype=None, on=ON):
    dtype = dtype or dtype_on(on)
    return jax.tree.map(lambda a: jnp.asarray(a, dtype), on.start)


def flat(x):
    return np.concatenate(
        [np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(x)]
    )


@pytest.mark.on_ci(
    "the other rules; test_rule_works_inside_optax runs every rule without jit, and "
    "the formula above compares every rule under jit",
    but="^(gradient_descent|adafactor|adam|muon|shampoo|sam|lbfgs|newton)-",
)
@WALKED_ON
@pytest.mark.parametrize("name", UPDATE_RULES)
def test_eager_equals_jit_and_a_loop_equals_a_scan(names, name, on):
    rule, x = (
        optax.with_extra_args_support(UPDATE_RULES[name](rate(name, PROBLEMS[on]))),
        start(on=PROBLEMS[on]),
    )
    state, rows = rule.init(x), []
    for _ in range(2):  # From a fresh state, and from one that is not.
        gradient, more = extras(x, PROBLEMS[on])
        updates, state = rule.update(gradient, state, x, **more)
        x = optax.apply_updates(x, updates)
        rows.append(flat(x))
    theirs = walked(names, name, on=on).iterates[:2]
    assert_near(name, np.array(rows), theirs, 2, dtype_on(PROBLEMS[on]))


@functools.cache
def lanes(names, on):
    """Ten steps of each rule at its rate and at half of it, under vmap: one program.

    XLA optimises it less, which takes half the time; the loop, as always.
    """

    def ten_steps(name, learning_rate):
        rule, x = (
            optax.with_extra_args_support(UPDATE_RULES[name](learning_rate)),
            start(on=PROBLEMS[on]),
        )

        def step(carry, _):
            x, state = carry
            gradient, more = extras(x, PROBLEMS[on])
            updates, state = rule.update(gradient, state, x, **more)
            x = optax.apply_updates(x, updates)
            return (x, state), jnp.concatenate(
                [jnp.ravel(a) for a in jax.tree.leaves(x)]
            )

        return jax.lax.scan(step, (x, rule.init(x)), length=10)[1]

    rates = {name: rate(name, PROBLEMS[on]) * jnp.array([1.0, 0.5]) for name in names}
    return jax.jit(
        lambda rates: {
            name: jax.vmap(functools.partial(ten_steps, name))(rates[name])
            for name in names
        },
        compiler_options={"xla_backend_optimization_level": 0},
    )(rates)


@pytest.mark.on_ci(
    "one large program of every rule under vmap; the next test has traced rates"
)
@WALKED_ON
@pytest.mark.parametrize("name", UPDATE_RULES)
def test_rates_under_vmap_equal_rates_in_a_loop(names, name, on):
    # Where the rule's card has a reason not to be asked (rounding that is magnified),
    # the first six steps alone.
    steps = 6 if on in CARDS[name].reasons else 10
    found = np.asarray(lanes(names, on)[name], np.float64)
    for lane, factor in zip(found, (1.0, 0.5), strict=True):
        theirs = walked(names, name, factor, on).iterates
        assert_near(name, lane[:steps], theirs, steps, dtype_on(PROBLEMS[on]))


@WALKED_ON
def test_other_rates_do_not_compile_again(names, on):
    walks(names, 1.0, on)
    walks(names, 0.37, on)
    assert program(names, on)._cache_size() == 1


@pytest.mark.thorough("the other pairs of dtypes", but="float32-bfloat16")
@pytest.mark.parametrize(
    ("of_params", "of_gradient"),
    [
        ("float32", "bfloat16"),
        ("bfloat16", "float32"),
        *((dtype, dtype) for dtype in ("bfloat16", "float32", "float64")),
    ],
)
@pytest.mark.parametrize("name", UPDATE_RULES)
def test_updates_have_the_dtype_of_gradients_and_states_keep_theirs(
    name, of_params, of_gradient
):
    """In every pair of dtypes, with hyper-parameters that are traced and wider."""
    # These take gradients of the objective, which have the dtype of the params.
    if RULE_TABLE[name].asks_the_objective:
        of_params = of_gradient

    def step(learning_rate, x, g):
        rule = optax.with_extra_args_support(UPDATE_RULES[name](learning_rate))
        state = rule.init(x)
        value_fn = lambda params, indices=None: ON.objective(params)
        more = {"value": value_fn(x), "grad": g, "value_fn": value_fn, "indices": None}
        return state, rule.update(g, state, x, **more)

    x, g = start(of_params), start(of_gradient)
    before, (updates, after) = jax.eval_shape(step, jnp.asarray(0.1, "float64"), x, g)
    assert [u.dtype for u in jax.tree.leaves(updates)] == [of_gradient] * len(g)
    describe = lambda s: (s.shape, s.dtype, s.weak_type)
    assert jax.tree.map(describe, before) == jax.tree.map(describe, after)


@pytest.mark.on_ci(
    "the other rules; the test above asks every rule for its dtypes",
    but=r"^(gradient_descent|adafactor|adam|muon|lbfgs)\]",
)
@pytest.mark.parametrize("name", UPDATE_RULES)
def test_params_of_weak_type_are_worked_on_in_their_own_dtype(name):
    """Such as jnp.array(1.0): beside a strong float32 JAX makes float32 of it."""

    def step(x):
        rule = optax.with_extra_args_support(UPDATE_RULES[name](rate(name)))
        gradient, more = extras(x)
        updates, state = rule.update(gradient, rule.init(x), x, **more)
        return updates, state, optax.apply_updates(x, updates)

    strong = start("float64")
    weak = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, weak_type=True), strong
    )
    dtypes = [
        [leaf.dtype for leaf in jax.tree.leaves(jax.eval_shape(step, x))]
        for x in (strong, weak)
    ]
    assert dtypes[0] == dtypes[1]


@pytest.mark.on_ci(
    "the other rules; the scan of test_rule_is_what_its_formula_says_on_one_problem "
    "needs a state of arrays too",
    but="^(gradient_descent|adafactor|adam|muon|shampoo|sam|lbfgs|newton)-",
)
@WALKED_ON
@pytest.mark.parametrize("name", UPDATE_RULES)
def test_a_state_that_was_written_and_read_goes_on_to_the_same_bits(name, on):
    problem = PROBLEMS[on]
    rule, x = (
        optax.with_extra_args_support(UPDATE_RULES[name](rate(name, problem))),
        start(on=problem),
    )
    gradient, more = extras(x, problem)
    _, state = rule.update(gradient, rule.init(x), x, **more)
    leaves, structure = jax.tree.flatten(state)
    again = jax.tree.unflatten(
        structure, [jnp.asarray(np.array(leaf)) for leaf in leaves]
    )
    for a, b in zip(
        *(jax.tree.leaves(rule.update(gradient, s, x, **more)) for s in (state, again)),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.on_ci("three more rules", but=r"^adam\]")
@pytest.mark.thorough(
    "another dtype, but for four rules",
    but=r"^(gradient_descent|adam|adagrad|laprop)\]",
)
@pytest.mark.parametrize("name", UPDATE_RULES)
def test_bfloat16_is_treated_as_optax_treats_it(name):
    card, problem = CARDS[name], PROBLEMS["random_pytree"]
    if isinstance(card.optax, str) or problem.name in card.reasons:
        problem = ON  # No counterpart: then it stays bfloat16, and near the exact rule.
        found = walk(UPDATE_RULES[name](rate(name)), problem, "bfloat16", 5)
        exact = walk(UPDATE_RULES[name](rate(name)), problem, "float32", 5)
        assert distance(found, exact, problem).largest <= 0.1
        return
    # Later, what one processor rounds and another does not has grown: after fifty steps
    # optax's Prodigy is 32 eps from the exact rule on one and 48 on another.
    ours, theirs = (
        walk(c(rate(name, problem)), problem, "bfloat16", 20)
        for c in (UPDATE_RULES[name], card.optax)
    )
    bound = card.bounds.get("bfloat16", 4.0) * float(jnp.finfo("bfloat16").eps)
    assert distance(ours, theirs, problem).largest <= bound


@pytest.mark.on_ci("the other rules", but=r"^(adam|lion|muon|prodigy)\]")
@pytest.mark.parametrize("name", UPDATE_RULES)
def test_optax_takes_the_arguments_of_the_card(name):
    """Traced alone: on every version that we support."""
    card, x = CARDS[name], start("float32")
    if isinstance(card.optax, str):
        assert len(card.optax.split()) >= 4
        return
    more = card.optax_arguments
    for given in ({}, card.arguments if more is None else more):
        rule = optax.with_extra_args_support(card.optax(rate(name), **given))

        def step(x, rule=rule):
            gradient, more = extras(x)
            return rule.update(gradient, rule.init(x), x, **more)

        jax.eval_shape(step, x)


@WALKED_ON
@pytest.mark.parametrize("name", UPDATE_RULES)
def test_rule_works_inside_optax(name, on):
    """Chained after a clip, it answers the clipped gradient as it would alone."""
    problem = PROBLEMS[on]
    rule, x = UPDATE_RULES[name](rate(name, problem)), start(on=problem)
    chained, alone = (
        optax.chain(optax.clip(0.01), rule),
        optax.with_extra_args_support(rule),
    )
    gradient, more = extras(x, problem)
    clipped = jax.tree.map(lambda g: jnp.clip(g, -0.01, 0.01), gradient)
    ours, _ = chained.update(gradient, chained.init(x), x, **more)
    theirs, _ = alone.update(clipped, alone.init(x), x, **more)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", UPDATE_RULES)
def test_state_may_be_donated(name):
    """No buffer stands in a state twice, so that a step may overwrite params and
    state.
    """
    x = jax.tree.map(jnp.array, start("float32"))
    state = UPDATE_RULES[name](rate(name)).init(x)
    buffers = [
        leaf.unsafe_buffer_pointer()
        for leaf in jax.tree.leaves((x, state))
        if leaf.size
    ]
    assert len(set(buffers)) == len(buffers)
