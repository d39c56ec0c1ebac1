"""One valid call of every public function, and of what those give that build functions;
nothing here is wrong yet.
"""

import functools
import importlib
import inspect
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from PIL import Image

import research
from research import (
    comparison,
    datasets,
    descent,
    losses,
    models,
    objectives,
    records,
    runs,
    samplers,
    statistics,
    tuning,
    types,
    update_rules,
)
from research.statistics import bootstrap, searches
from research.tuning import search, spaces
from research.tuning.spaces import Range
from research.types import Batch, Saved, Sequences


class Call(NamedTuple):
    """A valid call.

    Attributes:
      name: Of the function below `research`: "losses.huber", or
        "update_rules.adam().update" of what it gives.
      function: The function.
      arguments: By name, all that the function is given.
      slow: Whether a call that is accepted costs more than a tenth of a second or so.
    """

    name: str
    function: Callable
    arguments: dict[str, Any]
    slow: bool = False


HERE = Path(__file__).resolve()
STUB = Path(research.__file__).with_suffix(".pyi")
# Context managers, the process's own settings, and what takes an experiment from the
# command line.
NOT_CALLED = {
    "backend.configure",
    "backend.is_portable",
    "backend.keep_programs",
    "portable.are_libraries_pinned",
    "portable.check_processor",
    "portable.pin_libraries",
    "cluster.join",
    "cli.carry_out",
    "cli.changed_fields",
    "cli.conduct",
    "cli.errors_in_one_line",
    "cli.import_whole",
    "cli.main",
    "cli.perform",
    "cli.write_pictures",
    "cli.report_of",
    "cli.predict",
    "cli.run_file",
    "runs.write_tensorboard",  # It needs an extra.
    # Parts of `runs` and `models`, which check the arguments.
    *(
        f"files.{name}"
        for name in (
            "canonical",
            "explained",
            "json_bytes",
            "kept",
            "npz_bytes",
            "plain",
            "read_json",
            "safetensors_bytes",
        )
    ),
}


def public_functions() -> dict[str, Callable]:
    """Every function that a module of `research/__init__.pyi` shows, by name, once."""
    modules = [
        line.split()[-1]
        for line in STUB.read_text(encoding="utf-8").splitlines()
        if " as " in line
    ]
    found = {}
    for module_name in modules:
        module = importlib.import_module(f"research.{module_name}")
        for name, value in vars(module).items():
            shown = not name.startswith("_") and name in getattr(
                module, "__all__", [name]
            )
            if (
                shown
                and inspect.isfunction(value)
                and value.__module__.startswith(module.__name__)
            ):
                found[f"{module_name}.{name}"] = value
    return found


@functools.cache
def folder() -> Path:
    """Where files are written; it goes with the process."""
    keep = tempfile.TemporaryDirectory()
    functions_at_exit.append(keep.cleanup)
    return Path(keep.name)


functions_at_exit: list[Callable[[], None]] = []


def write_anew(folder, pieces):
    """`write_records`, whose valid call may be made again."""
    if isinstance(folder, Path) and folder.name == "records":
        shutil.rmtree(folder, ignore_errors=True)
    return records.write_records(folder, pieces)


def cube(x):
    return jnp.sum(x**3)


def bowl(x, batch=None):
    return jnp.sum(jnp.asarray(x) ** 2)


def number_cube(x):
    return x**3


def saddle(x):
    return x[0] ** 2 - x[1] ** 2 + x[0] * x[1]


def make_sgd(learning_rate):
    return update_rules.gradient_descent(learning_rate)


def key(number: int = 0):
    return jax.random.key(number)


def params():
    return {"weights": jnp.array([1.0, -2.0]), "intercept": jnp.array(0.5)}


def batch():
    x = jnp.array([[1.0, 2.0], [0.5, -1.0], [-1.0, 0.0], [2.0, 1.0]])
    return Batch(x, jnp.array([1.0, 0.0, 0.5, 2.0]))


def labelled():
    return batch()._replace(y=jnp.array([1, 0, 0, 1]))


def risk(params, batch):
    return jnp.mean((batch.x @ params["weights"] + params["intercept"] - batch.y) ** 2)


def search_logs():
    return np.random.default_rng(0).normal(size=(2, 5))


def scores(factor: float = 1.0):
    costs = factor * np.random.default_rng(0).uniform(1, 8, (3, 8))
    return statistics.Scores(costs[:, :3], costs[:, 3:], 30.0)


@functools.cache
def workload():
    return research.workloads.quadratic(dimension=3)


@functools.cache
def small_study():
    terms = {"searches": 2, "budget": 2, "passes": 20, "seeds": 3, "tuning_seeds": 2}
    protocol, contenders = comparison.plan(
        ["gradient_descent", "heavy_ball"], workload(), **terms
    )
    return (
        protocol,
        contenders,
        comparison.measure_contenders(protocol, contenders, [workload()], timed=False),
    )


@functools.cache
def program():
    return descent.compile_sweep(
        workload(), make_sgd, samplers.full_batch(1), 4, chunk=2, width=2
    )


@functools.cache
def finished_run():
    run = runs.open_run("toy", {"seed": 0}, folder() / "results")
    return runs.finish(run, result(), seconds=1.0)


@functools.cache
def finished_study():
    protocol, contenders, measurements = small_study()
    study = comparison.conclude(protocol, "heavy_ball", contenders, measurements)
    run = runs.open_run("compare", {"seed": 0}, folder() / "results")
    return runs.finish(
        run,
        runs.Result(study.answer, study.tables, study.arrays, study.numbers),
        seconds=1.0,
    ).path


@functools.cache
def reference():
    return runs.keep(finished_run().path, folder())


def open_run():
    return runs.Run(
        finished_run().path, finished_run().id, "toy", {"seed": 0}, finished=False
    )


def result():
    table = runs.Table("Numbers", ("name", "value"), (("a", 1.0), ("b", 2.0)), "Two.")
    return runs.Result(
        "It descends.", (table,), {"curve": np.arange(3.0)}, {"total": 3.0}
    )


def wave():
    return np.sin(np.arange(2000) / 5.0)


def spoken():
    speakers = tuple("ab")
    index = np.arange(8)
    return datasets.Recordings(
        [wave()] * 8, 8000, index % 2, index // 4, index % 4, speakers
    )


def text_tokens():
    return np.array([0, 1, 2, 0, 1, 2, 0, 0, 1, 2])


def ngram_model():
    return models.ngram(text_tokens(), 2, 3)


@functools.cache
def decoder():
    return models.transformer_decoder(
        3, 4, width=4, num_layers=1, num_heads=2, dtype="float32"
    )


@functools.cache
def decoder_params():
    return decoder().init(key())


@functools.cache
def block_params():
    whole = decoder_params()
    name = next(name for name in whole if "block" in name)
    found = whole[name]
    return found[0] if isinstance(found, list | tuple) else found


def linear_model():
    return models.linear(2, dtype="float64")


def linen_module():
    import flax.linen as nn

    return nn.Dense(1, param_dtype="float64")


def mlp_params():
    return models.mlp([2, 3, 2], dtype="float64").init(key())


def image():
    return jnp.arange(32.0).reshape(2, 4, 4, 1) / 32


def residuals(x):
    return jnp.stack([x[0] - 1.0, 10 * (x[1] - x[0] ** 2)])


def gap_arrays():
    return {
        "passes": np.array([0.0, 1.0, 2.0]),
        "relative": np.array([[1.0, 0.1, 0.001], [1.0, 0.9, 0.8]]),
    }


def figure_axes():
    return research.figures.new_figure()[1][0, 0]


def picture():
    return research.figures.Picture(
        "Title", "Caption.", research.figures.new_figure(width=2.0, height=1.0)[0]
    )


def hyperparameters(name: str) -> dict[str, Any]:
    """A valid call of a rule's constructor, all its other arguments as they are by
    default.
    """
    special: dict[str, dict[str, Any]] = {
        "accumulate_gradients": {"rule": optax.sgd(0.1), "every": 2},
        "add_decayed_weights": {"weight_decay": 0.1},
        "by_group": {
            "rules": {"a": optax.sgd(0.1), "b": optax.sgd(0.2)},
            "labels": {"weights": "a", "intercept": "b"},
        },
        "checked_mask": {"mask": {"weights": True, "intercept": False}},
        "adahessian": {"learning_rate": 0.1, "key": key()},
        "adahessian_draws": {"key": key(), "count": 0, "params": params()},
        "clip_adaptively": {"clipping": 0.1},
        "clip_by_global_norm": {"max_norm": 1.0},
        "clip_by_norm": {"max_norm": 1.0},
        "cautious": {"rule": optax.sgd(0.1)},
        "clip_by_value": {"max_value": 1.0},
        "evaluation_params": {
            "state": optax.sgd(0.1).init(params()),
            "params": params(),
        },
        "find_rule": {"name": "adam"},
        "masked_leaves": {
            "mask": {"weights": True, "intercept": False},
            "params": params(),
        },
        "noisy_sgd": {"learning_rate": 0.1, "key": key()},
        "reduce_on_plateau": {"factor": 0.5, "patience": 3},
        "psgd_draws": {"key": jax.random.key(0), "count": 0, "params": params()},
        "psgd_kron": {"learning_rate": 0.1, "key": jax.random.key(0)},
        "saga": {"learning_rate": 0.1, "num_examples": 4},
        "skip_nonfinite": {"rule": optax.sgd(0.1)},
        "svrg": {"learning_rate": 0.1, "period": 2},
        "with_state_dtype": {"rule": optax.adam(0.1), "dtype": "float32"},
        "gauss_newton": {"learning_rate": 1.0, "residual_fn": residual_of_params},
        "levenberg_marquardt": {
            "learning_rate": 1.0,
            "residual_fn": residual_of_params,
        },
        "natural_gradient": {"learning_rate": 1.0, "fisher_fn": fisher_of_params},
    }
    return special.get(name, {"learning_rate": 0.1})


def residual_of_params(params, indices=None):
    return jnp.concatenate(
        [params["weights"] - 1.0, jnp.atleast_1d(params["intercept"])]
    )


def fisher_of_params(params, indices=None):
    return jnp.eye(3)


NO_RULES = {
    "checked_mask",
    "evaluation_params",
    "find_rule",
    "masked_leaves",
    "adahessian_draws",
    "psgd_draws",
}


def of_rules() -> Iterator[Call]:
    """Every constructor, and the update of what it makes."""
    value_fn = lambda params, indices=None: risk(params, batch())
    for name in dict.fromkeys([*vars(update_rules)]):
        function = getattr(update_rules, name)
        if (
            name.startswith("_")
            or not inspect.isfunction(function)
            or not function.__module__.startswith("research.update")
        ):
            continue
        arguments = hyperparameters(name)
        yield Call(f"update_rules.{name}", function, arguments)
        if name in NO_RULES:
            continue
        rule = function(**arguments)
        x = params()
        value, grads = jax.value_and_grad(value_fn)(x)
        yield Call(f"update_rules.{name}().init", rule.init, {"params": x})
        given = {"updates": grads, "state": rule.init(x), "params": x}
        if isinstance(rule, optax.GradientTransformationExtraArgs):
            given |= {"value": value, "grad": grads, "value_fn": value_fn}
            given |= {"indices": jnp.array([0, 2])} if name == "saga" else {}
        yield Call(f"update_rules.{name}().update", rule.update, given, slow=True)


def of_schedules() -> Iterator[Call]:
    schedules = research.schedules
    steps = {"num_steps": 10}
    made = {
        "constant": {"value": 0.1},
        "cosine": {"initial": 0.1, **steps},
        "exponential": {"initial": 0.1, "factor": 0.9},
        "inverse_square_root": {"initial": 0.1},
        "inverse_time": {"initial": 0.1},
        "join": {
            "schedules": [schedules.constant(0.1), schedules.constant(0.2)],
            "boundaries": [5],
        },
        "linear_warmup": {"peak": 0.1, **steps},
        "one_cycle": {"peak": 0.1, **steps},
        "piecewise": {"initial": 0.1, "boundaries": [2, 4], "values": [0.2, 0.3]},
        "polynomial": {"initial": 0.1, "final": 0.01, **steps},
        "step": {"initial": 0.1, "factor": 0.5, "every": 3},
        "warm_restarts": {"initial": 0.1, "first_period": 4},
    }
    for name, arguments in made.items():
        function = getattr(schedules, name)
        yield Call(f"schedules.{name}", function, arguments)
        yield Call(
            f"schedules.{name}()",
            function(**arguments),
            {next(iter(inspect.signature(function(**arguments)).parameters)): 3},
        )


def image_file() -> Path:
    path = folder() / "a.png"
    Image.new("L", (4, 4)).save(path)
    return path


def run_with_model() -> Path:
    line = research.runs.TrainedModel({"slope": np.ones(1)}, {"model": "line"})
    result = research.runs.Result("Yes.", (), {}, {}, {"line": line})
    run = research.runs.open_run("toy", {"seed": 0}, folder())
    return research.runs.finish(run, result).path


def weights_file() -> Path:
    path = folder() / "line.safetensors"
    model = models.linear(2, dtype="float64")
    models.save(path, model.init(key()), {"model": "linear"})
    return path


def of_models() -> Iterator[Call]:
    m = models
    tokens = jnp.array([[0, 1, 2, 0]])
    small = {"width": 4, "num_layers": 1, "num_heads": 2}
    hidden = jnp.ones((1, 4, 4), jnp.float32)
    constructors: dict[str, tuple[dict[str, Any], Any]] = {
        "cnn": (
            {
                "image_shape": (4, 4, 1),
                "num_classes": 2,
                "channels": (2,),
                "hidden": (3,),
            },
            image(),
        ),
        "linear": ({"num_features": 2}, jnp.ones((3, 2))),
        "logistic": ({"num_features": 2}, jnp.ones((3, 2))),
        "mlp": ({"sizes": [2, 3, 2]}, jnp.ones((3, 2))),
        "recurrent": (
            {"num_inputs": 2, "num_hidden": 3, "num_outputs": 2},
            jnp.ones((2, 4, 2)),
        ),
        "softmax": ({"num_features": 2, "num_classes": 3}, jnp.ones((3, 2))),
        "transformer_decoder": ({"vocabulary_size": 3, "context": 4, **small}, tokens),
        "transformer_encoder": (
            {"vocabulary_size": 3, "context": 4, "num_classes": 2, **small},
            tokens,
        ),
        "resnet": (
            {"image_shape": (4, 4, 1), "num_classes": 2, "channels": (2,), "blocks": 1},
            image(),
        ),
        "mixed_precision": (
            {"model": m.softmax(2, 3, dtype="float32")},
            jnp.ones((3, 2), "float32"),
        ),
        "from_linen": (
            {"module": linen_module(), "example": jnp.ones(2)},
            jnp.ones((3, 2)),
        ),
        "augmented": ({"model": m.softmax(3, 2), "augment": m.random_flip}, None),
        "mirror_averaged": ({"model": m.softmax(3, 2)}, None),
        "on_images": (
            {
                "model": m.linear(3),
                "mean": jnp.full(3, 0.5),
                "sd": jnp.full(3, 2.0),
                "dtype": "float64",
            },
            jnp.ones((2, 2, 3), "uint8"),
        ),
    }
    for name, (arguments, x) in constructors.items():
        function = getattr(m, name)
        yield Call(f"models.{name}", function, arguments)
        model = function(**arguments)
        yield Call(f"models.{name}().init", model.init, {"key": key()}, slow=True)
        if x is not None:
            yield Call(
                f"models.{name}().apply",
                model.apply,
                {"params": model.init(key()), "x": x, "key": None},
                slow=True,
            )
    attend = {"params": block_params()["attention"], "x": hidden, "num_heads": 2}
    normalise = {"x": jnp.ones((2, 4)), "scale": jnp.ones(4), "bias": jnp.zeros(4)}
    reading = {"model": decoder(), "tokens": text_tokens(), "context": 4}
    drawn = {"model": ngram_model(), "key": key(), "prompt": [0, 1], "num_tokens": 3}
    gradient_of = {
        "params": mlp_params(),
        "x": jnp.ones((3, 2)),
        "y": jnp.array([0, 1, 1]),
    }
    for name, arguments in {
        "attention": attend,
        "attention_weights": attend,
        "average_pool": {"x": image()},
        "best_ngram": {
            "tokens": text_tokens(),
            "held_out": text_tokens(),
            "vocabulary_size": 3,
            "max_order": 2,
        },
        "block": {"params": block_params(), "x": hidden, "num_heads": 2},
        "causal_mask": {"length": 3},
        "check_same_architecture": {"params": params(), "expected": params()},
        "check_sequences": {
            "sequences": Sequences(jnp.ones((2, 4, 2)), jnp.array([3, 4]))
        },
        "check_tokens": {"tokens": text_tokens(), "vocabulary_size": 3},
        "convolution": {
            "x": image(),
            "weights": jnp.ones((3, 3, 1, 2)),
            "bias": jnp.zeros(2),
        },
        "count_parameters": {"params": params()},
        "dense": {
            "x": jnp.ones((3, 2)),
            "weights": jnp.ones((2, 4)),
            "bias": jnp.zeros(4),
        },
        "describe": {"params": params()},
        "dropout": {"key": key(), "x": jnp.ones((3, 2)), "rate": 0.5},
        "find_activation": {"name": "relu"},
        "find_initialiser": {"name": "he_normal"},
        "generate": {
            "model": decoder(),
            "params": decoder_params(),
            "key": key(),
            "prompt": [0, 1],
            "num_tokens": 2,
            "context": 4,
        },
        "group_normalisation": {**normalise, "x": jnp.ones((2, 2, 4)), "num_groups": 2},
        "in_turn": {"augmentations": (m.random_flip, m.random_shift(1))},
        "layer_normalisation": normalise,
        "list_parameters": {"params": params()},
        "load": {
            "path": weights_file(),
            "model": m.linear(2, dtype="float64"),
            "architecture": {"model": "linear"},
        },
        "max_pool": {"x": image()},
        "mean_and_sd": {"images": np.arange(32, dtype=np.uint8).reshape(2, 4, 4, 1)},
        "mlp_rounding_bound": {
            **gradient_of,
            "activation": "relu",
            "loss": "softmax_cross_entropy",
        },
        "mlp_value_and_gradient": gradient_of,
        "named_arrays": {"params": params()},
        "next_token_losses": reading,
        "next_token_risk": reading,
        "ngram": {"tokens": text_tokens(), "order": 2, "vocabulary_size": 3},
        "ngram_losses": {"model": ngram_model(), "tokens": text_tokens()},
        "ngram_probabilities": {"model": ngram_model(), "context": [0, 1]},
        "params_from": {
            "model": m.linear(2, dtype="float64"),
            "arrays": {"weights": np.ones(2), "intercept": np.ones(())},
        },
        "probability": {"logit": jnp.array(0.5)},
        "random_crop": {"padding": 1},
        "random_flip": {"key": key(), "x": image()},
        "random_shift": {"pixels": 1},
        "read_architecture": {"path": weights_file()},
        "reader": reading,
        "recurrence": {"num_inputs": 2, "num_hidden": 3, "num_outputs": 2},
        "rms_normalisation": {"x": jnp.ones((2, 4)), "scale": jnp.ones(4)},
        "rotary_angles": {"context": 4, "size": 2},
        "rotate": {"x": jnp.ones((3, 4)), "angles": jnp.ones((5, 2))},
        "standardise_weights": {"weights": jnp.ones((3, 2)), "gain": jnp.ones(2)},
        "sample_ngram": drawn,
        "save": {
            "path": folder() / "w.safetensors",
            "params": {"w": np.ones(2)},
            "architecture": {"model": "mine"},
        },
        "sinusoidal_positions": {"context": 4, "width": 4},
    }.items():
        yield Call(
            f"models.{name}", getattr(m, name), arguments, slow=name in {"generate"}
        )
    starts = np.array([0, 3])
    yield Call(
        "models.next_token_losses()",
        m.next_token_losses(**reading),
        {"params": decoder_params(), "starts": starts},
        slow=True,
    )
    yield Call(
        "models.reader()",
        m.reader(**reading, slice_size=2),
        {"params": decoder_params(), "starts": starts},
        slow=True,
    )
    yield Call("models.random_crop()", m.random_crop(1), {"key": key(), "x": image()})


def of_files() -> Iterator[Call]:
    write = research.files.write_atomically
    arguments = {"path": folder() / "b.txt", "data": b"text"}
    yield Call("files.write_atomically", write, arguments)


def of_losses() -> Iterator[Call]:
    regression = {"prediction": jnp.array([1.0, 4.0]), "target": jnp.array([1.0, 2.0])}
    for name, arguments in {
        "absolute_error": regression,
        "check_classes": {"shape": (3, 2), "y": np.array([0, 1, 1])},
        "check_targets": {
            "loss": losses.softmax_cross_entropy,
            "prediction": jnp.ones((3, 2)),
            "targets": np.array([0, 1, 1]),
        },
        "check_labels": {"labels": np.array([0, 1, 1]), "num_classes": 2},
        "hinge": {"score": jnp.array(0.25), "label": 1},
        "huber": regression,
        "quantile": {**regression, "level": 0.25},
        "cosine_distance": regression,
        "focal": {"logit": jnp.array(0.5), "label": 1},
        "multiclass_margin": {"scores": jnp.array([1.0, 2.0]), "label": 1},
        "kl_divergence": {
            "logits": jnp.array([1.0, 2.0]),
            "distribution": jnp.array([0.5, 0.5]),
        },
        "log_cosh": regression,
        "logistic": {"logit": jnp.array(0.5), "label": 1},
        "sequence_cross_entropy": {
            "logits": jnp.ones((3, 4)),
            "labels": jnp.array([2, 0, -1]),
        },
        "smooth_labels": {"one_hot": jnp.array([1.0, 0.0]), "smoothing": 0.1},
        "softmax_cross_entropy": {"logits": jnp.array([1.0, 2.0]), "label": 1},
        "softmax_cross_entropy_one_hot": {
            "logits": jnp.array([1.0, 2.0]),
            "distribution": jnp.array([0.5, 0.5]),
        },
        "squared_error": regression,
    }.items():
        yield Call(f"losses.{name}", getattr(losses, name), arguments)


def of_objectives() -> Iterator[Call]:
    made = {
        "accuracy": {"model": models.logistic(2, dtype="float64")},
        "empirical_risk": {"model": linear_model(), "loss": losses.squared_error},
        "in_slices": {"function": risk, "size": 2},
        "l1_penalty": {"strength": 0.5},
        "l2_penalty": {"strength": 0.5},
        "per_example_gradients": {"objective": risk},
        "r_squared": {"model": linear_model()},
        "regularised": {"objective": risk, "penalties": (objectives.l2_penalty(0.5),)},
    }
    given = {"objective": risk, "params": params(), "batch": batch()}
    of_data = {
        "objective": objectives.empirical_risk(linear_model(), losses.squared_error)
    }
    of_data |= {"params": linear_model().init(key()), "dataset": batch()}
    yield Call("objectives.check_data", objectives.check_data, of_data, slow=True)
    yield Call(
        "objectives.gradient_covariance_trace",
        objectives.gradient_covariance_trace,
        given,
        slow=True,
    )
    for name, arguments in made.items():
        function = getattr(objectives, name)
        yield Call(f"objectives.{name}", function, arguments)
        if name != "regularised":
            on = (
                {"params": params()}
                if "penalty" in name
                else {"params": params(), "batch": labelled()}
            )
            yield Call(
                f"objectives.{name}()",
                function(**arguments),
                on,
                slow=name in {"in_slices", "per_example_gradients"},
            )


def of_derivatives() -> Iterator[Call]:
    d = research.derivatives
    x, v = jnp.array([1.0, 2.0]), jnp.array([1.0, -1.0])
    at = {"f": cube, "x": x}
    bowl, box = lambda x: jnp.sum((x - 0.3) ** 2), [(-1.0, 1.0), (-1.5, 1.5)]
    timed = {"f": cube, "args": (x,), "seconds": 0.001}
    for name, arguments, slow in (
        ("check_derivative", {**at, "key": key()}, True),
        (
            "checkpoint_scan",
            {"f": lambda carry, x: (carry + x, carry), "init": 0.5, "xs": x},
            False,
        ),
        ("chosen_mode", at, False),
        ("classify_critical_point", {"f": saddle, "x": jnp.zeros(2)}, True),
        ("cost", timed, True),
        ("cost_ratio", {"transform": jax.grad, **timed}, True),
        ("counted_cost", {"f": cube, "args": (x,)}, False),
        (
            "critical_points",
            {"f": saddle, "starts": [[0.5, 0.5]], "bounds": [(-1.0, 1.0), (-1.5, 1.5)]},
            True,
        ),
        ("derivative", {"f": number_cube, "x": 2.0}, False),
        ("directional_derivative", {**at, "v": v}, False),
        ("explain", {"f": cube, "args": (x,)}, True),
        ("find_derivative_rule", {"name": "sine"}, False),
        ("finite_difference", {"f": number_cube, "x": 2.0}, False),
        ("fornberg_weights", {"nodes": [0.0, 1.0, 2.0], "at": 0.5, "order": 1}, False),
        ("forward_gradient", {**at, "key": jax.random.key(0)}, False),
        ("gradient", at, False),
        (
            "grid_derivative",
            {"y": np.array([0.0, 1.0, 4.0, 9.0]), "x": np.arange(4.0)},
            False,
        ),
        (
            "grid_of_starts",
            {"bounds": [(-1.0, 1.0), (-1.5, 1.5)], "per_axis": 3},
            False,
        ),
        ("hessian", at, True),
        ("hessian_diagonal", at, True),
        ("hessian_spectrum", {**at, "key": jax.random.key(0)}, True),
        ("hessian_vector_product", {**at, "v": v}, False),
        ("jacobian", at, True),
        ("laplacian", at, False),
        ("laplacian_estimate", {**at, "key": jax.random.key(0), "samples": 2}, False),
        ("limit_table", {"f": number_cube, "x": 2.0}, False),
        (
            "partial_derivative",
            {"f": lambda a, b: a * b**2, "argument": 1, "args": (2.0, 3.0)},
            False,
        ),
        ("sparse_hessian", at, True),
        ("sparse_jacobian", {"f": lambda x: x**2, "x": x}, True),
        ("taylor", {**at, "v": v, "order": 3}, False),
        ("enclose", {"f": jnp.sin, "low": 0.1, "high": 0.2}, False),
        ("derivative_enclosure", {"f": jnp.sin, "low": 0.1, "high": 0.2}, True),
        ("certified_critical_points", {"f": bowl, "bounds": box}, True),
        ("certified_minimum", {"f": bowl, "bounds": box}, True),
        ("certified_roots", {"f": lambda x: x**2 - 0.5, "bounds": box[:1]}, True),
        ("curvature_bound", {"f": bowl, "bounds": box}, True),
        (
            "total_derivative",
            {"f": lambda x, y: x * y, "x": 2.0, "dependencies": {"y": lambda x: x**2}},
            True,
        ),
        ("verify_derivative_rule", {"name": "sine", "key": key(), "number": 4}, True),
    ):
        yield Call(f"derivatives.{name}", getattr(d, name), arguments, slow)


def of_datasets() -> Iterator[Call]:
    size = {"seed": 0, "n": 20, "d": 2}
    tokens = np.arange(10)
    x, y = np.arange(40.0).reshape(20, 2), np.arange(20.0)
    for name, arguments in {
        "check_images": {
            "images": np.zeros((2, 4, 4, 1), np.uint8),
            "shape": (4, 4, 1),
        },
        "check_xy": {"x": x, "y": y},
        "encode": {"texts": ["a b", "b"], "vocabulary": {"a": 1, "b": 2}, "length": 3},
        "images": {"name": "digits"},
        "linear_problem": {**size, "noise": 0.1, "condition": 10.0},
        "load": {"name": "iris"},
        "log_mel": {"wave": wave(), "rate": 8000},
        "make_vocabulary": {"texts": ["a b", "b"]},
        "mean_and_sd": {"train_x": x},
        "official_split": {"given": spoken()},
        "overlapping_classes": {**size, "separation": 2.0},
        "quadratic": {"seed": 0, "eigenvalues": [1.0, 10.0]},
        "read_image": {"path": image_file(), "shape": (4, 4, 1)},
        "rosenbrock": {"dimension": 2},
        "separable_classes": {**size, "margin": 0.5},
        "speaker_folds": {"given": spoken()},
        "split": {"x": x, "y": y},
        "standardise": {"train_x": x, "others": (x,)},
        "text": {"name": "nine_play_shakespeare"},
        "window_starts": {"num_tokens": 10, "context": 3},
        "windows": {"tokens": tokens, "starts": np.array([0, 3]), "context": 3},
    }.items():
        yield Call(
            f"datasets.{name}", getattr(datasets, name), arguments, slow=name == "text"
        )


def of_optima() -> Iterator[Call]:
    x = np.random.default_rng(0).normal(size=(20, 2))
    y = x @ [1.0, -1.0] + 0.1 * np.random.default_rng(1).normal(size=20)
    labels = (y > 0.3 * np.random.default_rng(2).normal(size=20)).astype(int)
    for name, arguments in {
        "curvature": {"x": x},
        "least_squares": {"x": x, "y": y},
        "logistic_regression": {"x": x, "y": labels, "penalty": 0.1},
        "ridge": {"x": x, "y": y, "penalty": 0.1},
        "softmax_regression": {"x": x, "y": labels, "num_classes": 2, "penalty": 0.1},
    }.items():
        yield Call(f"optima.{name}", getattr(research.optima, name), arguments)


def of_descent() -> Iterator[Call]:
    d = research.descent
    rule = optax.sgd(0.1)
    init, step = d.build(risk, rule, batch())
    sampler, state = samplers.minibatch(4, 2), init(params())
    batch_indices = d.BatchIndices(jnp.array([0, 1]))
    going = {
        "step": step,
        "state": state,
        "sampler": sampler,
        "key": key(),
        "epochs": jnp.arange(2),
    }
    given = {
        "objective": bowl,
        "rule": rule,
        "params": jnp.array([1.0, 2.0]),
        "max_steps": 5,
    }
    train = {
        "objective": risk,
        "rule": rule,
        "dataset": batch(),
        "sampler": sampler,
        "num_epochs": 2,
    }
    train |= {"params": params(), "key": key()}
    yield Call(
        "descent.epoch_batches",
        d.epoch_batches,
        {"sampler": sampler, "key": key(), "noisy": False},
    )
    yield Call("descent.evaluation_points", d.evaluation_points, {"num_batches": 100})
    yield Call(
        "descent.check_dataset",
        d.check_dataset,
        {"name": "dataset", "dataset": batch()},
    )
    yield Call("samplers.check_form", samplers.check_form, {"sampler": sampler})
    yield Call(
        "samplers.check_sampler", samplers.check_sampler, {"sampler": sampler, "n": 4}
    )
    yield Call(
        "samplers.check_indices",
        samplers.check_indices,
        {"indices": np.arange(4), "n": 4},
    )
    yield Call(
        "samplers.index_outside",
        samplers.index_outside,
        {"indices": np.arange(4), "n": 4},
    )
    yield Call("samplers.num_examples", samplers.num_examples, {"dataset": batch()})
    given_step = {"state": state, "batch_indices": batch_indices}
    to_build = {"objective": risk, "rule": rule, "dataset": batch()}
    yield Call("descent.build", d.build, to_build)
    yield Call("descent.build().init", init, {"params": params()})
    yield Call("descent.build().step", step, given_step, slow=True)
    yield Call("descent.run", d.run, going, slow=True)
    to_gather = {"dataset": batch(), "batch_indices": batch_indices}
    yield Call("descent.gather", d.gather, to_gather)
    yield Call(
        "descent.implicit_minimum",
        research.descent.implicit_minimum,
        {
            "objective": lambda x, theta: jnp.sum((x - theta) ** 2),
            "start": jnp.zeros(2),
            "theta": 1.0,
            "rule": rule,
            "max_steps": 5,
        },
        slow=True,
    )
    yield Call("descent.minimise", research.descent.minimise, given, slow=True)
    yield Call(
        "descent.mesh",
        research.descent.mesh,
        {"num_devices": 1, "shard_params": False, "exact": True},
    )
    yield Call(
        "descent.bytes_per_step",
        research.descent.bytes_per_step,
        {
            "rule": research.update_rules.adam(0.1),
            "params": {"w": jnp.zeros((8, 2))},
            "num_devices": 2,
            "shard_params": True,
            "exact": True,
        },
    )
    yield Call(
        "cluster.variables",
        research.cluster.variables,
        {"address": "node1:12345", "place": research.cluster.Place(0, 1)},
    )
    yield Call("descent.train", research.descent.train, train, slow=True)
    written = folder() / "records"
    opened = write_anew(written, [batch()])
    yield Call(
        "records.write_records", write_anew, {"folder": written, "pieces": [batch()]}
    )
    yield Call("records.open_records", records.open_records, {"folder": written})
    yield Call("records.open_records().read", opened.read, {"indices": [1, 0]})
    yield Call("samplers.full_batch", samplers.full_batch, {"n": 5})
    yield Call("samplers.minibatch", samplers.minibatch, {"n": 5, "batch_size": 2})
    yield Call("samplers.stochastic", samplers.stochastic, {"n": 5})
    yield Call("samplers.minibatch().indices", sampler.indices, {"key": key()})
    lane = {
        "workload": workload(),
        "make_rule": make_sgd,
        "sampler": samplers.full_batch(1),
        "num_epochs": 4,
    }
    yield Call(
        "descent.compile_sweep",
        descent.compile_sweep,
        {**lane, "chunk": 2, "width": 2, "gradient_norms": False},
        slow=True,
    )
    runs = {"seed": np.array([0, 1]), "learning_rate": np.array([0.1, 0.2])}
    yield Call(
        "descent.sweep",
        descent.sweep,
        {"program": program(), "runs": runs},
        slow=True,
    )
    yield Call(
        "columns.aligned", research.columns.aligned, {"rows": [("x", "y"), ("1", "2")]}
    )
    yield Call(
        "naming.known_names",
        research.naming.known_names,
        {"name": "adm", "known": ["adam", "sgd"]},
    )
    nearest = {"name": "adm", "known": ["adam", "sgd"]}
    yield Call("naming.closest", research.naming.closest, nearest)
    yield Call("naming.nearest", research.naming.nearest, nearest)
    yield Call("types.no_checkpoints", types.no_checkpoints, {"name": "a"})


def of_workloads() -> Iterator[Call]:
    for name in (
        "breast_cancer",
        "breast_cancer_two_features",
        "diabetes",
        "diabetes_bmi",
        "diabetes_ridge",
        "digits",
    ):
        yield Call(
            f"workloads.{name}", getattr(research.workloads, name), {}, slow=True
        )
    for name in (
        "ill_conditioned",
        "noisy_quadratic",
        "overlapping_1m",
        "overlapping_50k",
    ):
        yield Call(
            f"workloads.{name}",
            getattr(research.workloads, name),
            {"n": 200},
            slow=True,
        )
    yield Call(
        "workloads.known_optimum",
        research.workloads.known_optimum,
        {"workload": workload()},
    )
    yield Call("workloads.quadratic", research.workloads.quadratic, {"dimension": 3})
    yield Call("workloads.rosenbrock", research.workloads.rosenbrock, {"dimension": 2})
    yield Call(
        "workloads.make_workload",
        research.workloads.make_workload,
        {"name": "quadratic"},
    )
    yield Call(
        "workloads.check_network_name",
        research.workloads.check_network_name,
        {"name": "mlp_digits"},
    )
    yield Call(
        "workloads.make_network",
        research.workloads.make_network,
        {"name": "mlp_digits", "size": "small"},
    )
    yield Call(
        "workloads.network_workload",
        research.workloads.network_workload,
        network_arguments(),
    )
    yield Call(
        "workloads.regression_workload",
        research.workloads.regression_workload,
        {
            "name": "mine",
            "x": np.arange(20.0)[:, None],
            "y": np.arange(20) % 2,
            "kind": "logistic",
            "penalty": 0.1,
            "holdout": False,
            "dtype": "float32",
        },
    )


def network_arguments():
    """Arguments that make a network of eight examples."""
    part = Batch(jnp.ones((8, 3), "float32"), jnp.zeros(8, "int32"))
    return {
        "name": "mine",
        "model": research.models.mlp((3, 2), dtype="float32"),
        "loss": research.losses.softmax_cross_entropy,
        "train": part,
        "validation": part,
        "batch_size": 4,
        "num_epochs": 2,
        "accuracy": True,
    }


@functools.cache
def small_network():
    """A network of eight examples."""
    return research.workloads.network_workload(**network_arguments())


def of_verification() -> Iterator[Call]:
    p = research.verification
    gradient, problem = (
        jax.grad(bowl),
        p.PROBLEMS["quadratic"]
        if "quadratic" in p.PROBLEMS
        else next(iter(p.PROBLEMS.values())),
    )
    rule, start = optax.sgd(0.1), jnp.array([1.0, 2.0])
    along = {"gradient": gradient, "params": start, "num_steps": 3}
    from_optax = {
        "name": "adam",
        "objective": bowl,
        "params": start,
        "batch": None,
        "learning_rate": 0.1,
        "num_steps": 3,
    }
    formula = p.FORMULAS["gradient_descent"].iterates
    yield Call(
        "verification.deviation",
        p.deviation,
        {"rule": rule, "reference": optax.sgd(0.2), **along},
        slow=True,
    )
    yield Call(
        "verification.deviation_from_optax",
        p.deviation_from_optax,
        from_optax,
        slow=True,
    )
    yield Call(
        "verification.verification_table",
        p.verification_table,
        {"rules": ["gradient_descent"], "dtypes": ["float64"]},
        slow=True,
    )
    yield Call(
        "verification.verify_rule",
        p.verify_rule,
        {"rule": rule, "reference": optax.sgd(0.1), "problems": [problem]},
        slow=True,
    )
    yield Call(
        "verification.trajectory", p.trajectory, {"rule": rule, **along}, slow=True
    )
    yield Call(
        "verification.walk",
        p.walk,
        {"rule": rule, "problem": problem, "num_steps": 3},
        slow=True,
    )
    given = {
        "formula": formula,
        "problem": problem,
        "num_steps": 3,
        "arguments": {"learning_rate": 0.1},
    }
    yield Call("verification.walk_exactly", p.walk_exactly, given, slow=True)


def of_studies() -> Iterator[Call]:
    protocol, contenders, measurements = small_study()
    one = measurements["quadratic", "heavy_ball"]
    terms = {"searches": 2, "budget": 2, "passes": 20, "seeds": 3, "tuning_seeds": 2}
    asked = {
        "rules": ["gradient_descent", "heavy_ball"],
        "workload": workload(),
        **terms,
    }
    timing = {
        "workload": workload(),
        "make_rule": make_sgd,
        "sampler": samplers.full_batch(1),
    }
    gaps = np.array([1.0, 0.1, 0.001])
    passes = np.array([0.0, 1.0, 2.0])
    checked = {"params": params(), "objective": risk, "batch": batch()}
    for name, arguments, slow in (
        ("check_contender", {"contender": contenders[0], **checked}, False),
        ("check_space", {"space": {"learning_rate": Range(1e-3, 1.0)}}, False),
        ("choose", {"tuning": np.array([[3.0, 1.0], [1.0, 2.0]])}, False),
        (
            "choose_rate",
            {
                "score": lambda rates: np.log(rates)[:, None] ** 2,
                "ladder": [0.25, 0.5, 1.0, 2.0],
            },
            False,
        ),
        ("compare", {**asked, "timed": False}, True),
        (
            "compute_share",
            {
                **asked,
                "timed": False,
                "part": 0,
                "parts": 2,
                "checkpoints": types.no_checkpoints,
            },
            True,
        ),
        (
            "conclude",
            {
                "protocol": protocol,
                "baseline": "heavy_ball",
                "contenders": contenders,
                "measurements": measurements,
            },
            True,
        ),
        ("make_contenders", {"rules": {"plain": make_sgd, "adam": "adam"}}, False),
        (
            "compare_networks",
            {
                "rules": {"plain": make_sgd, "adam": "adam"},
                "networks": small_network(),
                "baseline": "adam",
                "evaluations": {"adam": 1.0},
                "search_schedule": False,
                "searches": 2,
                "budget": 2,
                "seeds": 3,
                "tuning_seeds": 2,
                "level": 0.95,
                "search_seed": 0,
                "size": "small",
                "timed": False,
            },
            True,
        ),
        (
            "compute_network_share",
            {
                "rules": {"plain": make_sgd, "adam": "adam"},
                "networks": small_network(),
                "part": 0,
                "parts": 3,
                "checkpoints": types.no_checkpoints,
                "search_schedule": False,
                "searches": 2,
                "budget": 2,
                "seeds": 3,
                "tuning_seeds": 2,
                "timed": False,
            },
            True,
        ),
        (
            "difference",
            {"mine": scores(), "other": scores(0.5), "resamples": 100},
            False,
        ),
        ("digest_files", {"words": ["adam"]}, False),
        ("digits_gained", {"passes": passes, "gaps": gaps}, False),
        (
            "expected_running_time",
            {"costs": np.array([4.0, np.inf]), "budget": 10.0},
            False,
        ),
        ("first_reached", {"passes": passes, "gaps": gaps, "target": 0.01}, False),
        ("seeds_in_words", {"count": 5}, False),
        ("interval_in_words", {"interval": (1.5, 1.0, 2.0)}, False),
        ("leader", {"measurements": measurements}, False),
        ("log_costs", {"costs": np.array([4.0, np.inf]), "budget": 10.0}, False),
        ("logs_of", {"arrays": one.arrays}, False),
        ("make_protocol", {"budget": 3}, False),
        ("make_workloads", {"given": ["quadratic"]}, False),
        ("mean_interval", {"samples": [1.0, 2.0, 3.0]}, False),
        (
            "measure",
            {
                **timing,
                "num_epochs": 4,
                "seeds": [0, 1],
                "tuning_seeds": [5, 6],
                "width": 2,
            },
            True,
        ),
        (
            "measure_contender",
            {
                "workload": workload(),
                "contender": contenders[0],
                "protocol": protocol,
                "timed": False,
            },
            True,
        ),
        (
            "measure_contenders",
            {
                "protocol": protocol,
                "contenders": contenders,
                "workloads": [workload()],
                "timed": False,
            },
            True,
        ),
        (
            "median_interval",
            {"samples": np.array([1.0, 2.0, 3.0]), "resamples": 100},
            False,
        ),
        ("parse_command", {"rules": ["adam"], "find": str.upper}, False),
        ("parse_evaluations", {"words": ["mine=2"]}, False),
        ("name_rules", {"words": ["adam", "v1=lion"]}, False),
        ("parse_range", {"text": "1e-3..1"}, False),
        ("range_text", {"range_": research.tuning.Range(0.1, 1.0)}, False),
        ("parse_spaces", {"words": ["adam.b1=0.1..0.9"]}, False),
        ("passes_to_target", {**gap_arrays(), "target": 0.01}, False),
        ("penalised_passes", {**gap_arrays(), "target": 0.01}, False),
        (
            "performance_profile",
            {"costs": np.array([[1.0, 2.0]]), "factors": np.array([1.0, 2.0])},
            False,
        ),
        ("plan", asked, True),
        ("practice_regimes", {"batch_size": 4}, False),
        ("read_study", {"path": finished_study()}, False),
        ("sampler_of", {"workload": workload(), "batch_size": None}, False),
        ("search_scores", {**gap_arrays(), "target": 0.01}, False),
        ("searched_cost", {"logs": search_logs()}, False),
        (
            "searched_difference",
            {"pairs": [(search_logs(), search_logs() - 0.1)]},
            False,
        ),
        (
            "interleaved_timing",
            {"calls": [lambda: None, lambda: None], "repeats": 2},
            False,
        ),
        ("theory_regimes", {"batch_size": 4}, False),
        (
            "compile_alone",
            {**timing, "hyperparameters": {"learning_rate": 0.1}, "num_epochs": 2},
            True,
        ),
        (
            "time_alone",
            {**timing, "hyperparameters": {"learning_rate": 0.1}, "num_epochs": 2},
            True,
        ),
        (
            "train_trials",
            {
                "workload": workload(),
                "contender": contenders[0],
                "protocol": protocol,
                "values": {"learning_rate": np.array([0.1, 0.2])},
                "count": 2,
            },
            True,
        ),
    ):
        packages = (statistics, tuning, comparison)
        (package,) = (p for p in packages if inspect.isfunction(getattr(p, name, None)))
        yield Call(
            f"{package.__name__.removeprefix('research.')}.{name}",
            getattr(package, name),
            arguments,
            slow,
        )


@functools.wraps(search.search)
def first_runs(*arguments, **named):
    """The first runs that a search asks for: it waits for their scores, so it cannot be
    run to its end.
    """
    return next(search.search(*arguments, **named))


class StartedAnew:
    """A search that begins again whenever its first runs are asked for, so that a call
    can be repeated.
    """

    def __init__(self, arguments):
        self.arguments = arguments

    def __next__(self):
        self.search = search.search(
            **self.arguments, generator=np.random.default_rng(0)
        )
        return next(self.search)

    def send(self, scores):
        return self.search.send(scores)


def of_searches() -> Iterator[Call]:
    """The functions of a search and of its statistics that their packages do not
    show.
    """
    space = {
        "learning_rate": Range(1e-3, 1.0),
        "momentum": Range(0.0, 0.9, "one_minus"),
    }
    begun = {"space": space, "budget": 2, "seeds": [5, 6]}
    logs = np.random.default_rng(0).normal(size=(2, 3, 4))
    for function, arguments in (
        (first_runs, begun | {"generator": np.random.default_rng(0)}),
        (
            search.search_all,
            {
                "searches": [StartedAnew(begun), StartedAnew(begun)],
                "evaluate": lambda asked: [np.zeros(len(one.seeds)) for one in asked],
            },
        ),
        (search.most_runs, {"budget": 2, "seeds": 3}),
        (spaces.to_unit, {"space": space}),
        (spaces.from_unit, {"space": space, "shares": np.array([[0.0, 0.5]])}),
        (spaces.unit_limits, {"space": space}),
        (searches.best_of_trials, {"scores": logs, "resamples": 100}),
        (
            bootstrap.wilson_interval,
            {
                "estimate": 0.6,
                "variance": 0.01,
                "freedom": 4.0,
                "seeds": 9,
                "level": 0.95,
            },
        ),
    ):
        module = function.__module__.removeprefix("research.")
        yield Call(f"{module}.{function.__name__}", function, arguments)


def of_runs() -> Iterator[Call]:
    r = runs
    environment = {"versions": {"jax": "1"}, "python": "3"}
    comparison = r.compare(result(), result(), [environment, environment])
    agreement = r.hold_against(r.read_reference(reference()), finished_run().path)
    saved = Saved({"a": np.arange(3)}, {"epoch": 1})
    for name, arguments in {
        "agreement_verdict": {"agreement": agreement},
        "append_metrics": {"run": open_run(), "values": {"loss": 1.0}},
        "checkpoints_in": {"folder": folder() / "checkpoints"},
        "close": {"run": open_run()},
        "code_digest": {"files": [str(HERE)]},
        "command_line": {"experiment": "toy", "config": {"seed": 0}},
        "compare": {
            "there": result(),
            "here": result(),
            "environments": [environment, environment],
        },
        "dashed": {"row": ("a", None, 1.0)},
        "environment": {"width": 2},
        "finish": {"run": open_run(), "result": result()},
        "hash_arrays": {"arrays": (np.arange(3.0),)},
        "hold_against": {
            "reference": r.read_reference(reference()),
            "path": finished_run().path,
        },
        "keep": {"path": finished_run().path, "folder": folder()},
        "load_result": {"path": finished_run().path},
        "open_run": {
            "experiment": "opened",
            "config": {"seed": 0},
            "results": folder() / "results",
        },
        "pack": {"run": finished_run().path, "target": folder() / "toy.zip"},
        "parse_seeds": {"text": "0..3"},
        "seeds_text": {"seeds": (0, 1, 5)},
        "read_contents": {"path": finished_run().path},
        "read_manifest": {"path": finished_run().path},
        "read_reference": {"file": reference()},
        "reference_of": {"path": finished_run().path},
        "remembered": {
            "checkpoints": types.no_checkpoints,
            "name": "a",
            "compute": lambda parts: saved,
        },
        "run_id": {"experiment": "toy", "config": {"seed": 0}},
        "verdict": {"comparison": comparison},
        "model_file": {"path": run_with_model(), "name": "line"},
        "write_step_metrics": {
            "path": folder() / "steps.csv",
            "steps": {"loss": np.ones((2, 3))},
            "evaluations": {"accuracy": np.ones(3)},
        },
        "write_atomically": {"path": folder() / "a.txt", "data": b"text"},
    }.items():
        yield Call(
            f"runs.{name}",
            getattr(r, name),
            arguments,
            slow=name in {"open_run", "environment"},
        )
    yield Call(
        "runs.checkpoints_in()",
        r.checkpoints_in(folder() / "checkpoints"),
        {"name": "a"},
    )
    yield Call(
        "runs.checkpoints_in().save",
        r.checkpoints_in(folder() / "checkpoints")("a").save,
        {"saved": saved},
    )


def of_checks() -> Iterator[Call]:
    c = research.checks
    reading, sizes = research.reading, research.sizes
    yield Call("reading.check_regular", reading.check_regular, {"path": HERE})
    yield Call(
        "reading.check_shape",
        reading.check_shape,
        {"value": {"a": 1}, "shape": {"a": int}, "where": "config"},
    )
    yield Call("reading.parse_json", reading.parse_json, {"data": b"[1]"})
    yield Call("reading.read_bytes", reading.read_bytes, {"path": HERE, "most": 10**6})
    yield Call("sizes.check_room", sizes.check_room, {"what": "n=3"})
    yield Call("sizes.check_memory", sizes.check_memory, {"what": "n=3", "size": 8})
    for name, arguments in {
        "check_call": {"caller": "cost", "f": cube, "count": 1},
        "check_callable": {"name": "f", "value": cube},
        "check_choice": {"name": "mode", "value": "a", "known": ("a", "b")},
        "check_count": {"name": "n", "value": 2},
        "check_distinct": {"name": "rule", "values": ("adam", "lion")},
        "check_dtype": {"name": "dtype", "value": "float32"},
        "check_flag": {"name": "noisy", "value": True},
        "check_instance": {"name": "n", "value": 2, "kind": int},
        "check_key": {"name": "key", "value": key()},
        "check_leaves_not_deleted": {"name": "params", "tree": params()},
        "check_mapping": {"name": "cells", "value": {"a": 1}},
        "check_not_deleted": {"name": "x", "value": 2.0},
        "check_methods": {
            "name": "model",
            "value": linear_model(),
            "methods": ("init", "apply"),
        },
        "check_number": {"name": "rate", "value": 0.5},
        "check_numbers": {"name": "x", "value": np.ones(2)},
        "check_path": {"name": "folder", "value": "a"},
        "check_real": {"name": "x", "value": 0.5},
        "check_sequence": {"name": "seeds", "value": [1, 2]},
        "check_share": {"name": "level", "value": 0.5},
        "check_text": {"name": "text", "value": "a"},
        "check_tree": {"name": "params", "tree": params()},
        "is_array": {"value": np.ones(2)},
        "is_float_array": {"value": np.ones(2)},
        "is_integer": {"value": 2},
        "is_traced": {"value": 2},
        "refuse_traced": {"caller": "cost", "x": 2},
        "takes_others": {"value": cube},
        "shown": {"value": 2},
    }.items():
        yield Call(f"checks.{name}", getattr(c, name), arguments)


def of_pages() -> Iterator[Call]:
    f, r = research.figures, research.report
    x = np.arange(3.0)
    board = {"paths": [finished_study()], "output": folder() / "board.html"}
    rankings = research.leaderboard.write_leaderboard(**board)
    f.save(picture(), folder(), "still")
    yield Call(
        "figures.band",
        f.band,
        {"axes": figure_axes(), "x": x, "middle": x, "low": x - 1, "high": x + 1},
    )
    yield Call("figures.colour", f.colour, {"regime": "full batch"})
    yield Call(
        "figures.new_figure", f.new_figure, {"width": 2.0, "height": 1.0}, slow=True
    )
    yield Call(
        "figures.svg_bytes", f.svg_bytes, {"figure": picture().figure}, slow=True
    )
    yield Call(
        "figures.save",
        f.save,
        {"picture": picture(), "folder": folder(), "name": "still"},
        slow=True,
    )
    yield Call(
        "leaderboard.tables", research.leaderboard.tables, {"rankings": rankings}
    )
    yield Call(
        "leaderboard.write_leaderboard", research.leaderboard.write_leaderboard, board
    )
    yield Call("report.cell", r.cell, {"value": 1.0, "text": "1"})
    yield Call("report.embed", r.embed, {"path": folder() / "still.svg"})
    drawn = {"data": (folder() / "still.svg").read_bytes(), "name": "still"}
    yield Call("report.embed_bytes", r.embed_bytes, drawn)
    yield Call("report.rule_sources", r.rule_sources, {"numbers": {"origin": {}}})
    yield Call("report.first_sentence", r.first_sentence, {"text": "One. Two."})
    yield Call("report.paragraphs", r.paragraphs, {"text": "One.\n\nTwo."})
    yield Call("report.prose", r.prose, {"text": "Leave out --fast."})
    yield Call("report.shown", r.shown, {"value": 1.5})
    yield Call("report.sortable", r.sortable, {"table": result().tables[0]})
    yield Call("report.template", r.template, {"name": "report.html"})
    yield Call(
        "report.write_report",
        r.write_report,
        {"path": finished_run().path, "pictures": []},
    )


# Nothing to mutate.
WITHOUT_ARGUMENTS = {
    "sizes.check_most",  # It takes any name.
    *(
        "datasets.benchmark_logs",
        "datasets.documents",
        "datasets.python_help",
        "datasets.recordings",
        "datasets.table_rows",
        "datasets.vowels",
    ),
    "figures.style",
}
GROUPS = (
    *(
        of_losses,
        of_objectives,
        of_derivatives,
        of_datasets,
        of_optima,
        of_schedules,
        of_descent,
        of_models,
        of_files,
    ),
    *(
        of_workloads,
        of_verification,
        of_rules,
        of_studies,
        of_searches,
        of_runs,
        of_pages,
        of_checks,
    ),
)


@functools.cache
def calls() -> tuple[Call, ...]:
    """All valid calls."""
    return tuple(call for group in GROUPS for call in group())
