"""httpwg-cli, the cases of RFC 9113 as a client that breaks the rules: against the edge by prior knowledge and with TLS.

A case that fails has to stand in httpwg/exceptions.txt with a reason, "WHERE | CASE | REASON", where WHERE is `h2c`, `tls` or
`both`. httpwg-cli takes an edge that says nothing for one that closes; here such a case counts as failed. Its own output is
written to httpwg-WHERE.log in the directory that `PTTH_HTTPWG_LOGS` names, if it does."""

import asyncio
import os
import re
import shutil
import socket
import subprocess
import threading
import time

from harness import HERE, check, curl, free_port, say
from secure import SecureHouse, client_context, tool

CASES_MIN = 100
# How long httpwg-cli waits for a frame. A case that took so long was answered by silence.
FRAME_S = 3.0


def exceptions(where):
    """Reasons by case."""
    found = {}
    with open(os.path.join(HERE, "httpwg", "exceptions.txt")) as file:
        for number, line in enumerate(file, 1):
            if not line.strip() or line.startswith("#"):
                continue
            parts = [part.strip() for part in line.split(" | ")]
            check(len(parts) == 3 and parts[0] in ("h2c", "tls", "both") and all(parts), f"exceptions.txt:{number}: {line}")
            if parts[0] in (where, "both"):
                check(parts[1] not in found, f"exceptions.txt:{number}: {parts[1]} is there twice")
                found[parts[1]] = parts[2]
    return found


class Bridge:
    """httpwg-cli speaks no TLS: takes its bytes here, and passes them on with TLS."""

    def __init__(self, edge):
        self.port = free_port()
        self.edge = edge
        self.context = client_context(edge.ca, "h2")
        listens = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self.run(listens)), daemon=True).start()
        check(listens.wait(10), "the bridge listens")

    async def run(self, listens):
        server = await asyncio.start_server(self.one, "127.0.0.1", self.port)
        listens.set()
        async with server:
            await server.serve_forever()

    async def one(self, reader, writer):
        try:
            far = await asyncio.open_connection(
                "127.0.0.1", self.edge.tls_port, ssl=self.context, server_hostname="localhost"
            )
        except OSError:
            writer.close()
            return
        ends = [asyncio.ensure_future(pump(reader, far[1])), asyncio.ensure_future(pump(far[0], writer))]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for end in (writer, far[1]):
            end.close()


async def pump(reader, writer):
    try:
        while piece := await reader.read(1 << 16):
            writer.write(piece)
            await writer.drain()
    except OSError:
        pass


def run(program, port, where):
    """(case, whether it passed, the seconds that it took, what it said) of each."""
    command = [program, "--address", f"127.0.0.1:{port}", "--verbose"]
    command += ["--connect-timeout", "5000", "--frame-timeout", str(int(FRAME_S * 1000))]
    place = dict(os.environ, SEQUENTIAL="1", RUST_BACKTRACE="0", NO_COLOR="1")
    cases, text = [], []
    with subprocess.Popen(command, env=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        began = time.monotonic()
        for line in process.stdout:
            line = re.sub(r"\x1b\[[0-9;]*m", "", line.decode(errors="replace"))
            text.append(line)
            if "Running test: " in line:
                began = time.monotonic()
                cases.append([line.split("Running test: ", 1)[1].strip(), False, 0.0, ""])
            elif "Test passed: " in line:
                check(cases and line.split("Test passed: ", 1)[1].strip() == cases[-1][0], f"out of order: {line}")
                cases[-1][1] = True
                cases[-1][2] = time.monotonic() - began
            elif cases and not cases[-1][1]:
                cases[-1][2] = time.monotonic() - began
                cases[-1][3] += line
    if folder := os.environ.get("PTTH_HTTPWG_LOGS"):
        with open(os.path.join(folder, f"httpwg-{where}.log"), "w") as file:
            file.writelines(text)
    return cases


def verdict(text):
    """What httpwg-cli says of a failure, without its log."""
    found = re.search(r"^ *0: (.*)$", text, re.M) or re.search(r"^Message: *(.*)$", text, re.M)
    return found.group(1) if found else " ".join(text.split())[-600:]


def judge(cases, where):
    explained = exceptions(where)
    check(len(cases) >= CASES_MIN, f"{where}: httpwg-cli ran {len(cases)} cases only")
    unexplained, needed = [], set()
    for name, passed, seconds, text in cases:
        silent = passed and seconds >= FRAME_S * 0.95
        if passed and not silent:
            continue
        if name in explained:
            needed.add(name)
            continue
        why = f"the edge said nothing for {seconds:.1f} s" if silent else verdict(text)
        unexplained.append(f"{name}\n      {why}")
    for name in sorted(set(explained) - needed):
        say(f"{where}: passed without its exception: {name}")
    say(f"{where}: {len(cases)} cases, {len(cases) - len(needed) - len(unexplained)} passed, {len(needed)} explained exceptions")
    check(not unexplained, f"{where}: {len(unexplained)} cases without an explanation:\n    " + "\n    ".join(unexplained))


def whole_push_promise(port):
    """What a case of httpwg-cli means, but sends without END_HEADERS (RFC 9113 §8.4)."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        settings = b"\0\0\0\4\0\0\0\0\0"
        push = b"\0\0\5\5\4\0\0\0\1" + b"\0\0\0\2" + b"\x88"  # it promises 2 on 1, with :status 200
        client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings + push)
        came = b""
        while piece := client.recv(1 << 16):
            came += piece
    check(b"\0\0\x08\7\0\0\0\0\0" in came and came.endswith(b"\0\0\0\1"), f"a whole PUSH_PROMISE: {came!r}")


with SecureHouse(__file__, seconds_max=400) as house:
    program = os.environ.get("PTTH_HTTPWG") or tool("httpwg")
    check(shutil.which(program), f"no {program}: .ci/run says how it is installed")
    pages = house.pages()
    edge = house.secure_edge()
    worker = house.worker(edge, pages.url)
    for where, port in (("h2c", edge.port), ("tls", Bridge(edge).port)):
        judge(run(program, port, where), where)
    whole_push_promise(edge.port)
    for url, more in ((edge.url, ["--http2-prior-knowledge"]), (edge.tls_url, ["--cacert", edge.ca])):
        check(curl(*more, f"{url}/").startswith(b"hello"), "the edge serves others afterwards")
    check(worker.poll() is None, "the worker lives")
