"""Shards give back what was written, each example once a pass, within a small part of the data's memory."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from research.datasets.shards import (
    Shards,
    chunks,
    num_chunks,
    open_shards,
    write_shards,
)

TOP = Path(__file__).parents[2]
SIZES = (5, 3, 7, 1)


def blocks():
    """x[i] = (i, -i) and y[i] = i, so that each example says which it is."""
    starts = np.cumsum((0, *SIZES))
    for start, size in zip(starts, SIZES, strict=False):
        i = np.arange(start, start + size)
        yield np.stack([i, -i], axis=1).astype(np.float32), i.astype(np.int32)


@pytest.fixture
def folder(tmp_path):
    return write_shards(tmp_path / "shards", blocks())


def test_what_was_written_is_mapped_and_not_writable(folder):
    shards = open_shards(folder, verify=True)
    assert shards.num_examples == sum(SIZES)
    for x, y, (x_written, y_written) in zip(shards.x, shards.y, blocks(), strict=True):
        np.testing.assert_array_equal(x, x_written)
        np.testing.assert_array_equal(y, y_written)
        assert isinstance(x, np.memmap)
        assert (x.dtype, y.dtype, x.flags.writeable) == (np.float32, np.int32, False)


@pytest.mark.parametrize("chunk_size", [1, 4, 5, 16])
def test_pass_has_each_example_once_with_its_target_but_for_a_last_part_of_a_chunk(
    folder, chunk_size
):
    shards = open_shards(folder)
    seen = list(chunks(shards, 0, chunk_size))
    assert len(seen) == num_chunks(shards, chunk_size) == 16 // chunk_size
    assert {x.shape for x, _ in seen} == {(chunk_size, 2)}
    x, y = (np.concatenate(column) for column in zip(*seen, strict=True))
    np.testing.assert_array_equal(x, np.stack([y, -y], axis=1))
    assert len(set(y.tolist())) == len(y) == 16 // chunk_size * chunk_size


def order(shards, seed, epoch):
    return np.concatenate([y for _, y in chunks(shards, seed, 4, epoch=epoch)]).tolist()


def test_order_is_of_seed_and_epoch_alone(folder):
    shards = open_shards(folder)
    orders = {
        (seed, epoch): order(shards, seed, epoch)
        for seed in range(2)
        for epoch in range(3)
    }
    assert len(set(map(tuple, orders.values()))) == 6
    assert all(order(shards, *key) == found for key, found in orders.items())


def test_shards_are_shuffled_and_within_them_too(folder):
    shards = open_shards(folder)
    starts = np.cumsum((0, *SIZES))[:-1]
    passes = [order(shards, 0, epoch) for epoch in range(300)]
    assert {found[0] for found in passes} == set(
        range(16)
    )  # Any example of any shard may come first.
    for found in passes:  # And yet an example comes beside others of its shard.
        shard = np.searchsorted(starts, found, "right")
        assert np.count_nonzero(np.diff(shard)) == len(SIZES) - 1


def test_chunk_size_out_of_range_is_refused(folder):
    for chunk_size in (0, 17):
        with pytest.raises(
            ValueError,
            match=f"chunk_size must be 1 to the 16 examples that there are; got {chunk_size}",
        ):
            next(chunks(open_shards(folder), 0, chunk_size))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (
            (np.ones((2, 2), np.float64), np.ones(2, np.int32)),
            r"Block 1 has x of float64\[2\].*first block float32\[2\]",
        ),
        (
            (np.ones((2, 3), np.float32), np.ones(2, np.int32)),
            r"Block 1 has x of float32\[3\]",
        ),
        ((np.ones((2, 2), np.float32), np.ones(2)), r"Block 1 has y of float64\[\]"),
        (
            (np.ones((2, 2), np.float32), np.ones(3, np.int32)),
            r"Block 1 must hold .* one target each; .*\(2, 2\).*\(3,\)",
        ),
        (
            (np.ones((0, 2), np.float32), np.ones(0, np.int32)),
            "Block 1 must hold at least one example",
        ),
    ],
)
def test_block_that_does_not_fit_is_refused_and_the_folder_is_not_finished(
    tmp_path, bad, words
):
    with pytest.raises(ValueError, match=words):
        write_shards(tmp_path / "s", [next(blocks()), bad])
    with pytest.raises(
        FileNotFoundError,
        match=r"s has no manifest\.json: it holds no shards, or writing them was stopped",
    ):
        open_shards(tmp_path / "s")


def test_folder_of_something_else_and_no_blocks_are_refused(folder, tmp_path):
    with pytest.raises(
        ValueError, match="is not empty; shards want a folder of their own"
    ):
        write_shards(folder, blocks())
    with pytest.raises(ValueError, match="blocks is empty"):
        write_shards(tmp_path / "none", [])


def test_damage_is_told_at_once_or_when_verified(folder):
    path = folder / "00002-x.npy"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"x")
    open_shards(folder)  # Reads no data.
    with pytest.raises(
        ValueError,
        match=rf"{re.escape(str(path))} is damaged: its sha256 is [0-9a-f]{{64}}, and should be",
    ):
        open_shards(folder, verify=True)
    path.write_bytes(content[:-1])
    with pytest.raises(ValueError, match=r"00002-x\.npy is cut off"):
        open_shards(folder)
    path.write_bytes((folder / "00001-x.npy").read_bytes())
    with pytest.raises(ValueError, match="has 3 examples, and the manifest 7"):
        open_shards(folder)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"00002-x\.npy is missing"):
        open_shards(folder)


def test_manifest_of_another_kind_is_refused(folder):
    (folder / "manifest.json").write_text(json.dumps({"format": "shards 2"}))
    with pytest.raises(
        ValueError, match=r"manifest\.json is no manifest .*'shards 2', not 'shards 1'"
    ):
        open_shards(folder)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"format": "shards 1"}', '{"format": "shards 1", "shards": [3]}'],
)
def test_manifest_that_is_damaged_is_named(folder, text):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(
        ValueError,
        match=r"manifest\.json is no manifest of shards, or damaged .*Write the shards anew",
    ):
        open_shards(folder)


def test_slices_of_shards_give_what_they_hold_and_no_more(folder):
    whole = open_shards(folder)
    part = Shards(
        tuple(x[:2] for x in whole.x), tuple(y[:2] for y in whole.y), 2 * len(whole.x)
    )
    seen = np.concatenate([y for _, y in chunks(part, 0, 1)])
    assert sorted(seen.tolist()) == sorted(np.concatenate(part.y).tolist())


def test_what_numpys_format_cannot_hold_and_a_folder_in_use_are_refused(tmp_path):
    block = np.zeros(3, jnp.bfloat16), np.zeros(3)
    with pytest.raises(
        ValueError, match=r"x of bfloat16, which numpy's format cannot hold"
    ):
        write_shards(tmp_path / "a", [block])

    def blocks():
        with pytest.raises(
            ValueError, match="is not empty"
        ):  # As another process finds it.
            write_shards(tmp_path / "b", [(np.zeros(2), np.zeros(2))])
        yield np.zeros(3), np.zeros(3)

    assert open_shards(write_shards(tmp_path / "b", blocks())).num_examples == 3


# 64 MB of examples of 4 kB in shards of 4 MB, fed in chunks of 4 MB to the training step that takes any data set; how
# far the process's largest memory rises beyond what it is after the first chunk. The control reads all at once.
TRAINS = """
import resource, sys
from pathlib import Path
import jax, jax.numpy as jnp, numpy as np, optax
from research import descent, losses, models, objectives
from research.datasets.shards import chunks, open_shards
from research.types import Batch

def peak():
    status = Path("/proc/self/status")
    if not status.exists():  # macOS, which counts bytes.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return int(next(line for line in status.read_text().splitlines() if line.startswith("VmHWM")).split()[1]) / 1024

shards = open_shards(Path(sys.argv[1]))
model = models.linear(1024, scale=0.0, dtype=jnp.float32)
objective, rule = objectives.empirical_risk(model, losses.squared_error), optax.sgd(0.001)

@jax.jit
def train(state, x, y, indices):
    step = descent.build(objective, rule, Batch(x, y)).step
    return jax.lax.scan(step, state, descent.BatchIndices(indices))

state = descent.build(objective, rule, None).init(model.init(jax.random.key(0)))
indices = np.arange(1024).reshape(32, 32)
first, last = peak(), 0.0
for number, (x, y) in enumerate(chunks(shards, 0, 1024)):
    state, record = train(state, x, y, indices)
    last = float(record.loss[-1])
    if number == 0:
        first, loss = peak(), float(record.loss[0])
rise = peak() - first
everything = [np.array(x) for x in shards.x]
print(number + 1, rise, peak() - first, loss, last)
"""


def test_training_on_64_megabytes_takes_a_few_more_than_on_four(tmp_path):
    random = np.random.default_rng(0)
    weights = random.standard_normal(1024).astype(np.float32) / 32
    x = (random.standard_normal((1024, 1024), np.float32) for _ in range(16))
    folder = write_shards(
        tmp_path / "shards", ((block, block @ weights) for block in x)
    )
    done = subprocess.run(
        [sys.executable, "-c", TRAINS, str(folder)],
        capture_output=True,
        text=True,
        check=True,
        cwd=TOP,
    )
    num_chunks, rise, rise_of_all, first_loss, last_loss = map(
        float, done.stdout.split()
    )
    assert num_chunks == 16
    assert rise < 16 < 48 < rise_of_all  # Megabytes.
    assert last_loss < 0.5 * first_loss
