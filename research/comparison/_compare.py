"""Which rule is better here, by how much, and may one say so: rules of equal budgets on workloads, compared."""

import hashlib
import inspect
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import jax

from research import runs, workloads
from research.checks import (
    check_callable,
    check_count,
    check_flag,
    check_instance,
    check_sequence,
    check_text,
)
from research.comparison._contenders import Contender, check_contender, contenders
from research.comparison.conclusion import conclude
from research.comparison.pairs import measure_pair, sampler_of
from research.comparison.protocol import Protocol, make_protocol
from research.comparison.study import Study
from research.naming import known_names
from research.runs.files import canonical
from research.types import Checkpoints, Saved, Workload, no_checkpoints
from research.workloads import known_optimum

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
    checkpoints: Checkpoints = no_checkpoints,
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
      workload: Names as in `research.workloads.WORKLOADS`, or workloads whose optimum is known: a target is a share of f - f*.
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
    check_flag("timed", timed)
    _check_callbacks(on_progress, checkpoints)
    protocol, bring = plan(
        rules,
        workload,
        baseline=baseline,
        spaces=spaces,
        evaluations=evaluations,
        **terms,
    )
    found = measure_pairs(
        protocol,
        bring,
        make_workloads(workload),
        timed=timed,
        on_progress=on_progress,
        checkpoints=checkpoints,
    )
    return conclude(protocol, baseline or bring[-1].name, bring, found)


def measure_pairs(
    protocol: Protocol,
    bring: Sequence[Contender],
    on: Sequence[Workload],
    *,
    timed: bool = True,
    on_progress: OnProgress | None = None,
    checkpoints: Checkpoints = no_checkpoints,
) -> dict[tuple[str, str], Saved]:
    """`measure_pair` for every workload and rule.

    Args:
      protocol, bring: From `plan`.
      on: The workloads, from `make_workloads`.
      timed, on_progress, checkpoints: As for `compare`.
    Returns:
      (workload, rule) -> what `measure_pair` gives, for `conclude` and `leader`.
    Example:
      >>> terms = {"budget": 2, "passes": 20, "seeds": 3, "tuning_seeds": 3}
      >>> protocol, bring = plan(["gradient_descent", "adam"], "quadratic", **terms)
      >>> found = measure_pairs(protocol, bring, make_workloads("quadratic"), timed=False)
      >>> list(found), found["quadratic", "adam"].arrays["costs"].shape[1]
      ([('quadratic', 'gradient_descent'), ('quadratic', 'adam')], 3)
      >>> conclude(protocol, "adam", bring, found).numbers["overall"][0]["rule"]
      'gradient_descent'
    """
    check_instance("protocol", protocol, Protocol, "Take it from plan.")
    check_sequence("bring", bring, "contenders", Contender)
    check_sequence("on", on, "workloads", Workload)
    check_flag("timed", timed)
    _check_callbacks(on_progress, checkpoints)
    pairs = list(itertools.product(on, bring))
    found = {}
    for done, (workload, contender) in enumerate(pairs):
        label = f"{contender.name} on {workload.name}"
        if on_progress is not None:
            on_progress(done, len(pairs), label)
        tell = _tell(on_progress, done, len(pairs), label)
        found[workload.name, contender.name] = remembered_pair(
            workload,
            contender,
            protocol,
            timed=timed,
            on_chunk=tell,
            checkpoints=checkpoints,
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
    """Checks all that `compare` is given, by tracing one step of every rule on every workload; nothing is trained.

    Args:
      rules, workload, baseline, spaces, evaluations, terms: As for `compare`.
    Returns:
      (protocol, contenders).
    Raises:
      ValueError, TypeError: As for `compare`.
    Example:
      >>> protocol, bring = plan(["heavy_ball", "adam"], "quadratic", budget=8)
      >>> protocol.budget, [contender.name for contender in bring]
      (8, ['heavy_ball', 'adam'])
    """
    if baseline is not None:
        check_text("baseline", baseline)
    if not isinstance(workload, str | Workload):
        check_sequence(
            "workload", workload, "workloads or their names", (str, Workload)
        )
    protocol = make_protocol(**_known_terms(terms))
    bring = contenders(rules, spaces=spaces, evaluations=evaluations)
    if len(bring) < 2:
        raise ValueError(
            f"a comparison needs two rules or more; got {[c.name for c in bring]}."
        )
    names = [contender.name for contender in bring]
    if baseline is not None and baseline not in names:
        raise ValueError(
            f"baseline must be one of the rules, {', '.join(names)}; got {baseline!r}."
        )
    for on in make_workloads(workload):
        known_optimum(on)
        sampler_of(on, protocol.batch_size)
        for part in (protocol.tune_on, protocol.reported_on):
            if part != "train" and getattr(on, part) is None:
                raise ValueError(
                    f"workload {on.name!r} has no {part} part: tune_on='train' needs none."
                )
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
    check_count("parts", parts)
    check_count("part", part, 0, parts - 1)
    _check_callbacks(None, checkpoints)
    timed = arguments.pop("timed", True)
    protocol, bring = plan(rules, workload, **arguments)
    for on, contender in list(itertools.product(make_workloads(workload), bring))[
        part::parts
    ]:
        remembered_pair(on, contender, protocol, timed=timed, checkpoints=checkpoints)


def remembered_pair(
    on: Workload,
    contender: Contender,
    protocol: Protocol,
    *,
    checkpoints: Checkpoints,
    **how: Any,
) -> Saved:
    """`measure_pair`, from its checkpoint where there is one."""
    compute = lambda parts: measure_pair(
        on, contender, protocol, checkpoints=parts, **how
    )
    terms = canonical(
        {
            "protocol": protocol._asdict(),
            "space": contender.space,
            "evaluations": contender.evaluations,
        }
    )
    digest = hashlib.sha256(terms.encode()).hexdigest()[:8]
    return runs.remembered(checkpoints, f"{on.name}/{contender.name} {digest}", compute)


def make_workloads(given: str | Workload | Sequence[str | Workload]) -> list[Workload]:
    """Workloads by name or as they are.

    Args:
      given: One, or several.
    Returns:
      The workloads, in order.
    Raises:
      ValueError: There is none, one comes twice, or a name is unknown.
    Example:
      >>> [workload.name for workload in make_workloads(["quadratic", "rosenbrock"])]
      ['quadratic', 'rosenbrock']
    """
    if not isinstance(given, str | Workload):
        check_sequence("given", given, "workloads or their names", (str, Workload))
    if isinstance(given, str | Workload):
        given = [given]
    made = [
        workloads.make_workload(one) if isinstance(one, str) else one
        for one in cast(Sequence, given)
    ]
    names = [one.name for one in made]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"workload must name at least one, each once; got {names}.")
    return made


def _check_callbacks(on_progress: OnProgress | None, checkpoints: Checkpoints) -> None:
    if on_progress is not None:
        check_callable("on_progress", on_progress, "done", "total", "message")
    check_callable("checkpoints", checkpoints, "name")


def _known_terms(terms: dict[str, Any]) -> dict[str, Any]:
    known = list(inspect.signature(make_protocol).parameters)
    for name in terms:
        if name not in known:
            raise TypeError(
                f"compare has no argument {name!r}{known_names(name, known)}"
            )
    return terms


def _tell(
    on_progress: OnProgress | None, done: int, total: int, label: str
) -> Callable[[Any], None] | None:
    if on_progress is None:
        return None
    return lambda progress: on_progress(
        done + progress.share, total, f"{progress}: {label}"
    )
