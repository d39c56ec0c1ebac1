"""Speech Commands: too many recordings for the memory of a small machine, so they become shards of log-mel frames."""

import os
import re
import tempfile
from pathlib import Path

import numpy as np

from research.checks import check_count, check_path, check_text
from research.datasets._log_mel import log_mel
from research.datasets.finding import find_files, find_source
from research.datasets.shards import check_empty, write_shards
from research.datasets.tar import files_in
from research.datasets.wav import read_wav
from research.datasets.wheel import as_text

RATE = 16000
LISTS = {"validation": "validation_list.txt", "test": "testing_list.txt"}
PARTS = ("training", *LISTS)
NAME = re.compile(r"(?:\./)?([a-z]+/[^/]+\.wav)")  # Not those of _background_noise_.


def write_speech_commands(
    folder: Path, part: str = "training", *, block_size: int = 2048, seed: int = 0
) -> tuple[str, ...]:
    """Writes a part of Speech Commands v0.02 as shards: `log_mel` of each recording, and which word it is.

    Each recording is padded with 0, or cut, to one second: 98 frames of 40 bands, float32. Its place among the shards is
    drawn, so that each shard looks like the whole. The parts are the archive's own, by speaker: training is what neither
    list names. One recording is in memory at a time, and the archive, of 2.4 GB, is not unpacked; the disk must hold the
    part twice for a while (1.3 GB for training).

    Args:
      folder: For `research.datasets.write_shards`.
      part: "training" (84,843 recordings), "validation" (9,981) or "test" (11,005).
      block_size: Recordings a shard.
      seed: Chooses their places.
    Returns:
      The words, sorted: the label k of a recording means word k.
    Raises:
      ValueError: part is unknown, a file is damaged, or the folder is not empty.
      OSError: The archive is not here and cannot be fetched; the message says what brings it.
    References:
      Warden (2018), Speech Commands: a dataset for limited-vocabulary speech recognition, arXiv:1804.03209.
    """
    check_path("folder", folder)
    check_text("part", part)
    check_count("block_size", block_size)
    check_count("seed", seed, 0)
    if part not in PARTS:
        raise ValueError(
            f"There is no part {part!r}: part must be one of {', '.join(PARTS)}."
        )
    check_empty(Path(folder))
    path = find_files(find_source("speech_commands", "write_speech_commands"))[0]
    words, names = _names(path, part)
    places = dict(
        zip(names, np.random.default_rng(seed).permutation(len(names)), strict=True)
    )
    labels = np.empty(len(names), np.int32)
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder.parent) as partial:
        shape = (len(names), *log_mel(np.zeros(RATE), RATE).shape)
        mixed = np.lib.format.open_memmap(
            Path(partial, "mixed.npy"), "w+", np.float32, shape
        )
        if hasattr(
            os, "posix_fallocate"
        ):  # On a full disk a write through the map would kill the process.
            with Path(partial, "mixed.npy").open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
        for member, content in files_in(path, lambda member: _named(member) in places):
            name = _named(member)
            wave = read_wav(content, RATE, f"{name} in {path}")[:RATE]
            mixed[places[name]] = log_mel(np.pad(wave, (0, RATE - len(wave))), RATE)
            labels[places[name]] = words.index(name.partition("/")[0])
        starts = range(0, len(names), block_size)
        write_shards(
            folder,
            ((mixed[i : i + block_size], labels[i : i + block_size]) for i in starts),
        )
    return words


def _named(member: str) -> str:
    match = NAME.fullmatch(member)
    return match[1] if match else ""


def _names(path: Path, part: str) -> tuple[tuple[str, ...], list[str]]:
    """The words, and the recordings of a part, sorted."""
    names, lists = [], {}

    def is_list(member: str) -> bool:
        names.extend(
            filter(None, [_named(member)])
        )  # Every file's name is asked for; their bytes are not read.
        return Path(member).name in LISTS.values()

    for member, content in files_in(path, is_list):
        lists[Path(member).name] = set(as_text(content, f"{member} in {path}").split())
    missing = [name for name in LISTS.values() if name not in lists]
    if missing:
        raise ValueError(
            f"{path} lacks {missing[0]}: it is not the archive of Speech Commands v0.02. Fetch that one."
        )
    listed = set().union(*lists.values())
    wanted = (
        (lambda name: name not in listed)
        if part == "training"
        else lists[LISTS[part]].__contains__
    )
    chosen = sorted(set(filter(wanted, names)))
    if not chosen:
        raise ValueError(
            f"{path} has no recording of the part {part}: it is another archive. Fetch the right one."
        )
    return tuple(sorted({name.partition("/")[0] for name in names})), chosen
