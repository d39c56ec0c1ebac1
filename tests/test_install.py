"""What the files that install and describe us say is said once, or the same
everywhere.
"""

import ast
import configparser
import fnmatch
import functools
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
SETUP = configparser.ConfigParser()
SETUP.read(TOP / "setup.cfg", encoding="utf-8")
# Where the name of what is imported is not the name of what is installed.
DISTRIBUTIONS = {
    "sklearn": "scikit-learn",
    "PIL": "pillow",
    "lazy_loader": "lazy-loader",
    "tensorflow": "tensorflow-cpu",
    "flint": "python-flint",
}
# Also what is beside a script that is run: notebooks/build.py, docs/typeset.py.
OURS = {"research", "experiments", "benchmarks", "docs", "notebooks", "tests"}
OURS |= {"build", "typeset"}

BARE = {
    "PATH": os.environ["PATH"]
}  # Without what an outer `make test ARGS=...` leaves for an inner make.


def text(name: str) -> str:
    return (TOP / name).read_text(encoding="utf-8")


def requirements(*extras: str) -> list[str]:
    return [
        *_lines(SETUP["options"]["install_requires"]),
        *(line for extra in extras for line in requirements_of(extra)),
    ]


def requirements_of(extra: str) -> list[str]:
    return _lines(SETUP["options.extras_require"][extra])


def _lines(block: str) -> list[str]:
    return [line.strip() for line in block.splitlines() if line.strip()]


def names(lines: list[str]) -> set[str]:
    return {re.match(r"[A-Za-z0-9_-]+", line)[0] for line in lines}


def conda_dependencies(environment: str) -> list[str]:
    return re.findall(
        r"^  - ([^:\n]+)$", environment.partition("dependencies:")[2], flags=re.M
    )


def undeclared(source: str, declared: set[str]) -> set[str]:
    """Third-party packages that a source imports and that are not among the declared
    distributions.
    """
    packages = (
        {name.partition(".")[0] for name in imported_by(source)}
        - sys.stdlib_module_names
        - OURS
    )
    return {DISTRIBUTIONS.get(package, package) for package in packages} - declared


@functools.cache  # Two laws read each file.
def imported_by(source: str) -> frozenset[str]:
    """Names of the modules that a source imports."""
    imported = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            imported.add(node.module)
    return frozenset(imported)


def test_conda_environment_equals_setup_cfg():
    ours = [
        re.sub(r"^flatbuffers\b", "python-flatbuffers", line)
        for line in requirements("test")
        if line not in requirements_of("disk")
    ]  # Conda's name.
    expected = [f"python{SETUP['options']['python_requires']}", *ours, "pip"]
    assert sorted(conda_dependencies(text("environment.yml"))) == sorted(expected)
    assert "  - pip:\n      - --editable .[disk]\n" in text("environment.yml")
    assert set(requirements_of("disk")) <= set(requirements("test"))


def test_every_requirement_has_a_lower_bound_and_no_upper_one():
    assert not [
        line
        for line in requirements("test", "browser", "notebook", "docs", "dev")
        if not re.fullmatch(r"[\w\[\]-]+>=[\d.]+", line)
    ]


LOCKS = {name: text(f"requirements/{name}.txt") for name in ("newest", "floor")}


def pins(lock: str) -> dict[str, list[str]]:
    """Each package's versions, ascending: more than one where they differ by Python or
    system.
    """
    found = re.findall(r"^([\w.-]+)==([\d.]*\d)", lock, flags=re.M)
    return {
        name: sorted((v for n, v in found if n == name), key=parts) for name, _ in found
    }


def parts(version: str) -> list[int]:
    """For comparing: 1.15.0 is 1.15."""
    return [int(part) for part in re.sub(r"(\.0)+$", "", version).split(".")]


def locks_what_is_asked_for(name: str, lock: str) -> Iterator[str]:
    for line in requirements("test", "notebook"):
        package, _, bound = line.partition(">=")
        locked = [parts(v) for v in pins(lock).get(package, [])]
        if not locked:
            yield f"{name} lacks {package}"
        elif locked[0] < parts(bound):
            yield f"{name} has {package} below {bound}"
        elif name == "floor" and locked[0] != parts(bound):
            yield f"floor has {package} above {bound}: nothing tests the bound"


def names_no_place(name: str, lock: str) -> Iterator[str]:
    lines = [line for line in lock.splitlines() if not line.startswith("#")]
    yield from (
        f"{name}: {line}"
        for line in lines
        if not re.fullmatch(r"[\w.-]+==[\d.]+(post\d+)?( ; [^/@:]+)?", line)
    )
    comments = [line for line in lock.splitlines() if line.startswith("#")]
    yield from (
        f"{name}: {line}"
        for line in comments
        if re.search(r"://|\.\w+/|/\w+/|--", line)
    )


def says_how_it_is_made(name: str, lock: str) -> Iterator[str]:
    command = re.match(r"#.*\n#    make (\w+)\n", lock)
    if not command or f"\n{command[1]}: " not in text("Makefile"):
        yield f"{name} does not say which command makes it"


def differs_by_python(name: str, lock: str) -> Iterator[str]:
    marked = re.findall(
        r"^jax==\S+ ; (python_full_version (?:<|>=) '3\.12')$", lock, flags=re.M
    )
    if name == "newest" and len(marked) != 2:  # JAX 0.11 dropped Python 3.11.
        yield "newest has not one jax for Python 3.11 and another from 3.12 on"


LOCK_LAWS = (
    locks_what_is_asked_for,
    names_no_place,
    says_how_it_is_made,
    differs_by_python,
)
PLANTED = [
    (locks_what_is_asked_for, "newest", "\nchex==", "\nchecks=="),
    (locks_what_is_asked_for, "newest", "\noptax==0.2", "\noptax==0.1"),
    (locks_what_is_asked_for, "floor", "\nscipy==1.15.0", "\nscipy==1.15.1"),
    (
        names_no_place,
        "newest",
        "\nabsl-py==2",
        "\n--index-url https://example.com/simple\nabsl-py==2",
    ),
    (
        names_no_place,
        "floor",
        "\nabsl-py==2",
        "\nabsl-py @ file:///somewhere/absl.whl\nabsl-py==2",
    ),
    (
        names_no_place,
        "floor",
        "make requirements",
        "uv pip compile --output-file /elsewhere/floor.txt",
    ),
    (says_how_it_is_made, "floor", "make requirements", "make gossip"),
    (differs_by_python, "newest", " ; python_full_version < '3.12'", ""),
]


@pytest.mark.parametrize("name", LOCKS)
@pytest.mark.parametrize("law", LOCK_LAWS, ids=lambda law: law.__name__)
def test_lock_keeps_the_law(law, name):
    assert not list(law(name, LOCKS[name]))


@pytest.mark.parametrize(("law", "name", "right", "wrong"), PLANTED)
def test_lock_law_sees_what_breaks_it(law, name, right, wrong):
    assert right in LOCKS[name]
    assert list(law(name, LOCKS[name].replace(right, wrong)))


def test_ci_checks_on_colabs_versions_and_runs_both_locks():
    run = text(".ci/run")
    installed = (
        "install jax==0.7.2 jaxlib==0.7.2 numpy==2.1.3 scipy==1.16.3 "
        "scikit-learn==1.6.1 flax==0.11.2 optax==0.2.8 "
    )
    (colab,) = re.findall(
        r"\n  environment colab 3\.13 .*\n  python=\$work/colab/bin/python (.*)\n",
        run.replace("\\\n    ", ""),
    )
    assert colab.startswith(installed)
    assert '"$work/colab/bin/python" notebooks/execute.py' in run
    said = re.sub(r"\s+", " ", text("requirements/README.md"))
    assert (
        "numpy 2.1.3, scipy 1.16.3, scikit-learn 1.6.1, jax and jaxlib 0.7.2, flax "
        "0.11.2 and optax 0.2.8" in said
    )
    colabs = dict(re.findall(r"(\S+)==(\S+)", installed))
    assert not [
        line
        for line in requirements()
        if parts(colabs.get(names([line]).pop(), "99")) < parts(line.partition(">=")[2])
    ]
    assert (
        "environment floor 3.12 3.11\n  python=$work/floor/bin/python install "
        "--requirement requirements/floor.txt" in run
    )
    assert '"$work/floor/bin/python" -m pytest' in run
    assert "\nmake test " in run
    assert [f"requirements/{name}.txt" in run for name in LOCKS] == [True, True]
    assert run.count("notebooks/execute.py") == 2


FOLDERS = {
    "research": [],
    "experiments": ["bench"],
    "tests": ["test"],
    "tests/browser": ["test", "browser"],
} | {"notebooks": ["notebook"], "docs": ["docs"]}


@pytest.mark.on_ci("the files of the package", but="notebooks|docs")
@pytest.mark.thorough("experiments and tests", but="research|notebooks|docs")
@pytest.mark.parametrize(("folder", "extras"), FOLDERS.items())
def test_every_imported_package_is_declared(folder, extras):
    files = (TOP / folder).glob("*.py") if extras else (TOP / folder).rglob("*.py")
    sources = {
        file.name: undeclared(
            file.read_text(encoding="utf-8"), names(requirements(*extras))
        )
        for file in files
    }
    assert not {name: packages for name, packages in sources.items() if packages}


UNIMPORTED = {
    "jaxlib",
    "pytest-xdist",
    "flatbuffers",
    "submitit",
    "grain",
    "array-record",
}  # Of jax's; a plugin; `jax.export`'s; see the extras `cluster` and `disk`.


def imported_in(*folders: str) -> set[str]:
    sources = [
        file.read_text(encoding="utf-8")
        for folder in folders
        for file in (TOP / folder).rglob("*.py")
    ]
    return set().union(*(undeclared(source, set()) for source in sources))


@pytest.mark.on_ci("reads every file; nothing shorter shows this")
def test_every_required_package_is_imported():
    """What users must install, the package imports; what tests ask for, a test does."""
    assert names(requirements()) - UNIMPORTED <= (
        imported := imported_in("research", "experiments")
    )
    assert names(requirements("test")) - UNIMPORTED <= imported | imported_in("tests")
    assert not {"chex", "submitit", "grain", "array-record"} & names(requirements())


def test_undeclared_package_is_seen():
    assert undeclared("import jax, torch.nn\nfrom sklearn.svm import SVC", {"jax"}) == {
        "torch",
        "scikit-learn",
    }


def test_version_stands_once_and_heads_the_changelog():
    version = SETUP["metadata"]["version"]
    for name in ("CITATION.cff", "pyproject.toml", "research/__init__.py"):
        assert not re.search(r"^_*version", text(name), flags=re.M)
    assert re.search(r"^## \[(.+?)\]", text("CHANGELOG.md"), flags=re.M)[1] == version


def test_citation_has_what_its_format_requires():
    keys = dict(re.findall(r"^([a-z-]+):\s*(.*)$", text("CITATION.cff"), flags=re.M))
    assert {"cff-version", "message", "title", "authors"} <= keys.keys()
    assert keys["license"] == SETUP["metadata"]["license"] == text("LICENSE").split()[0]
    assert f"- name: {SETUP['metadata']['author']}" in text("CITATION.cff")


def test_address_stands_once():
    address = SETUP["metadata"]["url"]
    assert re.fullmatch(r"https://github\.com/[\w-]+/descent", address)
    assert text("setup.cfg").count(address) == 1
    others = ("CITATION.cff", "CHANGELOG.md", "CONTRIBUTING.md", "environment.yml")
    assert not [name for name in others if address in text(name)]


def test_wheel_is_told_of_every_file_that_is_not_python():
    patterns = SETUP["options.package_data"]["*"].split()
    files = [
        file
        for file in (TOP / "research").rglob("*")
        if file.is_file() and file.suffix not in (".py", ".pyc")
    ]
    assert {file.name for file in files} >= {"__init__.pyi", "py.typed"}
    assert not [
        file
        for file in files
        if not any(fnmatch.fnmatch(file.name, pattern) for pattern in patterns)
    ]
    assert not [file for file in files if not (file.parent / "__init__.py").exists()]


def test_every_make_target_is_described_and_names_files_that_exist():
    makefile = text("Makefile")
    targets = re.search(r"^\.PHONY: (.+)$", makefile, flags=re.M)[1].split()
    assert targets == re.findall(r"^#   make ([\w-]+) ", makefile, flags=re.M)
    assert targets == re.findall(r"^([\w-]+): ", makefile, flags=re.M)
    assert not [
        name
        for name in re.findall(r"\$\(python\) (\S+\.py)", makefile)
        if not (TOP / name).exists()
    ]


def test_make_says_what_it_needs_where_there_is_no_python(tmp_path):
    words = [
        "make",
        "-C",
        str(TOP),
        "run",
        "PYTHON=no-such-python false",
        f"VENV={tmp_path / 'environment'}",
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=BARE)
    assert done.returncode == 2
    assert (
        "error: Python 3.11 or newer with venv is needed; none of these is: "
        "no-such-python false." in done.stderr
    )
    assert not list(tmp_path.iterdir())


def make(tmp_path: Path, *words: str) -> list[str]:
    """What make does with the only good Python behind two bad ones: the words it gave
    to that Python, line by line.
    """
    log = tmp_path / "log"
    scripts = {
        "stand-in": "exit 127",  # A version manager's, for a version that is not there.
        "too-old": "exit 1",
        "good": (
            '[ "$2" != venv ] || { mkdir -p "$4/bin"; cp "$0" "$4/bin/python"; }; '
            f'echo "$@" >>{log}'
        ),
    }
    for name, script in scripts.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    log.write_text("")
    pythons = " ".join(str(tmp_path / name) for name in scripts)
    command = [
        "make",
        "-C",
        str(TOP),
        f"PYTHON={pythons}",
        f"VENV={tmp_path / 'environment'}",
        *words,
    ]
    subprocess.run(command, check=True, capture_output=True, env=BARE)
    return log.read_text().splitlines()


def test_make_sets_up_once_and_again_when_setup_cfg_changes(tmp_path):
    install = "-m pip install --quiet --disable-pip-version-check --editable "
    first = make(tmp_path, "test", "ARGS=-q")
    assert [line for line in first if line.startswith(("-m venv", install))] == [
        f"-m venv --clear {tmp_path / 'environment'}",
        install + ".[test]",
    ]
    parallel = "-m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder -m"
    fast = "not thorough and not nightly"
    assert first[-1] == f"{parallel} not on_ci and {fast} -q"
    assert make(tmp_path, "test") == [f"{parallel} not on_ci and {fast}"]
    assert make(tmp_path, "test-ci") == [f"{parallel} on_ci and {fast}"]
    assert make(tmp_path, "test-all") == [f"{parallel} not nightly"]
    assert make(tmp_path, "run") == ["experiments/batch_stochastic_minibatch.py"]
    assert install + ".[test]" in make(tmp_path, "test", "--what-if=setup.cfg")
    assert install + ".[test,dev]" in make(tmp_path, "check")
