"""Join the processes of one training, on one machine or on many.

Begin a script with these lines:

    place = research.cluster.join()
    research.backend.configure(devices=4 // place.num_processes, pool=4)

The four CPU devices are then divided equally among the processes. The same script also
runs as a single process, under `descent launch`, under Slurm's `srun` and under
`mpirun`.
"""

import contextlib
import inspect
import os
import sys
import threading
import traceback
import types
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from research.checks import check_count, check_instance, check_text

# Variables that `descent launch` sets for the processes that it starts.
COORDINATOR, NUM_PROCESSES, PROCESS_ID = (
    "DESCENT_COORDINATOR",
    "DESCENT_NUM_PROCESSES",
    "DESCENT_PROCESS_ID",
)
# Variables of Slurm without which JAX does not recognise it.
SLURM = (
    "SLURM_JOB_ID",
    "SLURM_STEP_NODELIST",
    "SLURM_NTASKS",
    "SLURM_PROCID",
    "SLURM_LOCALID",
)
# Variables of MPI's launchers: number of processes, own number, processes of this host.
# Open MPI, and then MPICH, Intel MPI and other launchers that use Hydra.
MPI = (
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    ("PMI_SIZE", "PMI_RANK", "MPI_LOCALNRANKS"),
)
HEARTBEAT = 30  # Seconds after which a silent process counts as lost.
FIRST_PORT, NUM_PORTS = 23_000, 9_000


class Place(NamedTuple):
    """Place of this process among all processes.

    Attributes:
      process_id: Index of this process, from 0. Process 0 coordinates the other
        processes.
      num_processes: Number of processes.
    """

    process_id: int
    num_processes: int


def join(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    seconds: int = 120,
) -> Place:
    """Join the other processes, so that JAX sees the devices of all processes.

    Call this function before JAX computes anything. Without arguments, the function
    reads the environment variables that `descent launch`, Slurm or MPI sets. If there
    are no such variables, this process is alone, and the call changes nothing.

    If there are other processes, an uncaught error after this call ends this process at
    once, without waiting for the others. The other processes then end too.

    Args:
      coordinator: Address HOST:PORT at which the other processes reach process 0. Under
        MPI, this address may be given without num_processes and process_id. None means
        that the address is read from the environment.
      num_processes: Number of all processes. None means that it is read from the
        environment.
      process_id: Index of this process, from 0. None means that it is read from the
        environment.
      seconds: Maximum time to wait for the other processes. If they have not all joined
        by then, this process prints an error and ends with status 1.
    Returns:
      The `Place` of this process.
    Raises:
      ValueError: An argument is malformed, or process_id is not below num_processes. Or
        only one or two of coordinator, num_processes and process_id are given. (Under
        MPI, `coordinator` may be given alone.) Or MPI's processes run on several hosts,
        and `coordinator` is not given. Or `coordinator` differs from the address that
        `descent launch` has set in the environment.
      RuntimeError: There are other processes, and JAX has already started.
    Example:
      >>> join()
      Place(process_id=0, num_processes=1)
    """
    check_count("seconds", seconds)
    place, address = _place(coordinator, num_processes, process_id)
    if place.num_processes == 1:
        return place
    import jax

    options: dict[str, Any] = {
        "initialization_timeout": seconds + 60,  # JAX would abort without a sentence.
        "heartbeat_timeout_seconds": HEARTBEAT,
    }
    known = inspect.signature(jax.distributed.initialize).parameters
    options = {name: value for name, value in options.items() if name in known}
    if address is not None:
        options |= {
            "coordinator_address": address,
            "num_processes": place.num_processes,
            "process_id": place.process_id,
            "cluster_detection_method": "deactivate",
        }
    with _time_limit(seconds, place, address):
        jax.distributed.initialize(**options)
    sys.excepthook = _end_at_once
    return place


def _place(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> tuple[Place, str | None]:
    """Return the place of this process, and the coordinator's address.

    The address is None if JAX finds it without help, or if nothing names other
    processes.
    """
    given = (coordinator, num_processes, process_id)
    if any(value is not None for value in given[1:]):
        return _given_place(coordinator, num_processes, process_id)
    if COORDINATOR in os.environ:
        if coordinator not in (None, os.environ[COORDINATOR]):
            raise ValueError(
                f"coordinator={coordinator!r} contradicts the environment, which has "
                f"{COORDINATOR}={os.environ[COORDINATOR]!r}. Leave coordinator out."
            )
        numbers = [int(os.environ[name]) for name in (NUM_PROCESSES, PROCESS_ID)]
        return _given_place(os.environ[COORDINATOR], *numbers)
    if all(name in os.environ for name in SLURM) and coordinator is None:
        return Place(*_numbers("SLURM_PROCID", "SLURM_NTASKS")), None
    for size, rank, local in MPI:
        if size in os.environ and rank in os.environ:
            place = Place(*_numbers(rank, size))
            return place, coordinator or _address_on_this_host(place, local)
    if coordinator is not None:
        raise ValueError(
            f"coordinator={coordinator!r} also needs num_processes and process_id."
        )
    return Place(0, 1), None


def _numbers(*names: str) -> list[int]:
    return [int(os.environ[name]) for name in names]


def _given_place(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> tuple[Place, str]:
    for name, value in (
        ("coordinator", coordinator),
        ("num_processes", num_processes),
        ("process_id", process_id),
    ):
        if value is None:
            raise ValueError(
                "coordinator, num_processes and process_id belong together; "
                f"{name} is missing. Pass all three, or none of them."
            )
    assert coordinator is not None
    assert num_processes is not None
    assert process_id is not None
    check_text("coordinator", coordinator)
    check_count("num_processes", num_processes)
    check_count("process_id", process_id, least=0)
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ValueError(
            "coordinator must be HOST:PORT, such as node001:12345; got "
            f"coordinator={coordinator!r}."
        )
    if process_id >= num_processes:
        raise ValueError(
            "process_id must lie in 0..num_processes - 1; got "
            f"process_id={process_id}, num_processes={num_processes}."
        )
    return Place(process_id, num_processes), coordinator


def _address_on_this_host(place: Place, local: str) -> str | None:
    """Return an address for MPI's processes, which must all be on this host.

    The processes have the same parent process. The number of the parent process
    determines the port, so all processes use the same port.
    """
    if os.environ.get(local) != str(place.num_processes):
        raise ValueError(
            "MPI started processes on several hosts, so they need the address of "
            "process 0: join(coordinator='HOST:PORT'), or descent launch --coordinator "
            "HOST:PORT FILE. HOST is the host of process 0, and PORT a free port there."
        )
    return f"localhost:{_port_of(os.getppid())}"


def _port_of(number: int) -> int:
    """Return a port for a number, such as the number of a job."""
    return FIRST_PORT + number % NUM_PORTS


def variables(address: str, place: Place) -> Mapping[str, str]:
    """Return environment variables that tell a process its place among all processes.

    `join` reads these variables in that process.

    Args:
      address: Address HOST:PORT of process 0.
      place: The `Place` of the process that gets the variables: its index, and the
        number of all processes.
    Returns:
      Mapping from the name of each variable to its value.
    Raises:
      TypeError: address is not a str, or place is not a Place.
    """
    check_text("address", address)
    check_instance("place", place, Place, "Write Place(process_id=0, num_processes=2).")
    return {
        COORDINATOR: address,
        NUM_PROCESSES: str(place.num_processes),
        PROCESS_ID: str(place.process_id),
    }


@contextlib.contextmanager
def _time_limit(seconds: int, place: Place, address: str | None) -> Iterator[None]:
    """End this process with an error message if the context lasts too long.

    A timer ends the process, because an exception cannot interrupt JAX while JAX waits.
    JAX's own time limit would abort the process without this message.
    """

    def end() -> None:
        at = "" if address is None else f" at {address}"
        print(
            f"error: process {place.process_id} of {place.num_processes} waited "
            f"{seconds} s for the other processes{at}, but not all of them arrived. "
            "Check that every host has started and reaches that address, or wait longer"
            " (cluster.join(seconds=...)).",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _end_at_once(
    kind: type[BaseException],
    error: BaseException,
    frames: types.TracebackType | None,
) -> None:
    """Print an uncaught error and end the process, so that the others notice at once.

    A normal end would wait for the others, which may wait for this process.
    """
    interrupted = issubclass(kind, KeyboardInterrupt)
    expected = (KeyboardInterrupt, ConnectionError)
    if not issubclass(kind, expected) or os.environ.get("DESCENT_TRACEBACK") == "1":
        traceback.print_exception(kind, error, frames)
    words = "stopped by Ctrl-C" if interrupted else " ".join(str(error).split())
    print(f"error: {words}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(130 if interrupted else 1)
