"""Reads cases.txt, whose head tells its form."""

import os
import re

from reading import ANSWERED, BROKEN, CLOSED, CUT, FORWARDED, REFUSED, read

HERE = os.path.dirname(os.path.abspath(__file__))
NAME = re.compile(r"[a-z0-9][a-z0-9.,_-]*")
WANT = re.compile(r'([>?]) (\S+) (\S+) "((?:[^"\\]|\\.)*)"((?: [+%-].*)?)')
FIELD = re.compile(r" ([+%-])([^\s:]+)(?:: (.*?))?(?= [+%-][^\s:]+|$)")
REPEAT = re.compile(rb"\{([^{}]+?)\*(\d+)\}")
WAIT = b"{wait}"


class Want:
    """One request of a case."""

    def __init__(self, kind, method="", target="", body=b"", status=None):
        self.kind, self.method, self.target, self.body, self.status = kind, method, target, body, status
        self.has, self.lacks, self.trailers = {}, [], {}


class Case:
    def __init__(self, name):
        self.name = name
        self.lines = []
        self.wants = []

    def pieces(self, host):
        """What is sent, in pieces between which an answer is read."""
        return self.bytes(host).split(WAIT)

    def bytes(self, host):
        path = f"/c/{self.name}"
        get = f"GET {path} HTTP/1.1\r\nHost: {host}\r\n"
        macros = {
            "h": host,
            "H": host.upper(),
            "p": path,
            "get": get,
            "post": get.replace("GET", "POST", 1),
            "h10": get.replace("GET", "POST", 1).replace("HTTP/1.1", "HTTP/1.0"),
            "next": f"GET /next HTTP/1.1\r\nHost: {host}\r\n\r\n",
            "hidden": f"GET /hidden HTTP/1.1\r\nHost: {host}\r\n\r\n",
        }
        tail = {"!": "{hidden}", ".": "{hidden}", "x": ""}.get(self.wants[-1].kind, "{next}")
        return expand("".join(self.lines) + tail, macros)

    def expected(self, host):
        """The wants, their macros filled in, the one for the tail with them."""
        path = f"/c/{self.name}"
        macros = {"h": host, "p": path}
        filled = []
        for want in self.wants:
            method, target = (expand(part, macros).decode("latin-1") for part in (want.method, want.target))
            new = Want(want.kind, method, path if target == "." else target, expand(want.body, macros), want.status)
            new.has = {name: expand(value, macros).decode("latin-1") for name, value in want.has.items()}
            new.trailers = {name: expand(value, macros).decode("latin-1") for name, value in want.trailers.items()}
            new.lacks = want.lacks
            filled.append(new)
        if self.wants[-1].kind not in "!.x":
            filled.append(Want(">", "GET", "/next", b""))
        return filled


def expand(raw, macros):
    """Escapes and macros; whatever else stands in braces stays."""
    if isinstance(raw, bytes):
        raw = raw.decode("latin-1")
    for name, value in macros.items():
        raw = raw.replace("{%s}" % name, value)
    done = re.sub(rb"\\(x[0-9a-f]{2}|.)", unescape, raw.encode("latin-1"), flags=re.DOTALL)
    return REPEAT.sub(lambda match: match.group(1) * int(match.group(2)), done)


ESCAPES = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"0": b"\0", b"v": b"\v", b"f": b"\f", b"\\": b"\\", b'"': b'"'}


def unescape(match):
    escape = match.group(1)
    if escape[:1] == b"x" and len(escape) == 3:
        return bytes([int(escape[1:], 16)])
    return ESCAPES[escape]


def load():
    cases = []
    with open(os.path.join(HERE, "cases.txt"), encoding="ascii") as file:
        for number, line in enumerate(file, 1):
            line = line.rstrip("\n")
            if not line or line.startswith("#"):
                continue
            if NAME.fullmatch(line):
                cases.append(Case(line))
            elif not line.startswith("  ") or not cases:
                raise ValueError(f"cases.txt:{number}: neither a name nor a line of a case: {line!r}")
            elif not add(cases[-1], line[2:]):
                if cases[-1].wants:
                    raise ValueError(f"cases.txt:{number}: not understood, or bytes behind a verdict: {line!r}")
                cases[-1].lines.append(line[2:])
    names = [case.name for case in cases]
    assert len(set(names)) == len(names), sorted(name for name in names if names.count(name) > 1)
    for case in cases:
        assert case.lines and case.wants, f"{case.name} has no bytes or no verdict"
    return cases


def add(case, line):
    """Whether the line says what must become of the bytes."""
    if match := WANT.fullmatch(line):
        kind, method, target, body, fields = match.groups()
        want = Want(kind, method, target, body)
        for sign, name, value in FIELD.findall(fields):
            if sign == "-":
                want.lacks.append(name)
            else:
                (want.has if sign == "+" else want.trailers)[name] = value
        case.wants.append(want)
    elif match := re.fullmatch(r"([*!]) ([0-9x]{3})", line):
        case.wants.append(Want(match.group(1), status=match.group(2)))
    elif match := re.fullmatch(r"([eu]) (\S+) (\S+)", line):
        case.wants.append(Want(*match.groups()))
    elif line in ("x", ". close"):
        case.wants.append(Want(line[0]))
    else:
        return False
    return True


def agrees(want, item):
    """Whether the reading of a stream says of one request what its author wrote down."""
    match want.kind:
        case ">" | "?" | "u":
            if want.kind == "u" and item.verdict == ANSWERED and item.status == 502:
                return True
            same = (item.method, item.target) == (want.method, want.target)
            same = same and item.verdict == FORWARDED and (want.kind == "u" or item.body == want.body)
            same = same and not any(name in item.fields for name in want.lacks)
            same = same and {name: [value] for name, value in want.trailers.items()} == item.trailers
            if want.kind == "u":
                return same and item.upgrade is not None
            return same
        case "e":
            return (item.method, item.target) == (want.method, want.target)
        case "*":
            return item.verdict == ANSWERED and str(item.status) == want.status
        case "!":
            return item.verdict in (REFUSED, BROKEN) and str(item.status) == want.status


def self_test(cases, host):
    """cases.txt was written by hand and reading.py by rule: they must agree before any server is asked. How many requests."""
    requests = 0
    for case in cases:
        reading = read(b"".join(case.pieces(host)), host)
        requests += len(reading.items)
        if why := disagreement(case.expected(host), reading):
            raise AssertionError(f"{case.name}: {why}: {reading}")
    return requests


def disagreement(wants, reading):
    items = list(reading.items)
    told = [want for want in wants if want.kind not in "x."]
    last = wants[-1].kind
    if last == "x" and items and items[-1].verdict == CUT:
        early = told and told[-1].kind == "e" and told.pop()
        if early and not agrees(early, items[-1]):
            return "another request is answered early"
        items.pop()
    if len(items) != len(told):
        return f"{len(told)} requests are told of"
    for want, item in zip(told, items):
        if not agrees(want, item):
            return f"not what is told of {item}"
    if (reading.end == CLOSED) != (last in "!."):
        return "one of them goes on"
    return None


if __name__ == "__main__":
    loaded = load()
    print(len(loaded), "cases,", self_test(loaded, "abc.one"), "requests")
