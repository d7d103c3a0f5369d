"""curl with TLS and HTTP/2: which version is spoken, methods, early answers, 100 MiB each way, ranges, resumption, trailers."""

import hashlib
import json
import os
import subprocess

from harness import Failed, check, curl, dispatches, say, sha256_of_file, write_numbered
from secure import SecureHouse

MIB = 100
# What curl is told, with TLS or not, and which version of HTTP it must then speak.
WAYS = [
    (["--http1.1"], True, "1.1"),
    (["--http2"], True, "2"),
    (["--http1.1", "--tls-max", "1.2"], True, "1.1"),
    (["--http2", "--tls-max", "1.2"], True, "2"),
    (["--http2", "--tlsv1.3"], True, "2"),
    ([], True, "2"),
    ([], False, "1.1"),
    (["--http2-prior-knowledge"], False, "2"),
    (["--http2"], False, "1.1"),  # Upgrade: h2c is not taken (RFC 9113 §3.1), and no harm
]
VERSION = "%{http_version}"
CODE = "%{http_code}"


def run(edge, way, path, *arguments, timeout=60):
    arguments_of_way, tls, _ = way
    url = edge.tls_url if tls else edge.url
    more = ["--cacert", edge.ca] if tls else []
    return curl(*arguments_of_way, *more, *arguments, url + path, timeout=timeout)


def name_of(way):
    return f"curl {' '.join(way[0])} {'https' if way[1] else 'http'}"


def talk_of(edge, way, path, *arguments):
    """What -v tells."""
    arguments_of_way, tls, _ = way
    url = edge.tls_url if tls else edge.url
    more = ["--cacert", edge.ca] if tls else []
    command = ["curl", "-sSv", "--noproxy", "*", "--max-time", "20", *arguments_of_way, *more, *arguments, url + path]
    return subprocess.run(command, capture_output=True, timeout=30).stderr.decode(errors="replace")


def small(edge, way, house):
    what = name_of(way)
    got = run(edge, way, "/hello", "-w", VERSION)
    check(got == b"hello\n" + way[2].encode(), f"{what}: {got}")
    if way[1]:
        version = "TLSv1.2" if "1.2" in way[0] else "TLSv1.3"
        talk = talk_of(edge, way, "/hello")
        check(f"SSL connection using {version}" in talk, f"{what}: {talk}")
    head = run(edge, way, "/bytes?n=1234", "--head").decode().lower()
    check(" 200" in head and "content-length: 1234" in head, f"{what}: HEAD gave {head}")
    for code in (204, 304, 404, 500, 503):
        got = run(edge, way, f"/status?code={code}", "-o", os.devnull, "-w", CODE)
        check(got == str(code).encode(), f"{what}: {code} came as {got}")
    for size in (0, 1, 16_384, 200_000):
        body = house.write_bytes(size)
        for more in ([], ["-H", "Expect:"], ["-H", "Transfer-Encoding: chunked"] if way[2] == "1.1" else []):
            got = run(edge, way, "/echo", *more, "--data-binary", f"@{body}")
            check(hashlib.sha256(got).hexdigest() == sha256_of_file(body), f"{what} {more}: {size} bytes came back as {len(got)}")
    check(run(edge, way, "/chunks?n=3") == b"chunk 0\nchunk 1\nchunk 2\n", f"{what}: chunks")
    got = early(edge, way, house)
    check(got == b"413", f"{what}: an early answer came as {got}")
    got = run(edge, way, "/hello", "-H", f"x-long: {'x' * 40_000}", "-o", os.devnull, "-w", CODE)
    check(got == b"431", f"{what}: a field of 40,000 bytes gave {got}")

    told = json.loads(run(edge, way, "/fields", "-H", "X-Forwarded-For: 6.6.6.6", "-H", "te: trailers"))
    fields = {name.lower(): value for name, value in told["fields"]}
    proto = "https" if way[1] else "http"
    check(fields["x-forwarded-for"] == "127.0.0.1" and fields["x-forwarded-proto"] == proto, f"{what}: {fields}")
    check(fields["via"].startswith("2.0 ptth" if way[2] == "2" else "1.1 ptth"), f"{what}: Via is {fields['via']}")
    check("upgrade" not in fields and "http2-settings" not in fields, f"{what}: {fields}")

    # curl writes trailers where it writes fields.
    dump = house.path("fields.txt")
    body = run(edge, way, "/trailers", "-H", "TE: trailers", "-D", dump)
    check(body == b"chunk 0\nchunk 1\nchunk 2\n", f"{what}: {body} before the trailers")
    with open(dump) as file:
        check("x-sum: 42" in file.read().lower(), f"{what}: the trailer did not come")


def early(edge, way, house):
    """An answer before the body was read. Behind it comes RST_STREAM(NO_ERROR) (RFC 9113 §8.1); curl 7.88 forgets the answer,
    though it must not, where both come while it writes."""
    for _ in range(20):
        try:
            return run(edge, way, "/early", "-T", house.write_bytes(200_000), "-o", os.devnull, "-w", CODE)
        except Failed as failed:
            if way[2] != "2" or "exit 92" not in str(failed):
                raise
    return b"20 times nothing"


def connections(edge, way):
    what = name_of(way)
    arguments, tls, version = way
    if "--http2-prior-knowledge" in arguments:
        return  # curl 7.88 fails at its second request on such a connection, to nginx too
    url, more = (edge.tls_url, ["--cacert", edge.ca]) if tls else (edge.url, [])
    kept = ["-w", "%{num_connects} ", *["-o", os.devnull, f"{url}/hello"] * 3]
    got = curl(*arguments, *more, *kept)
    check(got == b"1 0 0 ", f"{what}: three in a row opened {got} connections")
    if version == "2":
        # At once, on one connection: one of them waits 300 ms, and nobody behind it does.
        urls = [f"{url}/slow?ms=300&id=first"] + [f"{url}/slow?ms={number % 7}&id={number}" for number in range(99)]
        given = [item for one in urls for item in ("-o", os.devnull, one)]
        at_once = ["--parallel", "--parallel-max", "100", "-w", "%{num_connects}:%{http_code}:%{http_version}\n"]
        lines = curl(*arguments, *more, *at_once, *given).decode().split()
        check(len(lines) == 100 and all(line.endswith(":200:2") for line in lines), f"{what}: at once: {lines}")
        opened = sum(int(line.split(":")[0]) for line in lines)
        check(opened == 1, f"{what}: 100 at once opened {opened} connections")


def large(edge, way, data, want, house):
    what = name_of(way)
    told = run(edge, way, "/sha256", "-T", data, timeout=120).split()
    check(told == [want.encode(), str(MIB << 20).encode()], f"{what}: {MIB} MiB up: {told}")
    with open(data, "rb") as file:  # the length is not known before
        arguments, tls, _ = way
        url, more = (edge.tls_url, ["--cacert", edge.ca]) if tls else (edge.url, [])
        command = ["curl", "-sS", "--noproxy", "*", "--max-time", "120", *arguments, *more, "-T", "-", url + "/sha256"]
        told = subprocess.run(command, stdin=file, capture_output=True, timeout=130).stdout.split()
    check(told == [want.encode(), str(MIB << 20).encode()], f"{what}: {MIB} MiB without a length up: {told}")


def files(edge, way, data, want, house):
    """nginx is the server."""
    what = name_of(way)
    down = house.path("down.bin")
    run(edge, way, "/big.bin", "-o", down, timeout=120)
    check(sha256_of_file(down) == want, f"{what}: {MIB} MiB down")
    # Resumed from what was there.
    with open(down, "r+b") as file:
        file.truncate(37_000_001)
    run(edge, way, "/big.bin", "-C", "-", "-o", down, timeout=120)
    check(sha256_of_file(down) == want, f"{what}: resumed after 37,000,001 bytes")
    with open(data, "rb") as file:
        file.seek(5_000_000)
        part = file.read(1001)
    got = run(edge, way, "/big.bin", "--range", "5000000-5001000", "-w", CODE)
    check(got == part + b"206", f"{what}: a range gave {len(got)} bytes")
    got = run(edge, way, "/big.bin", "--range", "0-9,100-109", "-w", CODE)
    check(got.endswith(b"206") and got.count(b"Content-Range: bytes ") == 2, f"{what}: two ranges gave {got[:300]}")
    got = run(edge, way, "/big.bin", "--range", "99999999999-", "-o", os.devnull, "-w", CODE)
    check(got == b"416", f"{what}: a range behind the end gave {got}")
    tag = [line for line in run(edge, way, "/big.bin", "--head").decode().lower().splitlines() if line.startswith("etag:")]
    tag = tag[0].split(" ", 1)[1].strip()
    got = run(edge, way, "/big.bin", "-H", f"If-None-Match: {tag}", "-w", CODE)
    check(got == b"304", f"{what}: If-None-Match gave {got[:100]}")


class CurlHouse(SecureHouse):
    def write_bytes(self, size):
        path = self.path(f"{size}.bin")
        if not os.path.exists(path):
            with open(path, "wb") as file:
                file.write(os.urandom(size))
        return path


with CurlHouse(__file__, seconds_max=400) as house:
    say(curl("--version").decode().splitlines()[0])
    root = house.path("www")
    os.mkdir(root, 0o755)
    data = write_numbered(os.path.join(root, "big.bin"), MIB)
    want = sha256_of_file(data)
    origin, nginx = house.origin(), house.nginx(root)
    edge = house.secure_edge(cores=2)
    worker = house.worker(edge, origin.url)
    for way in WAYS:
        small(edge, way, house)
        connections(edge, way)
        large(edge, way, data, want, house)
        say(f"{name_of(way)}: HTTP/{way[2]}; methods, statuses, trailers, kept connections, {MIB} MiB up")
    check(dispatches(edge, "cross") > 0, "nothing went from core to core")
    check(worker.end() == 0, "SIGTERM with nothing to do: exit 0")
    house.worker(edge, nginx.url)
    for way in WAYS:
        files(edge, way, data, want, house)
        say(f"{name_of(way)}: {MIB} MiB down, resumed, ranges, If-None-Match")
    check(edge.process.end() == 0, "SIGTERM with nothing to do: exit 0")
