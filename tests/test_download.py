"""``scratchgen data get`` against a server that truncates, stalls, redirects and lies.

The server is on this machine's loopback address; nothing else is asked.
"""

import contextlib
import gzip
import hashlib
import http.server
import os
import random
import re
import threading
import time

import numpy as np
import pytest

from scratchgen import cli, data
from scratchgen.data import catalogue, download, folders, idx
from scratchgen.errors import UserError

NAME = "train-images-idx3-ubyte.gz"
SHAPES = {"train-images": (900, 10, 9), "train-labels": (900,), "t10k-images": (80, 10, 9),
          "t10k-labels": (80,)}


BOMB = gzip.compress(bytes(50_000_000))


class Server(http.server.ThreadingHTTPServer):
    """``files``: name -> bytes; ``asked``: (folder, name, Range header) of every request."""

    daemon_threads = True

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), Mirror)
        self.files, self.asked, self.ended = files, [], threading.Event()
        self.address = f"http://127.0.0.1:{self.server_address[1]}/"

    def handle_error(self, request, client_address):
        pass  # a client that hangs up is a part of the tests


class Mirror(http.server.BaseHTTPRequestHandler):
    """/good/ serves files, with ranges; each of the other folders goes wrong in its own way."""

    def do_GET(self):
        kind, name = self.path.strip("/").split("/")[-2:]
        wanted = self.headers.get("Range")
        self.server.asked.append((kind, name, wanted))
        content = self.server.files.get(name, b"")
        getattr(self, kind.replace("-", "_"))(content, wanted, name)

    def answer(self, status, content=b"", **headers):
        self.send_response(status)
        for key, value in {"Content_Length": len(content), **headers}.items():
            if value is not None:
                self.send_header(key.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(content)

    def good(self, content, wanted, name):
        if not wanted:
            return self.answer(200, content)
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
        if start >= len(content):
            return self.answer(416, Content_Range=f"bytes */{len(content)}")
        self.answer(206, content[start:],
                    Content_Range=f"bytes {start}-{len(content) - 1}/{len(content)}")

    def without_ranges(self, content, wanted, name):
        self.answer(200, content)

    def without_length(self, content, wanted, name):
        self.answer(200, content, Content_Length=None)

    def cut(self, content, wanted, name):
        self.answer(200, content[: len(content) // 2], Content_Length=len(content))

    def silently_cut(self, content, wanted, name):
        self.answer(200, content[: len(content) // 2])

    def understated(self, content, wanted, name):
        self.answer(200, content, Content_Length=len(content) // 2)

    def stall(self, content, wanted, name):
        self.answer(200, content[:300], Content_Length=len(content))
        self.wfile.flush()
        self.server.ended.wait(3)

    def mute(self, content, wanted, name):
        self.server.ended.wait(3)

    def trickle(self, content, wanted, name):
        self.answer(200, Content_Length=len(content))
        for i in range(0, len(content)):
            self.wfile.write(content[i : i + 1])
            if self.server.ended.wait(0.02):
                break

    def lies(self, content, wanted, name):
        self.answer(200, gzip.compress(b"something else entirely"))

    def random_bytes(self, content, wanted, name):
        self.answer(200, random.Random(0).randbytes(len(content)))

    def login_page(self, content, wanted, name):
        self.answer(200, b"<html>please log in</html>", Content_Type="text/html")

    def announces_too_much(self, content, wanted, name):
        self.answer(200, b"", Content_Length=10**15)

    def endless(self, content, wanted, name):
        self.answer(200, b"", Content_Length=None)
        with contextlib.suppress(OSError):
            for _ in range(1000):
                self.wfile.write(bytes(1 << 16))

    def bomb(self, content, wanted, name):
        self.answer(200, BOMB)

    def other_range(self, content, wanted, name):
        self.answer(206, content[5:], Content_Range=f"bytes 5-{len(content) - 1}/{len(content)}")

    def bad_length(self, content, wanted, name):
        self.answer(200, content, Content_Length="-12")

    def missing(self, content, wanted, name):
        self.answer(404)

    def broken(self, content, wanted, name):
        self.answer(503)

    def no_http(self, content, wanted, name):
        self.wfile.write(b"\x00\xff\r\n\r\n" * 10)

    def hangs_up(self, content, wanted, name):
        self.connection.close()

    def moved(self, content, wanted, name):
        self.answer(302, Location=f"/good/{name}")

    def round_and_round(self, content, wanted, name):
        self.answer(302, Location=f"/round-and-round/{name}")

    def to_a_file(self, content, wanted, name):
        self.answer(302, Location="file:///etc/hostname")

    def to_ftp(self, content, wanted, name):
        self.answer(302, Location="ftp://127.0.0.1/x")

    def log_message(self, *args):
        pass


@pytest.fixture(autouse=True)
def this_machine_alone(monkeypatch, tmp_path):
    monkeypatch.delenv("SCRATCHGEN_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(folders, "DEBIAN", {})
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "TIMEOUT", 0.4)


@pytest.fixture
def server(monkeypatch):
    """A server that has the four files of the set "small"."""
    random = np.random.default_rng(1)
    arrays = {role: random.integers(0, 256, shape, np.uint8) for role, shape in SHAPES.items()}
    server = Server({catalogue.published_name(role): gzip.compress(idx.encode(array), mtime=0)
                     for role, array in arrays.items()})
    monkeypatch.setitem(catalogue.SETS, "small", catalogue.ImageSet(
        name="small", train=900, test=80, image_shape=(10, 9), folders=("small",),
        sha256={r: hashlib.sha256(idx.encode(a)).hexdigest() for r, a in arrays.items()},
        mirrors=(server.address + "good/",)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.ended.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def folder(tmp_path):
    """Where the files of the set go."""
    return tmp_path / "cache" / "scratchgen" / "small"


def get(server, *kinds, **options):
    return data.get("small", mirrors=[f"{server.address}{kind}/" for kind in kinds], **options)


def assert_complete(folder, server):
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == server.files
    assert data.load("small").image_shape == (10, 9, 1)


# kind of server -> what is said of it
FAULTS = {
    "cut": r"ends after \d+ of \d+ bytes", "silently-cut": "cannot be decompressed",
    "understated": "cannot be decompressed", "stall": "timed out", "mute": "timed out",
    "trickle": "fewer than 1000 bytes a second", "lies": "another file .sha256",
    "random-bytes": "another file", "login-page": "another file", "endless": "sends more than the",
    "announces-too-much": "announces 1000000000000000 bytes", "bomb": "another file",
    "other-range": "another range of the file", "missing": "answers 404 Not Found",
    "broken": "answers 503", "no-http": "does not speak HTTP",
    "hangs-up": "Remote end closed|reset", "round-and-round": "answers 302",
    "to-a-file": "answers 302.*not allowed", "to-ftp": "unknown url type: ftp|answers 302",
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_faulty_server_alone_is_one_sentence(server, folder, kind):
    mine = folder / "train-labels-idx1-ubyte.gz"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"something of the user's")
    started = time.monotonic()
    with pytest.raises(UserError, match=FAULTS[kind]) as caught:
        get(server, kind)
    assert time.monotonic() - started < 5
    assert "\n" not in str(caught.value) and f"into {folder}" in str(caught.value)
    assert mine.read_bytes() == b"something of the user's"
    assert not (folder / NAME).exists()
    assert len(server.asked) <= 12


@pytest.mark.parametrize("kind", [*FAULTS, "without-ranges", "without-length", "moved",
                                  "bad-length"])
def test_the_next_mirror_makes_it_good(server, folder, kind):
    assert get(server, kind, "good") == folder
    assert_complete(folder, server)


def test_a_part_is_completed(server, folder):
    """Interrupted, killed or cut off: the next download asks for the rest alone."""
    content = server.files[NAME]
    folder.mkdir(parents=True)
    (folder / f".{NAME}.part").write_bytes(content[:1000])
    seen = []
    get(server, "good", report=lambda *row: seen.append(row))
    assert server.asked[0] == ("good", NAME, "bytes=1000-")
    assert [row[2] for row in seen if row[0] == NAME] == [len(content)] * len(
        [row for row in seen if row[0] == NAME])
    assert seen[0][1] > 1000
    assert_complete(folder, server)


def test_a_connection_cut_again_and_again_gets_through(server, folder):
    """Each attempt keeps what it has received."""
    for _ in range(3):
        with pytest.raises(UserError):
            get(server, "cut")
    part = folder / f".{NAME}.part"
    assert part.stat().st_size == len(server.files[NAME]) // 2
    get(server, "stall", "good")
    assert_complete(folder, server)


def test_an_interrupted_download_goes_on(server, folder):
    class Stop(Exception):
        pass

    def stop(file, done, total):
        raise Stop

    with pytest.raises(Stop):
        get(server, "good", report=stop)
    assert (folder / f".{NAME}.part").stat().st_size > 0 and not (folder / NAME).exists()
    get(server, "good")
    assert_complete(folder, server)


@pytest.mark.parametrize("size", [1, 1000, 10**6], ids=["shorter", "in the middle", "longer"])
@pytest.mark.parametrize("kind", ["good", "without-ranges", "without-length"])
def test_a_part_of_something_else_is_thrown_away(server, folder, kind, size):
    folder.mkdir(parents=True)
    (folder / f".{NAME}.part").write_bytes(b"x" * size)
    get(server, kind)
    assert_complete(folder, server)


def test_a_part_that_is_whole_needs_no_more(server, folder):
    """Killed between the last byte and the rename."""
    folder.mkdir(parents=True)
    (folder / f".{NAME}.part").write_bytes(server.files[NAME])
    get(server, "good")
    assert server.asked[0] == ("good", NAME, f"bytes={len(server.files[NAME])}-")
    assert [name for _, name, _ in server.asked].count(NAME) == 1
    assert_complete(folder, server)


def test_mirrors_with_other_compressions_of_the_same_file(server, folder):
    """The rest of one and the beginning of the other make no file: it is fetched anew."""
    raw = gzip.decompress(server.files[NAME])
    folder.mkdir(parents=True)
    (folder / f".{NAME}.part").write_bytes(gzip.compress(raw, 1, mtime=0)[:5000])
    get(server, "good")
    assert [wanted for _, name, wanted in server.asked if name == NAME] == ["bytes=5000-", None]
    assert_complete(folder, server)


def test_two_downloads_at_once(server, folder):
    fcntl = pytest.importorskip("fcntl")
    folder.mkdir(parents=True)
    with open(folder / f".{NAME}.part", "wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        other.write(b"half of")
        other.flush()
        get(server, "good")
    assert (folder / f".{NAME}.part").read_bytes() == b"half of"
    (folder / f".{NAME}.part").unlink()
    assert_complete(folder, server)


@pytest.mark.parametrize("where", ["write", "fsync", "replace", "mkdir"])
def test_a_full_disk(server, folder, monkeypatch, where):
    """Whichever call finds no room: one sentence, the user's file as it was, no part left."""
    mine = folder / NAME
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"something of the user's")

    def full(*args, **options):
        raise OSError(28, "No space left on device")

    if where == "write":
        monkeypatch.setattr(download, "_receive", full)
    elif where == "mkdir":
        monkeypatch.setattr(download.Path, "mkdir", full)
    else:
        monkeypatch.setattr(download.os, where, full)
    with pytest.raises(UserError, match="cannot write to the folder .*No space left.*--data-dir"):
        get(server, "good")
    monkeypatch.undo()
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {NAME: b"something of the user's"}


def test_addresses_that_are_no_http(server, folder, tmp_path):
    secret = tmp_path / "secret" / NAME
    secret.parent.mkdir()
    secret.write_bytes(server.files[NAME])
    with pytest.raises(UserError, match="unknown url type: file"):
        data.get("small", mirrors=[f"file://{secret.parent}/"])
    for wrong in ("", "no address/", "http://", "http://[/"):
        with pytest.raises(UserError, match="cannot download"):
            data.get("small", mirrors=[wrong])


def test_the_command(server, folder, capsys, tmp_path):
    assert cli.run(["data", "get", "small"]) == 0
    assert str(folder) in "".join(capsys.readouterr().out.split("\n"))
    assert_complete(folder, server)
    assert cli.run(["data", "verify", "small"]) == 0
    asked = len(server.asked)
    assert cli.run(["data", "get", "small"]) == 0 and len(server.asked) == asked
    capsys.readouterr()
    (tmp_path / "file").write_text("in the way")
    assert cli.run(["data", "get", "small", "--data-dir", str(tmp_path / "file")]) == 2
    assert re.fullmatch(r"scratchgen: cannot write to the folder [^\n]+\n", capsys.readouterr().err)


def test_the_command_offline(server, folder, capsys):
    """No server: one sentence that names the folder and the four files; exit status 2."""
    server.shutdown()
    server.server_close()
    assert cli.run(["data", "get", "small"]) == 2
    error = capsys.readouterr().err
    assert re.fullmatch(r"scratchgen: [^\n]+\n", error) and str(folder) in error
    assert "refused" in error and all(name in error for name in server.files)
    assert not os.listdir(folder)
