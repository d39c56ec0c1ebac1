"""Laws of what leaves a run: its models, the metrics of their steps, and what they
predict of a user's file.
"""

import contextlib
import csv
import dataclasses
import json
import shlex
import sys
import types

import jax
import numpy as np
import pytest
from PIL import Image

import research
from experiments import _prediction
from experiments import image_recognition as images
from experiments import spoken_words as speech
from experiments import text_classification as text
from research import cli, models, runs
from research.datasets import check_images, read_image
from tests.hostile_files import waved

COMPILE_QUICKLY = True  # tests/conftest.py

STEPS = {
    "loss": np.array([[4.0, 2.0, np.nan], [1.5, np.inf, 0.5]]),
    "learning_rate": np.full((2, 3), 0.1),
}
EVALUATIONS = {"accuracy": np.array([0.25, 0.5, 0.75])}
ARCHITECTURE = {"model": "line"}


def finished(folder, experiment, config, trained):
    """The folder of a run that saved these models."""
    run = runs.open_run(experiment, config, folder)
    result = runs.Result("Yes.", (), {}, {}, trained)
    return runs.finish(run, result, seconds=0.0).path


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_csv_and_json_lines_hold_every_step_and_every_evaluation(tmp_path):
    for suffix in ("csv", "jsonl"):
        runs.write_step_metrics(tmp_path / f"a.{suffix}", STEPS, EVALUATIONS)
    rows = rows_of(tmp_path / "a.csv")
    assert [int(row["step"]) for row in rows] == [0, 1, 2, 3, 4, 5, 6]
    losses = [float(row["loss"]) for row in rows if row["loss"]]
    np.testing.assert_array_equal(losses, STEPS["loss"].ravel())
    # The evaluation after epoch e is at the params of the first step of epoch e.
    found = {int(row["step"]): row["accuracy"] for row in rows if row["accuracy"]}
    assert found == {0: "0.25", 3: "0.5", 6: "0.75"}
    text = (tmp_path / "a.jsonl").read_text("utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line.get("accuracy", "") for line in lines] == [
        float(row["accuracy"]) if row["accuracy"] else "" for row in rows
    ]
    assert lines[2]["loss"] == {"$float": "nan"}
    assert lines[-1] == {"step": 6, "epoch": 2, "accuracy": 0.75}


def test_tensorboard_gets_the_rows_of_the_csv(tmp_path, monkeypatch):
    written = []

    class Writer:
        def __init__(self, folder):
            written.append(folder)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            written.append("closed")

        def add_scalar(self, *values):
            written.append(values)

    fake = types.SimpleNamespace(SummaryWriter=Writer)
    monkeypatch.setitem(sys.modules, "tensorboardX", fake)
    runs.write_tensorboard(tmp_path, {"loss": STEPS["loss"][1:, ::2]}, None)
    assert written == [str(tmp_path), ("loss", 1.5, 0), ("loss", 0.5, 1), "closed"]
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match="needs tensorboardX: pip install"):
        runs.write_tensorboard(tmp_path, STEPS)


@pytest.mark.parametrize(
    ("steps", "evaluations", "told"),
    [
        ({"loss": np.ones(3)}, None, r"\(num_epochs, num_batches\)"),
        ({"loss": np.ones((2, 3)), "norm": np.ones((3, 2))}, None, "of one shape"),
        ({"loss": np.ones((2, 0))}, None, "of one shape"),
        (STEPS, {"accuracy": np.ones(2)}, r"\(num_epochs \+ 1,\) = \(3,\)"),
        (STEPS, {"loss": np.ones(3)}, r"\['loss'\] twice"),
        ({"step": np.ones((2, 3))}, None, r"\['step'\] twice"),
        ({"loss": [[1.0]]}, None, "must hold arrays of numbers"),
        (STEPS["loss"], None, "steps must"),
    ],
)
def test_metrics_of_another_form_are_refused(tmp_path, steps, evaluations, told):
    with pytest.raises((ValueError, TypeError), match=told):
        runs.write_step_metrics(tmp_path / "a.csv", steps, evaluations)
    with pytest.raises(ValueError, match=r"must end in \.csv or \.jsonl"):
        runs.write_step_metrics(tmp_path / "a.txt", STEPS)
    assert list(tmp_path.iterdir()) == []


def test_a_run_keeps_its_models_and_a_fresh_one_replaces_them(tmp_path):
    line = lambda slope: runs.TrainedModel(
        {"slope": np.array([slope])}, ARCHITECTURE, STEPS, EVALUATIONS
    )
    path = finished(tmp_path, "toy", {"seed": 0}, {"a": line(1.0), "b": line(2.0)})
    file = runs.model_file(path, "b")
    assert models.read_architecture(file) == ARCHITECTURE
    assert len(rows_of(file.with_suffix(".csv"))) == 7
    assert runs.load_result(path).models == {}
    run = runs.open_run("toy", {"seed": 0}, tmp_path, fresh=True)
    with pytest.raises(ValueError, match=r"status is 'running'.*fresh=True"):
        runs.model_file(path, "a")
    runs.finish(run, runs.Result("Yes.", (), {}, {}, {"a": line(3.0)}))
    assert sorted(f.name for f in (path / "models").iterdir()) == [
        "a.csv",
        "a.safetensors",
    ]
    with pytest.raises(ValueError, match=r"no trained model 'b': it has no models/b"):
        runs.model_file(path, "b")
    with pytest.raises(ValueError, match=r"become names of files; got '\.\./a'"):
        finished(tmp_path, "toy", {"seed": 1}, {"../a": line(1.0)})


def saved_with(model, **arrays):
    params = models.named_arrays(model.init(jax.random.key(3)))
    named = {f"params/{name}": array for name, array in params.items()}
    return research.types.Saved(named | arrays, None), model.init(jax.random.key(3))


@pytest.mark.on_ci(
    "every network, saved and read; nothing shorter predicts the class of an image"
)
def test_an_image_gets_the_probabilities_of_the_model_that_was_saved(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 1), np.uint8)
    split = research.datasets.images("digits")
    trained, expected = {}, {}
    for name in images.LABELS:
        model = images.make_model(name, images.FAST, split)
        architecture = images.describe(name, images.FAST, split)
        saved, params = saved_with(model)
        trained[name] = _prediction.kept_model(saved, architecture)
        bundled = np.round(pixels / 255 * 16).astype(np.uint8)
        said = jax.nn.softmax(jax.jit(model.apply)(params, bundled))
        best = int(said.argmax())
        expected[images.LABELS[name]] = (str(best), round(100 * float(said[best]), 1))
    path = finished(tmp_path, "image_recognition", images.FAST, trained)
    Image.fromarray(pixels[..., 0]).save(tmp_path / "a.png")
    found = images.predict(images.FAST, path, tmp_path / "a.png")
    first = {row[0]: row[1:] for row in reversed(found.tables[0].rows)}
    assert first == expected
    assert found.answer.startswith(f"{tmp_path / 'a.png'}: {expected['CNN'][0]} (")


@contextlib.contextmanager
def wave_file(path, samples):
    path.write_bytes(waved(samples))
    yield path


def test_a_recording_is_read_as_the_training_recordings_are(tmp_path):
    # The first hundred frames of a long tone, by the functions of the experiment.
    wave = (9000 * np.sin(0.3 * np.arange(8000))).astype(np.int16)
    each, takes = np.arange(3), np.full(3, 5)
    given = research.datasets.Recordings(
        [wave] * 3, 8000, each, each, takes, ("a", "b", "c")
    )
    frames = research.datasets.log_mel(wave, 8000, **speech.FRONT_END)
    frames = [speech.prepared(frames)] * 3
    split = speech.preparation.word_splits(given, frames, speech.MOST_FRAMES)["shared"]
    mean, sd = speech.preparation.mean_and_sd_of_steps(split)
    architecture = {"rate": 8000, "front_end": speech.FRONT_END, "deltas": True}
    architecture |= {"levels": speech.LEVELS}
    architecture |= {"most_frames": speech.MOST_FRAMES, "mean": mean, "sd": sd}
    with wave_file(tmp_path / "a.wav", wave) as path:
        x, note = speech.heard(path, architecture)
    expected = speech.preparation.standardise_steps(split)
    np.testing.assert_allclose(x.values[0], expected.train_x[0], atol=1e-5)
    assert x.length.tolist() == [expected.train_length[0]]
    assert "the first" not in note
    long = np.tile(wave, 2)
    with wave_file(tmp_path / "b.wav", long) as path:
        assert "read the first 1 s of the sound." in speech.heard(path, architecture)[1]
    # Silence before the word is not read.
    with wave_file(tmp_path / "e.wav", np.concatenate([0 * long, wave])) as path:
        after, _ = speech.heard(path, architecture)
    assert np.median(np.abs(after.values[0, 2:35])) < 3
    with (
        wave_file(tmp_path / "c.wav", 0 * wave) as path,
        pytest.raises(ValueError, match=r"c\.wav is silent"),
    ):
        speech.heard(path, architecture)
    with (
        wave_file(tmp_path / "d.wav", wave[:399]) as path,
        pytest.raises(ValueError, match=r"d\.wav has 49\.9 ms, too short for a digit"),
    ):
        speech.heard(path, architecture)
    # A frame minus its own level is 0, whatever was said.
    click = np.where(np.arange(8000) // 100 == 40, wave, 0).astype(np.int16)
    with (
        wave_file(tmp_path / "f.wav", click) as path,
        pytest.raises(ValueError, match=r"f\.wav has a sound of only . frames"),
    ):
        speech.heard(path, architecture)


@pytest.mark.parametrize("deltas", [True, False])
def test_networks_of_older_runs_read_a_recording_as_they_were_trained(tmp_path, deltas):
    wave = (9000 * np.sin(0.3 * np.arange(4000))).astype(np.int16)
    frames = research.datasets.log_mel(wave, 8000, **speech.FRONT_END)
    if deltas:
        frames = speech.preparation.with_deltas(frames)
    d = frames.shape[1]
    architecture = {"rate": 8000, "front_end": speech.FRONT_END, "most_frames": 40}
    architecture |= {"mean": [0.0] * d, "sd": [2.0] * d} | (
        {"deltas": True} if deltas else {}
    )
    with wave_file(tmp_path / "a.wav", wave) as path:
        x, _ = speech.heard(path, architecture)
    expected = (frames - frames.mean(axis=0)) / 2
    np.testing.assert_allclose(x.values[0, : len(frames)], expected, atol=1e-5)


def test_a_text_is_split_into_words_as_the_stories_are(tmp_path):
    (tmp_path / "a.txt").write_text("Oil-prices ROSE 3.5 %,\nnot fell.", "utf-8")
    words = text.words_of(tmp_path / "a.txt", text.CLAIM)
    assert words == ["oil", "prices", "rose", "not", "fell"]
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    with pytest.raises(ValueError, match=r"a\.txt is not a text in UTF-8: byte 3"):
        text.words_of(tmp_path / "a.txt", text.CLAIM)


def test_a_text_without_a_known_word_is_refused(tmp_path):
    architecture = text.describe(text.FAST, 3, 2)
    architecture |= {"dataset": text.FALLBACK, "classes": ["a", "b"]}
    architecture["vocabulary"] = ["oil", "rose"]
    shapes = jax.eval_shape(text.build(architecture).init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    arrays = research.models.named_arrays(params)
    model = runs.TrainedModel(arrays, architecture, {}, {})
    path = finished(tmp_path, "text_classification", text.FAST, {"transformer": model})
    file = tmp_path / "a.txt"
    for words, message in (
        (" \n", r"a\.txt has no word"),
        (
            "gold fell",
            r"knows none of the first 2 words .* 2 of them, such as oil, rose",
        ),
    ):
        file.write_text(words)
        with pytest.raises(ValueError, match=message):
            text.predict(text.FAST, path, file)


def test_weights_that_are_not_finite_predict_nothing(tmp_path):
    with pytest.raises(ValueError, match="CNN has weights that are not finite"):
        _prediction.ranked_classes(tmp_path, "ab", {"CNN": np.array([np.nan, 1.0])})


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--seeds", "7", "--predict", "a.png"], "does not exist: --predict needs the"),
        (["--predict"], "predict"),
    ],
)
def test_prediction_without_a_run_says_what_to_run(tmp_path, capsys, flags, told):
    with pytest.raises(SystemExit):
        cli.main(images, ["--fast", "--results", str(tmp_path), *flags])
    assert told in capsys.readouterr().err


@pytest.mark.on_ci(
    "the command line of spoken_words; nothing shorter shows that no data is sought"
)
def test_a_prediction_asks_for_no_data_of_a_run_that_is_there(
    tmp_path, capsys, monkeypatch
):
    config = dataclasses.replace(speech.FAST, words=speech.WORDS)
    run = runs.open_run("spoken_words", config, tmp_path)
    runs.finish(run, runs.Result("Yes.", (), {}, {}), seconds=0.0)
    monkeypatch.setattr(speech, "complete", lambda config: pytest.fail("data sought"))
    words = ["--fast", "--words", speech.WORDS, "--results", str(tmp_path)]
    with pytest.raises(SystemExit):
        cli.main(speech, [*words, "--predict", "a.wav"])
    assert "no trained model 'vanilla'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (np.zeros((5, 3, 4, 6), np.uint8), r"np\.moveaxis\(images, -3, -1\)"),
        (np.zeros((5, 6, 4, 3), np.uint8), r"np\.swapaxes\(images, -3, -2\)"),
        (np.zeros((5, 72), np.uint8), r"reshape\(-1, 4, 6, 3\)"),
        (np.zeros((5, 4, 6, 4), np.uint8), r"images\[\.\.\., :3\]"),
        (np.zeros((5, 4, 6, 1), np.uint8), r"np\.repeat\(images, 3, axis=-1\)"),
        (np.zeros((5, 9, 9, 3), np.uint8), r"resize\(\(6, 4\)\)"),
        (np.full((4, 6, 3), 0.5), r"from 0\.5 to 0\.5\..*round\(255 \* images\)"),
        (np.full((4, 6, 3), 99.0), r"np\.round\(images\)\.astype"),
        (np.full((4, 6, 3), -1.5), "Undo the scaling first"),
        (np.full((4, 6, 3), 999, np.uint16), r"images // 257"),
        (np.ones((4, 6, 3), bool), r"255 \* images\.astype"),
    ],
)
def test_arrays_of_another_form_are_told_what_to_do(array, told):
    with pytest.raises((ValueError, TypeError), match=told):
        check_images(array, (4, 6, 3))


def test_the_advice_makes_an_array_that_is_accepted():
    grey = np.arange(24, dtype=np.uint8).reshape(4, 6)
    with pytest.raises(ValueError, match=r"images\[\.\.\., None\]"):
        check_images(grey, (4, 6, 1))
    assert check_images(grey[..., None], (4, 6, 1)).shape == (4, 6, 1)
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3), np.uint8)
    scaled = np.round(255 * (images / 255)).astype(np.uint8)
    np.testing.assert_array_equal(check_images(scaled, (4, 6, 3)), images)


@pytest.mark.parametrize("name", ["grey.png", "it's.png", 'a "b" $c.png'])
def test_the_command_that_converts_an_image_keeps_sixteen_bits_and_names(
    tmp_path, name
):
    values = np.linspace(0, 65535, 784).reshape(28, 28).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / name)
    with pytest.raises(ValueError, match="mode I;16") as error:
        read_image(tmp_path / name, (28, 28, 1))
    words = shlex.split(str(error.value).partition("Convert it: ")[2])
    assert words[:2] == ["python", "-c"]
    exec(words[2])  # Our own message.
    made = tmp_path / f"{name.removesuffix('.png')}-28x28.png"
    np.testing.assert_array_equal(read_image(made, (28, 28, 1))[..., 0], values // 257)
    big = Image.frombytes("I;16B", (28, 28), values.astype(">u2").tobytes())
    big.save(tmp_path / "big.tiff")
    with pytest.raises(ValueError, match="mode I;16B") as error:
        read_image(tmp_path / "big.tiff", (28, 28, 1))
    exec(shlex.split(str(error.value).partition("Convert it: ")[2])[2])
    made = read_image(tmp_path / "big-28x28.png", (28, 28, 1))
    np.testing.assert_array_equal(made[..., 0], values // 257)
    Image.fromarray(values.astype(np.float32)).save(tmp_path / "f.tiff")
    with pytest.raises(ValueError, match="scale its values to 0 to 255 first"):
        read_image(tmp_path / "f.tiff", (28, 28, 1))


def test_an_image_file_is_read_or_refused_with_the_command_that_converts_it(tmp_path):
    path = tmp_path / "a.png"
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    np.testing.assert_array_equal(read_image(path, (4, 6, 3)), pixels)
    told = r"6 x 4 pixels in mode RGB; .* 5 x 7 .* L"
    with pytest.raises(ValueError, match=told) as error:
        read_image(path, (7, 5, 1))
    command = str(error.value).partition('python -c "')[2].removesuffix('"')
    exec(command)  # Our own message.
    assert read_image(tmp_path / "a-5x7.png", (7, 5, 1)).shape == (7, 5, 1)
    # Of a truncated file nothing is shown, or every pixel: its last bytes have none.
    data, refused = path.read_bytes(), []
    for end in range(0, len(data), 5):
        path.write_bytes(data[:end])
        try:
            found = read_image(path, (4, 6, 3))
        except ValueError as error:
            refused.append(str(error))
        else:
            np.testing.assert_array_equal(found, pixels)
    assert len(refused) > 20
    assert all(f"{path} is " in told for told in refused)
