"""Proof by comparison: any rule against another implementation of it, iterate by iterate."""

from research.verification.formulas import FORMULAS as FORMULAS
from research.verification.iterates import deviation as deviation
from research.verification.iterates import deviation_from_optax as deviation_from_optax
from research.verification.iterates import trajectory as trajectory
from research.verification.oracles import ORACLES as ORACLES
from research.verification.problems import PROBLEMS as PROBLEMS
from research.verification.problems import Problem as Problem
from research.verification.proving import Proof as Proof
from research.verification.proving import prove as prove
from research.verification.table import proof_table as proof_table
from research.verification.walks import Deviation as Deviation
from research.verification.walks import walk as walk
from research.verification.walks import walk_exactly as walk_exactly
