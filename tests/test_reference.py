"""Laws of the kept reference: it is small, and holds what the run found."""

import copy
import dataclasses
import json
import math
import types
from pathlib import Path

import numpy as np
import pytest

from docs import gallery
from experiments import __main__ as experiments
from experiments import _pictures as pictures
from research import cli, figures, runs
from research.verification.cards import FORMULAS

RESULT = runs.Result("Dots.", (), {}, {})


@dataclasses.dataclass(frozen=True)
class Config:
    seed: int = 0


def finished(folder, rows=1):
    table = runs.Table(
        "Costs", ("regime", "passes"), (("full batch", 1 / 3), ("stochastic", None))
    )
    numbers = {
        "ratio": 0.97,
        "ratios": [0.5, 2.0],
        "table": {"a": 1},
        "first_in_seconds": "full batch",
    }
    arrays = {
        f"w/r/{i}/{name}": np.arange(i + 3.0)
        for i in range(rows)
        for name in ("gaps", "passes")
    }
    arrays |= {
        "w/r/0/seconds": np.arange(rows),
        "compile_seconds": np.arange(2.0),
    }  # Have no hash.
    result = runs.Result("Full batch.", (table,), arrays, numbers)
    return runs.finish(runs.open_run("toy", Config(), folder), result).path


def test_reference_holds_answer_table_numbers_and_hashes(tmp_path):
    reference = json.loads(
        runs.keep(finished(tmp_path / "results"), tmp_path).read_text()
    )
    assert reference["answer"] == "Full batch."
    assert reference["table"]["rows"] == [["full batch", 0.3333], ["stochastic", None]]
    assert reference["numbers"] == {
        "ratio": 0.97,
        "ratios": [0.5, 2.0],
        "first_in_seconds": "full batch",
    }
    assert reference["hashes"] == {
        "w/r/0": runs.hash_arrays(np.arange(3.0), np.arange(3.0))[:16]
    }
    assert reference["manifest"]["environment"]["versions"]["jax"]


def costs_run(folder, cost):
    """A run whose table has one number."""
    table = runs.Table("Costs", ("regime", "passes"), (("full batch", cost),))
    run = runs.open_run("toy", Config(), folder, fresh=True)
    return runs.finish(run, runs.Result("Full batch.", (table,), {}, {})).path


def test_number_agrees_with_the_reference_that_it_may_be_rounded_to(tmp_path):
    # 2.0625 is halfway between 2.062 and 2.063; a table of a reference has four digits.
    for there in (2.0625, math.nextafter(2.0625, 3)):
        file = runs.keep(costs_run(tmp_path, there), tmp_path)
        reference = runs.read_reference(file)
        printed = reference["table"]["rows"][0][1]
        assert printed == (2.062 if there == 2.0625 else 2.063)
        for here in (2.0625, math.nextafter(2.0625, 3), 2.0627):
            found = runs.hold_against(reference, costs_run(tmp_path, here))
            assert found.agrees == (abs(here - printed) < 0.000501), (there, here)


def test_reference_that_is_too_large_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(ValueError, match="at most 20,000"):
        runs.keep(finished(tmp_path / "results", rows=1000), tmp_path)
    assert not (tmp_path / "toy.json").exists()


def test_reference_of_rules_has_a_row_for_every_rule():
    """The page of all rules is built from it, so a new rule needs a new reference."""
    folder = Path(experiments.__file__).parent / "reference"
    table = json.loads((folder / "rules.json").read_text("utf-8"))["table"]
    assert {row[0] for row in table["rows"]} == set(FORMULAS)


def test_keep_without_a_run_folder_says_what_it_takes(capsys, tmp_path):
    with pytest.raises(SystemExit, match="2"):
        experiments.main(["keep"])
    assert "the following arguments are required: run" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        experiments.main(["keep", str(tmp_path)])
    assert "run folder" in capsys.readouterr().err


def test_keep_takes_one_of_its_two_flags(capsys):
    with pytest.raises(SystemExit, match="2"):
        experiments.main(["keep", "toy", "--only-picture", "--from-reference"])
    assert "not allowed with argument" in capsys.readouterr().err


@pytest.fixture
def drawing():
    """(number of random dots) -> an experiment that draws them, as a module."""

    def drawing(dots, figure=None):
        def draw(result):
            made, axes = figures.new_figure()
            axes[0, 0].scatter(*np.random.default_rng(0).normal(size=(2, dots)))
            return {"dots": figures.Picture("Dots", "Dots & <x>.", figure or made)}

        return types.SimpleNamespace(__name__="experiments.toy", draw=draw)

    return drawing


@pytest.mark.on_ci("many dots", but="few")
@pytest.mark.parametrize(
    ("dots", "suffix"), [(10, ".svg"), (5000, ".png")], ids=["few", "many"]
)
def test_picture_is_small_and_has_its_caption(drawing, tmp_path, dots, suffix):
    (tmp_path / "toy.svg").write_text("an earlier one")
    (tmp_path / "toy.png").write_text("an earlier one")
    file = pictures.keep_picture(drawing(dots), RESULT, tmp_path)
    assert file == tmp_path / f"toy{suffix}"
    assert [*tmp_path.iterdir()] == [file]
    assert file.stat().st_size <= pictures.LARGEST
    assert gallery.description(file) == "Dots & <x>."


def test_picture_that_is_the_text_of_an_svg_file_is_kept_with_its_caption(
    drawing, tmp_path
):
    text = '<svg xmlns="http://www.w3.org/2000/svg" width="9"><g/></svg>'
    file = pictures.keep_picture(drawing(1, text), RESULT, tmp_path)
    assert gallery.description(file) == "Dots & <x>."
    assert file.read_text().startswith('<svg xmlns="http://www.w3.org/2000/svg" width')


def test_picture_that_is_too_large_is_refused_and_nothing_is_written(drawing, tmp_path):
    text = f"<svg >{'<g/>' * pictures.LARGEST}</svg>"
    with pytest.raises(ValueError, match="the picture of toy would have 400,"):
        pictures.keep_picture(drawing(1, text), RESULT, tmp_path)
    assert not [*tmp_path.iterdir()]


def test_only_the_picture_of_a_run_that_agrees_with_the_reference_is_kept(
    drawing, tmp_path, monkeypatch, capsys
):
    run = finished(tmp_path / "results")
    monkeypatch.setattr(experiments, "FOLDER", tmp_path)
    monkeypatch.setattr(experiments, "load", lambda name: drawing(10))
    (tmp_path / "reference").mkdir()
    assert experiments.main(["keep", str(run)]) == 0
    file = tmp_path / "reference/toy.json"
    before = file.read_bytes()
    assert capsys.readouterr().out.split() == [str(file), str(file.with_suffix(".svg"))]
    assert experiments.main(["keep", str(run), "--only-picture"]) == 0
    assert file.read_bytes() == before
    file.write_bytes(before.replace(b"0.97", b"0.96"))
    file.with_suffix(".svg").unlink()
    with pytest.raises(SystemExit, match="2"):
        experiments.main(["keep", str(run), "--only-picture"])
    assert "does not agree with the stored reference" in capsys.readouterr().err
    assert not file.with_suffix(".svg").exists()


@pytest.mark.on_ci(
    "two runs; test_picture_that_is_too_large_is_refused_and_nothing_is_written has "
    "the refusal, without the command"
)
def test_picture_that_cannot_be_drawn_leaves_reference_and_picture_as_they_were(
    drawing, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(experiments, "FOLDER", tmp_path)
    monkeypatch.setattr(experiments, "load", lambda name: drawing(10))
    (tmp_path / "reference").mkdir()
    path = costs_run(tmp_path / "results", 1.0)
    assert experiments.main(["keep", str(path)]) == 0
    before = {file: file.read_bytes() for file in (tmp_path / "reference").iterdir()}
    assert len(before) == 2
    path = costs_run(tmp_path / "results", 2.0)
    too_large = f"<svg >{'<g/>' * pictures.LARGEST}</svg>"
    monkeypatch.setattr(experiments, "load", lambda name: drawing(1, too_large))
    with pytest.raises(SystemExit, match="2"):
        experiments.main(["keep", str(path)])
    assert "the picture of toy would have" in capsys.readouterr().err
    after = {file: file.read_bytes() for file in (tmp_path / "reference").iterdir()}
    assert after == before


KEPT = sorted(
    file for suffix in ("svg", "png") for file in gallery.REFERENCES.glob(f"*.{suffix}")
)


@pytest.mark.parametrize("file", KEPT, ids=lambda file: file.stem)
def test_kept_picture_belongs_to_a_reference_is_small_and_has_its_caption(file):
    assert file.with_suffix(".json").exists()
    assert [one.stem for one in KEPT].count(file.stem) == 1
    assert file.stat().st_size <= pictures.LARGEST
    assert gallery.description(file).endswith(".")


# Of pictures that are drawn from a reference: columns of its table, and the factor of
# the axis.
SHOWN = {
    "batch_size": (("example gradients", "batch"), 1),
    "cheap_gradient": (("gradient", "gradient in seconds"), 1),
    "character_language_model": (("whole", "half full"), 1),
    "image_recognition": (("test accuracy", "low", "high", "to reach"), 100),
    "memory_for_time": (("16 steps", "4,096 steps"), 1),
    "rules": (("formula", "formula, float32"), 1),
    "sparse_hessian": (("operations / f", "operations / f, dense"), 1),
    "spoken_words": (("test accuracy", "low", "high"), 100),
    "tensorflow_side_by_side": (
        ("first gradient off by, ε", "10 losses off by, ε"),
        1,
    ),
    "taylor_mode": (("order 2", "order 10"), 1),
    "tuning_protocol": (("false winners", "finds a factor of 1.25"), 1),
    "text_classification": (("test accuracy", "low", "macro-F1", "its high"), 100),
    "which_rule": (("ratio to schedule_free_sgd",), 1),
}

NOT_DRAWN = ("JAX, jax.grad", "tangent", "recurrent network, ")  # Rows.


def missing(figure, reference, columns, factor):
    """Numbers of the table that no line of the figure has as a coordinate."""
    lines = [line for axes in figure.axes for line in axes.lines]
    drawn = np.concatenate([np.ravel(line.get_xydata()) for line in lines]).astype(
        float
    )
    table = reference["table"]
    rows = [row for row in table["rows"] if not row[0].startswith(NOT_DRAWN)]
    wanted = [row[table["columns"].index(name)] for row in rows for name in columns]
    numbers = [
        factor * float(str(entry).partition(" %")[0])
        for entry in wanted
        if entry not in ("–", None)
    ]
    return [n for n in numbers if np.abs(drawn - n).min() > 5e-4 * n]


@pytest.mark.on_ci("two more references", but="cheap_gradient|which_rule")
@pytest.mark.thorough(
    "the other references",
    but=r"^(cheap_gradient|memory_for_time|spoken_words|which_rule)\]",
)
@pytest.mark.parametrize("name", SHOWN)
def test_picture_of_a_reference_shows_its_numbers_and_is_the_kept_one(name):
    reference = runs.read_reference(gallery.REFERENCES / f"{name}.json")
    report = cli.report_of(experiments.load(name))
    picture = report.draw_reference(reference)
    assert missing(picture.figure, reference, *SHOWN[name]) == []
    assert gallery.description(gallery.picture(name)) == " ".join(
        picture.caption.split()
    )
    assert "Drawn from the numbers that are kept" in picture.caption


@pytest.mark.on_ci(
    "another picture; "
    "test_picture_of_a_reference_shows_its_numbers_and_is_the_kept_one has the law of "
    "two"
)
def test_picture_of_compare_networks_shows_the_steps_of_its_reference():
    reference = runs.read_reference(gallery.REFERENCES / "compare_networks.json")
    picture = experiments.load("compare_networks").draw_reference(reference)
    drawn = [[*map(float, line.get_xdata())] for line in picture.figure.axes[0].lines]
    for steps in (
        [0.522],
        [0.444, 0.613],
        [0.684],
        [0.561, 0.833],
        [1.93],
        [1.62, 2.3],
    ):
        assert steps in drawn
    kept = gallery.description(gallery.picture("compare_networks"))
    assert kept == " ".join(picture.caption.split())


def test_picture_that_lacks_a_number_of_its_reference_is_seen():
    reference = runs.read_reference(gallery.REFERENCES / "text_classification.json")
    report = cli.report_of(experiments.load("text_classification"))
    other = copy.deepcopy(reference)
    other["table"]["rows"][2][1] = 0.9523  # It was 0.9513.
    figure = report.draw_reference(other).figure
    assert missing(figure, reference, *SHOWN["text_classification"]) == [
        pytest.approx(95.13)
    ]


@pytest.mark.parametrize("name", [*SHOWN, "compare_networks"])
def test_kept_picture_is_drawn_from_the_reference_if_the_report_can(name):
    kept = gallery.description(gallery.picture(name))
    assert "Drawn from the numbers that are kept" in kept


def test_every_report_that_draws_a_reference_is_tested():
    drawing = [
        path.stem
        for path in sorted(gallery.TOP.glob("experiments/reports/*.py"))
        if "\ndef draw_reference(" in path.read_text("utf-8")
    ]
    assert drawing == sorted(SHOWN)


def test_picture_of_a_reference_is_kept_by_name(tmp_path, monkeypatch, capsys, drawing):
    (tmp_path / "reference").mkdir()
    run = finished(tmp_path / "results")
    runs.keep(run, tmp_path / "reference")
    monkeypatch.setattr(experiments, "FOLDER", tmp_path)
    toy = drawing(10)
    toy.draw_reference = lambda reference: figures.Picture(
        "Answer", reference["answer"], figures.new_figure()[0]
    )
    monkeypatch.setattr(experiments, "load", lambda name: toy)
    assert experiments.main(["keep", "toy", "--from-reference"]) == 0
    file = tmp_path / "reference/toy.svg"
    assert capsys.readouterr().out.split() == [str(file)]
    assert gallery.description(file) == "Full batch."
    # So does a run, for its picture is that of its reference.
    file.unlink()
    assert experiments.main(["keep", str(run)]) == 0
    assert gallery.description(file) == "Full batch."
    capsys.readouterr()
    del toy.draw_reference
    with pytest.raises(SystemExit, match="2"):
        experiments.main(["keep", "toy", "--from-reference"])
    assert "toy needs more numbers than its reference keeps" in capsys.readouterr().err
