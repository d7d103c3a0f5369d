#!/usr/bin/env python3
"""Chaos over a whole edge, for minutes: soak.py [--minutes N] [--seed S] [--rate N]

An edge on two cores with four pools, with TLS and without; workers of ours, some of them behind a proxy that cuts, stalls and delays
their links, and links over HTTP/1.1; clients that ask, leave, read slowly and send slowly. Meanwhile workers are killed, told to
end and stopped, links are reset, configurations come, good ones and bad ones, credentials go and come back, and new
processes take over. In rounds: after each, nothing may be left of it.

What must hold: every request ends, by an outcome that soak_table.py allows for what was going on, with its own body; the books
balance; descriptors, threads and memory come back; nothing panics, and no secret is in a log."""

import argparse
import asyncio
import base64
import contextlib
import ctypes
import dataclasses
import hashlib
import json
import os
import random
import re
import secrets
import signal
import sys
import time
import traceback

from harness import Failed, answers, binary, check, free_port, get, say, until
from secure import SecureHouse, client_context
from soak_clients import POOLS, Clients
from soak_links import Proxy, Relay
from soak_table import BODY_STALL_S, DRAIN_MAX_S, RETRIES_MAX, Diary, Table

HERE = os.path.dirname(os.path.abspath(__file__))
CONCURRENCY, LINKS = 16, 2
RELAYS = 4
SETTLE_S_MAX = 120
ROUND_S = 45
PR_SET_CHILD_SUBREAPER = 36


@dataclasses.dataclass(frozen=True)
class PoolBounds:
    queue_max: int
    wait_s: float
    head_s: float
    holds: bool = True


# The smallest of each that any configuration below has.
BOUNDS = {
    "cap": PoolBounds(10_000, 15, 12),
    "prio": PoolBounds(10_000, 15, 12),
    "now": PoolBounds(40, 3, 5, holds=False),
    "extra": PoolBounds(10_000, 15, 12),
}


@dataclasses.dataclass(frozen=True)
class Shape:
    """What a reload changes."""

    cores: int = 2
    cap_max: int = 24
    prio_wait_s: int = 15
    has_extra: bool = True
    has_side: bool = True
    has_rule: bool = True
    spare: int = 0

    def other(self, dice):
        """Differs in one thing or two."""
        return dataclasses.replace(
            self,
            cores=dice.choice([self.cores, self.cores, 3 - self.cores]),
            cap_max=dice.choice([24, 24, 12, 8]),
            prio_wait_s=dice.choice([15, 16, 20]),
            has_extra=dice.random() < 0.6,
            has_side=dice.random() < 0.6,
            has_rule=dice.random() < 0.5,
            spare=self.spare + 1,
        )


BASE = Shape()


class Holder:
    """Who holds links: one worker program after another, by one credential."""

    def __init__(self, name, pool, is_secure=False, has_proxy=False):
        self.name, self.pool, self.is_secure, self.has_proxy = name, pool, is_secure, has_proxy
        self.proxy, self.process, self.count, self.harm = None, None, 0, asyncio.Lock()

    @property
    def who(self):
        return f"{self.name}.{self.count}"


class Edge:
    """One process after another on the same sockets."""

    def __init__(self, house):
        self.house = house
        self.port, self.tls_port, self.side, self.admin = (free_port() for _ in range(4))
        self.side_port = None
        self.folder = house.path("credentials")
        os.mkdir(self.folder)
        self.secrets = {}
        self.tls = house.issue("soak", "localhost", "127.0.0.1", *(f"{pool}.soak.test" for pool in POOLS))
        self.context, self.context_h2 = client_context(house.authority(), "http/1.1"), client_context(house.authority(), "h2")
        self.pids, self.ended = [], {}
        self.shape, self.lock = BASE, asyncio.Lock()

    # ---- configuration ----

    def credential(self, name, pool):
        secret = secrets.token_urlsafe(32)
        self.secrets[name] = secret
        self.house.write(f"credentials/{name}.toml", self.credential_text(name, pool))
        return self.house.write(f"{name}.secret", f"{name}:{secret}\n")

    def credential_text(self, name, pool):
        digest = hashlib.sha256(self.secrets[name].encode()).hexdigest()
        return f'id = "{name}"\nsecret_hash = "sha256:{digest}"\norigins = ["{pool}.soak.test"]\nlinks_max = 64\n'

    def text(self, shape):
        side = f'[[listen]]\naddress = "127.0.0.1:{self.side}"\naccept = ["clients"]\n' if shape.has_side else ""
        extra = '[[pool]]\nname = "extra"\norigins = ["extra.soak.test"]\nqueue = { wait_max = "15s" }\n'
        rule = '[[pool.rule]]\nmatch = { method = ["POST"] }\nurgency = 1\n' if shape.has_rule else ""
        return f"""
[edge]
cores = {shape.cores}
drain_max = "{DRAIN_MAX_S:.0f}s"
credentials_dir = "{self.folder}"
[limits]
head_max_wait = "3s"
body_stall_max = "{BODY_STALL_S:.0f}s"
[[listen]]
address = "127.0.0.1:{self.port}"
accept = ["clients", "workers"]
h2c = true
[[listen]]
address = "127.0.0.1:{self.tls_port}"
accept = ["clients", "workers"]
tls = {self.tls}
{side}
[admin]
address = "127.0.0.1:{self.admin}"
[[pool]]
name = "cap"
origins = ["cap.soak.test"]
concurrency_max = {shape.cap_max}
response_head_max_wait = "12s"
retries_max = {RETRIES_MAX}
server_timing = true
queue = {{ wait_max = "15s" }}
[[pool]]
name = "prio"
origins = ["prio.soak.test"]
response_head_max_wait = "12s"
retries_max = {RETRIES_MAX}
queue = {{ wait_max = "{shape.prio_wait_s}s" }}
[pool.priority]
client_header = "clamp"
clamp = [1, 6]
age_step = "1s"
{rule}
[[pool]]
name = "now"
origins = ["now.soak.test"]
hold_without_workers = false
response_head_max_wait = "5s"
retries_max = {RETRIES_MAX}
queue = {{ requests_max = 40, wait_max = "3s" }}
{extra + 'response_head_max_wait = "12s"' if shape.has_extra else ""}
"""

    def write(self, text):
        path = self.house.write("edge.toml.new", text)
        os.replace(path, self.house.path("edge.toml"))

    # ---- processes ----

    def start(self):
        self.write(self.text(BASE))
        self.side_port = self.side
        config = self.house.path("edge.toml")
        self.process = self.house.start("edge", [binary(), "edge", "--config", config], env=os.environ | {"RUST_LOG": "info"})
        until(lambda: get(self.admin, "/health/ready")[0] == 200, "the edge is ready", process=self.process)
        self.pids = [self.process.pid]

    @property
    def pid(self):
        return self.pids[-1]

    def signal(self, number):
        os.kill(self.pid, number)

    async def status(self):
        return json.loads((await asyncio.to_thread(get, self.admin, "/status", 15))[1])

    def log(self):
        with open(self.process.log, errors="replace") as log:
            return log.read()

    def reap(self):
        """Exit codes of processes that have been replaced and have ended; they are children of ours, also those that others began."""
        for pid in self.pids:
            if pid in self.ended:
                continue
            if pid == self.process.pid:
                if (code := self.process.poll()) is not None:
                    self.ended[pid] = code
                continue
            with contextlib.suppress(ChildProcessError):
                done, code = os.waitpid(pid, os.WNOHANG)
                if done:
                    self.ended[pid] = os.waitstatus_to_exitcode(code)

    def held(self):
        """Descriptors, threads and resident KiB of the newest process."""
        with open(f"/proc/{self.pid}/status") as file:
            fields = dict(line.split(":", 1) for line in file)
        fds = len(os.listdir(f"/proc/{self.pid}/fd"))
        return {"fds": fds, "threads": int(fields["Threads"]), "rss": int(fields["VmRSS"].split()[0])}

    def end_all(self):
        self.reap()
        for pid in self.pids:
            if pid not in self.ended:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


class Soak:
    def __init__(self, house, arguments):
        self.house, self.arguments = house, arguments
        self.dice = random.Random(arguments.seed)
        self.diary = Diary()
        self.table = Table(self.diary, BOUNDS)
        self.edge = Edge(house)
        self.clients = Clients(self.edge, self.table, self.diary, random.Random(self.dice.random()))
        self.holders = [
            Holder("cap-1", "cap"),
            Holder("cap-2", "cap", has_proxy=True),
            Holder("cap-3", "cap", is_secure=True),
            Holder("prio-1", "prio"),
            Holder("prio-2", "prio", is_secure=True, has_proxy=True),
            Holder("now-1", "now"),
            Holder("now-2", "now", has_proxy=True),
            Holder("extra-1", "extra"),
        ]
        self.relays, self.origins = [], []
        self.harms, self.hit_at, self.links_of = set(), {}, {}
        self.upgrades = self.harmed = 0
        self.may_upgrade = False
        self.rests = []
        self.failures = []

    # ---- workers ----

    def start_worker(self, holder):
        holder.count += 1
        port = holder.proxy.port if holder.proxy else self.edge.tls_port if holder.is_secure else self.edge.port
        url = f"{'https' if holder.is_secure else 'http'}://127.0.0.1:{port}"
        arguments = ["--edge", url, "--pool", holder.pool, "--to", f"http://127.0.0.1:{self.origins[holder.count % 2]}"]
        arguments += ["--credential-file", self.house.path(f"{holder.name}.secret"), "--worker-id", holder.who]
        arguments += ["--links", str(LINKS), "--concurrency", str(CONCURRENCY)]
        if holder.is_secure:
            arguments += ["--ca-file", self.edge.house.authority()]
        holder.process = self.house.start(f"worker-{holder.who}", [binary(), "worker", *arguments])

    def hit(self, *whos):
        """From now on nobody can be sure that these have a link."""
        for who in whos:
            self.hit_at[who] = time.monotonic()
            for pool in POOLS:
                self.diary.may_be_down(pool, who)

    def hit_all(self):
        self.hit(*{who for present in self.diary.present.values() for who in present})

    async def watch(self):
        """Keeps the diary's picture of who has links."""
        while True:
            await asyncio.sleep(0.25)
            began = time.monotonic()
            try:
                status = await self.edge.status()
            except (OSError, ValueError):
                continue
            if self.edge.lock.locked():
                continue
            addresses = {relay.address: f"relay-{index}" for index, relay in enumerate(self.relays)}
            links = {}
            for link in status["links"]:
                who = addresses.get(link["address"]) if link["worker"] == "relay" else link["worker_id"]
                links[who] = links.get(who, 0) + 1
                if "/" in link["id"] or self.hit_at.get(who, 0) >= began:
                    continue
                for pool in link["pools"]:
                    self.diary.is_up(pool, who)
            for pool, present in self.diary.present.items():
                for who in [who for who in present if who not in links]:
                    self.diary.may_be_down(pool, who)
            self.links_of = links
            self.edge.reap()

    async def keep_time(self):
        """Notices when this script does not get its turn: its own clocks are late then."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.2)
            self.diary.ticked = time.monotonic()
            if (late_s := time.monotonic() - before - 0.2) > 0.5:
                self.diary.lag(late_s)

    # ---- harm ----

    HARMS = {
        "kill": 10, "term": 10, "stop": 8, "cut": 16, "stall": 6, "delay": 5, "blackout": 2, "reload": 7, "bad_reload": 4,
        "withdraw": 5, "upgrade": 3, "bad_upgrade": 1, "hang_up": 2,
    }  # fmt: skip

    async def schedule(self, over):
        while not over.is_set():
            await asyncio.sleep(min(3, self.dice.expovariate(1 / 0.5)))
            kind = self.dice.choices(list(self.HARMS), self.HARMS.values())[0]
            # Drawn whether or not it comes to it: a seed makes the same schedule.
            dice = random.Random(self.dice.random())
            if over.is_set() or len(self.harms) > 12:
                continue
            self.harmed += 1
            self.begin_harm(getattr(self, kind)(dice))

    def begin_harm(self, harm):
        task = asyncio.create_task(harm)
        self.harms.add(task)
        task.add_done_callback(self.was_harmed)

    async def take_over_at(self, seconds):
        await asyncio.sleep(seconds)
        await self.take_over()

    def was_harmed(self, task):
        self.harms.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self.failures.append(str(error) if isinstance(error, Failed) else f"this script: {error!r}")

    @contextlib.asynccontextmanager
    async def one_of(self, dice, holders):
        """A worker that nobody else harms now; None if that one is harmed already."""
        holder = dice.choice(holders)
        if holder.harm.locked():
            yield None
            return
        async with holder.harm:
            # Before its first word a program has no handlers, and a signal is its end.
            until_s = time.monotonic() + 30
            while os.path.getsize(holder.process.log) == 0 and time.monotonic() < until_s:
                await asyncio.sleep(0.05)
            yield holder

    async def kill(self, dice):
        async with self.one_of(dice, self.holders) as holder:
            if holder:
                await self.kill_one(holder)
                await asyncio.sleep(dice.choice([0, 0, 0.3, 1]))
                self.start_worker(holder)

    async def kill_one(self, holder):
        links = max(LINKS, self.links_of.get(holder.who, 0))
        event = self.diary.event("kill", [holder.pool], links, holder.who, lasts=True)
        self.hit(holder.who)
        holder.process.kill()
        await asyncio.to_thread(holder.process.wait)
        event.end()
        self.hit(holder.who)

    async def term(self, dice):
        async with self.one_of(dice, self.holders) as holder:
            if not holder:
                return
            old, who = holder.process, holder.who
            self.diary.event("term", [holder.pool], 0, who)
            if dice.random() < 0.5:
                self.start_worker(holder)
                await asyncio.sleep(dice.uniform(0, 1))
            self.hit(who)
            old.terminate()
            if old is holder.process:
                self.start_worker(holder)
        try:
            code = await asyncio.to_thread(old.wait, 60)
        except Exception:
            raise Failed(f"{who} does not end by SIGTERM") from None
        self.hit(who)
        check(code == 0, f"{who} ended with {code} by SIGTERM\n{old.tail()}")

    async def stop(self, dice):
        async with self.one_of(dice, self.holders) as holder:
            if not holder:
                return
            is_long = dice.random() < 0.12
            seconds = dice.uniform(12, 26) if is_long else dice.uniform(0.05, 3)
            event = self.diary.event("stop", [holder.pool], LINKS if is_long else 0, f"{holder.who} for {seconds:.1f} s", lasts=True)
            os.kill(holder.process.pid, signal.SIGSTOP)
            if is_long:
                self.hit(holder.who)
            try:
                await asyncio.sleep(seconds)
            finally:
                os.kill(holder.process.pid, signal.SIGCONT)
                event.end()
            if is_long:
                self.hit(holder.who)

    async def cut(self, dice):
        victims = [(f"relay-{index}", "prio", relay) for index, relay in enumerate(self.relays)]
        victims += [(holder.who, holder.pool, holder.proxy) for holder in self.holders if holder.proxy for _ in range(3)]
        who, pool, victim = dice.choice(victims)
        self.hit(who)
        event = self.diary.event("link reset", [pool], 1, who)
        if not victim.cut():
            self.diary.events.remove(event)
        self.hit(who)

    async def stall(self, dice):
        async with self.one_of(dice, [holder for holder in self.holders if holder.proxy]) as holder:
            if not holder:
                return
            is_long = dice.random() < 0.12
            seconds = dice.uniform(12, 26) if is_long else dice.uniform(0.2, 4)
            note = f"the links of {holder.who} for {seconds:.1f} s"
            event = self.diary.event("stall", [holder.pool], LINKS if is_long else 0, note, lasts=True)
            self.hit(holder.who)
            holder.proxy.flows.clear()
            try:
                await asyncio.sleep(seconds)
            finally:
                holder.proxy.flows.set()
                event.end()
            self.hit(holder.who)

    async def delay(self, dice):
        holder = dice.choice([holder for holder in self.holders if holder.proxy])
        holder.proxy.delay_s = dice.uniform(0.002, 0.04)
        self.diary.event("delay", [holder.pool], 0, f"the links of {holder.who} by {holder.proxy.delay_s * 1000:.0f} ms")
        await asyncio.sleep(dice.uniform(0.5, 4))
        holder.proxy.delay_s = 0

    async def blackout(self, dice):
        holders = [holder for holder in self.holders if holder.pool == "now"]
        if any(holder.harm.locked() for holder in holders):
            return
        async with contextlib.AsyncExitStack() as stack:
            for holder in holders:
                await stack.enter_async_context(holder.harm)
            for holder in holders:
                await self.kill_one(holder)
            await asyncio.sleep(dice.uniform(0.1, 2))
            for holder in holders:
                self.start_worker(holder)

    async def withdraw(self, dice):
        async with self.one_of(dice, self.holders) as holder:
            if not holder:
                return
            self.diary.event("withdraw", [holder.pool], 0, holder.name)
            self.hit(holder.who)
            os.remove(os.path.join(self.edge.folder, f"{holder.name}.toml"))
            await asyncio.sleep(dice.uniform(0.2, 4))
            self.hit(holder.who)
            self.house.write(f"{holder.name}.toml.new", self.edge.credential_text(holder.name, holder.pool))
            os.replace(self.house.path(f"{holder.name}.toml.new"), os.path.join(self.edge.folder, f"{holder.name}.toml"))
            self.diary.event("give back", [holder.pool], 0, holder.name)

    async def hang_up(self, dice):
        """A worker reads its configuration again, which is as it was."""
        async with self.one_of(dice, self.holders) as holder:
            if holder:
                self.diary.event("hang up", [holder.pool], 0, holder.who)
                os.kill(holder.process.pid, signal.SIGHUP)

    # ---- harm to the edge: one after the other ----

    async def reload(self, dice):
        if not self.edge.lock.locked():
            await self.reload_to(self.edge.shape.other(dice))

    async def reload_to(self, shape):
        edge = self.edge
        async with edge.lock:
            before = edge.shape
            done = (await edge.status())["counters"]["reloads"]["done"]
            event = self.diary.event("reload", (), 0, str(shape), lasts=True)
            address = None
            if before.has_side and not shape.has_side:
                edge.side_port = None
                address = self.diary.event("address", (), 0, "given up", lasts=True)
            if before.has_extra or shape.has_extra:
                self.diary.routes_extra(None)
            self.hit_all()
            edge.write(edge.text(shape))
            edge.signal(signal.SIGHUP)
            await self.told(lambda status: status["counters"]["reloads"]["done"] > done, f"a reload to {shape}")
            event.end()
            edge.shape = shape
            if shape.has_side:
                edge.side_port = edge.side
            if address:
                address.end()
            self.diary.routes_extra(shape.has_extra)

    async def told(self, is_so, what, seconds=90):
        """Until /status says so."""
        by = time.monotonic() + seconds
        while True:
            with contextlib.suppress(OSError, ValueError):
                if is_so(await self.edge.status()):
                    return
            if time.monotonic() > by:
                raise Failed(f"not within {seconds} s: {what}")
            await asyncio.sleep(0.05)

    def bad_text(self, dice):
        good = self.edge.text(self.edge.shape)
        return dice.choice([
            good + "\n[[pool]]\nnome = 1\n",
            good.replace("cores = ", "cores = -"),
            good.replace("[admin]", f'[[listen]]\naddress = "127.0.0.1:{self.origins[0]}"\naccept = ["clients"]\n[admin]'),
            good.replace("soak.pem", "missing.pem"),
            good[: good.index("[admin]") + 4],
            "\x00nonsense",
        ])  # fmt: skip

    async def bad_reload(self, dice):
        edge = self.edge
        if edge.lock.locked():
            return
        async with edge.lock:
            status = await edge.status()
            failed, generation = status["counters"]["reloads"]["failed"], status["generation"]
            self.diary.event("bad reload")
            edge.write(self.bad_text(dice))
            edge.signal(signal.SIGHUP)
            try:
                await self.told(lambda status: status["counters"]["reloads"]["failed"] > failed, "a bad file is refused")
            finally:
                edge.write(edge.text(edge.shape))
            check((await edge.status())["generation"] == generation, "a bad file changed something")

    async def upgrade(self, dice):
        edge = self.edge
        if not self.may_upgrade or edge.lock.locked():
            return
        await self.take_over()

    async def take_over(self):
        edge = self.edge
        async with edge.lock:
            older = edge.pid
            event = self.diary.event("upgrade", (), 0, f"of {older}", lasts=True)
            self.hit_all()
            edge.signal(signal.SIGUSR2)
            pid = []
            await self.told(lambda status: status["pid"] != older and pid.append(status["pid"]) is None, "an upgrade")
            edge.pids.append(pid[0])
            event.end()
            self.upgrades += 1

    async def bad_upgrade(self, dice):
        edge = self.edge
        if edge.lock.locked():
            return
        async with edge.lock:
            told = edge.log().count("SIGUSR2: nothing changes")
            self.diary.event("bad upgrade")
            edge.write(self.bad_text(dice))
            edge.signal(signal.SIGUSR2)
            try:
                by = time.monotonic() + 90
                while edge.log().count("SIGUSR2: nothing changes") == told:
                    check(time.monotonic() < by, "a bad file is refused by an upgrade")
                    await asyncio.sleep(0.1)
            finally:
                edge.write(edge.text(edge.shape))
            check((await edge.status())["pid"] == edge.pid, "a bad file let a process take over")

    # ---- rounds ----

    async def run(self):
        for _ in range(2):
            port = free_port()
            process = self.house.start("origin", [sys.executable, os.path.join(HERE, "soak_origin.py"), str(port)])
            await asyncio.to_thread(until, lambda: answers(port), "the origin listens", process=process)
            self.origins.append(port)
        for holder in self.holders:
            self.edge.credential(holder.name, holder.pool)
        self.edge.credential("relay", "prio")
        self.edge.start()
        for holder in self.holders:
            if holder.has_proxy:
                holder.proxy = Proxy(self.edge.tls_port if holder.is_secure else self.edge.port)
                await holder.proxy.start()
            self.start_worker(holder)
        basic = base64.b64encode(f"relay:{self.edge.secrets['relay']}".encode()).decode()
        self.edge.secrets["relay, as it is sent"] = basic
        for index in range(RELAYS):
            relay = Relay(self.edge.port, "prio", basic, self.origins[index % 2])
            self.relays.append(relay)
            relay.start()
        self.diary.routes_extra(True)
        watchers = [asyncio.create_task(self.watch()), asyncio.create_task(self.keep_time())]
        await self.settled()
        seconds = self.arguments.minutes * 60
        rounds = max(2, round(seconds / ROUND_S))
        await self.round("warm-up", 4, harms=False)
        for number in range(rounds):
            self.may_upgrade = number % 2 == 1
            await self.round(f"round {number + 1} of {rounds}", seconds / rounds)
        for watcher in watchers:
            watcher.cancel()
        await self.leave()

    async def round(self, name, seconds, harms=True):
        before = await self.edge.status()
        self.clients.forget()
        began, sent, harmed, upgrades = time.monotonic(), sum(self.clients.outcomes.values()), self.harmed, self.upgrades
        over = asyncio.Event()
        load = asyncio.create_task(self.clients.load(self.arguments.rate, over))
        schedule = asyncio.create_task(self.schedule(over)) if harms else None
        if harms and self.may_upgrade:
            self.begin_harm(self.take_over_at(self.dice.uniform(0.3, 0.7) * seconds))  # one at least
        while time.monotonic() < began + seconds and not self.failures and not self.clients.failures:
            await asyncio.sleep(0.1)
        over.set()
        await load
        if schedule:
            await schedule
        self.stop_if_failed()
        while self.harms:
            await asyncio.wait(list(self.harms))
        self.stop_if_failed()
        if self.edge.shape != dataclasses.replace(BASE, spare=self.edge.shape.spare):
            await self.reload_to(dataclasses.replace(BASE, spare=self.edge.shape.spare + 1))
        await self.clients.gone()
        self.stop_if_failed()
        settled_s = await self.settled()
        await self.calm()
        await self.settled()
        if self.upgrades == upgrades:
            self.check_counters(before, await self.edge.status())
        await self.check_origins()
        self.check_log()
        held = self.edge.held()
        self.rests.append(held)
        self.check_rest(held)
        outcomes = sum(self.clients.outcomes.values()) - sent
        say(f"{name}: {outcomes} requests, {self.harmed - harmed} harms, {self.upgrades - upgrades} upgrades; at rest after "
            f"{settled_s:.1f} s with {held['fds']} descriptors, {held['threads']} threads, {held['rss'] / 1024:.1f} MiB")

    def stop_if_failed(self):
        failures = self.failures + self.clients.failures
        check(not failures, f"{len(failures)} failed:\n" + "\n".join(f"    {failure}" for failure in failures[:8]))

    async def calm(self):
        """Nobody does any harm: nothing may go wrong."""
        ok = self.clients.outcomes["ok"]
        count = 0
        for pool in POOLS:
            for deed in ("get", "post", "put", "download", "upload", "drip", "tunnel", "head"):
                for _ in range(3):
                    self.clients.begin(deed, pool)
                    count += 1
        await self.clients.gone()
        self.stop_if_failed()
        check(self.clients.outcomes["ok"] == ok + count, f"of {count} requests at rest {self.clients.outcomes['ok'] - ok} were served")

    # ---- at rest ----

    async def settled(self):
        """Until nothing is left of what was done. How long that took."""
        began = time.monotonic()
        left = ["nothing was looked at"]
        while left:
            if time.monotonic() > began + SETTLE_S_MAX:
                raise Failed(f"not within {SETTLE_S_MAX} s after the last harm: " + "; ".join(left))
            await asyncio.sleep(0.1)
            self.edge.reap()
            try:
                left = self.left(await self.edge.status())
            except (OSError, ValueError) as error:
                left = [f"/status: {error!r}"]
        return time.monotonic() - began

    def left(self, status):
        """What keeps the edge from being at rest."""
        left = []

        def same(what, got, want):
            if got != want:
                left.append(f"{what}: {got}, not {want}")

        same("pid", status["pid"], self.edge.pid)
        same("draining", status["draining"], False)
        same("generations that leave", status["leaving"], [])
        same("connections", status["limits"]["connections"], 0)
        same("connections of the cores", sum(core["connections"] for core in status["cores"]), 0)
        for pool in status["pools"]:
            name = pool["name"]
            workers = [holder for holder in self.holders if holder.pool == name]
            relays = RELAYS if name == "prio" else 0
            same(f"links of {name}", pool["links"], LINKS * len(workers) + relays)
            same(f"credits of {name}", pool["credits"], CONCURRENCY * len(workers) + relays)
            for what in ("queued", "queued_bytes", "in_flight"):
                same(f"{what} of {name}", pool[what], 0)
        same("pools", [pool["name"] for pool in status["pools"]], list(POOLS))
        held = {}
        for link in status["links"]:
            if link["worker"] != "relay":
                held[link["worker_id"]] = held.get(link["worker_id"], 0) + 1
        same("links of workers", held, {holder.who: LINKS for holder in self.holders})
        older = [pid for pid in self.edge.pids[:-1] if pid not in self.edge.ended]
        same("processes that were replaced and live", older, [])
        same("panics", status["counters"]["connection_panics"], 0)
        return left

    def check_counters(self, before, after):
        """Requests by status are what the clients saw; in between lies only what they did not see the end of."""
        names = ["", *(pool for pool in POOLS if pool != "extra")]  # the counters of a pool that went begin anew
        for pool in names:
            counted = {
                kind: tally(after, pool).get(kind, 0) - tally(before, pool).get(kind, 0) for kind in ("1xx", "2xx", "3xx", "4xx", "5xx")
            }
            seen = {kind: self.clients.seen[pool, kind] for kind in counted}
            unseen = self.clients.unknown[pool]
            more = {kind: counted[kind] - seen[kind] for kind in counted}
            right = all(count >= 0 for count in more.values()) and sum(more.values()) <= unseen
            what = f"pool {pool!r}: counted {counted}, seen {seen}, and {unseen} of which nobody saw the end"
            check(right, f"the counters do not add up: {what}")
        accepted = after["counters"]["accepted_connections"] - before["counters"]["accepted_connections"]
        check(accepted > 0, "no connection was counted")

    async def check_origins(self):
        for port in self.origins:
            report = await self.clients.origin_says(port, "/report")
            check(not report["wrong"], f"a server got what nobody sent: {report['wrong'][:5]}")
            check(not report["twice"], f"sent twice, though it may have had an effect: {report['twice'][:5]}")
            taken = await self.clients.origin_says(port, "/seen", list(self.clients.untaken))
            what = "\n    ".join(str(self.clients.untaken[name]) for name in taken[:5])
            check(not taken, f"{len(taken)} connections ended without a word though a server had the request:\n    {what}")
        self.clients.untaken.clear()

    def check_log(self):
        log = self.edge.log()
        check("panicked" not in log, "the edge panicked")
        for name, secret in self.edge.secrets.items():
            check(secret not in log, f"the secret of {name} is in the log")
        with open(self.house.path("soak.key")) as file:
            key = file.read().split("\n")[1]
        check(key not in log, "the private key is in the log")
        known = re.compile("SIGHUP: nothing changes|SIGUSR2: nothing changes|did not start|edge.toml|" + EXPECTED)
        odd = [line for line in log.splitlines() if '"ERROR"' in line and not known.search(line)]
        check(not odd, f"the edge's log has errors that nobody made: {odd[:3]}")

    def check_rest(self, held):
        first = self.rests[0]
        check(held["fds"] <= first["fds"], f"{held['fds']} descriptors, {first['fds']} at first: {self.descriptors()}")
        check(held["threads"] <= first["threads"], f"{held['threads']} threads, {first['threads']} at first")
        grown = held["rss"] - first["rss"]
        check(grown <= RSS_KIB_MAX, f"{held['rss'] / 1024:.1f} MiB resident, {first['rss'] / 1024:.1f} at first")
        for holder in self.holders:
            fds = len(os.listdir(f"/proc/{holder.process.pid}/fd"))
            check(fds <= WORKER_FDS_MAX, f"{fds} descriptors of {holder.who}")
        zombies = [pid for pid in processes() if parent_and_state(pid) in [(own, "Z") for own in self.edge.pids]]
        check(not zombies, f"the edge has not waited for {zombies}")
        for pid, code in self.edge.ended.items():
            check(code in (0, 1), f"process {pid} ended with {code} after it was replaced")

    def descriptors(self):
        folder = f"/proc/{self.edge.pid}/fd"
        kinds = {}
        for fd in os.listdir(folder):
            with contextlib.suppress(OSError):
                kind = os.readlink(f"{folder}/{fd}").split(":")[0]
                kinds[kind] = kinds.get(kind, 0) + 1
        return kinds

    async def leave(self):
        for relay in self.relays:
            await relay.end()
        for holder in self.holders:
            check(await asyncio.to_thread(holder.process.end, 40) == 0, f"{holder.who}: SIGTERM, exit 0\n{holder.process.tail()}")
        self.edge.signal(signal.SIGTERM)
        by = time.monotonic() + 40
        while self.edge.pid not in self.edge.ended:
            check(time.monotonic() < by, "the edge does not end by SIGTERM")
            self.edge.reap()
            await asyncio.sleep(0.05)
        check(self.edge.ended[self.edge.pid] == 0, f"the edge ended with {self.edge.ended[self.edge.pid]}")


# ERROR lines that bad configurations make, beside those that name the file.
EXPECTED = "cannot listen|cannot be bound|no pool covers extra.soak.test"
# What the allocator may keep of the threads of generations that have ended, and of the worst moment of a round. Of 34 to 45 MiB
# at first some 40 rounds made 34 to 63, and a later round less than the one before as often as more.
RSS_KIB_MAX = 64 << 10
# A worker's own 20, its links, and what it keeps of connections to its server: for its places, and as many on their way.
WORKER_FDS_MAX = 24 + LINKS + 2 * CONCURRENCY


def tally(status, pool):
    if not pool:
        return status["counters"]["unrouted_requests"]
    return next(own for own in status["pools"] if own["name"] == pool)["counters"]["requests"]


def processes():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def parent_and_state(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            state, parent = file.read().rpartition(") ")[2].split()[:2]
            return int(parent), state
    except OSError:
        return None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--rate", type=float, default=300)
    arguments = parser.parse_args()
    # Processes that an edge has started, and that have outlived it, become children of this one.
    check(ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0, "prctl")
    with SecureHouse(__file__, seconds_max=int(arguments.minutes * 60 * 3 + 600)) as house:
        say(f"--seed {arguments.seed} --minutes {arguments.minutes} --rate {arguments.rate}")
        soak = Soak(house, arguments)
        try:
            # Neither a task nor a thread that waits for a process keeps a failure from being told: the house ends all processes.
            loop = asyncio.new_event_loop()
            loop.set_exception_handler(lambda *_: None)
            loop.run_until_complete(soak.run())
        except BaseException:
            print(f"  --seed {arguments.seed}; the last that was done:\n{soak.diary.tail()}", flush=True)
            raise
        finally:
            soak.edge.end_all()
        rows = sorted(soak.table.rows.items(), key=lambda row: -row[1])
        for (outcome, row), count in rows:
            say(f"{count:8} {outcome}: {row}")
        say(f"held back, because this machine was too slow: {soak.clients.held_back}")


try:
    main()
    code = 0
except SystemExit as ended:
    print(ended.code if isinstance(ended.code, str) else "", end="", file=sys.stderr)
    code = ended.code if isinstance(ended.code, int) else 1
except BaseException:
    traceback.print_exc()
    code = 1
sys.stdout.flush()
sys.stderr.flush()
os._exit(code)  # nobody waits for what still waits in the loop
