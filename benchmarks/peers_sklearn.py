"""scikit-learn's SGD, where it does the same job: one example a step, linear or
logistic.
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
    """Its SGD takes single examples, and for several classes trains one against the
    rest, which is another model.
    """
    return problem.regime == "stochastic" and problem.model in ("linear", "logistic")


def sgd(problem: Problem) -> Contender:
    """One call of `fit` over all epochs' examples, laid out in the order of the draws.

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
