"""The laws of the house, read from the source; each law is also shown a source that
breaks it, and must see it.
"""

import ast
import functools
import graphlib
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
# Who may import whom: only to the left. Modules of one layer do not import each other.
LAYERS = (
    ("portable", "checks"),
    ("types", "backend", "columns", "naming", "reading", "tracing"),
    ("sizes", "files", "cluster"),
    (
        "derivatives",
        "losses",
        "models",
        "schedules",
        "samplers",
        "records",
        "datasets",
        "statistics",
    ),
    ("objectives", "optima", "update_rules"),
    ("descent",),
    ("verification", "workloads"),
    ("tuning", "runs"),
    ("figures", "report"),
    ("comparison",),
    ("leaderboard",),
    ("cli",),
    ("experiments",),
)
LAYER = {name: depth for depth, names in enumerate(LAYERS) for name in names}
ONLY_IN = {
    "flax": r"research/models/linen\.py",
    "matplotlib": r"research/figures(\.py|/.*)|experiments/reports/.*",
    "tyro": r"research/cli(\.py|/.*)",
    "rich": r"research/cli(\.py|/.*)",
    "tqdm": r"research/cli(\.py|/.*)",
}
OF_OPTAX = {
    *(
        "GradientTransformation",
        "GradientTransformationExtraArgs",
        "TransformInitFn",
        "TransformUpdateFn",
    ),
    *(
        "TransformUpdateExtraArgsFn",
        "OptState",
        "Params",
        "Updates",
        "EmptyState",
        "MaskedState",
        "MaskedNode",
    ),
    *(
        "Schedule",
        "ScalarOrSchedule",
        "init_empty_state",
        "chain",
        "masked",
        "apply_updates",
        "with_extra_args_support",
    ),
    *("tree", "tree_utils"),
}

Law = Callable[
    [str, str], Iterator[str]
]  # (path in the repository, its text) -> what breaks the law


@functools.cache  # Several laws read each file.
def parsed(source: str) -> ast.Module:
    return ast.parse(source)


@functools.cache
def _nodes(tree: ast.AST) -> list[ast.AST]:
    """The nodes below a tree that imports looks at."""
    kinds = (ast.Import, ast.ImportFrom, ast.Attribute)
    return [node for node in ast.walk(tree) if isinstance(node, kinds)]


@pytest.fixture(autouse=True, scope="module")
def forget_trees():
    """Once this file is done: they take 150 MB."""
    yield
    parsed.cache_clear()
    _nodes.cache_clear()


def imports(path: str, source: str | ast.AST) -> list[str]:
    """Dotted names of all that a module imports, `research.x` from the lazy package
    among them.
    """
    tree = parsed(source) if isinstance(source, str) else source
    package = Path(path).parent.parts
    found, lazy = [], {"research"}
    for node in _nodes(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
            lazy |= {
                alias.asname
                for alias in node.names
                if alias.name == "research" and alias.asname
            }
        elif isinstance(node, ast.ImportFrom):
            parent = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*parent, *filter(None, [node.module])))
            found += [f"{module}.{alias.name}" for alias in node.names]
    for node in _nodes(tree):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in lazy
        ):
            found.append(f"research.{node.attr}")
    return found


def component(path: str) -> str:
    parts = Path(path).with_suffix("").parts
    if parts == ("research", "__main__"):
        return "cli"  # `python -m research` is the command `descent`.
    return "experiments" if parts[0] == "experiments" else parts[1]


def imports_only_to_the_left(path: str, source: str) -> Iterator[str]:
    own = component(path)
    if own == "__init__":
        yield from (
            f"{path} imports {name}"
            for name in imports(path, source)
            if name != "lazy_loader"
        )
        return
    if own not in LAYER:
        yield f"{path} is in no layer"
        return
    for name in imports(path, source):
        parts = name.split(".")
        other = (
            "experiments"
            if parts[0] == "experiments"
            else parts[1]
            if parts[0] == "research" and parts[1:]
            else own
        )
        if own == "experiments" and other == own and parts[0] == own:
            if not _is_of_the_same_experiment(path, parts):
                yield f"{path} imports another experiment, {name}"
        elif other != own and LAYER.get(other, len(LAYERS)) >= LAYER[own]:
            yield f"{path} imports {name}, which is not to its left"


def _is_of_the_same_experiment(path: str, imported: list[str]) -> bool:
    """Whether a report imports its own experiment, or a module what experiments
    share.
    """
    names = [part for part in imported[1:] if part != "reports"]
    own = path.startswith("experiments/reports/") and names[:1] == [Path(path).stem]
    return own or (names[:1] != [] and names[0].startswith("_"))


def keeps_packages_in_their_place(path: str, source: str) -> Iterator[str]:
    tree = parsed(source)
    if component(path) == "experiments":  # Its draw functions may use matplotlib.
        drawing = [
            f
            for f in tree.body
            if isinstance(f, ast.FunctionDef) and f.name.lstrip("_").startswith("draw")
        ]
        tree.body = [node for node in tree.body if node not in drawing]
        for function in drawing:
            rest = [
                name
                for name in imports(path, function)
                if not name.startswith("matplotlib")
            ]
            yield from _misplaced(path, rest)
    yield from _misplaced(path, imports(path, tree))


def _misplaced(path: str, names: list[str]) -> Iterator[str]:
    for name in names:
        place = ONLY_IN.get(name.partition(".")[0])
        if place and not re.fullmatch(place, path):
            yield f"{path} imports {name}"


def writes_its_own_rules(path: str, source: str) -> Iterator[str]:
    if component(path) != "update_rules":
        return
    tree = parsed(source)
    names = [
        name.split(".")[1] for name in imports(path, tree) if name.startswith("optax.")
    ]
    aliases = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name == "optax"
    }
    names += [
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in aliases
    ]
    yield from (
        f"{path} uses optax.{n}"
        for n in names
        if n not in OF_OPTAX and not n.startswith("tree_")
    )


def solves_without_descent(path: str, source: str) -> Iterator[str]:
    if component(path) == "optima":
        foreign = ("jax", "optax", "flax")
        yield from (
            f"{path} imports {n}"
            for n in imports(path, source)
            if n.partition(".")[0] in foreign
        )


def hides_no_module(path: str, source: str) -> Iterator[str]:
    """A package exports no name that is also the name of one of its modules."""
    folder = Path(path).parent
    if Path(path).name != "__init__.py":
        return
    package = ".".join(folder.parts)
    nodes = parsed(source).body
    froms = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    modules = {
        node.module.removeprefix(f"{package}.").partition(".")[0]
        for node in froms
        if node.module and node.module.startswith(f"{package}.")
    }
    modules |= {entry.stem for entry in (TOP / folder).glob("[!_]*")}
    names = {
        alias.asname or alias.name
        for node in froms
        if node.module != package
        for alias in node.names
    }
    names |= {getattr(node, "name", "") for node in nodes}
    yield from (
        f"{path} hides the module {package}.{name} behind a name"
        for name in sorted(names & modules)
    )


LAWS: tuple[Law, ...] = (
    imports_only_to_the_left,
    hides_no_module,
    keeps_packages_in_their_place,
    writes_its_own_rules,
    solves_without_descent,
)
GOOD = [
    (
        "research/update_rules/_first_order.py",
        "import optax\nfrom optax import tree_utils\noptax.chain, optax.tree.map",
    ),
    (
        "research/descent/_run.py",
        (
            "import jax, optax\nfrom research import samplers\nfrom research.types "
            "import Batch"
        ),
    ),
    ("research/models/_mlp.py", "from . import linear\nfrom ..types import Model"),
    ("research/models/linen.py", "import flax.linen as nn"),
    (
        "research/derivatives/__init__.py",
        "from research.derivatives import problems as problems",
    ),
    (
        "research/optima/newton.py",
        "import numpy as np\nfrom research.types import Optimum",
    ),
    (
        "experiments/one.py",
        "import research\nresearch.cli, research.runs",
    ),
    (
        "experiments/reports/one.py",
        (
            "import matplotlib.cm\nfrom experiments.one import NAMES\nfrom "
            "experiments.reports._words import share"
        ),
    ),
]
PLANTED = [
    (
        hides_no_module,
        "research/models/__init__.py",
        "from research.models.attention import attention as attention",
    ),
    (hides_no_module, "research/models/__init__.py", "def pooling(): pass"),
    (
        imports_only_to_the_left,
        "research/update_rules/_adam.py",
        "from research.descent import run",
    ),
    (
        imports_only_to_the_left,
        "research/descent/_run.py",
        "def f():\n    from research import workloads",
    ),
    (
        imports_only_to_the_left,
        "research/descent/_run.py",
        "import research\ndef f(): return research.workloads.fit",
    ),
    (
        imports_only_to_the_left,
        "research/descent/_run.py",
        "import research as r\nr.workloads",
    ),
    (imports_only_to_the_left, "research/models/_mlp.py", "from ..descent import run"),
    (imports_only_to_the_left, "research/losses.py", "from research import samplers"),
    (imports_only_to_the_left, "research/figures/curves.py", "import research.report"),
    (
        imports_only_to_the_left,
        "research/runs/folder.py",
        "import experiments.trajectory",
    ),
    (imports_only_to_the_left, "research/cli/flags.py", "from research import gossip"),
    (imports_only_to_the_left, "research/gossip.py", ""),
    (imports_only_to_the_left, "research/__init__.py", "import jax"),
    (imports_only_to_the_left, "experiments/one.py", "from experiments import two"),
    (
        imports_only_to_the_left,
        "experiments/one.py",
        "from experiments.reports.one import draw",
    ),
    (
        imports_only_to_the_left,
        "experiments/reports/one.py",
        "from experiments.two import run",
    ),
    (
        keeps_packages_in_their_place,
        "research/models/_mlp.py",
        "import flax.linen as nn",
    ),
    (
        keeps_packages_in_their_place,
        "research/report.py",
        "from matplotlib import pyplot",
    ),
    (keeps_packages_in_their_place, "research/lanes.py", "def f():\n    import tqdm"),
    (
        keeps_packages_in_their_place,
        "experiments/one.py",
        "def run():\n    import matplotlib",
    ),
    (
        keeps_packages_in_their_place,
        "experiments/one.py",
        "def draw():\n    import rich",
    ),
    (
        writes_its_own_rules,
        "research/update_rules/_adam.py",
        "import optax\nrule = optax.adam(0.1)",
    ),
    (
        writes_its_own_rules,
        "research/update_rules/_adam.py",
        "import optax as o\nrule = o.scale(0.1)",
    ),
    (writes_its_own_rules, "research/update_rules/_adam.py", "from optax import sgd"),
    (
        writes_its_own_rules,
        "research/update_rules/_adam.py",
        "from optax.contrib import sam",
    ),
    (solves_without_descent, "research/optima/newton.py", "import jax.numpy as jnp"),
]


def broken(law: Law) -> list[str]:
    files = [*(TOP / "research").rglob("*.py"), *(TOP / "experiments").rglob("*.py")]
    return [
        fault
        for f in files
        for fault in law(f.relative_to(TOP).as_posix(), f.read_text(encoding="utf-8"))
    ]


def _imported_modules(path: str, source: str, modules: set[str]) -> set[str]:
    """The modules of this repository that a module imports at its top, by full name."""
    nodes: list[ast.AST] = []
    stack: list[ast.AST] = [parsed(source)]
    while stack:
        node = stack.pop()
        nodes.append(node)
        if not isinstance(node, ast.FunctionDef):
            stack += ast.iter_child_nodes(node)
    named = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                named.add(full if full in modules else node.module)
    return named & modules


def import_circle(sources: dict[str, str]) -> str:
    """The first circle among modules that import each other, or "".

    Imports for type checkers only count as well.
    """
    graph = {
        name: _imported_modules(name, source, set(sources)) - {name}
        for name, source in sources.items()
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return " -> ".join(error.args[1])
    return ""


@pytest.mark.on_ci("every file of research/ is parsed; nothing shorter shows this")
def test_no_modules_import_each_other_in_a_circle():
    files = (TOP / "research").rglob("*.py")
    sources = {
        ".".join(
            (f.parent if f.name == "__init__.py" else f.with_suffix(""))
            .relative_to(TOP)
            .parts
        ): f.read_text(encoding="utf-8")
        for f in files
    }
    assert not import_circle(sources)


def test_circle_is_seen_through_a_type_checkers_import():
    hidden = "if TYPE_CHECKING:\n    from research.a.views import draw"
    sources = {"research.a": "", "research.a.ledger": hidden}
    sources["research.a.views"] = "from research.a.ledger import Ledger"
    assert "research.a.views" in import_circle(sources)
    sources["research.a.ledger"] = ""
    assert not import_circle(sources)


@pytest.mark.on_ci(
    "the laws for which every file is parsed",
    but="^(hides_no_module|writes_its_own_rules|solves_without_descent)",
)
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_source_keeps_the_law(law):
    assert not broken(law), "\n".join(broken(law))


@pytest.mark.parametrize(("law", "path", "source"), PLANTED)
def test_law_sees_what_breaks_it(law, path, source):
    assert list(law(path, source))


@pytest.mark.parametrize(("path", "source"), GOOD)
def test_laws_accept_what_is_right(path, source):
    assert not [fault for law in LAWS for fault in law(path, source)]


# `compare` is a function of the library and a command of its own, and so it may be
# named.
EXPERIMENTS = sorted(
    file.stem
    for file in (TOP / "experiments").glob("*.py")
    if not file.stem.startswith("_") and file.stem != "compare"
)


def names_no_experiment(path: str, source: str) -> Iterator[str]:
    """A library that names an experiment serves it."""
    names = "|".join(EXPERIMENTS)
    for name in re.findall(rf"experiments?[ ./]({names})\b", source):
        yield f"{path} names the experiment {name}"


def test_library_names_no_experiment():
    files = [f for f in (TOP / "research").rglob("*") if f.suffix in (".py", ".html")]
    texts = {f.relative_to(TOP).as_posix(): f.read_text("utf-8") for f in files}
    assert not [fault for item in texts.items() for fault in names_no_experiment(*item)]


@pytest.mark.parametrize(
    "source",
    [
        '"""The tables of the experiment text_classification."""',
        "from experiments.trajectory import run",
        "# See experiments/which_rule.py.",
    ],
)
def test_law_sees_a_library_that_names_an_experiment(source):
    assert list(names_no_experiment("research/figures/one.py", source))


def users_of_figures(texts: dict[str, str]) -> dict[str, set[str]]:
    """For each module of research/figures: the experiments, notebooks, pages and
    packages that draw with it.
    """
    of = lambda path: [
        name.split(".")[2]
        for name in imports(path, texts[path])
        if name.startswith("research.figures.")
    ]
    own = {
        Path(path).stem: {m for m in of(path) if m != Path(path).stem}
        for path in texts
        if path.startswith("research/figures/") and not path.endswith("__init__.py")
    }
    users: dict[str, set[str]] = {module: set() for module in own}
    for path in texts:
        if path.startswith("research/figures/"):
            continue
        todo = [module for module in of(path) if module in own]
        while todo:
            module = todo.pop()
            # A page and its report are one experiment.
            user = Path(path).stem
            user = user if path.startswith("experiments/") else path
            if user not in users[module]:
                users[module].add(user)
                todo += [other for other in own[module] if other in own]
    return users


def sources() -> dict[str, str]:
    files = [
        *(TOP / "research").rglob("*.py"),
        *(TOP / "experiments").rglob("*.py"),
        *(
            f
            for f in (TOP / "notebooks").glob("*.py")
            if "# %%" in f.read_text("utf-8")
        ),
    ]
    return {f.relative_to(TOP).as_posix(): f.read_text("utf-8") for f in files}


@pytest.mark.on_ci("every file is parsed; nothing shorter shows this")
def test_figures_serve_two_at_least():
    lonely = {m: who for m, who in users_of_figures(sources()).items() if len(who) < 2}
    assert not lonely, f"What one alone draws stands in its report: {lonely}."


def test_law_sees_figures_that_serve_one_alone():
    texts = {
        "research/figures/knee.py": "from research.figures import images",
        "research/figures/images.py": "import numpy",
        "experiments/batch_size.py": "from research.figures import knee",
        "experiments/reports/batch_size.py": "from research.figures.knee import draw",
        "notebooks/pictures.py": "from research.figures import images",
    }
    users = users_of_figures(texts)
    assert users["knee"] == {"batch_size"}
    assert users["images"] == {"batch_size", "notebooks/pictures.py"}


def test_stub_names_every_module():
    stub = ast.parse((TOP / "research/__init__.pyi").read_text(encoding="utf-8"))
    named = [
        alias.asname
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    entries = [
        entry.stem
        for entry in (TOP / "research").iterdir()
        if entry.suffix == ".py" or (entry / "__init__.py").exists()
    ]
    assert sorted(filter(None, named)) == sorted(
        set(entries) - {"__init__", "__main__"}
    )


def test_import_research_loads_no_jax_and_costs_little():
    program = "import sys, research; dir(research); print(*sys.modules)"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    words = [sys.executable, "-c", program]
    loaded = subprocess.run(
        words, capture_output=True, text=True, check=True, cwd=TOP
    ).stdout.split()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    heavy = {
        "jax",
        "jaxlib",
        "numpy",
        "optax",
        "flax",
        "matplotlib",
        "sklearn",
        "scipy",
        "tyro",
        "rich",
    }
    assert not heavy & set(loaded)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert (
        seconds < 0.3
    )  # Of a processor, so that a busy machine does not matter; measured: 0.03.
