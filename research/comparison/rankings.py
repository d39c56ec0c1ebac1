"""Which rule leads where, among the studies of many: only rules that were asked the same are compared."""

import hashlib
import json
import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from research.comparison.archive import FinishedStudy, Gathered

# What must be the same for two costs to be compared.
PROTOCOL = ("budget", "passes", "batch_size", "target", "tune_on")


class Entry(NamedTuple):
    """What one study found of one rule on one workload.

    Attributes:
      study: Which.
      rule: Its name; with a digest where there are rules of that name with another source, search space or cost of a step;
        with the study's id where the source is not known.
      workload: Its name, with the number of examples, or f*, where studies have several of that name.
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
      all: For each workload and protocol its entries, the rule with the lowest cost first (`costs`).
    """

    gathered: Gathered
    protocols: tuple[tuple[Any, ...], ...]
    all: tuple[tuple[Entry, ...], ...]

    @property
    def contests(self) -> list[tuple[Entry, ...]]:
        """The rankings in which there are two rules or more."""
        return [
            ranking
            for ranking in self.all
            if len({entry.rule for entry in ranking}) > 1
        ]


def merge(gathered: Gathered) -> Rankings:
    """Puts the cells of all studies into rankings: those of one workload under one protocol."""
    studies = gathered.studies
    codes, spaces = _several(studies, "rule", _code), _several(studies, "rule", _space)
    sizes = _several(studies, "workload", lambda _, cell: cell["n"])
    optima = _several(studies, "workload", _optimum)
    protocols: list[tuple[Any, ...]] = []
    grouped: dict[tuple[str, int], list[Entry]] = {}
    for study in studies:
        asked = tuple(study.numbers["protocol"][name] for name in PROTOCOL)
        protocols += [asked] if asked not in protocols else []
        compared = {(c["workload"], c["rule"]): c for c in study.numbers["comparisons"]}
        for cell in study.numbers["cells"]:
            rule, workload = cell["rule"], cell["workload"]
            code = f" · {_code(study, cell)}" if rule in codes else ""
            space = f" · space {_space(study, cell)}" if rule in spaces else ""
            examples = f" · {cell['n']:,} examples" if workload in sizes else ""
            optimum = f" · {_optimum(study, cell)}" if workload in optima else ""
            entry = Entry(
                study,
                f"{rule}{code}{space}",
                f"{workload}{examples}{optimum}",
                protocols.index(asked) + 1,
                *_example_gradients(cell),
                cell,
                compared.get((workload, rule)),
            )
            grouped.setdefault((entry.workload, entry.protocol), []).append(entry)
    return Rankings(
        gathered,
        tuple(protocols),
        tuple(_ordered(grouped[key]) for key in sorted(grouped)),
    )


def costs(ranking: Sequence[Entry]) -> dict[str, float]:
    """The cost of each rule of a ranking: the median of its entries, so that who submits more often gains nothing."""
    by_rule: dict[str, list[float]] = {}
    for entry in ranking:
        by_rule.setdefault(entry.rule, []).append(entry.cost)
    return {rule: statistics.median(found) for rule, found in by_rule.items()}


def _ordered(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    cost = costs(entries)
    return tuple(sorted(entries, key=lambda entry: (cost[entry.rule], entry.cost)))


def leaders(ranking: Sequence[Entry]) -> tuple[set[str], bool]:
    """The rules with the lowest cost of a ranking, and whether one's intervals all lie below those of the others.

    No rule leads where none reaches the target. Where a study compared the leader with another rule and left it undecided, the
    intervals of costs decide nothing either.
    """
    cost = costs(ranking)
    lowest = min(cost.values())
    rules = {rule for rule, found in cost.items() if found == lowest < math.inf}
    highest = max(
        (entry.high for entry in ranking if entry.rule in rules), default=math.inf
    )
    others = min(
        (entry.low for entry in ranking if entry.rule not in rules), default=math.inf
    )
    if len(rules) != 1 or not highest < others:
        return rules, False
    of_study = {
        (id(entry.study), entry.cell["rule"]): entry.rule for entry in reversed(ranking)
    }
    return rules, all(_decided(entry, of_study, rules) for entry in ranking)


def _decided(
    entry: Entry, of_study: Mapping[tuple[int, str], str], first: set[str]
) -> bool:
    """Whether a study's own comparison, where it is one of a leader with another rule, speaks for the leader."""
    if entry.comparison is None:
        return True
    other = of_study.get((id(entry.study), entry.comparison["baseline"]))
    if other is None or (other in first) == (entry.rule in first):
        return True
    return entry.comparison["verdict"] == ("better" if entry.rule in first else "worse")


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
    several = sorted(
        _several(studies, "rule", _code) | _several(studies, "rule", _space)
    )
    remarks = [
        "A ranking is one workload under one protocol: only rules that were asked the same are compared."
    ]
    if alone:
        remarks.append(
            f"In {alone} more there is but one rule, and nothing to compare."
        )
    if several:
        remarks.append(
            "Rules of one name with another source, search space or cost of a step are two, and so are those of two studies "
            f"whose source is not known: {', '.join(several)}."
        )
    if any(
        len(ranking) > len({entry.rule for entry in ranking})
        for ranking in rankings.contests
    ):
        remarks.append("The cost of a rule that is in several studies is their median.")
    if repeated:
        remarks.append(f"A copy of a study counts once: {', '.join(repeated)}.")
    if left_out:
        remarks.append(
            f"Left out, for they cannot be read: {', '.join(name for name, _ in left_out)}."
        )
    return remarks


def _example_gradients(cell: Mapping[str, Any]) -> tuple[float, float, float]:
    """Point and interval; the study states the interval in passes."""
    cost, gradients = cell["cost"], cell["example_gradients"]
    one_pass = gradients / cost if cost and cost < math.inf else float(cell["n"])
    ends = (cell["cost_low"], cell["cost_high"])
    low, high = (math.inf if end is None else end * one_pass for end in ends)
    return math.inf if gradients is None else gradients, low, high


def _several(
    studies: Sequence[FinishedStudy], name: str, of: Callable[[FinishedStudy, Any], Any]
) -> set[str]:
    """Names that stand for several things, among all studies."""
    meanings: dict[str, set[Any]] = {}
    for study in studies:
        for cell in study.numbers["cells"]:
            meanings.setdefault(cell[name], set()).add(of(study, cell))
    return {name for name, found in meanings.items() if len(found) > 1}


def _code(study: FinishedStudy, cell: Mapping[str, Any]) -> str:
    """Of the rule's source; where that is not known, of the study, for nothing says that two studies share the rule."""
    known = _of_rule(study, "sources", cell["rule"])
    return (
        f"code {known[:8]}"
        if isinstance(known, str) and known.isprintable()
        else f"study {study.manifest['id'][:8]}"
    )


def _space(study: FinishedStudy, cell: Mapping[str, Any]) -> str:
    """Of what may be tuned, and of the evaluations that a step is counted as."""
    asked = [_of_rule(study, "spaces", cell["rule"]), cell.get("evaluations")]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:8]


def _optimum(study: FinishedStudy, cell: Mapping[str, Any]) -> str:
    """f*, by which workloads of one name and size are told apart."""
    found = cell.get("optimum")
    return f"f* {found:.9g}" if isinstance(found, float) else "f* unknown"


def _of_rule(study: FinishedStudy, name: str, rule: str) -> Any:
    entries = study.numbers.get(name)
    return entries.get(rule) if isinstance(entries, dict) else None


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"
