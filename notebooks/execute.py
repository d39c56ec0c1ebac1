"""Run a notebook as Colab would.

The kernel has loaded JAX and numpy, and our wheel replaces the address.

    python notebooks/execute.py WHEEL [FOLDER] [--only NAME ...]

The pip line installs the wheel into the environment that this runs in. It fails if a
cell raises, or if the install changed the jax, jaxlib or numpy that were there, on disk
or in the running kernel. With a folder, the notebooks with their outputs are written
there.
"""

import argparse
import concurrent.futures
import itertools
import re
import tempfile
import time
from pathlib import Path

import jupytext
import nbclient
from build import PIP, SOURCES

BEFORE = """
import importlib.metadata
import jax, jaxlib, numpy
def _installed():
    names = ("jax", "jaxlib", "numpy")
    return {name: importlib.metadata.version(name) for name in names}
_before = _installed()
print("before the install:", _before)
"""
AFTER = """
import pathlib, research
_loaded = {module.__name__: module.__version__ for module in (jax, jaxlib, numpy)}
_now = _installed()
assert _now == _loaded == _before, f"before the install {_before}, after it {_now}"
_packages = pathlib.Path(jax.__file__).parents[1]
assert pathlib.Path(research.__file__).is_relative_to(_packages), research.__file__
_ours = importlib.metadata.version("descent-jax")
print("after it, in the same process:", _loaded, "and research", _ours)
"""


def execute(source: Path, wheel: Path, output: Path | None) -> None:
    """Run one notebook outside the repository.

    The versions are checked around its pip line.
    """
    notebook = jupytext.read(source.with_suffix(".ipynb"))
    places = [
        number
        for number, cell in enumerate(notebook.cells)
        if cell.source.startswith(PIP)
    ]
    if len(places) != 1:
        raise ValueError(
            f"{source.name} must have exactly one cell that starts with {PIP!r}; it has"
            f" {len(places)}."
        )
    install = notebook.cells[places[0]]
    before, after = install.copy(), install.copy()
    install.source = f"%pip install --quiet {wheel.resolve()}"
    before.source, before.id, after.source, after.id = BEFORE, "before", AFTER, "after"
    notebook.cells[places[0] : places[0] + 1] = [before, install, after]
    try:
        with tempfile.TemporaryDirectory() as elsewhere:
            resources = {"metadata": {"path": elsewhere}}
            nbclient.NotebookClient(
                notebook, timeout=600, kernel_name="python3", resources=resources
            ).execute()
    finally:
        if output is not None:
            jupytext.write(notebook, output)
    check_pictures(notebook)
    print(*(cell.outputs[0]["text"].strip() for cell in (before, after)), sep="\n")


def check_pictures(notebook) -> None:
    """Check that each cell that draws shows a picture.

    An inline backend can lose a picture without an error, and a ledger can lose its
    drawing.
    """
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        shown = [output.get("data", {}) for output in cell.outputs]
        draws = re.search(
            r"^(draw\(|plt\.show\(|.*\.figure\Z)", cell.source, flags=re.M
        )
        if draws and not any("image/png" in data for data in shown):
            raise ValueError(f"no picture came of this cell:\n{cell.source}")
        if re.search(r"^ledger\Z", cell.source, flags=re.M) and not any(
            "<svg" in data.get("text/html", "") for data in shown
        ):
            raise ValueError(
                f"no ledger with its picture came of this cell:\n{cell.source}"
            )


def timed(source: Path, wheel: Path, folder: Path | None) -> str:
    """Run one notebook, and return how long it took."""
    began = time.perf_counter()
    execute(source, wheel, folder / f"{source.stem}.ipynb" if folder else None)
    return (
        f"{source.stem}: every cell ran, {time.perf_counter() - began:.0f} s with "
        "kernel and install"
    )


def main() -> None:
    """Run every notebook, or the named ones.

    The first runs alone, since its pip line installs the package. Then two run at a
    time.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument(
        "folder",
        type=Path,
        nargs="?",
        help="where the notebooks are written with their outputs",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=[source.stem for source in SOURCES],
        help="these notebooks",
    )
    given = parser.parse_args()
    if given.folder:
        given.folder.mkdir(parents=True, exist_ok=True)
    first, *others = [
        source for source in SOURCES if given.only is None or source.stem in given.only
    ]
    print(timed(first, given.wheel, given.folder), flush=True)
    with concurrent.futures.ProcessPoolExecutor(2) as pool:
        for words in pool.map(
            timed, others, itertools.repeat(given.wheel), itertools.repeat(given.folder)
        ):
            print(words, flush=True)


if __name__ == "__main__":
    main()
