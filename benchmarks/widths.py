"""Time block widths, pools and device counts, and compare the bits of their results.

python benchmarks/widths.py          # two to three minutes on two cores
python benchmarks/widths.py --quick  # few epochs; its seconds mean nothing

A sweep is one as in the main experiment: logistic regression on breast_cancer, with 32
runs (seeds and rates), on the full batch, on mini-batches of 32 and on single examples.
Each pair of a pool and a number of devices has a process of its own, one after another.
The time of a run is the least of seven rounds, which other work on the machine disturbs
least; median and most stand beside it.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np

REGIMES = {"full batch": None, "mini-batch 32": 32, "stochastic": 1}
WIDTHS, NUM_RUNS, BASE = (1, 2, 4, 8, 16, 32), 32, 8
SETTINGS = ((1, 1), (2, 1), (4, 1), (2, 2))  # (pool, devices).
USUAL = (2, 1)  # As experiments run.


def measure(regime: str, width: int, epochs: int, rounds: int) -> dict[str, Any]:
    """Measure one program in this process.

    Return the seconds to compile, the seconds a run (least, median, most of the
    rounds), and hashes.
    """
    import jax

    from research import descent, runs, samplers, update_rules, workloads
    from research.descent import _shared_programs

    workload = workloads.make_workload("breast_cancer")
    assert workload.train is not None
    n, size = len(workload.train.y), REGIMES[regime]
    sampler = samplers.full_batch(n) if size is None else samplers.minibatch(n, size)
    _shared_programs.forget()  # Each width compiles all its parts.
    program = descent.compile_sweep(
        workload, update_rules.gradient_descent, sampler, epochs, width=width
    )
    trials = {
        "seed": np.arange(NUM_RUNS),
        "learning_rate": np.geomspace(2.0**-9, 2.0**-4, NUM_RUNS),
    }
    descent.sweep(program, trials)  # It warms up.
    trained = [descent.sweep(program, trials) for _ in range(rounds)]
    seconds = np.array([t.seconds for t in trained]) / NUM_RUNS
    leaves = jax.tree.leaves((trained[0].params, trained[0].values, trained[0].info))
    return {
        "compile": program.compile_seconds,
        "run": [float(f(seconds)) for f in (np.min, np.median, np.max)],
        "hashes": [
            runs.hash_arrays(*(leaf[i] for leaf in leaves)) for i in range(NUM_RUNS)
        ],
        "values": trained[0].values.tolist(),
    }


def in_this_process(options: argparse.Namespace) -> dict[str, Any]:
    """Return {regime/width: measurement} under one pool and one number of devices."""
    from research import backend

    backend.configure(devices=options.devices, pool=options.pool, x64=True)
    epochs = 10 if options.quick else 50
    return {
        f"{regime}/{width}": measure(regime, width, epochs, 1 if options.quick else 7)
        for regime in REGIMES
        for width in options.widths
    }


def in_another_process(pool: int, devices: int, quick: bool) -> dict[str, Any]:
    """Measure in a process that starts with these settings.

    It measures all widths under the usual settings, else the usual width.
    """
    widths = WIDTHS if (pool, devices) == USUAL else (BASE,)
    words = [
        sys.executable,
        __file__,
        "--pool",
        str(pool),
        "--devices",
        str(devices),
        "--widths",
        *map(str, widths),
    ]
    words += ["--quick"] if quick else []
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("XLA_FLAGS", "NPROC")
    }
    print(f"pool {pool}, devices {devices} ...", file=sys.stderr, flush=True)
    done = subprocess.run(
        words, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout)


def row(name: tuple, found: dict[str, Any], base: dict[str, Any]) -> tuple:
    """Write a row of a table.

    It has the seconds, how many runs have other bits than the base, and by how much
    their values differ.
    """
    least, median, most = (1e3 * seconds for seconds in found["run"])
    others = sum(a != b for a, b in zip(found["hashes"], base["hashes"], strict=True))
    apart = float(
        np.max(np.abs(np.array(found["values"]) / np.array(base["values"]) - 1))
    )
    return (
        *name,
        least,
        f"{median:.3g}, {most:.3g}",
        found["compile"],
        base["run"][0] * 1e3 / least,
        others,
        apart,
    )


COLUMNS = (
    "ms a run",
    "median, most",
    "compile s",
    "speed over base",
    f"runs of {NUM_RUNS} with other bits",
    "values apart",
)


def show(
    tables: Iterable[tuple[str, tuple[str, ...], list[tuple]]], answer: str
) -> None:
    """Print the answer, then each table."""
    from research import cli, runs

    for number, (title, columns, rows) in enumerate(tables):
        cli.console.show(
            runs.Result(
                answer if not number else "",
                (runs.Table(title, columns, tuple(rows)),),
                {},
                {},
            ),
            {},
        )


def summary(found: dict[tuple[int, int], dict[str, Any]]) -> str:
    """Summarise the measurements in sentences."""
    usual = found[USUAL]
    fastest = {
        regime: min(WIDTHS, key=lambda w: usual[f"{regime}/{w}"]["run"][0])
        for regime in REGIMES
    }
    speed = lambda regime, a, b: (
        a[f"{regime}/{BASE}"]["run"][0] / b[f"{regime}/{BASE}"]["run"][0]
    )
    one, two = (
        {r: speed(r, usual, found[key]) for r in REGIMES} for key in ((1, 1), (2, 2))
    )
    loss = {
        r: usual[f"{r}/{BASE}"]["run"][0] / usual[f"{r}/{fastest[r]}"]["run"][0]
        for r in REGIMES
    }
    costs = [
        f"{loss[r]:.2f} times as long as at the best width, {fastest[r]} ({r})"
        for r in REGIMES
    ]
    devices = [f"{two[r]:.2f} ({r})" for r in REGIMES]
    pools = [f"{one[r]:.2f} ({r})" for r in REGIMES]
    compiled = [
        sum(found[key][f"{r}/{BASE}"]["compile"] for r in REGIMES)
        for key in (USUAL, (2, 2))
    ]
    return (
        f"At width {BASE} a run takes {', '.join(costs)}. Two devices are "
        f"{', '.join(devices)} times as fast as one, and compile "
        f"{compiled[1] / compiled[0]:.1f} times as long ({compiled[0]:.1f} s, "
        f"{compiled[1]:.1f} s). A pool of one thread is {', '.join(pools)} times as "
        "fast as one of two."
    )


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few epochs, one round")
    parser.add_argument(
        "--pool",
        type=int,
        help="measure in this process under this pool, and print JSON",
    )
    parser.add_argument("--devices", type=int, default=1, help="with --pool: devices")
    parser.add_argument(
        "--widths", type=int, nargs="+", default=WIDTHS, help="with --pool: widths"
    )
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    options = parse()
    if options.pool is not None:
        print(json.dumps(in_this_process(options)))
        return
    import jax

    found = {
        (pool, devices): in_another_process(pool, devices, options.quick)
        for pool, devices in SETTINGS
    }
    base = {regime: found[USUAL][f"{regime}/{BASE}"] for regime in REGIMES}
    by_width = [
        row((r, w), found[USUAL][f"{r}/{w}"], base[r]) for r in REGIMES for w in WIDTHS
    ]
    by_setting = [
        row((r, *key), found[key][f"{r}/{BASE}"], base[r])
        for r in REGIMES
        for key in SETTINGS
    ]
    where = (
        f"jax {jax.__version__}, Python {platform.python_version()}, "
        f"{platform.machine()}, {os.cpu_count()} cores"
    )
    tables = [
        (
            f"Width, under a pool of two and one device ({where})",
            ("sampler", "width", *COLUMNS),
            by_width,
        ),
        (
            f"Pool and devices, at width {BASE}",
            ("sampler", "pool", "devices", *COLUMNS),
            by_setting,
        ),
    ]
    show(tables, summary(found))


if __name__ == "__main__":
    main()
