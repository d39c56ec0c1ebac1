"""Which of these rules is better here, by how much, and may one say so?

All rules get equal budgets on workloads whose optimum is known. A rule can be a rule of
this package, a rule of optax, or your own rule from a file. Each rule gets the same
number of trials. The first trial uses the default hyper-parameters. The other trials
use quasi-random points of the search space. The best trial is chosen on some seeds and
reported on other seeds. The answer is a ratio: the number of example gradients that a
rule needs to reach a target, divided by the number that the baseline needs. The
interval of the ratio accounts for the choice of the trial. If the study cannot separate
two rules, the answer says how many seeds would be enough.

    python -m experiments compare --rule my_rules.py:mine adam --workload digits \
      breast_cancer
    python -m experiments compare --rule heavy_ball adam --space \
      heavy_ball.learning_rate=1e-3..10
    # Heavy ball and Adam, under a minute on two cores.
    python -m experiments compare

Your own rule is a function that takes a learning rate and returns an
optax.GradientTransformation. Its learning rate is searched from 1e-5 to 10, or in the
range given by `--space`. All rules are compared with the baseline, which is the last
rule or the rule given by `--baseline`. research/workloads/ defines the workloads:
diabetes, diabetes_ridge, breast_cancer, digits, ill_conditioned, noisy_quadratic and
others. docs/update_rules.md lists the rules of this package.

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
