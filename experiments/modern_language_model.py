"""Does one modern GPT, trained for ten minutes, guess the next letter of Shakespeare
better than counting?

The text, its split and the n-gram models are those of character_language_model.py. That
experiment trains the GPT of 2019. This one trains a GPT of the same size with the parts
that came later: rotary positions, RMS normalisation without biases, SwiGLU, and Muon
for the matrices of the blocks, with AdamW for the other parameters. Its rate rises and
then falls along a line to zero, and it reads more characters at once. It is trained
with each of three seeds, each time for the same number of steps.

    # Under an hour on two cores: three trainings of about ten minutes.
    python experiments/character_language_model.py --modern
    # What each part gains: trainings of fewer steps, one without each part.
    python experiments/character_language_model.py --modern --without each --steps 400
    # For the choice of settings: the validation part is not read.
    python experiments/character_language_model.py --modern --choose --seeds 0
    # Continue your text with the network of the finished run.
    python experiments/character_language_model.py --modern --predict beginning.txt

The loss is in nats per character of the validation part. It is computed in three ways,
which the help of character_language_model.py describes: "whole", "half full" and
"sampled". The loss "whole" is the strictest for the network: the first character of a
window is predicted from one character, while an n-gram model also uses the characters
of the window before.

The peak rate was chosen as with --choose: short trainings on the first nine tenths of
the training part were compared on its last tenth. The other settings are usual ones;
they were not searched. The order of the n-grams is chosen on the validation part, so
their loss is slightly too low. If the text is missing and cannot be downloaded,
Python's help texts replace it, and the answer says so.

Expected numbers (`EXPECTED`), on nine-play Shakespeare: the order and the loss of the
best n-gram model; and the loss "whole" of the GPT, as a mean over seeds.
"""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import research

PROGRAM = "python experiments/character_language_model.py --modern"
EXPECTED = {"order": (7, 7), "ngram": (1.51, 1.53), "gpt": (1.47, 1.53)}
# Columns that depend on single trainings.
VARIES = dict.fromkeys(("whole", "half full", "sampled"))


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the experiment."""

    text: str = "nine_play_shakespeare"
    """Text: nine_play_shakespeare, tiny_shakespeare or python_help."""
    characters: int = 0
    """Number of characters of the text to use. 0 means all characters."""
    orders: int = 8
    """Largest order of the n-grams. All orders from 1 to this order are fitted."""
    seeds: str = "0..2"
    """Seeds of the trainings, written as 0..9 or as 1,4,7."""
    context: int = 128
    """Length of a window: the number of characters that the network reads."""
    batch_size: int = 16
    """Windows in a batch."""
    steps: int = 2_000
    """Training steps."""
    evaluate_every: int = 200
    """Steps between two points of the learning curves. This number must divide the
    number of steps."""
    warmup: int = 100
    """Number of steps in which the rate rises."""
    learning_rate: float = 1.5e-2
    """Peak rate. It limits the root mean square of a step: to about a fifth of the rate
    for the matrices of the blocks, and to about the rate for other parameters."""
    weight_decay: float = 0.1
    """Weight decay of the matrices of the blocks."""
    width: int = 128
    """Width of the GPT, a multiple of the number of heads."""
    layers: int = 4
    """Layers of the GPT."""
    heads: int = 4
    """Attention heads of the GPT."""
    without: str = ""
    """Parts to leave out, separated by commas: rotary, rms, gate, query_key, muon,
    linear_decay, long_context. With `each`, the GPT is trained with all parts on every
    seed, and without each part on the first seed."""
    choose: bool = False
    """Use only the training part: train on its first nine tenths, and measure the loss
    on its last tenth."""


FULL = Config(seeds="0..9")
FAST = Config("python_help", 20_000, 3, "0..1", 16, 4, 20, 10, 5, 1e-2, 0.1, 16, 1, 2)


if __name__ == "__main__":  # Flags are read before anything heavy is imported.
    research.cli.main(sys.modules[__name__])

import jax
import optax

from experiments import _characters as plain
from experiments._prediction import kept_model, loaded
from research.cli.progress import OnProgress
from research.types import Checkpoints, Saved

# Parts by name, in the words of the table.
PARTS = {
    "rotary": "rotary positions",
    "rms": "RMS normalisation, no biases",
    "gate": "SwiGLU",
    "query_key": "normalised queries and keys",
    "muon": "Muon",
    "linear_decay": "linear decay to zero",
    "long_context": "the longer context",
}
EACH = "each"
NAME = "gpt"
STEP = 0.2  # Root mean square of a step of Muon, as a share of the rate.


class Variant(NamedTuple):
    """One training: the parts that are left out, and the seed."""

    without: tuple[str, ...]
    seed: int

    @property
    def name(self):
        """Name of the network in the results."""
        return " ".join([NAME, *self.without])

    @property
    def words(self):
        """Description of the network in tables and messages."""
        left_out = ", ".join(PARTS[part] for part in self.without)
        return f"GPT without {left_out}" if left_out else "modern GPT"


def complete(config: Config):
    """Return the config with a text that is available.

    If the default text is missing and cannot be downloaded, it is replaced.
    """
    return dataclasses.replace(config, text=plain.available(config.text))


def run(
    config: Config,
    on_progress: OnProgress | None = None,
    checkpoints: Checkpoints | None = None,
) -> research.runs.Findings:
    """Count n-grams, then train the GPT with each seed, and without parts of it."""
    variants, settings = check(config), settings_of(config)
    parts, checkpoints = read(config), checkpoints or research.types.no_checkpoints
    for variant in variants:
        make_network(config, parts, variant)  # Invalid sizes raise immediately.
    counted = research.runs.remembered(
        checkpoints, "n-grams", lambda _: plain.count(settings, parts, variants[0].seed)
    )
    trained = []
    for done, variant in enumerate(variants):

        def show(
            share: float, words: str, variant: Variant = variant, done: int = done
        ):
            if on_progress:
                on_progress(
                    (done + share) * config.steps,
                    len(variants) * config.steps,
                    f"{variant.words}, seed {variant.seed}: {words}",
                )

        trained.append(train(config, variant, parts, show, checkpoints))
    arrays = dict(counted.arrays)
    for variant, saved in zip(variants, trained, strict=True):
        arrays |= {
            f"{variant.name}/{variant.seed}/{name}": array
            for name, array in saved.arrays.items()
            if "/" not in name
        }
    architecture = describe(config, parts, variants[0].without)
    return research.runs.Findings(
        arrays,
        facts(config, parts, counted, variants, trained),
        {NAME: kept_model(trained[0], architecture, ["sampled"])},
    )


def share(config: Config, part: int, parts: int, checkpoints: Checkpoints):
    """Compute one of `parts` parts of the trainings.

    The part has every `parts`-th training, starting with training `part`. The results
    are saved in the checkpoints, and `run` loads them from there.
    """
    variants, text = check(config), read(config)
    for variant in variants[part::parts]:
        train(config, variant, text, lambda share, words: None, checkpoints)


def train(
    config: Config,
    variant: Variant,
    parts: plain.Parts,
    on_progress: Callable[[float, str], None],
    checkpoints: Checkpoints,
):
    """Train one GPT, unless the checkpoints contain it."""
    without = variant.without

    def compute(within: Checkpoints):
        return plain.train(
            settings_of(config, without),
            job_of(config, variant),
            make_rule(config, without),
            parts,
            make_network(config, parts, variant),
            on_progress,
            within,
        )

    place = f"{variant.name}, seed {variant.seed}"
    return research.runs.remembered(checkpoints, place, compute)


def check(config: Config):
    """Check the config, and return its trainings."""
    counts = ("batch_size", "evaluate_every", "warmup")
    plain.check_config(config, counts, ["learning_rate"], ["steps"])
    seeds = research.runs.parse_seeds(config.seeds)
    if not config.weight_decay >= 0:
        raise ValueError(
            f"weight_decay must be at least 0; got weight_decay={config.weight_decay}."
        )
    if config.without == EACH:
        alone = [Variant((part,), seeds[0]) for part in PARTS]
        return [*(Variant((), seed) for seed in seeds), *alone]
    without = tuple(filter(None, config.without.split(",")))
    unknown = [part for part in without if part not in PARTS]
    if unknown or len(set(without)) < len(without):
        raise ValueError(
            f"without must be {EACH}, or different names of {', '.join(PARTS)}, "
            f"separated by commas; got without={config.without!r}."
        )
    return [Variant(without, seed) for seed in seeds]


def settings_of(config: Config, without: Sequence[str] = ()):
    """Return the settings of the text and of a training without some parts."""
    settings = plain.settings_of(config)
    if "long_context" not in without:
        return settings
    return settings._replace(
        context=config.context // 2, batch_size=2 * config.batch_size
    )


def read(config: Config):
    """Return the parts of the text.

    With `choose`, these are the first nine tenths of the training part and its last
    tenth.
    """
    parts = plain.read(settings_of(config))
    if not config.choose:
        return parts
    cut = int(0.9 * len(parts.train))
    return parts._replace(train=parts.train[:cut], validation=parts.train[cut:])


def job_of(config: Config, variant: Variant):
    """Return a training as a job."""
    return plain.Job(
        variant.name, variant.seed, config.steps, config.learning_rate, variant.words
    )


def make_network(config: Config, parts: plain.Parts, variant: Variant):
    """Return the GPT in float32, and a function for its validation loss."""
    model = build(describe(config, parts, variant.without))
    context = settings_of(config, variant.without).context
    return model, research.models.reader(model, parts.validation, context)


def describe(config: Config, parts: plain.Parts, without: Sequence[str]):
    """Return all that is needed to make the network, as JSON values."""
    gated, rms = "gate" not in without, "rms" not in without
    # Products with matrices of a multiple of 32 columns are faster.
    hidden = -(-8 * config.width // 96) * 32 if gated else 4 * config.width
    return {
        "symbols": parts.symbols,
        "context": settings_of(config, without).context,
        "width": config.width,
        "num_layers": config.layers,
        "num_heads": config.heads,
        "hidden": hidden,
        "positions": "learned" if "rotary" in without else "rotary",
        "normalisation": "rms" if rms else "layer",
        "gated": gated,
        "activation": "silu" if gated else "gelu",
        "bias": not rms,
        "query_key_normalisation": "query_key" not in without,
    }


def build(architecture: dict[str, Any]):
    """Make the network that `describe` describes."""
    sizes = dict(architecture)
    return research.models.transformer_decoder(
        len(sizes.pop("symbols")), sizes.pop("context"), dtype="float32", **sizes
    )


def make_rule(config: Config, without: Sequence[str] = ()):
    """Return Muon for the matrices of the blocks, and Adam for all other parameters.

    Gradients are clipped at norm 1. The rate rises to its peak and then falls along a
    line to zero.
    """
    schedules, rules = research.schedules, research.update_rules
    peak, falling = config.learning_rate, config.steps - config.warmup
    if "linear_decay" in without:
        fall = schedules.cosine(peak, falling, peak / 10)
    else:
        fall = schedules.polynomial(peak, 0.0, falling)
    warmup = schedules.linear_warmup(peak, config.warmup)
    rate = schedules.join([warmup, fall], [config.warmup])
    decay, clip = config.weight_decay, rules.clip_by_global_norm(1.0)
    if "muon" in without:
        all_rules = rules.adamw(rate, b2=0.99, weight_decay=decay, mask=in_blocks)
        return optax.chain(clip, all_rules)
    muon = rules.muon(
        rate,
        weight_decay=decay,
        matrices=in_blocks,
        inner=lambda rate: rules.adam(rate, b2=0.99),
        consistent_rms=STEP,
    )
    return optax.chain(clip, muon)


def in_blocks(params: research.types.Params):
    """Return for each leaf whether it is a matrix of a block."""
    return {
        name: jax.tree.map(
            lambda leaf, name=name: name.startswith("block") and leaf.ndim > 1, part
        )
        for name, part in params.items()
    }


def predict(config: Config, folder: Path, file: Path) -> research.runs.Result:
    """Continue a text with the network of a finished run.

    Args:
      config: Config of the run.
      folder: Run folder.
      file: Text in UTF-8, in the characters of the training text.
    """
    text = plain.continuation(*loaded(folder, NAME, build), file)
    return research.runs.Result(f"GPT:\n{text}", (), {}, {})


def facts(
    config: Config,
    parts: plain.Parts,
    counted: Saved,
    variants: Sequence[Variant],
    trained: Sequence[Saved],
):
    """Return the results as JSON."""
    first_settings = settings_of(config, variants[0].without)
    numbers = plain.facts_of_text(first_settings, parts, counted)
    numbers["choose"] = config.choose
    for name in dict.fromkeys(variant.name for variant in variants):
        mine = [
            (variant, saved)
            for variant, saved in zip(variants, trained, strict=True)
            if variant.name == name
        ]
        variant, saved = mine[0]
        settings = settings_of(config, variant.without)
        pairs = [(job_of(config, variant), saved) for variant, saved in mine]
        numbers["networks"][name] = plain.network_facts(settings, parts, pairs) | {
            "words": variant.words,
            "each_seed": [float(saved.arrays["positions"].mean()) for _, saved in mine],
        }
        numbers["samples"][name] = saved.values["sample"]
    first = next(iter(numbers["networks"].values()))
    return numbers | {NAME: first["whole"][0], "each_seed": first["each_seed"]}
