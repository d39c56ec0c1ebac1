"""The constructors of the workloads with a known optimum, by name."""

from collections.abc import Callable

from research.types import Workload
from research.workloads.convex import (
    breast_cancer,
    breast_cancer_two_features,
    diabetes,
    diabetes_bmi,
    diabetes_ridge,
    digits,
    ill_conditioned,
    noisy_quadratic,
    overlapping_1m,
    overlapping_50k,
)
from research.workloads.functions import quadratic, rosenbrock

WORKLOADS: dict[str, Callable[..., Workload]] = {
    constructor.__name__: constructor
    for constructor in (
        diabetes,
        diabetes_ridge,
        diabetes_bmi,
        breast_cancer,
        breast_cancer_two_features,
        digits,
        overlapping_50k,
        overlapping_1m,
        ill_conditioned,
        noisy_quadratic,
        quadratic,
        rosenbrock,
    )
}
