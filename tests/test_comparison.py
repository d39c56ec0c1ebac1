"""Laws of comparing two results: every bit counts, the clock does not, and the likely
cause is named.
"""

import copy
import math

import numpy as np
import pytest

from research import runs

ARRAYS = {
    "loss": np.linspace(1.0, 2.0, 12).reshape(3, 4),
    "single": np.linspace(1.0, 2.0, 5, dtype=np.float32),
    "bad": np.array([np.nan, np.inf, -np.inf, 0.0, -0.0]),
    "steps": np.arange(4),
    "flags": np.array([True, False]),
    "complex": np.array([1 + 2j, 3 - 4j]),
    "words": np.array(["a", "b"]),
    "scalar": np.array(3.0),
    "empty": np.zeros((0, 2)),
}
NUMBERS = {
    "ratio": 0.5,
    "count": 7,
    "best": "adam",
    "none": None,
    "nan": math.nan,
    "deep": {"list": [1, 2.0, True]},
}
RESULT = runs.Result("Yes.", (), ARRAYS, NUMBERS)


def changed(part, name, value):
    """The result with one array or number changed."""
    fields = copy.deepcopy({"arrays": RESULT.arrays, "numbers": RESULT.numbers})
    fields[part][name] = value
    return RESULT._replace(**fields)


def flipped(array, index, bit):
    """The array with one bit flipped, counted from the lowest of the element's first
    byte.
    """
    copied = array.copy()
    data = copied.reshape(-1).view(np.uint8)
    data[index * array.itemsize + bit // 8] ^= 1 << bit % 8
    return copied


def compare(other, environments=({}, {})):
    return runs.compare(RESULT, other, environments)


def test_the_same_is_bit_identical():
    found = compare(copy.deepcopy(RESULT))
    assert (found.same, found.arrays, found.numbers) == (True, 9, 8)
    assert runs.verdict(found).startswith("Bit-identical: all 9 arrays and 8 numbers")


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, array in ARRAYS.items()
        if array.dtype.kind in "biufc" and array.size
    ],
)
def test_every_flipped_bit_of_an_array_is_found_at_its_place(name):
    array = ARRAYS[name]
    bits = (0,) if array.dtype == bool else range(8 * array.itemsize)
    for index in range(array.size):
        for bit in bits:
            found = compare(changed("arrays", name, flipped(array, index, bit)))
            place = ", ".join(map(str, np.unravel_index(index, array.shape)))
            assert not found.same
            assert [other.place for other in found.other_arrays] == [
                f"{name}[{place}]" if place else name
            ]
            assert runs.verdict(found).startswith(
                "Not bit-identical: 1 of 9 arrays and 0 of 8 numbers differ."
            )


def test_difference_has_its_size_and_its_relative_size():
    other = ARRAYS["loss"].copy()
    other[1, 2], other[2, 3] = other[1, 2] + 1e-3, other[2, 3] * 1.5
    found = compare(changed("arrays", "loss", other))
    (worst,) = found.other_arrays
    assert (worst.place, worst.there, worst.here) == ("loss[2, 3]", 2.0, 3.0)
    assert (worst.size, worst.relative) == (1.0, 1 / 3)
    assert (
        "The largest difference is 1 (relative 0.33), in loss[2, 3]: 2.0 there, 3.0 "
        "here." in runs.verdict(found)
    )


def test_largest_difference_is_the_relative_one():
    arrays = ARRAYS | {
        "loss": ARRAYS["loss"] * 1.001,
        "single": ARRAYS["single"] * np.float32(2.0),
    }
    assert "in single[" in runs.verdict(compare(RESULT._replace(arrays=arrays)))


@pytest.mark.parametrize(
    ("index", "value"), [(3, np.nan), (0, 1.0), (1, np.nan), (1, -np.inf)]
)
def test_not_a_number_against_a_number_is_larger_than_any_difference(index, value):
    other = ARRAYS["bad"].copy()
    other[index] = value
    arrays = ARRAYS | {"bad": other, "loss": ARRAYS["loss"] * 1e9}
    found = compare(RESULT._replace(arrays=arrays))
    assert f"bad[{index}] is" in runs.verdict(found)


def test_sign_of_zero_is_a_difference_in_the_bits_alone():
    other = ARRAYS["bad"].copy()
    other[3] = -0.0
    found = compare(changed("arrays", "bad", other))
    assert (found.other_arrays[0].place, found.other_arrays[0].size) == ("bad[3]", 0.0)
    assert "only in the bits, in bad[3]: 0.0 there, -0.0 here" in runs.verdict(found)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (
            ARRAYS["loss"].astype(np.float32),
            "float64[3, 4]' there, 'float32[3, 4]' here",
        ),
        (ARRAYS["loss"].reshape(4, 3), "float64[3, 4]' there, 'float64[4, 3]' here"),
        (ARRAYS["loss"].view(np.int64), "int64[3, 4]' here"),
    ],
)
def test_other_type_or_shape_is_a_difference(value, words):
    assert words in runs.verdict(compare(changed("arrays", "loss", value)))


def test_missing_array_is_a_difference_on_either_side():
    fewer = RESULT._replace(
        arrays={name: a for name, a in ARRAYS.items() if name != "empty"}
    )
    assert "empty is 'float64[0, 2]' there, 'missing' here" in runs.verdict(
        compare(fewer)
    )
    assert "empty is 'missing' there" in runs.verdict(
        runs.compare(fewer, RESULT, ({}, {}))
    )


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        (
            "ratio",
            math.nextafter(0.5, 1.0),
            "in ratio: 0.5 there, 0.5000000000000001 here",
        ),
        ("ratio", math.nan, "ratio is 0.5 there, nan here"),
        ("nan", 0.0, "nan is nan there, 0.0 here"),
        ("count", 7.0, "in count: 7 there, 7.0 here"),
        ("count", True, "count is 7 there, True here"),
        ("best", "sgd", "best is 'adam' there, 'sgd' here"),
        ("none", 0, "none is None there, 0 here"),
        (
            "deep",
            {"list": [1, 2.5, True]},
            "is 0.5 (relative 0.2), in deep.list[1]: 2.0 there, 2.5 here",
        ),
        ("deep", {"list": [1, 2.0]}, "deep.list[2] is True there"),
        ("new", 1.0, "new is 'missing' there, 1.0 here"),
        ("new", None, "new is 'missing' there, None here"),
    ],
)
def test_changed_number_is_named_with_its_path(name, value, words):
    verdict = runs.verdict(compare(changed("numbers", name, value)))
    assert "0 of 9 arrays and 1 of" in verdict
    assert words in verdict


@pytest.mark.parametrize(
    ("there", "here"),
    [({"a": "missing"}, {}), ({"a": []}, {"a": "[]"}), ({"a": {}}, {"a": "{}"})],
)
def test_a_text_stands_for_nothing_but_itself(there, here):
    there, here = (runs.Result("", (), {}, numbers) for numbers in (there, here))
    for pair in ((there, here), (here, there)):
        assert not runs.compare(*pair, ({}, {})).same


def test_times_are_not_compared():
    with_times = RESULT._replace(
        numbers=NUMBERS
        | {"seconds": 1.0, "deep": {"list": [1, 2.0, True], "in_seconds": 2}}
    )
    others = NUMBERS | {
        "seconds": 9.0,
        "deep": {"list": [1, 2.0, True], "in_seconds": 3},
    }
    assert runs.compare(with_times, RESULT._replace(numbers=others), ({}, {})).same


# Causes

HERE = runs.environment(width=8)
# What the bits are promised not to depend on; an architecture or a platform comes with
# another model or kind.
INNOCENT = {
    "processor.cores",
    "processor.architecture",
    "devices.count",
    "devices.platform",
    "git",
}


def fields(entry, path=""):
    """The path of every value of an environment."""
    for name, value in entry.items():
        full = f"{path}.{name}" if path else name
        if isinstance(value, dict) and value and full not in ("git", "jax_variables"):
            yield from fields(value, full)
        else:
            yield full


def with_other(path):
    """The environment with another value of one field."""
    there = copy.deepcopy(HERE)
    *way, last = path.split(".", 1) if path.startswith("versions.") else path.split(".")
    entry = there
    for name in way:
        entry = entry[name]
    other = {
        "instruction_sets": ["sse4_9"], "jax_variables": {"JAX_X": "1"}, "x64": False,
        "git": {"commit": "0" * 40, "dirty": True},
    }  # fmt: skip
    entry[last] = other.get(last, "0.0.1")
    return there


@pytest.mark.parametrize("path", sorted(set(fields(HERE)) - INNOCENT))
def test_each_field_of_the_environment_is_named_as_a_cause(path):
    other = changed("numbers", "ratio", 0.7)
    verdict = runs.verdict(compare(other, (with_other(path), HERE)))
    title = {
        "xla_pool": "XLA thread pool (NPROC) 0.0.1 there, 2 here",
        "xla_flags": "XLA flags 0.0.1 there",
        "jax_variables": "JAX variables {'JAX_X': '1'} there",
        "x64": "float64 ",
        "matmul_precision": "matmul precision 0.0.1 there, highest here",
        "devices.kind": "device kind 0.0.1 there",
        "lane_width": "sweep width 0.0.1 there, 8 here",
        "portable": "portable bits 0.0.1 there",
        "code": "other code (",
        "python": "Python 0.0.1 there",
        "processor.model": "processor 0.0.1 there",
        "processor.instruction_sets": "sse4_9 only there",
    }.get(path, f"{path.partition('.')[2]} 0.0.1 there")
    assert f"Likely cause: {title}" in verdict or (
        path.startswith("processor") and title in verdict
    )


@pytest.mark.parametrize("path", sorted(INNOCENT))
def test_what_does_not_enter_the_bits_is_no_cause(path):
    found = compare(changed("numbers", "ratio", 0.7), (with_other(path), HERE))
    assert not found.causes
    assert "are equal. So the stored result was changed" in runs.verdict(found)


def test_changed_files_of_the_tree_are_named_with_the_code():
    there = with_other("git") | {"code": "0" * 64}
    verdict = runs.verdict(compare(changed("numbers", "ratio", 0.7), (there, HERE)))
    assert "other code (commit 0000000000, with changed files there" in verdict


def test_several_causes_stand_likeliest_first():
    there = with_other("versions.jax") | {"xla_pool": "4", "code": "0" * 64}
    causes = compare(RESULT, (there, HERE)).causes
    assert [cause.split()[0] for cause in causes] == ["jax", "XLA", "other"]


def test_cause_is_not_looked_for_where_nothing_differs():
    assert "cause" not in runs.verdict(
        compare(RESULT, (with_other("versions.jax"), HERE))
    )
