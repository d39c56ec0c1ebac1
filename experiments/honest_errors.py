"""Is the error of a numerical derivative at most the error that it claims?

`finite_difference` and three other packages (scipy.differentiate, numdifftools and
jacobi) differentiate the same functions at the same points and estimate their own
error. There are two scores. Coverage is how often the actual error is within the
claimed error. Sharpness is the median ratio of claimed to actual error. (Large claims
are safe but useless.) At kinks, jumps, edges and oscillations, no derivative exists.
There the experiment counts how many answers are confident.

The problems were written down and hashed before the estimator was written. They have
two halves. The estimator was developed on one half, which `--half development` shows.
The other half was held out and is the default. The author of `finite_difference` made
both halves and knew which problems are hard. The other packages run with their default
settings. numdifftools and jacobi are optional (`pip install '.[peers]'`).

A second part has derivatives of orders 1 to 4 of random functions in nine classes:
smooth, at a root, with a jump in f'' or f''', with a kink at x or near x, with
cancelling terms, rounded to a grid, and at an x far from 0. Each package gets the
orders that it supports; scipy.differentiate and jacobi support only order 1. An answer
is wrong if its error is larger than the claimed error. If there is no derivative, half
the gap between the derivatives from the left and from the right is used as the error.
The share of wrong answers is relative to all functions.

    python experiments/honest_errors.py            # about a minute
    # 2,000 functions of each class and order; about ten minutes.
    python experiments/honest_errors.py --full
    python experiments/honest_errors.py --per-class 2000 --seed 7

Expected numbers (`EXPECTED`), of `finite_difference`:

- the share of claims that hold;
- the median of the claimed error divided by the actual error;
- among the problems with a derivative, the share that gets an answer;
- the number of answers to problems without a derivative;
- the share of wrong answers for random functions, once for smooth functions and roots,
and once for kinks.
"""

import dataclasses
import math
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import research

EXPECTED = {
    "coverage": (0.98, 1.0),
    "sharpness": (1.0, 30.0),
    "answered": (0.9, 1.0),
    "false_answers": (0, 0),
}
EXPECTED |= {"smooth_wrong": (0.0, 0.005), "kinks_wrong": (0.0, 0.01)}


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the experiment."""

    half: Literal["held out", "development"] = "held out"
    """Half of the problems: "held out", or "development" (used to develop
    finite_difference)."""
    per_class: int = 200
    """Number of random functions of each class. 0 leaves the second part out."""
    seed: int = 0
    """Seed of the random functions."""


FULL = Config(per_class=2000)


if __name__ == "__main__":  # Flags are read before anything heavy is imported.
    research.cli.main(sys.modules[__name__])

import numpy as np

from experiments._peers import peer
from research.checks import check_count
from research.cli.progress import OnProgress
from research.derivatives.problems.random_functions import CLASSES, random_cases
from research.types import Checkpoints

OURS = "finite_difference"
PEERS = {
    "scipy.differentiate": "scipy.differentiate",
    "scipy.differentiate, all": "scipy.differentiate",
    "numdifftools": "numdifftools",
    "jacobi": "jacobi",
}
ORDERS = (1, 2, 3, 4)
# If the claim is at most this share of max(|value|, 1), the package is confident.
CONFIDENT = 0.1
UNIT = np.finfo(np.float64).eps / 2
# These scores depend on errors as small as rounding errors. NumPy's functions round
# differently on another processor, so `reproduce` reports the scores of other packages
# and does not judge them. It judges the numbers of `finite_difference`, and wrong
# answers anywhere.
VARIES = {
    "claims that hold": None,
    "off tenfold": None,
    "claim over error": None,
    "eight digits": None,
    "false answers": None,
    "answered": (0.0, 1.0),
    "sharpness": EXPECTED["sharpness"],
}


def run(
    config: Config,
    on_progress: OnProgress | None = None,
    checkpoints: Checkpoints | None = None,
) -> research.runs.Findings:
    """Run every package on every problem."""
    del checkpoints  # The experiment takes a minute, so no checkpoint is saved.
    for field in ("per_class", "seed"):
        check_count(field, getattr(config, field), least=0)
    problems = halves(config.half)
    methods = installed()
    arrays, scores, answers = {"truth": np.array([p.truth for p in problems])}, {}, {}
    for name, method in methods.items():
        found, seconds = ask(method, problems)
        replies = np.where(found[:, 2:3] > 0, found[:, :2], np.nan)
        arrays |= {f"{name}/value": replies[:, 0], f"{name}/claim": replies[:, 1]}
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
    numbers["kinds"] = {
        kind: sum(p.kind == kind for p in problems) for kind in kinds(problems)
    }
    if rows:
        numbers |= {
            "smooth_wrong": pooled(rows, "smooth", "root"),
            "kinks_wrong": pooled(rows, "kink"),
        }
        numbers |= {"per_class": config.per_class, "random": rows}
    return research.runs.Findings(arrays, numbers)


def halves(name: str):
    """Return the problems of a half, "held out" or "development"."""
    problems = research.derivatives.problems
    known = {"held out": problems.HELD_OUT, "development": problems.DEVELOPMENT}
    if name not in known:
        raise ValueError(
            f"half must be 'held out' or 'development'; got half={name!r}."
        )
    return known[name]


class Package(NamedTuple):
    """A package, with functions that ask it and read its reply.

    `ask` is (f, x, order) -> reply. `read` is reply -> (value, claim, whether the
    package answers). The two functions are separate, so that only errors of the package
    count as "no answer". An error in `read` stops the experiment instead of counting
    against the package.
    """

    ask: Callable[..., Any]
    read: Callable[[Any], tuple[Any, Any, bool]]
    orders: tuple[int, ...] = (1,)


def installed():
    """Return the installed packages by name, each with its defaults."""
    scipy_ask = lambda f, x, order: peer("scipy.differentiate").derivative(f, x)
    packages = {
        OURS: Package(
            lambda f, x, order: research.derivatives.finite_difference(f, x, order),
            lambda r: (r.value, r.error, r.verdict == "ok"),
            ORDERS,
        ),
        # scipy reports failures too; "all" uses its value and error even then.
        "scipy.differentiate": Package(
            scipy_ask, lambda r: (r.df, r.error, bool(r.success))
        ),
        "scipy.differentiate, all": Package(scipy_ask, lambda r: (r.df, r.error, True)),
        "numdifftools": Package(
            lambda f, x, order: peer("numdifftools").Derivative(
                f, n=order, full_output=True
            )(x),
            read_numdifftools,
            ORDERS,
        ),
        "jacobi": Package(
            lambda f, x, order: peer("jacobi").jacobi(f, x),
            lambda r: (r[0], r[1], True),
        ),
    }
    return {
        name: package
        for name, package in packages.items()
        if name == OURS or peer(PEERS[name]) is not None
    }


def read_numdifftools(reply: Any):
    """Read the reply of numdifftools.

    The reply is a tuple that begins with estimate and error_estimate. Before version
    0.11.2, the reply was a pair: the estimate, and a tuple that begins with
    error_estimate.
    """
    details = reply if hasattr(reply, "error_estimate") else reply[1]
    return reply[0], details.error_estimate, True


def ask(package: Any, problems: Sequence[Any]):
    """Ask a package about every problem.

    Returns:
      Rows (value, claim, answered, evaluations), shape (problems, 4), and the total
        seconds.
    """
    rows, start = [], time.perf_counter()
    for problem in problems:
        rows.append(ask_one(package, problem.function(), problem.x))
    return np.array(rows), time.perf_counter() - start


def ask_one(package: Any, f: Callable, x: Any, order: int = 1):
    """Ask a package about one function: return (value, claim, answered, evaluations).

    A package that raises an error gives no answer.
    """
    count = 0

    def counted(at: Any):
        nonlocal count
        count += np.size(at)
        return f(at)

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            reply = package.ask(counted, x, order)
        except Exception:  # Packages raise errors of all kinds.
            return math.nan, math.inf, False, count
    value, claim, says = package.read(reply)
    value, claim = float(np.squeeze(value)), float(np.squeeze(claim))
    return value, claim, says and math.isfinite(value) and math.isfinite(claim), count


def score(truth: np.ndarray, found: np.ndarray):
    """Return coverage, sharpness and other scores.

    Coverage and sharpness are computed on the problems that have a derivative. The
    result also has the number of confident answers to problems without a derivative.
    """
    exists, answered = np.isfinite(truth), found[:, 2].astype(bool)
    judged = exists & answered
    error = np.abs(found[judged, 0] - truth[judged])
    # The error is at least the resolution of float64, so that an error of zero does not
    # make the ratio infinite.
    least = np.maximum(
        error, np.maximum(UNIT * np.abs(truth[judged]), np.finfo(np.float64).tiny)
    )
    return {
        "coverage": share_of(error <= found[judged, 1]),
        "off_tenfold": share_of(
            error > 10 * np.maximum(found[judged, 1], UNIT * np.abs(truth[judged]))
        ),
        "sharpness": float(np.median(found[judged, 1] / least))
        if judged.any()
        else None,
        "answered": float(np.sum(judged) / np.sum(exists)),
        "false_answers": int(np.sum(~exists & answered & confident(found))),
        "eight_digits": share_of(error <= 1e-8 * np.abs(truth[judged]) + 1e-300),
        "evaluations": float(np.median(found[:, 3])),
    }


def random_rows(
    config: Config, methods: dict[str, Any], on_progress: OnProgress | None = None
):
    """Return the counts of `judged`, one dict for each class, order and package."""
    if not config.per_class:
        return []
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


def judged(cases: Sequence[Any], found: np.ndarray, order: int):
    """Count the answers to random functions.

    Returns:
      Dict with the number of functions, the number of wrong answers, the share of
      answers, and the median of claim divided by error.
    """
    exists = np.array([case.exists(order) for case in cases])
    truth = np.array([case.left[order] for case in cases])
    half_gap = np.array([case.gap(order) / 2 for case in cases])
    answered, claim = found[:, 2].astype(bool), found[:, 1]
    error = np.where(exists, np.abs(found[:, 0] - truth), half_gap)
    judged = answered & exists & np.isfinite(claim)
    least = np.maximum(
        error, np.spacing(np.abs(truth))
    )  # An error below one ulp counts as one ulp.
    with np.errstate(over="ignore"):  # A claim may be near the largest float.
        ratios = claim[judged] / least[judged]
    return {
        "functions": len(cases),
        "wrong": int((answered & ~(error <= claim)).sum()),
        "answered": float(answered.mean()),
        "sharpness": float(np.median(ratios)) if judged.any() else None,
    }


def pooled(rows: Sequence[dict[str, Any]], *classes: str):
    """Return the share of wrong answers of `finite_difference` in some classes.

    All orders are included.
    """
    ours = [row for row in rows if row["package"] == OURS and row["class"] in classes]
    return sum(row["wrong"] for row in ours) / max(
        1, sum(row["functions"] for row in ours)
    )


def share_of(flags: np.ndarray):
    """Return the share of true flags, or None if there are no flags."""
    return float(np.mean(flags)) if len(flags) else None


def confident(found: np.ndarray):
    """Return whether each claimed error is small enough for a confident answer."""
    return found[:, 1] <= CONFIDENT * np.maximum(np.abs(found[:, 0]), 1.0)


def false_answers(problems: Sequence[Any], found: np.ndarray):
    """Count the confident answers to problems without a derivative, by kind."""
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


def kinds(problems: Sequence[Any]):
    """Return the kinds of problems without a derivative, in order of appearance."""
    return list(dict.fromkeys(p.kind for p in problems if p.derivative is None))
