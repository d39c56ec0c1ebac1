"""`prove`: is a rule the rule that it is meant to be, and if not, what is likely wrong with it?"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

from research.proofs.causes import likely_cause
from research.proofs.formulas import FORMULAS
from research.proofs.formulas.formula import Formula
from research.proofs.oracles import ORACLES
from research.proofs.oracles.oracle import Constructor
from research.proofs.problems import PROBLEMS, Problem
from research.proofs.walks import Deviation, Walk, distance, walk, walk_exactly
from research.update_rules import UPDATE_RULES

# In units of the dtype's eps. A step adds a few roundings; on the problems here the worst of our rules against a
# formula in fifty digits is a tenth of this, and the smallest slip that is known is a million times larger.
TOLERANCE = 1000.0

Subject = optax.GradientTransformation | Constructor


class Proof(NamedTuple):
    """What `prove` found.

    Attributes:
      same: Whether the two agree within the tolerance on every problem on which they could be compared.
      problem: Where they lie furthest apart.
      deviation: How far, at which step and leaf.
      deviations: The same by problem.
      reasons: By problem, why they could not be compared there.
      cause: What is likely wrong with the rule; None if they agree, or if no known mistake explains it.
      tolerance: What counts as agreement.
    """

    same: bool
    problem: str
    deviation: Deviation
    deviations: dict[str, Deviation]
    reasons: dict[str, str]
    cause: str | None
    tolerance: float

    def __str__(self) -> str:
        where = f"step {self.deviation.step + 1}" + (f" in {self.deviation.leaf}" if self.deviation.leaf else "")
        if self.same:
            return (
                f"The same rule: on {len(self.deviations)} problems they are never further apart than "
                f"{self.deviation.largest:.1e} ({self.problem}, {where}); up to {self.tolerance:.0e} is rounding."
            )
        cause = self.cause or "no known mistake explains it; the first differing step is the one to work out by hand"
        return (
            f"Not the same rule: on {self.problem} they are {self.deviation.largest:.1e} apart at {where}, and differ "
            f"from step {self.deviation.first + 1} on. Likely cause: {cause}."
        )


def prove(
    rule: Subject,
    reference: Subject | Formula | str,
    *,
    problems: Iterable[Problem] | None = None,
    learning_rate: float | None = None,
    dtype: Any = "float64",
    tolerance: float | None = None,
    **arguments: Any,
) -> Proof:
    """Compares any rule with any reference on problems that ask hard questions, and names the likely mistake.

    Each walks fifty steps on three functions and on five given sequences of gradients: drawn, sparse, of sizes from
    e^-30 to e^30, zero, and one with a NaN in it. `research.proofs.walks.distance` says how the difference is measured.

    Args:
      rule: A gradient transformation, ours or yours, or a constructor of one that takes the learning rate first.
      reference: The same; or the name of one of our rules, whose formula then stands for it in fifty digits; or a
        Formula.
      problems: What to compare on; None means all of PROBLEMS.
      learning_rate: For constructors, on every problem; None means the problem's own rate. A rule that is already made
        and a constructor or formula must be given the rate that the rule was made with.
      dtype: In which the rule walks; float64 needs JAX's float64 on.
      tolerance: What counts as agreement; None means 1000 eps.
      **arguments: Other arguments that constructors and the formula are given.
    Returns:
      The Proof; print it.
    Raises:
      TypeError: What is given is no rule, or the rule changes structure, shape or dtype.
      ValueError: The name is unknown, or a rate is missing.
    Example:
      >>> print(prove(optax.adam, "adam").same)
      True
      >>> stale = optax.chain(optax.trace(0.9), optax.scale(-0.1))  # The heavy ball; is it Nesterov's rule?
      >>> print(prove(stale, "nesterov", learning_rate=0.1).cause)
      it does not look ahead: this is the heavy ball (`x` where the formula has `x + momentum * v_next`)
    """
    name = known_name(reference)
    formula = reference if isinstance(reference, Formula) else FORMULAS.get(name or "")
    tolerance = TOLERANCE * float(jnp.finfo(dtype).eps) if tolerance is None else tolerance
    deviations, reasons, causes = {}, {}, {}
    for problem in PROBLEMS.values() if problems is None else problems:
        rate = rate_on(problem, name) if learning_rate is None else learning_rate
        found = walk(made(rule, rate, arguments), problem, dtype)
        given = {"learning_rate": rate, **arguments}
        in_jax = None if isinstance(reference, Formula) else made(_in_jax(reference), rate, arguments)
        try:
            if formula is not None and (in_jax is None or isinstance(reference, str)):
                expected = walk_exactly(formula.iterates, problem, **given)
            else:
                expected = walk(in_jax, problem, dtype)
        except ZeroDivisionError:
            reasons[problem.name] = "the formula divides by zero"
            continue
        deviations[problem.name] = distance(found, expected, problem, tolerance)
        if deviations[problem.name].largest > tolerance and not causes:
            causes["likely"] = likely_cause(found, problem, formula, in_jax, given, dtype, tolerance)
    worst = max(deviations, key=lambda key: deviations[key].largest)
    same = deviations[worst].largest <= tolerance
    return Proof(same, worst, deviations[worst], deviations, reasons, causes.get("likely"), tolerance)


def known_name(reference: Any) -> str | None:
    """The name of our rule that a reference is: given by name, our constructor, or its counterpart in optax."""
    if isinstance(reference, str):
        if reference not in FORMULAS:
            raise ValueError(f"there is no formula of {reference!r}; known: {', '.join(FORMULAS)}.")
        return reference
    for name, oracle in ORACLES.items():
        if reference in (oracle.optax, UPDATE_RULES.get(name)):
            return name
    return None


def rate_on(problem: Problem, name: str | None) -> float:
    """The learning rate at which the rule of that name is asked on a problem."""
    oracle = ORACLES.get(name or "")
    if oracle is None:
        return problem.rate
    return oracle.rates.get(problem.name, problem.rate_of_unit_steps if oracle.unit_steps else problem.rate)


def made(rule: Subject, rate: float, arguments: dict[str, Any]) -> optax.GradientTransformation:
    """The rule itself, or what its constructor makes with that rate."""
    found = rule if hasattr(rule, "init") else rule(rate, **arguments)
    if not (hasattr(found, "init") and hasattr(found, "update")):
        raise TypeError(
            f"expected an optax.GradientTransformation, with init and update; {rule!r} gave {type(found).__name__}."
        )
    return found


def _in_jax(reference: Subject | str) -> Subject:
    return UPDATE_RULES[reference] if isinstance(reference, str) else reference
