"""Do the optimizers of five libraries follow the formulas of their papers?

The libraries are optax (core and contrib), Keras (on JAX), torch.optim, timm and
pytorch_optimizer. Each optimizer takes fifty steps in float64 on three functions: a
quadratic, Rosenbrock's function, and softmax regression. The reference is the paper's
formula in arithmetic of fifty digits, with the optimizer's own arguments. The
optimizers do not run here. Their trajectories and the versions of the libraries were
recorded once, in audit_traces.xz beside this file. So the table can be made again
without the libraries.

    python experiments/audit_of_rules.py                        # a few minutes
    python experiments/audit_of_rules.py --library torch timm   # two of the libraries

docs/audit.md shows the table. The table is made from audit_of_rules.json, beside this
file. This command writes audit_of_rules.json again:

    python -c "import experiments.audit_of_rules as e; e.record()"

A row of the table has one of five verdicts. "agrees": the largest difference |x - y| /
(1 + |y|) over all iterates is at most 1e-9. "convention": the optimizer differs in a
way that papers leave open, such as the place of ε. "differs": it takes other steps than
the formula. "bug": it contradicts an equation of the paper, and a second reader agrees.
"not judged": the table gives the reason. For a deviation, the table gives the first
step that deviates and the largest difference. The formula is then changed as the row
says. If the optimizer agrees with the changed formula, the change is the cause. Some
rows, such as those of computations in bfloat16 or float32, have no change: their cause
was only read from the optimizer's source.

Expected numbers (`EXPECTED`): the share of rows that are not judged, and the number of
contradictions. A row contradicts its description if it states a deviation but the
optimizer agrees with the formula, if a deviation has no stated cause, or if the change
does not explain the deviation.
"""

import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import research

EXPECTED = {
    "share_not_judged": (0.0, 0.15),
    "contradictions": (0, 0),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the experiment."""

    library: tuple[str, ...] = ()
    """Names of libraries: optax, keras, torch, timm, pytorch_optimizer. If empty, all
    libraries are judged."""


FULL = Config()


if __name__ == "__main__":  # Flags are read before anything heavy is imported.
    research.cli.main(sys.modules[__name__])

import numpy as np

from experiments import _audit_judging as judging
from experiments import _audit_rows as audit
from experiments._audit_deviations import REPRODUCERS, ROWS
from research.cli.progress import OnProgress
from research.types import Checkpoints

FILE = Path(__file__).with_suffix(".json")
LIBRARIES = ("optax", "keras", "torch", "timm", "pytorch_optimizer")


def run(
    config: Config,
    on_progress: OnProgress | None = None,
    checkpoints: Checkpoints | None = None,
) -> research.runs.Findings:
    """Judge every optimizer of the libraries."""
    del checkpoints
    libraries = chosen(config.library)
    those = [row for row in ROWS if row.library in libraries]
    found: dict[str, dict[str, Any]] = {}
    for done, row in enumerate(those):
        if on_progress:
            on_progress(done, len(those), row.key)
        found[row.key] = entry(row, judging.judge(row))
    if on_progress:
        on_progress(len(those), len(those), "done")
    numbers = numbers_of(list(found.values()), libraries)
    numbers |= {"rows": list(found.values()), "versions": audit.traces()["versions"]}
    sizes = [row["largest"] for row in found.values()]
    return research.runs.Findings({"largest": np.array(sizes)}, numbers)


def chosen(libraries: Sequence[str]) -> tuple[str, ...]:
    """Return the libraries to judge, and refuse unknown names."""
    for name in libraries:
        if name not in LIBRARIES:
            raise ValueError(
                f"library must be one of {', '.join(LIBRARIES)}; got {name!r}."
            )
    return tuple(dict.fromkeys(libraries)) or LIBRARIES


def entry(row: audit.Row, found: judging.Judgement) -> dict[str, Any]:
    """Return a row of the table as JSON values."""
    return {
        "library": row.library,
        "optimizer": row.name,
        "reference": reference(row),
        "verdict": found.verdict,
        "largest": found.largest,
        "problem": found.problem,
        "first": found.first,
        "explained": found.explained,
        "cause": found.note or (row.cause if found.verdict != audit.AGREES else ""),
        "reproducer": REPRODUCERS.get(row.key, ""),
        "contradicts": contradicts(row, found),
    }


def reference(row: audit.Row) -> str:
    """Return what a row is compared with, in words.

    The functions are named if they are not the usual three.
    """
    if row.reason:
        return ""
    everywhere = row.problems == audit.PROBLEM_NAMES
    return row.rule if everywhere else f"{row.rule} (on {', '.join(row.problems)})"


def contradicts(row: audit.Row, found: judging.Judgement) -> bool:
    """Return True if the statements of a row do not fit what was found.

    If the optimizer agrees with the formula, the row must not state a deviation. If it
    deviates, the row must state a cause, and a stated change must explain the
    deviation. Without a change, the deviation must be at most `within`, if the row has
    it.
    """
    if found.verdict == audit.NOT_JUDGED:
        return False
    if found.verdict == audit.AGREES:
        return row.verdict != audit.AGREES or not found.largest <= judging.BOUND
    if row.changes:
        explained = found.explained <= max(judging.BOUND, row.within)
    else:
        explained = not row.within or found.largest <= row.within
    return not row.cause or not explained


def numbers_of(
    found: Sequence[dict[str, Any]], libraries: Sequence[str]
) -> dict[str, Any]:
    """Return the numbers for EXPECTED and the counts for the answer."""
    verdicts = Counter(row["verdict"] for row in found)
    numbers: dict[str, Any] = {
        "optimizers": len(found),
        "share_not_judged": verdicts[audit.NOT_JUDGED] / len(found),
        "contradictions": sum(row["contradicts"] for row in found),
    }
    for verdict in audit.VERDICTS:
        numbers[verdict.replace(" ", "_")] = verdicts[verdict]
        numbers[f"{verdict.replace(' ', '_')}_by_library"] = [
            sum(
                row["verdict"] == verdict and row["library"] == library for row in found
            )
            for library in libraries
        ]
    return numbers | {"libraries": list(libraries)}


def record() -> None:
    """Judge all rows, and write the table to FILE for the page."""
    numbers = run(Config()).numbers
    kept = {
        "versions": numbers["versions"],
        "rows": [short(r) for r in numbers["rows"]],
    }
    FILE.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", "utf-8")


def short(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with its numbers rounded to two digits; None for NaN."""
    return {
        key: _rounded(value) if isinstance(value, float) else value
        for key, value in row.items()
    }


def _rounded(value: float) -> float | str | None:
    if value != value:
        return None
    return float(f"{value:.1e}") if abs(value) < float("inf") else "inf"
