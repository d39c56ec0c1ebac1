"""Which rule leads where, among the studies of many: only rules that were asked the same are compared."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from research.studies.archive import FinishedStudy, Gathered

# What must be the same for two costs to be compared.
PROTOCOL = ("budget", "passes", "batch_size", "target", "tune_on")


class Entry(NamedTuple):
    """What one study found of one rule on one workload.

    Attributes:
      study: Which.
      rule: Its name; with a digest where there are rules of that name with another source, or another search space.
      workload: Its name, with the number of examples where studies have several of that name.
      protocol: Number of the protocol, from 1.
      cost, low, high: Example gradients to the target, with their interval; inf where it is not reached.
      cell, comparison: As in the study; no comparison for the baseline.
    """

    study: FinishedStudy
    rule: str
    workload: str
    protocol: int
    cost: float
    low: float
    high: float
    cell: Mapping[str, Any]
    comparison: Mapping[str, Any] | None


class Rankings(NamedTuple):
    """Many studies, merged.

    Attributes:
      gathered: The studies.
      protocols: Values of PROTOCOL, in the order in which they are first met.
      all: For each workload and protocol its entries, the lowest cost first.
    """

    gathered: Gathered
    protocols: tuple[tuple[Any, ...], ...]
    all: tuple[tuple[Entry, ...], ...]

    @property
    def contests(self) -> list[tuple[Entry, ...]]:
        """The rankings in which there are two rules or more."""
        return [ranking for ranking in self.all if len({entry.rule for entry in ranking}) > 1]


def merge(gathered: Gathered) -> Rankings:
    """Puts the cells of all studies into rankings: those of one workload under one protocol."""
    studies = gathered.studies
    codes, spaces = _several(studies, "rule", _code), _several(studies, "rule", _space)
    sizes = _several(studies, "workload", lambda _, cell: cell["n"])
    protocols: list[tuple[Any, ...]] = []
    grouped: dict[tuple[str, int], list[Entry]] = {}
    for study in studies:
        asked = tuple(study.numbers["protocol"][name] for name in PROTOCOL)
        protocols += [asked] if asked not in protocols else []
        compared = {(c["workload"], c["rule"]): c for c in study.numbers["comparisons"]}
        for cell in study.numbers["cells"]:
            rule, workload = cell["rule"], cell["workload"]
            code = f" · code {_code(study, cell)}" if rule in codes else ""
            space = f" · space {_space(study, cell)}" if rule in spaces else ""
            entry = Entry(
                study,
                f"{rule}{code}{space}",
                f"{workload} · {cell['n']:,} examples" if workload in sizes else workload,
                protocols.index(asked) + 1,
                *_example_gradients(cell),
                cell,
                compared.get((workload, rule)),
            )
            grouped.setdefault((entry.workload, entry.protocol), []).append(entry)
    ordered = (tuple(sorted(grouped[key], key=lambda entry: entry.cost)) for key in sorted(grouped))
    return Rankings(gathered, tuple(protocols), tuple(ordered))


def leaders(ranking: Sequence[Entry]) -> tuple[set[str], bool]:
    """The rules with the lowest cost of a ranking, and whether one's intervals all lie below those of the others.

    No rule leads where none reaches the target.
    """
    lowest = min(entry.cost for entry in ranking)
    rules = {entry.rule for entry in ranking if entry.cost == lowest < math.inf}
    highest = max((entry.high for entry in ranking if entry.rule in rules), default=math.inf)
    others = min((entry.low for entry in ranking if entry.rule not in rules), default=math.inf)
    return rules, len(rules) == 1 and highest < others


def answer(rankings: Rankings) -> tuple[str, str]:
    """Who leads where in one sentence, and what has to be known of it."""
    entries = [entry for ranking in rankings.all for entry in ranking]
    counted = ", ".join(
        (
            _count(len(rankings.gathered.studies), "study", "studies"),
            _count(len({entry.rule for entry in entries}), "rule", "rules"),
            _count(len({entry.workload for entry in entries}), "workload", "workloads"),
        )
    )
    return f"{counted}: {_lead(rankings)}.", " ".join(_remarks(rankings))


def _lead(rankings: Rankings) -> str:
    contests = rankings.contests
    if not contests:
        return "no two rules share a workload and a protocol, so nothing can be ranked"
    found = [leaders(ranking) for ranking in contests]
    wins = Counter(rule for rules, _ in found for rule in sorted(rules))
    of = _count(len(contests), "ranking", "rankings")
    if not wins:
        return f"no rule reaches the target in any of {of}"
    most = max(wins.values())
    best = sorted(rule for rule in wins if wins[rule] == most)
    if len(best) > 1:
        return f"{', '.join(best[:-1])} and {best[-1]} have the lowest cost in {most} of {of} each"
    apart = sum(alone for rules, alone in found if rules == set(best))
    return f"{best[0]} has the lowest cost in {most} of {of}, in {apart or 'none'} of them with an interval below all others"


def _remarks(rankings: Rankings) -> list[str]:
    studies, repeated, left_out = rankings.gathered
    alone = len(rankings.all) - len(rankings.contests)
    several = sorted(_several(studies, "rule", _code) | _several(studies, "rule", _space))
    remarks = ["A ranking is one workload under one protocol: only rules that were asked the same are compared."]
    if alone:
        remarks.append(f"In {alone} more there is but one rule, and nothing to compare.")
    if several:
        remarks.append(f"Rules of one name with another source or search space are two: {', '.join(several)}.")
    if repeated:
        remarks.append(f"A copy of a study counts once: {', '.join(repeated)}.")
    if left_out:
        remarks.append(f"Left out, for they cannot be read: {', '.join(name for name, _ in left_out)}.")
    return remarks


def _example_gradients(cell: Mapping[str, Any]) -> tuple[float, float, float]:
    """Point and interval; the study states the interval in passes."""
    cost, gradients = cell["cost"], cell["example_gradients"]
    one_pass = gradients / cost if cost and cost < math.inf else cell["n"]
    ends = (cell["cost_low"], cell["cost_high"])
    low, high = (math.inf if end is None else end * one_pass for end in ends)
    return math.inf if gradients is None else gradients, low, high


def _several(studies: Sequence[FinishedStudy], name: str, of: Callable[[FinishedStudy, Any], Any]) -> set[str]:
    """Names that stand for several things, among all studies."""
    meanings: dict[str, set[Any]] = {}
    for study in studies:
        for cell in study.numbers["cells"]:
            meanings.setdefault(cell[name], set()).add(of(study, cell))
    return {name for name, found in meanings.items() if len(found) > 1}


def _code(study: FinishedStudy, cell: Mapping[str, Any]) -> str:
    """Of the rule's source; where that is not known, of all code that ran."""
    known = _of_rule(study, "sources", cell["rule"])
    return known[:8] if isinstance(known, str) else study.fact("environment", "code")[:8]


def _space(study: FinishedStudy, cell: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(_of_rule(study, "spaces", cell["rule"]), sort_keys=True).encode()).hexdigest()[:8]


def _of_rule(study: FinishedStudy, name: str, rule: str) -> Any:
    entries = study.numbers.get(name)
    return entries.get(rule) if isinstance(entries, dict) else None


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"
