"""Verify a rule by comparing it step by step with other implementations."""

from research.verification._verify_rule import Verification as Verification
from research.verification._verify_rule import verify_rule as verify_rule
from research.verification.cards import CARDS as CARDS
from research.verification.cards import FORMULAS as FORMULAS
from research.verification.problems import PROBLEMS as PROBLEMS
from research.verification.problems import Problem as Problem
from research.verification.table import verification_table as verification_table
from research.verification.walks import Deviation as Deviation
from research.verification.walks import deviation as deviation
from research.verification.walks import deviation_from_optax as deviation_from_optax
from research.verification.walks import trajectory as trajectory
from research.verification.walks import walk as walk
from research.verification.walks import walk_exactly as walk_exactly
