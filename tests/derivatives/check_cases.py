"""Random functions with correct derivatives and planted errors, and what
`check_derivative` says of them.

python -m tests.derivatives.check_cases --cases 2000 --seed 1
"""

import argparse
import collections
import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial

from research import backend
from research.derivatives import check_derivative
from research.models.activations import gelu

DISTANCES = (1.0, *(10.0**-k for k in range(1, 9)), 0.0)  # From a minimum.
MODES = (
    "float64",
    "float64",
    "float32",
    "pinned",
)  # The last computes in float32 whatever it is given.


@dataclasses.dataclass(frozen=True)
class Case:
    """A function, where its derivative is checked, and how far that is from a minimum
    (inf: there is none near).
    """

    family: str
    mode: str
    f: Callable
    x: Any
    distance: float
    is_noisy: bool = False


# Each takes (params, data); a Partial of it is compiled once for all data of the same
# shapes.
def rosenbrock(x, _):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def linear_fit(p, data):
    a, y = data
    return jnp.mean((a @ p - y) ** 2)


def exponential_fit(p, data):
    t, y = data
    return jnp.sum((p["a"] * jnp.exp(p["b"] * t) + p["c"] - y) ** 2)


def tanh_net(p, data):
    a, y = data
    return jnp.mean((jnp.tanh(a @ p["w"] + p["b"][None]) @ p["v"] - y) ** 2)


def square_net(p, data):
    a, y = data
    return jnp.mean((jnp.tanh(jnp.tanh(a @ p["w"]) @ p["u"]) @ p["v"] - y) ** 2)


def logistic(p, data):
    a, y = data
    z = a @ p["w"] + p["b"]
    return jnp.mean(jax.nn.softplus(z) - y * z)


def softmax(p, data):
    a, y = data
    return -jnp.mean(jnp.sum(y * jax.nn.log_softmax(a @ p["w"] + p["b"][None]), axis=1))


def centred_quadratic(x, data):
    h, b, c = data
    r = x - b
    return 0.5 * r @ h @ r + c


def expanded_quadratic(x, data):
    h, b, _ = data
    return 0.5 * x @ h @ x - (h @ b) @ x


def quartic(x, data):
    h, b, c = data
    r = x - b
    return jnp.sum(jnp.diag(h) * r**4) + c


def lennard_jones(x, data):
    energy, length = data
    r2 = jnp.sum((x[:, None] - x[None, :]) ** 2, axis=-1)[jnp.triu_indices(len(x), 1)]
    s = (length**2 / r2) ** 3
    return 4 * energy * jnp.sum(s * s - s)


def harmonic_trap(p, data):
    mass, omega, charge = data
    r = jnp.sqrt(jnp.sum((p["ion"] - p["other"]) ** 2))
    return (
        0.5 * mass * omega**2 * (jnp.sum(p["ion"] ** 2) + jnp.sum(p["other"] ** 2))
        + charge / r
    )


def leaves_of_many_sizes(p, data):
    scale = data
    return (
        jnp.sum(jnp.sin(p["small"] / scale["small"]))
        + jnp.sum(jnp.exp(-((p["large"] / scale["large"]) ** 2)))
        + jnp.mean(p["small"] / scale["small"])
        * jnp.mean(jnp.tanh(p["large"] / scale["large"]))
    )


def leaf_of_many_sizes(x, scales):
    return jnp.sum(jnp.sin(x / scales)) + jnp.prod(jnp.cos(x / scales))


def sums_that_cancel(x, data):
    large = data
    return (
        jnp.sum(large + jnp.sin(x)) - jnp.sum(large * jnp.ones_like(x)) + jnp.sum(x**2)
    )


NOISY = {
    "gelu": (lambda x, _: jnp.sum(gelu(x)), -6.0),
    "log cosh": (lambda x, _: jnp.sum(jnp.log(jnp.cosh(x))), 2.0**-10),
    "bernoulli": (lambda x, _: jnp.sum(x / (jnp.exp(x) - 1)), 1e-3),
    "naive softplus": (lambda x, _: jnp.sum(jnp.log(1 + jnp.exp(x))), -40.0),
    "versine": (lambda x, _: jnp.sum((1 - jnp.cos(x)) / x**2), 1e-3),
    "exprel": (lambda x, _: jnp.sum((jnp.exp(x) - 1) / x), 1e-6),
    "sums that cancel": (sums_that_cancel, 0.7),
    "difference of roots": (lambda x, _: jnp.sum(jnp.sqrt(x + 1) - jnp.sqrt(x)), 1e8),
}


def _moved(minimum: Any, distance: float, random: np.random.Generator) -> Any:
    """A point that far from the minimum, relative to the size of each leaf."""

    def leaf(m):
        m = np.asarray(m, float)
        size = np.sqrt(np.mean(m**2)) or 1.0
        return m + distance * size * random.normal(size=m.shape)

    return jax.tree.map(leaf, minimum)


def _symmetric(n: int, condition: float, random: np.random.Generator) -> np.ndarray:
    q, _ = np.linalg.qr(random.normal(size=(n, n)))
    return (q * np.geomspace(1, condition, n)) @ q.T


def _minima(random: np.random.Generator) -> dict[str, Callable]:
    """Families with a minimum: (function, minimum, data)."""
    normal = random.normal

    def exact(g, p, inputs, fitted):
        return g, p, (inputs, fitted(p, inputs))

    def quadratic(g, n):
        h = _symmetric(n, 10 ** random.uniform(0, 8), random)
        return g, normal(size=n), (h, None, random.choice([0.0, 1.0]))

    def with_b(given):
        g, x, (h, _, c) = given
        return g, x, (h, x, c)

    size = {"w": (3, 4), "b": (4,), "v": (4,)}
    return {
        "rosenbrock": lambda: (rosenbrock, np.ones(random.choice([2, 5, 10])), None),
        "linear fit": lambda: exact(
            linear_fit, normal(size=5), normal(size=(12, 5)), lambda p, a: a @ p
        ),
        "exponential fit": lambda: exact(
            exponential_fit,
            {"a": normal(), "b": normal(), "c": normal()},
            random.uniform(0, 1, size=10),
            lambda p, t: np.asarray(p["a"] * np.exp(p["b"] * t) + p["c"]),
        ),
        "tanh net": lambda: exact(
            tanh_net,
            {k: normal(size=s) for k, s in size.items()},
            normal(size=(15, 3)),
            lambda p, a: np.tanh(a @ p["w"] + p["b"]) @ p["v"],
        ),
        "square net": lambda: exact(
            square_net,
            {"w": normal(size=(4, 4)), "u": normal(size=(4, 4)), "v": normal(size=4)},
            normal(size=(15, 4)),
            lambda p, a: np.tanh(np.tanh(a @ p["w"]) @ p["u"]) @ p["v"],
        ),
        "logistic": lambda: exact(
            logistic,
            {"w": normal(size=4), "b": normal()},
            normal(size=(20, 4)),
            lambda p, a: 1 / (1 + np.exp(-(a @ p["w"] + p["b"]))),
        ),
        "softmax": lambda: exact(
            softmax,
            {"w": normal(size=(3, 3)), "b": normal(size=3)},
            normal(size=(20, 3)),
            lambda p, a: np.asarray(jax.nn.softmax(a @ p["w"] + p["b"])),
        ),
        "centred quadratic": lambda: with_b(
            quadratic(centred_quadratic, random.choice([3, 8]))
        ),
        "expanded quadratic": lambda: with_b(
            quadratic(expanded_quadratic, random.choice([3, 8]))
        ),
        "quartic": lambda: with_b(quadratic(quartic, 4)),
    }


def _elsewhere(random: np.random.Generator) -> dict[str, Callable]:
    """Families without a minimum near: (function, x, data)."""
    normal, uniform = random.normal, random.uniform

    def noisy(name):
        g, x = NOISY[name]
        data = 10.0 ** random.integers(0, 9) if name == "sums that cancel" else None
        return lambda: (g, x * (1 + 0.1 * normal(size=random.choice([1, 3]))), data)

    lattice = np.array([[0.0, 0, 0], [1.1, 0, 0], [0, 1.2, 0], [0, 0, 1.3]])
    scale = lambda: {"small": 10 ** uniform(-12, -3), "large": 10 ** uniform(2, 9)}
    many = lambda: 10 ** uniform(-9, 4, size=4)
    return {
        "lennard jones in metres": lambda: (
            lennard_jones,
            3.4e-10 * (lattice + 0.1 * normal(size=(4, 3))),
            (1.65e-21, 3.4e-10),
        ),
        "ions in metres": lambda: (
            harmonic_trap,
            {"ion": 1e-6 * normal(size=3), "other": 1e-6 * normal(size=3)},
            (6.6e-26, 2 * np.pi * 1e6, 2.3e-28),
        ),
        "leaves of many sizes": lambda: (
            lambda s: (
                leaves_of_many_sizes,
                {k: v * normal(size=4) for k, v in s.items()},
                s,
            )
        )(scale()),
        "leaf of many sizes": lambda: (
            lambda s: (leaf_of_many_sizes, s * normal(size=4), s)
        )(many()),
        **{name: noisy(name) for name in NOISY},
    }


def _pinned(g: Callable) -> Callable:
    def f(data, x):
        return g(*jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), (x, data)))

    return f


def _plain(g: Callable) -> Callable:
    return lambda data, x: g(x, data)


_KEPT: dict[
    Any, Callable
] = {}  # One function for a family and a mode, so that it is compiled once.


def cases(number: int, seed: int) -> Iterator[Case]:
    """That many cases, the same for the same seed."""
    for i in range(number):
        random = np.random.default_rng([seed, i])
        mode = MODES[random.integers(len(MODES))]
        near = random.random() < 0.7
        table = (_minima if near else _elsewhere)(random)
        family = str(random.choice(sorted(table)))
        if (family, mode) == ("lennard jones in metres", "pinned"):
            # In float32 its derivative underflows: by a third in forward mode.
            mode = "float32"
        g, x, data = table[family]()
        distance = float(random.choice(DISTANCES)) if near else float("inf")
        x = _moved(x, distance, random) if near else x
        data = jax.tree.map(jnp.asarray, data)
        kind = jnp.float64 if mode == "float64" else jnp.float32
        x = jax.tree.map(lambda leaf, kind=kind: jnp.asarray(leaf, kind), x)
        f = _KEPT.setdefault(
            (family, mode == "pinned"), (_pinned if mode == "pinned" else _plain)(g)
        )
        yield Case(family, mode, Partial(f, data), x, distance, family in NOISY)


KINKED = 8  # Entries of x in the functions with kinks.


def kinked(data, x):
    """Kinks in the entries whose weights are not 0, and a smooth function of all
    entries.
    """
    centre, (size, slope, pair), weights = data
    d = x - centre
    kinks = size * jnp.abs(d) + slope * jnp.maximum(d, 0)
    kinks += pair * jnp.maximum(d, jnp.roll(d, 1))
    return jnp.sum(kinks * (1 + 0.1 * jnp.tanh(weights[0] @ x))) + jnp.sum(
        jnp.tanh(weights @ x)
    )


def kinked_cases(number: int, seed: int) -> Iterator[tuple[Partial, Any, Any]]:
    """That many functions with kinks in some entries: (f, x, whether each entry has a
    kink).
    """
    for i in range(number):
        random = np.random.default_rng([seed, i])
        x = random.normal(size=KINKED)
        at = random.random(KINKED) < random.uniform(0.1, 0.7)
        first, second = random.choice(KINKED, 2, replace=False)
        at[first], at[second] = True, False
        # Of one sign, so that the derivative that jax takes lies between the two
        # slopes.
        kinds = random.choice([-1, 1]) * 10 ** random.uniform(-2, 1, (3, KINKED))
        kinds *= random.random((3, KINKED)) < 0.6
        kinds[0] += np.where(kinds[:2].any(axis=0), 0, np.sign(kinds.sum()) or 1.0)
        pairs = at & np.roll(at, 1)
        data = (x, (kinds[0] * at, kinds[1] * at, kinds[2] * pairs))
        data = (*data, random.normal(size=(KINKED, KINKED)))
        yield Partial(kinked, jax.tree.map(jnp.asarray, data)), jnp.asarray(x), at


def planted(
    case: Case, gradient: Any, smallest: float, random: np.random.Generator
) -> Iterator[tuple[str, Any]]:
    """Wrong gradients, by name."""
    flat, unravel = ravel_pytree(
        jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), gradient)
    )
    flat, length = np.asarray(flat), np.linalg.norm(flat)
    if not length > 0:
        return
    if np.isfinite(smallest):
        off = random.normal(size=flat.shape)
        yield (
            "3 x smallest_error",
            unravel(flat + 3 * smallest * length * off / np.linalg.norm(off)),
        )
        yield "3 x smallest_error along", unravel(flat * (1 + 3 * smallest))
    yield "sign", unravel(-flat)
    yield "factor of 2", unravel(2 * flat)
    entry = np.zeros(flat.shape)
    entry[random.integers(len(flat))] = 1e-3
    yield "entry by 1e-3 of all", unravel(flat + length * entry)
    yield (
        "entry by 1e-3 of it",
        unravel(flat * (1 + np.where(np.abs(flat) == np.abs(flat).max(), 1e-3, 0))),
    )
    leaves, structure = jax.tree.flatten(unravel(flat))
    square = [
        np.ndim(leaf) == 2 and np.shape(leaf)[0] == np.shape(leaf)[1] for leaf in leaves
    ]
    if any(square):
        turned = [
            leaf.T if turn else leaf for leaf, turn in zip(leaves, square, strict=True)
        ]
        yield "transposed", jax.tree.unflatten(structure, turned)


def _length(tree: Any) -> float:
    return float(
        np.linalg.norm(
            np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
        )
    )


@dataclasses.dataclass
class Tally:
    """What was said."""

    rejected: list = dataclasses.field(default_factory=list)
    missed: list = dataclasses.field(default_factory=list)
    smallest: dict = dataclasses.field(
        default_factory=lambda: collections.defaultdict(list)
    )
    unresolved: dict = dataclasses.field(
        default_factory=lambda: collections.defaultdict(list)
    )
    planted: collections.Counter = dataclasses.field(
        default_factory=collections.Counter
    )
    open: list = dataclasses.field(default_factory=list)
    worst: list = dataclasses.field(default_factory=list)

    def text(self) -> str:
        lines = [
            f"rejected {len(self.rejected)}; planted errors called right beyond what is"
            f" stated: {len(self.missed)}"
        ]
        lines += [f"  rejected: {each}" for each in self.rejected[:20]]
        lines += [f"  missed: {each}" for each in self.missed[:40]]
        for mode, found in self.smallest.items():
            lines.append(
                f"median smallest_error, {mode}: {np.median(found):.1e} of {len(found)}"
            )
        for group, found in sorted(self.unresolved.items(), key=str):
            lines.append(f"unresolved, {group}: {np.mean(found):.1%} of {len(found)}")
        lines += [
            f"{name}: {count}" for name, count in sorted(self.planted.items(), key=str)
        ]
        return "\n".join(lines)


def run(number: int, seed: int, first: int = 0, plants: bool = True) -> Tally:
    """Checks that many correct derivatives and, of each, the planted errors."""
    tally = Tally()
    for i, case in enumerate(cases(number, seed)):
        if i < first:
            continue
        report = check_derivative(case.f, case.x, jax.random.key(i))
        label = (i, case.family, case.mode, case.distance)
        if report.verdict not in ("right", "unresolved"):
            tally.rejected.append((*label, report.verdict))
        tally.worst += [
            (p.gap / p.floor, *label, p.name) for p in report.probes if p.floor < np.inf
        ]
        zone = (
            "noisy"
            if case.is_noisy
            else "away"
            if case.distance > 1e-3
            else "within 1e-3"
        )
        tally.smallest[case.mode].append(report.smallest_error)
        if report.verdict == "unresolved":
            tally.open.append((*label, report.smallest_error))
        for group in (zone, (zone, case.mode), (case.family,)):
            tally.unresolved[group].append(report.verdict == "unresolved")
        if not plants:
            continue
        gradient = jax.grad(case.f)(
            jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), case.x)
        )
        for name, wrong in planted(
            case, gradient, report.smallest_error, np.random.default_rng([seed, i])
        ):
            said = check_derivative(
                case.f, case.x, jax.random.key(i + 10**6), lambda _, wrong=wrong: wrong
            )
            tally.planted[name, said.verdict] += 1
            size = _length(jax.tree.map(np.subtract, wrong, gradient)) / _length(wrong)
            # Where rounding hides the error, "right" must come with a smallest error
            # that says so.
            if said.verdict == "kink" or (
                said.verdict == "right" and size > 3 * said.smallest_error
            ):
                tally.missed.append(
                    (*label, name, said.verdict, size, said.smallest_error)
                )
    return tally


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="pass over that many")
    parser.add_argument("--right-alone", action="store_true", help="plant no errors")
    chosen = parser.parse_args()
    backend.configure(devices=1, pool=2, x64=True)
    started = time.process_time()
    result = run(chosen.cases, chosen.seed, chosen.first, not chosen.right_alone)
    print(result.text())
    print(*result.open, sep="\n")
    print(
        f"{time.process_time() - started:.0f} CPU seconds; closest to a rejection (gap "
        "/ floor):"
    )
    for each in sorted(result.worst, reverse=True)[:25]:
        print("  ", each)
