"""An S3 server for tests, and a proxy in front of it that fails as networks and stores do. Both on this machine."""

import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Literal

Fault = Literal["500", "503", "hang", "drop", "truncate"]
# A request, as "METHOD path", and how many of its kind came before → what goes wrong with it, if anything.
Plan = Callable[[str, int], Fault | None]

SECRETS = {"AWS_ACCESS_KEY_ID": "key-of-tests", "AWS_SECRET_ACCESS_KEY": "hush-hush"}


@contextmanager
def s3_server() -> Iterator[str]:
    """The address of a moto server in a process of its own."""
    port = _free_port()
    words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for_listener(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(timeout=30)


def environment(endpoint: str) -> dict[str, str]:
    """What makes s3fs talk to `endpoint`, with one try of botocore's so that only s3fs's are counted."""
    settings = {"AWS_ENDPOINT_URL": endpoint, "AWS_DEFAULT_REGION": "us-east-1", "AWS_MAX_ATTEMPTS": "1"}
    return {**os.environ, **SECRETS, **settings}


@contextmanager
def failing_proxy(target: str, plan: Plan) -> Iterator[str]:
    """The address of a proxy to `target` that lets requests fail by plan."""
    seen: dict[str, int] = {}

    class Handler(_ProxyHandler):
        host = target.removeprefix("http://")

        def fault(self) -> Fault | None:
            request = f"{self.command} {self.path}"
            seen[request] = seen.get(request, 0) + 1
            return plan(request, seen[request] - 1)

    server = _Server(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that give up are what is tested here."""


class _ProxyHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    host: str

    def fault(self) -> Fault | None:
        raise NotImplementedError

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.fault()
        if fault in ("500", "503"):
            self._answer(int(fault), {}, b"<Error><Code>%s</Code></Error>" % _CODES[fault])
        elif fault == "hang":
            time.sleep(HANG_SECONDS)
            self.close_connection = True
        elif fault == "drop":
            self._drop()
        else:
            status, headers, answer = self._ask(body)
            if fault == "truncate" and len(answer) > 1:
                self._answer(status, headers, answer[: len(answer) // 2], len(answer))
                self._drop()
            else:
                self._answer(status, headers, answer)

    def _ask(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.host, timeout=60)
        connection.request(self.command, self.path, body, dict(self.headers))
        response = connection.getresponse()
        answer = response.read()
        skipped = ("connection", "transfer-encoding", "content-length", "server", "date")
        headers = {name: value for name, value in response.getheaders() if name.lower() not in skipped}
        if self.command == "HEAD":
            headers["Content-Length"] = response.getheader("Content-Length", "0")
        connection.close()
        return response.status, headers, answer

    def _answer(self, status: int, headers: dict[str, str], body: bytes, length: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def _drop(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _pass_on  # noqa: N815 - names of the standard library


_CODES = {"500": b"InternalError", "503": b"SlowDown"}
HANG_SECONDS = 3.0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_for_listener(port: int, limit_seconds: float = 60.0) -> None:
    deadline = time.monotonic() + limit_seconds
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < deadline, "the server does not answer"
        time.sleep(0.05)
