"""What every interval asks of its level, its resamples and its counts."""

from numbers import Integral, Real
from typing import Any

LEAST_RESAMPLES = 100  # Fewer have no 2.5 % tail to speak of.


def check_level(level: Any) -> None:
    """Refuses a level of confidence that is not a share between 0 and 1.

    Raises:
      TypeError: It is not a number.
      ValueError: It is not between 0 and 1.
    Example:
      >>> check_level(95)
      Traceback (most recent call last):
      ValueError: level must lie between 0 and 1, such as 0.95; got level=95.
    """
    if isinstance(level, bool) or not isinstance(level, Real):
        raise TypeError(
            f"level must be a number between 0 and 1, such as 0.95; got level={level!r}."
        )
    if not 0 < float(level) < 1:  # NaN fails, too.
        raise ValueError(
            f"level must lie between 0 and 1, such as 0.95; got level={level!r}."
        )


def check_whole(name: str, value: Any, least: int, why: str = "") -> None:
    """Refuses what is not an integer of at least `least`.

    Raises:
      ValueError: It is not; the message names the argument, shows its value and says why.
    Example:
      >>> check_whole("trials", 0, 1, ", the defaults")
      Traceback (most recent call last):
      ValueError: trials must be at least 1, the defaults, and an integer; got trials=0.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(
            f"{name} must be at least {least}{why}, and an integer; got {name}={value!r}."
        )


def check_resamples(resamples: Any) -> None:
    """Refuses a number of resamples that makes no interval.

    Raises:
      ValueError: It is less than LEAST_RESAMPLES, or not an integer.
    Example:
      >>> check_resamples(-1)
      Traceback (most recent call last):
      ValueError: resamples must be at least 100, for the ends of an interval, and an integer; got resamples=-1.
    """
    check_whole(
        "resamples", resamples, LEAST_RESAMPLES, ", for the ends of an interval"
    )
