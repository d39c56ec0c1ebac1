"""Check whether a rule is the intended rule, and name the likely mistake if not."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from research.checks import check_callable, check_number, check_sequence
from research.naming import known_names
from research.update_rules import UPDATE_RULES, find_rule
from research.verification.card import Card, rate_on
from research.verification.cards import CARDS, FORMULAS
from research.verification.causes import Evidence, OnProgress, likely_cause
from research.verification.formula import Formula
from research.verification.problems import PROBLEMS, Problem
from research.verification.rule_under_test import (
    NoRuleError,
    Subject,
    calling,
    is_made,
    made,
    named,
)
from research.verification.torch_rules import is_torch_class, walk_torch
from research.verification.walks import Deviation, Walk, distance, walk, walk_exactly

# In units of the dtype's eps. Each step adds a few rounding errors. On the problems
# here, the largest deviation of this library's rules from a fifty-digit formula is a
# tenth of this. The smallest known mistake causes a deviation a million times larger.
TOLERANCE = 1000.0

Trace = Mapping[str, tuple[float, Walk]]  # Problem name -> (learning rate, trajectory).


class Verification(NamedTuple):
    """Result of `verify_rule`, which compares a rule with a reference on test problems.

    Attributes:
      same: True if rule and reference agree within the tolerance on every problem on
        which they could be compared.
      problem: Name of the problem on which the rule deviates most from the reference.
      deviation: Deviation on this problem, with its step and leaf.
      deviations: Dict from the name of a problem to the Deviation, for the problems on
        which rule and reference were compared.
      reasons: Dict from the name of a problem to the reason why rule and reference were
        not compared on this problem.
      cause: Likely mistake in the rule, in words. None if rule and reference agree, or
        if no cause was found.
      tolerance: Largest deviation that counts as agreement.
      evaluates: "rule" if only the rule reports extra params for evaluation, such as an
        average of its iterates. "reference" if only the reference does. These params
        were then not compared. None if both or neither report such params.
    """

    same: bool
    problem: str
    deviation: Deviation
    deviations: dict[str, Deviation]
    reasons: dict[str, str]
    cause: str | None
    tolerance: float
    evaluates: str | None = None

    def __str__(self) -> str:
        where = f"step {self.deviation.step + 1}" + (
            f" in {self.deviation.leaf}" if self.deviation.leaf else ""
        )
        if self.same:
            problems = (
                "1 problem"
                if len(self.deviations) == 1
                else f"{len(self.deviations)} problems"
            )
            if self.deviation.largest == 0.0:
                verdict = f"The same rule: on {problems} both agree to the last bit."
            else:
                verdict = (
                    f"The same rule: on {problems} the two rules differ by at most "
                    f"{self.deviation.largest:.1e} ({self.problem}, {where}). "
                    f"Differences up to {self.tolerance:.0e} are rounding errors."
                )
            return f"{verdict}{self._not_compared('But only')}"
        cause = self.cause or (
            "no known mistake explains it. Compute the first step that differs by hand"
        )
        return (
            f"Not the same rule. On the problem {self.problem}, the two rules differ "
            f"from step {self.deviation.first + 1} on. The largest difference is "
            f"{self.deviation.largest:.1e}, at {where}. Likely cause: {cause}."
            f"{self._not_compared('Only')}"
        )

    def _not_compared(self, only: str) -> str:
        if self.evaluates is None:
            return ""
        return (
            f" {only} the {self.evaluates} reports the params at which to evaluate "
            "the objective, such as an average of the iterates (the field "
            "evaluation_params of its state). These were not compared."
        )


def verify_rule(
    rule: Subject | Formula | str,
    reference: Subject | Formula | Trace | str,
    *,
    problems: Iterable[Problem] | None = None,
    learning_rate: float | None = None,
    dtype: Any = "float64",
    tolerance: float | None = None,
    on_progress: OnProgress | None = None,
    **arguments: Any,
) -> Verification:
    """Compare a rule with a reference on test problems, and name the likely mistake.

    Rule and reference each take fifty steps on each problem. Three of the problems are
    functions, and five are given sequences of gradients:

    - random gradients;
    - sparse gradients;
    - gradients with entries of sizes from e^-30 to e^30;
    - gradients that are 0;
    - random gradients with a NaN in one entry at one step.

    The deviation on a problem is the largest difference between the two trajectories,
    as `research.verification.walks.distance` defines it. If the params of the rule
    become NaN where those of the reference do not, the deviation is infinite, and no
    error is raised.

    If a deviation exceeds the tolerance, known mistakes are tried, one after another.
    If the reference has a formula, mistakes in this formula are tried first, and then
    general mistakes, such as updates with a wrong sign. If the reference with a mistake
    agrees with the rule, this mistake is the likely one.

    Some rules are not evaluated at their iterates, but at other params that they
    report, such as an average of the iterates. If both the rule and the reference
    report such params, these params are compared, too. Otherwise only the steps are
    compared. If only one of the two reports such params, the printed Verification says
    so.

    Args:
      rule: A gradient transformation, or a function that takes the learning rate first
        and returns a gradient transformation. The rule may also be the name of a rule
        of this library, a dotted name such as "optax.adam", or a Formula (a rule in
        arithmetic of fifty digits). It may also be a subclass of
        `torch.optim.Optimizer`, or the dotted name of such a class, such as
        "torch.optim.Adam". A class of PyTorch gets the argument learning_rate as lr,
        and b1 and b2 as betas. Arguments that the class does not take are left out.
      reference: As for `rule`, but the name of a rule of this library stands for the
        formula in the rule's paper, computed with fifty digits. The reference may also
        be a dict from problem names to recorded trajectories, such as
        `recorded.recorded_walks("adam/defaults")`. Each recorded trajectory contains
        its learning rate, and must have fifty steps.
      problems: Problems to compare on. None means all problems in
        `research.verification.problems.PROBLEMS`, or all recorded problems if the
        reference is a dict.
      learning_rate: Learning rate for the constructors of rule and reference, the same
        on every problem. The rate must be positive, because with the rate 0 many
        different rules do not move. None means that each problem has its own rate. If
        the reference is a dict, the recorded rates are used instead of learning_rate.
        The rate of a gradient transformation cannot be read from the transformation. If
        only one of `rule` and `reference` is a gradient transformation, pass the rate
        with which this transformation was made. The constructor or formula of the other
        argument then uses the same rate.
      dtype: Dtype of the rule's steps: float64 (requires JAX's float64 to be on) or
        float32.
      tolerance: Largest deviation that counts as agreement. None means 1000 times the
        machine epsilon of `dtype`, or more for a reference whose formula is known to
        magnify rounding errors. If the rule or the reference is optax's own
        constructor, None also allows for the known rounding errors of this constructor.
        If a function wraps this constructor, pass a larger tolerance, because None then
        does not allow for these errors.
      on_progress: Function called with (done, total, message) before each problem, and
        before each mistake that is tried. None means that no function is called.
      **arguments: Further arguments for the constructors and the formula.
    Returns:
      The Verification. Print it for a summary.
    Raises:
      NoRuleError: `rule` or `reference` is not a rule, or the rule changes the
        structure, shape or dtype of updates or state. A NoRuleError is a TypeError.
      RuleError: The rule itself raised an exception, which the message contains. A
        RuleError is a ValueError.
      ValueError: The name of a rule is unknown, a rate is missing, dtype is neither
        float64 nor float32, float64 is off, or no problem can be used. Or the reference
        is a dict, and the recorded trajectory on a problem is missing, or has another
        number of steps or of entries than the rule's trajectory.
      TypeError: problems contains something other than Problems, dtype is not a dtype,
        or a recorded trajectory is not a pair of a rate and a Walk.
    Example:
      >>> import optax
      >>> print(verify_rule(optax.adam, "adam").same)
      True
      >>> # Is the heavy ball Nesterov's rule?
      >>> stale = optax.chain(optax.trace(0.9), optax.scale(-0.1))
      >>> print(verify_rule(stale, "nesterov", learning_rate=0.1).cause)
      it does not look ahead: this is the heavy ball (the rule has `x`, the formula ...
    """
    if on_progress is not None:
        check_callable("on_progress", on_progress, "done", "total", "message")
    if tolerance is not None:
        check_number("tolerance", tolerance)
    if learning_rate is not None:
        check_number("learning_rate", learning_rate, positive=True)
    rule = (
        find_rule(rule) if isinstance(rule, str) and "." not in rule else _found(rule)
    )
    reference = _found(reference)
    name = known_name(reference)
    _check_subject("rule", rule)
    _check_subject("reference", reference)
    _check_rate(rule, reference, learning_rate)
    _check_dtype(dtype)
    trace = reference if isinstance(reference, Mapping) else {}
    asked = _problems(_problems_of(trace) if trace and problems is None else problems)
    if isinstance(reference, Mapping):
        _check_trace(trace, asked)
    card = CARDS.get(name or "")
    if tolerance is None:
        tolerance = _rounding(card, rule, reference) * float(jnp.finfo(dtype).eps)

    rules: dict[Any, optax.GradientTransformation] = {}

    def compared(problem: Problem) -> Evidence:
        rate = rate_on(problem, card) if learning_rate is None else learning_rate
        rate = trace[problem.name][0] if trace else rate
        given = {"learning_rate": rate, **arguments}
        return _compared(rule, reference, problem, given, dtype, tolerance, rules)

    evidence, reasons = _evidence(compared, asked, card, on_progress)
    deviations = {e.problem.name: e.deviation for e in evidence}
    worst = max(deviations, key=lambda key: deviations[key].largest)
    same, cause = deviations[worst].largest <= tolerance, None
    if not same:
        formula = (
            reference if isinstance(reference, Formula) else FORMULAS.get(name or "")
        )
        others = {key: other for key, other in FORMULAS.items() if key != name}
        cause = likely_cause(
            evidence, formula, others, dtype, tolerance, _second_half(on_progress)
        )
    return Verification(
        same,
        worst,
        deviations[worst],
        deviations,
        reasons,
        cause,
        tolerance,
        _only_one_evaluates(evidence),
    )


def _rounding(card: Card | None, *subjects: Any) -> float:
    """Return the largest deviation that rounding may cause, in units of eps.

    The rounding errors of optax's constructor count only if it is one of the subjects.
    Otherwise they would hide mistakes in a rule that is compared with the formula.
    """
    if card is None:
        return TOLERANCE
    constructors = (
        one.func if isinstance(one, functools.partial) else one for one in subjects
    )
    of_optax = any(one is card.optax for one in constructors)
    stated = ("formula", "optax") if of_optax else ("formula",)
    return max(TOLERANCE, *(card.bounds.get(who, 0.0) for who in stated))


def _evidence(
    compared: Callable[[Problem], Evidence],
    problems: Sequence[Problem],
    card: Card | None,
    on_progress: OnProgress | None,
) -> tuple[list[Evidence], dict[str, str]]:
    """Compare rule and reference on all problems on which this is possible.

    Args:
      compared: Function that compares rule and reference on one problem.
      problems: Problems to compare on.
      card: Card of the reference, which has reasons to leave out problems, or None.
      on_progress: As for `verify_rule`.
    Returns:
      The evidence of each compared problem, and the reason for each other problem.
    """
    evidence, reasons = [], {}
    for done, problem in enumerate(problems):
        if on_progress:
            on_progress(done, 2 * len(problems), f"comparing on {problem.name}")
        if card is not None and problem.name in card.reasons:
            reasons[problem.name] = card.reasons[problem.name]
            continue
        try:
            evidence.append(compared(problem))
        except ZeroDivisionError:
            reasons[problem.name] = "the formula divides by zero"
    if not evidence:
        raise ValueError(
            f"no problem is left to compare on: {reasons or 'none was given'}. Pass "
            "other problems."
        )
    return evidence, reasons


def _only_one_evaluates(evidence: Iterable[Evidence]) -> str | None:
    """Return "rule" or "reference" if only this one reports params for evaluation.

    The result is None if both or neither of them report such params.
    """
    for e in evidence:
        if (e.found.evaluations is None) != (e.expected.evaluations is None):
            return "reference" if e.found.evaluations is None else "rule"
    return None


def _found(subject: Any) -> Any:
    """Return the object that a dotted name refers to.

    Any other subject is returned as it is.
    """
    return named(subject) if isinstance(subject, str) and "." in subject else subject


def _compared(
    rule: Any,
    reference: Any,
    problem: Problem,
    given: dict[str, Any],
    dtype: Any,
    tolerance: float,
    rules: dict[Any, optax.GradientTransformation],
) -> Evidence:
    """Run rule and reference on one problem, and return the trajectories.

    `rules` keeps the rules that were built for the problems before. Problems with given
    gradients of the same shapes use the same object, because one program then serves
    them all. A rule on another problem is traced again, so it is built again, too.
    """
    form = problem.objective or str(jax.tree.map(jnp.shape, problem.gradients))
    others = {key: value for key, value in given.items() if key != "learning_rate"}

    def walked(subject: Any, name: str) -> Walk:
        if isinstance(subject, Mapping):
            return subject[problem.name][1]
        if isinstance(subject, Formula):
            return walk_exactly(subject.iterates, problem, **given)
        if is_torch_class(subject):
            what = f"{name}, {subject.__name__}, raised"
            walk_it = lambda: walk_torch(subject, problem, given, dtype)
            return calling(what, f"on {problem.name}", walk_it)
        key = (name, float(given["learning_rate"]), form)
        if key not in rules:
            rules[key] = made(subject, given["learning_rate"], others, name)
        return walk(rules[key], problem, dtype)

    found = walked(rule, "the rule")
    expected = walked(
        FORMULAS[reference] if isinstance(reference, str) else reference,
        "the reference",
    )
    in_jax = UPDATE_RULES.get(reference) if isinstance(reference, str) else reference
    if isinstance(in_jax, Formula | Mapping) or is_torch_class(in_jax):
        in_jax = None
    if in_jax is not None:
        in_jax = made(in_jax, given["learning_rate"], others, "the reference")
    return Evidence(
        problem,
        found,
        expected,
        distance(found, expected, problem, tolerance),
        given,
        in_jax,
    )


def _second_half(on_progress: OnProgress | None) -> OnProgress | None:
    return on_progress and (
        lambda done, total, message: on_progress(total + done, 2 * total, message)
    )


def _check_subject(name: str, subject: Any) -> None:
    """Raise NoRuleError unless the subject is a rule, its constructor, or a Formula.

    A reference may also be a name or recorded trajectories.
    """
    is_other = name == "reference" and isinstance(subject, str | Mapping)
    if (
        not is_other
        and not isinstance(subject, Formula)
        and not is_made(subject)
        and not callable(subject)
    ):
        raise NoRuleError(
            f"the {name} must be a rule; it is a value of type "
            f"{type(subject).__name__}, not an optax.GradientTransformation, a "
            "function that makes one, or a Formula."
        )


def _check_rate(rule: Any, reference: Any, learning_rate: float | None) -> None:
    if isinstance(reference, Mapping):
        return  # A trace has its own learning rates.
    if learning_rate is None and is_made(rule) != is_made(reference):
        fixed, free = ("rule", "reference") if is_made(rule) else ("reference", "rule")
        raise ValueError(
            f"the {fixed} is already built with a learning rate, but the {free} is "
            f"not. Pass learning_rate=, the rate of the {fixed}."
        )


def _check_dtype(dtype: Any) -> None:
    try:
        jnp.dtype(dtype)
    except TypeError:
        raise TypeError(
            f"dtype must be float64 or float32; got dtype={dtype!r}."
        ) from None
    if jnp.dtype(dtype) not in (jnp.float64, jnp.float32):
        raise ValueError(
            "dtype must be float64 or float32, because coarser dtypes hide mistakes; "
            f"got dtype={dtype!r}."
        )
    if jnp.dtype(dtype) == jnp.float64 and not jax.config.read("jax_enable_x64"):
        raise ValueError(
            "dtype=float64, but JAX's float64 is off. First call "
            "research.backend.configure(x64=True), or, after JAX has computed "
            "something, jax.config.update('jax_enable_x64', True). Or pass "
            "dtype='float32'."
        )


def _problems(problems: Iterable[Problem] | None) -> list[Problem]:
    if problems is not None:
        check_sequence("problems", problems, "Problems")
    asked = list(PROBLEMS.values() if problems is None else problems)
    for problem in asked:
        if not isinstance(problem, Problem):
            raise TypeError(
                "every entry of problems must be a Problem, such as "
                f"PROBLEMS['quadratic']; got {problem!r}."
            )
    return asked


def _problems_of(trace: Trace) -> list[Problem]:
    unknown = [name for name in trace if name not in PROBLEMS]
    if unknown:
        raise ValueError(
            f"the reference has a trajectory on {unknown[0]!r}, which is not the name "
            "of a problem in PROBLEMS. Pass problems=, the problems themselves."
        )
    return [PROBLEMS[name] for name in trace]


def _check_trace(trace: Trace, asked: Iterable[Problem]) -> None:
    for problem in asked:
        if problem.name not in trace:
            raise ValueError(
                f"the reference has no trajectory on {problem.name}; it has "
                f"trajectories on {', '.join(trace) or 'no problem'}. Record one "
                "there, or pass problems= without this problem."
            )
        entry = trace[problem.name]
        pair = isinstance(entry, tuple | list) and len(entry) == 2
        if not pair or not isinstance(entry[1], Walk):
            raise TypeError(
                f"the reference on {problem.name} must be a pair (learning rate, "
                f"Walk), as recorded_walks returns it; it is a {type(entry).__name__}."
            )


def known_name(reference: Any) -> str | None:
    """Return the rule's name if a reference is one of this library's rules, else None.

    `reference` is an argument of `verify_rule`. A str must be the name of a rule in
    FORMULAS. Apart from the name, two objects stand for a rule of this library: this
    library's constructor of the rule, and the field `optax` of the rule's `Card`. This
    field is optax's constructor of the same rule, or a function that builds the same
    rule from optax.

    Raises:
      ValueError: The reference is a str, but not a name in FORMULAS.
    """
    if isinstance(reference, str):
        if reference not in FORMULAS:
            raise ValueError(
                f"unknown formula {reference!r}{known_names(reference, FORMULAS)}"
            )
        return reference
    for name, card in CARDS.items():
        if any(reference is one for one in (card.optax, UPDATE_RULES.get(name))):
            return name
    return None
