"""Redraw a study of another person from its numbers, and find the files of its rules.

Nothing that the study contains is executed.
"""

import hashlib
import itertools
import math
import re
import reprlib
import sys
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from research import cli

if TYPE_CHECKING:
    from research import runs

MOST_CELLS = 1_000  # A study with more pairs of rule and workload gets no pictures.
LONGEST = 2_000  # Characters of a text that is printed.
SOURCES = "sources"
NAMES = ("workload", "network", "rule")  # Columns that name a row of a study's table.
ROUNDED = 1e-9  # Relative difference of two equal numbers of a table.


class NotHereError(ValueError):
    """Raised if a study cannot be trained with what is on this machine.

    There are two possible reasons. Either a rule of the study comes from a file that
    was not given, or only a call in Python can repeat the study. The second reason
    holds if the study used a workload that was given as an object, or a level of the
    confidence intervals other than 0.95. The message names the rule or shows the call.
    """


class Retold(NamedTuple):
    """The answer and the tables of a study, made again from its numbers.

    Attributes:
      result: The result of the study with the answer and the tables that its numbers
        give. If they cannot be made from the numbers, the result has those of the file.
      contradictions: Sentences that say what in the file does not follow from its
        numbers.
      remarks: Sentences about a study that was made with other code. They say that the
        answer in the file has other words, or that the answer and the tables cannot be
        made from the numbers. Neither counts as a contradiction.
    """

    result: "runs.Result"
    contradictions: tuple[str, ...]
    remarks: tuple[str, ...]


def retell(experiment: ModuleType, folder: Path) -> Retold:
    """Make the answer and the tables of a study again, and compare them with the file.

    If the study was made with the code of this version, every text must be the same. If
    it was made with other code, only the numbers and the verdicts must be the same, in
    tables with the same title and columns with the same heading.

    Args:
      experiment: Module of the study's experiment.
      folder: Run folder of the study.
    """
    from research import runs

    environment = runs.read_manifest(folder)["environment"]
    stored = runs.load_result(folder)
    files = [Path(experiment.__file__ or "")]
    own = environment.get("code") in (runs.code_digest(files), runs.code_digest())
    try:
        made = _retold(stored)
        wrong = [*_unfitting(stored.numbers), *_wrong_cells(stored.tables, made.tables)]
    except Exception as error:  # The numbers of a stranger may be anything.
        remark = (
            "The answer and the tables cannot be made from the numbers of the file "
            f"({type(error).__name__}: {_cut(error)}). They are those of the file."
        )
        return Retold(stored, (remark,) * own, (remark,) * (not own))
    if own and not wrong and repr(stored.tables) != repr(made.tables):
        wrong = ["The tables of the file are not those that its numbers give."]
    if stored.answer == made.answer:
        return Retold(made, tuple(wrong), ())
    versions = environment.get("versions")
    version = versions.get("descent-jax") if isinstance(versions, dict) else None
    by = "" if own else f" (made with other code, of version {printable(version)})"
    remark = f'The answer in the file reads differently{by}: "{_cut(stored.answer)}"'
    if own:
        return Retold(made, (remark, *wrong), ())
    return Retold(made, tuple(wrong), (remark,))


def _unfitting(numbers: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence if an estimate or a verdict does not fit its interval."""
    from research.comparison.archive import check_verdicts

    try:
        check_verdicts(numbers)
    except ValueError as error:
        yield str(error)


def _retold(result: "runs.Result") -> "runs.Result":
    """Return a result with the answer and the tables that its numbers give."""
    from research.comparison import network_tables, tables
    from research.runs.result import read_result, result_bytes

    if "network_study" in result.numbers:
        answer = network_tables.answer(result.numbers)
        made = network_tables.tables(result.numbers)
    else:
        answer, made = (
            tables.answer(result.numbers),
            tables.study_tables(result.numbers),
        )
    said = result._replace(answer=answer, tables=made, arrays={}, models={})
    # As they would be read from a file.
    again = read_result(*result_bytes(said))
    return result._replace(answer=again.answer, tables=again.tables)


def _wrong_cells(
    stored: "Sequence[runs.Table]", made: "Sequence[runs.Table]"
) -> Iterator[str]:
    """Yield a sentence for the first wrong number or verdict of each table.

    Tables are compared if they have the same title, and entries if they have the same
    heading and belong to the same rule on the same workload.
    """
    by_title = {table.title: _rows(table) for table in stored}
    for table in made:
        here = _rows(table)
        there = by_title.get(table.title, here)
        wrong = (
            f"The table {table.title!r} of the file has {_cut(row[column])} as "
            f"{column!r} of {_cut(' on '.join(reversed(names)))}, and its numbers give "
            f"{_cut(now)}."
            for names, entries in here.items()
            for row in [there.get(names, {})]
            for column, now in entries.items()
            if column in row and _is_other(column, row[column], now)
        )
        yield from itertools.islice(wrong, 1)


def _rows(table: "runs.Table") -> dict[tuple[str, ...], dict[str, Any]]:
    """Return a dict from the (workload, rule) of a row to its entries by heading."""
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    return {tuple(str(row[name]) for name in NAMES if name in row): row for row in rows}


def _is_other(column: str, was: Any, now: Any) -> bool:
    """Return whether two entries of a table are different numbers or verdicts."""
    if column == "verdict":
        return was != now
    if not all(isinstance(one, float | int) for one in (was, now)):
        return False
    both_nan = math.isnan(was) and math.isnan(now)
    return not both_nan and not math.isclose(was, now, rel_tol=ROUNDED)


def _cut(text: Any) -> str:
    """Return a value from another person as a short text that is safe to print."""
    return printable(textwrap.shorten(str(text), LONGEST // 4, placeholder=" ..."))


def redraw(
    experiment: ModuleType, folder: Path, result: "runs.Result | None" = None
) -> Path:
    """Draw the pictures of a study from a .zip file, and write its report.

    The source code of the rules is written to the folder `sources` in the run folder.
    If the numbers of the study do not allow the pictures to be drawn, a warning is
    printed, and the report has only the tables.

    Args:
      experiment: Module of the study's experiment.
      folder: Run folder to which `research.runs.archive.unpack` unpacked the .zip file.
      result: Result that the report shows, from `retell`. None means the result in the
        folder.
    Returns:
      Path of the report.
    """
    from research import comparison, report, runs

    result = runs.load_result(folder) if result is None else result
    sources = report.rule_sources(result.numbers)
    names = _file_names([of_rules for of_rules, _ in sources])
    for name, (_, text) in zip(names, sources, strict=True):
        (folder / SOURCES).mkdir(exist_ok=True)
        if text is not None:
            data = text.encode(errors="surrogatepass")
            runs.write_atomically(folder / SOURCES / f"{name}.py", data)
    try:
        comparison.read_study(folder)
        lists = [one for one in result.numbers.values() if isinstance(one, list)]
        if max(map(len, lists)) > MOST_CELLS:
            raise ValueError(
                f"a list in the numbers has more than {MOST_CELLS:,} entries"
            )
        with warnings.catch_warnings(action="ignore"):
            return cli.write_pictures(experiment, folder, result)["report"]
    except Exception as error:  # The numbers of a stranger may be anything.
        print(
            f"warning: the pictures of {folder} cannot be drawn "
            f"({type(error).__name__}: {printable(str(error))})",
            file=sys.stderr,
        )
        question = experiment.__doc__ or ""
        return report.write_report(folder, [], question=question, result=result)


def _file_names(names: Sequence[str]) -> list[str]:
    """Return a different file name, without suffix, for the rules of each source.

    Only letters, digits and _ are kept. If two file names would then be equal, also on
    a disk that ignores case, the later one ends with a number.
    """
    found: list[str] = []
    for number, own in enumerate(names, 1):
        name = re.sub(r"[^A-Za-z0-9_]+", "_", own)[:60] or "rule"
        taken = {one.lower() for one in found}
        while name.lower() in taken:
            name = f"{name}_{number}"
        found.append(name)
    return found


def with_files(
    config: Mapping[str, Any], given: Sequence[str], folder: Path, *, trusted: bool
) -> dict[str, Any]:
    """Find the files of a study's rules, and return two fields for the study's config.

    The field `rule` names each rule. If a rule comes from a file, the path of this file
    on this machine follows the name. The field `files` has the name and the SHA-256
    digest of each file.

    Args:
      config: Config of the study.
      given: Files of rules on this machine, each written FILE.py, FILE.py:NAME or
        RULE=FILE.py:NAME, where RULE is the name in the study.
      folder: Run folder of the study. Error messages refer to its folder `sources`.
      trusted: True if the config comes from the user, not from a .zip file. If False, a
        file that the config names is used only if it lies in the current folder and has
        the digest that the study recorded.
    Returns:
      A dict with the fields `rule` and `files`. The dict is empty if the config names
      no rules.
    Raises:
      NotHereError: The file of a rule was not given, and the config names no file that
        can be used. Also if no command can repeat the study, only a call in Python:
        its workload was given as an object, or the level of its confidence intervals is
        not 0.95.
      ValueError: A text of `given` is malformed or names no rule of the study, or the
        digest of a file differs from the one that the study recorded.
      FileNotFoundError: A file does not exist.
    """
    from research import comparison

    if "in_python" in config:
        raise NotHereError(
            "the study used a workload that is not one of the named ones, a Contender, "
            "or a level other than 0.95. Only Python can do this. Its call was "
            f"{printable(config['in_python'])}."
        )
    if "rule" not in config:
        return {}
    words = _words(config)
    files = list(map(str, config.get("files", ())))
    recorded = [one.rpartition(" ")[2] for one in files]
    needed = {name: word for name, word in words.items() if not _is_known(word)}
    found = _assigned(given, needed)
    for name, word in needed.items():
        if name not in found and _is_here(word, recorded, trusted):
            found[name] = word
    missing = [name for name in needed if name not in found]
    if missing:
        name = missing[0]
        raise NotHereError(
            f"the rule {printable(name)} comes from a file that was not given. Read "
            f"its source ({folder / SOURCES}, or the report), and pass --rule "
            f"{printable(name)}=FILE.py:NAME."
        )
    for name, word in found.items():
        _check_digest(name, word, needed[name], recorded, folder)
        _check_imported(word, files)
    words |= found
    rule = [name if word == name else f"{name}={word}" for name, word in words.items()]
    return {"rule": rule, "files": list(comparison.digest_files(rule))}


def without_origin(result: "runs.Result") -> "runs.Result":
    """Return a result without the source texts of its rules.

    Two results without these texts can be compared, even if the rules came from
    different files.
    """
    rest = {name: value for name, value in result.numbers.items() if name != "origin"}
    return result._replace(numbers=rest)


def printable(text: Any) -> str:
    """Return a text from another person if it is safe to print, else "unknown".

    A text is safe if it has at most 2000 characters, all of them printable.

    Example:
      >>> printable("mine"), printable("\\x1b[2J"), printable(None)
      ('mine', 'unknown', 'unknown')
    """
    safe = isinstance(text, str) and text.isprintable() and len(text) <= LONGEST
    return text if safe else "unknown"


def _words(config: Mapping[str, Any]) -> dict[str, str]:
    from research import comparison

    rule = config["rule"]
    if not isinstance(rule, list | tuple) or not all(isinstance(r, str) for r in rule):
        raise ValueError(
            "The config of the study must have a list of texts as rule; got "
            f"rule={reprlib.repr(rule)}."
        )
    return comparison.name_rules(rule)


def _is_known(word: str) -> bool:
    """Return whether a word names a rule of this package or of optax."""
    return ".py" not in word and "<" not in word


def _assigned(given: Sequence[str], needed: Mapping[str, str]) -> dict[str, str]:
    """Return the word FILE.py:NAME for each rule that the given texts name."""
    if given and not needed:
        raise ValueError(
            "--rule gives the file of a rule, but all rules of the study are part of "
            f"this package or of optax; got {given[0]!r}. Leave --rule out."
        )
    found = {}
    for text in given:
        name, _, word = text.rpartition("=")
        file, _, function = word.partition(":")
        if not file.endswith(".py") or (name and name not in needed):
            names = ", ".join(map(printable, needed)) or "none"
            raise ValueError(
                "--rule must be RULE=FILE.py:NAME, where RULE is a rule of the study "
                f"that comes from a file ({names}); got {text!r}."
            )
        if not name and function:
            own = [
                rule for rule, at in needed.items() if _function(rule, at) == function
            ]
            if len(own) != 1:
                own = list(needed)
            if len(own) != 1:
                raise ValueError(
                    f"--rule: say which rule {text!r} is, as in RULE={text}."
                )
            found[own[0]] = word
            continue
        for rule in [name] if name else list(needed):
            found[rule] = f"{file}:{function or _function(rule, needed[rule])}"
    return found


def _function(rule: str, word: str) -> str:
    """Return the name of a rule's function in its file."""
    return word.partition(":")[2] or rule


def _is_here(word: str, recorded: Sequence[str], trusted: bool) -> bool:
    """Return whether `word`, a rule in a config, names a file that may be used.

    This check is for a rule whose file is not given by a flag --rule.
    """
    if ".py" not in word:
        return False
    file = Path(word.partition(":")[0])
    if trusted:
        return True  # If it is missing or changed, `digest_files` says so.
    inside = file.resolve().is_relative_to(Path.cwd().resolve())
    return inside and file.is_file() and _digest(file) in recorded


def _check_digest(
    name: str, word: str, before: str, recorded: Sequence[str], folder: Path
) -> None:
    file = Path(word.partition(":")[0])
    if not file.is_file():
        raise FileNotFoundError(
            f"The file {str(file)!r} does not exist. Pass FILE.py:name, where name is "
            "a rule in the file."
        )
    if ".py" in before and recorded and _digest(file) not in recorded:
        raise ValueError(
            f"{file} is not the file of {printable(name)} in the study: its SHA-256 "
            f"is {_digest(file)}. The source of the study is in {folder / SOURCES}. "
            "To compare a changed rule, use descent compare."
        )


def _check_imported(word: str, recorded: Sequence[str]) -> None:
    """Raise if a file that the file of a rule imports is not the one of the study.

    An older study did not record such files. They are then not checked.
    """
    from research import comparison

    names = {one.rpartition(" ")[0] for one in recorded}
    for one in comparison.digest_files([word])[1:]:
        name, _, digest = one.rpartition(" ")
        if name in names and one not in recorded:
            raise ValueError(
                f"{name}, which {word.partition(':')[0]} imports, is not the file of "
                f"the study: its SHA-256 is {digest}. To compare a changed rule, use "
                "descent compare."
            )


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
