"""What users of optax take for granted, for every rule of the table: extra arguments,
injected hyper-parameters, schedules, empty params and plain numbers, counts that do not
wrap, gradients of any size, complex params.
"""

import functools
import inspect
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research import schedules
from research.update_rules import (
    RULE_TABLE,
    UPDATE_RULES,
    accumulate_gradients,
    add_decayed_weights,
    by_group,
    cautious,
    clip_adaptively,
    clip_by_global_norm,
    clip_by_norm,
    clip_by_value,
    evaluation_params,
    gauss_newton,
    levenberg_marquardt,
    lookahead,
    reduce_on_plateau,
    saga,
    sam,
    skip_nonfinite,
    svrg,
    with_state_dtype,
)
from research.update_rules._transforms import reached
from research.verification import CARDS, PROBLEMS, verify_rule

COMPILE_QUICKLY = True  # tests/conftest.py
DRAWS_NO_KEYS = True  # tests/conftest.py

LARGEST = int(jnp.iinfo(jnp.int32).max)
PARAMS = {
    "w": jnp.array([[1.0, 2.0], [3.0, -1.0]]),
    "b": jnp.array([0.5, -0.3]),
    "s": jnp.array(0.2),
}
# They know what to do without the objective.
OF_GRADIENTS = [
    name for name in UPDATE_RULES if not RULE_TABLE[name].asks_the_objective
]
NEEDS_VALUE = {"polyak_step", "momo", "momo_adam"}
# Their rate is a first step, radius or size: the rule finds the others itself.
WITHOUT_SCHEDULE = {
    "polyak_step",
    "barzilai_borwein",
    "adgd",
    "rprop",
    "trust_region_newton",
}


def objective(params, indices=None):
    del indices
    return (
        sum(jnp.sum(jnp.abs(leaf) ** 2) for leaf in jax.tree.leaves(params)) / 2 + 0.0
    )


def one_step(rule, params, **more):
    """The updates and the state; traced alone where jax.eval_shape calls it."""
    state = rule.init(params)
    value, gradient = jax.value_and_grad(objective)(params)
    told = {"value": value, "grad": gradient, "value_fn": objective, "indices": None}
    return rule.update(gradient, state, params, **told, **more)


INSIDE = {
    "alone": lambda rule: rule,
    "chain": lambda rule: optax.chain(optax.clip(1.0), rule),
    "named_chain": lambda rule: optax.named_chain(
        ("clip", optax.clip(1.0)), ("rule", rule)
    ),
    "partition": lambda rule: optax.partition(
        {"all": rule}, dict.fromkeys(PARAMS, "all")
    ),
    "masked": lambda rule: optax.masked(rule, dict.fromkeys(PARAMS, True)),
    "MultiSteps": lambda rule: optax.MultiSteps(rule, 2),
    "apply_if_finite": lambda rule: optax.apply_if_finite(rule, 3),
    "flatten": optax.flatten,
    "by_group": lambda rule: by_group(
        {"one": rule, "other": optax.sgd(0.1)}, {"w": "one", "b": "other", "s": "one"}
    ),
    "skip_nonfinite": skip_nonfinite,
    "with_state_dtype": lambda rule: with_state_dtype(rule, "float32"),
    "inner": lambda rule: lookahead(0.1, lambda _: rule),
}


def within_optax_lookahead(rule):
    """A rule of plain params, in optax's lookahead; it passes no value on."""
    inner = optax.lookahead(optax.chain(rule), 2, 0.5)
    synced = optax.LookaheadParams.init_synced

    def update(updates, state, params, **_):
        return inner.update(updates, state, synced(params))

    return optax.GradientTransformationExtraArgs(
        lambda params: inner.init(synced(params)), update
    )


@pytest.mark.thorough("of the places, all but one for each rule", but=r"-0\]")
@pytest.mark.parametrize("place", range(14))
@pytest.mark.parametrize("name", UPDATE_RULES)
def test_update_takes_arguments_that_nobody_knows_wherever_the_rule_stands(name, place):
    places = dict(INSIDE)
    if name in OF_GRADIENTS:
        places["accumulate_gradients"] = lambda rule: accumulate_gradients(rule, 2)
        if name not in NEEDS_VALUE:
            places["optax.lookahead"] = within_optax_lookahead
    first = list(UPDATE_RULES).index(name) + place
    inside = list(places.values())[first % len(places)]
    rule = inside(UPDATE_RULES[name](0.1))
    jax.eval_shape(lambda x: one_step(rule, x, nobody_knows=1), PARAMS)


@pytest.mark.parametrize(
    "rule",
    [
        clip_by_value(1.0),
        clip_by_norm(1.0),
        clip_by_global_norm(1.0),
        clip_adaptively(1.0),
        add_decayed_weights(0.1),
        reduce_on_plateau(),
        svrg(0.1, 2),
        gauss_newton(residual_fn=lambda x: x["b"]),
        levenberg_marquardt(residual_fn=lambda x: x["b"]),
    ],
)
def test_other_transformations_take_them_too(rule):
    jax.eval_shape(lambda x: one_step(rule, x, nobody_knows=1), PARAMS)


@pytest.mark.parametrize("name", UPDATE_RULES)
def test_hyperparameters_can_be_injected(name):
    """Traced, so that every one of them is what optax makes of it."""
    injected = optax.inject_hyperparams(UPDATE_RULES[name])(learning_rate=0.1)
    jax.eval_shape(lambda x: one_step(injected, x), PARAMS)


@pytest.mark.thorough(
    "the schedules of other rules, of which optax makes arrays as of injected numbers",
    but=r"^(adam|lookahead|bfgs)\]",
)
@pytest.mark.parametrize("name", UPDATE_RULES)
def test_schedules_can_be_injected(name):
    injected = optax.inject_hyperparams(UPDATE_RULES[name])(lambda t: 0.1)
    jax.eval_shape(lambda x: one_step(injected, x), PARAMS)


@pytest.mark.on_ci("two other rules with an inner rule", but="lookahead|muon")
@pytest.mark.thorough("a rule without an inner rule", but=r"^(?!lbfgs)")
@pytest.mark.parametrize(
    "name", ["lookahead", "sam", "polyak_averaging", "muon", "lbfgs"]
)
def test_the_first_update_with_injected_hyperparameters_is_the_rule_s_own(name):
    injected, plain = (
        optax.inject_hyperparams(UPDATE_RULES[name])(learning_rate=0.1),
        UPDATE_RULES[name](0.1),
    )
    ours, theirs = jax.jit(
        lambda x: [one_step(rule, x)[0] for rule in (injected, plain)]
    )(PARAMS)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_what_cannot_be_injected_says_why():
    given = optax.inject_hyperparams(UPDATE_RULES["lbfgs"])(0.1, memory_size=3)
    with pytest.raises(
        TypeError, match=r"memory_size .* is the length of arrays .* static_args"
    ):
        jax.eval_shape(given.init, PARAMS)
    jax.eval_shape(
        optax.inject_hyperparams(UPDATE_RULES["lbfgs"], "memory_size")(
            0.1, memory_size=3
        ).init,
        PARAMS,
    )
    with pytest.raises(TypeError, match="static_args"):
        optax.inject_hyperparams(UPDATE_RULES["sam"])(
            0.1, inner=UPDATE_RULES["adam"]
        ).init(PARAMS)


@pytest.mark.parametrize("name", [*UPDATE_RULES, "gauss_newton", "levenberg_marquardt"])
def test_the_rate_may_be_a_schedule_or_the_rule_says_why_not(name):
    rules = {**UPDATE_RULES, "levenberg_marquardt": levenberg_marquardt}
    rules["gauss_newton"] = functools.partial(
        gauss_newton, residual_fn=lambda x: x["b"]
    )
    if name in WITHOUT_SCHEDULE | {"levenberg_marquardt"}:
        with pytest.raises(
            TypeError, match=r"got a schedule\. (The rate is|This argument multiplies)"
        ):
            rules[name](lambda t: 0.1 / (1 + t))
    else:
        jax.eval_shape(
            lambda x: one_step(rules[name](schedules.inverse_time(0.1)), x), PARAMS
        )


@pytest.mark.on_ci(
    "two steps without jax.jit; nothing shorter has the rates of a scheduled lbfgs"
)
def test_a_scheduled_lbfgs_steps_by_its_rate():
    rule = UPDATE_RULES["lbfgs"](schedules.piecewise(0.5, [1], [0.25]), linesearch=None)
    x, state = (
        jnp.array([0.5]),
        rule.init(jnp.zeros(1)),
    )  # f = x², whose inverse Hessian the first pair shows.
    for rate in (0.5, 0.25):
        updates, state = rule.update(2 * x, state, x)
        assert state.search.learning_rate == rate
    np.testing.assert_allclose(updates, [-0.25])  # No pair yet: x has not moved.


@pytest.mark.thorough("other params without numbers", but="Array")
@pytest.mark.parametrize(
    "empty", [{}, [], {"a": {}, "b": ()}, {"a": jnp.zeros((0, 3))}], ids=repr
)
@pytest.mark.parametrize("name", UPDATE_RULES)
def test_params_without_numbers_are_left_alone(name, empty):
    updates = jax.eval_shape(lambda x: one_step(UPDATE_RULES[name](0.1), x)[0], empty)
    assert jax.tree.structure(updates) == jax.tree.structure(empty)


@pytest.mark.parametrize("name", UPDATE_RULES)
def test_leaves_may_be_plain_numbers_and_a_gradient_none(name):
    rule, plain = (
        optax.with_extra_args_support(UPDATE_RULES[name](0.1)),
        {"w": 1.5, "n": None, "m": optax.MaskedNode()},
    )
    told = {"value": 1.125, "value_fn": objective}

    def step(gradient, params):
        return rule.update(gradient, rule.init(params), params, **told)

    updates, _ = jax.eval_shape(lambda: step(plain, plain))
    assert updates["w"].dtype == float
    assert updates["n"] is None
    if name in COUPLED:
        return
    of_arrays = jax.eval_shape(rule.init, PARAMS)
    updates, state = jax.eval_shape(
        lambda x: rule.update({**x, "b": None}, rule.init(x), x, **told), PARAMS
    )
    assert updates["b"] is None
    assert jax.tree.structure(state) == jax.tree.structure(of_arrays)


COUPLED = {"newton", "trust_region_newton", "natural_gradient"}
# They use the norm of all params, also of those that do not move.
OF_ALL_PARAMS = {"dog", "mechanic"}


def coupled(params, indices=None):
    total = sum(jnp.sum(leaf) for leaf in jax.tree.leaves(params))
    return objective(params) + 0.05 * total**2


def with_decay(name):
    """The rule with weight decay, of its own or of its inner rule, where it has one."""
    arguments = inspect.signature(UPDATE_RULES[name]).parameters
    decay = {"weight_decay": 0.1} if "weight_decay" in arguments else {}
    if "inner" in arguments:
        decay["inner"] = functools.partial(UPDATE_RULES["adamw"], weight_decay=0.1)
    return UPDATE_RULES[name](0.05, **decay)


def after_steps(rule, params, value_fn, still=(), num_steps=6):
    """The params and those for evaluation; the gradients of `still` are None."""
    rule = optax.with_extra_args_support(rule)
    state, told = rule.init(params), {"value_fn": value_fn, "indices": jnp.arange(1)}
    for _ in range(num_steps):
        value, gradient = jax.value_and_grad(value_fn)(params)
        given = gradient | dict.fromkeys(still)
        updates, state = rule.update(
            given, state, params, value=value, grad=gradient, **told
        )
        assert all(updates[key] is None for key in still)
        moved = {key: u for key, u in updates.items() if key not in still}
        params = params | {key: params[key] + u for key, u in moved.items()}
    return params, evaluation_params(state, params)


@pytest.mark.on_ci("four of five rules", but="lion")
@pytest.mark.thorough(
    "the rules that follow from their chains",
    but="schedule_free_sgd|polyak_averaging|lookahead|mechanic|lion",
)
@pytest.mark.parametrize("name", [n for n in UPDATE_RULES if n not in COUPLED])
def test_a_leaf_with_gradient_none_is_as_a_constant_of_the_objective(name):
    whole = lambda params, indices=None: coupled(params)
    rest = {key: leaf for key, leaf in PARAMS.items() if key != "b"}
    part = lambda params, indices=None: coupled({**params, "b": PARAMS["b"]})
    whole.num_examples = part.num_examples = 1
    frozen = after_steps(with_decay(name), PARAMS, whole, still=("b",))
    for found in frozen:
        np.testing.assert_array_equal(found["b"], PARAMS["b"])
    if name not in OF_ALL_PARAMS:
        alone = after_steps(with_decay(name), rest, part)
        for found, expected in zip(frozen, alone, strict=True):
            of_rest = {key: found[key] for key in rest}
            jax.tree.map(
                functools.partial(np.testing.assert_allclose, rtol=1e-9),
                of_rest,
                expected,
            )


@pytest.mark.parametrize("name", ["prodigy", "madgrad", "dog", "dowg", "mechanic"])
def test_the_way_from_the_start_counts_no_step_without_a_gradient(name):
    rule = UPDATE_RULES[name](0.1)
    params = {"a": jnp.zeros(2), "b": jnp.zeros(2)}
    state, gradient = rule.init(params), jnp.array([1.0, -2.0])
    for of_b in (gradient, None, gradient, None):
        updates, state = rule.update({"a": gradient, "b": of_b}, state, params)
        moves = {key: 0.0 if u is None else u for key, u in updates.items()}
        params = {key: params[key] + moves[key] for key in params}
        moved = optax.tree_utils.tree_get(state, "moved")
        jax.tree.map(np.testing.assert_array_equal, moved, params)


@pytest.mark.on_ci("the other wrappers", but="by_group")
@pytest.mark.parametrize(
    "wrap",
    [
        lambda rule: by_group(
            {"one": rule, "b": rule}, {"w": "one", "b": "b", "s": "b"}
        ),
        lambda rule: accumulate_gradients(rule, 2),
        skip_nonfinite,
        cautious,
        lambda rule: with_state_dtype(rule, "float64"),
        lambda rule: lookahead(0.1, lambda _: rule),
        lambda rule: sam(0.1, inner=lambda _: rule),
    ],
    ids=["by_group", "accumulate", "skip", "cautious", "dtype", "lookahead", "sam"],
)
def test_a_wrapped_rule_averages_a_leaf_with_gradient_none_as_it_is(wrap):
    rule = wrap(with_decay("polyak_averaging"))
    whole = lambda params, indices=None: coupled(params)
    for found in after_steps(rule, PARAMS, whole, still=("b",)):
        np.testing.assert_array_equal(found["b"], PARAMS["b"])


@pytest.mark.parametrize(
    "rule",
    [*sorted(COUPLED), gauss_newton(), levenberg_marquardt()],
    ids=[*sorted(COUPLED), "gauss_newton", "levenberg_marquardt"],
)
def test_a_rule_that_couples_the_leaves_refuses_the_gradient_none(rule):
    rule = UPDATE_RULES[rule](0.1) if isinstance(rule, str) else rule
    residuals = lambda params, indices=None: jax.flatten_util.ravel_pytree(params)[0]
    told = {"value_fn": coupled, "residual_fn": residuals}
    for nested in ({**PARAMS, "b": None}, {**PARAMS, "b": {"inside": None}}):
        params = PARAMS if nested["b"] is None else {**PARAMS, "b": {"inside": 1.0}}
        with pytest.raises(ValueError, match=r"couples all leaves.*updates\['b'\]"):
            rule.update(nested, rule.init(params), params, **told)


@pytest.mark.thorough("the remedy that the error names; test_newton.py has the rule")
def test_by_group_moves_the_other_leaves_by_newtons_method():
    groups = {"w": "moves", "b": "still", "s": "moves"}
    still = UPDATE_RULES["gradient_descent"](0.0)
    rule = by_group({"moves": UPDATE_RULES["newton"](), "still": still}, groups)
    # The objective is quadratic, so one step leads to the minimum.
    params, _ = after_steps(rule, PARAMS, coupled, still=("b",), num_steps=1)
    part = lambda rest: coupled({**rest, "b": PARAMS["b"]})
    slope = jax.grad(part)({"w": params["w"], "s": params["s"]})
    jax.tree.map(lambda g: np.testing.assert_allclose(g, 0.0, atol=1e-12), slope)


@pytest.mark.parametrize("name", UPDATE_RULES)
def test_a_gradient_of_integers_is_refused(name):
    rule = optax.with_extra_args_support(UPDATE_RULES[name](0.1))
    told = {"value": 1.0, "value_fn": objective}
    for leaf in (3, jnp.array([3, -4]), np.array([True])):
        gradient = {**PARAMS, "b": leaf}
        params = {**PARAMS, "b": jnp.ones(jnp.shape(leaf))}
        state = jax.eval_shape(rule.init, params)
        with pytest.raises(TypeError, match=r"must be floating; updates\['b'\] is"):
            rule.update(gradient, state, params, **told)


@pytest.mark.parametrize(
    "given", [1.5, jnp.ones(2, "bfloat16"), jnp.ones(2, complex), None, {}]
)
def test_a_gradient_that_is_no_integer_is_not_refused(given):
    rule, tree = UPDATE_RULES["heavy_ball"](0.1), {"w": given}
    assert rule.update(tree, rule.init(tree), tree)[0].keys() == {"w"}


@pytest.mark.parametrize("name", ["adam", "heavy_ball", "dog", "muon"])
def test_a_plain_number_moves_as_an_array_does(name):
    rule = UPDATE_RULES[name](0.1)
    ours, theirs = (
        rule.update(g, rule.init(g), g)[0] for g in (1.5, jnp.array(1.5, float))
    )
    np.testing.assert_array_equal(ours, theirs)


# Counts

COUNTED = ("count", "num_pairs", "refused", "skipped", "consecutive")


def is_count(path):
    return getattr(path[-1], "name", "") in COUNTED


def at_the_end(state):
    """The state as it is once every count has come to the largest int32."""
    return jax.tree_util.tree_map_with_path(
        lambda path, x: jnp.full_like(x, LARGEST) if is_count(path) else x, state
    )


def counts_after(rule, gradient, params):
    """Path -> count, one step later; compiled alone, without the rest of the rule."""
    rule = optax.with_extra_args_support(rule)
    told = {"value": 1.0, "grad": gradient, "value_fn": objective}

    def counts(x):
        _, state = rule.update(gradient, at_the_end(rule.init(x)), x, **told)
        leaves = jax.tree_util.tree_leaves_with_path(state)
        return {jax.tree_util.keystr(p): leaf for p, leaf in leaves if is_count(p)}

    return jax.jit(counts)(params)


@pytest.mark.parametrize(
    "name", [*UPDATE_RULES, "svrg", "saga", "accumulate_gradients", "skip_nonfinite"]
)
def test_no_count_wraps(name):
    rules = {
        **UPDATE_RULES,
        "svrg": lambda r: svrg(r, LARGEST),
        "saga": lambda r: saga(r, 2),
    }
    rules["accumulate_gradients"] = lambda r: accumulate_gradients(
        UPDATE_RULES["adam"](r), LARGEST
    )
    rules["skip_nonfinite"] = lambda r: skip_nonfinite(UPDATE_RULES["adam"](r))
    params = {"b": PARAMS["b"]}
    gradient = jax.tree.map(
        lambda x: -x, params
    )  # Uphill, so that what counts refusals counts one.
    if name not in OF_GRADIENTS:
        gradient = params
    for path, count in counts_after(rules[name](0.1), gradient, params).items():
        assert count >= 0, path


def test_a_count_that_wraps_is_seen():
    class State(NamedTuple):
        count: jax.Array

    rule = optax.GradientTransformation(
        lambda params: State(jnp.zeros((), jnp.int32)),
        lambda updates, state, params=None: (updates, State(state.count + 1)),
    )
    assert min(counts_after(rule, PARAMS, PARAMS).values()) < 0


@pytest.mark.parametrize("many", [2**31, 2**40])
def test_periods_beyond_int32_are_never_over(many):
    assert not reached(jnp.int32(LARGEST), many)
    x = {"b": PARAMS["b"]}
    adam = UPDATE_RULES["adam"](0.1)
    for rule in (
        lookahead(0.1, sync_period=many),
        UPDATE_RULES["polyak_averaging"](0.1, start=many),
        svrg(0.1, many),
        accumulate_gradients(adam, many), skip_nonfinite(adam, many),
        UPDATE_RULES["schedule_free_sgd"](0.1, warmup_steps=many),
        UPDATE_RULES["backtracking_descent"](0.1, max_evaluations=many),
    ):  # fmt: skip
        jax.eval_shape(lambda x, rule=rule: one_step(rule, x), x)


# Sizes

SIZES = np.array([1e-45, 1e-38, 1e-30, 1e20, 1e30, 1e38, 3e38])
SIGNS = np.array([[1.0, -1.0, 0.5, 0.0], [1.0, 1.0, 0.7, 0.0], [-1.0, 1.0, 1.0, 1.0]])
# Sums of such gradients are beyond the range: ∞, never NaN; optax's too.
OVERFLOWS = {
    *("heavy_ball", "nesterov", "lookahead", "optimistic_gradient_descent"),
    "acprop",  # A first gradient after zeros is divided by √ε alone.
}


@pytest.fixture(scope="module")
def of_any_size(request):
    """{rule: updates, one row a size} of the rules that a selected test is about.

    One program holds them all.
    """
    start = {
        "w": jnp.array([[0.01, 0.02], [0.03, -0.01]], "float32")
    }  # The value, too, is to stay finite.

    def walk(name, gradients):
        rule = optax.with_extra_args_support(UPDATE_RULES[name](0.01))

        def step(carry, row):
            x, state = carry
            g = {"w": row.reshape(2, 2)}
            value_fn = lambda x, indices=None: jnp.sum(g["w"] * x["w"])
            moved, state = rule.update(
                g, state, x, value=value_fn(x), grad=g, value_fn=value_fn, indices=None
            )
            return (optax.apply_updates(x, moved), state), moved["w"]

        return jax.lax.scan(step, (start, rule.init(start)), gradients)[1]

    asked = {
        item.callspec.params["name"]
        for item in request.session.items
        if "of_any_size" in getattr(item, "fixturenames", ())
    }
    names = [name for name in UPDATE_RULES if name in asked]
    steps = {name: 3 if name in OF_GRADIENTS else 2 for name in names}
    run = lambda gradients: {
        name: jax.vmap(functools.partial(walk, name))(gradients[:, : steps[name]])
        for name in names
    }
    # XLA optimises this program less: what is asked is whether a number is finite.
    run = jax.jit(run, compiler_options={"xla_backend_optimization_level": 0})
    return run(jnp.asarray(SIZES[:, None, None] * SIGNS[None], "float32"))


@pytest.mark.on_ci(
    "the other rules; no other test has this law of theirs",
    but=r"^(adam|adafactor|barzilai_borwein|dowg|heavy_ball|lamb|momo)\]",
)
@pytest.mark.parametrize("name", UPDATE_RULES)
def test_gradients_of_any_size_make_no_nan(of_any_size, name):
    found = np.asarray(of_any_size[name])
    assert not np.isnan(found).any(), SIZES[np.isnan(found).any(axis=(1, 2, 3))]
    assert name in OVERFLOWS or np.isfinite(found).all()


@pytest.mark.parametrize(
    "name",
    [
        *("adam", "nadam", "yogi", "adan", "polyak_step", "barzilai_borwein", "adgd"),
        *(
            "adafactor",
            "sm3",
            "laprop",
            "mars",
            "cautious_adamw",
            "novograd",
            "madgrad",
        ),
        *("dowg", "cocob", "mechanic", "momo", "acprop", "optimistic_adam"),
    ],
)
def test_a_gradient_that_is_not_finite_shows(name):
    rule, x = optax.with_extra_args_support(UPDATE_RULES[name](0.1)), jnp.ones(2)
    for bad in (jnp.nan, jnp.inf):
        g = jnp.array([bad, 1.0])
        assert not np.isfinite(rule.update(g, rule.init(x), x, value=1.0)[0]).all()


@pytest.mark.on_ci("bfgs, whose search takes longer to compile", but="backtracking")
@pytest.mark.thorough(
    "the other rules that have the search of bfgs",
    but=r"^(bfgs|backtracking_descent)\]",
)
@pytest.mark.parametrize(
    "name", ["nonlinear_conjugate_gradient", "backtracking_descent", "lbfgs", "bfgs"]
)
def test_a_search_outside_of_jit_does_not_blame_the_user_for_its_first_trial(name):
    rule, x = UPDATE_RULES[name](), jnp.array([1e20, -1e20], "float32")
    updates, _ = rule.update(x, rule.init(x), x, value=objective(x), value_fn=objective)
    assert np.isfinite(updates).all()


# Complex params

# Those of optax that its own tests walk with complex params.
AS_OPTAX = (
    *(
        "gradient_descent",
        "heavy_ball",
        "nesterov",
        "adagrad",
        "rmsprop",
        "adam",
        "adamw",
        "amsgrad",
        "adamax",
    ),
    *("nadam", "radam", "adabelief", "yogi", "lamb"),
)
PHASE = np.exp(1.1j)
# Rules that take complex params and that make test does not turn. It has seven of them
# in the two tests below the one that turns.
TURNED_ON_CI = (
    "(gradient_descent|heavy_ball|nesterov|ema_momentum|lookahead|polyak_averaging"
    "|exponential_averaging|optimistic_gradient_descent|optimistic_adam"
    "|barzilai_borwein|adgd|adadelta|rmsprop|adam|adamw|amsgrad|adamax|adamaxw|nadam"
    "|nadamw|radam|adabelief|acprop|yogi|cautious_adamw|ademamix|simplified_ademamix"
    r"|laprop|mars|lamb|fromage|schedule_free_sgd|dowg|momo|momo_adam)\]"
)


def complex_walk(rule):
    """(gradients, start, values) -> iterates; calls of equal dtypes share a program."""
    rule = optax.with_extra_args_support(rule)

    def step(carry, row):
        x, state = carry
        g, value = row
        updates, state = rule.update({"w": g}, state, x, value=value)
        x = optax.apply_updates(x, updates)
        return (x, state), x["w"]

    def walk(rows, start, values):
        x = {"w": start}
        return jax.lax.scan(step, (x, rule.init(x)), (rows, values))[1]

    return jax.jit(walk)


def rows_of(seed):
    random = np.random.default_rng(seed)
    return random.normal(size=(6, 2, 3)), random.normal(size=(2, 3)), np.ones(6)


def is_refused(name):
    try:
        UPDATE_RULES[name](0.1).init({"w": jnp.ones((2, 3), complex)})
    except TypeError as problem:
        said = str(problem)
    else:
        return False
    assert (
        f"{name} is defined for real params only; params['w'] is complex128[2, 3]"
        in said
    )
    assert "real" in said.split(". ")[-1], "it says what to do instead"
    return True


@pytest.mark.on_ci(
    "most rules that take complex params; the two tests below have seven of these",
    but=rf"^(?!{TURNED_ON_CI})",
)
@pytest.mark.parametrize("name", UPDATE_RULES)
def test_complex_params_turn_with_their_gradients_or_are_refused(name):
    """Gradients and params times one unit of the plane: so are the iterates. Squares in
    place of |g|² are found out by it.
    """
    if is_refused(name):
        assert name not in AS_OPTAX
        return
    (rows, start, values), walk = rows_of(1), complex_walk(UPDATE_RULES[name](0.1))
    real = np.asarray(walk(rows + 0j, start + 0j, values))
    turned = walk(PHASE * rows, PHASE * start, values)
    np.testing.assert_allclose(turned, PHASE * real, rtol=1e-11, atol=1e-13)


@pytest.mark.thorough(
    "the other rules, which turn with their gradients in the law above",
    but=r"^(heavy_ball|adam|radam|lamb)\]",
)
@pytest.mark.parametrize("name", AS_OPTAX)
def test_complex_params_move_as_in_optax(name):
    (real, x, values), (imaginary, y, _) = rows_of(2), rows_of(3)
    made = (UPDATE_RULES[name](0.1), CARDS[name].optax(0.1))
    ours, theirs = (
        complex_walk(rule)(real + 1j * imaginary, x + 1j * y, values) for rule in made
    )
    # optax's bias corrections are off by 1e-9 of themselves at most; radam's factor by
    # more in its first steps.
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)


@pytest.mark.thorough(
    "the other rules, which turn with their gradients in the law above",
    but=r"^(barzilai_borwein|dowg|momo)\]",
)
@pytest.mark.parametrize(
    "name",
    [
        "gradient_descent",
        "heavy_ball",
        "polyak_step",
        "barzilai_borwein",
        "adgd",
        "dog",
        "dowg",
        "momo",
        "schedule_free_sgd",
    ],
)
def test_rules_of_inner_products_move_complex_params_as_their_real_and_imaginary_parts(
    name,
):
    (real, x, values), (imaginary, y, _) = rows_of(4), rows_of(5)
    walk = complex_walk(UPDATE_RULES[name](0.1))
    whole = walk(real + 1j * imaginary, x + 1j * y, values)
    parts = np.asarray(
        walk(np.stack([real, imaginary], -1), np.stack([x, y], -1), values)
    )
    np.testing.assert_allclose(whole, parts[..., 0] + 1j * parts[..., 1], rtol=1e-12)


@pytest.mark.on_ci("the other clips by norm", but="clip1")
@pytest.mark.parametrize(
    "clip", [clip_by_norm(0.5), clip_by_global_norm(0.5), clip_adaptively(0.1)]
)
def test_clips_by_norm_shorten_complex_gradients_and_keep_their_direction(clip):
    g = {"w": jnp.array([3.0 + 4.0j, 0.0])}
    found = clip.update(g, clip.init(g), g)[0]["w"]
    np.testing.assert_allclose(found[0] / abs(found[0]), 0.6 + 0.8j)
    np.testing.assert_allclose(jnp.abs(found[0]), 0.5)


def test_a_clip_by_value_refuses_complex_params():
    with pytest.raises(
        TypeError,
        match=(
            r"clip_by_value is defined for real params only.*split_real_and_imaginary"
        ),
    ):
        clip_by_value(1.0).init(jnp.ones(2, complex))


# Verification

ON = [PROBLEMS["quadratic"]]


def test_verify_rule_finds_a_dotted_name_as_the_command_line_does():
    assert verify_rule("gradient_descent", "optax.sgd", problems=ON).same


@pytest.mark.thorough("other pairs of names; make test has one, in the test above")
def test_verify_rule_finds_other_dotted_names():
    assert (
        verify_rule(
            UPDATE_RULES["heavy_ball"], "optax.sgd", problems=ON, learning_rate=0.1
        ).same
        is False
    )
    assert verify_rule("optax.adam", "research.update_rules.adam", problems=ON).same


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("optax.addam", "optax has no 'addam'; did you mean 'adam'"),
        ("no_such_package.adam", "the module 'no_such_package' of"),
        ("optax.", "a rule must have a dotted name"),
    ],
)
def test_verify_rule_says_what_of_a_dotted_name_is_not_there(name, said):
    with pytest.raises(ValueError, match=said):
        verify_rule("adam", name, problems=ON)


@pytest.mark.parametrize("name", ["schedule_free_sgd", "schedule_free_adamw"])
def test_warm_up_of_no_step_may_be_traced_after_an_eager_init(name):
    params = {"w": jnp.arange(3.0)}
    plain = UPDATE_RULES[name](0.1)
    injected = optax.inject_hyperparams(UPDATE_RULES[name])(learning_rate=0.1)
    expected, _ = plain.update(params, plain.init(params), params)
    found, _ = jax.jit(injected.update)(params, injected.init(params), params)
    np.testing.assert_allclose(found["w"], expected["w"], rtol=1e-12)
