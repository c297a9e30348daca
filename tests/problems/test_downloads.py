"""Downloads from a server on this machine: resumed, verified, and never half a file under its name."""

from __future__ import annotations

import hashlib
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from elbograd.benchmarks.problems.datasets.catalogue import Download
from elbograd.benchmarks.problems.datasets.download import download
from elbograd.benchmarks.problems.datasets.getting import get_data, where_data_are
from elbograd.benchmarks.problems.datasets.images import images_of
from elbograd.estimators import UsageError
from filelock import FileLock
from small_data import SIZES, git_blob, images_like, shrink, write_idx, write_mat

CONTENT = np.random.RandomState(0).bytes(200_000)


class Server(ThreadingHTTPServer):
    """Serves ``files``; does to each request what ``faults`` says first: "cut", "no-range", "other-range", "wrong"."""

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.faults, self.ranges = files, [], []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        content = self.server.files.get(self.path.lstrip("/"))
        if content is None:
            self.send_error(404)
            return
        fault = self.server.faults.pop(0) if self.server.faults else ""
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        begin = 0 if asked is None or fault == "no-range" else int(re.match(r"bytes=(\d+)-$", asked)[1])
        if begin >= len(content):
            self.send_error(416)
            return
        body = bytes(len(content) - begin) if fault == "wrong" else content[begin:]
        self.send_response(206 if begin else 200)
        if begin:
            first = 0 if fault == "other-range" else begin
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        if fault != "no-length":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if fault == "cut" else body)

    def log_message(self, *_):
        pass


@contextmanager
def serving(files):
    server = Server(files)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def server():
    with serving({"file": CONTENT}) as running:
        yield running


def wanted(server, size=True, checksum=None, urls=None):
    sha256 = checksum or f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
    return Download(
        "file", urls or (f"{server.url}/file",), sha256, ("train",), len(CONTENT) if size else None
    )


def fails(file, path, match):
    with pytest.raises(UsageError, match=match) as caught:
        download(file, path)
    assert "\n" not in str(caught.value)
    assert "cannot download file: " in str(caught.value)
    assert not path.exists()


@pytest.mark.parametrize("size", [True, False])
def test_a_whole_file(size, server, tmp_path):
    told = []
    download(wanted(server, size), tmp_path / "file", lambda done, total: told.append((done, total)))
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in told] == sorted({done for done, _ in told})


@pytest.mark.parametrize("size", [True, False])
def test_it_goes_on_where_the_connection_ended(size, server, tmp_path):
    server.faults = ["cut"]
    fails(wanted(server, size), tmp_path / "file", "stopped after 100,000 of 200,000 bytes.*again to go on")
    assert (tmp_path / "file.part").read_bytes() == CONTENT[:100_000]
    download(wanted(server, size), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-"]
    assert not (tmp_path / "file.part").exists()


def test_another_server_goes_on(server, tmp_path):
    server.faults = ["cut"]
    download(wanted(server, urls=[f"{server.url}/file"] * 2), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-"]


def test_a_server_that_knows_no_ranges_begins_anew(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT[:70_000])
    server.faults = ["no-range"]
    download(wanted(server), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.ranges == ["bytes=70000-"]


def test_a_server_that_sends_another_range(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT[:70_000])
    server.faults = ["other-range"]
    fails(wanted(server), tmp_path / "file", "sends another part of the file than it was asked for")
    assert (tmp_path / "file.part").read_bytes() == CONTENT[:70_000]


def test_a_server_that_does_not_say_how_much_it_sends(server, tmp_path):
    server.faults = ["no-length"]
    download(wanted(server, size=False), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_another_file_is_removed(server, tmp_path):
    server.faults = ["wrong"]
    fails(
        wanted(server), tmp_path / "file", "sends another file, of checksum sha256:[0-9a-f]{64} for sha256:"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [True, False])
@pytest.mark.parametrize("left", [b"of another file", CONTENT + b"and more", bytes(len(CONTENT))])
def test_what_was_left_of_another_file(left, size, server, tmp_path):
    """It is gone on from once, and then done without."""
    (tmp_path / "file.part").write_bytes(left)
    download(wanted(server, size), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.ranges[-1] is None


@pytest.mark.parametrize("size", [True, False])
def test_killed_between_the_last_byte_and_the_name(size, server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT)
    download(wanted(server, size), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.ranges == ([] if size else [f"bytes={len(CONTENT)}-"])


def test_servers_that_do_not_answer(server, tmp_path):
    missing = f"{server.url}/nothing"
    fails(wanted(server, urls=[missing]), tmp_path / "file", f"{missing} answers 404 Not Found")
    with serving({}) as gone:
        url = f"{gone.url}/file"
    fails(wanted(server, urls=[url]), tmp_path / "file", f"{url} cannot be reached \\(Connection refused\\)")
    unknown = "http://no-such-host.invalid/file"
    fails(wanted(server, urls=[unknown]), tmp_path / "file", f"{unknown} cannot be reached \\(")
    assert list(tmp_path.iterdir()) == []
    download(wanted(server, urls=[missing, url, f"{server.url}/file"]), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.fixture
def remote_mnist(tmp_path, monkeypatch):
    """A small MNIST on a server, and an empty data folder."""
    write_idx(tmp_path / "remote", "mnist")
    files = {path.name: path.read_bytes() for path in (tmp_path / "remote").iterdir()}
    monkeypatch.setenv("ELBOGRAD_DATA", str(tmp_path / "data"))
    with serving(files) as server:
        downloads = [
            Download(
                name, (f"{server.url}/{name}",), f"sha256:{hashlib.sha256(content).hexdigest()}", (split,)
            )
            for split, (name, content) in zip(SIZES, sorted(files.items(), reverse=True), strict=True)
        ]
        shrink(monkeypatch, "mnist", downloads)
        yield server


def test_getting_a_data_set_from_the_command_line(remote_mnist, tmp_path, elbograd):
    assert "not there: elbograd data get mnist" in elbograd("data", "list")[1]
    code, out, err = elbograd("data", "get", "mnist")
    assert (code, err) == (0, "")
    folder = tmp_path / "data/mnist"
    assert out.startswith(f"mnist is there; wrote {folder}/train-images-idx3-ubyte.gz; wrote {folder}/t10k")
    assert f"9 to train with, 3 to validate, 5 to test; there, in {folder}" in elbograd("data", "list")[1]
    assert np.array_equal(images_of("mnist")["train"].numpy(), images_like("mnist", "train").reshape(-1, 784))
    assert elbograd("data", "get", "mnist", "digits")[:2] == (0, "mnist is there\ndigits is there\n")
    assert len(remote_mnist.ranges) == 2


def test_only_what_is_missing_is_downloaded(remote_mnist, tmp_path):
    write_idx(tmp_path / "data/MNIST/raw", "mnist", compress=False)
    (tmp_path / "data/MNIST/raw/t10k-images-idx3-ubyte").unlink()
    assert [path.name for path in get_data("mnist")] == ["t10k-images-idx3-ubyte.gz"]


def test_what_was_there_and_is_damaged_is_told_and_kept(remote_mnist, tmp_path, elbograd):
    get_data("mnist")
    file = tmp_path / "data/mnist/train-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-100])
    shrink_again = (tmp_path / "data/mnist/train-images-idx3-ubyte.gz").read_bytes()
    code, _, err = elbograd("data", "get", "mnist")
    assert (code, err.count("\n")) == (2, 1)
    assert f"{file} is damaged" in err
    assert file.read_bytes() == shrink_again


def test_no_network_and_no_folder_are_one_line(remote_mnist, tmp_path, monkeypatch, elbograd):
    remote_mnist.files.clear()
    code, _, err = elbograd("data", "get", "mnist")
    assert (code, err.count("\n")) == (2, 1)
    assert "answers 404" in err
    assert f"put the file into {tmp_path}/data/mnist yourself" in err
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("ELBOGRAD_DATA", str(tmp_path / "file"))
    code, _, err = elbograd("data", "get", "mnist")
    assert (code, err.count("\n")) == (2, 1)
    assert "cannot write to" in err
    assert "name another folder by ELBOGRAD_DATA" in err


def test_one_process_at_a_time(remote_mnist, tmp_path):
    (tmp_path / "data/mnist").mkdir(parents=True)
    with (
        FileLock(tmp_path / "data/mnist/.lock"),
        pytest.raises(UsageError, match="another process downloads to"),
    ):
        get_data("mnist")


@pytest.mark.parametrize("arguments", [["get", "cifar"], ["get", "mnist", "cifar"], ["get"], ["put"]])
def test_the_command_misused(arguments, remote_mnist, elbograd):
    code, _, err = elbograd("data", *arguments)
    assert (code, err.count("\n")) == (2, 1)
    assert remote_mnist.ranges == []


def test_omniglot_by_the_name_of_a_blob(tmp_path, monkeypatch):
    write_mat(tmp_path / "remote")
    content = (tmp_path / "remote/chardata.mat").read_bytes()
    monkeypatch.setenv("ELBOGRAD_DATA", str(tmp_path / "data"))
    with serving({"chardata.mat": content}) as server:
        url = f"{server.url}/chardata.mat"
        shrink(
            monkeypatch, "omniglot", [Download("chardata.mat", (url,), git_blob(content), ("train", "test"))]
        )
        assert get_data("omniglot") == [tmp_path / "data/omniglot/chardata.mat"]
    assert len(images_of("omniglot")["test"]) == SIZES["test"]
    assert where_data_are()["omniglot"].endswith(f"there, in {tmp_path}/data/omniglot")
