"""One client that reads 64 KiB/s beside 50 others, on one core, from core to core, and over the same link: the 50 must
not notice. Fails on a gross difference only; the figures are printed."""

import asyncio
import os
import socket
import threading
import time

from harness import Failed, House, Peak, check, dispatches, far_connection, percentile, say, write_numbered

CLIENTS = 50
PACE_S = 0.05  # each client asks 20 times a second
ROUND_S = 4
SLOW_BYTES_PER_S = 64 << 10
FACTOR_MAX, DIFFERENCE_MS_MAX = 3, 20
REQUEST = b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def client(port, number, until, times):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await asyncio.sleep(PACE_S * number / CLIENTS)
    while time.monotonic() < until:
        began = time.monotonic()
        writer.write(REQUEST)
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(6)
        times.append((time.monotonic() - began) * 1000)
        check(head.startswith(b"HTTP/1.1 200") and body == b"hello\n", f"one of the 50 got {head[:40]!r}")
        await asyncio.sleep(max(0, PACE_S - (time.monotonic() - began)))
    writer.close()


def round_of(port):
    async def all_clients():
        until = time.monotonic() + ROUND_S
        await asyncio.gather(*(client(port, number, until, times) for number in range(CLIENTS)))

    times = []
    asyncio.run(all_clients())
    check(len(times) > CLIENTS * ROUND_S / PACE_S / 2, f"only {len(times)} requests in {ROUND_S} s")
    return times


class SlowReader(threading.Thread):
    """Takes a large file at its pace, through a small receive buffer, until it is told to leave."""

    def __init__(self, connect):
        super().__init__(daemon=True)
        self.leaves = threading.Event()
        self.read = 0
        self.socket = connect()
        self.socket.sendall(b"GET /big.bin HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.start()

    def run(self):
        while not self.leaves.wait(0.05):
            piece = self.socket.recv(SLOW_BYTES_PER_S // 20)
            if not piece:
                return
            self.read += len(piece)

    def leave(self):
        self.leaves.set()
        self.join()
        self.socket.close()
        check(self.read > SLOW_BYTES_PER_S * ROUND_S / 2, f"the slow reader got {self.read} bytes only")


def near(edge):
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 << 10)
    slow.connect(("127.0.0.1", edge.port))
    return slow


def far(edge):
    return far_connection(edge).sock


def beside(edge, worker, connect, what):
    """Rounds without and with, twice, in turns: figures of a machine that drifts are compared in pairs only."""
    without, beside_it = [], []
    round_of(edge.port)  # warms up
    with Peak(edge.process, worker) as peak:
        for _ in range(2):
            without += round_of(edge.port)
            slow = SlowReader(lambda: connect(edge))
            time.sleep(1)  # fills every buffer on the way
            beside_it += round_of(edge.port)
            slow.leave()
    for part, name in ((0.5, "p50"), (0.99, "p99")):
        say(f"{what}: {name} {percentile(without, part):.2f} ms, beside the slow one {percentile(beside_it, part):.2f} ms")
    peak.check(32, what)
    a, b = percentile(without, 0.99), percentile(beside_it, 0.99)
    if b > FACTOR_MAX * a and b - a > DIFFERENCE_MS_MAX:
        raise Failed(f"{what}: p99 {a:.2f} ms without and {b:.2f} ms beside a slow reader")


with House(__file__, seconds_max=180) as house:
    root = house.path("www")
    os.mkdir(root, 0o755)
    write_numbered(os.path.join(root, "big.bin"), 128)
    nginx = house.nginx(root)

    edge = house.edge(cores=1)
    worker = house.worker(edge, nginx.url)
    beside(edge, worker, near, "1 core")
    check(worker.end() == 0 and edge.process.end() == 0, "the slow reader has left: SIGTERM, exit 0")

    edge = house.edge(cores=2)
    worker = house.worker(edge, nginx.url)
    beside(edge, worker, far, "from core to core")
    check(dispatches(edge, "cross") > 0, "nothing went from core to core")
    check(worker.end() == 0 and edge.process.end() == 0, "the slow reader has left: SIGTERM, exit 0")
