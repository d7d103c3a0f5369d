#!/usr/bin/env python3
"""The Debian package: built from the release binary, installed in a bare Debian, its units verified; then systemd runs them there,
with all their restrictions, a newer package is installed under load without losing a request, and after a purge nothing is left.
Needs root, debootstrap, cargo-deb, Debian's mirror, and leave to make namespaces; exit code 77, and a loud line, where one of them is not
to be had. Without namespaces it does what it can before. With them, a systemd that does not come up is a failure.

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
        not_run(f"there is no {', no '.join(missing)}")
    group, forbidden = Booted.namespaces()
    with House(__file__, 900) as house:
        first, second = build(house, "1"), build(house, "2")
        root = bare_debian(house)
        before = tree(root)
        installed(root, first)
        verified(root)
        if forbidden:
            shutil.copy(second, f"{root}/tmp/newer.deb")
            inside(root, "dpkg", "-i", "/tmp/newer.deb")
        else:
            with Booted(house, root, group) as booted:
                lived(house, booted, second)
        removed(root, has_lived=not forbidden)
        left = sorted(path for path in tree(root) - before if not path.startswith(OTHERS))
        check(not left, f"left after a purge: {left}")
        users = [line for name in ("passwd", "group") for line in lines(f"{root}/etc/{name}") if line.startswith("ptth:")]
        check(not users, f"left after a purge: {users}")
        say("removed and purged: nothing is left")
    if forbidden:
        not_run(f"the units under systemd: {forbidden}")


def not_run(why):
    print(f"!! NOT RUN: package.py: {why}", flush=True)
    sys.exit(77)


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
            not_run(f"no Debian can be had from {MIRROR}:\n{done.stdout[-500:]}{done.stderr[-500:]}")
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

    SHARES_NOT = ("--pid", "--mount", "--uts", "--ipc", "--cgroup", "--net", "--fork", "--kill-child")

    @classmethod
    def namespaces(cls):
        """A control group for one of these, or None and why nobody may make one here."""
        mount = next((line.split()[1] for line in lines("/proc/mounts") if line.split()[2] == "cgroup2"), None)
        if mount is None:
            return None, "no cgroup2 is mounted"
        group = os.path.join(mount, f"ptth-package-{os.getpid()}")
        try:
            os.mkdir(group)
            os.rmdir(group)
        except OSError as error:
            return None, f"no control group may be made: {error}"
        tried = subprocess.run(["unshare", *cls.SHARES_NOT, "true"], capture_output=True, text=True, timeout=60)
        return (group, None) if tried.returncode == 0 else (None, f"no process may be the first of its namespaces: {tried.stderr.strip()}")

    def __init__(self, house, root, group):
        os.mkdir(group)
        self.group, self.pid = group, None
        join = f'echo $$ > {group}/cgroup.procs; exec unshare {" ".join(self.SHARES_NOT)} bash -c "$0" boot {root}'
        self.unshare = house.start("systemd", ["bash", "-ec", join, BOOT])
        try:
            until(self.is_systemd, "systemd is the first process of its namespaces", 60, process=self.unshare)
            until(lambda: self.run("systemctl", "is-system-running", ok=False).strip() in ("running", "degraded"), "systemd has booted", 60)
        except Failed:
            self.__exit__()
            raise

    def is_systemd(self):
        with open(f"/proc/{self.unshare.pid}/task/{self.unshare.pid}/children") as children:
            self.pid = next(iter(children.read().split()), None)
        if self.pid is None:
            return False
        with open(f"/proc/{self.pid}/comm") as comm:
            return comm.read().strip() == "systemd"

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

    def told(self, pid, what=""):
        """When a process has said that, by the journal's clock, in µs; each time in order."""
        entries = self.run("journalctl", "--no-pager", "--output", "json", f"_PID={pid}", ok=False).splitlines()
        entries = [json.loads(entry) for entry in entries]
        return [int(entry["__REALTIME_TIMESTAMP"]) for entry in entries if what in str(entry["MESSAGE"])]

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
[edge]
drain_max = "60s"
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

WORKERS = ("app", "more")

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
    for name in WORKERS:
        write(f"worker-{name}.toml", WORKER)
    units = [f"ptth-worker@{name}.service" for name in WORKERS]
    origin = subprocess.Popen(booted.on_its_network(sys.executable, os.path.join(HERE, "origin.py"), "3000", house.path("origin.requests")))
    try:
        booted.run("systemctl", "enable", "--now", "ptth-edge.service", *units)
        until(lambda: '"links":4' in status(booted), "the workers' links are up", 30)
        say("edge and workers run under their units, port 80, without root")
        edge, workers = booted.main_pid("ptth-edge.service"), [booted.main_pid(unit) for unit in units]
        doctor = booted.run("ptth", "doctor", "--config", "/etc/ptth/edge.toml", "--json", ok=False)
        check(f", for the edge that runs ({edge})" in doctor and '"wrong": 0' in doctor, doctor)
        load = subprocess.Popen(
            booted.on_its_network(sys.executable, "-c", LOAD), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        booted.run("systemctl", "reload", "ptth-edge.service")
        copy = subprocess.run(booted.command("sh", "-c", "cat > /tmp/newer.deb"), stdin=open(newer, "rb"))
        check(copy.returncode == 0, "the newer package cannot be copied")
        # What the older edge has to finish.
        slow = subprocess.Popen(
            booted.on_its_network("curl", "-sS", "-H", "Host: localhost", "http://127.0.0.1/slow?ms=15000&id=slow"), stdout=subprocess.PIPE, text=True
        )
        until(lambda: "slow GET /slow" in lines(house.path("origin.requests")), "the slow request runs", 30)
        told = booted.run("dpkg", "-i", "/tmp/newer.deb")
        check("Unpacking ptth" in told and "one after the other" in told, told)
        until(lambda: booted.main_pid("ptth-edge.service") not in (0, edge), "another process is the edge", 60)
        until(lambda: not os.path.exists(f"/proc/{booted.pid}/root/proc/{edge}"), "the old edge has ended", 90)
        check(slow.communicate(timeout=30)[0].startswith("slow"), "the older edge did not finish what it had")
        until(lambda: restarting(booted) != "activating", "the workers were restarted", 90)
        check(restarting(booted) == "inactive", booted.journal("ptth-restart-workers.service"))
        newer_workers = [booted.main_pid(unit) for unit in units]
        check(not {0, *workers} & {*newer_workers}, f"workers are {newer_workers}, they were {workers}")
        # The older edge has said its last, then each worker goes when the one before it has a link.
        order = [("the older edge", booted.told(edge)[-1])]
        for name, older, newer_one in zip(WORKERS, workers, newer_workers):
            order.append((f"{name} ends", booted.told(older, "draining: links are told to end")[0]))
            order.append((f"{name} is back", booted.told(newer_one, "link up")[0]))
        check(order == sorted(order, key=lambda entry: entry[1]), f"out of order: {order}")
        until(lambda: '"links":4' in status(booted), "the workers are back", 60)
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
        until(lambda: '"links":4' in status(booted), "the workers are back", 60)
        log = booted.run("stat", "--format", "%U:%G %a", "/var/log/ptth/access.log").strip()
        check(log == "ptth:ptth 640", f"access.log is {log}")
        say(f"a reload and an upgrade of the package under load: {good} requests, none failed; the edge is another process")
        say("workers went one after the other, when the older edge had ended")
        left_alone(booted, write, units)
        upside_down(booted, write)
    finally:
        origin.kill()
        origin.wait()


def restarting(booted):
    return booted.run("systemctl", "show", "--property", "ActiveState", "--value", "ptth-restart-workers.service").strip()


def left_alone(booted, write, units):
    """Workers go on where nothing may be restarted, where the edge has not been replaced, and behind one that does not come back."""
    before = [booted.main_pid(unit) for unit in units]

    def refused(*command):
        done = subprocess.run(booted.command("env", *command), capture_output=True, text=True, timeout=120)
        check(done.returncode == 1, f"exit {done.returncode}: {done.stdout}{done.stderr}")
        return done.stderr

    edge = str(booted.main_pid("ptth-edge.service"))
    policy = "/usr/sbin/policy-rc.d"
    booted.run("sh", "-c", f"printf '#!/bin/sh\\nexit 101\\n' > {policy}; chmod +x {policy}")
    told = booted.run("sh", "-c", "dpkg -i /tmp/newer.deb 2>&1")
    check("one after the other" not in told, f"{policy} is not asked: {told}")
    by_hand = f"--signal=USR2 ptth-edge.service && /usr/lib/ptth/restart-workers {edge}\n"
    check("policy-rc.d forbids to restart ptth-edge.service" in told and by_hand in told, f"nothing says what to do later: {told}")
    booted.run("rm", policy)
    told = refused("PTTH_START_S_MAX=1", "/usr/lib/ptth/restart-workers", edge)
    check("still is the older program" in told, told)
    check([booted.main_pid(unit) for unit in units] == before, "a worker was restarted beside an edge that was not replaced")
    write("worker-app.toml", WORKER.replace(":80", ":81"))
    told = refused("PTTH_LINK_S_MAX=3", "/usr/lib/ptth/restart-workers")
    check(f"{units[0]} has no link" in told, told)
    after = [booted.main_pid(unit) for unit in units]
    check(after[0] != before[0] and after[1] == before[1], f"workers were {before}, are {after}")
    # Stopped while its link is waited for: the next one has its turn.
    waits = subprocess.Popen(booted.command("/usr/lib/ptth/restart-workers"), stdout=subprocess.PIPE, text=True)
    until(lambda: booted.main_pid(units[0]) not in (0, after[0]), "the worker without a link is restarted", 60)
    booted.run("systemctl", "stop", units[0])
    told, _ = waits.communicate(timeout=120)
    check(waits.returncode == 0 and f"{units[0]} does not run any more" in told and f"{units[1]} is back" in told, f"a stopped worker: {told}")
    check(booted.main_pid(units[0]) == 0 and booted.main_pid(units[1]) != after[1], "a stopped worker was started, or the next one was not")
    write("worker-app.toml", WORKER)
    booted.run("systemctl", "start", units[0])
    check(units[1] in booted.run("/usr/lib/ptth/restart-workers"), "the second time is not told")
    check(booted.main_pid("ptth-edge.service") == int(edge), f"{policy} is not asked: another process is the edge")
    until(lambda: '"links":4' in status(booted), "the workers are back", 60)
    say("a worker that does not come back, or an edge that was not replaced: the other workers stay as they are")


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


def removed(root, has_lived):
    """Both steps of it; by then systemd has gone, and what it had enabled is on the disk."""
    inside(root, "dpkg", "--remove", "ptth")
    check(os.path.exists(f"{root}/etc/ptth/edge.toml"), "a removal has taken the configuration")
    check(not os.path.exists(f"{root}/usr/bin/ptth"), "the program is still there")
    # An administrator's own files are his to remove.
    for name in ("web-1.secret", *(f"worker-{name}.toml" for name in WORKERS)):
        if has_lived:
            check(os.path.exists(f"{root}/etc/ptth/{name}"), f"{name} is gone")
            os.remove(f"{root}/etc/ptth/{name}")
    inside(root, "dpkg", "--purge", "ptth")
    check("ptth" not in inside(root, "dpkg", "--list"), "dpkg still knows it")


if __name__ == "__main__":
    main()
