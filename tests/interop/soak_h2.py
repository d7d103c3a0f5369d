"""An HTTP/2 client of a few lines for soak.py: many requests on one connection, and what becomes of each. Of a response's head it
reads the status alone: that is its first field, and with no dynamic table it needs no more of HPACK. What an outcome means
never enters."""

import asyncio
import struct

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 1, 1, 4, 8, 32
CANCEL, REFUSED_STREAM = 8, 7
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
STREAM_WINDOW, CONNECTION_WINDOW = 1 << 17, 1 << 24
STREAMS_MAX = 30
# RFC 7541, appendix A: the statuses with an index of their own.
STATUSES = {8: 200, 9: 204, 10: 206, 11: 304, 12: 400, 13: 404, 14: 500}
# Appendix B: the digits.
DIGITS = {"00000": "0", "00001": "1", "00010": "2"} | {f"{0b011001 + n:06b}": str(3 + n) for n in range(7)}


class Broken(Exception):
    """HTTP/2 as no edge may speak it."""


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(text):
    """A string without Huffman coding, of less than 127 bytes or a little more."""
    data = text.encode()
    if len(data) < 127:
        return bytes([len(data)]) + data
    return bytes([127, len(data) - 127]) + data


def head_of(method, scheme, authority, path, fields):
    """A header block, every field as it is and not to be remembered."""
    own = {":method": method, ":scheme": scheme, ":authority": authority, ":path": path}
    return b"".join(b"\x00" + literal(name) + literal(value) for name, value in [*own.items(), *fields])


def status_of(block):
    """The first field of a response."""
    while block and block[0] >> 5 == 1:  # the size of the dynamic table
        block = block[1:]
    if block and block[0] & 0x80:
        return STATUSES[block[0] & 0x7F]
    name = block[0] & (0x3F if block[0] & 0x40 else 0x0F)
    if name not in STATUSES:
        raise Broken(f"a head that does not begin with a status: {block[:20]!r}")
    size, coded = block[1] & 0x7F, block[1] & 0x80
    text = block[2 : 2 + size]
    if not coded:
        return int(text)
    bits, digits = "".join(f"{byte:08b}" for byte in text), ""
    while len(digits) < 3:
        code = next(code for code in DIGITS if bits.startswith(code))
        digits, bits = digits + DIGITS[code], bits[len(code) :]
    return int(digits)


class Stream:
    """A response as it comes: `over` is set to "whole", "reset", "refused" (nobody had the request) or "lost"."""

    def __init__(self, number, window):
        self.number, self.window = number, window
        self.status, self.body, self.over = None, bytearray(), None
        self.changed = asyncio.Event()
        self.reads = True
        self.owed = 0

    def end(self, how):
        self.over = self.over or how
        self.changed.set()

    async def until(self, is_so):
        while self.over is None and not is_so():
            self.changed.clear()
            await self.changed.wait()


class Http2:
    """A connection. Everything that arrives is read by a task of its own."""

    def __init__(self, reader, writer, key):
        self.reader, self.writer, self.key = reader, writer, key
        self.streams, self.next = {}, 1
        self.window, self.stream_window = 65_535, 65_535
        self.roomy = asyncio.Event()
        self.leaves = self.was_used = self.was_left = self.is_over = False
        self.broken = None
        settings = struct.pack(">HIHIHI", 1, 0, 2, 0, 4, STREAM_WINDOW)  # no dynamic table, no push, a window
        writer.write(PREFACE + frame(SETTINGS, 0, 0, settings))
        writer.write(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", CONNECTION_WINDOW - 65_535)))
        self.task = asyncio.create_task(self.read())

    def takes_more(self):
        return not (self.leaves or self.is_over or self.writer.transport.is_closing()) and len(self.streams) < STREAMS_MAX

    # ---- what arrives ----

    async def read(self):
        try:
            while True:
                head = await self.reader.readexactly(9)
                size, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
                self.take(kind, flags, int.from_bytes(head[5:], "big"), await self.reader.readexactly(size))
        except (OSError, EOFError):
            pass
        except (Broken, KeyError, IndexError, StopIteration, struct.error) as error:
            self.broken = f"{type(error).__name__} {error}"
        finally:
            self.is_over = True
            for stream in list(self.streams.values()):
                stream.end("lost")
            self.roomy.set()
            self.writer.transport.abort()

    def take(self, kind, flags, number, payload):
        stream = self.streams.get(number)
        match kind:
            case 0:  # DATA; no padding comes from this edge
                self.write(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", len(payload)))) if payload else None
                if stream:
                    stream.body += payload
                    stream.owed += len(payload)
                    self.give_back(stream)
                    if flags & END_STREAM:
                        stream.end("whole")
                    stream.changed.set()
            case 1:
                if not flags & END_HEADERS:
                    raise Broken("a head in several frames")
                if stream and stream.status in (None, 103):
                    stream.status = status_of(payload)
                if stream and flags & END_STREAM:
                    stream.end("whole")
                if stream:
                    stream.changed.set()
            case 3:
                if stream:
                    code = int.from_bytes(payload, "big")
                    # NO_ERROR behind a whole answer says that the rest of the request is of no use (RFC 9113 §8.1).
                    stream.end("refused" if code == REFUSED_STREAM else "reset")
            case 4 if not flags & ACK:
                for at in range(0, len(payload), 6):
                    name, value = struct.unpack(">HI", payload[at : at + 6])
                    if name == 4:
                        for own in self.streams.values():
                            own.window += value - self.stream_window
                        self.stream_window = value
                self.write(frame(SETTINGS, ACK, 0))
                self.roomy.set()
            case 6 if not flags & ACK:
                self.write(frame(PING, ACK, 0, payload))
            case 7:
                self.leaves = True
                last, code = struct.unpack(">II", payload[:8])
                if code:
                    self.broken = f"GOAWAY {code} {payload[8:]!r}"
                for own in list(self.streams.values()):
                    if own.number > last:
                        own.end("refused")
            case 8:
                more = int.from_bytes(payload, "big")
                if number == 0:
                    self.window += more
                elif stream:
                    stream.window += more
                self.roomy.set()

    def give_back(self, stream):
        if stream.reads and stream.owed and stream.over is None:
            self.write(frame(WINDOW_UPDATE, 0, stream.number, struct.pack(">I", stream.owed)))
            stream.owed = 0

    def write(self, data):
        if not self.writer.transport.is_closing():
            self.writer.write(data)

    # ---- what is asked ----

    def open(self, method, authority, path, fields, ends):
        stream = Stream(self.next, self.stream_window)
        self.next += 2
        self.streams[stream.number] = stream
        self.was_used = True
        block = head_of(method, "https" if self.key[1] else "http", authority, path, fields)
        self.write(frame(HEADERS, END_HEADERS | (END_STREAM if ends else 0), stream.number, block))
        if self.is_over:
            stream.end("lost")
        return stream

    async def send(self, stream, body, pause=None):
        """The request's body, as the edge's windows let it."""
        at = 0
        while at < len(body) and stream.over is None:
            room = min(self.window, stream.window, 16_384, len(body) - at)
            if room <= 0:
                self.roomy.clear()
                waits = [asyncio.ensure_future(self.roomy.wait()), asyncio.ensure_future(stream.changed.wait())]
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED, timeout=1)
                for wait in waits:
                    wait.cancel()
                continue
            self.window -= room
            stream.window -= room
            ends = END_STREAM if at + room == len(body) else 0
            self.write(frame(DATA, ends, stream.number, body[at : at + room]))
            at += room
            if pause:
                await pause()

    def reset(self, stream, code=CANCEL):
        if stream.over is None:
            self.write(frame(RST_STREAM, 0, stream.number, struct.pack(">I", code)))
            stream.end("left")

    def forget(self, stream):
        self.streams.pop(stream.number, None)
        if self.leaves and not self.streams:
            self.close()

    def close(self):
        self.leaves = True
        if not self.writer.transport.is_closing():
            self.writer.write(frame(GOAWAY, 0, 0, struct.pack(">II", 0, 0)))
            self.writer.close()
