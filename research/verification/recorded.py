"""Trajectories of other implementations, recorded once.

The packages that computed the trajectories are not needed here.
"""

import functools
import importlib.resources
from typing import Any

import jax
import numpy as np

from research.reading import parse_json
from research.verification.problems import PROBLEMS
from research.verification.walks import Walk, paths


def recorded_walks(variant: str) -> dict[str, tuple[float, Walk]]:
    """Return the recorded trajectories of a variant of a rule.

    Args:
      variant: Name "optimizer/variant", as in `recorded.json`.
    Returns:
      Dict from the problem's name to a pair of the learning rate and the Walk. The rate
      is NaN if the rule has no learning rate.
    Raises:
      KeyError: Nothing is recorded under this name.
    Example:
      >>> found = recorded_walks("adam/defaults")
      >>> rate, walk = found["softmax_regression"]
      >>> rate, walk.iterates.shape
      (0.1, (50, 9))
    """
    cases = [case for case in _file()["cases"] if case["variant"] == variant]
    if not cases:
        raise KeyError(
            f"variant must be one of {', '.join(sorted(variants()))}; got {variant!r}."
        )
    return {case["problem"]: (_rate(case), _walk(case)) for case in cases}


def variants() -> set[str]:
    """Return the names of all recorded variants, as "optimizer/variant".

    A variant is an optimizer of another package with certain arguments. The file
    `recorded.json` has the trajectories of each variant on several problems.
    """
    return {case["variant"] for case in _file()["cases"]}


@functools.cache
def _file() -> dict[str, Any]:
    return parse_json(
        importlib.resources.files("research.verification")
        .joinpath("recorded.json")
        .read_bytes()
    )


def _rate(case: dict[str, Any]) -> float:
    return float("nan") if case["learning_rate"] is None else case["learning_rate"]


def _walk(case: dict[str, Any]) -> Walk:
    start = PROBLEMS[case["problem"]].start
    iterates = np.array(case["iterates"])
    first = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(start)])
    return Walk(iterates, np.diff(iterates, axis=0, prepend=first[None]), paths(start))
