"""Search the hyper-parameters of each rule on each workload, and report the choices."""

import functools
import hashlib
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from research import runs
from research.checks import (
    check_callable,
    check_count,
    check_flag,
    check_instance,
    check_sequence,
)
from research.comparison._computation import computation_digest
from research.comparison._searching import (
    Evaluate,
    OnChunk,
    OnProgress,
    Outcomes,
    Trials,
    best_search,
    compile_setting,
    outside,
    rate_name,
    report_choices,
    score,
    search_arrays,
    seconds_per_pass,
    start_searches,
    train_around,
    train_on_seeds,
    yardstick,
)
from research.comparison.checking import CONTENDER_HINT, num_examples
from research.comparison.contenders import Contender
from research.comparison.measurements import measurement
from research.comparison.protocol import Protocol
from research.descent._sweep_program import check_workload
from research.files import canonical
from research.tuning.search import search_all
from research.types import Checkpoints, Saved, Workload, no_checkpoints
from research.verification.rule_under_test import source_digest
from research.workloads import known_optimum

PROTOCOL_HINT = "Make one by research.comparison.make_protocol()."


def measure_contenders(
    protocol: Protocol,
    contenders: Sequence[Contender],
    workloads: Sequence[Workload],
    *,
    timed: bool = True,
    on_progress: OnProgress | None = None,
    checkpoints: Checkpoints = no_checkpoints,
) -> dict[tuple[str, str], Saved]:
    """Measure every contender (a rule with its search space) on every workload.

    Args:
      protocol: Protocol of the comparison, from `plan`.
      contenders: Rules with their search spaces, from `plan`.
      workloads: Workloads, from `make_workloads`.
      timed: Whether to measure the seconds per pass over the data.
      on_progress: Function that is called with (done, total, message), or None. `total`
        is the number of measurements. `done` is the number of finished measurements
        plus the finished share of the present one. The message describes the present
        work.
      checkpoints: Function from a name to the `Checkpoint` in which a measurement is
        saved. By default nothing is saved.
    Returns:
      A dict from (name of the workload, name of the rule) to the measurement. The dict
      is the input of `conclude` and `leader`. In the example, `conclude` compares only
      "gradient_descent" with the baseline, "adam".
    Example:
      >>> from research.comparison import conclude, make_workloads, plan
      >>> terms = {"searches": 2, "budget": 2, "passes": 20, "seeds": 3}
      >>> rules = ["gradient_descent", "adam"]
      >>> protocol, contenders = plan(rules, "quadratic", tuning_seeds=3, **terms)
      >>> measurements = measure_contenders(
      ...     protocol, contenders, make_workloads("quadratic"), timed=False
      ... )
      >>> list(measurements)
      [('quadratic', 'gradient_descent'), ('quadratic', 'adam')]
      >>> measurements["quadratic", "adam"].arrays["costs"].shape
      (2, 3)
      >>> study = conclude(protocol, "adam", contenders, measurements)
      >>> study.numbers["overall"][0]["rule"]
      'gradient_descent'
    """
    check_instance("protocol", protocol, Protocol, "Take it from plan.")
    check_sequence("contenders", contenders, "contenders", Contender)
    check_sequence("workloads", workloads, "workloads", Workload)
    check_flag("timed", timed)
    _check_callbacks(on_progress, checkpoints)
    products = list(itertools.product(workloads, contenders))
    measurements = {}
    for done, (workload, contender) in enumerate(products):
        label = f"{contender.name} on {workload.name}"
        measurements[workload.name, contender.name] = _remembered(
            workload,
            contender,
            protocol,
            timed=timed,
            on_chunk=chunk_teller(on_progress, done, len(products), label),
            checkpoints=checkpoints,
        )
    if on_progress is not None:
        on_progress(len(products), len(products), "statistics")
    return measurements


def chunk_teller(
    on_progress: OnProgress | None, done: int, total: int, label: str
) -> OnChunk | None:
    """Report the start of a piece of work, and return a callback for its progress.

    First, on_progress(done, total, label) is called. The callback takes the
    `SweepProgress` p of this piece and calls on_progress(done + p.share, total, text),
    where the text describes p and ends with the label. If `on_progress` is None,
    nothing is called, and the result is None.

    Args:
      on_progress: Function (done, total, message), or None.
      done, total: Number of finished pieces, and of all pieces.
      label: Name of the piece.
    """
    if on_progress is None:
        return None
    on_progress(done, total, label)
    return lambda progress: on_progress(
        done + progress.share, total, f"{progress}: {label}"
    )


def measure_share(
    protocol: Protocol,
    contenders: Sequence[Contender],
    workloads: Sequence[Workload],
    part: int,
    parts: int,
    *,
    timed: bool,
    checkpoints: Checkpoints,
) -> None:
    """Measure one share of the pairs (workload, contender), and save the measurements.

    A contender is a rule with its search space. The share is every `parts`-th pair,
    starting at pair number `part`, counted from 0.

    Args:
      protocol: Terms of the comparison, from `plan`.
      contenders: Rules with their search spaces, from `plan`.
      workloads: Workloads, from `make_workloads`.
      timed: Whether to measure the seconds per pass over the data.
      part: Index of this share, from 0 to parts - 1.
      parts: Number of shares.
      checkpoints: Function from a name to the `Checkpoint` in which a measurement is
        saved.
    """
    _check_callbacks(None, checkpoints)
    for workload, contender in list(itertools.product(workloads, contenders))[
        part::parts
    ]:
        _remembered(workload, contender, protocol, timed=timed, checkpoints=checkpoints)


def _check_callbacks(on_progress: OnProgress | None, checkpoints: Checkpoints) -> None:
    if on_progress is not None:
        check_callable("on_progress", on_progress, "done", "total", "message")
    check_callable("checkpoints", checkpoints, "name")


def _remembered(
    workload: Workload,
    contender: Contender,
    protocol: Protocol,
    *,
    timed: bool,
    checkpoints: Checkpoints,
    **options: Any,
) -> Saved:
    """Return the result of `measure_contender`, from its checkpoint if there is one."""
    if checkpoints is no_checkpoints:
        return measure_contender(workload, contender, protocol, timed=timed, **options)
    terms = canonical(
        {
            "protocol": protocol._asdict(),
            "space": contender.space,
            "evaluations": contender.evaluations,
            "rule": source_digest(contender.make_rule),
            "timed": timed,
            "computation": computation_digest(
                workload, contender.make_rule, contender.space, protocol.batch_size
            ),
        }
    )
    digest = hashlib.sha256(terms.encode()).hexdigest()[:8]
    return runs.remembered(
        checkpoints,
        f"{workload.name}/{contender.name} {digest}",
        lambda parts: measure_contender(
            workload, contender, protocol, timed=timed, checkpoints=parts, **options
        ),
    )


def measure_contender(
    workload: Workload,
    contender: Contender,
    protocol: Protocol,
    *,
    timed: bool = True,
    on_chunk: OnChunk | None = None,
    checkpoints: Checkpoints = no_checkpoints,
) -> Saved:
    """Search the hyper-parameters of a rule several times, and report each result.

    The relative gap is (f - f*) / (f_0 - f*), where f is the objective, f_0 the initial
    value of f, and f* the value of f at the optimum of the training objective. The cost
    of a run is the number of passes over the data until the relative gap falls to the
    target. The log cost of a run that missed the target is about the log of ten times
    the length of a full training. `search_scores` gives the exact formula.

    A trial is a choice of hyper-parameters. Each search (`research.tuning.search`) has
    its own trials and its own tuning seeds, so the searches are independent. The trials
    are trained as follows:

    - Every trial with which a search starts is trained on the screening seeds. These
      are the first four tuning seeds of the search (all of them, if they are fewer).
    - Only the better trials are trained on the other tuning seeds of the search.
    - The trial that the search chooses is trained on the reporting seeds, which no
      search uses. The defaults are trained on the reporting seeds, too.

    With a budget of one trial, each search tries only the defaults, and chooses them.
    The best search is the one whose chosen trial has the lowest mean log cost on the
    tuning seeds of that search.

    Args:
      workload: Workload. If the protocol has tune_on="validation", the workload must
        have validation and test data.
      contender: The rule and its search space.
      protocol: Protocol of the comparison.
      timed: Whether to measure the seconds per pass over the data, with the
        hyper-parameters that the best search chose. For this measurement, one training
        runs alone, which needs one more compilation.
      on_chunk: Function that is called with the progress of the searches, or None. The
        field `share` of the progress is the estimated share of the measurement that is
        finished.
      checkpoints: Storage for unfinished runs. Each pair of rule and workload needs its
        own storage.
    Returns:
      A `Saved` with arrays and values. There are J searches of h hyper-parameters. Each
      search starts with t trials, and has s screening seeds. There are n reporting
      seeds, k evaluations in a training, and r rates. The arrays are:

      - `trials` (J, t, h): the trials with which the searches start;
      - `screening` (J, t, s): the log costs of these trials on the screening seeds;
      - `chosen` (J, h): the trial that each search chose;
      - `tuning` (J,): the mean log cost of the chosen trial on the tuning seeds;
      - `costs` (J, n): the costs of the chosen trial on the reporting seeds, inf for a
        run that missed the target;
      - `final` (J, n): the relative gaps of the same J n runs at the end;
      - `passes` (k,): the passes over the data at each evaluation;
      - `curves` (J n, k): the relative gaps of the J n runs at each evaluation;
      - `default_costs` (n,): the costs of the defaults on the reporting seeds;
      - `best_of` (t, 3): the expected cost of the best of 1, 2, ..., t trials, and the
        low and the high end of the confidence interval of this cost;
      - `rates` (r,) and `rate_scores` (r, q): learning rates around the one that the
        best search chose, and their log costs on q <= 10 tuning seeds. The two arrays
        are missing if the rule has no learning rate.

      The values of the `Saved` are numbers computed from these arrays, such as the cost
      of the rule with its interval. JSON can store them.
    Raises:
      ValueError: The workload lacks a part of the data, or its optimum is not known.
    """
    check_workload("workload", workload)
    check_instance("contender", contender, Contender, CONTENDER_HINT)
    check_instance("protocol", protocol, Protocol, PROTOCOL_HINT)
    check_flag("timed", timed)
    if on_chunk is not None:
        check_callable("on_chunk", on_chunk, "progress")
    check_callable("checkpoints", checkpoints, "name")
    known_optimum(workload)
    setting = compile_setting(workload, contender, protocol, checkpoints)
    evaluate = Evaluate(
        setting.program,
        functools.partial(score, setting),
        protocol,
        on_chunk=on_chunk,
        checkpoints=checkpoints,
    )
    names = (workload.name, contender.name)
    searches = search_all(start_searches(contender.space, protocol, *names), evaluate)
    best = best_search(searches)
    outcomes, passes = report_choices(setting, searches)
    rate = rate_name(contender.space)
    nearby = {} if rate is None else train_around(setting, best, rate)
    per_pass = seconds_per_pass(setting, best.chosen_values) if timed else None
    facts = {
        "workload": workload.name,
        "rule": contender.name,
        "n": num_examples(workload),
        "hyperparameters": list(contender.space),
        "chosen": best.chosen_values,
        "trials": best.screened,
        "searches": len(searches),
        "trainings": evaluate.trained,
        "edges": outside(contender.space, best.chosen_values),
        "evaluations": contender.evaluations,
        "diverged": evaluate.diverged / evaluate.screened,
        "rate_name": rate,
        "compile_seconds": setting.program.compile_seconds,
        "seconds_per_pass": per_pass,
        **yardstick(workload, protocol),
    }
    arrays = search_arrays(searches, outcomes, passes)
    return measurement(arrays, nearby, facts, protocol, setting.sampler.batch_size)


def train_trials(
    workload: Workload,
    contender: Contender,
    protocol: Protocol,
    values: Trials,
    count: int,
    *,
    on_chunk: OnChunk | None = None,
    checkpoints: Checkpoints = no_checkpoints,
) -> tuple[Outcomes, Float[np.ndarray, " evaluations"]]:
    """Train given trials on all reporting seeds, without a search.

    A trial is a choice of hyper-parameters. The reporting seeds are `protocol.seeds`,
    which no search uses. `measure_contender` defines the cost and the relative gap of a
    run.

    Args:
      workload: Workload. If the protocol has tune_on="validation", the workload must
        have validation and test data.
      contender: The rule and its search space.
      protocol: Protocol of the comparison.
      values: Dict from the name of each hyper-parameter to its values in the trials,
        shape (count,).
      count: Number of trials.
      on_chunk: Function that is called with a `descent.SweepProgress` after each chunk
        of epochs, or None.
      checkpoints: Storage for unfinished runs. By default nothing is stored.
    Returns:
      The `Outcomes` (costs and relative gaps of each trial on each seed), and an array
      of shape (k,). A run evaluates the objective k times. The array has the number of
      passes over the data before each evaluation.
    Raises:
      ValueError, TypeError: An argument is wrong, an array of `values` does not have
        `count` entries, or the optimum of the workload is not known.
    Example:
      >>> from research.comparison import make_contenders, make_protocol
      >>> from research.comparison import make_workloads
      >>> (plain,) = make_contenders(["gradient_descent"])
      >>> terms = make_protocol(passes=20, seeds=3, target=0.5)
      >>> rates = {"learning_rate": np.array([0.1, 1.0])}
      >>> (on,) = make_workloads("quadratic")
      >>> outcomes, passes = train_trials(on, plain, terms, rates, 2)
      >>> outcomes.costs.shape, len(passes)
      ((2, 3), 21)
    """
    check_workload("workload", workload)
    check_instance("contender", contender, Contender, CONTENDER_HINT)
    check_instance("protocol", protocol, Protocol, PROTOCOL_HINT)
    check_count("count", count)
    setting = compile_setting(workload, contender, protocol, checkpoints)
    return train_on_seeds(setting, values, count, on_chunk)
