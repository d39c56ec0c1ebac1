"""Report of memory_for_time: answer, tables and figure."""

from collections.abc import Mapping
from typing import Any

import research
from experiments._peers import NOT_INSTALLED
from experiments.memory_for_time import EQUINOX, OURS, PLAIN
from experiments.reports import _dots as dots

COLOURS = dict(
    zip(
        (PLAIN, *OURS, EQUINOX),
        ("#222222", "#D55E00", "#0072B2", "#009E73", "#CC79A7"),
        strict=True,
    )
)


def answer(findings: research.runs.Findings) -> str:
    """Compare the memory and the seconds of two and three levels with a plain scan."""
    numbers = findings.numbers
    length, found = numbers["lengths"][-1], numbers["bytes"]
    parts = [
        f"with {way} it needs {found[way][-1] / 1e3:,.0f} kB "
        f"({found[PLAIN][-1] / found[way][-1]:.0f} times less) and "
        f"{numbers['seconds'][way][1]:.1f} times the seconds"
        for way in OURS[1:]
    ]
    if numbers["bits_that_differ"]:
        bits = f"{numbers['bits_that_differ']} values differ from those of a plain scan"
    else:
        bits = "The values are bit-identical to those of a plain scan"
    share = numbers["largest_share_of_promise"]
    promise = (
        "No scan used more memory than promised"
        if share <= 1
        else f"A scan used {share:.2f} times the memory that was promised"
    )
    return (
        f"The gradient of a loop of {length:,} steps needs "
        f"{found[PLAIN][-1] / 1e3:,.0f} kB if all steps are stored; "
        f"{'; '.join(parts)} (for the seconds, the loop has --timed steps). "
        f"{bits}. {promise}."
    )


def tables(findings: research.runs.Findings) -> tuple[research.runs.Table, ...]:
    """Return the table of bytes, the table of seconds and the table of promises."""
    numbers = findings.numbers
    rows = [(way, *found) for way, found in numbers["bytes"].items()]
    bytes_table = research.runs.Table(
        "Bytes of temporary memory for the gradient",
        ("scan", *(f"{length:,} steps" for length in numbers["lengths"])),
        tuple(rows),
        "XLA's temporary memory, for the gradient with respect to the first carry.",
    )
    return bytes_table, _seconds_table(numbers), _promise_table(numbers)


def _seconds_table(numbers: dict[str, Any]) -> research.runs.Table:
    rows = []
    for way in (PLAIN, *OURS, EQUINOX):
        if way not in numbers["seconds"]:
            rows.append((way, NOT_INSTALLED, NOT_INSTALLED, NOT_INSTALLED))
            continue
        seconds, ratio, low, high = numbers["seconds"][way]
        found = numbers["bytes"].get(way, [numbers["peer_bytes"]])[-1]
        rows.append((way, found, seconds, f"{ratio:.2f} [{low:.2f}, {high:.2f}]"))
    return research.runs.Table(
        "Seconds of the gradient, measured in turns",
        (
            "scan",
            f"bytes at {numbers['lengths'][-1]:,} steps",
            "seconds",
            "seconds, relative to the plain scan",
        ),
        tuple(rows),
        "For a loop of --timed steps. Ratios are medians within one run, with 95 % "
        "intervals.",
    )


def _promise_table(numbers: dict[str, Any]) -> research.runs.Table:
    return research.runs.Table(
        "Promised memory",
        ("promised bytes", "bytes", "share"),
        tuple(
            (row["promise"], row["bytes"], row["bytes"] / row["promise"])
            for row in numbers["promises"]
        ),
        f"checkpoint_scan(..., memory_bytes=...) at {numbers['lengths'][-1]:,} steps.",
    )


def draw_reference(reference: Mapping[str, Any]) -> research.figures.Picture:
    """Draw the bytes of a stored reference against the number of steps."""
    figure, axes = research.figures.new_figure(width=dots.WIDTH, height=4.6)
    place, numbers = axes[0, 0], reference["numbers"]
    for row in dots.rows(reference):
        way, *found = row.values()
        place.loglog(numbers["lengths"], found, "o-", ms=5, c=COLOURS[way], label=way)
    place.set(xlabel="steps of the loop", ylabel="bytes for the gradient")
    place.set_xticks(numbers["lengths"], [f"{n:,}" for n in numbers["lengths"]])
    place.minorticks_off()
    place.set_yticks([1e5, 1e6, 1e7, 1e8], ["100 kB", "1 MB", "10 MB", "100 MB"])
    place.legend(loc="upper left")
    slopes = (numbers[f"{name}_slope"] for name in ("plain", "two_levels"))
    caption = (
        "Temporary memory of the gradient of a loop of T steps. It grows as T^"
        "{:.2f} for a plain scan, T^{:.2f} with two levels of checkpoints and T^"
        "{:.2f} with three. {}".format(
            *slopes, numbers["three_levels_slope"], dots.SOURCE
        )
    )
    return research.figures.Picture("Memory of a gradient", caption, figure)


def draw(findings: research.runs.Result) -> dict[str, research.figures.Picture]:
    """Draw bytes against the number of steps, and against seconds."""
    figure, axes = research.figures.new_figure(1, 2, width=9.5, height=4.4)
    left, right = axes[0]
    numbers, arrays = findings.numbers, findings.arrays
    for way, colour in COLOURS.items():
        place = "bytes_in_seconds_run" if way == EQUINOX else "bytes"
        found = arrays.get(f"{place}/{way}")
        if found is None:
            continue
        dashes = (0, (4, 2)) if way == EQUINOX else "-"
        left.loglog(
            arrays["lengths"], found, marker="o", ms=4, c=colour, label=way, ls=dashes
        )
        right.plot(numbers["seconds"][way][1], found[-1], "o", ms=8, color=colour)
        right.annotate(
            way,
            (numbers["seconds"][way][1], found[-1]),
            xytext=(9, -3),
            textcoords="offset points",
        )
    left.set(xlabel="number of steps T", ylabel="bytes of temporary memory")
    left.legend(loc="upper left")
    right.set(
        yscale="log",
        xlabel="seconds of the gradient, relative to the plain scan",
        ylabel=f"bytes at T = {numbers['lengths'][-1]:,}",
    )
    low, high = right.get_xlim()
    right.set_xlim(min(low, 0.5), high + 0.35 * (high - low))
    slopes = numbers["plain_slope"], numbers["two_levels_slope"]
    return {
        "memory": research.figures.Picture(
            "Memory and time of a gradient",
            "Left: the memory of the gradient of a loop of T steps. It grows as T^"
            f"{slopes[0]:.2f} for a plain scan, T^{slopes[1]:.2f} with two levels of "
            f"checkpoints and T^{numbers['three_levels_slope']:.2f} with three. Right: "
            "the memory against the seconds, relative to the plain scan.",
            figure,
        )
    }
