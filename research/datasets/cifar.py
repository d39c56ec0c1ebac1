"""The binary version of CIFAR-10, read from its archive."""

from pathlib import Path

import numpy as np

from research.datasets.tar import files_in

TRAINING = tuple(f"data_batch_{k}.bin" for k in range(1, 6))
TEST = ("test_batch.bin",)
RECORD = 1 + 3 * 32 * 32


def read_cifar10(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Reads the images and labels of cifar-10-binary.tar.gz, without unpacking it onto the disk.

    A record is the label, then 1,024 bytes of red, of green and of blue, each row by row.

    Args:
      path: The archive.
    Returns:
      Training images (n, 32, 32, 3) uint8 and labels (n,) int32, then those of the test part.
    Raises:
      ValueError: The archive is cut off, lacks one of the six files, or one has not the length of whole records.
      OSError: It cannot be read.
    References:
      Krizhevsky, The CIFAR-10 dataset: "Binary version".
    """
    wanted = lambda name: Path(name).name in TRAINING + TEST
    found = {
        Path(name).name: np.frombuffer(content, np.uint8)
        for name, content in files_in(path, wanted)
    }
    missing = [name for name in TRAINING + TEST if name not in found]
    if missing:
        raise ValueError(
            f"{path} lacks {', '.join(missing)}: it is not the archive of the binary version. Fetch that one."
        )
    return (*_records(path, found, TRAINING), *_records(path, found, TEST))


def _records(
    path: Path, found: dict[str, np.ndarray], names: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray]:
    for name in names:
        if found[name].size % RECORD or not found[name].size:
            raise ValueError(
                f"{name} in {path} has {found[name].size:,} bytes, no multiple of {RECORD:,}: it is cut off."
            )
    records = np.concatenate([found[name] for name in names]).reshape(-1, RECORD)
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), records[:, 0].astype(np.int32)
