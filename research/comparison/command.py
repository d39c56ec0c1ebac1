"""The words of a command line as arguments of `compare`."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from research.checks import check_callable, check_count, check_sequence, check_text
from research.runs import parse_seeds
from research.tuning.spaces import parse_spaces


def parse_command(
    rules: Sequence[str],
    find: Callable[[str], Any],
    *,
    baseline: str = "",
    spaces: Sequence[str] = (),
    evaluations: Sequence[str] = (),
    batch_size: int = 32,
    seeds: str = "0..19",
    tuning_seeds: str = "1000..1009",
    **terms: Any,
) -> dict[str, Any]:
    """Turn the words of a command line into the arguments of `compare`.

    Args:
      rules: One word a rule: adam, optax.sgd, FILE.py:NAME, or v1=FILE.py:NAME.
      find: word -> the rule of that word, without the name before "=".
      baseline: Name of the rule that the others are compared with; empty: the last.
      spaces: Search spaces, as `parse_spaces` reads them.
      evaluations: Costs of a step, RULE=NUMBER.
      batch_size: Examples in a batch; 0: all of them.
      seeds, tuning_seeds: As `research.runs.parse_seeds` reads them.
      **terms: Other arguments of `make_protocol`; passed on as they are.
    Returns:
      All arguments of `compare` but `workload`, by name.
    Raises:
      ValueError: A word is not written as it must be, or two rules have one name.
    Example:
      >>> parsed = parse_command(["mine=adam", "lion"], str.upper, seeds="0..2", budget=8)
      >>> parsed["rules"], parsed["seeds"], parsed["baseline"], parsed["budget"]
      ({'mine': 'ADAM', 'lion': 'LION'}, (0, 1, 2), None, 8)
    """
    check_callable("find", find, "word")
    check_text("baseline", baseline)
    check_count("batch_size", batch_size, 0)
    return {
        "rules": {name: find(word) for name, word in name_rules(rules).items()},
        "baseline": baseline or None,
        "spaces": parse_spaces(spaces),
        "evaluations": parse_evaluations(evaluations),
        "batch_size": batch_size or None,
        "seeds": parse_seeds(seeds),
        "tuning_seeds": parse_seeds(tuning_seeds),
        **terms,
    }


def name_rules(words: Sequence[str]) -> dict[str, str]:
    """Name each rule of a command line.

    The name is what stands before "=", else what follows the colon. The file's name
    is added where two rules of files would have the same name.

    Args:
      words: One word a rule.
    Returns:
      {name: word without the name}, in the order of the words.
    Raises:
      ValueError: Two rules have one name.
    Example:
      >>> name_rules(["a.py:mine", "b.py:mine", "adam"])
      {'a:mine': 'a.py:mine', 'b:mine': 'b.py:mine', 'adam': 'adam'}
    """
    check_sequence("words", words, "words, one a rule", str)
    split = [word.rpartition("=") for word in words]
    short = [name or word.partition(":")[2] or word for name, _, word in split]
    names = [
        f"{Path(word.partition(':')[0]).stem}:{own}"
        if short.count(own) > 1 and ".py" in word
        else own
        for own, (_, _, word) in zip(short, split, strict=True)
    ]
    if len(set(names)) < len(names):
        raise ValueError(
            "rule: give each rule once, or names as in v1=FILE.py:NAME; got "
            f"{', '.join(words)}."
        )
    return {name: word for name, (_, _, word) in zip(names, split, strict=True)}


def parse_evaluations(words: Sequence[str]) -> dict[str, float]:
    """Read what a step of a rule costs, as RULE=2.

    Args:
      words: One word a rule.
    Returns:
      {rule: gradients of its batch that a step costs}.
    Raises:
      ValueError: A word is not written so.
    Example:
      >>> parse_evaluations(["mine=2"])
      {'mine': 2.0}
    """
    check_sequence("words", words, "words such as mine=2", str)
    costs = {}
    for word in words:
        name, _, number = word.partition("=")
        try:
            costs[name] = float(number)
        except ValueError:
            raise ValueError(
                f"--evaluations wants RULE=NUMBER, as in mine=2; got {word!r}."
            ) from None
    return costs


def digest_files(words: Sequence[str], recorded: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the name and SHA-256 of each file that a rule comes from.

    Args:
      words: One word a rule.
      recorded: The digests of an earlier run; empty: there was none.
    Returns:
      "NAME SHA-256" for each file.
    Raises:
      FileNotFoundError: A file is missing.
      ValueError: A digest is not the recorded one.
    Example:
      >>> digest_files(["adam", "optax.sgd"])
      ()
    """
    check_sequence("words", words, "words, one a rule", str)
    check_sequence("recorded", recorded, "digests", str)
    files = (
        word.rpartition("=")[2].partition(":")[0] for word in words if ".py" in word
    )
    paths = list(dict.fromkeys(files))
    missing = [path for path in paths if not Path(path).is_file()]
    if missing:
        raise FileNotFoundError(
            f"There is no file {missing[0]!r}; give FILE.py:name, the name of a rule in "
            "it."
        )
    digests = tuple(
        f"{Path(path).name} {hashlib.sha256(Path(path).read_bytes()).hexdigest()}"
        for path in paths
    )
    if recorded and tuple(recorded) != digests:
        raise ValueError(
            f"files: {', '.join(paths)} changed since this run was made. Leave --files "
            "out for a new run."
        )
    return digests
