"""Compare update rules: which is better here, by how much, and is that certain?"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from research.checks import check_count, check_flag, check_sequence, check_text
from research.comparison.archive import Study
from research.comparison.conclusion import conclude
from research.comparison.contenders import Contender, make_contenders
from research.comparison.protocol import Protocol, make_protocol
from research.comparison.trials import (
    OnProgress,
    check_trials,
    make_workloads,
    measure_contenders,
    measure_share,
)
from research.naming import known_names
from research.types import Checkpoints, Workload, no_checkpoints


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
    """Compare rules by the example gradients that they need to reach a target.

    Each rule gets the same number of trials on each workload: its defaults, then
    quasi-random points of its search space. A trial is chosen on the tuning seeds and
    reported on others. All rules share a seed's initial point and order of examples, so
    differences are paired. The intervals include the choice of the trial. They are
    about other seeds, with the same points tried. With few trials in a wide space other
    points may lead to another choice; the cost against the number of trials shows how
    much.

    Args:
      rules: By name: a constructor that takes a learning rate first (ours, optax's or
        your own), the name of one of ours, a gradient transformation that is already
        made (it has one trial), or a `Contender`. A sequence names ours.
      workload: Names as in `research.workloads.WORKLOADS`, or workloads whose optimum
        is known: a target is a share of f - f*.
      baseline: The rule that the others are compared with; None: the last one.
      spaces: {rule: {hyper-parameter: Range}}, where another space is wanted than
        `make_contenders` gives.
      evaluations: {rule: gradients or values of its batch that a step costs}, for a
        rule that calls `value_fn`.
      timed: Whether seconds are measured, which costs one more compilation for each
        rule on each workload.
      on_progress: Called with (done, total, message).
      checkpoints: Where finished measurements are kept.
      **terms: budget, passes, batch_size, seeds, tuning_seeds, tune_on, target, level,
        width, as `make_protocol` takes them.
    Returns:
      The study; print it.
    Raises:
      ValueError, TypeError: An argument is wrong, or a rule cannot be traced; nothing
        was trained then. The message names rule and argument.
    References:
      Choi et al. 2019, arXiv:1910.05446 (budgets and spaces decide comparisons);
      Bouthillier et al. 2021, arXiv:2103.03098 (variance of the choice; the probability
      that A is better); Dodge et al. 2019, arXiv:1909.03004 (expected results of k
      trials); Hansen et al. 2021, doi:10.1080/10556788.2020.1808977 (expected running
      time).
    Example:
      >>> from research import comparison, update_rules
      >>> rules = {
      ...     "momentum": update_rules.heavy_ball,
      ...     "plain": update_rules.gradient_descent,
      ... }
      >>> terms = {"budget": 4, "passes": 40, "seeds": 5, "timed": False}
      >>> study = comparison.compare(rules, "quadratic", **terms)
      >>> study.numbers["rules"], len(study.numbers["cells"])
      (['momentum', 'plain'], 2)
    """
    check_flag("timed", timed)
    options = {"baseline": baseline, "spaces": spaces, "evaluations": evaluations}
    protocol, contenders = plan(rules, workload, **options, **terms)
    measurements = measure_contenders(
        protocol,
        contenders,
        make_workloads(workload),
        timed=timed,
        on_progress=on_progress,
        checkpoints=checkpoints,
    )
    return conclude(protocol, baseline or contenders[-1].name, contenders, measurements)


def plan(
    rules: Mapping[str, Any] | Sequence[str],
    workload: str | Workload | Sequence[str | Workload],
    *,
    baseline: str | None = None,
    spaces: Mapping[str, Any] | None = None,
    evaluations: Mapping[str, float] | None = None,
    **terms: Any,
) -> tuple[Protocol, tuple[Contender, ...]]:
    """Check the arguments of `compare`, without any training.

    One step of every rule on every workload is traced.

    Args:
      rules, workload, baseline, spaces, evaluations, terms: As for `compare`.
    Returns:
      (protocol, contenders).
    Raises:
      ValueError, TypeError: As for `compare`.
    Example:
      >>> protocol, contenders = plan(["heavy_ball", "adam"], "quadratic", budget=8)
      >>> protocol.budget, [contender.name for contender in contenders]
      (8, ['heavy_ball', 'adam'])
    """
    if baseline is not None:
        check_text("baseline", baseline)
    if not isinstance(workload, str | Workload):
        wanted = "workloads or their names"
        check_sequence("workload", workload, wanted, (str, Workload))
    protocol = make_protocol(**_known_terms(terms))
    contenders = make_contenders(rules, spaces=spaces, evaluations=evaluations)
    names = [contender.name for contender in contenders]
    if len(names) < 2:
        raise ValueError(f"a comparison needs two rules or more; got {names}.")
    if baseline is not None and baseline not in names:
        raise ValueError(
            f"baseline must be one of the rules, {', '.join(names)}; got {baseline!r}."
        )
    for made in make_workloads(workload):
        check_trials(protocol, contenders, made)
    return protocol, contenders


def compute_share(
    rules: Mapping[str, Any] | Sequence[str],
    workload: str | Workload | Sequence[str | Workload],
    part: int,
    parts: int,
    *,
    checkpoints: Checkpoints,
    **arguments: Any,
) -> None:
    """Measure every `parts`-th (workload, rule) from `part` on.

    The measurements are kept where `compare` finds them.

    Args:
      rules, workload, arguments: As for `compare`.
      part: 0, ..., parts - 1.
      parts: Number of processes that share the work.
      checkpoints: The same place for all of them, and for `compare`.
    """
    check_count("parts", parts)
    check_count("part", part, 0, parts - 1)
    timed = arguments.pop("timed", True)
    protocol, contenders = plan(rules, workload, **arguments)
    measure_share(
        protocol,
        contenders,
        make_workloads(workload),
        part,
        parts,
        timed=timed,
        checkpoints=checkpoints,
    )


def _known_terms(terms: dict[str, Any]) -> dict[str, Any]:
    known = list(inspect.signature(make_protocol).parameters)
    for name in terms:
        if name not in known:
            raise TypeError(
                f"compare has no argument {name!r}{known_names(name, known)}"
            )
    return terms
