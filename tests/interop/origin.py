"""A server for the interop scripts, on Python's standard library: origin.py PORT LOG

Any path may carry ?id=X: a line "X METHOD path" is appended to LOG once the whole request has been read.

    /hello                  "hello"
    /echo                   the request's body
    /sha256                 the digest of the request's body, and its length
    /fields                 the request's fields and trailers, as JSON
    /slow?ms=N              "slow" after N ms
    /bytes?n=N              N bytes with a Content-Length
    /chunks?n=N&ms=M        N chunks, M ms between two
    /trailers               chunks, then the trailer `x-sum`
    /early                  413 before the body was read, and a close
    /status?code=N          that status
"""

import hashlib
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

PORT, LOG = int(sys.argv[1]), os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)


class Server(ThreadingHTTPServer):
    request_queue_size = 1024
    daemon_threads = True


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16

    def log_message(self, *_):
        pass

    def body(self):
        """The request's body in pieces."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            while line := self.rfile.readline().strip():
                self.trailers.append(line.decode())
            return
        left = int(self.headers.get("Content-Length", 0))
        while left > 0:
            piece = self.rfile.read1(min(left, 1 << 20))
            if not piece:
                raise ConnectionError("the body was cut")
            left -= len(piece)
            yield piece

    def answer(self, body=b"", status=200, kind="text/plain"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def chunk(self, piece):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.flush()

    def serve(self):
        self.trailers = []
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if url.path == "/early":
            self.close_connection = True
            return self.answer(b"too much\n", 413)
        if url.path == "/sha256":
            digest, length = hashlib.sha256(), 0
            for piece in self.body():
                digest.update(piece)
                length += len(piece)
            return self.answer(f"{digest.hexdigest()} {length}\n".encode())
        body = b"".join(self.body())
        if "id" in query:
            os.write(LOG, f"{query['id']} {self.command} {url.path}\n".encode())
        ms = int(query.get("ms", 0))
        match url.path:
            case "/echo":
                self.answer(body, kind=self.headers.get("Content-Type", "application/octet-stream"))
            case "/fields":
                told = {"fields": self.headers.items(), "trailers": self.trailers}
                self.answer(json.dumps(told).encode(), kind="application/json")
            case "/slow":
                time.sleep(ms / 1000)
                self.answer(f"slow {query.get('id', '')}\n".encode())
            case "/bytes":
                self.answer(b"x" * int(query["n"]))
            case "/status":
                self.answer(status=int(query["code"]))
            case "/chunks" | "/trailers":
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.send_header("Trailer", "x-sum")
                self.end_headers()
                for number in range(int(query.get("n", 3))):
                    self.chunk(f"chunk {number}\n".encode())
                    time.sleep(ms / 1000)
                trailer = b"x-sum: 42\r\n" if url.path == "/trailers" else b""
                self.wfile.write(b"0\r\n" + trailer + b"\r\n")
            case "/hello":
                self.answer(b"hello\n")
            case _:
                self.answer(b"no such path\n", 404)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = serve


Server(("127.0.0.1", PORT), Handler).serve_forever()
