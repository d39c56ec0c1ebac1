"""Data larger than memory: shards on the disk, mapped into memory, and handed out in chunks that fit."""

import hashlib
import json
import math
import os
import re
import reprlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from research.checks import (
    check_count,
    check_flag,
    check_instance,
    check_path,
    check_real,
    shown,
)
from research.reading import Is, check_shape, parse_json, read_bytes
from research.reading.arrays import read_npy_head

MANIFEST, FORMAT = "manifest.json", "shards 1"
CHUNK = 1 << 20
MOST_BYTES, LONGEST_HEAD = (
    2**28,
    2**16,
)  # Of the manifest, and of the head of an array's file.
_EXAMPLES = Is((int,), lambda count: 1 <= count < 2**53, "a positive integer")
SHAPE = {"format": str, "shards": [{"examples": _EXAMPLES, "sha256": {str: str}}]}


class Shards(NamedTuple):
    """A data set in pieces, on the disk until it is read.

    Attributes:
      x, y: One array a shard, memory-mapped and not writable, of shapes (m, ...) and (m, ...).
      num_examples: In all shards.
    """

    x: tuple[np.ndarray, ...]
    y: tuple[np.ndarray, ...]
    num_examples: int


def write_shards(
    folder: str | Path, blocks: Iterable[tuple[np.ndarray, np.ndarray]]
) -> Path:
    """Writes blocks of examples, a shard each, one at a time in memory.

    A shard is two files of numpy's own format, NNNNN-x.npy and NNNNN-y.npy. The manifest has the number of examples of
    each, and the sha256 of each file; it is written last, so that a folder without one is not finished.

    Args:
      folder: It is made; it must be empty or not exist.
      blocks: (x, y) of shapes (m, ...) and (m, ...), m >= 1; m may differ, the rest and the dtypes may not.
    Returns:
      The folder.
    Raises:
      ValueError: The folder is not empty, there is no block, or one does not fit the first.
      OSError: The folder cannot be written.
    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as top:
      ...     blocks = ((np.full((4, 2), k), np.full(4, k)) for k in range(3))
      ...     shards = open_shards(write_shards(Path(top, "shards"), blocks))
      ...     len(shards.x), shards.num_examples, shards.x[2][0].tolist()
      (3, 12, [2, 2])
    """
    check_path("folder", folder)
    if isinstance(blocks, str | bytes | dict) or not isinstance(blocks, Iterable):
        raise TypeError(
            f"blocks must be pairs (x, y) of arrays; got blocks={shown(blocks)}."
        )
    folder = Path(folder)
    check_empty(folder)
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{MANIFEST}.partial"
    try:
        manifest = partial.open(
            "x", encoding="utf-8"
        )  # From here on the folder is this process's.
    except FileExistsError:
        raise ValueError(
            f"Another process writes shards into {folder}; name another folder."
        ) from None
    with manifest:
        rows = _write_blocks(folder, blocks)
        json.dump({"format": FORMAT, "shards": rows}, manifest, indent=1)
        manifest.flush()
        os.fsync(manifest.fileno())
    os.replace(partial, folder / MANIFEST)
    return folder


def check_empty(folder: Path) -> None:
    """Refuses a folder for shards that holds something."""
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(
            f"{folder} is not empty; shards want a folder of their own. Name another, or empty it."
        )


def _write_blocks(
    folder: Path, blocks: Iterable[tuple[np.ndarray, np.ndarray]]
) -> list[dict[str, Any]]:
    """What the manifest says of each shard."""
    rows, first = [], None
    for number, (x, y) in enumerate(blocks):
        x, y = np.asarray(x), np.asarray(y)
        _check_block(number, x, y, first or (x, y))
        first = (x[:0], y[:0]) if first is None else first
        names = [f"{number:05d}-x.npy", f"{number:05d}-y.npy"]
        for name, array in zip(names, (x, y), strict=True):
            with (folder / name).open("wb") as file:
                np.save(file, array, allow_pickle=False)
                os.fsync(file.fileno())  # Before the manifest says that it is there.
        rows.append(
            {
                "examples": len(x),
                "sha256": {name: _digest(folder / name) for name in names},
            }
        )
    if not rows:
        raise ValueError(
            f"blocks is empty: {folder} would hold nothing. Give at least one (x, y)."
        )
    return rows


def _check_block(
    number: int, x: np.ndarray, y: np.ndarray, first: tuple[np.ndarray, np.ndarray]
) -> None:
    if x.ndim == 0 or y.ndim == 0 or len(x) != len(y) or not len(x):
        raise ValueError(
            f"Block {number} must hold at least one example, with one target each; got x of shape {x.shape} and y of shape "
            f"{y.shape}."
        )
    for name, array, model in (("x", x, first[0]), ("y", y, first[1])):
        if array.dtype.kind not in "biufcSU":
            raise ValueError(
                f"Block {number} has {name} of {array.dtype}, which numpy's format cannot hold; cast it (astype('float32'))."
            )
        if (array.shape[1:], array.dtype) != (model.shape[1:], model.dtype):
            raise ValueError(
                f"Block {number} has {name} of {array.dtype}{list(array.shape[1:])} an example, and the first block "
                f"{model.dtype}{list(model.shape[1:])}. Give all blocks the same shape and dtype."
            )


def open_shards(folder: str | Path, *, verify: bool = False) -> Shards:
    """Maps shards into memory: nothing is read before it is used, and what was read may leave memory again.

    Args:
      folder: From `write_shards`.
      verify: Whether to read every file once, and compare it with its sha256.
    Returns:
      The shards.
    Raises:
      FileNotFoundError: The folder has no manifest, or a shard is missing.
      ValueError: The manifest is of another kind, or a shard is not what the manifest says.
    """
    check_path("folder", folder)
    check_flag("verify", verify)
    folder = Path(folder)
    if not (folder / MANIFEST).is_file():
        raise FileNotFoundError(
            f"{folder} has no {MANIFEST}: it holds no shards, or writing them was stopped. Write them anew."
        )
    columns: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for num_examples, files in _read_manifest(folder / MANIFEST):
        for column, (name, sha256) in zip(columns, files, strict=True):
            column.append(
                _mapped(folder / name, num_examples, sha256 if verify else None)
            )
            if (column[-1].shape[1:], column[-1].dtype) != (
                column[0].shape[1:],
                column[0].dtype,
            ):
                raise ValueError(
                    f"{folder / name} has other examples than the first shard. Write the shards anew."
                )
    return Shards(tuple(columns[0]), tuple(columns[1]), sum(map(len, columns[1])))


def _read_manifest(path: Path) -> list[tuple[int, list[tuple[str, str]]]]:
    """Of each shard the number of examples, and the name and sha256 of its two files."""
    try:
        manifest = parse_json(read_bytes(path, MOST_BYTES))
        check_shape(manifest, {"format": str}, "the manifest")
        if manifest["format"] != FORMAT:
            raise ValueError(
                f"its format is {reprlib.repr(manifest['format'])}, not {FORMAT!r}"
            )
        check_shape(manifest, SHAPE, "the manifest")
        shards = [
            (row["examples"], list(row["sha256"].items())) for row in manifest["shards"]
        ]
        if not shards:
            raise ValueError("it names no shard")
        for _, files in shards:  # A name could point out of the folder.
            if not re.fullmatch(
                r"([0-9]{5,})-x\.npy \1-y\.npy", " ".join(name for name, _ in files)
            ):
                raise ValueError(
                    f"a shard has the files {reprlib.repr(files)}, not 00000-x.npy and 00000-y.npy or the like"
                )
    except ValueError as problem:
        raise ValueError(
            f"{path} is no manifest of shards, or damaged ({problem}). Write the shards anew."
        ) from problem
    return shards


def _mapped(path: Path, num_examples: int, sha256: str | None) -> np.ndarray:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing, which the manifest beside it names. Write the shards anew."
        )
    if sha256 and (found := _digest(path)) != sha256:
        raise ValueError(
            f"{path} is damaged: its sha256 is {found}, and should be {sha256}. Write the shards anew."
        )
    try:
        with path.open("rb") as file:
            shape = read_npy_head(file.read(LONGEST_HEAD), path.stat().st_size, "it")[0]
    except ValueError as problem:
        raise ValueError(
            f"{path} is cut off or no array of numpy's: {problem}. Write the shards anew."
        ) from problem
    if not shape:
        raise ValueError(
            f"{path} is cut off or no array of numpy's: it has no axis of examples. Write the shards anew."
        )
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if len(array) != num_examples:
        raise ValueError(
            f"{path} has {len(array)} examples, and the manifest {num_examples}. Write the shards anew."
        )
    return array


def _digest(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            found.update(chunk)
    return found.hexdigest()


def chunks(
    shards: Shards, seed: int, chunk_size: int, *, epoch: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """One pass over the data in chunks of one size: shards come in random order, and are shuffled within.

    Two shards that follow each other share a chunk where the one ends in it. An example is near others of its shard, so
    the blocks that were written should each look like the whole; the mixing is best with small shards. At any time one
    shard and one chunk are in memory. What is left at the end and fills no chunk is left out of this pass; the
    order is another in the next.

    Args:
      shards: From `open_shards`.
      seed: Chooses the orders, together with the epoch.
      chunk_size: Examples a chunk, 1 to all that there are.
      epoch: Which pass; each has its own order, and needs no earlier one.
    Yields:
      x and y of one chunk, of shapes (chunk_size, ...), the caller's own.
    Raises:
      ValueError: chunk_size is out of range.
    Example:
      >>> shards = Shards((np.arange(4), np.arange(4, 6)), (np.arange(4), np.arange(4, 6)), 6)
      >>> sorted(int(i) for x, y in chunks(shards, 0, 3) for i in x)
      [0, 1, 2, 3, 4, 5]
    """
    check_instance(
        "shards", shards, Shards, "Open some by research.datasets.open_shards(folder)."
    )
    check_count("seed", seed, 0)
    check_real("chunk_size", chunk_size)
    check_count("epoch", epoch, 0)
    if not 1 <= chunk_size <= shards.num_examples:
        raise ValueError(
            f"chunk_size must be 1 to the {shards.num_examples} examples that there are; got {chunk_size}."
        )
    random = np.random.default_rng([seed, epoch])
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    filled = 0
    for k in random.permutation(len(shards.x)):
        x, y = _own_map(shards.x[k]), _own_map(shards.y[k])
        order = random.permutation(len(x))
        while len(order):
            taken, order = order[: chunk_size - filled], order[chunk_size - filled :]
            parts.append((x[taken], y[taken]))
            filled += len(taken)
            if filled == chunk_size:
                yield _joined(parts)
                parts, filled = [], 0


def num_chunks(shards: Shards, chunk_size: int) -> int:
    """How many chunks a pass has.

    Example:
      >>> num_chunks(Shards((), (), 10), 3)
      3
    """
    return math.floor(shards.num_examples / chunk_size)


def _own_map(array: np.ndarray) -> np.ndarray:
    """The same file mapped once more: the pages that are read leave memory with this map, at the shard's end."""
    if isinstance(array, np.memmap) and array.filename is not None:
        whole = np.load(array.filename, mmap_mode="r", allow_pickle=False)
        if (whole.shape, whole.dtype, whole.strides) == (
            array.shape,
            array.dtype,
            array.strides,
        ):
            return whole  # A slice keeps the file's name, and is not the file.
    return array


def _joined(
    parts: list[tuple[np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray]:
    if len(parts) == 1:
        return parts[0]
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])
