"""Check a built site: every link inside it leads somewhere, and it needs no network."""

import re
import sys
import urllib.parse
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

# What a browser fetches by itself when it shows a page: (tag, attribute).
FETCHED = {
    ("script", "src"),
    ("link", "href"),
    ("img", "src"),
    ("iframe", "src"),
    ("source", "src"),
    ("source", "srcset"),
    ("video", "src"),
    ("object", "data"),
    ("image", "href"),
}
# Links of pages that name a page and are not fetched.
NAMED = {"canonical", "next", "prev", "search", "index", "author", "genindex"}


class Page(HTMLParser):
    """The links, resources and anchors of one page of HTML."""

    def __init__(self, text: str):
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the addresses of a tag."""
        values = dict(attrs)
        self.anchors |= {values[key] or "" for key in ("id", "name") if key in values}
        is_named = tag == "link" and {*(values.get("rel") or "").split()} & NAMED
        for key, value in values.items():
            if (tag, key) in FETCHED and value and not is_named:
                self.fetched.append(value)
            if (tag, key) in {*FETCHED, ("a", "href")} and value:
                self.links.append(value)


def faults(site: Path) -> Iterator[str]:
    """Say what is wrong with the pages of a site, one line for each fault.

    Args:
      site: Folder of the built site.
    """
    pages = {
        path: Page(path.read_text("utf-8"))
        for path in site.rglob("*.html")
        if path.relative_to(site).parts[0] != "_static"  # The theme's templates.
    }
    for path, page in sorted(pages.items()):
        name = path.relative_to(site)
        yield from (
            f"{name} fetches {address} from the network"
            for address in page.fetched
            if address.startswith(("http:", "https:", "//"))
        )
        for address in page.links:
            if not leads_somewhere(path, address, pages):
                yield f"{name} links to {address}, which is not there"
    for path in sorted(site.rglob("*.css")):
        text = path.read_text("utf-8")
        if re.search(r"""(?:url\(|@import)\s*["']?\s*(?:https?:)?//""", text):
            yield f"{path.relative_to(site)} fetches from the network"


def leads_somewhere(path: Path, address: str, pages: dict[Path, Page]) -> bool:
    """Return whether an address of a page is another site, or a place in this one."""
    parts = urllib.parse.urlsplit(address)
    if parts.scheme or parts.netloc:
        return True
    file = path
    if parts.path:
        file = (path.parent / urllib.parse.unquote(parts.path)).resolve()
    if not file.is_file():
        return False
    anchor = urllib.parse.unquote(parts.fragment)
    return not anchor or file not in pages or anchor in pages[file].anchors


if __name__ == "__main__":
    found = list(faults(Path(sys.argv[1]).resolve()))
    print(*found, sep="\n")
    sys.exit(min(len(found), 1))
