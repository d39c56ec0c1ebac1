"""Define a contender: one way to do a benchmark's job, ours or a peer's."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Contender(NamedTuple):
    """One way to do a job.

    Attributes:
      name: As the table shows it.
      train: () -> what the job asks for: the last parameters of a training, the loss
        of every step of a network, or the values (runs, 1 + marks) of a sweep. All work
        is done when it returns, and it may be called again.
      compile_seconds: Seconds to build it, with its first step, or with its first run
        where it has no shorter call.
      note: How it was set, or "".
    """

    name: str
    train: Callable[[], Any]
    compile_seconds: float
    note: str = ""
