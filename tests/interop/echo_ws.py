"""A WebSocket server on the `websockets` package of PyPI: echo_ws.py PORT LOG

What comes goes back, but for a text "close CODE REASON", on which the server closes so; "pieces", for which it sends three
fragments; and "ping", on which it pings and tells when the pong is there. LOG gets the code and reason that each
connection ended with."""

import os
import sys

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve

LOG = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)


def talk(socket):
    try:
        for message in socket:
            if isinstance(message, str) and message.startswith("close "):
                _, code, reason = message.split(" ", 2)
                socket.close(int(code), reason)
            elif message == "pieces":
                socket.send(iter(["one ", "two ", "three"]))
            elif message == "ping":
                came = socket.ping(b"from the server").wait(20)
                socket.send("pong" if came else "no pong")
            else:
                socket.send(message)
    except ConnectionClosed:
        pass
    os.write(LOG, f"{socket.close_code} {socket.close_reason}\n".encode())


with serve(talk, "127.0.0.1", int(sys.argv[1]), max_size=1 << 23) as server:
    server.serve_forever()
