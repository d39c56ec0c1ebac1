"""Proof by comparison: any rule against another implementation of it, iterate by iterate."""

from research.proofs.formulas import FORMULAS as FORMULAS
from research.proofs.iterates import deviation as deviation
from research.proofs.iterates import deviation_from_optax as deviation_from_optax
from research.proofs.iterates import trajectory as trajectory
from research.proofs.oracles import ORACLES as ORACLES
from research.proofs.problems import PROBLEMS as PROBLEMS
from research.proofs.problems import Problem as Problem
from research.proofs.proving import Proof as Proof
from research.proofs.proving import prove as prove
from research.proofs.table import proof_table as proof_table
from research.proofs.walks import Deviation as Deviation
from research.proofs.walks import walk as walk
from research.proofs.walks import walk_exactly as walk_exactly
