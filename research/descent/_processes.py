"""Communication between the processes that share one training.

Most functions of this module exchange data, so all processes must call them at the
same point of the program. With one process, nothing is exchanged.
"""

import contextlib
import hashlib
import io
import json
import os
import platform
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import jax
import jaxlib
import numpy as np
from jax.experimental import multihost_utils

from research.reading.arrays import read_npz
from research.types import Checkpoint, Saved

PACKAGE = Path(__file__).parents[1]
PIECE = 2**28  # Bytes that are sent at once.
# Words of errors that JAX raises after another process has ended.
LOST = (
    "connection closed",
    "socket closed",
    "connection reset",
    "connection refused",
    "broken pipe",
    "unavailable",
    "heartbeat",
    "gloo",
    "timed out",
)
AFTERWARDS = "Everything saved so far is intact. Rerun the same command to resume."

Value = TypeVar("Value")


def is_leader() -> bool:
    """Return whether this is process 0, which writes files and reports progress."""
    return jax.process_index() == 0


def numbers_of_all(values: list[int]) -> np.ndarray:
    """Return the integers that each process passes, shape (processes, len(values))."""
    if jax.process_count() == 1:
        return np.array([values], np.int32)
    return np.asarray(multihost_utils.process_allgather(np.array(values, np.int32)))


def number_of_leader(value: int) -> int:
    """Return the integer that process 0 passes, in every process."""
    return int(numbers_of_all([value])[0, 0])


def texts_of_all(text: str) -> list[str]:
    """Return the texts of all processes, in the order of the process numbers."""
    if jax.process_count() == 1:
        return [text]
    data = text.encode(errors="replace")
    sizes = numbers_of_all([len(data)])[:, 0]
    row = np.zeros(max(1, *sizes), np.uint8)
    row[: len(data)] = np.frombuffer(data, np.uint8)
    return [
        bytes(row[:size]).decode()
        for row, size in zip(
            np.asarray(multihost_utils.process_allgather(row)), sizes, strict=True
        )
    ]


def bytes_of_leader(data: bytes) -> bytes:
    """Return the bytes that process 0 passes, in every process."""
    if jax.process_count() == 1:
        return data
    # The numbers that processes exchange are int32.
    pieces, rest = numbers_of_all(list(divmod(len(data), PIECE)))[0]
    array = np.zeros(int(pieces) * PIECE + int(rest), np.uint8)
    if is_leader():
        array[:] = np.frombuffer(data, np.uint8)
    for start in range(0, len(array), PIECE):
        piece = array[start : start + PIECE]
        piece[:] = np.asarray(multihost_utils.broadcast_one_to_all(piece))
    return bytes(array)


def by_leader(task: Callable[[], Value]) -> Value | None:
    """Run a task in process 0, and return its result; other processes return None.

    Raises:
      OSError, ValueError: The task raised this error. Every process raises it.
    """
    result, problem = None, None
    if is_leader():
        try:
            result = task()
        except (OSError, ValueError) as error:
            problem = error
    kind = 0 if problem is None else 1 if isinstance(problem, OSError) else 2
    words = texts_of_all(f"{kind}{_text_of(problem)}")[0]
    if problem is not None:
        raise problem
    if words[0] != "0":
        raise (OSError if words[0] == "1" else ValueError)(f"process 0: {words[1:]}")
    return result


def _text_of(problem: Exception | None) -> str:
    """Return the words of an error, without Python's prefix such as "[Errno 28]"."""
    if not isinstance(problem, OSError) or not problem.strerror:
        return str(problem or "")
    file = problem.filename
    return problem.strerror if file is None else f"{problem.strerror}: {file}"


def shared_checkpoint(
    checkpoint: Checkpoint, interrupted: Callable[[], bool]
) -> Checkpoint:
    """Return a checkpoint that process 0 reads and writes for all processes.

    Args:
      checkpoint: The checkpoint of this process.
      interrupted: Function () -> whether Ctrl-C was pressed in this process. If it was
        pressed in one of the processes, the next call of the checkpoint's function
        `due` raises KeyboardInterrupt in all processes.
    """
    if jax.process_count() == 1:
        return checkpoint

    def load() -> Saved | None:
        saved = by_leader(checkpoint.load)
        data = bytes_of_leader(b"" if saved is None else _to_bytes(saved))
        return _from_bytes(data) if data else None

    def due() -> bool:
        own = [is_leader() and checkpoint.due(), interrupted()]
        asked = numbers_of_all([int(value) for value in own])
        if asked[:, 1].any():
            raise KeyboardInterrupt
        return bool(asked[0, 0])

    return Checkpoint(
        load, lambda saved: by_leader(lambda: checkpoint.save(saved)), due
    )


def _to_bytes(saved: Saved) -> bytes:
    buffer = io.BytesIO()
    values = np.frombuffer(json.dumps(saved.values).encode(), np.uint8)
    named: Any = {f"array {name}": array for name, array in saved.arrays.items()}
    np.savez(buffer, values=values, **named)
    return buffer.getvalue()


def _from_bytes(data: bytes) -> Saved:
    arrays = read_npz(data)
    values = json.loads(arrays.pop("values").tobytes())
    return Saved({k.removeprefix("array "): a for k, a in arrays.items()}, values)


def settings() -> dict[str, str]:
    """Return the facts on which the bits of a result depend, as texts by name.

    The facts are versions, settings, and a digest of the code of this package.
    """
    config: Any = jax.config
    flags = re.sub(r"--xla_force_host_\S+", "", os.environ.get("XLA_FLAGS", ""))
    code = hashlib.sha256()
    for file in sorted(PACKAGE.rglob("*.py")):
        name = file.relative_to(PACKAGE).as_posix()
        code.update(f"{name}\n".encode() + file.read_bytes())
    return {
        "version of Python": platform.python_version(),
        "version of JAX": jax.__version__,
        "version of jaxlib": jaxlib.__version__,
        "version of NumPy": np.__version__,
        "XLA_FLAGS": " ".join(flags.split()),
        "NPROC (backend.configure(pool=...))": str(os.environ.get("NPROC")),
        "x64": str(config.jax_enable_x64),
        "matmul precision": str(config.jax_default_matmul_precision),
        "code of this package": code.hexdigest(),
    }


def check_same_everywhere(facts: dict[str, str]) -> None:
    """Raise ValueError if the processes of a training differ in one of the facts.

    Args:
      facts: Facts on which the training of this process depends, by name. They are
        compared with the facts of process 0.
    """
    if jax.process_count() == 1:
        return
    texts = texts_of_all(json.dumps({"host": socket.gethostname(), **facts}))
    first, *others = map(json.loads, texts)
    found = [
        f"process {i} on {other['host']} has another {name} "
        f"({_short(other[name])} instead of {_short(first[name])})"
        for i, other in enumerate(others, 1)
        for name in facts
        if other[name] != first[name]
    ]
    if found:
        raise ValueError(
            f"all processes must run the same training: {'; '.join(found)}. Process 0 "
            f"runs on {first['host']}. Start every process with the same code, "
            "versions and arguments."
        )


def _short(text: str) -> str:
    is_digest = len(text) == 64 and set(text) <= set("0123456789abcdef")
    return f"digest {text[:8]}" if is_digest else text


@contextlib.contextmanager
def interrupts_noted(together: bool) -> Iterator[Callable[[], bool]]:
    """Record the first Ctrl-C in this context; only a second one raises an error.

    The error is a KeyboardInterrupt. The first Ctrl-C raises no error, because the
    other processes would wait for a process that stopped. If `together` is False, the
    process trains alone, and each Ctrl-C raises KeyboardInterrupt as usual. A context
    that is entered outside the main thread does not change the effect of Ctrl-C either.
    The context yields a function () -> whether Ctrl-C was recorded.
    """
    noted: list[bool] = []
    main = threading.current_thread() is threading.main_thread()
    if not together or not main:
        yield lambda: False
        return

    def note(number: int, frame: Any) -> None:
        if noted:
            signal.default_int_handler(number, frame)
        noted.append(True)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(noted)
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def lost_processes_explained() -> Iterator[None]:
    """Raise a ConnectionError instead of JAX's error if another process is lost.

    A process is lost if it has ended or cannot be reached. Only errors in the `with`
    block of this context are replaced.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        words = LOST if isinstance(error, jax.errors.JaxRuntimeError) else ("gloo",)
        if jax.process_count() == 1 or not any(w in str(error).lower() for w in words):
            raise
        raise ConnectionError(
            f"process {jax.process_index()} lost its connection to another process of "
            f"this training, which has ended or cannot be reached. {AFTERWARDS}"
        ) from error
