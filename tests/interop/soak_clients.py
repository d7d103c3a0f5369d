"""The clients of soak.py: an open loop of requests over connections with TLS and without, kept and fresh, by clients of which some
read or send slowly, leave in the middle, or never say what they want. What an outcome means never enters: a Table judges it."""

import asyncio
import collections
import json
import random
import ssl
import time

from soak_h2 import Http2
from soak_origin import pattern, reset
from soak_table import REQUEST_S_MAX, UNTAKEN

UNDER_WAY_MAX = 500
KEPT_S_MAX = 25
# Of a thousand requests.
DEEDS = {
    "get": 480, "post": 140, "put": 50, "download": 25, "upload": 30, "drip": 60, "early": 10, "interim": 15, "head": 25,
    "missing": 15, "expect": 15, "cut": 12, "mute": 10, "bad": 14, "hang": 1, "tunnel": 15, "pipeline": 20,
    "leave": 45, "slow reader": 5, "slow sender": 7, "half head": 4, "idle": 4,
}  # fmt: skip
OVER_H1_ALONE = ("head", "expect", "tunnel", "pipeline", "half head", "idle")
POOLS = {"cap": 40, "prio": 38, "now": 16, "extra": 6}


class Ask:
    """A request, and what became of it."""

    numbers = iter(range(1 << 60))

    def __init__(self, dice, pool, deed):
        self.name, self.pool, self.deed, self.path_deed = f"r{next(Ask.numbers)}", pool, deed, "ok"
        self.method, self.up, self.down, self.ms, self.pieces = "GET", 0, dice.randrange(2500), spread(dice), 0
        self.chunked = dice.random() < 0.3
        self.sent = self.done = time.monotonic()
        self.outcome, self.status, self.is_kept, self.is_secure, self.at_side = None, None, False, False, False
        self.idle_s, self.request_id, self.is_h2, self.error = 0.0, None, False, ""

    def took(self):
        return self.done - self.sent

    def may_repeat(self):
        """64 KiB of a body are kept, in pieces of which there are not too many; the edge may have read somewhat more."""
        return self.method in ("GET", "HEAD", "PUT") and self.up < 60_000

    def path(self):
        return f"/{self.path_deed}/{self.name}/{self.up}/{self.down}/{self.ms}/{self.pieces}"

    def head(self, *more):
        fields = [f"{self.method} {self.path()} HTTP/1.1", f"Host: {self.pool}.soak.test", *more]
        if self.pool == "prio":
            fields.append(f"Priority: u={len(self.name) * 5 % 8}")
        if self.up:
            fields.append("Transfer-Encoding: chunked" if self.chunked else f"Content-Length: {self.up}")
        return "\r\n".join([*fields, "\r\n"]).encode()

    def body(self):
        """As it is sent."""
        body = pattern("up", self.name, self.up)
        if not self.chunked or not self.up:
            return body
        step = max(1, self.up // 7)
        pieces = [body[at : at + step] for at in range(0, self.up, step)]
        return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"

    def __str__(self):
        way = ("TLS" if self.is_secure else "plain") + (", HTTP/2" if self.is_h2 else "")
        kept = f"kept, idle {self.idle_s:.2f} s" if self.is_kept else "fresh"
        return (f"{self.outcome}: {self.deed} {self.method} {self.path()} of pool {self.pool}, {way}, {kept}, "
                f"took {self.took():.2f} s, request id {self.request_id} {self.error}")


def spread(dice):
    """Milliseconds that a server takes: mostly few."""
    kind = dice.random()
    low, high = (0, 20) if kind < 0.7 else (50, 200) if kind < 0.9 else (200, 1000) if kind < 0.985 else (1000, 3000)
    return dice.randint(low, high)


class Wrong(Exception):
    """An answer that nobody may ever give."""


class Wire:
    """A client's connection."""

    def __init__(self, reader, writer, key):
        self.reader, self.writer, self.key = reader, writer, key
        self.since = time.monotonic()
        self.was_used = False

    def has_some(self):
        """Something has arrived that nobody has read."""
        return bool(self.reader._buffer)

    async def head(self):
        """Status and fields of the next head."""
        lines = (await self.reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        fields = {}
        for line in lines[1:-2]:
            name, _, value = line.partition(b":")
            fields[name.lower()] = value.strip()
        if not lines[0].startswith(b"HTTP/1.1 "):
            raise Wrong(f"a status line {lines[0][:60]!r}")
        return int(lines[0].split(b" ")[1]), fields

    async def body(self, status, fields, is_head, slowly=None):
        if is_head or status in (204, 304):
            return b""
        if fields.get(b"transfer-encoding") == b"chunked":
            pieces = []
            while size := int((await self.reader.readuntil(b"\r\n"))[:-2], 16):
                pieces.append(await self.reader.readexactly(size))
                await self.reader.readexactly(2)
                if slowly:
                    await slowly()
            if await self.reader.readuntil(b"\r\n") != b"\r\n":
                raise Wrong("trailers that nobody sent")
            return b"".join(pieces)
        if b"content-length" not in fields:
            raise Wrong(f"an answer without an end: {fields}")
        left, pieces = int(fields[b"content-length"]), []
        while left:
            piece = await self.reader.read(min(left, 16_384 if slowly else 1 << 16))
            if not piece:
                raise asyncio.IncompleteReadError(b"", left)
            pieces.append(piece)
            left -= len(piece)
            if slowly:
                await slowly()
        return b"".join(pieces)


# What the answers of the edge and of workers say, and what their Proxy-Status says of it.
DETAILS = {
    "the connection to the worker was lost": "connection_terminated",
    "gave the request back": "connection_terminated",
    "the worker aborted the request": "connection_terminated",
    "stopped sending": "http_response_timeout",
    "did not answer in time": "http_response_timeout",
    "does not take connections": "connection_refused",
    "the queue is full": "connection_limit_reached",
    "no worker took the request in time": "connection_timeout",
    "no worker is connected": "destination_unavailable",
    "the edge is shutting down": "destination_unavailable",
    "nothing here serves this origin": "destination_not_found",
    "the request body": "http_request_error",
}
BROKEN = (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError, TimeoutError, BrokenPipeError, OSError)


class Clients:
    def __init__(self, place, table, diary, dice):
        """`place` has `port`, `tls_port`, `side_port` (or None while nobody listens there) and `context`."""
        self.place, self.table, self.diary, self.dice = place, table, diary, dice
        self.kept = collections.defaultdict(list)
        self.http2 = []
        self.tasks, self.under_way = set(), collections.Counter()
        self.failures = []
        self.opened = self.held_back = 0
        self.outcomes = collections.Counter()
        self.untaken = {}  # requests that no server may have seen
        self.forget()

    def forget(self):
        """Begins the books anew."""
        self.seen, self.unknown = collections.Counter(), collections.Counter()

    # ---- the loop ----

    async def load(self, rate, over):
        """Sends requests at this rate, whatever becomes of them, until `over` is set."""
        due = time.monotonic()
        while not over.is_set():
            due += self.dice.expovariate(rate)
            pause = due - time.monotonic()
            if pause > 0:
                await asyncio.sleep(pause)
            elif pause < -1:
                due = time.monotonic()  # this machine is too slow for that rate
            if len(self.tasks) >= UNDER_WAY_MAX:
                self.held_back += 1
                await asyncio.sleep(0.02)
                continue
            self.begin(self.choose(DEEDS), self.choose(POOLS))

    def choose(self, weights):
        return self.dice.choices(list(weights), weights.values())[0]

    def begin(self, deed, pool):
        # What they do is drawn before they run: a seed makes the same clients, whoever is faster.
        visit = self.visit(deed, pool, random.Random(self.dice.random()))
        task = asyncio.create_task(visit)
        self.tasks.add(task)
        task.add_done_callback(self.visited)
        return task

    def visited(self, task):
        self.tasks.discard(task)
        if not task.cancelled() and task.exception():
            self.failures.append(f"this script: {task.exception()!r}")

    async def gone(self):
        """Until nobody asks any more; then all connections are closed."""
        if self.tasks:
            await asyncio.wait(list(self.tasks), timeout=REQUEST_S_MAX + 30)
        if self.tasks:
            self.failures.append(f"{len(self.tasks)} clients hang")
        for wires in self.kept.values():
            for wire in wires:
                wire.writer.close()
        self.kept.clear()
        for connection in self.http2:
            connection.close()
        self.http2.clear()

    # ---- one visit ----

    async def visit(self, deed, pool, dice):
        is_secure = dice.random() < 0.35
        if deed not in OVER_H1_ALONE and dice.random() < 0.25:
            return await self.visit_h2(deed, pool, is_secure, dice)
        at_side = not is_secure and self.place.side_port is not None and dice.random() < 0.1
        key = (self.place.side_port if at_side else self.place.tls_port if is_secure else self.place.port, is_secure, pool)
        asks = self.asks_of(deed, pool, dice)
        for ask in asks:
            ask.is_secure, ask.at_side = is_secure, at_side
        wire = self.take(key) if dice.random() < 0.85 and deed not in ("half head", "idle") else None
        if wire is None:
            try:
                wire = await asyncio.wait_for(self.open(key), REQUEST_S_MAX)
            except TimeoutError:
                return self.all_end(asks, "hang")
            except BROKEN as error:
                for ask in asks:
                    ask.error = f"connect to {key[0]}: {error!r}"
                return self.all_end(asks, "refused" if isinstance(error, ConnectionRefusedError) else "dropped")
        else:
            for ask in asks:
                ask.is_kept, ask.idle_s = True, time.monotonic() - wire.since
        self.under_way[pool] += len(asks)
        self.diary.crowd(pool, self.under_way[pool])
        for ask in asks:
            ask.sent = time.monotonic()
        try:
            keeps = await asyncio.wait_for(self.ask(wire, asks, dice), REQUEST_S_MAX)
        except TimeoutError:
            self.all_end(asks, "hang")
            keeps = False
        if keeps:
            wire.was_used, wire.since = True, time.monotonic()
            self.kept[wire.key].append(wire)
        elif not wire.writer.transport.is_closing():
            wire.writer.close()
        if asks and asks[0].outcome == "left":
            await asyncio.sleep(2)  # by then the edge knows it, too
        self.under_way[pool] -= len(asks)

    async def open(self, key):
        port, is_secure, pool = key
        secure = {"ssl": self.place.context, "server_hostname": f"{pool}.soak.test"} if is_secure else {}
        self.opened += 1
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 17, **secure)
        return Wire(reader, writer, key)

    def take(self, key):
        """A kept connection that has not ended, as far as anybody knows."""
        while self.kept[key]:
            wire = self.kept[key].pop()
            if wire.reader.at_eof() or wire.writer.transport.is_closing() or time.monotonic() - wire.since > KEPT_S_MAX:
                wire.writer.close()
                continue
            return wire
        return None

    def asks_of(self, deed, pool, dice):
        if deed == "idle":
            return []
        if deed == "pipeline":
            return [Ask(dice, pool, "get") for _ in range(dice.randint(2, 5))]
        ask = Ask(dice, pool, deed)
        match deed:
            case "post" | "expect":
                ask.method, ask.up = "POST", dice.randint(1, 4000)
            case "put":
                ask.method, ask.up = "PUT", dice.randint(1, 50_000)
            case "download":
                ask.down, ask.pieces, ask.ms = dice.randint(150_000, 1_200_000), dice.choice([0, 0, 7]), dice.randint(0, 30)
            case "upload":
                ask.method, ask.up = dice.choice(["POST", "PUT"]), dice.randint(60_000, 700_000)
            case "drip":
                ask.down, ask.pieces, ask.ms = dice.randint(100, 30_000), dice.randint(2, 8), dice.randint(5, 150)
            case "early":
                ask.method, ask.up, ask.path_deed = "POST", dice.randint(1, 300_000), "early"
            case "head":
                ask.method = "HEAD"
            case "bad":
                ask.path_deed, ask.ms = "bad", dice.randrange(8)
                ask.deed = "badly" if ask.ms == 7 else "bad"
            case "interim" | "missing" | "mute" | "hang":
                ask.path_deed = deed
                if deed == "mute" and dice.random() < 0.3:
                    ask.method, ask.up = "POST", 100
            case "cut":
                ask.path_deed, ask.down, ask.pieces = "cut", dice.randint(10, 200_000), dice.choice([0, 1])
            case "tunnel":
                ask.path_deed, ask.down = "tunnel", dice.randint(1, 20_000)
            case "leave":
                kind = dice.random()
                if kind < 0.4:
                    ask.method, ask.up = dice.choice(["POST", "PUT"]), dice.randint(1, 400_000)
                elif kind < 0.7:
                    ask.down = dice.randint(1, 800_000)
            case "slow reader":
                ask.down, ask.pieces = dice.randint(100_000, 500_000), dice.choice([0, 5])
            case "slow sender":
                ask.method, ask.up = dice.choice(["POST", "PUT"]), dice.randint(2_000, 90_000)
                ask.ms = min(ask.ms, 200)  # a head is waited for from the dispatch on, while the body comes
        return [ask]

    async def ask(self, wire, asks, dice):
        """True: the connection can be used again."""
        if not asks:
            await asyncio.sleep(dice.uniform(0.1, 5))
            return False
        ask = asks[0]
        try:
            match ask.deed:
                case "leave":
                    return await self.leave(wire, ask, dice)
                case "half head":
                    return await self.half_head(wire, ask, dice)
                case "tunnel":
                    return await self.tunnel(wire, ask, dice)
            return await self.exchanges(wire, asks, dice)
        except BROKEN as error:
            for ask in asks:
                ask.error = f"port {wire.key[0]}: {error!r}"
            self.broken(wire, asks)
        except (Wrong, ValueError, asyncio.LimitOverrunError) as error:
            self.all_end(asks, f"wrong: {type(error).__name__} {error}")
        return False

    def broken(self, wire, asks):
        """The connection ended. Of several requests that were sent together only the first may have been begun."""
        waiting = [ask for ask in asks if ask.outcome is None]
        before = None
        for ask in waiting:
            if before is None and (ask.status is not None or wire.has_some()):
                before = "cut"
            elif before == "cut" or before == "behind":
                before = "behind"
            else:
                before = "silent" if wire.was_used or len(waiting) < len(asks) else "dropped"
            self.end(ask, before)

    # ---- over HTTP/2 ----

    async def visit_h2(self, deed, pool, is_secure, dice):
        (ask,) = self.asks_of(deed, pool, dice)
        ask.is_secure, ask.is_h2 = is_secure, True
        key = (self.place.tls_port if is_secure else self.place.port, is_secure, pool)
        fits = [wire for wire in self.http2 if wire.key[:2] == key[:2] and (wire.key == key or not is_secure) and wire.takes_more()]
        if fits and dice.random() < 0.97:
            wire = fits[0]
        else:
            try:
                wire = await asyncio.wait_for(self.open_h2(key), REQUEST_S_MAX)
            except TimeoutError:
                return self.all_end([ask], "hang")
            except BROKEN as error:
                ask.error = f"connect to {key[0]}: {error!r}"
                return self.all_end([ask], "refused" if isinstance(error, ConnectionRefusedError) else "dropped")
        ask.is_kept = wire.was_used
        self.under_way[pool] += 1
        self.diary.crowd(pool, self.under_way[pool])
        ask.sent = time.monotonic()
        try:
            await asyncio.wait_for(self.ask_h2(wire, ask, dice), REQUEST_S_MAX)
        except TimeoutError:
            self.end(ask, "hang")
        if ask.outcome == "left":
            await asyncio.sleep(2)
        self.under_way[pool] -= 1
        if wire.broken:
            self.failures.append(f"{ask}\n      HTTP/2: {wire.broken}")

    async def open_h2(self, key):
        port, is_secure, pool = key
        secure = {"ssl": self.place.context_h2, "server_hostname": f"{pool}.soak.test"} if is_secure else {}
        self.opened += 1
        self.http2 = [wire for wire in self.http2 if not wire.is_over]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 17, **secure)
        if is_secure and writer.get_extra_info("ssl_object").selected_alpn_protocol() != "h2":
            raise ConnectionError("no h2")
        wire = Http2(reader, writer, key)
        self.http2.append(wire)
        return wire

    async def ask_h2(self, wire, ask, dice):
        fields = [("priority", f"u={len(ask.name) * 5 % 8}")] if ask.pool == "prio" else []
        if ask.up and not ask.chunked:
            fields.append(("content-length", str(ask.up)))
        stream = wire.open(ask.method, f"{ask.pool}.soak.test", ask.path(), fields, ask.up == 0)
        sender = None
        try:
            if ask.up:
                pause = (lambda: asyncio.sleep(dice.uniform(0.02, 0.3))) if ask.deed == "slow sender" else None
                sender = asyncio.create_task(wire.send(stream, pattern("up", ask.name, ask.up), pause))
            if ask.deed == "leave":
                return await self.leave_h2(wire, stream, ask, dice)
            if ask.deed == "slow reader":
                stream.reads = False
                while stream.over is None:
                    await asyncio.sleep(dice.uniform(0.05, 0.5))
                    stream.reads = True
                    wire.give_back(stream)
                    stream.reads = False
            await stream.until(lambda: False)
        finally:
            if sender:
                sender.cancel()
            wire.forget(stream)
        ask.status = stream.status
        if stream.over == "left" or wire.was_left:
            return self.end(ask, "left")  # with all others of its connection
        if stream.over == "whole":
            return self.end(ask, self.verdict_h2(ask, stream.status, bytes(stream.body)))
        if stream.over == "refused":
            return self.end(ask, "silent")
        # A reset tells that somebody had the request, with its head or without.
        is_cut = stream.status is not None or stream.over == "reset"
        self.end(ask, "cut" if is_cut else "silent" if ask.is_kept else "dropped")

    async def leave_h2(self, wire, stream, ask, dice):
        stage = dice.choice(["at once", "wait", "wait", "answer", "connection"])
        if stage in ("wait", "connection"):
            await asyncio.sleep(dice.choice([0, 0.001, 0.02, 0.2, 1]))
        elif stage == "answer":
            await stream.until(lambda: stream.status is not None)
        if stage == "connection" and dice.random() < 0.15:
            reset(wire.writer)  # and everybody else on it is gone, too
            wire.was_left = wire.is_over = True
            for other in list(wire.streams.values()):
                other.end("left")
        wire.reset(stream)
        self.end(ask, "left")

    def verdict_h2(self, ask, status, body):
        """As `verdict`, by the body: over HTTP/2 the fields are not read."""
        wanted = 404 if ask.deed == "missing" else 200
        if body == pattern("down", ask.name, ask.down):
            return "ok" if status == wanted else f"wrong: status {status}"
        text = body.decode(errors="replace")
        token = next((token for detail, token in DETAILS.items() if detail in text), None)
        if token and text.startswith(f"{status} "):
            return f"{status} {token}"
        if status in (400, 502) and text.startswith(f"{status} "):
            return f"{status} http_protocol_error"
        return f"wrong: {status} with {len(body)} bytes that are not its body of {ask.down}: {body[:80]!r}"

    # ---- deeds ----

    async def exchanges(self, wire, asks, dice):
        ask = asks[0]
        sender = None
        if ask.deed == "expect":
            wire.writer.write(ask.head("Expect: 100-continue"))
        elif ask.deed == "slow sender":
            wire.writer.write(ask.head())
            sender = asyncio.create_task(self.send_slowly(wire, ask, dice))
        elif ask.up > 60_000:
            wire.writer.write(ask.head())
            sender = asyncio.create_task(self.send(wire, ask.body()))
        else:
            wire.writer.write(b"".join(ask.head() + ask.body() for ask in asks))
        keeps = True
        try:
            for ask in asks:
                keeps = await self.answer(wire, ask, dice)
                if not keeps:
                    break
        finally:
            if sender:
                keeps = keeps and sender.done()
                sender.cancel()
        if not keeps and asks[-1].outcome is None:
            raise ConnectionError("it ended before all were answered")  # by Connection: close; they may be sent again
        return keeps

    async def answer(self, wire, ask, dice):
        status, fields = await wire.head()
        was_asked = False
        while 100 <= status < 200:
            if status == 100 and ask.deed == "expect" and not was_asked:
                was_asked = True
                wire.writer.write(ask.body())
            elif status != 103 or (ask.deed != "interim" and ask.ms != 6):
                raise Wrong(f"a {status} that nobody sent")
            status, fields = await wire.head()
        ask.status, ask.request_id = status, fields.get(b"x-request-id", b"").decode()
        slowly = None
        if ask.deed == "slow reader":
            slowly = lambda: asyncio.sleep(dice.uniform(0.01, 0.2))  # noqa: E731
        body = await wire.body(status, fields, ask.method == "HEAD", slowly)
        self.end(ask, self.verdict(ask, status, fields, body))
        is_whole = ask.deed != "expect" or was_asked
        # Who answers before a long body without a length was read cannot tell whether the connection will stay.
        if ask.up > 60_000 and (ask.deed == "early" or (ask.chunked and ask.outcome != "ok")):
            return False
        return b"close" not in fields.get(b"connection", b"").lower() and is_whole and ask.outcome[:5] != "wrong"

    def verdict(self, ask, status, fields, body):
        if not ask.request_id:
            return f"wrong: a {status} without X-Request-Id"
        if b"x-soak" not in fields:
            made = fields.get(b"proxy-status", b"").decode()
            if not made.startswith("ptth; error=") or not body.startswith(str(status).encode()) and ask.method != "HEAD":
                return f"wrong: a {status} that nobody made: {fields} {body[:80]!r}"
            if status == 503 and b"retry-after" not in fields:
                return "wrong: a 503 without Retry-After"
            return f"{status} {made.removeprefix('ptth; error=')}"
        if fields[b"x-soak"].decode() != ask.name:
            return f"wrong: the answer to {fields[b'x-soak'].decode()}"
        if status != (404 if ask.deed == "missing" else 200):
            return f"wrong: status {status}"
        if ask.method == "HEAD":
            return "ok" if int(fields[b"content-length"]) == ask.down else "wrong: another length"
        if body != pattern("down", ask.name, ask.down):
            return f"wrong: {len(body)} bytes that are not its body of {ask.down}"
        if ask.pool == "cap" and not fields.get(b"server-timing", b"").startswith(b"queue;dur="):
            return f"wrong: no Server-Timing: {fields}"
        return "ok"

    @staticmethod
    async def send(wire, body):
        try:
            for at in range(0, len(body), 65_536):
                wire.writer.write(body[at : at + 65_536])
                await wire.writer.drain()
        except BROKEN:
            pass  # whoever reads the answer sees it, too

    @staticmethod
    async def send_slowly(wire, ask, dice):
        body = ask.body()
        cuts = sorted(dice.randrange(len(body)) for _ in range(dice.randint(3, 10)))
        try:
            for begin, end in zip([0, *cuts], [*cuts, len(body)]):
                await asyncio.sleep(dice.uniform(0.02, 0.3))
                wire.writer.write(body[begin:end])
                await wire.writer.drain()
        except BROKEN:
            pass

    async def leave(self, wire, ask, dice):
        """Goes away: before the request has left, while it runs, or in the middle of the answer; by a reset or a FIN."""
        whole = ask.head() + ask.body()
        stage = dice.choice(["part", "wait", "wait", "answer", "fin"])
        ask.status = stage
        try:
            if stage == "part":
                wire.writer.write(whole[: dice.randrange(1, len(whole))])
                await asyncio.sleep(dice.choice([0, 0, 0.01, 0.3]))
            else:
                await self.send(wire, whole)
            if stage == "wait":
                await asyncio.sleep(dice.choice([0, 0.001, 0.02, 0.2, 1]))
            elif stage == "answer":
                await wire.head()
                if dice.random() < 0.5:
                    await wire.reader.read(dice.randint(1, 30_000))
            elif stage == "fin" and wire.writer.can_write_eof():
                wire.writer.write_eof()
                while await wire.reader.read(1 << 16):
                    pass  # an answer or an end, but one of both
        except BROKEN:
            pass
        reset(wire.writer)
        self.end(ask, "left")
        return False

    async def half_head(self, wire, ask, dice):
        head = ask.head()
        wire.writer.write(head[: dice.randrange(1, len(head) - 2)])
        if dice.random() < 0.4:
            await asyncio.sleep(dice.uniform(0, 1))
            reset(wire.writer)
            self.end(ask, "left")
            return False
        status, fields = await wire.head()
        body = await wire.body(status, fields, False)
        ask.status, ask.request_id = status, "none yet"
        self.end(ask, self.verdict(ask, status, fields, body))
        return False

    async def tunnel(self, wire, ask, dice):
        wire.writer.write(ask.head("Connection: upgrade", "Upgrade: soak"))
        status, fields = await wire.head()
        ask.status, ask.request_id = status, fields.get(b"x-request-id", b"").decode()
        if status != 101:
            body = await wire.body(status, fields, False)
            self.end(ask, self.verdict(ask, status, fields, body))
            return False
        if fields.get(b"x-soak", b"").decode() != ask.name or fields.get(b"upgrade") != b"soak":
            self.end(ask, f"wrong: the answer to {fields.get(b'x-soak')}")
            return False
        text = pattern("down", ask.name, ask.down)
        for _ in range(dice.randint(1, 4)):
            wire.writer.write(text)
            if await wire.reader.readexactly(len(text)) != text:
                self.end(ask, "wrong: another echo")
                return False
            await asyncio.sleep(dice.uniform(0, 0.3))
        self.end(ask, "ok")
        return False

    # ---- books ----

    def all_end(self, asks, outcome):
        for ask in asks:
            if ask.outcome is None:
                self.end(ask, outcome)

    def end(self, ask, outcome):
        ask.done, ask.outcome = time.monotonic(), outcome
        self.outcomes[outcome.split(":")[0]] += 1
        pool = "" if ask.deed == "half head" or outcome.startswith("404 dest") else ask.pool
        # A tunnel goes on behind its client's last word, and may break then.
        if outcome in ("left", "cut", "silent", "behind", "dropped", "refused", "hang") or ask.status == 101:
            self.unknown[ask.pool] += 1
            self.unknown[""] += pool == "" or ask.pool == "extra"  # which may not be there
        else:
            self.seen[pool, f"{ask.status // 100 if ask.status else 0}xx"] += 1
        row = self.table.judge(ask)
        if row is None:
            self.failures.append(f"{ask}\n      not explained by what was done")
        if row == UNTAKEN:
            self.untaken[ask.name] = ask

    async def origin_says(self, port, path, what=None):
        """A word with a server behind the workers, past all of them."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
        text = json.dumps(what).encode()
        writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(text)}\r\n\r\n".encode() + text)
        answer = await reader.read()
        writer.close()
        return json.loads(answer.partition(b"\r\n\r\n")[2])
