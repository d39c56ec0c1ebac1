"""Test problems for numerical derivatives.

At each problem's point, either the derivative is known to many digits, or it does not
exist. `finite_difference` was tuned on the problems in DEVELOPMENT. The problems in
HELD_OUT were written down before that function was written.
"""

from research.derivatives.problems.development import DEVELOPMENT as DEVELOPMENT
from research.derivatives.problems.held_out import HELD_OUT as HELD_OUT
from research.derivatives.problems.problem import Problem as Problem
