"""No test here needs a network or real data: the cache is an empty folder, and files
are made up.
"""

import hashlib

import pooch
import pytest

from research.datasets.sources import SOURCES, File


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The cache folder, empty; no folder of the user's; a pip without any index."""
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    monkeypatch.setenv(
        "DESCENT_DATA", ""
    )  # Which is to have none; and whatever sets it is undone.
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "cache" / "descent"


@pytest.fixture
def given(tmp_path, monkeypatch):
    """A folder of the user's."""
    folder = tmp_path / "given"
    folder.mkdir()
    monkeypatch.setenv("DESCENT_DATA", str(folder))
    return folder


@pytest.fixture
def pretend(monkeypatch):
    """(name, {file name: content}, **more) -> a row of the table whose files are these;
    nothing of the system's.
    """

    def put(name, contents, **more):
        files = tuple(
            File(file, len(content), hashlib.sha256(content).hexdigest(), **more)
            for file, content in contents.items()
        )
        source = SOURCES[name]._replace(files=files, system="")
        monkeypatch.setitem(SOURCES, name, source)
        return source

    return put
