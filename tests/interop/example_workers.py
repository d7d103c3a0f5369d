#!/usr/bin/env python3
"""The workers of examples/workers: programs in other languages that are workers by themselves. Each serves through an edge on one
core and on two, and comes back when its link is lost. One whose language is not here is said so, and not run."""

import concurrent.futures
import http.client
import importlib.util
import os
import shutil
import subprocess
import sys

from harness import HERE, House, check, kill_sockets, say, status

WORKERS = os.path.join(HERE, "..", "..", "examples", "workers")


def commands(house):
    """Name, protocol and command of every worker that can run here."""
    check(shutil.which("node"), "no node: apt-get install nodejs")
    yield "node", "h2", ["node", os.path.join(WORKERS, "worker.js")]
    if importlib.util.find_spec("h2"):
        yield "python", "h2", [sys.executable, os.path.join(WORKERS, "worker.py")]
    else:
        print("!! NOT RUN: worker.py, the h2 package is not here", flush=True)
    if shutil.which("go"):
        program = house.path("worker-go")
        build = ["go", "build", "-o", program, os.path.join(WORKERS, "worker.go")]
        subprocess.run(build, check=True, env={**os.environ, "GO111MODULE": "off"})
        yield "go", "http/1.1", [program]
    else:
        print("!! NOT RUN: worker.go, Go is not here", flush=True)


def ask(edge, method, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", edge.port, timeout=10)
    connection.request(method, path, body, {"Host": "app.example"})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


with House(__file__, seconds_max=120) as house:
    for name, protocol, command in commands(house):
        for cores in (1, 2):
            edge = house.edge(cores)
            worker = house.start(name, [*command, f"127.0.0.1:{edge.port}", "http://app.example", edge.credential_file])
            house.until_links(edge, 1, worker)
            link = status(edge)["links"][0]
            check(link["protocol"] == protocol, f"{name} is on a link over {link['protocol']}")
            with concurrent.futures.ThreadPoolExecutor(20) as clients:
                answers = list(clients.map(lambda n: ask(edge, "GET", f"/{n}?a=b"), range(100)))
            check(answers == [(200, f"GET /{n}?a=b \n") for n in range(100)], f"{name}: {answers[:3]}")
            body = "x" * 50_000
            check(ask(edge, "POST", "/", body) == (200, f"POST / {body}\n"), f"{name}: a body did not arrive")
            kill_sockets(edge, link["address"])
            check(ask(edge, "GET", "/after") == (200, "GET /after \n"), f"{name} did not come back")
            worker.kill()
            worker.wait()
        say(f"{name}: 100 requests, a body, and a link that was lost, on one core and on two")
