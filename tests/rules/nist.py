"""NIST's nonlinear regressions: models by hand, all fitted by one compiled program, and
the table of right digits.

`python tests/rules/nist.py` prints the whole table, for both rules and both starts.
"""

import functools
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.numpy import arctan, cos, exp, log, pi, sin

REFERENCE = Path(__file__).parents[1] / "reference"
CASES = {
    case["name"]: case
    for case in json.loads((REFERENCE / "nist_nonlinear.json").read_text("utf-8"))[
        "cases"
    ]
}
LINEAR = {
    case["name"]: case
    for case in json.loads((REFERENCE / "nist_linear.json").read_text("utf-8"))["cases"]
}
MOST_STEPS = 500
# XLA takes half the time to compile, and a step of these small problems is as good.
QUICKLY = {"xla_backend_optimization_level": 0}
MOST_PARAMS, MOST_ROWS = 9, 250


def peaks(b, x):
    first, second = (b[k] * exp(-((x - b[k + 1]) ** 2) / b[k + 2] ** 2) for k in (2, 5))
    return b[0] * exp(-b[1] * x) + first + second


def decays(b, x):
    return sum(b[k] * exp(-b[k + 1] * x) for k in (0, 2, 4))


def cubics(b, x):
    return (b[0] + b[1] * x + b[2] * x**2 + b[3] * x**3) / (
        1 + b[4] * x + b[5] * x**2 + b[6] * x**3
    )


def cycles(b, x):
    def wave(k, period):
        return b[k] * cos(2 * pi * x / period) + b[k + 1] * sin(2 * pi * x / period)

    return b[0] + wave(1, 12) + wave(4, b[3]) + wave(7, b[6])


def chwirut(b, x):
    return exp(-b[0] * x) / (b[1] + b[2] * x)


# b counts from 0 here, from 1 at NIST.
MODELS = {
    "Chwirut1": chwirut,
    "DanWood": lambda b, x: b[0] * x ** b[1],
    "Eckerle4": lambda b, x: b[0] / b[1] * exp(-((x - b[2]) ** 2) / (2 * b[1] ** 2)),
    "Gauss1": peaks,
    "Gauss2": peaks,
    "Hahn1": cubics,
    "Kirby2": lambda b, x: (
        (b[0] + b[1] * x + b[2] * x**2) / (1 + b[3] * x + b[4] * x**2)
    ),
    "Lanczos1": decays,
    "Lanczos2": decays,
    "MGH09": lambda b, x: b[0] * (x**2 + x * b[1]) / (x**2 + x * b[2] + b[3]),
    "MGH17": lambda b, x: b[0] + b[1] * exp(-x * b[3]) + b[2] * exp(-x * b[4]),
    "Rat42": lambda b, x: b[0] / (1 + exp(b[1] - b[2] * x)),
    "Thurber": cubics,
    "Bennett5": lambda b, x: b[0] * (b[1] + x) ** (-1 / b[2]),
    "BoxBOD": lambda b, x: b[0] * (1 - exp(-b[1] * x)),
    "Chwirut2": chwirut,
    "ENSO": cycles,
    "Gauss3": peaks,
    "Lanczos3": decays,
    "MGH10": lambda b, x: b[0] * exp(b[1] / (x + b[2])),
    "Misra1a": lambda b, x: b[0] * (1 - exp(-b[1] * x)),
    "Misra1b": lambda b, x: b[0] * (1 - (1 + b[1] * x / 2) ** (-2)),
    "Misra1c": lambda b, x: b[0] * (1 - (1 + 2 * b[1] * x) ** (-1 / 2)),
    "Misra1d": lambda b, x: b[0] * b[1] * x / (1 + b[1] * x),
    "Nelson": lambda b, x: b[0] - b[1] * x[0] * exp(-b[2] * x[1]),
    "Rat43": lambda b, x: b[0] / (1 + exp(b[1] - b[2] * x)) ** (1 / b[3]),
    "Roszman1": lambda b, x: b[0] - b[1] * x - arctan(b[2] / (x - b[3])) / pi,
}


def distinct(names):
    """The models of these problems, each once."""
    return list(dict.fromkeys(MODELS[name] for name in names))


def residual_fn(name):
    """params -> residuals, NIST's y - model with the sign turned; Nelson's y is a
    logarithm.
    """
    x, y = jnp.array(CASES[name]["x"]).T, jnp.array(CASES[name]["y"])
    y = log(y) if name == "Nelson" else y
    return lambda b: MODELS[name](b, x) - y


def padded(name, start, names):
    """A problem as data of one shape: index of its model in those of `names`, x, y,
    rows that count, params that count, start.
    """
    case = CASES[name]
    x, y = np.array(case["x"]).reshape(len(case["y"]), -1), np.array(case["y"])
    y = np.log(y) if name == "Nelson" else y
    missing = MOST_ROWS - len(y)
    x = np.pad(np.broadcast_to(x, (len(y), 2)), ((0, missing), (0, 0)), mode="edge")
    rows = np.arange(MOST_ROWS) < len(y)
    start = np.array(case["starts"][start])
    params = np.arange(MOST_PARAMS) < len(start)
    start = np.pad(start, (0, MOST_PARAMS - len(start)))
    return (
        distinct(names).index(MODELS[name]),
        jnp.array(x),
        jnp.array(np.pad(y, (0, missing))),
        rows,
        params,
        jnp.array(start),
    )


@functools.cache
def fitting(rule, names):
    """One program for these problems: it fits until a step that was taken no longer
    changes x, to rounding.

    It also counts the steps until the error of no parameter is above a millionth of it,
    for the first time. Params that a problem lacks start at 0 and are their own
    residuals, so that they stay there.
    """
    branches = [
        lambda b, x, model=model: model(
            b, x.T if model is MODELS["Nelson"] else x[:, 0]
        )
        for model in distinct(names)
    ]

    @functools.partial(jax.jit, compiler_options=QUICKLY)
    def fit(index, x, y, rows, params, start, exact):
        def residuals(b):
            return jnp.concatenate(
                [
                    jnp.where(rows, jax.lax.switch(index, branches, b, x) - y, 0.0),
                    jnp.where(params, 0.0, b),
                ]
            )

        def going_on(carry):
            _, _, moving, _, k = carry
            return moving & (k < MOST_STEPS)

        def step(carry):
            b, state, _, until, k = carry
            updates, state = rule.update(b, state, b, residual_fn=residuals)
            settled = jnp.any(updates != 0) & jnp.all(
                jnp.abs(updates) <= 2e-16 * jnp.abs(b)
            )
            near = jnp.all(jnp.abs(b + updates - exact) <= 1e-6 * jnp.abs(exact))
            until = jnp.where(near, jnp.minimum(until, k + 1), until)
            return b + updates, state, ~settled & (state.outcome == 0), until, k + 1

        none = jnp.int32(0)
        return jax.lax.while_loop(
            going_on,
            step,
            (start, rule.init(start), jnp.asarray(True), none + MOST_STEPS, none),
        )

    return fit


def digits(found, exact):
    """Right decimal digits of the worst entry: -log10 of its relative error, at most
    16; -inf where it is not finite.
    """
    found, exact = np.asarray(found, float), np.asarray(exact, float)
    with np.errstate(all="ignore"):
        return float(
            np.nan_to_num(
                -np.log10(max(np.max(np.abs(found / exact - 1)), 1e-16)),
                nan=-np.inf,
                neginf=-np.inf,
            )
        )


def fitted(rule, name, start, names=tuple(CASES)):
    """(right digits, steps until six were right, outcome) of a rule from NIST's first
    or second start, 0 or 1. One compiled program fits all problems of `names`.
    """
    exact = np.array(CASES[name]["b"], float)
    b, state, _, until, _ = fitting(rule, names)(
        *padded(name, start, names), np.pad(exact, (0, MOST_PARAMS - len(exact)))
    )
    return digits(b[: len(exact)], exact), int(until), int(state.outcome)


def main() -> None:
    """Prints the table."""
    from research.update_rules._least_squares import gauss_newton, levenberg_marquardt

    jax.config.update("jax_enable_x64", True)
    rules = {
        "Levenberg-Marquardt": levenberg_marquardt(),
        "Gauss-Newton": gauss_newton(),
    }
    rows, begun = [], time.process_time()
    for name in CASES:
        for start in (0, 1):
            of_rules = [fitted(rule, name, start) for rule in rules.values()]
            rows.append(
                (name, start + 1, *of_rules, (CASES[name]["minpack_digits"][start],))
            )
    good = [sum(row[2 + k][0] >= 6 for row in rows) for k in range(3)]
    print(
        f"Of {len(rows)} fits (27 problems, two starts), at least six right digits: "
        f"{good[0]} by Levenberg-Marquardt, {good[1]} by Gauss-Newton, {good[2]} by "
        f"scipy's MINPACK as recorded; {time.process_time() - begun:.0f} s."
    )
    print(
        f"{'problem':10}start   LM digits steps   GN digits steps   MINPACK digits   "
        "(steps: until six digits)"
    )
    for name, start, lm, gn, reference in rows:
        print(
            f"{name:10}{start:5}{lm[0]:12.1f}{lm[1]:6}{gn[0]:12.1f}{gn[1]:6}"
            f"{reference[0]:17.1f}"
        )


if __name__ == "__main__":
    main()
