"""Which ratios in the numbers of a study are measured, and which are only bounds."""

from collections.abc import Mapping
from typing import Any

from research.statistics.costs import HALF

Numbers = Mapping[str, Any]  # Numbers of a study, or one entry of its lists.

NEITHER = "neither reached"  # Instead of a ratio, where `nothing_reached` holds.
DIVERGED = "both diverged"  # Instead of a ratio, where `all_diverged` holds.


def reaches(cell: Numbers) -> bool:
    """Return whether at least half of the reported runs of a rule reach the target.

    `cell` is an entry of `numbers["cells"]` of a study: the numbers of one rule on one
    workload. The reported runs are those on the reporting seeds, which no search uses.
    In the whole package, "a rule reaches the target" means that this result is True.
    """
    return cell["reached"] >= HALF


def nothing_reached(one: Numbers, numbers: Numbers) -> bool:
    """Return whether all runs of a rule and of the baseline miss the target.

    Then all runs have the same cost, that of a run which misses the target. The ratio
    of the costs is 1 with a narrow interval, but nothing was measured. `one` is an
    entry of the lists "comparisons" or "overall" of `numbers`, the numbers of a study.

    Example:
      >>> cells = [{"rule": rule, "reached": 0.0} for rule in ("mine", "adam")]
      >>> nothing_reached({"rule": "mine", "baseline": "adam"}, {"cells": cells})
      True
    """
    cells = cells_of(one, numbers, "workload")
    return bool(cells) and all(cell["reached"] == 0 for cell in cells)


def all_diverged(one: Numbers, numbers: Numbers) -> bool:
    """Return whether all trainings of a rule and of the baseline diverged.

    Then the loss of each training is ten times its initial loss. The ratio of the
    losses is near 1 with a narrow interval, but nothing was measured. `one` is an entry
    of the lists "comparisons" or "overall" of `numbers`, the numbers of a study.

    Example:
      >>> cells = [{"rule": r, "reported_diverged": 1.0} for r in ("mine", "adam")]
      >>> all_diverged({"rule": "mine", "baseline": "adam"}, {"cells": cells})
      True
    """
    cells = cells_of(one, numbers, "network")
    return bool(cells) and all(cell["reported_diverged"] == 1 for cell in cells)


def at_most(one: Numbers) -> str:
    """Return "at most " or "at least " if the ratio of steps is only a bound, else "".

    `one` is a comparison of a rule with the baseline. Its entry "steps" is the ratio of
    steps. Its entry "at_end" is the share of runs of the rule whose final loss is
    outside the range of losses that the baseline has with 0.5 to 2 times the steps. The
    ratio is only a bound if this share is above 1/2. Older studies lack the entry
    "at_end" for all networks together.

    Example:
      >>> at_most({"steps": 0.5, "at_end": 0.9}) + "0.5"
      'at most 0.5'
    """
    if one["steps"] is None or (one.get("at_end") or 0.0) <= 0.5:
        return ""
    return "at most " if one["steps"] < 1 else "at least "


def cells_of(one: Numbers, numbers: Numbers, place: str) -> list[Numbers]:
    """Return the measurements of both rules of a comparison, on its workloads.

    The result is empty if there are no measurements of one of the two rules. `place` is
    the key that names the workload: "workload" or "network". An entry of the list
    "overall" does not have this key, and compares the rules on all workloads.
    """
    cells = [
        cell
        for cell in numbers["cells"]
        if cell["rule"] in (one["rule"], one["baseline"])
        and one.get(place) in (None, cell.get(place))
    ]
    return cells if len({cell["rule"] for cell in cells}) == 2 else []
