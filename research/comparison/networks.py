"""Compare rules on networks by the validation loss at the end of a schedule."""

import contextlib
import functools
import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Bool, Float

from research import descent, runs, samplers
from research.checks import check_callable, check_count, check_flag, check_sequence
from research.comparison import network_tables
from research.comparison._computation import computation_digest
from research.comparison._searching import (
    Evaluate,
    OnChunk,
    OnProgress,
    best_search,
    rate_name,
    start_searches,
    sweep_trials,
    tuning_score,
)
from research.comparison.archive import NETWORK_FORMAT, save_study
from research.comparison.checking import check_contender, check_room_of_runs
from research.comparison.configs import networks_config
from research.comparison.contenders import Contender, check_free
from research.comparison.measurements import robust_rates
from research.comparison.network_contenders import (
    SCHEDULE_SPACE,
    network_contenders,
    schedule_of,
    scheduled,
)
from research.comparison.origins import origin
from research.comparison.protocol import Protocol, make_protocol
from research.comparison.tables import as_text
from research.comparison.trials import chunk_teller
from research.descent._sweep_program import check_workload
from research.files import canonical
from research.models import count_parameters
from research.objectives import check_data
from research.sizes import check_most
from research.statistics.searches import searched_cost, searched_difference
from research.tuning.search import Searched, most_runs_at_once, search_all
from research.tuning.spaces import Space
from research.tuning.timing import time_alone
from research.types import Batch, Checkpoints, Params, Saved, no_checkpoints
from research.verification.rule_under_test import source_digest
from research.workloads._construction import data_digest
from research.workloads.networks import NetworkWorkload, check_size, make_network

LENGTH_FACTORS = (0.5, 0.7, 1.0, 1.4, 2.0)  # Lengths of the baseline's trainings.
LOSS_RESOLUTION = float(np.log(1.002))  # Least half width of an interval of log loss.
# Searches of a rule disagree if their losses differ by this factor.
LOSS_DISAGREEMENT = 1.02
WORST = 10.0  # A diverged training counts as so many times its initial loss.
AROUND = 2.0 ** np.arange(-3, 3.5, 0.5)  # Factors of the best rate to train again.
MOST_AROUND = 3  # Number of tuning seeds of these trainings.
LENGTHS = "lengths"  # Stands instead of a rule's name in the names of arrays.
WIDTH = 1  # On a CPU one run alone is faster than its share of a batch of runs.


class NetworkStudy(NamedTuple):
    """A finished comparison of update rules on neural networks.

    Attributes:
      answer: Text that compares each rule with one rule, the baseline. The text says
        which of the two reaches the lower validation loss. If the steps of the two can
        be compared, the text also gives a ratio: the number of steps of the rule,
        divided by the number of steps that the baseline needs to reach the same loss.
      tables: Tables of the study.
      arrays: Dict from names to the arrays from which the figures are made.
      numbers: Dict from names to values that JSON can store. The tables and figures are
        made from these values.
    """

    answer: str
    tables: tuple[runs.Table, ...]
    arrays: dict[str, np.ndarray]
    numbers: dict[str, Any]

    def __str__(self) -> str:
        """Return the answer and the first table as plain text."""
        return f"{self.answer}\n\n{as_text(self.tables[0])}"

    def save(self, results: str | Path = "results") -> Path:
        """Save the study as a run folder, <results>/compare_networks/<id>.

        The folder has the form that the command `descent networks` writes: pictures,
        report.html, and files that `descent pack`, `descent leaderboard` and `descent
        reproduce` read. The id depends on the settings and on the files of the rules.
        If a rule or a network has neither a name nor a file, the id also depends on the
        results. Another study therefore never replaces this one.

        Args:
          results: The folder of all results.
        Returns:
          The run folder.
        Raises:
          OSError: The folder cannot be written.
        """
        from research.figures.network_studies import draw_network_study

        config = networks_config(self.numbers)
        return save_study("compare_networks", self, config, draw_network_study, results)


class _Setting(NamedTuple):
    """Settings that all trainings of a contender on a network share."""

    network: NetworkWorkload
    contender: Contender
    protocol: Protocol
    program: descent.SweepProgram
    checkpoints: Checkpoints


class _Plan(NamedTuple):
    """A comparison whose arguments are checked."""

    protocol: Protocol
    contenders: tuple[Contender, ...]
    networks: list[NetworkWorkload]
    baseline: str
    timed: bool

    @property
    def pieces(self) -> list[tuple[NetworkWorkload, Contender]]:
        """Pairs of network and rule. The results of each pair are saved separately."""
        return [*itertools.product(self.networks, self.contenders)]


def compare_networks(
    rules: Mapping[str, Any] | Sequence[str],
    networks: str | NetworkWorkload | Sequence[str | NetworkWorkload],
    *,
    baseline: str | None = None,
    spaces: Mapping[str, Any] | None = None,
    evaluations: Mapping[str, float] | None = None,
    search_schedule: bool = True,
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

    All compared trainings have the same number of steps. The score of a training is the
    validation loss at its end. The learning rate falls to zero at the end of the
    training. Schedule-free rules are an exception: their learning rate stays constant
    after the warm-up, and they average their iterates instead.

    A search (`tuning.search`) varies the peak learning rate, the length of the warm-up
    and the kind of decay (`network_contenders`). The search chooses the
    hyper-parameters by the score on tuning seeds. Every rule gets several independent
    searches, each with its own trials and seeds. (A rule without hyper-parameters to
    search gets one search.) The study reports the score on other seeds, the reporting
    seeds. The study also reports the accuracy on the test part, which is never used for
    a choice. If a training diverges, its final loss counts as ten times its initial
    loss. If every training diverges, this is a result and not an error.

    The baseline is also trained for 0.5, 0.7, 1.4 and 2 times as many steps, with its
    chosen hyper-parameters. These trainings show how many steps the baseline needs for
    the final loss of another rule. The study reports a ratio: the steps of the other
    rule divided by the steps that the baseline needs for this loss. An example is "muon
    needs 0.72 times adam's steps". The ratio is not measured in two cases:

    - The loss of the baseline is nearly the same for all numbers of steps.
    - With 0.5 or 0.7 times the steps, the mean final loss of the baseline is lower than
      with the full number of steps, and the difference is larger than noise.

    If the final loss of a run is outside the range of the baseline's losses, the ratio
    uses the number of steps at the nearer end of this range. If this holds for more
    than half of the runs, the answer and the tables say "at most" or "at least". The
    interval of the ratio includes the variation between searches and between seeds. The
    losses of the baseline at 0.5, 0.7, 1.4 and 2 times the steps are treated as exact.

    In each step, a rule receives the gradient, the params, the training loss of the
    batch, the indices of the batch, and `value_fn`, which evaluates the objective on
    training examples. The rule never receives the validation or the test part. If a
    rule is not from this package, and the code of its step calls `value_fn`,
    `evaluations` must state the cost of a step. Without this cost, the rule is refused,
    and the error says how many such calls a step has.

    The study cannot detect data, such as the validation part, that a rule reads in
    other ways: from a closure, files, global variables, or callbacks to Python. If a
    rule is given as a gradient transformation and not as a constructor, the study also
    cannot detect whether the rule's schedule ends with the training. Look at the code
    of a rule from other people before you trust its result.

    Args:
      rules: Mapping from a name to a rule, or a sequence of names of rules of this
        package, as for `compare`. "muon" is Muon for leaves with two axes and Adam for
        other leaves. Muon and Adam have separate learning rates.
      networks: A name in `research.workloads.networks.NETWORKS`, a workload made by
        `network_workload`, or a sequence of these.
      baseline: Name of the rule with which the others are compared. None means the last
        rule.
      spaces: {rule: {hyper-parameter: Range}}. A range replaces the default range of
        the hyper-parameter. If there is no default range, the hyper-parameter is added
        to the search (`network_contenders`).
      evaluations: {rule: cost of one step}. The cost is how often a step evaluates the
        objective on a batch. Computing the value, the gradient, or both together counts
        as one evaluation. The gradient that the step receives is one evaluation, too.
      search_schedule: Whether warm-up and decay are searched. If False, every rule has
        a warm-up of 10 % of the training and a linear decay, and by default only the
        learning rates are searched. (A schedule-free rule has no decay.)
      searches: Number of independent searches of each rule on each network.
      budget: Number of trials (choices of hyper-parameters) with which a search starts.
        The budget must exceed the number of searched hyper-parameters.
      seeds: Number of reporting seeds, or the seeds themselves.
      tuning_seeds: Number of tuning seeds of each search, or a sequence of the tuning
        seeds of all searches together.
      level: Coverage of the confidence intervals.
      search_seed: Random seed from which the trials of all searches are drawn.
      size: "small" or "large", for networks given by name.
      timed: Whether to measure the seconds of a step.
      on_progress: Function that is called with (done, total, message), or None.
      checkpoints: Function from a name to the `Checkpoint` in which the measurements
        are stored, such as a result of `runs.checkpoints_in`. By default nothing is
        stored.
    Returns:
      The study. Print it to see the answer.
    Raises:
      ValueError, TypeError: An argument is wrong, a rule cannot be traced, a budget is
        too small for its search, a network has no validation part, the validation loss
        of a network is not positive at the initial point of the first reporting seed,
        or the states of the runs do not fit into memory. These errors are raised before
        any training. For other seeds, the initial validation loss is checked after the
        training. A ValueError is raised if this loss is 0 or below. A ValueError is
        also raised after a training whose final validation loss is below 0. The reason
        is that rules are compared by the log of the loss. (A final loss of 0 counts as
        the smallest normal float32.)
    References:
      Dahl et al., Benchmarking neural network training algorithms, arXiv:2306.07179.
      Wen et al., Fantastic pretraining optimizers, arXiv:2509.02046 (rankings change
      while the rate decays, so rules must be compared at the end of training).
    Example:
      >>> from research.comparison.networks import compare_networks
      >>> from research import losses, models
      >>> from research.workloads.networks import network_workload
      >>> part = Batch(jnp.eye(8, dtype="float32"), jnp.arange(8) % 2)
      >>> model = models.mlp((8, 4, 2), dtype="float32")
      >>> given = (model, losses.softmax_cross_entropy, part, part)
      >>> small = network_workload("small", *given, batch_size=4, num_epochs=1)
      >>> terms = {"searches": 2, "budget": 4, "seeds": 3, "tuning_seeds": 2}
      >>> study = compare_networks(["lion", "adam"], small, timed=False, **terms)
      >>> study.numbers["rules"], len(study.numbers["cells"])
      (['lion', 'adam'], 2)
    """
    plan = _plan(
        rules,
        networks,
        baseline=baseline,
        spaces=spaces,
        evaluations=evaluations,
        search_schedule=search_schedule,
        searches=searches,
        budget=budget,
        seeds=seeds,
        tuning_seeds=tuning_seeds,
        level=level,
        search_seed=search_seed,
        size=size,
        timed=timed,
    )
    if on_progress is not None:
        check_callable("on_progress", on_progress, "done", "total", "message")
    check_callable("checkpoints", checkpoints, "name")
    total, done = len(plan.pieces) + len(plan.networks), 0
    measurements, longer = {}, {}
    for network, contender in plan.pieces:
        label = f"{contender.name} on {network.name}"
        tell = chunk_teller(on_progress, done, total, label)
        measured = _remembered(plan, network, contender, tell, checkpoints)
        measurements[network.name, contender.name] = measured
        done += 1
        if contender.name == plan.baseline:
            tell = chunk_teller(on_progress, done, total, f"lengths of {network.name}")
            longer[network.name] = _other_lengths(
                network, contender, plan.protocol, measured, tell, checkpoints
            )
            done += 1
    if on_progress is not None:
        on_progress(total, total, "statistics")
    names = [one.name for one in plan.contenders]
    study = conclude_networks(plan.protocol, plan.baseline, names, measurements, longer)
    study.numbers.update(_recipe(plan, networks, size, search_schedule))
    return study


def _recipe(
    plan: _Plan, networks: Any, size: str, search_schedule: bool
) -> dict[str, Any]:
    """Return the settings that somebody else needs to repeat the study."""
    given = [networks] if isinstance(networks, str | NetworkWorkload) else networks
    made = [one for one in given if isinstance(one, NetworkWorkload)]
    own = [one.name for one in made]
    return {
        "network_study": NETWORK_FORMAT,
        "starts": {one.name: _start(one) for one in made},
        "size": size,
        "search_schedule": search_schedule,
        "sources": {one.name: source_digest(one.make_rule) for one in plan.contenders},
        "evaluations": {one.name: one.evaluations for one in plan.contenders},
        "spaces": {
            one.name: {name: list(range_) for name, range_ in one.space.items()}
            for one in plan.contenders
        },
        "origin": origin(
            plan.contenders,
            own,
            functools.partial(network_contenders, search_schedule=search_schedule),
        ),
    }


def _start(network: NetworkWorkload) -> dict[str, float | None]:
    """Return numbers that tell apart networks with the same name and data.

    The numbers are the loss of the first training batch at the params of seed 0, and
    the norm of its gradient. They depend on the model and on the loss.
    """
    workload = network.workload
    batch = jax.tree.map(lambda a: a[: network.batch_size], workload.train)

    @jax.jit
    def start(batch: Batch) -> tuple[Any, Any]:
        params = workload.init(jax.random.key(0))
        value, gradient = jax.value_and_grad(workload.objective)(params, batch)
        return value, optax.tree.norm(gradient)

    loss, norm = start(batch)
    return {"loss": _finite(loss), "gradient": _finite(norm)}


def compute_network_share(
    rules: Mapping[str, Any] | Sequence[str],
    networks: str | NetworkWorkload | Sequence[str | NetworkWorkload],
    part: int,
    parts: int,
    *,
    checkpoints: Checkpoints,
    **arguments: Any,
) -> None:
    """Measure one share of a comparison on networks.

    Several processes compute the comparison together, one share each. The pairs
    (network, rule) are numbered from 0. The share has the pairs with the numbers part,
    part + parts, part + 2 parts, ... The measurements are saved in `checkpoints`, where
    `compare_networks` finds them.

    Args:
      rules, networks, arguments: The arguments of `compare_networks`, except
        `on_progress`. They must be the same in all processes and in the call of
        `compare_networks` that uses the measurements.
      part: Index of this share, from 0 to parts - 1.
      parts: Number of processes that share the work.
      checkpoints: Storage that all processes and `compare_networks` use.
    """
    check_count("parts", parts)
    check_count("part", part, 0, parts - 1)
    check_callable("checkpoints", checkpoints, "name")
    plan = _plan(rules, networks, **arguments)
    for network, contender in plan.pieces[part::parts]:
        measured = _remembered(plan, network, contender, None, checkpoints)
        if contender.name == plan.baseline:
            _other_lengths(
                network, contender, plan.protocol, measured, None, checkpoints
            )


def _plan(
    rules: Mapping[str, Any] | Sequence[str],
    networks: Any,
    *,
    baseline: str | None = None,
    spaces: Mapping[str, Any] | None = None,
    evaluations: Mapping[str, float] | None = None,
    search_schedule: bool = True,
    size: str = "small",
    timed: bool = True,
    **terms: Any,
) -> _Plan:
    """Check the arguments of `compare_networks` without training."""
    check_flag("timed", timed)
    protocol = make_protocol(**terms, tune_on="validation", width=WIDTH)
    contenders = network_contenders(
        rules,
        spaces=spaces,
        evaluations=evaluations,
        search_schedule=search_schedule,
    )
    names = [one.name for one in contenders]
    baseline = names[-1] if baseline is None else baseline
    if len(names) < 2 or baseline not in names:
        raise ValueError(
            "a comparison needs two rules or more, one of which is the baseline; got "
            f"rules={names}, baseline={baseline!r}."
        )
    _check_names(names)
    for contender in contenders:
        _check_budget(contender, protocol)
    plan = _Plan(protocol, contenders, _made(networks, size), baseline, timed)
    for network in plan.networks:
        _check_network(network, protocol)
    for network, contender in plan.pieces:
        _check(network, contender, protocol)
    return plan


def _check_names(names: Sequence[str]) -> None:
    """Raise ValueError if a rule has the name of an array that is not of a rule."""
    check_free(names, LENGTHS, "the baseline's loss at other lengths")


def _check_budget(contender: Contender, protocol: Protocol) -> None:
    """Raise an error if a search has too few trials for its hyper-parameters."""
    names, budget = list(contender.space), protocol.budget
    if budget <= len(names):
        raise ValueError(
            f"budget={budget} is too small to search {len(names)} hyper-parameters of "
            f"{contender.name} ({', '.join(names)}). Give at least {len(names) + 1} "
            "trials; 16 or more are advised."
        )


def _check_network(network: NetworkWorkload, protocol: Protocol) -> None:
    """Raise an error if trainings on a network cannot be scored."""
    workload = network.workload
    check_workload(network.name, workload)
    if workload.train is None or workload.validation is None:
        part = "training" if workload.train is None else "validation"
        raise ValueError(
            f"network {network.name!r} has no {part} part. The score of a training is "
            "its validation loss; make the network by network_workload."
        )
    check_count(f"batch_size of {network.name}", network.batch_size)
    check_count(f"num_epochs of {network.name}", network.num_epochs)
    check_most(batch_size=network.batch_size, num_epochs=network.num_epochs)
    if network.batch_size > network.num_examples:
        raise ValueError(
            f"batch_size={network.batch_size} is more than the {network.num_examples} "
            f"training examples of {network.name}. Make batch_size smaller."
        )
    root = jax.random.key(protocol.seeds[0])
    params = workload.init(jax.random.fold_in(root, descent.INIT))
    tested = () if workload.test is None else ("test",)
    for part in ("train", "validation", *tested):
        name, data = f"{part} part of {network.name}", getattr(workload, part)
        with _named(name):
            descent.check_dataset(name, data)
            if not samplers.num_examples(data):
                raise ValueError("it has no examples.")
            check_data(workload.objective, params, data)
    loss = jax.jit(workload.objective)(params, workload.validation)
    if jnp.shape(loss) != ():
        raise ValueError(
            f"the objective of {network.name} must be a number of shape (); it has "
            f"shape {jnp.shape(loss)}. Take the mean over the examples."
        )
    if loss <= 0:
        raise ValueError(
            f"the validation loss of {network.name} is {float(loss):.3g} at the "
            "initial point. Rules are compared by the log of the loss, so the loss "
            "must be positive; add a constant to the loss."
        )


@contextlib.contextmanager
def _named(part: str) -> Iterator[None]:
    """Add the name of a part of the data to an error about this part."""
    try:
        yield
    except (ValueError, TypeError) as error:
        if type(error) not in (ValueError, TypeError):  # One of JAX's, for example.
            raise
        raise type(error)(f"the {part}: {error}") from error


def _made(networks: Any, size: str) -> list[NetworkWorkload]:
    if isinstance(networks, str | NetworkWorkload):
        networks = [networks]
    check_sequence("networks", networks, "networks or names", (str, NetworkWorkload))
    check_size(size)
    made = [
        make_network(one, size=size) if isinstance(one, str) else one
        for one in networks
    ]
    names = [one.name for one in made]
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"networks must name at least one network, each once; got {names}."
        )
    return made


def _check(network: NetworkWorkload, contender: Contender, protocol: Protocol) -> None:
    """Raise an error if a rule cannot be traced, or its runs need too much memory."""
    params = jax.eval_shape(network.workload.init, jax.random.key(0))
    contender = scheduled(contender, network.num_steps)
    check_contender(
        contender, params, network.workload.objective, network.workload.train
    )
    runs_at_once = _most_runs_at_once(contender, protocol)
    check_room_of_runs(contender, params, network.name, runs_at_once)


def _most_runs_at_once(contender: Contender, protocol: Protocol) -> int:
    """Return the number of runs of the largest sweep.

    The memory must hold the states of all these runs.
    """
    searches, budget = 1, 1
    if contender.space:
        searches, budget = protocol.searches, protocol.budget
    seeds = len(protocol.tuning_seeds) // protocol.searches
    of_search = max(most_runs_at_once(budget, seeds), len(protocol.seeds))
    around = len(AROUND) * min(seeds, MOST_AROUND)
    return max(searches * of_search, around)


def _key(network: NetworkWorkload, contender: Contender, protocol: Protocol) -> str:
    terms = canonical(
        {
            "protocol": protocol._asdict(),
            "rule": source_digest(contender.make_rule),
            "space": contender.space,
            "evaluations": contender.evaluations,
            "batch_size": network.batch_size,
            "num_epochs": network.num_epochs,
            "computation": computation_digest(
                network.workload,
                scheduled(contender, network.num_steps).make_rule,
                contender.space,
                network.batch_size,
            ),
        }
    )
    digest = hashlib.sha256(terms.encode()).hexdigest()[:8]
    return f"networks/{network.name}/{contender.name} {digest}"


def _remembered(
    plan: _Plan,
    network: NetworkWorkload,
    contender: Contender,
    on_chunk: OnChunk | None,
    checkpoints: Checkpoints,
) -> Saved:
    measure = lambda parts: measure_on_network(
        network,
        contender,
        plan.protocol,
        timed=plan.timed,
        on_chunk=on_chunk,
        checkpoints=parts,
    )
    if checkpoints is no_checkpoints:
        return measure(checkpoints)
    name = _key(network, contender, plan.protocol) + " untimed" * (not plan.timed)
    return runs.remembered(checkpoints, name, measure)


def measure_on_network(
    network: NetworkWorkload,
    contender: Contender,
    protocol: Protocol,
    *,
    timed: bool = True,
    on_chunk: OnChunk | None = None,
    checkpoints: Checkpoints = no_checkpoints,
) -> Saved:
    """Search the rates and the schedule of a rule on a network, and report the results.

    Args:
      network: The network workload.
      contender: A rule with its search space, one of `network_contenders`.
      protocol: Protocol of the comparison. Its fields `passes`, `batch_size`,
        `tune_on`, `target` and `level` are not used.
      timed: Whether to time a training that runs alone.
      on_chunk: Function that is called with the progress of the measurement, or None.
      checkpoints: Storage for unfinished runs. The caller makes it specific to this
        rule and network.
    Returns:
      A `Saved` with arrays and with values, such as the number of trainings and the
      seconds of a step. There are J searches, h hyper-parameters, n reporting seeds
      (seeds that no search uses), k evaluations in a training, and r rates. The arrays
      are:

      - `chosen` (J, h): the hyper-parameters that each search chose;
      - `tuning` (J,): the mean log loss of these hyper-parameters on the tuning seeds;
      - `logs` (J, n): the log of the final validation loss on the reporting seeds,
        where a run that diverged, or ended above ten times its initial loss, counts as
        ten times its initial loss;
      - `curves` (J n, k): the validation losses on the reporting seeds, inf where they
        are not finite;
      - `bad` (J, n): whether the training on a reporting seed diverged;
      - `accuracy` (J, n): the test accuracy on the reporting seeds, NaN if the network
        has no metric or no test part;
      - `update_rms` (J, n): the root mean square of all entries of the updates in all
        steps of a training, on the reporting seeds;
      - `rates` (r,): learning rates around the value that the search with the lowest
        `tuning` chose. If no hyper-parameter is named learning_rate, the first one with
        a log scale is taken, and if there is none, the first one;
      - `rate_scores` (r, q): the log losses of these values on q <= 3 tuning seeds.
        `rates` and `rate_scores` are missing if the rule has no hyper-parameters.
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
    reported, passes = _report(setting, values, len(searches))
    arrays = reported | {
        "chosen": np.stack([*values.values()], 1)
        if values
        else np.empty((len(searches), 0)),
        "tuning": np.array([tuning_score(one) for one in searches]),
    }
    schedule = (None, None)
    if contender.space:
        schedule = schedule_of(contender, best.chosen_values)
    rate = _rate_name(contender.space)
    diverged_around = None
    if rate is not None:
        around, diverged_around = _around(setting, best, rate)
        arrays |= around
    facts = {
        "network": network.name,
        "rule": contender.name,
        "hyperparameters": list(contender.space),
        "chosen": best.chosen_values,
        "warmup": schedule[0],
        "decay": schedule[1],
        "searches": len(searches),
        "trainings": evaluate.trained,
        "diverged": evaluate.diverged / evaluate.screened,
        "num_steps": network.num_steps,
        "batch_size": network.batch_size,
        "parameters": _num_parameters(network),
        "data": data_digest(network.workload),
        "evaluations": contender.evaluations,
        "compile_seconds": setting.program.compile_seconds,
        "seconds_per_step": _seconds_per_step(setting, best) if timed else None,
        "rate_name": rate,
        "diverged_around": diverged_around,
        "passes": passes,
    }
    return Saved(arrays, facts)


def _rate_name(space: Space) -> str | None:
    """Return the name of the hyper-parameter that is taken as the learning rate.

    `rate_name` chooses it among the hyper-parameters that do not belong to the
    schedule. If it finds none, the result is the first hyper-parameter, or None if
    there is no hyper-parameter.
    """
    own = {name: ends for name, ends in space.items() if name not in SCHEDULE_SPACE}
    return rate_name(own) or next(iter(space), None)


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
        gradient_norms=False,
    )
    return _Setting(network, contender, protocol, program, checkpoints)


def _score(
    result: descent.SweepResult,
) -> tuple[Float[np.ndarray, " runs"], Bool[np.ndarray, " runs"]]:
    """Return the log of each final validation loss, and whether the run diverged.

    A loss of 0 counts as the smallest normal float32. The loss of a run that diverged
    counts as ten times the initial loss of the run, or as the largest float32 if the
    initial loss is not finite. A final loss above this number counts as this number.
    """
    first, last = result.values[:, 0].astype(float), result.values[:, -1].astype(float)
    _check_positive("began", first[np.isfinite(first) & (first <= 0)])
    bad = (result.first_bad_step >= 0) | ~np.isfinite(last)
    _check_positive("ended", last[~bad & (last < 0)])
    limits = np.finfo(np.float32)
    worst = np.where(np.isfinite(first), WORST * first, limits.max)
    losses = np.where(bad, worst, np.minimum(last, worst))
    return np.log(np.clip(losses, limits.tiny, limits.max)), bad


def _check_positive(when: str, wrong: Float[np.ndarray, " runs"]) -> None:
    """Raise ValueError if there are validation losses of which no log exists."""
    if wrong.size:
        raise ValueError(
            f"a training {when} with a validation loss of {wrong.min():.3g}. Rules "
            "are compared by the log of the loss, so the loss must be positive; add a "
            "constant to the loss."
        )


def _train(
    setting: _Setting,
    values: Mapping[str, np.ndarray],
    count: int,
    seeds: Sequence[int],
    on_chunk: OnChunk | None = None,
) -> descent.SweepResult:
    return sweep_trials(
        setting.program, values, count, seeds, on_chunk, setting.checkpoints
    )


def _report(
    setting: _Setting, values: Mapping[str, np.ndarray], count: int
) -> tuple[dict[str, np.ndarray], list[float]]:
    """Train `count` choices of hyper-parameters on the reporting seeds.

    Return the arrays of results, and the passes over the data at each evaluation.
    """
    seeds = setting.protocol.seeds
    result = _train(setting, values, count, seeds)
    logs, bad = _score(result)
    shape = (count, len(seeds))
    norms = np.sqrt(np.mean(np.asarray(result.info.update_norm) ** 2, axis=1))
    rms = norms / np.sqrt(_num_parameters(setting.network))
    arrays = {
        "logs": logs.reshape(shape),
        "bad": bad.reshape(shape),
        "curves": np.where(np.isfinite(result.values), result.values, np.inf),
        "accuracy": _accuracy(setting.network, result.params).reshape(shape),
        "update_rms": rms.reshape(shape),
    }
    return arrays, result.passes.tolist()


def _accuracy(network: NetworkWorkload, params: Params) -> Float[np.ndarray, " runs"]:
    """Return the test accuracy of each run; NaN without a metric or a test part."""
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
) -> tuple[dict[str, Float[np.ndarray, "..."]], float]:
    """Train at rates around the best one, on some tuning seeds.

    Return the arrays `rates` and `rate_scores`, and the share of runs that diverged.
    """
    values = {
        name: np.full(len(AROUND), value) for name, value in best.chosen_values.items()
    }
    values[rate] *= AROUND
    seeds = setting.protocol.seeds_of_search(0)[:MOST_AROUND]
    logs, bad = _score(_train(setting, values, len(AROUND), seeds))
    scores = logs.reshape(len(AROUND), -1)
    return {"rates": values[rate], "rate_scores": scores}, float(bad.mean())


def _other_lengths(
    network: NetworkWorkload,
    contender: Contender,
    protocol: Protocol,
    measured: Saved,
    on_chunk: OnChunk | None,
    checkpoints: Checkpoints,
) -> Saved:
    """Train the baseline's chosen hyper-parameters at other lengths of the schedule.

    Returns:
      A `Saved` with the arrays `factors` (l,), the lengths divided by the length of the
      study's trainings, and `logs` (l,), the mean log losses. Lengths are whole epochs.
      If a training of the study has few epochs, some lengths are therefore equal, and l
      is smaller.
    """

    def compute(parts: Checkpoints) -> Saved:
        names = measured.values["hyperparameters"]
        values = dict(zip(names, measured.arrays["chosen"].T, strict=True))
        count = len(measured.arrays["chosen"])
        lengths = sorted(
            {max(1, round(f * network.num_epochs)) for f in LENGTH_FACTORS}
        )
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

    if checkpoints is no_checkpoints:
        return compute(checkpoints)
    name = f"{_key(network, contender, protocol)} lengths"
    return runs.remembered(checkpoints, name, compute)


def _part(on_chunk: OnChunk | None, number: int, parts: int) -> OnChunk | None:
    """Return a callback for the progress of one of several parts of equal length."""
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
    """Return the log of the training length at which the baseline reaches each loss.

    The length of a training is its number of steps, divided by the number of steps of
    the study's trainings. The curve is the baseline's mean log loss at the end of a
    training, as a function of the log length. First, each entry of the curve is
    replaced by the smallest of the entry itself and the entries at shorter lengths, so
    that the curve does not rise. Then the log length is interpolated linearly as a
    function of the log loss. For a loss outside the range of the curve, the result is
    the log length at the nearer end.

    Args:
      logs: Log losses, shape (...).
      factors: Lengths of the baseline's trainings, ascending, shape (l,).
      curve: Mean log loss of the baseline at each length, shape (l,).
    Returns:
      Log lengths, shape (...).
    Example:
      >>> factors, curve = np.array([0.5, 1.0, 2.0]), np.array([1.0, 0.0, -1.0])
      >>> print(
      ...     np.exp(log_lengths(np.array([0.5, -1.0, -3.0]), factors, curve)).round(3)
      ... )
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
    """Make a `NetworkStudy` from the measurements of all rules on all networks.

    Args:
      protocol: Protocol of the comparison.
      baseline: Name of the rule with which the others are compared.
      names: Names of all rules.
      measurements: {(network, rule): result of `measure_on_network`}.
      longer: {network: `Saved` of the baseline's trainings at several lengths}. The
        array `factors` of the `Saved` has these lengths, divided by the length of the
        study's trainings. The array `logs` has the mean log loss at each length.
    Returns:
      The study. Its intervals are corrected for the number of comparisons, as by
      `conclude`. This number is rules · networks for the comparisons on one network,
      and rules for the comparisons over all networks. The baseline does not count.
    """
    _check_names(names)
    networks = list(dict.fromkeys(network for network, _ in measurements))
    others = [name for name in names if name != baseline]
    compared = [
        _comparisons_of(
            rule, baseline, measurements, longer, len(others), protocol.level
        )
        for rule in others
    ]
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
        "comparisons": [row for rows, _ in compared for row in rows],
        "overall": [overall for _, overall in compared],
    }
    arrays = {
        f"{network}/{rule}/{name}": array
        for (network, rule), saved in measurements.items()
        for name, array in saved.arrays.items()
    }
    arrays |= {
        f"{network}/{LENGTHS}/{name}": array
        for network, saved in longer.items()
        for name, array in saved.arrays.items()
    }
    tables = network_tables.tables(numbers)
    return NetworkStudy(network_tables.answer(numbers), tables, arrays, numbers)


def _comparisons_of(
    rule: str,
    baseline: str,
    measurements: Mapping[tuple[str, str], Saved],
    longer: Mapping[str, Saved],
    num_rules: int,
    level: float,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Compare a rule with the baseline on each network, and on all networks together.

    Args:
      rule, baseline: Names of the two rules.
      measurements, longer: As for `conclude_networks`.
      num_rules: Number of rules that are compared with the baseline.
      level: Level of the intervals.
    """
    networks = list(dict.fromkeys(network for network, _ in measurements))
    options = {"comparisons": num_rules, "level": level}
    of_each = {"comparisons": num_rules * len(networks), "level": level}
    rows, pairs, lengths = [], [], []
    for network in networks:
        mine, other = (measurements[network, name] for name in (rule, baseline))
        pair = mine.arrays["logs"], other.arrays["logs"]
        length = _lengths(pair, longer[network])
        pairs.append(pair)
        lengths.append(length)
        found = _compared(rule, baseline, [pair], [length], of_each)
        found |= {"network": network, "at_end": None}
        if length is not None:
            found["at_end"] = _at_end(length[0], longer[network])
        found |= _in_other_units(found["steps"], mine.values, other.values)
        rows.append(found)
    overall = _compared(rule, baseline, pairs, lengths, options)
    at_ends = [one["at_end"] for one in rows]
    overall["at_end"] = None if None in at_ends else float(np.mean(at_ends))
    return rows, overall


def _lengths(pair: tuple[np.ndarray, np.ndarray], longer: Saved) -> Any:
    """Return the log of the steps of the two rules, relative to the baseline's.

    If a run ends with the loss that the baseline has after `length` times the steps,
    the run needs 1 / length times the steps of the baseline for this loss. The result
    is log(1 / length) for each search and seed. It is None if the loss of the baseline
    is nearly the same at all lengths. It is also None if the baseline overfits: a
    shorter training ends with a loss that is lower by more than noise. Then
    `log_lengths` would give the baseline's own trainings a length below 1.
    """
    curve = longer.arrays
    if np.ptp(curve["logs"]) <= LOSS_RESOLUTION:
        return None
    until_one = curve["logs"][curve["factors"] <= 1]
    if until_one[-1] - until_one.min() > max(LOSS_RESOLUTION, _noise(pair[1])):
        return None
    return tuple(-log_lengths(one, curve["factors"], curve["logs"]) for one in pair)


def _noise(logs: Float[np.ndarray, "searches seeds"]) -> float:
    """Return three standard errors of the mean log loss.

    The standard error is over the searches, or over the seeds if there is one search.
    """
    means = logs.mean(axis=1) if len(logs) > 1 else logs[0]
    return float(3 * means.std(ddof=1) / np.sqrt(len(means)))


def _in_other_units(
    steps: float | None, mine: Mapping[str, Any], other: Mapping[str, Any]
) -> dict[str, float | None]:
    """Convert a ratio of steps to a ratio of seconds and a ratio of gradients."""
    seconds = [one["seconds_per_step"] for one in (mine, other)]
    unknown = steps is None or None in seconds
    return {
        "seconds": None if unknown else steps * seconds[0] / seconds[1],
        "gradients": None
        if steps is None
        else steps * mine["evaluations"] / other["evaluations"],
    }


def _compared(
    rule: str, baseline: str, pairs: Any, lengths: Any, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Compare the losses, and the steps that are needed for an equal loss."""
    loss = searched_difference(pairs, resolution=LOSS_RESOLUTION, **options)
    # Steps on some of the networks are not the steps on all of them.
    measured = all(length is not None for length in lengths)
    steps = searched_difference(lengths, **options) if measured else None
    return {
        "rule": rule,
        "baseline": baseline,
        "loss_ratio": loss.ratio,
        "loss_low": loss.low,
        "loss_high": loss.high,
        "verdict": loss.verdict,
        "detectable": loss.detectable,
        "win": loss.win,
        "steps": steps and steps.ratio,
        "steps_low": steps and steps.low,
        "steps_high": steps and steps.high,
    }


def _at_end(lengths: Float[np.ndarray, "searches seeds"], longer: Saved) -> float:
    """Return the share of runs whose loss is outside the baseline's range of losses."""
    ends = -np.log(longer.arrays["factors"][[0, -1]])
    return float(np.isclose(lengths[..., None], ends).any(-1).mean())


def _finite(value: float) -> float | None:
    """Return a number as JSON stores it: None if it is not finite."""
    return float(value) if np.isfinite(value) else None


def _cell(saved: Saved, level: float) -> dict[str, Any]:
    """Return the results of a rule on a network, by name, as JSON can store them."""
    arrays = saved.arrays
    cost = searched_cost(
        arrays["logs"],
        level=level,
        resolution=LOSS_RESOLUTION,
        factor=LOSS_DISAGREEMENT,
    )
    facts = saved.values | {
        "loss": cost.cost,
        "loss_low": cost.low,
        "loss_high": cost.high,
        "search_spread": cost.spread,
        "searches_disagree": cost.disagree,
        "reported_diverged": float(arrays["bad"].mean()),
        "accuracy": _finite(arrays["accuracy"].mean()),
        "update_rms": _finite(arrays["update_rms"].mean()),
        "robust_low": None,
        "robust_high": None,
    }
    # If every run diverged, all rates have the same score, which says nothing.
    if "rates" in arrays and facts.get("diverged_around") != 1:
        low, high = robust_rates(arrays["rates"], arrays["rate_scores"])
        facts |= {"robust_low": low, "robust_high": high}
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
