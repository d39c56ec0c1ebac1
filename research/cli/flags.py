"""Read an experiment's Config from a command line and from a TOML or JSON file."""

import argparse
import dataclasses
import inspect
import itertools
import math
import reprlib
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from research.naming import nearest
from research.reading import parse_json, read_bytes

MOST_BYTES = 2**24  # Maximum size of a config file.
MOST = 2**31 - 1  # Of an integer, as `sizes.MOST`, whose import takes longer.
_SHORT = reprlib.Repr()  # Python 3.11 does not accept limits in the constructor.
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong = 4, 200, 200, 40


@dataclasses.dataclass(frozen=True)
class Options:
    """Command-line flags that every experiment accepts, with their values."""

    full: bool = False
    """Start from the experiment's FULL configuration instead of the small one."""
    fast: bool = False
    """Start from a configuration that takes seconds and only shows that everything
    works. Some experiments do not have one."""
    config: Path | None = None
    """Start from this TOML or JSON file. Flags on the command line override its
    values."""
    results: Path = Path("results")
    """Folder in which <experiment>/<run id>/ is created."""
    fresh: bool = False
    """Start from the beginning, even if the same command has already finished."""
    quiet: bool = False
    """Print only the answer and the paths."""
    predict: Path | None = None
    """Apply the models of the finished run to this file, instead of running. The
    experiments on images, speech and text have this flag."""
    portable: bool = False
    """Compute bits that are the same on every x86-64 processor with AVX2 and FMA, under
    Linux, with the same versions of the packages. This is slower."""
    data_dir: Path | None = None
    """Search this folder for data first, as with the environment variable DESCENT_DATA.
    `descent data` lists the data sets."""


class Command(NamedTuple):
    """A parsed command line.

    Attributes:
      config: The experiment's Config, a frozen dataclass.
      options: Values of the flags that every experiment has.
    """

    config: Any
    options: Options


def program(experiment: types.ModuleType) -> str:
    """Return the command that starts an experiment.

    The command is the attribute `PROGRAM` of the experiment's module. Without this
    attribute, the command is `python experiments/NAME.py`, where NAME.py is the name of
    the module's file.
    """
    file = Path(experiment.__file__ or experiment.__name__)
    return getattr(experiment, "PROGRAM", f"python experiments/{file.stem}.py")


def question_of(docstring: str | None) -> str:
    """Return the first paragraph of an experiment's docstring as one line.

    Example:
      >>> question_of("How fast\\n    is it?\\n\\nVery.")
      'How fast is it?'
    """
    return " ".join((docstring or "").partition("\n\n")[0].split())


def parse(experiment: types.ModuleType, argv: Sequence[str]) -> Command:
    """Parse a command line into the experiment's Config.

    The config starts from the default values. With --full, the config starts from the
    module's FULL instead, and with --fast from the module's FAST. With --config, the
    values in a file replace values of this config. Finally, a flag with the name of a
    field replaces the value of this field. `--help` prints the docstring of the module
    and the flags with their defaults, and exits. JAX is not imported.

    Args:
      experiment: Module with a docstring, a frozen dataclass Config, and FULL, an
        instance of Config. It may have FAST, another instance.
      argv: Command-line arguments after the program's name.
    Returns:
      The parsed command. The values of its config have the types that Config declares.
    Raises:
      ValueError: A flag or a key of the file is unknown, the file is not valid, a
        number is refused by `check_values` of this module, --fast is given together
        with --full, or --fast is given and the experiment has no FAST. For an unknown
        name, the message suggests the most similar one.
      TypeError: A value in the file has the wrong type, or a field of Config has the
        name of a flag that every experiment has.
      OSError: The file cannot be read.
      SystemExit: The exit status is 0 after --help. It is 2 if the value of a flag has
        the wrong type, and then a message on stderr names the flag.
    """
    import tyro

    base = _base(experiment, argv)
    names = [
        field.name for owner in (base, Options()) for field in dataclasses.fields(owner)
    ]
    if len(set(names)) < len(names):
        raise TypeError(
            "fields of Config must not have the name of a common flag; got "
            f"{', '.join(names)}."
        )
    of_all = Annotated[Options, tyro.conf.FlagCreatePairsOff]
    command_class = dataclasses.make_dataclass(
        "CommandLine",
        [("experiment", type(base), base), ("every_experiment", of_all, Options())],
        frozen=True,
    )
    command, unknown = tyro.cli(
        command_class,
        prog=program(experiment),
        description=inspect.cleandoc(experiment.__doc__ or ""),
        args=_gathered(argv, base),
        return_unknown_args=True,
        config=(tyro.conf.OmitArgPrefixes,),
    )
    if unknown:
        others = getattr(experiment, "OTHERS", {})  # These flags start another one.
        switches = [
            f.name for f in dataclasses.fields(base) if _is_switch(base, f.name)
        ]
        _refuse_value(unknown, argv, switches)
        raise ValueError(_unknown(unknown, [*names, *others], base))
    check_values(command.experiment)
    return Command(command.experiment, command.every_experiment)


def check_values(config: Any) -> None:
    """Raise an error unless the numbers of a config are finite and not too large.

    Numbers in tuples are checked, too. A field that has its default value is not
    checked.

    Args:
      config: Instance of an experiment's Config.
    Raises:
      ValueError: A float is not finite, an integer that is not a seed is above 2³¹-1,
        or a seed is not in 0..2³²-1. A seed is a field whose name is seed or ends in
        _seed. The message names the field.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value == field.default:
            continue
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, float) and not math.isfinite(one):
                raise ValueError(
                    f"{field.name} must be a finite number; got {field.name}={value}."
                )
            is_seed = field.name == "seed" or field.name.endswith("_seed")
            if is_seed and isinstance(one, int) and not 0 <= one < 2**32:
                raise ValueError(
                    f"{field.name} must be an integer in 0..2³²-1; got "
                    f"{field.name}={_SHORT.repr(one)}."
                )
            if isinstance(one, int) and one > MOST and not is_seed:
                raise ValueError(
                    f"{field.name} must be at most {MOST:,}; got "
                    f"{field.name}={_SHORT.repr(value)}."
                )


def read_config(path: Path, base: Any) -> Any:
    """Replace fields of a dataclass by the values in a TOML or JSON file.

    A key can be spelled like the field or like the flag (learning_rate, learning-rate).
    If the field is a tuple, a list becomes a tuple. If the field is a float, an integer
    becomes a float. No other types are converted.

    Args:
      path: File with a table of fields and values, or the manifest.json of a run. The
        suffix of the name, .toml or .json, determines the format.
      base: Frozen dataclass instance. Fields that the file does not name are kept.
    Returns:
      A new instance of the same class.
    Raises:
      ValueError: The file is not TOML or JSON, has a key that is not a field, or has
        two keys for one field. For an unknown key, the message suggests the most
        similar field.
      TypeError: A value does not have the type of its field.
      OSError: The file cannot be read.
    Example:
      >>> import tempfile
      >>> Config = dataclasses.make_dataclass(
      ...     "Config", [("learning_rate", float, 0.1), ("seed", int, 0)], frozen=True
      ... )
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     file = Path(folder, "small.toml")
      ...     _ = file.write_text("learning-rate = 1")
      ...     read_config(file, Config())
      Config(learning_rate=1.0, seed=0)
    """
    readers = {".toml": _parse_toml, ".json": parse_json}
    if path.suffix not in readers:
        raise ValueError(
            f"--config must name a file that ends in .toml or .json; got {str(path)!r}."
        )
    if not path.exists():
        raise FileNotFoundError(
            f"--config must name a file that exists; {str(path)!r} does not exist."
        )
    data = read_bytes(path, MOST_BYTES)
    try:
        values = readers[path.suffix](data)
    except ValueError as problem:
        what = f"is not valid {path.suffix[1:].upper()}"
        reason = str(problem)
        if reason.startswith(f"it {what}"):
            reason = f"{path}{reason.removeprefix('it')}"
        else:
            reason = f"{path} {what}: {reason}"
        raise ValueError(reason) from problem
    if isinstance(values, dict):
        values = values.get(
            "config", values
        )  # A manifest stores the run's config under this name.
    if not isinstance(values, dict):
        raise ValueError(
            f"{path} must contain a table of fields and values; it contains a "
            f"{type(values).__name__}."
        )
    return with_values(base, values, str(path))


def with_values(base: Any, values: Mapping[str, Any], where: str) -> Any:
    """Replace fields of a dataclass by values from JSON or TOML.

    If the field is a tuple, a list becomes a tuple. If the field is a float, an integer
    becomes a float. No other types are converted.

    Args:
      base: Frozen dataclass instance.
      values: New values. A key is the name of a field or of its flag.
      where: Source of the values, for messages.
    Returns:
      A new instance of the same class. Fields that `values` does not name are kept.
    Raises:
      ValueError: A key is not a field, or two keys name the same field.
      TypeError: A value does not have the type of its field.
    """
    declared = typing.get_type_hints(type(base))
    kinds = {field.name: declared[field.name] for field in dataclasses.fields(base)}
    replaced = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        if name not in kinds:
            raise ValueError(
                f"{where} has the key {_SHORT.repr(key)}, which is not a field of "
                f"Config. {nearest(name, kinds)}"
            )
        if name in replaced:
            raise ValueError(f"{where} sets {name} twice. Keep one of the two.")
        try:
            replaced[name] = _convert(value, kinds[name])
        except ValueError:
            kind = inspect.formatannotation(kinds[name])
            raise TypeError(
                f"{name} must be {kind}; got {_SHORT.repr(value)} in {where}."
            ) from None
    return dataclasses.replace(base, **replaced)


def _parse_toml(data: bytes) -> Any:
    try:
        return tomllib.loads(data.decode("utf-8"))
    except RecursionError:
        raise ValueError("its lists and tables are nested too deep.") from None


def _base(experiment: types.ModuleType, argv: Sequence[str]) -> Any:
    """Return the config before the flags of single fields change it.

    This is the default config, FULL or FAST. The values in the file of --config have
    replaced the values of this config.
    """
    scan = argparse.ArgumentParser(
        add_help=False, allow_abbrev=False, exit_on_error=False
    )
    scan.add_argument("--full", action="store_true")
    scan.add_argument("--fast", action="store_true")
    scan.add_argument("--config", type=Path, nargs="?")  # tyro reports a missing value.
    try:
        early, _ = scan.parse_known_args(list(argv))
    except argparse.ArgumentError as problem:
        raise ValueError(f"{problem}. --full and --fast take no value.") from None
    if early.full and early.fast:
        raise ValueError(
            "--full and --fast exclude each other: each selects a configuration. Pass "
            "one of them."
        )
    if early.fast and not hasattr(experiment, "FAST"):
        raise ValueError(
            "This experiment has no --fast configuration. Leave --fast out; other "
            "flags make the run smaller (see --help)."
        )
    base = (
        experiment.FULL
        if early.full
        else experiment.FAST
        if early.fast
        else experiment.Config()
    )
    return read_config(early.config, base) if early.config else base


def _gathered(argv: Sequence[str], base: Any) -> list[str]:
    """Merge repeated flags with several values: --rule a --rule b is --rule a b."""
    several = {
        f"--{f.name.replace('_', '-')}"
        for f in dataclasses.fields(base)
        if isinstance(getattr(base, f.name), tuple)
    }
    groups: list[list[str]] = [[]]
    for word in argv:
        flag, equals, value = word.partition("=")
        flag = flag.replace("_", "-")
        if flag in several:
            earlier = next(
                (i for i, group in enumerate(groups) if group[:1] == [flag]), None
            )
            group = [flag] if earlier is None else groups.pop(earlier)
            groups.append([*group, *([value] if equals else [])])
        elif word.startswith("--"):
            groups.append([word])
        else:
            groups[-1].append(word)
    return [word for group in groups for word in group]


def _is_switch(config: Any, name: str) -> bool:
    return isinstance(getattr(config, name), bool)


def _refuse_value(
    words: Sequence[str], argv: Sequence[str], switches: Iterable[str]
) -> None:
    """Raise ValueError if an unknown word follows a flag that takes no value."""
    pairs = itertools.pairwise(argv)
    before = next((flag for flag, word in pairs if word == words[0]), "")
    name = before.removeprefix("--").removeprefix("no-").replace("-", "_")
    if before.startswith("--") and name in switches:
        flag = name.replace("_", "-")
        raise ValueError(
            f"{before} takes no value; got {words[0]!r}. Write --{flag} or --no-{flag}."
        )


def _unknown(words: Sequence[str], names: Iterable[str], config: Any) -> str:
    flags = ["--" + name.replace("_", "-") for name in names]
    flag = next(
        (word.partition("=")[0] for word in words if word.startswith("-")), None
    )
    if flag is None:
        said = " ".join(words)
        # The flag that takes several words is probably meant.
        fields = [f.name for f in dataclasses.fields(config)]
        of_words = [name for name in fields if _holds_texts(getattr(config, name))]
        example = (
            f"--{of_words[0].replace('_', '-')} {said}" if of_words else "--seed 3"
        )
        return (
            f"Unexpected words {said!r} on the command line. Write a value after its "
            f"flag, such as {example}."
        )
    return f"Unknown flag {flag}. {nearest(flag, flags)}"


def _holds_texts(value: Any) -> bool:
    return isinstance(value, tuple) and any(isinstance(word, str) for word in value)


def _convert(value: Any, kind: Any) -> Any:
    """Return a value as the annotated type `kind`; raise ValueError if impossible."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _first_that_fits(value, arguments)
    if origin is typing.Literal and value in arguments:
        return value
    if origin is tuple and isinstance(value, list | tuple):
        elements = arguments[:1] * len(value) if arguments[1:] == (...,) else arguments
        return tuple(
            _convert(item, element)
            for item, element in zip(value, elements, strict=True)
        )
    if kind is float and type(value) is int and value.bit_length() < 1024:
        return float(value)
    if type(value) is kind or (kind in (None, types.NoneType) and value is None):
        return value
    raise ValueError


def _first_that_fits(value: Any, kinds: Sequence[Any]) -> Any:
    for kind in sorted(
        kinds, key=lambda kind: kind is not type(value)
    ):  # Try the value's own type first: 1 stays an int in `float | int`.
        try:
            return _convert(value, kind)
        except ValueError:
            continue
    raise ValueError
