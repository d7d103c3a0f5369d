"""Links that soak.py can harm: a TCP proxy between a worker and the edge that cuts, stalls and delays, and workers of a few
lines that pass the bytes of a link over HTTP/1.1 to the server as they are. When harm is done never enters."""

import asyncio
import random

from soak_origin import reset


class Proxy:
    """What comes to `port` goes on to `to`."""

    def __init__(self, to):
        self.to, self.port, self.delay_s = to, None, 0.0
        self.pairs = set()
        self.flows = asyncio.Event()
        self.flows.set()

    async def start(self):
        self.server = await asyncio.start_server(self.carry, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]

    async def carry(self, reader, writer):
        try:
            there_reader, there = await asyncio.open_connection("127.0.0.1", self.to)
        except OSError:
            return reset(writer)
        pair = (writer, there)
        self.pairs.add(pair)
        try:
            await asyncio.gather(self.pump(reader, there), self.pump(there_reader, writer))
        except asyncio.CancelledError:
            pass  # the soak ends
        self.pairs.discard(pair)

    async def pump(self, reader, writer):
        try:
            while piece := await reader.read(1 << 16):
                await self.flows.wait()
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                writer.write(piece)
                await writer.drain()
            await self.flows.wait()
            writer.close()
        except OSError:
            writer.transport.abort()

    def cut(self):
        """Resets one connection, both ways. False: there is none."""
        if not self.pairs:
            return False
        for writer in random.choice(sorted(self.pairs, key=id)):
            reset(writer)
        return True


class Relay:
    """A link over HTTP/1.1, which is one credit, and dialed again when it ends."""

    def __init__(self, house_port, pool, authorization, origin_port):
        self.edge_port, self.pool, self.authorization, self.origin_port = house_port, pool, authorization, origin_port
        self.ends, self.link, self.address = False, None, None
        self.refusals = []

    def start(self):
        self.task = asyncio.create_task(self.keep())

    async def keep(self):
        while not self.ends:
            try:
                await self.serve()
            except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                pass
            self.address = None
            await asyncio.sleep(random.uniform(0.01, 0.3))

    async def serve(self):
        reader, link = await asyncio.open_connection("127.0.0.1", self.edge_port)
        try:
            link.write(
                f"GET /.well-known/ptth/pool/{self.pool} HTTP/1.1\r\nHost: edge\r\nConnection: upgrade\r\nUpgrade: ptth\r\n"
                f"ALPN: http%2F1.1\r\nAuthorization: Basic {self.authorization}\r\n\r\n".encode()
            )
            answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
            if not answer.startswith(b"HTTP/1.1 101 "):
                self.refusals.append(answer.split(b"\r\n")[0].decode())
                return
            there_reader, there = await asyncio.open_connection("127.0.0.1", self.origin_port)
            self.link, self.address = link, "%s:%d" % link.get_extra_info("sockname")
            await asyncio.wait({asyncio.create_task(pump(reader, there)), asyncio.create_task(pump(there_reader, link))},
                               return_when=asyncio.FIRST_COMPLETED)
            there.close()
        finally:
            self.link = None
            link.close()

    def cut(self):
        if self.link is None:
            return False
        reset(self.link)
        return True

    async def end(self):
        self.ends = True
        if self.link:
            self.link.close()
        await self.task


async def pump(reader, writer):
    """Until either of both has ended."""
    try:
        while piece := await reader.read(1 << 16):
            writer.write(piece)
            await writer.drain()
    except OSError:
        writer.transport.abort()
