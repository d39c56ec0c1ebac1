"""Which of these rules is better here, by how much, and may one say so?

Rules of equal budgets on workloads with a known optimum: ours by name, optax's, or
yours from a file. Each gets the same number of trials, the first at its defaults, the
others at quasi-random points of its search space; a trial is chosen on some seeds and
reported on others. The answer is a ratio of example gradients to a target, with an
interval that includes the choice, or that the two cannot be told apart, and how many
seeds would.

    python -m experiments compare --rule my_rules.py:mine adam --workload digits \
      breast_cancer
    python -m experiments compare --rule heavy_ball adam --space \
      heavy_ball.learning_rate=1e-3..10
    # Heavy ball and Adam, under a minute on two cores.
    python -m experiments compare

A rule of yours is a function that takes a learning rate and returns an
optax.GradientTransformation; its learning rate is searched from 1e-5 to 10 unless
`--space` says otherwise. What is compared with is the last rule, or `--baseline`. The
workloads are those of research/workloads/: diabetes, diabetes_ridge, breast_cancer,
digits, ill_conditioned, noisy_quadratic and others; our rules those of
docs/update_rules.md.

The number to expect (`EXPECTED`): the overall ratio of heavy ball's example gradients
to Adam's in the default run."""

import sys

import research
from research.cli import compare as study  # The command `descent compare`.

EXPECTED = {"ratio": (0.6, 1.0)}

Config = study.Config
FULL = study.FULL
complete = study.complete
run = study.run
share = study.share
draw = study.draw


if __name__ == "__main__":
    research.cli.main(sys.modules[__name__])
