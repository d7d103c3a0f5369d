"""Starts edges, workers and the servers behind them, for the scripts of this directory; ends them by their pids.

What is tested never enters. A script reads:

    with House(__file__, seconds_max=60) as house:
        origin = house.origin()
        edge = house.edge(cores=2)
        house.worker(edge, to=origin.url)
        check(...)
"""

import base64
import contextlib
import hashlib
import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
READY_S_MAX = 20
NODE = shutil.which("node")


def binary():
    path = os.environ.get("PTTH_BIN", os.path.join(ROOT, "target", "release", "ptth"))
    if not os.path.exists(path):
        raise SystemExit(f"no {path}: run `cargo build --release`, or set PTTH_BIN")
    return path


class Failed(Exception):
    pass


def check(true, what):
    if not true:
        raise Failed(what)


def say(text):
    print(f"  {text}", flush=True)


def until(ready, what, seconds=READY_S_MAX, process=None):
    """Polls `ready` until it returns something true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process is not None and process.poll() is not None:
            raise Failed(f"{what}: the process ended with {process.returncode}\n{process.tail()}")
        with contextlib.suppress(OSError, ValueError, urllib.request.HTTPError):
            got = ready()
            if got:
                return got
        time.sleep(0.02)
    tail = process.tail() if process is not None else ""
    raise Failed(f"not within {seconds} s: {what}\n{tail}")


_given = set()


def free_port():
    """A port that was free a moment ago, and that this script has not given away before."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if port not in _given:
            _given.add(port)
            return port


def answers(port):
    with socket.create_connection(("127.0.0.1", port), timeout=1):
        return True


def percentile(values, part):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


class Process(subprocess.Popen):
    """A child whose output goes to a file of its own."""

    def __init__(self, name, arguments, directory, **more):
        self.name = name
        self.log = os.path.join(directory, f"{name}.log")
        with open(self.log, "ab") as log:
            super().__init__(arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **more)

    def tail(self, lines=15):
        with open(self.log, errors="replace") as log:
            return "".join(f"    [{self.name}] {line}" for line in log.readlines()[-lines:])

    def rss_kib(self, field="VmRSS"):
        with open(f"/proc/{self.pid}/status") as status:
            for line in status:
                if line.startswith(field + ":"):
                    return int(line.split()[1])
        raise Failed(f"{self.name} has no {field}")

    def end(self, seconds=10):
        """SIGTERM, then SIGKILL. The exit code."""
        if self.poll() is None:
            self.terminate()
            try:
                self.wait(seconds)
            except subprocess.TimeoutExpired:
                self.kill()
                self.wait()
        return self.returncode


class Server:
    """A running server: where it listens, and its process."""

    def __init__(self, process, port, **more):
        self.process = process
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.__dict__.update(more)


class Peak(threading.Thread):
    """The highest VmRSS of some processes while a block runs, and what it was before."""

    def __init__(self, *processes):
        super().__init__(daemon=True)
        self.processes = processes
        self.before = [p.rss_kib() for p in processes]
        self.highest = list(self.before)
        self.is_over = threading.Event()

    def __enter__(self):
        self.start()
        return self

    def run(self):
        while not self.is_over.wait(0.02):
            self.look()

    def look(self):
        with contextlib.suppress(OSError, Failed):
            self.highest = [max(high, p.rss_kib()) for high, p in zip(self.highest, self.processes)]

    def __exit__(self, *_):
        self.look()
        self.is_over.set()
        self.join()

    def grown_mib(self):
        return [(high - before) / 1024 for high, before in zip(self.highest, self.before)]

    def check(self, mib_max, what):
        for process, before, grown in zip(self.processes, self.before, self.grown_mib()):
            say(f"{what}: RSS of {process.name} {before / 1024:.1f} MiB, grew by {grown:.1f} MiB")
            check(grown < mib_max, f"{what}: {process.name} grew by {grown:.1f} MiB, more than {mib_max}")


class House:
    """Everything that one script starts. Nothing outlives it, also when it hangs."""

    def __init__(self, script, seconds_max):
        self.name = os.path.basename(script)
        self.seconds_max = seconds_max
        self.processes = []

    def __enter__(self):
        self.directory = tempfile.mkdtemp(prefix="ptth-interop-")
        os.chmod(self.directory, 0o755)
        self.began = time.monotonic()
        signal.signal(signal.SIGALRM, self._too_long)
        signal.alarm(self.seconds_max)
        print(f"{self.name}", flush=True)
        return self

    def _too_long(self, *_):
        raise Failed(f"hangs: more than {self.seconds_max} s")

    def __exit__(self, kind, error, _):
        signal.alarm(0)
        for process in reversed(self.processes):
            with contextlib.suppress(Exception):
                process.end(3)
        took = time.monotonic() - self.began
        if error is None:
            error = self._panics()
        if error is None:
            shutil.rmtree(self.directory, ignore_errors=True)
            print(f"{self.name}: ok, {took:.1f} s", flush=True)
            return False
        if isinstance(error, Failed):
            print(f"{self.name}: FAILED: {error}\n  logs are in {self.directory}", flush=True)
            sys.exit(1)
        print(f"{self.name}: FAILED: {kind.__name__}\n  logs are in {self.directory}", flush=True)
        return False

    def _panics(self):
        """One that was caught still is a bug."""
        for process in self.processes:
            if process.name.startswith(("edge", "worker")) and any("panicked" in line for line in read_lines(process.log)):
                return Failed(f"{process.name} panicked")
        return None

    def path(self, name):
        return os.path.join(self.directory, name)

    def write(self, name, text):
        with open(self.path(name), "w") as file:
            file.write(text)
        return self.path(name)

    def start(self, name, arguments, **more):
        process = Process(f"{name}-{len(self.processes)}", arguments, self.directory, **more)
        self.processes.append(process)
        return process

    # ---- our two programs ----

    def edge(self, cores=1, pool="", edge="", links_max=64, more=""):
        """`pool` and `edge` are more lines of their tables, `more` is more tables."""
        port, admin = free_port(), free_port()
        secret = secrets.token_urlsafe(32)
        config = self.write(
            f"edge-{port}.toml",
            f"""
[edge]
cores = {cores}
{edge}
[[listen]]
address = "127.0.0.1:{port}"
accept = ["clients", "workers"]
[admin]
address = "127.0.0.1:{admin}"
[[pool]]
name = "app"
origins = ["*"]
{pool}
[[credential]]
id = "web-1"
secret_hash = "sha256:{hashlib.sha256(secret.encode()).hexdigest()}"
origins = ["*"]
links_max = {links_max}
{more}
""",
        )
        process = self.start("edge", [binary(), "edge", "--config", config])
        credential = f"web-1:{secret}"
        started = Server(process, port, admin=admin, credential=credential)
        started.basic = base64.b64encode(credential.encode()).decode()
        started.credential_file = self.write(f"web-1-{port}.secret", credential + "\n")
        until(lambda: get(admin, "/health/ready")[0] == 200, "the edge is ready", process=process)
        return started

    def worker(self, edge, to, links=1, concurrency=256):
        links_before = len(status(edge)["links"])
        arguments = ["--edge", edge.url, "--serve", "http://localhost", "--to", to]
        arguments += ["--credential-file", edge.credential_file]
        arguments += ["--links", str(links), "--concurrency", str(concurrency)]
        process = self.start("worker", [binary(), "worker", *arguments])
        self.until_links(edge, links_before + links, process)
        return process

    def until_links(self, edge, links, process=None):
        """Until so many links are up and each has told its credits."""

        def ready():
            up = status(edge)["links"]
            return len(up) == links and all(link["credits"] + link["in_flight"] > 0 for link in up)

        until(ready, f"{links} links at the edge", process=process)

    # ---- servers behind a worker ----

    def origin(self):
        """origin.py: knows the paths that its first lines tell."""
        port = free_port()
        log = self.path(f"origin-{port}.requests")
        process = self.start("origin", [sys.executable, os.path.join(HERE, "origin.py"), str(port), log])
        until(lambda: answers(port), "the origin listens", process=process)
        return Server(process, port, requests=lambda: read_lines(log))

    def python_server(self, root):
        """The standard library's own: HTTP/1.0, a connection for each request."""
        port = free_port()
        arguments = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "--directory", root, str(port)]
        process = self.start("http.server", arguments)
        until(lambda: answers(port), "http.server listens", process=process)
        return Server(process, port)

    def nginx(self, root):
        port = free_port()
        temp = "\n".join(f"{kind}_temp_path {self.path(kind)};" for kind in NGINX_TEMPS)
        user = "user root;" if os.getuid() == 0 else ""
        config = self.write(
            f"nginx-{port}.conf",
            f"""
{user} daemon off; worker_processes 1; pid {self.path(f"nginx-{port}.pid")}; error_log stderr;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000; sendfile on; tcp_nodelay on;
  client_max_body_size 0; {temp}
  server {{
    listen 127.0.0.1:{port} backlog=1024; root {root};
    dav_methods PUT DELETE; create_full_put_path on;
    location = /hello {{ return 200 "hello\\n"; }}
    location = /upload-and-forget {{ return 204; }}
  }}
}}
""",
        )
        process = self.start("nginx", ["nginx", "-c", config, "-e", "stderr"])
        until(lambda: answers(port), "nginx listens", process=process)
        return Server(process, port)

    def node(self, script, *arguments):
        check(NODE, "no node: apt-get install nodejs")
        process = self.start(script.split(".")[0], [NODE, os.path.join(HERE, script), *map(str, arguments)])
        return process


NGINX_TEMPS = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]


def read_lines(path):
    with contextlib.suppress(FileNotFoundError):
        with open(path) as file:
            return file.read().splitlines()
    return []


def get(port, path, timeout=5):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Host": "localhost"})
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        return answer.status, answer.read()


def status(edge):
    return json.loads(get(edge.admin, "/status")[1])


def dispatches(edge, kind):
    """kind is "local" or "cross" (to a core that was awake, or asleep)."""
    counts = status(edge)["pools"][0]["counters"]["dispatches"]
    return sum(count for name, count in counts.items() if name.startswith(kind))


def far_connection(edge, path="/hello"):
    """A kept connection on a core without a link, so that each request on it crosses cores. Needs one link, two cores."""
    for _ in range(64):
        before = dispatches(edge, "cross")
        connection = http.client.HTTPConnection("127.0.0.1", edge.port, timeout=60, blocksize=1 << 18)
        connection.request("GET", path, headers={"Host": "localhost"})
        connection.getresponse().read()
        if dispatches(edge, "cross") > before:
            return connection
        connection.close()
    raise Failed("64 connections, and none on the core without a link")


def relay_worker(edge, port, version="http%2F1.1"):
    """The smallest worker there is: a link whose bytes are passed to a server of that version of HTTP as they are. The
    link's address."""

    def pump(source, sink):
        try:
            while piece := source.recv(1 << 16):
                sink.sendall(piece)
        except OSError:
            pass
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    link = socket.create_connection(("127.0.0.1", edge.port))
    link.sendall(
        "GET /.well-known/ptth/http%3A%2F%2Flocalhost/ HTTP/1.1\r\nHost: edge\r\nConnection: upgrade\r\n"
        f"Upgrade: ptth\r\nALPN: {version}\r\nAuthorization: Basic {edge.basic}\r\n\r\n".encode()
    )
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        byte = link.recv(1)  # what comes behind the 101 is the channel's
        check(byte, f"the edge closed during the setup: {answer!r}")
        answer += byte
    check(answer.startswith(b"HTTP/1.1 101 "), f"the edge answered the setup with {answer!r}")
    server = socket.create_connection(("127.0.0.1", port))
    for ends in ((link, server), (server, link)):
        threading.Thread(target=pump, args=ends, daemon=True).start()
    return "%s:%d" % link.getsockname()


def kill_sockets(edge, address):
    """Aborts the edge's end of a link: RST to the worker, an error to the edge."""
    port = address.rsplit(":", 1)[1]
    command = ["ss", "-K", "-t", "state", "established", f"sport = :{edge.port} and dport = :{port}"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=10)
    check(told.stdout.count(f":{port}") == 1, f"ss -K killed nothing: {told.stdout} {told.stderr}")


def curl(*arguments, timeout=60):
    """stdout; fails where curl does. No proxy of the machine is asked."""
    command = ["curl", "--silent", "--show-error", "--noproxy", "*", "--max-time", str(timeout), *arguments]
    done = subprocess.run(command, capture_output=True, timeout=timeout + 5)
    shown = " ".join(arguments)
    check(done.returncode == 0, f"curl {shown}: exit {done.returncode}, {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def sha256_of_file(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if sys.version_info >= (3, 11) else _digest(file)


def _digest(file):
    digest = hashlib.sha256()
    while piece := file.read(1 << 20):
        digest.update(piece)
    return digest.hexdigest()


def write_numbered(path, mib):
    """A file in which no two MiB are alike, so that a lost, doubled or swapped piece changes its digest."""
    block = os.urandom(1 << 20)
    with open(path, "wb") as file:
        for number in range(mib):
            file.write(number.to_bytes(8, "big") + block[8:])
    os.chmod(path, 0o644)
    return path
