"""SIGTERM under load: workers one after another, then the edge. No request fails, what runs is finished, exit code 0."""

import http.client
import itertools
import subprocess
import threading
import time

from harness import Failed, House, binary, check, far_connection, say, status

KEPT, FRESH = 16, 4  # clients that keep their connection, and those that open one for each request
LONG_MS = 2500
_numbers = itertools.count()


class Load:
    """Clients that ask without a pause. Ended when all have left."""

    def __init__(self, edge, origin):
        self.edge, self.origin = edge, origin
        self.good, self.failed, self.untouched = 0, [], []
        self.lock, self.leaves = threading.Lock(), threading.Event()
        kinds = [True] * KEPT + [False] * FRESH
        self.threads = [threading.Thread(target=self.client, args=(n, kept)) for n, kept in enumerate(kinds)]
        for thread in self.threads:
            thread.daemon = True
            thread.start()

    def client(self, number, keeps):
        connection = None
        while not self.leaves.is_set():
            name = f"n{next(_numbers)}"
            body = b"x" * 5000 if number % 2 else None
            method = "POST" if body else "GET"
            if connection is None:
                connection = http.client.HTTPConnection("127.0.0.1", self.edge.port, timeout=15)
                try:
                    connection.connect()
                except ConnectionError:
                    return  # the edge no longer listens
            fields = {"Host": "localhost"} | ({} if keeps else {"Connection": "close"})
            try:
                connection.request(method, f"/slow?ms={number % 4 * 10}&id={name}", body, fields)
                answer = connection.getresponse()
                whole = (answer.status, answer.read()) == (200, f"slow {name}\n".encode())
            except (http.client.RemoteDisconnected, ConnectionError) as error:
                # Closed without a byte: fair only for a request that the edge has not taken (RFC 9112 §9.3.1).
                with self.lock:
                    self.untouched.append((name, error))
                connection = None
                continue
            except (http.client.HTTPException, OSError) as error:
                with self.lock:
                    self.failed.append(f"{method} {name}: {error!r}")
                return
            with self.lock:
                self.good += 1
                if not whole:
                    self.failed.append(f"{method} {name}: {answer.status}")
            if not keeps or answer.will_close:
                connection.close()
                connection = None

    def end(self, what):
        self.leaves.set()
        for thread in self.threads:
            thread.join(20)
            check(not thread.is_alive(), f"{what}: a client hangs")
        arrived = {line.split()[0] for line in self.origin.requests()}
        taken = [f"{name}: {error!r}" for name, error in self.untouched if name in arrived]
        failed = self.failed + taken
        if failed:
            raise Failed(f"{what}: {len(failed)} of {self.good} requests failed: {failed[:5]}")
        check(self.good > 100, f"{what}: {self.good} requests are no load")
        say(f"{what}: {self.good} requests answered, 0 failed; {len(self.untouched)} closed before they were taken")


class Long(threading.Thread):
    """A request that runs when the drain begins."""

    def __init__(self, connection, method, path, body, want):
        super().__init__(daemon=True)
        self.connection, self.ask, self.want, self.got = connection, (method, path, body), want, None
        self.start()

    def run(self):
        method, path, body = self.ask
        try:
            self.connection.request(method, path, body, {"Host": "localhost"}, encode_chunked=body is not None)
            answer = self.connection.getresponse()
            self.got = (answer.status, answer.read())
        except (http.client.HTTPException, OSError) as error:
            self.got = error

    def check(self, what):
        self.join(20)
        check(self.got == (200, self.want), f"{what}: {self.ask[:2]} that ran gave {self.got!r}")


def slow_pieces():
    for number in range(25):
        time.sleep(LONG_MS / 1000 / 25)
        yield b"%d " % number


def long_ones(connect):
    chunks = b"".join(b"chunk %d\n" % number for number in range(25))
    upload = b"".join(b"%d " % number for number in range(25))
    return [
        Long(connect(), "GET", f"/slow?ms={LONG_MS}&id=long", None, b"slow long\n"),
        Long(connect(), "GET", f"/chunks?n=25&ms={LONG_MS // 25}", None, chunks),
        Long(connect(), "POST", "/echo", slow_pieces(), upload),
    ]


def drained(process, end, what):
    began = time.monotonic()
    end()
    code = process.wait(25)
    check(code == 0, f"{what}: exit {code}\n{process.tail()}")
    return time.monotonic() - began


with House(__file__, seconds_max=150) as house:
    origin = house.origin()
    for cores in (1, 2):
        what = f"{cores} cores"
        edge = house.edge(cores)

        def connect():
            return http.client.HTTPConnection("127.0.0.1", edge.port, timeout=20)

        # Workers are replaced one after another, as in a rolling deployment.
        workers = [house.worker(edge, origin.url) for _ in range(2)]
        load = Load(edge, origin)
        time.sleep(1)
        longs = long_ones(connect)
        time.sleep(0.5)
        for worker in workers:
            took = drained(worker, worker.terminate, f"worker, {what}")
            say(f"worker, {what}: ended in {took:.1f} s")
            house.worker(edge, origin.url)
        time.sleep(0.5)
        for long in longs:
            long.check(f"worker, {what}")
        load.end(f"workers replaced, {what}")

        # The edge: by the signal, and by the command.
        load = Load(edge, origin)
        time.sleep(1)
        longs = long_ones(connect)
        time.sleep(0.5)

        def by_command():
            command = [binary(), "drain", "--admin", f"127.0.0.1:{edge.admin}"]
            subprocess.run(command, check=True, timeout=10, capture_output=True)

        took = drained(edge.process, edge.process.terminate if cores == 1 else by_command, f"edge, {what}")
        for long in longs:
            long.check(f"edge, {what}")
        load.end(f"edge drained, {what}")
        say(f"edge, {what}: ended in {took:.1f} s")
        check(LONG_MS / 1000 - 1 < took < 10, f"edge, {what}: the drain took {took:.1f} s")

    # On one link, requests that cross cores are finished, too.
    edge = house.edge(cores=2)
    worker = house.worker(edge, origin.url)
    longs = long_ones(lambda: far_connection(edge))
    time.sleep(0.5)
    check(status(edge)["pools"][0]["in_flight"] == 3, "three requests run")
    drained(edge.process, edge.process.terminate, "edge, from core to core")
    for long in longs:
        long.check("edge, from core to core")
    check(worker.end() == 0, "the worker without an edge: SIGTERM, exit 0")
    say("edge, from core to core: finished")
