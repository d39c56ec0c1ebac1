"""Laws of reproducing: a run comes out again in bits, in digits or within intervals,
and what does not is found and named.
"""

import dataclasses
import hashlib
import json
import shutil

import numpy as np
import pytest

from experiments import __main__ as experiments
from experiments import fit_a_line
from research import cli, files, runs
from research.cli import flags
from research.runs.result import result_bytes

CONFIG = fit_a_line.Config(passes=3)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A finished run of a small experiment."""
    options = flags.Options(results=tmp_path_factory.mktemp("original"), quiet=True)
    return cli.carry_out(fit_a_line, flags.Command(CONFIG, options))[0].path


@pytest.fixture
def run(original, tmp_path):
    """A copy of it, to be spoilt."""
    return shutil.copytree(
        original, tmp_path / "results" / "fit_a_line" / original.name
    )


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def reproduce(what, tmp_path, capsys, *words):
    """The status, the verdict on standard output, and standard error."""
    capsys.readouterr()
    try:
        status = experiments.main(
            [
                "reproduce",
                str(what),
                "--results",
                str(tmp_path / "again"),
                "--quiet",
                *words,
            ]
        )
    except SystemExit as end:
        status = end.code
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def put(run, result, manifest=None):
    """Puts another result into a run folder; with its digests, as one who wants to
    deceive would do it.
    """
    text, arrays = result_bytes(result)
    manifest = manifest or runs.read_manifest(run)
    for name, data in (("result.json", text), ("arrays.npz", arrays)):
        (run / name).write_bytes(data)
        manifest["digests"][name] = hashlib.sha256(data).hexdigest()
    (run / "manifest.json").write_bytes(files.json_bytes(manifest))


def with_flipped_bit(result, name, place, bit):
    """The result with one bit of one array flipped, and the array's new value there."""
    array = result.arrays[name].copy()
    array.reshape(-1).view(np.uint64)[place] ^= np.uint64(1) << np.uint64(bit)
    return result._replace(arrays=result.arrays | {name: array}), array.reshape(-1)[
        place
    ]


def test_run_that_comes_out_again_is_bit_identical(run, tmp_path, capsys):
    before = contents(run)
    status, out, _ = reproduce(run, tmp_path, capsys)
    assert status == 0
    assert out.startswith("Bit-identical: all ")
    assert contents(run) == before
    again = tmp_path / "again/fit_a_line" / run.name
    assert f"new run: {again}" in out
    result, other = runs.load_result(again), runs.load_result(run)
    assert f"all {len(result.arrays)} arrays" in out
    assert {n: a.tobytes() for n, a in result.arrays.items()} == {
        n: a.tobytes() for n, a in other.arrays.items()
    }


def test_run_whose_data_are_missing_is_refused_before_others_take_their_place(
    run, tmp_path, capsys, monkeypatch
):
    instead = lambda config: dataclasses.replace(config, passes=2)
    monkeypatch.setattr(fit_a_line, "complete", instead, raising=False)
    status, out, err = reproduce(run, tmp_path, capsys)
    assert (status, out) == (2, "")
    assert (
        "The run used passes=3, which is missing on this machine. With passes=2" in err
    )
    assert not (tmp_path / "again").exists()


@pytest.mark.on_ci(
    "two reproductions; nothing shorter shows that the second runs again"
)
def test_run_is_reproduced_anew_each_time(run, tmp_path, capsys):
    assert reproduce(run, tmp_path, capsys)[0] == 0
    again = tmp_path / "again/fit_a_line" / run.name
    result = runs.load_result(again)
    put(again, with_flipped_bit(result, "exact", 0, 0)[0])
    status, out, _ = reproduce(run, tmp_path, capsys)
    assert (status, out.startswith("Bit-identical")) == (0, True)


@pytest.mark.thorough("the other bits", but=r"^20\]")
@pytest.mark.parametrize("bit", [0, 20, 52, 63])
def test_one_flipped_bit_of_an_array_is_found_and_named(run, tmp_path, capsys, bit):
    result = runs.load_result(run)
    name = next(name for name in result.arrays if name.endswith("/lines"))
    place = result.arrays[name].size - 1
    value = result.arrays[name].reshape(-1)[place]
    other, there = with_flipped_bit(result, name, place, bit)
    put(run, other)
    status, out, _ = reproduce(run, tmp_path, capsys)
    index = ", ".join(map(str, np.unravel_index(place, result.arrays[name].shape)))
    size = abs(float(there) - float(value))
    assert status == 1
    assert out.startswith(
        f"Not bit-identical: 1 of {len(result.arrays)} arrays and 0 of "
    )
    relative = size / max(abs(there), abs(value))
    assert (
        f"is {size:.2g} (relative {relative:.2g}), in {name}[{index}]: {there!s} there,"
        f" {value!s} here." in out
    )
    assert "So the stored result was changed" in out


@pytest.mark.parametrize("name", ["arrays.npz", "result.json", "manifest.json"])
def test_every_flipped_bit_of_a_stored_file_is_refused_or_changes_the_verdict(
    run, tmp_path, capsys, name
):
    whole = (run / name).read_bytes()
    if name == "manifest.json":  # Of it, the digests.
        places = [
            whole.index(digest.encode()) + 7
            for digest in json.loads(whole)["digests"].values()
        ]
    else:
        places = np.linspace(0, len(whole) - 1, 7, dtype=int)
    for place in places:
        (run / name).write_bytes(
            whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
        )
        status, out, err = reproduce(run, tmp_path, capsys)
        assert (status, out) == (2, "")
        assert "damaged" in err
        assert "python experiments/fit_a_line.py" in err


@pytest.mark.thorough(
    "a changed number; make test changes one in "
    "test_another_environment_is_named_as_the_likely_cause"
)
def test_changed_number_is_found_and_named(run, tmp_path, capsys):
    result = runs.load_result(run)
    put(run, result._replace(numbers=result.numbers | {"n": 308}))
    status, out, _ = reproduce(run, tmp_path, capsys)
    assert status == 1
    assert "0 of" in out
    assert "in n: 308 there, 309 here." in out


@pytest.mark.thorough(
    "a missing array; test_missing_array_is_a_difference_on_either_side "
    "(test_comparison.py) has the law"
)
def test_missing_array_is_found_and_named(run, tmp_path, capsys):
    result = runs.load_result(run)
    put(
        run,
        result._replace(
            arrays={name: a for name, a in result.arrays.items() if name != "exact"}
        ),
    )
    status, out, _ = reproduce(run, tmp_path, capsys)
    assert status == 1
    assert "exact is 'missing' there, 'float64[2]' here." in out


@pytest.mark.on_ci("a whole run; nothing shorter shows this")
def test_another_environment_is_named_as_the_likely_cause(run, tmp_path, capsys):
    result = runs.load_result(run)
    put(run, with_flipped_bit(result, "exact", 1, 0)[0])
    manifest = runs.read_manifest(run)
    manifest["environment"]["versions"]["jax"] = "0.0.1"
    manifest["environment"]["code"] = "0" * 64
    (run / "manifest.json").write_bytes(files.json_bytes(manifest))
    status, out, _ = reproduce(run, tmp_path, capsys)
    assert (status, out.startswith("The same printed digits: all ")) == (0, True)
    assert "Not bit-identical: 1 of " in out
    assert "Likely cause: jax 0.0.1 there" in out
    assert "other code (" in out
    put(
        run,
        result._replace(numbers=result.numbers | {"full_batch_error": 1e-9}),
        manifest=manifest,
    )
    status, out, _ = reproduce(run, tmp_path, capsys)
    assert (status, out.startswith("Does not agree: 1 of ")) == (1, True)


def test_unfinished_and_missing_and_foreign_runs_are_refused(run, tmp_path, capsys):
    manifest = runs.read_manifest(run)
    (run / "manifest.json").write_bytes(
        files.json_bytes(manifest | {"status": "running"})
    )
    assert "its status is 'running'" in reproduce(run, tmp_path, capsys)[2]
    (run / "manifest.json").write_bytes(
        files.json_bytes(manifest | {"experiment": "fit_a_lime"})
    )
    assert "Did you mean fit_a_line?" in reproduce(run, tmp_path, capsys)[2]
    other = manifest | {"config": manifest["config"] | {"passages": 3}}
    (run / "manifest.json").write_bytes(files.json_bytes(other))
    assert "Did you mean passes?" in reproduce(run, tmp_path, capsys)[2]
    assert "run folder" in reproduce(run / "gone", tmp_path, capsys)[2]
    assert not (tmp_path / "again").exists()


def test_run_is_not_reproduced_in_its_own_place(run, tmp_path, capsys):
    before = contents(run)
    status, _, err = reproduce(
        run, tmp_path, capsys, "--results", str(tmp_path / "results")
    )
    assert (status, "would overwrite" in err, "--results" in err) == (2, True, True)
    assert contents(run) == before


# References


@pytest.fixture
def reference(run, tmp_path, monkeypatch):
    """The reference kept of the run, to be spoilt: a function that changes its
    entries.
    """
    monkeypatch.setattr(experiments, "FOLDER", tmp_path / "experiments")
    (tmp_path / "experiments/reference").mkdir(parents=True)
    file = runs.keep(run, tmp_path / "experiments/reference")

    def change(**entries):
        file.write_bytes(files.json_bytes(runs.read_reference(file) | entries))

    return change


@pytest.mark.thorough(
    "one more reproduction; "
    "test_run_without_a_part_that_can_be_left_out_is_reproduced_as_far_as_it_goes "
    "has such a reference"
)
def test_reference_that_comes_out_again_is_bit_identical(reference, tmp_path, capsys):
    status, out, _ = reproduce("fit_a_line", tmp_path, capsys)
    assert status == 0
    assert out.startswith("Bit-identical: the ")
    assert "equal the reference" in out


@pytest.mark.on_ci("a reference; nothing shorter shows this")
def test_reference_with_other_bits_and_the_same_table_is_told_apart(
    reference, tmp_path, capsys
):
    hashes = runs.read_reference(tmp_path / "experiments/reference/fit_a_line.json")[
        "hashes"
    ]
    reference(hashes=hashes | {"exact": "0" * 16})
    status, out, _ = reproduce("fit_a_line", tmp_path, capsys)
    assert (
        status == 0
    )  # What is promised elsewhere than on the same versions and processor.
    assert out.startswith("The same printed digits: all ")
    assert f"1 of {len(hashes)} programs give other bits" in out


@pytest.mark.on_ci(
    "the table of a reference; "
    "test_number_that_lies_in_the_references_interval_agrees has a number of one"
)
def test_reference_with_another_table_is_named_with_the_entry(
    reference, tmp_path, capsys
):
    table = runs.read_reference(tmp_path / "experiments/reference/fit_a_line.json")[
        "table"
    ]
    column = next(
        i for i, value in enumerate(table["rows"][0]) if isinstance(value, float)
    )
    table["rows"][0][column] *= 1.5
    reference(table=table)
    status, out, _ = reproduce("fit_a_line", tmp_path, capsys)
    assert status == 1
    assert out.startswith("Does not agree: 1 of ")
    assert (
        f"in row 1, {table['columns'][column]}: {table['rows'][0][column]!r} there"
        in out
    )


@pytest.mark.thorough(
    "one more reproduction; "
    "test_run_without_a_part_that_can_be_left_out_is_reproduced_as_far_as_it_goes "
    "changes that number too"
)
def test_reference_with_another_number_is_named(reference, tmp_path, capsys):
    numbers = runs.read_reference(tmp_path / "experiments/reference/fit_a_line.json")[
        "numbers"
    ]
    reference(numbers=numbers | {"n": 308})
    status, out, _ = reproduce("fit_a_line", tmp_path, capsys)
    assert (status, "in n: 308 there, 309 here." in out) == (1, True)


@pytest.mark.on_ci("rounding of a reference's number; nothing shorter shows this")
@pytest.mark.thorough("one that is off by more", but=r"^1e-07")
@pytest.mark.parametrize(
    ("off", "status", "kind"),
    [(1e-7, 0, "The same printed digits: 1 of"), (1e-5, 1, "Does not agree: 1")],
)
def test_number_that_is_off_by_rounding_alone_agrees(
    reference, tmp_path, capsys, off, status, kind
):
    numbers = runs.read_reference(tmp_path / "experiments/reference/fit_a_line.json")[
        "numbers"
    ]
    reference(
        numbers=numbers | {"full_batch_error": numbers["full_batch_error"] * (1 + off)}
    )
    found, out, _ = reproduce("fit_a_line", tmp_path, capsys)
    assert (found, out.startswith(kind)) == (status, True)


@pytest.mark.thorough("one outside", but=r"^0\.5")
@pytest.mark.parametrize(
    ("low", "high", "status", "kind"),
    [
        (0.5, 1.5, 0, "Agrees within the interval: 1 of "),
        (1.005, 1.5, 1, "Does not agree: 1 of "),
    ],
)
def test_number_that_lies_in_the_references_interval_agrees(
    reference, tmp_path, capsys, low, high, status, kind
):
    kept = runs.read_reference(tmp_path / "experiments/reference/fit_a_line.json")[
        "numbers"
    ]
    value = kept[
        "full_batch_error"
    ]  # What comes out here; the reference is planted 1 % above it.
    numbers = kept | {"full_batch_error": 1.01 * value}
    reference(
        numbers=numbers, intervals={"full_batch_error": [low * value, high * value]}
    )
    found, out, _ = reproduce("fit_a_line", tmp_path, capsys)
    assert (found, out.startswith(kind)) == (status, True)
    assert f"in full_batch_error: {1.01 * value!r} there, {value!r} here." in out


@pytest.fixture
def emptied(monkeypatch):
    """The experiment, whose config names a second part that is not here."""

    @dataclasses.dataclass(frozen=True)
    class Config(fit_a_line.Config):
        extra: str = ""

    monkeypatch.setattr(fit_a_line, "Config", Config)
    monkeypatch.setattr(
        fit_a_line,
        "complete",
        lambda c: dataclasses.replace(c, extra=""),
        raising=False,
    )


@pytest.mark.on_ci("three reproductions; nothing shorter has a part without data")
def test_run_without_a_part_that_can_be_left_out_is_reproduced_as_far_as_it_goes(
    reference, emptied, run, tmp_path, capsys
):
    kept = runs.read_reference(tmp_path / "experiments/reference/fit_a_line.json")
    kept["manifest"]["config"]["extra"] = "voices"
    more = {
        "numbers": kept["numbers"] | {"voices": 0.75, "heard": [1, 2]},
        "hashes": kept["hashes"] | {"v": "0" * 16},
    }
    reference(manifest=kept["manifest"], **more)
    status, out, _ = reproduce("fit_a_line", tmp_path, capsys)
    assert (status, out.startswith("Bit-identical: the 35 values ")) == (0, True)
    words = (
        "Not reproduced, because of missing data (extra='voices'): 4 values and hashes "
        "of the reference, voices, heard[0], heard[1], v."
    )
    assert words in out
    reference(numbers=more["numbers"] | {"n": 308})
    status, out, _ = reproduce("fit_a_line", tmp_path, capsys)
    assert (status, out.startswith("Does not agree: 1 of 35 "), words in out) == (
        1,
        True,
        True,
    )
    manifest = runs.read_manifest(run)
    manifest["config"]["extra"] = "voices"
    (run / "manifest.json").write_bytes(files.json_bytes(manifest))
    status, out, _ = reproduce(run, tmp_path, capsys)
    assert (
        status,
        "Not reproduced, because of missing data (extra='voices'): 0 values" in out,
    ) == (
        0,
        True,
    )


def test_reference_that_is_missing_or_damaged_is_named(reference, tmp_path, capsys):
    status, _, err = reproduce("decision_boundary", tmp_path, capsys)
    assert (status, "No reference of decision_boundary is stored" in err) == (2, True)
    (tmp_path / "experiments/reference/fit_a_line.json").write_text("{")
    status, _, err = reproduce("fit_a_line", tmp_path, capsys)
    assert (status, "cannot be read as a reference" in err) == (2, True)
