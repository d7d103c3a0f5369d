"""nginx and Python's http.server behind a worker: methods, ranges, keep-alive, chunks, and 1 GiB each way."""

import hashlib
import http.client
import os

from harness import House, Peak, check, curl, far_connection, say, sha256_of_file, write_numbered

MIB = 1024
GROWTH_MIB_MAX = 32


def methods(edge, name):
    """What both servers can do: they have files only."""
    body = curl(f"{edge.url}/small.txt")
    check(body == b"0123456789" * 100, f"{name}: GET gave {body[:40]}")
    head = curl("--head", f"{edge.url}/small.txt").decode()
    check(" 200 " in head and "ontent-length: 1000" in head.lower(), f"{name}: HEAD gave {head!r}")
    check(b" 404 " in curl("-i", f"{edge.url}/missing"), f"{name}: a missing file is a 404")
    refused = curl("-i", "-d", "x=1", f"{edge.url}/small.txt")
    check(b" 405 " in refused or b" 501 " in refused, f"{name}: POST to a file gave {refused[:60]}")
    connection = http.client.HTTPConnection("127.0.0.1", edge.port, timeout=10)
    connection.connect()
    socket = connection.sock
    for _ in range(200):
        connection.request("GET", "/small.txt", headers={"Host": "localhost"})
        answer = connection.getresponse()
        check(answer.status == 200 and len(answer.read()) == 1000, f"{name}: keep-alive gave {answer.status}")
        check(connection.sock is socket, f"{name}: the edge closed a kept connection")
    connection.close()
    say(f"{name}: GET, HEAD, 404, POST and 200 requests on one connection")


def ranges(edge, data):
    with open(data, "rb") as file:
        file.seek(5_000_000)
        want = file.read(1001)
    got = curl("-i", "--range", "5000000-5001000", f"{edge.url}/big.bin")
    head, _, body = got.partition(b"\r\n\r\n")
    check(b" 206 " in head and b"5000000-5001000" in head and body == want, f"a range gave {head!r}")
    check(b" 416 " in curl("-i", "--range", "99999999999-", f"{edge.url}/big.bin"), "a range behind the end is a 416")
    say("nginx: ranges")


def down(connection, processes, want, what):
    digest, length = hashlib.sha256(), 0
    with Peak(*processes) as peak:
        connection.request("GET", "/big.bin", headers={"Host": "localhost"})
        answer = connection.getresponse()
        while piece := answer.read(1 << 20):
            digest.update(piece)
            length += len(piece)
    check((digest.hexdigest(), length) == (want, MIB << 20), f"{what} down: {length} bytes arrived, or other ones")
    peak.check(GROWTH_MIB_MAX, f"{what}, 1 GiB down")


def up(send, processes, root, want, what):
    with Peak(*processes) as peak:
        status = send()
    check(status in (201, 204), f"{what} up: {status}")
    uploaded = os.path.join(root, "uploaded.bin")
    check(sha256_of_file(uploaded) == want, f"{what} up: other bytes arrived")
    os.remove(uploaded)
    peak.check(GROWTH_MIB_MAX, f"{what}, 1 GiB up")


def by_curl(edge, data, *more):
    code = "%{http_code}"
    url = f"{edge.url}/uploaded.bin"
    return lambda: int(curl("-o", os.devnull, "-w", code, *more, "-T", data, url, timeout=120))


def by_connection(connection, data, chunked):
    def send():
        with open(data, "rb") as file:
            fields = {"Host": "localhost"} if chunked else {"Host": "localhost", "Content-Length": str(MIB << 20)}
            connection.request("PUT", "/uploaded.bin", file, fields, encode_chunked=chunked)
            answer = connection.getresponse()
            answer.read()
        return answer.status

    return send


def one_gib_each_way(edge, worker, root, data, want, connection, sends, what):
    processes = (edge.process, worker)
    down(connection, processes, want, what)
    for how, send in sends:
        up(send, processes, root, want, f"{what}, {how}")
    for process in reversed(processes):
        say(f"{what}: VmHWM of {process.name} {process.rss_kib('VmHWM') / 1024:.1f} MiB")


with House(__file__, seconds_max=240) as house:
    root = house.path("www")
    os.mkdir(root, 0o755)
    with open(os.path.join(root, "small.txt"), "wb") as file:
        file.write(b"0123456789" * 100)
    data = write_numbered(os.path.join(root, "big.bin"), MIB)
    want = sha256_of_file(data)

    nginx, python = house.nginx(root), house.python_server(root)

    edge = house.edge(cores=1)
    worker = house.worker(edge, nginx.url)
    methods(edge, "nginx, 1 core")
    ranges(edge, data)
    connection = http.client.HTTPConnection("127.0.0.1", edge.port, timeout=60)
    sends = [
        ("curl", by_curl(edge, data)),
        ("curl chunked", by_curl(edge, data, "-H", "Transfer-Encoding: chunked")),
    ]
    one_gib_each_way(edge, worker, root, data, want, connection, sends, "nginx, 1 core")
    check(worker.end() == 0 and edge.process.end() == 0, "SIGTERM with nothing to do: exit 0")

    edge = house.edge(cores=2)
    worker = house.worker(edge, nginx.url)
    methods(edge, "nginx, 2 cores")
    far = far_connection(edge)
    sends = [("known length", by_connection(far, data, False)), ("chunked", by_connection(far, data, True))]
    one_gib_each_way(edge, worker, root, data, want, far, sends, "nginx, from core to core")
    far.close()
    check(worker.end() == 0 and edge.process.end() == 0, "SIGTERM with nothing to do: exit 0")

    edge = house.edge(cores=2)
    worker = house.worker(edge, python.url)
    methods(edge, "http.server")
    down(http.client.HTTPConnection("127.0.0.1", edge.port, timeout=60), (edge.process, worker), want, "http.server")
