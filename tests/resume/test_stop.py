"""Laws of Ctrl-C: what was done is kept, and the same command goes on to the same
bits.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# No checkpoint is due by the clock, however slow the machine: what is kept is kept
# because of Ctrl-C.
PROGRAM = """
import functools, small, research
seldom = functools.partial(research.runs.checkpoints_in, seconds_between=1e9)
research.runs.checkpoints_in = seldom
research.cli.main(small)
"""
WORDS = [
    "--pieces",
    "mlp",
    "linear",
    "--epochs",
    "3000",
    "--chunk",
    "100",
    "--cells",
    "2",
]


@pytest.fixture
def start():
    """folder -> the small experiment with long trainings, in a process of its own."""
    path = os.pathsep.join(
        [str(HERE.parents[1]), str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    environment = {**os.environ, "PYTHONPATH": path, "MPLBACKEND": "agg"}
    started = []

    def begin(folder):
        folder.mkdir(exist_ok=True)
        options = {"cwd": folder, "env": environment, "text": True}
        command = [sys.executable, "-c", PROGRAM, *WORDS]
        started.append(
            subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
            )
        )
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def found(folder):
    """The bytes of what a run found."""
    (path,) = folder.glob("results/small/*")
    return {name: (path / name).read_bytes() for name in ("result.json", "arrays.npz")}


@pytest.mark.thorough(
    "three processes; test_going_on.py has the law in one, test_cli_display.py Ctrl-C"
)
def test_ctrl_c_keeps_what_was_done_and_the_same_command_goes_on_to_the_same_bits(
    start, tmp_path
):
    alone, stopped = start(tmp_path / "alone"), start(tmp_path / "stopped")
    assert stopped.stderr is not None
    for line in stopped.stderr:
        if "%" in line:  # The first chunk is done.
            stopped.send_signal(signal.SIGINT)
            break
    out, err = stopped.communicate(timeout=120)
    (path,) = (tmp_path / "stopped").glob("results/small/*")
    assert (stopped.returncode, out) == (130, "")
    name = path.relative_to(tmp_path / "stopped")
    assert (
        err.strip()
        == f"Stopped. The progress is saved in {name}; rerun the same command to"
        " resume."
    )
    assert [*path.glob("checkpoints/mlp/**/*.npz")]
    again = start(tmp_path / "stopped")
    _, err = again.communicate(timeout=120)
    assert again.returncode == 0
    assert f"Resuming {name} after " in err
    question, answer, *_ = alone.communicate(timeout=120)[0].split("\n\n")
    assert question.endswith("?")
    assert answer == "2 pieces."
    assert found(tmp_path / "stopped") == found(tmp_path / "alone")
