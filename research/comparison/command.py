"""Parse a command line into the arguments of `compare`."""

import ast
import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from research.checks import check_callable, check_count, check_sequence, check_text
from research.runs import parse_seeds
from research.tuning.spaces import parse_spaces

# Functions that import or run a module or a file that an argument names.
IMPORTERS = {
    "import_module",
    "__import__",
    "spec_from_file_location",
    "SourceFileLoader",
    "run_module",
    "run_path",
}


def parse_command(
    rules: Sequence[str],
    find: Callable[[str], Any],
    *,
    baseline: str = "",
    spaces: Sequence[str] = (),
    evaluations: Sequence[str] = (),
    batch_size: int = 32,
    seeds: str = "0..19",
    tuning_seeds: str = "1000..1179",
    **terms: Any,
) -> dict[str, Any]:
    """Turn the arguments of a command line into the arguments of `compare`.

    A rule is an update rule (an optimiser), such as adam. `research.comparison.compare`
    compares such rules.

    Args:
      rules: One text for each rule, such as adam, optax.sgd or FILE.py:NAME. The text
        may start with a name of your own and "=", as in v1=FILE.py:NAME.
      find: Function that takes such a text, without "v1=", and returns the rule.
      baseline: Name of the rule with which the others are compared. An empty text means
        the last rule, and is returned as None.
      spaces: Search spaces of hyper-parameters, in the syntax of `parse_spaces`.
      evaluations: Texts RULE=NUMBER, such as mine=2. NUMBER is the cost of one step of
        the rule: how often the step evaluates the objective on a batch, as for
        `compare`.
      batch_size: Number of examples in a batch. 0 means all examples, and is returned
        as None.
      seeds, tuning_seeds: Seeds, in the syntax of `research.runs.parse_seeds`.
      **terms: Further arguments of `compare`, returned unchanged.
    Returns:
      All arguments of `compare` except `workload`, by name.
    Raises:
      ValueError: A text has the wrong syntax, or two rules have the same name.
      TypeError: An argument has the wrong type, such as one text in place of a list.
    Example:
      >>> parsed = parse_command(
      ...     ["mine=adam", "lion"], str.upper, seeds="0..2", budget=8
      ... )
      >>> parsed["rules"], parsed["seeds"], parsed["baseline"], parsed["budget"]
      ({'mine': 'ADAM', 'lion': 'LION'}, (0, 1, 2), None, 8)
    """
    check_sequence("rules", rules, "texts such as v1=FILE.py:NAME", str)
    check_callable("find", find, "word")
    check_text("baseline", baseline)
    check_sequence("spaces", spaces, "texts such as mine.rate=1e-4..10", str)
    check_sequence("evaluations", evaluations, "texts such as mine=2", str)
    check_text("seeds", seeds)
    check_text("tuning_seeds", tuning_seeds)
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
    """Choose a name for each rule of a command line.

    A rule is a text such as adam, a.py:mine or v1=a.py:mine. Its name is

    - the text before "=", if there is a "=",
    - otherwise the text after the colon, if there is a colon,
    - otherwise the whole text.

    If several rules then have the same name, the rules among them that are defined in a
    file get a prefix, such as "a:" for the file a.py.

    Args:
      words: One text for each rule, such as v1=FILE.py:NAME.
    Returns:
      A dict from the name of each rule to its text, in the order of `words`. A leading
      "v1=" is removed from the text.
    Raises:
      ValueError: Two rules have the same name, even with the prefixes.
    Example:
      >>> name_rules(["a.py:mine", "b.py:mine", "adam"])
      {'a:mine': 'a.py:mine', 'b:mine': 'b.py:mine', 'adam': 'adam'}
    """
    check_sequence("words", words, "words, one for each rule", str)
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
            "rule: give each rule once, or give it a name, as in v1=FILE.py:NAME; got "
            f"{', '.join(words)}."
        )
    return {name: word for name, (_, _, word) in zip(names, split, strict=True)}


def parse_evaluations(words: Sequence[str]) -> dict[str, float]:
    """Parse the cost of a step of each rule, written RULE=NUMBER.

    Args:
      words: One text for each rule, such as mine=2.
    Returns:
      {rule: cost of one step}, for the argument `evaluations` of `compare`. The cost is
      how often a step evaluates the objective on a batch. The docstring of `compare`
      says what counts as an evaluation.
    Raises:
      ValueError: A text has the wrong syntax, or two texts name the same rule.
    Example:
      >>> parse_evaluations(["mine=2"])
      {'mine': 2.0}
    """
    check_sequence("words", words, "words such as mine=2", str)
    costs = {}
    for word in words:
        name, _, number = word.partition("=")
        try:
            cost = float(number)
        except ValueError:
            cost = None
        if not name or cost is None:
            raise ValueError(
                f"--evaluations must be RULE=NUMBER, such as mine=2; got {word!r}."
            )
        if name in costs:
            raise ValueError(
                f"--evaluations must name each rule once; got {name!r} twice."
            )
        costs[name] = cost
    return costs


def digest_files(words: Sequence[str], recorded: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the name and SHA-256 digest of each file that defines a rule.

    A rule such as FILE.py:NAME is defined in the file FILE.py. Other rules, such as
    adam, have no digest.

    The modules that FILE.py imports from its own folder are digested, too. To find
    these modules, the files are parsed, but not executed. A module is found in two
    cases:

    - An import statement names it.
    - Its name or its path is written as a string in a call such as
      importlib.import_module("helper").

    A module is not found in these cases:

    - Its name is computed only when the file runs.
    - The call has a relative name, or a path that is joined from several strings.
    - The file calls the importing function by another name.

    Args:
      words: One text for each rule, such as adam or FILE.py:NAME. The text may start
        with a name of your own and "=", as in v1=FILE.py:NAME.
      recorded: Result of this function in an earlier run, to be compared with the new
        result. Empty if there is no earlier run.
    Returns:
      One text for each file: its name, a space, and its SHA-256 digest. The name of a
      file that defines a rule has no folders. The name of an imported file is its path
      relative to the folder of the file that defines the rule.
    Raises:
      FileNotFoundError: A file is missing.
      ValueError: `recorded` is not empty and differs from the result.
    Example:
      >>> digest_files(["adam", "optax.sgd"])
      ()
    """
    check_sequence("words", words, "words, one for each rule", str)
    check_sequence("recorded", recorded, "digests", str)
    rules = (word.rpartition("=")[2] for word in words)
    files = (rule.partition(":")[0] for rule in rules if ".py" in rule)
    paths = [Path(file) for file in dict.fromkeys(files)]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"The file {str(missing[0])!r} does not exist. Pass FILE.py:name, where "
            "name is a rule in the file."
        )
    digests = digests_of(paths)
    if recorded and tuple(recorded) != digests:
        changed = [one for one in digests if one not in recorded] or digests
        names = [one.rpartition(" ")[0] for one in changed]
        raise ValueError(
            f"files: {', '.join(names)} changed after this run. "
            "Leave --files out to start a new run."
        )
    return digests


def digests_of(paths: Sequence[Path]) -> tuple[str, ...]:
    """Return the names and digests of files, and of the files that these import.

    `digest_files` describes the form of the texts. The files must exist.
    """
    found = {path.resolve(): path.name for path in paths}
    for path in list(found):
        for file in imported_files(path):
            found.setdefault(file, file.relative_to(path.parent).as_posix())
    return tuple(
        f"{name} {hashlib.sha256(file.read_bytes()).hexdigest()}"
        for file, name in found.items()
    )


def imported_files(path: Path) -> tuple[Path, ...]:
    """Return the files that a Python file imports from its own folder.

    Files that an imported file imports are included. The files are parsed, not run.
    Modules of Python and of this package are left out. The paths are absolute.
    """
    found: dict[Path, None] = {}
    new = [path.resolve()]
    folder = new[0].parent
    while new:
        file = new.pop()
        for other in _imports(file, folder):
            if other != path.resolve() and other not in found:
                found[other] = None
                new.append(other)
    return tuple(sorted(found))


def _imports(file: Path, folder: Path) -> Iterator[Path]:
    """Yield the files in `folder` that the Python file `file` imports."""
    nodes: list[ast.AST] = []
    # A file that Python cannot parse cannot be imported either.
    with contextlib.suppress(SyntaxError, ValueError, RecursionError):
        nodes = list(ast.walk(ast.parse(file.read_bytes())))
    for node in nodes:
        names, start = [], folder
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            inside = node.level <= len(file.relative_to(folder).parts)
            start = file.parents[node.level - 1] if inside else folder
            module = node.module or ""
            names = [f"{module}.{alias.name}" for alias in node.names if inside]
        elif isinstance(node, ast.Call) and _called(node) in IMPORTERS:
            texts = [*_texts(node)]
            yield from _python_files(texts, file.parent, folder)
            names = [t for t in texts if all(map(str.isidentifier, t.split(".")))]
        for name in names:
            if start != folder or name.partition(".")[0] != "research":
                yield from _files_of(name, start)


def _called(call: ast.Call) -> str:
    """Return the last part of the name of a function that is called."""
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def _texts(call: ast.Call) -> Iterator[str]:
    """Yield the texts that are written in the arguments of a call."""
    for node in ast.walk(call):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _python_files(texts: Sequence[str], place: Path, folder: Path) -> Iterator[Path]:
    """Yield the .py files in `folder` whose paths from `place` are in `texts`."""
    for text in texts:
        path = Path(os.path.normpath(place / text))
        is_inside = text.endswith(".py") and path.is_relative_to(folder)
        if is_inside and os.path.isfile(path):  # False, too, for a text with \0.
            yield path


def _files_of(name: str, folder: Path) -> Iterator[Path]:
    """Yield the files in a folder that an import of a dotted name executes."""
    parts = list(filter(None, name.split(".")))
    for k in range(1, len(parts) + 1):
        place = folder.joinpath(*parts[:k])
        for file in (place.with_name(f"{parts[k - 1]}.py"), place / "__init__.py"):
            if file.is_file():
                yield file
