"""Does every update rule compute what its paper says?

Each rule of `research.update_rules` takes fifty steps on three functions and on five
given sequences of gradients: random, sparse, of sizes from e^-30 to e^30, zero, and one
with a NaN in it. The rule runs with its defaults and with other arguments, in float64
and float32. It is compared with three authorities: a second implementation of the
paper's formula, with fifty digits; the corresponding rule of optax; and the recorded
trajectory of another package. Every comparison gives the largest difference, or the
reason why there is no number.

    python experiments/rules.py                        # a few minutes
    python experiments/rules.py --rule adam lion       # two of them

On functions, the difference between two trajectories x and y is the largest |x - y| /
(1 + |y|) over all iterates and entries. For given sequences of gradients, it is the
largest difference between two updates, divided by the largest update of the same entry.

Expected numbers (`EXPECTED`): the largest differences in float64, and how many
comparisons exceed their bound. The bound is a hundred times the rounding error of a
number, unless a comment in research/verification gives a reason for a larger bound. Two
examples: in RAdam, optax computes a small number as the difference of large numbers;
L-BFGS magnifies rounding errors on Rosenbrock's function, so that optax's own run
differs from the exact trajectory by 6e-12.
"""

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

import research

EXPECTED = {
    "formula_float64": (0.0, 1e-12),
    "optax_float64": (0.0, 5e-12),
    "recorded_float64": (0.0, 2e-11),
    "over_bound": (0, 0),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the experiment."""

    rule: tuple[str, ...] = ()
    """Names of rules. If empty, all rules are compared."""


FULL = Config()


if __name__ == "__main__":  # Flags are read before anything heavy is imported.
    research.cli.main(sys.modules[__name__])

import numpy as np

from research.cli.progress import OnProgress
from research.types import Checkpoints

WHO = {
    "formula": "its formula",
    "optax": "optax",
    "recorded": "another package's record",
}


def run(
    config: Config,
    on_progress: OnProgress | None = None,
    checkpoints: Checkpoints | None = None,
) -> research.runs.Findings:
    """Compare every rule with every authority."""
    for name in config.rule:
        research.update_rules.find_rule(name)
    names = list(dict.fromkeys(config.rule)) or list(research.update_rules.UPDATE_RULES)
    checkpoint = (checkpoints or research.types.no_checkpoints)("cells")
    saved = checkpoint.load()
    found = dict(saved.values) if saved else {}
    for done, name in enumerate(names):
        if on_progress:
            on_progress(done, len(names), name)
        if name not in found:
            found[name] = cells_of(name)
            if checkpoint.due():
                checkpoint.save(research.types.Saved({}, found))
    if on_progress:
        on_progress(len(names), len(names), "done")
    cells = [cell for name in names for cell in found[name]]
    numbers = numbers_of(cells, names)
    arrays = {
        f"{who}_{dtype}": matrix(cells, names, who, dtype)
        for who in WHO
        for dtype in ("float64", "float32")
    }
    numbers |= {"names": names, "problems": problems(), "cells": cells}
    return research.runs.Findings(arrays, numbers)


def cells_of(name: str):
    """Return the comparisons of a rule as JSON values."""
    return [
        {
            "rule": name,
            "who": cell.authority,
            "dtype": cell.dtype,
            "problem": cell.problem,
            "arguments": cell.arguments,
            "reason": cell.reason,
            "bound": cell.bound,
            **(
                {}
                if cell.deviation is None
                else {
                    "largest": cell.deviation.largest,
                    "step": cell.deviation.step + 1,
                }
            ),
        }
        for cell in research.verification.verification_table([name])
    ]


def problems():
    """Return the names of the problems, in order."""
    return list(research.verification.PROBLEMS)


def numbers_of(cells: list[dict[str, Any]], names: Sequence[str]):
    """Return the numbers for EXPECTED and the counts for the answer.

    A largest difference is 0 if there is no comparison of its kind.
    """
    compared = [cell for cell in cells if cell["reason"] is None]
    numbers = {
        "rules": len(names),
        "numbers": len(compared),
        "reasons": len(cells) - len(compared),
        "over_bound": sum(cell["largest"] > cell["bound"] for cell in compared),
    }
    for who in WHO:
        for dtype in ("float64", "float32"):
            worst = largest(compared, who, dtype)
            numbers |= {f"{who}_{dtype}": worst["largest"] if worst else 0.0}
    return numbers


def largest(cells: list[dict[str, Any]], who: str, dtype: str, rule: str | None = None):
    """Return the comparison with the largest number, or None if there is no number."""
    those = [
        c
        for c in cells
        if c["reason"] is None
        and (c["who"], c["dtype"]) == (who, dtype)
        and rule in (None, c["rule"])
    ]
    return max(those, key=lambda cell: cell["largest"], default=None)


def matrix(cells: list[dict[str, Any]], names: Sequence[str], who: str, dtype: str):
    """Return the largest difference by rule and problem, shape (rules, problems).

    An entry is NaN if the comparison gives no number.
    """
    found = np.full((len(names), len(problems())), np.nan)
    for cell in cells:
        if cell["reason"] is None and (cell["who"], cell["dtype"]) == (who, dtype):
            at = names.index(cell["rule"]), problems().index(cell["problem"])
            found[at] = np.fmax(found[at], cell["largest"])
    return found
