"""How our files look: documented, short, an experiment a page with a claim, and no machine's name anywhere."""

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
EMPTY_NAMES = {"utils", "helpers", "misc", "common", "base", "manager"}
BUILTIN = {"int", "float", "str", "bool", "tuple", "None", "Literal"}
# In pieces, so that this file does not break its own law.
FOLDERS = [f"/{name}/" for name in ("root", "home", "Users", "work", "opt", "tmp")] + [
    f"../{'shared'}"
]
HOSTS = [
    ".".join(words)
    for words in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "org"),
        ("anaconda", "org"),
    )
]
HOSTS += [
    ".".join(words)
    for words in (
        ("anaconda", "com"),
        ("debian", "org"),
        ("ubuntu", "com"),
        ("nodejs", "org"),
    )
]

Law = Callable[
    [str, str], Iterator[str]
]  # (path in the repository, its text) -> what breaks the law


def is_documented(path: str, source: str) -> Iterator[str]:
    tree = ast.parse(source)
    if not ast.get_docstring(tree):
        yield f"{path} has no docstring"
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    public = [
        node
        for node in tree.body
        if isinstance(node, kinds) and not node.name.startswith("_")
    ]
    public += [
        m
        for c in public
        if isinstance(c, ast.ClassDef)
        for m in c.body
        if isinstance(m, ast.FunctionDef)
    ]
    yield from (
        f"{path}: {node.name} has no docstring"
        for node in public
        if not node.name.startswith("_") and not ast.get_docstring(node)
    )


def has_a_name_that_says_something(path: str, source: str) -> Iterator[str]:
    if {*Path(path).with_suffix("").parts} & EMPTY_NAMES:
        yield f"{path} has a name that says nothing"


def is_a_page_with_a_claim(path: str, source: str) -> Iterator[str]:
    if Path(path).parts[0] != "experiments" or Path(path).stem.startswith("_"):
        return
    tree = ast.parse(source)
    if not (ast.get_docstring(tree) or "").partition("\n")[0].endswith("?"):
        yield f"{path}: the first line of its docstring is no question"
    light = {*sys.stdlib_module_names, "numpy"}
    for node in tree.body:
        names = [f"{node.module}.*"] if isinstance(node, ast.ImportFrom) else []
        names += (
            [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        )
        heavy = [
            name
            for name in names
            if name not in ("research", "research.cli.*")
            and name.partition(".")[0] not in light
        ]
        yield from (
            f"{path} imports {name} at its top, so that --help is slow"
            for name in heavy
        )
    named = {getattr(node, "name", None): node for node in tree.body}
    assigned = {
        t.id for node in tree.body for t in _targets(node) if isinstance(t, ast.Name)
    }
    missing = {"Config", "run", "draw", "FULL", "EXPECTED"} - named.keys() - assigned
    yield from (f"{path} has no {name}" for name in sorted(missing))
    last = 'if __name__ == "__main__": research.cli.main(sys.modules[__name__])'
    if ast.dump(tree.body[-1]) != ast.dump(ast.parse(last).body[0]):
        yield f"{path} does not end with {last}"
    if "Config" in named:
        yield from _undocumented_fields(path, source, named["Config"])


def _targets(node: ast.stmt) -> list[ast.expr]:
    return (
        [node.target]
        if isinstance(node, ast.AnnAssign)
        else getattr(node, "targets", [])
    )


def _undocumented_fields(path: str, source: str, config: ast.ClassDef) -> Iterator[str]:
    if not any(
        "frozen=True" in ast.unparse(decorator) for decorator in config.decorator_list
    ):
        yield f"{path}: Config is not a frozen dataclass"
    for node, after in zip(config.body, [*config.body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign):
            field = ast.unparse(node.target)
            documented = (
                isinstance(after, ast.Expr)
                or "#" in source.splitlines()[(node.end_lineno or 1) - 1]
            )
            if not documented or node.value is None:
                yield f"{path}: Config.{field} has no documentation or no default"
            words = {n.id for n in ast.walk(node.annotation) if isinstance(n, ast.Name)}
            if words - BUILTIN:
                yield f"{path}: Config.{field} is not of a builtin type"


def names_no_machine(path: str, text: str) -> Iterator[str]:
    for folder in FOLDERS:
        if re.search(rf"(?<![\w.$}}/]){re.escape(folder)}", text):
            yield f"{path} names {folder}"
    yield from (f"{path} names {host}" for host in HOSTS if host in text)


GOOD_PAGE = '''"""Is it so?"""
import dataclasses, sys
import research
@dataclasses.dataclass(frozen=True)
class Config:
    """What is run."""
    sizes: tuple[int, ...] = (1,)
    """Sizes."""
    rate: float | None = None  # The rate.
FULL = Config()
EXPECTED = {"x": 1}
def run(config, on_progress=None):
    """Runs."""
def draw(result):
    """Draws."""
    import matplotlib
if __name__ == "__main__":
    research.cli.main(sys.modules[__name__])
'''

PLANTED = [
    (is_documented, "research/losses.py", "x = 1"),
    (is_documented, "research/losses.py", '"""Losses."""\ndef squared(x): return x'),
    (
        is_documented,
        "research/losses.py",
        '"""Losses."""\nclass Loss:\n    """A loss."""\n    def at(self): pass',
    ),
    (has_a_name_that_says_something, "research/models/utils.py", ""),
    (names_no_machine, "docs/index.md", f"see {FOLDERS[1]}ada/descent"),
    (names_no_machine, "setup.cfg", f"index = https://{HOSTS[0]}/simple"),
]
# Each replaces a part of the good page by a bad one.
SPOILT = [
    ("so?", "so."),
    ("import research", "from research import runs"),
    ("import research", "import jax, research"),
    ("EXPECTED", "HOPED"),
    ("def draw", "def drew"),
    ("frozen=True", ""),
    ('    """Sizes."""\n', ""),
    ("  # The rate.", ""),
    (" = (1,)", ""),
    ("tuple[int, ...]", "np.ndarray"),
    ("sys.modules[__name__])", "sys.modules[__name__])\nx = 1"),
]


@pytest.mark.parametrize(
    "law", [is_documented, has_a_name_that_says_something, is_a_page_with_a_claim]
)
def test_source_keeps_the_law(law):
    files = [*(TOP / "research").rglob("*.py"), *(TOP / "experiments").glob("*.py")]
    broken = [
        fault
        for f in files
        for fault in law(f.relative_to(TOP).as_posix(), f.read_text(encoding="utf-8"))
    ]
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize(("law", "path", "source"), PLANTED)
def test_law_sees_what_breaks_it(law, path, source):
    assert list(law(path, source))


@pytest.mark.parametrize(("right", "wrong"), SPOILT)
def test_page_law_sees_what_breaks_it(right, wrong):
    assert right in GOOD_PAGE
    assert not list(is_a_page_with_a_claim("experiments/one.py", GOOD_PAGE))
    assert list(
        is_a_page_with_a_claim("experiments/one.py", GOOD_PAGE.replace(right, wrong))
    )


def test_no_file_names_a_machine():
    words = [
        "git",
        "-C",
        str(TOP),
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
        "-z",
    ]
    listed = subprocess.run(
        words, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    files = [TOP / name for name in listed if name and (TOP / name).is_file()]
    texts = {
        f.relative_to(TOP).as_posix(): f.read_text(encoding="utf-8", errors="ignore")
        for f in files
    }
    assert "setup.cfg" in texts
    broken = [
        fault for path, text in texts.items() for fault in names_no_machine(path, text)
    ]
    assert not broken, "\n".join(broken)
