#!/usr/bin/env python3
"""The Debian package: built from the release binary, installed in a bare Debian, its units verified; then systemd runs them there,
with all their restrictions, a newer package is installed under load without losing a request, and after a purge nothing is left.
Needs root, debootstrap, cargo-deb and Debian's mirror; exit code 77 where one of them is not to be had.

systemd is process 1 of namespaces of its own, with a network of its own: nothing of this machine is touched."""

import json
import os
import re
import shutil
import subprocess
import sys
import time

from harness import HERE, ROOT, Failed, House, check, say, until

SUITE, MIRROR = "bookworm", os.environ.get("PTTH_DEBIAN", "http://deb.debian.org/debian")
INCLUDED = "systemd,systemd-sysv,dbus"
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
# How exposed a unit is by systemd's own count, 0 to 10; packaging/README.md has today's.
EXPOSURE_MAX = 2.0
# What may differ after a purge: caches and the books of dpkg itself, and what systemd writes about itself.
OTHERS = ("/var/lib/dpkg", "/var/log", "/var/cache", "/run", "/tmp", "/dev", "/proc", "/sys", "/var/lib/systemd", "/var/tmp", "/etc/machine-id")


def run(*command, ok=True, **more):
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, **more)
    check(not ok or done.returncode == 0, f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def main():
    missing = [tool for tool in ("debootstrap", "cargo-deb", "dpkg-deb", "nsenter", "unshare") if shutil.which(tool) is None]
    if os.getuid() != 0:
        missing.append("root")
    if missing:
        print(f"package.py: not run, there is no {', no '.join(missing)}")
        sys.exit(77)
    with House(__file__, 900) as house:
        first, second = build(house, "1"), build(house, "2")
        root = bare_debian(house)
        before = tree(root)
        installed(root, first)
        verified(root)
        booted = Booted.start(house, root)
        if booted is None:
            say("NOT RUN: no process may be the first of its namespaces here, so systemd does not run the units")
            shutil.copy(second, f"{root}/tmp/newer.deb")
            inside(root, "dpkg", "-i", "/tmp/newer.deb")
        else:
            with booted:
                lived(house, booted, second)
        removed(root, booted)
        left = sorted(path for path in tree(root) - before if not path.startswith(OTHERS))
        check(not left, f"left after a purge: {left}")
        users = [line for name in ("passwd", "group") for line in lines(f"{root}/etc/{name}") if line.startswith("ptth:")]
        check(not users, f"left after a purge: {users}")
        say("removed and purged: nothing is left")


def build(house, revision):
    """A package of the same files; the revision alone makes it newer."""
    file = house.path(f"ptth-{revision}.deb")
    command = [os.path.join(ROOT, "packaging", "build-deb"), "--fast", "--deb-revision", revision, "--output", file]
    run(*command, cwd=ROOT)
    fields = run("dpkg-deb", "--field", file, "Version")
    check(f"-{revision}\n" in fields, fields)
    return file


def bare_debian(house):
    """A fresh root; what debootstrap downloaded is kept for the next time."""
    kept = os.path.join(TARGET, "interop", f"debian-{SUITE}")
    if not os.path.exists(kept + "/.whole"):
        shutil.rmtree(kept, ignore_errors=True)
        done = subprocess.run(
            ["debootstrap", "--variant=minbase", f"--include={INCLUDED}", SUITE, kept, MIRROR], capture_output=True, text=True
        )
        if done.returncode:
            print(f"package.py: not run, no Debian can be had from {MIRROR}:\n{done.stdout[-500:]}{done.stderr[-500:]}")
            sys.exit(77)
        open(kept + "/.whole", "w").close()
    root = house.path("root")
    run("cp", "-a", kept, root)
    return root


def inside(root, *command, ok=True):
    return run("chroot", root, *command, ok=ok)


def tree(root):
    """Every path below it."""
    found = set()
    for folder, folders, files in os.walk(root):
        shown = folder[len(root) :]
        found.update(f"{shown}/{name}" for name in folders + files)
    return found


def lines(path):
    with open(path) as file:
        return file.read().splitlines()


def installed(root, package):
    shutil.copy(package, f"{root}/tmp/ptth.deb")
    told = inside(root, "dpkg", "-i", "/tmp/ptth.deb")
    check("ptth" in inside(root, "ptth", "--version"), told)
    wanted = {"/etc/ptth": "root:ptth 750", "/etc/ptth/edge.toml": "root:ptth 640", "/usr/bin/ptth": "root:root 755"}
    for path, owner in wanted.items():
        found = inside(root, "stat", "--format", "%U:%G %a", path).strip()
        check(found == owner, f"{path} is {found}, not {owner}")
    inside(root, "ptth", "check", "--config", "/etc/ptth/edge.toml")
    links = [path for path in tree(root + "/etc/systemd") if "ptth" in path]
    check(not links, f"a unit is enabled before anybody has configured it: {links}")
    completions = f"{root}/usr/share/bash-completion/completions/ptth"
    offered = run("bash", "-c", f'. {completions}; COMP_WORDS=(ptth doct); COMP_CWORD=1; _ptth ptth doct ptth; echo "${{COMPREPLY[@]}}"')
    check(offered.strip() == "doctor", f"bash completes `ptth doct` by {offered!r}")
    for page in ("ptth", "ptth-edge", "ptth-worker", "ptth-doctor"):
        text = run("gzip", "-dc", f"{root}/usr/share/man/man1/{page}.1.gz")
        check(text.count(".SH") >= 3, f"{page}(1):\n{text[:200]}")
    shown = inside(root, "/usr/share/ptth/tuning/tune", "--help")
    check("put-back" in shown, shown)
    say(f"installed in a bare {SUITE}: {inside(root, 'ptth', '--version').strip()}, man pages, completions, tuning")


def verified(root):
    units = ["ptth-edge.service", "ptth-edge.socket", "ptth-worker@app.service"]
    told = run("chroot", root, "systemd-analyze", "verify", "--man=no", *units)
    check(not told, told)
    for unit in ("ptth-edge.service", "ptth-worker@.service"):
        told = inside(root, "systemd-analyze", "security", "--offline=true", f"/usr/lib/systemd/system/{unit}")
        score = re.search(r"Overall exposure level for \S+: ([0-9.]+)", told)
        check(score and float(score[1]) <= EXPOSURE_MAX, told[-300:])
        say(f"{unit}: exposure {score[1]} of 10")


# Run by bash as the first process of its namespaces; $1 is the root.
BOOT = """
set -e
root=$1
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys" -o ro
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
for folder in run tmp dev; do mount -t tmpfs tmpfs "$root/$folder"; done
for name in null zero full random urandom tty; do touch "$root/dev/$name"; mount --bind "/dev/$name" "$root/dev/$name"; done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts devpts "$root/dev/pts" -o newinstance,ptmxmode=0666
ln -s pts/ptmx "$root/dev/ptmx"
ip link set lo up
cd "$root"
pivot_root . mnt
umount -l /mnt
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd < /dev/null
"""


class Booted:
    """systemd in a root of its own. Ended with its namespaces."""

    def __init__(self, unshare, pid, group):
        self.unshare, self.pid, self.group = unshare, pid, group

    @classmethod
    def start(cls, house, root):
        mount = next((line.split()[1] for line in lines("/proc/mounts") if line.split()[2] == "cgroup2"), None)
        if mount is None:
            return None
        group = os.path.join(mount, f"ptth-package-{os.getpid()}")
        try:
            os.mkdir(group)
        except OSError:
            return None
        join = f'echo $$ > {group}/cgroup.procs; exec unshare --pid --mount --uts --ipc --cgroup --net --fork --kill-child bash -c "$0" boot {root}'
        unshare = house.start("systemd", ["bash", "-ec", join, BOOT])
        booted = cls(unshare, None, group)

        def first():
            with open(f"/proc/{unshare.pid}/task/{unshare.pid}/children") as children:
                booted.pid = children.read().split()[0] if unshare.poll() is None else None
            with open(f"/proc/{booted.pid}/comm") as comm:
                return comm.read().strip() == "systemd"

        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and unshare.poll() is None:
            try:
                if first():
                    break
            except (OSError, IndexError, TypeError):
                pass
            time.sleep(0.1)
        if unshare.poll() is not None:
            booted.clean()
            return None
        try:
            until(lambda: booted.run("systemctl", "is-system-running", ok=False).strip() in ("running", "degraded"), "systemd has booted", 60)
        except Failed:
            booted.__exit__()
            raise
        return booted

    def command(self, *command):
        return ["nsenter", "-t", self.pid, "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w", *command]

    def run(self, *command, ok=True):
        return run(*self.command(*command), ok=ok)

    def on_its_network(self, *command):
        """A program of this machine there: it has no Python."""
        return ["nsenter", "-t", self.pid, "-n", *command]

    def main_pid(self, unit):
        return int(self.run("systemctl", "show", "--property", "MainPID", "--value", unit))

    def journal(self, unit):
        return self.run("journalctl", "--no-pager", "--output", "cat", "-u", unit, ok=False)

    def clean(self):
        for folder, _, _ in os.walk(self.group, topdown=False):
            try:
                os.rmdir(folder)
            except OSError:
                pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.pid and self.unshare.poll() is None:
            os.kill(int(self.pid), 9)  # the first process takes all others of its namespace with it
        self.unshare.wait(20)
        self.clean()


EDGE = """
[[listen]]
address = "127.0.0.1:80"
accept = ["clients", "workers"]
[admin]
address = "127.0.0.1:9090"
[access_log]
file = "/var/log/ptth/access.log"
[[pool]]
name = "app"
origins = ["*"]
"""

WORKER = """
edges = ["http://127.0.0.1:80"]
serve = ["http://localhost"]
to = "http://127.0.0.1:3000"
credential_file = "web-1.secret"
"""

# Asks all the time, a connection for every ten requests; ends at the end of its input.
LOAD = """
import http.client, json, sys, threading
good, bad, over = [0], [], threading.Event()
def ask():
    while not over.is_set():
        connection = http.client.HTTPConnection("127.0.0.1", 80, timeout=60)
        for _ in range(10):
            try:
                connection.request("GET", "/hello", headers={"Host": "localhost"})
                answer = connection.getresponse()
                body = answer.read()
            except OSError as error:
                bad.append(repr(error)); break
            if (answer.status, body) != (200, b"hello\\n"):
                bad.append(f"{answer.status} {body!r}")
            good[0] += 1
            if answer.will_close or over.is_set():
                break
        connection.close()
threads = [threading.Thread(target=ask) for _ in range(8)]
for thread in threads: thread.start()
sys.stdin.read()
over.set()
for thread in threads: thread.join()
print(json.dumps([good[0], bad[:5], len(bad)]))
"""


def lived(house, booted, newer):
    """The units under systemd: start, reload, watchdog, and a newer package under load."""

    def write(name, text):
        into = subprocess.run(booted.command("sh", "-c", f"umask 027; cat > /etc/ptth/{name}; chgrp ptth /etc/ptth/{name}"), input=text, text=True)
        check(into.returncode == 0, f"{name} cannot be written")

    secret, block = booted.run("ptth", "credential", "new", "web-1", "--origin", "*").split("\n", 1)
    write("edge.toml", EDGE + block)
    write("web-1.secret", secret + "\n")
    write("worker-app.toml", WORKER)
    origin = subprocess.Popen(booted.on_its_network(sys.executable, os.path.join(HERE, "origin.py"), "3000", house.path("origin.requests")))
    try:
        booted.run("systemctl", "enable", "--now", "ptth-edge.service", "ptth-worker@app.service")
        until(lambda: '"links":2' in status(booted), "the worker's links are up", 30)
        say("edge and worker run under their units, port 80, without root")
        edge, worker = booted.main_pid("ptth-edge.service"), booted.main_pid("ptth-worker@app.service")
        doctor = booted.run("ptth", "doctor", "--config", "/etc/ptth/edge.toml", "--json", ok=False)
        check(f", for the edge that runs ({edge})" in doctor and '"wrong": 0' in doctor, doctor)
        load = subprocess.Popen(
            booted.on_its_network(sys.executable, "-c", LOAD), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        booted.run("systemctl", "reload", "ptth-edge.service")
        copy = subprocess.run(booted.command("sh", "-c", "cat > /tmp/newer.deb"), stdin=open(newer, "rb"))
        check(copy.returncode == 0, "the newer package cannot be copied")
        told = booted.run("dpkg", "-i", "/tmp/newer.deb")
        check("Unpacking ptth" in told, told)
        until(lambda: booted.main_pid("ptth-edge.service") not in (0, edge), "another process is the edge", 60)
        until(lambda: booted.main_pid("ptth-worker@app.service") not in (0, worker), "another process is the worker", 60)
        until(lambda: '"links":2' in status(booted), "the worker is back", 60)
        until(lambda: not os.path.exists(f"/proc/{booted.pid}/root/proc/{edge}"), "the old edge has ended", 60)
        # Longer than WatchdogSec: systemd would have ended a process that it does not hear of.
        now = booted.main_pid("ptth-edge.service")
        time.sleep(11)
        check(booted.main_pid("ptth-edge.service") == now, booted.journal("ptth-edge.service")[-2000:])
        restarts = booted.run("systemctl", "show", "--property", "NRestarts", "--value", "ptth-edge.service").strip()
        check(restarts == "0", f"the edge was started anew {restarts} times")
        out, _ = load.communicate("", timeout=90)
        good, bad, count = json.loads(out)
        check(not count and good > 100, f"{count} of {good} requests failed: {bad}\n{booted.journal('ptth-edge.service')[-1500:]}")
        # It was started by a process that has ended since, and systemd looks after it all the same.
        booted.run("systemctl", "kill", "--kill-whom=main", "--signal=KILL", "ptth-edge.service")
        until(lambda: booted.main_pid("ptth-edge.service") not in (0, now), "systemd starts an edge again that was killed", 30)
        until(lambda: '"links":2' in status(booted), "the worker is back", 60)
        log = booted.run("stat", "--format", "%U:%G %a", "/var/log/ptth/access.log").strip()
        check(log == "ptth:ptth 640", f"access.log is {log}")
        say(f"a reload and an upgrade of the package under load: {good} requests, none failed; the edge is another process")
        upside_down(booted, write)
    finally:
        origin.kill()
        origin.wait()


def upside_down(booted, write):
    """A bad configuration: the reload changes nothing, and a start is not tried again and again."""
    before = booted.main_pid("ptth-edge.service")
    write("edge.toml", "[[listen]]\naddress = 7\n")
    booted.run("systemctl", "reload", "ptth-edge.service")
    until(lambda: "SIGHUP: nothing changes" in booted.journal("ptth-edge.service"), "the log says that nothing changes", 20)
    check(booted.main_pid("ptth-edge.service") == before, "a bad reload ended the edge")
    booted.run("systemctl", "restart", "ptth-edge.service", ok=False)
    until(lambda: booted.run("systemctl", "is-failed", "ptth-edge.service", ok=False).strip() == "failed", "it has failed for good", 60)
    say("a bad configuration: a reload keeps what runs, a start fails once and is not repeated")


def status(booted):
    return booted.run("ptth", "status", "--admin", "127.0.0.1:9090", "--json", ok=False).replace(" ", "")


def removed(root, booted):
    """Both steps of it; by then systemd has gone, and what it had enabled is on the disk."""
    inside(root, "dpkg", "--remove", "ptth")
    check(os.path.exists(f"{root}/etc/ptth/edge.toml"), "a removal has taken the configuration")
    check(not os.path.exists(f"{root}/usr/bin/ptth"), "the program is still there")
    # An administrator's own files are his to remove.
    for name in ("web-1.secret", "worker-app.toml"):
        if booted is not None:
            check(os.path.exists(f"{root}/etc/ptth/{name}"), f"{name} is gone")
            os.remove(f"{root}/etc/ptth/{name}")
    inside(root, "dpkg", "--purge", "ptth")
    check("ptth" not in inside(root, "dpkg", "--list"), "dpkg still knows it")


if __name__ == "__main__":
    main()
