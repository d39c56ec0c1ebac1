"""Which update rule should I use first to train a network?

Fifteen rules that people use train four small networks: an MLP, a CNN, a GRU and a deep
autoencoder; with --full also a character GPT. Every rule gets the same number of
independent searches for its peak rate, each with its own points and tuning seeds. Every
training has the same length, a warm-up of 10 %, and a rate that falls linearly to zero.
The score is the validation loss at the end, reported on other seeds. The test accuracy
is reported and never used.

    # Rates only.
    python experiments/which_rule_networks.py
    python experiments/which_rule.py --networks
    # Five networks. Warm-up and kind of decay are searched too, with more trials.
    python experiments/which_rule_networks.py --full
    # As two processes, which compile less than one process with two devices.
    python -m experiments spread which_rule_networks --jobs 2 --devices 1

Each pair of a rule and a network is saved as it finishes. If the run is stopped, the
same command continues, and the result has the same bits. Set OMP_NUM_THREADS=1 in the
environment: the eigenvalues of Shampoo otherwise take up to twenty times as long,
because LAPACK starts threads of its own.

"muon" is Muon for the matrices and Adam for the other leaves. The rates of both are
searched. "shampoo" has Adam's step lengths and refreshes its roots every ten steps. The
rate of "schedule_free_adamw" does not decay, because the rule averages instead.
"prodigy" estimates its own rate; the factor of the estimate is searched.

Expected numbers (`EXPECTED`): over all networks, the validation loss of the first rule
and of SGD with momentum (heavy_ball), divided by that of AdamW.
"""

import dataclasses
import itertools
import sys
from collections.abc import Sequence
from typing import Any

import research

EXPECTED = {"first_over_adamw": (0.5, 1.0), "heavy_ball_over_adamw": (0.8, 2.0)}
USUAL = "adamw"


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the experiment."""

    rule: tuple[str, ...] = (
        "heavy_ball",
        "nesterov",
        "rmsprop",
        "adam",
        "nadamw",
        "lion",
        "adafactor",
        "muon",
        "soap",
        "shampoo",
        "ademamix",
        "schedule_free_adamw",
        "prodigy",
        "lamb",
        "adamw",
    )
    """Rules: names of this package, optax.NAME, or FILE.py:NAME. AdamW is always
    included."""
    network: tuple[str, ...] = (
        "mlp_digits",
        "cnn_digits",
        "gru_digits",
        "autoencoder_digits",
    )
    """Named networks on which all rules run."""
    searches: int = 6
    """Number of independent searches of each rule on each network."""
    budget: int = 8
    """Number of trials with which a search starts."""
    search_schedule: bool = False
    """Whether warm-up and kind of decay are searched too."""
    seeds: str = "0..9"
    """Reported seeds, written as 0..9 or as 1,4,7."""
    tuning_seeds: str = "1000..1011"
    """Seeds for the choice of trials, divided among the searches. They must differ from
    the reported seeds."""
    size: str = "small"
    """Size of the networks: small or large."""
    search_seed: int = 0
    """Seed of the points that the searches try."""
    timed: bool = False
    """Whether to measure seconds. This compiles every training once more."""
    devices: int = 2
    """Number of devices, such as cores, that train in parallel. Any number
    gives the same results, to the last bit."""


FULL = Config(
    network=(*Config().network, "gpt_characters"),
    searches=4,
    budget=16,
    search_schedule=True,
    timed=True,
)


if __name__ == "__main__":  # Flags are read before anything heavy is imported.
    research.cli.main(sys.modules[__name__])

import numpy as np

from research.cli import rule_lookup
from research.cli.progress import OnProgress
from research.comparison import command
from research.comparison.networks import LOSS_RESOLUTION
from research.statistics import searched_difference
from research.types import Checkpoints


def run(
    config: Config,
    on_progress: OnProgress | None = None,
    checkpoints: Checkpoints | None = None,
) -> research.runs.Findings:
    """Compare the rules with AdamW on every network, and rank them."""
    study = research.comparison.compare_networks(
        rules_of(config),
        config.network,
        on_progress=on_progress,
        checkpoints=checkpoints or research.types.no_checkpoints,
        **terms(config),
    )
    numbers = study.numbers
    first = leader(study, numbers["networks"])
    rows = by_rule(numbers, logs_of(study), first)
    ratios = {row["rule"]: row["loss_ratio"] for row in rows}
    found = {
        "first": first,
        "first_on": {
            network: leader(study, [network]) for network in numbers["networks"]
        },
        "first_over_adamw": ratios[first],
        "by_rule": rows,
    }
    if "heavy_ball" in ratios:
        found["heavy_ball_over_adamw"] = ratios["heavy_ball"]
    return research.runs.Findings(study.arrays, numbers | found)


def share(config: Config, part: int, parts: int, checkpoints: Checkpoints):
    """Compute one of `parts` parts of the pairs of network and rule.

    The part has every `parts`-th pair, starting with pair `part`. The results are saved
    in the checkpoints, and `run` loads them from there.
    """
    research.comparison.compute_network_share(
        rules_of(config),
        config.network,
        part,
        parts,
        checkpoints=checkpoints,
        **terms(config),
    )


def rules_of(config: Config):
    """Return the rules by name. AdamW is added as the last one if it is missing."""
    named = command.name_rules([*config.rule, *({USUAL} - {*config.rule})])
    return {name: rule_lookup.find(word).rule for name, word in named.items()}


def terms(config: Config):
    """Return the other arguments of the comparison."""
    return {
        "baseline": USUAL,
        "searches": config.searches,
        "budget": config.budget,
        "search_schedule": config.search_schedule,
        "seeds": research.runs.parse_seeds(config.seeds),
        "tuning_seeds": research.runs.parse_seeds(config.tuning_seeds),
        "search_seed": config.search_seed,
        "size": config.size,
        "timed": config.timed,
    }


def logs_of(study: research.comparison.NetworkStudy):
    """Return {network: {rule: log losses of shape (searches, seeds)}}."""
    return {
        network: {
            rule: study.arrays[f"{network}/{rule}/logs"]
            for rule in study.numbers["rules"]
        }
        for network in study.numbers["networks"]
    }


def leader(study: research.comparison.NetworkStudy, networks: Sequence[str]):
    """Return the rule with the lowest mean log loss on the tuning seeds.

    The reporting seeds do not enter, so the reported loss of this rule is not biased by
    the choice.
    """
    scores = {
        rule: np.mean([study.arrays[f"{one}/{rule}/tuning"].mean() for one in networks])
        for rule in study.numbers["rules"]
    }
    return min(scores, key=lambda rule: scores[rule])


def compared(
    logs: Sequence[dict[str, np.ndarray]], mine: str, other: str, level: float
):
    """Compare two rules over networks, at a level that is corrected for all rules."""
    return searched_difference(
        [(on[mine], on[other]) for on in logs],
        level=level,
        comparisons=max(1, len(logs[0]) - 1),
        resolution=LOSS_RESOLUTION,
    )


def ranks(logs: Sequence[dict[str, np.ndarray]], level: float):
    """Rank the rules by their mean log loss over networks, with intervals.

    A rule is compared with every other rule, at a level that is corrected for the
    number of these comparisons. The interval of its rank begins after the rules that
    are better, and ends before the rules that are worse. So with at least the
    probability `level`, the interval contains the rank among the true means.

    Args:
      logs: For each network, the log losses of every rule.
      level: Level of the interval of each rank.
    Returns:
      {rule: (rank, low, high)}; 1 is the lowest loss.
    References:
      Klein, Wright & Wieczorek, A joint confidence region for an overall ranking of
      populations, Journal of the Royal Statistical Society C 69, 2020.
    """
    rules = list(logs[0])
    means = {rule: np.mean([on[rule].mean() for on in logs]) for rule in rules}
    order = sorted(rules, key=lambda rule: means[rule])
    better = dict.fromkeys(rules, 0)
    worse = dict.fromkeys(rules, 0)
    for mine, other in itertools.permutations(rules, 2):
        verdict = compared(logs, mine, other, level).verdict
        better[mine] += verdict == "worse"
        worse[mine] += verdict == "better"
    return {
        rule: (place, 1 + better[rule], len(rules) - worse[rule])
        for place, rule in enumerate(order, 1)
    }


def by_rule(
    numbers: dict[str, Any], logs: dict[str, dict[str, np.ndarray]], first: str
):
    """Return the facts of each rule over all networks, the lowest loss first."""
    networks, level = numbers["networks"], numbers["protocol"]["level"]
    overall = ranks([*logs.values()], level)
    each = {network: ranks([on], level) for network, on in logs.items()}
    cells = {(cell["network"], cell["rule"]): cell for cell in numbers["cells"]}
    by_name = {one["rule"]: one for one in numbers["overall"]}
    itself = {"verdict": "baseline", "loss_ratio": 1.0, "steps": 1.0}
    itself |= dict.fromkeys(("loss_low", "loss_high", "steps_low", "steps_high"))
    rows = []
    for rule, (rank, low, high) in sorted(overall.items(), key=lambda pair: pair[1]):
        own = [cells[network, rule] for network in networks]
        beside = by_name.get(rule, itself)
        rate = own[0]["rate_name"]
        to_first = compared([*logs.values()], rule, first, level).verdict
        rows.append(
            {
                "rule": rule,
                "rank": rank,
                "rank_low": low,
                "rank_high": high,
                "ranks": [each[network][rule][0] for network in networks],
                **{name: beside[name] for name in itself},
                "at_end": beside.get("at_end"),
                "beside_first": "first" if rule == first else to_first,
                "rate_name": rate,
                "rates": [cell["chosen"].get(rate) for cell in own],
                "decades": median([decades(cell) for cell in own]),
                "diverged": float(np.mean([cell["diverged"] for cell in own])),
                "disagree_on": sum(cell["searches_disagree"] for cell in own),
                "times_seconds": median(
                    [relative_seconds(cells, network, rule) for network in networks]
                ),
            }
        )
    return rows


def decades(cell: dict[str, Any]):
    """Return the width in decades of the range of good rates; None if unknown.

    The losses of these rates are within 10 % of the lowest loss.
    """
    if cell["robust_low"] is None:
        return None
    return float(np.log10(cell["robust_high"] / cell["robust_low"]))


def relative_seconds(cells: dict[tuple[str, str], Any], network: str, rule: str):
    """Return the seconds of a step of a rule, divided by those of AdamW."""
    own, usual = (cells[network, one]["seconds_per_step"] for one in (rule, USUAL))
    return None if own is None or usual is None else own / usual


def median(values: Sequence[float | None]):
    """Return the median of the values that are known, or None."""
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None
