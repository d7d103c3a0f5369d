#!/usr/bin/env python3
"""Workers come and go under load: 2, 8, 3, 5 and 2 again, by SIGTERM and by SIGKILL, while 200 clients ask on (open loop, Poisson). No
request fails where workers end cleanly; where they are killed only what was sent already and is not safe to repeat (502), and
what was half answered (a cut, at most one for each of them). New workers carry load within a second. ROUNDS (default 1) times each way; the full form is ROUNDS=20."""

import asyncio
import os
import random
import sys
import time

from harness import House, binary, check, free_port, say, status, until

CLIENTS = 200
SERVICE_S = 0.05
CONCURRENCY = 16
# 70 % of what two workers can do.
RATE = 0.7 * 2 * CONCURRENCY / SERVICE_S
STEPS = [8, 3, 5, 2]
STEP_S = 1.0
POSTS = 0.1


async def origin(port):
    """Answers everything after SERVICE_S, as long as its client stays."""

    async def serve(reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if b"\r\ncontent-length: 4\r\n" in head.lower():
                    await reader.readexactly(4)
                await asyncio.sleep(SERVICE_S)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    await server.serve_forever()


class Clients:
    """Each has one connection, and is lent to one request at a time; a request that finds none makes one more."""

    def __init__(self, port):
        self.port, self.idle, self.results, self.running = port, [], [], set()

    def kept(self):
        """A connection that the edge has not ended: those that nobody needs for a minute are (`idle_max_wait`)."""
        while self.idle:
            reader, writer = self.idle.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()
        return None

    async def one(self, method):
        status = broke = None
        connection = self.kept() or await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = connection
        try:
            body = "post" if method == "POST" else ""
            length = f"Content-Length: {len(body)}\r\n" if body else ""
            writer.write(f"{method} / HTTP/1.1\r\nHost: localhost\r\n{length}\r\n{body}".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
            await reader.readexactly(int(fields[b"content-length"]))
            status = int(head.split()[1])
            self.idle.append(connection)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            writer.close()
            broke = error
        self.results.append((method, status, broke))

    async def load(self, ends):
        due = time.monotonic()
        while not ends.is_set():
            due += random.expovariate(RATE)
            await asyncio.sleep(max(0, due - time.monotonic()))
            task = asyncio.create_task(self.one("POST" if random.random() < POSTS else "GET"))
            self.running.add(task)
            task.add_done_callback(self.running.discard)
        if self.running:
            await asyncio.wait(self.running, timeout=20)


def carries(edge, workers):
    """There are so many links, and each has something to do."""
    links = status(edge)["links"]
    return len(links) == workers and all(link["in_flight"] > 0 for link in links)


async def rounds(house, edge, to, kills, count):
    clients, ends = Clients(edge.port), asyncio.Event()
    workers = [await asyncio.to_thread(house.worker, edge, to, 1, CONCURRENCY) for _ in range(2)]
    clients.idle = [await asyncio.open_connection("127.0.0.1", edge.port) for _ in range(CLIENTS)]
    load = asyncio.create_task(clients.load(ends))
    slowest = 0.0
    for _ in range(count):
        for wanted in STEPS:
            began = time.monotonic()
            if wanted > len(workers):
                arguments = ["--edge", edge.url, "--serve", "http://localhost", "--to", to, "--links", "1"]
                arguments += ["--credential-file", edge.credential_file, "--concurrency", str(CONCURRENCY)]
                workers += [house.start("worker", [binary(), "worker", *arguments]) for _ in range(wanted - len(workers))]
                await asyncio.to_thread(until, lambda: carries(edge, wanted), f"{wanted} workers carry load")
                slowest = max(slowest, time.monotonic() - began)
            else:
                for worker in workers[wanted:]:
                    worker.kill() if kills else worker.terminate()
                gone, workers = workers[wanted:], workers[:wanted]
                for worker in gone:
                    await asyncio.to_thread(worker.wait)
            await asyncio.sleep(max(0, began + STEP_S - time.monotonic()))
    ends.set()
    await load
    for worker in workers:
        worker.terminate()
        await asyncio.to_thread(worker.wait)
    await asyncio.to_thread(house.until_links, edge, 0)
    return clients.results, slowest


def main():
    if sys.argv[1:2] == ["--origin"]:
        asyncio.run(origin(int(sys.argv[2])))
        return
    count = int(os.environ.get("ROUNDS", 1))
    with House(__file__, seconds_max=60 + count * 30) as house:
        port = free_port()
        house.start("origin", [sys.executable, os.path.abspath(__file__), "--origin", str(port)])
        edge = house.edge(2)
        for kills in (False, True):
            results, slowest = asyncio.run(rounds(house, edge, f"http://127.0.0.1:{port}", kills, count))
            failed = [result for result in results if result[1] != 200]
            way = "SIGKILL" if kills else "SIGTERM"
            if kills:
                cuts = [result for result in failed if result[1] is None]
                wrong = [result for result in failed if result[1] is not None and result[:2] != ("POST", 502)]
                killed = count * sum(max(0, before - after) for before, after in zip([2, *STEPS], STEPS))
                check(len(cuts) <= killed, f"{way}: {len(cuts)} cuts by {killed} workers that were killed: {cuts[:5]}")
                check(not wrong, f"{way}: {len(wrong)} of {len(results)} failed that should not: {wrong[:5]}")
            else:
                check(not failed, f"{way}: {len(failed)} of {len(results)} failed: {failed[:5]}")
            check(slowest < 1, f"{way}: new workers carried load after {slowest:.2f} s")
            say(f"{count} times {STEPS} by {way}: {len(results)} requests, {len(failed)} failed; new workers carried load after "
                f"{slowest * 1000:.0f} ms at most")


main()
