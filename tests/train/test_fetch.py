"""Checkpoints fetched from a server of the test, and taken from local files."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from rtchord.errors import UserError
from train.__main__ import main
from train.published import BTC
from train.teachers import fetch as fetching
from train.teachers.fetch import SOURCES, Source, default_path, fetch


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint of BTC's layout, random weights; one that lacks a tensor; and something else."""
    folder = tmp_path_factory.mktemp("shelf")
    tensors = BTC().state_dict()
    torch.save({"model": tensors, "mean": -6.0, "std": 3.0}, folder / "btc.pt")
    lacking = {name: tensor for name, tensor in tensors.items() if name != "output_layer.output_projection.bias"}
    torch.save({"model": lacking, "mean": -6.0, "std": 3.0}, folder / "lacking.pt")
    (folder / "page.html").write_text("<html>not here</html>")
    return folder


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        if self.path != "/short.pt":
            return super().do_GET()
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"only this")


@pytest.fixture(scope="module")
def server(shelf: Path) -> Iterator[str]:
    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(shelf)))
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}"
    http.shutdown()
    thread.join()
    http.server_close()


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_checkpoint_with_the_right_hash_is_put_in_its_place(server: str, shelf: Path, tmp_path: Path) -> None:
    source = Source("btc", f"{server}/btc.pt", digest(shelf / "btc.pt"))
    target = fetch(source, tmp_path / "new" / "btc.pt")
    assert target.read_bytes() == (shelf / "btc.pt").read_bytes()
    assert [path.name for path in target.parent.iterdir()] == ["btc.pt"]


def test_another_hash_explains_itself_and_leaves_what_was_there(server: str, shelf: Path, tmp_path: Path) -> None:
    (target := tmp_path / "btc.pt").write_text("before")
    found = digest(shelf / "btc.pt")
    with pytest.raises(UserError, match=f"has SHA-256 {found}, not {'0' * 64}, which a third party .*--sha256 {found}"):
        fetch(Source("btc", f"{server}/btc.pt", "0" * 64), target)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


def test_the_users_hash_counts_instead(server: str, shelf: Path, tmp_path: Path) -> None:
    source = Source("btc", f"{server}/btc.pt", "0" * 64)
    fetch(source, tmp_path / "btc.pt", digest(shelf / "btc.pt").upper())
    with pytest.raises(UserError, match="as you gave by --sha256"):
        fetch(source, tmp_path / "btc.pt", "1" * 64)
    with pytest.raises(UserError, match="is no SHA-256"):
        fetch(source, tmp_path / "btc.pt", "123")


def test_a_hash_that_nobody_published_is_told(
    server: str, shelf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch(Source("btc", f"{server}/btc.pt", None), tmp_path / "btc.pt")
    assert f"it is {digest(shelf / 'btc.pt')}" in capsys.readouterr().err


def test_another_layout_is_refused_by_its_first_different_tensor(server: str, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"/lacking.pt' does not have .*'output_layer.output_projection.bias' is missing"
    ):
        fetch(Source("btc", f"{server}/lacking.pt", None), tmp_path / "btc.pt")
    with pytest.raises(UserError, match=r"/page.html' is not read|/page.html' is no checkpoint"):
        fetch(Source("btc", f"{server}/page.html", None), tmp_path / "btc.pt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("page", "words"),
    [("/nowhere.pt", r"cannot fetch .*404.*--from PATH"), ("/short.pt", "broke off after 9 of 1000 bytes")],
)
def test_what_cannot_be_had_is_one_sentence(server: str, page: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        fetch(Source("btc", server + page, None), tmp_path / "btc.pt")
    assert not list(tmp_path.iterdir())


def test_the_command_takes_a_local_file(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fetching, "own_folder", lambda: tmp_path / "engines")
    local = ["fetch-teacher", "btc", "--from", str(shelf / "btc.pt")]
    with pytest.raises(SystemExit) as stopped:
        main(local)
    assert stopped.value.code == 2
    assert "third party" in capsys.readouterr().err
    assert main([*local, "--sha256", digest(shelf / "btc.pt")]) == 0
    assert capsys.readouterr().out == f"btc:{default_path('btc')}\n"
    assert default_path("btc").is_file()


def test_a_missing_local_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no checkpoint at .*gone"):
        fetch(SOURCES["btc"], tmp_path / "btc.pt", local=tmp_path / "gone")
