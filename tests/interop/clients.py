"""Clients that nobody here wrote, and raw sockets: curl, wrk, Python's http.client, WebSocket over both kinds of links."""

import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import websocket
from harness import HERE, Failed, House, answers, check, curl, dispatches, free_port, relay_worker, say, status, until


def by_curl(edge, house):
    hello = f"{edge.url}/hello"
    connects = curl("-w", "%{num_connects} ", *["-o", os.devnull, hello] * 3)
    check(connects == b"1 0 0 ", f"curl keep-alive: {connects}")

    head = curl("--head", f"{edge.url}/bytes?n=1234").decode().lower()
    check(" 200 " in head and "content-length: 1234" in head, f"curl HEAD: {head}")

    # Expect: 100-continue, to a server that wants the body and to one that does not.
    upload = house.path("upload.bin")
    with open(upload, "wb") as file:
        file.write(os.urandom(3 << 20))
    expect = ("-v", "-H", "Expect: 100-continue", "-T", upload)
    told, talk = curl_with_talk(*expect, f"{edge.url}/sha256")
    check("< HTTP/1.1 100 Continue" in talk, f"curl was not asked to continue: {talk}")
    check(told.split()[1:] == [str(3 << 20)], f"curl upload: {told}")
    told, talk = curl_with_talk(*expect, f"{edge.url}/early")
    check("< HTTP/1.1 413 " in talk, f"curl early answer: {talk}")
    # Without Expect the body comes anyway; the edge reads on for 256 KiB, so that the answer is not lost in a reset.
    with open(upload, "wb") as file:
        file.write(os.urandom(200 << 10))
    told = curl("-H", "Expect:", "-T", upload, "-o", os.devnull, "-w", "%{http_code}", f"{edge.url}/early")
    check(told == b"413", f"an early answer to a client that sends on: {told}")

    # HTTP/1.0: no chunks, no 1xx, the end of the connection is the end of the body.
    whole = curl("--http1.0", "-i", f"{edge.url}/chunks?n=3")
    fields, _, body = whole.partition(b"\r\n\r\n")
    check(b"chunked" not in fields.lower() and body == b"chunk 0\nchunk 1\nchunk 2\n", f"curl --http1.0: {whole}")
    check(curl("--http1.0", "-d", "x=1", f"{edge.url}/echo") == b"x=1", "curl --http1.0 POST")

    check(curl(f"{edge.url}/chunks?n=3") == b"chunk 0\nchunk 1\nchunk 2\n", "curl chunks")
    chunked = curl("--raw", "-H", "TE: trailers", f"{edge.url}/trailers")
    check(chunked.endswith(b"0\r\nx-sum: 42\r\n\r\n"), f"curl --raw trailers: {chunked}")
    for code in (204, 304, 404, 500, 503):
        got = curl("-o", os.devnull, "-w", "%{http_code}", f"{edge.url}/status?code={code}")
        check(got == str(code).encode(), f"curl: {code} came as {got}")
    lies = ("-H", "X-Forwarded-For: 6.6.6.6", "-H", "Connection: x-secret", "-H", "x-secret: 1")
    told = json.loads(curl(*lies, f"{edge.url}/fields"))
    fields = {name.lower(): value for name, value in told["fields"]}
    check(fields["x-forwarded-for"] == "127.0.0.1" and fields["x-forwarded-proto"] == "http", f"forwarding: {fields}")
    check("x-secret" not in fields and "via" in fields and "forwarded" in fields, f"forwarding: {fields}")
    say("curl: keep-alive, HEAD, Expect, early answers, --http1.0, chunks, trailers, statuses")


def curl_with_talk(*arguments):
    command = ["curl", "--silent", "--noproxy", "*", "--max-time", "20", *arguments]
    done = subprocess.run(command, capture_output=True, timeout=30)
    return done.stdout.decode(), done.stderr.decode()


def by_python(edge):
    connection = http.client.HTTPConnection("127.0.0.1", edge.port, timeout=10)
    for number in range(50):
        body = bytes([number]) * (number * 997)
        for chunked in (False, True):
            pieces = iter([body[:10], body[10:]]) if chunked else body
            connection.request("POST", "/echo", pieces, {"Host": "localhost"}, encode_chunked=chunked)
            answer = connection.getresponse()
            check((answer.status, answer.read()) == (200, body), f"http.client: POST {number}, chunked: {chunked}")
    connection.close()
    say("http.client: 100 POSTs on one connection, with and without a length")


def raw(edge):
    """One write with twenty requests; answers in their order; nothing behind them."""
    with socket.create_connection(("127.0.0.1", edge.port), timeout=10) as client:
        asks = b""
        for number in range(20):
            body = f"pipelined {number}".encode()
            asks += b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
            asks += b"GET /slow?ms=%d&id=%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % (20 - number, number)
        client.sendall(asks)
        for number in range(20):
            for want in (f"pipelined {number}", f"slow {number}\n"):
                answer = http.client.HTTPResponse(client)
                # HTTPResponse reads ahead; a file of its own for each would lose bytes.
                answer.fp.close()
                answer.fp = shared_file(client)
                answer.begin()
                got = answer.read().decode()
                check(got == want, f"pipelined: {got!r} instead of {want!r}")
        client.sendall(b"GET /hello HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        rest = shared_file(client).read()
        check(rest.endswith(b"\r\n\r\nhello\n") and rest.count(b"HTTP/1.1 ") == 1, f"pipelined: {rest!r} at the end")
        forget_file(client)

    # A head and a chunked body with a trailer, byte by byte.
    with socket.create_connection(("127.0.0.1", edge.port), timeout=10) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ask = b"POST /fields HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n"
        ask += b"Trailer: x-check\r\n\r\n5;ext=1\r\nhello\r\n1\r\n!\r\n0\r\nx-check: 7\r\n\r\n"
        for byte in ask:
            client.sendall(bytes([byte]))
            time.sleep(0.001)
        answer = client.makefile("rb").read()
        check(b"200 OK" in answer, f"byte by byte: {answer!r}")
        told = json.loads(answer.partition(b"\r\n\r\n")[2])
        check(told["trailers"] == ["x-check: 7"], f"request trailers: {told}")

    # 1.0 with keep-alive.
    with socket.create_connection(("127.0.0.1", edge.port), timeout=10) as client:
        for _ in range(3):
            client.sendall(b"GET /hello HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n")
            got = b""
            while not got.endswith(b"hello\n"):
                piece = client.recv(4096)
                check(piece, f"HTTP/1.0 keep-alive: closed after {got!r}")
                got += piece
            check(b"keep-alive" in got.lower(), f"HTTP/1.0 keep-alive: {got!r}")
    say("raw sockets: 40 pipelined requests, byte by byte, request trailers, HTTP/1.0 keep-alive")


_files = {}


def shared_file(sock):
    return _files.setdefault(sock.fileno(), Unclosed(sock.makefile("rb")))


def forget_file(sock):
    _files.pop(sock.fileno())


class Unclosed:
    """http.client closes its file at the end of each answer; the next answer is in the same buffer."""

    def __init__(self, file):
        self.file = file

    def __getattr__(self, name):
        return getattr(self.file, name)

    def close(self):
        pass


def leaving(edge):
    """Clients that leave take their requests with them, also those that a worker works on."""
    sockets = []
    for number in range(30):
        client = socket.create_connection(("127.0.0.1", edge.port))
        client.sendall(b"GET /slow?ms=8000&id=left-%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % number)
        sockets.append(client)
    until(lambda: status(edge)["links"][0]["in_flight"] == 30, "30 requests run")
    for client in sockets:
        client.close()
    until(lambda: status(edge)["links"][0]["in_flight"] == 0, "the requests of clients that left end", seconds=4)
    say("30 clients left; their credits came back")


def by_wrk(edge):
    check(shutil.which("wrk"), "no wrk: apt-get install wrk")
    command = ["wrk", "-t1", "-c64", "-d3s", "--latency", "-H", "Host: localhost", f"{edge.url}/hello"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=30).stdout
    check("Socket errors" not in told and "Non-2xx" not in told, f"wrk: {told}")
    rate = re.search(r"Requests/sec:\s*([\d.]+)", told)
    check(rate and float(rate.group(1)) > 100, f"wrk: {told}")
    return rate.group(1), re.search(r"99%\s*(\S+)", told).group(1)


def talk(edge, what):
    """Text, binary, ping and close, small and large, many at once."""

    def one(number):
        client = websocket.Client(edge.port)
        if not client.line.startswith(b"HTTP/1.1 101 ") or not client.is_accepted:
            raise Failed(f"{what}: WebSocket {number}: {client.line} {client.fields}")
        for size in (0, 5, 125, 126, 65535, 65536, 1 << 20):
            for opcode in (websocket.TEXT, websocket.BINARY):
                sent = (b"ptth" * (size // 4 + 1))[:size]
                client.send(opcode, sent)
                check(client.receive() == (opcode, sent), f"{what}: WebSocket {number}: {size} bytes did not come back")
        client.send(websocket.PING, b"still there?")
        check(client.receive() == (websocket.PONG, b"still there?"), f"{what}: WebSocket {number}: no pong")
        client.send(websocket.CLOSE, b"\x03\xe8")
        check(client.receive() == (websocket.CLOSE, b"\x03\xe8"), f"{what}: WebSocket {number}: no close")
        check(client.is_ended(), f"{what}: WebSocket {number}: bytes behind the close")
        return number

    with ThreadPoolExecutor(10) as pool:
        check(sorted(pool.map(one, range(10))) == list(range(10)), what)
    say(f"{what}: 10 WebSockets at once, frames up to 1 MiB")


with House(__file__, seconds_max=150) as house:
    origin = house.origin()
    root = house.path("www")
    os.mkdir(root)
    nginx = house.nginx(root)
    port = free_port()
    process = house.start("websocket", [sys.executable, os.path.join(HERE, "websocket.py"), str(port)])
    until(lambda: answers(port), "the WebSocket server listens", process=process)

    for cores in (1, 2):
        edge = house.edge(cores)
        worker = house.worker(edge, origin.url)
        for _ in range(cores):
            by_curl(edge, house)
            by_python(edge)
            raw(edge)
        leaving(edge)
        if cores == 2:
            check(dispatches(edge, "cross") > 0, "nothing went from core to core")
        check(worker.end() == 0 and edge.process.end() == 0, "SIGTERM with nothing to do: exit 0")

        edge = house.edge(cores)
        house.worker(edge, nginx.url, links=cores)
        rate, p99 = by_wrk(edge)
        say(f"wrk, 64 connections, {cores} cores: {rate} requests/s, p99 {p99}")

        edge = house.edge(cores)
        house.worker(edge, f"http://127.0.0.1:{port}")
        talk(edge, f"h2 link, {cores} cores")
        edge = house.edge(cores)
        for _ in range(10):
            relay_worker(edge, port)
        house.until_links(edge, 10)
        talk(edge, f"HTTP/1.1 links, {cores} cores")
