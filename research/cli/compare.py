"""Which of these rules is better on these workloads, and is the difference certain?

All rules get the same number of independent searches on workloads whose optimum is
known. A rule comes from this package, from optax, or from a file of yours. A search
tries the default hyper-parameters and points all over the search space. The search
trains the better points with more seeds, and then tries points near the best points.
Each search has its own points and seeds. The point that a search chooses is measured
again with other seeds.

The answer is the ratio of the numbers of example gradients (gradients of the loss on
one example) that two rules need to reach a target. The interval of the ratio includes
the variation between searches and between seeds. The answer also states the smallest
factor that the study could detect, and says if the searches of a rule disagree.

    descent compare my_rules.py:mine adam --workload digits breast_cancer
    descent compare heavy_ball adam --space heavy_ball.learning_rate=1e-3..10
    descent compare                       # heavy ball and Adam, under three minutes

A rule of yours is a function that takes a learning rate and returns an
optax.GradientTransformation. The learning rate is searched from 1e-5 to 10, or in the
range given by `--space`. All rules are compared with the baseline, which is the last
rule or the rule given by `--baseline`. research.workloads defines the workloads:
diabetes, diabetes_ridge, breast_cancer, digits, ill_conditioned, noisy_quadratic and
others.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import research
from research import cli
from research.cli import flags, rule_lookup
from research.cli.progress import OnProgress

if TYPE_CHECKING:
    from research.figures import Picture
    from research.runs import Result
    from research.types import Checkpoints

PROGRAM = "descent compare"
NAME = Path(__file__).stem  # Name of the experiment that this command runs.


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of `descent compare`, which compares update rules on workloads."""

    rule: tuple[str, ...] = ("heavy_ball", "adam")
    """Rules: a name of a rule of this package, optax.NAME, FILE.py:NAME, or
    v1=FILE.py:NAME, which gives the rule the name v1. The flag may be repeated."""
    workload: tuple[str, ...] = ("breast_cancer", "diabetes_ridge")
    """Named problems on which all rules run."""
    baseline: str = ""
    """Rule with which the other rules are compared. Empty means the last rule."""
    searches: int = 6
    """Number of independent searches of each rule on each workload."""
    budget: int = 32
    """Number of trials with which a search starts. The first trial has the default
    hyper-parameters."""
    passes: int = 30
    """Number of passes over the data in every training."""
    batch_size: int = 32
    """Number of examples in a batch. 0 means all examples."""
    target: float = 1e-2
    """Target for f - f*, as a fraction of the initial f - f*. f is the objective, and
    f* is its value at the optimum of the training part."""
    tune_on: str = "train"
    """Part of the data on which a search scores its trials: train or validation. After
    train, results are reported on train, and after validation on test."""
    seeds: str = "0..19"
    """Reported seeds, written as 0..9 or as 1,4,7."""
    tuning_seeds: str = "1000..1179"
    """Seeds for the choice of trials, divided among the searches. They must differ from
    the reported seeds."""
    search_seed: int = 0
    """Seed of the points that the searches try."""
    space: tuple[str, ...] = ()
    """Search ranges in place of the default ranges: RULE.learning_rate=1e-4..10 (log
    scale), or "RULE.b2=0.9..0.999 one_minus" (log scale of 1 - b2)."""
    evaluations: tuple[str, ...] = ()
    """Cost of a step of a rule that evaluates the objective itself, written as RULE=2.
    The unit is one gradient of the batch of the step."""
    files: tuple[str, ...] = ()
    """SHA-256 of each file of rules, and of each file that it imports from its folder.
    The digests are filled in automatically, so that a changed file gives a different
    run."""
    width: int = 8
    """Number of runs trained together. The bits of each run depend on this number."""


FULL = Config(
    workload=("breast_cancer", "digits", "diabetes_ridge"),
    searches=10,
    budget=64,
    seeds="0..39",
    tuning_seeds="1000..1299",
)


def compare(words: Sequence[str]) -> int:
    """Compare the rules that a command line names.

    The arguments before the first flag are rules. Flags give the settings.

    Args:
      words: Command-line arguments after `compare`.
    Returns:
      0.
    Raises:
      ValueError, TypeError, OSError: The input is bad.
        `research.cli.errors_in_one_line` reports the error in one line.
      SystemExit: Status 2 if a flag's value has the wrong type.
    """
    return conduct(sys.modules[__name__], words)


def conduct(study: ModuleType, words: Sequence[str]) -> int:
    """Parse a command line, and run the study that it describes.

    `study` is the module of a study, such as this module, and `words` are the
    command-line arguments after the name of the command. The flag --predict raises a
    ValueError, because a study saves no models. The result is the exit status 0.
    """
    command = flags.parse(study, with_rule_flag(words))
    (cli.predict if command.options.predict else cli.perform)(study, command)
    return cli.SUCCESS


def with_rule_flag(words: Sequence[str]) -> list[str]:
    """Insert --rule if the command line begins with rules.

    Example:
      >>> with_rule_flag(["adam", "optax.sgd", "--budget", "8"])
      ['--rule', 'adam', 'optax.sgd', '--budget', '8']
      >>> with_rule_flag(["--budget", "8"])
      ['--budget', '8']
    """
    return ["--rule", *words] if words and not words[0].startswith("-") else [*words]


def complete(config: Config) -> Config:
    """Return the config with the digest of each file that contains a rule.

    A rule can be given as FILE.py:NAME. The field `files` of the returned config has
    the SHA-256 digest of each such FILE.py, and of the files that it imports from its
    folder.
    """
    files = research.comparison.digest_files(config.rule, config.files)
    return dataclasses.replace(config, files=files)


def run(
    config: Config,
    on_progress: OnProgress | None = None,
    checkpoints: "Checkpoints | None" = None,
) -> "Result":
    """Compare the rules that a config names, and return the study as a result.

    `on_progress` is called with (done, total, message). Finished measurements are saved
    in `checkpoints`. If `checkpoints` is None, nothing is saved.
    """
    given = arguments(config)
    study = research.comparison.compare(
        given.pop("rules"),
        config.workload,
        on_progress=on_progress,
        checkpoints=checkpoints or research.types.no_checkpoints,
        **given,
    )
    return research.runs.Result(*study)


def share(config: Config, part: int, parts: int, checkpoints: "Checkpoints") -> None:
    """Measure one part of all pairs (workload, rule), and save the measurements.

    The pairs are numbered from 0. With k = `part` and n = `parts`, the part consists of
    the pairs k, k + n, k + 2 n, and so on. The measurements are saved in `checkpoints`,
    where `run` finds them.
    """
    given = arguments(config)
    research.comparison.compute_share(
        given.pop("rules"),
        config.workload,
        part,
        parts,
        checkpoints=checkpoints,
        **given,
    )


def arguments(config: Config) -> dict[str, Any]:
    """Convert a config to a dict with the arguments of `research.comparison.compare`.

    `config` has the settings of the command `descent compare`. The names of the
    workloads are not in the result. `run` and `share` read them from the config.
    """
    return research.comparison.parse_command(
        config.rule,
        lambda word: rule_lookup.find(word).rule,
        baseline=config.baseline,
        spaces=config.space,
        evaluations=config.evaluations,
        searches=config.searches,
        budget=config.budget,
        search_seed=config.search_seed,
        passes=config.passes,
        batch_size=config.batch_size,
        seeds=config.seeds,
        tuning_seeds=config.tuning_seeds,
        tune_on=config.tune_on,
        target=config.target,
        width=config.width,
    )


def draw(result: "Result") -> "dict[str, Picture]":
    """Draw the figures for a result of `run` (see `figures.studies.draw_study`)."""
    from research.figures import studies

    return studies.draw_study(result.numbers, result.arrays)
