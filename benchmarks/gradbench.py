"""Compute GradBench's eleven evaluations, and time them beside its C++ and PyTorch.

GradBench (repository gradbench/gradbench) is a benchmark of automatic differentiation.
None of its code is here: point to a checkout, and its own tools are run as they are.

python -m benchmarks.gradbench                     # ours, checked against NumPy
python -m benchmarks.gradbench --checkout FOLDER   # beside its "manual" C++ and PyTorch
python -m benchmarks.gradbench --only gmm --only ba

The C++ derivatives, written by hand, must have been built: `make -C tools/manual` in
the checkout, with json.hpp of nlohmann-json in its folder cpp. Its PyTorch tool needs
torch and dataclasses_json. All run on one core, in turns. The times are processor
seconds of a call, because other work on the machine disturbs these least.
"""

import argparse
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import clock
from benchmarks import gradbench_reference as reference
from benchmarks.tables import Section

TOLERANCE = 1e-10  # Of the largest entry.
SEED = 31337
ROUNDS, SECONDS, MOST_CALLS = 3, 0.1, 4096
PYTORCH = ("gmm", "kmeans", "lse", "lstm")  # Evaluations its PyTorch tool finishes.
BITS, BONES = 14, 22
Sizes = dict[str, dict[str, int]]
SMALL: Sizes = {
    "gmm": {"d": 3, "k": 4, "n": 20},
    "kmeans": {"k": 4, "n": 30, "d": 3},
    "llsq": {"n": 17, "m": 7},
    "lse": {"n": 50},
    "ode": {"n": 4, "s": 7},
    "det": {"ell": 5},
    "lstm": {"l": 2, "c": 6},
    "ba": {"n": 2, "m": 3, "p": 7},
    "ht": {"vertices": 12, "points": 5},
    "particle": {},
    "saddle": {},
}
# Sizes of GradBench's own workloads.
FULL: Sizes = {
    "gmm": {"d": 20, "k": 25, "n": 1000},
    "kmeans": {"k": 100, "n": 10_000, "d": 8},
    "llsq": {"n": 4096, "m": 128},
    "lse": {"n": 160_000},
    "ode": {"n": 10_000, "s": 100},
    "det": {"ell": 9},
    "lstm": {"l": 2, "c": 1024},
    "ba": {"n": 49, "m": 7776, "p": 31_843},
    "ht": {"vertices": 544, "points": 1600},
    "particle": {},
    "saddle": {},
}


def make_input(name: str, size: dict[str, int]) -> dict[str, Any]:
    """Draw the input of an evaluation, in GradBench's format."""
    random = np.random.default_rng(SEED)
    normal = lambda *shape: random.normal(size=shape).tolist()
    uniform = lambda *shape: random.uniform(size=shape).tolist()
    if name == "gmm":
        d, k, n = size["d"], size["k"], size["n"]
        return size | {
            "x": normal(n, d),
            "m": 2,
            "gamma": 1.3,
            "alpha": normal(k),
            "mu": uniform(k, d),
            "q": normal(k, d),
            "l": normal(k, d * (d - 1) // 2),
        }
    if name == "kmeans":
        points = uniform(size["n"], size["d"])
        return {"points": points, "centroids": points[-size["k"] :]}
    if name == "llsq":
        return {"x": uniform(size["m"]), "n": size["n"]}
    if name == "lse":
        return {"x": uniform(size["n"])}
    if name == "ode":
        return {"x": uniform(size["n"]), "s": size["s"]}
    if name == "det":
        return {"A": uniform(size["ell"] ** 2), "ell": size["ell"]}
    if name == "lstm":
        layers = size["l"]
        return {
            "main_params": uniform(2 * layers, 4 * BITS),
            "extra_params": uniform(3, BITS),
            "state": uniform(2 * layers, BITS),
            "sequence": random.integers(2, size=(size["c"], BITS))
            .astype(float)
            .tolist(),
        }
    if name == "ba":
        # A camera that looks at a point near the axis.
        return size | {
            "cam": [0.3, -0.2, 0.4, 0.1, 0.2, -5.0, 420.0, 5.9, -8.5, 0.09, 0.003],
            "x": [0.7, -0.4, 1.1],
            "w": 0.8,
            "feat": [20.0, -30.0],
        }
    if name == "ht":
        return _hand(random, **size)
    return {"w": 0.0} if name == "particle" else {"start": [1.0, 1.0]}


def _hand(random: np.random.Generator, vertices: int, points: int) -> dict[str, Any]:
    """Draw a hand of 22 bones, and points near its triangles."""
    frame = lambda: (
        np.eye(4) + np.pad(0.1 * random.normal(size=(3, 4)), ((0, 1), (0, 0)))
    )
    weights = np.zeros((vertices, BONES))
    for row in weights:
        row[random.choice(BONES, 4, replace=False)] = random.dirichlet(np.ones(4))
    base = np.column_stack([random.normal(size=(vertices, 3)), np.ones(vertices)])
    triangles = [random.choice(vertices, 3, replace=False) for _ in range(2 * vertices)]
    # Wrist, four bones for each finger, forearm. GradBench's C++ knows this tree.
    parents = [-1, *(0 if bone % 4 == 1 else bone - 1 for bone in range(1, BONES))]
    return {
        "theta": (0.5 * random.normal(size=26)).tolist(),
        "us": random.dirichlet(np.ones(3), points)[:, :2].tolist(),
        "data": {
            "correspondences": random.integers(len(triangles), size=points).tolist(),
            "points": random.normal(size=(points, 3)).tolist(),
            "model": {
                "bone_count": BONES,
                "bone_names": [f"bone_{i}" for i in range(BONES)],
                "parents": parents,
                "base_relatives": [frame().tolist() for _ in range(BONES)],
                "inverse_base_absolutes": [frame().tolist() for _ in range(BONES)],
                "base_positions": base.tolist(),
                "weights": weights.tolist(),
                "triangles": np.array(triangles).tolist(),
                "is_mirrored": False,
            },
        },
    }


def flat(name: str, which: int, output: Any) -> np.ndarray:
    """Return an output of ours or GradBench's as one array, in one order.

    Args:
      name: The evaluation.
      which: 0 for the value, 1 for the derivative.
      output: A pytree of arrays, or what GradBench writes.
    """
    if name == "gmm" and which:
        return np.concatenate(
            [np.ravel(output[part]) for part in ("alpha", "mu", "q", "l")]
        )
    if name == "ba" and isinstance(output, dict):  # The first entries and the last.
        if which:
            return np.asarray(output["vals"], float)
        return np.array(
            [*output["reproj_error"]["elements"], output["w_err"]["element"]]
        )
    if name == "ba":
        first = np.asarray(output[0])
        first = first[..., 0]
        return np.append(first, np.asarray(output[1])[-1])
    if isinstance(output, tuple):
        return np.concatenate([np.ravel(part) for part in output])
    return np.ravel(np.asarray(output, float))


def truth(name: str, given: dict[str, Any]) -> tuple[Any, Any]:
    """Return value and derivative by NumPy, for a small input."""
    as_arrays = lambda *names: [np.asarray(given[part], float) for part in names]
    step = reference.complex_step
    if name == "gmm":
        parts = as_arrays("alpha", "mu", "q", "l")
        shapes = [part.shape for part in parts]
        ends = np.cumsum([part.size for part in parts])[:-1]

        def f(x: np.ndarray) -> Any:
            own = [p.reshape(s) for p, s in zip(np.split(x, ends), shapes, strict=True)]
            return reference.gmm(own[0], own[1], own[2], own[3], given)

        x = np.concatenate([part.ravel() for part in parts])
        return np.real(f(x.astype(complex))), step(f, x)
    if name == "kmeans":
        return reference.kmeans(given)
    if name == "lstm":
        main, extra, state, sequence = as_arrays(
            "main_params", "extra_params", "state", "sequence"
        )
        loss = lambda m, e: reference.lstm(m, e, state, sequence)
        slopes = (
            step(lambda m: loss(m, extra), main),
            step(lambda e: loss(main, e), extra),
        )
        return np.real(loss(main, extra)), np.concatenate([s.ravel() for s in slopes])
    if name == "ba":
        parts = as_arrays("cam", "x", "w")
        x = np.concatenate([np.ravel(part) for part in parts])
        feature = np.asarray(given["feat"])
        f = lambda x: reference.ba(x[:11], x[11:14], x[14], feature)
        value = np.append(f(x), 1 - x[14] ** 2)
        return value, np.append(step(f, x).T.ravel(), -2 * x[14])
    if name == "ht":
        theta, us = as_arrays("theta", "us")
        by_theta = step(lambda t: reference.ht(t, us, given), theta)
        by_us = step(lambda u: reference.ht(theta + 0j, u, given), us)
        own = np.einsum("iuij->uij", by_us)  # Only the point's own u.
        value = np.real(reference.ht(theta + 0j, us, given))
        return value, np.moveaxis(np.concatenate([own, by_theta]), 0, -1).ravel()
    if name == "particle":
        best = reference.particle(given["w"])
        return reference.landing(given["w"]), np.full(4, best)
    if name == "saddle":
        start = np.asarray(given["start"])
        return start @ start, np.tile(reference.saddle(start), 4)
    f, x = {
        "llsq": (lambda x: reference.llsq(x, given["n"]), given.get("x")),
        "lse": (reference.lse, given.get("x")),
        "ode": (lambda x: reference.ode(x, given["s"]), given.get("x")),
        "det": (lambda x: reference.det(x, given["ell"]), given.get("A")),
    }[name]
    x = np.asarray(x, float)
    slope = step(f, x)
    return f(x), slope[:, -1] if name == "ode" else slope


def error(found: np.ndarray, wanted: Any) -> float:
    """Return the largest difference over the largest entry; inf for another shape."""
    wanted = np.ravel(np.asarray(wanted, float))
    if found.shape != wanted.shape or not np.all(np.isfinite(found)):
        return float("inf")
    gap, scale = np.max(np.abs(found - wanted)), np.max(np.abs(wanted))
    return float(gap / scale) if scale else float(gap)


class Run(NamedTuple):
    """The results of a tool, and the seconds that it took.

    Attributes:
      outputs: Of the value and of the derivative, as `flat` returns them.
      seconds: Of each, the processor seconds of a call, in each round.
    """

    outputs: list[np.ndarray]
    seconds: list[list[float]]


Call = Callable[[int, int], tuple[np.ndarray, float]]


def ours(name: str, given: dict[str, Any]) -> tuple[Call, float]:
    """Return our tool, and the processor seconds to compile."""
    import jax

    from benchmarks.gradbench_functions import compiled

    jax.clear_caches()
    began = time.process_time()
    calls = compiled(name, given)
    seconds = time.process_time() - began

    def call(which: int, times: int) -> tuple[np.ndarray, float]:
        began, output = time.process_time(), None
        for _ in range(times):
            output = calls[which]()
        return flat(name, which, output), time.process_time() - began

    return call, seconds


def cpp(name: str, given: dict[str, Any], checkout: Path) -> Call:
    """Return GradBench's program that is written by hand in C++."""
    from benchmarks.gradbench_functions import EVALUATIONS

    program = checkout / "tools" / "manual" / "bin" / name

    def call(which: int, times: int) -> tuple[np.ndarray, float]:
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(given | {"min_runs": times, "min_seconds": 0}, file)
            file.flush()
            words = [program, file.name, EVALUATIONS[name].names[which]]
            before = _children()
            done = subprocess.run(words, capture_output=True, text=True, check=True)
        output = json.loads(done.stdout.partition("\n")[0])
        return flat(name, which, output), _children() - before

    return call


def _children() -> float:
    """Return the processor seconds of all processes that were started and ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def torch(name: str, given: dict[str, Any], checkout: Path) -> Call:
    """Return GradBench's PyTorch tool."""
    from benchmarks.gradbench_functions import EVALUATIONS

    folder = str(checkout / "python" / "gradbench")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    tool = importlib.import_module(f"gradbench.tools.pytorch.{name}")

    def call(which: int, times: int) -> tuple[np.ndarray, float]:
        wrapped = getattr(tool, EVALUATIONS[name].names[which]).wrapped
        began = time.process_time()
        done = wrapped(given | {"min_runs": times, "min_seconds": 0})
        return flat(name, which, done["output"]), time.process_time() - began

    return call


def seconds_of_a_call(call: Call, which: int) -> tuple[np.ndarray, float]:
    """Return the output, and the processor seconds of a call.

    They are the difference of many calls and one, so that reading the input and
    starting do not count. A call before them is not timed: it loads and allocates what
    later calls find, so its time must not be subtracted.
    """
    times = 1
    output, _ = call(which, 1)
    used = first = call(which, 1)[1]
    while times < MOST_CALLS:
        times *= 4
        used = call(which, 1 + times)[1] - first
        if used > SECONDS:
            break
    return output, max(used / times, 0.0)


def in_turns(calls: dict[str, Call], rounds: int) -> dict[str, Run]:
    """Call every tool's value and derivative in turns; each round has another first."""
    runs, tools = {tool: Run([], [[], []]) for tool in calls}, list(calls)
    for k in range(rounds):
        for which in (0, 1):
            for tool in clock.in_turn(tools, k):
                output, seconds = seconds_of_a_call(calls[tool], which)
                if not k:
                    runs[tool].outputs.append(output)
                runs[tool].seconds[which].append(seconds)
    return runs


def check(name: str) -> tuple[float, float]:
    """Return the errors of our value and derivative on the small input, by NumPy."""
    given = make_input(name, SMALL[name])
    call, _ = ours(name, given)
    value, derivative = truth(name, given)
    return error(call(0, 1)[0], value), error(call(1, 1)[0], derivative)


def check_same(name: str, mine: list[np.ndarray], theirs: list[np.ndarray]) -> None:
    """Raise ValueError if PyTorch's results are not ours, up to rounding."""
    for what, own, other in zip(("value", "derivative"), mine, theirs, strict=True):
        if not error(own, other) <= TOLERANCE:
            raise ValueError(
                f"PyTorch did not do the same job as ours: the {what} of {name} "
                f"differs by {error(own, other):.1e} of its largest entry."
            )


class GradRow(NamedTuple):
    """One evaluation: how exact ours is, and what a call costs each tool.

    Attributes:
      name, size, note: The evaluation, its sizes in words, and how ours computes it.
      error: Largest error of our value and derivative, in units of the largest entry.
      milliseconds: By tool, those of a call of the value and of the derivative.
      ratio: Time of the C++ derivative over ours: the ratio of the least times, and the
        least and largest ratio of a round; None without the C++.
      compile_seconds: To compile our value and derivative.
    """

    name: str
    size: str
    note: str
    error: float
    milliseconds: dict[str, list[float]]
    ratio: list[float] | None
    compile_seconds: float


def row(name: str, checkout: Path | None, rounds: int, sizes: Sizes) -> GradRow:
    """Compute an evaluation with each tool, in turns.

    Raises:
      ValueError: PyTorch's value or derivative is another than ours.
    """
    from benchmarks.gradbench_functions import EVALUATIONS

    given = make_input(name, sizes[name])
    call, compile_seconds = ours(name, given)
    calls = {"ours": call}
    if checkout and (checkout / "tools" / "manual" / "bin" / name).exists():
        calls["C++"] = cpp(name, given, checkout)
    if checkout and name in PYTORCH and find_spec("torch"):
        calls["PyTorch"] = torch(name, given, checkout)
    runs = in_turns(calls, rounds)
    if "PyTorch" in runs:
        check_same(name, runs["ours"].outputs, runs["PyTorch"].outputs)
    # Without the C++ program, the small input is compared with NumPy.
    errors = [] if "C++" in runs else list(check(name))
    ratio = None
    if "C++" in runs:
        errors += [
            error(*pair)
            for pair in zip(runs["ours"].outputs, runs["C++"].outputs, strict=True)
        ]
        theirs, mine = runs["C++"].seconds[1], runs["ours"].seconds[1]
        pairs = [their / own for their, own in zip(theirs, mine, strict=True)]
        ratio = [min(theirs) / min(mine), min(pairs), max(pairs)]
    return GradRow(
        name,
        ", ".join(f"{key} {value}" for key, value in sizes[name].items()) or "–",
        EVALUATIONS[name].note,
        max(errors),
        {
            tool: [1e3 * min(seconds) for seconds in run.seconds]
            for tool, run in runs.items()
        },
        ratio,
        compile_seconds,
    )


def line(row: GradRow) -> str:
    """Write a row of the Markdown table."""
    times = {
        tool: " / ".join(f"{value:.3g}" for value in pair)
        for tool, pair in row.milliseconds.items()
    }
    ratio = "{:.3g} ({:.3g} to {:.3g})".format(*row.ratio) if row.ratio else "–"
    words = [
        row.name,
        row.size,
        f"{row.error:.0e}",
        *(times.get(tool, "– / –") for tool in ("ours", "C++", "PyTorch")),
        ratio,
        f"{row.compile_seconds:.1f}",
        row.note,
    ]
    return "| " + " | ".join(words) + " |"


HEAD = (
    "| evaluation | size | largest error | ours, f / ∇f, ms | C++ | PyTorch "
    "| C++ ∇f / ours | seconds to compile | note |\n" + "|---" * 9 + "|"
)


def measure(
    quick: bool, tell: Callable[[str], Any], checkout: Path | None = None
) -> list[GradRow]:
    """Compute all evaluations in a process of their own, which has one core.

    Raises:
      RuntimeError: That process ended with an error.
    """
    words = [sys.executable, "-m", "benchmarks.gradbench", "--json"]
    words += ["--small"] if quick else []
    words += ["--checkout", str(checkout)] if checkout else []
    rows = []
    tell("gradbench")
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
        for printed in child.stdout or ():
            rows.append(GradRow(*json.loads(printed)))
            tell(f"gradbench: {rows[-1].name} is done")
    if len(rows) < len(FULL):
        raise RuntimeError(
            f"{' '.join(words)} ended with status {child.returncode} after "
            f"{len(rows)} of {len(FULL)} evaluations."
        )
    return rows


def section(rows: list[GradRow]) -> Section:
    """Describe the rows in a section of the page."""
    right = [row for row in rows if row.error <= TOLERANCE]
    beside = [(row.name, row.ratio[0]) for row in rows if row.ratio]
    faster = [name for name, ratio in beside if ratio >= 1]
    answer = f"GradBench: {len(right)} of {len(rows)} right to {TOLERANCE:.0e}" + (
        f"; the gradient takes at most the time of the C++ in {len(faster)} of "
        f"{len(beside)}: {', '.join(faster) or 'none'}."
        if beside
        else "; its C++ was not there to be timed."
    )
    text = (
        "\n".join([HEAD, *map(line, rows)])
        + "\n\nProcessor milliseconds of a call on one core, the least of the rounds. "
        "The ratio is above 1 where ours is faster; in brackets is its range over the "
        "rounds. det is computed by another algorithm than in the C++. The C++ "
        "gradient of ode is a formula for the exact solution and runs no steps. "
        "[README.md](README.md#gradbench) says why ours is slower where it is."
    )
    missed = [
        f"GradBench, {row.name}: an error of {row.error:.0e}"
        for row in rows
        if row not in right
    ]
    missed += [
        f"GradBench, {name}: the C++ gradient takes {ratio:.3g} of our time"
        for name, ratio in beside
        if ratio < 1
    ]
    return Section("GradBench", answer, text, missed)


def fault_of(checkout: Path) -> str:
    """Return why a folder is no checkout of GradBench, or ""."""
    if (checkout / "tools" / "manual").is_dir():
        return ""
    return f"{checkout} has no folder tools/manual, so it is no checkout of GradBench."


def main(words: list[str] | None = None) -> int:
    """Print a row for each evaluation; return 1 if a number is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gradbench",
        description=(__doc__ or "").partition("\n\n")[0],
    )
    parser.add_argument("--checkout", type=Path, help="folder of gradbench/gradbench")
    parser.add_argument("--only", choices=FULL, action="append", help="may be repeated")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", action="store_true", help="print a list for each row")
    parser.add_argument("--small", action="store_true", help="small inputs, one round")
    flags = parser.parse_args(words)
    if flags.checkout and (fault := fault_of(flags.checkout)):
        parser.error(fault)
    if flags.rounds < 1:
        parser.error(f"--rounds must be at least 1; got {flags.rounds}.")
    if hasattr(os, "sched_setaffinity"):  # One core for all, as GradBench's C++ uses.
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    import research

    research.backend.configure(x64=True)
    if find_spec("torch"):
        importlib.import_module("torch").set_num_threads(1)
    if not flags.json:
        print(HEAD, flush=True)
    sizes, rounds = (SMALL, 1) if flags.small else (FULL, flags.rounds)
    rows = []
    for name in flags.only or FULL:
        rows.append(row(name, flags.checkout, rounds, sizes))
        print(json.dumps(rows[-1]) if flags.json else line(rows[-1]), flush=True)
    right = [row.error <= TOLERANCE for row in rows]
    if not flags.json:
        print(f"\n{sum(right)} of {len(right)} right to {TOLERANCE:.0e}.")
    return 0 if all(right) else 1


if __name__ == "__main__":
    sys.exit(main())
