"""NVIDIA's aiperf against the HTTP door: what it counts is what /metrics counts. Its package comes from PyPI (tools/check.sh aiperf)."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

from tests.e2e import openai_test, processes

REQUESTS = 24
COUNTERS = {  # of ours -> aiperf's
    "bellwether_requests_finished": "request_count",
    "bellwether_generated_tokens": "total_usage_completion_tokens",
    "bellwether_prompt_tokens": "total_usage_prompt_tokens",
}


class AiPerf(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.model = openai_test.a_model(cls)
        cls.cluster = processes.Cluster(cls.model, coordinator_flags=["--log-level", "debug"])
        cls.addClassCleanup(cls.cluster.close)
        openai_test.Door(cls.cluster.http_address).wait_until_serving()

    def profile(self, directory):
        """What it says of streamed chats, and of our /metrics, which it reads as well."""
        arguments = {"--model": "sheep-1b", "--url": f"http://{self.cluster.http_address}", "--tokenizer": self.model,
                     "--endpoint-type": "chat", "--concurrency": 4, "--request-count": REQUESTS, "--random-seed": 7,
                     "--synthetic-input-tokens-mean": 40, "--synthetic-input-tokens-stddev": 10, "--output-tokens-mean": 20,
                     "--output-tokens-stddev": 5, "--extra-inputs": "ignore_eos:true", "--ui": "none", "--workers-max": 1,
                     "--record-processors": 1, "--output-artifact-dir": directory / "out",
                     "--server-metrics": f"http://{self.cluster.addresses['metrics']}/metrics"}
        done = subprocess.run([pathlib.Path(sys.executable).parent / "aiperf", "profile", "--streaming", "--use-server-token-count",
                               "--no-gpu-telemetry", *(str(word) for pair in arguments.items() for word in pair)],
                              env=os.environ | {"HOME": str(directory)}, cwd=directory, capture_output=True, timeout=5 * processes.PATIENCE)
        self.assertEqual(done.returncode, 0, done.stdout.decode()[-5000:])
        requests = (directory / "out/profile_export.jsonl").read_text().splitlines()
        return (json.loads((directory / "out/profile_export_aiperf.json").read_text()),
                json.loads((directory / "out/server_metrics_export.json").read_text())["metrics"],
                [json.loads(request)["metadata"]["x_request_id"] for request in requests])

    def test_its_counts_are_those_of_metrics(self):
        with tempfile.TemporaryDirectory() as directory:
            client, server, names = self.profile(pathlib.Path(directory))
        self.assertEqual((client["request_count"]["avg"], client["error_summary"], client["is_complete"]), (REQUESTS, [], True))
        for ours, its in COUNTERS.items():
            counted = self.cluster.metric(ours + "_total")
            self.assertEqual(counted, client[its]["avg"], ours)
            self.assertEqual(sum(series["stats"]["total"] for series in server[ours]["series"]), counted, ours)
        # It measures from the outside, so it sees no first token before us.
        first = self.cluster.metric("bellwether_time_to_first_token_seconds_sum")
        self.assertLess(0, first)
        self.assertLessEqual(first * 1000, client["time_to_first_token"]["avg"] * REQUESTS)
        self.assertEqual(len(set(names)), REQUESTS)
        for name in names:
            self.assertIn(name, self.cluster.logs(), "its names of requests are in the log")


if __name__ == "__main__":
    unittest.main(verbosity=2)
