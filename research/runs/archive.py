"""A finished run as one archive of plain files, and reading one that comes from
anybody: nothing in it is executed."""

import contextlib
import hashlib
import io
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from research.checks import check_path
from research.reading import check_shape, parse_json, read_bytes
from research.reading.arrays import STUMBLES, open_zip, read_member
from research.runs.files import write_atomically
from research.runs.folder import run_id
from research.runs.manifest import ARRAYS, MANIFEST, RESULT, SHAPE, check_origin
from research.runs.result import check_values

SUMS = "SHA256SUMS"  # As `sha256sum --check` reads it.
LIMITS = {
    MANIFEST: 2**20,
    RESULT: 2**24,
    ARRAYS: 2**28,
    SUMS: 2**10,
}  # Bytes of each file, at most.
# A stranger's environment is shown, and never compared: any will do.
MANIFEST_SHAPE = SHAPE | {"environment": dict}
_AGAIN = "get it again from where it comes"
# Not told here: a stranger wrote it.
_MAKE = f"run the command in its {MANIFEST} to its end"
_START = b"PK\x03\x04"


class Contents(NamedTuple):
    """What a finished run holds, as far as it is read: its arrays are held against
    their digest, and not opened.

    Attributes:
      name: Of the file or the folder, without where it lies.
      manifest: As of `read_manifest`.
      found: What result.json holds: answer, tables and numbers.
    """

    name: str
    manifest: dict[str, Any]
    found: dict[str, Any]


def pack(run: str | Path, target: str | Path) -> Path:
    """Writes a finished run as one .zip of manifest.json, result.json, arrays.npz and
    SHA256SUMS, their digests.

    The same run always gives the same bytes: the files are stored as they are, in this
    order and without a date.

    Args:
      run: The run folder.
      target: The file to write, a .zip; one that is there already is replaced.
    Returns:
      The file.
    Raises:
      ValueError: The run is not finished, or damaged, or too large, or the target is no
        .zip.
      OSError: The file cannot be written; the message says why.
    Example:
      >>> import tempfile
      >>> from research.runs import Result, finish, open_run
      >>> run = finish(open_run("toy", {}, tempfile.mkdtemp()), Result("It descends.", (), {}, {}))
      >>> read_contents(pack(run.path, run.path / "toy.zip")).found["answer"]
      'It descends.'
    """
    check_path("run", run)
    check_path("target", target)
    run, target = Path(run), Path(target)
    if target.suffix != ".zip" or target.is_dir():
        raise ValueError(
            f"the archive {target} must be a file whose name ends in .zip."
        )
    if not run.is_dir():
        raise ValueError(
            f"{run} is no folder; give that of a finished run, results/NAME/ID."
        )
    with _named(run):
        files = _of_folder(run)
        _checked(run.name, files)
    write_atomically(target, _zipped({**files, SUMS: _sums(files)}))
    return target


def unpack(archive: str | Path, folder: str | Path) -> Path:
    """Write what `pack` has written as a run folder again.

    Args:
      archive: The .zip; it is checked as by `read_contents` before anything is written.
      folder: Receives <experiment>/<id>/ with the files of the run.
    Returns:
      The run folder.
    Raises:
      ValueError: The archive is damaged, altered or too large, or not of a run.
      OSError: It cannot be read, or the files cannot be written.
    """
    check_path("archive", archive)
    check_path("folder", folder)
    archive = Path(archive)
    if not archive.is_file():
        raise ValueError(f"there is no file {archive}; give a .zip that pack wrote.")
    with _named(archive):
        files = _of_archive(archive)
        manifest = _checked(archive.name, files).manifest
        check_origin(manifest, "it")
    run = Path(folder) / manifest["experiment"] / manifest["id"]
    run.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        write_atomically(run / name, data)
    return run


def read_contents(path: str | Path) -> Contents:
    """Reads a run folder, or an archive that `pack` has written, into memory.

    Nothing is extracted and nothing executed, and no more is read than a run may hold.
    Digests say that the files are those that were packed, not who packed them, nor that
    their numbers are true: reproducing the run does.

    Args:
      path: The run folder or the .zip.
    Raises:
      ValueError: It is neither, or unfinished, or damaged, altered or too large; the
        message names it.
      OSError: It cannot be read.
    """
    check_path("path", path)
    path = Path(path)
    if not path.exists():
        raise ValueError(
            f"there is no {path}; give a run folder (results/NAME/ID) or a .zip of one."
        )
    with _named(path):
        files = _of_folder(path) if path.is_dir() else _of_archive(path)
        return _checked(path.name, files)


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Lets what is wrong say where: the reasons below all go on after the path."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path} {error}") from error


def _checked(name: str, files: Mapping[str, bytes]) -> Contents:
    manifest = _json(
        files,
        MANIFEST,
        lambda manifest: check_shape(manifest, MANIFEST_SHAPE, "the manifest"),
    )
    if manifest["status"] != "finished":
        raise ValueError(
            f"is not finished (its status is {manifest['status']!r}): {_MAKE}."
        )
    digests = manifest.get("digests", {})
    for file in (RESULT, ARRAYS):
        if file not in files:
            raise ValueError(f"lacks {file}: {_MAKE}.")
        if hashlib.sha256(files[file]).hexdigest() != digests.get(file):
            raise ValueError(
                f"holds a {file} that is damaged or altered: its digest is not that of "
                f"the {MANIFEST}."
            )
    if manifest["id"] != _id(manifest):
        raise ValueError(
            f"holds a {MANIFEST} that was altered: its id is not that of its "
            "experiment and config."
        )
    return Contents(name, manifest, _json(files, RESULT, check_values))


def _id(manifest: Mapping[str, Any]) -> str:
    try:
        return run_id(manifest["experiment"], manifest["config"])
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"holds a {MANIFEST} that cannot be of a run: {error}"
        ) from error


def _json(
    files: Mapping[str, bytes], name: str, check: Callable[[Any], None]
) -> dict[str, Any]:
    if name not in files:
        raise ValueError(
            f"holds no {name}, so it is no run; give a run folder (results/NAME/ID) or "
            "a .zip of one."
        )
    try:
        value = parse_json(files[name])
    except ValueError as error:
        raise ValueError(f"holds a {name} that cannot be read: {error}") from error
    try:
        check(value)
    except ValueError as error:
        raise ValueError(
            f"holds a {name} that is not one of Descent: {error}"
        ) from error
    return value


def _of_folder(path: Path) -> dict[str, bytes]:
    files = {}
    for name in (MANIFEST, RESULT, ARRAYS):
        if (path / name).is_file():
            _check_size(name, (path / name).stat().st_size)
            files[name] = read_bytes(path / name, LIMITS[name])
    return files


def _of_archive(path: Path) -> dict[str, bytes]:
    size = path.stat().st_size
    if size > sum(LIMITS.values()):
        raise ValueError(
            f"is too large for a run: {size:,} bytes, where at most "
            f"{sum(LIMITS.values()):,} are read."
        )
    if not path.is_file():
        raise ValueError("is a pipe or a device; give a regular file.")
    data = read_bytes(path, sum(LIMITS.values()))
    if not data.startswith(_START):
        raise ValueError(
            "is no archive of a run; write one with descent pack results/NAME/ID."
        )
    with _legible():
        archive = open_zip(data)
    members = archive.infolist()
    if (
        not members or members[0].header_offset
    ):  # zipfile looks from the end, and would find the .npz of one cut there.
        raise ValueError(
            f"is truncated or altered: it does not begin with its first file; {_AGAIN}."
        )
    for member in members:
        _check_member(member)
    with _legible():
        files = {
            member.filename: read_member(archive, member, LIMITS[member.filename])
            for member in members
        }
    if set(files) != set(LIMITS) or len(files) != len(members):
        raise ValueError(
            f"holds {', '.join(m.filename for m in members)}, where a run has "
            f"{', '.join(LIMITS)}."
        )
    if files.pop(SUMS) != _sums(files):
        raise ValueError(
            f"was altered: its {SUMS} are not those of its files; {_AGAIN}."
        )
    return files


@contextlib.contextmanager
def _legible() -> Iterator[None]:
    """Whatever zipfile stumbles over is damage to what it reads from memory."""
    try:
        yield
    except STUMBLES as error:
        raise ValueError(
            f"is truncated, damaged or altered ({error}); {_AGAIN}."
        ) from error


def _check_member(member: zipfile.ZipInfo) -> None:
    """A member is known by its name before it is read; what is stored as it is cannot
    swell."""
    name, advice = (
        member.orig_filename,
        "write the archive with descent pack results/NAME/ID",
    )
    if (
        name.startswith(("/", "\\"))
        or ".." in name.replace("\\", "/").split("/")
        or ":" in name
    ):
        raise ValueError(
            f"is refused: its member {name!r} points outside of it. Nothing was "
            "written; do not unpack it."
        )
    if name not in LIMITS:
        raise ValueError(f"holds {name!r}, which no archive of a run has; {advice}.")
    _check_size(name, max(member.file_size, member.compress_size))
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
        raise ValueError(f"holds {name} compressed or encrypted; {advice}.")


def _check_size(name: str, size: int) -> None:
    if size > LIMITS[name]:
        raise ValueError(
            f"is too large for a run: {name} of {size:,} bytes, where at most "
            f"{LIMITS[name]:,} are read."
        )


def _sums(files: Mapping[str, bytes]) -> bytes:
    return "".join(
        f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files)
    ).encode()


def _zipped(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(
                name
            )  # Of 1980, the first date that a .zip can hold.
            entry.create_system, entry.external_attr = (
                3,
                0o644 << 16,
            )  # The same on Windows as elsewhere.
            archive.writestr(entry, data)
    return buffer.getvalue()
