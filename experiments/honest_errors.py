"""Does the error that a numerical derivative claims bound the error that it makes?

`finite_difference` and three other packages differentiate the same functions at the same points and say how wrong they
may be: scipy.differentiate, numdifftools and jacobi. Two scores count. Coverage: how often the actual error is within
the claim. Sharpness: how many times larger than the actual error the claim is, in the median; claiming a lot is safe
and useless. And at kinks, jumps, edges and oscillations, where no derivative exists: who claims to know it all the same.

The problems were written down, and hashed, before the estimator was; `--half development` shows those that it was built
on. Both halves were made by the author of `finite_difference`, who knew what is hard; the others are run at their
defaults. numdifftools and jacobi are run where they are installed (`pip install '.[peers]'`), and are not needed otherwise.

    python experiments/honest_errors.py            # some seconds

The numbers to expect (`EXPECTED`) are those of `finite_difference`: the share of claims that hold; the median claim over
error; the share of problems with a derivative that it answers; and its answers where there is none.
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

EXPECTED = {"coverage": (0.98, 1.0), "sharpness": (1.0, 30.0), "answered": (0.9, 1.0), "false_answers": (0, 0)}

OURS = "finite_difference"
PEERS = {
    "scipy.differentiate": "scipy",
    "scipy.differentiate, all": "scipy",
    "numdifftools": "numdifftools",
    "jacobi": "jacobi",
}
CONFIDENT = 0.1  # A claim of at most this share of max(|value|, 1) says that the derivative is known.
UNIT = np.finfo(np.float64).eps / 2


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run."""

    half: Literal["held out", "development"] = "held out"
    """Of the problems: those that nothing was tuned on, or those that were used in building."""


FULL = Config()


def run(config, on_progress=None, checkpoints=None):
    """Every package on every problem."""
    del checkpoints  # It takes seconds.
    problems = halves(config.half)
    methods = installed()
    arrays, scores, answers = {"truth": np.array([p.truth for p in problems])}, {}, {}
    for done, (name, method) in enumerate(methods.items()):
        if on_progress:
            on_progress(done, len(methods), name)
        found, seconds = ask(method, problems)
        told = np.where(found[:, 2:3] > 0, found[:, :2], np.nan)
        arrays |= {f"{name}/value": told[:, 0], f"{name}/claim": told[:, 1]}
        scores[name] = score(arrays["truth"], found) | {"milliseconds": 1e3 * seconds / len(problems)}
        answers[name] = false_answers(problems, found)
    if on_progress:
        on_progress(len(methods), len(methods), "done")
    ours = {key: scores[OURS][key] for key in EXPECTED}
    numbers = {"half": config.half, "problems": len(problems), "exist": int(np.isfinite(arrays["truth"]).sum())}
    numbers |= ours | {"scores": scores, "answers": answers}
    tables = (scores_table(numbers), answers_table(numbers, problems))
    return research.runs.Result(answer(numbers), tables, arrays, numbers)


def halves(name):
    """The problems of one half."""
    problems = research.derivatives.problems
    known = {"held out": problems.HELD_OUT, "development": problems.DEVELOPMENT}
    if name not in known:
        raise ValueError(f"half must be 'held out' or 'development'; got half={name!r}.")
    return known[name]


class Package(NamedTuple):
    """How a package is asked, and how its reply is read as (value, claim, whether it says that this is an answer).

    The two are apart so that only what the package raises counts as its having no answer: a fault of the reading stops
    the experiment, instead of being written down against the package.
    """

    ask: Callable[[Any, float], Any]
    read: Callable[[Any], tuple[Any, Any, bool]]


def installed():
    """name -> Package, each at its defaults, of those that are there."""
    load = importlib.import_module
    scipy_ask = lambda f, x: load("scipy.differentiate").derivative(f, x)
    packages = {
        OURS: Package(
            lambda f, x: research.derivatives.finite_difference(f, x), lambda r: (r.value, r.error, r.verdict == "ok")
        ),
        # It too says where it has failed; "all" takes its value and error even then.
        "scipy.differentiate": Package(scipy_ask, lambda r: (r.df, r.error, bool(r.success))),
        "scipy.differentiate, all": Package(scipy_ask, lambda r: (r.df, r.error, True)),
        "numdifftools": Package(
            lambda f, x: load("numdifftools").Derivative(f, full_output=True)(x), read_numdifftools
        ),
        "jacobi": Package(lambda f, x: load("jacobi").jacobi(f, x), lambda r: (r[0], r[1], True)),
    }
    return {name: package for name, package in packages.items() if name == OURS or importable(PEERS[name])}


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
        rows.append(ask_one(package, problem))
    return np.array(rows), time.perf_counter() - start


def ask_one(package, problem):
    """One problem; a package that stops with an error gives no answer."""
    f, count = problem.function(), 0

    def counted(x):
        nonlocal count
        count += np.size(x)
        return f(x)

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            reply = package.ask(counted, problem.x)
        except (ArithmeticError, ValueError, TypeError, IndexError, np.linalg.LinAlgError):
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
    least = np.maximum(error, np.maximum(UNIT * np.abs(truth[told]), np.finfo(np.float64).tiny))
    return {
        "coverage": share_of(error <= found[told, 1]),
        "off_tenfold": share_of(error > 10 * np.maximum(found[told, 1], UNIT * np.abs(truth[told]))),
        "sharpness": float(np.median(found[told, 1] / least)) if told.any() else None,
        "answered": float(np.sum(told) / np.sum(exists)),
        "false_answers": int(np.sum(~exists & answered & confident(found))),
        "eight_digits": share_of(error <= 1e-8 * np.abs(truth[told]) + 1e-300),
        "evaluations": float(np.median(found[:, 3])),
    }


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
    wrong = np.array([p.derivative is None for p in problems]) & found[:, 2].astype(bool) & confident(found)
    return {
        kind: int(sum(w and p.kind == kind for w, p in zip(wrong, problems, strict=True))) for kind in kinds(problems)
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
    missing = [name for name in dict.fromkeys(n.removesuffix(", all") for n in PEERS) if name not in numbers["scores"]]
    absent = f" Not installed: {' and '.join(missing)} (pip install '.[peers]')." if missing else ""
    without = numbers["problems"] - numbers["exist"]
    return (
        f"That of finite_difference does: on the {numbers['half']} problems {100 * numbers['coverage']:.0f} % of its claims "
        f"hold, the median claim is {times(numbers['sharpness'])} times the error, it answers "
        f"{100 * numbers['answered']:.0f} % of the {numbers['exist']} that have a derivative, and gives "
        f"{numbers['false_answers']} confident answers to the {without} that have none. The same four of others: {others}."
        f"{absent}"
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
    rows = [(name, *(numbers["scores"][name][key] for key in keys)) for name in numbers["scores"]]
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


def answers_table(numbers, problems):
    """Who answers what has no answer."""
    count = {kind: sum(p.kind == kind for p in problems) for kind in kinds(problems)}
    rows = [
        (f"{kind} ({n})", *(numbers["answers"][name][kind] for name in numbers["scores"])) for kind, n in count.items()
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
    figure, axes = research.figures.new_figure(1, len(names), width=3.1 * len(names) + 1, height=4.0, sharey=True)
    for panel, name in zip(axes[0], names, strict=True):
        draw_claims(panel, result, name)
    axes[0, 0].set_ylabel("claimed error / |derivative|")
    scores = result.numbers["scores"].items()
    covered = ", ".join(
        f"{name} {100 * s['coverage']:.0f} %" for name, s in scores if s["answered"] and not name.endswith(", all")
    )
    caption = (
        f"A dot for each of the {result.numbers['exist']} {result.numbers['half']} problems that have a derivative and got an "
        "answer: the claimed error against the actual one, both relative. A claim holds on and above the dashed line "
        f"(blue), and is broken below it (orange). Claims that hold: {covered}."
    )
    return {"claims": research.figures.Picture("What is claimed, and what is so", caption, figure)}


def draw_claims(axes, result, name):
    """The answers of one package; what is off the axes stands at their edge."""
    truth, value, claim = result.arrays["truth"], *(result.arrays[f"{name}/{column}"] for column in ("value", "claim"))
    told = np.isfinite(truth) & np.isfinite(value) & np.isfinite(claim)
    size = np.maximum(np.abs(truth[told]), np.where(truth[told] == 0, 1.0, 0.0))
    error, claimed = np.abs(value - truth)[told], claim[told]
    holds = error <= claimed
    low, high = 1e-17, 1e3
    x, y = (np.clip(column / size, low, high) for column in (error, claimed))
    axes.plot([low, high], [low, high], color=research.figures.COLOURS["exact"], lw=1.1, ls=(0, (5, 3)))
    for chosen, colour in ((holds, "#0072B2"), (~holds, "#D55E00")):
        axes.plot(x[chosen], y[chosen], "o", color=colour, markersize=4.5, alpha=0.75, markeredgewidth=0)
    axes.set(
        xscale="log", yscale="log", xlabel="error / |derivative|", xlim=(low / 2, 2 * high), ylim=(low / 2, 2 * high)
    )
    axes.set_title(name, loc="left")


if __name__ == "__main__":
    research.cli.main(sys.modules[__name__])
