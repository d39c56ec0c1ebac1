"""Which of these rules is better here, by how much, and may one say so?

Rules of equal budgets on workloads with a known optimum: ours by name, optax's, or
yours from a file. Each gets the same number of trials, the first at its defaults, the
others at quasi-random points of its search space; a trial is chosen on some seeds and
reported on others. The answer is a ratio of example gradients to a target, with an
interval that includes the choice, or that the two cannot be told apart, and how many
seeds would.

    python -m experiments compare --rule my_rules.py:mine --rule adam --workload digits \
      breast_cancer
    python -m experiments compare --rule heavy_ball adam --space \
      heavy_ball.learning_rate=1e-3..10
    # Heavy ball and Adam, under a minute on two cores.
    python -m experiments compare

A rule of yours is a function that takes a learning rate and returns an
optax.GradientTransformation; its learning rate is searched from 1e-5 to 10 unless
`--space` says otherwise. What is compared with is the last rule, or `--baseline`. The
workloads are those of research/workloads.py: diabetes, diabetes_ridge, breast_cancer,
digits, ill_conditioned, noisy_quadratic and others; our rules those of
docs/update_rules.md.

The number to expect (`EXPECTED`): the overall ratio of heavy ball's example gradients
to Adam's in the default run."""

import dataclasses
import sys

import research

EXPECTED = {"ratio": (0.6, 1.0)}


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run."""

    rule: tuple[str, ...] = ("heavy_ball", "adam")
    """Names of ours, optax.NAME, FILE.py:NAME, or v1=FILE.py:NAME to name it; the flag
    may come several times."""
    workload: tuple[str, ...] = ("breast_cancer", "digits")
    """Named problems on which all of them run."""
    baseline: str = ""
    """The rule that the others are compared with; empty: the last."""
    budget: int = 20
    """Trials of each rule on each workload; the first is its defaults."""
    passes: int = 30
    """Budget of every training, in passes over the data."""
    batch_size: int = 32
    """Examples in a batch; 0: all of them."""
    target: float = 1e-2
    """Share of the initial f - f* to come down to."""
    tune_on: str = "train"
    """Whose objective chooses: train (reported on train), or validation (reported on
    test)."""
    seeds: str = "0..19"
    """Seeds that are reported: 0..9, or 1,4,7."""
    tuning_seeds: str = "1000..1009"
    """Seeds on which trials are chosen; none of them may be reported."""
    space: tuple[str, ...] = ()
    """Ranges other than the usual, as RULE.learning_rate=1e-4..10 on a log scale, or
    "RULE.b2=0.9..0.999 one_minus"."""
    evaluations: tuple[str, ...] = ()
    """What a step of a rule that evaluates the objective itself costs in gradients of
    its batch, as RULE=2."""
    files: tuple[str, ...] = ()
    """SHA-256 of each file of rules; filled in, so that a changed file is another
    run."""
    width: int = 8
    """Lanes in a block; the bits of a cell depend on it."""


FULL = Config(
    workload=("breast_cancer", "digits", "diabetes_ridge"),
    budget=40,
    seeds="0..39",
    tuning_seeds="1000..1009",
)


def complete(config):
    """Record the digest of each file that a rule comes from."""
    files = research.comparison.digest_files(config.rule, config.files)
    return dataclasses.replace(config, files=files)


def run(config, on_progress=None, checkpoints=None):
    """Compares."""
    given = arguments(config)
    study = research.comparison.compare(
        given.pop("rules"),
        config.workload,
        on_progress=on_progress,
        checkpoints=checkpoints or research.types.nowhere,
        **given,
    )
    result = research.runs.Result(*study)
    result.numbers["ratio"] = result.numbers["overall"][0]["ratio"]
    return result


def share(config, part, parts, checkpoints):
    """Computes every `parts`-th pair from pair `part` on, into the checkpoints; `run`
    then finds them there."""
    given = arguments(config)
    research.comparison.compute_share(
        given.pop("rules"),
        config.workload,
        part,
        parts,
        checkpoints=checkpoints,
        **given,
    )


def arguments(config):
    """Arguments of `research.comparison.compare`, from the config."""
    from research.cli import rule_lookup

    return research.comparison.parse_command(
        config.rule,
        lambda word: rule_lookup.find(word).rule,
        baseline=config.baseline,
        spaces=config.space,
        evaluations=config.evaluations,
        budget=config.budget,
        passes=config.passes,
        batch_size=config.batch_size,
        seeds=config.seeds,
        tuning_seeds=config.tuning_seeds,
        tune_on=config.tune_on,
        target=config.target,
        width=config.width,
    )


def draw(result):
    """Ratios, trials, rates, curves and the profile."""
    from research.figures import studies

    return studies.draw_study(result.numbers, result.arrays)


if __name__ == "__main__":
    research.cli.main(sys.modules[__name__])
