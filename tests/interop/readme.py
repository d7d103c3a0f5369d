"""Runs the commands of README.md's two machines in their order, on loopback: `sh once` blocks to their end, `sh stays`
blocks in the background until the script ends. Names and ports are replaced; nothing else is changed."""

import os
import re
import signal
import subprocess

from harness import ROOT, House, answers, binary, check, free_port, get, read_lines, say, until


def blocks(text):
    """(who runs it, the lines) of each fenced block, in order."""
    return re.findall(r"^```(sh once|sh stays)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


with House(__file__, seconds_max=90) as house, open(os.path.join(ROOT, "README.md")) as readme:
    origin = house.origin()
    port, admin = free_port(), free_port()
    # The server of the README answers at its root; ours does it below a path.
    replaced = {
        "edge.example:8080/": f"127.0.0.1:{port}/hello",
        "edge.example": "127.0.0.1",
        "0.0.0.0:8080": f"127.0.0.1:{port}",
        ":8080": f":{port}",
        ":9090": f":{admin}",
        "127.0.0.1:3000": f"127.0.0.1:{origin.port}",
        "curl ": "curl --silent --show-error --noproxy '*' --max-time 20 ",
    }
    place = dict(os.environ, PATH=os.path.dirname(binary()) + ":" + os.environ["PATH"])
    found = blocks(readme.read())
    check(len(found) >= 5, f"README.md has {len(found)} blocks")

    def pids():
        return [int(line) for line in read_lines(house.path("pids"))]

    def is_gone(pid):
        try:
            with open(f"/proc/{pid}/stat") as stat:
                return stat.read().rpartition(")")[2].split()[0] == "Z"
        except FileNotFoundError:
            return True

    def run(who, script):
        """What it printed."""
        first = script.splitlines()[0]
        for name, ours in replaced.items():
            script = script.replace(name, ours)
        if who == "sh stays":
            check(script.rstrip().endswith("&"), f"it stays, but not in the background: {first}")
            script += "\necho $! >> pids\n"
        shell = ["bash", "-euo", "pipefail", "-c", script]
        done = subprocess.run(shell, cwd=house.directory, env=place, capture_output=True, timeout=30)
        check(done.returncode == 0, f"{first}: exit {done.returncode}\n{done.stdout.decode()}{done.stderr.decode()}")
        if "ptth edge" in script:
            until(lambda: answers(port), "the README's edge listens")
            until(lambda: get(admin, "/health/ready")[0] == 200, "the README's edge is ready")
        say(f"ran: {first}")
        return done.stdout.decode()

    try:
        text = "".join(run(who, script) for who, script in found)
        check("HTTP/1.1 200 OK" in text and text.count("hello\n") == 1, f"the README's curl gave\n{text}")
        check("web-1" in text and "IN FLIGHT" in text, f"the README's status gave\n{text}")
        edge, worker = pids()
        until(lambda: is_gone(edge), "the README's `ptth drain` ends the edge")
        os.kill(worker, signal.SIGTERM)  # the README's `kill PID`
        until(lambda: is_gone(worker), "the README's `kill PID` ends the worker")
    finally:
        for pid in pids():
            if not is_gone(pid):
                os.kill(pid, signal.SIGKILL)
    say("edge and worker have ended")
