"""How many images does a linear model recognise, how many an MLP, and how many a
convolutional network?

Fashion-MNIST has 60,000 small training images of clothes and 10,000 test images, in ten
classes. Softmax regression, the baseline, has one weight for each pixel and class. An
MLP with three hidden layers mixes all pixels. Both are trained by Adam. A convolutional
network (CNN) applies the same filters everywhere in the image. Its filters are trained
by Muon, and all else by Adam. Half of its training images are mirrored, and its outputs
are averaged over a test image and the mirror image. All learning rates rise and fall
once. The CNN's accuracy also depends on the length of the training. The experiment
therefore measures trainings of several lengths, each with its own schedule.

    python experiments/image_recognition.py            # 9 to 15 minutes on two cores
    # About an hour and a half: the rates chosen anew, more seeds, more epochs.
    python experiments/image_recognition.py --full
    # Classify your image with the networks of the finished run.
    python experiments/image_recognition.py --predict shoe.png

Nothing was chosen on test images. For softmax regression and the MLP, --choose 0.5 1 2
shows that half the rate and twice the rate have lower accuracies on 5,000 held-out
training images. The rate of the CNN was set by hand. Its dropout probability was chosen
on the held-out images, with one seed. The accuracy was 93.1 % with the flags `--choose
1 --dropout 0.25`, and 93.4 % with a probability of 0.1 and of 0. Adam for the filters,
no mirroring, label smoothing and a third convolution were tried on the held-out images
as well, and were lower. With --full, all rates are chosen on held-out images. The
reported trainings use all 60,000 images. If Fashion-MNIST is missing and cannot be
downloaded, the digits of scikit-learn replace it, and the answer says so.

Expected numbers (`EXPECTED`): test accuracy on Fashion-MNIST, as the mean over the
seeds. For the two networks, the lower bound is an accuracy from the web page of the
data set. This page lists an MLP with 256, 128 and 100 units, and a network with two
convolutions and pooling.
"""

import dataclasses
import functools
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import research

EXPECTED = {"softmax": (0.844, 0.86), "mlp": (0.883, 0.91), "cnn": (0.916, 0.94)}
VARIES = {
    "peak rate": None
}  # Chosen from trainings; `reproduce` on another processor may choose others.
CLAIM, FALLBACK = "fashion_mnist", "digits"


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the experiment."""

    dataset: str = CLAIM
    """Data set: fashion_mnist, mnist, mnist_5k, cifar10 or digits."""
    seeds: str = "0..2"
    """Seeds of the reported trainings, written as 0..9 or as 1,4,7."""
    batch_size: int = 128
    """Examples in a batch."""
    softmax_epochs: int = 20
    """Epochs of softmax regression."""
    mlp_epochs: int = 12
    """Epochs of the MLP."""
    cnn_epochs: int = 8
    """Epochs of the CNN."""
    budgets: tuple[int, ...] = (1, 3)
    """Other numbers of epochs. A CNN is trained for each of them, with the first
    seed."""
    softmax_rate: float = 2e-3
    """Peak learning rate of softmax regression."""
    mlp_rate: float = 2e-3
    """Peak learning rate of the MLP."""
    cnn_rate: float = 3e-3
    """Peak learning rate of the CNN."""
    hidden: tuple[int, ...] = (256, 128, 100)
    """Widths of the MLP's hidden layers."""
    channels: tuple[int, ...] = (32, 64)
    """Numbers of filters of the 3 by 3 convolutions. 2 by 2 pooling follows each
    convolution, and 128 dense units follow the last pooling."""
    dropout: float = 0.1
    """Dropout probability of the inputs of the CNN's dense layers."""
    mirror: bool = True
    """Mirror half of the images while the CNN is trained, and average its outputs over
    each evaluated image and its mirror image. Only for fashion_mnist and cifar10."""
    choose: tuple[float, ...] = ()
    """Multiples of each rate to try on held-out training images, ascending. If empty,
    the rates are used as they are."""
    held_out: int = 5_000
    """Number of training images that are held out for this choice."""


FULL = Config(
    seeds="0..4",
    mlp_epochs=20,
    cnn_epochs=14,
    budgets=(1, 3, 8),
    choose=(0.25, 0.5, 1, 2, 4),
)
FAST = Config(
    dataset=FALLBACK,
    seeds="0..1",
    batch_size=32,
    softmax_epochs=2,
    mlp_epochs=2,
    cnn_epochs=2,
    budgets=(1,),
    mlp_rate=1e-2,
    cnn_rate=1e-2,
    hidden=(16, 16),
    channels=(4, 8),
    mirror=False,
)


if __name__ == "__main__":  # Flags are read before anything heavy is imported.
    research.cli.main(sys.modules[__name__])

import jax
import numpy as np
from sklearn.metrics import confusion_matrix, recall_score

from experiments._prediction import (
    arrays_to_keep,
    kept_model,
    loaded,
    ranked_classes,
)
from experiments._trainings import train_jobs
from research.cli.progress import OnProgress
from research.figures.confusion import commonest_errors
from research.types import Checkpoints, Model, Params, Saved

OF_DIGITS = ("digits", "mnist", "mnist_5k")  # Their images must not be mirrored.
NOT_MIRRORED = "a mirrored digit is another digit or none"
LABELS = {"softmax": "softmax regression", "mlp": "MLP", "cnn": "CNN"}
PUBLISHED = {"softmax": 0.844, "mlp": 0.883, "cnn": 0.916}
WARMUP = 0.25  # Share of the training in which the rate rises.
SLICE = 500  # Maximum number of examples that are evaluated at once.
CHOICE_SEED, SPLIT_SEED = (
    100,
    0,
)  # Seeds of the trainings for the choice of rates, and of the held-out images.
ABOUT = {
    "fashion_mnist": "The training images show light clothes on black. A photo on a "
    "light ground must be inverted first.",
    "cifar10": "",
} | dict.fromkeys(OF_DIGITS, "The training images show white digits on black.")
WORST = 24  # Number of errors shown.
MOST_FILTERS = 32  # Maximum number of filters shown of each model.


def complete(config: Config):
    """Return the config with a data set that is available.

    If the default data set is missing and cannot be downloaded, it is replaced. Images
    that must not be mirrored are not mirrored.
    """
    if config.dataset != CLAIM:
        if not config.mirror or config.dataset not in OF_DIGITS:
            return config
        words = f"note: mirror is False for {config.dataset}: {NOT_MIRRORED}."
        print(words, file=sys.stderr)
        return dataclasses.replace(config, mirror=False)
    try:
        research.datasets.images(CLAIM)
    except (OSError, ImportError) as problem:
        words = (
            f"warning: {problem} Using {FALLBACK} instead. They are few and small, so "
            "batch_size is 32, held_out is 300 and mirror is False."
        )
        print(words, file=sys.stderr)
        return dataclasses.replace(
            config, dataset=FALLBACK, batch_size=32, mirror=False, held_out=300
        )
    return config


class Job(NamedTuple):
    """One training.

    Attributes:
      model: softmax, mlp or cnn.
      seed: Seed of the initial parameters, the order of examples, and the noise.
      epochs: Passes over the training images.
      rate: Peak learning rate.
      held_out: Number of training images that are held out. The model is evaluated on
        these images. 0 means that the model is evaluated on the test images.
    """

    model: str
    seed: int
    epochs: int
    rate: float
    held_out: int = 0


def run(
    config: Config,
    on_progress: OnProgress | None = None,
    checkpoints: Checkpoints | None = None,
) -> research.runs.Findings:
    """Choose rates if requested, then train each model with each seed.

    The CNN is also trained for the other numbers of epochs in `budgets`.
    """
    checkpoints = checkpoints or research.types.no_checkpoints
    split = research.datasets.images(config.dataset)
    seeds, models = check(config, split), tuple(LABELS)
    epochs, rates = (
        {model: getattr(config, f"{model}_{what}") for model in models}
        for what in ("epochs", "rate")
    )
    trials = [
        Job(model, CHOICE_SEED, epochs[model], factor * rates[model], config.held_out)
        for model in models
        for factor in config.choose
    ]
    total = len(trials) + len(models) * len(seeds) + len(config.budgets)
    work = functools.partial(
        train_jobs,
        compute=lambda job, watch: functools.partial(train, job, config, split, watch),
        label=lambda job: f"{LABELS[job.model]}, seed {job.seed}, {job.epochs} epochs",
        on_progress=on_progress or (lambda *shown: None),
        checkpoints=checkpoints,
        total=total,
    )
    rates, tried = chosen(rates, trials, work(trials, first=0))
    jobs = [
        Job(model, seed, epochs[model], rates[model])
        for model in models
        for seed in seeds
    ]
    found = work(
        jobs
        + [Job("cnn", seeds[0], budget, rates["cnn"]) for budget in config.budgets],
        first=len(trials),
    )
    trained = {
        model: found[i * len(seeds) : (i + 1) * len(seeds)]
        for i, model in enumerate(models)
    }
    budgets = dict(zip(config.budgets, found[len(jobs) :], strict=True)) | {
        epochs["cnn"]: trained["cnn"][0]
    }
    numbers = facts(config, split, rates, tried, trained, budgets)
    weights = {
        name: kept_model(found[0], describe(name, config, split), ["accuracy"])
        for name, found in trained.items()
    }
    return research.runs.Findings(arrays(split, trained), numbers, weights)


def check(config: Config, split: Any):
    """Check the config, and return its seeds."""
    of_models = [f"{model}_{what}" for model in LABELS for what in ("epochs", "rate")]
    for name in ("batch_size", "hidden", "channels", "held_out", *of_models):
        if not np.min(getattr(config, name), initial=1) > 0:
            raise ValueError(
                f"{name} must be positive; got {name}={getattr(config, name)}."
            )
    if not config.channels:
        raise ValueError(
            "channels must have at least one entry, because the filters of the first "
            "convolution are drawn; got channels=()."
        )
    if any(epochs < 1 or epochs == config.cnn_epochs for epochs in config.budgets):
        raise ValueError(
            "budgets must be positive and other than cnn_epochs="
            f"{config.cnn_epochs}; got budgets={config.budgets}."
        )
    if not all(0 < factor < math.inf for factor in config.choose) or list(
        config.choose
    ) != sorted(set(config.choose)):
        raise ValueError(
            f"choose must be positive multiples, ascending; got choose={config.choose}."
        )
    if config.mirror and config.dataset in OF_DIGITS:
        raise ValueError(f"mirror must be False for {config.dataset}: {NOT_MIRRORED}.")
    learnt = len(split.train_y) - (config.held_out if config.choose else 0)
    if config.batch_size > learnt:
        left = f" that held_out={config.held_out} leaves" if config.choose else ""
        raise ValueError(
            f"batch_size={config.batch_size} is too large: at most the "
            f"{max(learnt, 0):,} training images of {config.dataset}{left}."
        )
    for model in LABELS:
        make_model(
            model, config, split
        )  # Made first, so that invalid widths, channels and dropout raise immediately.
    return research.runs.parse_seeds(config.seeds)


def train(
    job: Job,
    config: Config,
    split: Any,
    watch: Callable[[float, str], None],
    parts: Checkpoints,
):
    """Train once, and return the curves, the final probabilities and the filters.

    The curves are accuracy and loss by epoch. The filters are the weights of the first
    layer.
    """
    learn, judge = parted(split, job.held_out)
    model = make_model(job.model, config, split)
    key_init, key_epochs = (
        jax.random.fold_in(jax.random.key(job.seed), child) for child in range(2)
    )
    sampler = research.samplers.minibatch(len(learn.y), config.batch_size)
    schedule = research.schedules.one_cycle(
        job.rate, job.epochs * sampler.num_batches, WARMUP
    )
    objectives = research.objectives
    accuracy = objectives.in_slices(objectives.accuracy(model), SLICE)
    trained = research.descent.train(
        objectives.empirical_risk(model, research.losses.softmax_cross_entropy),
        update_rule(job.model, schedule),
        learn,
        sampler,
        num_epochs=job.epochs,
        params=model.init(key_init),
        key=key_epochs,
        evaluate=lambda params: {"accuracy": accuracy(params, judge)},
        noisy=job.model == "cnn",
        on_progress=watch,
        checkpoint=parts("training"),
    )
    if trained.first_bad_step >= 0 and not job.held_out:
        raise ValueError(
            f"The {LABELS[job.model]} at rate {job.rate:g} diverges in step "
            f"{trained.first_bad_step}. Choose a smaller rate."
        )
    found = trained.evaluations | {
        "loss": trained.steps.loss.mean(axis=1),
        "probabilities": probabilities(model, trained.params, judge.x),
        "filters": first_filters(job.model, trained.params, split.train_x.shape[1:]),
    }
    if not job.held_out:
        found |= arrays_to_keep(trained)
    values = {"seconds": trained.seconds, "first_bad_step": trained.first_bad_step}
    values |= {"gradients": trained.steps.loss.size * sampler.batch_size}
    return research.types.Saved(
        found, values | {"parameters": research.models.count_parameters(trained.params)}
    )


def update_rule(model: str, schedule: Callable):
    """Return Adam; for the CNN, Muon for the filters and Adam for all else.

    The filters of a convolution are read as a matrix with a row for each weight of a
    filter and a column for each filter.
    """
    rules = research.update_rules
    if model != "cnn":
        return rules.adam(schedule)
    filters = rules.MatrixAxes(inputs=(0, 1, 2), outputs=3)
    matrices = lambda params: jax.tree.map(
        lambda leaf: filters if leaf.ndim == 4 else False, params
    )
    # Moonlight's scale: the rates of Adam can be used.
    return rules.muon(schedule, matrices=matrices, consistent_rms=0.2)


def parted(split: Any, held_out: int):
    """Return the examples for training and for evaluation.

    If no images are held out, they are the training and the test images. Otherwise they
    are two parts of the training images.
    """
    Batch = research.types.Batch
    if not held_out:
        return Batch(split.train_x, split.train_y), Batch(split.test_x, split.test_y)
    order = np.random.default_rng(SPLIT_SEED).permutation(len(split.train_y))
    return tuple(
        Batch(split.train_x[part], split.train_y[part])
        for part in (order[held_out:], order[:held_out])
    )


def describe(name: str, config: Config, split: Any):
    """Return all that is needed to make a model, as JSON values."""
    mean, sd = research.models.mean_and_sd(split.train_x)
    of_cnn = ("channels", "dropout", "mirror")
    sizes = {"cnn": {each: getattr(config, each) for each in of_cnn}}
    sizes |= {"mlp": {"hidden": config.hidden}}
    return {
        "model": name,
        "dataset": config.dataset,
        "image_shape": split.train_x.shape[1:],
        "classes": split.classes,
        "mean": mean.tolist(),
        "sd": sd.tolist(),
        "white": int(split.train_x.max()),
    } | sizes.get(name, {})


def make_model(name: str, config: Config, split: Any):
    """Make a model that accepts the images in their stored form."""
    model = build(describe(name, config, split))
    return (
        research.models.augmented(model, research.models.random_flip)
        if name == "cnn" and config.mirror
        else model
    )


def build(architecture: Mapping[str, Any]):
    """Make the model that `describe` describes."""
    models, shape = research.models, tuple(architecture["image_shape"])
    num_classes = len(architecture["classes"])
    if architecture["model"] == "cnn":
        model = models.cnn(
            shape,
            num_classes,
            channels=tuple(architecture["channels"]),
            dropout=architecture["dropout"],
            dtype="float32",
        )
    elif architecture["model"] == "mlp":
        sizes = (math.prod(shape), *architecture["hidden"], num_classes)
        model = flattened(models.mlp(sizes, dtype="float32"))
    else:
        model = flattened(
            models.softmax(math.prod(shape), num_classes, scale=0.0, dtype="float32")
        )
    model = models.on_images(
        model, architecture["mean"], architecture["sd"], dtype="float32"
    )
    # Without a key, as in an evaluation.
    return models.mirror_averaged(model) if architecture.get("mirror") else model


def predict(config: Config, folder: Path, file: Path) -> research.runs.Result:
    """Classify an image with the models of a finished run.

    Args:
      config: Config of the run.
      folder: Run folder.
      file: Image with the size and the channels of the training images.
    """
    found, shape, classes = {}, None, ()
    for name in LABELS:
        model, params, architecture = loaded(folder, name, build)
        shape, classes = architecture["image_shape"], architecture["classes"]
        image = research.datasets.read_image(file, tuple(shape))
        # White is 16 in the bundled digits, and 255 in a file.
        image = np.round(image * (architecture["white"] / 255)).astype(np.uint8)
        found[LABELS[name]] = probabilities(model, params, image[None])[0]
    return ranked_classes(file, classes, found, ABOUT[config.dataset])


def flattened(model: Model):
    """Turn a model of vectors into a model of images. Pixels are read row by row."""
    apply = lambda params, x, key=None: model.apply(
        params, x.reshape(*x.shape[:-3], -1), key
    )
    return research.types.Model(model.init, apply)


def probabilities(model: Model, params: Params, images: np.ndarray):
    """Return the probability of each class for each image, shape (n, K)."""
    predict = jax.jit(lambda params, x: jax.nn.softmax(model.apply(params, x)))
    return np.concatenate(
        [
            predict(params, images[at : at + SLICE])
            for at in range(0, len(images), SLICE)
        ]
    )


def first_filters(name: str, params: Params, shape: tuple[int, ...]):
    """Return the first layer's weights as pictures (n, H, W, C), with n at most 32."""
    if name == "cnn":
        return np.moveaxis(params["convolution_1"]["weights"], -1, 0)[:MOST_FILTERS]
    weights = params["weights"] if name == "softmax" else params["dense_1"]["weights"]
    return weights.T.reshape(-1, *shape)[:MOST_FILTERS]


def chosen(rates: dict[str, float], trials: Sequence[Job], found: Any):
    """Return the best rate of each model, and the accuracy of every rate tried."""
    tried = [
        {
            "model": job.model,
            "rate": job.rate,
            "accuracy": float(saved.arrays["accuracy"][-1]),
        }
        for job, saved in zip(trials, found, strict=True)
    ]
    best = {
        row["model"]: row["rate"]
        for row in sorted(tried, key=lambda row: np.nan_to_num(row["accuracy"], nan=-1))
    }
    return rates | best, tried


def facts(
    config: Config,
    split: Any,
    rates: dict[str, float],
    tried: Sequence[Any],
    trained: dict[str, Any],
    budgets: dict[int, Any],
):
    """Return the results of the trainings, as JSON."""
    rows = [
        {
            "model": model,
            "accuracy": list(
                research.statistics.mean_interval(
                    [saved.arrays["accuracy"][-1] for saved in found]
                )
            ),
            "published": PUBLISHED[model] if config.dataset == CLAIM else None,
            "epochs": getattr(config, f"{model}_epochs"),
            "rate": rates[model],
            "by_class": np.mean(
                [recalls(one, split) for one in found], axis=0
            ).tolist(),
        }
        | found[0].values
        | {"seconds": float(np.median([saved.values["seconds"] for saved in found]))}
        for model, found in trained.items()
    ]
    return {row["model"]: row["accuracy"][0] for row in rows} | {
        "dataset": config.dataset,
        "n_test": len(split.test_y),
        "held_out": config.held_out,
        "seeds": len(trained["cnn"]),
        "classes": list(split.classes),
        "models": rows,
        "budgets": [
            {"epochs": epochs, "accuracy": float(saved.arrays["accuracy"][-1])}
            | saved.values
            for epochs, saved in sorted(budgets.items())
        ],
        "tried": tried,
        "errors": commonest_errors(confused(trained["cnn"][0], split), split.classes),
    }


def confused(saved: Saved, split: Any):
    """Return the confusion matrix on the test images.

    Rows are true classes, and columns are predicted classes.
    """
    predicted = saved.arrays["probabilities"].argmax(axis=1)
    return confusion_matrix(split.test_y, predicted, labels=range(len(split.classes)))


def recalls(saved: Saved, split: Any):
    """Return the recognised share of each class, or NaN if it has no test images."""
    asked: dict[str, Any] = {"average": None, "zero_division": np.nan}
    predicted = saved.arrays["probabilities"].argmax(axis=1)
    return np.asarray(
        recall_score(split.test_y, predicted, labels=range(len(split.classes)), **asked)
    )


def arrays(split: Any, trained: dict[str, Any]):
    """Return the arrays of the figures. Figures of one network use the first seed."""
    first, labels = trained["cnn"][0].arrays["probabilities"], split.test_y
    predicted, confidence = first.argmax(axis=1), first.max(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:WORST]
    kept = {
        "confusions": confused(trained["cnn"][0], split),
        "worst/images": split.test_x[worst] * np.uint8(255 // split.train_x.max()),
        "worst/labels": labels[worst],
        "worst/predictions": predicted[worst],
        "worst/confidences": confidence[worst],
    }
    for model, found in trained.items():
        kept[f"{model}/filters"] = found[0].arrays["filters"]
        for name in ("accuracy", "loss"):
            kept[f"{model}/{name}"] = np.stack([saved.arrays[name] for saved in found])
    return kept
