"""The server behind the workers of soak.py: soak_origin.py PORT. It does what a request's path says, checks every request's
body, and counts what arrives. Which worker asked never enters.

    /DEED/ID/UP/DOWN/MS/PIECES    UP bytes come in, DOWN bytes go out after MS milliseconds, in PIECES chunks (0: with a length)

    /report    what was wrong, and which ID of a POST arrived more than once
    /seen      of the IDs in the request's body, those that have arrived
"""

import asyncio
import collections
import hashlib
import json
import socket
import struct
import sys

ABORT = struct.pack("ii", 1, 0)  # SO_LINGER: a close is a reset

# Heads that no parser may take, and the one body that none may. The last one begins well.
BAD = [
    b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 20_000 + b"\r\n\r\n",
    b"\x00\x01 nonsense\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX-Folded: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 103 Early Hints\r\n\r\n" * 40 + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\n",
]


def pattern(way, name, size):
    """The body of this request ("up") or of its response ("down"): no other has it, and no two parts of it are alike."""
    return hashlib.shake_128(f"{way} {name}".encode()).digest(size) if size else b""


def reset(writer):
    """Closes a connection so that its peer sees a reset."""
    if sock := writer.get_extra_info("socket"):
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        except OSError:
            pass
    writer.transport.abort()


class Origin:
    def __init__(self):
        self.arrived = collections.Counter()
        self.posted = collections.Counter()
        self.wrong = []

    async def serve(self, reader, writer):
        try:
            while await self.one(reader, writer):
                pass
            writer.close()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.LimitOverrunError):
            writer.transport.abort()
        except Exception as error:  # a defect of this file, or a request that nobody sent
            self.wrong.append(f"{type(error).__name__}: {error}")
            writer.transport.abort()

    async def one(self, reader, writer):
        """Answers one request. False: the connection ends."""
        lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        method, path, _ = lines[0].decode().split(" ")
        fields = {}
        for line in lines[1:-2]:
            name, _, value = line.partition(b":")
            fields.setdefault(name.strip().lower(), value.strip())
        if path == "/report":
            twice = [name for name, times in self.posted.items() if times > 1]
            return await self.say(writer, {"wrong": self.wrong, "twice": twice, "arrived": len(self.arrived)})
        if path == "/seen":
            names = json.loads(await self.body(reader, fields))
            return await self.say(writer, [name for name in names if name in self.arrived])
        _, deed, name, up, down, ms, pieces = path.split("/")
        up, down, ms, pieces = int(up), int(down), int(ms), int(pieces)
        self.arrived[name] += 1
        if method == "POST":
            self.posted[name] += 1
        if deed == "tunnel":
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: soak\r\nX-Soak: " + name.encode() + b"\r\n\r\n")
            while piece := await reader.read(1 << 16):
                writer.write(piece)
                await writer.drain()
            return False
        if deed == "early":
            writer.write(self.head(name, "200 OK", f"Content-Length: {down}", "Connection: close") + pattern("down", name, down))
            await writer.drain()
            while await reader.read(1 << 16):
                pass
            return False
        body = await self.body(reader, fields)
        if body != pattern("up", name, up):
            self.wrong.append(f"{method} {path}: {len(body)} bytes that were not sent")
        if deed == "mute":
            return False
        if deed == "hang":
            await reader.read(1)
            return False
        if deed == "bad":
            writer.write(BAD[ms])
            await writer.drain()
            return False
        if pieces == 0 or deed == "cut":
            await asyncio.sleep(ms / 1000)
        if deed == "interim":
            writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n")
        answer = pattern("down", name, down)
        status = "404 Not Found" if deed == "missing" else "200 OK"
        if deed == "cut":
            length = f"Content-Length: {down}" if pieces == 0 else "Transfer-Encoding: chunked"
            half = answer[: down // 2]
            writer.write(self.head(name, status, length))
            writer.write(half if pieces == 0 else b"%x\r\n%s\r\n" % (len(half), half))
            await writer.drain()
            if down % 2:
                reset(writer)
            return False
        if pieces == 0:
            writer.write(self.head(name, status, f"Content-Length: {down}"))
            if method != "HEAD":
                writer.write(answer)
            await writer.drain()
            return True
        writer.write(self.head(name, status, "Transfer-Encoding: chunked"))
        step = -(-down // pieces)
        for begin in range(0, down, step):
            piece = answer[begin : begin + step]
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            await writer.drain()
            await asyncio.sleep(ms / 1000)
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True

    @staticmethod
    def head(name, status, *fields):
        return "\r\n".join([f"HTTP/1.1 {status}", f"X-Soak: {name}", *fields, "\r\n"]).encode()

    async def say(self, writer, what):
        text = json.dumps(what).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(text) + text)
        await writer.drain()
        return False

    @staticmethod
    async def body(reader, fields):
        if fields.get(b"transfer-encoding", b"").lower() == b"chunked":
            pieces = []
            while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
                pieces.append(await reader.readexactly(size))
                await reader.readexactly(2)
            while await reader.readuntil(b"\r\n") != b"\r\n":
                pass
            return b"".join(pieces)
        return await reader.readexactly(int(fields.get(b"content-length", 0)))


async def main(port):
    origin = Origin()
    server = await asyncio.start_server(origin.serve, "127.0.0.1", port, limit=1 << 17, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
