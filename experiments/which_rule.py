"""Which update rule should I use first?

First-order rules are compared on problems whose exact optimum is known: linear, ridge,
logistic and softmax regression on real data, an ill-conditioned regression, and a noisy
quadratic. Every rule gets the same number of independent searches, each with its own
points and tuning seeds. The chosen hyper-parameters are measured again on other seeds.
The tuning seeds also decide which rule comes first. The result of this rule on the
other seeds is therefore not biased by this choice.

    # The usual rules.
    python experiments/which_rule.py
    # Every first-order rule here.
    python experiments/which_rule.py --full
    # The same question for networks, which experiments/which_rule_networks.py answers.
    python experiments/which_rule.py --networks

Expected numbers (`EXPECTED`): the number of example gradients that plain gradient
descent needs, divided by the number that the first rule needs, over all workloads
together; and the same ratio for Adam.
"""

import dataclasses
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import research

EXPECTED = {"gradient_descent_over_first": (1.2, 2.4), "adam_over_first": (1.4, 2.8)}
ALL = ("all",)


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the experiment."""

    rule: tuple[str, ...] = (
        "gradient_descent",
        "heavy_ball",
        "nesterov",
        "adagrad",
        "rmsprop",
        "adam",
        "adamw",
        "nadam",
        "lion",
        "schedule_free_sgd",
        "dog",
        "prodigy",
    )
    """Names of rules. "all" means every first-order rule. Gradient descent and Adam are
    always included."""
    workload: tuple[str, ...] = (
        "diabetes",
        "diabetes_ridge",
        "breast_cancer",
        "digits",
        "ill_conditioned",
        "noisy_quadratic",
    )
    """Workloads with data and a known optimum."""
    searches: int = 6
    """Number of independent searches of each rule on each workload."""
    budget: int = 32
    """Number of trials with which a search starts. The first trial has the default
    hyper-parameters."""
    passes: int = 30
    """Passes over the data in every training."""
    batch_size: int = 32
    """Examples in a batch."""
    target: float = 1e-2
    """Target, as a share of the initial f - f*. f* is the minimum of f."""
    seeds: str = "0..19"
    """Reported seeds, written as 0..9 or as 1,4,7."""
    tuning_seeds: str = "1000..1179"
    """Seeds for the choice of trials, divided among the searches. They must differ from
    the reported seeds."""
    width: int = 8
    """Number of runs trained together. The last bits of each run depend on it."""


FULL = Config(rule=ALL)


if __name__ == "__main__" and "--networks" in sys.argv:
    sys.argv.remove("--networks")
    on_networks = Path(__file__).with_name("which_rule_networks.py")
    runpy.run_path(str(on_networks), run_name="__main__")
    sys.exit()

if __name__ == "__main__":  # Flags are read before anything heavy is imported.
    research.cli.main(sys.modules[__name__])

import numpy as np

from research.cli.progress import OnProgress
from research.statistics.costs import full_length
from research.types import Checkpoints

PLAIN, USUAL = "gradient_descent", "adam"


def run(
    config: Config,
    on_progress: OnProgress | None = None,
    checkpoints: Checkpoints | None = None,
) -> research.runs.Findings:
    """Measure every rule on every workload.

    The tuning seeds decide which rule is first. Results are reported on other seeds.
    """
    comparison = research.comparison
    workloads = comparison.make_workloads(config.workload)
    for workload in workloads:
        if workload.train is None or workload.optimum is None:
            raise ValueError(
                f"workload {workload.name!r} has no data or no known optimum; choose "
                "one that has both."
            )
    protocol, contenders = comparison.plan(
        rules_of(config), config.workload, **terms(config)
    )
    measurements = comparison.measure_contenders(
        protocol,
        contenders,
        workloads,
        on_progress=on_progress,
        checkpoints=checkpoints or research.types.no_checkpoints,
    )
    first = comparison.leader(measurements)
    study = comparison.conclude(protocol, first, contenders, measurements)
    rows = by_rule(study)
    leaders = {
        w: comparison.leader({key: s for key, s in measurements.items() if key[0] == w})
        for w, _ in measurements
    }
    numbers = study.numbers | {
        "first": first,
        "first_untuned": comparison.leader(measurements, tuned=False),
        "first_on": leaders,
        "by_rule": rows,
        "gradient_descent_over_first": ratio_to(study.numbers, PLAIN),
        "adam_over_first": ratio_to(study.numbers, USUAL),
    }
    return research.runs.Findings(study.arrays, numbers)


def share(config: Config, part: int, parts: int, checkpoints: Checkpoints):
    """Compute one of `parts` parts of the pairs of rule and workload.

    The part has every `parts`-th pair, starting with pair `part`. The results are saved
    in the checkpoints, and `run` loads them from there.
    """
    research.comparison.compute_share(
        rules_of(config),
        config.workload,
        part,
        parts,
        checkpoints=checkpoints,
        **terms(config),
    )


def terms(config: Config):
    """Return the arguments for the protocol of the comparison."""
    return {
        "searches": config.searches,
        "budget": config.budget,
        "passes": config.passes,
        "batch_size": config.batch_size,
        "target": config.target,
        "seeds": research.runs.parse_seeds(config.seeds),
        "tuning_seeds": research.runs.parse_seeds(config.tuning_seeds),
        "width": config.width,
    }


def rules_of(config: Config):
    """Return the names of the rules, always including gradient descent and Adam."""
    named = [
        name
        for word in config.rule
        for name in (research.tuning.SPACES if word in ALL else (word,))
    ]
    return list(dict.fromkeys((PLAIN, *named, USUAL)))


def ratio_to(numbers: dict[str, Any], rule: str):
    """Return the example gradients of a rule, divided by those of the first rule."""
    if rule == numbers["baseline"]:
        return 1.0
    return next(one["ratio"] for one in numbers["overall"] if one["rule"] == rule)


def by_rule(study: research.comparison.Study):
    """Return the facts of each rule over all workloads, the first rule first.

    A cost counts if at least half of the runs reach the target.
    """
    on, rules = study.numbers["workloads"], study.numbers["rules"]
    cells = {(cell["workload"], cell["rule"]): cell for cell in study.numbers["cells"]}
    tuned = np.array([[cost_of(cells[w, r]) for w in on] for r in rules])
    defaults = np.array([[default_cost(study, w, r) for w in on] for r in rules])
    best = tuned.min(axis=0)
    overall = {one["rule"]: one for one in study.numbers["overall"]}
    first = {
        "verdict": "first",
        "ratio": 1.0,
        "low": 1.0,
        "high": 1.0,
        "workloads": len(on),
    }
    rows = []
    for rule, costs, untuned in zip(rules, tuned, defaults, strict=True):
        own = [cells[workload, rule] for workload in on]
        decades = [cell["robustness"] for cell in own if cell["robustness"] is not None]
        beside_first = overall.get(rule, first)
        rows.append(
            {
                "rule": rule,
                "reached_on": int(np.isfinite(costs).sum()),
                "times_best": geometric_mean(costs / best),
                **{
                    name: beside_first[name]
                    for name in ("verdict", "ratio", "low", "high", "workloads")
                },
                "defaults_reached_on": int(np.isfinite(untuned).sum()),
                "defaults_times_best": geometric_mean(untuned / best),
                "decades": float(np.median(decades)) if decades else None,
                "disagree_on": sum(cell["searches_disagree"] for cell in own),
                "diverged": float(np.mean([cell["diverged"] for cell in own])),
                "times_seconds": relative_seconds(cells, on, rule),
            }
        )
    return sorted(
        rows,
        key=lambda row: (
            row["verdict"] != "first",
            -row["reached_on"],
            row["times_best"] or np.inf,
        ),
    )


def cost_of(cell: dict[str, Any]):
    """Return the passes that a tuned rule needs; inf if it misses the target."""
    return np.inf if cell["cost"] is None else cell["cost"]


def default_cost(study: research.comparison.Study, workload: str, rule: str):
    """Return the passes that a rule's defaults need; inf if they miss the target.

    A run that misses the target counts as ten full trainings, whose length is the same
    for all rules.
    """
    key = f"{workload}/{rule}"
    arrays = {
        "costs": study.arrays[f"{key}/default_costs"],
        "passes": study.arrays[f"{key}/passes"],
    }
    if np.isfinite(arrays["costs"]).mean() < research.comparison.HALF:
        return np.inf
    budget = full_length(
        float(arrays["passes"][-1]),
        study.numbers["protocol"]["passes"],
        study.numbers["evaluations"][rule],
    )
    return float(np.exp(research.comparison.logs_of(arrays, budget).mean()))


def geometric_mean(ratios: np.ndarray):
    """Return the geometric mean of the finite ratios, or None if no ratio is finite."""
    finite = ratios[np.isfinite(ratios)]
    return float(np.exp(np.log(finite).mean())) if finite.size else None


def relative_seconds(cells: dict[tuple[str, str], Any], on: Sequence[str], rule: str):
    """Return the seconds per pass of a rule relative to plain gradient descent.

    The result is the geometric mean over the workloads.
    """
    return geometric_mean(
        np.array(
            [
                cells[w, rule]["seconds_per_pass"] / cells[w, PLAIN]["seconds_per_pass"]
                for w in on
            ]
        )
    )
