"""openssl's client against the edge: versions, suites, ALPN, names, sessions, and what must be refused."""

import os
import re
import subprocess

from harness import check, curl, say
from secure import SecureHouse

ASK = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def s_client(edge, *arguments, ask=b"", name="localhost", stays=False):
    """Exit code, and what it printed. `ask` is sent; it ends when the edge closes, or at once where nothing is asked."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{edge.tls_port}", "-CAfile", edge.ca, *arguments]
    command += ["-servername", name] if name else ["-noservername"]
    command += ["-ign_eof"] if ask or stays else []
    done = subprocess.run(command, input=ask, capture_output=True, timeout=30)
    return done.returncode, (done.stdout + done.stderr).decode(errors="replace")


def answers(edge, *arguments, **more):
    code, text = s_client(edge, "-verify_return_error", *arguments, ask=ASK, **more)
    check(code == 0 and "HTTP/1.1 200 OK" in text, f"openssl {' '.join(arguments)}: exit {code}\n{text[-2000:]}")
    return text


def refuses(edge, why, *arguments, **more):
    code, text = s_client(edge, *arguments, **more)
    check(code != 0 and re.search(why, text), f"openssl {' '.join(arguments)}: exit {code}, not refused\n{text[-2000:]}")


def versions(edge):
    for version, shown in (("-tls1_3", "TLSv1.3"), ("-tls1_2", "TLSv1.2")):
        text = answers(edge, version)
        check(re.search(f"New, {shown}, Cipher is|Protocol *: {shown}", text), f"{version}: {text[-2000:]}")
        check("Verify return code: 0 (ok)" in text, f"{version}: not verified")
    # The weakest settings that openssl has, so that it is the edge that refuses.
    for version in ("-tls1_1", "-tls1"):
        refuses(edge, "alert protocol version|handshake failure", version, "-cipher", "ALL:@SECLEVEL=0")
    say("TLS 1.3 and 1.2; 1.1 and 1.0 are refused")


def suites(edge):
    for suite in ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"):
        check(f"Cipher is {suite}" in answers(edge, "-tls1_3", "-ciphersuites", suite), suite)
    for suite in ("ECDSA-AES128-GCM-SHA256", "ECDSA-AES256-GCM-SHA384", "ECDSA-CHACHA20-POLY1305"):
        check(f"Cipher is ECDHE-{suite}" in answers(edge, "-tls1_2", "-cipher", f"ECDHE-{suite}"), suite)
    for suite in ("AES128-GCM-SHA256", "CHACHA20-POLY1305"):
        text = answers(edge, "-tls1_2", "-cipher", f"ECDHE-RSA-{suite}", name="rsa.localhost")
        check(f"Cipher is ECDHE-RSA-{suite}" in text, suite)
    for suite in ("AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA", "DHE-RSA-AES128-GCM-SHA256", "aNULL", "eNULL", "RC4"):
        refuses(edge, "handshake failure|no cipher", "-tls1_2", "-cipher", f"{suite}:@SECLEVEL=0")
    for group in ("X25519", "P-256", "P-384"):
        answers(edge, "-groups", group)
    refuses(edge, "alert", "-groups", "P-521")
    say("suites: three of TLS 1.3, ECDHE with AEAD of TLS 1.2, nothing else; groups X25519, P-256, P-384")


def alpn(edge):
    for offered, shown in (("h2,http/1.1", "h2"), ("http/1.1,h2", "h2"), ("h2", "h2"), ("http/1.1", "http/1.1")):
        text = s_client(edge, "-alpn", offered)[1]
        check(f"ALPN protocol: {shown}" in text, f"ALPN {offered}: {text[-2000:]}")
    check("No ALPN negotiated" in answers(edge), "without ALPN it is HTTP/1.1")
    refuses(edge, "no application protocol", "-alpn", "spdy/3,imap")
    refuses(edge, "no application protocol", "-alpn", "http/1.0")
    say("ALPN: h2 before http/1.1, HTTP/1.1 without it, an alert where nothing fits")


def shows(text, name):
    """Whether the certificate is for this name; versions of openssl differ in their spaces."""
    return re.search(f"^subject=CN ?= ?{re.escape(name)}$", text, re.M) is not None


def names(edge):
    for name, subject in (("localhost", "localhost"), ("rsa.localhost", "rsa.localhost"), ("RSA.LocalHost", "rsa.localhost")):
        check(shows(answers(edge, name=name), subject), f"the certificate for {name}")
    # A name that no certificate has, and none at all: the first certificate, and the client decides.
    for name in ("elsewhere.example", None):
        code, text = s_client(edge, name=name)
        check(code == 0 and shows(text, "localhost"), f"SNI {name}: exit {code}\n{text[-2000:]}")
    refuses(edge, "hostname mismatch", "-verify_return_error", "-verify_hostname", "elsewhere.example", name="elsewhere.example")
    # And a Host that the connection's name does not cover belongs to pool `app`, which takes any.
    check("HTTP/1.1 200 OK" in answers(edge, name="rsa.localhost"), "a request on the other name's connection")
    say("names: each its own certificate, without case; a wrong name gets the first one and fails its own check")


def misdirected(house):
    edge = house.secure_edge(tables='[[pool]]\nname = "one"\norigins = ["one.example"]\n', pool='paths = ["/never"]')
    text = s_client(edge, ask=ASK.replace(b"Host: localhost", b"Host: other.example"))[1]
    check("HTTP/1.1 421 " in text, f"a Host that nobody serves on a connection for another name: {text[-2000:]}")
    text = s_client(edge, ask=ASK)[1]
    check("HTTP/1.1 404 " in text, f"a path that nobody serves on a connection for its name: {text[-2000:]}")
    say("421 for a Host that nobody serves, 404 where it was the connection's own name")


def sessions(edge, house):
    text = s_client(edge, "-tls1_2", "-reconnect")[1]
    # One new, five that take it up again.
    check((len(re.findall("^New, TLSv1.2", text, re.M)), len(re.findall("^Reused, TLSv1.2", text, re.M))) == (1, 5), text)
    for version in ("-tls1_3", "-tls1_2"):
        file = house.path(f"session{version}")
        check("New, " in answers(edge, version, "-sess_out", file), "a first session")
        check(os.path.exists(file), f"{version}: no ticket came")
        for _ in range(4):
            text = answers(edge, version, "-sess_in", file)
            check(re.search("^Reused, ", text, re.M), f"{version}: not resumed\n{text[-2000:]}")
            check("Early data was not sent" in text or version == "-tls1_2", f"0-RTT is on: {text}")
    # A ticket of another edge means a full handshake, not a failure.
    other = house.secure_edge()
    house.worker(other, pages.url)
    check(re.search("^New, ", answers(other, "-sess_in", house.path("session-tls1_3")), re.M), "a stranger's ticket")
    say("sessions: -reconnect takes one up five times; tickets of 1.3 and 1.2; a stranger's ticket; no 0-RTT")


def refused(edge):
    # openssl takes its commands from a terminal's side only: -ign_eof would send the R.
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{edge.tls_port}", "-CAfile", edge.ca, "-tls1_2"]
    command += ["-servername", "localhost"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        process.stdin.write(b"R\n")
        process.stdin.flush()
        text = process.stdout.read().decode(errors="replace")  # to the end: nobody closes its input
        code = process.wait(20)
    check("RENEGOTIATING" in text and "no renegotiation" in text and code != 0, f"renegotiation: {code} {text[-2000:]}")
    with open(f"{edge.ca}.early", "wb") as file:
        file.write(ASK)
    code, text = s_client(edge, "-tls1_3", "-early_data", f"{edge.ca}.early")
    check("Early data was accepted" not in text, f"0-RTT was taken: {text}")
    say("no renegotiation, no 0-RTT")


with SecureHouse(__file__, seconds_max=120) as house:
    pages = house.pages()
    edge = house.secure_edge(cores=2)
    house.worker(edge, pages.url)
    say(house.openssl("version").decode().strip())
    versions(edge)
    suites(edge)
    alpn(edge)
    names(edge)
    misdirected(house)
    sessions(edge, house)
    refused(edge)
    check(curl("--cacert", edge.ca, "-o", os.devnull, "-w", "%{http_code}", edge.tls_url + "/") == b"200", "it still serves")
