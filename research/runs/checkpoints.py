"""Checkpoints of a run: small files of arrays and JSON, each with its digest, the one
before it kept beside it."""

import contextlib
import hashlib
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
from research.reading import check_shape, parse_json, read_bytes
from research.reading.arrays import read_npz
from research.runs.files import (
    canonical,
    explained,
    json_bytes,
    npz_bytes,
    write_atomically,
)
from research.types import Checkpoint, Checkpoints, Saved

SECONDS_BETWEEN = 10.0  # What a kill may cost, about.
LARGEST_SHARE = (
    0.05  # Of the time, for saving: where a save is slow, the next one comes later.
)
GENERATIONS = 2
MOST_BYTES = 2**36  # That are read of a file.
LONGEST = 100  # Characters of a name that its folder shows.


def checkpoints_in(
    folder: str | Path, seconds_between: float = SECONDS_BETWEEN
) -> Checkpoints:
    """Checkpoints by name, each in a folder of its own: <number>.npz with the arrays,
    <number>.json with the rest.

    The JSON file is written last and holds the digest of both, so a save that was cut
    short counts as none. Each save has the next number; the one before it is kept, and
    used where the last is damaged, which a warning says. Saving x deletes the
    checkpoints of its parts, x/anything.

    Args:
      folder: Where they lie; it is made with the first save.
      seconds_between: How long after a save (of any name) the next is due; at least 20
        times what the last one took.
    Returns:
      name -> Checkpoint. Names may have any characters; "/" separates a part from what
        it is a part of.
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
    """What `compute` gives, from its checkpoint where there is one: a piece of a run
    that is computed once.

    Args:
      checkpoints: Where it is kept.
      name: Of the piece.
      compute: Called with checkpoints for its own parts, which are deleted when the
        whole is saved.
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
    check_methods("what checkpoints gives", checkpoint, "load", "save", "due")
    saved = checkpoint.load()
    if saved is None:
        saved = compute(lambda part: checkpoints(f"{name}/{part}"))
        checkpoint.save(saved)
    return saved


def _save(folder: Path, name: str, saved: Saved, damaged: set[int]) -> None:
    with explained(f"Cannot make {folder}", lambda: "What had been saved is whole."):
        folder.mkdir(parents=True, exist_ok=True)
    numbers = _numbers(folder)
    number = max(numbers, default=0) + 1
    arrays = npz_bytes(saved.arrays)
    text = _text(name, arrays, saved.values)
    write_atomically(folder / f"{number:06d}.npz", arrays)
    write_atomically(folder / f"{number:06d}.json", text)
    good = [before for before in sorted(numbers) if before not in damaged]
    for old in {*numbers} - {*good[-(GENERATIONS - 1) :]}:
        with contextlib.suppress(OSError):  # The next save tries again.
            for suffix in (
                "json",
                "npz",
            ):  # In this order: without its JSON a number counts as never written.
                (folder / f"{old:06d}.{suffix}").unlink(missing_ok=True)
    for part in folder.iterdir():
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)


def _load(folder: Path, name: str, damaged: set[int]) -> Saved | None:
    """The newest that is whole; the numbers of those that are not join `damaged`, and
    go with the next save."""
    for number in sorted(_numbers(folder), reverse=True):
        try:
            return _read(folder / f"{number:06d}.json", name)
        except (OSError, ValueError) as error:
            damaged.add(number)
            before = (
                "The one before it is used."
                if number > min(_numbers(folder))
                else "This part is computed again."
            )
            warnings.warn(
                f"The checkpoint {folder / f'{number:06d}.npz'} is damaged ({error}). "
                f"{before}",
                stacklevel=3,
            )
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
        raise ValueError("its digest is another")
    return Saved(read_npz(arrays), values)


def _numbers(folder: Path) -> list[int]:
    """Of all saves that were not cut short."""
    return [
        int(file.stem)
        for file in folder.glob("*.json")
        if re.fullmatch("[0-9]{6}", file.stem)
    ]


def _text(name: str, arrays: bytes, values: Any) -> bytes:
    """What the JSON file holds: one flipped bit of it, or of the arrays, and it is
    another text."""
    digest = hashlib.sha256(f"{name}\n{canonical(values, name)}\n".encode())
    digest.update(arrays)
    return json_bytes(
        {"name": name, "digest": digest.hexdigest(), "values": values}, name
    )


def _file_name(part: str) -> str:
    """The part of a name itself, or, where a file system might not take it, what is
    left of it and a hash."""
    plain = re.sub(r"[^A-Za-z0-9_+-]+", "-", part)[
        :LONGEST
    ]  # No dot: 000001.json is a checkpoint's own.
    return (
        part
        if part and plain == part
        else f"{plain}-{hashlib.sha256(part.encode()).hexdigest()[:8]}"
    )
