"""A Sphinx extension: an address source:PATH#L12 leads to a copy of the file.

`docs/make_site.py` writes these addresses, and puts the copies into the site.
"""

from typing import Any

from docutils import nodes

SCHEME = "source:"
FOLDER = "source"  # Of the site.


def resolve(app: Any, doctree: nodes.document, page: str) -> None:
    """Replace each source address of a page by the relative address of the copy."""
    up = "../" * page.count("/")
    for reference in doctree.findall(nodes.reference):
        address = reference.get("refuri", "")
        if address.startswith(SCHEME):
            path, _, line = address.removeprefix(SCHEME).partition("#")
            anchor = (
                f"#{line.replace('L', 'L-')}" if line else ""
            )  # As Pygments has it.
            reference["refuri"] = f"{up}{FOLDER}/{path}.html{anchor}"
            reference["classes"] = ["source"]


def setup(app: Any) -> dict[str, bool]:
    """Register the replacement."""
    app.connect("doctree-resolved", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
