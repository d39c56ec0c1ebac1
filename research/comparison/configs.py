"""Write the config of a command line that repeats a study made in Python."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from research import update_rules
from research.comparison.contenders import Contender, make_contenders
from research.comparison.network_contenders import network_contenders
from research.runs import seeds_text
from research.tuning.spaces import Range, range_text

# `make_protocol` has this level by default, and no flag changes it.
LEVEL = 0.95


def compare_config(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config with which `descent compare` repeats a study.

    The config is a dict from the names of the flags to their values. `parse_command`
    turns these values into the arguments of `compare` again. The flag `rule` has one
    text for each rule. For a rule that no command line can name, such as a lambda, the
    text is the name of the rule in the study, followed by "=<in Python>". No command
    can repeat a study with such a rule. The config also has the entry `in_python`, the
    Python call that repeats the study, in three cases: a workload was given as an
    object, a rule was given as a Contender that no flag describes, or the level of the
    confidence intervals is not 0.95.

    Args:
      numbers: The `numbers` of a `Study` that `compare` returned.
    """
    protocol = numbers["protocol"]
    names = ("searches", "budget", "passes", "search_seed", "target", "tune_on")
    config = {
        "rule": _words(numbers),
        "workload": numbers["workloads"],
        "baseline": numbers["baseline"],
        **{name: protocol[name] for name in names},
        "batch_size": protocol["batch_size"] or 0,
        "seeds": seeds_text(protocol["seeds"]),
        "tuning_seeds": seeds_text(protocol["tuning_seeds"]),
        "width": protocol["width"],
        "space": _spaces(numbers, make_contenders),
        "evaluations": _evaluations(numbers),
        "files": numbers["origin"]["files"],
    }
    return _with_call(config, numbers, _call(numbers))


def networks_config(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config with which the command `descent networks` repeats a study.

    The config is a dict from the names of the flags to their values. It also has the
    entry `in_python`, the Python call that repeats the study, in the three cases that
    `compare_config` lists.

    Args:
      numbers: The `numbers` of a `NetworkStudy` that `compare_networks` returned.
    """
    protocol = numbers["protocol"]
    names = ("searches", "budget", "search_seed")
    make = functools.partial(
        network_contenders, search_schedule=numbers["search_schedule"]
    )
    config = {
        "rule": _words(numbers),
        "network": numbers["networks"],
        "baseline": numbers["baseline"],
        **{name: protocol[name] for name in names},
        "seeds": seeds_text(protocol["seeds"]),
        "tuning_seeds": seeds_text(protocol["tuning_seeds"]),
        "size": numbers["size"],
        "search_schedule": numbers["search_schedule"],
        "space": _spaces(numbers, make),
        "evaluations": _evaluations(numbers),
        "files": numbers["origin"]["files"],
    }
    terms = {
        **{name: protocol[name] for name in ("searches", "budget", "level")},
        **{name: protocol[name] for name in ("seeds", "tuning_seeds", "search_seed")},
        **{name: numbers[name] for name in ("baseline", "size", "search_schedule")},
        "evaluations": numbers["evaluations"],
    }
    call = (
        f"compare_networks(rules, {numbers['networks']!r}, {_arguments(terms)}, "
        f"spaces={_spaces_in_python(numbers)})"
    )
    return _with_call(config, numbers, f"research.comparison.{call}")


def _with_call(
    config: dict[str, Any], numbers: Mapping[str, Any], call: str
) -> dict[str, Any]:
    """Drop flags without a value, and add the Python call if flags are not enough."""
    config = {name: value for name, value in config.items() if value != []}
    given = numbers["origin"]["own"] or numbers["origin"].get("contenders")
    if given or numbers["protocol"]["level"] != LEVEL:
        config["in_python"] = call
    return config


def _words(numbers: Mapping[str, Any]) -> list[str]:
    words = numbers["origin"]["words"]
    return [
        name if words[name] == name else f"{name}={words[name]}"
        for name in numbers["rules"]
    ]


def _spaces(
    numbers: Mapping[str, Any],
    make: Callable[..., tuple[Contender, ...]],
) -> list[str]:
    """Return the flags for the search spaces that are not this package's defaults."""
    words = numbers["origin"]["words"]
    found = []
    for rule, space in numbers["spaces"].items():
        ranges = {name: Range(*ends) for name, ends in space.items()}
        word = words[rule]
        if word in update_rules.RULE_TABLE and make({rule: word})[0].space == ranges:
            continue
        found += [f"{rule}.{name}={range_text(ends)}" for name, ends in ranges.items()]
    return found


def _evaluations(numbers: Mapping[str, Any]) -> list[str]:
    words, table = numbers["origin"]["words"], update_rules.RULE_TABLE
    usual = {
        rule: table[word].evaluations if word in table else 1.0
        for rule, word in words.items()
    }
    return [
        f"{rule}={cost!r}"
        for rule, cost in numbers["evaluations"].items()
        if cost != usual[rule]
    ]


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
    return (
        f"research.comparison.compare(rules, {numbers['workloads']!r}, "
        f"{_arguments(terms)}, spaces={_spaces_in_python(numbers)})"
    )


def _spaces_in_python(numbers: Mapping[str, Any]) -> str:
    """Return the search spaces of a study as the text of a dict."""
    spaces = ", ".join(
        f"{rule!r}: {{{', '.join(_range(*item) for item in space.items())}}}"
        for rule, space in numbers["spaces"].items()
    )
    return f"{{{spaces}}}"


def _arguments(terms: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in terms.items())


def _range(name: str, ends: list[Any]) -> str:
    return f"{name!r}: research.tuning.Range{tuple(ends)!r}"
