"""A small HTTP server over a folder that counts what is fetched and can be told to misbehave."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Web:
    """The served folder. `refuse`: names answered with 503. `cut`: names whose body ends half way.
    `fetched`: GET requests per name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.refuse: set[str] = set()
        self.cut: set[str] = set()
        self.fetched: Counter[str] = Counter()
        self.url = ""


@contextmanager
def serving(folder: Path) -> Iterator[Web]:
    """Serve `folder` on loopback."""
    web = Web(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            web.fetched[self.path.lstrip("/")] += 1
            self._answer(body=True)

        def _answer(self, body: bool) -> None:
            name = self.path.lstrip("/")
            path = web.folder / name
            if name in web.refuse:
                self.send_error(503)
                return
            if not path.is_file():
                self.send_error(404)
                return
            data = path.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("ETag", f'"{len(data)}"')
            self.end_headers()
            if body:
                self.wfile.write(data[: len(data) // 2] if name in web.cut else data)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    with answering(Handler) as port:
        web.url = f"http://127.0.0.1:{port}"
        yield web


@contextmanager
def answering(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    """The port on loopback where a handler answers."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    # Looks every 0.02 s whether it is to end: the default of 0.5 s would be most of a short test.
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
