"""Keep a study in memory, save it as a folder, and read it without running its code."""

import hashlib
import math
import reprlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from research import runs
from research.checks import check_path
from research.comparison.configs import compare_config
from research.comparison.origins import IN_PYTHON
from research.comparison.tables import as_text
from research.files import canonical
from research.reading import NUMBER, PERHAPS, Is, check_shape
from research.runs.archive import read_contents

FORMAT = 2  # Version of a study's numbers; a reader refuses newer versions.
NETWORK_FORMAT = 1  # Version of the numbers of a study on networks.
# The command that repeats a study, and its question, by the name of its experiment.
PROGRAMS = {
    "compare": "descent compare",
    "compare_networks": "descent networks",
}
QUESTIONS = {
    "compare": (
        "Which of these rules is better on these workloads, and is the difference "
        "certain?"
    ),
    "compare_networks": (
        "Which rule trains these networks to the lower validation loss, and how many "
        "steps does it save?"
    ),
}
ROUNDED = 1e-8  # Relative rounding error of an estimate and its interval.
LONGEST, MOST_CELLS = 1_000, 10_000  # Limits: characters of a name; measurements.


def _is_share(value: Any) -> bool:
    return value is None or 0 <= value <= 1


def _is_printable(text: str) -> bool:
    """Return whether a name is short and has no control characters."""
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
# The same for a study on networks.
NETWORK_PROTOCOL = {
    name: PROTOCOL[name]
    for name in ("seeds", "tuning_seeds", "level", "budget", "searches")
}
NETWORK_CELL = {
    **dict.fromkeys(("network", "rule", "data?"), _WORDS),
    **dict.fromkeys(("num_steps", "batch_size", "parameters", "trainings"), _COUNT),
    **dict.fromkeys(("loss", "loss_low", "loss_high"), _COST),
    **dict.fromkeys(("seconds_per_step", "update_rms"), PERHAPS),
    **dict.fromkeys(("accuracy", "diverged", "reported_diverged"), _SHARE),
}
NETWORK_COMPARISON = {
    **dict.fromkeys(("network", "rule", "baseline", "verdict"), _WORDS),
    **dict.fromkeys(("loss_ratio", "loss_low", "loss_high", "detectable"), PERHAPS),
    **dict.fromkeys(("steps", "steps_low", "steps_high"), PERHAPS),
    "at_end?": _SHARE,
}
# Losses and norms of gradients at the start, by network; older studies have none.
STARTS = {"starts?": {str: {"loss": PERHAPS, "gradient": PERHAPS}}}
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
    """A finished comparison of update rules on workloads.

    A workload is a named optimisation problem.

    `print(study)` prints the answer and the first table. `study.save()` saves the study
    with its figures and a report in a run folder.
    `research.figures.studies.draw_study(study.numbers, study.arrays)` returns the
    figures.

    Attributes:
      answer: Text that says which rule is better and by how much, or that the study
        cannot decide which rule is better.
      tables: Tables of the study. The first table has one row for each pair (workload,
        rule).
      arrays: Dict from names to the arrays from which the figures are made.
      numbers: Dict from names to values that JSON can store. The tables and figures are
        made from these values.
    """

    answer: str
    tables: tuple[runs.Table, ...]
    arrays: dict[str, np.ndarray]
    numbers: dict[str, Any]

    def __str__(self) -> str:
        """Return the answer and the first table as plain text."""
        return f"{self.answer}\n\n{as_text(self.tables[0])}"

    def save(self, results: str | Path = "results") -> Path:
        """Save the study as the run folder results/compare/<id>, with its report.

        The folder has the form that `descent compare` writes: pictures, report.html,
        and files that `descent pack`, `descent leaderboard` and `descent reproduce`
        read. Other people can repeat the study if each rule is given by a name or a
        file, and each workload by a name. If a rule is not from this package, its
        source is saved, too: usually your whole file that defines the rule. If this
        file is above 256 KiB, a notebook, or part of an installed package, only the
        source of the rule's function is saved.

        The id depends on the settings of the study, and on the contents of the files of
        its rules. If a rule or a workload of the study cannot be given on a command
        line, by a name or a file, the id also depends on the results. So if you change
        a rule and save a new study of it, the earlier study is kept.

        Args:
          results: The folder of all results.
        Returns:
          The run folder.
        Raises:
          OSError: The folder cannot be written.
        """
        from research.figures.studies import draw_study

        config = compare_config(self.numbers)
        return save_study("compare", self, config, draw_study, results)


def save_study(
    experiment: str,
    study: Any,
    config: Mapping[str, Any],
    draw: Callable[[Mapping[str, Any], Mapping[str, np.ndarray]], Mapping[str, Any]],
    results: str | Path,
) -> Path:
    """Save a study as a run folder with pictures and report.

    Args:
      experiment: Name of the experiment, "compare" or "compare_networks".
      study: The study, a `Study` or `NetworkStudy`.
      config: Result of `compare_config` or `networks_config`.
      draw: Function (numbers, arrays) -> dict from names to pictures. Its arguments are
        the fields `numbers` and `arrays` of the study.
      results: The folder of all results.
    Returns:
      The run folder.
    """
    # Drawing is imported only where it is used: it takes a second.
    from research import figures, report

    run = runs.open_run(
        experiment,
        _identified(config, study),
        results,
        fresh=True,
        width=study.numbers["protocol"].get("width", 1),
        command=config.get("in_python")
        or runs.command_line(experiment, config, PROGRAMS[experiment]),
    )
    try:
        path = runs.finish(run, runs.Result(*study)).path
    finally:
        runs.close(run)
    try:
        with figures.style():
            pictures = draw(study.numbers, study.arrays)
    except KeyError:  # `conclude` accepts measurements without the arrays of a picture.
        pictures = {}
    saved = [figures.save(picture, path, name) for name, picture in pictures.items()]
    report.write_report(path, saved, question=QUESTIONS[experiment])
    return path


def _identified(config: Mapping[str, Any], study: Any) -> Mapping[str, Any]:
    """Return the config, with a digest of the results if the id needs one.

    If a rule has neither a name nor a file, or if the user made a workload or a
    Contender, other studies may have the same config. Then a digest of the rules'
    sources and of the arrays is added to the digests of files (the entry `files`).
    """
    of_study = study.numbers["origin"]
    given = of_study["own"] or of_study.get("contenders")
    if IN_PYTHON not in of_study["words"].values() and not given:
        return config
    digest = hashlib.sha256(canonical(of_study["code"]).encode())
    for name, array in sorted(study.arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    files = [*config.get("files", ()), f"results {digest.hexdigest()}"]
    return {**config, "files": files}


class SavedStudy(NamedTuple):
    """A study that was read from a file or folder.

    Attributes:
      name: Name of the file or folder, without its parent folders.
      manifest: Manifest of the run. It contains the id of the run, its command, its
        environment, and the digests of its files.
      numbers: Numbers of the study. They have all entries that are named in the dicts
        PROTOCOL, CELL and COMPARISON of this module, with the right types. For a study
        on networks, these dicts are NETWORK_PROTOCOL, NETWORK_CELL and
        NETWORK_COMPARISON.
    """

    name: str
    manifest: dict[str, Any]
    numbers: dict[str, Any]

    @property
    def on_networks(self) -> bool:
        """Whether the study was made by `compare_networks`."""
        return "network_study" in self.numbers

    @property
    def key(self) -> tuple[str, ...]:
        """Id of the study and digests of its files; equal for copies of a study."""
        return self.manifest["id"], *(
            f"{name} {digest}"
            for name, digest in sorted(self.manifest["digests"].items())
        )

    def fact(self, *path: str) -> str:
        """Return an entry of the manifest as text, or "unknown".

        `path` has the keys that lead to the entry. The result is "unknown" if there is
        no such entry, or if it is not a text or a number.
        """
        entry: Any = self.manifest
        for name in path:
            entry = entry.get(name) if isinstance(entry, dict) else None
        return str(entry) if isinstance(entry, str | int | float) else "unknown"


def read_study(path: str | Path) -> SavedStudy:
    """Read a study from its run folder, or from a .zip of `research.runs.archive.pack`.

    Args:
      path: The folder or the file.
    Returns:
      The `SavedStudy`, after these checks of its numbers:

      - The numbers have the required entries and types.
      - Each cost, loss, ratio or number of steps lies in its confidence interval.
      - Each verdict ("better", "worse" or "undecided") agrees with the interval of its
        ratio.

      An interval with a missing end is not checked. Whether the numbers are true is not
      checked.
    Raises:
      ValueError: The path does not hold a complete study, or the study has an older or
        newer format than this version reads. The message names the path.
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
    kinds = {"study": FORMAT, "network_study": NETWORK_FORMAT}
    given = [name for name in kinds if isinstance(numbers, dict) and name in numbers]
    if len(given) != 1:
        raise ValueError(
            f"contains a run of {experiment!r}, which is not a study. Pass runs of "
            "descent compare or descent networks."
        )
    version, known = numbers[given[0]], kinds[given[0]]
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ValueError(
            f"contains a study of the unknown format {reprlib.repr(version)}. Run the "
            "study again."
        )
    if version < known:
        raise ValueError(
            f"was written by an older version of Descent (study format {version}), "
            "whose intervals do not include the variation between searches. Make the "
            "study again with descent compare."
        )
    if version > known:
        raise ValueError(
            f"was written by a newer version of Descent (study format {version}; this "
            f"version reads formats up to {known}). Update descent-jax, or ask the "
            "author of the study to make it with an older version."
        )


def _check_numbers(numbers: Mapping[str, Any]) -> None:
    """Check the numbers of an untrusted study, so that other code can rely on them."""
    on_networks = "network_study" in numbers
    shapes = (
        (NETWORK_PROTOCOL, NETWORK_CELL, NETWORK_COMPARISON)
        if on_networks
        else (PROTOCOL, CELL, COMPARISON)
    )
    problem = "network" if on_networks else "workload"
    try:
        check_shape(
            numbers,
            {"protocol": shapes[0], "cells": _CELLS, "comparisons": _COMPARISONS}
            | (STARTS if on_networks else {}),
            "study",
        )
        check_shape(
            numbers, {"cells": [shapes[1]], "comparisons": [shapes[2]]}, "study"
        )
    except ValueError as error:
        raise ValueError(f"contains a study that cannot be ranked: {error}") from error
    for name in ("cells", "comparisons"):
        entries = set()
        for entry in numbers[name]:
            where, rule = entry[problem], entry["rule"]
            if (where, rule) in entries:
                raise ValueError(
                    f"contains a study whose {name} hold {rule!r} on {where!r} twice. "
                    f"A rule may occur there once on each {problem}."
                )
            entries.add((where, rule))
    for index, measurement in enumerate([] if on_networks else numbers["cells"]):
        if (measurement["cost"] is None) != (measurement["example_gradients"] is None):
            raise ValueError(
                f"contains a study whose cells[{index}] has only one of cost and "
                "example_gradients. Run the study again."
            )
    try:
        check_verdicts(numbers)
    except ValueError as error:
        raise ValueError(f"contains a study that cannot be ranked: {error}") from error


def check_verdicts(numbers: Mapping[str, Any]) -> None:
    """Check that the estimates and verdicts of a study fit their intervals.

    An estimate, such as a cost or a ratio of costs, lies in its interval. A verdict
    says whether the interval of the ratio lies below 1, above 1, or on both sides.

    Args:
      numbers: Numbers of a study. An entry with a missing estimate or end is not
        checked.
    Raises:
      ValueError: An estimate or a verdict does not fit. The message names it.
    """
    if "network_study" in numbers:
        of_cell = [("loss", "loss_low", "loss_high")]
        of_ratio = [
            ("loss_ratio", "loss_low", "loss_high"),
            ("steps", "steps_low", "steps_high"),
        ]
    else:
        of_cell = [("cost", "cost_low", "cost_high")]
        of_ratio = [("ratio", "low", "high")]
    lists = {"cells": of_cell, "comparisons": of_ratio, "overall": of_ratio}
    for name, triples in lists.items():
        for index, entry in enumerate(numbers.get(name, ())):
            where = f"{name}[{index}]"
            for triple in triples:
                _check_inside(entry, triple, where)
            if name != "cells":
                _check_verdict(entry, of_ratio[0], where)


def _check_inside(
    entry: Mapping[str, Any], names: tuple[str, str, str], where: str
) -> None:
    """Raise ValueError if an estimate lies outside its interval."""
    estimate, low, high = map(entry.get, names)
    if estimate is None or low is None or high is None:
        return
    if not low * (1 - ROUNDED) <= estimate <= high * (1 + ROUNDED):
        raise ValueError(
            f"{where}.{names[0]} is {estimate:.6g}, outside its interval [{low:.6g}, "
            f"{high:.6g}]. The file was changed after the study."
        )


def _check_verdict(
    entry: Mapping[str, Any], names: tuple[str, str, str], where: str
) -> None:
    """Raise ValueError if a verdict contradicts the interval of its ratio."""
    _, low, high = map(entry.get, names)
    if low is None or high is None:
        return
    fits = {
        "better": high < 1 + ROUNDED,
        "worse": low > 1 - ROUNDED,
        "undecided": low <= 1 + ROUNDED and high >= 1 - ROUNDED,
    }
    if not fits.get(entry["verdict"], False):
        raise ValueError(
            f"{where}.verdict is {entry['verdict']!r}, which does not fit the interval "
            f"[{low:.6g}, {high:.6g}] of the ratio. The file was changed after the "
            "study."
        )
