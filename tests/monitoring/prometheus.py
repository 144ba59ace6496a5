"""Prometheus as a process with the project's own settings, and queries as Grafana sends them."""

import collections
import json
import math
import pathlib
import re
import shutil
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

from tests.monitoring import queries

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # whatever http_proxy says


class Prometheus:
    """Scrapes the cluster whose coordinator's metrics are at `targets`, every `interval` seconds, by monitoring/prometheus.yml with
    nothing but its address and intervals changed. Until closed."""

    def __init__(self, usr, targets, interval):
        self.interval = interval
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="bellwether-prometheus."))
        settings = (queries.MONITORING / "prometheus.yml").read_text()
        settings = re.sub(r"(http://)127\.0\.0\.1:\d+", rf"\g<1>{targets}", settings)
        settings = re.sub(r"(_interval:) \d+s", rf"\1 {interval}s", settings)
        shutil.copytree(queries.MONITORING / "rules", self.directory / "rules")
        (self.directory / "prometheus.yml").write_text(settings)
        self.process = subprocess.Popen(
            [pathlib.Path(usr) / "bin/prometheus", f"--config.file={self.directory}/prometheus.yml", f"--storage.tsdb.path={self.directory}/data",
             "--web.listen-address=127.0.0.1:0"], stderr=subprocess.PIPE, text=True)
        self.url = "http://" + self._address()
        self.started = time.time()

    def _address(self):
        log = []
        for line in self.process.stderr:
            log.append(line)
            if match := re.search(r'msg="Listening on" address=(\S+)', line):
                # What it says later is read and forgotten: a full pipe would stop it.
                self.reader = threading.Thread(target=collections.deque, args=(self.process.stderr, 0))
                self.reader.start()
                return match.group(1)
        raise RuntimeError("no Prometheus:\n" + "".join(log))

    def get(self, path, **parameters):
        query = urllib.parse.urlencode(parameters, doseq=True)
        try:
            with DIRECT.open(f"{self.url}/api/v1/{path}?{query}", timeout=60) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from None

    def targets(self):
        """Addresses that are scraped well."""
        return {target["labels"]["instance"] for target in self.get("targets")["activeTargets"] if target["health"] == "up"}

    def label_values(self, query, label):
        """Grafana's label_values(query, label)."""
        return self.get(f"label/{label}/values", **{"match[]": query})

    def instant(self, expression, at):
        return self.get("query", query=expression, time=at)["result"]

    def range(self, expression, begin, end):
        return self.get("query_range", query=expression, start=begin, end=end, step=self.interval)["result"]

    def close(self):
        self.process.kill()
        self.process.wait()
        self.reader.join()
        self.process.stderr.close()
        shutil.rmtree(self.directory)


def expanded(expression, values, interval, shown):
    """What Grafana sends for an expression of ours. `values` of each variable: a word, or a list of those chosen, which are escaped
    and joined. `shown`: seconds that the dashboard shows. $__rate_interval is four scrapes."""
    words = {"__rate_interval": f"{4 * interval}s", "__range": f"{max(1, round(shown))}s"}
    for name, value in values.items():
        several = [re.sub(r"([\\^$*+?.()|\[\]{}])", r"\\\\\1", word) for word in value] if isinstance(value, list) else None
        words[name] = value if several is None else several[0] if len(several) == 1 else f"({'|'.join(several)})"
    result = re.sub(r"\$(\w+)", lambda match: words[match.group(1)], expression)
    assert "$" not in result, result
    return result


def compared(expression):
    """An alert's condition as a value that is there whether or not it holds: comparisons with `bool`."""
    parts = re.split(r"(\{[^}]*\}|\bbool\b)", expression)
    return "".join(part if part.startswith("{") else re.sub(r"(==|!=|>=|<=|>|<)", r"\1 bool", part) for part in parts)


def numbers(results):
    """All finite values of an answer."""
    for result in results:
        for _, value in result.get("values") or [result["value"]]:
            if math.isfinite(number := float(value)):
                yield number
