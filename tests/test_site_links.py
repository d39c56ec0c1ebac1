"""Laws of the check of the site: it sees a dead link and what would be fetched."""

import pytest

from docs import check_site

GOOD = {
    "index.html": '<h1 id="top">One</h1><a href="#top">up</a>'
    '<a href="a/b.html#two">b</a><link rel="stylesheet" href="_static/look.css">'
    '<link rel="canonical" href="https://x.y/">'
    '<a href="https://x.y/">elsewhere</a><a href="mailto:a@b.c">write</a>',
    "a/b.html": '<h2 id="two">Two</h2><a href="../index.html?q=1">home</a>'
    '<img src="p%20q.png">',
    "a/p q.png": "",
    "_static/look.css": "@import '../other.css'; a { background: url(p.png) }",
    "_static/template.html": '<a href="{{ nowhere }}">not a page</a>',
}


def faults(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return list(check_site.faults(folder))


def test_site_without_a_fault_passes(tmp_path):
    assert faults(tmp_path, GOOD) == []


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("index.html", "a/b.html#two", "a/c.html"),
        ("index.html", "a/b.html#two", "a/b.html#three"),
        ("index.html", 'href="#top"', 'href="#bottom"'),
        ("a/b.html", "p%20q.png", "q.png"),
        ("a/b.html", "p%20q.png", "https://x.y/q.png"),
        ("a/b.html", "<img src=", '<script src="//x.y/z.js"></script><img src='),
        ("index.html", 'rel="stylesheet" href="', 'rel="stylesheet" href="https://x/'),
        ("index.html", 'rel="canonical"', 'rel="preload"'),
        ("_static/look.css", "url(p.png)", "url('https://x.y/p.png')"),
        ("_static/look.css", "'../other.css'", '"//x.y/other.css"'),
    ],
)
def test_fault_is_seen(tmp_path, name, right, wrong):
    assert right in GOOD[name]
    changed = GOOD | {name: GOOD[name].replace(right, wrong)}
    found = faults(tmp_path, changed)
    assert len(found) >= 1
    assert all(fault.startswith(name) for fault in found)
