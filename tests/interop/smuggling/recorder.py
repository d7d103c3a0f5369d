"""A backend that tells what it understood, in Python: recorder.py PARSER PORT LOG [EDGE_PORT BASIC HOST]

PARSER is h11, or `plain` for the little that nginx sends to what stands behind it. With an edge's port it is also a worker
itself: it dials and serves the turned HTTP/1.1 link, again and again.

The answer to a request is a JSON object of everything that was understood of it; `x-seen` numbers the requests, and every
beginning of one gets a number, so that one that nobody asked for leaves a gap. LOG gets a line for each:
["head", n, method, target], then ["whole", n, bytes] or ["cut", n, bytes]; ["bad", n, why] for what is no request.
A request for /early is answered before its body was read, /early/close also ends the connection.
"""

import asyncio
import base64
import hashlib
import json
import os
import sys

RECORD_IN_HEAD_MAX = 6000
seen = 0


def number():
    global seen
    seen += 1
    return seen


class Log:
    def __init__(self, path):
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def tell(self, *event):
        os.write(self.file, json.dumps(event).encode() + b"\n")


class Recorder(asyncio.Protocol):
    """One connection. What a parser finds goes through `head`, `data` and `end`."""

    def __init__(self, log):
        self.log = log
        self.number = None

    def connection_made(self, transport):
        self.transport = transport

    def connection_lost(self, _):
        if self.number is not None:
            self.log.tell("cut", self.number, self.bytes)
            self.number = None

    def head(self, method, target, fields):
        self.number = number()
        self.bytes, self.digest = 0, hashlib.sha256()
        self.method, self.target, self.fields = method, target, fields
        self.is_early = target.startswith("/early")
        self.log.tell("head", self.number, method, target)
        if self.is_early:
            closes = target.startswith("/early/close")
            more = [("connection", "close")] if closes else []
            self.answer(f"early {method} {target}\n".encode(), more)
            if closes:
                self.transport.close()

    def data(self, piece):
        self.bytes += len(piece)
        self.digest.update(piece)

    def end(self, trailers):
        self.log.tell("whole", self.number, self.bytes)
        if not self.is_early:
            record = {
                "method": self.method,
                "target": self.target,
                "fields": self.fields,
                "bytes": self.bytes,
                "sha256": self.digest.hexdigest(),
                "trailers": trailers,
            }
            body = json.dumps(record).encode()
            more = []
            if self.method == "HEAD":
                body = base64.b64encode(body)
                more = [("x-record", body.decode())] if len(body) < RECORD_IN_HEAD_MAX else []
            self.answer(body, more)
        self.number = None

    def bad(self, why):
        """What came is no request, or no longer one."""
        if self.number is None:
            self.log.tell("bad", number(), why)
        self.transport.close()

    def headers(self, body, more):
        return [("content-length", str(len(body))), ("x-seen", str(self.number)), *more]


class H11(Recorder):
    def __init__(self, log):
        super().__init__(log)
        self.connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 16)

    def data_received(self, data):
        try:
            self.connection.receive_data(data)
            while self.next_event():
                pass
        except h11.RemoteProtocolError as error:
            if self.connection.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                refusal = h11.Response(status_code=400, headers=[("content-length", "0"), ("connection", "close")])
                self.transport.write(self.connection.send(refusal) + self.connection.send(h11.EndOfMessage()))
            self.bad(str(error))

    def next_event(self):
        event = self.connection.next_event()
        if event is h11.NEED_DATA or event is h11.PAUSED:
            return False
        match event:
            case h11.Request():
                fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers]
                self.head(event.method.decode("latin-1"), event.target.decode("latin-1"), fields)
            case h11.Data():
                self.data(bytes(event.data))
            case h11.EndOfMessage():
                self.end([(name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers])
                if self.connection.our_state is h11.MUST_CLOSE:
                    self.transport.close()
                    return False
                self.connection.start_next_cycle()
            case h11.ConnectionClosed():
                self.transport.close()
                return False
        return True

    def answer(self, body, more):
        head = h11.Response(status_code=200, headers=self.headers(body, more))
        pieces = [self.connection.send(head)]
        if self.method != "HEAD":
            pieces.append(self.connection.send(h11.Data(data=body)))
        pieces.append(self.connection.send(h11.EndOfMessage()))
        self.transport.write(b"".join(pieces))


class Plain(Recorder):
    """Heads, and bodies with a Content-Length; nothing else comes from nginx."""

    def __init__(self, log):
        super().__init__(log)
        self.buffer = b""
        self.left = 0

    def data_received(self, data):
        self.buffer += data
        while self.number is not None or b"\r\n\r\n" in self.buffer:
            if self.number is None:
                head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
                line, *lines = head.decode("latin-1").split("\r\n")
                fields = [[part.strip(" ") for part in field.split(":", 1)] for field in lines]
                method, target, _ = line.split(" ")
                lengths = [value for name, value in fields if name.lower() == "content-length"]
                self.left = int(lengths[0]) if lengths else 0
                self.head(method, target, fields)
            piece, self.buffer = self.buffer[: self.left], self.buffer[self.left :]
            self.left -= len(piece)
            self.data(piece)
            if self.left:
                return
            self.end([])

    def answer(self, body, more):
        lines = [f"{name}: {value}\r\n" for name, value in self.headers(body, more)]
        self.transport.write(("HTTP/1.1 200 OK\r\n" + "".join(lines) + "\r\n").encode() + (b"" if self.method == "HEAD" else body))


async def link(log, edge_port, basic, host):
    """Dials an edge and serves what comes back, as often as it ends."""
    setup = (
        f"GET /.well-known/ptth/http%3A%2F%2F{host}/ HTTP/1.1\r\nHost: edge\r\nConnection: upgrade\r\nUpgrade: ptth\r\n"
        f"ALPN: http%2F1.1\r\nAuthorization: Basic {basic}\r\n\r\n"
    )
    loop = asyncio.get_running_loop()
    while True:
        ended = loop.create_future()

        class Link(H11):
            is_set_up = False
            answered = b""

            def data_received(self, data):
                if self.is_set_up:
                    return super().data_received(data)
                self.answered += data
                head, blank, rest = self.answered.partition(b"\r\n\r\n")
                if blank:
                    assert head.startswith(b"HTTP/1.1 101 "), head
                    self.is_set_up = True
                    if rest:
                        super().data_received(rest)

            def connection_lost(self, why):
                super().connection_lost(why)
                ended.set_result(None)

        transport, _ = await loop.create_connection(lambda: Link(log), "127.0.0.1", edge_port)
        transport.write(setup.encode())
        await ended


async def main(parser, port, log, *edge):
    log = Log(log)
    protocol = {"h11": H11, "plain": Plain}[parser]
    server = await asyncio.get_running_loop().create_server(lambda: protocol(log), "127.0.0.1", int(port))
    if edge:
        await link(log, int(edge[0]), *edge[1:])
    await server.serve_forever()


if __name__ == "__main__":
    if sys.argv[1] == "h11":
        import h11
    asyncio.run(main(*sys.argv[1:]))
