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
  half full  Each character is predicted from at least 32 characters before it. This is
             the fairest comparison with n-grams.
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
import runpy
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

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


MODERN = "modern_language_model.py"

if __name__ == "__main__":  # Flags are read before anything heavy is imported.
    if "--modern" in sys.argv:
        sys.argv.remove("--modern")
        runpy.run_path(str(Path(__file__).with_name(MODERN)), run_name="__main__")
        sys.exit()
    research.cli.main(sys.modules[__name__])

import jax
import numpy as np
import optax

from experiments._prediction import arrays_to_keep, kept_model, loaded, text_of
from research.cli.progress import OnProgress
from research.types import Checkpoints, Saved

TEXTS = (CLAIM, "tiny_shakespeare", FALLBACK)
SMOOTHING_NAMES = {"kneser_ney": "Kneser-Ney", "witten_bell": "Witten-Bell"}
NAMES = {
    "lstm": "LSTM",
    "gpt": "GPT",
    "lstm_longer": "LSTM, longer",
    "gpt_longer": "GPT, longer",
}
INIT, EPOCHS, SAMPLE, WINDOWS = range(4)  # Children of a seed's key.
MOST_BYTES = 2**22  # Maximum size of a text that is continued.
SAMPLED = 240  # nanoGPT's 20 batches of 12.
BEFORE, CHARACTERS, TEMPERATURE, TOP_K = (
    "\n",
    320,
    0.8,
    20,
)  # A sample of text: its beginning, its length, and how it is drawn.


def complete(config: Config):
    """Return the config with a text that is available.

    If the default text is missing and cannot be downloaded, it is replaced.
    """
    if config.text != CLAIM:
        return config
    try:
        research.datasets.text(CLAIM)
    except (OSError, ImportError) as problem:
        print(f"warning: {problem} Using {FALLBACK} instead.", file=sys.stderr)
        return dataclasses.replace(config, text=FALLBACK)
    return config


class Job(NamedTuple):
    """One training: network, seed, steps and rate."""

    network: str
    seed: int
    steps: int
    rate: float


class Parts(NamedTuple):
    """Training and validation tokens of the text. Tokens are indices into `symbols`."""

    name: str
    symbols: tuple[str, ...]
    train: np.ndarray
    validation: np.ndarray


def run(
    config: Config,
    on_progress: OnProgress | None = None,
    checkpoints: Checkpoints | None = None,
) -> research.runs.Findings:
    """Count n-grams, then train each network with each seed."""
    seeds = check(config)
    parts, checkpoints = read(config), checkpoints or research.types.no_checkpoints
    networks = {
        name: make_network(config, parts, name) for name in ("lstm", "gpt")
    }  # Made first, so that invalid sizes raise immediately.
    counted = research.runs.remembered(
        checkpoints, "n-grams", lambda _: count(config, parts, seeds[0])
    )
    rates = {"lstm": config.lstm_rate, "gpt": config.learning_rate}
    jobs = [
        Job(name, seed, config.steps, rate)
        for name, rate in rates.items()
        for seed in seeds
    ]
    jobs += [
        Job(f"{name}_longer", seeds[0], config.longer_steps, rate)
        for name, rate in rates.items()
    ]
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
            config, job, make_rule(config, job), parts, own, show, within
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


def check(config: Config):
    """Check the config, and return its seeds."""
    if config.text not in TEXTS:
        raise ValueError(
            f"text must be one of {', '.join(TEXTS)}; got text={config.text!r}."
        )
    counts, rates = (
        ("batch_size", "evaluate_every", "warmup", "devices"),
        ("learning_rate", "lstm_rate"),
    )
    for name, least in {
        "characters": 0,
        **dict.fromkeys(counts, 1),
        **dict.fromkeys(rates, 1e-12),
    }.items():
        if not getattr(config, name) >= least:
            raise ValueError(
                f"{name} must be at least {least}; got {name}={getattr(config, name)}."
            )
    for name in ("steps", "longer_steps"):
        steps = getattr(config, name)
        if steps <= config.warmup or steps % config.evaluate_every:
            raise ValueError(
                f"{name} must be above warmup={config.warmup}, and a multiple of "
                f"evaluate_every={config.evaluate_every}; got {name}={steps}."
            )
    return research.runs.parse_seeds(config.seeds)


def read(config: Config):
    """Split the text as nanoGPT does, into the first 90 % and the last 10 %."""
    found = (
        research.datasets.python_help()
        if config.text == FALLBACK
        else research.datasets.text(config.text)
    )
    tokens = found.tokens[: config.characters or None]
    cut = int(0.9 * len(tokens))
    if len(tokens) - cut < 2 * config.context + 1:
        raise ValueError(
            f"the last tenth of {len(tokens)} characters is too short for two windows "
            f"of context={config.context}. Use more characters or a shorter context."
        )
    return Parts(found.name, found.symbols, tokens[:cut], tokens[cut:])


def count(config: Config, parts: Parts, seed: int):
    """Fit n-grams of every order with each smoothing, and sample text from the best."""
    models, size, losses, counted = research.models, len(parts.symbols), {}, []
    for smoothing in models.SMOOTHINGS:
        began, options = (
            time.perf_counter(),
            {"max_order": config.orders, "smoothing": smoothing},
        )
        best, found = models.best_ngram(parts.train, parts.validation, size, **options)
        seconds, name = (
            time.perf_counter() - began,
            f"{len(best.levels)}-gram, {SMOOTHING_NAMES[smoothing]}",
        )
        losses[smoothing], num_seen = (
            found,
            sum(len(level.codes) for level in best.levels),
        )
        counted.append((float(found.min()), smoothing, best, name, num_seen, seconds))
    counted.sort(key=lambda row: row[0])
    key, start = (
        jax.random.fold_in(jax.random.key(seed), SAMPLE),
        [parts.symbols.index(BEFORE)],
    )
    drawn = models.sample_ngram(
        counted[0][2],
        key,
        start,
        CHARACTERS,
        temperature=TEMPERATURE,
        top_k=min(TOP_K, size),
    )
    rows = [
        {"name": n, "loss": loss, "counts": c, "seconds": t}
        for loss, _, _, n, c, t in counted
    ]
    values = {
        "smoothing": counted[0][1],
        "counted": rows,
        "sample": "".join(np.array(parts.symbols)[drawn]),
    }
    return research.types.Saved(
        {f"ngrams/{name}": found for name, found in losses.items()}, values
    )


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


def continuation(
    model: research.types.Model,
    params: Any,
    architecture: Mapping[str, Any],
    file: Path,
) -> str:
    """Return a continuation of the text in a file, drawn from a language model."""
    symbols = architecture["symbols"]
    prompt = prompt_of(file, symbols)[-architecture["context"] :]
    drawn = research.models.generate(
        model,
        params,
        jax.random.fold_in(jax.random.key(0), SAMPLE),
        prompt,
        CHARACTERS,
        context=architecture["context"],
        temperature=TEMPERATURE,
        top_k=min(TOP_K, len(symbols)),
    )
    return "".join(np.array(symbols)[drawn])


def prompt_of(file: Path, symbols: Sequence[str]):
    """Return the characters of a text file as tokens."""
    text = text_of(file, MOST_BYTES)
    unknown = sorted(set(text) - set(symbols))
    if unknown or not text:
        raise ValueError(
            f"{file} must have characters of the training text, {''.join(symbols)!r}; "
            + (f"it also has {''.join(unknown)!r}." if text else "it is empty.")
        )
    return np.array([symbols.index(character) for character in text])


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


def train(
    config: Config,
    job: Job,
    rule: optax.GradientTransformation,
    parts: Parts,
    network: tuple,
    on_progress: Callable[[float, str], None],
    within: Checkpoints,
):
    """Train a network, and return its final losses and a sample of its text."""
    keys, (model, measured) = (
        [jax.random.fold_in(jax.random.key(job.seed), child) for child in range(3)],
        network,
    )
    devices = config.devices if config.devices <= jax.device_count() else 1
    everywhere = research.datasets.window_starts(
        len(parts.train), config.context, stride=1
    )
    shape = (config.evaluate_every, config.batch_size)
    draw = lambda key: jax.random.randint(key, shape, 0, len(everywhere), dtype="int32")
    trained = research.descent.train(
        research.models.next_token_risk(model, parts.train, config.context),
        rule,
        research.types.Batch(everywhere, everywhere),
        research.types.Sampler(*shape, draw),
        num_epochs=job.steps // config.evaluate_every,
        params=model.init(keys[INIT]),
        key=keys[EPOCHS],
        evaluate=lambda params: {
            "sampled": measured(params, sampled_starts(config, parts)).mean()
        },
        on_progress=on_progress,
        checkpoint=within("training"),
        devices=devices,
    )
    if trained.first_bad_step >= 0:
        name = NAMES.get(job.network, job.network)
        raise ValueError(
            f"{name} at rate {job.rate} diverges in step {trained.first_bad_step}. "
            "Choose a smaller rate."
        )
    start, top_k = (
        np.array([parts.symbols.index(BEFORE)]),
        min(TOP_K, len(parts.symbols)),
    )
    options = {"context": config.context, "temperature": TEMPERATURE, "top_k": top_k}
    drawn = research.models.generate(
        model, trained.params, keys[SAMPLE], start, CHARACTERS, **options
    )
    arrays = whole_losses(
        config, parts, lambda starts: measured(trained.params, starts)
    )
    parameters = research.models.count_parameters(trained.params)
    sample = "".join(np.array(parts.symbols)[drawn])
    values = {
        "parameters": parameters,
        "seconds": trained.seconds,
        "sample": sample,
        "devices": devices,
    }
    arrays |= {"sampled": trained.evaluations["sampled"]} | arrays_to_keep(trained)
    return research.types.Saved(arrays, values)


def sampled_starts(config: Config, parts: Parts):
    """Return the starts of the random windows, the same for every network."""
    return np.random.default_rng(WINDOWS).integers(
        0, len(parts.validation) - config.context, SAMPLED, np.int32
    )


def whole_losses(config: Config, parts: Parts, measured: Callable):
    """Return the mean loss for each position in the window, from 1 to `context`.

    The result also has the mean loss of the characters with at least context / 2
    characters before them.
    """
    half = config.context // 2
    starts = research.datasets.window_starts(len(parts.validation), config.context)
    overlapping = research.datasets.window_starts(
        len(parts.validation), config.context, stride=config.context - half
    )
    return {
        "positions": measured(starts).mean(axis=0),
        "half_full": measured(overlapping)[:, half:].mean()[None],
    }


def facts(
    config: Config,
    parts: Parts,
    counted: Saved,
    jobs: Sequence[Job],
    trained: Sequence[Saved],
):
    """Return the results as JSON."""
    numbers = {
        "text": parts.name,
        "characters": len(parts.train) + len(parts.validation),
        "validation_characters": len(parts.validation),
        "symbols": len(parts.symbols),
        "context": config.context,
        "batch_size": config.batch_size,
        **{name: counted.values[name] for name in ("smoothing", "counted")},
        "orders": {
            name.split("/")[1]: losses.tolist()
            for name, losses in counted.arrays.items()
        },
        "order": int(counted.arrays[f"ngrams/{counted.values['smoothing']}"].argmin())
        + 1,
        "ngram": counted.values["counted"][0]["loss"],
        "samples": {"ngram": counted.values["sample"]},
        "networks": {},
    }
    for network in NAMES:
        mine = [
            (job, saved)
            for job, saved in zip(jobs, trained, strict=True)
            if job.network == network
        ]
        numbers["networks"][network] = network_facts(config, parts, mine)
        numbers["samples"][network] = mine[0][1].values["sample"]
        numbers[network] = numbers["networks"][network]["whole"][0]
    return numbers


def network_facts(config: Config, parts: Parts, mine: Sequence[tuple[Job, Saved]]):
    """Return each loss of one network: the mean over seeds, and its interval."""
    job, first = mine[0]
    found = {
        "whole": [saved.arrays["positions"].mean() for _, saved in mine],
        "half_full": [saved.arrays["half_full"][0] for _, saved in mine],
        "sampled": [saved.arrays["sampled"][-1] for _, saved in mine],
    }
    return {
        **{
            name: research.statistics.mean_interval(values)
            for name, values in found.items()
        },
        "seeds": len(mine),
        "steps": job.steps,
        "rate": job.rate,
        "passes": job.steps * config.batch_size * config.context / len(parts.train),
        **{name: first.values[name] for name in ("parameters", "devices")},
        "seconds": float(np.median([saved.values["seconds"] for _, saved in mine])),
    }
