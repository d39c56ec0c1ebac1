"""Each formula and each rule against recorded iterates in 50-digit arithmetic, by
optax's definitions and by torch's.
"""

import functools
import inspect
import json
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import optax
import pytest

from research.update_rules import UPDATE_RULES, add_decayed_weights
from research.verification import FORMULAS, PROBLEMS, trajectory
from research.verification.leaves import DIGITS, Leaves

COMPILE_QUICKLY = True  # tests/conftest.py

REFERENCE = json.loads(
    (Path(__file__).parents[1] / "reference/optimizer_trajectories.json").read_text(
        "utf-8"
    )
)
CASES = {case["id"]: case for case in REFERENCE["cases"]}


class Conventions(NamedTuple):
    """A rule of ours, and the arguments under which it is optax's rule and the second
    library's (torch's or timm's).

    None: we have no such variant. coupled_decay: chained before the rule.
    """

    rule: str
    optax: dict | None = {}
    second: dict | None = None
    coupled_decay: float = 0.0


OUTSIDE = {"eps_in_sqrt": False}
CENTERED = {"decay": 0.9, "eps": 0.01, "centered": True}
RULES = {  # By optimizer and variant, as in the reference's ids.
    "sgd/plain": Conventions("gradient_descent"),
    "sgd/L2 weight decay 0.1": Conventions("gradient_descent", coupled_decay=0.1),
    "momentum/heavy ball 0.9": Conventions("heavy_ball"),
    "momentum/dampening 0.9 (torch) vs EMA trace (optax)": Conventions(
        "ema_momentum", {}, {"undamped_start": True}
    ),
    "nesterov/0.9": Conventions("nesterov"),
    "adagrad/library defaults": Conventions(
        "adagrad", {}, {"initial_accumulator_value": 0.0, "eps": 1e-10, **OUTSIDE}
    ),
    "adagrad/matched accumulator 0, eps 0.01": Conventions(
        "adagrad",
        {"initial_accumulator_value": 0.0, "eps": 0.01},
        {"initial_accumulator_value": 0.0, "eps": 0.01, **OUTSIDE},
    ),
    "adadelta/rho 0.9 eps 1e-6": Conventions("adadelta"),
    "rmsprop/library defaults": Conventions("rmsprop", {}, {"decay": 0.99, **OUTSIDE}),
    "rmsprop/matched decay 0.9 eps 0.001, eps_in_sqrt=False": Conventions(
        "rmsprop", {"eps": 0.001, **OUTSIDE}
    ),
    "rmsprop/eps 0.001, eps_in_sqrt default": Conventions(
        "rmsprop", {"eps": 0.001}, {"eps": 0.001, **OUTSIDE}
    ),
    "rmsprop/momentum 0.9, eps outside": Conventions(
        "rmsprop", {"eps": 1e-6, "momentum": 0.9, **OUTSIDE}
    ),
    "rmsprop_centered/eps 0.01 outside": Conventions(
        "rmsprop", {**CENTERED, **OUTSIDE}
    ),
    "rmsprop_centered/eps 0.01, optax default placement": Conventions(
        "rmsprop", CENTERED, {**CENTERED, **OUTSIDE}
    ),
    "adam/defaults": Conventions("adam"),
    "adam/b1 0.8 b2 0.95 eps 0.1": Conventions(
        "adam", {"b1": 0.8, "b2": 0.95, "eps": 0.1}
    ),
    "adam/L2 weight decay 0.1 (coupled)": Conventions("adam", coupled_decay=0.1),
    "adamw/weight decay 0.1": Conventions("adamw", {"weight_decay": 0.1}),
    "adamw/library default weight decay": Conventions(
        "adamw", {}, {"weight_decay": 0.01}
    ),
    "adamax/defaults": Conventions("adamax"),
    "adamax/eps 0.1": Conventions("adamax", {"eps": 0.1}),
    "nadam/defaults": Conventions("nadam", {}, {"momentum_schedule": "torch"}),
    "amsgrad/defaults": Conventions("amsgrad", {}, {"correct_before_max": False}),
    "amsgrad/b2 0.9": Conventions(
        "amsgrad", {"b2": 0.9}, {"b2": 0.9, "correct_before_max": False}
    ),
    "radam/defaults": Conventions("radam", {}, {"eps_before_correction": True}),
    "radam/b2 0.9 eps 0.01": Conventions(
        "radam",
        {"b2": 0.9, "eps": 0.01},
        {"b2": 0.9, "eps": 0.01, "eps_before_correction": True},
    ),
    "lion/b1 0.9 b2 0.99 wd 0": Conventions("lion", {"weight_decay": 0.0}),
    "lion/wd 0.1": Conventions("lion", {"weight_decay": 0.1}),
    "lamb/wd 0": Conventions("lamb"),
    "lamb/wd 0.1": Conventions("lamb", {"weight_decay": 0.1}),
    "rprop/defaults": Conventions("rprop", None, {}),  # optax.rprop is one step stale.
    "lbfgs/fixed step, memory 5": Conventions(
        "lbfgs",
        {"memory_size": 5, "linesearch": None},
        {
            "memory_size": 5,
            "linesearch": None,
            "first_step": "absolute",
            "min_curvature": 1e-10,
        },
    ),
}


class Trace(NamedTuple):
    """A recorded trajectory, and which rule of ours it is."""

    case: dict
    conventions: Conventions
    arguments: dict
    iterates: list

    @property
    def problem(self):
        return PROBLEMS[
            "softmax_regression"
            if self.case["problem"] == "softmax"
            else self.case["problem"]
        ]


def traces():
    for name, case in CASES.items():
        conventions = RULES["/".join(name.split("/")[1:3])]
        for which in ("optax", "second"):
            iterates, arguments = (
                case.get(f"iterates_exact_{which}_rule"),
                getattr(conventions, which),
            )
            if iterates is not None and arguments is not None:
                yield (
                    f"{name} by {which}",
                    Trace(case, conventions, arguments, iterates),
                )


TRACES = dict(traces())
OF_FORMULAS = {
    name: trace for name, trace in TRACES.items() if trace.conventions.rule in FORMULAS
}
OF_RULES = {
    name: trace
    for name, trace in TRACES.items()
    if trace.conventions.rule in UPDATE_RULES
}


def test_every_recorded_trajectory_takes_part():
    assert len(CASES) == 48
    assert {"/".join(name.split("/")[1:3]) for name in CASES} == RULES.keys()
    left_out = {"lamb", "rprop", "lbfgs"} - UPDATE_RULES.keys()
    assert {
        trace.conventions.rule for trace in TRACES.values()
    } - UPDATE_RULES.keys() == left_out
    second = [
        name for name, case in CASES.items() if "iterates_exact_second_rule" in case
    ]
    assert len(TRACES) == 48 + len(second) - len(
        [name for name in CASES if "/rprop/" in name]
    )


def decimal(value):
    """0.1 as a tenth: the reference was computed from decimals, not from the floats
    that are nearest to them.
    """
    return mpmath.mpf(repr(value)) if type(value) is float else value


def in_decimals(problem, coupled_decay):
    """The problem with a penalty of a hundredth, where it has one, and the gradient of
    the decay.
    """
    exact = problem.exact()
    missing = (
        decimal(0.01) - mpmath.mpf(0.01)
        if problem.name == "softmax_regression"
        else mpmath.mpf(0)
    )
    return exact._replace(
        gradient=lambda x: exact.gradient(x) + (missing + decimal(coupled_decay)) * x
    )


@pytest.mark.thorough("the other problems", but="quadratic")
@pytest.mark.parametrize("name", OF_FORMULAS)
def test_formula_gives_every_recorded_digit(name):
    trace = OF_FORMULAS[name]
    formula = FORMULAS[trace.conventions.rule].iterates
    with mpmath.workdps(DIGITS):
        function = in_decimals(trace.problem, trace.conventions.coupled_decay)
        x = Leaves(jax.tree.leaves(trace.problem.start))
        given = inspect.signature(formula).bind(
            x, function, trace.case["learning_rate"], **trace.arguments
        )
        given.apply_defaults()
        steps = formula(
            **{key: decimal(value) for key, value in given.arguments.items()}
        )
        for recorded in trace.iterates[1:]:
            for entry, digits in zip(
                (e for a in next(steps).arrays for e in a.flat), recorded, strict=True
            ):
                assert abs(entry - mpmath.mpf(digits)) <= mpmath.mpf("1e-18") * abs(
                    entry
                )


def rule_of(trace):
    rule = UPDATE_RULES[trace.conventions.rule](
        trace.case["learning_rate"], **trace.arguments
    )
    decay = trace.conventions.coupled_decay
    return optax.chain(add_decayed_weights(decay), rule) if decay else rule


@functools.cache
def iterates(problem):
    """Of all the traces on a problem, compiled as one program: {name: (51, number of
    parameters)}.
    """
    start = jax.tree.map(jnp.asarray, PROBLEMS[problem].start)
    gradient = jax.grad(PROBLEMS[problem].objective)
    rules = {
        name: rule_of(trace)
        for name, trace in OF_RULES.items()
        if trace.problem.name == problem
    }
    runs = jax.jit(
        lambda x: {
            name: trajectory(rule, gradient, x, 50) for name, rule in rules.items()
        }
    )(start)
    return {
        name: np.concatenate(
            [np.asarray(leaf).reshape(51, -1) for leaf in jax.tree.leaves(run)], axis=1
        )
        for name, run in runs.items()
    }


# A step adds to the error at most one rounding of x and a few of the update, each below
# eps / 2 relative to 1 + |x|; the problems and rates contract, so that old errors fade
# as new ones come. At a minimum RMSProp divides a gradient that is mostly rounding by
# its own size, and with eps = 1e-8 inside the root that magnifies it up to the rate: 17
# eps.
BOUND = 64 * np.finfo("float64").eps
# Near a minimum L-BFGS divides differences of gradients that cancel: twice what optax's
# own was from the exact iterates.
OTHER_BOUNDS = {"lbfgs": 2 * 6.2e-12}


@pytest.mark.thorough("the other problems", but="quadratic")
@pytest.mark.parametrize("name", OF_RULES)
def test_rule_gives_the_recorded_iterates(name):
    trace = OF_RULES[name]
    exact = np.asarray(trace.iterates, np.float64)
    deviation = np.max(
        np.abs(iterates(trace.problem.name)[name] - exact) / (1.0 + np.abs(exact))
    )
    assert deviation <= OTHER_BOUNDS.get(trace.conventions.rule, BOUND)
