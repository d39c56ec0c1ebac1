"""Laws of records: what is written is read, or an error says what changed; and training
from a disk gives the bits of training from memory.
"""

import os
import shutil
import sys
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import larger_than_memory
from research import (
    descent,
    losses,
    models,
    objectives,
    records,
    runs,
    samplers,
    update_rules,
)
from research.descent import _train, _train_records
from research.runs import checkpoints
from research.types import Batch, Records, Sequences

COMPILE_QUICKLY = True  # tests/conftest.py

GENERATOR = np.random.default_rng(0)
FILES = (records.EXAMPLES, records.CHECKSUMS, records.ABOUT)


def drawn(dtype, *shape):
    return (GENERATOR.integers(0, 100, shape) / 7).astype(dtype)


def taken(dataset, rows):
    return jax.tree.map(lambda a: a[rows], dataset)


def pieces_of(dataset, size) -> Iterator[Batch]:
    for start in range(0, len(dataset.y), size):
        yield jax.tree.map(lambda a, i=start: np.asarray(a)[i : i + size], dataset)


DATASETS = {
    "bytes": Batch(drawn(np.uint8, 7, 3, 2), drawn(np.int32, 7)),
    "scalars": Batch(drawn(np.float64, 7), drawn(bool, 7)),
    "sequences": Batch(
        Sequences(drawn(np.float32, 7, 5, 2), drawn(np.int16, 7)), drawn(complex, 7, 4)
    ),
    "no targets": Batch(drawn(np.float16, 7, 2), np.zeros((7, 0))),
}


@pytest.mark.parametrize("size", [1, 3, 7])
@pytest.mark.parametrize("name", DATASETS)
def test_read_returns_what_was_written_in_the_order_asked_for(name, size, tmp_path):
    dataset = DATASETS[name]
    opened = records.write_records(tmp_path / "set", pieces_of(dataset, size))
    again = records.open_records(str(tmp_path / "set"))
    assert (again.num_examples, again.digest) == (7, opened.digest)
    for indices in ([], [6], [4, 4, 0], np.arange(7)[::-1].astype(np.uint8)):
        rows = np.asarray(indices, int)
        found, wanted = again.read(indices), taken(dataset, rows)
        assert jax.tree.structure(found) == jax.tree.structure(wanted)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


def test_arrays_in_the_other_order_of_bytes_are_the_same_records(tmp_path):
    native = Batch(np.arange(6.0), np.arange(6, dtype=np.int32))
    swapped = Batch(native.x.astype(">f8"), native.y.astype(">i4"))
    own = records.write_records(tmp_path / "own", [native])
    other = records.write_records(tmp_path / "other", [swapped])
    assert other.digest == own.digest
    found = other.read([4, 0])
    np.testing.assert_array_equal(found.x, [4.0, 0.0])
    assert (found.x.dtype, found.y.dtype) == (native.x.dtype, native.y.dtype)


def test_digest_depends_on_every_example_dtype_and_shape_alone(tmp_path):
    x, y = DATASETS["bytes"][:2]
    other = x.copy()
    other[6, 2, 1] ^= 1
    sets = [Batch(x, y), Batch(x, y), Batch(other, y), Batch(x.reshape(7, 6), y)]
    sets += [Batch(x.view(np.int8), y), Batch(x[::-1], y[::-1])]
    digests = [
        records.write_records(tmp_path / str(i), pieces_of(s, 2 + i)).digest
        for i, s in enumerate(sets)
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) == len(sets) - 1


@pytest.fixture
def folder(tmp_path):
    records.write_records(tmp_path / "set", [DATASETS["bytes"]])
    return tmp_path / "set"


@pytest.mark.parametrize("file", FILES)
def test_a_changed_file_gives_an_error_that_names_it_or_the_original(file, folder):
    """A bit, a cut, an addition, another file, none: never another number."""
    original = (folder / file).read_bytes()
    middle = len(original) // 2
    changed = [None, b"", original[:middle], original[:-1], original + b"0"]
    changed += [bytes(len(original)), original[::-1]]
    for place in GENERATOR.integers(0, len(original), 60).tolist():
        flipped = bytearray(original)
        flipped[place] ^= 1 << int(GENERATOR.integers(8))
        changed.append(bytes(flipped))
    refused = []
    for data in changed:
        (folder / file).unlink(missing_ok=True)
        if data is not None:
            (folder / file).write_bytes(data)
        try:
            found = records.open_records(folder).read(np.arange(7))
        except (ValueError, OSError) as error:
            refused.append(str(error))
        else:  # Only the padding of ArrayRecord's blocks may change.
            np.testing.assert_array_equal(found.x, DATASETS["bytes"].x)
    assert len(refused) >= 7
    assert all(file in message for message in refused)


def test_an_example_of_another_dataset_is_named(folder, tmp_path):
    """The file is a valid one of the same size, as only the checksums can tell."""
    x, y = DATASETS["bytes"][:2]
    other = x.copy()
    other[3] += 1
    records.write_records(tmp_path / "other", [Batch(other, y)])
    shutil.copy(tmp_path / "other" / records.EXAMPLES, folder / records.EXAMPLES)
    opened = records.open_records(folder)
    assert len(opened.read([0, 6]).y) == 2
    with pytest.raises(ValueError, match=r"has changed since .*: example 3 differs"):
        opened.read([0, 3])


@pytest.mark.parametrize(
    ("indices", "error", "words"),
    [
        ([0, 7], ValueError, r"must lie in 0\.\.6; got 7"),
        ([-1], ValueError, r"must lie in 0\.\.6; got -1"),
        ([0.5], TypeError, "integers"),
        (3, TypeError, "indices=3"),
        ([[1]], TypeError, r"shape \(m,\)"),
    ],
)
def test_wrong_indices_are_refused(folder, indices, error, words):
    with pytest.raises(error, match=words):
        records.open_records(folder).read(indices)


X, Y = np.ones((3, 2)), np.ones(3)


@pytest.mark.parametrize(
    ("pieces", "error", "words"),
    [
        ([], ValueError, "no examples"),
        ([Batch(X[:0], Y[:0])], ValueError, "no examples"),
        (Batch(X, Y), TypeError, r"Write \[batch\]"),
        (3, TypeError, "pieces=3"),
        ([(X, Y)], TypeError, r"pieces\[0\]"),
        ([Batch(X, Y), Batch(X, Y[:2])], ValueError, r"pieces\[1\].*same number"),
        ([Batch(X, Y), Batch(X[:, :1], Y)], ValueError, r"pieces\[1\] .*\[1\].*\[2\]"),
        ([Batch(X, Y), Batch(X, Y.astype(int))], ValueError, r"pieces\[1\] .*int64"),
        ([Batch(X, [1.0, 2.0, 3.0])], TypeError, r"y of pieces\[0\]"),
        ([Batch({"a": X}, Y)], TypeError, r"x of pieces\[0\]"),
        ([Batch(X.astype(str), Y)], TypeError, "numbers"),
        ([Batch(X, Y, jax.random.key(0))], ValueError, "key"),
        ([Batch(np.float64(1), Y)], ValueError, "first axis"),
    ],
)
def test_wrong_pieces_are_refused_and_leave_nothing(pieces, error, words, tmp_path):
    with pytest.raises(error, match=words):
        records.write_records(tmp_path / "set", pieces)
    assert not list(tmp_path.iterdir())


def test_writing_keeps_what_exists_and_leaves_nothing_when_it_stops(folder, tmp_path):
    def stopped():
        yield DATASETS["bytes"]
        raise KeyboardInterrupt

    before = {file: (folder / file).read_bytes() for file in FILES}
    with pytest.raises(ValueError, match=r"set'? exists"):
        records.write_records(folder, [DATASETS["bytes"]])
    with pytest.raises(KeyboardInterrupt):
        records.write_records(tmp_path / "new", stopped())
    with pytest.raises(OSError, match="no"):
        records.write_records(tmp_path / "no" / "set", [DATASETS["bytes"]])
    assert {file: (folder / file).read_bytes() for file in FILES} == before
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize("method", ["write", "close"])
def test_a_full_disk_is_an_error_and_leaves_nothing(method, tmp_path, monkeypatch):
    class Full:
        def __init__(self, path, options):
            open(path, "wb").close()

        def write(self, record):
            self.fail("write")

        def close(self):
            self.fail("close")

        def fail(self, now):
            if now == method:
                raise RuntimeError("No space left on device")

    module = type("Module", (), {"ArrayRecordWriter": Full})
    monkeypatch.setattr(records, "_array_record", lambda: module)
    with pytest.raises(OSError, match=r"Cannot write .*: No space left"):
        records.write_records(tmp_path / "set", [DATASETS["bytes"]])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["grain", "array_record"])
def test_a_missing_package_is_named(package, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    for name in [n for n in sys.modules if n.startswith(f"{package}.")]:
        monkeypatch.setitem(sys.modules, name, None)
    windows = _train_records.Windows(lambda rows: None, np.zeros((4, 1), int), 2)
    with pytest.raises(ImportError, match="pip install grain"):
        windows.at(0) if package == "grain" else records.open_records(folder)


@pytest.mark.on_ci("many windows; the trainings from a disk use them")
def test_windows_hold_the_steps_in_order_and_few_are_read_ahead():
    order = GENERATOR.permutation(52).reshape(26, 2)
    count = []
    windows = _train_records.Windows(lambda rows: count.append(0) or rows, order, 3)
    for step in (*range(4), *range(11, 26), 2):  # On, after a gap, and back.
        window, end = windows.at(step)
        place = step % 3 * 2
        np.testing.assert_array_equal(window[place : place + 2], order[step])
        assert (len(window), end) == (6, step // 3 * 3 + 3)
    windows, count = _train_records.Windows(windows._read, order, 1), count
    count.clear()
    for step in range(20):
        windows.at(step)
        most = _train_records.AHEAD + _train_records.THREADS
        assert len(count) <= step + 1 + most


MODEL = models.mlp((3, 4, 2), activation="tanh", dtype=jnp.float32)
OBJECTIVE = objectives.empirical_risk(MODEL, losses.softmax_cross_entropy)
DATA = Batch(
    GENERATOR.normal(size=(20, 3)).astype(np.float32),
    GENERATOR.integers(0, 2, 20).astype(np.int32),
)
PARAMS = jax.tree.map(
    lambda leaf: jnp.full(leaf.shape, 0.1, leaf.dtype),
    jax.eval_shape(MODEL.init, jax.random.key(0)),
)


def noisy(params, batch):
    kept = jax.random.uniform(batch.key, batch.x.shape, jnp.float32) < 0.5
    return OBJECTIVE(params, batch._replace(x=jnp.where(kept, batch.x, 0)))


def fit(dataset, rule=None, sampler=None, objective=noisy, **options):
    options = {"num_epochs": 2, "params": PARAMS, "key": jax.random.key(1)} | options
    return descent.train(
        objective,
        rule or update_rules.adam(0.05),
        dataset,
        sampler or samplers.minibatch(20, 4),
        **{"noisy": True, **options},
    )


def bits(trained):
    return runs.hash_arrays(*jax.tree.leaves((trained.params, trained.steps)))


@pytest.fixture
def written(tmp_path, monkeypatch):
    """DATA on a disk; a window holds two of the five steps of an epoch."""
    monkeypatch.setattr(_train_records, "WINDOW_BYTES", 2 * 4 * 16)
    return records.write_records(tmp_path / "data", pieces_of(DATA, 7))


class KilledError(Exception):
    pass


@pytest.mark.on_ci("four trainings; nothing shorter shows this")
def test_training_from_a_disk_has_the_bits_of_memory_also_after_a_kill(
    written, tmp_path, monkeypatch
):
    whole = bits(fit(DATA))
    monkeypatch.setattr(checkpoints, "LARGEST_SHARE", float("inf"))
    monkeypatch.setattr(_train, "FIRST_LOOK", 1)
    monkeypatch.setattr(_train, "SECONDS_BETWEEN_LOOKS", 0.0)
    programs = {}
    compiling = _train.compile_on_records

    def once(objective, rule, dataset, *words, **keywords):
        if dataset.digest not in programs:
            programs[dataset.digest] = compiling(
                objective, rule, dataset, *words, **keywords
            )
        return programs[dataset.digest]

    monkeypatch.setattr(_train, "compile_on_records", once)
    kept, looks = runs.checkpoints_in(tmp_path / "kept", 0.0)("data"), []

    def kill(share, words):
        looks.append(share)
        if len(looks) == 7:  # In a window of the second epoch.
            raise KilledError

    with pytest.raises(KilledError):
        fit(written, checkpoint=kept, on_progress=kill)
    assert bits(fit(written, checkpoint=kept)) == whole

    other = DATA._replace(x=DATA.x + np.float32(2.0**-20))
    changed = records.write_records(tmp_path / "other", [other])
    with pytest.raises(ValueError, match="belongs to another training"):
        fit(changed, checkpoint=kept)


def test_a_file_that_changes_between_kill_and_resume_is_refused(written, tmp_path):
    other = records.write_records(
        tmp_path / "other", [DATA._replace(x=DATA.x + np.float32(1))]
    )
    os.replace(
        os.path.join(other.name, records.EXAMPLES),
        os.path.join(written.name, records.EXAMPLES),
    )
    with pytest.raises(ValueError, match="has changed since it was written: example"):
        fit(records.open_records(written.name))


def test_what_needs_the_whole_dataset_is_refused(written):
    for rule in (update_rules.svrg(0.1, 3), update_rules.saga(0.1, 20)):
        with pytest.raises(ValueError, match="asks for other examples than those of"):
            fit(written, rule)
    with pytest.raises(ValueError, match=r"full batch .* on a disk"):
        fit(written, sampler=samplers.full_batch(20))
    with pytest.raises(ValueError, match="num_examples=19, but the dataset has 20"):
        fit(written, sampler=samplers.minibatch(19, 4))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"read": lambda rows: Batch(X, Y)}, ValueError, "returned 3 examples for 4"),
        ({"read": lambda rows: 1}, TypeError, "dataset must be"),
        ({"read": 1}, TypeError, "dataset.read"),
        ({"num_examples": 20.0}, ValueError, "dataset.num_examples"),
        ({"digest": None}, TypeError, "dataset.digest"),
        ({"name": 1}, TypeError, "dataset.name"),
    ],
)
def test_wrong_records_are_refused(change, error, words):
    valid = Records(20, lambda rows: DATA, "0", "mine")
    with pytest.raises(error, match=words):
        fit(valid._replace(**change))


@pytest.mark.on_ci("a wrong class in a later window; nothing shorter shows this")
def test_targets_of_every_window_are_checked(written, tmp_path):
    """One wrong class, in the last window of the first epoch."""
    sampler = samplers.minibatch(20, 4)
    order = sampler.indices(jax.random.fold_in(jax.random.key(1), 0))
    y = DATA.y.copy()
    y[np.asarray(order)[-1, -1]] = 2
    wrong = records.write_records(tmp_path / "wrong", [DATA._replace(y=y)])
    with pytest.raises(
        ValueError, match=r"(?s)labels must .*2 at index .*\(Among .*wrong"
    ):
        fit(wrong, objective=OBJECTIVE, noisy=False)


@pytest.mark.thorough(
    "a training; test_training_from_a_disk_has_the_bits_of_memory_also_after_a_kill "
    "has the law"
)
def test_a_folder_that_was_there_before_is_not_deleted(tmp_path, capsys):
    mine = tmp_path / "examples" / "mine"
    mine.parent.mkdir()
    mine.touch()
    with pytest.raises(SystemExit):
        larger_than_memory.main(["--folder", str(tmp_path), "--gigabytes", "0.01"])
    assert mine.exists()
    assert "examples exists. Choose another --folder" in capsys.readouterr().err


@pytest.mark.on_ci("a small form of a benchmark; the other tests have its parts")
def test_small_form_of_the_dataset_larger_than_memory(tmp_path, monkeypatch):
    """As `python -m benchmarks.larger_than_memory`, with 3 MB in windows of 0.8 MB."""
    monkeypatch.setattr(_train_records, "WINDOW_BYTES", 800_000)
    n, size = 250, 32
    opened = records.write_records(tmp_path / "set", larger_than_memory.generated(n))
    disk, memory = (
        larger_than_memory.trained_on(dataset, n, size)
        for dataset in (opened, larger_than_memory.in_memory(opened))
    )
    assert disk["hash"] == memory["hash"]
    assert disk["examples"] == 224
