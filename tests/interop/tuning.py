#!/usr/bin/env python3
"""tuning/tune on this machine: it shows what it would change, applies it, refuses to forget what was before, and puts
everything back exactly. Each file that it may touch is read before and after. Needs root; what may not be written here is told."""

import os
import subprocess
import sys

from harness import ROOT, Failed, House, check, say

TUNE = os.path.join(ROOT, "tuning", "tune")
# vm.nr_hugepages takes memory from a machine that may have none to spare: it is shown only.
STEPS = ["sysctl", "ports", "limits", "irq", "governor", "thp", "busy-poll", "isolation"]


def tune(*words, code=0, path=None):
    env = os.environ | ({"PATH": f"{path}:{os.environ['PATH']}"} if path else {})
    done = subprocess.run([TUNE, *words], capture_output=True, text=True, timeout=60, env=env)
    told = done.stdout + done.stderr
    check(code is None or done.returncode == code, f"tune {' '.join(words)}: exit {done.returncode}, not {code}\n{told}")
    return done.returncode, told


def shown(*steps):
    """STEP, KIND, TARGET, NOW, WANTED of each setting."""
    return [line.split("\t") for line in tune("show", "--plain", *steps)[1].splitlines()]


def files():
    """The text of every file that is a target, as it is."""
    texts = {}
    for _, kind, target, _, _ in shown(*STEPS, "huge-pages"):
        if kind == "file":
            with open(target) as file:
                texts[target] = file.read()
    return texts


def main():
    with House(__file__, 120) as house:
        arguments()
        everything = tune("steps")[1]
        check(all(step in everything for step in [*STEPS, "huge-pages"]), everything)
        if os.getuid() != 0:
            tune("apply", "--state", house.path("state"), code=1)
            say("not root: nothing can be applied, only shown")
            return
        before = files()
        check(before, "not one setting is known on this machine")
        say(f"{len(before)} files may be touched")
        try:
            applied_and_put_back(house, before)
            drift(house, before)
            a_reboot(house, before)
            what_was_empty(house)
            measure_says_what_it_cannot(house)
        finally:
            for name in ["state", "drift", "reboot"]:
                tune("put-back", "--state", house.path(name), code=None)
        check(files() == before, "something is not as it was")


def arguments():
    tune(code=2)
    tune("aply", code=2)
    tune("show", "colour", code=2)
    tune("show", "--cpus", "4-1", code=2)
    tune("show", "--cpus", "4095", code=2)
    tune("show", "--sate", "x", code=2)


def applied_and_put_back(house, before):
    state = house.path("state")
    wanted = shown(*STEPS)
    changes = [(target, now, want) for _, _, target, now, want in wanted if now != want]
    check(files() == before, "show has written something")
    code, told = tune("apply", "--state", state, *STEPS, code=None)
    refused = [line.split()[1].rstrip(":") for line in told.splitlines() if line.startswith("  x  ")]
    check((code == 1) == bool(refused), f"exit {code} with {refused}\n{told}")
    for name in refused:
        say(f"may not be written here: {name}")
    made = [target for target, _, _ in changes if name_of(target) not in refused]
    for target, now, want in changes:
        if name_of(target) in refused:
            continue
        check(f"{name_of(target)}: {now or '(empty)'} -> " in told, f"{target} was changed silently\n{told}")
    now_shown = {target: (now, want) for _, _, target, now, want in shown(*STEPS)}
    for target in made:
        check(now_shown[target][0] == now_shown[target][1], f"{target} is {now_shown[target]}")
    after = files()
    changed = {target for target in before if after[target] != before[target]}
    check(changed == {target for target in made if target in before}, f"{changed} were changed, {made} were to be")
    say(f"applied: {len(made)} of {len(wanted)} settings were different")
    # Once more: nothing happens, and what was before stays known.
    kept = read_all(state)
    told = tune("apply", "--state", state, *STEPS, code=None)[1]
    check(read_all(state) == kept, "a second apply has changed the state")
    check(not made or "applied already" in told, told)
    tune("status", "--state", state)
    tune("put-back", "--state", state)
    check(files() == before, differences(before, files()))
    check(not read_all(state), f"left in the state: {read_all(state)}")
    check("Nothing is applied" in tune("put-back", "--state", state)[1], "a second put-back says nothing")
    say("put back: every file is as it was, and a second time nothing happens")


def drift(house, before):
    """Somebody else changes what was applied: status says so, and put-back restores what was before."""
    state, target = house.path("drift"), "/proc/sys/net/ipv4/tcp_slow_start_after_idle"
    if before.get(target) != "1\n" or not writable(target, "1"):
        say("drift: not shown here, for tcp_slow_start_after_idle is not 1 or may not be written")
        return
    tune("apply", "sysctl", "--state", state)
    writable(target, "1")
    told = tune("status", "--state", state, code=1)[1]
    check("tcp_slow_start_after_idle is 1, was applied as 0" in told, told)
    tune("apply", "sysctl", "--state", state, code=1)
    tune("put-back", "--state", state)
    check(files() == before, differences(before, files()))
    say("drift: status ends with 1 and names it")


def what_was_empty(house):
    """A slice that was bound to no CPUs is bound to none again. Played: a systemctl that keeps properties in files."""
    state, played = house.path("empty"), house.path("played")
    os.makedirs(state)
    os.makedirs(played)
    systemctl = os.path.join(played, "systemctl")
    with open(systemctl, "w") as file:
        file.write(SYSTEMCTL)
    os.chmod(systemctl, 0o755)
    with open("/proc/sys/kernel/random/boot_id") as boot, open(os.path.join(state, "isolation"), "w") as file:
        file.write(boot.read().strip() + "\nproperty\tsystem.slice:AllowedCPUs\t\t0 1\n")
    with open(os.path.join(played, "system.slice"), "w") as file:
        file.write("0-1")
    told = tune("status", "isolation", "--state", state, path=played)[1]
    check("is 0 1, was (empty)" in told, told)
    told = tune("put-back", "isolation", "--state", state, path=played)[1]
    with open(os.path.join(played, "system.slice")) as file:
        check(file.read() == "" and "0 1 -> (empty)" in told, told)
    check(not read_all(state), "the state is still there")
    say("isolation: what was empty is empty again")


SYSTEMCTL = """#!/bin/sh
here=$(dirname "$0")
case $1 in
  show) cat "$here/$5" ;;
  set-property) printf %s "${4#*=}" > "$here/$3" ;;
  *) exit 1 ;;
esac
"""


def a_reboot(house, before):
    """A state from before a reboot is of no use: nothing is written from it."""
    state = house.path("reboot")
    os.makedirs(state)
    with open(os.path.join(state, "sysctl"), "w") as file:
        file.write("another boot\nfile\t/proc/sys/net/core/somaxconn\t7\t4096\n")
    told = tune("put-back", "--state", state)[1]
    check("before a reboot" in told and files() == before, told)
    check(not read_all(state), "the old state is still there")


def measure_says_what_it_cannot(house):
    measure = os.path.join(ROOT, "tuning", "measure")
    done = subprocess.run([measure, "sysctl"], capture_output=True, text=True, timeout=60)
    check(done.returncode == 1 and "from another machine" in done.stderr, done.stderr)
    if all(now == want for step, _, _, now, want in shown("governor")):
        done = subprocess.run([measure, "governor"], capture_output=True, text=True, timeout=60)
        check(done.returncode == 1 and "nothing would change" in done.stderr, done.stderr)
        say(done.stderr.splitlines()[-1].strip() or "governor: nothing would change")


def name_of(target):
    return target.removeprefix("/proc/sys/").replace("/", ".") if target.startswith("/proc/sys/") else target


def writable(target, text):
    try:
        with open(target, "w") as file:
            file.write(text)
        return True
    except OSError:
        return False


def read_all(directory):
    """The state's files but the lock."""
    texts = {}
    for name in sorted(os.listdir(directory)):
        if name != "lock":
            with open(os.path.join(directory, name)) as file:
                texts[name] = file.read()
    return texts


def differences(before, after):
    return "\n".join(f"{target}: {before[target]!r}, now {after[target]!r}" for target in before if before[target] != after[target])


if __name__ == "__main__":
    try:
        main()
    except Failed as error:
        sys.exit(str(error))
