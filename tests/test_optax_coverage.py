"""Every optimizer of optax has a counterpart here, or a sentence says why it has
none.
"""

import importlib
import inspect
from collections.abc import Iterable

import optax
import optax.contrib
import pytest

from research import update_rules
from research.update_rules import RULE_TABLE

# Names of the rules here that are not the names in optax.
NAMED = {
    "sgd": "heavy_ball",
    "sign_sgd": "sign_descent",
    "polyak_sgd": "polyak_step",
    "optimistic_adam_v2": "optimistic_adam",
    "schedule_free": "schedule_free_sgd",
    "mechanize": "mechanic",
}
# What optax.contrib has besides optimizers.
PARTS = {
    "split_real_and_imaginary",
    "normalize",
    "schedule_free_eval_params",
    "hutchinson_estimator_diag_hessian",
    "differentially_private_aggregate",
}
REASONS = {
    "dpsgd": (
        "it takes the gradient of each example, and a step of descent has only their "
        "mean"
    ),
    "galore": "its projection on a subspace of low rank is not here yet",
    "sophia": "it draws noise for the diagonal of the Hessian, and is not here yet",
}


def optimizers():
    """Names of the optimizers of the installed optax: of its aliases and of contrib."""
    core = {
        name
        for name, value in vars(importlib.import_module("optax._src.alias")).items()
        if callable(value)
        and getattr(optax, name, None) is value
        and name.islower()
        and "learning_rate" in inspect.signature(value).parameters
    }
    contrib = {
        name
        for name, value in vars(optax.contrib).items()
        if inspect.isfunction(value)
        and not name.startswith(("_", "scale_by_"))
        and name not in PARTS
    }
    return core | contrib | {"lookahead"}


def missing(names: Iterable[str]) -> list[str]:
    """Those that have neither a counterpart nor a reason."""
    return sorted(
        name
        for name in names
        if not hasattr(update_rules, NAMED.get(name, name)) and name not in REASONS
    )


def test_every_optimizer_of_optax_has_a_counterpart_or_a_reason():
    assert missing(optimizers()) == []


def test_the_list_of_optimizers_is_the_one_that_users_see():
    found = optimizers()
    assert {"adam", "nadamw", "adafactor", "lbfgs", "sm3", "noisy_sgd"} <= found
    assert {"ademamix", "mechanize", "sophia", "reduce_on_plateau", "sam"} <= found
    assert len(found) >= 45  # 53 in 0.2.8.


def test_an_optimizer_that_is_not_here_is_reported():
    assert missing([*optimizers(), "an_optimizer_of_tomorrow"]) == [
        "an_optimizer_of_tomorrow"
    ]


@pytest.mark.parametrize("name", REASONS)
def test_a_reason_is_a_sentence_for_an_optimizer_that_is_not_here(name):
    assert len(REASONS[name].split()) >= 4
    assert name in optimizers()
    assert not hasattr(update_rules, name)


@pytest.mark.parametrize("name", NAMED.values())
def test_another_name_is_that_of_a_rule(name):
    assert name in RULE_TABLE
