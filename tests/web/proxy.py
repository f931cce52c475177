"""A small reverse proxy that shows a page below a path, as nginx does."""

import contextlib
import http.client
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_OF_ONE_CONNECTION = {"connection", "keep-alive", "transfer-encoding"}


@contextlib.contextmanager
def proxied(port: int, path: str, strips: bool = True) -> Iterator[str]:
    """The address of a proxy that shows the server at a port below ``path``, and nothing else.

    Args:
        port: Of the server, on this machine.
        path: As ``/speech``.
        strips: Whether the server is asked without the path, as by nginx's ``proxy_pass`` with a
            slash at its end.
    """

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            """Print nothing."""

        def _forward(self) -> None:
            below = self.path.removeprefix(path)
            if below == self.path or below[:1] not in ("", "/", "?"):
                self.send_error(404, "another site")
                return
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            server = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
            with contextlib.closing(server), contextlib.suppress(ConnectionError):
                asked = (below if below.startswith("/") else f"/{below}") if strips else self.path
                server.request(self.command, asked, body, dict(self.headers))
                answer = server.getresponse()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in _OF_ONE_CONNECTION:
                        self.send_header(name, value)
                self.end_headers()
                while chunk := answer.read1():
                    self.wfile.write(chunk)
                    self.wfile.flush()

        do_GET = do_POST = do_HEAD = do_OPTIONS = _forward  # noqa: N815

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    proxy.daemon_threads = True
    thread = threading.Thread(target=proxy.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{proxy.server_port}{path}"
    finally:
        proxy.shutdown()
        thread.join()
        proxy.server_close()
