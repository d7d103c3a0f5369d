#!/usr/bin/env python3
"""packaging/kubernetes and packaging/seccomp.json: the manifests against Kubernetes' own schemas (PyPI's kubernetes-validate) and against
each other, their configurations with `ptth check`, their metrics with a running edge; and an edge, a worker, a reload and an upgrade
under the seccomp profile, which without io_uring lets nothing run and the doctor say so."""

import ctypes
import json
import os
import re
import signal
import subprocess
import sys

import yaml
from harness import ROOT, House, binary, check, free_port, get, say, status, until

PACKAGING = os.path.join(ROOT, "packaging")
KUBERNETES = "1.33"
ALLOW, ERRNO_EPERM = 0x7FFF0000, 0x00050001


def documents(name):
    with open(os.path.join(PACKAGING, "kubernetes", name)) as file:
        return [document for document in yaml.safe_load_all(file) if document]


def one(all_documents, kind, name):
    found = [document for document in all_documents if (document["kind"], document["metadata"]["name"]) == (kind, name)]
    check(len(found) == 1, f"{len(found)} of {kind}/{name}")
    return found[0]


def manifests(house):
    edge, app, scaling = documents("edge.yaml"), documents("app.yaml"), documents("scaling.yaml")
    for name in ("edge.yaml", "app.yaml"):
        tool = os.path.join(os.path.dirname(sys.executable), "kubernetes-validate")
        told = subprocess.run(
            [tool, "-k", KUBERNETES, "--strict", os.path.join(PACKAGING, "kubernetes", name)], capture_output=True, text=True
        )
        check(told.returncode == 0, told.stdout + told.stderr)
    say(f"{len(edge) + len(app)} manifests are good for Kubernetes {KUBERNETES}, strictly")

    pod = one(edge, "Deployment", "ptth-edge")["spec"]
    labels, container = pod["template"]["metadata"]["labels"], pod["template"]["spec"]["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    selectors = [one(edge, "Service", name)["spec"]["selector"] for name in ("ptth", "ptth-edges")]
    selectors.append(one(edge, "PodDisruptionBudget", "ptth-edge")["spec"]["selector"]["matchLabels"])
    selectors.append(one(edge, "NetworkPolicy", "ptth-edge")["spec"]["podSelector"]["matchLabels"])
    selectors.append(pod["selector"]["matchLabels"])
    check(all(selector == labels for selector in selectors), f"{selectors} are not all {labels}")
    headless = one(edge, "Service", "ptth-edges")
    check(headless["spec"]["clusterIP"] == "None" and headless["spec"]["publishNotReadyAddresses"], "each edge has to have an address")
    for service in ("ptth", "ptth-edges"):
        for port in one(edge, "Service", service)["spec"]["ports"]:
            check(port["targetPort"] in ports, f"{service} leads to {port['targetPort']}, and there is {list(ports)}")
    with open(os.path.join(ROOT, "Cargo.toml")) as file:
        version = re.search(r'^version = "(.*)"', file.read(), re.MULTILINE)[1]
    worker = one(app, "Deployment", "app")["spec"]["template"]["spec"]
    for each in (container, worker["containers"][0]):
        check(each["image"].endswith(f"/ptth:{version}"), f"{each['image']} is not {version}")

    # The configurations that are in them.
    config = one(edge, "ConfigMap", "ptth-edge")["data"]["edge.toml"]
    folder = house.path("credentials")
    os.mkdir(folder)
    for name, text in one(edge, "Secret", "ptth-credentials")["stringData"].items():
        house.write(f"credentials/{name}", text)
    service = f'{headless["metadata"]["name"]}.{headless["metadata"]["namespace"]}.svc.cluster.local'
    certificate, key = authority(house, service)
    config_here = config.replace("/etc/ptth-credentials", folder)
    checked(house.write("edge.toml", config_here.replace("/etc/ptth-tls/tls.crt", certificate).replace("/etc/ptth-tls/tls.key", key)))
    held = one(app, "Secret", "ptth-worker")["stringData"]
    check(set(held) == {"secret", "ca.crt"}, f"the worker has {list(held)}")
    work = one(app, "ConfigMap", "ptth-worker")["data"]["worker.toml"]
    work_here = work.replace("/etc/ptth-secret/secret", house.write("secret", held["secret"]))
    checked(house.write("worker.toml", work_here.replace("/etc/ptth-secret/ca.crt", certificate)))
    for volumes, container_of in ((pod["template"]["spec"]["volumes"], container), (worker["volumes"], worker["containers"][0])):
        mounts = {mount["name"]: mount["mountPath"] for mount in container_of["volumeMounts"]}
        check(set(mounts) == {volume["name"] for volume in volumes}, f"{mounts} and {volumes}")
        paths = re.findall(r'"(/etc/[^"]+)"', config if container_of is container else work)
        check(paths and all(path.startswith(tuple(mounts.values())) for path in paths), f"{paths} are not in {mounts}")
    listens = [int(port) for port in re.findall(r'^address = "0\.0\.0\.0:(\d+)"', config, re.MULTILINE)]
    check(sorted(listens) == sorted(ports.values()), f"the edge listens on {listens}, the pod has {ports}")
    where = f'https://{service}:{ports["workers"]}'
    check(f'"{where}"' in work, f"the worker does not dial {where}")
    cores = int(re.search(r"^cores += (\d+)", config, re.MULTILINE)[1])
    check(container["resources"]["limits"]["cpu"] == str(cores), "the quota is another than the cores")
    pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = int(re.search(r'^drain_max = "(\d+)s"', config, re.MULTILINE)[1])
    grace = pod["template"]["spec"]["terminationGracePeriodSeconds"]
    check(grace > pause + drain, f"{grace} s are less than {pause} and {drain}")
    probes = {container[probe]["httpGet"]["path"] for probe in ("readinessProbe", "livenessProbe")}

    # What scaling counts is counted, by these names.
    trigger = scaling[0]["spec"]["triggers"][0]["metadata"]
    target = one(app, "Deployment", scaling[0]["spec"]["scaleTargetRef"]["name"])
    check(target["metadata"]["namespace"] == scaling[0]["metadata"]["namespace"], "it scales another namespace's")
    concurrency = int(re.search(r"^concurrency = (\d+)", work, re.MULTILINE)[1])
    check(int(trigger["threshold"]) <= concurrency, "it would never scale")
    running = house.edge()
    metrics = get(running.admin, "/metrics")[1].decode()
    for name, pool in re.findall(r'(ptth_\w+)\{pool="(\w+)"\}', trigger["query"]):
        check(re.search(rf'^{name}\{{.*pool="{pool}"', metrics, re.MULTILINE), f"no {name} of {pool} in /metrics")
        check(f'name    = "{pool}"' in config, f"the edge has no pool {pool}")
    for path in probes:
        check(get(running.admin, path)[0] == 200, path)
    running.process.end()
    say("configurations, ports, labels, probes, pauses and the metrics of scaling.yaml fit each other")


def authority(house, name):
    """A certificate for that name, which vouches for itself, and its key."""
    certificate, key = house.path("tls.crt"), house.path("tls.key")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "100", "-subj", "/CN=edges"]
    command += ["-addext", f"subjectAltName=DNS:{name}", "-keyout", key, "-out", certificate]
    done = subprocess.run(command, capture_output=True, text=True)
    check(done.returncode == 0, done.stderr)
    return certificate, key


def checked(file):
    done = subprocess.run([binary(), "check", "--config", file], capture_output=True, text=True)
    # The NetworkPolicy is the firewall that this warning asks for.
    others = [line for line in done.stderr.splitlines() if "has a token and no tls" not in line]
    check(done.returncode == 0 and not others, f"{file}: exit {done.returncode}\n{done.stderr}")


def profile(without=()):
    """The profile as a function for a child before its exec. Names that this machine's libseccomp does not know are left out, as container
    runtimes do."""
    with open(os.path.join(PACKAGING, "seccomp.json")) as file:
        read = json.load(file)
    check(read["defaultAction"] == "SCMP_ACT_ERRNO" and read["defaultErrnoRet"] == 1, "what it refuses by default")
    names = [name for group in read["syscalls"] for name in group["names"] if name not in without]
    check(all(group["action"] == "SCMP_ACT_ALLOW" and set(group) == {"action", "names"} for group in read["syscalls"]), "plain groups")
    library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_load.argtypes = [ctypes.c_void_p]
    library.seccomp_rule_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint]
    context = library.seccomp_init(ERRNO_EPERM)
    for name in names:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:
            check(library.seccomp_rule_add(context, ALLOW, number, 0) == 0, name)

    def load():
        if library.seccomp_load(context):
            os._exit(99)

    return load


def under_the_profile(house):
    origin = house.origin()
    port, admin = free_port(), free_port()
    secret, block = subprocess.run(
        [binary(), "credential", "new", "web-1", "--origin", "*"], capture_output=True, text=True, check=True
    ).stdout.split("\n", 1)
    text = (
        f'[[listen]]\naddress = "127.0.0.1:{port}"\naccept = ["clients", "workers"]\n[admin]\naddress = "127.0.0.1:{admin}"\n'
        f'[access_log]\nfile = "{house.path("access.log")}"\n[[pool]]\nname = "app"\norigins = ["*"]\n{block}'
    )
    config = house.write("sealed.toml", text)
    edge = house.start("edge", [binary(), "edge", "--config", config], preexec_fn=profile())
    until(lambda: get(admin, "/health/ready")[0] == 200, "an edge runs under the profile", process=edge)
    arguments = ["--edge", f"http://localhost:{port}", "--serve", "http://localhost", "--to", origin.url]
    arguments += ["--credential-file", house.write("sealed.secret", secret + "\n")]
    worker = house.start("worker", [binary(), "worker", *arguments], preexec_fn=profile())

    def served():
        return get(port, "/hello") == (200, b"hello\n")

    until(served, "a worker runs under the profile", process=worker)
    house.write("sealed.toml", text.replace('"app"', '"application"'))
    edge.send_signal(signal.SIGHUP)
    now = type("Edge", (), {"admin": admin})
    until(lambda: status(now)["generation"] == 2, "a reload works under the profile", process=edge)
    until(served, "requests are served after the reload")
    edge.send_signal(signal.SIGUSR2)
    until(lambda: status(now)["pid"] != edge.pid, "an upgrade works under the profile", seconds=30)
    newer = status(now)["pid"]
    until(served, "requests are served after the upgrade")
    os.kill(newer, signal.SIGTERM)
    check(edge.wait(40) == 0 and worker.end() == 0, f"they end with {edge.returncode} and {worker.returncode}\n{edge.tail()}")
    say("edge, worker, access log, reload, upgrade and drain work under packaging/seccomp.json")
    doctor = subprocess.run(
        [binary(), "doctor", "--json"], capture_output=True, text=True, preexec_fn=profile(without=["io_uring_setup"])
    )
    found = next(finding for finding in json.loads(doctor.stdout)["findings"] if finding["about"] == "io_uring")
    check(doctor.returncode == 1 and found["grade"] == "wrong" and "seccomp profile" in found["mend"], found)
    say(f"without io_uring_setup the doctor says: {found['saw']}")


if __name__ == "__main__":
    with House(__file__, 180) as house:
        manifests(house)
        under_the_profile(house)
