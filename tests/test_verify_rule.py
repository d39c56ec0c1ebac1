"""`verify_rule` finds faults that have shipped elsewhere, and every mistake that a
formula knows, and names them.
"""

import contextlib
import functools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research import update_rules
from research.verification import CARDS, FORMULAS, PROBLEMS, verify_rule, walk_exactly
from research.verification.card import rate_on
from research.verification.causes import STEPS_BEYOND, Evidence
from research.verification.formula import Formula, mistaken
from research.verification.problems import GIVEN, NUM_STEPS
from research.verification.recorded import recorded_walks
from research.verification.rule_under_test import RuleError
from research.verification.table import BOUND
from research.verification.trials import of_two
from research.verification.walks import distance, walk

COMPILE_QUICKLY = DRAWS_NO_KEYS = True  # tests/conftest.py

transformation: Any = (
    optax.GradientTransformation
)  # Of functions whose arguments are called as here.
SMALL = [
    PROBLEMS[name] for name in ("quadratic", "scales", "nan_gradient")
]  # Each costs two compilations.


def adam(
    rate,
    b1=0.9,
    b2=0.999,
    *,
    average=lambda b, m, g: b * m + (1 - b) * g,
    divide=None,
    correct=True,
):
    """Adam by hand, as users write it."""

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return jnp.zeros((), jnp.int32), zeros, zeros

    def update(updates, state, params=None):
        t = state[0] + 1
        m = jax.tree.map(lambda m, g: average(b1, m, g), state[1], updates)
        v = jax.tree.map(lambda v, g: average(b2, v, g * g), state[2], updates)
        first, second = (1 - b1**t, 1 - b2**t) if correct else (1.0, 1.0)
        quotient = divide or (lambda m, v: m / (jnp.sqrt(v) + 1e-8))
        answer = jax.tree.map(
            lambda m, v: (-rate * quotient(m / first, v / second)).astype(m.dtype), m, v
        )
        return answer, (t, m, v)

    return transformation(init, update)


def late(constructor):
    """Gives the update of the step before, as optax.rprop did."""

    def make(rate):
        rule = constructor(rate)

        def update(updates, state, params=None):
            new, inner = rule.update(updates, state[0], params)
            return state[1], (inner, new)

        return transformation(
            lambda p: (rule.init(p), jax.tree.map(jnp.zeros_like, p)), update
        )

    return make


def then(change, constructor):
    return lambda rate: optax.chain(
        optax.stateless(lambda g, _: jax.tree.map(change, g)), constructor(rate)
    )


def damped(rate):
    return optax.chain(optax.ema(0.9, debias=False), optax.scale(-rate))


def decayed(rate):
    return optax.chain(optax.add_decayed_weights(0.1), optax.adam(rate))


def swapped(b, m, g):
    return (1 - b) * m + b * g


# name: (constructor, reference, its arguments, what the cause says).
FAULTS = {
    "cookbook's Adam": (
        partial(adam, average=swapped),
        optax.adam,
        {},
        "b1 and 1 - b1 are swapped",
    ),
    "epsilon inside": (
        partial(adam, divide=lambda m, v: m / jnp.sqrt(v + 1e-8)),
        "adam",
        {},
        "ε is inside",
    ),
    "no bias correction": (
        partial(adam, correct=False),
        "adam",
        {},
        "no bias correction (",
    ),
    "other decay rate": (
        partial(adam, b2=0.99),
        "adam",
        {},
        "another value of an argument: b2=0.99, not 0.999",
    ),
    "decay rates swapped": (
        partial(adam, b1=0.999, b2=0.9),
        "adam",
        {},
        "the values of b1 and b2 are swapped",
    ),
    "epsilon forgotten": (
        partial(adam, divide=lambda m, v: m / jnp.sqrt(v)),
        "adam",
        {},
        "eps=0, not 1e-08",
    ),
    "coupled decay": (decayed, "adamw", {"weight_decay": 0.1}, "the decay is coupled"),
    "no decay": (
        optax.adam,
        "adamw",
        {"weight_decay": 0.1},
        "the weight decay is missing",
    ),
    "stale": (late(optax.adam), optax.adam, {}, "the updates are one step late"),
    "damped": (damped, "heavy_ball", {}, "the gradient is damped"),
    "no look-ahead": (
        partial(optax.sgd, momentum=0.9),
        "nesterov",
        {},
        "it does not look ahead",
    ),
    "epsilon outside": (
        partial(optax.rmsprop, eps_in_sqrt=False),
        optax.rmsprop,
        {},
        "ε is outside the root",
    ),
    "another rule": (optax.adagrad, "adam", {}, "it is another rule, adagrad"),
    "upwards": (
        lambda rate: optax.adam(-rate),
        "adam",
        {},
        "wrong sign: they go up the gradient",
    ),
    "rate tripled": (
        lambda rate: optax.adam(3 * rate),
        "adam",
        {},
        "the updates are 3 times as long",
    ),
    "NaN hidden": (
        then(jnp.nan_to_num, optax.adam),
        "adam",
        {},
        "it hides a NaN in the gradient",
    ),
    "NaN at once": (
        then(lambda g: g * jnp.nan, optax.adam),
        "adam",
        {},
        "its params are NaN after step 1 on quadratic",
    ),
}
if "rprop" in FORMULAS:
    FAULTS["optax.rprop"] = (
        optax.rprop,
        "rprop",
        {},
        "each step comes one call too late",
    )
IN_FLOAT32 = (
    "cookbook's Adam",
    "epsilon inside",
    "no bias correction",
    "coupled decay",
    "stale",
    "damped",
    "NaN hidden",
)


@pytest.mark.on_ci(
    "a wrong sign, late updates and a wrong decay rate, whose causes take seconds to "
    "find; make test has these mistakes in the formulas of gradient_descent, rprop "
    "and adam",
    but="^(?!upwards|stale|other decay)",
    caught_by="test_every_mistake_of_a_formula_departs_from_it",
)
@pytest.mark.on_ci(
    "updates three times as long; make test has updates that are 1.001 times as long",
    but="^(?!rate tripled)",
    caught_by="test_rounding_of_optax_does_not_hide_a_mistake",
)
@pytest.mark.thorough(
    "seven more mistakes of a formula; make test names those of heavy_ball and the "
    "cookbook's Adam",
    but=r"^(?!coupled|no decay|no look|no bias|epsilon (in|out)side|optax)",
    caught_by="test_every_mistake_of_a_formula_departs_from_it",
)
@pytest.mark.thorough(
    "the same faults in the other dtype",
    but="float64",
    caught_by="test_planted_fault_is_found_and_named",
)
@pytest.mark.parametrize(
    ("fault", "dtype"),
    [*((f, "float64") for f in FAULTS), *((f, "float32") for f in IN_FLOAT32)],
)
def test_planted_fault_is_found_and_named(fault, dtype):
    rule, reference, arguments, cause = FAULTS[fault]
    subject = (lambda rate, **_: rule(rate)) if arguments else rule
    # In float64 the quadratic alone shows all but one; in float32 all three problems.
    few = SMALL[:1] if dtype == "float64" and fault != "NaN hidden" else SMALL
    found = verify_rule(subject, reference, problems=few, dtype=dtype, **arguments)
    assert not found.same
    assert found.cause is not None
    assert cause in found.cause
    assert f"Likely cause: {found.cause}." in str(found)


def test_fault_is_named_even_where_the_descent_runs_away():
    # At this rate Rosenbrock's function throws both far out within four steps, where
    # rounding is magnified.
    ball = optax.sgd(0.1, momentum=0.9)
    found = verify_rule(
        ball, "nesterov", problems=[PROBLEMS["rosenbrock"], SMALL[0]], learning_rate=0.1
    )
    assert found.cause is not None
    assert "it does not look ahead" in found.cause


@pytest.mark.on_ci("every known mistake is tried; nothing shorter shows this")
def test_unknown_fault_is_told_without_a_cause():
    odd = verify_rule(
        lambda rate: optax.chain(optax.clip(0.125), optax.sgd(rate)),
        "gradient_descent",
        problems=SMALL[:2],
    )
    assert (odd.same, odd.cause) == (False, None)
    assert "no known mistake explains it" in str(odd)


@pytest.mark.thorough("float64, in which make test has the mistakes", but="float32")
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_right_rule_by_hand_is_the_same_rule(dtype):
    found = verify_rule(adam, "adam", problems=SMALL, dtype=dtype)
    assert (found.same, found.cause) == (True, None)
    assert str(found).startswith("The same rule: on 3 problems")


MISTAKES = [
    (name, number)
    for name, formula in FORMULAS.items()
    for number in range(len(formula.mistakes))
]


def first_that_differs(wrong, name):
    """The verification on the cheapest problems, and then arguments, that tell the
    wrong formula from the right one.
    """
    card, found = CARDS[name], None
    cheap = [
        PROBLEMS[key]
        for key in ("quadratic", "rosenbrock", "scales")
        if key not in card.reasons
    ]
    for problems in (cheap[:1], cheap, list(PROBLEMS.values())):
        for arguments in ({}, card.arguments):
            with contextlib.suppress(
                TypeError
            ):  # Some slips leave no formula for those arguments.
                found = (
                    verify_rule(wrong, name, problems=problems, **arguments)
                    if problems
                    else found
                )
            if found is not None and not found.same:
                return found, arguments
    return found, {}


@pytest.mark.parametrize("name", FORMULAS)
def test_every_mistake_of_a_formula_departs_from_it(name):
    """So that a comparison with the formula sees each; nothing is compiled."""
    formula, card = FORMULAS[name], CARDS[name]
    cheap = ["quadratic", "rosenbrock", "scales"]
    names = [p for p in dict.fromkeys([*cheap, *PROBLEMS]) if p not in card.reasons]
    bound = card.bounds.get("formula", BOUND) * jnp.finfo("float64").eps

    # A few steps show most of them; what has not departed by then is walked to the end.
    walks = [(key, steps) for steps in (6, 18, NUM_STEPS) for key in names]

    def departs(mistake):
        for key, steps in walks:
            problem = PROBLEMS[key]
            for arguments in ({}, card.arguments):
                given = {"learning_rate": rate_on(problem, card), **arguments}
                with contextlib.suppress(TypeError):  # As in first_that_differs.
                    wrong = walk_exactly(
                        mistaken(formula, mistake), problem, steps, **given
                    )
                    right = exactly(name, key, steps, tuple(given.items()))
                    if distance(wrong, right, problem).largest > bound:
                        return True
        return False

    assert [m.cause for m in formula.mistakes if not departs(m)] == []


@functools.cache
def exactly(name, problem, steps, given):
    formula = FORMULAS[name].iterates
    return walk_exactly(formula, PROBLEMS[problem], steps, **dict(given))


@pytest.mark.on_ci(
    "the names of mistakes of L-BFGS and of Newton's rule",
    but=r"^(adam|heavy_ball)-0\]",
    caught_by="test_every_mistake_of_a_formula_departs_from_it",
)
@pytest.mark.thorough(
    "the name of each mistake; make test sees above that each would be caught",
    but=r"^(adam|heavy_ball|lbfgs|newton)-0\]",
    caught_by="test_every_mistake_of_a_formula_departs_from_it",
)
@pytest.mark.parametrize(("name", "number"), MISTAKES)
def test_every_mistake_of_a_formula_is_named_as_itself_or_as_one_that_walks_alike(
    name, number
):
    formula = FORMULAS[name]
    planted = formula.mistakes[number]
    wrong = mistaken(formula, planted)
    found, arguments = first_that_differs(Formula(wrong), name)
    assert not found.same
    named = [
        m
        for m in formula.mistakes
        if found.cause and found.cause.startswith(f"{m.cause} (")
    ]
    assert named, found.cause
    if planted not in named:
        problem = PROBLEMS[found.problem]
        given = {"learning_rate": rate_on(problem, CARDS.get(name)), **arguments}
        a, b = (
            walk_exactly(mistaken(formula, m), problem, STEPS_BEYOND, **given)
            for m in (named[0], planted)
        )
        assert distance(a, b, problem).largest <= found.tolerance


def test_two_mistakes_of_lars_are_the_same_in_either_order():
    # Some of the mistakes of lars are in lines that a formatter has split.
    formula, problem = FORMULAS["lars"], PROBLEMS["random_pytree"]
    evidence = Evidence(problem, None, None, None, {"learning_rate": 0.1}, None)
    walks = []
    for mistakes in (formula.mistakes, formula.mistakes[::-1]):
        trials = of_two(formula._replace(mistakes=mistakes))
        found = {
            frozenset(t.cause.split(", and ")): t.walk(evidence, 3) for t in trials
        }
        walks.append({pair: walked.iterates for pair, walked in found.items()})
    first, last = walks
    assert len(first) > 10
    assert set(first) <= set(last)  # One may edit the text of a later one.
    for pair, iterates in first.items():
        np.testing.assert_array_equal(iterates, last[pair])


@pytest.mark.on_ci("every formula is tried; nothing shorter shows this")
def test_cause_is_looked_for_with_news_of_it():
    told = []
    verify_rule(
        optax.adagrad,
        "adam",
        problems=SMALL[:1],
        on_progress=lambda *news: told.append(news),
    )
    assert told[0] == (0, 2, "comparing on quadratic")
    assert {total for _, total, _ in told[1:]} == {2 * 5}
    done = [done / total for done, total, _ in told]
    assert done == sorted(done)
    assert done[-1] < 1
    assert "trying known mistakes: " in told[1][2]


# Rules that fail


def stateful(after):
    return lambda rate: transformation(
        lambda p: jnp.zeros(()), lambda g, s, p=None: (g, after(s))
    )


def answering(update):
    return lambda rate: transformation(
        lambda p: optax.EmptyState(), lambda g, s, p=None: update(g, s)
    )


def raising(message):
    def update(updates, state, params=None):
        raise KeyError(message)

    return lambda rate: transformation(lambda p: optax.EmptyState(), update)


@pytest.mark.parametrize(
    ("rule", "error", "message"),
    [
        (
            stateful(lambda s: jnp.zeros(2)),
            TypeError,
            r"the rule: update changes its state at the only leaf from float64\[\] to",
        ),
        (
            stateful(lambda s: s.astype(jnp.float32)),
            TypeError,
            r"from float64\[\] to float32\[\]; return a state like",
        ),
        (
            stateful(lambda s: (s, s)),
            TypeError,
            "update changes the structure of its state from PyTreeDef",
        ),
        (
            answering(lambda g, s: ((g, g), s)),
            TypeError,
            "the rule: the rule's updates have the structure",
        ),
        (
            answering(lambda g, s: (g.astype(jnp.float32), s)),
            TypeError,
            "the update at the only leaf is float32",
        ),
        (
            answering(lambda g, s: (g[:1], s)),
            TypeError,
            r"the update at the only leaf is float64\[1\] where",
        ),
        (
            answering(lambda g, s: g),
            TypeError,
            r"update must return \(updates, state\); it returned a value of type",
        ),
        (
            raising("m"),
            RuleError,
            (
                r"the rule raised KeyError in update \(line \d+ of "
                r"test_verify_rule.py\): 'm'"
            ),
        ),
        (
            lambda rate: 3.0,
            TypeError,
            (
                "the rule is not an update rule: called with a learning rate, it "
                "returned a value of type float"
            ),
        ),
        (
            lambda rate: 1 / 0,
            RuleError,
            "the rule raised ZeroDivisionError while it was built",
        ),
        (3.0, TypeError, "the rule must be a rule; it is a value of type float"),
        (
            optax.adam(0.1),
            ValueError,
            "the rule is already built with a learning rate, but the reference is not",
        ),
    ],
)
def test_rule_that_fails_is_told_by_what_it_did(rule, error, message):
    with pytest.raises(error, match=message):
        verify_rule(rule, "adam", problems=SMALL[:1])


def test_state_of_python_numbers_is_as_good_as_of_arrays():
    # optax lets a state begin with a weak 0.0: the compiled loop takes it for an array.
    rule = transformation(
        lambda p: 0.0,
        lambda g, s, p=None: (jax.tree.map(lambda g: -0.1 * g, g), s + 1.0),
    )
    assert verify_rule(
        rule, "gradient_descent", problems=SMALL[:1], learning_rate=0.1
    ).same


def test_unknown_reference_and_no_problem_are_refused():
    with pytest.raises(ValueError, match="unknown formula 'adm'; did you mean 'adam'"):
        verify_rule(optax.adam, "adm")
    with pytest.raises(
        ValueError, match=r"unknown formula 'zzz'\. Known: gradient_descent, "
    ):
        verify_rule(optax.adam, "zzz")
    with pytest.raises(
        TypeError,
        match=r"every entry of problems must be a Problem, such as .*; got 'quadratic'",
    ):
        verify_rule(optax.adam, "adam", problems=["quadratic"])
    with pytest.raises(
        ValueError, match="no problem is left to compare on: none was given"
    ):
        verify_rule(optax.adam, "adam", problems=[])


@pytest.mark.parametrize("dtype", ["bfloat16", "int32"])
def test_dtype_too_coarse_to_show_a_mistake_is_refused(dtype):
    with pytest.raises(
        ValueError, match=f"dtype must be float64 or float32, .*; got dtype='{dtype}'"
    ):
        verify_rule(optax.adam, "adam", dtype=dtype)


def test_mistake_that_leaves_something_out_shows_what():
    cause = verify_rule(optax.sgd, "heavy_ball", problems=SMALL[:1]).cause
    assert cause == "no momentum (the formula's `+ momentum * (x - before)` is missing)"


def test_two_rules_that_are_made_need_no_rate():
    found = verify_rule(optax.adam(0.1), optax.adam(0.1), problems=SMALL[:1])
    assert str(found) == "The same rule: on 1 problem both agree to the last bit."


@pytest.mark.on_ci("four verifications; nothing shorter shows this")
def test_params_for_evaluation_that_only_one_reports_are_said_to_be_uncompared():
    found = verify_rule(optax.sgd, "polyak_averaging", problems=SMALL[:1])
    assert (found.same, found.evaluates) == (True, "reference")
    assert "only the reference reports the params at which to evaluate" in str(found)
    found = verify_rule(optax.adam, "polyak_averaging", problems=SMALL[:1])
    assert (found.same, found.evaluates) == (False, "reference")
    assert "Only the reference reports the params at which to evaluate" in str(found)
    own = update_rules.polyak_averaging
    found = verify_rule(own, "gradient_descent", problems=SMALL[:1])
    assert found.evaluates == "rule"
    found = verify_rule(own, "polyak_averaging", problems=SMALL[:1])
    assert found.evaluates is None
    assert "not compared" not in str(found)


def test_problems_of_equal_shapes_share_one_program():
    traced = []

    def mine(learning_rate):
        def update(updates, state, params=None):
            traced.append(learning_rate)
            return jax.tree.map(lambda g: -learning_rate * g, updates), state

        return optax.GradientTransformation(lambda params: (), update)

    given = [PROBLEMS[name] for name in GIVEN]
    verify_rule(mine, "gradient_descent", problems=given[:1])
    once = len(traced)
    assert verify_rule(mine, "gradient_descent", problems=given).same
    assert len(traced) == 2 * once


@pytest.mark.on_ci("every known mistake is tried; nothing shorter shows this")
def test_a_rule_that_keeps_its_state_outside_the_trace_is_another_rule():
    def mine(learning_rate):
        kept = [0.0]

        def update(updates, state, params=None):
            kept[0] = jax.tree.leaves(updates)[0].mean() + 0.9 * kept[0]
            moved = jax.tree.map(lambda g: -learning_rate * (g + kept[0]), updates)
            return moved, state

        return optax.GradientTransformation(lambda params: (), update)

    some = [PROBLEMS[name] for name in ("quadratic", "rosenbrock", *GIVEN[:2])]
    assert not verify_rule(mine, "gradient_descent", problems=some).same


def test_a_rate_at_which_nothing_moves_is_refused():
    with pytest.raises(
        ValueError, match=r"learning_rate must be .*positive; got .*=0\.0"
    ):
        verify_rule(optax.sgd, "adam", problems=SMALL[:1], learning_rate=0.0)


def test_class_that_takes_a_rate_is_a_constructor():
    class Rule:
        def __init__(self, learning_rate):
            self.rate = learning_rate

        def init(self, params):
            return ()

        def update(self, updates, state, params=None):
            return jax.tree.map(lambda g: -self.rate * g, updates), state

    assert verify_rule(Rule, "gradient_descent", problems=SMALL[:1]).same


def test_float64_without_float64_raises():
    jax.config.update("jax_enable_x64", False)
    try:
        with pytest.raises(
            ValueError, match=r"call research.backend.configure\(x64=True\)"
        ):
            verify_rule(optax.adam, "adam")
    finally:
        jax.config.update("jax_enable_x64", True)


def test_a_recorded_trajectory_is_a_reference():
    record = recorded_walks("adam/defaults")
    assert verify_rule(optax.adam, record).same


def test_rounding_of_optax_does_not_hide_a_mistake(monkeypatch):
    # In float32, the known rounding errors of optax.radam are 0.24 %.
    monkeypatch.setattr("research.verification._verify_rule.likely_cause", no_cause)
    wrong = lambda rate: optax.chain(update_rules.radam(rate), optax.scale(1.001))
    some = [PROBLEMS["random_pytree"]]
    assert not verify_rule(wrong, "radam", problems=some, dtype="float32").same


@pytest.mark.parametrize("rule", [optax.radam, partial(optax.radam, b1=0.9)])
def test_rounding_of_optax_is_no_mistake_of_optax(rule):
    # optax.radam is 2e-12 from the formula there.
    assert verify_rule(rule, "radam", problems=[PROBLEMS["scales"]]).same


def no_cause(*_):
    return None


def cut(steps):
    rate, whole = recorded_walks("adam/defaults")["softmax_regression"]
    return rate, whole._replace(
        iterates=whole.iterates[:steps], updates=whole.updates[:steps]
    )


@pytest.mark.parametrize(
    ("reference", "problems", "error", "message"),
    [
        (
            {"softmax_regression": cut(1)},
            None,
            ValueError,
            r"on softmax_regression, the iterates of the reference have the shape "
            r"\(1, 9\), but those of the rule have the shape \(50, 9\).* same number",
        ),
        (
            {"softmax_regression": cut(30)},
            None,
            ValueError,
            r"have the shape \(30, 9\)",
        ),
        (
            {"softmax_regression": cut(50)},
            SMALL[:1],
            ValueError,
            "the reference has no trajectory on quadratic; it has trajectories on "
            "softmax_regression. Record one there, or pass problems= without",
        ),
        ({}, None, ValueError, "it has trajectories on no problem"),
        (
            {"softmax": cut(50)},
            None,
            ValueError,
            "the reference has a trajectory on 'softmax', which is not the name of a "
            "problem",
        ),
        (
            {"softmax_regression": cut(50)[1].iterates},
            None,
            TypeError,
            r"must be a pair \(learning rate, Walk\), .*; it is a ndarray",
        ),
    ],
    ids=["one step", "30 steps", "other problem", "none", "unknown", "no pair"],
)
def test_recorded_trajectory_that_does_not_fit_is_refused(
    reference, problems, error, message
):
    with pytest.raises(error, match=message):
        verify_rule(optax.adam, reference, problems=problems)


@pytest.mark.on_ci(
    "every formula is tried; test_a_recorded_trajectory_is_a_reference has the right "
    "rule"
)
def test_another_rule_deviates_from_a_recorded_trajectory():
    record = recorded_walks("adam/defaults")
    found = verify_rule(optax.rmsprop, record)
    assert not found.same
    assert found.deviations.keys() == record.keys()


@pytest.mark.on_ci("all problems; nothing shorter shows this")
def test_a_rule_that_keeps_positions_is_said_to_differ_by_rounding():
    found = verify_rule(optax.contrib.schedule_free_sgd, "schedule_free_sgd")
    assert not found.same
    assert found.cause.startswith("only rounding of the params")


def test_updates_that_are_differences_of_iterates_may_be_of_either_rule():
    problem = PROBLEMS["scales"]
    walked = walk(optax.sgd(0.1), problem)
    start = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(problem.start)])
    differences = np.diff(walked.iterates, axis=0, prepend=start[None])
    stored = walked._replace(updates=differences, subtracted=True)
    for pair in ((stored, walked), (walked, stored)):
        assert distance(*pair, problem).largest < 1e-15
