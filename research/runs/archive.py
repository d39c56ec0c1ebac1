"""Pack a finished run into one archive, and read archives from untrusted sources.

Nothing in an archive is executed.
"""

import contextlib
import hashlib
import io
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from research.checks import check_path
from research.files import write_atomically
from research.reading import check_shape, parse_json, read_bytes
from research.reading.arrays import STUMBLES, open_zip, read_member
from research.runs.folder import run_id
from research.runs.manifest import ARRAYS, MANIFEST, RESULT, SHAPE, check_origin
from research.runs.result import check_values

SUMS = "SHA256SUMS"  # In the format of `sha256sum --check`.
REPORT = "report.html"  # An archive of a run without a report has no such file.
LIMITS = {
    MANIFEST: 2**20,
    RESULT: 2**24,
    ARRAYS: 2**28,
    REPORT: 2**26,
    SUMS: 2**10,
}  # Maximum number of bytes of each file.
# The environment from an untrusted archive is only displayed, so any dict is accepted.
MANIFEST_SHAPE = SHAPE | {"environment": dict}
_AGAIN = "get it again from its source"
# The command itself is not printed, because its source is untrusted.
_MAKE = f"finish the run with the command in its {MANIFEST}"
_PACK_IT = "write the archive with descent pack results/NAME/ID"
_START = b"PK\x03\x04"


class Contents(NamedTuple):
    """Manifest and result of a finished run.

    The arrays are not included. Only the digest of their file is checked.

    Attributes:
      name: Name of the .zip file or run folder, without parent folders.
      manifest: Manifest of the run, as `read_manifest` returns it.
      found: Content of result.json, with the answer, the tables and the numbers.
    """

    name: str
    manifest: dict[str, Any]
    found: dict[str, Any]


def pack(run: str | Path, target: str | Path) -> Path:
    """Write a finished run as one .zip file.

    The .zip file contains manifest.json, result.json, arrays.npz, report.html (if the
    run has a report) and SHA256SUMS. SHA256SUMS lists the digests of the other files.
    The files are stored uncompressed, in this order and with a fixed date. Therefore
    the same run always gives the same bytes. The report is for people: this package
    checks only its digest.

    Args:
      run: Run folder.
      target: Path of the .zip file. An existing file is replaced.
    Returns:
      Path of the written file.
    Raises:
      ValueError: The run is not finished, is damaged or is too large, or the name of
        the target does not end in .zip.
      OSError: The file cannot be written. The message says why.
    Example:
      >>> import tempfile
      >>> from research.runs import Result, finish, open_run
      >>> run = finish(
      ...     open_run("toy", {}, tempfile.mkdtemp()),
      ...     Result("It descends.", (), {}, {}),
      ... )
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
            f"{run} is not a folder. Pass the folder of a finished run, "
            "results/NAME/ID."
        )
    with _named(run):
        files = _of_folder(run, (MANIFEST, RESULT, ARRAYS, REPORT))
        _checked(run.name, files)
    write_atomically(target, _zipped({**files, SUMS: _sums(files)}))
    return target


def unpack(archive: str | Path, folder: str | Path) -> Path:
    """Unpack an archive, written by `pack`, into a run folder.

    The report in the archive is not unpacked. The author of the archive may have
    written anything into this report, and a browser would show it. Make a new report
    from the numbers with `research.report.write_report`.

    Args:
      archive: Path of the .zip file. Before anything is written, the file is checked as
        in `read_contents`.
      folder: Folder in which the run folder <experiment>/<id>/ is created.
    Returns:
      Path of the run folder.
    Raises:
      ValueError: The archive is damaged, altered, too large, or not an archive of a
        run.
      OSError: The archive cannot be read, or the files cannot be written.
    """
    check_path("archive", archive)
    check_path("folder", folder)
    archive = Path(archive)
    if not archive.is_file():
        raise ValueError(
            f"the file {archive} does not exist. Pass a .zip written by pack."
        )
    with _named(archive):
        files = _of_archive(archive)
        manifest = _checked(archive.name, files).manifest
    check_origin(manifest, archive)
    run = Path(folder) / manifest["experiment"] / manifest["id"]
    run.mkdir(parents=True, exist_ok=True)
    for name in (MANIFEST, RESULT, ARRAYS):
        write_atomically(run / name, files[name])
    return run


def read_contents(path: str | Path) -> Contents:
    """Read the manifest and the result of a finished run from its folder or .zip file.

    Nothing is extracted or executed, and the size of each file is limited. A run
    contains digests (checksums) of its files. If a file does not match its digest, a
    ValueError is raised. The digests do not show who packed the files, or whether the
    numbers are true. To test the numbers, reproduce the run.

    Args:
      path: Run folder, or a .zip file written by `pack`.
    Returns:
      The `Contents`: the manifest and the content of result.json. The arrays are not
      returned.
    Raises:
      ValueError: The path is neither a run folder nor a .zip file, or the run is
        unfinished, damaged, altered or too large. The message names the path.
      OSError: A file cannot be read.
    """
    check_path("path", path)
    path = Path(path)
    if not path.exists():
        raise ValueError(
            f"{path} does not exist. Pass a run folder (results/NAME/ID) or its .zip."
        )
    with _named(path):
        files = _of_folder(path) if path.is_dir() else _of_archive(path)
        return _checked(path.name, files)


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Put the path in front of the message of a ValueError.

    The messages that are raised inside the context continue a sentence that starts with
    the path.
    """
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
            raise ValueError(f"has no {file}: {_MAKE}.")
        if hashlib.sha256(files[file]).hexdigest() != digests.get(file):
            raise ValueError(
                f"contains a damaged or altered {file}: its digest differs from the "
                f"one in the {MANIFEST}."
            )
    if manifest["id"] != _id(manifest):
        raise ValueError(
            f"contains a {MANIFEST} that was altered: its id does not match its "
            f"experiment and config; {_AGAIN}."
        )
    return Contents(name, manifest, _json(files, RESULT, check_values))


def _id(manifest: Mapping[str, Any]) -> str:
    try:
        return run_id(manifest["experiment"], manifest["config"])
    except (ValueError, TypeError) as error:
        raise ValueError(f"contains a {MANIFEST} that is not valid: {error}") from error


def _json(
    files: Mapping[str, bytes], name: str, check: Callable[[Any], None]
) -> dict[str, Any]:
    if name not in files:
        raise ValueError(
            f"contains no {name}, so it is not a run. Pass a run folder "
            "(results/NAME/ID) or its .zip."
        )
    try:
        value = parse_json(files[name])
    except ValueError as error:
        reason = str(error).rstrip(".")
        raise ValueError(
            f"contains a {name} that cannot be read: {reason}; {_AGAIN}."
        ) from error
    try:
        check(value)
    except ValueError as error:
        raise ValueError(
            f"contains a {name} that Descent did not write: {error}"
        ) from error
    return value


def _of_folder(
    path: Path, names: Sequence[str] = (MANIFEST, RESULT, ARRAYS)
) -> dict[str, bytes]:
    files = {}
    for name in names:
        if (path / name).is_file():
            _check_size(name, (path / name).stat().st_size)
            files[name] = read_bytes(path / name, LIMITS[name])
    return files


def _of_archive(path: Path) -> dict[str, bytes]:
    size = path.stat().st_size
    if size > sum(LIMITS.values()):
        raise ValueError(
            f"is too large for a run: {size:,} bytes; at most {sum(LIMITS.values()):,} "
            "are accepted."
        )
    if not path.is_file():
        raise ValueError("is a pipe or a device. Pass a regular file.")
    data = read_bytes(path, sum(LIMITS.values()))
    if not data.startswith(_START):
        raise ValueError(
            "is not an archive of a run. Write one with descent pack results/NAME/ID."
        )
    with _legible():
        archive = open_zip(data)
    members = archive.infolist()
    if (
        not members or members[0].header_offset
    ):  # zipfile searches from the end: in a cut file it would find the .npz.
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
    needed = [name for name in LIMITS if name != REPORT]
    if set(files) | {REPORT} != set(LIMITS) or len(files) != len(members):
        raise ValueError(
            f"contains {', '.join(m.filename for m in members)}, but a run has "
            f"{', '.join(needed)}, and perhaps {REPORT}."
        )
    sums = files.pop(SUMS)
    for name in files:
        if f"  {name}\n".encode() not in sums:
            raise ValueError(
                f"contains {name!r}, which its {SUMS} do not list; {_PACK_IT}."
            )
    if sums != _sums(files):
        raise ValueError(f"was altered: its {SUMS} do not match its files; {_AGAIN}.")
    return files


@contextlib.contextmanager
def _legible() -> Iterator[None]:
    """Turn the errors of zipfile into a ValueError about a damaged archive."""
    try:
        yield
    except STUMBLES as error:
        raise ValueError(
            f"is truncated, damaged or altered ({error}); {_AGAIN}."
        ) from error


def _check_member(member: zipfile.ZipInfo) -> None:
    """Check the name, size and storage of a member before it is read.

    A member must be stored uncompressed, so it cannot expand while being read.
    """
    name, advice = member.orig_filename, _PACK_IT
    if (
        name.startswith(("/", "\\"))
        or ".." in name.replace("\\", "/").split("/")
        or ":" in name
    ):
        raise ValueError(
            f"is refused: its member {name!r} points outside the archive. Nothing was "
            "written. Do not unpack it."
        )
    if name not in LIMITS:
        raise ValueError(f"contains {name!r}, which no archive of a run has; {advice}.")
    _check_size(name, max(member.file_size, member.compress_size))
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
        raise ValueError(
            f"contains {name} in compressed or encrypted form, which could expand when "
            f"it is read; {advice}."
        )


def _check_size(name: str, size: int) -> None:
    if size > LIMITS[name]:
        raise ValueError(
            f"is too large for a run: {name} has {size:,} bytes; at most "
            f"{LIMITS[name]:,} are accepted."
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
            )  # Dated 1980, the first year that a .zip can store.
            entry.create_system, entry.external_attr = (
                3,
                0o644 << 16,
            )  # The same bytes on Windows as elsewhere.
            archive.writestr(entry, data)
    return buffer.getvalue()
