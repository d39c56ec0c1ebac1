"""Write the leaderboard: many studies as one HTML file that opens offline."""

import importlib.metadata
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from research import figures, report
from research.checks import check_flag, check_instance, check_path, check_sequence
from research.comparison.archive import SavedStudy
from research.leaderboard.gathering import Gathered, gather
from research.leaderboard.rankings import (
    ON_NETWORKS,
    Entry,
    Rankings,
    answer,
    costs,
    merge,
    terms_of,
    workload_of,
)
from research.leaderboard.ratios import Ratio, draw_ratios
from research.runs import Table, write_atomically
from research.runs.manifest import MANIFEST
from research.statistics.measured import (
    DIVERGED,
    NEITHER,
    all_diverged,
    at_most,
    nothing_reached,
)

# Names of the ratio and of its interval in a comparison, and in one on networks.
RATIOS = (("ratio", "low", "high"), ("loss_ratio", "loss_low", "loss_high"))
TITLES = ("Every rule on every workload", "Every rule on every network")
NOTES = (
    "Example gradients and seconds: average cost to reach the target. Ratio: example "
    "gradients of the rule divided by those of the baseline of its study. {interval} "
    "Final gap: median over seeds; in brackets its 10 % and 90 % quantiles. Verdicts "
    "come from each study, paired by seed. Reached: share of the reported runs. "
    "Diverged: share of the trials in the search space. Place: rank by example "
    "gradients; the median, if a rule is in several studies. Seconds were measured on "
    "the processor in the same row; do not compare them between processors.",
    "Validation loss at the end of the schedule. Ratio: loss of the rule divided by "
    "that of the baseline of its study. Steps: the rule's steps divided by the steps "
    'with which the baseline reaches the same loss. "At most" and "at least" mark '
    "losses that the baseline does not reach. {interval} Test accuracy is not used "
    "for any choice. Diverged: share of the trials in the search space. Place: "
    "rank by loss; the median, if a rule is in several studies. Seconds were measured "
    "on the processor in the same row; do not compare them between processors.",
)


def write_leaderboard(
    paths: Sequence[str | Path], output: str | Path, skip_bad: bool = False
) -> Rankings:
    """Merge many studies, which may come from different people, into one HTML page.

    A study is a finished comparison of update rules. The tables of the page can be
    sorted. The page needs no other file and no network.

    Args:
      paths: Paths of the studies: run folders, .zip files that
        `research.runs.archive.pack` wrote, and folders that contain run folders or .zip
        files.
      output: Path of the page, which must end in .html.
      skip_bad: If True, a study that cannot be read is left out and listed on the page.
        If False, a ValueError is raised for such a study.
    Returns:
      The rankings on the page.
    Raises:
      ValueError: `skip_bad` is False, and a study cannot be read, for example because
        its format is newer than this version of the package. Or no study can be read.
        Or `output` is not an .html file, is one of the inputs, or lies in a run folder.
      OSError: The page cannot be written.
      TypeError: An argument has the wrong type.
    """
    check_sequence("paths", paths, "paths", (str, Path))
    check_path("output", output)
    check_flag("skip_bad", skip_bad)
    output = Path(output)
    _check_output(output, [Path(path) for path in paths])
    rankings = merge(gather(paths, skip_bad))
    headline, rest = answer(rankings)
    page = report.template("leaderboard.html").render(
        title="leaderboard",
        headline=headline,
        rest=rest,
        tables=[report.sortable(table) for table in tables(rankings)],
        pictures=[_picture(study) for study in rankings.gathered.studies],
        command=shlex.join(
            [
                "descent",
                "leaderboard",
                # The page names no folder of this machine.
                *(Path(path).name for path in paths),
                *(["--skip-bad"] if skip_bad else []),
            ]
        ),
        made_of=f"studies merged: {len(rankings.gathered.studies)}",
        version=importlib.metadata.version("descent-jax"),
    )
    write_atomically(output, page.encode(errors="replace"))
    return rankings


def tables(rankings: Rankings) -> list[Table]:
    """Make the tables of a leaderboard: measurements, protocols and studies.

    A study is a saved comparison of update rules. A measurement gives the cost of one
    rule in one study. On a workload (an optimisation problem), the cost is the number
    of gradients of single examples until the target is reached. On a network, the cost
    is the final validation loss. A protocol consists of the settings that must be equal
    if two costs are to be compared. The tables come in this order:

    - two tables of measurements, one for workloads and one for networks;
    - two tables of protocols, one for workloads and one for networks;
    - a table of the studies;
    - if studies were left out, a table of their files and the reasons.

    A table of measurements or protocols without rows is omitted.

    Args:
      rankings: Rankings of the studies, from `write_leaderboard`.
    """
    check_instance(
        "rankings", rankings, Rankings, "It is the result of write_leaderboard."
    )
    check_instance("rankings.gathered", rankings.gathered, Gathered)
    check_sequence("rankings.protocols", rankings.protocols, "protocols", tuple)
    check_sequence("rankings.all", rankings.all, "rankings", tuple)
    studies, _, left_out = rankings.gathered
    levels = sorted({study.numbers["protocol"]["level"] for study in studies})
    percent = " or ".join(f"{100 * level:g} %" for level in levels)
    interval = (
        "In brackets: the interval that the study reports "
        f"({percent}), not corrected for the number of studies."
    )
    shown = []
    for on_networks, title in enumerate(TITLES):
        rows = [
            (_network_row if on_networks else _row)(entry, cost)
            for ranking in rankings.all
            for cost in [costs(ranking)]
            for entry in ranking
            if entry.study.on_networks == on_networks
        ]
        if rows:
            note = NOTES[on_networks].format(interval=interval)
            shown.append(_table(title, rows, note))
    shown += [*_protocols(rankings), _studies(rankings)]
    if left_out:
        shown.append(Table("Left out", ("file", "why"), left_out))
    return shown


def _table(title: str, rows: Sequence[Mapping[str, Any]], note: str) -> Table:
    return Table(
        title, tuple(rows[0]), tuple(tuple(row.values()) for row in rows), note
    )


def _protocols(rankings: Rankings) -> list[Table]:
    """Return a table of the protocols and one of those on networks, if not empty."""
    rows: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for number, terms in enumerate(rankings.protocols, 1):
        on_networks = terms[0] == ON_NETWORKS
        row = {
            "protocol": str(number),
            **(_network_terms(terms) if on_networks else _terms(terms)),
            "measurements": sum(
                entry.protocol == number
                for ranking in rankings.all
                for entry in ranking
            ),
        }
        rows[on_networks].append(row)
    note = "Measurements of different protocols are not ranked together."
    titles = ("Protocols", "Protocols on networks")
    return [
        _table(title, some, note)
        for title, some in zip(titles, rows, strict=True)
        if some
    ]


def _terms(terms: Sequence[Any]) -> dict[str, Any]:
    searches, budget, passes, batch_size, target, tune_on = terms
    return {
        "searches": searches,
        "trials": budget,
        "passes": passes,
        "examples in a batch": "all" if batch_size is None else batch_size,
        "target": target,
        "tuned on": tune_on,
    }


def _network_terms(terms: Sequence[Any]) -> dict[str, Any]:
    _, searches, budget, num_steps, batch_size = terms
    return {
        "searches": searches,
        "trials": budget,
        "steps": num_steps,
        "examples in a batch": batch_size,
    }


def _studies(rankings: Rankings) -> Table:
    rows = []
    for study in rankings.gathered.studies:
        protocol = study.numbers["protocol"]
        terms = [terms_of(study, one) for one in study.numbers["cells"]]
        numbers = {1 + rankings.protocols.index(one) for one in terms}
        reported, tuned = len(protocol["seeds"]), len(protocol["tuning_seeds"])
        cores = study.fact("environment", "processor", "cores")
        row = {
            "study": study.manifest["id"],
            "file": study.name,
            "command": study.fact("command"),
            "protocol": ", ".join(map(str, sorted(numbers))),
            "seeds": f"{reported} reported, {tuned} for tuning",
            "versions": _versions(study),
            "processor": f"{_processor(study)}, {cores} cores",
            "source code": _commit(study),
            "code": study.fact("environment", "code")[:8],
            "digests": "match",
        }
        rows.append(row)
    note = (
        "Matching digests show that the files did not change after they were written. "
        "They do not show who wrote them, or that the numbers are correct; to check "
        "the numbers, run the command again. Code: digest of the code that ran, "
        "whatever the commit."
    )
    return _table("The studies", rows, note)


def _row(entry: Entry, cost_of: Mapping[str, float]) -> dict[str, Any]:
    measurement, study = entry.measurement, entry.study
    cost = None if entry.cost == math.inf else entry.cost
    ratio, verdict = _compared(entry)
    return {
        "rule": entry.rule,
        "workload": entry.workload,
        "protocol": str(entry.protocol),
        "place": _place(entry, cost_of),
        "example gradients": _with_interval(cost, entry.low, entry.high, "not reached"),
        "ratio to baseline": ratio,
        "verdict": verdict,
        "reached": _share(measurement["reached"]),
        "final gap": _with_interval(
            measurement["final"],
            measurement["final_low"],
            measurement["final_high"],
            "unknown",
        ),
        "trials": measurement["trials"],
        "seconds": report.cell(None, "not measured")
        if measurement["seconds"] is None and cost is not None
        else measurement["seconds"],
        "diverged": _share(measurement["diverged"]),
        "processor": _processor(study),
        "versions": _versions(study),
        "source code": _commit(study),
        "study": study.manifest["id"],
    }


def _network_row(entry: Entry, cost_of: Mapping[str, float]) -> dict[str, Any]:
    """Return a row of the table of networks."""
    measurement, study = entry.measurement, entry.study
    cost = None if entry.cost == math.inf else entry.cost
    ratio, verdict = _compared(entry)
    seconds = measurement["seconds_per_step"]
    return {
        "rule": entry.rule,
        "network": entry.workload,
        "protocol": str(entry.protocol),
        "place": _place(entry, cost_of),
        "validation loss": _with_interval(cost, entry.low, entry.high, "unknown"),
        "ratio to baseline": ratio,
        "verdict": verdict,
        "steps for equal loss": _steps(entry),
        "test accuracy": _share(measurement["accuracy"]),
        "seconds a step": report.cell(
            seconds, "not measured" if seconds is None else report.shown(seconds)
        ),
        "diverged": _share(measurement["diverged"]),
        "processor": _processor(study),
        "versions": _versions(study),
        "source code": _commit(study),
        "study": study.manifest["id"],
    }


def _steps(entry: Entry) -> report.Cell:
    if entry.comparison is None:
        return report.cell(None, "the baseline")
    names = ("steps", "steps_low", "steps_high")
    steps, low, high = (entry.comparison[name] for name in names)
    return _with_interval(steps, low, high, "unknown", at_most(entry.comparison))


def _picture(study: SavedStudy) -> tuple[figures.Picture, report.Embedded]:
    """Draw the comparisons of a study from its checked numbers.

    A picture in the file of a study is never shown, because it may contain anything.
    """
    on_networks = study.on_networks
    rows = [
        Ratio(
            f"{one['rule']} on {workload_of(study, one)}",
            *_ratio(study, one),
            one["verdict"],
        )
        for one in study.numbers["comparisons"]
    ]
    axis = "validation loss" if on_networks else "example gradients to the target"
    title = f"Study {study.manifest['id']}, {study.name}"
    picture = draw_ratios(title, rows, f"{axis}, divided by those of the baseline")
    return picture, report.embed_bytes(figures.svg_bytes(picture.figure), study.name)


def _ratio(study: SavedStudy, one: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    """Return (ratio, low, high) of a comparison: None if all runs of both rules fail.

    A run fails if it misses the target, or on networks, if it diverges.
    """
    failed = all_diverged if study.on_networks else nothing_reached
    if failed(one, study.numbers):
        return None, None, None
    ratio, low, high = RATIOS[study.on_networks]
    return one[ratio], one[low], one[high]


def _place(entry: Entry, cost: Mapping[str, float]) -> report.Cell:
    """Return the place of the entry's rule in its ranking."""
    if len(cost) < 2:
        return report.cell(None, "alone")
    if cost[entry.rule] == math.inf:
        return report.cell(None, "none")
    place = 1 + sum(other < cost[entry.rule] for other in cost.values())
    return report.cell(place, f"{place} of {len(cost)}")


def _compared(entry: Entry) -> tuple[report.Cell, str]:
    """Return the ratio to the baseline of the entry's study, and the verdict."""
    comparison = entry.comparison
    rule = entry.measurement["rule"]
    if comparison is None and entry.study.numbers.get("baseline") == rule:
        return report.cell(1.0, "1"), "the baseline"
    if comparison is None:
        return report.cell(None, "unknown"), "not compared"
    ratio, low, high = _ratio(entry.study, comparison)
    verdict, detectable = comparison["verdict"], comparison["detectable"]
    if verdict in ("better", "worse"):
        verdict += f" than {comparison['baseline']}"
    elif None not in (ratio, detectable) and math.isfinite(detectable):
        verdict += f" (it could detect a factor of {detectable:.3g})"
    missing = DIVERGED if entry.study.on_networks else NEITHER
    return _with_interval(ratio, low, high, missing), verdict


def _with_interval(
    value: float | None,
    low: float | None,
    high: float | None,
    missing: str,
    words: str = "",
) -> report.Cell:
    """Return a cell with a value and its interval, and with words before the value."""
    ends = (report.shown(math.inf if end is None else end) for end in (low, high))
    return report.cell(
        value,
        missing
        if value is None
        else f"{words}{report.shown(value)} [{', '.join(ends)}]",
    )


def _share(value: float | None) -> report.Cell:
    return report.cell(value, "unknown" if value is None else f"{100 * value:.0f} %")


def _processor(study: SavedStudy) -> str:
    return study.fact("environment", "processor", "model")


def _versions(study: SavedStudy) -> str:
    packages = ("jax", "optax", "descent-jax")
    versions = (
        f"{name} {study.fact('environment', 'versions', name)}" for name in packages
    )
    return f"python {study.fact('environment', 'python')}, {', '.join(versions)}"


def _commit(study: SavedStudy) -> str:
    commit, dirty = (
        study.fact("environment", "git", name) for name in ("commit", "dirty")
    )
    return f"{commit[:10]}, with changed files" if dirty == "True" else commit[:10]


def _check_output(output: Path, inputs: Sequence[Path]) -> None:
    if output.suffix != ".html" or output.is_dir():
        raise ValueError(
            f"output: the page {output} must be a file whose name ends in .html "
            "(--output)."
        )
    if output.resolve() in [path.resolve() for path in inputs]:
        raise ValueError(
            f"output: the page {output} would overwrite an input. Choose another name "
            "(--output)."
        )
    if (output.parent / MANIFEST).exists():
        raise ValueError(
            f"output: the page {output} would be written into a run folder. Choose "
            "another place (--output)."
        )
