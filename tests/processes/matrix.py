"""The bits of trainings on four devices that processes share in three ways.

python tests/processes/matrix.py                        # half an hour
python tests/processes/matrix.py --model mlp --rule adam

Each training runs as 1 process with 4 devices, 2 with 2 and 4 with 1. Then it is killed
in one of these shapes and resumed in another one. All have one hash.
"""

import argparse
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TOP = HERE.parents[1]
SHAPES = (1, 2, 4)
MODELS, RULES = ("mlp", "gpt"), ("adam", "heavy_ball", "muon", "soap", "lbfgs")
LINE = re.compile(r"process \d+: (\w+), (\d+) calls")


def started(num_processes: int, options: dict[str, Any]) -> subprocess.Popen:
    """Start a training by `descent launch`."""
    path = os.pathsep.join([str(TOP), os.environ.get("PYTHONPATH", "")])
    words = [sys.executable, "-m", "research", "launch", "--processes", num_processes]
    return subprocess.Popen(
        [*map(str, words), str(HERE / "training.py"), json.dumps(options)],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def hashes(process: subprocess.Popen) -> tuple[set[str], int]:
    """Return the hashes that the processes print, and the calls of evaluate in one."""
    out, errors = process.communicate()
    found = LINE.findall(out)
    if process.returncode or not found:
        raise RuntimeError(errors)
    return {digest for digest, _ in found}, int(found[0][1])


def killed(process: subprocess.Popen) -> tuple[list[str], float]:
    """Return the sentences that a killed training prints, and the seconds it took."""
    began = time.monotonic()
    _, errors = process.communicate()
    assert process.returncode == 1, errors
    sentences = [line for line in errors.splitlines() if line.startswith("error: ")]
    return sentences, time.monotonic() - began


def main() -> int:
    """Run the trainings, and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--rule", nargs="+", default=RULES)
    asked = parser.parse_args()
    return 0 if run(asked.model, asked.rule, [False, True]) else 1


def run(models: Sequence[str], rules: Sequence[str], shards: Sequence[bool]) -> bool:
    """Run the trainings; return whether each has one hash and resumes."""
    good = True
    for model, rule, shard in itertools.product(models, rules, shards):
        options = {"model": model, "rule": rule, "shard": shard}
        found: set[str] = set()
        for shape in SHAPES:
            found |= hashes(started(shape, options))[0]
        for before, after in ((4, 1), (1, 2), (2, 4)):
            with tempfile.TemporaryDirectory() as folder:
                own = options | {"folder": folder}
                killed(started(before, own | {"kill": [before - 1, 2]}))
                digests, calls = hashes(started(after, own))
                found |= digests
                good &= calls < 4  # It did not start anew.
        good &= len(found) == 1
        kind = "fully sharded" if shard else "data parallel"
        print(f"{model}, {rule}, {kind}: {' '.join(sorted(found))}", flush=True)
    return good


if __name__ == "__main__":
    sys.exit(main())
