"""Who takes part in a comparison: the same names try the same points, and a rule that
does not fit is named at once.
"""

import functools
import inspect
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.stats import qmc

from research import update_rules
from research.comparison.checking import check_contender
from research.comparison.contenders import Contender, make_contenders
from research.tuning import SPACES
from research.tuning.spaces import (
    DIMENSIONS,
    Range,
    check_space,
    edges,
    parse_range,
    parse_spaces,
    trials,
    widen,
)
from research.types import Batch
from research.verification.rule_under_test import NoRuleError, RuleError

COMPILE_QUICKLY = True  # tests/conftest.py

RATE = Range(1e-4, 10.0, "log", 0.01)
MOMENTUM = Range(0.0, 0.99, "one_minus", 0.9)
BOTH = {"learning_rate": RATE, "momentum": MOMENTUM}
PARAMS = {"w": jnp.zeros((3, 2)), "b": jnp.zeros(2)}
BATCH = Batch(jnp.ones((5, 3)), jnp.ones((5, 2)))


def objective(params, batch):
    return jnp.mean(jnp.square(batch.x @ params["w"] + params["b"][None] - batch.y))


def shares(space, values):
    """Where values lie between the ends of their ranges, by formulas other than the
    code's.
    """
    return {
        name: {
            "log": lambda x, r: np.log10(x / r.low) / np.log10(r.high / r.low),
            "linear": lambda x, r: (x - r.low) / (r.high - r.low),
            "one_minus": lambda x, r: (
                np.log10((1 - x) / (1 - r.low)) / np.log10((1 - r.high) / (1 - r.low))
            ),
        }[space[name].scale](np.asarray(x), space[name])
        for name, x in values.items()
    }


def test_trials_begin_with_the_defaults():
    made = trials(
        BOTH | {"eps": Range(1e-8, 1e-2), "rho": Range(0.0, 3.0, "linear")}, 2
    )
    assert [made[name][0] for name in ("learning_rate", "momentum")] == [0.01, 0.9]
    np.testing.assert_allclose(
        [made["eps"][0], made["rho"][0]], [1e-5, 1.5], rtol=1e-12
    )
    np.testing.assert_allclose(
        trials({"b1": MOMENTUM._replace(default=None)}, 1)["b1"], [0.9], rtol=1e-12
    )


def test_trials_are_scipys_halton_points_on_the_scale():
    space = {
        "learning_rate": RATE,
        "momentum": MOMENTUM,
        "b2": Range(-1.0, 3.0, "linear"),
    }
    found = shares(space, trials(space, 40))
    authority = qmc.Halton(3, scramble=True, rng=np.random.default_rng(0)).random(39)
    np.testing.assert_allclose(
        np.stack([found[name][1:] for name in space], axis=1), authority, atol=1e-9
    )


@pytest.mark.parametrize("count", [1, 2, 12, 31])
def test_more_trials_begin_with_the_fewer(count):
    few, many = trials(BOTH, count), trials(BOTH, 50)
    assert all(np.array_equal(few[name], many[name][:count]) for name in BOTH)


def test_same_name_has_the_same_points_in_every_space():
    alone = trials({"learning_rate": RATE}, 20)["learning_rate"]
    for others in (
        ["momentum"],
        ["b1", "b2"],
        ["gamma", "alpha"],
        ["lr", "rate"],
        [f"x{i}" for i in range(30)],
    ):
        found = trials(
            {name: MOMENTUM for name in others} | {"learning_rate": RATE}, 20
        )
        assert np.array_equal(found["learning_rate"], alone)
        assert len({tuple(values) for values in found.values()}) == len(found), (
            "two names share a dimension"
        )


def test_a_single_hyperparameter_has_the_first_dimension_whatever_its_name():
    alone = trials({"learning_rate": RATE}, 20)["learning_rate"]
    assert np.array_equal(trials({"step": RATE}, 20)["step"], alone)
    assert np.array_equal(
        trials({"distance_factor": RATE}, 20)["distance_factor"], alone
    )
    for names in (
        ["a", "bb"],
        ["bb", "a"],
    ):  # Unknown names go by the alphabet, however the space is written.
        assert np.array_equal(trials(dict.fromkeys(names, RATE), 20)["a"], alone)


def test_every_name_of_our_spaces_has_its_own_dimension():
    rows = {name: row for row, names in enumerate(DIMENSIONS) for name in names}
    for rule, space in SPACES.items():
        assert len({rows[name] for name in space}) == len(space), rule


def test_trials_cover_better_than_chance():
    found = shares(BOTH, trials(BOTH, 12))
    ours = qmc.discrepancy(np.stack([found[name][1:] for name in BOTH], axis=1))
    chance = [
        qmc.discrepancy(np.random.default_rng(seed).random((11, 2)))
        for seed in range(100)
    ]
    halton = [
        qmc.discrepancy(qmc.Halton(2, rng=np.random.default_rng(seed)).random(11))
        for seed in range(100)
    ]
    assert ours < np.quantile(chance, 0.01)
    assert ours < np.quantile(halton, 0.75)


def test_trials_stay_in_their_ranges():
    space = {
        "a": Range(1e-9, 1e9),
        "b": Range(0.3, 0.999999, "one_minus"),
        "c": Range(-5.0, 0.1, "linear"),
    }
    made = trials(space, 500)
    assert all(
        ((r.low <= made[n]) & (made[n] <= r.high)).all() and made[n].shape == (500,)
        for n, r in space.items()
    )


def test_empty_space_has_one_trial_without_values():
    check_space({}, "dog")
    assert trials({}, 12) == {}
    assert edges({}, {}) == ()


@pytest.mark.parametrize(
    ("range_", "value", "side"),
    [
        (RATE, 1e-4 * 10**0.49, "low"),
        (RATE, 1e-4 * 10**0.51, None),
        (RATE, 10 / 10**0.49, "high"),
        (RATE, 10 / 10**0.51, None),
        (Range(0.0, 10.0, "linear"), 0.9, "low"),
        (Range(0.0, 10.0, "linear"), 9.1, "high"),
        (MOMENTUM, 0.0, None),  # Nothing lies beyond 0.
        (MOMENTUM, 0.985, "high"),
        (MOMENTUM, 0.98, None),
        (Range(0.9, 0.999, "one_minus"), 0.91, "low"),
    ],
)
def test_edges_are_the_outer_tenths_on_the_scale(range_, value, side):
    assert edges({"x": range_}, {"x": value}) == ((("x", side),) if side else ())


@pytest.mark.parametrize(
    ("side", "low", "high"), [("low", 1e-6, 1e-3), ("high", 1.0, 1e3)]
)
def test_widening_adds_a_third_of_the_width_beyond_the_side(side, low, high):
    old = (
        Range(1e-3, 1e3, "log", 0.5) if side == "low" else Range(1e-6, 1.0, "log", 0.5)
    )
    whole, part = widen(
        {"learning_rate": old, "momentum": MOMENTUM}, "learning_rate", side
    )
    third = 10 ** (np.log10(old.high / old.low) / 3)
    new = (old.low / third, old.high) if side == "low" else (old.low, old.high * third)
    added = (
        (old.low / third, old.low) if side == "low" else (old.high, old.high * third)
    )
    assert part is not None
    np.testing.assert_allclose(whole["learning_rate"][:2], new, rtol=1e-12)
    np.testing.assert_allclose(part["learning_rate"][:2], added, rtol=1e-12)
    assert whole["learning_rate"].default == 0.5
    assert whole["momentum"] == part["momentum"] == MOMENTUM
    check_space(whole)
    check_space(part)


def test_widening_ends_at_natural_limits():
    for range_, side in [
        (MOMENTUM, "low"),
        (Range(0.0, 1.0, "linear"), "high"),
        (Range(0.0, 1.0, "linear"), "low"),
        (Range(0.5, 1.0 - 1e-6, "one_minus"), "high"),
        (Range(0.5, 1.0 - 1e-9, "one_minus"), "high"),
        (Range(1e-300, 1.7e308), "high"),
        (Range(5e-324, 1.0), "low"),
    ]:
        assert widen({"x": range_}, "x", side) == ({"x": range_}, None), (range_, side)
    for range_, side in [(MOMENTUM, "high"), (Range(0.1, 0.99, "one_minus"), "low")]:
        whole, part = widen({"x": range_}, "x", side)
        assert 0 <= whole["x"].low < whole["x"].high < 1
        assert part is not None
    assert widen({"x": MOMENTUM}, "x", "high")[0]["x"].high == pytest.approx(
        1 - 10 ** (-2 - 2 / 3)
    )
    assert widen({"x": Range(0.1, 0.99, "one_minus")}, "x", "low")[0]["x"].low == 0
    with pytest.raises(ValueError, match="name must be one of"):
        widen(BOTH, "learning_rate", "up")


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (
            {"learning_rate": Range(0.0, 1.0)},
            "mine.learning_rate: low must be above 0 on a log scale; got low=0.0.",
        ),
        (
            {"x": Range(-1.0, 1.0)},
            "mine.x: low must be above 0 on a log scale; got low=-1.0.",
        ),
        (
            {"x": Range(1.0, 1.0)},
            "mine.x: low must be less than high; got low=1.0, high=1.0.",
        ),
        (
            {"x": Range(0.0, 1.0, "one_minus")},
            "mine.x: a range on the one_minus scale needs 0 <= low < high < 1",
        ),
        (
            {"x": Range(-0.1, 0.9, "one_minus")},
            "mine.x: a range on the one_minus scale needs 0 <= low < high < 1",
        ),
        (
            {"x": Range(0.1, 1.0, "logarithm")},
            "mine.x: unknown scale 'logarithm'; did you mean 'log'? Known: log,",
        ),
        (
            {"x": Range(0.1, 1.0, "?")},
            "mine.x: unknown scale '?'. Known: log, linear, one_minus.",
        ),
        (
            {"x": Range(0.1, np.inf)},
            "mine.x.high must be a finite number; got mine.x.high=inf.",
        ),
        (
            {"x": Range(np.nan, 1.0)},
            "mine.x.low must be a finite number; got mine.x.low=nan.",
        ),
        (
            {"x": RATE._replace(low="0.1")},
            "mine.x.low must be a finite number; got mine.x.low='0.1'.",
        ),
        (
            {"x": Range(0.1, True)},
            "mine.x.high must be a finite number; got mine.x.high=True.",
        ),
        (
            {"x": Range(0.1, 1.0, default=2.0)},
            "mine.x: the default 2.0 lies outside 0.1..1.0. Widen the range.",
        ),
        (
            {"x": (0.1, 1.0)},
            "mine.x must be a Range, such as research.tuning.Range(1e-4, 1.0); got (0.",
        ),
        (
            Range(0.1, 1.0),
            (
                "a space must be a dict such as {'learning_rate': Range(1e-4, 1.0)}; "
                "mine has Range("
            ),
        ),
    ],
)
def test_bad_space_is_named(space, message):
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        check_space(space, "mine")
    with pytest.raises((ValueError, TypeError)):
        make_contenders({"mine": lambda x: optax.sgd(x)}, spaces={"mine": space})


@pytest.mark.parametrize("count", [0, -1, 2.0, True])
def test_bad_count_is_named(count):
    with pytest.raises(ValueError, match="count must be a positive integer"):
        trials(BOTH, count)


def test_written_spaces_are_read():
    assert parse_range("0.5..0.999 one_minus") == Range(0.5, 0.999, "one_minus")
    words = [
        "my.py:mine.learning_rate=1e-4..10",
        "adam.b1=.5..0.9 one_minus",
        "adam.x=-1..1 linear",
    ]
    assert parse_spaces(words) == {
        "my.py:mine": {"learning_rate": Range(1e-4, 10.0)},
        "adam": {"b1": Range(0.5, 0.9, "one_minus"), "x": Range(-1.0, 1.0, "linear")},
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["mine.x=1"],
            (
                "a range must be written low..high, with a scale if it is not log: "
                "1e-4..10 or"
            ),
        ),
        (["mine.x=a..b"], "a range must be written low..high"),
        (
            ["x=1..2"],
            (
                "a space must be written rule.name=low..high, such as "
                "adam.learning_rate=1e-4..1; got 'x=1..2'."
            ),
        ),
        (["mine.x"], "a space must be written rule.name=low..high"),
        (["mine.x=0..1"], "mine.x: low must be above 0 on a log scale; got low=0.0."),
        (["mine.x=1..2 lin"], "mine.x: unknown scale 'lin'; did you mean 'linear'?"),
        (["mine.x=1..2", "mine.x=1..3"], "mine.x is given twice. Give one range."),
    ],
)
def test_badly_written_space_is_named(words, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_spaces(words)


@pytest.mark.on_ci(
    "the rules that take longest to trace",
    but="^(?!hyperball|kl_soap|mars|mechanic|muon|normuon)",
)
@pytest.mark.thorough("two thirds of the rules", but=r"^([g-n]|sam\])")
@pytest.mark.parametrize("name", SPACES)
def test_our_space_is_traced_and_costs_what_is_stated(name):
    """One step with every hyper-parameter traced; the objective is counted while it
    is.
    """
    (found,) = make_contenders([name])
    check_space(found.space, name)
    assert all(
        r.default is not None and not edges({n: r}, {n: r.default})
        for n, r in found.space.items()
    )
    assert (
        1 + check_contender(found, PARAMS, objective, BATCH)
        == found.evaluations
        == update_rules.RULE_TABLE[name].evaluations
    )


@pytest.mark.parametrize("name", SPACES)
def test_our_default_is_the_constructors_where_it_has_one(name):
    parameters = inspect.signature(update_rules.UPDATE_RULES[name]).parameters
    for hyperparameter, range_ in SPACES[name].items():
        default = parameters[hyperparameter].default
        assert not isinstance(default, float) or default == range_.default


@pytest.mark.parametrize(
    "name", ["adam", "adamw", "sgd", "rmsprop", "lion", "adagrad", "amsgrad", "yogi"]
)
def test_optax_constructor_has_our_space(name):
    (found,) = make_contenders({"theirs": getattr(optax, name)})
    assert found.space == SPACES["gradient_descent" if name == "sgd" else name]
    assert check_contender(found, PARAMS, objective, BATCH) == 0


def test_namesake_of_ours_has_no_space_of_ours():
    def adam(learning_rate, b1=0.9):
        return optax.adam(learning_rate, b1)

    assert make_contenders({"adam": adam})[0].space == {
        "learning_rate": Range(1e-5, 10.0, "log", None)
    }


def half(rate=0.5, momentum=0.9):
    return optax.sgd(rate, momentum)


def test_unknown_constructor_is_searched_by_its_first_parameter():
    mine, partial, made, nothing, huge = make_contenders(
        {
            "mine": half,
            "partial": functools.partial(half, momentum=0.1),
            "made": optax.adam(0.1),
            "nothing": lambda: optax.sgd(0.1),
            "huge": lambda rate=20.0: optax.sgd(rate),
        }
    )
    assert mine.space == partial.space == {"rate": Range(1e-5, 10.0, "log", 0.5)}
    assert huge.space == {"rate": Range(1e-5, 20.0, "log", 20.0)}
    assert made.space == nothing.space == {}
    for one in (mine, partial, made, nothing, huge):
        assert check_contender(one, PARAMS, objective, BATCH) == 0
    rule = partial.make_rule(rate=2.0)
    assert rule.update(jnp.ones(1), rule.init(jnp.zeros(1)), jnp.zeros(1))[0] == -2.0


def test_given_ranges_replace_ours_or_stand_beside_them_with_the_usual_defaults():
    given = {
        "b1": Range(0.5, 0.99, "one_minus"),
        "learning_rate": Range(1e-4, 1.0),
        "eps": Range(1e-4, 1.0),
    }
    adam, mine = make_contenders(
        {"adam": "adam", "mine": half},
        spaces={"adam": given, "mine": {"momentum": MOMENTUM}},
    )
    assert adam.space == given | {  # Its own 1e-8 is no value of eps here.
        "b1": Range(0.5, 0.99, "one_minus", 0.9),
        "learning_rate": Range(1e-4, 1.0, "log", 1e-3),
    }
    assert mine.space == {"rate": Range(1e-5, 10.0, "log", 0.5), "momentum": MOMENTUM}


def test_contender_is_taken_as_it_is():
    (first,) = make_contenders({"mine": half}, evaluations={"mine": 3})
    again, other = make_contenders(
        [first, Contender("other", half, {"momentum": MOMENTUM}, 2.0)]
    )
    assert again[2:] == first[2:]
    assert again.name == "mine"
    assert (other.space, other.evaluations, other.stated) == (
        {"momentum": MOMENTUM},
        2.0,
        True,
    )
    (renamed,) = make_contenders(
        {"new": other}, spaces={"new": {"rate": Range(0.1, 1.0)}}
    )
    assert (renamed.name, list(renamed.space)) == ("new", ["momentum", "rate"])


@pytest.mark.parametrize(
    ("rules", "options", "message"),
    [
        (
            "adam",
            {},
            (
                "rules must be a mapping such as {'mine': my_rule}, or a sequence of "
                "names; got 'adam'."
            ),
        ),
        ([], {}, "rules must name at least one rule"),
        (
            ["adam", "adam"],
            {},
            "the rule 'adam' is given twice. Give each rule its own name.",
        ),
        (
            [optax.sgd],
            {},
            "a rule must have a name, as in {'mine': ...}; got <function sgd",
        ),
        (
            {"a/b": "adam"},
            {},
            "begin with a letter or a digit; got 'a/b'.",
        ),
        ({"": "adam"}, {}, "the name of a rule must consist of letters, digits"),
        ({"-x": "adam"}, {}, "the name of a rule must consist of letters, digits"),
        ({"_x": "adam"}, {}, "begin with a letter or a digit; got '_x'."),
        (["adm"], {}, "unknown rule 'adm'; did you mean 'adam'?"),
        (
            ["lbfgs"],
            {},
            (
                "lbfgs cannot be compared: its line search evaluates the objective a "
                "varying number of times"
            ),
        ),
        (
            {"mine": update_rules.newton},
            {},
            "mine cannot be compared: it takes second derivatives",
        ),
        (["saga"], {}, "saga cannot be compared: it needs the number of examples"),
        (
            {"mine": 3},
            {},
            (
                "mine must be an optax.GradientTransformation or a function that "
                "returns one; it is a value of type int"
            ),
        ),
        (
            ["adam"],
            {"spaces": {"adm": {}}},
            (
                "spaces names 'adm', which is not a rule of this comparison; did you "
                "mean 'adam'?"
            ),
        ),
        (
            ["adam"],
            {"evaluations": {"x": 2}},
            (
                "evaluations names 'x', which is not a rule of this comparison. "
                "Known: adam."
            ),
        ),
        (
            ["adam"],
            {"evaluations": 2},
            (
                "evaluations must be a dict with the names of rules as keys, such as "
                "evaluations={'mine': ...}; got 2."
            ),
        ),
        (
            ["adam"],
            {"evaluations": {"adam": 0.5}},
            "a step of the rule costs, must be a finite number of at least 1",
        ),
        (
            ["adam"],
            {"evaluations": {"adam": np.inf}},
            "a step of the rule costs, must be a finite number of at least 1",
        ),
        (
            ["adam"],
            {"spaces": {"adam": {"beta1": MOMENTUM}}},
            "adam has no argument 'beta1'. Known: learning_rate, b1,",
        ),
        (
            ["nesterov"],
            {"spaces": {"nesterov": {"momentm": MOMENTUM}}},
            "no argument 'momentm'; did you mean 'momentum'?",
        ),
        (
            {"mine": lambda rate, seed=0.5: optax.sgd(rate)},
            {"spaces": {"mine": {"seed": Range(0.1, 1.0)}}},
            "mine cannot have a hyper-parameter with the name 'seed', under which a",
        ),
        (
            {"two": lambda rate, decay: optax.sgd(rate)},
            {},
            "two needs decay, which has no default and no range. Give it a range",
        ),
        (
            {"x": optax.sgd(1.0)},
            {"spaces": {"x": BOTH}},
            "x is already built, so it has nothing to search",
        ),
        (
            {"x": functools.partial(optax.adam, 0.1)},
            {},
            (
                "x: its first parameter, b1, is not a learning rate. State what to "
                "search: spaces={'x': {'learning_rate':"
            ),
        ),
        (
            {"x": lambda inner=optax.sgd: inner(0.1)},
            {},
            "x: its first parameter, inner, is not a learning rate",
        ),
    ],
)
def test_what_cannot_take_part_is_named(rules, options, message):
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        make_contenders(rules, **options)


def stateless(update: Any, kind=optax.GradientTransformation):
    return kind(lambda params: optax.EmptyState(), update)


def branching(rate):
    return optax.sgd(rate if rate > 0.1 else 0.1)


def in_half(rate):
    return stateless(
        lambda g, s, p=None: (
            jax.tree.map(lambda x: (-rate * x).astype("float16"), g),
            s,
        )
    )


def flat(rate):
    return stateless(
        lambda g, s, p=None: (jax.tree.map(lambda x: -rate * x.ravel(), g), s)
    )


def growing(rate):
    del rate
    return stateless(lambda g, s, p=None: (g, jnp.concatenate([s, s])))._replace(
        init=lambda params: jnp.zeros(1)
    )


def failing(rate):
    del rate
    raise KeyError("gone")


@pytest.mark.parametrize(
    ("rule", "error", "message"),
    [
        (
            branching,
            RuleError,
            (
                r"mine raised TracerBoolConversionError while it was built \(line \d+ "
                r"of test_conten"
            ),
        ),
        (
            lambda rate: rate,
            NoRuleError,
            (
                "mine is not an update rule: called with a learning rate, it "
                "returned a value of type float64"
            ),
        ),
        (in_half, NoRuleError, "mine: .*float16"),
        (flat, NoRuleError, r"mine: .*\[6\]"),
        (
            growing,
            NoRuleError,
            (
                "mine: update changes its state at the only leaf from float64.1. to "
                "float64.2."
            ),
        ),
        (failing, RuleError, "mine raised KeyError while it was built .*gone"),
        (
            lambda rate: stateless(lambda g, s, p=None: g),
            NoRuleError,
            r"mine: update must return \(updates, state\)",
        ),
    ],
)
def test_rule_that_fails_is_named_before_anything_is_compiled(rule, error, message):
    (mine,) = make_contenders({"mine": rule})
    with pytest.raises(error, match=message):
        check_contender(mine, PARAMS, objective, BATCH)


def test_range_that_a_rule_refuses_is_named():
    space = {"learning_rate": RATE, "momentum": Range(0.5, 1.5, "linear")}
    (mine,) = make_contenders({"mine": update_rules.heavy_ball}, spaces={"mine": space})
    with pytest.raises(
        RuleError,
        match=r"mine raised ValueError while it was built: momentum must be .* below 1",
    ):
        check_contender(mine, PARAMS, objective, BATCH)


def test_rule_that_gives_nan_takes_part():
    (mine,) = make_contenders(
        {
            "mine": lambda rate: stateless(
                lambda g, s, p=None: (jax.tree.map(lambda x: x * jnp.nan, g), s)
            )
        }
    )
    assert check_contender(mine, PARAMS, objective, BATCH) == 0


@pytest.mark.parametrize(
    ("whole", "told"),
    [(False, r"2 times a step. State"), (True, r"2 times a step \(2 of them on all")],
)
def test_rule_that_evaluates_the_objective_states_its_cost(whole, told):
    def watching(rate):
        def update(g, s, p=None, *, value_fn, **extra):
            drawn = {"indices": None} if whole else {}
            gain = value_fn(p, **drawn) - value_fn(jax.tree.map(jnp.add, p, g), **drawn)
            return jax.tree.map(lambda x: -rate * gain * x, g), s

        return stateless(update, optax.GradientTransformationExtraArgs)

    (mine,) = make_contenders({"mine": watching})
    with pytest.raises(
        ValueError,
        match=(
            rf"mine evaluates the objective itself, {told}.*evaluations=\{{'mine': 3\}}"
        ),
    ):
        check_contender(mine, PARAMS, objective, BATCH)
    for stated in (1, 2.5):
        (mine,) = make_contenders({"mine": watching}, evaluations={"mine": stated})
        assert check_contender(mine, PARAMS, objective, BATCH) == 2
        assert mine.evaluations == stated
