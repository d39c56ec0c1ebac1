"""Laws of SIGKILL: at whatever moment, on however many devices, a run that is started
again ends with the same bits.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
KILLS = 20
PLACES = (
    "before the first checkpoint",
    "between two checkpoints",
    "in a write",
    "after the result",
)


def kill(*words):
    """The script's exit status and what it prints."""
    command = [sys.executable, str(HERE / "kills.py"), "--keep-compiled", *words]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=HERE, timeout=600
    )
    return done.returncode, done.stdout + done.stderr


def count(said, words):
    """The number in front of the words."""
    (number,) = re.findall(rf"(\d+) +{words}", said)
    return int(number)


@pytest.mark.thorough(
    "twenty kills of processes; make test stops a run at every chunk "
    "(test_blocks.py), and .ci/run stops jobs by Ctrl-C (test_spread.py)"
)
def test_a_run_killed_at_random_moments_ends_with_the_same_bits():
    status, said = kill("--kills", str(KILLS))
    assert status == 0, said
    assert re.match(
        rf"{KILLS} kills in \d+ runs: every run ended with the same bits\.", said
    )
    assert count(said, "went on from a checkpoint") >= KILLS // 4
    assert count(said, "with other devices") >= 1
    assert sum(count(said, f"hit {place}") for place in PLACES) == KILLS
    assert (
        count(said, "hit between two checkpoints") + count(said, "hit in a write")
        >= KILLS // 4
    )
