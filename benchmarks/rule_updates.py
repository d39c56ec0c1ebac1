"""Time the jitted update of each rule beside optax's, on 1, 100 and 1,000 leaves.

python -m benchmarks.rule_updates  # every rule that has a counterpart in optax
python -m benchmarks.rule_updates --only adam --quick   # a smoke run
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import clock
from benchmarks.alone import print_part
from benchmarks.tables import Section, number, spread_words, table
from research.update_rules import UPDATE_RULES
from research.verification import CARDS

LEAVES = (1, 100, 1000)
ENTRIES = 64  # Of each leaf: few, so that what is timed is the price of having leaves.
FULLY = (
    "gradient_descent",
    "heavy_ball",
    "nesterov",
    "adagrad",
    "rmsprop",
    "adam",
    "adamw",
    "lion",
)
FEWER = (100,)  # Leaves on which every other rule is timed.
RATE = 0.01
# Relative to a leaf's largest update: two float64 programs of one rule differ by
# rounding alone.
TOLERANCE = 1e-9
CHECKED_STEPS = 3
NOT_THE_SAME = "not timed, the updates are not optax's"
ROUNDS, BUILDS = 21, 5
CALLS = {1: 500, 100: 50, 1000: 5}  # In a round, so that it takes milliseconds.
WAYS = ("ours", "optax")

Constructor = Callable[[float], optax.GradientTransformation]


class Built(NamedTuple):
    """A compiled update, with the seconds until its first result."""

    update: Callable[..., Any]
    state: Any
    trace: float
    compile: float
    first: float


class CostRow(NamedTuple):
    """One rule on one number of leaves.

    Attributes:
      rule, leaves: Which.
      note: Why there are no numbers, or "".
      updates: By WAYS, microseconds an update in the steady state, a Spread over the
        rounds.
      first: By WAYS, seconds of the first call: tracing, compiling and running; a
        Spread over the builds.
      compile: By WAYS, what of that is compiling.
      ratio, first_ratio, compile_ratio: How many times as fast ours is, a Spread as
        `clock.paired_ratio` gives it.
    """

    rule: str
    leaves: int
    note: str = ""
    updates: dict[str, clock.Spread] | None = None
    first: dict[str, clock.Spread] | None = None
    compile: dict[str, clock.Spread] | None = None
    ratio: clock.Spread | None = None
    first_ratio: clock.Spread | None = None
    compile_ratio: clock.Spread | None = None


def counterparts() -> dict[str, dict[str, Constructor]]:
    """Return both constructors, by WAYS, of each rule that optax also has."""
    found = {}
    for name, make in UPDATE_RULES.items():
        theirs = CARDS[name].optax if name in CARDS else ""
        if not isinstance(theirs, str):
            found[name] = {"ours": make, "optax": theirs}
    return found


def make_tree(leaves: int) -> tuple[Any, Any]:
    """Return params and gradients in float64, by name as a model has them."""
    rng = np.random.default_rng(leaves)
    names = [f"layer_{i}" for i in range(leaves)]
    params, gradients = (
        {name: jnp.asarray(rng.standard_normal(ENTRIES)) for name in names}
        for _ in range(2)
    )
    return params, gradients


def call_of(rule: optax.GradientTransformation) -> Callable[..., Any]:
    """Return a new function (gradients, state, params) -> (updates, state).

    Rules that need the value also receive it.
    """
    update = optax.with_extra_args_support(rule).update
    return lambda g, state, params: update(g, state, params, value=jnp.ones(()), grad=g)


def build(make: Constructor, params: Any, gradients: Any) -> Built:
    """Trace, compile and call an update anew."""
    rule = make(RATE)
    state = jax.block_until_ready(rule.init(params))
    parts: dict[str, Any] = {}

    def keep(name: str, call: Callable[[], Any]) -> float:
        return clock.seconds_of(lambda: parts.__setitem__(name, call()))

    trace = keep(
        "lowered", lambda: jax.jit(call_of(rule)).lower(gradients, state, params)
    )
    compiling = keep("update", lambda: parts["lowered"].compile())
    running = clock.seconds_of(
        lambda: jax.block_until_ready(parts["update"](gradients, state, params))
    )
    return Built(parts["update"], state, trace, compiling, trace + compiling + running)


def walk(built: Built, params: Any, gradients: Any, steps: int) -> Any:
    """Return the updates of the last of this many steps."""
    state, updates = built.state, None
    for _ in range(steps):
        updates, state = built.update(gradients, state, params)
    return jax.block_until_ready((updates, state))[0]


def difference(built: dict[str, Built], params: Any, gradients: Any) -> float:
    """Return the largest difference between the two rules' updates after some steps.

    Its unit is the leaf's largest update; it is inf for NaN.
    """
    ours, theirs = (
        jax.tree.leaves(walk(built[way], params, gradients, CHECKED_STEPS))
        for way in WAYS
    )
    apart = [
        float(jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(b)))
        for a, b in zip(ours, theirs, strict=True)
    ]
    return float("inf") if any(map(math.isnan, apart)) else max(apart)


def measure_rule(
    name: str, makes: dict[str, Constructor], leaves: int, rounds: int, builds: int
) -> CostRow:
    """Build both rules in turns, compare their updates, and time both in turns."""
    params, gradients = make_tree(leaves)
    small, of_small = make_tree(1)
    made: dict[str, list[Built]] = {way: [] for way in WAYS}
    try:
        # What is loaded when a rule is first used is not its own price.
        for way in WAYS:
            build(makes[way], small, of_small)
    except (TypeError, ValueError) as problem:
        words = " ".join(str(problem).split()).partition(";")[0]
        note = f"needs more than the gradient: {words}"[:80]
        return CostRow(name, leaves, note)
    clock.take_turns(
        {
            way: lambda way=way: made[way].append(build(makes[way], params, gradients))
            for way in WAYS
        },
        builds,
    )
    built = {way: made[way][-1] for way in WAYS}
    if (apart := difference(built, params, gradients)) > TOLERANCE:
        return CostRow(name, leaves, f"{NOT_THE_SAME}: {apart:.1e} apart, relatively")
    calls = CALLS.get(leaves, 1)
    seconds = clock.take_turns(
        {way: partial(walk, built[way], params, gradients, calls) for way in WAYS},
        rounds,
    )
    first, compiling = (
        {way: [getattr(b, what) for b in made[way]] for way in WAYS}
        for what in ("first", "compile")
    )

    def spreads(values: dict[str, Any], scale: float = 1.0) -> dict[str, clock.Spread]:
        return {way: clock.spread(scale * np.asarray(values[way])) for way in WAYS}

    return CostRow(
        name,
        leaves,
        "",
        spreads(seconds, 1e6 / calls),
        spreads(first),
        spreads(compiling),
        *(
            clock.paired_ratio(values["optax"], values["ours"])
            for values in (seconds, first, compiling)
        ),
    )


def measure(
    quick: bool, tell: Callable[[str], Any], only: Sequence[str] | None = None
) -> list[CostRow]:
    """Measure the rules of FULLY and of `only` on LEAVES, the others on FEWER.

    If quick, measure only Adam or those of `only`, and not on a thousand leaves.

    Raises:
      ValueError: A name in `only` has no counterpart.
    """
    known, rows = counterparts(), []
    if unknown := [name for name in only or () if name not in known]:
        raise ValueError(
            f"no counterpart in optax is known of {', '.join(unknown)}; known: "
            f"{', '.join(known)}."
        )
    for name in only or (["adam"] if quick else known):
        for leaves in LEAVES if only or name in FULLY else FEWER:
            if quick and leaves == max(LEAVES):
                continue
            tell(f"updates: {name}, {leaves} leaves")
            rows.append(
                measure_rule(
                    name,
                    known[name],
                    leaves,
                    3 if quick else ROUNDS,
                    1 if quick else BUILDS,
                )
            )
    return rows


def verdict(ratio: clock.Spread) -> str:
    """Return whether ours is faster, slower, or level within the spread.

    Example:
      >>> verdict(clock.Spread(0.9, 0.8, 0.95)), verdict(clock.Spread(0.99, 0.97, 1.01))
      ('slower', 'level')
    """
    return "slower" if ratio.high < 1 else "faster" if ratio.low > 1 else "level"


def section(rows: list[CostRow]) -> Section:
    """Describe the rows in a section of the page."""
    timed = [row for row in rows if row.ratio and row.first_ratio and row.compile_ratio]
    counted = {
        what: [verdict(getattr(row, field)) for row in timed]
        for what, field in (
            ("an update", "ratio"),
            ("the first call", "first_ratio"),
            ("compiling", "compile_ratio"),
        )
    }
    words = "; ".join(
        f"{what}: level in {found.count('level')}, faster in {found.count('faster')}, "
        f"slower in {found.count('slower')}"
        for what, found in counted.items()
    )
    answer = (
        f"An update of ours beside optax's, in {len(timed)} pairs of rule and number of"
        f" leaves: {words}."
    )
    text = (
        f"{_table(rows)}\n\nLeaves are of {ENTRIES} float64 each; ratios are optax's "
        "seconds over ours, the median of the rounds with the interval that holds it "
        "in 95 of 100 runs (of fewer than six rounds: from the least to the largest). "
        "Slower and faster is said where that interval leaves out 1."
    )
    missed = [
        f"{_place(row)}: {row.note}"
        for row in rows
        if row.note.startswith(NOT_THE_SAME)
    ]
    missed += [
        f"{_place(row)}: {what} takes {number(1 / ratio.median)} times what optax's "
        "takes"
        for row in timed
        for what, ratio in (
            ("an update", row.ratio),
            ("the first call", row.first_ratio),
        )
        if ratio and verdict(ratio) == "slower"
    ]
    return Section("An update", answer if timed else "", text, missed)


def _place(row: CostRow) -> str:
    return f"{row.rule}, {row.leaves} {'leaf' if row.leaves == 1 else 'leaves'}"


def _table(rows: list[CostRow]) -> str:
    columns = [
        "rule",
        "leaves",
        "update µs",
        "optax µs",
        "ours is faster by",
        "first call s",
        "by",
        "compile s",
        "by",
    ]
    lines = []
    for row in rows:
        if not (row.updates and row.first and row.compile):
            lines.append([row.rule, row.leaves, row.note, *"------"])
            continue
        medians = (number(values["ours"].median) for values in (row.first, row.compile))
        first, compiling = medians
        lines.append(
            [
                row.rule,
                row.leaves,
                *(number(row.updates[way].median) for way in WAYS),
                spread_words(row.ratio),
            ]
            + [
                first,
                spread_words(row.first_ratio),
                compiling,
                spread_words(row.compile_ratio),
            ]
        )
    return table(columns, lines)


if __name__ == "__main__":
    print_part(__doc__, measure, section, "a rule")
