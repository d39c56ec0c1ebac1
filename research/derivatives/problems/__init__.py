"""Derivatives with known digits, and points without one: the half that was tuned on and the half that was not."""

from research.derivatives.problems.development import DEVELOPMENT as DEVELOPMENT
from research.derivatives.problems.held_out import HELD_OUT as HELD_OUT
from research.derivatives.problems.problem import Problem as Problem
