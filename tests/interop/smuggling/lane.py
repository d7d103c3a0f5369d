"""One client of one backend: sends streams with a canary behind each, and holds what the backend understood, and what came
back, against the reading of the bytes. Which streams, and what is started, never enters."""

import base64
import hashlib
import json
import os
import re
import socket
import time
from collections import Counter, defaultdict

from reading import BROKEN, CLOSED, CUT, FORWARDED, REFUSED, read

ANSWER_S_MAX = 15
LOG_S_MAX = 5
STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2}) [\t -~]*")
PLAIN_METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"}
PLAIN_TARGET = re.compile(r"/[A-Za-z0-9/_.,:;=&?+-]*")
PLAIN_NAME = re.compile(r"[A-Za-z0-9_-]+")


class Wrong(Exception):
    """What must not be."""


class Silence(Wrong):
    """Nothing came, for too long."""


def check(true, what):
    if not true:
        raise Wrong(what)


class Answer:
    def __init__(self, status, fields):
        self.status, self.fields, self.body = status, fields, b""

    def field(self, name):
        values = self.fields.get(name, [])
        check(len(values) <= 1, f"{name} is {values}")
        return values[0] if values else None

    @property
    def is_the_edges(self):
        return (self.field("proxy-status") or "").startswith("ptth")

    def __repr__(self):
        return f"{self.status} {self.fields} {self.body[:200]}"


class Client:
    """A connection to the edge that reads answers strictly."""

    def __init__(self, port, source):
        self.socket = socket.socket()
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Thousands of short connections: the kernel chooses the port only with the connect.
        self.socket.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
        self.socket.bind((source, 0))
        self.socket.settimeout(ANSWER_S_MAX)
        self.socket.connect(("127.0.0.1", port))
        self.buffer = b""
        self.interims = 0

    def send(self, piece):
        try:
            self.socket.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it refused what came before; its answer says so

    def fill(self):
        """False at the end."""
        try:
            piece = self.socket.recv(1 << 16)
        except ConnectionResetError:
            return False
        except TimeoutError:
            raise Silence(f"nothing came for {ANSWER_S_MAX} s; before it {self.buffer[:300]!r}") from None
        self.buffer += piece
        return bool(piece)

    def until(self, ready, what):
        while not ready():
            check(self.fill(), f"the edge closed, and {what}; it sent {self.buffer[:300]!r}")

    def take(self, size):
        self.until(lambda: len(self.buffer) >= size, "an answer is not whole")
        piece, self.buffer = self.buffer[:size], self.buffer[size:]
        return piece

    def line(self):
        self.until(lambda: b"\r\n" in self.buffer, "a line is not whole")
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line

    def head(self):
        self.until(lambda: b"\r\n\r\n" in self.buffer, "an answer's head is missing")
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        line, *lines = head.split(b"\r\n")
        match = STATUS_LINE.fullmatch(line)
        check(match, f"this is no status line: {line[:300]!r}")
        fields = defaultdict(list)
        for line in lines:
            name, colon, value = line.partition(b": ")
            check(colon and PLAIN_NAME.fullmatch(name.decode("latin-1")), f"this is no field: {line[:300]!r}")
            fields[name.decode("latin-1").lower()].append(value.decode("latin-1"))
        return Answer(int(match.group(1)), fields)

    def answer(self, is_head):
        """The next final one."""
        while (answer := self.head()).status < 200 and answer.status != 101:
            self.interims += 1
        if answer.status == 101 or is_head or answer.status in (204, 304):
            return answer
        length, coding = answer.field("content-length"), answer.field("transfer-encoding")
        check((length is None) != (coding is None), f"an answer with both framings or none: {answer}")
        if length is not None:
            answer.body = self.take(int(length))
            return answer
        check(coding == "chunked", f"the coding {coding}")
        while size := int(self.line(), 16):
            answer.body += self.take(size)
            check(self.take(2) == b"\r\n", "a chunk without its end")
        check(self.line() == b"", "an answer with trailers")
        return answer

    def rest(self):
        """Everything up to the end."""
        while self.fill():
            pass
        rest, self.buffer = self.buffer, b""
        return rest

    def finish(self):
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self):
        self.socket.close()


class Log:
    """What a recorder has written, read as it grows."""

    def __init__(self, path):
        self.path = path
        self.file = None
        self.part = b""
        self.heads, self.ends, self.bad = {}, {}, {}

    def look(self):
        if self.file is None:
            if not os.path.exists(self.path):
                return
            self.file = open(self.path, "rb")
        lines = (self.part + self.file.read()).split(b"\n")
        self.part = lines.pop()
        for kind, number, *more in map(json.loads, lines):
            {"head": self.heads, "whole": self.ends, "cut": self.ends, "bad": self.bad}[kind][number] = (kind, *more)

    def wait(self, known, number):
        """What `known` says of it, or None."""
        end = time.monotonic() + LOG_S_MAX
        while number not in known:
            self.look()
            if number in known:
                break
            if time.monotonic() > end:
                return None
            time.sleep(0.005)
        return known[number]


def may_refuse(item):
    """Whether a backend may find something in it to refuse, though it is well-formed."""
    return not (
        item.method in PLAIN_METHODS
        and PLAIN_TARGET.fullmatch(item.target)
        and "/../" not in item.target + "/"
        and all(PLAIN_NAME.fullmatch(name) for name in item.fields)
    )


def grouped(fields):
    groups = defaultdict(list)
    for name, value in fields:
        groups[name.lower()].append(value)
    return groups


class Lane:
    def __init__(self, name, host, link, edge_port, log, source, asks_edge):
        self.name, self.host, self.link, self.edge_port, self.source = name, host, link, edge_port, source
        self.asks_edge = asks_edge
        self.log = Log(log)
        self.is_nginx = name == "nginx"
        self.counts = Counter()
        self.canary = None
        self.canaries = 0
        # Requests of which the backend may have seen something without an answer that tells how much.
        self.excused = []
        self.excused_numbers = {}
        self.own_lines = Counter()
        # Every number up to this one is accounted for, and these beyond it.
        self.last = 0
        self.got = set()

    # ---- one stream ----

    def play(self, pieces, wants=None, dwell_s=0.0):
        """Sends a stream, in pieces between which an answer is waited for if it has `wants` (a case), and a canary behind it."""
        reading = read(b"".join(pieces), self.host, self.link)
        self.counts["streams"] += 1
        client = Client(self.edge_port, self.source)
        try:
            client.send(pieces[0])
            self.send_canary()
            for piece in pieces[1:]:
                if wants is not None:
                    client.until(lambda: client.buffer, "an answer was waited for")
                client.send(piece)
            self.hear(client, reading, wants, dwell_s)
            self.hear_canary()
            self.account()
        except Wrong as wrong:
            held = f"\n    the edge holds {self.asks_edge()}" if isinstance(wrong, Silence) else ""
            raise Wrong(f"{wrong}\n    read as {reading}{held}") from None
        finally:
            client.close()

    def hear(self, client, reading, wants, dwell_s):
        wants = list(wants or [])
        for item in reading.items:
            want = wants.pop(0) if wants and wants[0].kind not in "x." else None
            is_early = want is not None and want.kind == "e"
            self.counts[item.verdict] += 1
            if item.verdict == CUT and not is_early:
                self.excuse(item)
                break
            # Nobody knows the method of a head that cannot be read, and the reading does not give it one.
            answer = client.answer(is_head=item.method == "HEAD")
            if is_early:
                self.check_early(answer, item)
            elif item.verdict == FORWARDED:
                self.check_forwarded(answer, item, want)
            elif item.verdict == BROKEN and self.is_a_backends_refusal(answer):
                check(may_refuse(item), f"the backend refused {item} with {answer}")
                self.excuse(item)
            else:
                if item.verdict == BROKEN:
                    self.excuse(item)
                self.check_own(answer, item)
        if reading.end == CLOSED:
            check(not (rest := client.rest()), f"behind its last answer came {rest[:300]!r}")
            return
        time.sleep(dwell_s)
        client.finish()
        if rest := client.rest():
            self.check_rest(rest, reading)

    def check_rest(self, rest, reading):
        """What may come for a request that is cut: a 100, or what a backend says that reads no further."""
        last = reading.items[-1] if reading.items else None
        is_cut = last is not None and last.verdict == CUT
        check(is_cut, f"behind its last answer came {rest[:300]!r}")
        if last.expects and rest.startswith(b"HTTP/1.1 100 "):
            rest = rest.partition(b"\r\n\r\n")[2]
        is_refusal = re.match(rb"HTTP/1\.1 [45]", rest) and b"proxy-status" not in rest
        check(not rest or (is_refusal and may_refuse(last)), f"a request that is cut was answered: {rest[:300]!r}")

    def check_own(self, answer, item):
        """The edge's own answer."""
        wanted = str(item.status)
        status = str(answer.status)
        check(status == wanted or wanted[1:] == "xx" and wanted[0] == status[0], f"{wanted} is due to {item}, it got {answer}")
        if wanted != "4xx":
            check(answer.is_the_edges, f"a {wanted} of the edge itself is due to {item}, it got {answer}")
        if item.verdict in (REFUSED, BROKEN):
            check("close" in (answer.field("connection") or ""), f"a refusal that does not say close: {answer}")

    def is_a_backends_refusal(self, answer):
        return answer.status >= 400 and not answer.is_the_edges

    def check_forwarded(self, answer, item, want):
        if self.is_a_backends_refusal(answer):
            check(may_refuse(item), f"the backend refused {item} with {answer}")
            self.counts["refused by the backend"] += 1
            self.excuse(item)
            return
        if item.upgrade is not None and answer.status == 502 and self.link == "h2":
            # What a backend says that does not switch has no words in HTTP/2.
            self.counts["upgrades that nobody granted"] += 1
            self.find_declined(item)
            return
        check(answer.status == 200, f"200 is due to {item}, it got {answer}")
        self.check_number(answer)
        told = answer.body
        if item.method == "HEAD":
            told = base64.b64decode(answer.field("x-record") or "")
            if not told:
                self.counts["records too large for a head"] += 1
                return
        try:
            record = json.loads(told)
        except ValueError:
            raise Wrong(f"the answer to {item} is no record: {answer}") from None
        self.check_record(record, item, want)

    def find_declined(self, item):
        """The backend has answered it, so its log has it: the last of these that nobody has claimed, and whole."""
        self.log.look()
        is_it = lambda number: number not in self.got and self.log.heads[number][1:] == (item.method, item.target)
        found = [number for number in self.log.heads if number > self.last and is_it(number)]
        check(found, f"no backend saw {item}")
        check(self.log.ends.get(found[-1], ())[:1] == ("whole",), f"the backend saw a part of {item}")
        self.got.add(found[-1])

    def check_early(self, answer, item):
        check(answer.status == 200, f"an early answer is due to {item}, it got {answer}")
        told = answer.body.decode()
        check(told == f"early {item.method} {item.target}\n", f"the early answer is {told!r}")
        self.own_lines[f"{item.method} {item.target} HTTP/1.1"] += 1
        if not self.is_nginx:
            self.check_number(answer)

    def check_number(self, answer):
        number = int(answer.field("x-seen") or 0)
        check(number > self.last and number not in self.got, f"number {number} was answered before")
        self.got.add(number)

    def check_record(self, record, item, want=None):
        """What the backend says that it saw, against what the bytes mean."""
        got = (record["method"], record["target"])
        check(got == (item.method, item.target), f"the backend saw {got}, it is {item}")
        digest = hashlib.sha256(item.body).hexdigest()
        check(record["bytes"] == len(item.body), f"the backend saw a body of {record['bytes']} bytes, it is {item}")
        check(record["sha256"] == digest, f"the backend saw another body of {record['bytes']} bytes, it is {item}")
        fields = grouped(record["fields"])
        trailers = dict(grouped(record["trailers"]))
        if want is not None:
            self.check_want(fields, want)
        if not self.is_nginx:
            check(trailers == item.trailers, f"the backend saw the trailers {trailers}, they are {item.trailers}")

        # What the edge says in its own words, each once, whatever the client claims.
        host, port = item.host
        host = host.decode() + (f":{port}" if port else "")
        for name, value in (("host", host), ("x-forwarded-for", self.source), ("x-forwarded-proto", "http"), ("x-forwarded-host", host)):
            told = [told.lower() for told in fields.pop(name, [])]
            check(told == [value], f"{name} is {told}, not {value}")
        via = fields.pop("via", [])
        check(via == item.via, f"via is {via}, not {item.via}")
        forwarded = fields.pop("forwarded", [])
        check(len(forwarded) == 1 and forwarded[0].startswith(f"for={self.source};"), f"forwarded is {forwarded}")
        check(len(fields.pop("priority", [])) == 1, "priority is not there once")
        ids = fields.pop("x-request-id", [])
        check(len(ids) == 1 and re.fullmatch("[0-9a-f]{32}", ids[0]), f"x-request-id is {ids}")
        self.check_framing(fields, item)

        # And all others as they came.
        wanted = item.fields
        if item.upgrade is not None:
            fields.pop("sec-websocket-key", None)
            wanted = {name: values for name, values in wanted.items() if name != "sec-websocket-key"}
        if self.link == "h2" and "cookie" in wanted:
            wanted = {**wanted, "cookie": ["; ".join(wanted["cookie"])]}  # RFC 9113 §8.2.3
        check(dict(fields) == wanted, f"the backend saw the fields {dict(fields)}, they are {wanted}")

    def check_framing(self, fields, item):
        lengths, codings = fields.pop("content-length", []), fields.pop("transfer-encoding", [])
        check(len(lengths) + len(codings) <= 1, f"framed by {lengths} and {codings}")
        check(lengths in ([], [str(len(item.body))]), f"content-length is {lengths}, the body has {len(item.body)} bytes")
        check(codings in ([], ["chunked"]), f"transfer-encoding is {codings}")
        if not self.is_nginx:
            check(bool(codings) == item.has_length_unknown, f"transfer-encoding is {codings}, for {item}")
        options = {option.strip().lower() for value in fields.pop("connection", []) for option in value.split(",")}
        te, upgrade = fields.pop("te", []), fields.pop("upgrade", [])
        check(te in ([], ["trailers"]), f"te is {te}")
        check(options <= {"te", "upgrade"}, f"connection is {options}")
        said = [value.lower().encode("latin-1") for value in upgrade]
        check(not said or item.upgrade is not None and said == [item.upgrade.lower()], f"upgrade is {upgrade}, for {item}")

    def check_want(self, fields, want):
        for name, value in want.has.items():
            check(value in fields.get(name, []), f"{name} is {fields.get(name)}, not {value}")
        framed_anew = {"connection", "content-length"} if self.is_nginx else set()
        for name in set(want.lacks) - framed_anew:
            check(name not in fields, f"the backend saw {name}: {fields.get(name)}")

    # ---- the canary ----

    def send_canary(self):
        if self.canary is None:
            self.canary = Client(self.edge_port, self.source)
        self.canaries += 1
        number = self.canaries
        body = b"canary %d" % number
        head = b"POST /canary/%d HTTP/1.1\r\nHost: %s\r\nX-Canary: %d\r\n" % (number, self.host.encode(), number)
        if number % 3 == 0:
            stream = head.replace(b"POST", b"GET") + b"\r\n"
        elif number % 3 == 1:
            stream = head + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        else:
            stream = head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        self.canary_item = read(stream, self.host, self.link).items[0]
        self.canary.send(stream)

    def hear_canary(self):
        try:
            answer = self.canary.answer(is_head=False)
            check(answer.status == 200, f"it got {answer}")
            self.check_number(answer)
            self.check_record(json.loads(answer.body), self.canary_item)
            check(not self.canary.buffer, f"behind its answer came {self.canary.buffer[:300]!r}")
        except (Wrong, ValueError) as wrong:
            raise type(wrong)(f"the canary: {wrong}") from None
        self.counts["canaries"] += 1

    def recover(self):
        """After a failure: a new canary, and everything up to it is forgotten."""
        if self.canary is not None:
            self.canary.close()
            self.canary = None
        self.last = 0
        time.sleep(0.2)
        self.got = set()
        self.send_canary()
        answer = self.canary.answer(is_head=False)
        self.last = int(answer.field("x-seen") or 0)

    # ---- every request that the backend saw ----

    def excuse(self, item):
        self.excused.append(item)
        del self.excused[:-50]
        self.own_lines[f"{item.method} {item.target} HTTP/1.1"] += 1

    def account(self):
        """Each beginning of a request that the backend saw belongs to one that was sent."""
        for number in range(self.last + 1, max(self.got, default=self.last)):
            if number not in self.got:
                self.explain(number)
        self.last = max(self.got, default=self.last)
        self.got.clear()

    def explain(self, number):
        self.log.look()
        deadline = time.monotonic() + LOG_S_MAX
        while number not in self.log.heads and number not in self.log.bad:
            check(time.monotonic() < deadline, f"request {number} is in no log")
            time.sleep(0.005)
            self.log.look()
        if number in self.log.bad:
            why = self.log.bad[number][1]
            found = [item for item in self.excused if may_refuse(item)]
            check(found, f"the backend saw what is no request: {why}")
            self.excused.remove(found[-1])
            return
        _, method, target = self.log.heads[number]
        found = [item for item in self.excused if (item.method, item.target) == (method, target)]
        check(found, f"the backend saw {method} {target}, which nobody sent, or not now")
        self.excused.remove(found[-1])
        # Bent streams of one case look alike up to their bodies: it may be any of these.
        self.excused_numbers[number] = found
        self.counts["cut at the backend"] += 1

    def settle(self):
        """At the end: what was cut on its way never looked whole to the backend."""
        self.send_canary()
        self.hear_canary()
        self.account()
        for number, items in self.excused_numbers.items():
            end = self.log.wait(self.log.ends, number)
            check(end is not None, f"nothing is known of the end of {items}")
            check(end[0] == "cut", f"the backend saw a whole one of {items}")
            check(any(end[1] <= len(item.body) for item in items), f"the backend saw {end[1]} bytes of {items}")

    def settle_nginx(self, access_log):
        """What nginx answered itself, it was asked: a request line that nobody sent is one that it found in another's bytes."""
        with open(access_log, encoding="utf-8", errors="replace") as file:
            lines = [json.loads(line) for line in file]
        self.log.look()
        passed = sum(1 for _, upstream, _ in lines if upstream == "200")
        check(passed == len(self.log.heads), f"nginx passed {passed} requests on, {len(self.log.heads)} came")
        for status, upstream, request in lines:
            if upstream != "200":
                known = self.own_lines[request] > 0
                check(known, f"nginx answered {status} to {request!r}, which nobody sent, or not so often")
                self.own_lines[request] -= 1
