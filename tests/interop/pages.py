"""A server for the scripts with TLS and HTTP/2, on Python's standard library: pages.py PORT LOG

LOG gets a line for each request once it has been read: "METHOD path Via".

    /                       "hello" and enough to fill several frames of 16 bytes; any method
    /page?images=N          a page with N images, an EventSource and a WebSocket, which then POSTs what it saw to /report
    /image/N.png            an image of its own for each N
    /events?id=X            Server-Sent Events: the first at once, the other two only after POST /go?id=X
    /go?id=X                lets them go
    /report                 takes JSON; GET gives it back (404 before)
"""

import os
import struct
import sys
import threading
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

WAIT_S_MAX = 60
PAGE = """<!doctype html><meta charset="utf-8"><title>interop</title><body><script>
const images = %d, id = 'page';
const report = { images: 0, broken: 0, protocols: {}, events: [], rest_came_early: false, websocket: [] };
function loaded() {
  return Promise.all([...Array(images).keys()].map((number) => new Promise((done) => {
    const image = new Image();
    image.onload = () => { report.images += Number(image.naturalWidth === number + 1); done(); };
    image.onerror = () => { report.broken += 1; done(); };
    image.src = '/image/' + number + '.png';
    document.body.append(image);
  })));
}
function events() {
  return new Promise((done) => {
    let may_go = false;
    const source = new EventSource('/events?id=' + id);
    source.addEventListener('tick', async (event) => {
      report.events.push(event.lastEventId + ' ' + event.data);
      if (report.events.length > 1 && !may_go) report.rest_came_early = true;
      if (report.events.length === 1) { may_go = true; await fetch('/go?id=' + id, { method: 'POST' }); }
      if (report.events.length === 3) { source.close(); done(); }
    });
  });
}
function websocket() {
  return new Promise((done) => {
    const socket = new WebSocket('wss://' + location.host + '/chat');
    const sizes = [0, 1, 125, 126, 65535, 65536, 1000000];
    socket.onopen = () => socket.send('x'.repeat(sizes[0]));
    socket.onmessage = (event) => {
      report.websocket.push(event.data.length);
      const next = sizes[report.websocket.length];
      socket.send(next === undefined ? 'close 4001 enough' : 'x'.repeat(next));
    };
    socket.onclose = (event) => { report.websocket.push([event.code, event.reason, event.wasClean]); done(); };
  });
}
window.onload = async () => {
  performance.setResourceTimingBufferSize(1000);
  await loaded(), await events(), await websocket();
  for (const kind of ['navigation', 'resource'])
    for (const entry of performance.getEntriesByType(kind))
      report.protocols[entry.nextHopProtocol] = (report.protocols[entry.nextHopProtocol] || 0) + 1;
  await fetch('/report', { method: 'POST', body: JSON.stringify(report) });
};
</script>
"""


def png(number):
    """One row of `number` + 1 pixels, so that each image is told apart by its width."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    width = number + 1
    head = struct.pack(">IIBBBBB", width, 1, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" + bytes([number % 256, 80, 160]) * width)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


class Server(ThreadingHTTPServer):
    request_queue_size = 1024
    daemon_threads = True
    gates = {}
    lock = threading.Lock()
    report = None

    def gate(self, name):
        with self.lock:
            return self.gates.setdefault(name, threading.Event())


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16

    def log_message(self, *_):
        pass

    def body(self):
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        whole = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            whole += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return whole

    def answer(self, body, status=200, kind="text/plain"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def events(self, name):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number in range(3):
            event = f": comment\nid: {number}\nevent: tick\ndata: event {number}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
            self.wfile.flush()
            if number == 0 and not self.server.gate(name).wait(WAIT_S_MAX):
                return
        self.wfile.write(b"0\r\n\r\n")

    def serve(self):
        body = self.body()
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        os.write(LOG, f"{self.command} {self.path} {self.headers.get('Via', '-')}\n".encode())
        if url.path == "/page":
            return self.answer(PAGE.encode() % int(query["images"]), kind="text/html")
        if url.path.startswith("/image/"):
            return self.answer(png(int(url.path.removeprefix("/image/").removesuffix(".png"))), kind="image/png")
        if url.path == "/events":
            return self.events(query["id"])
        if url.path == "/go":
            self.server.gate(query["id"]).set()
            return self.answer(b"gone\n")
        if url.path == "/report":
            if self.command == "POST":
                Server.report = body
            return self.answer(Server.report or b"none yet\n", 200 if Server.report else 404, "application/json")
        if url.path == "/":
            return self.answer(b"hello from a page\n" * 8)
        return self.answer(b"no such page\n", 404)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = serve


if __name__ == "__main__":
    LOG = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
