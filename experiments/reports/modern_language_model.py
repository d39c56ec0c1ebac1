"""Report of modern_language_model: answer, tables and figures."""

from typing import Any

import research
from experiments._characters import (
    CHARACTERS,
    FALLBACK,
    SAMPLED,
    TEMPERATURE,
    TOP_K,
)
from experiments.reports import _characters as plain
from research.runs import Table

COLOUR = "full batch"


def answer(findings: research.runs.Findings) -> str:
    """Say whether the GPT or counting predicts better, and by how much."""
    numbers = findings.numbers
    found = network_of(numbers)
    _, low, high = found["whole"]
    counted = numbers["ngram"]
    verdict = "Not for certain"  # Fewer than three seeds have no interval.
    if low is not None:
        verdict = "Yes" if high < counted else "No" if low > counted else verdict
    claimed = numbers["text"] != FALLBACK
    before = "" if claimed else plain.NOT_THE_CLAIM
    if numbers["choose"]:
        before += (
            "The validation part was not read: the losses are on the last tenth of "
            "the training part. "
        )
    return (
        f"{before}{verdict}: a {numbers['order']}-gram has a loss of {counted:.3f} "
        f"nats a character, and the {found['words']} has "
        f"{research.statistics.interval_in_words(found['whole'])} after "
        f"{found['steps']:,} steps of {numbers['batch_size']} x {numbers['context']} "
        f"characters ({research.statistics.seeds_in_words(found['seeds'])}, "
        f"{found['passes']:.1f} passes, {found['seconds']:.0f} seconds each). With "
        "overlapping windows, so that at least half a window precedes each character, "
        f"its loss is {found['half_full'][0]:.3f}.{'' if claimed else plain.INSTEAD}"
    )


def network_of(numbers: dict[str, Any]):
    """Return the facts of the first network, which the answer is about."""
    return next(iter(numbers["networks"].values()))


def tables(findings: research.runs.Findings) -> tuple[Table, ...]:
    """Return the tables of losses, of parts, and of n-gram losses by order."""
    numbers = findings.numbers
    networks = [
        (f"{facts['words']}, {facts['steps']:,} steps", facts)
        for facts in numbers["networks"].values()
    ]
    note = (
        f"{numbers['text']}, {numbers['characters']:,} characters, "
        f"{numbers['symbols']} symbols; {numbers['validation_characters']:,} are "
        f"predicted. The {network_of(numbers)['words']}: "
        f"{research.statistics.seeds_in_words(network_of(numbers)['seeds'])}; n-grams "
        "are exact. Seconds: the median over seeds. Whole: windows that do not "
        "overlap. Half full: each character is predicted from at least half a window "
        f"before it, of {numbers['context']} characters unless the row says otherwise. "
        f"Sampled: {SAMPLED} random windows. The parameters of an n-gram model are its "
        "different n-grams."
    )
    costs = plain.costs_table(numbers["counted"], networks, note)
    gains = (gains_table(numbers),) if len(networks) > 1 else ()
    return costs, *gains, plain.orders_table(numbers["orders"])


def gains_table(numbers: dict[str, Any]) -> Table:
    """Return the table of what each part gains, in nats per character.

    The gain of a part is the loss without it minus the loss with all parts, on the
    same seed.
    """
    whole, *others = numbers["networks"].values()
    first, *more = whole["each_seed"]
    rows = [
        (
            facts["words"].partition("without ")[2],
            f"{facts['whole'][0]:.3f}",
            f"{facts['whole'][0] - first:+.3f}",
            round(facts["seconds"] / whole["seconds"], 2),
        )
        for facts in others
    ]
    noise = (
        f" With all parts, the losses of {1 + len(more)} seeds lie between "
        f"{min(first, *more):.3f} and {max(first, *more):.3f}: a gain that is not "
        "larger than their distance can be chance."
        if more
        else " One seed does not show how much of a gain is chance."
    )
    note = (
        f'Loss "whole" after {whole["steps"]:,} steps, of one seed; with all parts '
        f"it is {first:.3f}. Each part is left out once, and all settings, such as the "
        f"rate, are those that were chosen with all parts.{noise}"
    )
    columns = ("left out", "whole", "the part gains", "seconds, divided by all parts'")
    return Table("What each part gains", columns, tuple(rows), note)


def draw(result: research.runs.Result) -> dict[str, research.figures.Picture]:
    """Draw the learning curves, the losses by context, and a sample of each model."""
    numbers, found = result.numbers, network_of(result.numbers)
    name = next(iter(numbers["networks"]))
    curves = plain.learning_and_context(
        result.arrays, numbers, {name: (found["words"], COLOUR)}
    )
    titles = {
        "ngram": f"{numbers['order']}-gram, {numbers['ngram']:.2f} nats",
        name: f"{found['words']}, {found['whole'][0]:.2f} nats",
    }
    colours = {"ngram": "exact", name: COLOUR}
    samples = plain.texts(
        [(titles[one], colours[one], numbers["samples"][one]) for one in titles]
    )
    Picture = research.figures.Picture
    return {
        "learning": Picture(
            "Counting and a modern GPT", curves_caption(numbers), curves
        ),
        "samples": Picture(
            "Samples from both models", sample_caption(numbers), samples
        ),
    }


def curves_caption(numbers: dict[str, Any]) -> str:
    """Return the caption of the first figure, with the important numbers."""
    found = network_of(numbers)
    words = research.statistics.interval_in_words
    return (
        f"Top: the loss of the {found['words']} on {SAMPLED} random windows of the "
        "validation part, one line for each seed. Dashed: the loss of n-grams on the "
        f"whole part; that of order {numbers['order']} is {numbers['ngram']:.3f}. At "
        f"the end, the GPT reaches {words(found['sampled'])} on these windows, and "
        f"{words(found['whole'])} on the whole part. Bottom: the loss by the number of "
        "characters before the predicted one in its window."
    )


def sample_caption(numbers: dict[str, Any]) -> str:
    """Return the caption of the samples. It says how the samples were drawn."""
    begin = "; ".join(
        f"{name}: {numbers['samples'][name][:60]!r}"
        for name in ("ngram", next(iter(numbers["networks"])))
    )
    return (
        f"{CHARACTERS} characters from each model after a line break, at temperature "
        f"{TEMPERATURE}, limited to the {TOP_K} likeliest symbols, with the first "
        f"seed. They begin: {begin}."
    )
