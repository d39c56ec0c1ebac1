"""Write the rows as one Markdown page.

The answer comes first, then the machine, the tables, and the goals that are missed.
"""

import importlib.metadata
import os
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from benchmarks.clock import Spread
from benchmarks.startup import FIRST_STEP, StartupRow
from benchmarks.steps import StepRow
from benchmarks.sweep import SweepRow

GOAL_IN_SWEEP = 10.0
PACKAGES = (
    "jax",
    "jaxlib",
    "optax",
    "flax",
    "torch",
    "tensorflow-cpu",
    "scikit-learn",
    "numpy",
    "scipy",
    "optimistix",
)


class Section(NamedTuple):
    """A part of the page with its own text.

    Attributes:
      title: Its heading.
      answer: A sentence for the top of the page, or "".
      text: What stands under the heading.
      missed: Every place where a goal is missed, in words.
    """

    title: str
    answer: str
    text: str
    missed: list[str]


def number(value: float) -> str:
    """Write a number with three digits and no exponent.

    Example:
      >>> number(12345.6), number(0.012345), number(3.0)
      ('12,300', '0.0123', '3.00')
    """
    if value == 0:
        return "0"
    digits = 2 - int(f"{value:.2e}".partition("e")[2])  # The exponent after rounding.
    return f"{round(value, digits):,.{max(digits, 0)}f}"


def spread_words(spread: Spread | None) -> str:
    """Write the median, and the range.

    Example:
      >>> spread_words(Spread(2.0, 1.0, 4.0)), spread_words(None)
      ('2.00 (1.00 to 4.00)', '-')
    """
    return (
        "-"
        if spread is None
        else f"{number(spread.median)} ({number(spread.low)} to {number(spread.high)})"
    )


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Write a Markdown table.

    Example:
      >>> print(table(["a", "b"], [[1, 2]]))
      | a | b |
      |---|---|
      | 1 | 2 |
    """
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(
        ("|" + "|".join(line) + "|")
        if line[0] == "---"
        else ("| " + " | ".join(map(str, line)) + " |")
        for line in lines
    )


def optional(value: float | None) -> str:
    """Write a number, or a dash where there is none."""
    return "-" if value is None else number(value)


def faster_in(ratios: Sequence[Spread], goal: float) -> str:
    """Say how many ratios reach a goal, and give their range."""
    low, high = min(r.median for r in ratios), max(r.median for r in ratios)
    reached = sum(r.median >= goal for r in ratios)
    return (
        f"{reached} of {len(ratios)} (the ratios go from {number(low)} to "
        f"{number(high)})"
    )


def one_after_another(rows: list[SweepRow]) -> list[SweepRow]:
    """Return the rows of peers that make the runs one by one.

    The goal is a sweep that is ten times as fast as each of these.
    """
    return [row for row in rows if row.ratio and "one by one" in row.contender]


def answer(
    steps: list[StepRow], sweeps: list[SweepRow], startup: list[StartupRow]
) -> str:
    """Write the sentences that open the page."""
    sentences = []
    if ratios := [row.ratio for row in steps if row.ratio]:
        sentences.append(
            "In steps per second ours is at least as fast as a peer in "
            f"{faster_in(ratios, 1.0)}."
        )
    if rows := one_after_another(sweeps):
        ratios = [row.ratio for row in rows if row.ratio]
        sentences.append(
            f"A sweep of {rows[0].runs} runs is at least {GOAL_IN_SWEEP:.0f} times as "
            "fast as the same runs one after another, compilation apart, in "
            f"{faster_in(ratios, GOAL_IN_SWEEP)}."
        )
    if rows := [row for row in sweeps if row.ratio and "vmap" in row.contender]:
        ratios = [row.ratio for row in rows if row.ratio]
        sentences.append(
            "It is at least as fast as PyTorch's vmap, plain or compiled, in "
            f"{faster_in(ratios, 1.0)}."
        )
    if seconds := {row.program: row.seconds for row in startup if row.seconds}:
        words = ", ".join(
            f"`{name}` {number(seconds[name].median)} s"
            for name in list(seconds)
            if "import" in name
        )
        sentences.append(f"Starting: {words}.")
    return " ".join(sentences)


def steps_table(rows: list[StepRow]) -> str:
    """Write the table of steps per second."""
    columns = [
        "model",
        "regime",
        "contender",
        "steps/s",
        "ours is faster by",
        "compile s",
        "steps",
        "loss",
        "note",
    ]
    lines = [
        [
            row.model,
            row.regime,
            row.contender,
            spread_words(row.per_second),
            "" if row.contender == "ours" else spread_words(row.ratio),
            optional(row.compile_seconds),
            row.steps,
            "-" if row.loss is None else f"{row.loss:.12f}",
            row.note,
        ]
        for row in rows
    ]
    apart = max((row.apart for row in rows if row.apart is not None), default=0.0)
    return (
        f"{table(columns, lines)}\n\nLosses at the end are {apart:.1e} apart at most, "
        "relatively. Compile s is what building takes, with the first step; of ours, "
        "with the first training; of scikit-learn, the first call."
    )


def sweep_table(rows: list[SweepRow]) -> str:
    """Write the table of sweeps."""
    columns = [
        "regime",
        "contender",
        "seconds",
        "compile s",
        "ours is faster by",
        "with compiling",
        "loss",
        "note",
    ]
    lines = [
        [
            row.regime,
            row.contender,
            spread_words(row.seconds),
            optional(row.compile_seconds),
            "" if row.contender == "ours" else spread_words(row.ratio),
            "" if row.contender == "ours" else optional(row.ratio_with_compiling),
            "-" if row.loss is None else f"{row.loss:.12f}",
            row.note,
        ]
        for row in rows
    ]
    sizes = {row.regime: row for row in rows if row.apart is not None}
    words = "; ".join(
        f"{regime}: {row.runs} runs of {row.steps:,} steps, of which {row.stable} are "
        f"stable and at most {row.apart or 0:.1e} apart at any evaluation"
        for regime, row in sizes.items()
    )
    return (
        f"{table(columns, lines)}\n\n{words}. Loss is the mean of the stable runs' last"
        " one. Compile s of ours is what building takes, with the first run; of the "
        "others, with the first step."
    )


def startup_table(rows: list[StartupRow]) -> str:
    """Write the table of start-up times."""
    columns = [
        "program",
        "seconds from start to end",
        "of which building and first step",
        "note",
    ]
    return table(
        columns,
        [
            [
                r.program,
                spread_words(r.seconds),
                spread_words(r.compile_seconds),
                r.note,
            ]
            for r in rows
        ],
    )


def shortfalls(
    steps: list[StepRow], sweeps: list[SweepRow], startup: list[StartupRow]
) -> list[str]:
    """Describe every place where a goal is missed."""
    lines = [
        f"{row.model}, {row.regime}: {row.contender} is faster, ours has "
        f"{number(row.ratio.median)} of its speed"
        for row in steps
        if row.ratio and row.ratio.median < 1
    ]
    for row in sweeps:
        goal = GOAL_IN_SWEEP if row in one_after_another(sweeps) else 1.0
        if row.ratio and row.ratio.median < goal:
            lines.append(
                f"sweep, {row.regime}: {number(row.ratio.median)} times as fast as "
                f"{row.contender}, goal {goal:.0f}"
            )
        if row.ratio_with_compiling and row.ratio_with_compiling < 1:
            lines.append(
                f"sweep, {row.regime}, with compiling: "
                f"{number(row.ratio_with_compiling)} times as fast as {row.contender}"
            )
    built = {row.program: row.compile_seconds for row in startup if row.compile_seconds}
    mine = built.pop("first step: ours", None)
    lines += [
        f"{name} is built in {number(theirs.median)} s, ours in {number(mine.median)} s"
        for name, theirs in built.items()
        if mine and theirs.median < mine.median
    ]
    return lines


def machine() -> str:
    """Describe the processor, its cores, and the versions."""
    import research

    facts = research.runs.environment()
    processor = facts["processor"]
    versions = {name: _version(name) for name in PACKAGES}
    wide = [
        name
        for name in ("avx512f", "avx2", "asimd")
        if name in processor["instruction_sets"]
    ][:1]
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"{processor['model']} ({', '.join([processor['architecture'], *wide])}), "
        f"{processor['cores']} cores, load {os.getloadavg()[0]:.1f} at the end; Python "
        f"{facts['python']}, {listed}; XLA's pool has {facts['xla_pool']} threads."
    )


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "is not installed"


def page(
    steps: list[StepRow],
    sweeps: list[SweepRow],
    startup: list[StartupRow],
    command: str,
    date: str,
    seconds: float,
    others: Sequence[Section] = (),
) -> str:
    """Write the whole page; the other sections follow those of rows."""
    missed = shortfalls(steps, sweeps, startup) + [
        line for other in others for line in other.missed
    ]
    sections = [
        "# How fast it is",
        " ".join(
            filter(
                None,
                [answer(steps, sweeps, startup), *(other.answer for other in others)],
            )
        ),
        (
            f"Written by `{command}` on {date} in {seconds:.0f} s. {machine()} How it "
            "is measured, and why something falls short: [README.md](README.md)."
        ),
    ]
    if steps:
        sections += ["## Steps per second", steps_table(steps)]
    if sweeps:
        sections += ["## A sweep", sweep_table(sweeps)]
    if startup:
        sections += [
            "## Starting",
            f"First step: {FIRST_STEP}. Ours builds and makes a whole run of three "
            "epochs, because it has no shorter call.",
            startup_table(startup),
        ]
    for other in others:
        sections += [f"## {other.title}", other.text]
    sections += [
        "## Where a goal is missed",
        "\n".join(f"- {line}" for line in missed) or "Nowhere.",
    ]
    return "\n\n".join(sections) + "\n"
