"""Environment of a run: versions, processor, flags, devices and code.

The bits of a result depend on all of these.
"""

import hashlib
import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from research import portable
from research.checks import check_count, check_sequence

PACKAGES = (
    "jax",
    "jaxlib",
    "optax",
    "flax",
    "numpy",
    "scipy",
    "scikit-learn",
    "descent-jax",
)
PACKAGE = Path(__file__).parents[1]
EVERYTHING = "JAX, NumPy and SciPy"  # What has portable bits.
# Entries that code may rely on when it reads a manifest; an older manifest lacks some.
_PERHAPS_TEXT = (str, type(None))
SHAPE = {
    "versions?": {str: _PERHAPS_TEXT},
    "processor?": {"model?": str, "instruction_sets?": [str]},
    "xla_flags?": _PERHAPS_TEXT,
    "portable?": _PERHAPS_TEXT,
    "git?": (dict, type(None)),
    "code?": _PERHAPS_TEXT,
}
# The device count does not split the work of one run, so the bits do not depend on it.
DEVICE_COUNT = r"--xla_force_host_platform_device_count=\d+"
DEVICES_OF_JAX = "JAX_NUM_CPU_DEVICES"


def environment(
    width: int | None = None, code: Sequence[str | Path] = ()
) -> dict[str, Any]:
    """Describe the environment of a run as JSON values.

    The description contains no date, host name, path or address. To list the devices,
    the function starts JAX's backend. If you use `backend.configure`, call
    `backend.configure` before this function.

    Args:
      width: Number of runs that one compiled program computes together. The bits of
        each run depend on this number. None means that each run is computed alone.
      code: Files of the experiment itself. The run depends on these files, which lie
        outside this package.
    Returns:
      Dict with these keys:
      `python`: version of Python.
      `versions`: version of JAX, NumPy and other packages; None if a package is not
        installed.
      `processor`: model, architecture, instruction sets and number of cores.
      `xla_pool`, `xla_flags` and `jax_variables`: the environment variables NPROC and
        XLA_FLAGS, and those that begin with JAX_.
      `x64` and `matmul_precision`: settings of JAX.
      `devices`: kind, platform and number of devices.
      `lane_width`: the argument `width`.
      `portable`: the packages whose results have the same bits on every x86-64
        processor with AVX2 and FMA: "JAX", or "JAX, NumPy and SciPy". None without
        `backend.configure(portable=True)`.
      `code`: SHA-256 of the Python files of this package and of the files in the
        argument `code`.
      `git`: the commit, and whether files differ from the commit. None if this package
        does not lie in a clone of its repository.
    Example:
      >>> environment(width=32)["lane_width"]
      32
    """
    if width is not None:
        check_count("width", width)
    check_sequence("code", code, "paths", (str, Path))
    import jax  # Imported here so that parsing a command line stays fast.

    devices, settings = jax.devices(), cast(Any, jax.config)
    return {
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "processor": processor(),
        "xla_pool": os.environ.get("NPROC"),
        "xla_flags": " ".join(
            map(_without_path, os.environ.get("XLA_FLAGS", "").split())
        ),
        "jax_variables": {
            name: _without_path(value)
            for name, value in sorted(os.environ.items())
            if name.startswith("JAX_")
        },
        "x64": settings.jax_enable_x64,
        "matmul_precision": settings.jax_default_matmul_precision,
        "devices": {
            "kind": devices[0].device_kind,
            "platform": devices[0].platform,
            "count": len(devices),
        },
        "lane_width": width,
        "portable": _portable(),
        "code": code_digest(code),
        "git": git_state(PACKAGE.parent),
    }


def differences(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """List those differences between two environments that may change a result's bits.

    Args:
      there, here: Environments, from `environment` or from the manifest of a run. If
        an entry is missing, as in manifests of older versions, its value counts as
        unknown.
    Returns:
      One text for each difference, the most likely cause of different bits first. The
      list is empty if the two environments should give the same bits. Differences that
      do not change the bits are not listed. Examples are the number of devices, the
      number of cores and, if the code is identical, the commit. The processor is not
      listed if the entry `portable` is "JAX, NumPy and SciPy" in both environments,
      because the results of these packages then have the same bits on all x86-64
      processors with AVX2 and FMA.
    Example:
      >>> here = {"versions": {"jax": "0.10.2", "numpy": "2.4.6"}, "xla_pool": "2"}
      >>> there = {"versions": {"jax": "0.12.0", "numpy": "2.4.6"}, "xla_pool": "4"}
      >>> differences(there, here)
      ['jax 0.12.0 there, 0.10.2 here', 'XLA thread pool (NPROC) 4 there, 2 here']
    """
    found = []
    versions = [_get(e, "versions", default={}) for e in (there, here)]
    for package in PACKAGES:
        found += _differs(package, versions[0].get(package), versions[1].get(package))
    if not _get(there, "portable") == _get(here, "portable") == EVERYTHING:
        found += _processors(
            _get(there, "processor", default={}), _get(here, "processor", default={})
        )
    for title, *path in (
        ("XLA thread pool (NPROC)", "xla_pool"),
        ("device kind", "devices", "kind"),
        ("sweep width", "lane_width"),
        ("portable bits", "portable"),
        ("float64", "x64"),
        ("matmul precision", "matmul_precision"),
        ("Python", "python"),
    ):
        found += _differs(title, _get(there, *path), _get(here, *path))
    flags = [
        " ".join(re.sub(DEVICE_COUNT, "", _get(e, "xla_flags") or "").split())
        for e in (there, here)
    ]
    variables = [
        named and {name: named[name] for name in named if name != DEVICES_OF_JAX}
        for named in (_get(e, "jax_variables") for e in (there, here))
    ]
    found += _differs("JAX variables", *variables)
    found += _differs("XLA flags", *flags)
    if _get(there, "code") != _get(here, "code"):
        found.append(
            f"other code ({_commit(_get(there, 'git'))} there, "
            f"{_commit(_get(here, 'git'))} here)"
        )
    return found


def _portable() -> str | None:
    """Return the packages whose results have portable bits (`research.backend`)."""
    from research import backend  # It imports JAX.

    if not backend.is_portable():
        return None
    return EVERYTHING if portable.are_libraries_pinned() else "JAX"


def _get(entry: Any, *path: str, default: Any = None) -> Any:
    for name in path:
        entry = entry.get(name) if isinstance(entry, dict) else None
    return default if entry is None else entry


def _differs(title: str, there: Any, here: Any) -> list[str]:
    return (
        [] if there == here else [f"{title} {_told(there)} there, {_told(here)} here"]
    )


def _told(value: Any) -> Any:
    if value is None:
        return "unknown"
    return "none" if value in ("", {}) else value


def _processors(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    sets = [set(p.get("instruction_sets", ())) for p in (there, here)]
    if there.get("model") == here.get("model") and sets[0] == sets[1]:
        return []
    only = [
        f"{', '.join(sorted(a - b))} only {where}"
        for a, b, where in ((*sets, "there"), (*sets[::-1], "here"))
        if a - b
    ]
    text = (
        f"processor {there.get('model', 'unknown')} there, "
        f"{here.get('model', 'unknown')} here"
    )
    return [f"{text} ({'; '.join(only)})" if only else text]


def _commit(git: dict[str, Any] | None) -> str:
    commit = git.get("commit") if git else None
    if not git or not isinstance(commit, str):
        return "commit unknown"
    return f"commit {commit[:10]}" + (
        ", with changed files" if git.get("dirty") else ""
    )


def code_digest(files: Sequence[str | Path] = ()) -> str:
    """Return the SHA-256 of this package's Python files and of the given files.

    The digest also depends on the relative path of each file in the package, and on the
    name of each given file. Line endings of Windows and of Unix give the same digest.
    """
    check_sequence("files", files, "paths", (str, Path))
    digest = hashlib.sha256()
    own = {file.relative_to(PACKAGE).as_posix(): file for file in PACKAGE.rglob("*.py")}
    for name, file in sorted(own.items()) + sorted(
        (Path(file).name, Path(file)) for file in files
    ):
        text = file.read_bytes().replace(b"\r\n", b"\n")
        digest.update(f"{name} {len(text)}\n".encode() + text)
    return digest.hexdigest()


def processor(cpuinfo: str | Path = "/proc/cpuinfo") -> dict[str, Any]:
    """Return the processor's model, architecture, instruction sets and number of cores.

    The result is a dict with the keys `model`, `architecture`, `instruction_sets` and
    `cores`. The list of instruction sets contains only the sets that XLA distinguishes.
    `cpuinfo` is the file in which Linux describes the processor. If this file does not
    exist, the list of instruction sets is empty.
    """
    path = Path(cpuinfo)
    text = path.read_text(errors="replace") if path.exists() else ""
    fields = dict(re.findall(r"^([^\n:\t]+?)\s*: *([^\n]*)$", text, flags=re.MULTILINE))
    sets = fields.get(
        "flags", fields.get("Features", "")
    ).split()  # Linux on x86, then Linux on Arm.
    matter = r"sse4_\d|f16c|fma|avx\w*|amx\w*|asimd\w*|sve\w*|bf16|i8mm|rvv?"
    return {
        "model": fields.get("model name") or platform.processor() or platform.machine(),
        "architecture": platform.machine(),
        "instruction_sets": sorted(name for name in sets if re.fullmatch(matter, name)),
        "cores": os.cpu_count(),
    }


def git_state(folder: Path) -> dict[str, Any] | None:
    """Return the commit of the repository at `folder`, and whether files were changed.

    Returns:
      Dict with the keys "commit" and "dirty". The result is None if `folder` is not the
      top folder of a repository, if the repository has no commit yet, or if git is not
      installed or fails. A folder below the top folder gives None, because an installed
      copy of this package may lie inside another repository, whose commit says nothing
      about the package.
    """
    top, _, commit = (
        (_git(folder, "rev-parse", "--show-toplevel", "HEAD") or "")
        .strip()
        .partition("\n")
    )
    status = _git(folder, "status", "--porcelain")
    if not commit or status is None or Path(top).resolve() != folder.resolve():
        return None
    return {"commit": commit, "dirty": bool(status)}


def _git(folder: Path, *words: str) -> str | None:
    command = ["git", "--no-optional-locks", "-C", str(folder), *words]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=30
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _without_path(setting: str) -> str:
    """Replace the value of a setting that may contain a path or an address.

    Manifests are shared with others, so they must not contain private paths.
    """
    return re.sub(r"[^=]*[/\\:].*", "(path or address)", setting, flags=re.DOTALL)
