"""The fuzzer: every public function, one argument wrong at a time, and counts of what
became of it.
"""

import collections
import inspect
import random
import time
from collections.abc import Iterable, Sequence

from outcomes import KINDS, Case, Outcome, outcome_of
from public_calls import Call, calls
from wrong_values import wrong_values

# What checks arguments takes anything, and says so of it.
NOT_FUZZED = ("checks.", "descent.check_", "objectives.check_")


def cases_of(call: Call) -> list[Case]:
    """All cases of a call: each parameter of the signature, those included that the
    call leaves to their defaults.
    """
    if call.name.startswith(NOT_FUZZED):
        return []
    found = []
    for parameter in inspect.signature(call.function).parameters.values():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        valid = call.arguments.get(parameter.name, parameter.default)
        found += [Case(call, parameter.name, wrong) for wrong in wrong_values(valid)]
    return found


def sample(seed: int, cases: int) -> list[Case]:
    """So many cases, as many of each call as of any other while they last, in the order
    of the calls. A new call does not change which cases of the others come first.
    """
    left = {call.name: cases_of(call) for call in calls()}
    generators = {name: random.Random(f"{seed} {name}") for name in left}
    turns = {name: generator.random() for name, generator in generators.items()}
    for name, of_call in left.items():
        generators[name].shuffle(of_call)
    chosen: collections.Counter[str] = collections.Counter()
    while sum(chosen.values()) < cases and any(
        chosen[name] < len(of_call) for name, of_call in left.items()
    ):
        open_ones = [
            name for name, of_call in left.items() if chosen[name] < len(of_call)
        ]
        open_ones.sort(key=turns.__getitem__)
        for name in open_ones[: cases - sum(chosen.values())]:
            chosen[name] += 1
    return [case for name, of_call in left.items() for case in of_call[: chosen[name]]]


def fuzz(cases: Iterable[Case]) -> list[Outcome]:
    """Make each call and return its outcome."""
    return [outcome_of(case) for case in cases]


def shares(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """The share of each kind."""
    counts = collections.Counter(outcome.kind for outcome in outcomes)
    return {kind: counts[kind] / max(len(outcomes), 1) for kind in KINDS}


def table(outcomes: Sequence[Outcome]) -> str:
    """Counts of each function and of each kind of error, worst first."""
    by_function: dict[str, collections.Counter[str]] = collections.defaultdict(
        collections.Counter
    )
    for outcome in outcomes:
        by_function[outcome.case.call.name][outcome.kind] += 1
    bad = lambda counts: counts["unclear error"] + counts["silent nonsense"]
    lines = [f"{'function':50} " + " ".join(f"{kind:>16}" for kind in KINDS)]
    for name, counts in sorted(by_function.items(), key=lambda item: -bad(item[1])):
        lines.append(f"{name:50} " + " ".join(f"{counts[kind]:16}" for kind in KINDS))
    unclear = collections.Counter(
        (o.error, o.message[:60]) for o in outcomes if o.kind == "unclear error"
    )
    lines += ["", "unclear errors, the most frequent:"]
    lines += [
        f"{count:6}  {error}: {message}"
        for (error, message), count in unclear.most_common(40)
    ]
    lines += [
        "",
        f"{len(outcomes)} calls: "
        + ", ".join(f"{kind} {share:.1%}" for kind, share in shares(outcomes).items()),
    ]
    return "\n".join(lines)


def timed(cases: Sequence[Case]) -> tuple[list[Outcome], float]:
    """The outcomes, and the seconds they took."""
    start = time.process_time()
    return fuzz(cases), time.process_time() - start
