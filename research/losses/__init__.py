"""Losses of one example.

`research.objectives.empirical_risk` averages such a loss over a batch.
"""

from research.losses.classification import check_labels as check_labels
from research.losses.classification import focal as focal
from research.losses.classification import hinge as hinge
from research.losses.classification import kl_divergence as kl_divergence
from research.losses.classification import logistic as logistic
from research.losses.classification import multiclass_margin as multiclass_margin
from research.losses.classification import smooth_labels as smooth_labels
from research.losses.classification import (
    softmax_cross_entropy as softmax_cross_entropy,
)
from research.losses.classification import (
    softmax_cross_entropy_one_hot as softmax_cross_entropy_one_hot,
)
from research.losses.regression import absolute_error as absolute_error
from research.losses.regression import cosine_distance as cosine_distance
from research.losses.regression import huber as huber
from research.losses.regression import log_cosh as log_cosh
from research.losses.regression import quantile as quantile
from research.losses.regression import squared_error as squared_error
from research.losses.sequences import IGNORED as IGNORED
from research.losses.sequences import sequence_cross_entropy as sequence_cross_entropy
from research.losses.targets import check_classes as check_classes
from research.losses.targets import check_targets as check_targets
