"""Checkpoints of a run: small files of arrays and JSON with digests.

The latest and the previous save of each checkpoint are kept.
"""

import contextlib
import hashlib
import os
import re
import shutil
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from research.checks import (
    check_callable,
    check_instance,
    check_mapping,
    check_methods,
    check_numbers,
    check_path,
    check_text,
)
from research.files import (
    canonical,
    explained,
    json_bytes,
    npz_bytes,
    write_atomically,
)
from research.reading import check_shape, parse_json, read_bytes
from research.reading.arrays import read_npz
from research.types import Checkpoint, Checkpoints, Saved

SECONDS_BETWEEN = 10.0  # About how much work a killed process loses.
LARGEST_SHARE = 0.05  # Maximum share of time for saving; a slow save delays the next.
GENERATIONS = 2
MOST_BYTES = 2**36  # Maximum size of a file that is read.
RERUN = "Rerun the same command when it can."
KEPT = f"{RERUN[:-1]}, or delete it to use the save before it."
LONGEST = 100  # Maximum number of characters of a name in its folder's name.


def checkpoints_in(
    folder: str | Path, seconds_between: float = SECONDS_BETWEEN
) -> Checkpoints:
    """Return a function that opens the checkpoint with a given name in a folder.

    A checkpoint stores the progress of a long computation, to resume it later. It has
    the functions `save`, `load` and `due`. Each checkpoint has its own folder. Each
    save writes <number>.npz with the arrays and <number>.json with the other values.
    The JSON file is written last, and contains a digest of the arrays and the values.
    Therefore an interrupted save is recognised and ignored. Each save gets the next
    number. The last two saves stay in the folder. If the last save is damaged, `load`
    returns the previous save and gives a warning.

    A checkpoint "x/y" is a part of the checkpoint "x". When "x" is saved, all parts of
    "x" are deleted.

    Args:
      folder: Folder of all checkpoints. The first save creates the folder.
      seconds_between: Number of seconds until the next save is due. When a save is due,
        the function `due` of each checkpoint returns True. The seconds are counted from
        the end of the last save of any checkpoint, or from the call of `checkpoints_in`
        if nothing was saved since. If the last save took d seconds, and 20 d is more
        than `seconds_between`, the next save is due after 20 d seconds. With math.inf,
        no save is ever due.
    Returns:
      Function from a name to the Checkpoint with this name. A name may contain any
      characters. The character "/" separates the name of a part from the name of the
      whole.
    Raises:
      TypeError: folder is not a path, or seconds_between is not a number.
      ValueError: folder is empty or contains a NUL character, or seconds_between is
        negative or NaN.
    Example:
      >>> import tempfile
      >>> import numpy as np
      >>> checkpoints = checkpoints_in(tempfile.mkdtemp())
      >>> checkpoints("adam").save(Saved({"weights": np.arange(3)}, {"epoch": 7}))
      >>> checkpoints("adam").load()
      Saved(arrays={'weights': array([0, 1, 2])}, values={'epoch': 7})
      >>> checkpoints("adam, mini-batch").load() is None
      True
    """
    check_path("folder", folder)
    check_numbers(
        "seconds_between", seconds_between, ndim=0, wanted="a number of seconds"
    )
    if not seconds_between >= 0:  # NaN fails too.
        raise ValueError(
            "seconds_between must be at least 0, or math.inf if no save is ever due; "
            f"got seconds_between={seconds_between}."
        )
    folder, next_save = Path(folder), time.monotonic() + seconds_between

    def checkpoint(name: str) -> Checkpoint:
        check_text("name", name)
        own = folder.joinpath(*map(_file_name, name.split("/")))
        damaged: set[int] = set()

        def save(saved: Saved) -> None:
            check_instance(
                "saved", saved, Saved, "Write research.types.Saved(arrays, values)."
            )
            check_mapping("saved.arrays", saved.arrays, "names to arrays")
            nonlocal next_save
            start = time.monotonic()
            _save(own, name, saved, damaged)
            end = time.monotonic()
            next_save = end + max(seconds_between, (end - start) / LARGEST_SHARE)

        return Checkpoint(
            lambda: _load(own, name, damaged),
            save,
            lambda: time.monotonic() >= next_save,
        )

    return checkpoint


def remembered(
    checkpoints: Checkpoints, name: str, compute: Callable[[Checkpoints], Saved]
) -> Saved:
    """Load a result from its checkpoint, or compute the result and save it there.

    A result that was saved is not computed again, even if the run was interrupted and
    resumed in between.

    Args:
      checkpoints: Function from a name to the Checkpoint with this name.
      name: Name of the checkpoint of the result.
      compute: Function that computes the result and returns a `Saved`. It gets one
        argument, a function from a name to a Checkpoint. `compute` may save parts of
        the result in such checkpoints, under names of its choice. These checkpoints are
        deleted when the whole result is saved.
    Returns:
      The result, a `research.types.Saved` with arrays and JSON values.
    Example:
      >>> import tempfile
      >>> checkpoints = checkpoints_in(tempfile.mkdtemp())
      >>> def compute(parts):
      ...     print("computing")
      ...     return Saved({}, 42)
      >>> [remembered(checkpoints, "answer", compute).values for _ in range(2)]
      computing
      [42, 42]
    """
    check_callable("checkpoints", checkpoints, "name")
    check_text("name", name)
    check_callable("compute", compute, "checkpoints")
    checkpoint = checkpoints(name)
    check_methods("the result of checkpoints", checkpoint, "load", "save", "due")
    saved = checkpoint.load()
    if saved is None:
        saved = compute(lambda part: checkpoints(f"{name}/{part}"))
        checkpoint.save(saved)
    return saved


def _save(folder: Path, name: str, saved: Saved, damaged: set[int]) -> None:
    with explained(
        f"Cannot make {folder}", lambda: "Everything saved so far is intact."
    ):
        folder.mkdir(parents=True, exist_ok=True)
    numbers = _numbers(folder)
    number = max(numbers, default=0) + 1
    arrays = npz_bytes(saved.arrays)
    text = _text(name, arrays, saved.values)
    write_atomically(folder / f"{number:06d}.npz", arrays)
    write_atomically(folder / f"{number:06d}.json", text)
    good = [before for before in sorted(numbers) if before not in damaged]
    for old in {*numbers} - {*good[-(GENERATIONS - 1) :]}:
        with contextlib.suppress(OSError):  # The next save tries again to delete it.
            for suffix in (
                "json",
                "npz",
            ):  # The JSON first: without it, the checkpoint does not count.
                (folder / f"{old:06d}.{suffix}").unlink(missing_ok=True)
    for part in folder.iterdir():
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)


def _load(folder: Path, name: str, damaged: set[int]) -> Saved | None:
    """Load the newest intact checkpoint.

    The numbers of damaged checkpoints are added to `damaged`. The next save deletes
    these checkpoints.
    """
    for number in sorted(_numbers(folder), reverse=True):
        file = folder / f"{number:06d}.json"
        try:
            return _read(file, name)
        except (FileNotFoundError, ValueError) as error:
            damaged.add(number)
            before = (
                "The previous checkpoint is used."
                if number > min(_numbers(folder))
                else "This part is computed again."
            )
            warnings.warn(
                f"The checkpoint {folder / f'{number:06d}.npz'} is damaged ({error}). "
                f"{before}",
                stacklevel=3,
            )
        except OSError:
            # The file may be intact: a disk may be away for a moment. If it counted as
            # damaged, the next save would delete it.
            with explained(f"Cannot read {file}", lambda: KEPT):
                raise
    return None


def _read(file: Path, name: str) -> Saved:
    text, arrays = (
        read_bytes(file, MOST_BYTES),
        read_bytes(file.with_suffix(".npz"), MOST_BYTES),
    )
    found = parse_json(text)
    check_shape(found, {"name": str, "digest": str}, "the checkpoint")
    values = found.get("values")
    if text != _text(name, arrays, values):
        raise ValueError("its digest differs")
    return Saved(read_npz(arrays), values)


def _numbers(folder: Path) -> list[int]:
    """Return the numbers of all saves that were completed."""
    try:
        files = [Path(name) for name in os.listdir(folder)]  # glob hides errors.
    except FileNotFoundError:
        return []
    except OSError:
        with explained(f"Cannot read {folder}", lambda: RERUN):
            raise
    return [
        int(file.stem)
        for file in files
        if file.suffix == ".json" and re.fullmatch("[0-9]{6}|[1-9][0-9]{6,}", file.stem)
    ]


def _text(name: str, arrays: bytes, values: Any) -> bytes:
    """Return the content of the JSON file, with a digest of name, values and arrays.

    A changed bit in the values or in the arrays changes the digest.
    """
    digest = hashlib.sha256(f"{name}\n{canonical(values, name)}\n".encode())
    digest.update(arrays)
    return json_bytes(
        {"name": name, "digest": digest.hexdigest(), "values": values}, name
    )


def _file_name(part: str) -> str:
    """Return a part of a name as a folder name.

    A part with characters that a file system might refuse is shortened and gets a hash.
    """
    plain = re.sub(r"[^A-Za-z0-9_+-]+", "-", part)[
        :LONGEST
    ]  # Dots are replaced: 000001.json is the name of a checkpoint file.
    return (
        part
        if part and plain == part
        else f"{plain}-{hashlib.sha256(part.encode()).hexdigest()[:8]}"
    )
