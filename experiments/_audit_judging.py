"""Judge the recorded trajectories of other libraries by formulas in fifty digits."""

import functools
import inspect
import textwrap
from typing import Any, NamedTuple

import numpy as np

from experiments import _audit_formulas
from experiments import _audit_rows as rows
from experiments._audit_rows import AGREES, NOT_JUDGED, Change, Row
from research.verification import FORMULAS, walk_exactly
from research.verification.adam_variants import ADAHESSIAN
from research.verification.formula import Formula, Function
from research.verification.leaves import by_leaf

# Largest |x - y| / (1 + |y|) of two trajectories that count as equal. The recorded
# iterates are rounded by up to 3e-11. The largest difference of an optimizer that
# agrees is 5e-11. The smallest deviation of the table is just above this bound.
BOUND = 1e-9


class Judgement(NamedTuple):
    """A row of the table.

    Attributes:
      verdict: One of VERDICTS.
      largest: Largest deviation from the formula over the problems; NaN if the
        row is not judged.
      problem: Problem with the largest deviation.
      first: First step, from 1, that deviates on this problem by more than BOUND; 0 if
        none does.
      explained: Largest deviation from the changed formula; NaN if no formula is
        changed.
      note: Why the row is not judged, or "".
    """

    verdict: str
    largest: float = float("nan")
    problem: str = ""
    first: int = 0
    explained: float = float("nan")
    note: str = ""


def formula_of(name: str) -> Formula:
    """Return a formula of research.verification, or of this audit."""
    if name == "adahessian":
        return ADAHESSIAN
    return FORMULAS[name] if name in FORMULAS else _audit_formulas.FORMULAS[name]


def changed(formula: Formula, changes: tuple[Change, ...]) -> Any:
    """Return the formula's generator function after edits of its source.

    Raises:
      ValueError: The source does not contain the text of an edit exactly once.
    """
    if not changes:
        return formula.iterates
    source = textwrap.dedent(inspect.getsource(formula.iterates))
    for change in changes:
        if source.count(change.right) != 1:
            raise ValueError(
                f"{change.right!r} must occur once in {formula.iterates.__name__}; it "
                f"occurs {source.count(change.right)} times."
            )
        source = source.replace(change.right, change.wrong)
    names = {**vars(_audit_formulas), **vars(inspect.getmodule(formula.iterates))}
    exec(compile(source, "<changed formula>", "exec"), names)
    return names[formula.iterates.__name__]


def expected(row: Row, problem: str, changes: tuple[Change, ...]) -> np.ndarray:
    """Return the iterates of the row's formula, in fifty digits."""
    iterates = _iterates(row.rule, row.adapt + changes)
    rate = rows.rate_of(row, problem)
    where = rows.ALL_PROBLEMS[problem]
    exact = where.exact
    if row.frozen and exact is not None:
        where = where._replace(exact=lambda: frozen(exact()))
    return walk_exactly(
        iterates, where, rows.STEPS, learning_rate=rate, **row.given
    ).iterates


def frozen(f: Function) -> Function:
    """Return the function with gradient 0 for vectors, so that they do not move."""
    only = lambda g: by_leaf(lambda a: a if a.ndim > 1 else 0 * a, g)
    return f._replace(gradient=lambda x: only(f.gradient(x)))


@functools.cache
def _iterates(rule: str, changes: tuple[Change, ...]) -> Any:
    return changed(formula_of(rule), changes)


def apart(found: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return the largest |x - y| / (1 + |y|) of each step; inf if one is not finite."""
    with np.errstate(all="ignore"):
        entries = np.abs(found - reference) / (1.0 + np.abs(reference))
    entries[np.isnan(entries)] = np.inf
    return entries.max(axis=1)


def judge(row: Row) -> Judgement:
    """Judge one row."""
    if row.reason:
        return Judgement(NOT_JUDGED, note=row.reason)
    recorded = rows.traces()["traces"].get(row.key)
    if recorded is None:
        return Judgement(NOT_JUDGED, note="no trajectory is recorded")
    failed = [
        recorded[name] for name in row.problems if isinstance(recorded[name], str)
    ]
    if failed:
        return Judgement(NOT_JUDGED, note=f"it raises {failed[0]}")
    largest, problem, first = compared(row, ())
    if largest <= BOUND:
        return Judgement(AGREES, largest, problem, 0)
    explained = compared(row, row.changes)[0] if row.changes else float("nan")
    return Judgement(row.verdict, largest, problem, first, explained)


def first_of(steps: np.ndarray) -> int:
    """Return the first step, from 1, above the bound; 0 if there is none."""
    over = steps > BOUND
    return int(np.argmax(over)) + 1 if over.any() else 0


def compared(row: Row, changes: tuple[Change, ...]) -> tuple[float, str, int]:
    """Return the largest deviation from a formula, its problem, and its first step."""
    recorded, found = rows.traces()["traces"][row.key], []
    for name in row.problems:
        steps = apart(recorded[name], expected(row, name, changes))
        found.append((float(steps.max()), name, first_of(steps)))
    return max(found, key=lambda one: one[0])
