"""Each rule's iterates against the same rule in 50-digit arithmetic, over 50 steps on three problems."""

import functools
import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.proofs import trajectory
from research.update_rules import (
    adagrad,
    adam,
    adamw,
    add_decayed_weights,
    gradient_descent,
    heavy_ball,
    nesterov,
    rmsprop,
)

REFERENCE = json.loads((Path(__file__).parents[1] / "reference/optimizer_trajectories.json").read_text("utf-8"))
CASES = {case["id"]: case for case in REFERENCE["cases"]}


def coupled(constructor):
    return lambda learning_rate: optax.chain(add_decayed_weights(0.1), constructor(learning_rate))


# By optimizer and variant, as in the reference's ids; the last entry is the bound below, in units of eps.
RULES = {
    "sgd/plain": (gradient_descent, 5),
    "sgd/L2 weight decay 0.1": (coupled(gradient_descent), 5),
    "momentum/heavy ball 0.9": (heavy_ball, 5),
    "nesterov/0.9": (nesterov, 5),
    "adagrad/library defaults": (adagrad, 5),
    "adagrad/matched accumulator 0, eps 0.01": (partial(adagrad, initial_accumulator_value=0.0, eps=0.01), 5),
    "rmsprop/library defaults": (rmsprop, 40),
    "rmsprop/matched decay 0.9 eps 0.001, eps_in_sqrt=False": (partial(rmsprop, eps=0.001, eps_in_sqrt=False), 5),
    "rmsprop/eps 0.001, eps_in_sqrt default": (partial(rmsprop, eps=0.001), 5),
    "adam/defaults": (adam, 5),
    "adam/b1 0.8 b2 0.95 eps 0.1": (partial(adam, b1=0.8, b2=0.95, eps=0.1), 5),
    "adam/L2 weight decay 0.1 (coupled)": (coupled(adam), 5),
    "adamw/weight decay 0.1": (partial(adamw, weight_decay=0.1), 5),
    "adamw/library default weight decay": (adamw, 5),
}
# Why 5: a step adds to the error at most one rounding of x and a few of the update, each below eps / 2 relative to
# 1 + |x|; the problems and rates contract, so that old errors fade as new ones come. Measured: 0.5 to 3.5 eps in
# float32, 0.5 to 2.5 in float64. Why 40: at a minimum RMSProp divides a gradient that is mostly rounding by its own
# size, and with eps = 1e-8 inside the root that magnifies it up to the rate. Measured: 17 eps in both dtypes, 29 in
# float32 without fused multiply-add.


def rule_of(case):
    _, optimizer, variant, _ = case["id"].split("/")
    return RULES[f"{optimizer}/{variant}"]


def objective_of(name, dtype):
    problem = REFERENCE["problems"][name]
    if name == "quadratic":
        a, b = (np.asarray(problem[key], dtype) for key in ("A", "b"))
        return lambda x: 0.5 * x[0] @ a @ x[0] - b @ x[0]
    if name == "rosenbrock":
        return lambda x: (1.0 - x[0][0]) ** 2 + 100.0 * (x[0][1] - x[0][0] ** 2) ** 2
    inputs, labels, l2 = np.asarray(problem["X"], dtype), np.asarray(problem["y"]), problem["l2"]

    def softmax_regression(x):
        w, b = x
        log_p = jax.nn.log_softmax(inputs @ w + jnp.expand_dims(b, 0))
        return -jnp.mean(log_p[np.arange(len(labels)), labels]) + 0.5 * l2 * (jnp.sum(w**2) + jnp.sum(b**2))

    return softmax_regression


@functools.cache
def iterates(problem, dtype):
    """Of all the cases of a problem, compiled as one program: {id: (51, number of parameters)}."""
    start = [
        jnp.asarray(x, dtype).reshape(shape)
        for x, shape in zip(*(REFERENCE["problems"][problem][key] for key in ("x0", "shapes")), strict=True)
    ]
    gradient = jax.grad(objective_of(problem, dtype))
    rules = {
        name: rule_of(case)[0](case["learning_rate"]) for name, case in CASES.items() if case["problem"] == problem
    }
    runs = jax.jit(lambda x: {name: trajectory(rule, gradient, x, 50) for name, rule in rules.items()})(start)
    return {
        name: np.concatenate([np.asarray(leaf, np.float64).reshape(51, -1) for leaf in run], axis=1)
        for name, run in runs.items()
    }


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", CASES)
def test_iterates_equal_the_exact_rule(name, dtype):
    case = CASES[name]
    exact = np.asarray(case["iterates_exact_optax_rule"], np.float64)
    deviation = np.max(np.abs(iterates(case["problem"], dtype)[name] - exact) / (1.0 + np.abs(exact)))
    assert deviation <= rule_of(case)[1] * np.finfo(dtype).eps


def test_every_case_and_every_rule_takes_part():
    assert len(CASES) == 19
    used = {f"{optimizer}/{variant}" for _, optimizer, variant, _ in (name.split("/") for name in CASES)}
    assert used == RULES.keys()
