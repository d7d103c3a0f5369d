"""WebSockets of other makes: `websockets` as the server; as clients `websockets` over HTTP/1.1, and hyper-h2 with wsproto
over HTTP/2 (RFC 8441); with TLS and without, over an HTTP/1.1 link and an HTTP/2 link."""

import os
import ssl

import h2.events
from harness import check, read_lines, relay_worker, say, until
from hyper_h2 import Http2
from secure import SecureHouse, client_context
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage

SIZES = [0, 1, 125, 126, 127, 65535, 65536, 65537, 1 << 20, 3_000_000]
CODES = [(1000, "done"), (1001, "away"), (1011, "fault"), (3000, ""), (4999, "ö" * 20)]


class OverH1:
    """`websockets`, with or without compression."""

    def __init__(self, edge, tls, compression=None):
        more = {}
        if tls:
            more["ssl"] = client_context(edge.ca, "http/1.1")
            # This client reads in one thread and writes in another, and Python 3.11 lets both into one TLS session: the tickets
            # that TLS 1.3 sends behind the handshake then swallow the request, now and then.
            more["ssl"].maximum_version = ssl.TLSVersion.TLSv1_2
        url = f"wss://localhost:{edge.tls_port}/chat" if tls else f"ws://localhost:{edge.port}/chat"
        more |= {"proxy": None, "legacy": True, "max_size": 1 << 23, "open_timeout": 20, "close_timeout": 20}
        self.socket = connect(url, compression=compression, **more)
        if compression:
            check(self.socket.protocol.extensions, "permessage-deflate was not negotiated")

    def talk(self, message):
        self.socket.send(message)
        return self.socket.recv(timeout=20)

    def send_pieces(self, pieces):
        self.socket.send(iter(pieces))
        return self.socket.recv(timeout=20)

    def ping(self, payload):
        return self.socket.ping(payload).wait(20)

    def close(self, code, reason):
        """Code and reason that came back."""
        self.socket.close(code, reason)
        return self.closed()

    def closed(self):
        try:
            self.socket.recv(timeout=20)
        except ConnectionClosed:
            pass
        return self.socket.close_code, self.socket.close_reason


class OverH2:
    """hyper-h2 for the stream, wsproto for the frames in it. Several of them may share a connection."""

    def __init__(self, connection):
        check(connection.takes_extended_connect(), "the edge does not announce RFC 8441")
        self.connection = connection
        version = [("sec-websocket-version", "13"), ("origin", "https://localhost")]
        self.stream = connection.open("CONNECT", "/chat", version, end=False, protocol="websocket")
        status, fields = connection.head(self.stream)
        check(status == 200, f"extended CONNECT gave {status} {fields}")
        check("sec-websocket-accept" not in fields, f"an Accept over HTTP/2: {fields}")
        self.frames = Connection(ConnectionType.CLIENT)
        self.came = []

    def send(self, event):
        self.connection.send(self.stream, self.frames.send(event))

    def event(self):
        while not self.came:
            data = self.connection.data(self.stream)
            check(data, "the stream ended before the WebSocket did")
            self.frames.receive_data(data)
            self.came = list(self.frames.events())
        return self.came.pop(0)

    def message(self):
        pieces = []
        while True:
            event = self.event()
            if isinstance(event, Ping):
                self.send(event.response())
            elif isinstance(event, (TextMessage, BytesMessage)):
                pieces.append(event.data)
                if event.message_finished:
                    return pieces[0][:0].join(pieces)
            else:
                check(False, f"{event} instead of a message")

    def talk(self, message):
        self.send((TextMessage if isinstance(message, str) else BytesMessage)(data=message))
        return self.message()

    def send_pieces(self, pieces):
        for piece in pieces:
            self.send(TextMessage(data=piece, message_finished=piece is pieces[-1]))
        return self.message()

    def ping(self, payload):
        self.send(Ping(payload=payload))
        event = self.event()
        return isinstance(event, Pong) and bytes(event.payload) == payload

    def close(self, code, reason):
        self.send(CloseConnection(code=code, reason=reason))
        return self.closed()

    def closed(self):
        close = self.event()
        check(isinstance(close, CloseConnection), f"{close} instead of a close")
        if self.frames.state is ConnectionState.REMOTE_CLOSING:
            self.send(close.response())
        self.connection.send(self.stream, b"", end=True)
        while True:  # and the stream ends as it should
            event = self.connection.next(self.stream)
            check(not isinstance(event, h2.events.StreamReset), f"a reset behind the close: {event}")
            if isinstance(event, h2.events.StreamEnded):
                return int(close.code), close.reason or ""


def all_sizes(client, what):
    for size in SIZES:
        text, binary = "ptth" * (size // 4) + "x" * (size % 4), os.urandom(size)
        check(client.talk(text) == text, f"{what}: a text of {size} bytes did not come back")
        check(bytes(client.talk(binary)) == binary, f"{what}: {size} bytes did not come back")


def conversation(open_client, log, what):
    client = open_client()
    all_sizes(client, what)
    check(client.send_pieces(["a", "b" * 70_000, "c"]) == "a" + "b" * 70_000 + "c", f"{what}: fragments up")
    check(client.talk("pieces") == "one two three", f"{what}: fragments down")
    check(client.talk("äöü €") == "äöü €", f"{what}: UTF-8")
    check(client.ping(b"are you there?"), f"{what}: no pong for a ping")
    check(client.talk("ping") == "pong", f"{what}: the server's ping got no pong")
    told = len(log())
    check(client.close(1000, "bye") == (1000, "bye"), f"{what}: a close did not come back")
    until(lambda: log()[told:] == ["1000 bye"], f"{what}: the server hears of the close")
    for code, reason in CODES:
        client, told = open_client(), len(log())
        got = client.close(code, reason)
        check(got == (code, reason), f"{what}: closed with {code} {reason}, {got} came back")
        until(lambda: log()[told:] == [f"{code} {reason}"], f"{what}: the server hears {code} {reason}")
        client, told = open_client(), len(log())
        got = end_by_server(client, code, reason)
        check(got == (code, reason), f"{what}: the server closed with {code} {reason}, {got} came")
        until(lambda: len(log()) > told, f"{what}: the server has ended")
    say(f"{what}: messages up to {SIZES[-1]} bytes, fragments, pings both ways, {len(CODES)} close codes from either end")


def end_by_server(client, code, reason):
    text = f"close {code} {reason}"
    if isinstance(client, OverH1):
        client.socket.send(text)
    else:
        client.send(TextMessage(data=text))
    return client.closed()


def many_on_one_connection(connection, what):
    clients = [OverH2(connection) for _ in range(20)]
    for round in range(5):
        for number, client in enumerate(clients):
            client.send(TextMessage(data=f"{round} of {number}"))
        for number, client in enumerate(clients):
            check(client.message() == f"{round} of {number}", f"{what}: messages went astray")
    for client in clients:
        check(client.close(1000, "") == (1000, ""), f"{what}: one of 20 did not close")
    stream = connection.open("GET", "/chat")
    check(connection.head(stream)[0] == 426, f"{what}: a GET beside them is answered by the server")
    say(f"{what}: 20 at once on one connection, and a request beside them")


with SecureHouse(__file__, seconds_max=240) as house:
    log_path = house.path("echo.log")
    server = house.python("echo_ws.py", log_path)

    def log():
        return read_lines(log_path)

    for kind in ("h2 link", "h1 link"):
        edge = house.secure_edge(cores=2)
        if kind == "h2 link":
            house.worker(edge, server.url, links=2)

        def link():
            """An HTTP/1.1 link is used up by its WebSocket."""
            if kind == "h1 link":
                relay_worker(edge, server.port)

        for tls in (True, False):
            where = f"{'TLS' if tls else 'no TLS'}, {kind}"

            def over_h1(compression=None):
                link()
                return OverH1(edge, tls, compression)

            def over_h2():
                link()
                return OverH2(connection)

            conversation(over_h1, log, f"websockets over HTTP/1.1, {where}")
            conversation(lambda: over_h1("deflate"), log, f"websockets with deflate over HTTP/1.1, {where}")
            connection = Http2(edge.tls_port if tls else edge.port, edge.ca if tls else None)
            conversation(over_h2, log, f"hyper-h2 and wsproto, {where}")
            for _ in range(21 if kind == "h1 link" else 0):
                link()
            many_on_one_connection(connection, f"hyper-h2 and wsproto, {where}")
            connection.close()
