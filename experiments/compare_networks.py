"""Which rule trains these networks to the lower validation loss, and how many steps
does it save?

Every rule gets the same number of independent searches for its peak rate, its warm-up
and its kind of decay. Every training has the same length, at whose end the learning
rate is zero. The score is the validation loss at the end; the test accuracy is reported
and never used. The baseline is also trained at 0.5 to 2 times the steps, so the answer
also says how many of its steps a rule needs for the same loss.

    # Muon, Lion and NAdamW beside AdamW on an MLP and a CNN.
    python experiments/compare_networks.py
    python experiments/compare_networks.py --rule muon adamw --network gpt_characters
    # More rules, and all networks that need no download.
    python experiments/compare_networks.py --full

Networks are those of research/workloads/networks.py: mlp_digits, cnn_digits,
gru_digits, gru_vowels (downloaded), gpt_characters, autoencoder_digits. "muon" is Muon
for the matrices and Adam for the other leaves, with two searched rates.

Expected number (`EXPECTED`): the validation loss of Muon divided by that of AdamW over
all networks of the default run.
"""

import dataclasses
import sys

import research

EXPECTED = {"muon_over_adamw": (0.5, 1.3)}


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the experiment."""

    rule: tuple[str, ...] = ("muon", "lion", "nadamw", "adamw")
    """Rules: names of this package, optax.NAME, or FILE.py:NAME."""
    network: tuple[str, ...] = ("mlp_digits", "cnn_digits")
    """Named networks on which all rules run."""
    baseline: str = ""
    """Rule with which the others are compared. Empty means the last rule."""
    searches: int = 3
    """Number of independent searches of each rule on each network."""
    budget: int = 16
    """Number of trials with which a search starts."""
    seeds: str = "0..4"
    """Reported seeds, written as 0..4 or as 1,4,7."""
    tuning_seeds: str = "1000..1017"
    """Seeds for the choice, divided among the searches. They must differ from the
    reported seeds."""
    size: str = "small"
    """Size of the networks: small or large."""
    search_seed: int = 0
    """Seed of the points that the searches try."""
    devices: int = 2
    """Number of devices, such as cores, that train in parallel. The bits do not depend
    on it."""


FULL = Config(
    rule=("muon", "lion", "nadamw", "ademamix", "adam", "heavy_ball", "adamw"),
    network=(
        "mlp_digits",
        "cnn_digits",
        "gru_digits",
        "gpt_characters",
        "autoencoder_digits",
    ),
)


if __name__ == "__main__":  # Flags are read before anything heavy is imported.
    research.cli.main(sys.modules[__name__])

from research.cli import rule_lookup
from research.cli.progress import OnProgress
from research.comparison import command
from research.comparison.networks import compare_networks
from research.types import Checkpoints


def run(
    config: Config,
    on_progress: OnProgress | None = None,
    checkpoints: Checkpoints | None = None,
) -> research.runs.Findings:
    """Compare the rules."""
    named = command.name_rules(config.rule)
    study = compare_networks(
        {name: rule_lookup.find(word).rule for name, word in named.items()},
        config.network,
        baseline=config.baseline or None,
        searches=config.searches,
        budget=config.budget,
        seeds=research.runs.parse_seeds(config.seeds),
        tuning_seeds=research.runs.parse_seeds(config.tuning_seeds),
        search_seed=config.search_seed,
        size=config.size,
        on_progress=on_progress,
        checkpoints=checkpoints or research.types.no_checkpoints,
    )
    ratios = {one["rule"]: one["loss_ratio"] for one in study.numbers["overall"]}
    usual = study.numbers["baseline"] == "adamw"
    muon = {"muon_over_adamw": ratios["muon"]} if usual and "muon" in ratios else {}
    return research.runs.Findings(study.arrays, study.numbers | muon)
