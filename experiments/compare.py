"""Which of these rules is better on these workloads, and is the difference certain?

All rules get the same number of independent searches on workloads whose optimum is
known. A rule comes from this package, from optax, or from a file of yours. A search
tries the default hyper-parameters and points all over the search space. It trains the
better points with more seeds, and then tries points near the best ones. Each search has
its own points and seeds. The point that a search chooses is measured again with other
seeds.

The answer is the ratio of the numbers of example gradients that two rules need to reach
a target. The interval of the ratio includes the variation between searches and between
seeds. The answer also states the smallest factor that the study could detect, and says
if the searches of a rule disagree.

    python -m experiments compare --rule my_rules.py:mine adam --workload digits
    # Another range for a rate:
    python -m experiments compare --space heavy_ball.learning_rate=1e-3..10
    # Heavy ball and Adam, under three minutes on two cores.
    python -m experiments compare

Your own rule is a function that takes a learning rate and returns an
optax.GradientTransformation. The learning rate is searched from 1e-5 to 10, or in the
range given by `--space`. All rules are compared with the last rule, or with
`--baseline`. research/workloads/ defines the workloads: diabetes, diabetes_ridge,
breast_cancer, digits, ill_conditioned, noisy_quadratic and others. docs/update_rules.md
lists the rules of this package.

Expected number (`EXPECTED`): the overall ratio of heavy ball's example gradients to
Adam's in the default run.
"""

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
