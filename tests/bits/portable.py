"""Train an MLP, an LSTM and a Transformer with portable bits, and compare the hashes
with those of the reference.

python -m tests.bits.portable            # the verdict, and a row for the table
python -m tests.bits.portable --plain    # the same without portable bits, for its speed
python -m tests.bits.portable --keep     # write the reference (portable.json)

The row belongs in docs/howto/portable_bits.md, if this processor is not there yet. A
hash is the SHA-256 of all parameters, losses and norms after 60 steps of Adam. The exit
status is 1 if a hash differs from the reference.
"""

import argparse
import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

REFERENCE = Path(__file__).with_suffix(".json")
NUM_STEPS = 60


class Network(NamedTuple):
    """A network, and the examples on which it is trained."""

    model: Any
    loss: Callable[..., Any]
    dataset: Any
    batch_size: int


def main(words: list[str] | None = None) -> int:
    """Train, print, and return the exit status."""
    flags = parse(words)
    from research import portable

    if not flags.plain:
        portable.pin_libraries()
    from research import backend

    backend.configure(portable=not flags.plain)
    found = {name: trained(make()) for name, make in NETWORKS.items()}
    hashes = {name: digest for name, (digest, _) in found.items()}
    for name, (digest, seconds) in found.items():
        print(f"{name}: {digest[:16]}, {1e3 * seconds / NUM_STEPS:.2f} ms a step")
    if flags.plain:
        return 0
    here = described(hashes)
    if flags.keep:
        REFERENCE.write_text(json.dumps(here, indent=1) + "\n", encoding="utf-8")
    return compared(json.loads(REFERENCE.read_text(encoding="utf-8")), here)


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        "python -m tests.bits.portable", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--plain", action="store_true", help="without portable bits")
    parser.add_argument("--keep", action="store_true", help="write the reference")
    return parser.parse_args(words)


def described(hashes: dict[str, str]) -> dict[str, Any]:
    """Return the hashes with what they may depend on."""
    import jax
    import jaxlib

    from research.runs import environment

    processor = environment()["processor"]
    sets = processor["instruction_sets"]
    widest = next(
        (name for name in ("avx512f", "avx2") if name in sets), "without AVX2"
    )
    return {
        "hashes": hashes,
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "libc": " ".join(platform.libc_ver()),
        "processor": processor["model"],
        "instructions": widest + (", amx" if "amx_tile" in sets else ""),
        "cores": processor["cores"],
    }


def compared(reference: dict[str, Any], here: dict[str, Any]) -> int:
    """Print the verdict and the row, and return the exit status."""
    others = [
        name
        for name, digest in reference["hashes"].items()
        if here["hashes"].get(name) != digest
    ]
    versions = [
        f"{name} {reference[name]} there, {here[name]} here"
        for name in ("jax", "jaxlib", "libc")
        if reference[name] != here[name]
    ]
    if others:
        print(f"Not the bits of the reference: {', '.join(others)}.")
        print(f"Differences: {'; '.join(versions) or 'only the processor'}.")
    else:
        print("The bits of the reference.")
    print(row(here, others))
    return 1 if others else 0


def row(here: dict[str, Any], others: list[str]) -> str:
    """Return the row of this processor for the table."""
    cells = [here["processor"], here["instructions"], here["cores"], here["jaxlib"]]
    cells += [here["libc"], *(d[:8] for d in here["hashes"].values())]
    verdict = f"differs: {', '.join(others)}" if others else "same"
    return f"| {' | '.join(map(str, cells))} | {verdict} |"


def trained(network: Network) -> tuple[str, float]:
    """Train a network, and return the hash of the result and the time of the steps."""
    import jax

    from research import descent, objectives, runs, samplers, update_rules

    n = len(network.dataset.y)
    steps = n // network.batch_size
    result = descent.train(
        objectives.empirical_risk(network.model, network.loss),
        update_rules.adam(0.003),
        network.dataset,
        samplers.minibatch(n, network.batch_size),
        num_epochs=NUM_STEPS // steps,
        params=network.model.init(jax.random.key(0)),
        key=jax.random.key(1),
    )
    leaves = jax.tree.leaves((result.params, result.steps))
    return runs.hash_arrays(*leaves), result.seconds


def mlp() -> Network:
    """Images of 784 numbers, so that sums of products are long."""
    import jax.numpy as jnp
    import numpy as np

    from research import losses, models
    from research.types import Batch

    draw = np.random.default_rng(0).integers
    x = draw(0, 256, (640, 784)).astype(np.float32) / 256 - 0.5
    model = models.mlp((784, 128, 10), dtype=jnp.float32)
    return Network(
        model, losses.softmax_cross_entropy, Batch(x, draw(0, 10, 640, np.int32)), 64
    )


def lstm() -> Network:
    """Sequences of different lengths."""
    import jax.numpy as jnp
    import numpy as np

    from research import losses, models
    from research.types import Batch, Sequences

    draw = np.random.default_rng(1).integers
    values = draw(0, 256, (320, 16, 20)).astype(np.float32) / 256 - 0.5
    x = Sequences(values, draw(1, 17, 320, np.int32))
    model = models.recurrent(20, 64, 10, cell="lstm", dtype=jnp.float32)
    return Network(
        model, losses.softmax_cross_entropy, Batch(x, draw(0, 10, 320, np.int32)), 32
    )


def transformer() -> Network:
    """A decoder that predicts the next of 30 tokens."""
    import jax.numpy as jnp
    import numpy as np

    from research import losses, models
    from research.types import Batch

    tokens = np.random.default_rng(2).integers(0, 30, (160, 33), np.int32)
    model = models.transformer_decoder(
        30, 32, width=64, num_layers=2, num_heads=4, dtype=jnp.float32
    )
    return Network(
        model,
        losses.sequence_cross_entropy,
        Batch(tokens[:, :-1], tokens[:, 1:]),
        16,
    )


NETWORKS = {"MLP": mlp, "LSTM": lstm, "Transformer": transformer}

if __name__ == "__main__":
    sys.exit(main())
