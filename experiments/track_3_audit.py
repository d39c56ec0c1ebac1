"""Do the records of a public optimizer benchmark differ by more than chance, and does a
small GPT rank update rules as the benchmark does?

In track 3 of modded-nanogpt, update rules train one fixed network to a validation loss
of 3.28. The rule with the fewest steps is the best. The benchmark assumes that the loss
of a run has a standard deviation of 0.0013, and compares two records with a one-sided
z-test. Here the standard deviation is estimated from the public logs, and every record
is compared with the record before it.

    # From the table of facts that is stored here; some seconds.
    python experiments/track_3_audit.py
    # Read the 420 logs, and check the table with them. Missing logs are downloaded.
    python experiments/track_3_audit.py --logs
    # Train our small GPT again; some minutes.
    python experiments/track_3_audit.py --gpt

Two records have different numbers of steps. As in the benchmark, their losses are
converted to the same number of steps. The conversion uses the fall of the loss per
step. This slope is measured between result 12 of the benchmark and the same training
with 200 fewer steps. The test here uses the estimated standard deviation and includes
the error of this slope.

The second question is whether a network that trains in seconds ranks rules as the
benchmark does. Only a few rules were run on both. The rank correlation is therefore
uncertain, and its interval says how much.

Expected numbers (`EXPECTED`): `sigma`, the estimated standard deviation;
`distinguishable`, how many of 19 records the benchmark's own formula distinguishes from
the record before; `distinguishable_here`, the same with the test here; `kendall`, the
rank correlation, and `shared_rules`, how many rules it has.
"""

import dataclasses
import sys

import research

EXPECTED = {
    "sigma": (0.0010, 0.0012),
    "distinguishable": 11,
    "distinguishable_here": 13,
    "kendall": (0.3, 0.4),
    "shared_rules": 4,
}
ASSUMED = 0.0013  # Standard deviation that the benchmark assumes.
TARGET = 3.28
LEVEL = 0.05
# Rule of this package -> number of its benchmark result with the fewest steps, a note.
# Shampoo and SOAP are left out: their steps on our GPT take minutes to compile.
SHARED = {
    "adam": (2, "most likely undertuned, as its author says"),
    "muon": (36, ""),
    "normuon": (10, ""),
    "hyperball": (4, "AdamH"),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the experiment."""

    logs: bool = False
    """Whether to read the public logs and check the stored table of facts with them.
    Missing logs are downloaded."""
    gpt: bool = False
    """Whether to train our small GPT again, instead of using the stored losses."""


FULL = Config(logs=True, gpt=True)


if __name__ == "__main__":  # Flags are read before anything heavy is imported.
    research.cli.main(sys.modules[__name__])

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.optimize
import scipy.stats

from experiments import _track_3, _track_3_gpt
from research.cli.progress import OnProgress
from research.types import Checkpoints


def run(
    config: Config,
    on_progress: OnProgress | None = None,
    checkpoints: Checkpoints | None = None,
) -> research.runs.Findings:
    """Audit the benchmark's table."""
    del checkpoints
    facts = _track_3.read_facts()
    if config.logs:
        check_facts(facts, _track_3.facts_of(research.datasets.benchmark_logs()))
    results = facts["results"]
    spread = pooled([one["losses"] for one in results])
    slope = slope_of(facts, spread["sigma"])
    records = [one for one in results if one["is_record"]]
    rows = [
        compared(one, before, slope, spread)
        for before, one in itertools.pairwise(records)
    ]
    adjusted = holm([row["p_here"] for row in rows])
    for row, p in zip(rows, adjusted, strict=True):
        row["p_adjusted"] = p
    count = lambda name: sum(row[name] < LEVEL for row in rows)
    losses = facts["gpt_characters"]["loss"]
    if config.gpt:
        losses = _track_3_gpt.train(SHARED, on_progress)
    ranks = ranked(results, losses, slope["slope"])
    numbers = {
        **spread,
        **slope,
        **ranks,
        "logs": facts["logs"],
        "runs": facts["runs"],
        "claims_that_differ": claims_that_differ(results),
        "comparisons": len(rows),
        "distinguishable": count("p"),
        "distinguishable_here": count("p_here"),
        "distinguishable_adjusted": count("p_adjusted"),
        "detectable_steps": detectable_steps(spread["sigma"], slope["slope"]),
        "rows": rows,
        "intervals": {"sigma": [spread["sigma_low"], spread["sigma_high"]]}
        | {"kendall": [ranks["kendall_low"], ranks["kendall_high"]]},
    }
    arrays = {f"losses/{one['number']}": np.array(one["losses"]) for one in results}
    return research.runs.Findings(arrays, numbers)


def check_facts(stored: Mapping[str, Any], read: Mapping[str, Any]):
    """Raise an error unless the logs give the stored table of facts."""
    for name, value in read.items():
        if stored.get(name) != value:
            raise ValueError(
                f"experiments/{_track_3.FACTS.name} has other {name} than the logs. "
                "Make the table again with experiments._track_3.facts_of."
            )


def pooled(groups: Sequence[Sequence[float]]) -> dict[str, float]:
    """Estimate the common standard deviation of several groups of losses.

    Returns:
      The estimate with its degrees of freedom and 95 % interval, and the p-value of
      Levene's test that all groups with at least four runs have the same standard
      deviation.
    """
    several = [np.asarray(one) for one in groups if len(one) > 1]
    freedom = sum(len(one) - 1 for one in several)
    squares = sum(float(((one - one.mean()) ** 2).sum()) for one in several)
    low, high = scipy.stats.chi2.ppf([0.975, 0.025], freedom)
    equal = scipy.stats.levene(*[one for one in several if len(one) > 3])
    return {
        "sigma": math.sqrt(squares / freedom),
        "sigma_low": math.sqrt(squares / low),
        "sigma_high": math.sqrt(squares / high),
        "freedom": freedom,
        "p_equal_sigmas": float(equal.pvalue),
    }


def slope_of(facts: Mapping[str, Any], sigma: float) -> dict[str, float]:
    """Estimate the fall of the loss per step, and the standard error of this slope."""
    shorter = facts["shorter"]
    result = by_number(facts["results"])[shorter["result"]]
    gap = np.mean(shorter["losses"]) - np.mean(result["losses"])
    error = sigma * math.sqrt(1 / len(shorter["losses"]) + 1 / len(result["losses"]))
    return {
        "slope": float(gap) / shorter["by"],
        "slope_error": error / shorter["by"],
    }


def by_number(results: Sequence[Mapping[str, Any]]) -> dict[int, Mapping[str, Any]]:
    """Return the results by their numbers."""
    return {one["number"]: one for one in results}


def compared(
    one: Mapping[str, Any],
    before: Mapping[str, Any],
    slope: Mapping[str, float],
    spread: Mapping[str, float],
) -> dict[str, Any]:
    """Test, one-sided and in two ways, whether a record is better than the one before.

    The benchmark's z-test uses the published means, its assumed standard deviation, and
    a fall of 0.0045 in 100 steps. Our t-test uses the losses in the logs, the estimated
    standard deviation and the estimated slope, and includes the error of the slope. If
    logs of runs are missing, it uses the published mean.
    """
    steps = before["steps"] - one["steps"]
    share = math.sqrt(1 / one["runs"] + 1 / before["runs"])
    z = (before["mean"] - one["mean"] + steps * 0.0045 / 100) / (ASSUMED * share)
    gain = mean_of(before) - mean_of(one) + steps * slope["slope"]
    error = math.hypot(spread["sigma"] * share, steps * slope["slope_error"])
    t = gain / error
    return {
        "number": one["number"],
        "before": before["number"],
        "rule": one["rule"],
        "steps": one["steps"],
        "runs": one["runs"],
        "saved": steps,
        "z": z,
        "p": float(scipy.stats.norm.sf(z)),
        "gain_in_steps": gain / slope["slope"],
        "error_in_steps": error / slope["slope"],
        "p_here": float(scipy.stats.t.sf(t, spread["freedom"])),
    }


def mean_of(one: Mapping[str, Any]) -> float:
    """Return the mean loss in the logs; the published one if logs are missing."""
    if len(one["losses"]) == one["runs"]:
        return float(np.mean(one["losses"]))
    return one["mean"]


def holm(p: Sequence[float]) -> list[float]:
    """Adjust p-values for the number of tests, by Holm's method."""
    order = np.argsort(p)
    factors = len(p) - np.arange(len(p))
    raised = np.maximum.accumulate(np.minimum(1.0, factors * np.asarray(p)[order]))
    adjusted = np.empty(len(p))
    adjusted[order] = raised
    return adjusted.tolist()


def claims_that_differ(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Describe the results whose logs differ from the published mean or runs."""
    found = []
    for one in results:
        if len(one["losses"]) != one["runs"]:
            words = f"{len(one['losses'])} of {one['runs']} runs in the logs"
        elif abs(np.mean(one["losses"]) - one["mean"]) > 1e-4:
            words = (
                f"mean {np.mean(one['losses']):.5f} in the logs, {one['mean']} there"
            )
        else:
            continue
        found.append(f"#{one['number']}: {words}")
    return found


def detectable_steps(sigma: float, slope: float, runs: int = 10) -> float:
    """Return the gain in steps that ten runs of each rule detect in 80 % of cases."""
    ends = scipy.stats.norm.ppf([1 - LEVEL, 0.8]).sum()
    return float(ends * sigma * math.sqrt(2 / runs) / slope)


def ranked(
    results: Sequence[Mapping[str, Any]],
    losses: Mapping[str, Sequence[float]],
    slope: float,
) -> dict[str, Any]:
    """Compare the order of the shared rules in the benchmark and on our small GPT.

    Args:
      results: Results of the benchmark.
      losses: {rule: (loss, low, high)} of our GPT.
      slope: Fall of the benchmark's loss per step.
    """
    numbered = by_number(results)
    shared = [rule for rule in SHARED if rule in losses]
    theirs = []
    for rule in shared:
        one = numbered[SHARED[rule][0]]
        theirs.append(one["steps"] - (TARGET - mean_of(one)) / slope)
    ours = [losses[rule][0] for rule in shared]
    tau, p = map(float, scipy.stats.kendalltau(theirs, ours, method="exact"))
    low, high = kendall_interval(tau, len(shared))
    return {
        "kendall": tau,
        "kendall_low": low,
        "kendall_high": high,
        "kendall_p": p,
        "shared_rules": len(shared),
        "shared": [
            {"rule": rule, "result": SHARED[rule][0], "steps_to_target": steps}
            | {"loss": loss, "low": losses[rule][1], "high": losses[rule][2]}
            | {"note": SHARED[rule][1]}
            for rule, steps, loss in zip(shared, theirs, ours, strict=True)
        ],
    }


def kendall_interval(tau: float, count: int, level: float = 0.95):
    """Return an exact interval for a rank correlation of Kendall, without ties.

    The orders of `count` rules differ in d pairs, and tau = 1 - 2 d / pairs. The model
    of Mallows gives an order the weight exp(-θ d). For θ = 0 this is the permutation
    distribution. The interval has the expected tau of every θ that a two-sided test at
    this level does not reject. It is also right if all pairs agree. Approximate
    intervals have no width there.

    References:
      Mallows, Non-null ranking models, Biometrika 44 (1957).
    Example:
      >>> print(*[f"{end:.2f}" for end in kendall_interval(1.0, 4)])
      -0.11 1.00
    """
    orders = np.array([1.0])  # Number of orders with d discordant pairs.
    for size in range(2, count + 1):
        orders = np.convolve(orders, np.ones(size))
    distance, pairs = np.arange(len(orders)), len(orders) - 1
    seen = round((1 - tau) / 2 * pairs)

    def chances(theta: float):
        logs = np.log(orders) - theta * distance
        weights = np.exp(logs - logs.max())
        return weights / weights.sum()

    def end(of: slice, limit: float):
        root = lambda theta: float(chances(theta)[of].sum()) - (1 - level) / 2
        if root(-limit) * root(limit) > 0:  # The data are at the end of the range.
            return limit
        return scipy.optimize.brentq(root, -abs(limit), abs(limit))

    most = 60.0
    expected = lambda theta: 1 - 2 * float(chances(theta) @ distance) / pairs
    at_least, at_most = slice(0, seen + 1), slice(seen, None)
    return expected(end(at_least, -most)), expected(end(at_most, most))
