"""Server-Sent Events: the first arrives while the server holds back the others, so nothing on the way buffers it. Readers:
http.client over HTTP/1.1, Node over HTTP/2, curl over both; with TLS and without."""

import http.client
import itertools
import json
import subprocess
import urllib.request

from harness import NODE, check, say
from secure import SecureHouse, client_context

NODE_EVENTS = __file__.replace("secure_events.py", "node-events.js")
EVENTS = ["event 0", "event 1", "event 2"]
ids = itertools.count()


def go(edge, name):
    request = urllib.request.Request(f"{edge.url}/go?id={name}", method="POST", headers={"Host": "localhost"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        check(answer.status == 200, f"/go gave {answer.status}")


def next_event(lines):
    """The data of the next event."""
    data = []
    for line in lines:
        line = line.decode().rstrip("\r\n")
        if line.startswith("data: "):
            data.append(line.removeprefix("data: "))
        elif not line and data:
            return "\n".join(data)
    return None


def three(edge, name, lines, what):
    check(next_event(lines) == EVENTS[0], f"{what}: the first event")
    go(edge, name)
    check([next_event(lines), next_event(lines)] == EVENTS[1:], f"{what}: the rest of the events")
    check(next_event(lines) is None, f"{what}: more than three events")


def by_http_client(edge, tls):
    name, what = f"python-{next(ids)}", f"http.client, {'TLS' if tls else 'no TLS'}"
    if tls:
        context = client_context(edge.ca, "http/1.1")
        connection = http.client.HTTPSConnection("localhost", edge.tls_port, timeout=20, context=context)
    else:
        connection = http.client.HTTPConnection("localhost", edge.port, timeout=20)
    connection.request("GET", f"/events?id={name}", headers={"Accept": "text/event-stream"})
    answer = connection.getresponse()
    check(answer.getheader("content-type") == "text/event-stream", f"{what}: {answer.getheaders()}")
    three(edge, name, answer, what)
    connection.close()


def by_node(edge, tls):
    name, what = f"node-{next(ids)}", f"Node over HTTP/2, {'TLS' if tls else 'no TLS'}"
    url, ca = (edge.tls_url, edge.ca) if tls else (edge.url, "-")
    done = subprocess.run([NODE, NODE_EVENTS, url, ca, name], capture_output=True, text=True, timeout=30)
    check(done.returncode == 0, f"{what}: exit {done.returncode}: {done.stderr}")
    told = json.loads(done.stdout)
    check(told["events"] == EVENTS and told["before_go"] == 1 and told["has_ended"], f"{what}: {told}")
    check(told["protocol"] == ("h2" if tls else "h2c") and told["kind"] == "text/event-stream", f"{what}: {told}")


def by_curl(edge, version, tls):
    name, what = f"curl-{next(ids)}", f"curl {version}, {'TLS' if tls else 'no TLS'}"
    url, more = (edge.tls_url, ["--cacert", edge.ca]) if tls else (edge.url, [])
    command = ["curl", "--silent", "--show-error", "--no-buffer", "--noproxy", "*", "--max-time", "20", version, *more]
    with subprocess.Popen([*command, f"{url}/events?id={name}"], stdout=subprocess.PIPE) as process:
        three(edge, name, process.stdout, what)
        check(process.wait(20) == 0, f"{what}: exit {process.returncode}")


with SecureHouse(__file__, seconds_max=120) as house:
    pages = house.pages()
    check(NODE, "no node: apt-get install nodejs")
    for cores in (1, 2):
        edge = house.secure_edge(cores)
        house.worker(edge, pages.url)
        for tls in (True, False):
            for _ in range(2 * cores):  # with two cores: some on the core without the link
                by_http_client(edge, tls)
                by_node(edge, tls)
                by_curl(edge, "--http1.1", tls)
                by_curl(edge, "--http2" if tls else "--http2-prior-knowledge", tls)
        say(f"{cores} cores: http.client, Node, curl: the first event before the second was sent")
