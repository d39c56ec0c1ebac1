"""Write a finished run as one HTML file that opens offline.

The file shows the answer, figures, tables, and the command that reproduces the run.
"""

import base64
import decimal
import hashlib
import html
import importlib.resources
import inspect
import math
import re
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np

from research import checks, runs
from research.reading import read_bytes

LARGEST_PICTURE = 2**28  # Maximum size of an image in bytes.
FILE = "report.html"
# Entries of a table.
VALUE = str | int | float | np.integer | np.floating | np.bool_
LABELS = {
    "facts": "This run",
    "xla_pool": "Threads in XLA's pool",
    "xla_flags": "XLA_FLAGS",
    "x64": "64-bit floats",
    "jax_variables": "Variables that JAX reads",
    "git": "Source code",
    "dirty": "uncommitted changes",
    "instruction_sets": "instruction sets",
}


class ReportPicture(NamedTuple):
    """Picture of a report: its title, its caption and its files.

    `write_report` also accepts other objects with the same attributes, such as those
    that `figures.save` returns.

    Attributes:
      title: Title of a few words.
      caption: Description of the content, which is shown below the picture. Readers who
        cannot see the picture get this text.
      still: Path of an SVG or PNG file.
      motion: Path of an animated PNG. The page shows the animation instead of `still`,
        unless the browser asks for reduced motion. None means no animation.
    """

    title: str
    caption: str
    still: Path
    motion: Path | None = None


class Embedded(NamedTuple):
    """Image that is embedded in a page.

    Attributes:
      uri: The content of the image, as a data URI.
      width, height: Size in CSS pixels.
    """

    uri: str
    width: int
    height: int


class Cell(NamedTuple):
    """Entry of a sortable table.

    Attributes:
      text: Text of the entry.
      exact: Number by which the entry is sorted, as a text in the notation of
        JavaScript, such as "Infinity". None means that the entry is sorted by its text.
      missing: Whether the value is missing. Missing values are always sorted to the
        end, both in ascending and in descending order.
    """

    text: str
    exact: str | None = None
    missing: bool = False


class Sortable(NamedTuple):
    """Table of an HTML page, whose rows the reader can sort by any column.

    The template page.html needs tables in this form.

    Attributes:
      title: Title of the table.
      columns: Headings of the columns.
      numeric: For each column, whether all its entries are numbers or missing values.
      rows: One tuple of Cells for each row.
      note: Sentence below the table.
    """

    title: str
    columns: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str


def write_report(
    path: str | Path,
    pictures: Sequence[Any],
    question: str = "",
    result: runs.Result | None = None,
) -> Path:
    """Write report.html into the folder of a finished run.

    The file is self-contained: images are embedded, and the content security policy of
    the page forbids all requests.

    Args:
      path: Run folder.
      pictures: Pictures with the attributes of `ReportPicture`. The page shows the
        pictures in this order, below the field `answer` of the result.
      question: Docstring of the experiment, which begins with the question that the
        experiment answers. Indented paragraphs keep their line breaks. In other
        paragraphs, line breaks become spaces.
      result: Result that the page shows. None means the result in the run folder.
    Returns:
      Path of report.html.
    Raises:
      ValueError: The run is damaged or not finished, or a picture is not valid (see
        `embed`).
      TypeError: A picture lacks an attribute of `ReportPicture`.
      OSError: A picture cannot be read, or the report cannot be written.
    Example:
      >>> import tempfile
      >>> run = runs.open_run("trajectory", {"seed": 0}, tempfile.mkdtemp())
      >>> run = runs.finish(run, runs.Result("It descends.", (), {}, {}))
      >>> page = write_report(run.path, [])
      >>> page.name, "<h1>It descends.</h1>" in page.read_text("utf-8")
      ('report.html', True)
    """
    checks.check_path("path", path)
    checks.check_sequence(
        "pictures", pictures, "pictures, as research.figures.save returns them"
    )
    for picture in pictures:
        if not all(
            hasattr(picture, name) for name in ("title", "caption", "still", "motion")
        ):
            raise TypeError(
                "pictures must come from research.figures.save; one of them is "
                f"{checks.shown(picture)}."
            )
    checks.check_text("question", question)
    manifest, stored = runs.read_manifest(path), runs.load_result(path)
    result = stored if result is None else result
    headline, rest = first_sentence(result.answer)
    page = template(FILE).render(
        title=manifest["experiment"],
        headline=headline,
        rest=rest,
        pictures=[
            (p, embed(p.still), embed(p.motion) if p.motion else None) for p in pictures
        ],
        tables=[sortable(table) for table in result.tables],
        sources=rule_sources(result.numbers),
        question=paragraphs(question),
        config=_flat(manifest["config"]),
        environment=_groups(manifest),
        command=manifest.get("command", "unknown"),
        made_of=f"run {manifest['id']}",
        version=manifest["environment"].get("versions", {}).get("descent-jax")
        or "unknown",
    )
    target = Path(path) / FILE
    runs.write_atomically(target, page.encode(errors="replace"))
    return target


def rule_sources(numbers: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """Return the source code of the update rules that are not from this package.

    A result stores the source code in the list numbers["origin"]["code"]. A valid entry
    of this list is a mapping with two keys: "rules" is a list of names of rules, and
    "text" is their source code or None. The numbers may come from an untrusted source.
    Therefore, nothing is executed, and entries that are not valid are left out, such as
    the 7 in the example.

    Args:
      numbers: Field `numbers` of a `runs.Result`, a mapping from names to values.
    Returns:
      List of pairs (names of the rules, source code). The names are one text, separated
      by commas. The source code is None if it is unknown.
    Example:
      >>> rule_sources(
      ...     {"origin": {"code": [{"rules": ["mine"], "text": "mine = 3"}, 7]}}
      ... )
      [('mine', 'mine = 3')]
    """
    checks.check_mapping("numbers", numbers, "names to values")
    origin = numbers.get("origin")
    entries = origin.get("code") if isinstance(origin, Mapping) else None
    found = []
    for entry in entries if isinstance(entries, list) else []:
        one = entry if isinstance(entry, Mapping) else {}
        rules, text = one.get("rules"), one.get("text", 0)
        if not isinstance(rules, list) or not isinstance(text, str | None):
            continue
        if all(isinstance(rule, str) for rule in rules):
            found.append((", ".join(rules), text))
    return found


def first_sentence(text: str) -> tuple[str, str]:
    """Split a text into its first sentence and the remaining text.

    A blank line also ends the first sentence. Abbreviations such as "e.g." do not end a
    sentence.

    Example:
      >>> first_sentence("It takes 0.3 s, e.g. Adam on digits. SGD takes longer.")
      ('It takes 0.3 s, e.g. Adam on digits.', 'SGD takes longer.')
    """
    checks.check_text("text", text)
    abbreviations = "".join(
        rf"(?<!\b{word})" for word in (r"e\.g\.", r"i\.e\.", r"vs\.", r"cf\.")
    )
    parts = re.split(
        rf"(?<=[.!?]){abbreviations}\s+(?=[^\W\d_a-z])|\n\s*\n",
        text.strip(),
        maxsplit=1,
    )
    return parts[0], "".join(parts[1:])


def paragraphs(text: str) -> list[tuple[bool, str]]:
    """Split a docstring into paragraphs.

    Returns:
      One pair (verbatim, text) for each paragraph. verbatim is True for a paragraph
      that is indented more than the docstring itself. Such a paragraph keeps its line
      breaks.
    Example:
      >>> paragraphs("How fast\\n    is it?\\n\\n        python run.py")
      [(False, 'How fast is it?'), (True, 'python run.py')]
    """
    checks.check_text("text", text)
    found = []
    for block in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        verbatim = block.startswith((" ", "\t"))
        found.append(
            (
                verbatim,
                inspect.cleandoc("\n" + block) if verbatim else " ".join(block.split()),
            )
        )
    return [(verbatim, block) for verbatim, block in found if block]


def prose(text: str) -> str:
    """Convert a text to HTML, and mark the code and the command-line flags in it.

    Text in backticks becomes a <code> element. Flags such as --fast become <span>
    elements of the class "word". The style of this class prevents line breaks inside a
    flag. Without the spans, browsers may break a line after a hyphen, even after the
    "-" of "-m".

    Example:
      >>> print(prose("Leave out --fast: `experiments` < 1 - 2 < 3."))
      Leave out <span class="word">--fast</span>: <code>experiments</code> &lt; 1 ...
    """
    checks.check_text("text", text)
    parts = [_unbroken(part) for part in re.split(r"`([^`]+)`", text)]
    parts[1::2] = [f"<code>{part}</code>" for part in parts[1::2]]
    return "".join(parts)


def _unbroken(text: str) -> str:
    """Escape a text, and mark the command-line flags in it."""
    parts = re.split(r"(?<![\w-])(--?[A-Za-z][\w-]*)", text)
    parts = [html.escape(part) for part in parts]
    parts[1::2] = [f'<span class="word">{part}</span>' for part in parts[1::2]]
    return "".join(parts)


def shown(value: str | int | float | None) -> str:
    """Format one value of a table for reading.

    The format depends on the type of the number and on its absolute value a:
    - an integer with a < 10¹⁵: all digits
    - a float with a = 0 or 0.001 <= a < 10,000: four significant digits
    - a float with 10,000 <= a < 10⁶: no decimals
    - any other finite number: three significant digits and a power of ten

    In the first and the third case, commas separate the thousands. None becomes "not
    reached", True becomes "yes", and False becomes "no". NaN becomes "NaN", and
    infinities become ∞ or −∞. Texts are not changed.

    Example:
      >>> [
      ...     shown(value)
      ...     for value in (
      ...         None,
      ...         True,
      ...         1797,
      ...         0.0252494,
      ...         12345.6,
      ...         -1e-9,
      ...         math.inf,
      ...         "Adam",
      ...     )
      ... ]
      ['not reached', 'yes', '1,797', '0.02525', '12,346', '−1.00×10⁻⁹', '∞', 'Adam']
    """
    if value is not None and not isinstance(value, VALUE):
        raise TypeError(
            f"value must be a number, a text or None; got value={checks.shown(value)}."
        )
    if value is None or isinstance(value, str):
        return "not reached" if value is None else value
    number: Any = _of_python(value)
    if isinstance(number, bool):
        return "yes" if number else "no"
    if isinstance(number, float) and not math.isfinite(number):
        return "NaN" if math.isnan(number) else "−∞" if number < 0 else "∞"
    if isinstance(number, int):
        text = f"{number:,}" if abs(number) < 10**15 else _power_of_ten(number)
    else:
        # Rounded as it will be printed, so that 9,999.96 counts as 10,000.
        size = abs(float(f"{number:.3e}" if abs(number) < 1e4 else f"{number:.0f}"))
        if size == 0 or 1e-3 <= size < 1e6:
            text = f"{number:,.0f}" if size >= 1e4 else f"{number:.4g}"
        else:
            text = _power_of_ten(number)
    return text.replace("-", "−")


def _power_of_ten(value: int | float) -> str:
    # A large integer does not fit into a float.
    number = decimal.Decimal(value) if isinstance(value, int) else value
    digits, power = f"{number:.2e}".split("e")
    raised = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    return f"{digits}×10{str(int(power)).translate(raised)}"


def _of_python(value: Any) -> Any:
    """Return a number of NumPy as a number of Python, and other values unchanged."""
    if isinstance(value, np.floating):  # The method item of a longdouble returns it.
        return float(value)
    return value.item() if isinstance(value, np.generic) else value


def sortable(table: runs.Table) -> Sortable:
    """Convert a `Table` of a result to a `Sortable`, whose rows a reader can sort.

    Numbers are printed as `shown` formats them, and sorted by their exact values.
    Missing values are sorted to the end. An entry that is already a `Cell` is not
    changed.

    Example:
      >>> sortable(
      ...     runs.Table("Steps", ("rule", "steps"), (("adam", 1437), ("sgd", None)))
      ... ).rows[0][1]
      Cell(text='1,437', exact='1437', missing=False)
    """
    checks.check_instance(
        "table", table, runs.Table, "Write research.runs.Table(title, columns, rows)."
    )
    checks.check_sequence("table.columns", table.columns, "names", str)
    checks.check_sequence("table.rows", table.rows, "rows", (tuple, list))
    if any(len(row) != len(table.columns) for row in table.rows):
        raise ValueError(
            f"each row of table.rows must have {len(table.columns)} entries, one for "
            "each column."
        )
    rows = tuple(
        tuple(v if isinstance(v, Cell) else cell(v, shown(v)) for v in row)
        for row in table.rows
    )
    columns = [
        [row[index] for row in table.rows] for index in range(len(table.columns))
    ]
    numeric = tuple(not any(_is_words(value) for value in column) for column in columns)
    return Sortable(table.title, tuple(table.columns), numeric, rows, table.note)


def cell(value: str | int | float | None, text: str) -> Cell:
    """Return the `Cell` for one entry of a sortable table.

    The table shows `text`. If `value` is a number, the entry is sorted by `value`. If
    `value` is a string or a bool, the entry is sorted by `text`. If `value` is None or
    NaN, it counts as missing. Missing values are always sorted to the end.
    """
    checks.check_text("text", text)
    if value is not None and not isinstance(value, VALUE):
        raise TypeError(
            f"value must be a number, a text or None; got value={checks.shown(value)}."
        )
    return Cell(text, _exact(value), value is None or bool(value != value))


def template(name: str) -> jinja2.Template:
    """Load an HTML template of this package by its file name, such as report.html.

    All templates use the style, the script and the content security policy of
    page.html.
    """
    checks.check_text("name", name)
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(
            lambda name: (importlib.resources.files("research") / name).read_text(
                "utf-8"
            )
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["policy_hash"] = _policy_hash
    known = sorted(
        page.name
        for page in importlib.resources.files("research").iterdir()
        if page.name.endswith(".html")
    )
    checks.check_choice("name", name, known)
    environment.filters["prose"] = prose
    return environment.get_template(name)


def embed(path: str | Path) -> Embedded:
    """Return the data URI, width and height of the picture in an SVG or PNG file.

    Browsers use width and height to reserve the space before they draw the picture.

    Raises:
      ValueError: The file is too large, is neither SVG nor PNG, or is an SVG without a
        viewBox.
      OSError: The file does not exist or cannot be read.
    """
    checks.check_path("path", path)
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"path must be the path of a figure; the file {path} does not exist."
        )
    return embed_bytes(read_bytes(path, LARGEST_PICTURE), str(path))


def embed_bytes(data: bytes, name: str) -> Embedded:
    """Return the data URI, width and height of an SVG or PNG picture.

    The pages of this package show the picture in an <img> element. In such an element,
    browsers do not run the scripts of an SVG.

    Args:
      data: Picture, as the bytes of a file.
      name: Name of the picture for messages.
    Raises:
      ValueError: The data are neither SVG nor PNG, or are an SVG without a viewBox.
    """
    checks.check_instance("data", data, bytes)
    checks.check_text("name", name)
    if data.startswith(b"\x89PNG\r\n\x1a\n") and len(data) >= 24:
        kind, (width, height) = "png", struct.unpack(">II", data[16:24])
    else:
        kind, (width, height) = (
            "svg+xml",
            _svg_size(data.decode(errors="replace"), name),
        )
    return Embedded(
        f"data:image/{kind};base64,{base64.b64encode(data).decode()}",
        round(width),
        round(height),
    )


def _svg_size(text: str, path: str | Path) -> tuple[float, float]:
    root = re.search(r"<svg\b[^>]*>", text)
    box = re.search(
        r"""\bviewBox=["']\s*\S+?[\s,]+\S+?[\s,]+([\d.]+)[\s,]+([\d.]+)\s*["']""",
        root[0] if root else "",
    )
    if box is None or not all(
        re.fullmatch(r"\d{1,9}(\.\d*)?", side) for side in box.groups()
    ):
        raise ValueError(
            f"{path} is neither a PNG nor an SVG with a viewBox; save the figure as "
            "one of these."
        )
    return float(box[1]), float(box[2])


def _policy_hash(text: str) -> str:
    digest = hashlib.sha256(str(text).encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _exact(value: str | int | float | None) -> str | None:
    """Write a number in the notation of JavaScript; None for any other value."""
    value = _of_python(value)
    if (
        value is None
        or isinstance(value, str | bool)
        or (isinstance(value, float) and math.isnan(value))
    ):
        return None
    if isinstance(value, int):  # Python writes no int of more than 4,300 digits.
        return str(decimal.Decimal(value))
    return repr(value).replace("inf", "Infinity")


def _is_words(value: Any) -> bool:
    return (
        value.exact is None and not value.missing
        if isinstance(value, Cell)
        else isinstance(value, str | bool | np.bool_)
    )


def _groups(manifest: dict[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the environment and the run's facts as titled groups.

    Entries that are single values come first, in the group "Settings". Each entry that
    is a dict has its own group.
    """
    parts: dict[str, Any] = {
        "facts": manifest.get("facts", {}),
        **manifest["environment"],
    }
    named = {
        LABELS.get(name) or name.replace("_", " ").capitalize(): value
        for name, value in parts.items()
    }
    alone = {
        name: value for name, value in named.items() if not isinstance(value, Mapping)
    }
    groups = [
        ("Settings", alone),
        *((name, value) for name, value in named.items() if name not in alone),
    ]
    return [
        (name, [(LABELS.get(row, row), text) for row, text in _flat(value)])
        for name, value in groups
        if value
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows = []
    for name, value in values.items():
        rows += (
            _flat(value, f"{prefix}{name}.")
            if isinstance(value, Mapping)
            else [(prefix + name, _text(value))]
        )
    return rows


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "none"
    return (
        "none"
        if value is None or value == ""
        else shown(value)
        if isinstance(value, bool)
        else str(value)
    )
