"""A link dies under 100 requests, by `ss -K` on its socket or by kill -9 of its worker: every client gets one answer, what
had not been sent is served by another worker, and nothing that could have had an effect is sent twice."""

import collections
import socket
import threading
import time

from harness import Failed, House, check, kill_sockets, relay_worker, say, status, until

REQUESTS = 100
SLOW_MS = 600
ANSWER_S_MAX = 20
# What is sent, whether it is safe to send again, and how much body it has. 200 KiB is more than the edge keeps.
KINDS = (("GET", True, 0), ("POST", False, 100), ("PUT", True, 100), ("PUT", False, 200 << 10))


class Request(threading.Thread):
    def __init__(self, edge, number):
        super().__init__(daemon=True)
        self.port, self.id = edge.port, f"r{number}"
        self.method, self.is_safe, self.body_bytes = KINDS[number % len(KINDS)]
        self.answer, self.error, self.took_s = b"", None, None
        self.start()

    def run(self):
        began = time.monotonic()
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=ANSWER_S_MAX) as client:
                head = f"{self.method} /slow?ms={SLOW_MS}&id={self.id} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                if self.body_bytes:
                    head += f"Content-Length: {self.body_bytes}\r\n"
                client.sendall(head.encode() + b"\r\n" + b"x" * self.body_bytes)
                while piece := client.recv(1 << 16):
                    self.answer += piece
        except OSError as error:
            self.error = error
        self.took_s = time.monotonic() - began

    def status(self):
        """Of the one answer; anything but one whole answer fails."""
        self.join(ANSWER_S_MAX + 5)
        check(not self.is_alive(), f"{self.id} {self.method} hangs")
        check(self.error is None, f"{self.id} {self.method}: {self.error}, after {self.answer!r}")
        check(self.answer.count(b"HTTP/1.1 ") == 1, f"{self.id} {self.method} got {self.answer!r}")
        head, _, body = self.answer.partition(b"\r\n\r\n")
        code = int(head.split()[1])
        if code == 200:
            check(body == f"slow {self.id}\n".encode(), f"{self.id} got the body {body!r}")
        elif code == 502:
            check(b"error=connection_terminated" in head, f"{self.id}: a 502 without its reason: {head!r}")
        else:
            raise Failed(f"{self.id} {self.method} got {self.answer!r}")
        return code


def losing(house, edge, origin, lose, in_flight, lost, what):
    """Sends 100 requests, waits until the links are full, lets `lose` break some of them, looks at every answer."""
    before = len(origin.requests())
    requests = [Request(edge, number) for number in range(REQUESTS)]

    def full():
        now = status(edge)
        running = sum(link["in_flight"] for link in now["links"])
        return running == in_flight and now["pools"][0]["queued"] == REQUESTS - in_flight

    until(full, f"{what}: {in_flight} requests run and the others wait", seconds=5)
    until(lambda: len(origin.requests()) - before >= in_flight, f"{what}: the origin has what runs", seconds=5)
    lose()
    codes = [request.status() for request in requests]
    refused = [request for request, code in zip(requests, codes) if code == 502]
    for request in refused:
        check(not request.is_safe, f"{what}: {request.id} {request.method} could have been sent again, and got a 502")
    check(0 < len(refused) <= lost, f"{what}: {len(refused)} answers of 502 for {lost} lost requests")

    seen = collections.Counter(line.split()[0] for line in origin.requests()[before:])
    for request, code in zip(requests, codes):
        times = seen[request.id]
        check(code != 200 or times >= 1, f"{what}: {request.id} was answered and never arrived")
        check(request.is_safe or times <= 1, f"{what}: {request.id} {request.method} arrived {times} times")
        check(times <= 3, f"{what}: {request.id} arrived {times} times")
    again = sum(1 for request in requests if seen[request.id] > 1)
    slowest = max(request.took_s for request in requests)
    say(f"{what}: {codes.count(200)} answers of 200, {again} of them sent again, {len(refused)} of 502; slowest {slowest:.1f} s")
    until(lambda: status(edge)["pools"][0]["queued"] == 0, f"{what}: the queue is empty at the end", seconds=2)
    until(lambda: status(edge)["pools"][0]["in_flight"] == 0, f"{what}: every credit came back", seconds=5)


with House(__file__, seconds_max=150) as house:
    origin = house.origin()
    for cores in (1, 2):
        def h2_links():
            edge = house.edge(cores)
            return edge, [house.worker(edge, origin.url, concurrency=40) for _ in range(2)]

        edge, workers = h2_links()
        address = status(edge)["links"][0]["address"]
        losing(house, edge, origin, lambda: kill_sockets(edge, address), 80, 40, f"ss -K, h2, {cores} cores")
        house.until_links(edge, 2)  # the worker has come back
        losing(house, edge, origin, workers[0].kill, 80, 40, f"kill -9, h2, {cores} cores")
        for process in (workers[1], edge.process):
            check(process.end() == 0, f"{process.name}: SIGTERM, exit 0")

        edge = house.edge(cores)
        links = [relay_worker(edge, origin.port) for _ in range(40)]
        house.until_links(edge, 40)

        def half():
            for address in links[:20]:
                kill_sockets(edge, address)

        losing(house, edge, origin, half, 40, 20, f"ss -K, 20 HTTP/1.1 links of 40, {cores} cores")
        check(edge.process.end() == 0, "the edge: SIGTERM, exit 0")
