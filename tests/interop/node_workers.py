"""Workers that nobody here wrote: Node's HTTP/2 and HTTP/1.1 servers, each behind a setup of a few lines."""

import hashlib
import http.client
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor

from harness import House, check, say, status

AT_ONCE = 100


def connect(edge):
    return http.client.HTTPConnection("127.0.0.1", edge.port, timeout=20)


def ask(connection, method, path, body=None, **more):
    connection.request(method, path, body, {"Host": "localhost"}, **more)
    answer = connection.getresponse()
    return answer, answer.read()


def methods(edge, name):
    connection = connect(edge)
    for method, body, want in (
        ("GET", None, b"hello from node\n"),
        ("HEAD", None, b""),
        ("POST", b"", b""),
        ("POST", b"a small body", b"a small body"),
        ("PUT", b"x" * 100_000, b"x" * 100_000),
    ):
        answer, got = ask(connection, method, "/", body)
        check(answer.status == 200 and got == want, f"{name}: {method} gave {answer.status}, {len(got)} bytes")
        check(answer.getheader("x-worker") == name, f"{name}: the answer came from {answer.getheader('x-worker')}")
        check(answer.getheader("x-method") == method, f"{name}: it saw a {answer.getheader('x-method')}")
    connection.close()


def large_body(edge, name):
    """16 MiB without a length, echoed while they still arrive."""
    pieces = [os.urandom(1 << 16) for _ in range(256)]
    want = hashlib.sha256(b"".join(pieces)).hexdigest()
    sender = connect(edge)

    def read():
        answer = sender.response_class(sender.sock, method="POST")
        answer.begin()
        return answer.status, hashlib.sha256(answer.read()).hexdigest()

    sender.connect()
    sender.putrequest("POST", "/", skip_host=True)
    sender.putheader("Host", "localhost")
    sender.putheader("Transfer-Encoding", "chunked")
    sender.endheaders()
    with ThreadPoolExecutor(1) as reader:
        answered = reader.submit(read)
        for piece in pieces:
            sender.send(b"%x\r\n%s\r\n" % (len(piece), piece))
        sender.send(b"0\r\n\r\n")
        check(answered.result(30) == (200, want), f"{name}: 16 MiB did not come back as they were sent")
    sender.close()


def streaming(edge, name):
    """The first piece arrives long before the last one is written."""
    connection = connect(edge)
    began = time.monotonic()
    connection.request("GET", "/stream", headers={"Host": "localhost"})
    answer = connection.getresponse()
    first = answer.read1(64)
    first_s = time.monotonic() - began
    rest = answer.read()
    last_s = time.monotonic() - began
    check(first + rest == b"piece\n" * 5, f"{name}: streaming gave {first + rest!r}")
    check(last_s - first_s > 0.2, f"{name}: the stream was held back: {first_s:.2f} s, {last_s:.2f} s")
    connection.close()


def tunnel(edge, name, protocol):
    """Bytes both ways after an upgrade."""
    with socket.create_connection(("127.0.0.1", edge.port), timeout=10) as client:
        client.sendall(
            f"GET /chat HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        head = b""
        while b"\r\n\r\n" not in head:
            piece = client.recv(4096)
            check(piece, f"{name}: the edge closed instead of switching: {head!r}")
            head += piece
        check(head.startswith(b"HTTP/1.1 101 "), f"{name}: the upgrade gave {head!r}")
        if protocol == "websocket" and name == "node-h2":  # RFC 6455 §1.3: this key has this answer
            check(b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head, f"{name}: Sec-WebSocket-Accept is missing: {head!r}")
        for size in (1, 100, 100_000):
            sent, got = os.urandom(size), b""
            client.sendall(sent)
            while len(got) < size:
                piece = client.recv(1 << 16)
                check(piece, f"{name}: the tunnel was cut")
                got += piece
            check(got == sent, f"{name}: the tunnel changed {size} bytes")


def one(edge):
    connection = connect(edge)
    answer, body = ask(connection, "GET", "/slow")
    connection.close()
    return answer.status, body


def at_once(edge, name, seconds_max):
    began = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(lambda _: one(edge), range(AT_ONCE)))
    took = time.monotonic() - began
    check(answers == [(200, b"hello from node\n")] * AT_ONCE, f"{name}: {AT_ONCE} at once gave {set(answers)}")
    check(took < seconds_max, f"{name}: {AT_ONCE} at once took {took:.1f} s")
    say(f"{name}: {AT_ONCE} requests at once in {took:.2f} s")


def serves(house, script, name, protocol, upgrade, seconds_max):
    for cores in (1, 2):
        edge = house.edge(cores)
        node = house.node(script, f"127.0.0.1:{edge.port}", edge.credential)
        house.until_links(edge, 1, node)
        check(status(edge)["links"][0]["protocol"] == protocol, f"{name} is on the wrong kind of link")
        for _ in range(2 * cores):  # with two cores: some on the core without a link
            methods(edge, name)
            streaming(edge, name)
            large_body(edge, name)
            tunnel(edge, name, upgrade)
            if protocol == "http/1.1":  # its link was used up by the tunnel
                node = house.node(script, f"127.0.0.1:{edge.port}", edge.credential)
                house.until_links(edge, 1, node)
        at_once(edge, name, seconds_max)
        # It dies; what comes then waits for the next one.
        node.kill()
        node.wait()
        house.until_links(edge, 0)
        with ThreadPoolExecutor(1) as pool:
            waits = pool.submit(one, edge)
            time.sleep(0.2)
            check(not waits.done(), f"{name}: without a worker it was answered: {waits}")
            house.node(script, f"127.0.0.1:{edge.port}", edge.credential)
            check(waits.result(10) == (200, b"hello from node\n"), f"{name}: a new worker did not serve what waited")
        say(f"{name}, {cores} cores: methods, bodies, streaming, upgrade, and a worker that died")


with House(__file__, seconds_max=120) as house:
    # Node waits 300 ms with each, so 100 in turn would take 30 s.
    serves(house, "node-worker-h2.js", "node-h2", "h2", "websocket", seconds_max=3)
    # One link is one credit: 100 in turn, 10 ms each.
    serves(house, "node-worker-h1.js", "node-h1", "http/1.1", "echo", seconds_max=6)
