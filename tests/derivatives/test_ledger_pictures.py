"""Laws of a ledger's text, picture and notebook view: whole, self-contained, escaped,
and no box on another.
"""

import json
import re
import xml.etree.ElementTree as ET

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.derivatives import explain
from research.derivatives.ledger import graph

COMPILE_QUICKLY = True  # tests/conftest.py

SVG = "{http://www.w3.org/2000/svg}"
TAGS = {"svg", "title", "desc", "rect", "g", "path", "text"}


def neuron(w, b, x, y):
    return (jax.nn.sigmoid(w @ x + b) - y) ** 2


@jax.jit
def layer(x, w):
    return jnp.tanh(w @ x) + jnp.sin(x)


def deep(w):
    x = jnp.ones(3)
    for _ in range(40):
        x = layer(x, w)
    return jnp.sum(x)


def flat(x):
    for _ in range(100):
        x = jnp.sin(x) + 1.0
    return x


@jax.custom_vjp
def product(x, y):
    return jnp.sin(x) * y


product.defvjp(
    lambda x, y: (jnp.sin(x) * y, (x, y)),
    lambda kept, d: (d * jnp.cos(kept[0]) * kept[1], d * jnp.sin(kept[0])),
)


def own(x):
    return product(jax.nn.relu(x), x) * jax.nn.softplus(x)


LEDGERS = {
    "neuron": (neuron, (jnp.array([0.5, -0.25]), 0.1, jnp.array([1.0, 2.0]), 1.0)),
    "deep": (deep, (0.1 * jnp.eye(3),)),
    "flat": (flat, (0.5,)),
    "own rules": (own, (0.4,)),
    "escaped": (lambda p: p["<b>&\"'"] ** 2, ({"<b>&\"'": 2.0},)),
    "no equations": (lambda x: x, (1.0,)),
    "constant": (lambda x: 2.0, (1.0,)),
    "forward alone": (
        lambda x: jax.lax.while_loop(lambda c: c < 9, lambda c: c * 2, x),
        (1.0,),
    ),
}


@pytest.fixture(scope="module")
def ledgers():
    return {name: explain(f, *args) for name, (f, args) in LEDGERS.items()}


@pytest.fixture(scope="module")
def pictures(ledgers):
    return {name: ledger.svg() for name, ledger in ledgers.items()}


def texts(svg):
    return ["".join(node.itertext()) for node in ET.fromstring(svg).iter(f"{SVG}text")]


@pytest.mark.parametrize("name", LEDGERS)
def test_picture_is_one_xml_file_with_nothing_from_outside(name, pictures):
    root = ET.fromstring(pictures[name])
    assert {node.tag.removeprefix(SVG) for node in root.iter()} <= TAGS
    outside = pictures[name].replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not re.search(r"http|url\(|@import|@font-face|href|<script", outside)
    # Inkscape, LaTeX and PowerPoint know no CSS variables: all would be black.
    assert "style" not in pictures[name]
    assert "var(" not in pictures[name]
    for node in root.iter():
        if node.tag.removeprefix(SVG) in ("rect", "path", "text"):
            assert re.fullmatch("#[0-9a-f]{6}|none", node.get("fill"))
        if node.tag.removeprefix(SVG) == "path":
            assert re.fullmatch("#[0-9a-f]{6}", node.get("stroke"))


@pytest.mark.parametrize("name", LEDGERS)
def test_picture_can_be_read_aloud(name, pictures, ledgers):
    root = ET.fromstring(pictures[name])
    assert root.get("role") == "img"
    ids = {
        node.get("id"): "".join(node.itertext())
        for node in (root.find(f"{SVG}title"), root.find(f"{SVG}desc"))
    }
    assert list(ids) == root.get("aria-labelledby").split()
    assert ids[list(ids)[1]].startswith(ledgers[name].text().partition("\n")[0])


def test_neuron_shows_values_adjoints_locals_and_contributions(pictures):
    shown = texts(pictures["neuron"])
    for text in (
        "v1 = w @ x",
        "adjoint -0.2369",
        "v3 = σ(v2)",
        "0.525",
        "× 0.2494",
        "+ -0.2369",
        "v5 = v4²",
        "adjoint 1",
    ):
        assert text in shown


@pytest.mark.parametrize("name", LEDGERS)
def test_no_box_lies_on_another_or_leaves_the_picture(name, ledgers):
    _, placed = ledgers[name].drawing()
    low, high = placed.centres - placed.sizes / 2, placed.centres + placed.sizes / 2
    assert low.min() >= 0
    assert (high <= [placed.width, placed.height]).all()
    for i in range(len(low)):
        apart = (low[i] >= high + 20).any(axis=1) | (high[i] + 20 <= low).any(axis=1)
        assert apart[np.arange(len(low)) != i].all()


@pytest.mark.parametrize("name", LEDGERS)
def test_edges_go_down_from_box_to_box(name, ledgers):
    drawn, placed = ledgers[name].drawing()
    for edge, way in zip(drawn.edges, placed.ways, strict=True):
        assert (np.diff(way[:, 1]) >= 0).all()
        np.testing.assert_allclose(
            way[0], placed.centres[edge.start] + [0, placed.sizes[edge.start, 1] / 2]
        )
        np.testing.assert_allclose(
            way[-1], placed.centres[edge.end] - [0, placed.sizes[edge.end, 1] / 2]
        )


@pytest.mark.parametrize("name", LEDGERS)
def test_no_label_hides_another(name, ledgers):
    drawn, placed = ledgers[name].drawing()
    labels = [(edge.local, edge.contribution) for edge in drawn.edges]
    widths = 6.0 * np.array([max(map(len, label)) for label in labels])
    for i, (x, y) in enumerate(placed.labels):
        for j, (other, height) in enumerate(placed.labels[:i]):
            if widths[i] and widths[j]:
                assert (
                    abs(height - y) > 26
                    or abs(other - x) >= (widths[i] + widths[j]) / 2
                )


def test_drawing_without_constants_keeps_what_an_adjoint_reaches(ledgers):
    whole, part = (
        ledgers["own rules"].drawing(constants=constants)[0]
        for constants in (True, False)
    )
    assert {node.kind for node in part.nodes} == {node.kind for node in whole.nodes} - {
        "constant"
    }
    assert {node.title for node in part.nodes} == {
        node.title for node in whole.nodes if node.kind != "constant"
    }


@pytest.mark.parametrize(("name", "rows"), [("deep", 161), ("flat", 200)])
def test_large_graph_is_folded_and_no_row_is_lost(name, rows, ledgers):
    drawn = graph.make_graph(ledgers[name])
    boxes = [node for node in drawn.nodes if node.kind != "input"]
    assert len(ledgers[name].rows) == rows
    assert len(boxes) <= 60
    counts = [
        int(found[1]) if (found := re.search(r": (\d+) rows$", node.title)) else 1
        for node in boxes
    ]
    assert sum(counts) == rows


def test_folds_are_the_calls_of_the_program(ledgers):
    titles = [node.title for node in graph.make_graph(ledgers["deep"]).nodes]
    assert titles.count("layer: 4 rows") == 40


def test_contributions_in_the_picture_add_up_to_the_adjoint(ledgers):
    drawn = graph.make_graph(ledgers["own rules"])
    for place, node in enumerate(drawn.nodes):
        shares = [
            float(e.contribution.removeprefix("+ "))
            for e in drawn.edges
            if e.start == place and e.contribution
        ]
        if shares and node.adjoint:
            assert sum(shares) == pytest.approx(float(node.adjoint), abs=2e-3)
    assert {edge.local for edge in drawn.edges if edge.kind == "rule"} == {
        f"rule of {n}" for n in ("relu", "product", "logaddexp")
    }


@jax.jit
def pair(x):
    return jnp.sin(x), jnp.cos(x)


def test_contributions_to_different_values_of_a_fold_are_not_added():
    def f(x):
        for _ in range(3):
            a, b = pair(x)
            x = a * b
        return x

    drawn = graph.make_graph(explain(f, 0.5), largest=6)
    folds = [
        place for place, node in enumerate(drawn.nodes) if node.title == "pair: 2 rows"
    ]
    assert len(folds) == 3
    assert [edge.contribution for edge in drawn.edges if edge.start in folds] == [
        ""
    ] * 3
    assert all(edge.contribution for edge in drawn.edges if edge.end in folds)


def test_names_are_escaped(pictures, ledgers):
    assert "<b>" not in pictures["escaped"]
    assert "<b>&" not in ledgers["escaped"]._repr_html_()
    assert any("<b>&" in text for text in texts(pictures["escaped"]))


def test_same_function_gives_the_same_bytes(pictures):
    f, args = LEDGERS["own rules"]
    assert explain(f, *args).svg() == pictures["own rules"]


def test_text_answers_first_and_has_a_line_for_each_contribution(ledgers):
    lines = ledgers["neuron"].text().splitlines()
    assert (
        lines[0]
        == "neuron = 0.2256 at w = [0.5, -0.25], b = 0.1, x = [1, 2], y = 1; its"
        " gradient is [-0.2369, -0.4738] by w, -0.2369 by b, [-0.1185, 0.05923] by "
        "x, 0.95 by y."
    )
    assert lines[2].split() == [
        "row",
        "equation",
        "value",
        "adjoint",
        "passes",
        "on",
        "rule",
        "line",
    ]
    assert len(lines) == 4 + sum(
        sum(share is not None for share in row.contributions)
        for row in ledgers["neuron"].rows
    )
    assert re.search(
        r"^v3 +σ\(v2\) +0\.525 +-0\.95 +v2: × 0\.2494 → -0\.2369 +dσ\(a\) = σ\(a\) \(1 "
        r"- σ\(a\)\) da ",
        lines[8],
    )
    assert repr(ledgers["neuron"]) == ledgers["neuron"].text()


def test_text_names_scopes_and_own_rules(ledgers):
    text = ledgers["own rules"].text()
    for part in (
        "[product]",
        "[rule of product]",
        "x: rule of product → ",
        "[own itself]",
        "[softplus / rule of logaddexp]",
    ):
        assert part in text


def test_text_shortens_arrays():
    text = explain(lambda w: jnp.sum(w**2), jnp.arange(1.0, 13.0).reshape(3, 4)).text()
    assert "[1, 4, … 144] 3×4" in text
    assert max(map(len, text.splitlines())) < 200


@pytest.mark.parametrize("name", LEDGERS)
def test_notebook_shows_answer_picture_and_every_row(name, ledgers, pictures):
    page = ledgers[name]._repr_html_()
    assert "prefers-color-scheme:dark" in page
    assert pictures[name] in re.sub("<style>.*</style>\n", "", page)
    body = re.search(r"<tbody>.*</tbody>", page, re.DOTALL)[0]
    root = ET.fromstring(body)
    assert len([row for row in root if row[0].text]) == len(ledgers[name].rows)
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")


@pytest.fixture(scope="module")
def pages(ledgers):
    return {name: ledger.html() for name, ledger in ledgers.items()}


def data_of(page):
    return json.loads(re.search(r'id="ledger">(.*?)</script>', page, re.DOTALL)[1])


@pytest.mark.thorough("the other functions", but="neuron|escaped")
@pytest.mark.parametrize("name", ["neuron", "deep", "flat", "own rules", "escaped"])
def test_page_has_every_digit_of_the_gradient(name, pages, ledgers):
    f, args = LEDGERS[name]
    places = tuple(range(len(args)))
    grads = jax.tree.leaves(jax.grad(f, places)(*args))
    ours = jax.tree.leaves(ledgers[name].grads)
    values = data_of(pages[name])["values"][: len(grads)]
    for found, own, theirs in zip(values, ours, grads, strict=True):
        np.testing.assert_array_equal(np.array(found["adjoint"]), own)
        # JAX may add the contributions in another order.
        np.testing.assert_allclose(own, theirs, rtol=1e-14)


@pytest.mark.parametrize("name", LEDGERS)
def test_page_lists_what_flows_into_each_adjoint(name, pages, ledgers):
    ledger, data = ledgers[name], data_of(pages[name])
    first = len(ledger.inputs)
    assert len(data["values"]) == first + len(ledger.rows)
    parts = [
        (name, number)
        for number, row in enumerate(ledger.rows, first)
        for name, share in zip(row.inputs, row.contributions, strict=True)
        if share is not None
    ]
    for number, value in enumerate(data["values"]):
        names = (
            [list(ledger.inputs)[number]]
            if number < first
            else ledger.rows[number - first].name.split(", ")
        )
        readers = [reader for read, reader in parts if read in names]
        found = [
            part["from"] for part in value["parts"] if "rule of" not in part["text"]
        ]
        assert sorted(found) == sorted(readers)
        for node in value["nodes"]:
            assert 0 <= node < len(data["nodes"])


@pytest.mark.parametrize("name", LEDGERS)
def test_page_is_one_file_in_which_every_row_and_box_has_a_place(name, pages, ledgers):
    page = pages[name]
    outside = page.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"http|url\(|@import|src=|href", outside)
    assert page.count("</script>") == 2
    places = sorted(map(int, re.findall(r'data-value="([0-9]+)" tabindex="0"', page)))
    assert places == list(range(len(ledgers[name].inputs) + len(ledgers[name].rows)))
    boxes = re.findall(r'data-node="([0-9]+)" tabindex="0"', page)
    assert len(boxes) == len(data_of(page)["nodes"])
    assert "<b>&" not in page


def test_page_of_a_hostile_name_runs_nothing():
    name = "</script><script>alert(1)</script><!--"
    page = explain(lambda p: p[name] ** 2, {name: 2.0}).html()
    assert page.count("<script") == 2
    assert "<!--" not in page


def test_page_names_an_input_in_full():
    page = explain(lambda p: p["learning rate"] ** 2, {"learning rate": 2.0}).html()
    first = data_of(page)["values"][0]
    assert first["sum"] == "adjoint of p['learning rate'] = 4, the sum of:"


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_norm_in_a_box_scales_with_the_array(scale):
    assert graph.brief(scale * np.array([2.0, 3.0, 6.0])) == f"3 ‖{7 * scale:.3g}‖"


def masked_root(x):
    return jnp.sum(jnp.where(x > 0, jnp.sqrt(x), 0.0))


@pytest.mark.parametrize(
    ("f", "x", "edges", "boxes"),
    [
        # The values are finite; the derivative of the root at 0 is not.
        (masked_root, [1.0, 0.0], ["+ [0.5, nan]"], 0),
        # The logarithm is not finite, and its reader is no second birth.
        (lambda x: jnp.sum(jnp.log(x) * 2), [1.0, 0.0], [], 1),
        (lambda x: jnp.sum(jnp.sin(x)), [1.0, 0.0], [], 0),
    ],
)
def test_the_place_where_a_nan_arises_has_the_thick_border(f, x, edges, boxes):
    ledger = explain(f, jnp.array(x))
    svg = ledger.svg()
    drawn, _ = ledger.drawing()
    assert svg.count('birth" d=') == len(edges)
    assert svg.count('stroke-width="3.5"') == len(edges) + boxes
    found = [e.contribution for e in drawn.edges if "nan" in e.contribution]
    assert found[: len(edges)] == edges
