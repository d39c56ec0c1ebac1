"""What a comparison found, in words, tables and numbers."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from research import runs
from research.comparison.tables import as_text

FORMAT = 1  # Of a study's numbers; a reader refuses those that it does not know.


class Study(NamedTuple):
    """A finished comparison: print it, save it, draw it (`research.figures.studies.draw_study(study.numbers, study.arrays)`).

    Attributes:
      answer: Which rule, by how much, or that it cannot be said.
      tables: The first has a row a (workload, rule).
      arrays, numbers: What tables and figures are made of.
    """

    answer: str
    tables: tuple[runs.Table, ...]
    arrays: dict[str, np.ndarray]
    numbers: dict[str, Any]

    def __str__(self) -> str:
        """The answer, and the first table as plain text."""
        return f"{self.answer}\n\n{as_text(self.tables[0])}"

    def save(self, results: str | Path = "results") -> Path:
        """Saves the study as the run folder results/compare/<id>; `research.report.write_report` adds a page.

        Returns:
          The folder.
        Raises:
          OSError: It cannot be written.
        """
        wanted = (
            "protocol",
            "baseline",
            "rules",
            "sources",
            "spaces",
            "evaluations",
            "workloads",
        )
        config = {name: self.numbers[name] for name in wanted}
        width = self.numbers["protocol"]["width"]
        run = runs.open_run(
            "compare",
            config,
            results,
            fresh=True,
            width=width,
            command=_call(self.numbers),
        )
        try:
            return runs.finish(run, runs.Result(*self)).path
        finally:
            runs.close(run)


def _call(numbers: Mapping[str, Any]) -> str:
    """What makes the study again, in Python, once `rules` holds the rules by name."""
    terms = {
        name: value
        for name, value in numbers["protocol"].items()
        if name != "reported_on"
    }
    terms |= {name: numbers[name] for name in ("baseline", "evaluations")}
    given = ", ".join(f"{name}={value!r}" for name, value in terms.items())
    spaces = ", ".join(
        f"{rule!r}: {{{', '.join(f'{name!r}: research.tuning.Range{tuple(given)!r}' for name, given in space.items())}}}"
        for rule, space in numbers["spaces"].items()
    )
    return f"research.comparison.compare(rules, {numbers['workloads']!r}, {given}, spaces={{{spaces}}})"


def as_number(seen: Any) -> dict[str, Any]:
    """The fields of a Difference or an Overall as JSON has them: None for what is no number."""
    return {name: _plain(value) for name, value in seen._asdict().items()}


def _plain(value: Any) -> Any:
    if isinstance(value, float | np.floating):
        return None if math.isnan(value) else float(value)
    return int(value) if isinstance(value, int | np.integer) else value
