"""Laws of which_rule_networks: ranks with intervals, the choice of the first rule,
its page and its reference.
"""

import functools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments import which_rule
from experiments import which_rule_networks as experiment
from research import cli, comparison, figures, tuning

TOP = Path(__file__).parent.parent


def made_up(means, generator, searches=3, seeds=5, networks=4):
    """Log losses of rules with known means, with luck of searches and of seeds."""
    shape = (searches, seeds)
    seed = generator.normal(0, 0.05, seeds)
    return [
        {
            f"rule{number}": mean
            + seed
            + generator.normal(0, 0.03, (searches, 1))
            + generator.normal(0, 0.03, shape)
            for number, mean in enumerate(means)
        }
        for _ in range(networks)
    ]


def test_the_intervals_of_ranks_contain_the_true_ranks():
    generator, hits, widths = np.random.default_rng(0), [], []
    for _ in range(40):
        means = generator.permutation([0.0, 0.0, 0.05, 0.1, 0.3])
        found = experiment.ranks(made_up(means, generator), 0.95)
        for number, mean in enumerate(means):
            _, low, high = found[f"rule{number}"]
            # Equal rules may have any rank among themselves.
            least, most = 1 + (means < mean).sum(), (means <= mean).sum()
            hits.append(low <= most and high >= least)
            widths.append(high - low)
    # 95 % are promised; 200 intervals of the 40 studies have at least 180.
    assert sum(hits) >= 180
    # They are not empty of information: 4 would be every rank.
    assert np.mean(widths) < 2


def test_ranks_are_the_order_of_the_means_and_lie_in_their_intervals():
    means = [0.4, 0.0, 0.2, 0.1]
    found = experiment.ranks(made_up(means, np.random.default_rng(1)), 0.95)
    assert [found[f"rule{n}"][0] for n in range(4)] == [4, 1, 3, 2]
    assert all(low <= rank <= high for rank, low, high in found.values())


def test_the_first_rule_is_chosen_on_the_tuning_seeds():
    arrays = {
        "a/x/tuning": np.array([0.0, 0.1]),
        "a/y/tuning": np.array([0.2, 0.2]),
        "b/x/tuning": np.array([1.0, 1.0]),
        "b/y/tuning": np.array([0.0, 0.0]),
        "a/x/logs": np.full((2, 3), -9.0),  # Must not matter.
        "b/x/logs": np.full((2, 3), -9.0),
    }
    study = comparison.NetworkStudy("", (), arrays, {"rules": ["x", "y"]})
    assert experiment.leader(study, ["a"]) == "x"
    assert experiment.leader(study, ["b"]) == "y"
    assert experiment.leader(study, ["a", "b"]) == "y"


def test_adamw_takes_part_even_if_it_is_not_named():
    named = experiment.rules_of(experiment.Config(rule=("lion",)))
    assert list(named) == ["lion", "adamw"]


def test_the_default_run_has_fifteen_rules_on_four_networks_or_more():
    config = experiment.Config()
    assert len(set(config.rule)) >= 15
    assert len(set(config.network)) >= 4
    assert "gru_vowels" not in config.network  # It would need a download.


def test_all_rules_leave_out_no_rule_that_is_named_beside_them():
    named = which_rule.rules_of(which_rule.Config(rule=("mine", "all")))
    assert named[:2] == [which_rule.PLAIN, "mine"]
    assert set(named) == {"mine", *tuning.SPACES}
    assert len(set(named)) == len(named)


def test_no_rule_is_first_where_none_reaches_the_target():
    cells = [
        {"workload": workload, "rule": rule, "reached": reached}
        for workload, reached in (("easy", 1.0), ("hard", 0.0), ("other", 0.5))
        for rule in ("x", "y")
    ]
    first = {"easy": "x", "hard": "y", "other": "x"}
    said = cli.report_of(which_rule).first_by_workload
    assert said({"cells": cells, "first_on": first}) == (
        "No rule reaches the target on hard. x comes first on every other workload."
    )
    assert said({"cells": cells, "first_on": first | {"other": "y"}}) == (
        "No rule reaches the target on hard. "
        "No rule comes first everywhere: x on easy; y on other."
    )


@pytest.mark.thorough("a process of its own")
def test_the_flag_networks_of_which_rule_leads_here():
    words = [sys.executable, "experiments/which_rule.py", "--networks", "--help"]
    shown = subprocess.run(words, capture_output=True, text=True, cwd=TOP, check=True)
    assert "first to train a network?" in shown.stdout
    assert "--search-schedule" in shown.stdout


@pytest.mark.parametrize("rule", ["gradient_descent", "sam"])
def test_defaults_that_miss_the_target_cost_every_rule_the_same(rule):
    # A step of sam costs two gradients, so its training has 4 of the 5 passes.
    evaluations = {"gradient_descent": 1.0, "sam": 2.0}
    length = 5.0 if rule == "gradient_descent" else 4.0
    arrays = {
        f"digits/{rule}/default_costs": np.array([2.0, np.inf]),
        f"digits/{rule}/passes": np.array([0.0, length]),
    }
    numbers = {"protocol": {"passes": 5}, "evaluations": evaluations}
    study = comparison.Study("", (), arrays, numbers)
    # The geometric mean of 2 passes and of ten trainings of 5 passes.
    assert which_rule.default_cost(study, "digits", rule) == pytest.approx(10.0)


TINY = experiment.Config(
    rule=("muon", "prodigy"),
    network=("mlp_digits",),
    searches=2,
    budget=3,
    seeds="0..2",
    tuning_seeds="10..13",
    devices=1,
)


@functools.cache
def result():
    return cli.conduct(experiment, TINY)


@pytest.mark.thorough("the experiment itself; every part of it has a law above")
def test_the_experiment_answers_and_draws(tmp_path):
    found = result()
    assert found.answer.startswith(f"Use {found.numbers['first']} first.")
    assert sorted(row[0] for row in found.tables[0].rows) == [
        "adamw",
        "muon",
        "prodigy",
    ]
    for name, picture in cli.report_of(experiment).draw(found).items():
        assert any(letter.isdigit() for letter in picture.caption)
        assert figures.save(picture, tmp_path, name).still.stat().st_size > 0
