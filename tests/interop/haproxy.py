"""HAProxy as a worker: its reverse HTTP (`rhttp@`, 2.9 and later) dials an address for `haproxy-workers`, plain and with TLS and a
client certificate, and serves what comes back from a server of its own. And HAProxy as the edge of our worker (`haproxy = true`).

Which HAProxy: $PTTH_HAPROXY, or the one in $PATH. Exit code 77, and a loud line, where there is none that is new enough."""

import concurrent.futures
import hashlib
import os
import re
import shutil
import subprocess
import sys

import harness
from harness import check, curl, free_port, say, status, until
from secure import SecureHouse

REQUESTS = 300
AT_ONCE = 50


def haproxy():
    """A binary that knows reverse HTTP, or None and why not."""
    for binary in (os.environ.get("PTTH_HAPROXY"), shutil.which("haproxy")):
        if binary:
            said = subprocess.run([binary, "-v"], capture_output=True, text=True, timeout=10).stdout
            version = re.search(r"version (\d+)\.(\d+)", said)
            if version and tuple(map(int, version.groups())) >= (2, 9):
                return binary, said.splitlines()[0]
            return None, f"{binary} is older than 2.9"
    return None, "no haproxy (Debian 13 and later have one that is new enough), and PTTH_HAPROXY is not set"


def shown(number):
    """A configuration of docs/protocol.md: that of a device, or of an edge. One thread is enough here."""
    with open(os.path.join(harness.ROOT, "docs", "protocol.md")) as page:
        blocks = re.findall(r"^```text haproxy\n(.*?)^```$", page.read(), re.MULTILINE | re.DOTALL)
    check(len(blocks) == 2, f"docs/protocol.md has {len(blocks)} configurations of HAProxy")
    return blocks[number].replace("global\n", "global\n    nbthread 1\n")


def started(house, binary, name, text, replaced):
    for theirs, ours in replaced.items():
        check(theirs in text, f"docs/protocol.md has no {theirs!r} for HAProxy")
        text = text.replace(theirs, ours)
    return house.start("haproxy", [binary, "-db", "-f", house.write(name, text)])


def device(house, binary, port, origin, connections, tls=""):
    replaced = {
        "edge.example:8444 proto h2": f"127.0.0.1:{port} {tls or 'proto h2'}",
        "nbconn 2": f"nbconn {connections}",
        "127.0.0.1:3000": f"127.0.0.1:{origin.port}",
    }
    return started(house, binary, f"device-{port}.cfg", shown(0), replaced)


def front(house, binary, clients, devices, tls=""):
    """HAProxy as an edge: clients on one address, devices on another."""
    replaced = {"0.0.0.0:8080": f"127.0.0.1:{clients}", "0.0.0.0:8444 proto h2": f"127.0.0.1:{devices} {tls or 'proto h2'}"}
    return started(house, binary, f"front-{clients}.cfg", shown(1), replaced)


def asks(edge, path):
    return curl("--fail", "--header", "Host: localhost", f"{edge.url}{path}")


def serves(house, edge, what, h2_port):
    body = os.urandom(1 << 20)
    upload = house.path("upload")
    with open(upload, "wb") as file:
        file.write(body)
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        said = list(pool.map(lambda n: asks(edge, f"/echo?id={what}-{n}"), range(REQUESTS)))
    check(len(said) == REQUESTS, "every request is answered")
    told = curl("--fail", "-H", "Host: localhost", "--data-binary", f"@{upload}", f"{edge.url}/sha256")
    check(hashlib.sha256(body).hexdigest().encode() in told, f"a MiB up: {told!r}")
    down = asks(edge, f"/bytes?n={5 << 20}")
    check(len(down) == 5 << 20, f"5 MiB down: {len(down)}")
    say(f"{what}: {REQUESTS} requests, {AT_ONCE} at once; a MiB up and five down")
    if shutil.which("wrk"):
        said = subprocess.run(
            ["wrk", "-t1", "-c32", "-d2", "-H", "Host: localhost", f"{edge.url}/hello"], capture_output=True, text=True, timeout=30
        ).stdout
        count = re.search(r"(\d+) requests in", said)
        check(count and int(count[1]) > 0 and "Non-2xx" not in said and "Socket errors" not in said, f"wrk: {said}")
        say(f"{what}: wrk, 32 connections: {count[1]} requests, no error")
    if shutil.which("h2load"):
        command = ["h2load", "-c4", "-m8", "-n2000", "-H", ":authority: localhost", f"http://127.0.0.1:{h2_port}/hello"]
        said = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
        check("2000 succeeded, 0 failed, 0 errored, 0 timeout" in said and "2000 2xx" in said, f"h2load: {said}")
        say(f"{what}: h2load, 4 connections of 8 streams: 2000 requests, no error")


def links(edge, count, process):
    def ready():
        up = status(edge)["links"]
        return len(up) == count and all(link["worker"] == "device" and link["credits"] > 0 for link in up)

    until(ready, f"{count} links of devices", process=process)


def ours(house, devices, origin, scheme="http", more=()):
    """Our worker as a device."""
    arguments = ["--haproxy", "--edge", f"{scheme}://localhost:{devices}", "--to", f"http://127.0.0.1:{origin.port}"]
    return house.start("worker", [harness.binary(), "worker", *arguments, "--links", "2", "--concurrency", "100", *more])


def as_an_edge(house, binary, origin):
    """Our worker serves HAProxy's clients, plain and with mutual TLS."""
    authority = house.authority()
    house.issue("front", "localhost")
    house.issue("web", "web.internal", usage="clientAuth")
    with open(house.path("front-both.pem"), "w") as both:
        for part in ("front.pem", "front.key"):
            with open(house.path(part)) as file:
                both.write(file.read())
    certificate = f"ssl crt {house.path('front-both.pem')} alpn h2 verify required ca-file {authority}"
    shown = ["--ca-file", authority, "--certificate", house.path("web.pem"), "--key", house.path("web.key")]
    for what, scheme, bind, more in (("plain", "http", "", ()), ("mutual-tls", "https", certificate, shown)):
        clients, devices = free_port(), free_port()
        front(house, binary, clients, devices, bind)
        until(lambda: harness.answers(clients), "HAProxy listens")
        worker = ours(house, devices, origin, scheme, more)
        edge = harness.Server(worker, clients)
        first = lambda: curl("--header", "Host: localhost", f"{edge.url}/hello") == b"hello\n"
        until(first, "a request passes through HAProxy to our worker", process=worker)
        serves(house, edge, f"haproxy-edge-{what}", clients)
        worker.end()


def main():
    binary, version = haproxy()
    if binary is None:
        print(f"!! NOT RUN: haproxy.py: {version}", flush=True)
        sys.exit(77)
    with SecureHouse(__file__, seconds_max=120) as house:
        say(version)
        house.issue("device", "device.internal", usage="clientAuth")
        plain, secure, h2c, mutual_h2c = (free_port() for _ in range(4))
        own = 'origins = ["http://localhost"]\nlinks_max = 8'
        digest = hashlib.sha256(b"nobody presents it").hexdigest()
        edge = house.edge(
            cores=2,
            more=f"""
[[listen]]
address = "127.0.0.1:{plain}"
accept = ["haproxy-workers"]
credential = "device"
[[credential]]
id = "device"
secret_hash = "sha256:{digest}"
{own}
[[listen]]
address = "127.0.0.1:{h2c}"
accept = ["clients"]
h2c = true
""",
        )
        origin = house.origin()
        first = device(house, binary, plain, origin, connections=2)
        links(edge, 2, first)
        serves(house, edge, "plain", h2c)

        first.kill()
        first.wait()
        until(lambda: not status(edge)["links"], "the links of a killed device are gone")
        second = device(house, binary, plain, origin, connections=1)
        links(edge, 1, second)
        check(asks(edge, "/hello") == b"hello\n", "another device serves")
        say("a device that is killed loses its links, and another one serves")
        second.end()

        authority = house.authority()
        entry = house.issue("localhost", "localhost").replace(" }", f', worker_ca = "{authority}" }}')
        mutual = house.edge(
            cores=2,
            more=f"""
[[listen]]
address = "127.0.0.1:{secure}"
accept = ["haproxy-workers"]
tls = {entry}
[[credential]]
id = "device"
certificate_name = "device.internal"
{own}
[[listen]]
address = "127.0.0.1:{mutual_h2c}"
accept = ["clients"]
h2c = true
""",
        )
        with open(house.path("device-both.pem"), "w") as both:
            for part in ("device.pem", "device.key"):
                with open(house.path(part)) as file:
                    both.write(file.read())
        tls = f"ssl verify required ca-file {authority} alpn h2 sni str(localhost)"
        known = device(house, binary, secure, origin, 2, f"{tls} crt {house.path('device-both.pem')}")
        links(mutual, 2, known)
        serves(house, mutual, "mutual-tls", mutual_h2c)
        known.end()
        until(lambda: not status(mutual)["links"], "a device that ends takes its links along")
        device(house, binary, secure, origin, 1, tls)
        refused = lambda: status(mutual)["counters"]["setups_refused"]["unauthorized"] > 0
        until(refused, "a device without a certificate is refused")
        check(not status(mutual)["links"], "and has no link")
        say("a device without a certificate is nobody")

        third = device(house, binary, plain, origin, connections=2)
        links(edge, 2, third)
        check(edge.process.end(20) == 0, "an edge with a device drains and ends")
        say("an edge with a device drains and ends with 0")
        as_an_edge(house, binary, origin)


main()
