"""Time a study's runs in one program, and the same runs one after another.

The runs are all trials and seeds of a rule on a workload.

python -m benchmarks.studies  # six workloads and two rules
python -m benchmarks.studies --only adam --quick   # a smoke run of a few runs
"""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import clock, peers_jax
from benchmarks.alone import print_part
from benchmarks.contender import Contender
from benchmarks.problems import BATCH_SIZE, DTYPE, training_data
from benchmarks.sweep_runs import (
    Sweep,
    compile_anew,
    one_by_one,
    runs_by_name,
    share,
)
from benchmarks.tables import (
    GOAL_IN_SWEEP,
    Section,
    number,
    optional,
    spread_words,
    table,
)
from research import comparison, descent, samplers, workloads
from research.tuning.spaces import Range, trials
from research.types import Batch, Workload

# Each with the model that PyTorch has a loss for, and the workload's penalty. Equal
# losses prove the penalties.
WORKLOADS = {
    "breast_cancer": ("logistic", 0.01),
    "digits": ("softmax", 0.01),
    "diabetes": ("linear", 0.0),
    "diabetes_ridge": ("linear", 0.1),
    "ill_conditioned": ("linear", 0.0),
    "breast_cancer_two_features": ("logistic", 0.01),
}
# The spaces of a study up to rates at which every training is stable: beyond, rounding
# grows to whole digits.
SPACES = {
    "heavy_ball": {
        "learning_rate": Range(1e-4, 0.05),
        "momentum": Range(0.0, 0.9, "one_minus"),
    },
    "adam": {"learning_rate": Range(1e-5, 0.01), "b1": Range(0.0, 0.9, "one_minus")},
}
IN_OPTAX: dict[str, Callable[..., optax.GradientTransformation]] = {
    "heavy_ball": lambda rate, momentum: optax.sgd(rate, momentum),
    "adam": lambda rate, b1: optax.adam(rate, b1),
}
SEEDS = tuple(range(5))
BUDGETS = (5, 20, 80)  # Trials, so that there are 25, 100 and 400 runs.
BESIDE = 20  # Of these, those that the peers make too.
EPOCHS = 10
ROUNDS = 5
TOLERANCE = 1e-9  # Relative, of every evaluation of every run.


class StudyRow(NamedTuple):
    """One contender with one number of runs.

    Attributes:
      workload, rule, contender, note: Which.
      runs, steps: How many runs, and updates of each.
      compile_seconds, seconds: Building it, and all runs, a Spread; None where it did
        not run.
      ratio: How many times as fast ours is with these runs, without compilation.
      loss, apart: Mean of the last training objectives, and the largest relative
        difference of any evaluation.
    """

    workload: str
    rule: str
    contender: str
    note: str
    runs: int
    steps: int
    compile_seconds: float | None = None
    seconds: clock.Spread | None = None
    ratio: clock.Spread | None = None
    loss: float | None = None
    apart: float | None = None

    @property
    def per_second(self) -> clock.Spread | None:
        """Return the runs per second."""
        if self.seconds is None:
            return None
        return clock.Spread(*(self.runs / self.seconds[i] for i in (0, 2, 1)))


def make_study(
    workload: str,
    rule: str,
    budget: int,
    seeds: Sequence[int] = SEEDS,
    num_epochs: int = EPOCHS,
) -> Sweep:
    """Return the runs as `research.comparison.measure_contender` makes them.

    `rates` holds every hyper-parameter, (runs, 2).
    """
    made = workloads.make_workload(workload, dtype=DTYPE)
    sampler = samplers.minibatch(len(training_data(made)[1]), BATCH_SIZE)
    tried = np.stack([*trials(SPACES[rule], budget).values()], 1)
    return share(
        f"mini-batch {BATCH_SIZE}",
        made,
        sampler,
        num_epochs,
        np.tile(seeds, budget),
        np.repeat(tried, len(seeds), axis=0),
    )


def build_ours(study: Sweep, rule: str) -> tuple[float, Callable[[Sweep], np.ndarray]]:
    """Compile the program as `measure_contender` does.

    Return the seconds until its first run has ended, and a function from a study to the
    evaluations of its runs, of which there may be any number.
    """
    (contender,) = comparison.make_contenders([rule], spaces={rule: SPACES[rule]})
    names = tuple(contender.space)
    program, seconds = compile_anew(study, contender.make_rule, names)

    def train(study: Sweep) -> np.ndarray:
        return descent.sweep(program, runs_by_name(study, names)).values

    return seconds, train


class Stacked(NamedTuple):
    """The batches of many steps, in arrays."""

    x: Any
    y: Any


class _Sliced:
    """Stacked batches, a slice of which is stacked, too."""

    def __init__(self, every: Stacked):
        self._every = every

    def __getitem__(self, steps: slice) -> Stacked:
        return Stacked(self._every.x[steps], self._every.y[steps])


def optax_peer(study: Sweep, rule: str, *, scanned: bool) -> Contender:
    """Build a contender that makes one run after another with optax.

    It uses a jitted scan between two evaluations, or a jitted step. Hyper-parameters
    are traced, so the step is compiled once, and the scan once for each number of steps
    between two evaluations.
    """
    workload, make_rule = study.workload, IN_OPTAX[rule]

    def step(state: Any, hyper: Any, x: jax.Array, y: jax.Array):
        params, inner = state
        gradient = jax.grad(workload.objective)(params, Batch(x, y))
        updates, inner = make_rule(*hyper).update(gradient, inner, params)
        return optax.apply_updates(params, updates), inner

    def scan(state: Any, hyper: Any, batches: Any):
        return jax.lax.scan(
            lambda state, batch: (step(state, hyper, *batch), None), state, batches
        )[0]

    def walk(state: Any, hyper: Any, batches: Any):
        for x, y in batches:
            state = stepped(state, hyper, x, y)
        return state

    stepped, advance = jax.jit(step), jax.jit(scan) if scanned else walk
    objective = jax.jit(lambda params: workload.objective(params, workload.train))
    begin = lambda params: (params, make_rule(0.1, 0.5).init(params))
    evaluate = lambda state: objective(state[0])
    with_hyper = lambda state, hyper, batches: advance(
        state, jnp.asarray(hyper), batches
    )
    batches = {
        seed: _placed(workload, order, study.steps, scanned)
        for seed, order in study.orders.items()
    }
    one = study._replace(seeds=study.seeds[:1], rates=study.rates[:1])
    first = clock.seconds_of(
        lambda: jax.block_until_ready(
            one_by_one(one, begin, with_hyper, evaluate, batches)()
        )
    )
    run = one_by_one(study, begin, with_hyper, evaluate, batches)
    name = f"optax, {'scans' if scanned else 'steps'}, one by one"
    return Contender(
        name, lambda: np.array(jax.device_get(run())), first, "compiled once"
    )


def _placed(
    workload: Workload, order: np.ndarray | None, steps: int, scanned: bool
) -> Any:
    """Return what `one_by_one` slices: a list of batches, or stacked batches."""
    batches = peers_jax.place_batches(workload, order, steps)
    if not scanned:
        return batches
    return _Sliced(
        Stacked(*(jnp.stack(arrays) for arrays in zip(*batches, strict=True)))
    )


def peers(
    study: Sweep, model: str, penalty: float, rule: str, with_torch: bool
) -> tuple[list[Contender], list[tuple[str, str]]]:
    """Return the peers that run, and the reasons for the others."""
    found = [optax_peer(study, rule, scanned=scanned) for scanned in (True, False)]
    if not with_torch:
        return found, [("PyTorch", "not installed")]
    from benchmarks import studies_torch

    return [
        *found,
        *(
            make(study, model, penalty, rule)
            for make in (studies_torch.eager, studies_torch.vmapped)
        ),
    ], []


def measure_study(
    workload: str,
    rule: str,
    with_torch: bool,
    budgets: Sequence[int],
    beside: int,
    rounds: int,
    **terms: Any,
) -> list[StudyRow]:
    """Measure ours with every number of runs, and the peers with one, in turns.

    All evaluations are compared with ours.
    """
    made = {budget: make_study(workload, rule, budget, **terms) for budget in budgets}
    compile_seconds, train = build_ours(made[beside], rule)
    others, absent = peers(made[beside], *WORKLOADS[workload], rule, with_torch)
    ours = {
        budget: Contender("ours", lambda s=s: train(s), compile_seconds)
        for budget, s in made.items()
    }
    values = {runner.name: runner.train() for runner in (ours[beside], *others)}
    apart = clock.check_equal(
        values, f"the training objective ({rule} on {workload})", TOLERANCE
    )
    calls = {f"ours {budget}": runner.train for budget, runner in ours.items()}
    for call in calls.values():
        call()
    seconds = clock.take_turns(
        calls | {runner.name: runner.train for runner in others}, rounds
    )
    mine = seconds[f"ours {beside}"]

    def row(
        runner: Contender, budget: int, took: np.ndarray, ratio: clock.Spread | None
    ) -> StudyRow:
        study, same = made[budget], budget == beside
        found = (runner.compile_seconds, clock.spread(took), ratio)
        loss = float(values[runner.name][:, -1].mean()) if same else None
        return StudyRow(
            workload,
            rule,
            runner.name,
            runner.note,
            len(study.seeds),
            study.steps,
            *found,
            loss,
            apart,
        )

    rows = [
        row(runner, budget, seconds[f"ours {budget}"], None)
        for budget, runner in ours.items()
    ]
    rows += [
        row(r, beside, seconds[r.name], clock.ratio(seconds[r.name], mine))
        for r in others
    ]
    runs, steps = len(made[beside].seeds), made[beside].steps
    return rows + [
        StudyRow(workload, rule, name, why, runs, steps) for name, why in absent
    ]


def measure(
    quick: bool, tell: Callable[[str], Any], only: Sequence[str] | None = None
) -> list[StudyRow]:
    """Measure every rule on every workload; if quick, a few runs of two epochs.

    Raises:
      ValueError: A name in `only` is no rule's.
    """
    if unknown := [name for name in only or () if name not in SPACES]:
        raise ValueError(
            f"there is no rule {', '.join(unknown)}; known: {', '.join(SPACES)}."
        )
    with_torch, rows = find_spec("torch") is not None, []
    for workload in list(WORKLOADS)[:1] if quick else WORKLOADS:
        for rule in only or SPACES:
            tell(f"studies: {rule} on {workload}")
            if quick:
                terms: dict[str, Any] = {"seeds": (0, 1), "num_epochs": 2}
                rows += measure_study(workload, rule, with_torch, (1, 2), 2, 1, **terms)
            else:
                rows += measure_study(
                    workload, rule, with_torch, BUDGETS, BESIDE, ROUNDS
                )
    return rows


class Line(NamedTuple):
    """The growth of our time with the number of runs.

    Attributes:
      slope: Seconds a run, of the line through 0 that misses no measured time by a
        larger share than `off`.
      off: That share.
      off_in_batches: The same where whole batches of runs are counted.
    """

    slope: float
    off: float
    off_in_batches: float


def line_of(rows: Sequence[StudyRow], width: int = descent.WIDTH) -> Line:
    """Fit the line through our least times with several numbers of runs.

    The least times are used, since a slow minute would bend the line.

    Example:
      >>> row = StudyRow("digits", "adam", "ours", "", 8, 5)
      >>> seconds = {8: clock.Spread(0.9, 0.9, 0.9), 80: clock.Spread(11.0, 11.0, 11.0)}
      >>> rows = [row._replace(runs=n, seconds=s) for n, s in seconds.items()]
      >>> line = line_of(rows)
      >>> round(line.slope, 3), round(line.off, 3), line.off == line.off_in_batches
      (0.124, 0.1, True)
    """
    runs = np.array([row.runs for row in rows], float)
    seconds = np.array([row.seconds.low for row in rows if row.seconds])
    found = [
        _line(counted, seconds) for counted in (runs, width * np.ceil(runs / width))
    ]
    return Line(found[0][0], found[0][1], found[1][1])


def _line(counted: np.ndarray, seconds: np.ndarray) -> tuple[float, float]:
    """Return the slope with the least largest relative error, and this error."""
    each = counted / seconds  # slope * each - 1 is the miss.
    slope = 2 / (each.max() + each.min())
    return float(slope), float(slope * each.max() - 1)


def section(rows: list[StudyRow]) -> Section:
    """Describe the rows in a section of the page."""
    compared = [row for row in rows if row.ratio]
    alone = [row for row in compared if "one by one" in row.contender]
    lines = {key: line_of(mine) for key, mine in _ours(rows).items()}
    answer = ""
    if alone:
        ratios = [row.ratio.median for row in alone if row.ratio]
        off = max(line.off for line in lines.values())
        off_in_batches = max(line.off_in_batches for line in lines.values())
        answer = (
            f"A study of {alone[0].runs} runs is {number(min(ratios))} to "
            f"{number(max(ratios))} times as fast as the same runs one by one, "
            "compilation apart; its least time is proportional to runs within "
            f"{100 * off:.0f} %, and to runs in whole batches within "
            f"{100 * off_in_batches:.0f} %."
        )
    grown = [
        [
            workload,
            rule,
            ", ".join(
                f"{r.runs}: {number(1e3 * r.seconds.low)}" for r in mine if r.seconds
            ),
        ]
        + [
            number(1e3 * line.slope),
            f"{100 * line.off:.1f} %",
            f"{100 * line.off_in_batches:.1f} %",
        ]
        for ((workload, rule), mine), line in zip(
            _ours(rows).items(), lines.values(), strict=True
        )
    ]
    columns = [
        "workload",
        "rule",
        "least ms, by runs",
        "ms a run",
        "off the line",
        "off, counted in batches",
    ]
    text = f"{_table(rows)}\n\n{_words(rows)}\n\n{table(columns, grown)}"
    return Section("A study", answer, text, _missed(compared))


def _ours(rows: Sequence[StudyRow]) -> dict[tuple[str, str], list[StudyRow]]:
    found: dict[tuple[str, str], list[StudyRow]] = {}
    for row in rows:
        if row.contender == "ours":
            found.setdefault((row.workload, row.rule), []).append(row)
    return found


def _table(rows: Sequence[StudyRow]) -> str:
    columns = [
        "workload",
        "rule",
        "contender",
        "runs",
        "runs/s",
        "ours is faster by",
        "compile s",
        "loss",
        "note",
    ]
    lines = [
        [row.workload, row.rule, row.contender, row.runs, spread_words(row.per_second)]
        + [
            "" if row.contender == "ours" else spread_words(row.ratio),
            optional(row.compile_seconds),
        ]
        + ["-" if row.loss is None else f"{row.loss:.12f}", row.note]
        for row in rows
    ]
    return table(columns, lines)


def _words(rows: Sequence[StudyRow]) -> str:
    steps = ", ".join(
        f"{row.steps} on {row.workload}"
        for row in {row.workload: row for row in rows}.values()
    )
    apart = max((row.apart for row in rows if row.apart is not None), default=0.0)
    return (
        f"Mini-batch {BATCH_SIZE}; steps of a run: {steps}. All evaluate the training "
        f"objective at the same steps, where they are {apart:.1e} apart at most, "
        "relatively. Compile s is building and the first run, of vmap the first step. "
        "Scans go from one evaluation to the next. The line is the one through 0 that "
        "misses none of the rounds' least times by a larger share than is shown; "
        "batches are filled up to eight runs."
    )


def _missed(compared: Sequence[StudyRow]) -> list[str]:
    goals = [
        (row, row.ratio.median, GOAL_IN_SWEEP if "one by one" in row.contender else 1.0)
        for row in compared
        if row.ratio
    ]
    return [
        f"study, {row.rule} on {row.workload}: {number(ratio)} times as fast as "
        f"{row.contender}, goal {goal:.0f}"
        for row, ratio, goal in goals
        if ratio < goal
    ]


if __name__ == "__main__":
    print_part(__doc__, measure, section, "a rule")
