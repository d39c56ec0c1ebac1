"""The command `descent verify`: compare a rule with a reference rule."""

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from research.cli import console, progress
from research.cli import rule_lookup as subjects
from research.cli.parser import Parser

if TYPE_CHECKING:
    from research.verification import Verification

SAME, DIFFERENT = 0, 1
BUILT_IN = "built in"  # Stands for a learning rate in the table, and for None in JSON.
SILENT_SECONDS = 2.0  # A longer comparison shows its progress.

DESCRIPTION = """Compare an update rule with a reference, step by step, on difficult
problems (sparse gradients, gradients of sizes from e^-30 to e^30, zeros, a NaN), and
name the mistake that explains a difference."""
EXAMPLES = """
examples:
  descent verify mine.py:my_adam --against optax.adam
  descent verify mine.py:rule --against adam --learning-rate 0.01 --argument b1=0.8
  descent verify torch.optim.Adam --against adam --json

exit status: 0 if they are the same rule, 1 if not, 2 after bad input"""


def verify(words: Sequence[str]) -> int:
    """Compare two rules, and print the verdict and a table of the test problems.

    Args:
      words: Command-line arguments after `verify`.
    Returns:
      0 if the two rules agree on all test problems, and 1 otherwise.
    Raises:
      ValueError, TypeError, OSError: The input is bad.
        `research.cli.errors_in_one_line` reports the error in one line.
      SystemExit: Status 2 if an argument is missing or a value has the wrong type.
    """
    asked = _parser().parse_args(words)
    from research import backend

    backend.configure(x64=True)
    backend.keep_programs()
    from research.verification import verify_rule
    from research.verification._verify_rule import known_name
    from research.verification.rule_under_test import is_made

    given = subjects.arguments(asked.argument)
    rule, reference = subjects.find(asked.rule), subjects.find(asked.against)
    of_rule = subjects.check_arguments(rule, given, all_taken=False)
    subjects.check_arguments(reference, given, all_taken=True)
    built = [s.name for s in (rule, reference) if is_made(s.rule)]
    _check_rate(asked.learning_rate, built)
    against = _reference(asked.against, reference, given)
    with progress.shown() as show:
        found = verify_rule(
            subjects.constructor(rule, of_rule),
            against,
            learning_rate=asked.learning_rate,
            dtype=asked.dtype,
            on_progress=_after(SILENT_SECONDS, show),
            **given,
        )
    rows = _rows(found, asked, known_name(against))
    if len(built) == 2:
        rows = [(problem, BUILT_IN, *rest) for problem, _, *rest in rows]
    if asked.json:
        print(_json(found, asked, rows), end="")
        return SAME if found.same else DIFFERENT
    _print(found, asked, rows, [name for name in given if name not in of_rule])
    return SAME if found.same else DIFFERENT


def _reference(word: str, named: subjects.Named, given: dict[str, Any]) -> Any:
    """Return the reference in the form that `verify_rule` takes.

    The constructor of a rule with a known formula is returned unchanged, so that
    `verify_rule` can try the known mistakes of this formula.
    """
    from research.verification import FORMULAS
    from research.verification._verify_rule import known_name

    if word in FORMULAS:
        return word
    return named.rule if known_name(named.rule) else subjects.constructor(named, given)


def _parser() -> Parser:
    parser = Parser(
        "descent verify",
        description=DESCRIPTION,
        epilog=EXAMPLES,
    )
    add = parser.add_argument
    of_rule = (
        "a constructor whose first argument is the learning rate, or a rule built by "
        "one; also a class such as torch.optim.Adam, if PyTorch is installed"
    )
    of_reference = (
        "the reference: optax.NAME, optax.contrib.NAME, FILE.py:name, or the name of "
        "a rule of this package (then its formula in fifty digits)"
    )
    of_rate = (
        "learning rate on every problem; by default each problem has its own "
        "(required if the rule is already built)"
    )
    of_arguments = (
        "other arguments, such as b1=0.8, for the reference and, if it accepts them, "
        "for the rule"
    )
    add("rule", metavar="FILE.py:rule", help=of_rule)
    add("--against", required=True, metavar="REFERENCE", help=of_reference)
    add("--learning-rate", type=float, metavar="RATE", help=of_rate)
    add(
        "--argument",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help=of_arguments,
    )
    add(
        "--dtype",
        choices=("float64", "float32"),
        default="float64",
        help="dtype of params and gradients (default: %(default)s)",
    )
    add(
        "--json",
        action="store_true",
        help="print the result as one JSON object, for other programs",
    )
    return parser


def _check_rate(rate: float | None, already_made: list[str]) -> None:
    if rate is None and len(already_made) == 1:
        raise ValueError(
            f"{already_made[0]} is already built with a learning rate. Give the other "
            "rule the same one: --learning-rate RATE."
        )
    if rate is not None and not 0 < rate < math.inf:
        raise ValueError(f"--learning-rate must be a positive number; got {rate}.")


def _after(
    seconds: float, show: progress.OnProgress
) -> Callable[[float, float, str], None]:
    start = time.monotonic()

    def on_progress(done: float, total: float, message: str) -> None:
        if time.monotonic() - start > seconds:
            show(done, total, message)

    return on_progress


def _print(
    found: "Verification",
    asked: argparse.Namespace,
    rows: list[tuple[Any, ...]],
    not_taken: list[str],
) -> None:
    from research import runs
    from research.verification.problems import NUM_STEPS

    versions = ", ".join(f"{name} {at}" for name, at in _versions().items())
    notes = [f"Each problem runs for {NUM_STEPS} steps in {asked.dtype}; {versions}."]
    notes += [
        f"{problem} is skipped: {reason}." for problem, reason in found.reasons.items()
    ]
    notes += [
        f"{asked.rule} has no argument {argument}, so only {asked.against} received it."
        for argument in not_taken
    ]
    table = runs.Table(
        f"{asked.rule} against {asked.against}",
        (
            "problem",
            "learning rate",
            "largest difference",
            "after step",
            "in leaf",
            "differs from step",
        ),
        tuple(rows),
        " ".join(notes),
    )
    console.show(runs.Result(str(found), (table,), {}, {}), {})


def _json(
    found: "Verification", asked: argparse.Namespace, rows: list[tuple[Any, ...]]
) -> str:
    """Return the result as JSON; a number that is not finite is {"$float": "inf"}."""
    from research.files import json_bytes

    columns = ("problem", "learning_rate", "largest", "step", "leaf", "first")
    problems = [
        {key: None if value in ("none", BUILT_IN) else value for key, value in pairs}
        for pairs in (zip(columns, row, strict=True) for row in rows)
    ]
    result = {
        "rule": asked.rule,
        "against": asked.against,
        "same": found.same,
        "cause": found.cause,
        "summary": str(found),
        "problem": found.problem,
        "largest": found.deviation.largest,
        "tolerance": found.tolerance,
        "dtype": asked.dtype,
        "problems": problems,
        "reasons": found.reasons,
        "versions": _versions(),
    }
    return json_bytes(result).decode()


def _rows(
    found: "Verification", asked: argparse.Namespace, name: str | None
) -> list[tuple[Any, ...]]:
    from research.verification import CARDS, PROBLEMS
    from research.verification.card import rate_on

    rate = asked.learning_rate
    return [
        (
            problem,
            rate_on(PROBLEMS[problem], CARDS.get(name or "")) if rate is None else rate,
            deviation.largest,
            deviation.step + 1 if deviation.largest else "none",
            (deviation.leaf or "the only one") if deviation.largest else "none",
            deviation.first + 1 if deviation.first >= 0 else "none",
        )
        for problem, deviation in found.deviations.items()
    ]


def _versions() -> dict[str, str]:
    """Return the versions of the packages that the comparison used."""
    names = ("jax", "optax", "torch")
    return {n: sys.modules[n].__version__ for n in names if n in sys.modules}
