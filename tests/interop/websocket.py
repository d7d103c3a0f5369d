"""WebSocket by hand (RFC 6455): the frames, an echo server, and a client. As a program: websocket.py PORT"""

import base64
import hashlib
import os
import socket
import socketserver
import struct
import sys

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def accept_of(key):
    return base64.b64encode(hashlib.sha1(key + GUID).digest())


def write_frame(sock, opcode, payload, mask):
    """RFC 6455 §5.2: a client masks, a server does not."""
    first = bytes([0x80 | opcode])
    masked = 0x80 if mask else 0
    if len(payload) < 126:
        length = bytes([masked | len(payload)])
    elif len(payload) < 1 << 16:
        length = bytes([masked | 126]) + struct.pack(">H", len(payload))
    else:
        length = bytes([masked | 127]) + struct.pack(">Q", len(payload))
    key = os.urandom(4) if mask else b""
    sock.sendall(first + length + key + (xor(payload, key) if mask else payload))


def xor(payload, key):
    stream = key * (len(payload) // 4 + 1)
    number = int.from_bytes(payload, "big") ^ int.from_bytes(stream[: len(payload)], "big")
    return number.to_bytes(len(payload), "big")


def read_frame(file):
    """Opcode, payload, and whether it was masked; no opcode at the end."""
    first = file.read(2)
    if len(first) < 2:
        return None, b"", False
    length = first[1] & 0x7F
    if length == 126:
        length = struct.unpack(">H", file.read(2))[0]
    elif length == 127:
        length = struct.unpack(">Q", file.read(8))[0]
    is_masked = bool(first[1] & 0x80)
    key = file.read(4) if is_masked else b""
    payload = file.read(length)
    return first[0] & 0x0F, xor(payload, key) if is_masked else payload, is_masked


def read_head(file):
    """First line, and the fields by their lower-case names."""
    line, fields = file.readline().strip(), {}
    while field := file.readline().strip():
        name, _, value = field.partition(b":")
        fields[name.lower()] = value.strip()
    return line, fields


class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        line, fields = read_head(self.rfile)
        key = fields.get(b"sec-websocket-key", b"")
        wants = line.startswith(b"GET ") and fields.get(b"upgrade", b"").lower() == b"websocket"
        if not wants or len(base64.b64decode(key)) != 16 or fields.get(b"sec-websocket-version") != b"13":
            self.wfile.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        self.wfile.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept_of(key) + b"\r\n\r\n"
        )
        while True:
            opcode, payload, is_masked = read_frame(self.rfile)
            if opcode is None or not is_masked:
                return
            write_frame(self.request, PONG if opcode == PING else opcode, payload, mask=False)
            if opcode == CLOSE:
                return


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
    request_queue_size = 256


class Client:
    def __init__(self, port, path="/chat", timeout=10):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.file = self.socket.makefile("rb")
        key = base64.b64encode(os.urandom(16))
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key.decode()}\r\n\r\n".encode()
        )
        self.line, self.fields = read_head(self.file)
        self.is_accepted = self.fields.get(b"sec-websocket-accept") == accept_of(key)

    def send(self, opcode, payload):
        write_frame(self.socket, opcode, payload, mask=True)

    def receive(self):
        opcode, payload, _ = read_frame(self.file)
        return opcode, payload

    def is_ended(self):
        return self.file.read(1) == b""


if __name__ == "__main__":
    Server(("127.0.0.1", int(sys.argv[1])), Echo).serve_forever()
