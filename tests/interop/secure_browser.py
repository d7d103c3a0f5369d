"""A browser over TLS: Chromium, headless, opens a page with 100 images, an EventSource and a WebSocket, and tells the server
what it saw. The WebSocket's server is `websockets`, behind a pool of its own."""

import base64
import contextlib
import hashlib
import json
import os
import signal
import subprocess

from harness import binary, check, get, say, status, until
from secure import SecureHouse, tool

IMAGES = 100


def key_hash(house):
    """What Chromium takes in place of an authority of its own: SHA-256 of the certificate's public key."""
    public = house.openssl("x509", "-in", house.path("localhost.pem"), "-noout", "-pubkey")
    der = subprocess.run(["openssl", "pkey", "-pubin", "-outform", "der"], input=public, capture_output=True).stdout
    return base64.b64encode(hashlib.sha256(der).digest()).decode()


def browse(house, edge, browser, name, *more):
    """What the page reported."""
    arguments = [
        *["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server"],
        *["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
        *["--disable-default-apps", "--disable-extensions", f"--user-data-dir={house.path(name)}"],
        *[f"--ignore-certificate-errors-spki-list={key_hash(house)}", "--remote-debugging-port=0", *more],
    ]
    # What Debian installs is a shell script that waits for the browser: both have to go, so they get a group of their own.
    url = f"{edge.tls_url}/page?images={IMAGES}"
    process = house.start(name, [browser, *arguments, url], start_new_session=True)
    try:
        return until(lambda: json.loads(get(edge.port, "/report")[1]), f"{name} reports", seconds=90, process=process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.end()


with SecureHouse(__file__, seconds_max=240) as house:
    browser = tool("chromium-headless-shell", "chromium")
    version = subprocess.run([browser, "--version"], capture_output=True, text=True, timeout=60).stdout.strip()
    say(version)
    echo = house.python("echo_ws.py", house.path("echo.log"))
    chat = '[[pool]]\nname = "chat"\norigins = ["*"]\npaths = ["/chat"]\n'
    for name, more, protocol, via in (("h2", [], "h2", "2.0 ptth"), ("h1", ["--disable-http2"], "http/1.1", "1.1 ptth")):
        pages = house.pages()
        edge = house.secure_edge(cores=2, tables=chat)
        # By their pools' names: an origin would be served by both.
        for pool, to in (("app", pages.url), ("chat", echo.url)):
            arguments = ["--edge", edge.url, "--pool", pool, "--to", to, "--credential-file", edge.credential_file]
            house.start("worker", [binary(), "worker", *arguments, "--links", "2"])
        until(lambda: len(status(edge)["links"]) == 4, "four links")
        report = browse(house, edge, browser, f"browser-{name}", *more)
        check((report["images"], report["broken"]) == (IMAGES, 0), f"{name}: images: {report}")
        check(set(report["protocols"]) == {protocol}, f"{name}: protocols: {report['protocols']}")
        asked = [line.split(" ", 2) for line in pages.log()]
        images = {path for method, path, by in asked if path.startswith("/image/") and by.startswith(via)}
        check(len(images) == IMAGES, f"{name}: the server saw {len(images)} images over {via}")
        check(report["events"] == ["0 event 0", "1 event 1", "2 event 2"], f"{name}: EventSource: {report}")
        check(not report["rest_came_early"], f"{name}: EventSource: {report}")
        sizes = [0, 1, 125, 126, 65535, 65536, 1_000_000]
        check(report["websocket"] == [*sizes, [4001, "enough", True]], f"{name}: WebSocket: {report['websocket']}")
        loaded = sum(report["protocols"].values())
        say(f"{name}: {IMAGES} images, {loaded} loads, all over {protocol}; EventSource unbuffered; WebSocket, closed 4001")
