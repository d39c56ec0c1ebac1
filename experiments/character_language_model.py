"""How well does a small network guess the next letter of Shakespeare, and is it better
than counting?

The data are the characters of nine plays. The first 90 % are for training, the others
for validation. The baseline counts: it is an n-gram model with interpolated smoothing.
An LSTM and a small GPT (a Transformer of 4 layers, 4 heads, width 128, context 64) are
trained by nanoGPT's recipe for a laptop: 2,000 steps of 12 windows, AdamW, a rate that
rises for 100 steps and falls along a cosine. The learning rates are not from nanoGPT.
With nanoGPT's rate (--learning-rate 1e-3), the loss of the GPT is 1.87. Both networks
are also trained for three times as many steps.

    # About ten minutes on two cores.
    python experiments/character_language_model.py
    # Under an hour: more seeds, a longer training.
    python experiments/character_language_model.py --full
    # The text for which nanoGPT's loss was published.
    python experiments/character_language_model.py --text tiny_shakespeare
    # One modern GPT, which trains for ten minutes with each of three seeds. Its flags
    # are in the help of modern_language_model.py.
    python experiments/character_language_model.py --modern
    # Continue your text with the networks of the finished run.
    python experiments/character_language_model.py --predict beginning.txt

The loss is in nats per character of the validation part, which is not used for
training. It is computed in three ways:

  whole      Windows do not overlap, as in training. Each character is predicted once,
             from the 1 to 64 characters before it in the window. An n-gram model uses
             all characters before it, also those of earlier windows.
  half full  Windows overlap by half, so that each character is predicted once, from
             at least 32 characters before it. The first 32 of the part are left out.
             This is the fairest comparison with n-grams.
  sampled    240 random windows, as in nanoGPT (20 batches of 12). The published loss of
             nanoGPT, 1.88, is computed in this way.

The rates and the order of the n-grams were also chosen on the validation part. The
losses are therefore slightly too low. If the text is missing and cannot be downloaded,
Python's help texts replace it, and the answer says so.

Expected numbers (`EXPECTED`), on nine-play Shakespeare: the order and the loss of the
best n-gram model; and the losses "whole" of the LSTM and the GPT, as means over seeds,
after the normal and after the longer training.
"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import research

EXPECTED = {
    "order": (7, 7),
    "ngram": (1.51, 1.53),
    "lstm": (1.56, 1.61),
    "gpt": (1.77, 1.83),
    "lstm_longer": (1.49, 1.55),
    "gpt_longer": (1.57, 1.64),
}
# Columns and numbers that depend on single trainings, with the range that `reproduce`
# accepts on another processor.
VARIES = dict.fromkeys(("whole", "half full", "sampled")) | {
    n: EXPECTED[n] for n in ("lstm_longer", "gpt_longer")
}
CLAIM, FALLBACK = "nine_play_shakespeare", "python_help"


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the experiment."""

    text: str = CLAIM
    """Text: nine_play_shakespeare, tiny_shakespeare or python_help."""
    characters: int = 0
    """Number of characters of the text to use. 0 means all characters."""
    orders: int = 8
    """Largest order of the n-grams. All orders from 1 to this order are fitted."""
    seeds: str = "0..2"
    """Seeds of the LSTM and the GPT, written as 0..9 or as 1,4,7. The longer trainings
    use only the first seed."""
    context: int = 64
    """Length of a window: the number of characters that a network reads."""
    batch_size: int = 12
    """Windows in a batch."""
    steps: int = 2_000
    """Training steps of the LSTM and the GPT."""
    longer_steps: int = 6_000
    """Training steps of both networks in the longer training."""
    evaluate_every: int = 100
    """Steps between two points of the learning curves. This number must divide both
    numbers of steps."""
    warmup: int = 100
    """Number of steps in which the rate rises."""
    learning_rate: float = 2e-3
    """Peak rate of the GPT. For both networks, the final rate is a tenth of the peak
    rate."""
    lstm_rate: float = 8e-3
    """Peak rate of the LSTM."""
    width: int = 128
    """Width of the GPT and of the LSTM's embedding."""
    layers: int = 4
    """Layers of the GPT."""
    heads: int = 4
    """Attention heads of the GPT."""
    lstm_hidden: int = 256
    """Units of the LSTM."""
    devices: int = 2
    """Number of devices, such as cores, that share each batch, if so many exist. The
    last bits of the results depend on this number."""


FULL = Config(seeds="0..9", longer_steps=20_000)
FAST = Config(
    FALLBACK, 20_000, 3, "0..1", 16, 4, 20, 40, 10, 5, 1e-2, 1e-2, 16, 1, 2, 16
)


# Flags that start another experiment.
OTHERS = {"modern": "modern_language_model"}


if __name__ == "__main__":  # Flags are read before anything heavy is imported.
    research.cli.main(sys.modules[__name__])

import jax
import optax

from experiments._characters import (
    Job,
    Parts,
    available,
    check_config,
    continuation,
    count,
    facts_of_text,
    network_facts,
    read,
    settings_of,
    train,
)
from experiments._prediction import kept_model, loaded
from research.cli.progress import OnProgress
from research.types import Checkpoints, Saved

NAMES = {
    "lstm": "LSTM",
    "gpt": "GPT",
    "lstm_longer": "LSTM, longer",
    "gpt_longer": "GPT, longer",
}


def complete(config: Config):
    """Return the config with a text that is available.

    If the default text is missing and cannot be downloaded, it is replaced.
    """
    return dataclasses.replace(config, text=available(config.text))


def run(
    config: Config,
    on_progress: OnProgress | None = None,
    checkpoints: Checkpoints | None = None,
) -> research.runs.Findings:
    """Count n-grams, then train each network with each seed."""
    seeds = check(config)
    settings = settings_of(config)
    parts, checkpoints = read(settings), checkpoints or research.types.no_checkpoints
    networks = {
        name: make_network(config, parts, name) for name in ("lstm", "gpt")
    }  # Made first, so that invalid sizes raise immediately.
    counted = research.runs.remembered(
        checkpoints, "n-grams", lambda _: count(settings, parts, seeds[0])
    )
    jobs = trainings(config, seeds)
    total, done, trained = sum(job.steps for job in jobs), 0, []
    for job in jobs:

        def show(share: float, words: str, job: Job = job, done: float = done):
            if on_progress:
                on_progress(
                    done + share * job.steps,
                    total,
                    f"{NAMES[job.network]}, seed {job.seed}: {words}",
                )

        own = networks[job.network.split("_")[0]]
        compute = lambda within, job=job, show=show, own=own: train(
            settings, job, make_rule(config, job), parts, own, show, within
        )
        trained.append(
            research.runs.remembered(
                checkpoints, f"{job.network}, seed {job.seed}", compute
            )
        )
        done += job.steps
    numbers = facts(config, parts, counted, jobs, trained)
    arrays = dict(counted.arrays)
    for job, saved in zip(jobs, trained, strict=True):
        arrays |= {
            f"{job.network}/{job.seed}/{name}": array
            for name, array in saved.arrays.items()
            if "/" not in name
        }
    weights = {}
    for job, saved in zip(jobs, trained, strict=True):
        if job.seed == seeds[0]:
            architecture = describe(config, parts, job.network)
            weights[job.network] = kept_model(saved, architecture, ["sampled"])
    return research.runs.Findings(arrays, numbers, weights)


def trainings(config: Config, seeds: Sequence[int]) -> list[Job]:
    """Return each network with each seed, then each with more steps and one seed."""
    rates = {"lstm": config.lstm_rate, "gpt": config.learning_rate}
    jobs = [
        Job(name, seed, config.steps, rate, NAMES[name])
        for name, rate in rates.items()
        for seed in seeds
    ]
    jobs += [
        Job(
            f"{name}_longer",
            seeds[0],
            config.longer_steps,
            rate,
            NAMES[f"{name}_longer"],
        )
        for name, rate in rates.items()
    ]
    return jobs


def check(config: Config):
    """Check the config, and return its seeds."""
    counts = ("batch_size", "evaluate_every", "warmup", "devices")
    rates, steps = ("learning_rate", "lstm_rate"), ("steps", "longer_steps")
    check_config(config, counts, rates, steps)
    return research.runs.parse_seeds(config.seeds)


def make_network(config: Config, parts: Parts, name: str):
    """Return the LSTM or the GPT in float32, and a function for its validation loss."""
    model = build(describe(config, parts, name))
    return model, research.models.reader(model, parts.validation, config.context)


def describe(config: Config, parts: Parts, name: str):
    """Return all that is needed to make a network, as JSON values."""
    if name.startswith("lstm"):
        sizes = {"hidden": config.lstm_hidden}
    else:
        sizes = {"layers": config.layers, "heads": config.heads}
    return {
        "model": name.split("_")[0],
        "symbols": parts.symbols,
        "context": config.context,
        "width": config.width,
    } | sizes


def build(architecture: Mapping[str, Any]):
    """Make the network that `describe` describes."""
    size = len(architecture["symbols"])
    if architecture["model"] == "lstm":
        options = {
            "cell": "lstm",
            "outputs": "every",
            "embedding": architecture["width"],
            "dtype": "float32",
        }
        return research.models.recurrent(size, architecture["hidden"], size, **options)
    return research.models.transformer_decoder(
        size,
        architecture["context"],
        width=architecture["width"],
        num_layers=architecture["layers"],
        num_heads=architecture["heads"],
        dtype="float32",
    )


def predict(config: Config, folder: Path, file: Path) -> research.runs.Result:
    """Continue a text with the networks of a finished run that were trained longer.

    Args:
      config: Config of the run.
      folder: Run folder.
      file: Text in UTF-8, in the characters of the training text.
    """
    continued = [
        f"{NAMES[name]}:\n{continuation(*loaded(folder, name, build), file)}"
        for name in ("lstm_longer", "gpt_longer")
    ]
    return research.runs.Result("\n\n".join(continued), (), {}, {})


def make_rule(config: Config, job: Job):
    """Return nanoGPT's rule.

    It is AdamW without weight decay of biases. Gradients are clipped at norm 1. The
    rate rises to its peak and then falls to a tenth of the peak.
    """
    schedules, rules = research.schedules, research.update_rules
    fall = schedules.cosine(job.rate, job.steps - config.warmup, job.rate / 10)
    rate = schedules.join(
        [schedules.linear_warmup(job.rate, config.warmup), fall], [config.warmup]
    )
    matrices = lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params)
    return optax.chain(
        rules.clip_by_global_norm(1.0),
        rules.adamw(rate, b2=0.99, weight_decay=0.1, mask=matrices),
    )


def facts(
    config: Config,
    parts: Parts,
    counted: Saved,
    jobs: Sequence[Job],
    trained: Sequence[Saved],
):
    """Return the results as JSON."""
    settings = settings_of(config)
    numbers = facts_of_text(settings, parts, counted)
    for network in NAMES:
        mine = [
            (job, saved)
            for job, saved in zip(jobs, trained, strict=True)
            if job.network == network
        ]
        numbers["networks"][network] = network_facts(settings, parts, mine)
        numbers["samples"][network] = mine[0][1].values["sample"]
        numbers[network] = numbers["networks"][network]["whole"][0]
    return numbers
