"""Does the error that a numerical derivative claims bound the error that it makes?

`finite_difference` and three other packages differentiate the same functions at the same points and say how wrong they
may be: scipy.differentiate, numdifftools and jacobi. Two scores count. Coverage: how often the actual error is within
the claim. Sharpness: how many times larger than the actual error the claim is, in the median; claiming a lot is safe
and useless. And at kinks, jumps, edges and oscillations, where no derivative exists: who claims to know it all the same.

The problems were written down, and hashed, before the estimator was; `--half development` shows those that it was built
on. Both halves were made by the author of `finite_difference`, who knew what is hard; the others are run at their
defaults. numdifftools and jacobi are run where they are installed (`pip install '.[peers]'`), and are not needed otherwise.

Then random functions in eight classes, orders 1 to 4: smooth, at a root, with a jump in f'' or f''', with a kink at x or
near it, where terms cancel, and rounded to a grid. Each package is asked what it can: scipy.differentiate and jacobi know
the first order only. Wrong is an answer whose claim does not hold: the error exceeds it, or, where there is no derivative,
half the gap between the two sides does; its share is of all functions.

    python experiments/honest_errors.py            # about a minute
    python experiments/honest_errors.py --full     # 2,000 functions of each class and order; about ten minutes
    python experiments/honest_errors.py --per-class 2000 --seed 7

The numbers to expect (`EXPECTED`) are those of `finite_difference`: the share of claims that hold; the median claim over
error; the share of problems with a derivative that it answers; its answers where there is none; and of random functions
the share of wrong answers for smooth functions and roots, and for kinks.
"""

import dataclasses
import importlib
import importlib.util
import math
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np

import research

EXPECTED = {
    "coverage": (0.98, 1.0),
    "sharpness": (1.0, 30.0),
    "answered": (0.9, 1.0),
    "false_answers": (0, 0),
}
EXPECTED |= {"smooth_wrong": (0.0, 0.005), "kinks_wrong": (0.0, 0.01)}

OURS = "finite_difference"
PEERS = {
    "scipy.differentiate": "scipy",
    "scipy.differentiate, all": "scipy",
    "numdifftools": "numdifftools",
    "jacobi": "jacobi",
}
ORDERS = (1, 2, 3, 4)
CONFIDENT = 0.1  # A claim of at most this share of max(|value|, 1) says that the derivative is known.
UNIT = np.finfo(np.float64).eps / 2


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run."""

    half: Literal["held out", "development"] = "held out"
    """Of the problems: those that nothing was tuned on, or those that were used in building."""
    per_class: int = 200
    """Random functions of each class; 0 leaves them out."""
    seed: int = 0
    """Seed of the random functions."""


FULL = Config(per_class=2000)


def run(config, on_progress=None, checkpoints=None):
    """Every package on every problem."""
    del checkpoints  # It takes a minute.
    if config.per_class < 0 or config.seed < 0:
        raise ValueError(
            f"both must be at least 0; got per_class={config.per_class!r} and seed={config.seed!r}."
        )
    problems = halves(config.half)
    methods = installed()
    arrays, scores, answers = {"truth": np.array([p.truth for p in problems])}, {}, {}
    for name, method in methods.items():
        found, seconds = ask(method, problems)
        told = np.where(found[:, 2:3] > 0, found[:, :2], np.nan)
        arrays |= {f"{name}/value": told[:, 0], f"{name}/claim": told[:, 1]}
        scores[name] = score(arrays["truth"], found) | {
            "milliseconds": 1e3 * seconds / len(problems)
        }
        answers[name] = false_answers(problems, found)
    rows = random_rows(config, methods, on_progress)
    ours = {key: scores[OURS][key] for key in EXPECTED if key in scores[OURS]}
    numbers = {
        "half": config.half,
        "problems": len(problems),
        "exist": int(np.isfinite(arrays["truth"]).sum()),
    }
    numbers |= ours | {"scores": scores, "answers": answers}
    tables = [scores_table(numbers), answers_table(numbers, problems)]
    if rows:
        numbers |= {
            "smooth_wrong": pooled(rows, "smooth", "root"),
            "kinks_wrong": pooled(rows, "kink"),
        }
        numbers |= {"per_class": config.per_class, "random": rows}
        tables.append(random_table(numbers))
    tables = tuple(tables)
    return research.runs.Result(answer(numbers), tables, arrays, numbers)


def halves(name):
    """The problems of one half."""
    problems = research.derivatives.problems
    known = {"held out": problems.HELD_OUT, "development": problems.DEVELOPMENT}
    if name not in known:
        raise ValueError(
            f"half must be 'held out' or 'development'; got half={name!r}."
        )
    return known[name]


class Package(NamedTuple):
    """How a package is asked, (f, x, order) -> reply, and how that is read: (value, claim, whether it says that it answers).

    The two are apart so that only what the package raises counts as its having no answer: a fault of the reading stops
    the experiment, instead of being written down against the package.
    """

    ask: Callable[..., Any]
    read: Callable[[Any], tuple[Any, Any, bool]]
    orders: tuple[int, ...] = (1,)


def installed():
    """name -> Package, each at its defaults, of those that are there."""
    load = importlib.import_module
    scipy_ask = lambda f, x, order: load("scipy.differentiate").derivative(f, x)
    packages = {
        OURS: Package(
            lambda f, x, order: research.derivatives.finite_difference(f, x, order),
            lambda r: (r.value, r.error, r.verdict == "ok"),
            ORDERS,
        ),
        # It too says where it has failed; "all" takes its value and error even then.
        "scipy.differentiate": Package(
            scipy_ask, lambda r: (r.df, r.error, bool(r.success))
        ),
        "scipy.differentiate, all": Package(scipy_ask, lambda r: (r.df, r.error, True)),
        "numdifftools": Package(
            lambda f, x, order: load("numdifftools").Derivative(
                f, n=order, full_output=True
            )(x),
            read_numdifftools,
            ORDERS,
        ),
        "jacobi": Package(
            lambda f, x, order: load("jacobi").jacobi(f, x),
            lambda r: (r[0], r[1], True),
        ),
    }
    return {
        name: package
        for name, package in packages.items()
        if name == OURS or importable(PEERS[name])
    }


def read_numdifftools(reply):
    """A tuple of estimate, error_estimate and more; before 0.11.2 of the estimate and a tuple with the rest."""
    told = reply if hasattr(reply, "error_estimate") else reply[1]
    return reply[0], told.error_estimate, True


def importable(module):
    """Whether a package is there; it is not imported."""
    return importlib.util.find_spec(module) is not None


def ask(package, problems):
    """(value, claim, answered, evaluations) of each problem, shape (problems, 4), and the seconds of all."""
    rows, start = [], time.perf_counter()
    for problem in problems:
        rows.append(ask_one(package, problem.function(), problem.x))
    return np.array(rows), time.perf_counter() - start


def ask_one(package, f, x, order=1):
    """(value, claim, answered, evaluations) of one function; a package that stops with an error gives no answer."""
    count = 0

    def counted(at):
        nonlocal count
        count += np.size(at)
        return f(at)

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            reply = package.ask(counted, x, order)
        except (
            ArithmeticError,
            ValueError,
            TypeError,
            IndexError,
            np.linalg.LinAlgError,
        ):
            return math.nan, math.inf, False, count
    value, claim, says = package.read(reply)
    value, claim = float(np.squeeze(value)), float(np.squeeze(claim))
    return value, claim, says and math.isfinite(value) and math.isfinite(claim), count


def score(truth, found):
    """Coverage, sharpness and the like, on the problems that have a derivative; and answers where there is none."""
    exists, answered = np.isfinite(truth), found[:, 2].astype(bool)
    told = exists & answered
    error = np.abs(found[told, 0] - truth[told])
    # What float64 cannot tell counts as an error too, so that a lucky zero is no infinite claim.
    least = np.maximum(
        error, np.maximum(UNIT * np.abs(truth[told]), np.finfo(np.float64).tiny)
    )
    return {
        "coverage": share_of(error <= found[told, 1]),
        "off_tenfold": share_of(
            error > 10 * np.maximum(found[told, 1], UNIT * np.abs(truth[told]))
        ),
        "sharpness": float(np.median(found[told, 1] / least)) if told.any() else None,
        "answered": float(np.sum(told) / np.sum(exists)),
        "false_answers": int(np.sum(~exists & answered & confident(found))),
        "eight_digits": share_of(error <= 1e-8 * np.abs(truth[told]) + 1e-300),
        "evaluations": float(np.median(found[:, 3])),
    }


def random_rows(config, methods, on_progress=None):
    """A dict for each class, order and package: how many functions, and the shares that `judged` counts."""
    if not config.per_class:
        return []
    from research.derivatives.problems.random_functions import CLASSES, random_cases

    asked = {
        name: package for name, package in methods.items() if not name.endswith(", all")
    }
    rows = []
    for done, kind in enumerate(CLASSES):
        if on_progress:
            on_progress(done, len(CLASSES), kind)
        cases = random_cases(kind, config.per_class, config.seed)
        for order in ORDERS:
            for name in (
                name for name, package in asked.items() if order in package.orders
            ):
                found = np.array(
                    [
                        ask_one(asked[name], case.function(), case.x, order)
                        for case in cases
                    ]
                )
                rows.append(
                    {"class": kind, "order": order, "package": name}
                    | judged(cases, found, order)
                )
    if on_progress:
        on_progress(len(CLASSES), len(CLASSES), "done")
    return rows


def judged(cases, found, order):
    """Count the answers to random functions: how many were given, how many are wrong, and the median claim over error."""
    exists = np.array([case.exists(order) for case in cases])
    truth = np.array([case.left[order] for case in cases])
    half_gap = np.array([case.gap(order) / 2 for case in cases])
    answered, claim = found[:, 2].astype(bool), found[:, 1]
    error = np.where(exists, np.abs(found[:, 0] - truth), half_gap)
    told = answered & exists & np.isfinite(claim)
    least = np.maximum(
        error, np.spacing(np.abs(truth))
    )  # An error of less than an ulp counts as one.
    with np.errstate(over="ignore"):  # A claim near the largest float.
        ratios = claim[told] / least[told]
    return {
        "functions": len(cases),
        "wrong": int((answered & ~(error <= claim)).sum()),
        "answered": float(answered.mean()),
        "sharpness": float(np.median(ratios)) if told.any() else None,
    }


def pooled(rows, *classes):
    """The share of functions of some classes, all orders, to which `finite_difference` gives a wrong answer."""
    ours = [row for row in rows if row["package"] == OURS and row["class"] in classes]
    return sum(row["wrong"] for row in ours) / max(
        1, sum(row["functions"] for row in ours)
    )


def times(ratio):
    """A ratio in words."""
    return f"{ratio:.2g}" if ratio < 100 else f"{ratio:.0f}"


def share_of(flags):
    """How many of the flags are set, as a share; None of no flags."""
    return float(np.mean(flags)) if len(flags) else None


def confident(found):
    """Whether a claim is small enough to say that the derivative is known."""
    return found[:, 1] <= CONFIDENT * np.maximum(np.abs(found[:, 0]), 1.0)


def false_answers(problems, found):
    """kind -> how many problems without a derivative got a confident answer."""
    wrong = (
        np.array([p.derivative is None for p in problems])
        & found[:, 2].astype(bool)
        & confident(found)
    )
    return {
        kind: int(
            sum(w and p.kind == kind for w, p in zip(wrong, problems, strict=True))
        )
        for kind in kinds(problems)
    }


def kinds(problems):
    """The kinds of problems that have no derivative, in their order."""
    return list(dict.fromkeys(p.kind for p in problems if p.derivative is None))


def answer(numbers):
    """Our scores, then the others'."""
    others = ", ".join(
        f"{name} {100 * s['coverage']:.0f} %, {times(s['sharpness'])} times, {100 * s['answered']:.0f} % and {s['false_answers']}"
        for name, s in numbers["scores"].items()
        if name != OURS and s["answered"]
    )
    missing = [
        name
        for name in dict.fromkeys(n.removesuffix(", all") for n in PEERS)
        if name not in numbers["scores"]
    ]
    absent = (
        f" Not installed: {' and '.join(missing)} (pip install '.[peers]')."
        if missing
        else ""
    )
    without = numbers["problems"] - numbers["exist"]
    words = (
        f"That of finite_difference does: on the {numbers['half']} problems {100 * numbers['coverage']:.0f} % of its claims "
        f"hold, the median claim is {times(numbers['sharpness'])} times the error, it answers "
        f"{100 * numbers['answered']:.0f} % of the {numbers['exist']} that have a derivative, and gives "
        f"{numbers['false_answers']} confident answers to the {without} that have none. The same four of others: {others}."
    )
    return f"{words}{on_random(numbers)}{absent}"


def on_random(numbers):
    """Wrong answers to random functions in words; nothing where they were left out."""
    if "random" not in numbers:
        return ""
    worst = max(
        (row for row in numbers["random"] if row["package"] == OURS),
        key=lambda row: row["wrong"] / row["functions"],
    )
    share = 100 * worst["wrong"] / worst["functions"]
    first = [
        row
        for row in numbers["random"]
        if row["order"] == 1 and row["class"] == "smooth" and row["package"] != OURS
    ]
    others = ", ".join(
        f"{row['package']} {100 * row['wrong'] / row['functions']:.1f} %"
        for row in first
    )
    return (
        f" To random functions, orders 1 to 4, it gives a wrong answer in {100 * numbers['smooth_wrong']:.2f} % where f is "
        f"smooth or x a root, and in {100 * numbers['kinks_wrong']:.2f} % at kinks; the worst is {share:.1f} %, class "
        f"{worst['class']}, order {worst['order']}."
        + (f" Wrong at order 1 of smooth functions: {others}." if others else "")
    )


def scores_table(numbers):
    """A row a package."""
    keys = (
        "coverage",
        "off_tenfold",
        "sharpness",
        "answered",
        "eight_digits",
        "false_answers",
        "evaluations",
        "milliseconds",
    )
    rows = [
        (name, *(numbers["scores"][name][key] for key in keys))
        for name in numbers["scores"]
    ]
    rows += [
        (f"{name}: not installed, pip install '.[peers]'", *(["-"] * len(keys)))
        for name in PEERS
        if name not in numbers["scores"]
    ]
    return research.runs.Table(
        f"Claims on the {numbers['half']} problems",
        (
            "package",
            "claims that hold",
            "off tenfold",
            "claim over error",
            "answered",
            "eight digits",
            "false answers",
            "evaluations",
            "milliseconds",
        ),
        tuple(rows),
        "Claim over error and evaluations are medians. Off tenfold: errors of more than ten times the claim, so more than a "
        'unit of rounding that was forgotten. scipy.differentiate counts where it reports success; "all" takes its '
        "value and error even where it does not. Eight digits: the share of answers with a relative error of at most "
        "1e-8. False answers: claims of at most a tenth of max(|value|, 1) where there is no derivative. Time depends on the "
        "machine, and each evaluation here is a NumPy call.",
    )


def random_table(numbers):
    """A row for each class and order."""
    of = {
        (row["class"], row["order"], row["package"]): row for row in numbers["random"]
    }
    packages = list(dict.fromkeys(row["package"] for row in numbers["random"]))
    rows = []
    for kind, order in dict.fromkeys(
        (row["class"], row["order"]) for row in numbers["random"]
    ):
        ours = of[kind, order, OURS]
        cells = [kind, order, "-" if ours["sharpness"] is None else ours["sharpness"]]
        for name in packages:
            row = of.get((kind, order, name))
            cells += (
                ["-", "-"]
                if row is None
                else [row["wrong"] / row["functions"], row["answered"]]
            )
        rows.append(tuple(cells))
    columns = [
        column
        for name in packages
        for column in (f"{name}: wrong", f"{name}: answered")
    ]
    return research.runs.Table(
        f"Random functions, {numbers['per_class']:,} of each class",
        ("class", "order", f"{OURS}: claim over error", *columns),
        tuple(rows),
        "Wrong: the share of functions to which the package gives an answer whose claim does not hold, because the error "
        "exceeds it or, where there is no derivative, half the gap between the sides does. Answered: the share of functions "
        "to which it gives an answer. At a kink, "
        "and in a jump of the derivative asked for, no answer is the right one. Claim over error is the median where there "
        "is a derivative; an error of less than an ulp counts as one. A dash: not asked, or nothing to tell.",
    )


def answers_table(numbers, problems):
    """Who answers what has no answer."""
    count = {kind: sum(p.kind == kind for p in problems) for kind in kinds(problems)}
    rows = [
        (
            f"{kind} ({n})",
            *(numbers["answers"][name][kind] for name in numbers["scores"]),
        )
        for kind, n in count.items()
    ]
    return research.runs.Table(
        "Confident answers where no derivative exists",
        ("kind (problems)", *numbers["scores"]),
        tuple(rows),
        "Kink: |x| at 0. Jump: sign(x) at 0. One-sided: sqrt(x) at 0. Unresolved: x sin(1/x) at 0. Nan: 1/x at 0.",
    )


def draw(result):
    """Claim against error, a panel a package."""
    names = [name for name in result.numbers["scores"] if not name.endswith(", all")]
    figure, axes = research.figures.new_figure(
        1, len(names), width=3.1 * len(names) + 1, height=4.0, sharey=True
    )
    for panel, name in zip(axes[0], names, strict=True):
        draw_claims(panel, result, name)
    axes[0, 0].set_ylabel("claimed error / |derivative|")
    scores = result.numbers["scores"].items()
    covered = ", ".join(
        f"{name} {100 * s['coverage']:.0f} %"
        for name, s in scores
        if s["answered"] and not name.endswith(", all")
    )
    caption = (
        f"A dot for each of the {result.numbers['exist']} {result.numbers['half']} problems that have a derivative and got an "
        "answer: the claimed error against the actual one, both relative. A claim holds on and above the dashed line "
        f"(blue), and is broken below it (orange). Claims that hold: {covered}."
    )
    pictures = {
        "claims": research.figures.Picture(
            "What is claimed, and what is so", caption, figure
        )
    }
    if "random" in result.numbers:
        pictures["random"] = draw_random(
            result.numbers["random"], result.numbers["per_class"]
        )
    return pictures


def draw_random(rows, per_class):
    """Wrong answers by class, a panel for each order."""
    classes = list(dict.fromkeys(row["class"] for row in rows))
    packages = list(dict.fromkeys(row["package"] for row in rows))
    figure, axes = research.figures.new_figure(
        2, 2, width=7.0, height=7.0, sharey=True, sharex=True
    )
    colours = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
    for panel, order in zip(axes.flat, ORDERS, strict=True):
        for name, colour, marker in zip(packages, colours, "osD^", strict=False):
            of = {
                row["class"]: row
                for row in rows
                if row["package"] == name and row["order"] == order
            }
            shares = [100 * row["wrong"] / row["functions"] for row in of.values()]
            panel.plot(
                shares,
                [classes.index(kind) for kind in of],
                marker,
                color=colour,
                label=name,
                markersize=6,
                alpha=0.85,
            )
        panel.set(xscale="symlog", xlim=(-0.15, 150), title=f"order {order}")
        panel.set_xscale("symlog", linthresh=0.5)
        panel.set_xticks([0, 1, 10, 100], ["0", "1", "10", "100"])
        panel.grid(axis="y", lw=0.5, alpha=0.4)
    for panel in axes[1]:
        panel.set_xlabel("wrong answers, %")
    axes[0, 0].set_yticks(range(len(classes)), classes)
    axes[0, 0].invert_yaxis()
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(),
        loc="outside upper center",
        ncols=min(2, len(packages)),
    )
    caption = (
        f"{per_class:,} random functions of each class: the share to which a package gives an answer whose claim does not hold. "
        "finite_difference answers less often where it cannot know; how often stands in the table."
    )
    return research.figures.Picture(
        "Wrong answers to random functions", caption, figure
    )


def draw_claims(axes, result, name):
    """The answers of one package; what is off the axes stands at their edge."""
    truth, value, claim = (
        result.arrays["truth"],
        *(result.arrays[f"{name}/{column}"] for column in ("value", "claim")),
    )
    told = np.isfinite(truth) & np.isfinite(value) & np.isfinite(claim)
    size = np.maximum(np.abs(truth[told]), np.where(truth[told] == 0, 1.0, 0.0))
    error, claimed = np.abs(value - truth)[told], claim[told]
    holds = error <= claimed
    low, high = 1e-17, 1e3
    x, y = (np.clip(column / size, low, high) for column in (error, claimed))
    axes.plot(
        [low, high],
        [low, high],
        color=research.figures.COLOURS["exact"],
        lw=1.1,
        ls=(0, (5, 3)),
    )
    for chosen, colour in ((holds, "#0072B2"), (~holds, "#D55E00")):
        axes.plot(
            x[chosen],
            y[chosen],
            "o",
            color=colour,
            markersize=4.5,
            alpha=0.75,
            markeredgewidth=0,
        )
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="error / |derivative|",
        xlim=(low / 2, 2 * high),
        ylim=(low / 2, 2 * high),
    )
    axes.set_title(name, loc="left")


if __name__ == "__main__":
    research.cli.main(sys.modules[__name__])
