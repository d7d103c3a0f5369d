"""What bytes mean to the edge, written a second time from what it documents: which requests a stream holds, which of them
go on and in what words, and where the edge stops reading. No socket enters, and none of the edge's own code.

    read(b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n", "a").items[0].verdict == FORWARDED
"""

import re
import socket
from collections import defaultdict

# What becomes of a request.
FORWARDED = "forwarded"  # whole, to the server behind the worker
ANSWERED = "answered"  # by the edge itself; its connection may go on
REFUSED = "refused"  # its head; no server hears of it, the connection ends
BROKEN = "broken"  # its body; a server may hear of a beginning and never of an end, the connection ends
CUT = "cut"  # its bytes end before it does; as BROKEN, without an answer

# How a stream ends: the edge waits for another request, or for the rest of one, or it closes.
OPEN, PARTIAL, CLOSED = "open", "partial", "closed"

LINE_MAX, HEAD_MAX, FIELDS_MAX, EMPTY_LINES_MAX = 8 * 1024, 16 * 1024, 100, 2
CHUNK_LINE_MAX, TRAILERS_MAX, DISCARD_MAX = 256, 4 * 1024, 64 * 1024

TCHAR = frozenset(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
DIGITS = re.compile(rb"[0-9]+")
PATH = re.compile(rb"/[!\"$-;=@-_a-~]*(\?[!$-;=?-~]*)?")
HOST_NAME = re.compile(rb"[A-Za-z0-9\-_]+(\.[A-Za-z0-9\-_]+)*\.?")
PORT = re.compile(rb"[1-9][0-9]{0,4}")
CHUNK_LINE = re.compile(
    rb"([0-9A-Fa-f]{1,16})"
    rb"([ \t]*;[ \t]*[!#$%&'*+\-.^_`|~0-9A-Za-z]+([ \t]*=[ \t]*"
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+|\"([^\x00-\x08\x0a-\x1f\x7f\"\\]|\\[^\x00-\x08\x0a-\x1f\x7f])*\"))?)*"
)


class Refusal(Exception):
    """The status that answers it."""

    def __init__(self, status):
        super().__init__(status)
        self.status = status


class Unfinished(Exception):
    """The bytes end here, and nothing is wrong with them so far."""


class Item:
    """One request, as far as it could be read."""

    def __init__(self):
        self.verdict = None
        self.status = None
        self.method = self.target = ""
        self.is_http_10 = False
        self.host = None
        self.fields = {}
        self.via = []
        self.body = b""
        self.trailers = {}
        self.has_length_unknown = False
        self.expects = False
        self.upgrade = None
        self.upgrades = []

    def __repr__(self):
        parts = [self.verdict, self.method, self.target, self.status, self.fields, self.body[:60], self.trailers]
        return f"<{' '.join(str(part) for part in parts if part)}>"


class Reading:
    def __init__(self):
        self.items = []
        self.end = OPEN

    def __repr__(self):
        return f"{self.items} {self.end}"


def read(stream, host, link="h2"):
    """The whole reading of a client connection's bytes. `host` is the one that has a pool; `link` is how its worker is
    reached, for an upgrade knows the difference."""
    reading = Reading()
    at = 0
    while True:
        item = Item()
        try:
            start, at = scan(stream, at, "request")
            if start is None:
                reading.end = PARTIAL if at else OPEN
                return reading
        except Unfinished:
            reading.end = PARTIAL
            return reading
        except Refusal as refusal:
            item.verdict, item.status = REFUSED, refusal.status
            reading.items.append(item)
            reading.end = CLOSED
            return reading
        reading.items.append(item)
        try:
            plan, persists = read_head(stream[start:at], item)
        except Refusal as refusal:
            item.verdict, item.status = REFUSED, refusal.status
            reading.end = CLOSED
            return reading
        if is_setup(item):
            item.verdict, item.status = REFUSED, "4xx"
            reading.end = CLOSED
            return reading
        route(item, host, link)
        try:
            at = read_body(stream, at, plan, item)
        except Refusal as refusal:
            reading.end = CLOSED
            if item.verdict == FORWARDED:
                item.verdict, item.status = BROKEN, refusal.status
            return reading
        except Unfinished:
            reading.end = PARTIAL
            if item.verdict == FORWARDED:
                item.verdict = CUT
            elif item.expects or not persists or item.status == 400:
                reading.end = CLOSED
            return reading
        # Whoever waits for a 100 that never comes may send a body or not: nobody knows, so it is the last request.
        never_asked = item.verdict == ANSWERED and item.expects
        if not persists or never_asked or (item.verdict == ANSWERED and item.status == 400):
            reading.end = CLOSED
            return reading


def scan(stream, at, what):
    """A head or a trailer section from its first byte to its blank line: (start, end). `(None, begun)` where only empty
    lines, or nothing, are left. The first bad byte decides, whatever follows it."""
    is_request = what == "request"
    empty_lines = 0
    while is_request and stream[at : at + 1] == b"\r":
        if empty_lines == EMPTY_LINES_MAX:
            raise Refusal(400)
        if len(stream) == at + 1:
            return None, True
        if stream[at + 1] != 0x0A:
            raise Refusal(400)
        at, empty_lines = at + 2, empty_lines + 1
    if at == len(stream):
        return None, False
    start = at
    limit = start + (HEAD_MAX if is_request else TRAILERS_MAX)
    if is_request:
        if stream[at] not in TCHAR:
            raise Refusal(400)
        at = scan_line(stream, at, at, limit, 414)
    fields = 0
    while True:
        if at >= len(stream):
            raise Unfinished
        if at >= limit:
            raise Refusal(431)
        if stream[at] == 0x0D:
            return start, scan_lf(stream, at + 1, limit)
        if stream[at] not in TCHAR:
            raise Refusal(400)
        if fields == FIELDS_MAX:
            raise Refusal(431)
        fields += 1
        name = TOKEN.match(stream, at).end()
        line_limit = min(at + LINE_MAX + 1, limit)
        if name >= line_limit:
            raise Refusal(431)
        if name == len(stream):
            raise Unfinished
        if stream[name] != 0x3A:
            raise Refusal(400)
        at = scan_line(stream, at, name + 1, limit, 431)


def scan_line(stream, line, at, limit, too_long):
    """From `at` to behind the CR LF of the line that begins at `line`."""
    line_limit = min(line + LINE_MAX + 1, limit)
    ends = [end for end in (stream.find(byte, at, line_limit) for byte in (b"\r", b"\n", b"\0")) if end >= 0]
    if not ends:
        if len(stream) < line_limit:
            raise Unfinished
        raise Refusal(too_long)
    if stream[min(ends)] != 0x0D:
        raise Refusal(400)
    return scan_lf(stream, min(ends) + 1, limit)


def scan_lf(stream, at, limit):
    if at >= len(stream):
        raise Unfinished
    if at >= limit:
        raise Refusal(431)
    if stream[at] != 0x0A:
        raise Refusal(400)
    return at + 1


def field_lines(lines):
    """(name in lower case, value) of each line."""
    for line in lines:
        name, _, value = line.partition(b":")
        value = value.strip(b" \t")
        yield name.lower(), value


def elements(values):
    return [element.strip(b" \t") for value in values for element in value.split(b",")]


def text(raw):
    return raw.decode("latin-1")


def read_head(head, item):
    """Fills `item`; gives the plan of its body and whether another request may follow."""
    lines = head[:-4].split(b"\r\n")
    method, space, rest = lines[0].partition(b" ")
    target, second_space, version = rest.partition(b" ")
    item.method = text(method) if space else ""
    if not space or not second_space:
        raise Refusal(400)
    if version not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise Refusal(505 if re.fullmatch(rb"HTTP/[0-9]\.[0-9]", version) else 400)
    item.is_http_10 = version == b"HTTP/1.0"
    if not TOKEN.fullmatch(method):
        raise Refusal(400)
    if method in (b"CONNECT", b"TRACE"):
        raise Refusal(405)
    in_target, scheme_port = read_target(target, item)

    named = defaultdict(list)
    for name, value in field_lines(lines[1:]):
        if not VALUE.fullmatch(value):
            raise Refusal(400)
        named[name].append(value)
    hosts, lengths, codings = named[b"host"], named[b"content-length"], named[b"transfer-encoding"]
    if len(hosts) > 1 or (not hosts and not item.is_http_10):
        raise Refusal(400)
    in_host = read_authority(hosts[0]) if hosts else None
    if in_target and in_host:
        if (in_target[0], in_target[1] or scheme_port) != (in_host[0], in_host[1] or scheme_port):
            raise Refusal(400)
    item.host = in_host or in_target
    options = [option for option in elements(named[b"connection"]) if option]
    if not all(TOKEN.fullmatch(option) for option in options):
        raise Refusal(400)
    options = [option.lower() for option in options]
    plan = read_plan(lengths, codings, item)
    if plan == "unknown":
        raise Refusal(501)
    expected = [value.lower() for value in named[b"expect"]]
    if not item.is_http_10:
        if any(value != b"100-continue" for value in expected):
            raise Refusal(417)
        item.expects = bool(expected) and plan not in (None, 0)
    is_upgrade = not item.is_http_10 and b"upgrade" in options and named[b"upgrade"] and plan in (None, 0)
    if is_upgrade and named[b"upgrade"][0].lower() != b"h2c":
        item.upgrade = named[b"upgrade"][0]
    item.upgrades = [element.lower() for element in elements(named[b"upgrade"])]
    item.fields = onward(named, options)
    item.via = [text(value) for value in named[b"via"]] + ["1.0 ptth" if item.is_http_10 else "1.1 ptth"]
    persists = b"close" not in options and (not item.is_http_10 or b"keep-alive" in options)
    return plan, persists


def read_target(target, item):
    """Fills the item's target. The authority in it, and the port that its scheme means."""
    if not re.fullmatch(rb'[!"$-~]+', target):
        raise Refusal(400)
    is_options = item.method == "OPTIONS"
    if target[:1] == b"/":
        item.target = text(target)
        if not PATH.fullmatch(target):
            raise Refusal(400)
        return None, 80
    if target == b"*" and is_options:
        item.target = "*"
        return None, 80
    absolute = re.fullmatch(rb"(https?)://([^/?]*)(.*)", target, re.IGNORECASE)
    if not absolute:
        raise Refusal(400)
    scheme, authority, path = absolute.groups()
    authority = read_authority(authority)
    if not path:
        path = b"*" if is_options else b"/"
    elif path[:1] == b"?":
        path = b"/" + path
    if path != b"*" and not PATH.fullmatch(path):
        raise Refusal(400)
    item.target = text(path)
    return authority, 443 if scheme.lower() == b"https" else 80


def read_authority(authority):
    """(host in lower case, port or None)"""
    if authority[:1] == b"[":
        host, bracket, port = authority.partition(b"]")
        if not bracket or not is_ipv6(host[1:]):
            raise Refusal(400)
        host += bracket
    else:
        host, colon, port = authority.partition(b":")
        port = colon + port
        if not HOST_NAME.fullmatch(host) or len(host) > 254:
            raise Refusal(400)
    if port:
        if port[:1] != b":" or not PORT.fullmatch(port[1:]) or int(port[1:]) > 65535:
            raise Refusal(400)
        return host.lower(), int(port[1:])
    return host.lower(), None


def is_ipv6(address):
    try:
        socket.inet_pton(socket.AF_INET6, address.decode("ascii"))
        return True
    except (OSError, ValueError):
        return False


def read_plan(lengths, codings, item):
    """None, a number of bytes, "chunked" or "unknown"."""
    numbers = set()
    for value in lengths:
        if not DIGITS.fullmatch(value) or len(value.lstrip(b"0")) > 20 or int(value.lstrip(b"0") or 0) >= 1 << 63:
            raise Refusal(400)
        numbers.add(int(value.lstrip(b"0") or 0))
    if len(numbers) > 1:
        raise Refusal(400)
    if not codings:
        return numbers.pop() if numbers else None
    is_chunked = is_other = False
    for coding in elements(codings):
        name = coding.split(b";")[0].strip(b" \t")
        if not TOKEN.fullmatch(name) or is_chunked:
            raise Refusal(400)
        if name.lower() != b"chunked":
            is_other = True
        elif name != coding:
            raise Refusal(400)
        else:
            is_chunked = True
    if numbers or item.is_http_10:
        raise Refusal(400)
    return "unknown" if is_other else "chunked"


# `Connection` cannot name these away.
STAY = set(
    b"content-encoding content-length content-range content-type host range trailer authorization cookie origin "
    b"proxy-authorization set-cookie www-authenticate cache-control date expires pragma vary forwarded priority "
    b"proxy-status server-timing via x-real-ip x-request-id".split()
)
STAY_PREFIXES = (b"x-forwarded-", b"sec-", b"if-")
HOP_BY_HOP = set(b"connection keep-alive proxy-connection transfer-encoding upgrade http2-settings".split())
# What the edge says in its own words, or what frames.
OWN = set(b"host via forwarded priority x-request-id content-length expect te".split())


def onward(named, options):
    """The fields that go on as they are, by name. Those that the edge rewrites are not among them."""
    gone = {o for o in options if o not in STAY and not o.startswith(STAY_PREFIXES)}
    fields = {}
    for name, values in named.items():
        claim = name.replace(b"_", b"-")
        is_claim = name[:1] == b"x" and (claim.startswith(b"x-forwarded-") or claim == b"x-real-ip")
        if values and name not in gone | HOP_BY_HOP | OWN and not is_claim:
            fields[text(name)] = [text(value) for value in values]
    return fields


def is_setup(item):
    return item.target.partition("?")[0].startswith("/.well-known/ptth/") or bool({b"ptth", b"reverse"} & set(item.upgrades))


def route(item, host, link):
    item.verdict = FORWARDED
    if item.host is None or item.host[0] != host.encode():
        item.verdict, item.status = ANSWERED, 404
    elif item.upgrade is not None and link == "h2":
        if item.method != "GET":
            item.verdict, item.status = ANSWERED, 502
        elif not re.fullmatch(rb"[\t\x20-\x7e]*", item.upgrade):
            item.verdict, item.status = ANSWERED, 400
        elif not all(TOKEN.fullmatch(part) for part in item.upgrade.split(b"/", 1)):
            item.verdict, item.status = ANSWERED, 502  # a list, from which nobody has chosen


NEVER_TRAILERS = set(
    b"connection content-length http2-settings keep-alive proxy-connection te trailer transfer-encoding upgrade forwarded "
    b"host priority via x-real-ip x-request-id authorization cookie proxy-authenticate proxy-authorization set-cookie www-authenticate "
    b"accept accept-charset accept-encoding accept-language cache-control expect max-forwards origin pragma range "
    b"sec-websocket-accept sec-websocket-key age alt-svc date expires last-modified location retry-after "
    b"strict-transport-security vary warning content-encoding content-language content-range content-type".split()
)


def read_body(stream, at, plan, item):
    """Where it ends."""
    if plan is None:
        return at
    if plan != "chunked":
        item.body = stream[at : at + plan]
        if len(item.body) < plan:
            raise Unfinished
        return at + plan
    item.has_length_unknown = True
    pieces = []
    while True:
        size, at = read_chunk_line(stream, at)
        if size == 0:
            break
        pieces.append(stream[at : at + size])
        item.body = b"".join(pieces)
        at += size
        for wanted in b"\r\n":
            if at >= len(stream):
                raise Unfinished
            if stream[at] != wanted:
                raise Refusal(400)
            at += 1
    start, end = scan(stream, at, "trailers") if at < len(stream) else (None, None)
    if start is None:
        raise Unfinished
    trailers = defaultdict(list)
    for name, value in field_lines(stream[start : end - 2].split(b"\r\n")[:-1]):
        if not VALUE.fullmatch(value):
            raise Refusal(400)
        if name not in NEVER_TRAILERS and not name.startswith((b"if-", b"x-forwarded-")):
            trailers[text(name)].append(text(value))
    item.trailers = dict(trailers)
    return end


def read_chunk_line(stream, at):
    """(size, where the data begins)"""
    end = stream.find(b"\r", at)
    line = stream[at:] if end < 0 else stream[at:end]
    line_bytes = len(line) + len(stream[end : end + 2] if end >= 0 else b"")
    if line_bytes > CHUNK_LINE_MAX:
        raise Refusal(400)
    if end < 0:
        # Whether some line that begins so is a chunk line: one of these ends makes it one.
        if line and not any(CHUNK_LINE.fullmatch(line + rest) for rest in (b"", b";a", b"a", b"=a", b'"', b'a"')):
            raise Refusal(400)
        raise Unfinished
    match = CHUNK_LINE.fullmatch(line)
    if not match:
        raise Refusal(400)
    if end + 1 == len(stream):
        raise Unfinished
    if stream[end + 1] != 0x0A:
        raise Refusal(400)
    return int(match.group(1), 16), end + 2
