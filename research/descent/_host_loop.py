"""The loop on the host around compiled work: advance, save, show, and stop whole."""

import time
from collections.abc import Callable
from typing import TypeVar

from research.types import Checkpoint, Saved

# What took less is not worth a file of its own once it is done.
SECONDS_WORTH_KEEPING = 1.0

Progress = TypeVar("Progress")


def advance_until_done(
    progress: Progress,
    *,
    is_done: Callable[[Progress], bool],
    advance: Callable[[Progress], Progress],
    show: Callable[[Progress], None],
    to_saved: Callable[[Progress], Saved],
    checkpoint: Checkpoint,
) -> Progress:
    """Advance until the work is done, and save on the way what a kill would cost.

    After each advance the progress is saved if a checkpoint is due, then shown. Ctrl-C
    saves the last whole progress and goes on as KeyboardInterrupt. At the end the
    progress is saved if the work took over a second.

    Args:
      progress: Where the work begins, or goes on.
      is_done: Whether a progress is the last.
      advance: A progress -> the next.
      show: Tells whoever looks on.
      to_saved: A progress as a checkpoint holds it.
      checkpoint: Where it is saved.
    Returns:
      The last progress.
    """
    if is_done(progress):
        return progress
    began = time.perf_counter()
    try:
        while not is_done(progress):
            progress = advance(progress)
            if checkpoint.due():
                checkpoint.save(to_saved(progress))
            show(progress)
    except KeyboardInterrupt:
        checkpoint.save(to_saved(progress))
        raise
    if time.perf_counter() - began > SECONDS_WORTH_KEEPING:
        checkpoint.save(to_saved(progress))
    return progress
