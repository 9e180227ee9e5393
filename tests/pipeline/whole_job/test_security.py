"""Untrusted corpora: names are not paths, bytes cannot control a terminal, and credentials stay secret."""

import json
import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from small_job import words

from logitcask.schemas.cli import main

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:apache_beam")

SECRETS = ("hush-password", "hush-signature")


def documents(english: str) -> bytes:
    names = ["../../escape", "/etc/passwd", "\x1b[2J\x1b]0;mine\x07", "a\nb", *map(str, range(8))]
    lines = [json.dumps({"id": name, "text": english[i * 300 : i * 300 + 200]}) for i, name in enumerate(names)]
    return "\n".join([*lines, '{"id": "../bad", "text": 7}', "{bad \x1b[31m"]).encode()


@pytest.fixture
def server(english: str) -> Iterator[str]:
    """Serves a corpus to requests with the password; a file named `broken` fails."""
    data = documents(english)

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            known = self.headers.get("Authorization") == "Basic dXNlcjpodXNoLXBhc3N3b3Jk" and SECRETS[1] in self.path
            status = 500 if "broken" in self.path else 200 if known else 403
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("ETag", '"1"')
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Logs nothing."""

    served = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=served.serve_forever, daemon=True)
    thread.start()
    yield f"http://user:{SECRETS[0]}@127.0.0.1:{served.server_port}/NAME.jsonl?X-Signature={SECRETS[1]}"
    served.shutdown()
    served.server_close()
    thread.join()


@pytest.mark.slow
def test_credentials_of_a_corpus_are_in_no_file_and_no_message(
    server: str, tiny_teacher: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("aiohttp")
    out = tmp_path / "out"
    assert main(words(server.replace("NAME", "corpus"), tiny_teacher, out)) == 0
    assert main(["inspect", str(out)]) == 0
    assert main(words(server.replace("NAME", "broken"), tiny_teacher, tmp_path / "none")) == 1
    shown = capfd.readouterr()
    assert "12 annotated, 2 rejected" in shown.out
    assert "http://127.0.0.1" in shown.err
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(b"/corpus.jsonl" in path.read_bytes() for path in files)
    written = [path.read_bytes() for path in files] + [text.encode() for text in (shown.out, shown.err, caplog.text)]
    for secret in SECRETS:
        assert not any(secret.encode() in content for content in written)


@pytest.mark.slow
def test_names_from_a_corpus_are_not_paths_and_cannot_control_a_terminal(
    english: str, tiny_teacher: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    corpus, out = tmp_path / "corpus", tmp_path / "home" / "out"
    corpus.mkdir()
    (corpus / "a..\n\x1b[31mevil\x07.jsonl").write_bytes(documents(english))
    assert main(words(str(corpus), tiny_teacher, out)) == 0
    assert main(["inspect", str(out)]) == 0
    assert main(["verify", str(out)]) == 0
    assert {path.name for path in (tmp_path / "home").iterdir()} == {"out"}
    paths = [str(path.relative_to(out)) for path in out.rglob("*")]
    assert all(re.fullmatch(r"[\w./-]+", path) for path in paths), paths
    assert not any("evil" in path or "escape" in path for path in paths)
    shown = capfd.readouterr()
    assert "\x1b" not in shown.out + shown.err
    assert "12 annotated, 2 rejected" in shown.out


def test_an_error_that_quotes_a_name_cannot_control_a_terminal(
    tiny_teacher: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(words(f"{tmp_path}/\x1b[2Jnothing", tiny_teacher, tmp_path / "out")) == 1
    assert "\\x1b[2Jnothing: no file found" in capfd.readouterr().err


def test_an_unexpected_error_shows_its_trace_without_credentials(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(_: object) -> int:
        raise RuntimeError("GET https://user:hush@host/x?sig=hush")

    monkeypatch.setattr("logitcask.schemas.cli._dispatch", broken)
    assert main(["inspect", "x"]) == 1
    shown = capfd.readouterr().err
    assert "RuntimeError: GET https://host/x" in shown
    assert "hush@" not in shown
    assert "sig=hush" not in shown
