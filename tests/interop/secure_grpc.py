"""gRPC through the edge: grpcio calls with TLS and by prior knowledge; the worker is a link over HTTP/2 whose bytes are
passed to a grpcio server as they are. All four kinds of calls, errors, deadlines and cancellation."""

import os
import threading
import time

import grpc
from harness import check, get, read_lines, relay_worker, say, status, until
from secure import SecureHouse

NO_PROXY = [("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", 1 << 24)]


def channel_to(edge, tls):
    if not tls:
        authority = [("grpc.default_authority", "localhost")]
        return grpc.insecure_channel(f"ipv4:127.0.0.1:{edge.port}", NO_PROXY + authority)
    with open(edge.ca, "rb") as file:
        credentials = grpc.ssl_channel_credentials(file.read())
    name = [("grpc.ssl_target_name_override", "localhost")]
    return grpc.secure_channel(f"ipv4:127.0.0.1:{edge.tls_port}", credentials, NO_PROXY + name)


def error_of(call):
    try:
        call()
    except grpc.RpcError as error:
        return error
    check(False, "the call did not fail")


def unary(channel, what):
    call = channel.unary_unary("/echo/Unary")
    for size in (0, 1, 16_379, 16_384, 65_536, 3_000_000):
        message = os.urandom(size)
        for compression in (None, grpc.Compression.Gzip):
            got = call(message, timeout=30, compression=compression)
            check(got == message, f"{what}: {size} bytes, {compression}: {len(got)} came back")
    blob = bytes(range(256))
    got, told = call.with_call(b"x", timeout=20, metadata=[("x-in-bin", blob), ("x-text", "plain")])
    initial, trailing = dict(told.initial_metadata()), dict(told.trailing_metadata())
    check(initial.get("x-out-bin") == blob, f"{what}: metadata before the message: {initial}")
    check(trailing.get("x-end-bin") == blob, f"{what}: metadata behind the message: {trailing}")
    check(trailing.get("x-peer") == "127.0.0.1", f"{what}: the server learns who asks: {trailing}")
    many = [call.future(b"%d" % number, timeout=30) for number in range(500)]
    check([one.result() for one in many] == [b"%d" % number for number in range(500)], f"{what}: 500 at once")
    say(f"{what}: unary, up to 3,000,000 bytes, gzip, metadata, 500 at once")


class Dripping:
    """Messages that go out one by one, when they are given."""

    def __init__(self):
        self.given, self.changed = [], threading.Condition()

    def give(self, message):
        with self.changed:
            self.given.append(message)
            self.changed.notify()

    def __iter__(self):
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.given, 60)
                message = self.given.pop(0) if self.given else None
            if message is None:
                return
            yield message


def streams(channel, what):
    pieces = [os.urandom(number % 5000) for number in range(2000)]
    got = channel.stream_unary("/echo/Up")(iter(pieces), timeout=60)
    check(got == f"{len(pieces)} {sum(map(len, pieces))}".encode(), f"{what}: up: {got}")
    got = list(channel.unary_stream("/echo/Down")(b"2000", timeout=60))
    check(got == [b"message %d" % number for number in range(2000)], f"{what}: down: {len(got)} messages")
    # One message goes out only when the last one has come back, so nothing on the way holds them.
    up = Dripping()
    down = channel.stream_stream("/echo/Both")(iter(up), timeout=60)
    for number in range(200):
        message = b"%d" % number + b"x" * (number * 97)
        up.give(message)
        check(next(down) == message, f"{what}: message {number} of a conversation")
    up.give(None)
    check(next(down, None) is None and down.code() is grpc.StatusCode.OK, f"{what}: the end of a conversation")
    say(f"{what}: 2000 messages up, 2000 down, 200 there and back in turn")


def errors(channel, what):
    call = channel.unary_unary("/echo/Fails")
    for code in ("NOT_FOUND", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "INTERNAL", "UNAVAILABLE"):
        for details in ("no such thing", "50 % über €", ""):
            error = error_of(lambda: call(f"{code} {details}".encode(), timeout=20))
            got = (error.code().name, error.details())
            check(got == (code, details), f"{what}: {code} {details} came as {got}")
    error = error_of(lambda: channel.unary_unary("/echo/NoSuchMethod")(b"", timeout=20))
    check(error.code() is grpc.StatusCode.UNIMPLEMENTED, f"{what}: an unknown method: {error.code()}")
    came = channel.unary_stream("/echo/Breaks")(b"", timeout=20)
    check([next(came) for _ in range(3)] == [b"0", b"1", b"2"], f"{what}: messages before an error")
    error = error_of(lambda: next(came))
    check((error.code(), error.details()) == (grpc.StatusCode.DATA_LOSS, "broken off"), f"{what}: {error}")
    say(f"{what}: errors alone, with details, behind messages, and an unknown method")


def leaving(channel, edge, log, what):
    calls = channel.unary_stream("/echo/Waits")
    name = f"{what.replace(' ', '-')}-cancel"
    call = calls(name.encode())
    check(next(call) == b"began", f"{what}: it began")
    call.cancel()
    until(lambda: f"{name} cancelled" in log(), f"{what}: the server hears of a cancellation")
    name = f"{what.replace(' ', '-')}-deadline"
    call = calls(name.encode(), timeout=2)
    began = time.monotonic()
    check(next(call) == b"began", f"{what}: it began")
    error = error_of(lambda: next(call))
    check(error.code() is grpc.StatusCode.DEADLINE_EXCEEDED, f"{what}: {error.code()} at the deadline")
    check(time.monotonic() - began >= 1.9, f"{what}: before the deadline")

    def heard():
        told = [line for line in log() if line.startswith(f"{name} deadline ")]
        return told and 0 < float(told[0].split()[2]) <= 2

    until(heard, f"{what}: the server learns of the deadline, and that it has passed")
    # An upload that is broken off in the middle.
    up = Dripping()
    down = channel.stream_stream("/echo/Both")(iter(up))
    up.give(b"one")
    check(next(down) == b"one", f"{what}: a conversation")
    down.cancel()
    up.give(None)
    until(lambda: status(edge)["links"][0]["in_flight"] == 0, f"{what}: the credits come back")
    say(f"{what}: cancellation and deadline reach the server; the credits come back")


def without_worker(house):
    edge = house.secure_edge(pool="hold_without_workers = false")
    with channel_to(edge, True) as channel:
        error = error_of(lambda: channel.unary_unary("/echo/Unary")(b"", timeout=20))
    check(error.code() is grpc.StatusCode.UNAVAILABLE, f"without a worker: {error.code()}")
    say("without a worker: UNAVAILABLE, which clients try again")


with SecureHouse(__file__, seconds_max=240) as house:
    say(f"grpcio {grpc.__version__}")
    log_path = house.path("grpc.log")
    server = house.python("grpc_server.py", log_path)

    def log():
        return read_lines(log_path)

    for cores in (1, 2):
        edge = house.secure_edge(cores, pool='response_head_max_wait = "0s"')
        relay_worker(edge, server.port, version="h2")
        house.until_links(edge, 1)
        for tls in (True, False):
            for turn in range(cores):  # with two cores: perhaps the one without the link
                what = f"{'TLS' if tls else 'h2c'}, {cores} cores, {turn}"
                with channel_to(edge, tls) as channel:
                    unary(channel, what)
                    streams(channel, what)
                    errors(channel, what)
                    leaving(channel, edge, log, what)
        check(get(edge.admin, "/health/live")[0] == 200, "the edge lives")
    without_worker(house)
