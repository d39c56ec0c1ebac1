"""Show the progress of a run: a bar on a terminal, or an occasional line in a log."""

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import TextIO

OnProgress = Callable[[float, float, str], None]  # (done, total, message)
SECONDS_BETWEEN_LINES = 60.0
SECONDS_BETWEEN_NEWS = 0.1


@contextlib.contextmanager
def shown(
    stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
) -> Iterator[OnProgress]:
    """Yield a callback that shows the progress and the remaining time.

    A terminal gets a bar. Any other stream gets a plain line at most once a minute, so
    that logs stay short.

    Args:
      stream: Output stream. None means standard error.
      clock: Function () -> seconds, such as `time.monotonic`. Tests pass another clock.
    Yields:
      The callback `on_progress(done, total, message)`. `done` of `total` units of work
      are done, and `message` is a short text.
    Example:
      >>> with shown(sys.stdout) as on_progress:
      ...     on_progress(1, 4, "digits")
       25 %  0 s  digits
    """
    shown_on = stream or sys.stderr
    if shown_on.isatty():
        with _bar(shown_on) as on_progress:
            yield on_progress
    else:
        yield _lines(shown_on, clock)


def duration(seconds: float) -> str:
    """Format a time in its two largest units.

    Args:
      seconds: Time in seconds, not negative.
    Returns:
      Text such as "2 min 5 s".
    Example:
      >>> duration(8), duration(75), duration(7384)
      ('8 s', '1 min 15 s', '2 h 3 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


@contextlib.contextmanager
def _bar(stream: TextIO) -> Iterator[OnProgress]:
    import tqdm

    layout = "{percentage:3.0f} % |{bar:16}| {elapsed}, {remaining} left  {desc}"
    with tqdm.tqdm(
        total=1,
        file=stream,
        bar_format=layout,
        dynamic_ncols=True,
        leave=False,
        smoothing=0.05,
        miniters=0,
    ) as bar:
        shown_at = -math.inf

        def on_progress(done: float, total: float, message: str) -> None:
            nonlocal shown_at
            if shown_at == -math.inf:
                bar.n = bar.initial = (
                    # Work of an earlier process does not count for the speed.
                    done
                )
            bar.total = total
            bar.update(done - bar.n)
            now = time.monotonic()
            new = (
                done == int(done) or now - shown_at > SECONDS_BETWEEN_NEWS
            )  # A new piece is shown immediately.
            bar.set_description_str(message, refresh=new)
            shown_at = now if new else shown_at

        yield on_progress


def _lines(stream: TextIO, clock: Callable[[], float]) -> OnProgress:
    start, last, first = clock(), -math.inf, None

    def on_progress(done: float, total: float, message: str) -> None:
        nonlocal last, first
        now = clock()
        first = (
            done if first is None else first
        )  # Work of an earlier process does not count for the speed.
        if now - last < SECONDS_BETWEEN_LINES:
            return
        last, elapsed = now, now - start
        left = (
            f", {duration(elapsed * (total - done) / (done - first))} left"
            if done > first
            else ""
        )
        print(
            f"{done / total:4.0%}".replace("%", " %"),
            f" {duration(elapsed)}{left}  {message}",
            file=stream,
            flush=True,
        )

    return on_progress
