#!/usr/bin/env python3
"""A worker behind a firewall that lets nothing in, and an edge that moves: two network namespaces of this test's own, with nftables on
the worker's side that drop every connection from outside, and a DNS server whose answer changes. A link whose packets are dropped is
found within two ping intervals, and what had not been answered is served elsewhere. Needs root, ip(8) and nft(8)."""

import concurrent.futures
import contextlib
import ctypes
import hashlib
import http.client
import json
import os
import secrets
import socket
import struct
import subprocess
import sys
import threading
import time

from harness import House, binary, check, say, until

EDGE, WORKER = f"ptth-e{os.getpid()}", f"ptth-w{os.getpid()}"
# The edge's two addresses, one after the other, and the worker's.
FIRST, SECOND, INSIDE = "10.213.0.1", "10.213.0.3", "10.213.0.2"
TTL_S = 2
PING_S = 10


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    check(done.returncode == 0, f"{' '.join(command)}: {done.stderr}")
    return done.stdout


def inside(namespace, *command):
    return ["ip", "netns", "exec", namespace, *command]


@contextlib.contextmanager
def networks():
    """Two namespaces with one cable, and the worker's firewall: nothing comes in that did not go out first."""
    try:
        for name in (EDGE, WORKER):
            run("ip", "netns", "add", name)
            run(*inside(name, "ip", "link", "set", "lo", "up"))
        run("ip", "link", "add", "ptth-e", "netns", EDGE, "type", "veth", "peer", "name", "ptth-w", "netns", WORKER)
        for name, device, addresses in ((EDGE, "ptth-e", (FIRST, SECOND)), (WORKER, "ptth-w", (INSIDE,))):
            for address in addresses:
                run(*inside(name, "ip", "address", "add", f"{address}/24", "dev", device))
            run(*inside(name, "ip", "link", "set", device, "up"))
        rules = (
            "table inet ptth { chain in { type filter hook input priority 0; policy drop; iif lo accept; "
            "ct state established,related accept; }; chain out { type filter hook output priority 0; policy accept; }; }"
        )
        run(*inside(WORKER, "nft", rules))
        yield
    finally:
        for name in (EDGE, WORKER):
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


class Names(threading.Thread):
    """A DNS server in the edge's namespace that knows one name and has one address for it."""

    def __init__(self):
        super().__init__(daemon=True)
        self.address = FIRST
        self.socket = None

    def run(self):
        while True:
            query, peer = self.socket.recvfrom(512)
            end = query.index(b"\0", 12) + 5
            (kind,) = struct.unpack("!H", query[end - 4:end - 2])
            answers = 1 if kind == 1 else 0
            head = query[:2] + struct.pack("!HHHHH", 0x8580, 1, answers, 0, 0)
            record = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, TTL_S, 4) + socket.inet_aton(self.address)
            self.socket.sendto(head + query[12:end] + record * answers, peer)


def in_namespace(name, act):
    """Runs `act` on a thread that has entered the namespace; sockets that it opens stay there."""

    def enter():
        with open(f"/var/run/netns/{name}") as file:
            check(ctypes.CDLL(None, use_errno=True).setns(file.fileno(), 0x40000000) == 0, "setns is refused")  # CLONE_NEWNET
        return act()

    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        return thread.submit(enter).result()


def ask(port, path="/", method="GET", timeout=60):
    def act():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
        connection.request(method, path, headers={"Host": "localhost"})
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text

    return in_namespace(EDGE, act)


def links():
    return json.loads(ask(9090, "/status")[1])["links"]


def linked_to():
    """The edge's own addresses on which links stand."""
    sockets = run(*inside(EDGE, "ss", "-Htn", "state", "established", "sport", "=", ":8443"))
    return {line.split()[2].rsplit(":", 1)[0] for line in sockets.splitlines()}


def connects(address, port):
    with contextlib.closing(socket.socket()) as client:
        client.settimeout(1)
        return client.connect_ex((address, port)) == 0


def worker(house, namespace, edge, credential_file):
    """A worker and its server, both in the namespace."""
    server = os.path.join(os.path.dirname(os.path.abspath(__file__)), "elastic.py")
    port = {EDGE: 3001, WORKER: 3000}[namespace]
    house.start("origin", inside(namespace, sys.executable, server, "--origin", str(port)))
    until(lambda: in_namespace(namespace, lambda: connects("127.0.0.1", port)), "the server listens")
    arguments = ["--edge", edge, "--serve", "http://localhost", "--to", f"http://127.0.0.1:{port}", "--links", "1"]
    return house.start("worker", inside(namespace, binary(), "worker", *arguments, "--credential-file", credential_file))


def main(house):
    secret = secrets.token_urlsafe(32)
    credential = house.write("web-1.secret", f"web-1:{secret}\n")
    config = house.write("edge.toml", f"""
[edge]
cores = 1
[[listen]]
address = "0.0.0.0:8443"
accept = ["clients", "workers"]
[admin]
address = "127.0.0.1:9090"
[[pool]]
name = "app"
origins = ["*"]
[[credential]]
id = "web-1"
secret_hash = "sha256:{hashlib.sha256(secret.encode()).hexdigest()}"
origins = ["*"]
""")
    names = Names()
    names.socket = in_namespace(EDGE, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    names.socket.bind((FIRST, 53))
    names.start()
    os.makedirs(f"/etc/netns/{WORKER}", exist_ok=True)
    with open(f"/etc/netns/{WORKER}/resolv.conf", "w") as file:
        file.write(f"nameserver {FIRST}\noptions timeout:1 attempts:3\n")
    house.start("edge", inside(EDGE, binary(), "edge", "--config", config))
    worker(house, WORKER, "http://edge.test:8443", credential)

    def is_linked():
        with contextlib.suppress(OSError):
            return len(links()) == 1
        return False

    until(is_linked, "the worker behind its firewall has a link")
    check(linked_to() == {FIRST}, f"links stand on {linked_to()}")
    check(ask(8443) == (200, "ok"), "a request does not reach the hidden server")

    check(not in_namespace(EDGE, lambda: connects(INSIDE, 3000)), "the firewall lets somebody in")
    say("a hidden server is served, and nobody can connect to it")

    began = time.monotonic()
    names.address = SECOND
    until(lambda: SECOND in linked_to(), "a link to the edge's new address")
    took = time.monotonic() - began
    check(took <= TTL_S + 5, f"the worker came to the new address after {took:.1f} s")
    until(lambda: linked_to() == {SECOND}, "the link to the old address ends")
    check(ask(8443) == (200, "ok"), "a request does not reach the server after the move")
    say(f"the worker followed the edge's name {took:.1f} s after it had moved (TTL {TTL_S} s)")

    # A second worker beside the edge, and the first one's packets are dropped, without a word.
    worker(house, EDGE, "http://127.0.0.1:8443", credential)
    until(lambda: len(links()) == 2, "both workers have a link")
    for hook in ("in", "out"):
        run(*inside(WORKER, "nft", "insert", "rule", "inet", "ptth", hook, "oif" if hook == "out" else "iif", "ptth-w", "drop"))
    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(40) as clients:
        answers = list(clients.map(lambda _: ask(8443), range(40)))
    check(answers == [(200, "ok")] * 40, f"behind a black hole: {set(answers)}")
    took = time.monotonic() - began
    until(lambda: len(links()) == 1, "the link into the black hole is given up")
    # A whole interval has to pass in silence; a tick and the requests' own time come on top.
    check(took < 2 * PING_S + 5, f"the black hole was found after {took:.1f} s")
    say(f"40 requests beside a black hole: all answered, the last after {took:.1f} s")


with House(__file__, seconds_max=150) as house, networks():
    try:
        main(house)
    finally:
        for process in reversed(house.processes):
            process.end(3)
        with contextlib.suppress(OSError):
            os.remove(f"/etc/netns/{WORKER}/resolv.conf")
            os.rmdir(f"/etc/netns/{WORKER}")
