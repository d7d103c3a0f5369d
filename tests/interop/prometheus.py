#!/usr/bin/env python3
"""A real Prometheus scrapes an edge under load: it takes observe/alerts.yml and evaluates every rule of it, and every query of
observe/grafana.json gives data. promtool shows for each rule a time in which it fires and one in which it does not. Workers that
leave and an edge that ends are noticed by the rules that are there for it."""

import json
import os
import re
import subprocess
import urllib.parse
import urllib.request

from harness import ROOT, House, check, free_port, get, say, until

RULES = os.path.join(ROOT, "observe", "alerts.yml")
DASHBOARD = os.path.join(ROOT, "observe", "grafana.json")

EDGE = 'job="ptth",instance="e"'
POOL = EDGE + ',pool="app"'

# For each rule: series with which it fires after 90 minutes, and with which it does not. A value a minute.
CASES = {
    "PtthEdgeDown": ({f"up{{{EDGE}}}": "1x60 0x60"}, {f"up{{{EDGE}}}": "1x120"}),
    "PtthNoWorkers": ({f'ptth_links{{{POOL},core="0"}}': "0x120"}, {f'ptth_links{{{POOL},core="0"}}': "1x120"}),
    "PtthLinksLost": ({f'ptth_links{{{POOL},core="0"}}': "10x80 3x40"}, {f'ptth_links{{{POOL},core="0"}}': "10x80 8x40"}),
    "PtthQueueGrowing": (
        {f'ptth_queue_depth{{{POOL},class="3"}}': "0+10x120"},
        {f'ptth_queue_depth{{{POOL},class="3"}}': "200x120"},
    ),
    "PtthWaitsLong": (
        {
            f'ptth_queue_wait_seconds_bucket{{{POOL},class="3",le="4.194304"}}': "0x120",
            f'ptth_queue_wait_seconds_bucket{{{POOL},class="3",le="8.388608"}}': "0+60x120",
            f'ptth_queue_wait_seconds_bucket{{{POOL},class="3",le="+Inf"}}': "0+60x120",
        },
        {
            f'ptth_queue_wait_seconds_bucket{{{POOL},class="3",le="4.194304"}}': "0+60x120",
            f'ptth_queue_wait_seconds_bucket{{{POOL},class="3",le="+Inf"}}': "0+60x120",
        },
    ),
    "PtthQueueRefuses": (
        {f'ptth_refusals_total{{{EDGE},reason="queue_full"}}': "0+60x120"},
        {f'ptth_refusals_total{{{EDGE},reason="no_pool"}}': "0+60x120"},
    ),
    "PtthServerErrors": (
        {
            f'ptth_requests_total{{{POOL},class="3",status="5xx"}}': "0+10x120",
            f'ptth_requests_total{{{POOL},class="3",status="2xx"}}': "0+100x120",
        },
        {
            f'ptth_requests_total{{{POOL},class="3",status="5xx"}}': "0+1x120",
            f'ptth_requests_total{{{POOL},class="3",status="2xx"}}': "0+100x120",
        },
    ),
    "PtthWorkerSlow": ({f"ptth_service_seconds{{{POOL}}}": "2x70 9x50"}, {f"ptth_service_seconds{{{POOL}}}": "9x120"}),
    "PtthWorkerMute": ({f"ptth_links_mute_total{{{EDGE}}}": "0x85 1x35"}, {f"ptth_links_mute_total{{{EDGE}}}": "1x120"}),
    "PtthSetupsRefused": (
        {f'ptth_setups_refused_total{{{EDGE},reason="unauthorized"}}': "0+3x120"},
        {f'ptth_setups_refused_total{{{EDGE},reason="draining"}}': "0+3x120"},
    ),
    "PtthAccessLogDropping": (
        {f'ptth_access_log_dropped_lines_total{{{EDGE},reason="slow"}}': "0+1x120"},
        {f'ptth_access_log_dropped_lines_total{{{EDGE},reason="slow"}}': "7x120"},
    ),
    "PtthCertificateExpires": (
        {f'ptth_certificate_expiry_timestamp_seconds{{{EDGE},certificate="c"}}': "604800x120"},
        {f'ptth_certificate_expiry_timestamp_seconds{{{EDGE},certificate="c"}}': "2592000x120"},
    ),
    "PtthCertificateExpired": (
        {f'ptth_certificate_expiry_timestamp_seconds{{{EDGE},certificate="c"}}': "86400x120"},
        {f'ptth_certificate_expiry_timestamp_seconds{{{EDGE},certificate="c"}}': "604800x120"},
    ),
    "PtthDescriptorsNearLimit": (
        {f"process_open_fds{{{EDGE}}}": "900x120", f"process_max_fds{{{EDGE}}}": "1000x120"},
        {f"process_open_fds{{{EDGE}}}": "700x120", f"process_max_fds{{{EDGE}}}": "1000x120"},
    ),
    "PtthMemoryNearLimit": (
        {f"ptth_resident_bytes{{{EDGE}}}": "95x120", f"ptth_memory_max_bytes{{{EDGE}}}": "100x120"},
        {f"ptth_resident_bytes{{{EDGE}}}": "95x120", f"ptth_memory_max_bytes{{{EDGE}}}": "0x120"},
    ),
    "PtthConnectionsNearLimit": (
        {f'ptth_client_connections{{{EDGE},core="0"}}': "95x120", f"ptth_client_connections_max{{{EDGE}}}": "100x120"},
        {f'ptth_client_connections{{{EDGE},core="0"}}': "50x120", f"ptth_client_connections_max{{{EDGE}}}": "100x120"},
    ),
    "PtthCoreBusy": (
        {f'ptth_core_busy_seconds_total{{{EDGE},core="0"}}': "0+58x120"},
        {f'ptth_core_busy_seconds_total{{{EDGE},core="0"}}': "0+40x120"},
    ),
    "PtthCoreLags": (
        {
            f'ptth_core_lag_seconds_bucket{{{EDGE},core="0",le="0.131072"}}': "0x120",
            f'ptth_core_lag_seconds_bucket{{{EDGE},core="0",le="0.262144"}}': "0+60x120",
            f'ptth_core_lag_seconds_bucket{{{EDGE},core="0",le="+Inf"}}': "0+60x120",
        },
        {
            f'ptth_core_lag_seconds_bucket{{{EDGE},core="0",le="0.001024"}}': "0+60x120",
            f'ptth_core_lag_seconds_bucket{{{EDGE},core="0",le="+Inf"}}': "0+60x120",
        },
    ),
    "PtthDefect": (
        {f"ptth_connection_panics_total{{{EDGE}}}": "0x60 1x60"},
        {f"ptth_connection_panics_total{{{EDGE}}}": "1x120"},
    ),
    "PtthReloadFailed": (
        {f'ptth_reloads_total{{{EDGE},result="failed"}}': "0x85 1x35"},
        {f'ptth_reloads_total{{{EDGE},result="done"}}': "0+1x120"},
    ),
}


def promtool(*arguments):
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60)
    check(done.returncode == 0, f"promtool {arguments[0]} {arguments[1]}: {done.stdout}\n{done.stderr}")


def test_rules(house):
    """Each rule alone, in the light of one set of series. JSON is YAML."""
    tests = []
    for name, series_of in CASES.items():
        for fires, series in zip((True, False), series_of):
            expected = [{"labels": "{}", "value": 1}] if fires else []
            tests.append(
                {
                    "interval": "1m",
                    "name": f"{name} {'fires' if fires else 'does not fire'}",
                    "input_series": [{"series": key, "values": values} for key, values in series.items()],
                    "promql_expr_test": [
                        {
                            "expr": f'count(ALERTS{{alertname="{name}",alertstate="firing"}})',
                            "eval_time": "90m",
                            "exp_samples": expected,
                        }
                    ],
                }
            )
    promtool("check", "rules", RULES)
    promtool("test", "rules", house.write("rules.json", json.dumps({"rule_files": [RULES], "tests": tests})))
    say(f"{len(CASES)} rules fire when they have to, and not else")


class Prometheus:
    """Scrapes one edge, twice a second."""

    def __init__(self, house, edge):
        self.port = free_port()
        config = {
            "global": {"scrape_interval": "500ms", "scrape_timeout": "450ms", "evaluation_interval": "500ms"},
            "rule_files": [RULES],
            "scrape_configs": [
                {"job_name": "ptth", "static_configs": [{"targets": [f"127.0.0.1:{edge.admin}"]}]},
            ],
        }
        file = house.write("prometheus.json", json.dumps(config))
        arguments = [f"--config.file={file}", f"--storage.tsdb.path={house.path('tsdb')}", "--log.level=warn"]
        arguments += [f"--web.listen-address=127.0.0.1:{self.port}"]
        self.process = house.start("prometheus", ["prometheus", *arguments])
        until(lambda: get(self.port, "/-/ready")[0] == 200, "Prometheus is ready", process=self.process)

    def ask(self, path, **parameters):
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters, doseq=True)}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return json.load(answer)["data"]
        except urllib.request.HTTPError as error:
            check(False, f"{path} {parameters}: {error.read().decode()}")

    def query(self, expression):
        return self.ask("query", query=expression)["result"]

    def rules(self):
        return [rule for group in self.ask("rules")["groups"] for rule in group["rules"]]

    def state(self, name):
        return next(rule["state"] for rule in self.rules() if rule["name"] == name)


def filled(expression):
    """As Grafana would send it with everything chosen."""
    for name, value in {"__rate_interval": "5s", "__interval": "5s", "job": "ptth", "instance": ".*", "pool": ".*"}.items():
        expression = re.sub(rf"\${name}\b", value, expression)
    check("$" not in expression, f"a variable that nobody fills: {expression}")
    return expression


def check_dashboard(prometheus):
    with open(DASHBOARD) as file:
        dashboard = json.load(file)
    count = 0
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            count += 1
            check(prometheus.query(filled(target["expr"])), f"no data in \"{panel['title']}\": {filled(target['expr'])}")
    check(count > 40, f"only {count} queries were found")
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            match = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
            series = prometheus.ask("series", **{"match[]": filled(match[1])})
            check(any(match[2] in labels for labels in series), f"${variable['name']} has no values")
    for annotation in dashboard["annotations"]["list"]:
        prometheus.query(filled(annotation["expr"]))  # an error ends the script; no reload is as good as one
    say(f"{count} queries of the dashboard have data")


def certificate(house):
    key, file = house.path("edge.key"), house.path("edge.pem")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", file]
    subprocess.run(command, check=True, capture_output=True, timeout=20)
    return f'{{ certificate = "{file}", key = "{key}" }}'


with House(__file__, seconds_max=120) as house:
    test_rules(house)
    tables = f'[access_log]\nfile = "{house.path("access.log")}"\n'
    tables += f'[[listen]]\naddress = "127.0.0.1:{free_port()}"\naccept = ["clients"]\ntls = {certificate(house)}\n'
    edge = house.edge(cores=2, more=tables)
    root = house.path("www")
    os.mkdir(root)
    origin = house.nginx(root)
    workers = [house.worker(edge, to=origin.url, concurrency=2) for _ in range(2)]
    load = house.start("wrk", ["wrk", "-t1", "-c32", "-d60", f"http://127.0.0.1:{edge.port}/hello"])
    prometheus = Prometheus(house, edge)
    scraped = 'count_over_time(up{job="ptth"}[5s]) > 4'
    until(lambda: prometheus.query(scraped), "some scrapes", process=prometheus.process)
    rules = prometheus.rules()
    check(all(rule["lastEvaluation"].startswith("2") for rule in rules), "a rule was never evaluated")
    names = [rule["name"] for rule in rules]
    check(sorted(names) == sorted(CASES), f"cases and rules differ: {set(names) ^ set(CASES)}")
    for rule in rules:
        check(rule["health"] == "ok", f"{rule['name']}: {rule.get('lastError')}")
    say(f"{len(rules)} rules are evaluated without an error")
    check_dashboard(prometheus)
    scrapes = prometheus.query('scrape_duration_seconds{job="ptth"}')[0]["value"][1]
    samples = prometheus.query('scrape_samples_scraped{job="ptth"}')[0]["value"][1]
    say(f"a scrape takes {float(scrapes) * 1000:.1f} ms for {samples} samples, under load")
    check(prometheus.state("PtthNoWorkers") == "inactive", "PtthNoWorkers fires while there are workers")
    load.end()
    for worker in workers:
        worker.end()
    until(lambda: prometheus.state("PtthNoWorkers") == "pending", "PtthNoWorkers sees that the workers have gone")
    edge.process.end()
    until(lambda: prometheus.state("PtthEdgeDown") == "pending", "PtthEdgeDown sees that the edge has gone")
    say("workers that leave and an edge that ends are noticed")
