"""Kills a run at random moments, starts it again until it is finished, and compares
with a run that was left alone.

    python tests/resume/kills.py --kills 200 --seed 0

The moments are of three kinds: anywhere in the time that the run takes; soon after a
  checkpoint has appeared; and at a
file operation (a flush, a rename, a deletion), just before it happens. Each start is a
fork of one process that has imported JAX and not started it, so that it costs no
import.
"""

import os

if __name__ == "__main__":
    os.environ["OPENBLAS_NUM_THREADS"] = (
        "1"  # Before NumPy comes: a process with threads must not fork.
    )

import argparse
import collections
import importlib
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

import small

from research import cli, descent, runs, workloads

IMPORTED = (cli, descent, runs, workloads)
environment = importlib.import_module("research.runs._environment")
CODE = environment.code_digest()
OPERATIONS = ("fsync", "replace", "unlink", "rmdir")
MOMENTS = ("at any time", "soon after a checkpoint", "at a file operation")
PLACES = (
    "before the first checkpoint",
    "between two checkpoints",
    "in a write",
    "after the result",
)
CONFIG = small.Config()


class Failure(Exception):
    """Something that a kill must not lead to."""


def start(results, log, devices=1, fatal_operation=None, programs=None):
    """Starts the run in a process of its own; it kills itself at the fatal file
    operation, counted from 1.
    """
    with warnings.catch_warnings():
        warnings.simplefilter(
            "error"
        )  # Python and JAX warn where the process has threads.
        child = os.fork()
    if child:
        return child
    status = 1
    try:
        opened = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, 1)
        os.dup2(opened, 2)
        warnings.filterwarnings("error", message=".*damaged")  # A kill damages nothing.
        vars(environment)["code_digest"] = lambda files: (
            CODE
        )  # What was imported, whoever edits a file meanwhile.
        small.save_at_every_chance()
        if programs:
            _keep_compiled(programs)
        if fatal_operation:
            _die_at(fatal_operation)
        small.carry_out(CONFIG, results, quiet=False, devices=devices)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _keep_compiled(folder):
    import jax

    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _die_at(number):
    """A negative number counts from the moment when the first file of the result is
    there.
    """
    done, counting = 0, number > 0

    def fatal(operation):
        def perform(*words, **options):
            nonlocal done, counting
            done += counting
            if done == abs(number):
                os.kill(os.getpid(), signal.SIGKILL)
            counting = counting or str(words[-1]).endswith("arrays.npz")
            return operation(*words, **options)

        return perform

    for name in OPERATIONS:
        setattr(os, name, fatal(getattr(os, name)))


def watch(child, log, until):
    """Waits until the process ends, and kills it at the moment `until` says; whether it
    was killed.
    """
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if not ended and until():
            os.kill(child, signal.SIGKILL)
            ended, status = os.waitpid(child, 0)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            if code not in (0, -signal.SIGKILL):
                raise Failure(f"A start ended with status {code}:\n{log.read_text()}")
            return code != 0
        time.sleep(0.001)


def kill_once(folder, dice, seconds, programs):
    """Starts the run of a folder and kills it at a random moment; the moment, whether
    it came, devices and the log.
    """
    results, log = folder / "results", folder / "log"
    moment, devices, operation = dice.choice(MOMENTS), dice.choice((1, 1, 2)), None
    if moment == "at any time":
        end = time.monotonic() + dice.uniform(0, seconds)
        until = lambda: time.monotonic() > end
    elif moment == "soon after a checkpoint":
        before, delay, seen = saves(results), dice.expovariate(10 / seconds), []

        def until():
            if not seen and saves(results) != before:
                seen.append(time.monotonic() + delay)
            return bool(seen) and time.monotonic() > seen[0]
    else:
        operation, until = (
            dice.choice((dice.randint(1, 500), -dice.randint(1, 20))),
            lambda: False,
        )
    killed = watch(start(results, log, devices, operation, programs), log, until)
    return moment, killed, devices, log.read_text()


def saves(results):
    """The checkpoints that there are."""
    return {*results.glob("small/*/checkpoints/**/*.json")}


def place(results):
    """Where a run that was just killed has been hit."""
    manifests = [*results.glob("small/*/manifest.json")]
    if manifests and runs.read_manifest(manifests[0].parent)["status"] == "finished":
        return "after the result"
    if any(results.rglob("*.partial")):
        return "in a write"
    return (
        "between two checkpoints" if saves(results) else "before the first checkpoint"
    )


def found(results):
    """The bytes of what a finished run found; that they are whole is checked by its
    digests.
    """
    (path,) = results.glob("small/*")
    runs.load_result(path)
    return {name: (path / name).read_bytes() for name in ("result.json", "arrays.npz")}


def kill_until_finished(folder, dice, seconds, kills, counts, programs):
    """One run, killed until it is finished by itself or `kills` are done; counts what
    happened, returns the kills.
    """
    results, done, last_devices = folder / "results", 0, None
    while True:
        kept = bool(saves(results)) and place(results) != "after the result"
        if done < kills:
            moment, killed, devices, log = kill_once(folder, dice, seconds, programs)
        else:
            moment, killed, devices, log = None, *leave_alone(folder, 1, programs)
        went_on = "Resuming" in log
        counts["starts"] += 1
        counts["went on"] += went_on
        counts["went on, other devices"] += went_on and devices != last_devices
        if kept and not went_on and "Running in" in log:
            raise Failure(
                "There were checkpoints, but the run started from the "
                f"beginning:\n{log}"
            )
        if not killed:
            return done
        done, last_devices = done + 1, devices
        counts[moment] += 1
        counts[place(results)] += 1


def leave_alone(folder, devices, programs):
    """Starts the run of a folder and waits for its end; as `kill_once`."""
    log = folder / "log"
    killed = watch(
        start(folder / "results", log, devices, programs=programs), log, lambda: False
    )
    return killed, devices, log.read_text()


def kill_many(kills, seed, folder, programs=None):
    """Kills runs until there are enough kills; the number of runs, and what happened
    how often.
    """
    dice, counts, number, done = random.Random(seed), collections.Counter(), 0, 0
    for devices in (2, 1, 1):  # The last one is timed, when programs are there already.
        began, own = time.monotonic(), Path(tempfile.mkdtemp(dir=folder))
        leave_alone(own, devices, programs)
        seconds, expected = time.monotonic() - began, found(own / "results")
    while done < kills:
        number += 1
        own = folder / str(number)
        own.mkdir()
        done += kill_until_finished(own, dice, seconds, kills - done, counts, programs)
        if found(own / "results") != expected:
            raise Failure(f"Run {number} ended with other bits; see {own}.")
        shutil.rmtree(own)
    return number, counts


def main():
    """Kills, and says what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20, help="how many (20)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (0)")
    parser.add_argument(
        "--keep-compiled",
        action="store_true",
        help="compile once: quicker, and less is tested",
    )
    options = parser.parse_args()
    folder, began = Path(tempfile.mkdtemp()), time.monotonic()
    try:
        programs = folder / "programs" if options.keep_compiled else None
        number, counts = kill_many(options.kills, options.seed, folder, programs)
    except Failure as failure:
        print(f"Not every run survived (seed {options.seed}). {failure}")
        return 1
    shutil.rmtree(folder)
    print(
        f"{options.kills} kills in {number} runs: every run ended with the same bits."
    )
    print(f"\n{counts['starts']} starts, {time.monotonic() - began:.0f} s")
    print(
        f"{counts['went on']} went on from a checkpoint, "
        f"{counts['went on, other devices']} with other devices"
    )
    for name in (*MOMENTS, *PLACES):
        print(
            f"{counts[name]:5}  killed {name}"
            if name in MOMENTS
            else f"{counts[name]:5}  hit {name}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
