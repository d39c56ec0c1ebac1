"""Train on a generated dataset of 8 GB: from a disk with 2 GB of memory, from memory.

python -m benchmarks.larger_than_memory --folder /somewhere/with/room
python -m benchmarks.larger_than_memory --gigabytes 0.1 --folder .

The examples are images of random bytes. Three processes, one after the other, write the
dataset, train from the disk, and train from memory. Each reports its largest resident
memory (ru_maxrss). Training from memory needs twice the size of the dataset, because
JAX copies it; choose --gigabytes accordingly. The trainings report the SHA-256 of all
that they computed, and the examples per second. The dataset is deleted at the end.
Before the training from the disk, the system is asked to forget the files, so that they
are read from the disk. The exit status is 1 if the hashes differ, or if a process other
than the one that trains from memory used more memory than --most.
"""

import argparse
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SIDE, CLASSES, HIDDEN, BATCH = 64, 10, 32, 128
EXAMPLE = SIDE * SIDE * 3 + 4  # Bytes of an image and its class.
PIECE = 1000  # Examples that are generated, and read into memory, together.


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.larger_than_memory",
        description=(__doc__ or "").partition("\n\n")[0],
    )
    parser.add_argument(
        "--gigabytes", type=float, default=8.0, help="size of the dataset (8)"
    )
    parser.add_argument(
        "--most", type=float, default=2.0, help="memory of a process in GB (2)"
    )
    parser.add_argument(
        "--folder", type=Path, required=True, help="folder for the dataset"
    )
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    flags = parser.parse_args(words)
    if not BATCH <= flags.gigabytes * 1e9 / EXAMPLE < math.inf:
        parser.error(
            "--gigabytes must hold at least one batch, "
            f"{BATCH * EXAMPLE / 1e9:.4f} GB; got {flags.gigabytes:g}."
        )
    # The examples are deleted at the end, so they must be this program's own.
    examples = flags.folder / "examples"
    if flags.part is None and examples.exists():
        parser.error(f"{examples} exists. Choose another --folder, or delete it first.")
    return flags


def main(words: list[str] | None = None) -> int:
    """Run the three parts in processes of their own, and print a table."""
    flags = parse(words)
    if flags.part:
        print(json.dumps(PARTS[flags.part](flags) | {"memory": _largest_memory()}))
        return 0
    try:
        found = {part: _in_a_process(part, flags) for part in PARTS}
    finally:
        shutil.rmtree(flags.folder / "examples", ignore_errors=True)
    return report(found, flags.most)


def report(found: dict[str, dict[str, Any]], most: float) -> int:
    """Print a row for each part, and return the exit status."""
    print("| part | examples/s | MB/s | seconds | largest memory, GB | SHA-256 |")
    print("|---|---|---|---|---|---|")
    for part, row in found.items():
        rate = row["examples"] / row["seconds"]
        print(
            f"| {part} | {rate:,.0f} | {rate * EXAMPLE / 1e6:,.0f} | "
            f"{row['seconds']:.1f} | {row['memory'] / 1e9:.2f} | "
            f"{row.get('hash', '')[:16]} |"
        )
    same = found["disk"]["hash"] == found["memory"]["hash"]
    small = all(found[part]["memory"] <= most * 1e9 for part in ("write", "disk"))
    print(
        "The two trainings have "
        f"{'the same bits' if same else 'DIFFERENT BITS'}. Writing and training from "
        f"the disk {'stayed within' if small else 'NEEDED MORE THAN'} {most:g} GB."
    )
    return 0 if same and small else 1


def _in_a_process(part: str, flags: argparse.Namespace) -> dict[str, Any]:
    words = [sys.executable, "-m", "benchmarks.larger_than_memory", "--part", part]
    words += ["--folder", str(flags.folder), "--gigabytes", str(flags.gigabytes)]
    print(f"{part} ...", file=sys.stderr, flush=True)
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def _largest_memory() -> int:
    """Return the largest resident memory of this process so far, in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def write(flags: argparse.Namespace) -> dict[str, Any]:
    """Generate the dataset and write it."""
    from research import records

    began = time.perf_counter()
    n = round(flags.gigabytes * 1e9 / EXAMPLE)
    records.write_records(flags.folder / "examples", generated(n))
    return {"examples": n, "seconds": time.perf_counter() - began}


def generated(n: int) -> Iterator[Any]:
    """Return n images of random bytes with random classes, PIECE at a time."""
    import numpy as np

    from research.types import Batch

    for start in range(0, n, PIECE):
        generator, size = np.random.default_rng(start), min(PIECE, n - start)
        x = generator.integers(0, 256, (size, SIDE, SIDE, 3), np.uint8)
        yield Batch(x, generator.integers(0, CLASSES, size, np.int32))


def from_disk(flags: argparse.Namespace) -> dict[str, Any]:
    """Train on the records."""
    from research import records

    for file in (flags.folder / "examples").iterdir():
        with open(file, "rb") as written:
            os.posix_fadvise(written.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    opened = records.open_records(flags.folder / "examples")
    return trained_on(opened, opened.num_examples)


def from_memory(flags: argparse.Namespace) -> dict[str, Any]:
    """Read all records into memory, and train on the arrays."""
    from research import records

    opened = records.open_records(flags.folder / "examples")
    return trained_on(in_memory(opened), opened.num_examples)


def in_memory(opened: Any) -> Any:
    """Return all examples as one Batch."""
    import numpy as np

    from research.types import Batch

    n = opened.num_examples
    x, y = np.empty((n, SIDE, SIDE, 3), np.uint8), np.empty(n, np.int32)
    for start in range(0, n, PIECE):
        rows = np.arange(start, min(n, start + PIECE))
        x[rows], y[rows] = (piece := opened.read(rows)).x, piece.y
    return Batch(x, y)


def trained_on(dataset: Any, n: int, batch_size: int = BATCH) -> dict[str, Any]:
    """Train for one epoch, and return the hash of the result and the time of steps."""
    import research

    research.backend.configure(x64=True)
    import jax
    import jax.numpy as jnp

    mlp = research.models.mlp((SIDE * SIDE * 3, HIDDEN, CLASSES), dtype=jnp.float32)
    model = mlp._replace(
        apply=lambda params, x, key=None: mlp.apply(
            params, x.reshape(*x.shape[:-3], -1).astype(jnp.float32) / 255 - 0.5
        )
    )
    loss = research.losses.softmax_cross_entropy
    trained = research.descent.train(
        research.objectives.empirical_risk(model, loss),
        research.update_rules.adam(1e-4),
        dataset,
        research.samplers.minibatch(n, batch_size),
        num_epochs=1,
        params=model.init(jax.random.key(0)),
        key=jax.random.key(1),
    )
    leaves = jax.tree.leaves((trained.params, trained.steps))
    return {
        "examples": trained.steps.loss.size * batch_size,
        "seconds": trained.seconds,
        "hash": research.runs.hash_arrays(*leaves),
    }


PARTS = {"write": write, "disk": from_disk, "memory": from_memory}

if __name__ == "__main__":
    sys.exit(main())
