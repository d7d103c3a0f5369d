#!/usr/bin/env python3
"""What an access log costs, also where nobody reads it, and what a scrape of /metrics and an open page cost.

    python3 benches/access_log.py [--edge target/release/ptth] [--before FILE] [--rounds 3] [--seconds 3] [--links 1]
                                  [own whole scrape page]

The edge has CPU 1; wrk, the worker and nginx have CPU 0; the log's thread goes where the kernel puts it. Variants take turns in each
round, each with an edge of its own: no log, JSON into a file, JSON into a FIFO whose reader does not read. `own`: the edge answers
(404), so that there are as many lines a second as it can make. `whole`: through a worker to nginx. `scrape`: no log, with and
without a scrape of /metrics each second. `page`: no log, with nobody, one and ten who read /events, as a page that is open does.

Printed are medians over the rounds, with the lowest and the highest: requests a second; latency as wrk saw it, in ms; CPU of the
core's thread and of the log's thread for each request, in us; lines that were written and lost; for `page`, CPU of the core's thread
in a second without requests, in us. Every request is answered and every line is written or counted as lost, or the script fails."""

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "interop"))
from harness import House, check, get, status, until  # noqa: E402

LUA = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('RESULT {"requests": %d, "us": %d, "errors": %d, "p50": %.3f, "p99": %.3f, "p99.9": %.3f, "max": %.3f}\\n',
    summary.requests, summary.duration, e.connect + e.read + e.write + e.timeout,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000, latency:percentile(99.9) / 1000, latency.max / 1000))
end
"""


def cpu_ns(pid):
    """By the names of its threads."""
    spent = {}
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/comm") as comm, open(f"/proc/{pid}/task/{task}/schedstat") as stat:
            name = comm.read().strip()
            spent[name] = spent.get(name, 0) + int(stat.read().split()[0])
    return spent


class Scraper(threading.Thread):
    """Asks for /metrics each second."""

    def __init__(self, admin):
        super().__init__(daemon=True)
        self.admin, self.is_over, self.count = admin, threading.Event(), 0

    def run(self):
        while not self.is_over.wait(1):
            get(self.admin, "/metrics")
            self.count += 1


class Reader(threading.Thread):
    """Reads /events, and counts them."""

    def __init__(self, admin):
        super().__init__(daemon=True)
        self.count = 0
        self.stream = socket.create_connection(("127.0.0.1", admin))
        self.stream.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.start()

    def run(self):
        while piece := self.stream.recv(1 << 20):
            self.count += piece.count(b"data: ")


READERS = {"read": 1, "read10": 10}


def run(house, variant, part, options):
    whole = part != "own"
    seconds, connections = options.seconds, options.connections
    tables, reader = "", None
    log = house.path(f"access-{time.monotonic_ns()}.log")
    if variant == "stalled":
        os.mkfifo(log)
        reader = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
    if variant in ("file", "stalled"):
        tables = f'[access_log]\nfile = "{log}"\n'
    os.sched_setaffinity(0, {0, 1})
    os.environ["PTTH_BIN"] = options.before if variant == "before" else options.edge
    edge = house.edge(cores="[1]", pool='paths = ["/hello"]', more=tables)
    processes = [edge.process]
    os.sched_setaffinity(0, {0})  # for whatever is started from here on
    path = "/none"
    if whole:
        os.makedirs(house.path("www"), exist_ok=True)
        origin = house.nginx(house.path("www"))
        processes += [house.worker(edge, to=origin.url, links=options.links, concurrency=128), origin.process]
        path = "/hello"
    command = ["wrk", "-t1", f"-c{connections}", "-s", house.write("done.lua", LUA)]
    url = f"http://127.0.0.1:{edge.port}{path}"
    subprocess.run([*command, "-d1s", url], check=True, capture_output=True)  # warm
    counted_before = answered(edge)
    scraper = Scraper(edge.admin) if variant == "scraped" else None
    if scraper:
        scraper.start()
    readers = [Reader(edge.admin) for _ in range(READERS.get(variant, 0))]
    before = cpu_ns(edge.process.pid)
    told = subprocess.run([*command, f"-d{seconds}s", url], check=True, capture_output=True, text=True).stdout
    after = cpu_ns(edge.process.pid)
    if scraper:
        scraper.is_over.set()
        scraper.join()
        check(scraper.count >= seconds - 1, f"{scraper.count} scrapes in {seconds} s")
    check(all(reader.count >= seconds - 1 for reader in readers), "a reader of events does not get them")
    result = json.loads(told.split("RESULT ", 1)[1])
    check(result["errors"] == 0, f"{variant}: wrk had {result['errors']} errors\n{told}")
    # What wrk left under way at its end was answered, too.
    requests = answered(edge) - counted_before
    check(requests >= result["requests"], f"{variant}: {requests} counted, {result['requests']} answered")
    result["rps"] = result["requests"] / result["us"] * 1e6
    for name, threads in (("core", ["core-0"]), ("log", ["access-log"])):
        result[name] = sum(after.get(t, 0) - before.get(t, 0) for t in threads) / requests / 1000
    if part == "page":
        before = cpu_ns(edge.process.pid)
        time.sleep(seconds)
        result["idle"] = (cpu_ns(edge.process.pid)["core-0"] - before["core-0"]) / seconds / 1000
    counters = status(edge)["counters"]
    if variant in ("file", "stalled"):
        text = bytearray()

        def read():
            with contextlib.suppress(BlockingIOError):
                while reader is not None and (piece := os.read(reader, 1 << 20)):
                    text.extend(piece)

        def balanced():
            read()  # finally
            now = status(edge)["counters"]
            lost = sum(now["access_log_dropped_lines"].values())
            return now["access_log_lines"] + lost == answered(edge) and now

        counters = until(balanced, "every request has its line, or is counted as lost", process=edge.process)
        read()
        lines = text.count(b"\n") if reader is not None else sum(1 for _ in open(log, "rb"))
        check(lines == counters["access_log_lines"], f"{lines} lines, {counters['access_log_lines']} counted")
    result["lines"] = counters.get("access_log_lines", 0)
    result["lost"] = sum(counters.get("access_log_dropped_lines", {}).values())
    for process in reversed(processes):
        process.end()
    if reader is not None:
        os.close(reader)
    elif os.path.exists(log):
        os.unlink(log)
    return result


def answered(edge):
    now = status(edge)
    pools = [pool["counters"]["requests"] for pool in now["pools"]]
    return sum(sum(counts.values()) for counts in [*pools, now["counters"]["unrouted_requests"]])


COLUMNS = ["rps", "p50", "p99", "p99.9", "max", "core", "log", "lines", "lost"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edge", default=os.path.join(ROOT, "target", "release", "ptth"))
    parser.add_argument("--before", help="another build, without a log, in turns with the others")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--links", type=int, default=1)
    parser.add_argument("parts", nargs="*", default=["own", "whole", "scrape"])
    options = parser.parse_args()
    variants = {"own": ["off", "file", "stalled"], "whole": ["off", "file", "stalled"], "scrape": ["off", "scraped"]}
    variants["page"] = ["off", *READERS]
    if options.before:
        variants["own"].insert(0, "before")
        variants["whole"].insert(0, "before")
    with House(__file__, seconds_max=900) as house:
        for part in options.parts:
            results = {variant: [] for variant in variants[part]}
            for turn in range(options.rounds):
                order = variants[part] if turn % 2 == 0 else variants[part][::-1]
                for variant in order:
                    results[variant].append(run(house, variant, part, options))
            print(f"{part}, {options.rounds} rounds of {options.seconds} s, {options.connections} connections")
            columns = [*COLUMNS, "idle"] if part == "page" else COLUMNS
            print(f"{'':10}" + "".join(f"{column:>30}" for column in columns))
            for variant, runs in results.items():
                cells = []
                for column in columns:
                    values = [one[column] for one in runs]
                    digits = 0 if column in ("rps", "lines", "lost") else 3
                    low, mid, high = (f"{v:.{digits}f}" for v in (min(values), statistics.median(values), max(values)))
                    cells.append(f"{mid} ({low} to {high})")
                print(f"{variant:10}" + "".join(f"{cell:>30}" for cell in cells), flush=True)


main()
