"""Compare rules on networks by the validation loss at the end of a schedule."""

import functools
import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float

from research import descent, runs, samplers
from research.checks import check_callable, check_sequence
from research.comparison import network_tables
from research.comparison._searching import (
    Evaluate,
    OnChunk,
    OnProgress,
    best_search,
    start_searches,
    tuning_score,
)
from research.comparison.checking import check_contender
from research.comparison.contenders import Contender
from research.comparison.measurements import robust_rates
from research.comparison.network_contenders import network_contenders, scheduled
from research.comparison.protocol import Protocol, make_protocol
from research.comparison.tables import as_text
from research.comparison.trials import chunk_teller
from research.models import count_parameters
from research.runs.files import canonical
from research.statistics.searches import searched_cost, searched_difference
from research.tuning.search import Searched, search_all
from research.tuning.timing import time_alone
from research.types import Batch, Checkpoints, Params, Saved, no_checkpoints
from research.workloads.networks import NetworkWorkload, make_network

FACTORS = (0.5, 0.7, 1.0, 1.4, 2.0)  # Lengths of the baseline's trainings.
RESOLUTION = float(np.log(1.002))  # Least half width of an interval of log loss.
DISAGREEMENT = (
    1.02  # Searches of a rule disagree if their losses differ by this factor.
)
WORST = 10.0  # A diverged training counts as so many times its initial loss.
AROUND = 2.0 ** np.arange(-3, 3.5, 0.5)  # Factors of the best rate to train again.
MOST_AROUND = 3  # Number of tuning seeds of these trainings.
WIDTH = 1  # On a CPU one run alone is faster than its share of a batch of runs.


class NetworkStudy(NamedTuple):
    """A finished comparison on networks.

    Attributes:
      answer: Text that says which rule reaches the lower validation loss, and how many
        steps the baseline needs for the same loss.
      tables: Tables of the study.
      arrays, numbers: Data from which the tables are made.
    """

    answer: str
    tables: tuple[runs.Table, ...]
    arrays: dict[str, np.ndarray]
    numbers: dict[str, Any]

    def __str__(self) -> str:
        """Return the answer and the first table as plain text."""
        return f"{self.answer}\n\n{as_text(self.tables[0])}"


class _Setting(NamedTuple):
    """Settings that all trainings of a contender on a network share."""

    network: NetworkWorkload
    contender: Contender
    protocol: Protocol
    program: descent.SweepProgram
    checkpoints: Checkpoints


def compare_networks(
    rules: Mapping[str, Any] | Sequence[str],
    networks: str | NetworkWorkload | Sequence[str | NetworkWorkload],
    *,
    baseline: str | None = None,
    spaces: Mapping[str, Any] | None = None,
    searches: int = 3,
    budget: int = 16,
    seeds: int | Sequence[int] = 5,
    tuning_seeds: int | Sequence[int] = 6,
    level: float = 0.95,
    search_seed: int = 0,
    size: str = "small",
    timed: bool = True,
    on_progress: OnProgress | None = None,
    checkpoints: Checkpoints = no_checkpoints,
) -> NetworkStudy:
    """Compare rules on networks by final validation loss, and by steps to equal loss.

    All trainings have the same length, and the learning rate is zero at their end. The
    peak rate, the share of warm-up and the kind of decay are searched
    (`network_contenders`), several times and independently, as in `compare`. The score
    is the validation loss at the end. The hyper-parameters are chosen by the score on
    tuning seeds. The score on other seeds is reported. The test part is never used for
    a choice; the accuracy on it is only reported. A training that diverges counts as
    ten times its initial loss.

    The baseline is also trained at 0.5, 0.7, 1.4 and 2 times the steps, with its chosen
    hyper-parameters. The result shows how many steps the baseline needs for the loss of
    another rule, for example: "muon needs 0.72 times adam's steps". If the loss of a
    rule is outside the range of these trainings, the number of steps at the end of the
    range is used, and the table says so. The interval of the steps includes the
    variation between searches and between seeds. It treats the losses of the baseline
    at the other lengths as exact.

    Args:
      rules: As for `compare`. "muon" is Muon for matrices and Adam for other leaves,
        with two rates.
      networks: Names as in `research.workloads.networks.NETWORKS`, or workloads made by
        `network_workload`.
      baseline: Name of the rule with which the others are compared. None means the last
        rule.
      spaces: {rule: {hyper-parameter: Range}}. These ranges replace the default ranges
        of the rates.
      searches, budget, seeds, tuning_seeds, level, search_seed: As in `make_protocol`.
      size: "small" or "large", for networks given by name.
      timed: Whether to measure seconds.
      on_progress: Function that is called with (done, total, message).
      checkpoints: Storage for finished measurements.
    Returns:
      The study; print it to see the answer.
    Raises:
      ValueError, TypeError: An argument is wrong, or a rule cannot be traced. The error
        comes before any training.
    References:
      Dahl et al., Benchmarking neural network training algorithms, arXiv:2306.07179.
      Wen et al., Fantastic pretraining optimizers, arXiv:2509.02046 (rankings change
      while the rate decays, so only the end counts).
    Example:
      >>> from research.comparison.networks import compare_networks
      >>> terms = {"searches": 2, "budget": 2, "seeds": 3, "tuning_seeds": 2}
      >>> study = compare_networks(["lion", "adam"], "mlp_digits", timed=False, **terms)
      >>> study.numbers["rules"], len(study.numbers["cells"])
      (['lion', 'adam'], 2)
    """
    protocol = make_protocol(
        searches=searches,
        budget=budget,
        seeds=seeds,
        tuning_seeds=tuning_seeds,
        level=level,
        search_seed=search_seed,
        tune_on="validation",
        width=WIDTH,
    )
    contenders = network_contenders(rules, spaces=spaces)
    chosen = _made(networks, size)
    names = [one.name for one in contenders]
    baseline = names[-1] if baseline is None else baseline
    if len(names) < 2 or baseline not in names:
        raise ValueError(
            "a comparison needs two rules or more, one of which is the baseline; got "
            f"rules={names}, baseline={baseline!r}."
        )
    for network, contender in itertools.product(chosen, contenders):
        _check(network, contender)
    jobs = [*itertools.product(chosen, contenders)]
    if on_progress is not None:
        check_callable("on_progress", on_progress, "done", "total", "message")
    total, measurements, longer = len(jobs) + len(chosen), {}, {}
    for done, (network, contender) in enumerate(jobs):
        tell = chunk_teller(
            on_progress, done, total, f"{contender.name} on {network.name}"
        )
        measurements[network.name, contender.name] = _remembered(
            network, contender, protocol, timed, tell, checkpoints
        )
    (base,) = (one for one in contenders if one.name == baseline)
    for done, network in enumerate(chosen, len(jobs)):
        tell = chunk_teller(on_progress, done, total, f"lengths of {network.name}")
        longer[network.name] = _other_lengths(
            network,
            base,
            protocol,
            measurements[network.name, baseline],
            tell,
            checkpoints,
        )
    if on_progress is not None:
        on_progress(total, total, "statistics")
    return conclude_networks(protocol, baseline, names, measurements, longer)


def _made(networks: Any, size: str) -> list[NetworkWorkload]:
    if isinstance(networks, str | NetworkWorkload):
        networks = [networks]
    check_sequence("networks", networks, "networks or names", (str, NetworkWorkload))
    made = [
        make_network(one, size=size) if isinstance(one, str) else one
        for one in networks
    ]
    names = [one.name for one in made]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"networks must name at least one, each once; got {names}.")
    return made


def _check(network: NetworkWorkload, contender: Contender) -> None:
    params = jax.eval_shape(network.workload.init, jax.random.key(0))
    check_contender(
        scheduled(contender, network.num_steps),
        params,
        network.workload.objective,
        network.workload.train,
    )


def _key(network: NetworkWorkload, contender: Contender, protocol: Protocol) -> str:
    terms = canonical(
        {
            "protocol": protocol._asdict(),
            "space": contender.space,
            "batch_size": network.batch_size,
            "num_epochs": network.num_epochs,
        }
    )
    digest = hashlib.sha256(terms.encode()).hexdigest()[:8]
    return f"networks/{network.name}/{contender.name} {digest}"


def _remembered(
    network: NetworkWorkload,
    contender: Contender,
    protocol: Protocol,
    timed: bool,
    on_chunk: OnChunk | None,
    checkpoints: Checkpoints,
) -> Saved:
    return runs.remembered(
        checkpoints,
        _key(network, contender, protocol),
        lambda parts: measure_on_network(
            network,
            contender,
            protocol,
            timed=timed,
            on_chunk=on_chunk,
            checkpoints=parts,
        ),
    )


def measure_on_network(
    network: NetworkWorkload,
    contender: Contender,
    protocol: Protocol,
    *,
    timed: bool = True,
    on_chunk: OnChunk | None = None,
    checkpoints: Checkpoints = no_checkpoints,
) -> Saved:
    """Search a contender's rates and schedule on a network, and report each choice.

    Args:
      network: The network workload.
      contender: One of `network_contenders`.
      protocol: Protocol, of which searches, budget, seeds and level are used.
      timed: Whether to time a training that runs alone.
      on_chunk, checkpoints: As for `measure_contender`.
    Returns:
      Arrays and values of the measurement. The sizes are: J searches, h
      hyper-parameters, n reporting seeds, k evaluations, r rates and m tuning seeds.

      - `chosen` (J, h): the choice of each search;
      - `tuning` (J,): the mean score of this choice on the tuning seeds;
      - `logs` (J, n): the log of the final validation loss on the reporting seeds;
      - `curves` (J n, k): the validation losses on the reporting seeds;
      - `accuracy` (J, n): the test accuracy on the reporting seeds, NaN without a
        metric;
      - `update_rms` (J, n): the root mean square of the updates on the reporting seeds;
      - `rates` (r,) and `rate_scores` (r, m): rates around the best rate, and their log
        losses.
    """
    setting = _compile(network, contender, protocol, checkpoints)
    evaluate = Evaluate(
        setting.program, _score, protocol, on_chunk=on_chunk, checkpoints=checkpoints
    )
    names = (network.name, contender.name)
    searches = search_all(start_searches(contender.space, protocol, *names), evaluate)
    best = best_search(searches)
    values = {
        name: np.array([one.chosen_values[name] for one in searches])
        for name in contender.space
    }
    arrays = _report(setting, values, len(searches)) | {
        "chosen": np.stack([*values.values()], 1)
        if values
        else np.empty((len(searches), 0)),
        "tuning": np.array([tuning_score(one) for one in searches]),
    }
    rate = next(iter(contender.space), None)
    if rate is not None:
        arrays |= _around(setting, best, rate)
    facts = {
        "network": network.name,
        "rule": contender.name,
        "hyperparameters": list(contender.space),
        "chosen": best.chosen_values,
        "searches": len(searches),
        "trainings": evaluate.trained,
        "diverged": evaluate.diverged / evaluate.screened,
        "num_steps": network.num_steps,
        "batch_size": network.batch_size,
        "parameters": _num_parameters(network),
        "evaluations": contender.evaluations,
        "compile_seconds": setting.program.compile_seconds,
        "seconds_per_step": _seconds_per_step(setting, best) if timed else None,
        "rate_name": rate,
    }
    return Saved(arrays, facts)


def _compile(
    network: NetworkWorkload,
    contender: Contender,
    protocol: Protocol,
    checkpoints: Checkpoints,
) -> _Setting:
    contender = scheduled(contender, network.num_steps)
    program = descent.compile_sweep(
        network.workload,
        contender.make_rule,
        samplers.minibatch(network.num_examples, network.batch_size),
        network.num_epochs,
        hyperparameters=tuple(contender.space),
        chunk=network.num_epochs,
        width=protocol.width,
        evaluate_on=("validation",),
    )
    return _Setting(network, contender, protocol, program, checkpoints)


def _score(
    result: descent.SweepResult,
) -> tuple[Float[np.ndarray, " runs"], Bool[np.ndarray, " runs"]]:
    """Return the log of each final validation loss, and whether the run diverged."""
    first, last = result.values[:, 0], result.values[:, -1]
    bad = (result.first_bad_step >= 0) | ~np.isfinite(last)
    with np.errstate(invalid="ignore"):
        losses = np.where(bad, WORST * first, np.minimum(last, WORST * first))
    return np.log(np.maximum(losses, np.finfo(np.float32).tiny)), bad


def _train(
    setting: _Setting,
    values: Mapping[str, np.ndarray],
    count: int,
    seeds: Sequence[int],
    on_chunk: OnChunk | None = None,
) -> descent.SweepResult:
    columns = {name: np.repeat(column, len(seeds)) for name, column in values.items()}
    return descent.sweep(
        setting.program,
        {"seed": np.tile(seeds, count), **columns},
        on_chunk,
        setting.checkpoints,
    )


def _report(
    setting: _Setting, values: Mapping[str, np.ndarray], count: int
) -> dict[str, np.ndarray]:
    """Train points on the reporting seeds, and measure them."""
    seeds = setting.protocol.seeds
    result = _train(setting, values, count, seeds)
    logs, bad = _score(result)
    shape = (count, len(seeds))
    norms = np.sqrt(np.mean(np.asarray(result.info.update_norm) ** 2, axis=1))
    rms = norms / np.sqrt(_num_parameters(setting.network))
    return {
        "logs": logs.reshape(shape),
        "bad": bad.reshape(shape),
        "curves": np.where(np.isfinite(result.values), result.values, np.inf),
        "accuracy": _accuracy(setting.network, result.params).reshape(shape),
        "update_rms": rms.reshape(shape),
    }


def _accuracy(network: NetworkWorkload, params: Params) -> Float[np.ndarray, " runs"]:
    """Return the test accuracy of each run; NaN if the network has none."""
    workload = network.workload
    count = len(jax.tree.leaves(params)[0])
    if workload.metric is None or workload.test is None:
        return np.full(count, np.nan)
    metric: Callable[[Params, Batch], Any] = jax.jit(workload.metric)
    return np.array(
        [
            float(
                metric(
                    jax.tree.map(lambda leaf, run=run: leaf[run], params), workload.test
                )
            )
            for run in range(count)
        ]
    )


def _around(
    setting: _Setting, best: Searched, rate: str
) -> dict[str, Float[np.ndarray, "..."]]:
    """Train at rates around the best one, on some tuning seeds."""
    values = {
        name: np.full(len(AROUND), value) for name, value in best.chosen_values.items()
    }
    values[rate] *= AROUND
    seeds = setting.protocol.seeds_of_search(0)[:MOST_AROUND]
    logs, _ = _score(_train(setting, values, len(AROUND), seeds))
    return {"rates": values[rate], "rate_scores": logs.reshape(len(AROUND), -1)}


def _other_lengths(
    network: NetworkWorkload,
    contender: Contender,
    protocol: Protocol,
    measured: Saved,
    on_chunk: OnChunk | None,
    checkpoints: Checkpoints,
) -> Saved:
    """Train the baseline's choices at other lengths of the schedule.

    Returns:
      `factors` (l,), the lengths relative to that of the study, and `logs` (l,), the mean
      log losses. Lengths are whole epochs, so a training of few epochs has fewer of them.
    """

    def compute(parts: Checkpoints) -> Saved:
        names = measured.values["hyperparameters"]
        values = dict(zip(names, measured.arrays["chosen"].T, strict=True))
        count = len(measured.arrays["chosen"])
        lengths = sorted({max(1, round(f * network.num_epochs)) for f in FACTORS})
        means = []
        for number, epochs in enumerate(lengths):
            if epochs == network.num_epochs:
                means.append(float(measured.arrays["logs"].mean()))
                continue
            at = network._replace(num_epochs=epochs)
            setting = _compile(at, contender, protocol, parts)
            tell = _part(on_chunk, number, len(lengths))
            logs, _ = _score(_train(setting, values, count, protocol.seeds, tell))
            means.append(float(logs.mean()))
        factors = np.array(lengths) / network.num_epochs
        return Saved({"factors": factors, "logs": np.array(means)}, None)

    name = f"{_key(network, contender, protocol)} lengths"
    return runs.remembered(checkpoints, name, compute)


def _part(on_chunk: OnChunk | None, number: int, parts: int) -> OnChunk | None:
    """Return a callback for one of several parts of equal length."""
    if on_chunk is None:
        return None
    return lambda progress: on_chunk(
        progress._replace(share=(number + progress.share) / parts)
    )


def log_lengths(
    logs: Float[np.ndarray, "*runs"],
    factors: Float[np.ndarray, " lengths"],
    curve: Float[np.ndarray, " lengths"],
) -> Float[np.ndarray, "*runs"]:
    """Return the log of the length at which the baseline reaches each loss.

    The curve shows the mean log loss as a function of the log length. First each entry
    is replaced by the smallest entry so far, so that the curve does not rise. Then it
    is interpolated linearly. For a loss outside the curve, the result is the log length
    at the nearer end.

    Args:
      logs: Log losses, shape (...).
      factors: Lengths of the baseline's trainings, ascending; 1 is the length in the
        study.
      curve: Mean log loss at each length.
    Returns:
      Log lengths, shape (...).
    Example:
      >>> factors, curve = np.array([0.5, 1.0, 2.0]), np.array([1.0, 0.0, -1.0])
      >>> print(np.exp(log_lengths(np.array([0.5, -1.0, -3.0]), factors, curve)).round(3))
      [0.707 2.    2.   ]
    """
    falling = np.minimum.accumulate(np.asarray(curve, float))
    lengths = np.log(np.asarray(factors, float))
    return np.interp(logs, falling[::-1], lengths[::-1])


def conclude_networks(
    protocol: Protocol,
    baseline: str,
    names: Sequence[str],
    measurements: Mapping[tuple[str, str], Saved],
    longer: Mapping[str, Saved],
) -> NetworkStudy:
    """Make a study on networks from its measurements.

    Args:
      protocol, baseline, names: Protocol, name of the baseline, and names of all rules.
      measurements: {(network, rule): result of `measure_on_network`}.
      longer: {network: mean log losses of the baseline at other lengths}.
    Returns:
      The study.
    """
    networks = list(dict.fromkeys(network for network, _ in measurements))
    others = [name for name in names if name != baseline]
    options = {"comparisons": max(1, len(others)), "level": protocol.level}
    rows, overall = [], []
    for rule in others:
        pairs, lengths = [], []
        for network in networks:
            logs = [
                measurements[network, name].arrays["logs"] for name in (rule, baseline)
            ]
            curve = longer[network].arrays
            convert = functools.partial(
                log_lengths, factors=curve["factors"], curve=curve["logs"]
            )
            pairs.append(tuple(logs))
            # A rule that reaches the loss of f times the steps needs 1 / f of them.
            lengths.append(tuple(-convert(one) for one in logs))
        for network, pair, length in zip(networks, pairs, lengths, strict=True):
            found = _compared(rule, baseline, [pair], [length], options)
            found |= {"network": network, "at_end": _at_end(length[0], longer[network])}
            mine, other = (measurements[network, n].values for n in (rule, baseline))
            seconds = [one["seconds_per_step"] for one in (mine, other)]
            slower = None if None in seconds else seconds[0] / seconds[1]
            found["seconds"] = None if slower is None else slower * found["steps"]
            found["gradients"] = (
                found["steps"] * mine["evaluations"] / other["evaluations"]
            )
            rows.append(found)
        overall.append(_compared(rule, baseline, pairs, lengths, options))
    cells = [_cell(saved, protocol.level) for saved in measurements.values()]
    numbers = {
        "protocol": {
            name: getattr(protocol, name)
            for name in (
                "searches",
                "budget",
                "seeds",
                "tuning_seeds",
                "level",
                "search_seed",
            )
        },
        "baseline": baseline,
        "rules": list(names),
        "networks": networks,
        "cells": cells,
        "comparisons": rows,
        "overall": overall,
    }
    arrays = {
        f"{network}/{rule}/{name}": array
        for (network, rule), saved in measurements.items()
        for name, array in saved.arrays.items()
    }
    arrays |= {
        f"{network}/lengths/{name}": array
        for network, saved in longer.items()
        for name, array in saved.arrays.items()
    }
    tables = network_tables.tables(numbers)
    return NetworkStudy(network_tables.answer(numbers), tables, arrays, numbers)


def _compared(
    rule: str, baseline: str, pairs: Any, lengths: Any, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Compare the losses, and the steps that are needed for an equal loss."""
    loss = searched_difference(pairs, resolution=RESOLUTION, **options)
    steps = searched_difference(lengths, **options)
    return {
        "rule": rule,
        "baseline": baseline,
        "loss_ratio": loss.ratio,
        "loss_low": loss.low,
        "loss_high": loss.high,
        "verdict": loss.verdict,
        "detectable": loss.detectable,
        "win": loss.win,
        "steps": steps.ratio,
        "steps_low": steps.low,
        "steps_high": steps.high,
    }


def _at_end(lengths: Float[np.ndarray, "searches seeds"], longer: Saved) -> float:
    """Return the share of runs whose loss lies outside the baseline's lengths."""
    ends = -np.log(longer.arrays["factors"][[0, -1]])
    return float(np.isclose(lengths[..., None], ends).any(-1).mean())


def _cell(saved: Saved, level: float) -> dict[str, Any]:
    """Return the facts of a rule on a network."""
    arrays = saved.arrays
    cost = searched_cost(
        arrays["logs"], level=level, resolution=RESOLUTION, factor=DISAGREEMENT
    )
    facts = saved.values | {
        "loss": cost.cost,
        "loss_low": cost.low,
        "loss_high": cost.high,
        "search_spread": cost.spread,
        "searches_disagree": cost.disagree,
        "reported_diverged": float(arrays["bad"].mean()),
        "accuracy": float(arrays["accuracy"].mean()),
        "update_rms": float(arrays["update_rms"].mean()),
        "robust_low": None,
        "robust_high": None,
    }
    if "rates" in arrays:
        low, high = robust_rates(arrays["rates"], arrays["rate_scores"])
        facts |= {"robust_low": low, "robust_high": high}
    if np.isnan(facts["accuracy"]):
        facts["accuracy"] = None
    return facts


def _num_parameters(network: NetworkWorkload) -> int:
    return count_parameters(jax.eval_shape(network.workload.init, jax.random.key(0)))


def _seconds_per_step(setting: _Setting, best: Searched) -> float:
    timing = time_alone(
        setting.network.workload,
        setting.contender.make_rule,
        setting.program.sampler,
        best.chosen_values,
        1,
    )
    return timing.seconds_per_epoch / setting.network.steps_per_epoch
