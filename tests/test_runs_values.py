"""Laws of what names and describes a run: ids, commands, seeds, digests, processor,
commit.
"""

import dataclasses
import hashlib
import math
import os
import shlex
import subprocess

import jax.numpy as jnp
import numpy as np
import pytest
import tyro
from hypothesis import example, given
from hypothesis import strategies as st

from research import runs
from research.files import json_bytes, read_json
from research.runs._environment import git_state, processor


@dataclasses.dataclass(frozen=True)
class Config:
    seeds: str = "0..9"
    learning_rate: float = 0.1
    num_epochs: int = 3
    rules: tuple[str, ...] = ("adam",)
    rates: tuple[float, ...] = ()
    decay: float | None = None
    shuffle: bool = True


OTHER = [
    Config(seeds="0..8"),
    Config(learning_rate=math.nextafter(0.1, 1)),
    Config(num_epochs=4),
    Config(rules=("adam", "sgd")),
    Config(rates=(-1e-3, 2.0)),
    Config(rates=(-1e-5, -2.5e-300, -3e20)),
    Config(decay=-1e-5),
    Config(decay=-math.inf),
    Config(decay=math.inf),
    Config(decay=-0.5),
    Config(shuffle=False),
    Config(seeds='-it\'s "$x"'),
]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text().filter(lambda name: name != "$float"), inner)
    ),
    max_leaves=8,
)


@given(json_values)
@example("a file name that is no UTF-8: \udcff")
def test_json_round_trip_is_exact(value):
    assert repr(read_json(json_bytes(value))) == repr(value)


def test_id_is_the_hash_of_the_canonical_json():
    text = '{"config":{"a":[1,0.5],"b":"\\u03b7"},"experiment":"t"}'
    assert (
        runs.run_id("t", {"b": "η", "a": (1, 0.5)})
        == hashlib.sha256(text.encode()).hexdigest()[:12]
    )


def test_id_depends_on_every_field_and_on_nothing_else(tmp_path, monkeypatch):
    identity = runs.run_id("t", Config())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.time", lambda: 0.0)
    assert (
        runs.run_id("t", dict(reversed(dataclasses.asdict(Config()).items())))
        == identity
    )
    others = [runs.run_id("t", config) for config in OTHER] + [
        runs.run_id("u", Config())
    ]
    assert len({identity, *others}) == len(others) + 1


@pytest.mark.parametrize(
    "pair",
    [(1, 1.0), (1, True), (0.0, -0.0), ("1", 1), (None, "None"), (math.nan, math.inf)],
)
def test_id_tells_types_apart(pair):
    assert runs.run_id("t", {"a": pair[0]}) != runs.run_id("t", {"a": pair[1]})


def test_id_refuses_what_is_no_name_or_no_config():
    with pytest.raises(ValueError, match=r"'\.\./up'"):
        runs.run_id("../up", Config())
    with pytest.raises(TypeError, match="mapping"):
        runs.run_id("t", Config)
    with pytest.raises(TypeError, match=r"run\.config\.rate is a"):
        runs.run_id("t", {"rate": jnp.ones(2)})


@pytest.mark.parametrize("config", [Config(), *OTHER], ids=str)
def test_command_line_makes_the_same_config_again(config):
    words = shlex.split(runs.command_line("trajectory", config))
    assert words[:2] == ["python", "experiments/trajectory.py"]
    assert tyro.cli(Config, args=words[2:]) == config


def test_processor_is_read_from_cpuinfo(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    core = (
        "model name\t: Some CPU @ 2.0GHz\nflags\t\t: fpu sse4_2 avx avx2 avx512f "
        "amx_tile fma mmx\n\n"
    )
    cpuinfo.write_text(core * 2)
    assert processor(cpuinfo)["model"] == "Some CPU @ 2.0GHz"
    assert processor(cpuinfo)["instruction_sets"] == [
        "amx_tile",
        "avx",
        "avx2",
        "avx512f",
        "fma",
        "sse4_2",
    ]
    cpuinfo.write_text("CPU implementer\t: 0x41\nFeatures\t: fp asimd sve bf16\n")
    assert processor(cpuinfo)["instruction_sets"] == ["asimd", "bf16", "sve"]
    assert processor(tmp_path / "absent")["model"]


def test_git_state_is_that_of_the_repository_at_its_top(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(
            name
        )  # Under a git hook they name this project's own repository.
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)

    def git(*words):
        command = ["git", "-c", "user.name=A", "-c", "user.email=a@b.c", *words]
        return subprocess.run(
            command, cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    assert git_state(tmp_path) is None
    git("init")
    assert git_state(tmp_path) is None
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_text("1")
    git("add", ".")
    git("commit", "-m", "first")
    commit = git("log", "--format=%H").strip()
    assert git_state(tmp_path) == {"commit": commit, "dirty": False}
    assert git_state(tmp_path / "a") is None
    (tmp_path / "a" / "b").write_text("2")
    assert git_state(tmp_path) == {"commit": commit, "dirty": True}
    monkeypatch.setenv("PATH", "")
    assert git_state(tmp_path) is None


def test_hash_of_arrays_tells_dtype_shape_and_bytes_apart():
    ones = np.ones((2, 3), np.float32)
    different = [
        (ones,),
        (ones.T,),
        (ones.astype(np.float64),),
        (ones.view(np.int32),),
        (-ones,),
        (ones, ones),
        (),
    ]
    different += [(jnp.ones((2, 3), jnp.bfloat16),), (jnp.ones((2, 3), jnp.float16),)]
    different += [(np.float32(0.0),), (np.float32(-0.0),)]
    assert len({runs.hash_arrays(*arrays) for arrays in different}) == len(different)
    strided = np.arange(12, dtype=np.float32).reshape(2, 6)[:, ::2]
    same = (strided, jnp.asarray(strided), strided.copy(order="F"))
    assert len({runs.hash_arrays(array) for array in same}) == 1
    assert (
        runs.hash_arrays(ones)
        == hashlib.sha256(b"float32 <f4 (2, 3)\n" + 6 * b"\x00\x00\x80?").hexdigest()
    )
    with pytest.raises(TypeError, match="array 1 holds Python objects"):
        runs.hash_arrays(ones, np.array([None]))


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("7", (7,)),
        ("0,3,5", (0, 3, 5)),
        ("0..9", tuple(range(10))),
        (" 5 .. 6, 1", (5, 6, 1)),
        ("4..4", (4,)),
        ("2147483647", (2**31 - 1,)),
    ],
)
def test_seeds_are_read_as_typed(text, seeds):
    assert runs.parse_seeds(text) == seeds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0,x,2", "'x' in '0,x,2' is not an integer"),
        ("1.5", "'1.5' in '1.5' is not an integer"),
        ("-1", "'-1' in '-1' is not an integer"),
        ("2147483648", r"'2147483648' in .* is not an integer in 0\.\.2³¹-1"),
        ("", "'' in '' is not an integer"),
        ("1..", "'' in '1..' is not an integer"),
        ("1,,2", "'' in '1,,2' is not an integer"),
        ("1_0", "'1_0' in '1_0' is not an integer"),
        ("5..1", r"range '5\.\.1' is empty\. Write 1\.\.5"),
        ("0..3,2,3", "2, 3 given more than once in '0..3,2,3'"),
    ],
)
def test_seeds_that_make_no_sense_are_named(text, message):
    with pytest.raises(ValueError, match=message):
        runs.parse_seeds(text)


def test_integers_that_a_float_cannot_hold_differ():
    there, here = (
        runs.Result("", (), {"a": np.array([2**60 + k, 5])}, {}) for k in (0, 1)
    )
    found = runs.compare(there, here, ({}, {}))
    assert not found.same
    assert found.other_arrays[0].size == 1.0
