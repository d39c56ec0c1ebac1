"""Data as numpy arrays: bundled sets, generated problems with known answers, and what prepares them; no jax here."""

from research.datasets.bundled import DATASETS as DATASETS
from research.datasets.bundled import Dataset as Dataset
from research.datasets.bundled import load as load
from research.datasets.generated import Function as Function
from research.datasets.generated import Problem as Problem
from research.datasets.generated import linear_problem as linear_problem
from research.datasets.generated import overlapping_classes as overlapping_classes
from research.datasets.generated import quadratic as quadratic
from research.datasets.generated import rosenbrock as rosenbrock
from research.datasets.generated import separable_classes as separable_classes
from research.datasets.preparation import check_xy as check_xy
from research.datasets.preparation import mean_and_sd as mean_and_sd
from research.datasets.preparation import split as split
from research.datasets.preparation import standardise as standardise
