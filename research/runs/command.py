"""Write the command line that reproduces a run, and parse seeds."""

import dataclasses
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from research.checks import check_sequence, check_text, shown
from research.files import canonical
from research.sizes import MOST, MOST_SEEDS, check_most


def command_line(experiment: str, config: Any, program: str = "") -> str:
    """Return the command that reproduces a run.

    A field of the config becomes a flag of the command, unless the field has its
    default value.

    Args:
      experiment: Name of the experiment.
      config: Settings of the run: an instance of a dataclass, or a mapping. A mapping
        has no defaults, so all its fields are written. The values are numbers, strings,
        None, booleans, or tuples and lists of such values.
      program: Command that starts the experiment. "" means `python` with the file
        experiments/<experiment>.py.
    Raises:
      TypeError: `config` is neither an instance of a dataclass nor a mapping.
    Example:
      >>> Config = dataclasses.make_dataclass(
      ...     "Config", [("seeds", str, "0..9"), ("learning_rate", float, 0.1)]
      ... )
      >>> print(command_line("toy", Config(learning_rate=0.5)))
      python experiments/toy.py --learning-rate 0.5
    """
    check_text("experiment", experiment)
    check_config(config)
    check_text("program", program)
    words = shlex.split(program or f"python experiments/{experiment}.py")
    for name, value in _chosen(config).items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, tuple | list):
            words += [f"--{flag}", *map(_word, value)]
        elif str(value).startswith("-"):  # Else it might be read as a flag.
            words.append(f"--{flag}={value}")
        else:
            words += [f"--{flag}", str(value)]
    return shlex.join(words)


def check_config(config: Any) -> None:
    """Raise TypeError unless a config is an instance of a dataclass, or a mapping."""
    if not isinstance(config, Mapping) and (
        not dataclasses.is_dataclass(config) or isinstance(config, type)
    ):
        raise TypeError(
            "config must be an instance of a dataclass, or a mapping; got "
            f"config={shown(config)}."
        )


def _word(value: Any) -> str:
    """Return a value as text, without the exponent in a number such as -1e-05.

    argparse would take -1e-05 for a flag, but not -0.00001.
    """
    text = str(value)
    is_float = isinstance(value, float | np.floating) and np.isfinite(value)
    if is_float and text.startswith("-") and "e" in text:
        return np.format_float_positional(value, trim="-")
    return text


def _chosen(config: Any) -> dict[str, Any]:
    if isinstance(config, Mapping):
        return dict(config)
    chosen = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        default = (
            field.default
            if field.default_factory is dataclasses.MISSING
            else field.default_factory()
        )
        if default is dataclasses.MISSING or canonical(value) != canonical(default):
            chosen[field.name] = value
    return chosen


def parse_seeds(text: str) -> tuple[int, ...]:
    """Parse a text of seeds, such as "7", "0,3,5", "0..9" or "0..3,7".

    A range such as "0..9" includes both ends. The result is a tuple of the seeds.

    Raises:
      ValueError: A seed is not an integer in 0..2³¹-1, a range is empty, a seed occurs
        twice, or there are more than a million seeds.
    Example:
      >>> parse_seeds("0..3,7")
      (0, 1, 2, 3, 7)
    """
    check_text("text", text)
    seeds: list[int] = []
    for part in text.split(","):
        check_most(MOST_SEEDS, seeds=len(seeds))
        first, *last = (_seed(end.strip(), text) for end in part.split("..", 1))
        if last and first > last[0]:
            raise ValueError(
                f"seeds: the range {part.strip()!r} is empty. Write {last[0]}..{first}."
            )
        more = last[0] - first + 1 if last else 1
        check_most(MOST_SEEDS, seeds=len(seeds) + more)
        seeds += range(first, last[0] + 1) if last else [first]
    twice = [str(seed) for seed, times in Counter(seeds).items() if times > 1]
    if twice:
        raise ValueError(
            f"seeds: {', '.join(twice)} given more than once in {text!r}; give each "
            "seed once."
        )
    return tuple(seeds)


def seeds_text(seeds: Sequence[int]) -> str:
    """Return the text, such as "0..2,7", that `parse_seeds` turns into these seeds.

    Example:
      >>> seeds_text((0, 1, 2, 7, 9, 8))
      '0..2,7,9,8'
    """
    check_sequence("seeds", seeds, "integers", int)
    groups: list[list[int]] = []
    for seed in seeds:
        if groups and seed == groups[-1][-1] + 1:
            groups[-1].append(seed)
        else:
            groups.append([seed])
    return ",".join(
        str(one[0]) if len(one) == 1 else f"{one[0]}..{one[-1]}" for one in groups
    )


def _seed(word: str, text: str) -> int:
    if not re.fullmatch("[0-9]+", word) or int(word) > MOST:
        raise ValueError(
            f"seeds: {word!r} in {text!r} is not an integer in 0..2³¹-1. Write one "
            "(7), several (0,3,5) or a range (0..9), as text."
        )
    return int(word)
