"""Keep a study in memory, save it as a run folder, and read it without its code."""

import math
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from research import runs
from research.checks import check_path
from research.comparison.tables import as_text
from research.reading import NUMBER, PERHAPS, Is, check_shape
from research.runs.archive import read_contents

FORMAT = 2  # Version of a study's numbers; a reader refuses newer versions.
LONGEST, MOST_CELLS = 1_000, 10_000  # Limits: characters of a name; measurements.


def _is_share(value: Any) -> bool:
    return value is None or 0 <= value <= 1


def _is_printable(text: str) -> bool:
    """Return whether a name is safe to print: control characters act on a terminal."""
    return text.isprintable() and len(text) <= LONGEST


_WORDS = Is(
    (str,), _is_printable, f"a printable text of at most {LONGEST:,} characters"
)
_COUNT = Is(
    (int,), lambda count: 1 <= count < 2**53, "an integer of at least 1 and below 2**53"
)
_PERHAPS_COUNT = Is(
    (int, type(None)),
    lambda n: n is None or 1 <= n < 2**53,
    "an integer of at least 1, or None",
)
_POSITIVE = Is(NUMBER, lambda number: 0 < number < math.inf, "a positive number")
_COST = Is(
    PERHAPS,
    lambda cost: cost is None or cost >= 0,
    "positive or 0, or None (not reached)",
)
_SHARE = Is(PERHAPS, _is_share, "a number or None, from 0 to 1")
# Entries that every saved study has; other entries are allowed.
PROTOCOL = {
    **{"seeds": [int], "tuning_seeds": [int]},
    **dict.fromkeys(("tune_on", "reported_on"), _WORDS),
    **dict.fromkeys(("passes", "target"), _POSITIVE),
    "level": Is(NUMBER, lambda level: 0 < level < 1, "a number between 0 and 1"),
    **{"budget": _COUNT, "searches": _COUNT, "batch_size": _PERHAPS_COUNT},
}
CELL = {
    **dict.fromkeys(("workload", "rule"), _WORDS),
    **dict.fromkeys(("n", "trials"), _COUNT),
    **dict.fromkeys(("cost", "cost_low", "cost_high", "example_gradients"), _COST),
    **dict.fromkeys(("seconds", "final", "final_low", "final_high"), PERHAPS),
    **dict.fromkeys(("reached", "diverged"), _SHARE),
}
COMPARISON = {
    **dict.fromkeys(("workload", "rule", "baseline", "verdict"), _WORDS),
    **dict.fromkeys(("ratio", "low", "high", "detectable"), PERHAPS),
}
_CELLS = Is(
    (list,),
    lambda cells: 1 <= len(cells) <= MOST_CELLS,
    f"a list of 1 to {MOST_CELLS:,} entries",
)
_COMPARISONS = Is(
    (list,),
    lambda entries: len(entries) <= MOST_CELLS,
    f"a list of at most {MOST_CELLS:,} entries",
)


class Study(NamedTuple):
    """A finished comparison.

    Print it, save it, or draw it with
    `research.figures.studies.draw_study(study.numbers, study.arrays)`.

    Attributes:
      answer: Text that says which rule is better and by how much, or that the study
        does not decide.
      tables: Tables of the study. The first has one row for each (workload, rule).
      arrays, numbers: Data from which the tables and figures are made.
    """

    answer: str
    tables: tuple[runs.Table, ...]
    arrays: dict[str, np.ndarray]
    numbers: dict[str, Any]

    def __str__(self) -> str:
        """Return the answer and the first table as plain text."""
        return f"{self.answer}\n\n{as_text(self.tables[0])}"

    def save(self, results: str | Path = "results") -> Path:
        """Save the study as the run folder results/compare/<id>.

        `research.report.write_report` adds a page to this folder.

        Args:
          results: The folder of all results.
        Returns:
          The run folder.
        Raises:
          OSError: The folder cannot be written.
        """
        names = (
            "protocol",
            "baseline",
            "rules",
            "sources",
            "spaces",
            "evaluations",
            "workloads",
        )
        run = runs.open_run(
            "compare",
            {name: self.numbers[name] for name in names},
            results,
            fresh=True,
            width=self.numbers["protocol"]["width"],
            command=_call(self.numbers),
        )
        try:
            return runs.finish(run, runs.Result(*self)).path
        finally:
            runs.close(run)


def _call(numbers: Mapping[str, Any]) -> str:
    """Return, as text, the call of `compare` that repeats a study.

    The text refers to `rules`, a mapping of names to the rules of the study.
    """
    terms = {
        name: value
        for name, value in numbers["protocol"].items()
        if name != "reported_on"
    }
    terms |= {name: numbers[name] for name in ("baseline", "evaluations")}
    arguments = ", ".join(f"{name}={value!r}" for name, value in terms.items())
    spaces = ", ".join(
        f"{rule!r}: {{{', '.join(_range(*item) for item in space.items())}}}"
        for rule, space in numbers["spaces"].items()
    )
    return (
        f"research.comparison.compare(rules, {numbers['workloads']!r}, {arguments}, "
        f"spaces={{{spaces}}})"
    )


def _range(name: str, ends: list[Any]) -> str:
    return f"{name!r}: research.tuning.Range{tuple(ends)!r}"


class SavedStudy(NamedTuple):
    """A study that was read from a file or folder.

    Attributes:
      name: Name of the file or folder, without its parent folders.
      manifest: Manifest of the run: id, command, environment, digests.
      numbers: Numbers of the study. The entries of PROTOCOL, CELL and COMPARISON exist
        and have the right types.
    """

    name: str
    manifest: dict[str, Any]
    numbers: dict[str, Any]

    @property
    def key(self) -> tuple[str, ...]:
        """Id of the study and digests of its files; copies have the same key."""
        return self.manifest["id"], *(
            f"{name} {digest}"
            for name, digest in sorted(self.manifest["digests"].items())
        )

    def fact(self, *path: str) -> str:
        """Return an entry of the manifest; "unknown" if it is not a text or number."""
        entry: Any = self.manifest
        for name in path:
            entry = entry.get(name) if isinstance(entry, dict) else None
        return str(entry) if isinstance(entry, str | int | float) else "unknown"


def read_study(path: str | Path) -> SavedStudy:
    """Read a study from its run folder, or from a .zip of `research.runs.archive.pack`.

    Args:
      path: The folder or the file.
    Returns:
      The study, whose numbers were checked.
    Raises:
      ValueError: The path does not hold a complete study, or the study has a format
        that this version does not know. The message names the path.
      OSError: The path cannot be read.
    """
    check_path("path", path)
    contents = read_contents(path)
    numbers: Any = contents.found.get("numbers")
    try:
        _check_format(contents.manifest["experiment"], numbers)
        _check_numbers(numbers)
    except ValueError as error:
        raise ValueError(f"{path} {error}") from error
    return SavedStudy(contents.name, contents.manifest, numbers)


def _check_format(experiment: str, numbers: Any) -> None:
    if not isinstance(numbers, dict) or "study" not in numbers:
        raise ValueError(
            f"contains a run of {experiment!r}, which is not a study. Pass runs of "
            "descent compare."
        )
    version = numbers["study"]
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ValueError(
            f"contains a study of the unknown format {reprlib.repr(version)}. Run the "
            "study again."
        )
    if version < FORMAT:
        raise ValueError(
            f"was written by an older version of Descent (study format {version}), "
            "whose intervals do not include the variation between searches. Make the "
            "study again with descent compare."
        )
    if version > FORMAT:
        raise ValueError(
            f"was written by a newer version of Descent (study format {version}; this "
            f"version reads formats up to {FORMAT}). Update descent-jax, or ask for a "
            "study from an older version."
        )


def _check_numbers(numbers: Mapping[str, Any]) -> None:
    """Check the numbers of an untrusted study, so that other code can rely on them."""
    try:
        check_shape(
            numbers,
            {"protocol": PROTOCOL, "cells": _CELLS, "comparisons": _COMPARISONS},
            "study",
        )
        check_shape(numbers, {"cells": [CELL], "comparisons": [COMPARISON]}, "study")
    except ValueError as error:
        raise ValueError(f"contains a study that cannot be ranked: {error}") from error
    for name in ("cells", "comparisons"):
        entries = set()
        for entry in numbers[name]:
            workload, rule = entry["workload"], entry["rule"]
            if (workload, rule) in entries:
                raise ValueError(
                    f"contains a study with {rule!r} on {workload!r} twice in its "
                    f"{name}."
                )
            entries.add((workload, rule))
    for index, measurement in enumerate(numbers["cells"]):
        if (measurement["cost"] is None) != (measurement["example_gradients"] is None):
            raise ValueError(
                f"contains a study whose cells[{index}] has a cost in passes but none "
                "in example gradients."
            )
