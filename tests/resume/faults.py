"""A disk that fails at one chosen operation: it is full for a moment, or the machine
stops there and then.
"""

import builtins
import errno
import os
from pathlib import Path

from research import files
from research.runs import folder

FULL, CRASH = "full", "crash"


class Crash(BaseException):
    """The end of a process: nothing that comes after it touches the disk any more."""


class Disk:
    """Counts the operations on files below a folder, and fails at one of them.

    Operations are opening for writing (also of a folder, to flush it), writing,
    flushing, renaming, deleting and making folders. A full disk refuses one operation
    and then works again; a write puts half of the bytes down first. After a crash every
    operation crashes, so that nothing is tidied up.
    """

    def __init__(self, monkeypatch, below: Path):
        self.below, self.count, self.at, self.fault, self.names = (
            str(below),
            0,
            None,
            FULL,
            [],
        )
        self.crashed = False
        for name in ("fsync", "replace", "unlink", "rmdir", "mkdir", "open"):
            monkeypatch.setattr(os, name, self._watched(name, getattr(os, name)))
        for module in (files, folder):
            monkeypatch.setattr(module, "open", self._open, raising=False)

    def fail(self, at, fault):
        """From now on: at operation `at`, counted from 1; None for never."""
        self.count, self.at, self.fault, self.crashed, self.names = (
            0,
            at,
            fault,
            False,
            [],
        )

    def step(self, name):
        """Counts one operation; raises where it is the one, or comes after a crash."""
        if self.crashed:
            raise Crash
        self.count += 1
        self.names.append(name)
        if self.count == self.at:
            if self.fault == CRASH:
                self.crashed = True
                raise Crash
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _watched(self, name, real):
        def perform(*words, **options):
            ours = (
                name == "fsync"
                or options.get("dir_fd") is not None
                or str(words[0]).startswith(self.below)
            )
            if ours and not (name == "open" and str(words[0]).endswith(folder.LOCK)):
                self.step(name)
            return real(*words, **options)

        return perform

    def _open(self, path, mode="r"):
        self.step("open")
        return Handle(self, builtins.open(path, mode))


class Handle:
    """An open file whose writes are counted too."""

    def __init__(self, disk, file):
        self.disk, self.file = disk, file

    def write(self, data):
        """Writes all, or half and fails."""
        try:
            self.disk.step("write")
        except (OSError, Crash):
            self.file.write(data[: len(data) // 2])
            self.file.flush()
            raise
        return self.file.write(data)

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.file.close()
