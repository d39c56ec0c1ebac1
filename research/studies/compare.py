"""Which rule is better here, by how much, and may one say so: rules of equal budgets on workloads, compared."""

import difflib
import hashlib
import inspect
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import jax
import numpy as np

from research import runs, workloads
from research.runs.files import canonical
from research.studies.contenders import Contender, check_contender, contenders
from research.studies.pairs import measure_pair, sampler_of, scores_of
from research.studies.profiles import performance_profile
from research.studies.protocol import Protocol, make_protocol
from research.studies.resampling import choice_weights
from research.studies.scores import Scores
from research.studies.statistics import Overall, difference, overall
from research.studies.study import FORMAT, HALF, Study, as_number, told
from research.types import Checkpoints, Saved, Workload, nowhere

FACTORS = 2.0 ** np.linspace(0, 5, 41)  # At which a performance profile is looked at: 1 to 32 times the best.

OnProgress = Callable[[float, float, str], None]


def compare(
    rules: Mapping[str, Any] | Sequence[str],
    workload: str | Workload | Sequence[str | Workload],
    *,
    baseline: str | None = None,
    spaces: Mapping[str, Any] | None = None,
    evaluations: Mapping[str, float] | None = None,
    timed: bool = True,
    on_progress: OnProgress | None = None,
    checkpoints: Checkpoints = nowhere,
    **terms: Any,
) -> Study:
    """Compares rules on workloads: example gradients to a target, tuning included, with intervals that include the choice.

    Each rule gets the same number of trials on each workload: its defaults, then quasi-random points of its search space.
    A trial is chosen on the tuning seeds and reported on others. Every rule meets a seed's initial point and order of
    examples, so that differences are paired. The intervals are about other seeds, the points that were tried taken as they
    are: with few trials in a wide space other points may choose otherwise, which cost against trials shows.

    Args:
      rules: By name: a constructor that takes a learning rate first (ours, optax's or your own), the name of one of ours, a
        gradient transformation that is already made (it has one trial), or a `Contender`. A sequence names ours.
      workload: Names as in `research.workloads.WORKLOADS`, or workloads.
      baseline: What the others are compared with; None: the last of the rules.
      spaces: {rule: {hyper-parameter: Range}} where another space is wanted than `contenders` gives.
      evaluations: {rule: gradients or values of its batch that a step costs} for a rule that calls `value_fn`.
      timed: Whether seconds are measured, which costs a compilation more a pair.
      on_progress: Called with (done, total, message).
      checkpoints: Where what is done is kept.
      **terms: budget, passes, batch_size, seeds, tuning_seeds, tune_on, target, level, width, as `make_protocol` takes
        them.
    Returns:
      The study; print it.
    Raises:
      ValueError, TypeError: Something of it makes no sense, or a rule is none, or cannot be traced; nothing was trained
        then. The message names rule and argument.
    References:
      Choi et al. 2019, arXiv:1910.05446 (budgets and spaces decide comparisons); Bouthillier et al. 2021,
      arXiv:2103.03098 (variance of the choice; the probability that A is better); Dodge et al. 2019, arXiv:1909.03004
      (expected results of k trials); Hansen et al. 2021, doi:10.1080/10556788.2020.1808977 (expected running time).
    Example:
      >>> from research import studies, update_rules
      >>> rules = {"momentum": update_rules.heavy_ball, "plain": update_rules.gradient_descent}
      >>> study = studies.compare(rules, "quadratic", budget=4, passes=40, seeds=5, timed=False)
      >>> study.numbers["rules"], len(study.numbers["cells"])
      (['momentum', 'plain'], 2)
    """
    protocol, bring = plan(rules, workload, baseline=baseline, spaces=spaces, evaluations=evaluations, **terms)
    found = measure_pairs(
        protocol, bring, make_workloads(workload), timed=timed, on_progress=on_progress, checkpoints=checkpoints
    )
    return conclude(protocol, baseline or bring[-1].name, bring, found)


def measure_pairs(
    protocol: Protocol,
    bring: Sequence[Contender],
    on: Sequence[Workload],
    *,
    timed: bool = True,
    on_progress: OnProgress | None = None,
    checkpoints: Checkpoints = nowhere,
) -> dict[tuple[str, str], Saved]:
    """`measure_pair` for every workload and rule, by (workload, rule); arguments as for `compare`."""
    pairs = list(itertools.product(on, bring))
    found = {}
    for done, (workload, contender) in enumerate(pairs):
        label = f"{contender.name} on {workload.name}"
        if on_progress is not None:
            on_progress(done, len(pairs), label)
        tell = _tell(on_progress, done, len(pairs), label)
        found[workload.name, contender.name] = remembered_pair(
            workload, contender, protocol, timed=timed, on_chunk=tell, checkpoints=checkpoints
        )
    if on_progress is not None:
        on_progress(len(pairs), len(pairs), "statistics")
    return found


def plan(
    rules: Mapping[str, Any] | Sequence[str],
    workload: str | Workload | Sequence[str | Workload],
    *,
    baseline: str | None = None,
    spaces: Mapping[str, Any] | None = None,
    evaluations: Mapping[str, float] | None = None,
    **terms: Any,
) -> tuple[Protocol, tuple[Contender, ...]]:
    """Checks all that `compare` is given, by tracing one step of every rule on every workload; nothing is trained."""
    protocol = make_protocol(**_known_terms(terms))
    bring = contenders(rules, spaces=spaces, evaluations=evaluations)
    if len(bring) < 2:
        raise ValueError(f"a comparison needs two rules or more; got {[c.name for c in bring]}.")
    names = [contender.name for contender in bring]
    if baseline is not None and baseline not in names:
        raise ValueError(f"baseline must be one of the rules, {', '.join(names)}; got {baseline!r}.")
    for on in make_workloads(workload):
        sampler_of(on, protocol.batch_size)
        for part in (protocol.tune_on, protocol.reported_on):
            if part != "train" and getattr(on, part) is None:
                raise ValueError(f"workload {on.name!r} has no {part} part: tune_on='train' needs none.")
        params = jax.eval_shape(on.init, jax.random.key(0))
        for contender in bring:
            if contender.evaluations > protocol.passes:
                raise ValueError(
                    f"passes={protocol.passes} is less than one epoch of {contender.name}, whose step costs "
                    f"{contender.evaluations:g} gradients; give passes of at least {math.ceil(contender.evaluations)}."
                )
            check_contender(contender, params, on.objective, on.train)
    return protocol, bring


def compute_share(
    rules: Mapping[str, Any] | Sequence[str],
    workload: str | Workload | Sequence[str | Workload],
    part: int,
    parts: int,
    *,
    checkpoints: Checkpoints,
    **arguments: Any,
) -> None:
    """Computes every `parts`-th (workload, rule) from `part` on, and keeps it where `compare` will look for it.

    Args:
      rules, workload, arguments: As for `compare`.
      part: 0, ..., parts - 1.
      parts: Among how many processes the pairs are shared.
      checkpoints: The same place for all of them, and for `compare`.
    """
    timed = arguments.pop("timed", True)
    protocol, bring = plan(rules, workload, **arguments)
    for on, contender in list(itertools.product(make_workloads(workload), bring))[part::parts]:
        remembered_pair(on, contender, protocol, timed=timed, checkpoints=checkpoints)


def remembered_pair(
    on: Workload, contender: Contender, protocol: Protocol, *, checkpoints: Checkpoints, **how: Any
) -> Saved:
    """`measure_pair`, from its checkpoint where there is one."""
    compute = lambda parts: measure_pair(on, contender, protocol, checkpoints=parts, **how)
    terms = canonical({"protocol": protocol._asdict(), "space": contender.space, "evaluations": contender.evaluations})
    digest = hashlib.sha256(terms.encode()).hexdigest()[:8]
    return runs.remembered(checkpoints, f"{on.name}/{contender.name} {digest}", compute)


def conclude(
    protocol: Protocol, baseline: str, bring: Sequence[Contender], found: Mapping[tuple[str, str], Saved]
) -> Study:
    """The study, from what became of each (workload, rule)."""
    names = [contender.name for contender in bring]
    on = list(dict.fromkeys(workload for workload, _ in found))
    others = [name for name in names if name != baseline]
    settings = {"trials": protocol.budget, "level": protocol.level}
    scores = {key: scores_of(saved.arrays) for key, saved in found.items()}
    comparisons, together = [], []
    for rule in others:
        both = [(scores[workload, rule], scores[workload, baseline]) for workload in on]
        each = [difference(*pair, comparisons=len(others) * len(on), **settings) for pair in both]
        for workload, seen in zip(on, each, strict=True):
            comparisons.append({"workload": workload, "rule": rule, "baseline": baseline} | as_number(seen))
        reached = [(_reaches(found[w, rule]), _reaches(found[w, baseline])) for w in on]
        seen = _together(both, reached, [d.verdict for d in each], comparisons=len(others), **settings)
        together.append({"rule": rule, "baseline": baseline} | as_number(seen))
    cells = [saved.values for saved in found.values()]
    costs = np.array([[_cost(found[workload, rule]) for rule in names] for workload in on])
    profile = performance_profile(costs, FACTORS)
    arrays = {f"{w}/{r}/{name}": array for (w, r), saved in found.items() for name, array in saved.arrays.items()}
    arrays |= {"profile/factors": FACTORS} | {f"profile/{rule}": row for rule, row in zip(names, profile, strict=True)}
    numbers = {
        "study": FORMAT,
        "protocol": protocol._asdict() | {"reported_on": protocol.reported_on},
        "baseline": baseline,
        "rules": names,
        "sources": {contender.name: source_digest(contender.make_rule) for contender in bring},
        "evaluations": {c.name: c.evaluations for c in bring},
        "spaces": {c.name: {name: list(found_range) for name, found_range in c.space.items()} for c in bring},
        "workloads": on,
        "cells": cells,
        "comparisons": comparisons,
        "overall": together,
    }
    answer, tables = told(numbers)
    return Study(answer, tables, arrays, numbers)


def leader(found: Mapping[tuple[str, str], Saved], *, trials: int) -> str:
    """The rule that the tuning seeds speak for, so that reporting it on the others is no choice after the fact.

    It has the least geometric mean, over workloads, of its score over the best of all rules.

    Args:
      found: From `measure_pairs`.
      trials: The budget: a rule that made more counts as the expected best of so many of them; 1: the defaults alone.
    Returns:
      Its name; ties go to the first.
    """
    logs: dict[str, float] = {}
    for workload in dict.fromkeys(workload for workload, _ in found):
        means = {r: s.arrays["tuning"].mean(axis=1) for (w, r), s in found.items() if w == workload}
        scores = {rule: float(choice_weights(own, trials) @ own) for rule, own in means.items()}
        for rule, score in scores.items():
            logs[rule] = logs.get(rule, 0.0) + math.log(score / min(scores.values()))
    return min(logs, key=lambda rule: logs[rule])


def make_workloads(given: str | Workload | Sequence[str | Workload]) -> list[Workload]:
    """Workloads by name or as they are, each once."""
    if isinstance(given, str | Workload):
        given = [given]
    made = [workloads.make_workload(one) if isinstance(one, str) else one for one in cast(Sequence, given)]
    names = [one.name for one in made]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"workload must name at least one, each once; got {names}.")
    return made


def source_digest(make_rule: Any) -> str | None:
    """The SHA-256 of a constructor's source, by which two studies see whether they have the same rule; None: unknown."""
    if not hasattr(make_rule, "__wrapped__"):  # A rule that was already made shows no source of its own.
        return None
    try:
        text = inspect.getsource(inspect.unwrap(make_rule))
    except (TypeError, OSError):
        return None
    return hashlib.sha256(text.encode()).hexdigest()


def _known_terms(terms: dict[str, Any]) -> dict[str, Any]:
    known = list(inspect.signature(make_protocol).parameters)
    for name in terms:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {close[0]}?" if close else f"Its terms are {', '.join(known)}."
            raise TypeError(f"compare has no argument {name!r}. {hint}")
    return terms


def _together(
    both: Sequence[tuple[Scores, Scores]],
    reached: Sequence[tuple[bool, bool]],
    verdicts: Sequence[str],
    **settings: Any,
) -> Overall:
    """`overall` on the workloads where both reach the target; a workload where one alone does counts if it is decided."""
    common = [pair for pair, each in zip(both, reached, strict=True) if all(each)]
    alone = {one for one, each in zip(verdicts, reached, strict=True) if any(each) and not all(each)} - {"undecided"}
    every = overall(both, **settings)
    ratio, low, high = {("better",): (0.0,) * 3, ("worse",): (math.inf,) * 3}.get(
        tuple(alone), (math.nan, 0.0, math.inf)
    )
    seen = Overall(ratio, low, high, every.win, every.win_low, every.win_high, "undecided", 0)
    if common:
        seen = overall(common, **settings)._replace(win=every.win, win_low=every.win_low, win_high=every.win_high)
    decided = alone | ({seen.verdict} - {"undecided"})
    return seen._replace(verdict=decided.pop() if len(decided) == 1 else "undecided")


def _reaches(saved: Saved) -> bool:
    return saved.values["reached"] >= HALF


def _cost(saved: Saved) -> float:
    return np.inf if saved.values["cost"] is None else saved.values["cost"]


def _tell(on_progress: OnProgress | None, done: int, total: int, label: str) -> Callable[[Any], None] | None:
    if on_progress is None:
        return None
    return lambda progress: on_progress(done + progress.share, total, f"{progress}: {label}")
