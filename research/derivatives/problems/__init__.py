"""Test problems for numerical derivatives.

The derivatives are known to many digits, or do not exist. `finite_difference` was tuned
on DEVELOPMENT. HELD_OUT was not used for tuning.
"""

from research.derivatives.problems.development import DEVELOPMENT as DEVELOPMENT
from research.derivatives.problems.held_out import HELD_OUT as HELD_OUT
from research.derivatives.problems.problem import Problem as Problem
