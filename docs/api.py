"""Write the API pages of the site from the docstrings: a page for each public name."""

import functools
import importlib
import inspect
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from docs import gallery, typeset
from research.update_rules import RULE_TABLE

TOP = Path(__file__).parent.parent
STUB = TOP / "research/__init__.pyi"
HEADING = re.compile(r"^([A-Z]\w+(?:, [A-Z]\w+)*):$", re.M)
# The name is one phrase: a sentence before a colon is no name.
ENTRY = re.compile(r"^  (\S(?:(?!\. )[^{:\n])*?): ", re.M)


class Public(NamedTuple):
    """A public name.

    Attributes:
      module: Name of the package or module of `research` that shows it.
      name: Its name there.
      value: The function, class or constant.
      summary: First paragraph of its docstring, or the comment of a constant.
      text: The rest of the docstring.
      line: Line of the file on which it is defined.
      file: Path of this file in the repository.
    """

    module: str
    name: str
    value: Any
    summary: str
    text: str
    file: str
    line: int

    @property
    def full(self) -> str:
        """Return the name below `research`, such as losses.huber."""
        return f"{self.module}.{self.name}"


def modules() -> dict[str, types.ModuleType]:
    """Return name -> module, of each module that `research` shows."""
    names = re.findall(r"^from \. import (\w+)", STUB.read_text("utf-8"), re.M)
    return {name: importlib.import_module(f"research.{name}") for name in names}


@functools.cache
def public_names() -> dict[str, Public]:
    """Return full name -> public name, of every function, class and constant."""
    return {
        found.full: found
        for name, module in modules().items()
        for found in public_in(name, module)
    }


def public_in(name: str, module: types.ModuleType) -> Iterator[Public]:
    """Return the public names of a module: those of __all__, or what is its own."""
    listed = getattr(module, "__all__", None)
    for key, value in vars(module).items():
        if key.startswith("_") or isinstance(value, types.ModuleType):
            continue
        is_own = getattr(value, "__module__", "").startswith(module.__name__)
        if key in listed if listed else is_own and callable(value):
            yield read(name, key, value, module)


def read(module: str, name: str, value: Any, owner: types.ModuleType) -> Public:
    """Read what the source says of a public name."""
    if inspect.isfunction(value) or inspect.isclass(value):
        defined = sys.modules[value.__module__]
        text = inspect.cleandoc(value.__doc__ or "")
    else:
        defined = where_defined(owner, name, value)
        text = comment_above(inspect.getsource(defined), name)
    summary, _, rest = text.partition("\n\n")
    source = inspect.getsource(defined)
    kind = r"(?:def |class )?"
    at = re.search(rf"^{kind}{getattr(value, '__name__', name)}\b", source, re.M)
    file = Path(inspect.getsourcefile(defined) or "").relative_to(TOP).as_posix()
    line = source[: at.start()].count("\n") + 1 if at else 1
    return Public(module, name, value, " ".join(summary.split()), rest, file, line)


def where_defined(owner: types.ModuleType, name: str, value: Any) -> types.ModuleType:
    """Return the module that assigns a constant, which `owner` imports from it."""
    for key, module in sorted(sys.modules.items()):
        if key.startswith(owner.__name__) and vars(module).get(name) is value:
            assigned = re.search(rf"^{name}\b.*=", inspect.getsource(module), re.M)
            if assigned:
                return module
    return owner


def comment_above(source: str, name: str) -> str:
    """Return the comment on the lines above a constant, or behind it."""
    found = re.search(rf"((?:^# .*\n)*)^{name}\b[^#\n]*(?:# (.*))?", source, re.M)
    if not found:
        return ""
    return re.sub(r"^# ", "", found[1], flags=re.M).strip() or found[2] or ""


def pages() -> dict[str, str]:
    """Return path in the site's source -> text, of the API pages."""
    names = public_names()
    of_module: dict[str, list[Public]] = {name: [] for name in modules()}
    for found in names.values():
        of_module[found.module].append(found)
    used = gallery.uses()
    written = {
        f"api/{found.full}.md": page(found, used.get(f"research.{found.full}", []))
        for found in names.values()
    }
    written |= {
        f"api/{name}.md": module_page(name, modules()[name], members)
        for name, members in of_module.items()
    }
    return written | {"api/index.md": index(of_module)}


def index(of_module: dict[str, list[Public]]) -> str:
    """Write the page that lists the modules."""
    rows = "\n".join(
        f"| [research.{name}]({name}.md) | {inline(summary_of(modules()[name]))} "
        f"| {len(members)} |"
        for name, members in of_module.items()
    )
    toc = "\n".join(of_module)
    return (
        "# API\n\nEach public name has a page, which is made from its docstring.\n\n"
        f"| module | contents | names |\n|---|---|---|\n{rows}\n\n"
        f"```{{toctree}}\n:hidden:\n\n{toc}\n```\n"
    )


def summary_of(module: types.ModuleType) -> str:
    """Return the first paragraph of a module's docstring, on one line."""
    return " ".join((module.__doc__ or "").strip().partition("\n\n")[0].split())


def module_page(name: str, module: types.ModuleType, members: list[Public]) -> str:
    """Write the page of a module: its docstring, and a row for each name."""
    rows = "\n".join(
        f"| [{found.name}]({found.full}.md) | {inline(found.summary)} |"
        for found in sorted(members, key=lambda found: found.name.lower())
    )
    table = f"| name | |\n|---|---|\n{rows}\n" if rows else ""
    text = inspect.cleandoc(module.__doc__ or "")
    return f"# research.{name}\n\n{body(text, name)}\n\n{table}"


def page(found: Public, cards: list[str]) -> str:
    """Write the page of a name."""
    parts = [
        "---\norphan: true\n---",
        f"# research.{found.full}",
        f"[research.{found.module}]({found.module}.md)",
        fenced("python", signature(found.name, found.value)),
        prose(found.summary, found.module),
        body(found.text, found.module),
        *methods(found),
        rule_link(found),
        cards_line(cards),
        f"Source: [{found.file}, line {found.line}](../{found.file}#L{found.line})",
    ]
    text = "\n\n".join(part for part in parts if part) + "\n"
    for argument in arguments(found.value):
        text = re.sub(rf"\[`{argument}`\]\([^)]*\)", f"`{argument}`", text)
    return text


def arguments(value: Any) -> list[str]:
    """Return the names of a function's arguments, which a page never links.

    A public function may have the same name.
    """
    if not inspect.isroutine(value):
        return []
    return list(inspect.signature(value).parameters)


def rule_link(found: Public) -> str:
    """Point from an update rule to its page with the typeset formula."""
    if found.module != "update_rules" or found.name not in RULE_TABLE:
        return ""
    return (
        f"[The formula of {found.name}, typeset](../docs/rules/{found.name}.md), "
        "with the size of its state."
    )


def cards_line(cards: list[str]) -> str:
    """Name the experiments and notebooks that use a name."""
    if not cards:
        return ""
    links = ", ".join(f"[{gallery.title(card)}](../{card})" for card in cards)
    return f"Used in: {links}."


def signature(name: str, value: Any) -> str:
    """Return how a name is called, without annotations, or what a constant holds."""
    if isinstance(value, dict):
        return f"{name} = {{{', '.join(repr(key) for key in value)}}}  # keys"
    if not callable(value):
        return f"{name} = {value!r}"
    try:
        given = inspect.signature(value)
    except (ValueError, TypeError):
        return name
    plain = [
        parameter.replace(annotation=inspect.Parameter.empty, default=shown(parameter))
        for parameter in given.parameters.values()
    ]
    words = f"{name}{given.replace(parameters=plain, return_annotation=given.empty)}"
    return words if len(words) <= 88 else words.replace(", ", ",\n    ")


class Written(str):
    """A text that repr leaves as it is."""

    def __repr__(self) -> str:
        return str(self)


def shown(parameter: inspect.Parameter) -> Any:
    """Return a default in a form without addresses."""
    if parameter.default is inspect.Parameter.empty:
        return parameter.default
    return Written(
        getattr(parameter.default, "__name__", None)
        or re.sub(r" at 0x[0-9a-f]+", "", repr(parameter.default))
    )


def methods(found: Public) -> Iterator[str]:
    """Write the public methods of a class."""
    if not inspect.isclass(found.value):
        return
    for key, value in vars(found.value).items():
        function = value.fget if isinstance(value, property) else value
        is_method = inspect.isfunction(function) and function.__doc__
        if is_method and not key.startswith("_"):
            words = key if isinstance(value, property) else signature(key, function)
            text = inspect.cleandoc(function.__doc__ or "")
            yield f"## {typeset.escaped(key)}\n\n{fenced('python', words)}\n\n" + body(
                text, found.module
            )


def body(text: str, module: str) -> str:
    """Write a docstring as Markdown: its paragraphs and its sections."""
    first, *sections = HEADING.split(text)
    parts = [paragraphs(first, module)]
    for heading, content in zip(sections[::2], sections[1::2], strict=True):
        parts.append(f"**{heading}**")
        if heading.startswith("Example"):
            parts.append(fenced("pycon", inspect.cleandoc(content)))
        else:
            parts.append(entries(content, module))
    return "\n\n".join(part for part in parts if part)


def entries(content: str, module: str) -> str:
    """Write a section of a docstring as a list, if it has entries "name: text"."""
    content = "\n".join(content.strip("\n").splitlines())
    names = ENTRY.split("\n" + content)
    if len(names) < 3 or names[0].strip():
        return paragraphs(inspect.cleandoc(content), module)
    return "\n".join(
        f"- **{typeset.escaped(name)}**: {nested(said, module)}"
        for name, said in zip(names[1::2], names[2::2], strict=True)
    )


def nested(said: str, module: str) -> str:
    """Write the text of an entry, and a list in it one level deeper."""
    lines = inspect.cleandoc(said).splitlines()
    text = items_and_text(lines) or ([" ".join(said.split())], [], [])
    before, items, after = ([prose(each, module) for each in part] for part in text)
    return "\n".join(
        [
            *before,
            *(f"  - {item}" for item in items),
            *(f"\n  {each}" for each in after),
        ]
    )


def items_and_text(
    lines: list[str],
) -> tuple[list[str], list[str], list[str]] | None:
    """Return the text before a "- " list, its items, and the text after it.

    Each is a list of strings without line breaks. Return None if there is no such list.
    """
    before: list[str] = []
    items: list[str] = []
    after: list[str] = []
    for line in lines:
        if line.startswith("- "):
            if after:
                return None
            items.append(line[2:])
        elif not items:
            before.append(line)
        elif line.startswith("  ") and not after:
            items[-1] += " " + line.strip()
        else:
            after.append(line)
    if not items or any(line.startswith(("  ", "* ")) for line in [*before, *after]):
        return None
    joined = [[" ".join(part)] if part else [] for part in (before, after)]
    return joined[0], items, joined[1]


def paragraphs(text: str, module: str) -> str:
    """Write paragraphs. A paragraph that is indented is shown as it stands."""
    blocks = [block for block in re.split(r"\n\s*\n", text) if block.strip()]
    return "\n\n".join(
        fenced("", inspect.cleandoc(block))
        if block.startswith("  ")
        else listed(block, module)
        for block in blocks
    )


def listed(block: str, module: str) -> str:
    """Write one paragraph, a list as a list. Other indented lines stay lines."""
    lines = block.splitlines()
    text = items_and_text(lines)
    if text is not None:
        before, items, after = ([prose(each, module) for each in part] for part in text)
        return "\n\n".join([*before, "\n".join(f"- {item}" for item in items), *after])
    if any(line.startswith(("- ", "* ", "  ")) for line in lines):
        return fenced("", block)
    return prose(" ".join(lines), module)


def prose(text: str, module: str) -> str:
    """Escape a text, and link the public names in it."""

    def link(found: re.Match[str]) -> str:
        name = found[1].removeprefix("research.").removesuffix("()")
        for full in (name, f"{module}.{name}"):
            if full in public_names():
                return f"[`{found[1]}`]({full}.md)"
        return found[0]

    escaped = typeset.escaped(text).replace("[", r"\[").replace("]", r"\]")
    escaped = re.sub(r"`[^`]*`", lambda code: code[0].replace("\\", ""), escaped)
    return re.sub(r"`([\w.]+(?:\(\))?)`", link, escaped)


def inline(text: str) -> str:
    """Escape a text for the cell of a table."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        part.replace("|", r"\|")
        if part.startswith("`")
        else typeset.escaped(part).replace("[", r"\[")
        for part in parts
    )


def fenced(language: str, code: str) -> str:
    """Write a block of code."""
    return f"```{language}\n{code}\n```"
