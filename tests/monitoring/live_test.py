"""Every query of dashboards, rules and alerts against a real Prometheus that scrapes a real cluster: two stages of two ranks, under load,
a worker killed and back. Each must parse and answer with numbers, asked as Grafana asks.

Needs Prometheus (tools/check.sh monitoring unpacks Debian's and names it in BELLWETHER_PROMETHEUS); skipped without. With BELLWETHER_SAVE,
all answers are written there, for monitoring/grafana/pictures.py.
"""

import collections
import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import sys
import tempfile
import threading
import time
import unittest

PROMETHEUS = os.environ.get("BELLWETHER_PROMETHEUS")
if not PROMETHEUS:
    print("skipped: BELLWETHER_PROMETHEUS names no Prometheus")
    sys.exit(77)

import grpc

from proto.bellwether.v1 import inference_pb2 as pb
from proto.bellwether.v1 import inference_pb2_grpc
from tests.e2e import processes
from tests.monitoring import prometheus, queries
from tests.monitoring.prometheus import compared, expanded, numbers

MODEL = "random:llama?layers=8,hidden=512,positions=4096:fp32"
SCRAPE_SECONDS = 2
CHAPTER_SECONDS = 24  # of load before the worker is killed, and after it is back: enough to see a curve
KEY = "a-key-of-the-clients"
STRAIGHT = [("grpc.enable_http_proxy", 0)]

# What cannot have data here, by panel, and why. It may not grow unseen: what is listed and has data fails as well.
EMPTY = {
    "capacity: Tokens a GPU-hour": "no worker of this cluster runs on a GPU",
}


class Load:
    """Clients of all kinds, in rounds, until closed."""

    def __init__(self, address):
        self.channel = grpc.insecure_channel(address, STRAIGHT)
        self.stub = inference_pb2_grpc.InferenceStub(self.channel)
        self.pool = concurrent.futures.ThreadPoolExecutor(max_workers=24)
        self.codes = collections.Counter()
        self.closed, self.turn = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        while not self.closed.is_set():
            codes = self.round()
            self.codes += codes
            self.turn.set()
            if set(codes) == {"UNAVAILABLE", "INVALID_ARGUMENT"} or set(codes) == {"UNAVAILABLE"}:
                self.wait_until_serving(True)

    def round(self):
        asked = [self.pool.submit(self.ask, prompt=10 + 17 * i % 300, n=1 + i % 3 // 2, max_tokens=20 + 11 * i % 80) for i in range(20)]
        asked += [self.pool.submit(self.ask, prompt=40, max_tokens=3000, cancel=True),
                  self.pool.submit(self.ask, prompt=40, max_tokens=3000, timeout=0.5),
                  self.pool.submit(self.ask, prompt=5, max_tokens=0)]
        return collections.Counter(answer.result() for answer in asked)

    def ask(self, prompt, max_tokens, n=1, timeout=processes.PATIENCE, cancel=False):
        options = pb.GenerationOptions(max_tokens=max_tokens, n=n, ignore_eos=True, sampling=pb.Sampling(temperature=0.8, seed=prompt))
        request = pb.GenerateRequest(prompt=pb.Prompt(token_ids=pb.TokenIds(ids=[1 + i % 100 for i in range(prompt)])), options=options)
        stream = self.stub.Generate(request, timeout=timeout, metadata=[("authorization", f"Bearer {KEY}")])
        try:
            for _ in stream:
                if cancel:
                    stream.cancel()
        except grpc.RpcError as error:
            return error.code().name
        return "OK"

    def wait_until_serving(self, serving):
        """Health tells its changes as a stream, so nothing is polled."""
        watch = self.channel.unary_stream("/grpc.health.v1.Health/Watch")
        for state in watch(b"", timeout=processes.PATIENCE):
            if (state == b"\x08\x01") == serving:  # HealthCheckResponse { status = SERVING }
                return

    def close(self):
        self.closed.set()
        if self.thread.is_alive():
            self.thread.join(processes.PATIENCE)
        self.pool.shutdown()
        self.channel.close()


class Live(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        keys = tempfile.NamedTemporaryFile("w", suffix=".keys")
        cls.addClassCleanup(keys.close)
        keys.write(json.dumps({"name": "clients", "sha256": hashlib.sha256(KEY.encode()).hexdigest()}) + "\n")
        keys.flush()
        cls.cluster = processes.Cluster(MODEL, workers=4, tensor_parallel=2, coordinator_flags=[
            "--api-keys", keys.name, "--pipeline-parallel", 2, "--sequences-max", 16, "--context-tokens", 4096])
        cls.addClassCleanup(cls.cluster.close)
        cls.prometheus = prometheus.Prometheus(PROMETHEUS, cls.cluster.addresses["metrics"], SCRAPE_SECONDS)
        cls.addClassCleanup(cls.prometheus.close)
        cls.load = Load(cls.cluster.address)
        cls.addClassCleanup(cls.load.close)
        cls.load.wait_until_serving(True)
        cls.load.thread.start()
        cls.a_life_of_a_cluster()
        if save := os.environ.get("BELLWETHER_SAVE"):
            pathlib.Path(save).write_text(json.dumps(cls.answers))

    @classmethod
    def a_life_of_a_cluster(cls):
        """Load; a worker is killed, nobody takes its place until Prometheus has seen that; it comes back; all that is asked has data."""
        cls.until(lambda: len(cls.prometheus.targets()) == 5 and cls.seen_for(CHAPTER_SECONDS, "instance:bellwether_steps_of_plan:ratio5m"))
        lost = cls.cluster.processes[-1]
        lost.kill()
        lost.wait()
        cls.load.wait_until_serving(False)
        cls.until(lambda: cls.seen_for(0, "bellwether_worker_up == 0"))
        cls.cluster.start_worker("--model", MODEL, "--name", "sheep-back")
        cls.load.wait_until_serving(True)
        cls.until(lambda: cls.seen_for(CHAPTER_SECONDS, 'rank:bellwether_slowness:ratio5m{worker="sheep-back"}'))
        cls.until(cls.all_are_answered)

    @classmethod
    def seen_for(cls, seconds, expression):
        results = cls.prometheus.instant(f"count_over_time(({expression})[1h:{SCRAPE_SECONDS}s])", time.time())
        return any(number * SCRAPE_SECONDS >= seconds for number in numbers(results))

    @classmethod
    def all_are_answered(cls):
        cls.answers = cls.all_answers()
        return all(answer["numbers"] or answer["where"] in EMPTY for answer in cls.answers)

    @classmethod
    def until(cls, done):
        """Asks whenever a round of the load has ended, and each second. Gives up without a word: the tests say what is missing."""
        end = time.monotonic() + processes.PATIENCE
        while not done() and time.monotonic() < end:
            cls.load.turn.wait(1)
            cls.load.turn.clear()

    @classmethod
    def variables(cls):
        """Of each dashboard: its variables with all values chosen, one by one, in the order in which they hang on each other."""
        values = collections.defaultdict(dict)
        for query, label in queries.variable_queries():
            board, name = query.where.split(": $")
            found = cls.prometheus.label_values(expanded(query.expression, values[board], SCRAPE_SECONDS, 0), label)
            values[board][name] = found[0] if name == "job" and found else found
        return values

    @classmethod
    def all_answers(cls):
        """What everything that monitoring/ asks was told, now. A panel is asked for all ("All") and for each value ("chosen")."""
        now, begin = time.time(), cls.prometheus.started
        answers = []

        def ask(query, choice, expression, instant):
            results = cls.prometheus.instant(expression, now) if instant else cls.prometheus.range(expression, begin, now)
            answers.append({"where": query.where, "legend": query.legend, "choice": choice, "asked": expression,
                            "numbers": sum(1 for _ in numbers(results)), "results": results})

        chosen = cls.variables()
        for query in queries.panel_queries():
            board = query.where.split(": ")[0]
            for choice, values in (("All", chosen[board] | {"instance": ".+", "model": ".+"}), ("chosen", chosen[board])):
                ask(query, choice, expanded(query.expression, values, SCRAPE_SECONDS, now - begin), query.instant)
        for query in queries.rule_queries():
            alert = query.where.startswith("alert ")
            ask(query, "", compared(query.expression) if alert else query.expression, instant=False)
        return answers

    def test_one_entry_finds_coordinator_and_workers(self):
        self.assertEqual(len(self.prometheus.targets()), 5)
        programs = self.prometheus.instant("count by (program) (bellwether_build_info)", time.time())
        self.assertEqual({result["metric"]["program"]: result["value"][1] for result in programs}, {"coordinator": "1", "worker": "4"})

    def test_load_met_every_end(self):
        for code in ("OK", "CANCELLED", "DEADLINE_EXCEEDED", "INVALID_ARGUMENT"):
            self.assertGreater(self.load.codes[code], 0, self.load.codes)

    def test_every_series_of_the_table_is_there(self):
        there = set(self.prometheus.get("label/__name__/values"))
        self.assertEqual(set(queries.metric_table()) - there, set())

    def test_every_query_has_numbers_but_those_that_cannot(self):
        empty = {answer["where"] for answer in self.answers if not answer["numbers"]}
        self.assertEqual(empty - EMPTY.keys(), set(), "empty, and no reason is given")
        full = {answer["where"] for answer in self.answers if answer["numbers"]}
        self.assertEqual(full & EMPTY.keys(), set(), "has numbers: take it off the list")
        self.assertGreater(len(self.answers), 200)

    def test_legends_name_labels_that_are_there(self):
        for answer in self.answers:
            for result in answer["results"]:
                for label in re.findall(r"\{\{(\w+)\}\}", answer["legend"]):
                    self.assertIn(label, result["metric"], f"{answer['where']}: {answer['legend']}")

    def test_shares_are_shares(self):
        limits = {f"{board}: {panel['title']}": panel["fieldConfig"]["defaults"].get("max") for board, panel in queries.panels()}
        for answer in self.answers:
            if limits.get(answer["where"]) == 1:
                for number in numbers(answer["results"]):
                    self.assertTrue(-0.01 <= number <= 1.01, f"{answer['where']}: {number}")

    def test_prometheus_has_all_rules_and_is_well_with_them(self):
        rules = [rule for group in self.prometheus.get("rules")["groups"] for rule in group["rules"]]
        self.assertEqual({rule["name"] for rule in rules}, {*queries.rules("record"), *queries.rules("alert")})
        self.assertEqual([rule["name"] for rule in rules if rule["health"] != "ok"], [])

    def test_the_kill_is_seen(self):
        for expression in ("bellwether_worker_up == 0", "bellwether_serving == 0", "bellwether_interruptions_total > 0",
                           'bellwether_regroups_total{cause="worker_lost"} > 0'):
            self.assertTrue(self.prometheus.range(expression, self.prometheus.started, time.time()), expression)


if __name__ == "__main__":
    unittest.main()
