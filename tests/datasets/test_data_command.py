"""The command lists, fetches and verifies; the folder that a flag names is no part of
what a run is.
"""

import dataclasses
import os
import sys

import pytest

from research import cli, datasets, runs
from research.cli import commands
from research.cli.data import data
from research.datasets.sources import SOURCES

RIGHT, WRONG = b"the right bytes", b"other bytes"


def command(*words):
    with cli.errors_in_one_line():
        return data(words)


@pytest.fixture
def few(pretend):
    """A table of three rows: one to be had, one not, one of scikit-learn."""
    mine = pretend(
        "cifar10",
        {"a.bin": RIGHT, "b.bin": RIGHT + RIGHT},
        urls=("http://127.0.0.1:9/",),
    )
    others = (
        SOURCES["mnist"]._replace(system=""),
        mine._replace(name="digits", files=()),
    )
    before = dict(SOURCES)
    SOURCES.clear()
    SOURCES.update({source.name: source for source in (mine, *others)})
    yield
    SOURCES.clear()
    SOURCES.update(before)


@pytest.mark.usefixtures("few")
def test_list_says_where_each_set_is(capsys, given):
    assert command() == 0
    listed = capsys.readouterr().out
    assert "missing; to download it: descent data fetch cifar10" in listed
    assert "in scikit-learn" in listed
    (given / "a.bin").write_bytes(RIGHT)
    command("list", "cifar10")
    assert (
        "incomplete; to download it: descent data fetch cifar10"
        in capsys.readouterr().out
    )
    (given / "b.bin").write_bytes(RIGHT + RIGHT)
    command("list", "cifar10")
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].endswith(str(given))
    assert "mnist" not in " ".join(lines)


@pytest.mark.on_ci(
    "all data sets; test_list_says_where_each_set_is lists three, but not how wide"
)
def test_list_of_all_fits_80_columns(capsys):
    assert commands.main(["data"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    for source in datasets.SOURCES.values():
        assert f"  {source.what}" in lines


@pytest.mark.usefixtures("few")
def test_verify_reads_every_copy_and_names_the_wrong_one(capsys, given, cache):
    assert command("verify") == 0
    assert capsys.readouterr().out == "None of these files is on this machine.\n"
    (cache / "cifar10").mkdir(parents=True)
    for folder in (given, cache / "cifar10"):
        (folder / "a.bin").write_bytes(RIGHT)
    assert command("verify") == 0
    assert "All 2 files on this machine are correct." in capsys.readouterr().out
    (cache / "cifar10" / "a.bin").write_bytes(WRONG)
    assert command("verify", "cifar10") == 1
    out, err = capsys.readouterr()
    assert f"cifar10: {cache / 'cifar10' / 'a.bin'}: WRONG" in out
    assert "Correct files: 1. Wrong files: 1." in out
    assert err.startswith(
        f"error: {cache / 'cifar10' / 'a.bin'} is damaged, or it is another file: "
        "sha256 "
    )
    assert (cache / "cifar10" / "a.bin").read_bytes() == WRONG


@pytest.mark.usefixtures("few")
def test_fetch_says_where_it_is_and_goes_on_after_one_that_fails(capsys, given):
    for name, content in (("a.bin", RIGHT), ("b.bin", RIGHT + RIGHT)):
        (given / name).write_bytes(content)
    assert command("fetch", "cifar10", "digits") == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith(f"cifar10: {given} (licence: ")
    assert out[1].startswith("digits: comes with scikit-learn")
    (given / "b.bin").unlink()
    with pytest.raises(SystemExit, match="2"):
        command("fetch", "cifar10", "digits")
    out, err = capsys.readouterr()
    assert out.startswith("digits: comes with")
    assert err.splitlines()[0].startswith(
        "error: cifar10 needs b.bin, which is missing"
    )
    assert err.splitlines()[-1] == "error: 1 of 2 sets could not be fetched: cifar10."


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["fech"], "Unknown action `data fech`. Did you mean fetch?"),
        (
            ["fetch", "fashion_minst"],
            "Unknown data set 'fashion_minst'. Did you mean fashion_mnist?",
        ),
        (["verify", "xyz"], "Unknown data set 'xyz'. Choose from diabetes,"),
        (["fetch"], "data fetch needs the names of data sets, or all"),
        (
            ["--data-dir", "nowhere"],
            "--data-dir must be an existing folder with data; got 'nowhere'.",
        ),
    ],
)
def test_bad_input_is_one_line(capsys, words, expected):
    with pytest.raises(SystemExit, match="2"):
        command(*words)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {expected}")


def test_data_dir_of_a_run_is_where_it_looks_and_not_in_its_id(tmp_path):
    seen = []

    def run(config, on_progress, checkpoints):
        seen.append(os.environ["DESCENT_DATA"])
        return runs.Result("It ran.", (), {}, {})

    @dataclasses.dataclass(frozen=True)
    class Config:
        """Of the toy."""

        seed: int = 0

    module = type(sys)("toy", "Does it?")
    module.__dict__.update(
        run=run,
        Config=Config,
        FULL=Config(),
        draw=lambda result: {},
        __file__=str(tmp_path / "toy.py"),
    )
    (tmp_path / "toy.py").touch()
    paths = []
    for words in ([], ["--data-dir", str(tmp_path)]):
        parsed = cli.flags.parse(
            module,
            ["--results", str(tmp_path / "results"), "--quiet", "--fresh", *words],
        )
        paths.append(cli.carry_out(module, parsed)[0].path)
    assert seen == ["", str(tmp_path)]
    assert paths[0] == paths[1]
