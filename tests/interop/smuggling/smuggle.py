"""A differential test against request smuggling: an edge, and behind it nginx, Node (strict and lenient), h11 and hyper, each with
a worker of one link and one credit, and h11 once more over a link of its own in HTTP/1.1. tests/README.md says more.

    smuggle.py                            all cases against every backend, then PTTH_MUTATIONS mutations (5,000)
    smuggle.py --seed S --only N --lane L one mutation again
    smuggle.py --case NAME [--lane L]     one case again
"""

import argparse
import base64
import functools
import hashlib
import multiprocessing
import os
import secrets
import subprocess
import sys
import time
import traceback
from collections import Counter

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(HERE)]

import cases as corpus
import mutations
from harness import NGINX_TEMPS, NODE, ROOT, Failed, House, Server, answers, binary, check, free_port, get, say, status, until
from lane import Lane, Wrong

SEED = 20261125
FAILURES_MAX = 5
# The hosts' second halves: none becomes another by a byte or two.
SETS = ["one", "two", "six", "ten"]
LANES = {
    # name: (three letters of its host, the kind of its link)
    "nginx": ("ngx", "h2"),
    "node": ("nod", "h2"),
    "lenient": ("len", "h2"),
    "h11": ("h11", "h2"),
    "hyper": ("hyp", "h2"),
    "link": ("dir", "h1"),
}


def python_with_h11():
    """A Python that has the pinned h11; made in target/ if there is none."""
    home = os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target")), "smuggling-venv")
    python = os.path.join(home, "bin", "python3")
    pinned = os.path.join(HERE, "requirements.txt")
    with open(pinned) as file:
        wanted = next(line.split()[0].split("==")[1] for line in file if line.startswith("h11=="))
    has = [python, "-c", f"import h11; assert h11.__version__ == {wanted!r}"]
    if not os.path.exists(python) or subprocess.run(has, capture_output=True).returncode != 0:
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--require-hashes", "-r", pinned], check=True)
        subprocess.run(has, check=True)
    return python


def hyper_recorder():
    """The example, which `cargo test` builds, too."""
    target = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
    path = os.path.join(target, "debug", "examples", "hyper_recorder")
    if not os.path.exists(path):
        subprocess.run(["cargo", "build", "--quiet", "--example", "hyper_recorder"], cwd=ROOT, check=True)
    return path


class Street:
    """The edge and everything behind it."""

    def __init__(self, house, names, sets):
        self.house = house
        self.python = python_with_h11()
        self.lanes = []
        plans = [(name, f"{LANES[name][0]}.{one_of}", LANES[name][1]) for one_of in SETS[:sets] for name in names]
        self.edge = self.start_edge([host for _, host, _ in plans])
        self.access_logs = {}
        for index, (name, host, link) in enumerate(plans):
            log = house.path(f"{host}.seen")
            port = self.start_backend(name, host, log)
            if link == "h2":
                self.start_worker(host, port)
            held = functools.partial(self.held, host)
            self.lanes.append(Lane(name, host, link, self.edge.port, log, f"127.0.1.{index + 1}", held))
        until(lambda: len(status(self.edge)["links"]) == len(plans), "every worker has its link", process=self.edge.process)

    def start_edge(self, hosts):
        port, admin = free_port(), free_port()
        secret = secrets.token_urlsafe(32)
        pools = "".join(f'[[pool]]\nname = "{host}"\norigins = ["{host}"]\n' for host in hosts)
        config = self.house.write(
            "edge.toml",
            f"""
[edge]
cores = 2
[[listen]]
address = "127.0.0.1:{port}"
accept = ["clients", "workers"]
[admin]
address = "127.0.0.1:{admin}"
{pools}
[[credential]]
id = "web-1"
secret_hash = "sha256:{hashlib.sha256(secret.encode()).hexdigest()}"
origins = ["*"]
links_max = 1000
""",
        )
        process = self.house.start("edge", [binary(), "edge", "--config", config])
        edge = Server(process, port, admin=admin)
        edge.basic = base64.b64encode(f"web-1:{secret}".encode()).decode()
        edge.credential_file = self.house.write("web-1.secret", f"web-1:{secret}\n")
        until(lambda: get(admin, "/health/ready")[0] == 200, "the edge is ready", process=process)
        return edge

    def held(self, host):
        """What the edge says of the pool and its link."""
        now = status(self.edge)
        return [pool for pool in now["pools"] if pool["name"] == host], [link for link in now["links"] if host in str(link)]

    def start_worker(self, host, port):
        arguments = ["--edge", self.edge.url, "--serve", f"http://{host}", "--to", f"http://127.0.0.1:{port}"]
        arguments += ["--credential-file", self.edge.credential_file, "--links", "1", "--concurrency", "1"]
        self.house.start("worker", [binary(), "worker", *arguments])

    def start_backend(self, name, host, log):
        port = free_port()
        start = self.house.start
        recorder = [self.python, os.path.join(HERE, "recorder.py")]
        match name:
            case "nginx":
                behind = free_port()
                process = start("plain", [*recorder, "plain", str(behind), log])
                until(lambda: answers(behind), "the recorder behind nginx listens", process=process)
                process = self.start_nginx(host, port, behind)
            case "node" | "lenient":
                check(NODE, "no node: apt-get install nodejs")
                process = start(name, [NODE, os.path.join(HERE, "recorder.js"), str(port), log, name])
            case "h11":
                process = start(name, [*recorder, "h11", str(port), log])
            case "link":
                process = start(name, [*recorder, "h11", str(port), log, str(self.edge.port), self.edge.basic, host])
            case "hyper":
                process = start(name, [hyper_recorder(), str(port), log])
        until(lambda: answers(port), f"{name} listens", process=process)
        return port

    def start_nginx(self, host, port, behind):
        """Passes on everything that it understands, in its own framing; logs what it does not."""
        self.access_logs[host] = self.house.path(f"{host}.access")
        open(self.access_logs[host], "w").close()
        temp = "\n".join(f"{kind}_temp_path {self.house.path(kind + host)};" for kind in NGINX_TEMPS)
        user = "user root;" if os.getuid() == 0 else ""
        config = self.house.write(
            f"nginx-{host}.conf",
            f"""
{user} daemon off; worker_processes 1; pid {self.house.path(f"nginx-{host}.pid")}; error_log stderr;
events {{ worker_connections 512; }}
http {{
  log_format seen escape=json '["$status","$upstream_status","$request"]';
  access_log {self.access_logs[host]} seen;
  keepalive_requests 1000000; keepalive_timeout 1h; client_max_body_size 0; {temp}
  client_header_buffer_size 32k; large_client_header_buffers 4 32k; proxy_buffer_size 64k; proxy_buffers 4 64k;
  proxy_busy_buffers_size 64k; underscores_in_headers on; ignore_invalid_headers off;
  upstream recorder {{ server 127.0.0.1:{behind}; keepalive 4; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://recorder; proxy_http_version 1.1; proxy_set_header Host $http_host; proxy_set_header Connection "";
    }}
    location = /early {{ return 200 "early $request_method $request_uri\\n"; }}
    location = /early/close {{ keepalive_timeout 0; return 200 "early $request_method $request_uri\\n"; }}
  }}
}}
""",
        )
        return self.house.start("nginx", ["nginx", "-c", config, "-e", "stderr"])


def run_cases(lane, cases):
    """Failures, as text."""
    failures = []
    for case in cases:
        try:
            lane.play(case.pieces(lane.host), wants=case.expected(lane.host))
        except (Wrong, OSError) as wrong:
            failures.append(f"case {case.name}: {wrong}\n    sent {case.pieces(lane.host)}")
            lane.recover()
        if len(failures) >= FAILURES_MAX:
            break
    return failures


def run_mutations(lane, bases, seed, indices):
    failures = []
    for index in indices:
        name, pieces = mutations.mutant(bases, seed, index)
        try:
            # Now and then the backend gets to see the beginning of what never ends.
            lane.play(pieces, dwell_s=0.004 if index % 4 == 0 else 0.0)
        except (Wrong, OSError) as wrong:
            again = f"--seed {seed} --only {index} --lane {lane.name}"
            failures.append(f"mutation {index} of {name} ({again}): {wrong}\n    sent {pieces}")
            if len(failures) >= FAILURES_MAX:
                break
            lane.recover()
    return failures


def child(lane, cases, seed, indices, access_log, told):
    """One lane, in a process of its own."""
    began = time.monotonic()
    try:
        failures = run_cases(lane, cases)
        cases_s = time.monotonic() - began
        if not failures and len(indices):
            failures = run_mutations(lane, mutations.bases(corpus.load(), lane.host), seed, indices)
        if not failures:
            lane.settle()
            if access_log:
                lane.settle_nginx(access_log)
        told.put((lane.host, failures, lane.counts, cases_s, time.monotonic() - began))
    except Wrong as wrong:
        told.put((lane.host, [f"at the end: {wrong}"], lane.counts, 0, 0))
    except Exception:
        told.put((lane.host, [traceback.format_exc()], lane.counts, 0, 0))


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--seed", type=int, default=SEED)
    arguments.add_argument("--only", type=int)
    arguments.add_argument("--lane", choices=LANES)
    arguments.add_argument("--case")
    arguments.add_argument("--times", type=int, default=1, help="of --only, for what fails now and then")
    arguments.add_argument("--sets", type=int, choices=range(1, len(SETS) + 1), default=int(os.environ.get("PTTH_SMUGGLING_SETS", "2")))
    options = arguments.parse_args()
    mutations_wanted = int(os.environ.get("PTTH_MUTATIONS", "5000"))

    cases = corpus.load()
    requests = corpus.self_test(cases, "abc.one")
    names = [options.lane] if options.lane else list(LANES)
    is_one = options.only is not None or options.case
    with House(__file__, seconds_max=120 + mutations_wanted // 20) as house:
        say(f"{len(cases)} cases with {requests} requests: read as they were written")
        street = Street(house, names, 1 if is_one else options.sets)
        told = multiprocessing.get_context("fork").Queue()
        children = []
        for number, lane in enumerate(street.lanes):
            # The cases once for each backend; the mutations over all lanes.
            own_cases = cases if number < len(names) and not is_one else []
            indices = range(number, mutations_wanted, len(street.lanes))
            if is_one:
                own_cases = [case for case in cases if case.name == options.case]
                indices = [] if options.only is None else [options.only] * options.times
            more = (lane, own_cases, options.seed, indices, street.access_logs.get(lane.host), told)
            process = multiprocessing.get_context("fork").Process(target=child, args=more, daemon=True)
            process.start()
            children.append(process)
        report(street, told, len(children))


def report(street, told, lanes):
    failures, totals = [], Counter()
    for _ in range(lanes):
        host, failed, counts, cases_s, all_s = told.get()
        name = next(lane.name for lane in street.lanes if lane.host == host)
        failures += [f"{name}: {failure}" for failure in failed]
        totals += counts
        shown = ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
        say(f"{name:8} {all_s:6.1f} s, its cases {cases_s:.1f} s: {shown}")
    say(f"in all: {', '.join(f'{count} {what}' for what, count in sorted(totals.items()))}")
    if failures:
        for failure in failures:
            print(f"  {failure}", flush=True)
        raise Failed(f"{len(failures)} failures")


main()
