"""What the scripts with TLS and HTTP/2 share: certificates by openssl, an edge that listens with TLS and without, and
workers for it. What is tested never enters.

    with SecureHouse(__file__, seconds_max=60) as house:
        edge = house.secure_edge(cores=2)
        house.worker(edge, to=origin.url)
        check(...)          # edge.port: HTTP/1.1 and h2c; edge.tls_port: TLS; edge.ca: who signed its certificate
"""

import base64
import hashlib
import os
import secrets
import shutil
import ssl
import subprocess
import sys

from harness import HERE, House, Server, answers, binary, check, free_port, get, read_lines, until


class SecureHouse(House):
    def openssl(self, *arguments):
        done = subprocess.run(["openssl", *arguments], capture_output=True, timeout=60)
        check(done.returncode == 0, f"openssl {' '.join(arguments)}: {done.stderr.decode(errors='replace')}")
        return done.stdout

    def authority(self):
        """Makes it once. The path of its certificate."""
        if not os.path.exists(self.path("ca.pem")):
            names = ["-subj", "/CN=interop authority", "-addext", "keyUsage=critical,keyCertSign,cRLSign"]
            ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
            files = ["-keyout", self.path("ca.key"), "-out", self.path("ca.pem")]
            self.openssl("req", "-x509", *ec, "-nodes", "-days", "30", *names, *files)
        return self.path("ca.pem")

    def issue(self, name, *hosts, key=("ec", "-pkeyopt", "ec_paramgen_curve:P-256"), usage="serverAuth"):
        """NAME.pem and NAME.key for these names. An entry of `tls`."""
        self.authority()
        certificate, secret = self.path(f"{name}.pem"), self.path(f"{name}.key")
        names = ",".join(("IP:" if host[0].isdigit() else "DNS:") + host for host in hosts)
        self.openssl(
            *["req", "-x509", "-CA", self.path("ca.pem"), "-CAkey", self.path("ca.key"), "-days", "30", "-nodes"],
            *["-newkey", *key, "-subj", f"/CN={hosts[0]}", "-addext", f"subjectAltName={names}"],
            *["-addext", "basicConstraints=critical,CA:FALSE", "-addext", f"extendedKeyUsage={usage}"],
            *["-keyout", secret, "-out", certificate],
        )
        return f'{{ certificate = "{certificate}", key = "{secret}" }}'

    def secure_edge(self, cores=1, pool="", tables=""):
        """Certificates: one of ECDSA for localhost, one of RSA for rsa.localhost. `pool` is more lines of pool `app`,
        `tables` more tables."""
        port, tls_port, admin = free_port(), free_port(), free_port()
        secret = secrets.token_urlsafe(32)
        certificates = [self.issue("localhost", "localhost", "127.0.0.1")]
        certificates.append(self.issue("rsa", "rsa.localhost", key=("rsa:2048",)))
        config = self.write(
            f"edge-{port}.toml",
            f"""
[edge]
cores = {cores}
[[listen]]
address = "127.0.0.1:{port}"
accept = ["clients", "workers"]
h2c = true
[[listen]]
address = "127.0.0.1:{tls_port}"
accept = ["clients"]
tls = [{", ".join(certificates)}]
[admin]
address = "127.0.0.1:{admin}"
[[pool]]
name = "app"
origins = ["*"]
{pool}
{tables}
[[credential]]
id = "web-1"
secret_hash = "sha256:{hashlib.sha256(secret.encode()).hexdigest()}"
origins = ["*"]
links_max = 1000
""",
        )
        process = self.start("edge", [binary(), "edge", "--config", config])
        credential = f"web-1:{secret}"
        edge = Server(process, port, admin=admin, credential=credential, tls_port=tls_port, ca=self.authority())
        edge.basic = base64.b64encode(credential.encode()).decode()
        edge.credential_file = self.write(f"web-1-{port}.secret", credential + "\n")
        edge.tls_url = f"https://localhost:{tls_port}"
        until(lambda: get(admin, "/health/ready")[0] == 200, "the edge is ready", process=process)
        return edge

    def python(self, script, *arguments):
        """A server of this directory in the Python that runs this script; its first argument is its port."""
        port = free_port()
        process = self.start(script.split(".")[0], [sys.executable, os.path.join(HERE, script), str(port), *arguments])
        until(lambda: answers(port), f"{script} listens", process=process)
        return Server(process, port)

    def pages(self):
        """pages.py: knows the paths that its first lines tell."""
        log = self.path(f"pages-{len(self.processes)}.log")
        server = self.python("pages.py", log)
        server.log = lambda: read_lines(log)
        return server


def client_context(ca, *protocols):
    context = ssl.create_default_context(cafile=ca)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


def tool(*names):
    """The first of these programs that is there."""
    for name in names:
        if found := shutil.which(name):
            return found
    raise SystemExit(f"none of {', '.join(names)}: .ci/run says how it is installed")
