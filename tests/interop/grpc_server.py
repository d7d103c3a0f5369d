"""A gRPC server on grpcio, without protobuf: messages are bytes. grpc_server.py PORT LOG

    /echo/Unary      the message; metadata `x-in-bin` comes back as `x-out-bin` before it and as `x-end-bin` behind it
    /echo/Up         the number of messages, and of their bytes
    /echo/Down       N times "message I", for a message N
    /echo/Both       each message when it comes
    /echo/Fails      an error before anything else: the message is "CODE details"
    /echo/Breaks     three messages, then DATA_LOSS
    /echo/Waits      one message "began", then nothing until the client is gone
LOG gets a line for whatever a client broke off."""

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc

LOG = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
WAIT_S_MAX = 60


def unary(message, context):
    given = dict(context.invocation_metadata())
    if "x-in-bin" in given:
        context.send_initial_metadata([("x-out-bin", given["x-in-bin"])])
        context.set_trailing_metadata([("x-end-bin", given["x-in-bin"]), ("x-peer", given.get("x-forwarded-for", ""))])
    return message


def up(messages, context):
    count = size = 0
    for message in messages:
        count, size = count + 1, size + len(message)
    return f"{count} {size}".encode()


def down(message, context):
    for number in range(int(message)):
        yield b"message %d" % number


def both(messages, context):
    yield from messages


def fails(message, context):
    code, _, details = message.decode().partition(" ")
    context.abort(getattr(grpc.StatusCode, code), details)


def breaks(message, context):
    yield from (b"0", b"1", b"2")
    context.abort(grpc.StatusCode.DATA_LOSS, "broken off")


def waits(message, context):
    gone = threading.Event()
    remaining = context.time_remaining()
    context.add_callback(gone.set)
    yield b"began"
    came = gone.wait(WAIT_S_MAX)
    kind = "cancelled" if remaining is None or remaining > 1e9 else f"deadline {remaining:.1f}"
    os.write(LOG, f"{message.decode()} {kind if came else 'forgotten'}\n".encode())


class Echo(grpc.GenericRpcHandler):
    METHODS = {
        "/echo/Unary": grpc.unary_unary_rpc_method_handler(unary),
        "/echo/Up": grpc.stream_unary_rpc_method_handler(up),
        "/echo/Down": grpc.unary_stream_rpc_method_handler(down),
        "/echo/Both": grpc.stream_stream_rpc_method_handler(both),
        "/echo/Fails": grpc.unary_unary_rpc_method_handler(fails),
        "/echo/Breaks": grpc.unary_stream_rpc_method_handler(breaks),
        "/echo/Waits": grpc.unary_stream_rpc_method_handler(waits),
    }

    def service(self, details):
        return self.METHODS.get(details.method)


# The edge PINGs a link every ten seconds; a gRPC server ends a connection on which nothing but that happens after half a
# minute, unless it is told to bear it.
bears_pings = [("grpc.http2.min_ping_interval_without_data_ms", 5000), ("grpc.keepalive_permit_without_calls", 1)]
options = [("grpc.max_receive_message_length", 1 << 24), ("grpc.so_reuseport", 0), *bears_pings]
server = grpc.server(ThreadPoolExecutor(64), handlers=[Echo()], options=options)
server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
server.start()
server.wait_for_termination()
