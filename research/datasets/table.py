"""The table of data sets as text, for the terminal and the documentation."""

from research.datasets.sources import SOURCES, Source

COLUMNS = (
    "name",
    "contents",
    "read it with",
    "download",
    "licence",
    "from",
    "cite",
)


def size_in_words(source: Source) -> str:
    """Return a data set's download size in MB, or "none" if there is no download.

    Example:
      >>> size_in_words(SOURCES["fashion_mnist"]), size_in_words(SOURCES["iris"])
      ('31 MB', 'none')
    """
    num_bytes = sum(file.num_bytes for file in source.files)
    if not num_bytes:
        return "none"
    return (
        f"{num_bytes / 1e6:,.0f} MB"
        if num_bytes >= 1e7
        else f"{num_bytes / 1e6:.1f} MB"
    )


def call_in_words(source: Source) -> str:
    """Return the code that loads a data set.

    If several functions can load the data set, the text has a call of each of them.

    Example:
      >>> call_in_words(SOURCES["digits"]), call_in_words(SOURCES["spoken_digits"])
      ('load("digits"), images("digits")', 'recordings()')
    """
    named = ("load", "images", "text")
    loaders = source.loader.split(", ")
    return ", ".join(
        f'{loader}("{source.name}")' if loader in named else f"{loader}()"
        for loader in loaders
    )


def table_rows() -> list[tuple[str, ...]]:
    """Return the rows of the table that lists the data sets of this package.

    Each row is a tuple of seven texts: name, contents, call that loads the data, size
    of the download, licence, origin, and publication to cite.

    Example:
      >>> [row[0] for row in table_rows() if row[0].endswith("mnist")]
      ['fashion_mnist', 'mnist']
    """
    return [
        (
            source.name,
            f"{source.title}: {source.what}",
            call_in_words(source),
            size_in_words(source),
            source.licence,
            source.source,
            source.citation,
        )
        for source in SOURCES.values()
    ]
