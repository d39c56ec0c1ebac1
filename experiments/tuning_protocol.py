"""How often does the usual way of comparing two rules name the wrong winner?

Five rules are trained once, with many trials and many seeds, on each workload. From
these runs, thousands of possible studies are drawn. A study has a dozen trials
(including the defaults), a few seeds for tuning, and other seeds to report. Nine
procedures decide every study. Each of the usual procedures has one fault: it uses one
seed, or tunes on the reported seeds, or tunes only one's own rule. The procedure of
this project has disjoint seeds, equal budgets, and an interval that accounts for the
choice of the trial. The usual procedures average the number of passes. A run that
misses the target gets a larger number, as a penalty.

    python experiments/tuning_protocol.py            # under three minutes on two cores
    # With digits; more trials, seeds and studies.
    python experiments/tuning_protocol.py --full

The truth is computed from all seeds. The better rule is the one whose best trial has
the lower expected running time to the target. There are two versions of the truth. In
one, the best trial is taken from the trials of the study. In the other, it is taken
from all trials ever made, which says more about the rules. A rule is also compared with
itself under another name; in this case, every winner is wrong. The two sides then have
other seeds and the same trials, or other seeds and other trials. With other trials, one
side may have more luck in its search.

Expected numbers (`EXPECTED`), as shares of studies:

- `ours_wrong` and `worst_wrong`: wrong winners of our procedure and of the worst
procedure, if the truth is taken from the study's trials;
- `ours_in_null` and `ours_with_other_trials`: winners that our procedure names between
a rule and itself, with the same trials and with other trials;
- `redrawn_with_other_trials`: the same as `ours_with_other_trials`, for a variant of
our procedure that draws half of the trials anew in each resample.
"""

import dataclasses
import itertools
import math
import sys
from collections.abc import Callable
from typing import Any

import research

EXPECTED = {
    "ours_wrong": (0.0, 0.02),
    "worst_wrong": (0.35, 0.55),
    "ours_in_null": (0.02, 0.08),
    "ours_with_other_trials": (0.5, 0.8),
    "redrawn_with_other_trials": (0.0, 0.05),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the experiment."""

    rule: tuple[str, ...] = (
        "gradient_descent",
        "heavy_ball",
        "nesterov",
        "rmsprop",
        "adam",
    )
    """Names of update rules of this package."""
    workload: tuple[str, ...] = ("breast_cancer", "diabetes_ridge", "quadratic")
    """Named problems on which all rules run."""
    trials: int = 24
    """Number of trials of each rule, which are run once. The first trial has the
    default hyper-parameters."""
    seeds: str = "0..99"
    """Seeds of all trials, written as 0..9 or as 1,4,7."""
    passes: int = 30
    """Passes over the data in every training."""
    batch_size: int = 32
    """Examples in a batch. A problem without data always uses the full batch."""
    target: float = 1e-2
    """Share of the initial f - f* that must be reached."""
    budget: int = 12
    """Trials of each rule in a study."""
    few: int = 3
    """Number of trials of the other rule if the budgets are unequal, and number of
    seeds in procedures with few seeds."""
    reported_seeds: int = 20
    """Number of seeds that a study reports."""
    tuning_seeds: int = 10
    """Number of other seeds on which a study chooses trials."""
    studies: int = 1000
    """Number of studies of each kind."""
    resamples: int = 500
    """Number of bootstrap resamples for an interval."""
    seed: int = 0
    """Seed of the random studies."""
    width: int = 8
    """Number of runs trained together. The bits of each run depend on this number."""


LARGER = ("breast_cancer", "diabetes_ridge", "quadratic", "digits")
FULL = Config(workload=LARGER, trials=36, seeds="0..149", studies=3000, resamples=1000)


if __name__ == "__main__":  # Flags are read before anything heavy is imported.
    research.cli.main(sys.modules[__name__])

import numpy as np

from research.cli.progress import OnProgress
from research.comparison import (
    decision_procedures,
    make_contenders,
    make_protocol,
    measure_contender,
)
from research.types import Checkpoints

KINDS = {  # The differences between the two sides of a study.
    "rules": {},
    "same trials": {"other_seeds": True},
    "other trials": {"other_seeds": True, "other_trials": True},
}
NULLS = ("same trials", "other trials")
# The trials that define the true winner: all trials, or those of the study.
RULES, TRIALS = "of the rules", "of these trials"
PIECE = 100  # Number of studies in a piece of work with its own checkpoint.


def run(
    config: Config,
    on_progress: OnProgress | None = None,
    checkpoints: Checkpoints | None = None,
) -> research.runs.Findings:
    """Train, draw studies, and decide each study with every procedure."""
    checkpoints = checkpoints or research.types.no_checkpoints
    contenders = check(config)
    jobs = list(itertools.product(config.workload, contenders))
    pieces = [
        (kind, start) for kind in KINDS for start in range(0, config.studies, PIECE)
    ]
    total, arrays = len(jobs) + len(pieces), {}
    tell = lambda done, message: (
        on_progress(done, total, message) if on_progress else None
    )
    for done, (workload, contender) in enumerate(jobs):
        tell(done, label := f"{contender.name} on {workload}")
        report_progress = lambda progress, done=done, label=label: tell(
            done + progress.share, f"{progress}: {label}"
        )
        arrays |= pool_arrays(config, workload, contender, report_progress, checkpoints)
    pools = read_pools(config, arrays)
    for done, (kind, start) in enumerate(pieces, len(jobs)):
        tell(done, f"studies: {kind}")
        compute = lambda _, kind=kind, start=start: simulate(config, pools, kind, start)
        found = research.runs.remembered(
            checkpoints, f"studies/{kind}/{start}", compute
        ).arrays
        for name, array in found.items():
            arrays[f"{kind}/{name}"] = (
                np.concatenate([arrays[f"{kind}/{name}"], array]) if start else array
            )
    tell(total, "done")
    numbers = summary(config, pools, arrays)
    return research.runs.Findings(arrays, numbers)


def check(config: Config):
    """Check the config, and return the contenders."""
    seeds, needed = (
        research.runs.parse_seeds(config.seeds),
        2 * (config.reported_seeds + config.tuning_seeds),
    )
    counts = {
        "few": 1,
        "reported_seeds": 2,
        "tuning_seeds": 2,
        "studies": 1,
        "budget": 2,
    }
    for name, least in counts.items():
        if getattr(config, name) < least:
            raise ValueError(
                f"{name} must be at least {least}; got {name}={getattr(config, name)}."
            )
    if len(seeds) < needed:
        raise ValueError(
            f"seeds: the two sides of a study need {needed} seeds; got {len(seeds)}, "
            f"{config.seeds!r}."
        )
    if config.trials < 2 * config.budget - 1:
        least = 2 * config.budget - 1
        raise ValueError(
            f"trials must be at least {least}, enough for two disjoint searches; got "
            f"trials={config.trials}."
        )
    if not config.workload or len(config.rule) < 2:
        raise ValueError(
            "a comparison needs at least one workload and two rules; got "
            f"{config.workload} and {config.rule}."
        )
    found = make_contenders(config.rule)
    if empty := [contender.name for contender in found if not contender.space]:
        raise ValueError(f"rule: {empty[0]} has nothing to tune. Leave it out.")
    return found


def pool_arrays(
    config: Config,
    workload: str,
    contender: Any,
    on_chunk: Callable,
    checkpoints: Checkpoints,
):
    """Run every trial of a rule on every seed.

    Returns:
      Scores and costs, each of shape (trials, seeds).
    """
    seeds = research.runs.parse_seeds(config.seeds)
    terms = make_protocol(
        budget=config.trials,
        passes=config.passes,
        batch_size=config.batch_size,
        seeds=seeds,
        tuning_seeds=[
            max(seeds) + 1 + more for more in range(3)
        ],  # Not used: every study draws its own tuning seeds.
        target=config.target,
        width=config.width,
    )
    name = f"{workload}/{contender.name}"

    def compute(parts: Checkpoints):
        on = research.workloads.make_workload(workload)
        saved = measure_contender(
            on, contender, terms, timed=False, on_chunk=on_chunk, checkpoints=parts
        )
        pool = decision_procedures.measured_runs(
            saved.arrays, config.target, config.trials
        )
        return research.types.Saved(
            {"scores": pool.scores, "costs": pool.costs}, pool.budget
        )

    saved = research.runs.remembered(checkpoints, name, compute)
    kept = {f"{name}/{key}": array for key, array in saved.arrays.items()}
    return kept | {f"{name}/budget": np.array(saved.values)}


def read_pools(config: Config, arrays: dict[str, np.ndarray]):
    """Return the measured runs by (workload, rule).

    At least one rule must reach the target on each workload.
    """
    pools = {}
    for key in itertools.product(config.workload, config.rule):
        scores, costs, budget = (
            arrays[f"{'/'.join(key)}/{name}"] for name in ("scores", "costs", "budget")
        )
        pools[key] = decision_procedures.MeasuredRuns(scores, costs, float(budget))
    for workload in config.workload:
        if not any(
            np.isfinite(decision_procedures.true_cost(pools[workload, rule]))
            for rule in config.rule
        ):
            raise ValueError(
                f"no rule reaches target={config.target} on {workload} in "
                f"{config.passes} passes. Increase passes."
            )
    return pools


def simulate(config: Config, pools: Any, kind: str, start: int):
    """Draw one piece of the studies of one kind, and decide them.

    Returns:
      Three arrays. `pair`, shape (studies, 3): indices of the workload, my rule and the
      other rule. `named`, shape (studies, procedures): 1 if my rule is named the
      winner, -1 if the other rule is, 0 if no rule is. `truth`, shape (studies, 2):
      logarithm of the other rule's true cost divided by the true cost of my rule, once
      from all trials and once from the trials of the study.
    """
    ways = decision_procedures.procedures(config.few, max(1, config.budget // 2))
    rules, workloads = range(len(config.rule)), range(len(config.workload))
    sides = (
        itertools.permutations(rules, 2)
        if kind == "rules"
        else ((rule, rule) for rule in rules)
    )
    pairs = [(workload, *both) for both in sides for workload in workloads]
    found = {"pair": [], "named": [], "truth": []}
    for study in range(start, min(start + PIECE, config.studies)):
        workload, *both = pairs[study % len(pairs)]
        pool = tuple(
            pools[config.workload[workload], config.rule[rule]] for rule in both
        )
        random = np.random.default_rng([config.seed, list(KINDS).index(kind), study])
        counts = {
            "trials": config.budget,
            "tuning_seeds": config.tuning_seeds,
            "seeds": config.reported_seeds,
        }
        drawn = decision_procedures.simulate_study(
            pool, random, **counts, **KINDS[kind]
        )
        found["pair"].append((workload, *both))
        found["named"].append(
            [
                decision_procedures.winner(
                    w, *drawn, resamples=config.resamples, seed=study
                )
                for w in ways.values()
            ]
        )
        found["truth"].append(
            [
                log_ratio(pool, chosen)
                for chosen in ((slice(None),) * 2, [d.trials for d in drawn])
            ]
        )
    return research.types.Saved(
        {name: np.array(values) for name, values in found.items()}, None
    )


def log_ratio(pools: Any, trials: Any):
    """Return log(c_other / c_mine), with the true costs of the other rule and of mine.

    Each cost is computed from the trials of its own side. The result is 0 if neither
    rule reaches the target.
    """
    mine, other = (
        decision_procedures.true_cost(pool, those)
        for pool, those in zip(pools, trials, strict=True)
    )
    return 0.0 if mine == other else float(np.log(other) - np.log(mine))


def summary(config: Config, pools: Any, arrays: dict[str, np.ndarray]):
    """Return shares of right and wrong winners by procedure, and the true costs.

    Each share has an interval: (share, low, high).
    """
    rows = []
    for column, (name, way) in enumerate(
        decision_procedures.procedures(config.few, max(1, config.budget // 2)).items()
    ):
        row: dict = {"way": name} | way._asdict()
        for kind, truth in truths(arrays).items():
            known = (
                truth != 0
            )  # If neither rule ever reaches the target, no answer is right or wrong.
            row[kind] = decision_procedures.tally(
                arrays["rules/named"][known, column], truth[known]
            )
        for kind in NULLS:
            row[kind] = decision_procedures.tally(
                named := arrays[f"{kind}/named"][:, column], 0 * named
            )["wrong"]
        rows.append(row)
    by_name = {row["way"]: row for row in rows}
    return {
        **{
            name: getattr(config, name)
            for name in (
                "studies",
                "budget",
                "trials",
                "reported_seeds",
                "tuning_seeds",
            )
        },
        "ways": rows,
        "counted": {
            kind: int(np.count_nonzero(truth)) for kind, truth in truths(arrays).items()
        },
        "pairs": math.comb(len(config.rule), 2) * len(config.workload),
        "true_costs": {
            w: {r: decision_procedures.true_cost(pools[w, r]) for r in config.rule}
            for w in config.workload
        },
        "ours_wrong": by_name["ours"][TRIALS]["wrong"][0],
        "worst_wrong": max(row[TRIALS]["wrong"][0] for row in rows),
        "ours_in_null": by_name["ours"]["same trials"][0],
        "ours_with_other_trials": by_name["ours"]["other trials"][0],
        "redrawn_with_other_trials": by_name["ours, trials redrawn"]["other trials"][0],
    }


def truths(arrays: dict[str, np.ndarray]):
    """Return the true winner of each study: 1 for my rule, -1 for the other rule.

    There is one array for each version of the truth. 0 means that the true costs are
    equal.
    """
    return dict(
        zip((RULES, TRIALS), np.sign(arrays["rules/truth"]).astype(int).T, strict=True)
    )
