#!/usr/bin/env python3
"""What idle connections cost an edge: resident bytes for each, held over loopback by this script.

    python3 benches/idle.py [--edge target/release/ptth] [--connections 19500] [plain tls h2c h2]

For each kind an edge of its own on two cores. A connection asks once (the edge answers 404 itself) and then says nothing. A few
others ask on, so that the edge is no sleeping one. TLS needs openssl(1) for a certificate. `ulimit -n` bounds both sides: some 100 less than it."""

import argparse
import os
import resource
import socket
import ssl
import subprocess
import sys
import tempfile
import time

ASK = b"GET / HTTP/1.1\r\nHost: nobody.example\r\nUser-Agent: idle\r\nAccept: */*\r\n\r\n"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)
# GET / of nobody.example (RFC 7541, appendix A); the stream and the block end.
BLOCK = b"\x82\x86\x84\x01\x0enobody.example"
OTHERS = 8


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def resident_bytes(pid):
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def settled(pid, others):
    """Resident bytes once they stand still: what was freed goes back to the kernel a little later, while others are served."""
    last = resident_bytes(pid)
    while True:
        for _ in range(100):
            for other in others:
                other.ask()
            time.sleep(0.02)
        now = resident_bytes(pid)
        if abs(now - last) < 64 * 1024:
            return now
        last = now


def exactly(peer, count):
    parts = b""
    while len(parts) < count:
        part = peer.recv(count - len(parts))
        if not part:
            sys.exit("the edge closed a connection")
        parts += part
    return parts


class Client:
    def __init__(self, port, context, is_h2):
        self.peer = socket.create_connection(("127.0.0.1", port))
        if context:
            self.peer = context.wrap_socket(self.peer, server_hostname="edge.example")
        self.is_h2, self.stream = is_h2, -1
        if is_h2:
            self.peer.sendall(PREFACE)

    def ask(self):
        """One request, and its answer to the end."""
        if not self.is_h2:
            self.peer.sendall(ASK)
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += exactly(self.peer, 1)
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
            exactly(self.peer, int(fields[b"content-length"]))
            return
        self.stream += 2
        stream = self.stream.to_bytes(4, "big")
        self.peer.sendall(len(BLOCK).to_bytes(3, "big") + b"\x01\x05" + stream + BLOCK)
        while True:
            head = exactly(self.peer, 9)
            payload = exactly(self.peer, int.from_bytes(head[:3], "big"))
            if head[3] == 6 and not head[4] & 1:
                self.peer.sendall(b"\x00\x00\x08\x06\x01" + bytes(4) + payload)
            if head[3] in (0, 1) and head[4] & 1 and head[5:] == stream:
                return


def measure(kind, args, folder):
    port = free_port()
    lines = ["[edge]", "cores = 2", "[limits]", 'idle_max_wait = "1h"', "[[listen]]", f'address = "127.0.0.1:{port}"',
             'accept = ["clients", "workers"]']
    if kind in ("tls", "h2"):
        lines.append(f'tls = {{ certificate = "{folder}/edge.pem", key = "{folder}/edge.key" }}')
    if kind == "h2c":
        lines.append("h2c = true")
    lines += ["[[pool]]", 'name = "app"', 'origins = ["app.example"]']
    config = os.path.join(folder, f"{kind}.toml")
    with open(config, "w") as file:
        file.write("\n".join(lines) + "\n")
    context = None
    if kind in ("tls", "h2"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"] if kind == "h2" else ["http/1.1"])
    command, env = [args.edge, "edge", "--config", config], {**os.environ, "RUST_LOG": "error"}
    edge = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                time.sleep(0.05)
        is_h2 = kind in ("h2", "h2c")
        others = [Client(port, context, is_h2) for _ in range(OTHERS)]
        before = settled(edge.pid, others)
        held = []
        for _ in range(args.connections):
            held.append(Client(port, context, is_h2))
            held[-1].ask()
        after = settled(edge.pid, others)
        print(f"{kind:6} {len(held)} connections, {(after - before) / len(held):8.0f} bytes each "
              f"({before / 2**20:.1f} MiB before, {after / 2**20:.1f} MiB with them)", flush=True)
    finally:
        edge.terminate()
        edge.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edge", default="target/release/ptth")
    parser.add_argument("--connections", type=int, default=19_500)
    parser.add_argument("kinds", nargs="*", default=["plain", "tls", "h2c", "h2"])
    args = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if args.connections > hard - 100:
        sys.exit(f"{args.connections} connections need more than {hard} descriptors: raise ulimit -n, or say --connections")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                        "-days", "2", "-subj", "/CN=edge.example", "-addext", "subjectAltName=DNS:edge.example",
                        "-keyout", f"{folder}/edge.key", "-out", f"{folder}/edge.pem"],
                       check=True, stderr=subprocess.DEVNULL)
        for kind in args.kinds:
            measure(kind, args, folder)


if __name__ == "__main__":
    main()
