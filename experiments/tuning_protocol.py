"""How often does the usual way of comparing two rules name the wrong winner?

Five rules are trained once, with many trials and many seeds, on each workload. From
these runs, thousands of possible studies are drawn. Each study has a dozen trials
(including the defaults), a few seeds for tuning, and other seeds to report. Nine
procedures decide every study. The usual ones have one fault each: one seed, tuning on
the reported seeds, or tuning only one's own rule. "Fixed trials" has disjoint seeds,
equal budgets, and an interval. The interval includes the uncertainty of the choice
among the trials that were run, but not the luck with which these trials were drawn. In
the usual procedures, a run that misses the target gets a finite number of passes as a
penalty, so that means exist.

Then each rule gets a pool of independent searches (`research.tuning.search`), and
studies with different searches and different seeds are drawn from the pools. Each study
is decided in two ways: by `descent compare`, with six searches of each rule, and by the
strongest simple rival, a t-test over twenty seeds after one search of each rule. A rule
is compared with itself, with itself after its cost was multiplied by 1.25, and with the
other rules.

    python experiments/tuning_protocol.py            # about ten minutes on two cores
    # All convex workloads, more rules, searches, seeds and studies: hours.
    python experiments/tuning_protocol.py --full

The truth is computed from all seeds. The better rule is the one whose best trial has
the lower expected running time to the target. There are two versions of the truth. In
one, the best trial is taken from the trials of the study. In the other, it is taken
from all trials ever made, which says more about the rules. A rule is also compared with
itself under another name; then every winner is wrong. The two sides have different
seeds, and either the same trials or different ones. With different trials, one side may
have more luck in its search.

Expected numbers (`EXPECTED`), as shares of studies:

- `fixed_wrong` and `worst_wrong`: wrong winners of "fixed trials" and of the worst
  procedure, if the better rule is judged by the study's trials;
- `fixed_in_null` and `fixed_with_other_trials`: winners that "fixed trials" names
  between a rule and itself, with the same trials and with different trials;
- `compare_in_null` and `rival_in_null`: winners that `compare` and the rival name
  between a rule and itself, with different searches;
- `compare_wrong`: wrong winners of `compare` between rules whose true costs differ by a
  factor of 1.1 or more;
- `compare_power`: share of studies in which `compare` finds the planted factor of 1.25,
  for the rule with the smallest share.
"""

import dataclasses
import itertools
import math
import sys
from collections.abc import Callable
from typing import Any

import research

EXPECTED = {
    "fixed_wrong": (0.0, 0.02),
    "worst_wrong": (0.35, 0.55),
    "fixed_in_null": (0.02, 0.08),
    "fixed_with_other_trials": (0.5, 0.8),
    "compare_in_null": (0.0, 0.062),
    "rival_in_null": (0.1, 0.9),
    "compare_wrong": (0.0, 0.02),
    "compare_power": (0.7, 1.0),
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
    """Target, as a share of the initial f - f*. f* is the minimum of f."""
    budget: int = 12
    """Trials of each rule in a study."""
    few: int = 3
    """Number of trials of the other rule if the budgets are unequal, and number of
    seeds in procedures with few seeds."""
    reported_seeds: int = 20
    """Number of seeds that a study reports."""
    tuning_seeds: int = 10
    """Number of seeds on which a study chooses trials, besides the reported seeds."""
    studies: int = 1000
    """Number of studies of each kind."""
    resamples: int = 500
    """Number of bootstrap resamples for an interval."""
    seed: int = 0
    """Seed of the random studies."""
    pool: int = 12
    """Number of independent searches of each rule in the pool."""
    searches: int = 6
    """Searches of each rule in a study by `compare`."""
    search_budget: int = 32
    """Trials with which a search starts."""
    search_seeds: int = 30
    """Tuning seeds of each search."""
    width: int = 8
    """Number of runs trained together. The last bits of each run depend on it."""


LARGER = (
    "breast_cancer",
    "diabetes_ridge",
    "diabetes",
    "quadratic",
    "ill_conditioned",
    "noisy_quadratic",
    "digits",
)
FULL = Config(workload=LARGER, trials=36, seeds="0..149", studies=3000, pool=40)


if __name__ == "__main__":  # Flags are read before anything heavy is imported.
    research.cli.main(sys.modules[__name__])

import numpy as np
from scipy import stats

from research.checks import check_distinct
from research.cli.progress import OnProgress
from research.comparison import (
    decision_procedures,
    logs_of,
    make_contenders,
    make_protocol,
    measure_contender,
    train_trials,
)
from research.comparison.decision_procedures import MINE, NONE, OTHER, MeasuredRuns
from research.comparison.measurements import budget_of
from research.sizes import MOST_SEEDS, MOST_TRIALS, check_most
from research.statistics import penalised_passes, searched_difference
from research.tuning.spaces import trials
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
PLANTED = 1.25  # Factor by which the cost of the other side is multiplied.
CLEAR = 1.1  # Least true ratio of two rules whose wrong winners are counted.
# Kinds of studies from the pools of searches: a rule against itself, a rule against
# itself at PLANTED times its cost, and two rules.
SEARCHED = ("itself", "planted", "different")
COMPARE, RIVAL = "compare", "rival"
FIRST_TUNING_SEED = 10_000


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
    total, arrays = 2 * len(jobs) + len(pieces), {}
    tell = lambda done, message: (
        on_progress(done, total, message) if on_progress else None
    )
    trained = [(pool_arrays, ""), (search_arrays, "searches of ")]
    for done, ((train, what), (workload, contender)) in enumerate(
        itertools.product(trained, jobs)
    ):
        tell(done, label := f"{what}{contender.name} on {workload}")
        report_progress = lambda progress, done=done, label=label: tell(
            done + progress.share, f"{progress}: {label}"
        )
        arrays |= train(config, workload, contender, report_progress, checkpoints)
    pools = read_pools(config, arrays)
    arrays |= search_studies(config, arrays)
    for done, (kind, start) in enumerate(pieces, 2 * len(jobs)):
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
    seeds = research.runs.parse_seeds(config.seeds)
    check_counts(config)
    check_sides(config, len(seeds))
    tuning = tuning_seeds_of(config)
    if both := [seed for seed in seeds if seed in tuning]:
        raise ValueError(
            f"seeds must not contain {tuning[0]} to {tuning[-1]}, on which the "
            f"searches choose; got seeds={config.seeds!r}, with {both[0]}."
        )
    if not config.workload or len(config.rule) < 2:
        raise ValueError(
            "a comparison needs at least one workload and two rules; got "
            f"{config.workload} and {config.rule}."
        )
    check_distinct("workload", config.workload)
    for name in config.workload:
        research.workloads.make_workload(name)
    found = make_contenders(config.rule)
    pairs = len(config.rule) * len(config.workload)
    if not pairs <= config.studies <= MOST_SEEDS:
        raise ValueError(
            f"studies must be {pairs:,} to {MOST_SEEDS:,}, at least one for each rule "
            f"on each workload; got studies={config.studies}."
        )
    check_most(
        MOST_TRIALS, resamples=config.resamples, trials=config.trials, pool=config.pool
    )
    trial_terms(config)
    search_terms(config)
    if empty := [contender.name for contender in found if not contender.space]:
        raise ValueError(f"rule: {empty[0]} has nothing to tune. Leave it out.")
    return found


def check_counts(config: Config):
    """Raise ValueError if a number of the config is too small, or `few` too large."""
    counts = {
        "few": 1,
        "reported_seeds": 2,
        "tuning_seeds": 2,
        "budget": 2,
        "searches": 2,
        "resamples": 100,
        "search_budget": 1,
        "search_seeds": 2,
        "seed": 0,
    }
    for name, least in counts.items():
        if getattr(config, name) < least:
            raise ValueError(
                f"{name} must be at least {least}; got {name}={getattr(config, name)}."
            )
    most = min(config.budget, config.reported_seeds)
    if config.few > most:
        raise ValueError(
            f"few must be at most {most}, the smaller one of budget and "
            f"reported_seeds; got few={config.few}."
        )


def check_sides(config: Config, num_seeds: int):
    """Raise ValueError if there are too few seeds, trials or searches for two sides."""
    needed = 2 * (config.reported_seeds + config.tuning_seeds)
    if num_seeds < needed:
        raise ValueError(
            f"seeds: the two sides of a study need {needed} seeds; got {num_seeds}, "
            f"{config.seeds!r}."
        )
    if config.trials < 2 * config.budget - 1:
        least = 2 * config.budget - 1
        raise ValueError(
            f"trials must be at least {least}, enough for two disjoint searches; got "
            f"trials={config.trials}."
        )
    if config.pool < 2 * config.searches:
        raise ValueError(
            f"pool must be at least {2 * config.searches}, for two disjoint sets of "
            f"{config.searches} searches; got pool={config.pool}."
        )


def trial_terms(config: Config):
    """Return the protocol with which every trial runs on every seed."""
    return make_protocol(
        searches=2,
        passes=config.passes,
        batch_size=config.batch_size,
        seeds=research.runs.parse_seeds(config.seeds),
        tuning_seeds=range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + 4),  # Not used.
        target=config.target,
        width=config.width,
    )


def search_terms(config: Config):
    """Return the protocol of the searches."""
    return make_protocol(
        searches=config.pool,
        budget=config.search_budget,
        passes=config.passes,
        batch_size=config.batch_size,
        seeds=research.runs.parse_seeds(config.seeds),
        tuning_seeds=tuning_seeds_of(config),
        target=config.target,
        width=config.width,
        search_seed=config.seed,
    )


def tuning_seeds_of(config: Config) -> range:
    """Return the tuning seeds of all searches of a rule on a workload."""
    count = config.search_seeds * config.pool
    return range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + count)


def pool_arrays(
    config: Config,
    workload: str,
    contender: Any,
    on_chunk: Callable,
    checkpoints: Checkpoints,
):
    """Run every trial of a rule on every seed.

    Returns:
      Scores and costs, each of shape (trials, seeds), and the budget. A missed target
      costs every rule the same: the budget is the length of a full training. The
      trainings of this rule are shorter if `config.passes` is not a multiple of the
      cost of one of its steps.
    """
    terms = trial_terms(config)
    name = f"{workload}/{contender.name}"

    def compute(parts: Checkpoints):
        outcomes, passes = train_trials(
            research.workloads.make_workload(workload),
            contender,
            terms,
            trials(contender.space, config.trials),
            config.trials,
            on_chunk=on_chunk,
            checkpoints=parts,
        )
        budget = budget_of({"passes": passes}, contender.evaluations, terms)
        scores = penalised_passes(passes, outcomes.curves, config.target, budget)
        return research.types.Saved({"scores": scores, "costs": outcomes.costs}, budget)

    saved = research.runs.remembered(checkpoints, name, compute)
    kept = {f"{name}/{key}": array for key, array in saved.arrays.items()}
    return kept | {f"{name}/budget": np.array(saved.values)}


def search_arrays(
    config: Config,
    workload: str,
    contender: Any,
    on_chunk: Callable,
    checkpoints: Checkpoints,
):
    """Search the hyper-parameters of a rule several times, independently.

    Returns:
      Log cost of the point that each search chose, on all seeds, shape (pool, seeds).
    """
    terms = search_terms(config)
    name = f"searches/{workload}/{contender.name}"

    def compute(parts: Checkpoints):
        on = research.workloads.make_workload(workload)
        options = {"timed": False, "on_chunk": on_chunk, "checkpoints": parts}
        saved = measure_contender(on, contender, terms, **options)
        budget = budget_of(saved.arrays, contender.evaluations, terms)
        return research.types.Saved({"logs": logs_of(saved.arrays, budget)}, None)

    saved = research.runs.remembered(checkpoints, name, compute)
    return {f"{name}/logs": saved.arrays["logs"]}


def search_studies(config: Config, arrays: dict[str, np.ndarray]):
    """Draw studies from the pools of searches, and decide them in two ways.

    Both sides of a study have different searches and the same reporting seeds.

    Returns:
      For each kind of study the arrays `pair` (studies, 3): indices of workload, my
      rule and the other rule; `named` (studies, 2): winner by `compare` and by the
      rival; `truth` (studies,): log of the other rule's true cost divided by mine;
      `detectable` (studies,): smallest factor that the study could detect.
    """
    studies = {}
    for number, kind in enumerate(SEARCHED):
        pairs = pairs_of(config, itself=kind != "different")
        found = {"pair": [], "named": [], "truth": [], "detectable": []}
        for study in range(config.studies):
            workload, mine, other = pairs[study % len(pairs)]
            generator = np.random.default_rng([config.seed, 100 + number, study])
            logs = [
                arrays[f"searches/{config.workload[workload]}/{config.rule[rule]}/logs"]
                for rule in (mine, other)
            ]
            factor = np.log(PLANTED) if kind == "planted" else 0.0
            sides = draw_searches(config, logs, generator)
            sides = (sides[0], sides[1] + factor)
            outcome = searched_difference([sides])
            named = {"better": MINE, "worse": OTHER}.get(outcome.verdict, NONE)
            found["pair"].append((workload, mine, other))
            found["named"].append((named, t_test(sides[0][0], sides[1][0])))
            found["truth"].append(logs[1].mean() - logs[0].mean() + factor)
            found["detectable"].append(outcome.detectable)
        studies |= {f"searched/{kind}/{n}": np.array(v) for n, v in found.items()}
    return studies


def pairs_of(config: Config, itself: bool) -> list[tuple[int, int, int]]:
    """Return all triples of a workload, my rule and the other rule, as indices.

    If `itself` is True, the two rules of a triple are the same, and otherwise they
    differ.
    """
    rules = range(len(config.rule))
    sides = [(r, r) for r in rules] if itself else itertools.permutations(rules, 2)
    return [(w, *both) for both in sides for w in range(len(config.workload))]


def draw_searches(config: Config, logs: Any, generator: np.random.Generator):
    """Draw the searches of both sides, and the reporting seeds that they share."""
    order = [generator.permutation(config.pool) for _ in logs]
    if logs[0] is logs[1]:  # A rule against itself: the sides share no search.
        order[1] = np.roll(order[0], config.searches)
    seeds = generator.permutation(logs[0].shape[1])[: config.reported_seeds]
    return tuple(
        own[np.ix_(places[: config.searches], seeds)]
        for own, places in zip(logs, order, strict=True)
    )


def t_test(mine: np.ndarray, other: np.ndarray):
    """Return the winner by a paired t-test of log costs at the level 0.05."""
    gains = other - mine
    if np.ptp(gains) < 1e-12:
        return int(np.sign(np.round(gains[0], 12)))
    low, high = stats.ttest_1samp(gains, 0.0).confidence_interval(0.95)
    return MINE if low > 0 else OTHER if high < 0 else NONE


def read_pools(config: Config, arrays: dict[str, np.ndarray]):
    """Return the measured runs by (workload, rule).

    At least one rule must reach the target on each workload.
    """
    pools = {}
    for key in itertools.product(config.workload, config.rule):
        scores, costs, budget = (
            arrays[f"{'/'.join(key)}/{name}"] for name in ("scores", "costs", "budget")
        )
        pools[key] = MeasuredRuns(scores, costs, float(budget))
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
    pairs = pairs_of(config, itself=kind != "rules")
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
            known = truth != 0  # Of rules with equal costs, neither is the winner.
            if not known.any():
                raise ValueError(
                    f"no study has a winner, judged by the costs {kind}: the two rules "
                    "always have equal true costs. Choose other rules or workloads."
                )
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
        "fixed_wrong": by_name["fixed trials"][TRIALS]["wrong"][0],
        "worst_wrong": max(row[TRIALS]["wrong"][0] for row in rows),
        "fixed_in_null": by_name["fixed trials"]["same trials"][0],
        "fixed_with_other_trials": by_name["fixed trials"]["other trials"][0],
        **searched_summary(config, arrays),
    }


def searched_summary(config: Config, arrays: dict[str, np.ndarray]):
    """Return how often `compare` and the rival are right, by workload and by rule."""
    found = {
        kind: {
            name: arrays[f"searched/{kind}/{name}"]
            for name in ("pair", "named", "truth", "detectable")
        }
        for kind in SEARCHED
    }
    rows, power = [], {}
    for column, way in enumerate((COMPARE, RIVAL)):
        for index, workload in enumerate((*config.workload, "all")):
            on = {
                kind: (one["pair"][:, 0] == index) | (workload == "all")
                for kind, one in found.items()
            }
            rows.append(
                {"way": way, "workload": workload} | searched_row(found, column, on)
            )
        by_rule = found["planted"]["pair"][:, 1]
        named = found["planted"]["named"][:, column]
        power[way] = {
            rule: float((named[by_rule == index] == MINE).mean())
            for index, rule in enumerate(config.rule)
        }
    overall = {row["way"]: row for row in rows if row["workload"] == "all"}
    compare = overall[COMPARE]
    return {
        "searched": rows,
        "power_by_rule": power,
        "searches": config.searches,
        "pool": config.pool,
        "spread_of_searches": {
            w: {
                r: float(np.std(arrays[f"searches/{w}/{r}/logs"].mean(axis=1), ddof=1))
                for r in config.rule
            }
            for w in config.workload
        },
        "compare_in_null": compare["false"][0],
        "rival_in_null": overall[RIVAL]["false"][0],
        "compare_wrong": (compare["wrong"] or [math.nan])[0],
        "compare_power": min(power[COMPARE].values()),
    }


def searched_row(
    found: dict[str, dict[str, np.ndarray]], column: int, on: dict[str, np.ndarray]
):
    """Return how often one way of deciding is right or wrong in some of the studies.

    Args:
      found: Arrays of `search_studies` by kind of study.
      column: Column of the way in `named`.
      on: Which studies are counted, as booleans of shape (studies,), by kind.
    """
    share = decision_procedures.share
    named = {kind: one["named"][:, column] for kind, one in found.items()}
    gaps = found["different"]["truth"]
    here = on["different"] & (np.abs(gaps) >= np.log(CLEAR))
    truth = np.sign(gaps[here])
    counts = {
        "false": (named["itself"][on["itself"]] != NONE),
        "planted": (named["planted"][on["planted"]] == MINE),
        "wrong": (named["different"][here] == -truth),
        "undecided": (named["different"][here] == NONE),
    }
    shares = {
        name: share(int(is_so.sum()), len(is_so)) if len(is_so) else None
        for name, is_so in counts.items()
    }
    detectable = found["planted"]["detectable"][on["planted"]]
    return shares | {"detectable": float(np.median(detectable))}


def truths(arrays: dict[str, np.ndarray]):
    """Return the true winner of each study: 1 for my rule, -1 for the other rule.

    There is one array for each version of the truth. 0 means that the true costs are
    equal.
    """
    return dict(
        zip((RULES, TRIALS), np.sign(arrays["rules/truth"]).astype(int).T, strict=True)
    )
