"""Named problems, each with split data, model, objective, metric and exact optimum."""

import inspect
import math
from typing import Any

from research.checks import check_instance
from research.naming import known_names
from research.types import Optimum, Workload
from research.workloads._construction import SPLIT_SEED as SPLIT_SEED
from research.workloads._named import WORKLOADS as WORKLOADS
from research.workloads.convex import breast_cancer as breast_cancer
from research.workloads.convex import (
    breast_cancer_two_features as breast_cancer_two_features,
)
from research.workloads.convex import diabetes as diabetes
from research.workloads.convex import diabetes_bmi as diabetes_bmi
from research.workloads.convex import diabetes_ridge as diabetes_ridge
from research.workloads.convex import digits as digits
from research.workloads.convex import ill_conditioned as ill_conditioned
from research.workloads.convex import noisy_quadratic as noisy_quadratic
from research.workloads.convex import overlapping_1m as overlapping_1m
from research.workloads.convex import overlapping_50k as overlapping_50k
from research.workloads.convex import regression_workload as regression_workload
from research.workloads.functions import quadratic as quadratic
from research.workloads.functions import rosenbrock as rosenbrock
from research.workloads.networks import NETWORKS as NETWORKS
from research.workloads.networks import NetworkWorkload as NetworkWorkload
from research.workloads.networks import check_network_name as check_network_name
from research.workloads.networks import make_network as make_network
from research.workloads.networks import network_workload as network_workload


def make_workload(name: str, **options: Any) -> Workload:
    """Build the workload with this name: its data, objective and optimum.

    One name with different options gives different workloads. For each name, the four
    workloads that were used last are cached. A call with the name and options of a
    cached workload returns the same object, and does not compute the optimum again.

    | name | model, loss | training rows, features | penalty λ |
    |---|---|---|---|
    | diabetes | linear, half the squared error; y standardised | 309, 10 | none |
    | diabetes_ridge | as diabetes | 309, 10 | 0.1 |
    | diabetes_bmi | linear, half the squared error; y in its units | 309, 1 | none |
    | breast_cancer | logistic | 398, 30 | 0.01 |
    | breast_cancer_two_features | logistic | 398, 2 | 0.01 |
    | digits | softmax, 10 classes | 1257, 64 | 0.01 |
    | overlapping_50k | logistic; Gaussian classes | 50,000, 20 | 0.0001 |
    | overlapping_1m | logistic; Gaussian classes | 1,000,000, 10 | 0.0001 |
    | ill_conditioned | linear; condition number 10,000 | 2,000, 50 | none |
    | noisy_quadratic | mean of quadratics (see below) | 2,000, 100 | none |
    | quadratic | 20 variables, eigenvalues 0.01 to 1 | - | - |
    | rosenbrock | 2 variables | - | - |

    A penalty λ adds λ/2 |w|² to the objective, where w are the weights without the
    intercept. In noisy_quadratic, the objective is the mean of ½ (x - x_i)ᵀH(x - x_i)
    over the examples x_i, with the params x and a fixed matrix H. The workloads
    quadratic and rosenbrock are functions without data.

    Rows are split at random with seed 0: 70 % for training, 15 % for validation, 15 %
    for test. The features are standardised by their mean and standard deviation in the
    training part, except in noisy_quadratic. The optimum minimises the objective on the
    training part, or the function if there are no data.

    Args:
      name: One of `WORKLOADS`.
      **options: Options of the workload's constructor. All constructors accept dtype
        ("float64" by default). Constructors of problems with data accept holdout. With
        holdout=False, all rows are used for training, and the validation and test parts
        are None. Some constructors accept a size or a condition number: see the
        signature of the function `research.workloads.<name>`.
    Returns:
      The workload. Its arrays have the given dtype; labels are int32.
    Raises:
      ValueError: The name is unknown, an option is out of range, or dtype is float64
        but JAX's 64-bit mode is off. For an unknown name, the message suggests similar
        names.
      TypeError: dtype is not floating, holdout is not True or False, or the constructor
        has no such option.
    Example:
      >>> from research import backend
      >>> backend.configure(x64=True)
      >>> workload = make_workload("breast_cancer")
      >>> workload.train.x.shape, f"{workload.optimum.value:.4f}"
      ((398, 30), '0.0947')
    """
    if isinstance(name, str) and name in NETWORKS:
        raise ValueError(
            f"{name!r} is a network, not a workload with a known optimum. Use "
            f"make_network({name!r}), or the command descent networks --network "
            f"{name}."
        )
    if not isinstance(name, str) or name not in WORKLOADS:
        raise ValueError(
            f"unknown workload {name!r}{known_names(name, WORKLOADS)} Pass one of "
            "these names."
        )
    known = inspect.signature(WORKLOADS[name]).parameters
    for option in options:
        if option not in known:
            raise TypeError(
                f"workload {name!r} has no option {option!r}"
                f"{known_names(option, known)}"
            )
    return WORKLOADS[name](**options)


def known_optimum(workload: Workload) -> Optimum:
    """Return the optimum of a workload, or raise an error if it is not known.

    The field `value` of the optimum is the minimum f* of the training objective f. The
    distance f - f* from the optimum can be computed only if f* is known.

    Args:
      workload: Workload, such as the result of `make_workload`.
    Returns:
      workload.optimum, an `Optimum`.
    Raises:
      TypeError: The argument is not a Workload, or its optimum not an Optimum.
      ValueError: workload.optimum is None, or its value is NaN or infinite. The message
        says how to add an optimum.
    """
    check_instance("workload", workload, Workload, "Make one by make_workload(name).")
    optimum = workload.optimum
    if optimum is not None:
        check_instance(
            "workload.optimum",
            optimum,
            Optimum,
            "Write research.types.Optimum(params, value, gradient_norm, "
            "initial_gradient_norm, solver).",
        )
    if optimum is None or not math.isfinite(optimum.value):
        raise ValueError(
            f"workload {workload.name!r} has no known optimum "
            f"(optimum={optimum!r:.60}), so f - f* cannot be computed. Solve it "
            "and pass workload._replace(optimum=research.types.Optimum(params, value, "
            "gradient_norm, initial_gradient_norm, solver)); research.optima and "
            "research.descent.minimise find optima."
        )
    return optimum
