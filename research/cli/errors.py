"""Explain bad input in one line: say what is wrong, and what to do."""

import importlib.metadata
import re
import traceback
from pathlib import Path

DISTRIBUTION = "descent-jax"
OURS = Path(__file__).parents[2]
# Packages whose import name differs from the name to install.
DISTRIBUTIONS = {"sklearn": "scikit-learn", "lazy_loader": "lazy-loader"}


def explain(problem: Exception) -> str:
    """Describe an exception in one line.

    The message of an exception that this package raised is used without changes, except
    that it is put on one line. An exception from a library (for example a shape error
    inside NumPy) may be caused by a mistake in this package. For such an exception, the
    line also says how to see the traceback. For an error of the operating system about
    a file, the line has the reason and the file. If a package is missing, the line
    gives the command that installs the package.

    Args:
      problem: The exception.
    Returns:
      The line, without "error:" before it.
    Example:
      >>> explain(
      ...     ModuleNotFoundError("No module named 'tensorboard'", name="tensorboard")
      ... )
      "This needs the package tensorboard, which is not installed: pip install ...
    """
    if (
        isinstance(problem, ModuleNotFoundError)
        and problem.name
        and not _is_ours(problem.name)
    ):
        package = problem.name.partition(".")[0]
        return (
            f"This needs the package {package}, which is not installed: pip install "
            f"{_requirement(package)!r}"
        )
    if (
        isinstance(problem, OSError)
        and problem.filename is not None
        and not _raised_by_us(problem)
    ):
        return f"{problem.strerror}: {problem.filename}"
    text = (
        problem.strerror
        if isinstance(problem, OSError) and problem.strerror
        else str(problem)
    )  # Without the prefix "[Errno 28]".
    line = " ".join(text.split()) or type(problem).__name__
    return (
        line
        if _raised_by_us(problem)
        else f"{line} (Set DESCENT_TRACEBACK=1 to see the traceback.)"
    )


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] in ("research", "experiments")


def _requirement(package: str) -> str:
    """Return the argument with which pip installs a package.

    If an extra of this project installs the package, the argument names the extra.
    """
    package = DISTRIBUTIONS.get(package, package)
    try:
        requirements = importlib.metadata.requires(DISTRIBUTION) or []
    except (
        importlib.metadata.PackageNotFoundError
    ):  # This package is imported from a folder and not installed.
        requirements = []
    for requirement in requirements:
        name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
        extra = re.search(r"extra == ['\"](.+?)['\"]", requirement)
        if name.lower().replace("_", "-") == package.lower().replace("_", "-"):
            return (
                f"{DISTRIBUTION}[{extra[1]}]"
                if extra
                else requirement.partition(";")[0].strip()
            )
    return package


def _raised_by_us(problem: Exception) -> bool:
    """Return whether a `raise` statement of this project raised the exception."""
    frames = traceback.extract_tb(problem.__traceback__)
    ours = (OURS / "research", OURS / "experiments")
    return (
        bool(frames)
        and (frames[-1].line or "").startswith("raise")
        and any(Path(frames[-1].filename).is_relative_to(folder) for folder in ours)
    )
