"""What language models cost, in tables and words: counting first, then what was trained, with intervals over seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

from research.runs import Table


def costs_table(
    counted: Sequence[Mapping[str, Any]],
    networks: Sequence[tuple[str, Mapping[str, Any]]],
    note: str,
) -> Table:
    """A row for each model, those that count first.

    Args:
      counted: Of each n-gram model its "name", "loss", "counts" (the n-grams that it has seen) and "seconds".
      networks: (name, facts) with the intervals "whole", "half_full" and "sampled", "parameters", "passes" and "seconds".
      note: What stands below.
    Returns:
      The table.
    """
    rows = [
        (
            m["name"],
            *_digits(m["loss"], None, m["loss"], None),
            m["counts"],
            1.0,
            m["seconds"],
        )
        for m in counted
    ]
    for name, n in networks:
        losses = _digits(
            n["whole"][0], n["whole"][1:], n["half_full"][0], n["sampled"][0]
        )
        rows.append((name, *losses, n["parameters"], n["passes"], n["seconds"]))
    columns = (
        "model",
        "whole",
        "95 % interval",
        "half full",
        "sampled",
        "parameters",
        "passes",
        "seconds",
    )
    return Table(
        "Nats a character, on the last tenth of the text", columns, tuple(rows), note
    )


def orders_table(losses: Mapping[str, Sequence[float]]) -> Table:
    """The loss of n-grams of order 1, 2, ..., a column for each smoothing."""
    columns = ("order", *(name.replace("_", " ") for name in losses))
    rows = tuple(
        (order, *_digits(*row))
        for order, row in enumerate(zip(*losses.values(), strict=True), 1)
    )
    note = "Nats a character on the whole validation part. Kneser-Ney is modified and interpolated (Chen & Goodman 1999)."
    return Table("n-grams", columns, rows, note)


def _digits(*losses: float | Sequence[float | None] | None) -> tuple[str, ...]:
    """Three decimals, for models differ in the second; a dash for what there is not, which is not "not reached"."""
    words = []
    for loss in losses:
        if loss is None or (isinstance(loss, Sequence) and loss[0] is None):
            words.append("–")
        else:
            words.append(
                " to ".join(
                    f"{x:.3f}"
                    for x in (loss if isinstance(loss, Sequence) else (loss,))
                )
            )
    return tuple(words)
