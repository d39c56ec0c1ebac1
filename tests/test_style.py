"""How our files look: documented, short, an experiment a page with a claim, and no
machine's name anywhere.
"""

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
EMPTY_NAMES = {"utils", "helpers", "misc", "common", "base", "manager"}
OPTIONAL = {"tensorflow", "threadpoolctl"}
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


@functools.lru_cache(maxsize=1)  # All laws see one file, then all see the next.
def tree_of(source: str) -> ast.Module:
    return ast.parse(source)


def is_documented(path: str, source: str) -> Iterator[str]:
    tree = tree_of(source)
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


LAST_OF_THE_PAGE = 'if __name__ == "__main__": research.cli.main(sys.modules[__name__])'


def is_a_page_with_a_claim(path: str, source: str) -> Iterator[str]:
    """The page (question, Config, EXPECTED) is light and comes first; then the flags
    are read; then the science.
    """
    if Path(path).parts[:-1] != ("experiments",) or Path(path).stem.startswith("_"):
        return
    tree = tree_of(source)
    if not (ast.get_docstring(tree) or "").partition("\n\n")[0].endswith("?"):
        yield f"{path}: the first paragraph of its docstring is not a question"
    last = ast.dump(ast.parse(LAST_OF_THE_PAGE).body[0])
    ends = [i for i, node in enumerate(tree.body) if ast.dump(node) == last]
    if len(ends) != 1:
        yield f"{path} does not have once: {LAST_OF_THE_PAGE}"
    page, science = tree.body[: ends[0]] if ends else tree.body, tree.body
    light = {*sys.stdlib_module_names, "numpy"}
    for name in (name for node in page for name in _imported(node)):
        is_light = name == "research" or re.fullmatch(
            r"research\.cli\.compare\w*", name
        )
        if not is_light and name.partition(".")[0] not in light:
            yield (
                f"{path} imports {name} before its flags are read, so that --help is "
                "slow"
            )
    yield from (
        f"{path} has no {name} before its flags are read"
        for name in sorted({"Config", "FULL", "EXPECTED"} - _defined(page))
    )
    if "run" not in _defined(science):
        yield f"{path} has no run"
    for node in page:
        if isinstance(node, ast.ClassDef) and node.name == "Config":
            yield from _undocumented_fields(path, source, node)


def tells_what_was_found(path: str, source: str) -> Iterator[str]:
    """A report words and draws what an experiment has saved; what is shared between
    reports is private.
    """
    if Path(path).parts[:2] != ("experiments", "reports"):
        return
    if not Path(path).stem.startswith("_"):
        missing = {"answer", "tables", "draw"} - _defined(tree_of(source).body)
        yield from (f"{path} has no {name}" for name in sorted(missing))


def imports_at_the_top(path: str, source: str) -> Iterator[str]:
    """In experiments, only what may not be installed is imported inside a function."""
    if Path(path).parts[0] != "experiments":
        return
    for function in ast.walk(tree_of(source)):
        if isinstance(function, ast.FunctionDef):
            for name in (
                name for node in ast.walk(function) for name in _imported(node)
            ):
                if name.partition(".")[0] not in OPTIONAL:
                    yield f"{path} imports {name} inside {function.name}"


def annotates_every_argument(path: str, source: str) -> Iterator[str]:
    """Inner functions, *args and **keywords too; only `self` and `cls` say enough."""
    for function in ast.walk(tree_of(source)):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            given = function.args
            starred = [one for one in (given.vararg, given.kwarg) if one]
            for argument in (
                *given.posonlyargs,
                *given.args,
                *given.kwonlyargs,
                *starred,
            ):
                if argument.annotation is None and argument.arg not in ("self", "cls"):
                    yield f"{path}: {function.name} does not annotate {argument.arg}"


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else []


def _defined(nodes: list[ast.stmt]) -> set[str]:
    assigned = {t.id for n in nodes for t in _targets(n) if isinstance(t, ast.Name)}
    return assigned | {
        n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.ClassDef)
    }


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
        named = rf"(?<![\w.$}}/]){re.escape(folder)}"
        if folder in text and re.search(named, text):
            yield f"{path} names {folder}"
    yield from (f"{path} names {host}" for host in HOSTS if host in text)


GOOD_PAGE = '''"""Is it so?"""
import dataclasses, sys
import research
EXPECTED = {"x": 1}
@dataclasses.dataclass(frozen=True)
class Config:
    """What is run."""
    sizes: tuple[int, ...] = (1,)
    """Sizes."""
    rate: float | None = None  # The rate.
FULL = Config()
if __name__ == "__main__":
    research.cli.main(sys.modules[__name__])
import jax
def run(config, on_progress=None):
    """Runs."""
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
    (
        tells_what_was_found,
        "experiments/reports/one.py",
        "def answer(findings): pass\ndef draw(result): pass",
    ),
    (imports_at_the_top, "experiments/one.py", "def f():\n    import jax"),
    (imports_at_the_top, "experiments/reports/one.py", "def f():\n    from a import b"),
    (annotates_every_argument, "experiments/one.py", "def f(a: int, b): pass"),
    (annotates_every_argument, "experiments/one.py", "def f(*, c=1): pass"),
    (annotates_every_argument, "research/one.py", "def f():\n    def g(x): pass"),
    (annotates_every_argument, "research/one.py", "def f(*args): pass"),
    (
        annotates_every_argument,
        "benchmarks/one.py",
        "class A:\n    def f(self, **keywords): pass",
    ),
    (names_no_machine, "docs/index.md", f"see {FOLDERS[1]}ada/descent"),
    (names_no_machine, "setup.cfg", f"index = https://{HOSTS[0]}/simple"),
]
# Each replaces a part of the good page by a bad one.
SPOILT = [
    ("so?", "so."),
    ("import research", "from research import runs"),
    ("import research", "import jax, research"),
    ("EXPECTED", "HOPED"),
    ("def run", "def ran"),
    ("frozen=True", ""),
    ('    """Sizes."""\n', ""),
    ("  # The rate.", ""),
    (" = (1,)", ""),
    ("tuple[int, ...]", "np.ndarray"),
    ("sys.modules[__name__])\nimport jax", "sys)\nimport jax"),
    ("FULL = Config()\n", ""),
]


LAWS: tuple[Law, ...] = (
    is_documented,
    has_a_name_that_says_something,
    is_a_page_with_a_claim,
    tells_what_was_found,
    imports_at_the_top,
    annotates_every_argument,
)


@functools.cache
def broken_by_sources() -> dict[Law, list[str]]:
    """Law -> what breaks it; each file is parsed once."""
    broken: dict[Law, list[str]] = {law: [] for law in LAWS}
    folders = ("research", "experiments", "benchmarks")
    for file in [file for name in folders for file in (TOP / name).rglob("*.py")]:
        path, source = file.relative_to(TOP).as_posix(), file.read_text("utf-8")
        for law in LAWS:
            broken[law] += law(path, source)
    return broken


@pytest.mark.on_ci("every file is parsed; nothing shorter shows this")
@pytest.mark.parametrize("law", LAWS)
def test_source_keeps_the_law(law):
    broken = broken_by_sources()[law]
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
