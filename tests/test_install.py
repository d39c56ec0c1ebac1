"""What the files that install and describe us say is said once, or the same everywhere."""

import ast
import configparser
import fnmatch
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
SETUP = configparser.ConfigParser()
SETUP.read(TOP / "setup.cfg", encoding="utf-8")
# Where the name of what is imported is not the name of what is installed.
DISTRIBUTIONS = {"sklearn": "scikit-learn", "PIL": "pillow", "lazy_loader": "lazy-loader"}

BARE = {"PATH": os.environ["PATH"]}  # Without what an outer `make test ARGS=...` leaves for an inner make.


def text(name: str) -> str:
    return (TOP / name).read_text(encoding="utf-8")


def requirements(*extras: str) -> list[str]:
    lists = [SETUP["options"]["install_requires"], *(SETUP["options.extras_require"][extra] for extra in extras)]
    return [line.strip() for block in lists for line in block.splitlines() if line.strip()]


def names(lines: list[str]) -> set[str]:
    return {re.match(r"[A-Za-z0-9_-]+", line)[0] for line in lines}


def conda_dependencies(environment: str) -> list[str]:
    return re.findall(r"^  - ([^:\n]+)$", environment.partition("dependencies:")[2], flags=re.M)


def undeclared(source: str, declared: set[str]) -> set[str]:
    """Third-party packages that a source imports and that are not among the declared distributions."""
    imported = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            imported.add(node.module)
    packages = {name.partition(".")[0] for name in imported} - sys.stdlib_module_names - {"research", "experiments"}
    return {DISTRIBUTIONS.get(package, package) for package in packages} - declared


def test_conda_environment_equals_setup_cfg():
    expected = [f"python{SETUP['options']['python_requires']}", *requirements("test"), "pip"]
    assert sorted(conda_dependencies(text("environment.yml"))) == sorted(expected)
    assert "  - pip:\n      - --editable .\n" in text("environment.yml")


def test_every_requirement_has_a_lower_bound_and_no_upper_one():
    assert not [
        line for line in requirements("test", "browser", "dev") if not re.fullmatch(r"[\w\[\]-]+>=[\d.]+", line)
    ]


FOLDERS = {"research": [], "experiments": [], "tests": ["test"], "tests/browser": ["test", "browser"]}


@pytest.mark.parametrize(("folder", "extras"), FOLDERS.items())
def test_every_imported_package_is_declared(folder, extras):
    files = (TOP / folder).glob("*.py") if extras else (TOP / folder).rglob("*.py")
    sources = {file.name: undeclared(file.read_text(encoding="utf-8"), names(requirements(*extras))) for file in files}
    assert not {name: packages for name, packages in sources.items() if packages}


def test_undeclared_package_is_seen():
    assert undeclared("import jax, torch.nn\nfrom sklearn.svm import SVC", {"jax"}) == {"torch", "scikit-learn"}


def test_version_is_the_same_everywhere():
    version = SETUP["metadata"]["version"]
    assert re.search(r"^version: (.+)$", text("CITATION.cff"), flags=re.M)[1] == version
    assert re.search(r"^## \[(.+?)\]", text("CHANGELOG.md"), flags=re.M)[1] == version


def test_citation_has_what_its_format_requires():
    keys = dict(re.findall(r"^([a-z-]+):\s*(.*)$", text("CITATION.cff"), flags=re.M))
    assert {"cff-version", "message", "title", "authors"} <= keys.keys()
    assert keys["license"] == SETUP["metadata"]["license"] == text("LICENSE").split()[0]
    assert f"- name: {SETUP['metadata']['author']}" in text("CITATION.cff")


def test_address_stands_once():
    address = SETUP["metadata"]["url"]
    assert address.count("OWNER") == 1
    assert text("setup.cfg").count(address) == 1
    others = ("CITATION.cff", "CHANGELOG.md", "CONTRIBUTING.md", "environment.yml")
    assert not [name for name in others if address in text(name)]


def test_wheel_is_told_of_every_file_that_is_not_python():
    patterns = SETUP["options.package_data"]["*"].split()
    files = [file for file in (TOP / "research").rglob("*") if file.is_file() and file.suffix not in (".py", ".pyc")]
    assert {file.name for file in files} >= {"__init__.pyi", "py.typed"}
    assert not [file for file in files if not any(fnmatch.fnmatch(file.name, pattern) for pattern in patterns)]
    assert not [file for file in files if not (file.parent / "__init__.py").exists()]


def test_every_make_target_is_described_and_names_files_that_exist():
    makefile = text("Makefile")
    targets = re.search(r"^\.PHONY: (.+)$", makefile, flags=re.M)[1].split()
    assert targets == re.findall(r"^#   make (\w+) ", makefile, flags=re.M)
    assert targets == re.findall(r"^(\w+): ", makefile, flags=re.M)
    assert not [name for name in re.findall(r"\$\(python\) (\S+\.py)", makefile) if not (TOP / name).exists()]


def test_make_says_what_it_needs_where_there_is_no_python(tmp_path):
    words = ["make", "-C", str(TOP), "run", "PYTHON=no-such-python false", f"VENV={tmp_path / 'environment'}"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=BARE)
    assert done.returncode == 2
    assert "error: Python 3.11 or newer with venv is needed; none of these is: no-such-python false." in done.stderr
    assert not list(tmp_path.iterdir())


def make(tmp_path: Path, *words: str) -> list[str]:
    """What make does with the only good Python behind two bad ones: the words it gave to that Python, line by line."""
    log = tmp_path / "log"
    scripts = {
        "stand-in": "exit 127",  # A version manager's, for a version that is not there.
        "too-old": "exit 1",
        "good": f'[ "$2" != venv ] || {{ mkdir -p "$4/bin"; cp "$0" "$4/bin/python"; }}; echo "$@" >>{log}',
    }
    for name, script in scripts.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    log.write_text("")
    pythons = " ".join(str(tmp_path / name) for name in scripts)
    command = ["make", "-C", str(TOP), f"PYTHON={pythons}", f"VENV={tmp_path / 'environment'}", *words]
    subprocess.run(command, check=True, capture_output=True, env=BARE)
    return log.read_text().splitlines()


def test_make_sets_up_once_and_again_when_setup_cfg_changes(tmp_path):
    install = "-m pip install --quiet --disable-pip-version-check --editable "
    first = make(tmp_path, "test", "ARGS=-q")
    assert [line for line in first if line.startswith(("-m venv", install))] == [
        f"-m venv --clear {tmp_path / 'environment'}",
        install + ".[test]",
    ]
    assert first[-1] == "-m pytest -q"
    assert make(tmp_path, "test") == ["-m pytest"]
    assert make(tmp_path, "run") == ["experiments/batch_stochastic_minibatch.py"]
    assert install + ".[test]" in make(tmp_path, "test", "--what-if=setup.cfg")
    assert install + ".[test,dev]" in make(tmp_path, "check")
