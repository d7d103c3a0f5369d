"""Runs the commands of README.md's two machines in their order, on loopback: `sh once` blocks to their end, `sh stays`
blocks in the background until the script ends. Then each page of docs/ that has such blocks, against an edge and a worker
that README's blocks have started anew; they are found in EDGE_PID and WORKER_PID. Names and ports are replaced; nothing else
is changed."""

import contextlib
import glob
import json
import os
import re
import signal
import subprocess

from harness import ROOT, House, answers, binary, check, free_port, get, read_lines, say, until


def blocks(page):
    """(who runs it, the lines) of each fenced block of commands, in order."""
    with open(os.path.join(ROOT, page)) as file:
        return re.findall(r"^```(sh once|sh stays)\n(.*?)^```$", file.read(), re.MULTILINE | re.DOTALL)


def is_gone(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


class Machines:
    """README's two machines as one: its edge, its worker, and the server behind that."""

    def __init__(self, house):
        self.house = house
        self.origin = house.origin()
        self.port, self.admin = free_port(), free_port()
        # The server of the README answers at its root; ours does it below a path.
        self.replaced = {
            "edge.example:8080/": f"127.0.0.1:{self.port}/hello",
            "edge.example": "127.0.0.1",
            "0.0.0.0:8080": f"127.0.0.1:{self.port}",
            ":8080": f":{self.port}",
            ":9090": f":{self.admin}",
            "127.0.0.1:3000": f"127.0.0.1:{self.origin.port}",
            "curl ": "curl --silent --show-error --noproxy '*' --max-time 20 ",
        }
        self.place = dict(os.environ, PATH=os.path.dirname(binary()) + ":" + os.environ["PATH"])

    def pids(self):
        """What was started to stay: the edge, then the worker."""
        return [int(line) for line in read_lines(self.house.path("pids"))]

    def status(self):
        return json.loads(get(self.admin, "/status")[1])

    def links(self):
        return {link["id"] for link in self.status()["links"]}

    def reloads(self):
        return self.status()["counters"]["reloads"]

    def run(self, who, script):
        """What it printed."""
        first = script.splitlines()[0]
        for name, ours in self.replaced.items():
            script = script.replace(name, ours)
        if who == "sh stays":
            check(script.rstrip().endswith("&"), f"it stays, but not in the background: {first}")
            script += "\necho $! >> pids\n"
        shell = ["bash", "-euo", "pipefail", "-c", script]
        done = subprocess.run(shell, cwd=self.house.directory, env=self.place, capture_output=True, timeout=30)
        check(done.returncode == 0, f"{first}: exit {done.returncode}\n{done.stdout.decode()}{done.stderr.decode()}")
        if "ptth edge" in script:
            until(lambda: answers(self.port), "the README's edge listens")
            until(lambda: get(self.admin, "/health/ready")[0] == 200, "the README's edge is ready")
        say(f"ran: {first}")
        return done.stdout.decode()

    def serves(self):
        shown = ["curl", "-s", "--noproxy", "*", "--max-time", "20", "-H", "Host: app.example.com"]
        shown += ["-o", "/dev/null", "-w", "%{http_code}", f"http://127.0.0.1:{self.port}/hello"]
        return subprocess.run(shown, capture_output=True, timeout=30).stdout == b"200"

    def run_and_watch(self, who, script):
        """As `run`, until what its signals ask for has come true; and requests are served afterwards."""
        edge, worker = self.status()["pid"], self.pids()[1]
        self.place |= {"EDGE_PID": str(edge), "WORKER_PID": str(worker)}
        reloads, links = self.reloads(), self.links()
        printed = self.run(who, script)
        if 'kill -HUP "$EDGE_PID"' in script:
            until(lambda: self.reloads()["done"] > reloads["done"], "the edge has read its file again")
            check(self.reloads()["failed"] == 0, "a reload failed")
        if 'kill -HUP "$WORKER_PID"' in script:
            until(lambda: self.links() and not self.links() & links, "the worker has new links")
        if 'kill -USR2 "$EDGE_PID"' in script:
            until(lambda: self.status()["pid"] != edge, "a new process answers")
            with open(self.house.path("pids"), "a") as file:
                file.write(f"{self.status()['pid']}\n")
            until(lambda: is_gone(edge), "the old process has ended", seconds=40)
        until(self.serves, "a request is served")
        return printed

    def kill_all(self):
        for pid in self.pids():
            if not is_gone(pid):
                os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def machines(name):
    with House(name, seconds_max=180) as house:
        machines = Machines(house)
        try:
            yield machines
        finally:
            machines.kill_all()


README = blocks("README.md")
check(len(README) >= 5, f"README.md has {len(README)} blocks")
# Its last block drains the edge; pages begin where it runs.
starts = [index for index, (who, _) in enumerate(README) if who == "sh stays"]
check("ptth drain" in README[-1][1] and starts[-1] < len(README) - 1, "the README begins and ends otherwise")

with machines("readme.py: README.md") as both:
    text = "".join(both.run(who, script) for who, script in README)
    check("HTTP/1.1 200 OK" in text and text.count("hello\n") == 1, f"the README's curl gave\n{text}")
    check("web-1" in text and "IN FLIGHT" in text, f"the README's status gave\n{text}")
    edge, worker = both.pids()
    until(lambda: is_gone(edge), "the README's `ptth drain` ends the edge")
    os.kill(worker, signal.SIGTERM)  # the README's `kill PID`
    until(lambda: is_gone(worker), "the README's `kill PID` ends the worker")
    say("edge and worker have ended")

pages = sorted(os.path.relpath(path, ROOT) for path in glob.glob(os.path.join(ROOT, "docs", "*.md")))
ran = 0
for page in pages:
    scripts = blocks(page)
    if not scripts:
        continue
    with machines(f"readme.py: {page}") as both:
        for who, script in README[: starts[-1] + 1]:
            both.run(who, script)
        until(both.serves, "the README's worker serves")
        text = "".join(both.run_and_watch(who, script) for who, script in scripts)
        if page == "docs/operating.md":
            check("ready\n" in text and "ptth_queue_depth{" in text and "web-1" in text, f"{page} printed\n{text}")
        ran += len(scripts)
check(ran >= 5, f"{ran} blocks of docs/ were run")
