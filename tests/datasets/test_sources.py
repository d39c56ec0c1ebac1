"""The table is complete, says nothing twice, and names no package index."""

import re

from research import datasets
from research.datasets import finding
from research.datasets.sources import SOURCES
from research.datasets.table import COLUMNS, table_rows

FILES = [(name, file) for name, source in SOURCES.items() for file in source.files]


def test_every_row_is_complete():
    for name, source in SOURCES.items():
        assert name == source.name
        assert all(
            (source.title, source.what, source.licence, source.source, source.citation)
        )
        assert all(
            callable(getattr(datasets, loader)) for loader in source.loader.split(", ")
        )
        assert bool(source.files) != (name in datasets.DATASETS)


def test_every_file_has_a_hash_a_size_and_a_way_here():
    for _, file in FILES:
        assert re.fullmatch("[0-9a-f]{64}", file.sha256)
        assert file.num_bytes > 1000
        assert bool(file.urls) != bool(file.wheel)
        assert file.hashed in ("file", "content", "wavs", "logs")
        assert (
            not file.wheel
            or file.name == f"{file.wheel.replace('==', '-')}-py3-none-any.whl"
        )
    assert len({file.sha256 for _, file in FILES}) == len(FILES)


def test_table_has_a_row_a_set():
    rows = table_rows()
    assert [row[0] for row in rows] == list(SOURCES)
    assert {len(row) for row in rows} == {len(COLUMNS)}


def test_every_loader_refuses_what_it_does_not_read():
    for name, source in SOURCES.items():
        for loader in source.loader.split(", "):
            assert finding.find_source(name, loader) is source
