"""The tables of batch, stochastic and mini-batch descent, from the facts of each program."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from research.checks import check_mapping, check_sequence, check_text
from research.runs import Table


def regime_tables(numbers: dict[str, Any], rule: str) -> tuple[Table, ...]:
    """The tables of batch_stochastic_minibatch: the first is what the terminal shows, the rest is the report's.

    Args:
      numbers: Of the experiment's result: rows, floors, deviations, optima, proof.
      rule: The rule that the first table is about.
    Returns:
      Costs, floors, deviations from optax, rules, targets, optima.
    """
    check_mapping("numbers", numbers, "what the experiment found")
    check_text("rule", rule)
    needed = ("rows", "floors", "deviations", "first", "proof", "optima")
    if missing := [name for name in needed if name not in numbers]:
        raise ValueError(
            f"numbers must be those of batch_stochastic_minibatch; they have no {', '.join(missing)}."
        )
    check_sequence("numbers['rows']", numbers["rows"], "rows", Mapping)
    if not numbers["rows"]:
        raise ValueError(
            "numbers must have at least one row; numbers['rows'] is empty."
        )
    for name in needed[1:3] + needed[4:]:
        check_mapping(f"numbers[{name!r}]", numbers[name])
    return (
        costs_table(numbers, rule),
        floors_table(numbers),
        deviations_table(numbers),
        rules_table(numbers),
        targets_table(numbers),
        optima_table(numbers),
    )


def table(
    title: str,
    rows: Iterable[Any],
    columns: Mapping[str, Callable[[Any], Any]],
    note: str,
) -> Table:
    """A table from a dict of column name -> function of a row."""
    cells = tuple(tuple(column(row) for column in columns.values()) for row in rows)
    return Table(title, tuple(columns), cells, note)


def key_columns(*names: str) -> dict[str, Callable[[dict], Any]]:
    """Columns that a row has under their own name."""
    return {name: lambda row, name=name: row[name] for name in names}


def times(passes: float | None, factor: float) -> float | None:
    """A product in which None, not reached, stays None."""
    return None if passes is None else passes * factor


def costs_table(numbers: dict[str, Any], rule: str) -> Table:
    """Gradient descent: passes and seconds to each target."""
    names = list(numbers["rows"][0]["targets"])
    columns = key_columns("workload", "regime", "rate")
    columns |= {f"passes to {t}": lambda row, t=t: row["targets"][t][0] for t in names}
    columns |= {
        f"seconds to {t}": lambda row, t=t: times(
            row["targets"][t][0], row["seconds_per_pass"]
        )
        for t in names
    }
    columns |= {"comes to rest at": lambda row: row["floor"][0]}
    return table(
        "Gradient descent: what it costs to come within a share of the initial f - f*",
        [row for row in numbers["rows"] if row["rule"] == rule],
        columns,
        "Medians over the reported seeds. Seconds are those of one training by itself, compilation apart; the last "
        "column is the mean over the last third of the budget, as a share of the initial gap.",
    )


def floors_table(numbers: dict[str, Any]) -> Table:
    """Sampling with and without replacement at fixed rates."""
    floors = numbers["floors"]
    columns = key_columns("regime", "rate") | {
        "η tr(C) / 4b": lambda row: row["predicted"],
        "with replacement": lambda row: row["with"][0],
        "over prediction": lambda row: row["with"][0] / row["predicted"],
        "without": lambda row: row["without"][0],
        "lower by": lambda row: row["with"][0] / row["without"][0],
    }
    return table(
        f"Where gradient descent of fixed rate comes to rest on {floors['workload']}",
        floors["rows"],
        columns,
        f"f - f*, medians over the reported seeds; tr(C) = {floors['trace']:.4g} at x*. The prediction is for draws "
        "with replacement and to first order in the rate.",
    )


def deviations_table(numbers: dict[str, Any]) -> Table:
    """Ours against optax."""
    columns = {"rule": lambda item: item[0]}
    for dtype in ("float32", "float64"):
        columns[dtype] = lambda item, dtype=dtype: item[1][dtype]["largest"]
        columns[f"{dtype}: at step"] = lambda item, dtype=dtype: item[1][dtype]["step"]
    return table(
        "Largest deviation of each rule from optax's over a whole trajectory",
        numbers["deviations"].items(),
        columns,
        f"max |ours - optax| / (1 + |optax|), full batch on {numbers['first']}, {numbers['proof']['steps']} steps of "
        f"rate {numbers['proof']['rate']:.3g}, computed in this run.",
    )


def rules_table(numbers: dict[str, Any]) -> Table:
    """Every program: chosen rate, outcome, and seconds with compilation, first call and steady state apart."""
    columns = key_columns("workload", "rule", "regime", "rate") | {
        "rate at edge": lambda row: "yes" if row["rate_at_edge"] else "no",
        "trainings": lambda row: row["cells"],
        "diverged": lambda row: row["diverged"],
        "ends at": lambda row: row["floor"][0],
        "low": lambda row: row["floor"][1],
        "high": lambda row: row["floor"][2],
        "s to compile all": lambda row: row["compile_seconds"],
        "s to compile one": lambda row: row["alone"]["compile_seconds"],
        "s, first call": lambda row: row["alone"]["first_call_seconds"],
        "s a pass": lambda row: row["seconds_per_pass"],
    }
    return table(
        "Every rule and regime at its chosen rate",
        numbers["rows"],
        columns,
        "Ends at: mean over the last third of the budget as a share of the initial gap, median over seeds with its "
        "95 % bootstrap interval. AdamW's own decay moves its fixed point away from x*.",
    )


def targets_table(numbers: dict[str, Any]) -> Table:
    """Steps, example gradients and seconds to each target."""
    rows = [(row, target) for row in numbers["rows"] for target in row["targets"]]
    columns = {
        name: lambda item, name=name: item[0][name]
        for name in ("workload", "rule", "regime")
    } | {
        "target": lambda item: item[1],
        "steps": lambda item: times(
            item[0]["targets"][item[1]][0], item[0]["n"] / item[0]["batch_size"]
        ),
        "example gradients": lambda item: times(
            item[0]["targets"][item[1]][0], item[0]["n"]
        ),
        "passes, low": lambda item: item[0]["targets"][item[1]][1],
        "passes, high": lambda item: item[0]["targets"][item[1]][2],
        "seconds": lambda item: times(
            item[0]["targets"][item[1]][0], item[0]["seconds_per_pass"]
        ),
    }
    return table(
        "Steps, example gradients and seconds to each target",
        rows,
        columns,
        "The first evaluation at or below the target; median over seeds, interval of the passes beside it.",
    )


def optima_table(numbers: dict[str, Any]) -> Table:
    """How exact the yardstick is."""
    columns = {
        "workload": lambda item: item[0],
        "f*": lambda item: item[1]["value"],
        "gradient norm": lambda item: item[1]["gradient_norm"],
        "over the one at 0": lambda item: item[1]["relative_gradient_norm"],
        "solver": lambda item: item[1]["solver"],
    }
    note = "Solved in float64 by code that shares nothing with descent."
    return table(
        "The exact optimum of each workload", numbers["optima"].items(), columns, note
    )
