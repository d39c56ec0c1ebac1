"""Laws of the lock: one process at a time works in a run folder, and whatever ends it
lets go of the folder.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from research import cli, runs
from research.runs import folder

TOP = Path(__file__).parent.parent
# An experiment that goes on when it is told to.
WAITS = '''"""Does it wait?"""

import dataclasses, pathlib, sys, time
import research

EXPECTED = {}


@dataclasses.dataclass(frozen=True)
class Config:
    seed: int = 0


FULL = Config()


def run(config, on_progress, checkpoints):
    checkpoints("begun").save(research.types.Saved({}, 1))
    print("waiting", file=sys.stderr, flush=True)
    while not pathlib.Path("go").exists():
        time.sleep(0.01)
    return research.runs.Result("It waited.", (), {}, {"seed": config.seed})


def draw(result):
    return {}


if __name__ == "__main__":
    research.cli.main(sys.modules[__name__])
'''


@pytest.fixture
def waits(tmp_path):
    """The command of the experiment that waits."""
    (tmp_path / "waits.py").write_text(WAITS)
    return [sys.executable, str(tmp_path / "waits.py")]


@pytest.fixture
def start(waits, tmp_path):
    """() -> a process that has begun, and waits."""
    started = []

    def begin():
        options = {
            "cwd": tmp_path,
            "env": {**os.environ, "PYTHONPATH": str(TOP)},
            "text": True,
        }
        process = subprocess.Popen(
            waits, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
        )
        started.append(process)
        assert process.stderr is not None
        while "waiting" not in (line := process.stderr.readline()):
            assert line, "It ended before it began."
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def once(waits, tmp_path, *words):
    """Runs the command to its end."""
    environment = {**os.environ, "PYTHONPATH": str(TOP)}
    return subprocess.run(
        [*waits, *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=environment,
        timeout=60,
    )


@pytest.mark.thorough(
    "four processes; test_folder_is_held_until_it_is_closed has the law in one"
)
def test_second_process_says_so_and_stops_and_the_first_goes_on(start, waits, tmp_path):
    first = start()
    (path,) = (tmp_path / "results/waits").iterdir()
    before = {
        file.name: file.read_bytes() for file in path.rglob("*") if file.is_file()
    }
    for words in ((), ("--fresh",)):
        second = once(waits, tmp_path, *words)
        assert (second.returncode, second.stdout) == (2, "")
        (line,) = second.stderr.splitlines()
        assert line.startswith("error: Another process is using results/waits/")
        assert "--results" in line
    assert {
        file.name: file.read_bytes() for file in path.rglob("*") if file.is_file()
    } == before
    (tmp_path / "go").touch()
    out, err = first.communicate(timeout=60)
    assert (first.returncode, "\n\nIt waited.\n" in out) == (0, True)
    # It showed no progress, so it was announced after a second.
    assert [line.partition(" ")[0] for line in err.splitlines()] in ([], ["Running"])
    assert runs.load_result(path).numbers == {"seed": 0}
    assert "the report is made from" in once(waits, tmp_path).stderr


@pytest.mark.on_ci("a process that is killed; nothing shorter shows this")
def test_killed_process_leaves_the_folder_free(start, waits, tmp_path):
    start().send_signal(signal.SIGKILL)
    time.sleep(0.1)
    again = start()
    (tmp_path / "go").touch()
    assert "\n\nIt waited.\n" in again.communicate(timeout=60)[0]
    assert again.returncode == 0


# In one process


def open_toy(results, **options):
    return runs.open_run("toy", {"seed": 0}, results, **options)


def test_folder_is_held_until_it_is_closed(tmp_path):
    first = open_toy(tmp_path)
    for fresh in (False, True):
        with pytest.raises(OSError, match=r"Another process is using .*--results"):
            open_toy(tmp_path, fresh=fresh)
    runs.close(first)
    runs.close(open_toy(tmp_path))


def test_other_configs_are_other_locks(tmp_path):
    first = open_toy(tmp_path)
    runs.close(runs.open_run("toy", {"seed": 1}, tmp_path))
    runs.close(first)


def test_finish_lets_go(tmp_path):
    runs.finish(open_toy(tmp_path), runs.Result("", (), {}, {}))
    runs.close(open_toy(tmp_path, fresh=True))


def test_finished_run_is_read_while_another_process_holds_it(tmp_path):
    path = runs.finish(open_toy(tmp_path), runs.Result("", (), {}, {"a": 1})).path
    held = folder._lock(path)
    again = open_toy(tmp_path)
    assert (again.finished, again.lock) == (True, None)
    assert runs.load_result(path).numbers == {"a": 1}
    held.release()


def test_run_that_another_process_finishes_just_then_is_finished(tmp_path, monkeypatch):
    lock = folder._lock

    def late(path):
        monkeypatch.setattr(folder, "_lock", lock)
        runs.finish(open_toy(tmp_path), runs.Result("", (), {}, {"a": 1}))
        return lock(path)

    monkeypatch.setattr(folder, "_lock", late)
    run = open_toy(tmp_path)
    assert (run.finished, run.lock) == (True, None)
    assert runs.load_result(run.path).numbers == {"a": 1}
    runs.close(open_toy(tmp_path, fresh=True))


@pytest.mark.thorough("the other errors", but="KeyboardInterrupt|OSError")
@pytest.mark.parametrize(
    "error", [KeyboardInterrupt, ValueError, OSError, SystemExit, MemoryError]
)
def test_whatever_ends_a_run_lets_go_of_the_folder(tmp_path, monkeypatch, error):
    def run(config, on_progress, checkpoints):
        raise error

    module = type(sys)("toy", "Does it?")
    module.__dict__.update(run=run, __file__="toy.py")
    monkeypatch.chdir(tmp_path)
    Path("toy.py").touch()
    command = cli.flags.Command(
        {"seed": 0}, cli.flags.Options(results=tmp_path, quiet=True)
    )
    with pytest.raises(error) as caught:
        cli.carry_out(module, command)
    runs.close(open_toy(tmp_path))
    del caught


@pytest.mark.thorough("a full disk", but="stop")
@pytest.mark.parametrize("name", ["environment", "write_atomically", "_goes_on"])
@pytest.mark.parametrize(
    "error",
    [KeyboardInterrupt(), OSError(28, "No space left on device")],
    ids=["stop", "full"],
)
def test_run_that_cannot_be_opened_lets_go_of_the_folder(
    tmp_path, monkeypatch, name, error
):
    def fail(*words):
        raise error

    monkeypatch.setattr(folder, name, fail)
    with pytest.raises(type(error)) as caught:
        open_toy(tmp_path)
    monkeypatch.undo()
    runs.close(open_toy(tmp_path))
    del caught
