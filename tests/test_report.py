"""Laws of reports: one file that refers to nothing outside, shows everything, and
executes nothing it was told.
"""

import base64
import dataclasses
import hashlib
import html.parser
import itertools
import json
import math
import re
import struct
import zlib

import numpy as np
import pytest

from research import report, runs

NASTY = (
    "<script>document.title = 'owned'</script>&amp;\"'</td><img src=x onerror=alert(1)>"
    " {{ 7 * 7 }} </style>"
)
VOID = {"meta", "link", "img", "source", "wbr", "br"}


@dataclasses.dataclass(frozen=True)
class Config:
    name: str = NASTY
    batch_sizes: tuple[int, ...] = (1, 32)
    decay: float | None = None
    shuffle: bool = True


class Page(html.parser.HTMLParser):
    """A page's elements, in order: (tag, attributes, text); and all that is open at
    once must close in order.
    """

    def __init__(self, text):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        element = (tag, dict(attrs), [])
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        for _, _, text in self.open:
            text.append(data)

    def all(self, *tags):
        return [
            (tag, attrs, "".join(text).strip())
            for tag, attrs, text in self.elements
            if tag in tags
        ]

    def texts(self, *tags):
        return [text for _, _, text in self.all(*tags)]


def png(width, height):
    """A white picture, byte by byte as the PNG specification has it."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data))
            + kind
            + data
            + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + chunk(b"IDAT", zlib.compress(height * (b"\0" + width * b"\xff")))
        + chunk(b"IEND", b"")
    )


SVG = """<?xml version='1.0'?>
<svg xmlns='http://www.w3.org/2000/svg' width='9in' viewBox='0 0 648.5 302.4'>
<script>alert(1)</script></svg>"""
TABLES = (
    runs.Table(
        f"Steps {NASTY}",
        (NASTY, "steps", "mixed"),
        (
            (NASTY, 1437, "a"),
            ("adam", None, 2.5),
            ("sgd", math.nan, None),
            ("lion", -1.23456e-9, math.inf),
        ),
        f"A note {NASTY}",
    ),
    runs.Table("Nothing", (), ()),
)


@pytest.fixture
def pictures(tmp_path):
    (tmp_path / "still.svg").write_text(SVG)
    (tmp_path / "still.png").write_bytes(png(30, 20))
    (tmp_path / "motion.apng").write_bytes(png(40, 20))
    return [
        report.ReportPicture(
            f"Curves {NASTY}", f"Caption {NASTY}", tmp_path / "still.svg"
        ),
        report.ReportPicture(
            "Moving", "It moves.", tmp_path / "still.png", tmp_path / "motion.apng"
        ),
    ]


@pytest.fixture
def run(tmp_path):
    run = runs.open_run("trajectory", Config(), tmp_path, width=32)
    answer = f"Adam needs 12.5 steps, vs. Lion's {NASTY}. It was {NASTY}"
    return runs.finish(
        run, runs.Result(answer, TABLES, {}, {}), seconds=1.5, programs={NASTY: "ab12"}
    )


@pytest.fixture
def source(run, pictures):
    question = f"What is\n    {NASTY}?\n\n        python run.py\n          --fast\n"
    return report.write_report(run.path, pictures, question=question).read_text("utf-8")


def test_page_refers_to_nothing_outside_itself(source):
    page = Page(source)
    for tag, attributes, _ in page.elements:
        for name in {
            "src",
            "href",
            "srcset",
            "action",
            "data",
            "poster",
        } & attributes.keys():
            assert attributes[name].startswith("data:"), (tag, name)
    assert not re.search(
        r"https?:|//\w|url\(|@import", re.sub(r'"data:[^"]*"', "", source)
    )


def test_everything_shown_is_escaped(source):
    page = Page(source)
    assert [text for text in page.texts("script") if "owned" in text] == []
    assert len(page.all("script")) == len(page.all("style")) == 1
    assert len(page.all("img")) == 2
    assert source.count("<script") == 1
    assert "49" not in page.texts("h1")[0]
    shown = [
        NASTY,
        f"It was {NASTY}",
        f"Curves {NASTY}",
        f"Caption {NASTY}",
        f"Steps {NASTY}",
        f"A note {NASTY}",
        f"What is {NASTY}?",
    ]
    texts = page.texts("p", "h2", "th", "td")
    assert not [text for text in shown if text not in texts]
    assert page.all("img")[0][1]["alt"] == f"Caption {NASTY}"


@pytest.mark.on_ci("two more texts", but=r"code[034]-")
@pytest.mark.parametrize(
    ("text", "code", "unbroken"),
    [
        ("Run `python -m experiments`.", ["python -m experiments"], ["-m"]),
        (
            "Leave out --fast, --data-dir and (-q): 1 - 2 is -1, f - f*.",
            [],
            ["--fast", "--data-dir", "-q"],
        ),
        ("It is 2-3-1, on fashion-mnist; a ` alone, and another.", [], []),
        ("`a` `<b>` -x", ["a", "<b>"], ["-x"]),
        ("'--fast', \"-q\" <--odd> &-m; a-b", [], ["--fast", "-q", "--odd", "-m"]),
    ],
)
def test_prose_shows_code_as_code_and_breaks_no_flag(run, text, code, unbroken):
    """In the headline, the rest of the answer, captions, notes and the question
    alike.
    """
    page = Page(report.prose(text))
    assert page.texts("code") == code
    assert [
        text for tag, attrs, text in page.all("span") if attrs == {"class": "word"}
    ] == unbroken
    whole = Page(f"<p>{report.prose(text)}</p>").texts("p")
    assert whole == [text if not code else text.replace("`", "")]
    table = runs.Table("Steps", ("a",), ((1,),), text)
    path = runs.finish(
        runs.open_run("prose", {}, run.path),
        runs.Result(f"{text} Then.\n\n{text}", (table,), {}, {}),
    ).path
    (path / "still.svg").write_text('<svg viewBox="0 0 8 8"></svg>')
    shown = Page(
        report.write_report(
            path, [report.ReportPicture("A", text, path / "still.svg")], text
        ).read_text()
    )
    assert sum(found == whole[0] for found in shown.texts("h1", "p")) >= 4
    assert shown.all("img")[0][1]["alt"] == whole[0].replace("`", "")


def test_name_and_command_are_escaped(run, pictures):
    manifest = json.loads((run.path / "manifest.json").read_text("utf-8"))
    (run.path / "manifest.json").write_text(
        json.dumps(manifest | {"experiment": NASTY, "command": f"python {NASTY}"})
    )
    page = Page(report.write_report(run.path, pictures).read_text("utf-8"))
    assert page.texts("title") == [f"{NASTY} · Descent"]
    assert page.texts("code") == [f"python {NASTY}"]
    assert NASTY in page.texts("p")


def test_page_is_in_order(source):
    page = Page(source)
    body = page.texts("body")[0]
    assert body.startswith("trajectory\nWhat is <script>")
    assert body.index("What is <script>") < body.index("Adam needs 12.5 steps")
    assert page.texts("h1") == [f"Adam needs 12.5 steps, vs. Lion's {NASTY}."]
    above, question, remainder = page.texts("p")[:3]
    assert above == "trajectory"
    assert question.startswith("What is <script>")
    assert remainder == f"It was {NASTY}"
    titles = [f"Curves {NASTY}", "Moving", f"Steps {NASTY}", "Nothing"]
    assert page.texts("h2") == [
        *titles,
        "The question",
        "Configuration",
        "Environment",
        "Make it again",
    ]
    levels = [int(tag[1]) for tag, _, _ in page.all("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(below <= above + 1 for above, below in itertools.pairwise(levels))
    assert page.all("html")[0][1] == {"lang": "en"}
    footer = page.texts("footer")[0]
    assert all(
        words in footer
        for words in ("Descent 0.1.0", "MIT licence", "The Descent authors")
    )


def test_tables_show_every_cell_and_keep_its_exact_value(source):
    page = Page(source)
    titles = {
        attributes["id"]: text
        for _, attributes, text in page.all("h2", "h3")
        if "id" in attributes
    }
    labels = [
        titles[attributes["aria-labelledby"]] for _, attributes, _ in page.all("table")
    ]
    assert labels[:3] == [f"Steps {NASTY}", "Nothing", "Configuration"]
    cells = page.all("th", "td")
    headings = [
        text for _, attributes, text in cells if attributes.get("scope") == "col"
    ]
    assert headings == [NASTY, "steps", "mixed"]
    assert len(page.all("button")) == len(headings) + 2  # Pause and Copy.
    body = [
        (attributes["class"], attributes.get("data-value"), text)
        for _, attributes, text in cells
        if "class" in attributes and attributes.get("scope") != "col"
    ]
    assert body == [
        ("", None, NASTY),
        ("number", "1437", "1,437"),
        ("", None, "a"),
        ("", None, "adam"),
        ("number missing", None, "not reached"),
        ("", "2.5", "2.5"),
        ("", None, "sgd"),
        ("number missing", None, "NaN"),
        (" missing", None, "not reached"),
        ("", None, "lion"),
        ("number", "-1.23456e-09", "−1.23×10⁻⁹"),
        ("", "Infinity", "∞"),
    ]


def test_config_environment_and_question_are_shown(source):
    page = Page(source)
    cells = page.texts("th", "td")
    pairs = dict(itertools.pairwise(cells))
    assert {
        name: pairs[name] for name in ("name", "batch_sizes", "decay", "shuffle")
    } == {
        "name": NASTY,
        "batch_sizes": "1, 32",
        "decay": "none",
        "shuffle": "yes",
    }
    assert (pairs["Lane width"], pairs["Threads in XLA's pool"], pairs["seconds"]) == (
        "32",
        "2",
        "1.5",
    )
    assert pairs[f"programs.{NASTY}"] == "ab12"
    assert {
        "jax",
        "descent-jax",
        "instruction sets",
        "Matmul precision",
    } <= pairs.keys()
    assert "python run.py\n  --fast" in page.texts("pre")


def test_policy_allows_this_style_and_script_and_no_other(source):
    page = Page(source)
    policies = [
        a["content"]
        for _, a, _ in page.all("meta")
        if a.get("http-equiv") == "Content-Security-Policy"
    ]
    rules = dict(rule.split(" ", 1) for rule in policies[0].split("; "))
    assert (rules["default-src"], rules["img-src"]) == ("'none'", "data:")
    for tag, rule in (("style", "style-src"), ("script", "script-src")):
        content = re.search(f"<{tag}>(.*?)</{tag}>", source, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
    assert not [
        a
        for _, a, _ in page.elements
        if any(name == "style" or name.startswith("on") for name in a)
    ]


def test_pictures_are_embedded_whole_and_keep_their_place(source):
    page = Page(source)
    images = [attributes for _, attributes, _ in page.all("img")]
    assert [(image["width"], image["height"]) for image in images] == [
        ("648", "302"),
        ("40", "20"),
    ]
    data = [base64.b64decode(image["src"].partition("base64,")[2]) for image in images]
    assert data == [SVG.encode(), png(40, 20)]
    [(_, still, _)] = page.all("source")
    assert still["media"] == "(prefers-reduced-motion: reduce), print"
    assert base64.b64decode(still["srcset"].partition("base64,")[2]) == png(30, 20)


@pytest.mark.parametrize(
    "content", [b"GIF89a", b"<svg width='3'></svg>", b"<p viewBox='0 0 1 1'>", b""]
)
def test_other_pictures_are_refused(tmp_path, content):
    (tmp_path / "picture").write_bytes(content)
    with pytest.raises(
        ValueError, match="picture is neither a PNG nor an SVG with a viewBox"
    ):
        report.embed(tmp_path / "picture")


def test_report_of_an_unfinished_run_is_refused(tmp_path):
    run = runs.open_run("trajectory", {}, tmp_path)
    with pytest.raises(ValueError, match="no complete result"):
        report.write_report(run.path, [])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (-3, "−3"),
        (10**15 - 1, "999,999,999,999,999"),
        (1 - 10**15, "−999,999,999,999,999"),
        (10**18, "1.00×10¹⁸"),
        (10**400, "1.00×10⁴⁰⁰"),
        (0.0, "0"),
        (0.1, "0.1"),
        (9999.96, "10,000"),
        (999444.4, "999,444"),
        (999999.4, "999,999"),
        (999999.7, "1.00×10⁶"),
        (1234567.0, "1.23×10⁶"),
        (0.00099999, "0.001"),
        (0.000999, "9.99×10⁻⁴"),
        (5e-324, "4.94×10⁻³²⁴"),
        (-math.inf, "−∞"),
        (True, "yes"),
    ],
)
def test_numbers_are_written_with_four_digits(value, text):
    assert report.shown(value) == text


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("One. Two. Three.", ("One.", "Two. Three.")),
        ("Only 0.3 of it", ("Only 0.3 of it", "")),
        ("Is it? Yes!", ("Is it?", "Yes!")),
        ("A title\n\nand the rest", ("A title", "and the rest")),
        ("", ("", "")),
        (
            "Adam vs. SGD, i.e. Momentum. Third.",
            ("Adam vs. SGD, i.e. Momentum.", "Third."),
        ),
    ],
)
def test_first_sentence_ends_where_a_sentence_does(text, parts):
    assert report.first_sentence(text) == parts


def test_numbers_of_numpy_are_shown_as_those_of_python():
    for value in (1797, 1_234_567, 2.5, 1e-9, float("nan"), True):
        assert report.shown(np.asarray(value)[()]) == report.shown(value)
    table = runs.Table("t", ("a",), ((np.float64(2.5),), (np.int64(3),)))
    cells = [row[0] for row in report.sortable(table).rows]
    assert [cell.exact for cell in cells] == ["2.5", "3"]
    values = (np.longdouble(2.5), np.int8(-3), np.float16(0.5), 10**5000)
    exact = [report.cell(value, "").exact for value in values]
    assert [*map(float, exact[:3])] == [2.5, -3.0, 0.5]
    assert exact[3] == "1" + "0" * 5000
    truths = ((True, np.bool_(True)), (False, np.bool_(False)))
    assert report.sortable(runs.Table("t", ("a", "b"), truths)).numeric == (False,) * 2
    with pytest.raises(TypeError, match="value must be a number"):
        report.shown(np.complex64(1.0))
