"""Test problems for numerical derivatives.

A problem is a function and a point. Either the derivative at the point is known to many
digits, or it does not exist. The function `finite_difference` was tuned on the problems
in DEVELOPMENT. The problems in HELD_OUT were written down before `finite_difference`
was written.
"""

from research.derivatives.problems.development import DEVELOPMENT as DEVELOPMENT
from research.derivatives.problems.held_out import HELD_OUT as HELD_OUT
from research.derivatives.problems.problem import Problem as Problem
