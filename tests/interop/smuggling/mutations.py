"""Streams that nobody wrote: the cases, bent at random with what parsers disagree about. A seed and an index give the same
bytes for ever."""

import random
import re

BYTES_MAX = 3000  # of a case that is bent; the large ones cost time and bend badly

DANGEROUS = [
    b"\r\n", b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n\r\n", b"\n\n", b"\0", b"\t", b" ", b"  ", b"\v", b"\f", b"\x85", b"\xa0", b"\x7f",
    b"\xff", b":", b": ", b" :", b",", b", ", b";", b"=", b'"', b"\\", b"#", b"/", b"?", b"*", b"%0d%0a", b"\r\n ", b"\r\n\t",
    b"0", b"00", b"1", b"5", b"-", b"+", b"0x", b"_", b"a", b"f", b"0\r\n", b"0\r\n\r\n", b"\r\n0\r\n\r\n", b"5\r\nhello\r\n", b"1\r\nZ\r\n",
    b"ffffffffffffffff\r\n", b"10000000000000000\r\n", b"5;a=b\r\n", b'5;a="\n"\r\n', b"5 \r\n", b"5\n",
    b"Content-Length: 0\r\n", b"Content-Length: 5\r\n", b"Content-Length: 6\r\n", b"Content-Length: 50\r\n", b"Content-Length:5\n",
    b"content-length: 05\r\n", b"Content-Length : 5\r\n", b"Content-Length: 5, 5\r\n", b"Content-Length: +5\r\n", b"Content_Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n", b"transfer-encoding:chunked\r\n", b"Transfer-Encoding : chunked\r\n",
    b"Transfer-Encoding: identity\r\n", b"Transfer-Encoding: chunked, identity\r\n", b"Transfer-Encoding:\r\n chunked\r\n",
    b"Transfer-Encoding: \x0bchunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n", b"Transfer-Encoding\r\n: chunked\r\n",
    b"chunked", b"identity", b"chunked, chunked", b"xchunked",
    b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"Connection: content-length\r\n", b"Connection: transfer-encoding\r\n",
    b"Connection: host\r\n", b"Connection: x, close\r\n", b"Connection: upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
    b"Keep-Alive: timeout=1\r\n", b"TE: trailers\r\n", b"Trailer: Content-Length\r\n", b"Expect: 100-continue\r\n", b"Expect: x\r\n",
    b"Host: other.example\r\n", b"Host:\r\n", b"Host: a b\r\n", b"X-Forwarded-For: 6.6.6.6\r\n", b"Forwarded: for=6.6.6.6\r\n", b"X: y\r\n",
    b"X-A: 1\r\n", b" X: y\r\n", b": y\r\n", b"X\r\n", b"X : y\r\n", b"Cookie: a=b\r\n", b"Cookie: c=d\r\n", b"Via: 1.1 x\r\n",
    b"GET", b"POST", b"HEAD", b"PUT", b"OPTIONS", b"CONNECT", b"TRACE", b"get", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"http/1.1",
    b" HTTP/1.1\r\n", b"GET /hidden HTTP/1.1\r\n", b"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"SM\r\n\r\n",
]
LINES = [token for token in DANGEROUS if token.endswith(b"\r\n") and b":" in token and token[:1].isalpha()]
DIGIT = re.compile(rb"[0-9a-f]")
EDGES = b"\r\n :,;/0"


def bases(cases, host):
    """What is bent: not what waits for an answer in between, nor what is answered early, nor the large ones. What is fine as it
    stands comes more often, for most of what is bent is refused at its first bad byte."""
    streams = []
    for case in cases:
        stream = case.bytes(host)
        if len(stream) <= BYTES_MAX and b"{wait}" not in stream and not any(want.kind == "e" for want in case.wants):
            is_fine = not any(want.kind == "!" for want in case.wants)
            streams += [(case.name, stream)] * (6 if is_fine else 1)
    return streams


def mutant(bases, seed, index):
    """(name of its case, pieces in which it is sent)"""
    dice = random.Random(f"{seed}:{index}")
    name, stream = dice.choice(bases)
    # Half of them are bent with care, for what is refused at its first odd byte tells little about the bytes behind it.
    how = bend_gently if dice.random() < 0.5 else bend
    for _ in range(dice.choice((1, 1, 1, 2, 2, 3, 5))):
        stream = how(stream, dice, bases)
    if dice.random() < 0.2 and len(stream) > 1:
        cut = dice.randrange(1, len(stream))
        return name, [stream[:cut], stream[cut:]]
    return name, [stream]


def place(stream, dice):
    """Most accidents happen where one thing ends and another begins."""
    at = dice.randrange(len(stream) + 1)
    if dice.random() < 0.6:
        for near in range(at, min(at + 40, len(stream))):
            if stream[near] in EDGES:
                return near + dice.randrange(2)
    return at


def bend(stream, dice, bases):
    at = place(stream, dice)
    size = dice.choice((1, 1, 1, 2, 3, 4, 8, 20))
    match dice.randrange(12):
        case 0 | 1 | 2:
            return stream[:at] + dice.choice(DANGEROUS) + stream[at:]
        case 3:
            return stream[:at] + dice.choice(DANGEROUS) + stream[at + size :]
        case 4:
            return stream[:at] + stream[at + size :]
        case 5:
            return stream[: at + size] + stream[at : at + size] + stream[at + size :]
        case 6:
            other = dice.randrange(len(stream) + 1)
            low, high = sorted((at, other))
            left, right = stream[low : low + 1], stream[high : high + 1]
            return stream[:low] + right + stream[low + 1 : high] + left + stream[high + 1 :]
        case 7:
            lines = stream.split(b"\r\n")
            one, two = dice.randrange(len(lines)), dice.randrange(len(lines))
            lines[one], lines[two] = lines[two], lines[one]
            return b"\r\n".join(lines)
        case 8:
            lines = stream.split(b"\r\n")
            lines.insert(dice.randrange(len(lines) + 1), dice.choice(lines))
            return b"\r\n".join(lines)
        case 9:
            byte = dice.randrange(256) if dice.random() < 0.5 else dice.choice(EDGES)
            return stream[:at] + bytes([byte]) + stream[at + 1 :]
        case 10:
            return stream[:at] + stream[at : at + size].swapcase() + stream[at + size :]
        case _:
            if dice.random() < 0.5:
                return stream[:at] or stream
            other = dice.choice(bases)[1]
            return stream[:at] + other[place(other, dice) :]


def bend_gently(stream, dice, bases):
    """Whole lines, numbers, bodies and whole streams: most of it stays well-formed, and means something else."""
    match dice.randrange(6):
        case 0 | 1:
            ends = [match.end() for match in re.finditer(rb"\r\n(?!\r\n)", stream)] or [0]
            at = dice.choice(ends)
            return stream[:at] + dice.choice(LINES) + stream[at:]
        case 2:
            digits = [match.start() for match in DIGIT.finditer(stream, stream.find(b"\r\n") + 1)] or [0]
            at = dice.choice(digits)
            return stream[:at] + dice.choice((b"0", b"1", b"3", b"5", b"6", b"a", b"10", b"")) + stream[at + 1 :]
        case 3:
            at = stream.find(b"\r\n\r\n") + 4
            return stream[:at] + bend(stream[at:], dice, bases)
        case 4:
            lines = stream.split(b"\r\n")
            del lines[dice.randrange(len(lines))]
            return b"\r\n".join(lines)
        case _:
            other = dice.choice(bases)[1]
            return stream + other if dice.random() < 0.5 else other + stream
