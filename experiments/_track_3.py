"""Read the logs of modded-nanogpt's track 3 into a small table of facts."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

FACTS = Path(__file__).with_name("track_3_audit.json")
SOURCE = (
    "github.com/KellerJordan/modded-nanogpt at f411b3d, records/track_3_optimization"
)
LICENCE = "MIT, Copyright (c) 2024 Keller Jordan"
AGREES = 5e-4  # Two means of the same runs differ by less: the losses have five digits.
LONGEST = 70  # Maximum number of characters of a description.
SHORTER = "results/478c0427-06ce-4952-bc0a-7e2dfaea29b6.txt"  # Fewer steps.
SHORTENED, BY = 12, 200  # SHORTER is result 12 with 200 fewer steps.
_LINE = re.compile(r"step:(\d+)/\d+\s+(.*val_loss:.*)")
_SCORE = re.compile(r"\b(val\w*_loss):([0-9.]+)")
_LINK = re.compile(r"\[log\]\((results/[^)]+)\)")

Run = dict[int, dict[str, float]]  # Step -> scores by name.


class Row(NamedTuple):
    """A row of the benchmark's table.

    Attributes:
      number: Number of the result, in the order of acceptance.
      is_record: If True, the result was a record.
      steps: Claimed number of steps to a loss of 3.28.
      mean, runs: Claimed mean loss at this step, and number of runs.
      rule: Beginning of the description, as plain text.
      date: Date of the submission.
      log: Path of the linked log.
    """

    number: int
    is_record: bool
    steps: int
    mean: float
    runs: int
    rule: str
    date: str
    log: str


def read_facts(file: Path = FACTS) -> dict[str, Any]:
    """Read the committed table of facts."""
    return json.loads(file.read_text("utf-8"))


def facts_of(logs: Mapping[str, str]) -> dict[str, Any]:
    """Make the table of facts from the benchmark's text files.

    Args:
      logs: Result of `research.datasets.benchmark_logs`.
    Returns:
      Facts for JSON: the source, the counts of files and runs, the losses of each
      result at its claimed step, and the last losses of the runs in SHORTER.
    """
    runs = {name: read_runs(text) for name, text in logs.items()}
    found = [_result(row, runs) for row in read_rows(logs["README.md"])]
    shorter = [run[max(run)]["val_loss"] for run in runs[SHORTER]]
    return {
        "source": SOURCE,
        "licence": LICENCE,
        "logs": sum(map(bool, runs.values())),
        "runs": sum(len(_distinct([one])) for one in runs.values()),
        "results": found,
        "shorter": {"result": SHORTENED, "by": BY, "losses": shorter},
    }


def read_rows(readme: str) -> list[Row]:
    """Read the table of results in the README of the benchmark.

    Example:
      >>> text = "| 3 | 3500(!) | 3.2767 (n=1) | [Muon](a) b | 2026/04/26 |"
      >>> read_rows(f"{text} [log](results/a.txt) | me |")[0][:6]
      (3, True, 3500, 3.2767, 1, 'Muon b')
    """
    rows = []
    for line in readme.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        link = _LINK.search(line)
        if len(cells) < 7 or not cells[0].isdigit() or link is None:
            continue
        mean, runs = re.findall(r"([0-9.]+) \(n=(\d+)\)", cells[2])[0]
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", cells[3])
        rows.append(
            Row(
                int(cells[0]),
                "(!)" in cells[1],
                int(re.findall(r"\d+", cells[1])[0]),
                float(mean),
                int(runs),
                plain if len(plain) <= LONGEST else f"{plain[: LONGEST - 1]}…",
                cells[4],
                link[1],
            )
        )
    return rows


def read_runs(text: str) -> list[Run]:
    """Read the validation scores of each run in a log. A run begins at step 0.

    Example:
      >>> read_runs("step:0/9 val_loss:9.1\\nstep:9/9 val_loss:3.3 val_ema_loss:3.2\\n")
      [{0: {'val_loss': 9.1}, 9: {'val_loss': 3.3, 'val_ema_loss': 3.2}}]
    """
    runs: list[Run] = []
    for step, rest in _LINE.findall(text):
        if int(step) == 0 or not runs:
            runs.append({})
        scores = {name: float(value) for name, value in _SCORE.findall(rest)}
        runs[-1][int(step)] = scores
    return runs


def _result(row: Row, runs: Mapping[str, Sequence[Run]]) -> dict[str, Any]:
    """Find the runs of a result, and its losses at the claimed step."""
    groups = [_at(row.steps, group) for group in _groups(row, runs)]
    exact = [group for group in groups if len(group) == row.runs]
    chosen = exact[0] if exact else max(groups, key=len)
    losses = {name: [one[name] for one in chosen if name in one] for name in _NAMES}
    fits = [
        name
        for name, values in losses.items()
        if values and abs(sum(values) / len(values) - row.mean) < AGREES
    ]
    score = fits[0] if fits else _NAMES[0]
    kept = ("number", "is_record", "steps", "mean", "runs", "rule", "date")
    facts = {name: getattr(row, name) for name in kept}
    return facts | {"score": score, "losses": losses[score]}


_NAMES = ("val_loss", "val_ema_loss")


def _groups(row: Row, runs: Mapping[str, Sequence[Run]]) -> list[list[Sequence[Run]]]:
    """Return the logs that may be those of a result, the likeliest first.

    A folder may also have the runs of other settings, or each run twice. So the linked
    log comes first, then the logs whose names begin like its name, and then those of
    its folder.
    """
    folder, _, name = row.log.rpartition("/")
    inside = {
        path: found
        for path, found in runs.items()
        if found and folder != "results" and path.startswith(f"{folder}/")
    }
    same = [found for path, found in inside.items() if Path(path).suffix == ".txt"]
    start = name.partition("_")[0]
    alike = [v for path, v in inside.items() if Path(path).name.startswith(start)]
    return [[runs.get(row.log, [])], alike, same, [*inside.values()]]


def _at(step: int, logs: Iterable[Sequence[Run]]) -> list[dict[str, float]]:
    return [run[step] for run in _distinct(logs) if step in run]


def _distinct(logs: Iterable[Sequence[Run]]) -> list[Run]:
    """Return the runs of several logs, each run once."""
    distinct: dict[str, Run] = {}
    for log in logs:
        for run in log:
            distinct.setdefault(json.dumps(run), run)
    return [*distinct.values()]
