"""Import objects from the user's Python files: FILE.py:name and module:name."""

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from research.naming import nearest

# Folder of each module in sys.modules that a file of the user loaded from its folder.
_folders: dict[str, Path] = {}


def in_file(
    word: str,
    what: str,
    is_one: Callable[[Any], bool],
    among: str,
    is_likely: Callable[[Any], bool] = lambda value: True,
) -> Any:
    """Import FILE.py, and return the object that FILE.py:name means.

    Args:
      word: Text of the form "FILE.py:name".
      what: Kind of the object, such as "rule", for messages.
      is_one: Function (object) -> whether the object is of the wanted kind. Error
        messages suggest only objects of this kind.
      among: Text for the message if the file has no object of the wanted kind.
      is_likely: Function (object of the kind) -> whether the user probably means such
        an object. If the file has likely objects, messages list only these.
    Returns:
      The object with this name. It may be of another kind than the wanted one.
    Raises:
      OSError: The file does not exist.
      ValueError: Importing the file fails, or the name does not exist in the file. For
        an unknown name, the message suggests the most similar name.
    """
    path, _, name = word.rpartition(":")
    if word.endswith(".py"):
        path, name = word, ""
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"The file {path!r} does not exist. Pass FILE.py:name, where name is a "
            f"{what} in the file."
        )
    module = imported_file(Path(path))
    own = [
        key
        for key, value in vars(module).items()
        if not key.startswith("_") and is_one(value)
    ]
    hint = nearest(name, own) if own else f"It contains {among}."
    likely = [key for key in own if is_likely(vars(module)[key])]
    if likely and not hint.startswith("Did"):
        hint = nearest(name, likely)
    if not name:
        raise ValueError(f"Which {what} of {path}? Write {path}:NAME. {hint}")
    if not hasattr(module, name):
        raise ValueError(f"{path} has no {name!r}. {hint}")
    return getattr(module, name)


def in_module(word: str) -> Any:
    """Import a module, and return the object that module:name means.

    Args:
      word: Text of the form "module:name". The module may also be a file in the current
        folder.
    Raises:
      ValueError: The module or the name does not exist, or importing the module fails.
    """
    module_name, _, name = word.partition(":")
    found: Any = None
    with folder_first(Path.cwd()), failures_named(module_name):
        try:
            found = importlib.import_module(module_name)
        except ModuleNotFoundError as problem:
            # Another module that this one imports may be missing.
            if not f"{module_name}.".startswith(f"{problem.name}."):
                raise
    if found is None:
        raise ValueError(
            f"The module {module_name} does not exist. Pass module:name or "
            "FILE.py:name."
        )
    for part in name.split("."):
        if not hasattr(found, part):
            public = [key for key in dir(found) if not key.startswith("_")]
            close = nearest(part, public)
            hint = f" {close}" if close.startswith("Did") else ""
            raise ValueError(f"{module_name} has no {part!r}.{hint}")
        found = getattr(found, part)
    return found


def imported_file(path: Path) -> Any:
    """Import a file as a module.

    The file can import other modules from its folder, as a script can. Two files in
    different folders do not share such modules, even if the modules have the same name.

    Raises:
      ValueError: The file is not a Python file, or an error is raised while it is
        imported. The message gives the name of the file and the line of the error.
    """
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    folder = path.resolve().parent
    with modules_of(folder):
        # Dataclasses and pickle look their module up by its name.
        shadowed = sys.modules.get(spec.name)
        sys.modules[spec.name] = module
        try:
            with folder_first(folder), failures_named(str(path)):
                spec.loader.exec_module(module)
        except BaseException:
            sys.modules.pop(spec.name, None)
            raise
        finally:
            if shadowed is not None:
                sys.modules[spec.name] = shadowed
    return module


@contextlib.contextmanager
def modules_of(folder: Path) -> Iterator[None]:
    """Hide the modules that files of other folders loaded from their own folders.

    Within the context, an import finds the module of `folder`, not a module of the same
    name in another folder. After the context, the hidden modules are in sys.modules
    again, unless a module of the same name was imported within the context. If this
    module lies in `folder`, it is removed from sys.modules, too. A later import of this
    name, for example inside a function, then fails. Otherwise the import could return
    the wrong one of the two modules.
    """
    hidden = {
        name: module
        for name, module in sys.modules.items()
        if _folders.get(_top(name), folder) != folder
    }
    for name in hidden:
        del sys.modules[name]
    before = set(sys.modules)
    try:
        yield
    finally:
        new = {
            name
            for name, module in list(sys.modules.items())
            if name not in before and "." not in name and _lies_in(module, folder)
        }
        again = {_top(name) for name in hidden} & set(sys.modules)
        both = again & new
        for name in [name for name in sys.modules if _top(name) in both]:
            del sys.modules[name]
        sys.modules.update({n: m for n, m in hidden.items() if _top(n) not in again})
        for name in again:
            del _folders[name]
        _folders.update(dict.fromkeys(new - both, folder))


def _top(name: str) -> str:
    return name.partition(".")[0]


def _lies_in(module: ModuleType, folder: Path) -> bool:
    """Return whether a module is a file of a folder, or a package in the folder."""
    file, places = getattr(module, "__file__", None), getattr(module, "__path__", ())
    return any(Path(p).parent.resolve() == folder for p in (file, *places) if p)


@contextlib.contextmanager
def failures_named(name: str) -> Iterator[None]:
    """Raise a RuleError in place of any error that an import raises.

    This context manager surrounds the import of a file or module of the user. A
    RuleError is a ValueError. The message contains `name`, the name of the file or
    module.
    """
    from research.verification.rule_under_test import RuleError, place

    try:
        yield
    except SystemExit as problem:
        hint = "put the code that it runs under `if __name__ == '__main__':`"
        raise RuleError(f"{name} exits while it is imported; {hint}.") from problem
    except Exception as problem:
        what = f"{type(problem).__name__} while it was imported{place(problem)}"
        raise RuleError(f"{name} raised {what}: {problem}") from problem


@contextlib.contextmanager
def folder_first(folder: Path) -> Iterator[None]:
    """Put a folder first in sys.path within a context, as Python does for a script."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
