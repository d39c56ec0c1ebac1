"""Compare update rules: which is better, by how much, and is the answer certain?"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from research.checks import check_count, check_flag, check_sequence, check_text
from research.comparison.archive import Study
from research.comparison.checking import check_trials, make_workloads
from research.comparison.conclusion import RESERVED, conclude
from research.comparison.contenders import Contender, check_free, make_contenders
from research.comparison.protocol import Protocol, make_protocol
from research.comparison.trials import OnProgress, measure_contenders, measure_share
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
    """Compare tuned update rules by the passes over the data needed to reach a target.

    The question is which rule is better when all rules are tuned well. A workload is a
    named optimisation problem. On each workload, every rule gets the same number of
    independent searches for good hyper-parameters. (A rule without hyper-parameters to
    search gets one search.) A search proceeds as follows (`tuning.search`):

    - It trains with the rule's defaults and with scrambled Sobol points (quasi-random
      points) of the search space.
    - It runs the better points on more seeds.
    - Then it tries new points around the best ones.

    Each search chooses hyper-parameters on its own seeds, the tuning seeds. With these
    hyper-parameters, the rule is then trained on other seeds, the reporting seeds. On
    each seed, all rules start at the same point and use the same order of examples.

    The cost of a run is the number of passes over the data until the run reaches the
    target. A pass over n examples is the computation of n gradients, each of one
    example. If a run misses the target, its cost is ten times `passes`. Here `passes`
    is the length of a full training, which is the same for all rules (see `Protocol`).

    Two rules are compared by the ratio of their geometric mean costs. The study gives a
    confidence interval of this ratio. The interval includes the variation between
    searches and between seeds (`statistics.searched_difference`). The field `answer` of
    the study describes the result in words. The answer also says how large the ratio of
    two costs must be for this study to detect a difference. The answer names up to
    three pairs of a rule and a workload for which the searches disagree. The searches
    disagree if their costs differ by a factor of 1.25 or more, and by more than the
    variation between seeds explains. If the searches disagree, the rule is hard to tune
    on the workload.

    A trial is one choice of hyper-parameters. For each rule and workload, the study has
    an array `best_of` and a figure of this array. The array has the expected cost of
    the best of k trials for each number k, with a confidence interval. For small k, the
    expected cost is the cost of a rule that is hardly tuned.

    Args:
      rules: Mapping from a name to a rule. A rule may be a constructor (from this
        package, from optax or your own) whose first argument is the learning rate. A
        rule may also be the name of a rule of this package, a `Contender`, or a
        gradient transformation. A gradient transformation has no hyper-parameters to
        search. Instead of a mapping, `rules` may be a sequence of names of rules of
        this package.
      workload: A name in `research.workloads.WORKLOADS`, a Workload, or a sequence of
        these. The minimum f* of a Workload's objective f must be known. A run reaches
        the target when f - f* falls to `target` times its initial value.
      baseline: Name of the rule with which the others are compared. None means the last
        rule.
      spaces: {rule: {hyper-parameter: Range}}. A range replaces the default range of
        the hyper-parameter. If there is no default range, the hyper-parameter is added
        to the search (`make_contenders`).
      evaluations: {rule: cost of one step}. The cost is how often a step evaluates the
        objective on a batch. Computing the value, the gradient, or both together counts
        as one evaluation. The gradient that the step receives is one evaluation, too.
        State the cost of a rule if its update evaluates the objective (by the argument
        `value_fn`) and the rule is not from this package.
      timed: Whether to measure the seconds per pass over the data. The measurement
        needs one more compilation for each rule on each workload. With False, the study
        gives no costs in seconds.
      on_progress: Function that is called with (done, total, message), or None.
      checkpoints: Storage for finished measurements. By default nothing is stored.
      **terms: Arguments of `make_protocol`: searches, budget, passes, batch_size,
        seeds, tuning_seeds, tune_on, target, level, width, search_seed.
    Returns:
      The study. Print it to see the answer. The list numbers["cells"] of the study has
      one entry for each pair of workload and rule.
    Raises:
      ValueError, TypeError: An argument is wrong, or a rule cannot be traced. The error
        is raised before any training.
    References:
      Choi et al. 2019, arXiv:1910.05446 (budgets and spaces decide comparisons);
      Bouthillier et al. 2021, arXiv:2103.03098 (variance from the choice of
      hyper-parameters; the probability that one rule is better); Dodge et al. 2019,
      arXiv:1909.03004 (expected results of k trials).
    Example:
      >>> from research import comparison, update_rules
      >>> rules = {
      ...     "momentum": update_rules.heavy_ball,
      ...     "plain": update_rules.gradient_descent,
      ... }
      >>> terms = {"searches": 2, "budget": 4, "tuning_seeds": 2, "timed": False}
      >>> study = comparison.compare(rules, "quadratic", passes=40, seeds=5, **terms)
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
    study = conclude(
        protocol, baseline or contenders[-1].name, contenders, measurements
    )
    given = [workload] if isinstance(workload, str | Workload) else workload
    own = [one.name for one in given if isinstance(one, Workload)]
    study.numbers["origin"]["own"] = own
    return study


def plan(
    rules: Mapping[str, Any] | Sequence[str],
    workload: str | Workload | Sequence[str | Workload],
    *,
    baseline: str | None = None,
    spaces: Mapping[str, Any] | None = None,
    evaluations: Mapping[str, float] | None = None,
    **terms: Any,
) -> tuple[Protocol, tuple[Contender, ...]]:
    """Check the arguments of `compare`, and make the protocol and the contenders.

    To check the rules, this function traces one step of every rule on every workload.
    Nothing is trained.

    Args:
      rules, workload, baseline, spaces, evaluations, terms: As for `compare`.
    Returns:
      The pair (protocol, contenders). The protocol has the settings that are the same
      for all rules. A contender is a rule with its search space.
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
        raise ValueError(f"a comparison needs at least two rules; got {names}.")
    check_free(names, *RESERVED)
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
    """Measure one share of a comparison that several processes compute.

    Call this function once in each process, each time with another `part`. The pairs
    (workload, rule) are numbered from 0. The share has the pairs with the numbers part,
    part + parts, part + 2 parts, ... The measurements are saved in `checkpoints`, where
    `compare` finds them.

    Args:
      rules, workload, arguments: The arguments of `compare`, except `on_progress`. They
        must be the same in all processes and in the call of `compare` that uses the
        measurements.
      part: Index of this share, from 0 to parts - 1.
      parts: Number of processes that share the work.
      checkpoints: Storage that all processes and `compare` use.
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
