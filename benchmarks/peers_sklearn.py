"""Run scikit-learn's SGD where it does the same job.

This is one example a step, for a linear or logistic model.
"""

import warnings

import numpy as np
import sklearn
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import SGDClassifier, SGDRegressor

from benchmarks.clock import seconds_of
from benchmarks.contender import Contender
from benchmarks.problems import Problem, training_data


def does_the_same(problem: Problem) -> bool:
    """Return whether scikit-learn's SGD does the same job.

    It takes single examples. For several classes it trains one against the rest, which
    is another model.
    """
    return problem.regime == "stochastic" and problem.model in ("linear", "logistic")


def sgd(problem: Problem) -> Contender:
    """Call `fit` once over all epochs' examples, in the order in which they were drawn.

    Its squared error has the half and its alpha the half, as ours have; the intercept
    is not penalised there either. Checks of the input are off, as for one who has
    checked.
    """
    make = {"linear": SGDRegressor, "logistic": SGDClassifier}[problem.model]
    estimator = make(
        loss={"linear": "squared_error", "logistic": "log_loss"}[problem.model],
        penalty="l2" if problem.penalty else None,
        alpha=problem.penalty or 1e-4,
        learning_rate="constant",
        eta0=problem.rate,
        shuffle=False,
        tol=None,
        max_iter=1,
    )
    assert problem.order is not None
    x, y = (a[problem.order[:, 0]] for a in training_data(problem.workload))
    weights, intercept = (
        np.array(problem.params[name]) for name in ("weights", "intercept")
    )

    def train():
        with sklearn.config_context(assume_finite=True), warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", ConvergenceWarning
            )  # One pass is what is asked for.
            estimator.fit(
                x, y, coef_init=weights.copy(), intercept_init=intercept.copy()
            )
        return {
            "weights": estimator.coef_.ravel(),
            "intercept": estimator.intercept_[0],
        }

    return Contender("scikit-learn SGD", train, seconds_of(train), "1 thread")
