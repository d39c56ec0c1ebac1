"""Reader of the binary version of CIFAR-10."""

from pathlib import Path

import numpy as np
from jaxtyping import Int32, UInt8

from research.datasets.tar import files_in

TRAINING = tuple(f"data_batch_{k}.bin" for k in range(1, 6))
TEST = ("test_batch.bin",)
RECORD = 1 + 3 * 32 * 32


def read_cifar10(
    path: Path,
) -> tuple[
    UInt8[np.ndarray, "n 32 32 3"],
    Int32[np.ndarray, "n"],
    UInt8[np.ndarray, "m 32 32 3"],
    Int32[np.ndarray, "m"],
]:
    """Read the images and labels of cifar-10-binary.tar.gz without extracting it.

    The archive has five files of training images and one file of test images. Each file
    is a sequence of records. A record has one byte with the label, 1,024 bytes of red,
    1,024 bytes of green and 1,024 bytes of blue. The pixels are stored row by row.

    Args:
      path: Path of the archive.
    Returns:
      Four arrays: the training images (uint8, shape (n, 32, 32, 3)), the training
      labels (int32, shape (n,)), the test images (uint8, shape (m, 32, 32, 3)) and the
      test labels (int32, shape (m,)).
    Raises:
      ValueError: The archive is truncated, lacks one of the six files, or a file does
        not consist of whole records.
      OSError: The archive cannot be read.
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
            f"{path} lacks {', '.join(missing)}: it is not the archive of the binary "
            "version. Fetch that archive."
        )
    return (*_records(path, found, TRAINING), *_records(path, found, TEST))


def _records(
    path: Path, found: dict[str, np.ndarray], names: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray]:
    for name in names:
        if found[name].size % RECORD or not found[name].size:
            raise ValueError(
                f"{name} in {path} has {found[name].size:,} bytes, which is not a "
                f"multiple of {RECORD:,}: it is truncated. Fetch the archive again."
            )
    records = np.concatenate([found[name] for name in names]).reshape(-1, RECORD)
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), records[:, 0].astype(np.int32)
