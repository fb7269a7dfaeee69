"""A real HTTP server on this machine, with range requests, that can misbehave."""

import hashlib
import io
import threading
import time
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def zipped(files):
    """A zip archive of contents by name; the same in every process, whatever the time."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


@dataclass
class Server:
    """What it serves and how, and what it was asked for.

    Attributes:
        files: Contents by path.
        statuses: Answers to the next requests, before it behaves.
        drop_after: Close the connection after so many bytes of an answer; an answer takes the first of them.
        ranges: Whether it answers range requests.
        pages: Whether it sends a web page for everything, with this content type.
        delay: Seconds before every 64 kB.
        requests: (path, Range header) of each request.
    """

    files: dict
    statuses: list = field(default_factory=list)
    drop_after: list = field(default_factory=list)
    ranges: bool = True
    pages: str = ""
    delay: float = 0
    requests: list = field(default_factory=list)
    url: str = ""


@contextmanager
def serve(files, **behavior):
    server = Server(files, **behavior)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

        def do_GET(self):
            wanted = self.headers.get("Range")
            server.requests.append((self.path, wanted))
            if server.statuses:
                self.send_error(server.statuses.pop(0))
            elif server.pages:
                self.answer(200, b"<html>The file has moved.</html>", {"Content-Type": server.pages})
            elif self.path not in server.files:
                self.send_error(404)
            else:
                content = server.files[self.path]
                tag = f'"{hashlib.sha256(content).hexdigest()[:8]}"'
                headers = {"ETag": tag, "Content-Type": "application/zip"}
                if not (wanted and server.ranges) or self.headers.get("If-Range", tag) != tag:
                    self.answer(200, content, headers)
                    return
                start = int(wanted.removeprefix("bytes=").removesuffix("-"))
                if start >= len(content):
                    self.send_error(416)
                    return
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
                self.answer(206, content[start:], headers)

        def answer(self, status, content, headers):
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            end = server.drop_after.pop(0) if server.drop_after else len(content)
            try:
                for start in range(0, min(end, len(content)), 1 << 16):
                    time.sleep(server.delay)
                    self.wfile.write(content[start : min(start + (1 << 16), end)])
            except (BrokenPipeError, ConnectionResetError):
                pass
            self.close_connection = True

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server.url = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()
