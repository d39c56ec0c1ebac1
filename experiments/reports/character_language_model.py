"""Report of character_language_model: answer, tables and figures."""

from collections.abc import Mapping
from typing import Any

import research
from experiments._characters import CHARACTERS, FALLBACK, SAMPLED, TEMPERATURE, TOP_K
from experiments.character_language_model import NAMES
from experiments.reports import _dots as dots
from experiments.reports._characters import (
    INSTEAD,
    NOT_THE_CLAIM,
    costs_table,
    drawn_orders,
    learning_and_context,
    orders_table,
    texts,
)
from research.figures import COLOURS, new_figure

LONG_NAMES = {
    name: short.replace(", longer", " trained for longer")
    for name, short in NAMES.items()
}
SHADES = ("exact", "second class", "mini-batch", "stochastic", "full batch")
LOOKS = dict(zip(("ngram", *NAMES), SHADES, strict=True))
ROWS = ("exact", "data", *(LOOKS[name] for name in NAMES))  # Colours of the table.


def answer(findings: research.runs.Findings) -> str:
    """Say which model predicts better, by how much, and how more training helps."""
    numbers = findings.numbers
    networks, words = numbers["networks"], research.statistics.interval_in_words
    best = min(networks, key=lambda name: networks[name]["half_full"][0])
    winner = (
        "Counting"
        if numbers["ngram"] < networks[best]["half_full"][0]
        else f"The {LONG_NAMES[best]}"
    )
    lstm, gpt, longer_lstm, longer_gpt = (networks[name] for name in NAMES)
    before, after = (
        (NOT_THE_CLAIM, INSTEAD) if numbers["text"] == FALLBACK else ("", "")
    )
    return (
        f"{before}{winner} wins if at least half a window precedes each character. A "
        f"{numbers['order']}-gram, a table of counts, has a "
        f"loss of {numbers['ngram']:.3f} nats a character. After {gpt['steps']:,} "
        f"steps of {numbers['batch_size']} x {numbers['context']} characters "
        f"({gpt['passes']:.1f} passes) the loss is {words(lstm['whole'])} for the LSTM "
        f"and {words(gpt['whole'])} for the GPT; after {longer_gpt['steps']:,} steps "
        f"it is {words(longer_lstm['whole'])} and {words(longer_gpt['whole'])} (one "
        "seed each). With overlapping windows, so that at least half a window precedes "
        "each character, these last two losses are "
        f"{longer_lstm['half_full'][0]:.3f} and {longer_gpt['half_full'][0]:.3f}."
        f"{after}"
    )


def tables(findings: research.runs.Findings) -> tuple[research.runs.Table, ...]:
    """Return the table of losses and the table of n-gram losses by order."""
    numbers = findings.numbers
    networks = [
        (f"{NAMES[name]}, {found['steps']:,} steps", found)
        for name, found in numbers["networks"].items()
    ]
    note = (
        f"{numbers['text']}, {numbers['characters']:,} characters, "
        f"{numbers['symbols']} symbols; {numbers['validation_characters']:,} are "
        f"predicted. {NAMES['lstm']} and {NAMES['gpt']}: "
        f"{research.statistics.seeds_in_words(numbers['networks']['gpt']['seeds'])}. "
        "The longer trainings have one seed; n-grams are exact. Whole: windows that do "
        "not overlap. Half full: each character is predicted from at least "
        f"{numbers['context'] // 2} characters before it. Sampled: {SAMPLED} random "
        "windows, as nanoGPT reports (1.88, on tiny Shakespeare). The parameters of an "
        "n-gram model are its different n-grams."
    )
    return (
        costs_table(numbers["counted"], networks, note),
        orders_table(numbers["orders"]),
    )


def draw(result: research.runs.Result) -> dict[str, research.figures.Picture]:
    """Draw the learning curves, the losses by context, and a sample of each model."""
    Picture, looks = (
        research.figures.Picture,
        {name: (NAMES[name], LOOKS[name]) for name in NAMES},
    )
    curves = learning_and_context(result.arrays, result.numbers, looks)
    samples = texts(titled(result.numbers))
    return {
        "learning": Picture(
            "Counting and learning", curves_caption(result.numbers), curves
        ),
        "samples": Picture(
            "Samples from each model", sample_caption(result.numbers), samples
        ),
    }


def draw_reference(reference: Mapping[str, Any]) -> research.figures.Picture:
    """Draw the losses of a stored reference, by whole windows and by half full ones."""
    figure, axes = new_figure(width=dots.WIDTH, height=4.6)
    whole, half = [], []
    for row, look in zip(dots.rows(reference), ROWS, strict=True):
        ends = row["95 % interval"].split(" to ")
        low, high = map(dots.number, ends) if len(ends) == 2 else (None, None)
        name, _, rest = row["model"].partition(", ")
        label = f"{name},\n{rest.replace('longer, ', '')}"
        whole.append(dots.Dot(label, float(row["whole"]), low, high, look))
        half.append(dots.number(row["half full"]))
    place = axes[0, 0]
    dots.draw_dots(place, whole, digits=3)
    for y, (x, point) in enumerate(reversed([*zip(half, whole, strict=True)])):
        if x != point.value:
            place.plot(x, y, "|", color=COLOURS[point.colour], markersize=14, mew=2)
    place.set_xlabel("nats a character, smaller is better")
    place.set_title("●  whole windows   ❙  at least half full")
    numbers = reference["numbers"]
    found = "; ".join(
        f"{point.label.replace(chr(10), ' ')}: {point.value:.3f}" for point in whole
    )
    caption = (
        f"Loss on {numbers['validation_characters']:,} characters of "
        f"{numbers['text']} that were not used for training. Dots: each character "
        f"once, in whole windows, with a 95 % t interval over seeds "
        f"({found}). Bars: the same characters in overlapping windows, so that at "
        "least half a window precedes each one. This is the fairest comparison with "
        f"n-grams, whose two losses are equal. {dots.SOURCE}"
    )
    return research.figures.Picture("Loss of each model", caption, figure)


def titled(numbers: dict[str, Any]):
    """Return (title, colour, text) for the sample of each model."""
    titles = {"ngram": f"{numbers['order']}-gram, {numbers['ngram']:.2f} nats"}
    titles |= {
        name: f"{NAMES[name]}, {found['whole'][0]:.2f} nats"
        for name, found in numbers["networks"].items()
    }
    return [
        (titles[name], LOOKS[name], sample)
        for name, sample in numbers["samples"].items()
    ]


def curves_caption(numbers: dict[str, Any]):
    """Return the caption of the first figure, with the important numbers."""
    losses, networks = numbers["orders"][numbers["smoothing"]], numbers["networks"]
    lines = ", ".join(
        f"{losses[order - 1]:.2f} (order {order})" for order in drawn_orders(losses)
    )
    ends = ", ".join(
        f"{found['sampled'][0]:.2f} ({NAMES[name]})" for name, found in networks.items()
    )
    return (
        f"Above: the loss on {SAMPLED} random windows of the validation part, one line "
        f"for each seed. Dashed: the loss of n-grams on the whole part, {lines}. "
        f"The networks reach {ends}. Below: the loss by "
        "the number of characters before the predicted one in its window; a network "
        "and an n-gram with the same context have the same horizontal position. The "
        "first characters of a window have a high loss in every model. The best "
        f"n-gram uses {numbers['order'] - 1} characters; the networks read up to "
        f"{numbers['context']}."
    )


def sample_caption(numbers: dict[str, Any]):
    """Return the caption of the samples. It says how the samples were drawn."""
    texts = "; ".join(
        f"{name}: {sample[:60]!r}" for name, sample in numbers["samples"].items()
    )
    return (
        f"{CHARACTERS} characters from each model after a line break, at temperature "
        f"{TEMPERATURE}, limited to the {TOP_K} likeliest symbols, with the first "
        f"seed. They show what a smaller loss means. They begin: {texts}."
    )
