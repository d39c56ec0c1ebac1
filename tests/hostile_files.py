"""A fuzzer of files: one thing of a valid file is changed at a time, and every reader
must read it or say what is wrong.

    python tests/hostile_files.py --cases 20000 --seed 1

A case changes bytes, or a value of parsed JSON with all digests computed anew, as
  somebody who means it would. The law: the
reader gives something, or raises ValueError or OSError with a message that names the
file; and it does so at once.
"""

import argparse
import contextlib
import copy
import gzip
import hashlib
import io
import json
import random
import struct
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
import wave
import zipfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from research import leaderboard, models, records, report, runs
from research.cli import flags, reproduce
from research.datasets._documents import parse_tab
from research.datasets._images import MNIST_5K, _table_of_digits
from research.datasets._vowels import parse_ts
from research.datasets.cifar import RECORD, TEST, TRAINING, read_cifar10
from research.datasets.hashing import digest, wavs_in
from research.datasets.idx import read_idx
from research.datasets.wav import read_wav
from research.datasets.wheel import read_member
from research.files import canonical, json_bytes
from research.models import saving
from research.reading.safetensors import read_safetensors
from research.runs import archive
from research.runs.reference import reference_of
from research.types import Batch, Model, Saved

MOST_SECONDS = 5.0  # Of a processor, for one file.
DEEP, HUGE, NOT_A_NUMBER, TWICE = "<deep>", "<huge>", "<not a number>", "<twice>"
AS_TEXT = {  # What `json.dumps` would not write, by what stands for it until then.
    f'"{DEEP}"': "[" * 100_000 + "]" * 100_000,
    f'"{HUGE}"': "1" + "0" * 400,
    f'"{NOT_A_NUMBER}"': "NaN",
    f'"{TWICE}"': '{"a": 1, "a": 2}',
}
NASTY: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        "",
        [],
        {},
        -1,
        0,
        1,
        0.5,
        -1e308,
        1e308,
        2**63,
        -(2**63),
        2**1000,
        "x" * 5000,
    ),
    *(
        DEEP,
        HUGE,
        NOT_A_NUMBER,
        TWICE,
        {"$float": "nan"},
        {"$float": "inf"},
        {"$float": []},
        {"$float": "1e5"},
    ),
    *(
        "\0",
        "\ud800",
        "\x1b[2J",
        "../../x",
        "/etc/passwd",
        [None],
        [[1], [1]],
        {"": {}},
        {"a": [1, 2]},
        "1",
        "nan",
    ),
)


WEIGHTS = {
    "bias": np.arange(2, dtype=np.float16),
    "weights": np.arange(6, dtype=np.float32).reshape(2, 3),
}
MINE = {"model": "mine", "sizes": [2, 3]}


class Subject(NamedTuple):
    """A kind of file.

    Attributes:
      files: Name -> its valid bytes, in one folder; the first of JSON are changed at
        the level of values.
      read: (folder, name of the changed file) -> anything.
      seal: name -> bytes, with a changed file: computes digests anew; None where there
        are none.
      text: Names of files that hold JSON.
    """

    files: dict[str, bytes]
    read: Callable[[Path], Any]
    seal: Callable[[dict[str, bytes]], dict[str, bytes]] | None = None
    text: tuple[str, ...] = ()
    errors: tuple[type[Exception], ...] = (ValueError, OSError)


def bytes_changed(data: bytes, draw: random.Random) -> bytes:
    """One change at the level of bytes."""
    place = draw.randrange(len(data) + 1)
    end = min(len(data), place + draw.choice((1, 2, 4, 16, 1000)))
    kind = draw.randrange(9)
    if kind == 0 and data:
        changed = bytearray(data)
        changed[min(place, len(data) - 1)] ^= 1 << draw.randrange(8)
        return bytes(changed)
    return (
        data[:place],  # Cut off; the first kind too, of an empty file.
        data[:place] + draw.randbytes(end - place) + data[end:],
        data[:place] + data[end:],
        data[:place] + data[place:end] * 2 + data[end:],
        data[:place] + bytes(end - place) + data[end:],
        data[:place] + b"\xff" * (end - place) + data[end:],
        data + draw.randbytes(draw.choice((1, 100))),
        data[:place]
        + draw.choice(
            (b"\0", b"[" * 100_000, b'"', b"{", b"1" * 5000, b"\xed\xa0\x80", b"-1")
        )
        + data[place:],
        draw.choice(
            (
                b"",
                b"\0",
                b"PK\x03\x04",
                b"\x1f\x8b",
                b"RIFF",
                b"[" * 100_000,
                b"9" * 5000,
            )
        ),
    )[kind]


def value_changed(data: bytes, draw: random.Random) -> bytes:
    """One change at the level of a JSON value: another value, another name, or none."""
    root = [json.loads(data)]
    places = list(_places(root))
    inside, key = places[draw.randrange(len(places))]
    kind = draw.randrange(10)
    if kind == 0 and isinstance(inside, dict):
        del inside[key]
    elif kind == 1 and isinstance(inside, dict):
        inside[draw.choice(("", "\0", "$float", "x" * 5000, "__proto__"))] = inside.pop(
            key
        )
    elif kind == 2 and isinstance(inside, list) and inside is not root:
        inside.append(copy.deepcopy(inside[key]))
    else:
        inside[key] = draw.choice(NASTY)
    text = json.dumps(root[0])
    for placeholder, meant in AS_TEXT.items():
        text = text.replace(placeholder, meant)
    return text.encode()


def _places(value: Any):
    names = (
        value
        if isinstance(value, dict)
        else range(len(value))
        if isinstance(value, list)
        else ()
    )
    for name in list(names):
        yield value, name
        yield from _places(value[name])


def run_folder(folder: Path, experiment: str, numbers: Any) -> dict[str, bytes]:
    """The files of a finished run."""
    table = runs.Table(
        "Steps", ("rule", "steps"), (("adam", 3), ("sgd", None)), "A note."
    )
    arrays = {
        "loss": np.arange(6.0).reshape(2, 3),
        "names/a": np.array(["a", "bc"]),
        "flags": np.ones(3, bool),
    }
    run = runs.finish(
        runs.open_run(experiment, {"seed": 0}, folder, width=8),
        runs.Result("Yes.", (table,), arrays, numbers),
        seconds=1.5,
    )
    return {
        name: (run.path / name).read_bytes()
        for name in ("manifest.json", "result.json", "arrays.npz")
    }


def study_numbers() -> dict[str, Any]:
    """A small study: two rules on one workload."""
    cells = [
        {
            **{
                "workload": "digits",
                "rule": rule,
                "n": 100,
                "trials": 12,
                "seconds": 0.5,
                "optimum": 0.25,
            },
            **{
                "cost": cost,
                "cost_low": cost - 0.5,
                "cost_high": None,
                "example_gradients": 100 * cost,
                "evaluations": 1.0,
            },
            **{
                "reached": 0.95,
                "final": 1e-3,
                "final_low": 5e-4,
                "final_high": float("inf"),
                "diverged": 0.25,
            },
        }
        for rule, cost in (("adam", 3.0), ("mine", 2.0))
    ]
    told = {
        "workload": "digits",
        "rule": "mine",
        "baseline": "adam",
        "verdict": "better",
        "detectable": 1.3,
    }
    protocol = {
        "searches": 2,
        "budget": 12,
        "passes": 30,
        "batch_size": 32,
        "seeds": [0, 1],
        "tuning_seeds": [7, 8, 9, 10],
        "target": 0.01,
    }
    return {
        "study": 2,
        "protocol": protocol
        | {"tune_on": "train", "reported_on": "train", "level": 0.95},
        "baseline": "adam",
        "sources": {"adam": 64 * "a", "mine": None},
        "spaces": {"mine": {"learning_rate": [0.1, 1.0, "log", None]}},
        "cells": cells,
        "comparisons": [told | {"ratio": 0.7, "low": 0.6, "high": 0.8}],
    }


def network_numbers() -> dict[str, Any]:
    """A small study on networks."""
    known = {"num_steps": 100, "batch_size": 8, "parameters": 50, "trainings": 9}
    known |= {"seconds_per_step": 0.1, "update_rms": 1.0, "accuracy": None}
    cells = [
        {"network": "gpt", "rule": rule, "loss": loss, "loss_low": loss - 0.1}
        | {"loss_high": float("inf"), "diverged": 0.0, "reported_diverged": 0.0}
        | known
        for rule, loss in (("adam", 1.0), ("mine", 0.9))
    ]
    told = {"rule": "mine", "baseline": "adam", "verdict": "better", "detectable": 1.3}
    told |= {"loss_ratio": 0.9, "loss_low": 0.8, "loss_high": 0.95}
    told |= {"steps": 0.7, "steps_low": 0.6, "steps_high": 0.8}
    return {
        "network_study": 1,
        "protocol": {"searches": 2, "budget": 12, "seeds": [0, 1]}
        | {"tuning_seeds": [7, 8], "level": 0.95},
        "baseline": "adam",
        "rules": ["mine", "adam"],
        "networks": ["gpt"],
        "spaces": {"mine": {"learning_rate": [0.1, 1.0, "log", None]}},
        "origin": {"code": [{"rules": ["mine"], "text": "mine = 3"}], "own": []},
        "cells": cells,
        "comparisons": [told | {"network": "gpt"}],
        "overall": [told],
    }


def redrawn(folder: Path) -> Any:
    """What a stranger's study becomes without training: a report, whatever it holds."""
    options = flags.Options(results=folder.parent / "redrawn")
    with contextlib.redirect_stderr(io.StringIO()):
        return reproduce.reproduce_study(
            folder / "study.zip", options, redraw_only=True
        )


def seal_run(files: dict[str, bytes]) -> dict[str, bytes]:
    """The manifest with the digests of the other files, and the id of its config, where
    that can be had.
    """
    sealed = dict(files)
    with contextlib.suppress(Exception):
        manifest = json.loads(files["manifest.json"])
        for name in ("result.json", "arrays.npz"):
            manifest["digests"][name] = hashlib.sha256(files[name]).hexdigest()
        manifest["id"] = runs.run_id(manifest["experiment"], manifest["config"])
        sealed["manifest.json"] = json.dumps(manifest).encode()
    return sealed


def zipped(files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A .zip of files, without dates."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        for name, data in files.items():
            target.writestr(zipfile.ZipInfo(name), data, compress_type=compression)
    return buffer.getvalue()


def seal_archive(files: dict[str, bytes]) -> dict[str, bytes]:
    """The archive of a run's files, made by one who means it."""
    files = seal_run(files)
    sums = "".join(
        f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files)
    )
    return {"study.zip": zipped(files | {"SHA256SUMS": sums.encode()})}


def seal_checkpoint(files: dict[str, bytes]) -> dict[str, bytes]:
    """The checkpoint with the digest of both of its files."""
    sealed = dict(files)
    with contextlib.suppress(Exception):
        found = json.loads(files["000001.json"])
        digest = hashlib.sha256(
            f"{found['name']}\n{canonical(found['values'], found['name'])}\n".encode()
        )
        digest.update(files["000001.npz"])
        sealed["000001.json"] = json_bytes(found | {"digest": digest.hexdigest()})
    return sealed


def seal_records(files: dict[str, bytes]) -> dict[str, bytes]:
    """The records with the digest of all of their entries and checksums."""
    sealed = dict(files)
    with contextlib.suppress(Exception):
        about = json.loads(files[records.ABOUT])
        checksums = np.load(io.BytesIO(files[records.CHECKSUMS]))
        about["bytes"] = len(files[records.EXAMPLES])
        about["digest"] = records._digest(about, checksums)
        sealed[records.ABOUT] = json.dumps(about).encode()
    return sealed


def read_records(folder: Path) -> Any:
    opened = records.open_records(folder)
    return opened.read(np.arange(opened.num_examples))


def weights_bytes(header: bytes, numbers: bytes) -> bytes:
    """A .safetensors file with any header."""
    return len(header).to_bytes(8, "little") + header + numbers


def seal_weights(files: dict[str, bytes]) -> dict[str, bytes]:
    """The file of weights with its digest, where that can be had."""
    header = files["header.json"]
    with contextlib.suppress(Exception):
        arrays, metadata = read_safetensors(weights_bytes(header, files["numbers"]))
        value = json.loads(header)
        value["__metadata__"]["digest"] = saving._digest(
            arrays, metadata["architecture"]
        )
        header = json.dumps(value).encode()
    return {"w.safetensors": weights_bytes(header, files["numbers"])}


def load_weights(folder: Path) -> Any:
    """Check the shapes, the dtypes and the digest of a model that was loaded."""
    path = folder / "w.safetensors"
    params = models.load(
        path, Model(lambda key: WEIGHTS, lambda params, x, key=None: x), MINE
    )
    for name, array in WEIGHTS.items():
        assert (params[name].shape, params[name].dtype) == (array.shape, array.dtype)
    return models.read_architecture(path)


def tarred(contents: dict[str, bytes], mode: Any = "w:gz") -> bytes:
    """A tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as target:
        for name, data in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            target.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def waved(samples: np.ndarray) -> bytes:
    """A wav file."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(samples.astype("<i2").tobytes())
    return buffer.getvalue()


def read_checkpoint(folder: Path) -> Any:
    """A checkpoint that is damaged is told aloud, and not used."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        saved = runs.checkpoints_in(folder.parent)(folder.name).load()
    if saved is None and told:
        raise ValueError(str(told[0].message))
    return saved


def ranked(folder: Path, good: Path, skip_bad: bool) -> Any:
    """The leaderboard of a good study and another; with skip_bad it must always
    come.
    """
    bad = folder / "study.zip" if (folder / "study.zip").exists() else folder
    page = folder.parent / "page.html"
    if not skip_bad:
        return leaderboard.write_leaderboard([good, bad], page)
    try:
        return leaderboard.write_leaderboard([good, bad], page, skip_bad=True)
    except Exception as problem:
        raise AssertionError("a bad study takes the leaderboard down") from problem


def opened_again(folder: Path) -> Any:
    """A folder whose run is damaged is begun anew, aloud."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = runs.open_run("toy", {"seed": 0}, folder.parent.parent)
        runs.close(run)
        return runs.load_result(folder) if run.finished else None


def reproduced(folder: Path) -> Any:
    """What comes before the run is made again: nothing of a stranger's is run here."""

    def load(name: str) -> Any:
        raise StopIteration(name)

    with contextlib.suppress(StopIteration):
        return reproduce.reproduce_run(folder, load, flags.Options())


def subjects(folder: Path) -> dict[str, Subject]:
    """Every kind of file, by name; the folder receives what they are made of."""
    import dataclasses

    config = dataclasses.make_dataclass(
        "Config",
        [
            ("seed", int, 0),
            ("rate", float, 0.1),
            ("sizes", tuple[int, ...], (1,)),
            ("name", str, ""),
        ],
        frozen=True,
    )
    toy = run_folder(
        folder / "a", "toy", {"loss": 0.5, "many": [1, 2], "infinite": float("inf")}
    )
    made = folder / "a" / "toy" / runs.run_id("toy", {"seed": 0})
    kept = runs.keep(made, folder).read_bytes()
    study = run_folder(folder / "b", "compare", study_numbers())
    on_networks = run_folder(folder / "d", "compare_networks", network_numbers())
    good = folder / "good.zip"
    good.write_bytes(seal_archive(study)["study.zip"])
    runs.checkpoints_in(folder / "c")("part").save(
        Saved({"w": np.arange(6.0)}, {"epoch": 7, "names": ["a"]})
    )
    saved = {file.name: file.read_bytes() for file in (folder / "c" / "part").iterdir()}
    examples = Batch(np.arange(24.0).reshape(4, 3, 2), np.arange(4))
    records.write_records(folder / "e", [examples])
    recorded = {file.name: file.read_bytes() for file in (folder / "e").iterdir()}
    sound = waved(np.arange(50) * 100)
    images = {
        f"cifar/{name}": bytes([k]) + bytes(RECORD - 1)
        for k, name in enumerate(TRAINING + TEST)
    }
    idx = struct.pack(">4B2I", 0, 0, 8, 2, 3, 4) + bytes(range(12))
    ts = b"#a\n@dimensions 2\n@classLabel true a b\n@data\n1,2,3:4,5,6:b\n7,8:9,1:a\n"
    tab = b"Category\tText\nd\tstring\nclass\t\n\nship\tvessel sinks\nearn\tmore\n"
    digits = gzip.compress(
        b"".join(b",".join([b"7"] * 784 + [str(k).encode()]) + b"\n" for k in range(3))
    )
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(
        ">I4sII5B", 13, b"IHDR", 3, 4, 8, 2, 0, 0, 0
    )
    one = lambda name, read, data, **more: Subject(
        {name: data}, lambda folder: read(folder / name), **more
    )
    text = lambda read: (
        lambda path: read(path.read_bytes().decode("latin-1"), str(path))
    )
    run_readers = {
        "load_result": runs.load_result,
        "read_manifest": runs.read_manifest,
        "reference_of": reference_of,
        "write_report": lambda folder: report.write_report(folder, []),
        "read_contents": archive.read_contents,
        "pack": lambda folder: archive.pack(folder, folder.parent / "packed.zip"),
        "open_run": opened_again,
        "reproduce": reproduced,
    }
    models.save(folder / "w", WEIGHTS, MINE)
    weights = (folder / "w").read_bytes()
    split = 8 + int.from_bytes(weights[:8], "little")
    in_parts = {"header.json": weights[8:split], "numbers": weights[split:]}
    json_names = ("manifest.json", "result.json")
    as_config = b'{"config": {"seed": 1, "rate": 2, "sizes": [1, 2], "name": "a"}}'
    as_toml = b'seed = 1\nrate = 2\nsizes = [1, 2]\nname = "a"\n'
    as_json: dict[str, Any] = {
        "text": ("config.json",),
        "errors": (ValueError, OSError, TypeError),
    }
    return {
        **{
            f"run, {name}": Subject(toy, read, seal_run, json_names)
            for name, read in run_readers.items()
        },
        "reference": one(
            "toy.json",
            lambda path: runs.hold_against(runs.read_reference(path), made),
            kept,
            text=("toy.json",),
        ),
        "archive": Subject(
            toy,
            lambda f: archive.read_contents(f / "study.zip"),
            seal_archive,
            json_names,
        ),
        "bytes of an archive": one(
            "toy.zip", archive.read_contents, seal_archive(toy)["study.zip"]
        ),
        "study": Subject(
            study, lambda folder: ranked(folder, good, False), seal_archive, json_names
        ),
        "study, skip_bad": Subject(
            study, lambda folder: ranked(folder, good, True), seal_archive, json_names
        ),
        "study on networks, skip_bad": Subject(
            on_networks,
            lambda folder: ranked(folder, good, True),
            seal_archive,
            json_names,
        ),
        "study that is redrawn": Subject(study, redrawn, seal_archive, json_names),
        "study on networks that is redrawn": Subject(
            on_networks, redrawn, seal_archive, json_names
        ),
        "study's folder, skip_bad": Subject(
            study, lambda folder: ranked(folder, good, True), seal_run, json_names
        ),
        "checkpoint": Subject(
            saved, read_checkpoint, seal_checkpoint, ("000001.json",)
        ),
        "records": Subject(recorded, read_records, seal_records, (records.ABOUT,)),
        "weights": Subject(in_parts, load_weights, seal_weights, ("header.json",)),
        "bytes of weights": one(
            "w.safetensors", lambda path: load_weights(path.parent), weights
        ),
        "config": one(
            "config.json",
            lambda path: flags.read_config(path, config()),
            as_config,
            **as_json,
        ),
        "toml": one(
            "config.toml",
            lambda path: flags.read_config(path, config()),
            as_toml,
            errors=(ValueError, OSError, TypeError),
        ),
        "wav": one(
            "a.wav", lambda path: read_wav(path.read_bytes(), 8000, str(path)), sound
        ),
        "wavs in a tar": one(
            "a.tar",
            lambda path: [
                read_wav(c, 8000, f"{n} in {path}") for n, c in wavs_in(path)
            ],
            tarred({"x/a.wav": sound, "b.wav": sound}, "w"),
        ),
        "wavs in a tar.gz": one(
            "a.tar.gz", lambda path: list(wavs_in(path)), tarred({"x/a.wav": sound})
        ),
        "wavs in a tar.xz": one(
            "a.tar.xz",
            lambda path: list(wavs_in(path)),
            tarred({"x/a.wav": sound}, "w:xz"),
        ),
        "wavs in a tar.bz2": one(
            "a.tar.bz2",
            lambda path: list(wavs_in(path)),
            tarred({"x/a.wav": sound}, "w:bz2"),
        ),
        "hash of wavs": one(
            "a.tar", lambda path: digest(path, "wavs"), tarred({"x/a.wav": sound}, "w")
        ),
        "hash of content": one(
            "a.gz", lambda path: digest(path, "content"), gzip.compress(idx)
        ),
        "cifar": one("a.tar.gz", read_cifar10, tarred(images)),
        "idx": one("a", read_idx, idx),
        "idx, packed": one("a.gz", read_idx, gzip.compress(idx)),
        "wheel": one(
            "a.whl",
            lambda path: read_member(path, "a/b"),
            zipped({"a/b": idx * 9, "c": b"d"}, zipfile.ZIP_DEFLATED),
        ),
        "ts": one("a.ts", text(parse_ts), ts),
        "tab": one("a.tab", text(parse_tab), tab),
        "csv of digits": one(
            "a.csv.gz",
            lambda path: _table_of_digits(path.read_bytes(), f"{MNIST_5K} in {path}"),
            digits,
        ),
        "png": one("a.png", report.embed, png),
        "svg": one(
            "a.svg",
            report.embed,
            b'<?xml version="1.0"?>\n<svg viewBox="0 0 4.5 9" width="3">\n</svg>',
        ),
    }


def broken(
    subject: Subject, name: str, folder: Path, draw: random.Random
) -> str | None:
    """Changes one file of a subject and reads it; what broke the law, or None."""
    files = dict(subject.files)
    chosen = draw.choice(list(files))
    by_value = chosen in subject.text and draw.random() < 0.7
    files[chosen] = (value_changed if by_value else bytes_changed)(files[chosen], draw)
    if subject.seal is not None and (
        subject.seal in (seal_archive, seal_weights) or draw.random() < 0.8
    ):
        files = subject.seal(files)
    for file, data in files.items():
        (folder / file).write_bytes(data)
    began = time.process_time()
    fault = _fault(subject, folder)
    seconds = time.process_time() - began
    if seconds > MOST_SECONDS:
        fault = f"took {seconds:.1f} seconds"
    return (
        fault
        and f"{name}: {chosen} changed by {'value' if by_value else 'bytes'}: {fault}"
    )


def _fault(subject: Subject, folder: Path) -> str | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            subject.read(folder)
    except subject.errors as error:
        told = str(error)
        if not told.strip() or str(folder) not in told.replace("\n", " "):
            return (
                f"{type(error).__name__} names no file: "
                f"{told[:300]!r}\n{traceback.format_exc(limit=-3)}"
            )
    except Exception:
        return traceback.format_exc(limit=-6)
    return None


def attack(cases: int, seed: int) -> list[str]:
    """Runs so many cases, as many of each subject, and tells what broke the law."""
    return list(faults(cases, seed))


def faults(cases: int, seed: int) -> Generator[str, None, None]:
    """Try the cases, and yield a text for each that breaks the law."""
    with (
        tempfile.TemporaryDirectory() as top,
        contextlib.redirect_stdout(io.StringIO()),
    ):
        made = subjects(Path(top))
        for case in range(cases):
            name = list(made)[case % len(made)]
            draw = random.Random(f"{seed} {case} {name}")
            # The name of a run's folder is its id, by which open_run finds it.
            inside = (
                "toy/" + runs.run_id("toy", {"seed": 0})
                if name.startswith("run")
                else "part"
            )
            folder = Path(top, f"case-{case}", inside)
            folder.mkdir(parents=True)
            fault = broken(made[name], name, folder, draw)
            if fault:
                yield f"case {case}, seed {seed}, {fault}"


def main() -> int:
    """Attacks as the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    found = attack(asked.cases, asked.seed)
    print("\n".join(found))
    print(f"{len(found)} of {asked.cases} cases broke the law.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
