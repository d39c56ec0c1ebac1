"""Is every update rule the rule of its paper?

Each rule of `research.update_rules` walks fifty steps on three functions and on five given sequences of gradients (drawn,
sparse, of sizes from e^-30 to e^30, zero, and one with a NaN in it), with its defaults and with other arguments, in float64
and float32. Beside it walk its formula, written anew from the paper in fifty digits; its counterpart in optax; and the
recorded trajectory of another package. Every cell is a number, the largest difference, or the reason why there is none.

    python experiments/rules.py                        # a few minutes
    python experiments/rules.py --rule adam lion       # two of them

On functions the difference is |x - y| / (1 + |y|) over all iterates and entries; where gradients are given, that of the
updates over the entry's largest. Numbers to expect (`EXPECTED`): the largest differences in float64, and how many cells
lie above their bound, which is a hundred times the rounding error of a number unless the rule states a reason. Optax is
further off in RAdam, where it takes a small number as the difference of large ones, and the record in L-BFGS, which
magnifies rounding on Rosenbrock's function: the recorded run itself is 6e-12 from the exact one.
"""

import dataclasses
import sys

import numpy as np

import research

EXPECTED = {
    "formula_float64": (0.0, 1e-12),
    "optax_float64": (0.0, 5e-12),
    "recorded_float64": (0.0, 2e-11),
    "over_bound": (0, 0),
}
WHO = {
    "formula": "its formula",
    "optax": "optax",
    "recorded": "another package's record",
}


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run."""

    rule: tuple[str, ...] = ()
    """Names of rules; none means all of them."""


FULL = Config()


def run(config, on_progress=None, checkpoints=None):
    """Asks every authority about every rule."""
    for name in config.rule:
        research.update_rules.find_rule(name)
    names = list(dict.fromkeys(config.rule)) or list(research.update_rules.UPDATE_RULES)
    checkpoint = (checkpoints or research.types.no_checkpoints)("cells")
    saved = checkpoint.load()
    found = dict(saved.values) if saved else {}
    for done, name in enumerate(names):
        if on_progress:
            on_progress(done, len(names), name)
        if name not in found:
            found[name] = cells_of(name)
            if checkpoint.due():
                checkpoint.save(research.types.Saved({}, found))
    if on_progress:
        on_progress(len(names), len(names), "done")
    cells = [cell for name in names for cell in found[name]]
    numbers = numbers_of(cells, names)
    arrays = {
        f"{who}_{dtype}": matrix(cells, names, who, dtype)
        for who in WHO
        for dtype in ("float64", "float32")
    }
    tables = (
        verification_table(cells, names),
        reasons_table(cells),
        *family_tables(names),
    )
    return research.runs.Result(
        answer(numbers),
        tables,
        arrays,
        {"names": names, "problems": problems(), **numbers},
    )


def cells_of(name):
    """The rule's cells as JSON values."""
    return [
        {
            "rule": name,
            "who": cell.authority,
            "dtype": cell.dtype,
            "problem": cell.problem,
            "arguments": cell.arguments,
            "reason": cell.reason,
            "bound": cell.bound,
            **(
                {}
                if cell.deviation is None
                else {
                    "largest": cell.deviation.largest,
                    "step": cell.deviation.step + 1,
                }
            ),
        }
        for cell in research.verification.verification_table([name])
    ]


def problems():
    """Names of the problems, in order."""
    return list(research.verification.PROBLEMS)


def numbers_of(cells, names):
    """What is compared with EXPECTED, and the counts that the answer tells."""
    told = [cell for cell in cells if cell["reason"] is None]
    numbers = {
        "rules": len(names),
        "numbers": len(told),
        "reasons": len(cells) - len(told),
        "over_bound": sum(cell["largest"] > cell["bound"] for cell in told),
    }
    for who in WHO:
        for dtype in ("float64", "float32"):
            worst = largest(told, who, dtype)
            numbers |= {f"{who}_{dtype}": worst["largest"] if worst else 0.0}
    return numbers


def largest(cells, who, dtype, rule=None):
    """The cell with the largest number, or None."""
    those = [
        c
        for c in cells
        if c["reason"] is None
        and (c["who"], c["dtype"]) == (who, dtype)
        and rule in (None, c["rule"])
    ]
    return max(those, key=lambda cell: cell["largest"], default=None)


def matrix(cells, names, who, dtype):
    """The largest difference by rule and problem, shape (rules, problems); NaN where there is no number."""
    found = np.full((len(names), len(problems())), np.nan)
    for cell in cells:
        if cell["reason"] is None and (cell["who"], cell["dtype"]) == (who, dtype):
            at = names.index(cell["rule"]), problems().index(cell["problem"])
            found[at] = np.fmax(found[at], cell["largest"])
    return found


def answer(numbers):
    """The answer in a sentence or two."""
    every = (
        "Yes"
        if not numbers["over_bound"]
        else f"No, {numbers['over_bound']} cells lie above their bound"
    )
    return (
        f"{every}: {numbers['rules']} rules lie within {numbers['formula_float64']:.1e} of their papers' formulas in "
        f"float64 ({numbers['formula_float32']:.1e} in float32), within {numbers['optax_float64']:.1e} of optax where it "
        f"has the same rule, and within {numbers['recorded_float64']:.1e} of what other packages were recorded to do. "
        f"That is {numbers['numbers']:,} comparisons; {numbers['reasons']:,} more could not be made, each for a reason."
    )


def verification_table(cells, names):
    """A row a rule: the largest difference from each authority, and where it appears."""
    rows = []
    for name in names:
        row = [name]
        for who in WHO:
            worst = largest(cells, who, "float64", name)
            row += (
                [f"{worst['largest']:.0e}", f"{worst['problem']}, {worst['step']}"]
                if worst
                else ["none", ""]
            )
        for who in ("formula", "optax"):
            worst = largest(cells, who, "float32", name)
            row.append(f"{worst['largest']:.0e}" if worst else "none")
        rows.append(
            (*row, sum(c["reason"] is not None for c in cells if c["rule"] == name))
        )
    columns = ["rule"]
    for who in ("formula", "optax", "recorded"):
        columns += [who, f"{who}: problem, step"]
    columns = (*columns, "formula, float32", "optax, float32", "reasons")
    note = "Largest difference over problems and arguments, in float64 unless a column says otherwise. Recorded: torch, timm."
    return research.runs.Table(
        "Every rule before its authorities", columns, tuple(rows), note
    )


def reasons_table(cells):
    """Why cells have no number, counted."""
    counted = {}
    for cell in cells:
        if cell["reason"] is not None:
            counted.setdefault((WHO[cell["who"]], cell["reason"]), []).append(
                cell["rule"]
            )
    rows = tuple(
        (who, reason, ", ".join(dict.fromkeys(rules)), len(rules))
        for (who, reason), rules in counted.items()
    )
    return research.runs.Table(
        "Why there is no number", ("beside", "reason", "rules", "cells"), rows
    )


def family_tables(names):
    """A table a family: what its rules do, with which defaults, from which paper, and when to use them."""
    from research.verification import cards

    families = {}
    for name in names:
        found = cards.card(name)
        row = (
            found.signature,
            " ".join((found.summary, *found.formula)),
            found.use,
            found.papers,
            found.line,
        )
        families.setdefault(found.family, []).append(row)
    return [
        research.runs.Table(
            f"The rules of research/update_rules/{family}.py",
            (
                "rule and defaults",
                "formula and differences",
                "when to use it",
                "papers",
                "line",
            ),
            tuple(rows),
        )
        for family, rows in families.items()
    ]


def draw(result):
    """The verification table as a picture: how many digits each rule agrees to, by problem."""
    arrays, numbers = result.arrays, result.numbers
    panels = [
        ("formula_float64", "formula, float64"),
        ("optax_float64", "optax, float64"),
        ("formula_float32", "formula, float32"),
    ]
    names, columns = (
        numbers["names"],
        [name.replace("_", " ") for name in numbers["problems"]],
    )
    height = 1.6 + 0.2 * len(names)
    figure, axes = research.figures.new_figure(
        1, len(panels), width=10.0, height=height, sharey=True
    )
    for axis, (key, title) in zip(axes[0], panels, strict=True):
        eps = np.finfo(key.rpartition("_")[2]).eps
        draw_digits(axis, np.log10(np.maximum(arrays[key], eps / 4)), columns, names)
        axis.set_title(title)
    caption = (
        f"How far each of {len(names)} rules lies from its formula in fifty digits and from optax, as the power of ten of "
        f"the largest difference within fifty steps. White: no number, for a reason that the table tells."
    )
    return {
        "verification": research.figures.Picture(
            "Every rule before its authorities", caption, figure
        )
    }


def draw_digits(axis, exponents, columns, rows):
    """A grid of colours with the exponents written in."""
    axis.imshow(
        exponents, cmap="viridis_r", vmin=-17, vmax=-5, aspect="auto", alpha=0.75
    )
    axis.set_xticks(range(len(columns)), columns, rotation=60, ha="right", fontsize=8)
    axis.set_yticks(range(len(rows)), rows, fontsize=8)
    axis.grid(visible=False)
    for (row, column), exponent in np.ndenumerate(exponents):
        if np.isfinite(exponent):
            ink = "white" if exponent > -8.5 else "black"
            axis.text(
                column,
                row,
                f"{exponent:.0f}".replace("-", "−"),
                ha="center",
                va="center",
                fontsize=6,
                color=ink,
            )


if __name__ == "__main__":
    research.cli.main(sys.modules[__name__])
