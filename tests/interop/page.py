"""The page of the admin address in Chromium, headless, driven over the DevTools protocol: under load, dark and light, on a desktop
and on a phone. Nothing may be said on the console, no policy may be violated, the numbers are those of /metrics when the load has
stopped, and a reload of the edge and an upgrade to another process are lived through. Screenshots go to PTTH_SHOTS, if that names a
folder."""

import base64
import contextlib
import json
import os
import re
import secrets
import signal
import socket
import struct
import threading
import time
import urllib.request

from harness import House, check, free_port, get, say, status, until
from secure import tool


class DevTools:
    """One page of a browser, over its websocket (RFC 6455, as far as one peer of ours needs it)."""

    def __init__(self, port, address):
        path = address.split(f":{port}", 1)[1]
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        key = base64.b64encode(secrets.token_bytes(16)).decode()
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self.seen = b""
        while b"\r\n\r\n" not in self.seen:
            self.seen += self.socket.recv(65536)
        head, self.seen = self.seen.split(b"\r\n\r\n", 1)
        check(b" 101 " in head, f"DevTools: {head}")
        self.number = 0
        self.events = []

    def take(self, size):
        while len(self.seen) < size:
            more = self.socket.recv(1 << 20)
            check(more, "the browser has gone")
            self.seen += more
        taken, self.seen = self.seen[:size], self.seen[size:]
        return taken

    def message(self):
        whole = b""
        while True:
            first, second = self.take(2)
            size = second & 127
            if size == 126:
                (size,) = struct.unpack(">H", self.take(2))
            elif size == 127:
                (size,) = struct.unpack(">Q", self.take(8))
            whole += self.take(size)
            if first & 128:
                return json.loads(whole)

    def call(self, method, **parameters):
        self.number += 1
        text = json.dumps({"id": self.number, "method": method, "params": parameters}).encode()
        size = struct.pack(">BH", 254, len(text)) if len(text) > 125 else struct.pack(">B", 128 | len(text))
        self.socket.sendall(b"\x81" + size + bytes(4) + text)  # masked with nothing
        while True:
            message = self.message()
            if message.get("id") == self.number:
                check("error" not in message, f"{method}: {message}")
                return message["result"]
            self.events.append(message)

    def value(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        check("exceptionDetails" not in result, f"{expression}: {result}")
        return result["result"].get("value")

    def complaints(self):
        """What was said on the console, thrown, or refused by the policy."""
        self.value("1")
        bad = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [event for event in self.events if event["method"] in bad]


def load(port, stop, host="localhost"):
    """Asks with all classes until it is told to stop."""
    count = 0
    while not stop.is_set():
        with contextlib.suppress(OSError):
            with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
                while not stop.is_set():
                    count += 1
                    ask = f"GET /slow?ms=20&id={count} HTTP/1.1\r\nHost: {host}\r\nPriority: u={count % 4 * 2}\r\n\r\n"
                    client.sendall(ask.encode())
                    if not client.recv(65536):
                        break


def metric(edge, name, labels=""):
    text = get(edge.admin, "/metrics")[1]
    text = text.decode() if isinstance(text, bytes) else text
    lines = [line for line in text.splitlines() if re.match(rf"{name}\{{", line) and labels in line]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


POOL = """(() => { const dl = document.querySelector('.pool dl'); if (!dl) return null; const all = {};
  const names = dl.querySelectorAll('dt'), values = dl.querySelectorAll('dd');
  names.forEach((dt, at) => { all[dt.textContent] = values[at].textContent.replaceAll('\\u202f', ''); }); return all; })()"""


with House(__file__, seconds_max=150) as house:
    browser = tool("chromium-headless-shell", "chromium")
    origin = house.origin()
    edge = house.edge(cores=2, pool='queue = { requests_max = 500 }\npriority = { client_header = "trust" }')
    house.worker(edge, origin.url, links=2, concurrency=6)
    stop = threading.Event()
    clients = [threading.Thread(target=load, args=(edge.port, stop), daemon=True) for _ in range(24)]
    for client in clients:
        client.start()
    shots = os.environ.get("PTTH_SHOTS")
    port = free_port()
    arguments = [
        *["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server", "--no-first-run"],
        *["--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions"],
        *[f"--user-data-dir={house.path('browser')}", f"--remote-debugging-port={port}", "about:blank"],
    ]
    process = house.start("browser", [browser, *arguments], start_new_session=True)
    successor = None
    try:
        listed = f"http://127.0.0.1:{port}/json/list"
        pages = until(lambda: json.load(urllib.request.urlopen(listed, timeout=5)), "DevTools", seconds=60, process=process)
        page = DevTools(port, next(page for page in pages if page["type"] == "page")["webSocketDebuggerUrl"])
        for domain in ("Runtime", "Log", "Page", "Network"):
            page.call(f"{domain}.enable")
        page.call("Page.navigate", url=f"http://127.0.0.1:{edge.admin}/")
        until(lambda: page.value("document.getElementById('live')?.textContent") == "live", "the page lives")
        until(lambda: int(page.value(POOL)["queued"]) > 0, "the page shows a queue")
        time.sleep(6)  # for charts to have something in them
        for theme in ("light", "dark"):
            page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
            for width, height, phone in ((1280, 900, False), (390, 1500, True)):
                page.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
                time.sleep(1.2)
                wide = page.value("document.documentElement.scrollWidth")
                check(wide <= width, f"{theme}: the page is {wide} wide on a screen of {width}")
                hidden = page.value("[...document.querySelectorAll('.pool > div')].some((own) => own.scrollWidth > own.clientWidth)")
                check(not hidden, f"{theme}, {width}: a pool's numbers lie under its charts")
                back = page.value("getComputedStyle(document.body).backgroundColor")
                check((back == "rgb(255, 255, 255)") == (theme == "light"), f"{theme}: {back}")
                if shots:
                    data = page.call("Page.captureScreenshot", format="png")["data"]
                    with open(os.path.join(shots, f"page-{theme}-{width}.png"), "wb") as file:
                        file.write(base64.b64decode(data))
        drawn = page.value("document.querySelectorAll('.pool svg path').length")
        check(drawn >= 5, f"{drawn} lines and areas are drawn")
        os.kill(edge.process.pid, signal.SIGHUP)  # nothing has changed, so nobody notices
        with open(house.path(f"edge-{edge.port}.toml"), "a") as file:
            file.write("[limits]\nstreams_max = 99\n")
        os.kill(edge.process.pid, signal.SIGHUP)
        about = "document.getElementById('about')?.textContent ?? ''"
        until(lambda: "configuration 2" in page.value(about), "the page follows a reload", seconds=40)
        samples = page.value("past5.at_unix.length")
        os.kill(edge.process.pid, signal.SIGUSR2)
        began = time.monotonic()
        successor = until(lambda: [pid for pid in [status(edge)["pid"]] if pid != edge.process.pid], "another process answers")[0]
        until(lambda: page.value(about).endswith(f", process {successor}"), "the page follows an upgrade")
        took = time.monotonic() - began
        check(page.value("document.getElementById('live').textContent") == "live", "the page is not live after an upgrade")
        kept = page.value("past5.at_unix.length")
        check(kept >= samples > 5, f"{samples} samples on the page before the upgrade, {kept} after it")
        stop.set()
        for client in clients:
            client.join()
        until(lambda: page.value(POOL)["in flight"] == "0", "the page shows that nothing runs")
        time.sleep(1.5)
        shown = page.value(POOL)
        for name, of in (("queued", "ptth_queue_depth"), ("in flight", "ptth_in_flight"), ("links", "ptth_links"), ("credits", "ptth_credits")):
            want = metric(edge, of, 'pool="app"')
            check(float(shown[name]) == want, f"{name}: {shown[name]} on the page, {want:g} in /metrics")
        rows = page.value("document.querySelectorAll('#links tbody tr').length")
        check(rows == metric(edge, "ptth_links", 'pool="app"'), f"{rows} links on the page")
        # Nine seconds between two samples are nine seconds wide.
        late = page.value("(() => { past5 = { at_unix: [10, 11, 20], pools: [] }; return [0, 1, 2].map(places(3)); })()")
        check(late == [289, 290, 299], f"a sample that is late stands at {late}")
        said = page.complaints()
        check(not said, f"the page complains: {said[:3]}")
        say(f"live under load, over a reload, light and dark, 1280 and 390 wide; numbers as in /metrics; {drawn} lines drawn")
        say(f"live again {took:.1f} s after SIGUSR2, with the numbers of the newer process, and nothing on the console")
    finally:
        if successor is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(successor, signal.SIGTERM)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.end()
