"""Rank rules over many studies, separately for each workload and protocol."""

import hashlib
import json
import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from research.comparison.archive import SavedStudy
from research.leaderboard.gathering import Gathered

# Settings that must be equal if two costs are to be compared.
PROTOCOL = ("searches", "budget", "passes", "batch_size", "target", "tune_on")
# The same on networks; the last two are settings of the network.
NETWORK_PROTOCOL = ("searches", "budget", "num_steps", "batch_size")
ON_NETWORKS = "networks"  # Marks the protocols of studies on networks.


class Entry(NamedTuple):
    """One study's measurement of one rule on one workload.

    Attributes:
      study: The study.
      rule: Name of the update rule. Two studies may use one name for different rules.
        If the sources of these rules differ or are not known, a digest of the source is
        added to the name. For a rule without a known source, the id of the study is
        added instead. If the search spaces or the costs of a step differ, a digest of
        the search space and the cost is added.
      workload: Name of the workload, an optimisation problem. Two studies may use one
        name for different workloads. Then a text that tells them apart is added to the
        name: the number of examples if it differs, and the minimum f* of the objective
        if it differs. For a network, the text has the number of parameters if it
        differs, and a note on the data if they differ. The note is "named data" if the
        network is one of this package. Otherwise the note has a digest of the data, and
        the loss and the norm of the gradient at the start. If these are not known, the
        note has the id of the study.
      protocol: Number of the protocol in `Rankings.protocols`, counted from 1. The
        protocol consists of the settings of the measurement.
      cost, low, high: Cost of the rule, and the ends of its confidence interval. The
        cost is the number of gradients of single examples until the target is reached,
        and inf means that the target was not reached. For a study on networks, the cost
        is the validation loss at the end. If the study does not contain this loss,
        `cost` is inf. If the study does not contain an end of the interval, this end is
        inf.
      measurement: Measurement of the rule, as stored in the study.
      comparison: Comparison of the rule with the baseline of the study, as stored in
        the study. None if the study has no such comparison, for example because the
        rule is the baseline.
    """

    study: SavedStudy
    rule: str
    workload: str
    protocol: int
    cost: float
    low: float
    high: float
    measurement: Mapping[str, Any]
    comparison: Mapping[str, Any] | None


class Rankings(NamedTuple):
    """The rankings of many studies.

    Attributes:
      gathered: The studies, from `gather`.
      protocols: The different protocols, in order of their first occurrence. A protocol
        consists of the settings that must be equal if two costs are to be compared. For
        most studies, it is a tuple with the values of the settings named in `PROTOCOL`.
        For a study on networks, it is instead a tuple with the word `ON_NETWORKS` and
        the values of the settings named in `NETWORK_PROTOCOL`.
      all: The rankings. There is one ranking for each workload and protocol. A ranking
        is a tuple of entries, each the measurement of one rule in one study. The
        entries are sorted by the cost of the rule, lowest cost first. The cost of a
        rule is the median cost of its entries.
    """

    gathered: Gathered
    protocols: tuple[tuple[Any, ...], ...]
    all: tuple[tuple[Entry, ...], ...]

    @property
    def contests(self) -> list[tuple[Entry, ...]]:
        """The rankings that have at least two rules."""
        return [
            ranking
            for ranking in self.all
            if len({entry.rule for entry in ranking}) > 1
        ]


def merge(gathered: Gathered) -> Rankings:
    """Rank the measurements of all studies, one ranking per workload and protocol.

    A measurement contains the costs of one rule on one workload in one study. A
    protocol consists of the settings that must be equal if two costs are to be
    compared.
    """
    studies = gathered.studies
    ambiguous = {
        "code": _ambiguous(studies, _rule, _code),
        "space": _ambiguous(studies, _rule, _space),
        "n": _ambiguous(studies, workload_of, _size),
        "optimum": _ambiguous(studies, workload_of, _optimum),
        "data": _ambiguous(studies, workload_of, _data),
    }
    protocols: list[tuple[Any, ...]] = []
    grouped: dict[tuple[str, int], list[Entry]] = {}
    for study in studies:
        comparisons = study.numbers["comparisons"]
        compared = {(workload_of(study, c), c["rule"]): c for c in comparisons}
        for measurement in study.numbers["cells"]:
            rule, workload = measurement["rule"], workload_of(study, measurement)
            terms = terms_of(study, measurement)
            protocols += [terms] if terms not in protocols else []
            entry = Entry(
                study,
                rule + _rule_details(study, measurement, ambiguous),
                workload + _workload_details(study, measurement, ambiguous),
                protocols.index(terms) + 1,
                *_scores(study, measurement),
                measurement,
                compared.get((workload, rule)),
            )
            grouped.setdefault((entry.workload, entry.protocol), []).append(entry)
    return Rankings(
        gathered,
        tuple(protocols),
        tuple(_ordered(grouped[key]) for key in sorted(grouped)),
    )


def workload_of(study: SavedStudy, entry: Mapping[str, Any]) -> str:
    """Return the name of the workload, or of the network, to which an entry belongs.

    `entry` is a measurement or a comparison of the study: a mapping from names to
    values.
    """
    return entry["network" if study.on_networks else "workload"]


def terms_of(study: SavedStudy, measurement: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the protocol of a measurement, as a tuple of settings.

    A measurement gives the cost of a rule in a study. The protocol has the settings
    that must be equal if two costs are to be compared.
    """
    protocol = study.numbers["protocol"]
    if not study.on_networks:
        return tuple(protocol[name] for name in PROTOCOL)
    searches, budget, *of_network = NETWORK_PROTOCOL
    terms = (protocol[searches], protocol[budget])
    return (ON_NETWORKS, *terms, *(measurement[name] for name in of_network))


def _rule_details(
    study: SavedStudy,
    measurement: Mapping[str, Any],
    ambiguous: Mapping[str, set[str]],
) -> str:
    """Return a text that distinguishes the rule from other rules of the same name.

    The text is "" if all rules of this name are the same.
    """
    rule = measurement["rule"]
    code = f" · {_code(study, measurement)}" if rule in ambiguous["code"] else ""
    space = _space(study, measurement) if rule in ambiguous["space"] else ""
    return code + (f" · space {space}" if space else "")


def _workload_details(
    study: SavedStudy,
    measurement: Mapping[str, Any],
    ambiguous: Mapping[str, set[str]],
) -> str:
    """Return a text that distinguishes the workload from others of the same name.

    The text is "" if all workloads of this name are the same.
    """
    workload = workload_of(study, measurement)
    what = "parameters" if study.on_networks else "examples"
    size = f" · {_size(study, measurement):,} {what}"
    examples = size if workload in ambiguous["n"] else ""
    if workload in ambiguous["data"]:
        return f"{examples} · {_data(study, measurement)}"
    if workload in ambiguous["optimum"]:
        return f"{examples} · {_optimum(study, measurement)}"
    return examples


def costs(ranking: Sequence[Entry]) -> dict[str, float]:
    """Return the cost of each rule of a ranking, as a dict from names to costs.

    The cost of a rule is the median cost of its entries in the ranking. The lowest cost
    would not be fair, because a rule could get a better place by being submitted more
    often.
    """
    by_rule: dict[str, list[float]] = {}
    for entry in ranking:
        by_rule.setdefault(entry.rule, []).append(entry.cost)
    return {rule: statistics.median(each) for rule, each in by_rule.items()}


def _ordered(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    cost = costs(entries)
    return tuple(sorted(entries, key=lambda entry: (cost[entry.rule], entry.cost)))


def leaders(ranking: Sequence[Entry]) -> tuple[set[str], bool]:
    """Return the rules with the lowest cost, and whether a single rule clearly leads.

    An entry of the ranking is one study's measurement of one rule on a workload. The
    cost of a rule is the median cost of its entries. A rule clearly leads if it alone
    has the lowest cost and two conditions hold. First, the confidence intervals of the
    costs of this rule all lie below those of the other rules. Second, each study that
    compared this rule with another rule found this rule better.

    The set of rules is empty if no rule reaches the target.
    """
    cost = costs(ranking)
    lowest = min(cost.values())
    rules = {rule for rule, own in cost.items() if own == lowest < math.inf}
    highest = max(
        (entry.high for entry in ranking if entry.rule in rules), default=math.inf
    )
    others = min(
        (entry.low for entry in ranking if entry.rule not in rules), default=math.inf
    )
    if len(rules) != 1 or not highest < others:
        return rules, False
    of_study = {
        (id(entry.study), entry.measurement["rule"]): entry.rule
        for entry in reversed(ranking)
    }
    return rules, all(_decided(entry, of_study, rules) for entry in ranking)


def _decided(
    entry: Entry, of_study: Mapping[tuple[int, str], str], first: set[str]
) -> bool:
    """Return False if an entry's comparison contradicts that a rule in `first` leads.

    This is the case if the comparison is between a rule in `first` and another rule,
    and its verdict is not in favour of the rule in `first`.
    """
    if entry.comparison is None:
        return True
    other = of_study.get((id(entry.study), entry.comparison["baseline"]))
    if other is None or (other in first) == (entry.rule in first):
        return True
    return entry.comparison["verdict"] == ("better" if entry.rule in first else "worse")


def answer(rankings: Rankings) -> tuple[str, str]:
    """Return two texts: which rule leads, and remarks on the rankings.

    A ranking sorts the rules that were measured on one workload with the same settings.
    """
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
        return "no two rules share a workload and a protocol, so there is no ranking"
    lowest = [leaders(ranking) for ranking in contests]
    wins = Counter(rule for rules, _ in lowest for rule in sorted(rules))
    of = _count(len(contests), "ranking", "rankings")
    if not wins:
        return f"no rule reaches the target in any of {of}"
    most = max(wins.values())
    best = sorted(rule for rule in wins if wins[rule] == most)
    if len(best) > 1:
        listed = f"{', '.join(best[:-1])} and {best[-1]}"
        return f"{listed} each have the lowest cost in {most} of {of}"
    apart = sum(alone for rules, alone in lowest if rules == set(best))
    return (
        f"{best[0]} has the lowest cost in {most} of {of}; in {apart or 'none'} of "
        "them its interval lies below all others"
    )


def _remarks(rankings: Rankings) -> list[str]:
    studies, repeated, left_out = rankings.gathered
    alone = len(rankings.all) - len(rankings.contests)
    ambiguous = sorted(
        _ambiguous(studies, _rule, _code) | _ambiguous(studies, _rule, _space)
    )
    remarks = [
        "Each ranking is for one workload and one protocol, so that only comparable "
        "results are compared."
    ]
    if any(study.on_networks for study in studies):
        remarks.append("On networks, the cost is the validation loss at the end.")
    if alone:
        remarks.append(
            f"{alone} more have only one rule, so there is nothing to compare."
        )
    if ambiguous:
        remarks.append(
            "Rules with the same name count as different rules if their source, "
            "search space or cost of a step differs, or if the source is unknown: "
            f"{', '.join(ambiguous)}."
        )
    if any(
        len(ranking) > len({entry.rule for entry in ranking})
        for ranking in rankings.contests
    ):
        remarks.append("If a rule is in several studies, its cost is the median.")
    if repeated:
        remarks.append(f"A copy of a study counts once: {', '.join(repeated)}.")
    if left_out:
        remarks.append(
            "Skipped, because they cannot be read: "
            f"{', '.join(name for name, _ in left_out)}."
        )
    return remarks


def _scores(
    study: SavedStudy, measurement: Mapping[str, Any]
) -> tuple[float, float, float]:
    """Return (cost, low, high) in example gradients, or the loss on a network.

    A study states the ends of the interval in passes over the data. They are converted
    to example gradients.
    """
    if study.on_networks:
        names = ("loss", "loss_low", "loss_high")
        cost, low, high = (
            math.inf if measurement[name] is None else measurement[name]
            for name in names
        )
        return cost, low, high
    cost, gradients = measurement["cost"], measurement["example_gradients"]
    n = float(measurement["n"])
    one_pass = gradients / cost if cost and cost < math.inf else n
    ends = (measurement["cost_low"], measurement["cost_high"])
    low, high = (math.inf if end is None else end * one_pass for end in ends)
    return math.inf if gradients is None else gradients, low, high


def _ambiguous(
    studies: Sequence[SavedStudy],
    name_of: Callable[[SavedStudy, Any], str],
    of: Callable[[SavedStudy, Any], Any],
) -> set[str]:
    """Return the names with several meanings among all studies.

    `name_of` and `of` return a name and its meaning from a study and a measurement.
    """
    meanings: dict[str, set[Any]] = {}
    for study in studies:
        for measurement in study.numbers["cells"]:
            key, value = name_of(study, measurement), of(study, measurement)
            meanings.setdefault(key, set()).add(value)
    return {key for key, values in meanings.items() if len(values) > 1}


def _rule(study: SavedStudy, measurement: Mapping[str, Any]) -> str:
    del study
    return measurement["rule"]


def _size(study: SavedStudy, measurement: Mapping[str, Any]) -> int:
    """Return the number of examples, or for a network the number of parameters."""
    return measurement["parameters" if study.on_networks else "n"]


def _code(study: SavedStudy, measurement: Mapping[str, Any]) -> str:
    """Return the digest of a rule's source, or the study's id if there is no source.

    Without a source it is not known whether two studies have the same rule.
    """
    known = _of_rule(study, "sources", measurement["rule"])
    return (
        f"code {known[:8]}"
        if isinstance(known, str) and known.isprintable()
        else f"study {study.manifest['id'][:8]}"
    )


def _space(study: SavedStudy, measurement: Mapping[str, Any]) -> str:
    """Return a digest of the rule's search space and of the cost of its step."""
    space = _of_rule(study, "spaces", measurement["rule"])
    terms = json.dumps([space, measurement.get("evaluations")], sort_keys=True)
    return hashlib.sha256(terms.encode()).hexdigest()[:8]


def _optimum(study: SavedStudy, measurement: Mapping[str, Any]) -> str:
    """Return f* as text, to distinguish workloads with the same name."""
    optimum = measurement.get("optimum")
    return f"f* {optimum:.9g}" if isinstance(optimum, float) else "f* unknown"


def _data(study: SavedStudy, measurement: Mapping[str, Any]) -> str:
    """Return a text that distinguishes different networks of one name.

    A network that a study names has the data of this package. For another network, the
    text has the digest of the data, and the loss and the norm of the gradient at the
    start: the same data can belong to another model or another loss. For an older study
    without these, the text has the id of the study.
    """
    origin = study.numbers.get("origin")
    own = origin.get("own") if isinstance(origin, dict) else None
    given = isinstance(own, list) and workload_of(study, measurement) in own
    if not study.on_networks or not given:
        return "named data"
    known = measurement.get("data")
    start = study.numbers.get("starts", {}).get(workload_of(study, measurement))
    if not known or start is None:
        return f"study {study.manifest['id'][:8]}"
    # Rounded, because the last digits depend on the processor.
    loss, gradient = (
        "not finite" if start[name] is None else f"{start[name]:.3g}"
        for name in ("loss", "gradient")
    )
    return f"data {known[:8]} · loss {loss} and gradient {gradient} at the start"


def _of_rule(study: SavedStudy, name: str, rule: str) -> Any:
    entries = study.numbers.get(name)
    return entries.get(rule) if isinstance(entries, dict) else None


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"
