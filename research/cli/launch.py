"""Start the processes of a training, and say how they ended: descent launch."""

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from research import cluster

SECONDS_BETWEEN_LOOKS = 0.1
INTERRUPTED = 130  # Exit status after Ctrl-C.
SECONDS_TO_END = 45.0  # Time that the other processes have after one has failed.

DESCRIPTION = """Start the processes of one training, watch them, and say in one
sentence how they ended. The file calls research.cluster.join(). Under Slurm (srun) or
MPI (mpirun), each task starts one process; otherwise --processes start here."""
EXAMPLES = """
examples:
  descent launch --processes 4 train.py --epochs 10
  srun descent launch train.py --epochs 10
  mpirun -n 4 descent launch train.py --epochs 10
  descent launch --coordinator node1:12345 --processes 2 --process-id 0 train.py
  descent launch --coordinator node1:12345 --processes 2 --process-id 1 train.py

The last two commands run on two hosts, of which node1 is the first."""


def launch(words: Sequence[str]) -> int:
    """Start the processes of a training, wait for them, and return an exit status.

    If a process failed, a line on stderr says how it ended. The other processes then
    have 45 seconds to end. After this time they are killed.

    Args:
      words: Command-line arguments after `launch`.
    Returns:
      The exit status: 0 if all processes succeeded, 130 after Ctrl-C, otherwise 1.
    Raises:
      ValueError: The arguments contradict one another, or a number is out of its range.
      OSError: The file does not exist, or a process of the training cannot be started.
      SystemExit: Status 2 if a flag has a value of the wrong type.
    """
    asked = _parser().parse_args(words)
    # "-" and "-m" mean the same as for python.
    if not asked.file.startswith("-") and not Path(asked.file).exists():
        raise FileNotFoundError(
            f"The file {asked.file!r} does not exist. Pass the Python file of the "
            "training."
        )
    places = _places(asked)
    command = [sys.executable, asked.file, *asked.words]
    try:
        processes = [
            subprocess.Popen(command, env={**os.environ, **variables})
            for variables in places
        ]
    except OSError as error:
        raise OSError(error.errno, f"Cannot start {asked.file}: {error}") from error
    first = int(places[0].get(cluster.PROCESS_ID, os.environ.get("SLURM_PROCID", 0)))
    return _watched(processes, first)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "descent launch",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--processes", type=int, help="number of all processes")
    add("--coordinator", metavar="HOST:PORT", help="address of process 0")
    add("--process-id", type=int, help="number of the only process started here")
    add("file", help="Python file of the training")
    add("words", nargs=argparse.REMAINDER, help="arguments of the file")
    return parser


def _places(asked: argparse.Namespace) -> list[Mapping[str, str]]:
    """Return the environment variables of each process that starts on this machine."""
    _check_numbers(asked)
    if asked.process_id is None and asked.processes is None:
        place, address = cluster._place(asked.coordinator, None, None)
        if address is None:  # Alone, or JAX asks Slurm.
            return [{}]
        return [cluster.variables(address, place)]
    if asked.process_id is not None:
        place, address = cluster._place(
            asked.coordinator, asked.processes, asked.process_id
        )
        return [cluster.variables(address or "", place)]
    address = asked.coordinator or f"localhost:{_free_port()}"
    return [
        cluster.variables(address, cluster.Place(i, asked.processes))
        for i in range(asked.processes)
    ]


def _check_numbers(asked: argparse.Namespace) -> None:
    """Raise ValueError if flags contradict one another. The message names the flags."""
    count, number = asked.processes, asked.process_id
    if count is not None and count < 1:
        raise ValueError(f"--processes must be at least 1; got {count}.")
    if number is None:
        return
    if count is None or asked.coordinator is None:
        missing = "--coordinator HOST:PORT" if count is not None else "--processes N"
        raise ValueError(
            "--process-id also needs --processes and --coordinator, because it starts "
            f"one process of several. Pass {missing}, or leave --process-id out."
        )
    if not 0 <= number < count:
        raise ValueError(
            f"--process-id must lie in 0..{count - 1}, below --processes {count}; got "
            f"{number}."
        )


def _free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("localhost", 0))
        return opened.getsockname()[1]


def _watched(processes: Sequence[subprocess.Popen], first: int) -> int:
    """Wait for the processes. If one fails, the others have some time to end."""
    failed_at, interrupted = None, False
    while any(process.poll() is None for process in processes):
        try:
            time.sleep(SECONDS_BETWEEN_LOOKS)
        except KeyboardInterrupt:  # The terminal has sent it to the processes, too.
            interrupted = True
        if failed_at is None and any(process.poll() for process in processes):
            failed_at = time.monotonic()
        if failed_at is not None and time.monotonic() - failed_at > SECONDS_TO_END:
            for process in processes:
                process.kill()
    statuses = [process.returncode for process in processes]
    for line in filter(None, map(_sentence, range(first, 2**31), statuses)):
        print(line, file=sys.stderr, flush=True)
    if not any(statuses):
        return 0
    by_ctrl_c = {INTERRUPTED, -signal.SIGINT} & set(statuses)
    return INTERRUPTED if interrupted or by_ctrl_c else 1


def _sentence(number: int, status: int) -> str | None:
    """Return how a process failed, or None if it succeeded or Ctrl-C stopped it."""
    if status == -signal.SIGABRT:
        return (
            f"error: process {number} was stopped by JAX, because another process of "
            "the training ended or cannot be reached. Everything saved so far is "
            "intact. Rerun the same command to resume."
        )
    if status in (0, INTERRUPTED, -signal.SIGINT):
        return None
    if status < 0:
        names = {one.value: one.name for one in signal.Signals}
        # A real-time signal, such as 35, has only a description.
        name = names.get(-status) or signal.strsignal(-status)
        return (
            f"error: process {number} was stopped from outside by signal {-status} "
            f"({name}): killed, out of memory, or out of time. Everything saved so far "
            "is intact. Rerun the same command to resume."
        )
    return f"error: process {number} ended with status {status}."
