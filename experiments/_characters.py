"""Text, n-grams, training and losses, for both language models of characters."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import research
from experiments._prediction import arrays_to_keep, text_of
from research.types import Checkpoints, Saved

TEXTS = ("nine_play_shakespeare", "tiny_shakespeare", "python_help")
CLAIM, _, FALLBACK = TEXTS
SMOOTHING_NAMES = {"kneser_ney": "Kneser-Ney", "witten_bell": "Witten-Bell"}
INIT, EPOCHS, SAMPLE, WINDOWS = range(4)  # Children of a seed's key.
MOST_BYTES = 2**22  # Maximum size of a text that is continued.
SAMPLED = 240  # Random windows for the loss: 20 batches of 12, as in nanoGPT.
BEFORE, CHARACTERS, TEMPERATURE, TOP_K = (
    "\n",
    320,
    0.8,
    20,
)  # A sample of text: its beginning, its length, and how it is drawn.


class Settings(NamedTuple):
    """Settings of the text and of a training. The fields are those of a Config."""

    text: str
    characters: int
    orders: int
    context: int
    batch_size: int
    evaluate_every: int
    devices: int = 1


def settings_of(config: Any) -> Settings:
    """Return the settings in a config."""
    names = [name for name in Settings._fields if hasattr(config, name)]
    return Settings(**{name: getattr(config, name) for name in names})


class Job(NamedTuple):
    """One training: network, seed, steps and rate, and the network in words."""

    network: str
    seed: int
    steps: int
    rate: float
    words: str = ""


class Parts(NamedTuple):
    """Training and validation tokens of the text. Tokens are indices into `symbols`."""

    name: str
    symbols: tuple[str, ...]
    train: np.ndarray
    validation: np.ndarray


def available(text: str) -> str:
    """Return the name of the text.

    If the default text is missing and cannot be downloaded, return FALLBACK.
    """
    if text != CLAIM:
        return text
    try:
        research.datasets.text(CLAIM)
    except (OSError, ImportError) as problem:
        print(f"warning: {problem} Using {FALLBACK} instead.", file=sys.stderr)
        return FALLBACK
    return text


def check_config(
    config: Any, counts: Sequence[str], rates: Sequence[str], steps: Sequence[str]
) -> None:
    """Check the text and the numbers of a config.

    Args:
      config: Config of an experiment.
      counts, rates, steps: Names of the fields that are counts, rates, and numbers of
        steps.
    """
    if config.text not in TEXTS:
        raise ValueError(
            f"text must be one of {', '.join(TEXTS)}; got text={config.text!r}."
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
    for name in steps:
        number = getattr(config, name)
        if number <= config.warmup or number % config.evaluate_every:
            raise ValueError(
                f"{name} must be above warmup={config.warmup}, and a multiple of "
                f"evaluate_every={config.evaluate_every}; got {name}={number}."
            )


def read(settings: Settings):
    """Split the text as nanoGPT does, into the first 90 % and the last 10 %."""
    found = (
        research.datasets.python_help()
        if settings.text == FALLBACK
        else research.datasets.text(settings.text)
    )
    tokens = found.tokens[: settings.characters or None]
    cut = int(0.9 * len(tokens))
    if len(tokens) - cut < 2 * settings.context + 1:
        raise ValueError(
            f"the last tenth of {len(tokens)} characters is too short for two windows "
            f"of context={settings.context}. Use more characters or a shorter context."
        )
    return Parts(found.name, found.symbols, tokens[:cut], tokens[cut:])


def count(settings: Settings, parts: Parts, seed: int):
    """Fit n-grams of every order with each smoothing, and sample text from the best."""
    models, size, losses, counted = research.models, len(parts.symbols), {}, []
    for smoothing in models.SMOOTHINGS:
        began = time.perf_counter()
        options = {"max_order": settings.orders, "smoothing": smoothing}
        best, found = models.best_ngram(parts.train, parts.validation, size, **options)
        seconds = time.perf_counter() - began
        losses[smoothing] = found
        name = f"{len(best.levels)}-gram, {SMOOTHING_NAMES[smoothing]}"
        num_seen = sum(len(level.codes) for level in best.levels)
        counted.append((float(found.min()), smoothing, best, name, num_seen, seconds))
    counted.sort(key=lambda row: row[0])
    drawn = models.sample_ngram(
        counted[0][2],
        jax.random.fold_in(jax.random.key(seed), SAMPLE),
        [parts.symbols.index(BEFORE)],
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


def continuation(
    model: research.types.Model,
    params: Any,
    architecture: Mapping[str, Any],
    file: Path,
) -> str:
    """Return a continuation of the text in a file, drawn from a language model."""
    symbols, context = architecture["symbols"], architecture["context"]
    key = jax.random.fold_in(jax.random.key(0), SAMPLE)
    prompt = prompt_of(file, symbols)[-context:]
    return sample_text(model, params, key, symbols, context, prompt)


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


def train(
    settings: Settings,
    job: Job,
    rule: optax.GradientTransformation,
    parts: Parts,
    network: tuple,
    on_progress: Callable[[float, str], None],
    within: Checkpoints,
):
    """Train a network, and return its final losses and a sample of its text."""
    keys = [jax.random.fold_in(jax.random.key(job.seed), child) for child in range(3)]
    model, measured = network
    devices = settings.devices if settings.devices <= jax.device_count() else 1
    everywhere = research.datasets.window_starts(
        len(parts.train), settings.context, stride=1
    )
    shape = (settings.evaluate_every, settings.batch_size)
    draw = lambda key: jax.random.randint(key, shape, 0, len(everywhere), dtype="int32")
    trained = research.descent.train(
        research.models.next_token_risk(model, parts.train, settings.context),
        rule,
        research.types.Batch(everywhere, everywhere),
        research.types.Sampler(*shape, draw),
        num_epochs=job.steps // settings.evaluate_every,
        params=model.init(keys[INIT]),
        key=keys[EPOCHS],
        evaluate=lambda params: {
            "sampled": measured(params, sampled_starts(settings, parts)).mean()
        },
        on_progress=on_progress,
        checkpoint=within("training"),
        devices=devices,
    )
    if trained.first_bad_step >= 0:
        raise ValueError(
            f"{job.words or job.network} at rate {job.rate} diverges in step "
            f"{trained.first_bad_step}. Choose a smaller rate."
        )
    start = np.array([parts.symbols.index(BEFORE)])
    sample = sample_text(
        model, trained.params, keys[SAMPLE], parts.symbols, settings.context, start
    )
    arrays = whole_losses(
        settings, parts, lambda starts: measured(trained.params, starts)
    )
    parameters = research.models.count_parameters(trained.params)
    values = {
        "parameters": parameters,
        "seconds": trained.seconds,
        "sample": sample,
        "devices": devices,
    }
    arrays |= {"sampled": trained.evaluations["sampled"]} | arrays_to_keep(trained)
    return research.types.Saved(arrays, values)


def sample_text(
    model: research.types.Model,
    params: Any,
    key: research.types.Key,
    symbols: Sequence[str],
    context: int,
    prompt: np.ndarray,
) -> str:
    """Draw the continuation of a prompt, given as tokens, from a language model."""
    top_k = min(TOP_K, len(symbols))
    options = {"context": context, "temperature": TEMPERATURE, "top_k": top_k}
    drawn = research.models.generate(model, params, key, prompt, CHARACTERS, **options)
    return "".join(np.array(symbols)[drawn])


def sampled_starts(settings: Settings, parts: Parts):
    """Return the starts of the random windows, the same for every network."""
    return np.random.default_rng(WINDOWS).integers(
        0, len(parts.validation) - settings.context, SAMPLED, np.int32
    )


def whole_losses(settings: Settings, parts: Parts, measured: Callable):
    """Return the mean loss for each position in the window, from 1 to `context`.

    The result also has the mean loss of the characters with at least context / 2
    characters before them.
    """
    half = settings.context // 2
    starts = research.datasets.window_starts(len(parts.validation), settings.context)
    overlapping = research.datasets.window_starts(
        len(parts.validation), settings.context, stride=settings.context - half
    )
    return {
        "positions": measured(starts).mean(axis=0),
        "half_full": measured(overlapping)[:, half:].mean()[None],
    }


def facts_of_text(settings: Settings, parts: Parts, counted: Saved) -> dict[str, Any]:
    """Return the facts of the text and of the n-grams as JSON."""
    return {
        "text": parts.name,
        "characters": len(parts.train) + len(parts.validation),
        "validation_characters": len(parts.validation),
        "symbols": len(parts.symbols),
        "context": settings.context,
        "batch_size": settings.batch_size,
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


def network_facts(settings: Settings, parts: Parts, mine: Sequence[tuple[Job, Saved]]):
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
        "passes": job.steps * settings.batch_size * settings.context / len(parts.train),
        **{name: first.values[name] for name in ("parameters", "devices")},
        "seconds": float(np.median([saved.values["seconds"] for _, saved in mine])),
    }
