"""Which rule trains these networks to the lower validation loss, and how many steps
does it save?

Every rule gets the same number of independent searches for its peak rate, its warm-up
and its kind of decay. Every training has the same length, and the learning rate is zero
at its end. The score is the validation loss at the end. The test accuracy is reported
and never used. The baseline is also trained for 0.5 to 2 times as many steps. So the
answer can also say how many steps a rule needs for the same loss, as a multiple of the
baseline's steps.

    # Muon, Lion and NAdamW beside AdamW on a deep autoencoder.
    descent networks
    descent networks my_rules.py:mine adamw --network gpt_characters
    # More rules, and all networks that need no download.
    descent networks --full

Your own rule is a function that takes a learning rate and returns an
optax.GradientTransformation. All rules are compared with the last rule, or with
`--baseline`. research.workloads.networks defines the networks: mlp_digits, cnn_digits,
gru_digits, gru_vowels (downloaded), gpt_characters, autoencoder_digits. "muon" is Muon
for the matrices and Adam for the other leaves. The rates of both are searched.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import research
from research.cli import rule_lookup
from research.cli.compare import conduct
from research.cli.progress import OnProgress

if TYPE_CHECKING:
    from research.figures import Picture
    from research.runs import Result
    from research.types import Checkpoints

PROGRAM = "descent networks"
NAME = Path(__file__).stem  # Name of the experiment that this command runs.


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of an experiment that compares rules on networks."""

    rule: tuple[str, ...] = ("muon", "lion", "nadamw", "adamw")
    """Rules: names of this package, optax.NAME, or FILE.py:NAME."""
    network: tuple[str, ...] = ("autoencoder_digits",)
    """Named networks on which all rules run."""
    baseline: str = ""
    """Rule with which the other rules are compared. Empty means the last rule."""
    searches: int = 4
    """Number of independent searches of each rule on each network."""
    budget: int = 12
    """Number of trials with which a search starts."""
    seeds: str = "0..4"
    """Reported seeds, written as 0..4 or as 1,4,7."""
    tuning_seeds: str = "1000..1007"
    """Seeds for the choice of trials, divided among the searches. They must differ from
    the reported seeds."""
    size: str = "small"
    """Size of the networks: small or large."""
    search_seed: int = 0
    """Seed of the points that the searches try."""
    search_schedule: bool = True
    """Whether the warm-up and the kind of decay are searched. If not, the warm-up is
    10 % of the training and the decay is linear (none for a schedule-free rule)."""
    space: tuple[str, ...] = ()
    """Search ranges of the rates in place of the default ranges:
    RULE.learning_rate=1e-4..1 (log scale)."""
    evaluations: tuple[str, ...] = ()
    """Cost of a step of a rule that evaluates the objective itself, written as RULE=2.
    The unit is one gradient of the batch of the step."""
    files: tuple[str, ...] = ()
    """SHA-256 of each file of rules, and of each file that it imports from its folder.
    The digests are filled in automatically, so that a changed file gives a different
    run."""
    devices: int = 2
    """Number of devices, such as cores, that train in parallel. The bits of the results
    do not depend on this number."""


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


def networks(words: Sequence[str]) -> int:
    """Compare the rules that a command line names, on neural networks.

    The arguments before the first flag are rules. Flags give the settings.

    Args:
      words: Command-line arguments after `networks`.
    Returns:
      0.
    Raises:
      ValueError, TypeError, OSError: The input is bad.
        `research.cli.errors_in_one_line` reports the error in one line.
      SystemExit: Status 2 if a flag's value has the wrong type.
    """
    return conduct(sys.modules[__name__], words)


def complete(config: Config) -> Config:
    """Return the config with the digest of each file that contains a rule.

    A rule can be given as FILE.py:NAME. The field `files` of the returned config has
    the SHA-256 digest of each such FILE.py, and of the files that it imports from its
    folder. A ValueError, TypeError or OSError is raised if a rule, a network or another
    value of the config is not valid.
    """
    arguments(config)  # Bad names are refused before a run is announced.
    for name in config.network:
        research.workloads.check_network_name(name)
    files = research.comparison.digest_files(config.rule, config.files)
    return dataclasses.replace(config, files=files)


def run(
    config: Config,
    on_progress: OnProgress | None = None,
    checkpoints: "Checkpoints | None" = None,
) -> "Result":
    """Compare the rules that a config names, and return the study as a result.

    `on_progress` is called with (done, total, message). Finished measurements are saved
    in `checkpoints`. If `checkpoints` is None, nothing is saved. If Muon is compared
    with the baseline AdamW, the numbers of the result also have `muon_over_adamw`. This
    is the ratio of Muon's final validation loss to that of AdamW, as a geometric mean
    over networks, searches and seeds.
    """
    study = research.comparison.compare_networks(
        on_progress=on_progress,
        checkpoints=checkpoints or research.types.no_checkpoints,
        **arguments(config),
    )
    ratios = {one["rule"]: one["loss_ratio"] for one in study.numbers["overall"]}
    usual = study.numbers["baseline"] == "adamw"
    muon = {"muon_over_adamw": ratios["muon"]} if usual and "muon" in ratios else {}
    study.numbers.update(muon)
    return research.runs.Result(*study)


def share(config: Config, part: int, parts: int, checkpoints: "Checkpoints") -> None:
    """Measure one part of all pairs (network, rule), and save the measurements.

    Several processes can each measure one part. The part has every `parts`-th pair,
    starting with pair number `part`, counted from 0. The measurements are saved in
    `checkpoints`. If `run` gets the same checkpoints, `run` loads these measurements.
    """
    given = arguments(config)
    research.comparison.compute_network_share(
        part=part, parts=parts, checkpoints=checkpoints, **given
    )


def arguments(config: Config) -> dict[str, Any]:
    """Convert a config to the arguments of `comparison.compare_networks`, by name.

    A config holds the settings of an experiment as plain values, such as names of
    rules. The result has the objects that these values mean, such as the rules.
    """
    words = research.comparison.name_rules(config.rule)
    return {
        "rules": {name: rule_lookup.find(word).rule for name, word in words.items()},
        "networks": config.network,
        "baseline": config.baseline or None,
        "spaces": research.tuning.parse_spaces(config.space),
        "evaluations": research.comparison.parse_evaluations(config.evaluations),
        "search_schedule": config.search_schedule,
        "searches": config.searches,
        "budget": config.budget,
        "seeds": research.runs.parse_seeds(config.seeds),
        "tuning_seeds": research.runs.parse_seeds(config.tuning_seeds),
        "search_seed": config.search_seed,
        "size": config.size,
    }


def draw(result: "Result") -> "dict[str, Picture]":
    """Draw the two figures of a study on networks, as a dict from names to figures.

    "steps" shows the number of steps of each rule, divided by the number of steps with
    which the baseline reaches the same validation loss. "curves" shows the validation
    loss against the passes over the data.
    """
    from research.figures import network_studies

    return network_studies.draw_network_study(result.numbers, result.arrays)
