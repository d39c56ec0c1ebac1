"""Loop on the host around compiled work: advance, save, report, and stop cleanly."""

import time
from collections.abc import Callable
from typing import TypeVar

from research.types import Checkpoint, Saved

# Finished work that took less time than this is not saved.
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
    agreed: Callable[[bool], bool] = lambda own: own,
) -> Progress:
    """Advance a computation until it is done, and save progress on the way.

    After each advance, the progress is saved if a checkpoint is due. Then the progress
    is shown. Ctrl-C saves the last complete progress and re-raises KeyboardInterrupt.
    At the end the progress is saved if this call took over a second.

    Args:
      progress: The initial progress, or restored progress.
      is_done: Function (progress) -> whether the work is done.
      advance: Function (progress) -> next progress.
      show: Function (progress) -> None that reports the progress to the user.
      to_saved: Function (progress) -> `Saved`, the content of a checkpoint.
      checkpoint: Place where the progress is saved.
      agreed: Function (bool) -> bool. All processes must decide alike whether to save
        at the end, but may measure different times. The argument is the decision of
        this process, and the result is the common decision. The default returns its
        argument, which is right for a single process.
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
    if agreed(time.perf_counter() - began > SECONDS_WORTH_KEEPING):
        checkpoint.save(to_saved(progress))
    return progress
