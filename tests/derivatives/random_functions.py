"""Random functions in classes, with their one-sided derivatives: what finite_difference is held against."""

import importlib.util
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import special

_spec = importlib.util.spec_from_file_location("series", Path(__file__).with_name("series.py"))
jets = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(jets)


def stepped(u, q):
    return np.floor(u / q) * q


NUMPY = {
    **{
        n: getattr(np, n)
        for n in (
            "exp",
            "log",
            "log1p",
            "expm1",
            "sin",
            "cos",
            "sinh",
            "cosh",
            "tanh",
            "sqrt",
            "where",
            "maximum",
            "minimum",
            "abs",
        )
    },
    "atan": np.arctan,
    "erf": special.erf,
    "rounded": np.round,
    "single": np.float32,
    "stepped": stepped,
}


class Case(NamedTuple):
    expression: str
    x: float
    kind: str
    left: list
    right: list

    def function(self):
        return eval("lambda x: " + self.expression, dict(NUMPY))


def r(v):
    return f"({v!r})"


def num(rng, lo=0.3, hi=3.0):
    return float(rng.uniform(lo, hi) * rng.choice([-1, 1]))


def atom(rng, v):
    a, b = num(rng), float(rng.uniform(-2, 2))
    u = f"({r(a)}*{v} + {r(b)})"
    return [
        f"sin({u})",
        f"cos({u})",
        f"exp({r(a)}*{v})",
        f"tanh({u})",
        f"atan({u})",
        f"1 / (1 + {u}**2)",
        f"log({r(abs(a) + 0.2)} + {v}**2)",
        f"sqrt({r(abs(a) + 0.1)} + {v}**2)",
        f"{u}**{int(rng.integers(1, 8))}",
        f"log1p(exp({u}))",
        f"exp(-{u}**2)",
        f"erf({u})",
        f"cosh({r(a)}*{v})",
        f"{v}**2*{u}",
    ][rng.integers(14)]


def smooth_expression(rng, v):
    one = atom(rng, v)
    kind = rng.integers(7)
    if kind < 2:
        return one
    two = atom(rng, v)
    return [
        f"({one} + {two})",
        f"({one}) * ({two})",
        f"({one}) / (2 + sin({two}))",
        f"sin({one})",
        f"({one} + {r(num(rng))})**2",
    ][kind - 2]


def setting(rng, zero=False):
    """(x, expression of the scaled variable)"""
    L = 1.0 if rng.random() < 0.6 else float(10.0 ** rng.uniform(-4, 4))
    x = float(L * rng.uniform(-3, 3))
    if rng.random() < 0.1:
        x = float(np.round(x, 1))
    if rng.random() < 0.05:
        x = 0.0
    v = "x" if L == 1 else f"(x * {r(1 / L)})"
    return x, v


def scaled(rng, e):
    if rng.random() < 0.3:
        e = f"{r(float(10.0 ** rng.uniform(-8, 8)))} * ({e})"
    if rng.random() < 0.15:
        e = f"{r(float(10.0 ** rng.uniform(-2, 5)))} + {e}"
    return e


def smooth(rng):
    x, v = setting(rng)
    return scaled(rng, smooth_expression(rng, v)), x


def evaluate(e, x):
    with np.errstate(all="ignore"):
        return float(eval("lambda x: " + e, dict(NUMPY))(np.float64(x)))


def root(rng):
    kind = rng.integers(6)
    if kind == 0:  # integer polynomial at an integer root, expanded
        deg = int(rng.integers(2, 6))
        rt = int(rng.integers(-4, 5)) or 1
        q = rng.integers(-5, 6, deg)
        q[-1] = q[-1] or 1
        p = np.polynomial.polynomial.polymul(q, [-rt, 1])
        e = " + ".join(f"({int(c)})*x**{k}" for k, c in enumerate(p) if c)
        if rng.random() < 0.3:
            e = "0"
            for c in p[::-1]:
                e = f"(({e})*x + ({int(c)}))"
        return e, float(rt)
    if kind == 1:
        return [
            ("sqrt(x) - 1", 1.0),
            ("1/x - 1", 1.0),
            ("x**3 - 8", 2.0),
            ("log(x)", 1.0),
            ("x**3 - x", 1.0),
            ("exp(x) - 1", 0.0),
            ("x**2 - 2", float(np.sqrt(2))),
            ("sin(x)", float(np.pi * rng.integers(1, 20))),
            ("cos(x)", float(np.pi * (rng.integers(1, 20) + 0.5))),
            ("x - cos(x)", 0.7390851332151607),
            ("3*x", 0.0),
            ("tanh(x)", 0.0),
            ("x**4 - 16", 2.0),
            ("x**5 - x**3", -1.0),
            ("1/x**2 - 4", 0.5),
            ("x*exp(-x)-0.36787944117144233*x", 1.0),
        ][rng.integers(16)]
    x, v = setting(rng)
    e = smooth_expression(rng, v)
    if kind == 2:
        return scaled_only(rng, f"(x - {r(x)}) * ({e})"), x
    return scaled_only(rng, f"(({e}) - {r(evaluate(e, x))})"), x


def scaled_only(rng, e):
    return f"{r(float(10.0 ** rng.uniform(-8, 8)))} * ({e})" if rng.random() < 0.3 else e


def glued(rng, power):
    """Smooth plus a jump in the derivative of order `power`."""
    x, v = setting(rng)
    e = smooth_expression(rng, v)
    inv = 1.0 if v == "x" else float(v.split("(")[-1].split(")")[0])
    d = f"(({r(inv)})*(x - {r(x)}))" if v != "x" else f"(x - {r(x)})"
    c = num(rng) * float(10.0 ** rng.uniform(-3, 1))
    kind = rng.integers(4)
    if kind == 0:
        g = f"maximum({d}, 0)**{power}"
    elif kind == 1:
        g = f"where({d} > 0, {d}**{power} * cos({d}), 0*{d})"
    elif kind == 2:
        g = f"abs({d}) * {d}**{power - 1}" if power % 2 == 0 else f"abs({d})**{power}"
    else:
        g = f"where({d} < 0, exp({d}), {' + '.join(f'{d}**{k}/{float(np.prod(range(1, k + 1)))!r}' for k in range(power))})"
    if rng.random() < 0.15:  # famous ones
        t = float(rng.uniform(0.2, 3))
        famous = {
            2: [
                (f"where(abs(x) <= {r(t)}, x**2/2, {r(t)}*(abs(x) - {r(t)}/2))", t),
                ("maximum(1 - x, 0)**2", 1.0),
                ("where(x > 0, x, exp(x) - 1)", 0.0),
                ("x*abs(x)", 0.0),
            ],
            3: [
                ("abs(x)**3", 0.0),
                (f"maximum(x - {r(t)}, 0)**3", t),
                ("where(x > 0, x + x**2/2, exp(x) - 1)", 0.0),
                (f"abs(x - {r(t)})**3 + sin(x)", t),
            ],
        }[power]
        return famous[rng.integers(len(famous))]
    return scaled_only(rng, f"({e}) + {r(c)}*{g}"), x


def jump2(rng):
    return glued(rng, 2)


def jump3(rng):
    return glued(rng, 3)


def kink(rng):
    x, v = setting(rng)
    e = smooth_expression(rng, v)
    inv = 1.0 if v == "x" else float(v.split("(")[-1].split(")")[0])
    c = num(rng) * float(10.0 ** rng.uniform(-8, 2)) * inv
    kind = rng.integers(5)
    d = f"(x - {r(x)})"
    if kind == 0:
        e = f"({e}) + {r(c)}*abs({d})"
    elif kind == 1:
        e = f"({e}) + {r(c)}*maximum({d}, 0)"
    elif kind == 2:
        e = f"({e}) + {r(c)}*where({d} > 0, sin({d}), {d}*{d})"
    elif kind == 3:
        e = f"({e}) + maximum({r(c)}*{d}, {r(num(rng))}*{r(c)}*{d})"
    else:
        e = f"({e}) + abs({r(c)}*(exp({d} * {r(inv)}) - 1))"
    return scaled_only(rng, e), x


def near(rng):
    x, v = setting(rng)
    e = smooth_expression(rng, v)
    inv = 1.0 if v == "x" else float(v.split("(")[-1].split(")")[0])
    dist = float(10.0 ** rng.uniform(-9, 0)) / inv * rng.choice([-1, 1])
    a = float(x + dist)
    c = num(rng) * float(10.0 ** rng.uniform(-6, 2)) * inv
    g = [
        f"abs(x - {r(a)})",
        f"maximum(x - {r(a)}, 0)",
        f"maximum(x - {r(a)}, {r(float(rng.uniform(-2, 0.9)))}*(x - {r(a)}))",
    ][rng.integers(3)]
    return scaled_only(rng, f"({e}) + {r(c)}*{g}"), x


CANCEL = [
    "(1 - cos(x)) / x**2",
    "(exp(x) - 1) / x",
    "(x - sin(x)) / x**3",
    "(sqrt(1 + x**2) - 1) / x**2",
    "log(1 + x) / x",
    "(exp(x) - 1 - x) / x**2",
    "(cosh(x) - 1) / x**2",
    "x / (exp(x) - 1)",
    "sqrt(x + 1) - 1",
    "exp(x) - 1",
    "(1 - cos(x)) / x",
    "log(cosh(x))",
    "(1 + x)**3 - 1 - 3*x",
    "1/(1 + x) - 1 + x",
    "(tanh(x) - x)/x**3",
    "sqrt(1+x) - sqrt(1-x)",
    "1/x - 1/sinh(x)",
]


def cancellation(rng):
    kind = rng.integers(10)
    if kind < 7:
        e = CANCEL[rng.integers(len(CANCEL))]
        x = float(10.0 ** rng.uniform(-12, -0.3))
        if rng.random() < 0.3:
            x = -x
        if "log(1 + x)" in e and x < 0:
            x = -x
        return e, x
    if kind == 7:
        n = int(rng.integers(3, 8))
        t = float(rng.uniform(-0.05, 0.05))
        from math import comb

        e = " + ".join(f"({comb(n, k) * (-1) ** (n - k)})*x**{k}" for k in range(n + 1))
        return e, 1 + t
    if kind == 8:
        x, v = setting(rng)
        B = float(10.0 ** rng.uniform(4, 12))
        return f"(({smooth_expression(rng, v)}) + {r(B)}) - {r(B)}", x
    t = float(rng.uniform(20, 45))
    return [("log(1 + exp(x))", -t), ("log(1 + exp(-x))", t), ("1 - tanh(x)", t / 3), ("1 - 1/(1 + exp(-x))", t / 1.5)][
        rng.integers(4)
    ]


def quantised(rng):
    x, v = setting(rng)
    e = smooth_expression(rng, v)
    kind = rng.integers(3)
    if kind == 0:
        return f"rounded({e}, {int(rng.integers(3, 12))})", x
    if kind == 1:
        return f"single({e})", x
    q = float(10.0 ** rng.uniform(-12, -3))
    return f"stepped({e}, {r(q)})", x


CLASSES = {
    "smooth": smooth,
    "root": root,
    "jump in f''": jump2,
    "jump in f'''": jump3,
    "kink": kink,
    "kink near": near,
    "cancellation": cancellation,
    "quantised": quantised,
}


def cases(kind, count, seed):
    rng = np.random.default_rng([seed, list(CLASSES).index(kind)])
    out = []
    while len(out) < count:
        e, x = CLASSES[kind](rng)
        try:
            left, right = jets.one_sided_derivatives(e, x)
            v = evaluate(e, x)
        except (ZeroDivisionError, ValueError, OverflowError):
            continue
        if not np.isfinite(left + right).all() or not np.isfinite(v):
            continue
        if max(map(abs, left + right)) > 1e100:
            continue
        out.append(Case(e, x, kind, left, right))
    return out
