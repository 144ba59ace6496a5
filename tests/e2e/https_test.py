"""HTTP under TLS, the clients' door and the ports for monitoring: who has the right certificate is served, everybody else hears why
not, renewal ends no stream."""

import contextlib
import http.client
import json
import pathlib
import shutil
import ssl
import subprocess
import tempfile
import unittest

from tests.e2e import processes
from tests.e2e.openai_test import a_model, wait_for


class Https(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(directory.cleanup)
        cls.path = pathlib.Path(directory.name)
        processes.make_certificates(cls.path / "server", "127.0.0.1")
        processes.make_certificates(cls.path / "client", "client")
        processes.make_certificates(cls.path / "stranger", "127.0.0.1", "client")

    @classmethod
    def files(cls, authority, name, flag=""):
        return [f"--{flag}tls-certificate", cls.path / authority / f"{name}.pem", f"--{flag}tls-key", cls.path / authority / f"{name}.key"]

    @classmethod
    def serve(cls, *flags, worker_flags=()):
        cluster = processes.Cluster(a_model(cls), coordinator_flags=[*cls.files("server", "127.0.0.1"), *flags],
                                    worker_flags=worker_flags)
        cls.addClassCleanup(cluster.close)
        return cluster

    def context(self, authority="server", client=None):
        context = ssl.create_default_context(cafile=self.path / authority / "authority.pem")
        if client:
            context.load_cert_chain(self.path / client / "client.pem", self.path / client / "client.key")
        return context

    def open(self, address, method, path, body=None, context=None):
        connection = http.client.HTTPSConnection(*address.rsplit(":", 1), timeout=processes.PATIENCE, context=context or self.context())
        self.addCleanup(connection.close)
        connection.request(method, path, None if body is None else json.dumps(body))
        return connection, connection.getresponse()

    def ask(self, address, method, path, body=None, context=None):
        _, response = self.open(address, method, path, body, context)
        return response.status, response.read().decode()

    def wait_until_serving(self, cluster, context=None):
        wait_for(lambda: self.ask(cluster.http_address, "GET", "/health", context=context)[0] == 200)


class Door(Https):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.server = cls.serve("--metrics-tls-certificate", cls.path / "server/127.0.0.1.pem",
                               "--metrics-tls-key", cls.path / "server/127.0.0.1.key",
                               worker_flags=cls.files("server", "127.0.0.1", "metrics-"))
        cls.address = cls.server.http_address

    def setUp(self):
        self.wait_until_serving(self.server)

    def complete(self, **more):
        return {"model": "sheep-1b", "prompt": "a", "max_tokens": 4} | more

    def test_who_trusts_the_authority_is_answered_many_times_on_one_connection(self):
        connection, response = self.open(self.address, "POST", "/v1/completions", self.complete())
        self.assertEqual(json.loads(response.read())["usage"]["completion_tokens"], 4)
        for _ in range(3):
            connection.request("POST", "/v1/completions", json.dumps(self.complete(prompt="b" * 500, max_tokens=1)))
            response = connection.getresponse()
            self.assertEqual(response.status, 200)
            response.read()

    def test_a_stream_ends_as_in_clear(self):
        _, response = self.open(self.address, "POST", "/v1/completions", self.complete(stream=True))
        events = response.read().decode().split("\n\n")
        self.assertEqual(events[-2:], ["data: [DONE]", ""])

    def test_a_body_longer_than_any_record_arrives(self):
        status, answer = self.ask(self.address, "POST", "/tokenize", {"prompt": "word " * 200_000})
        self.assertEqual(status, 200)
        self.assertGreaterEqual(json.loads(answer)["count"], 200_000)

    def test_who_closes_is_noticed(self):
        connection, response = self.open(self.address, "POST", "/v1/completions",
                                         self.complete(stream=True, max_tokens=2000, ignore_eos=True))
        response.readline()
        connection.sock.close()
        response.close()
        wait_for(lambda: 'code="499"} 1' in self.ask(self.server.addresses["metrics"], "GET", "/metrics")[1])

    def test_nobody_is_answered_in_clear_or_trusts_a_stranger(self):
        host, port = self.address.rsplit(":", 1)
        with contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=processes.PATIENCE)) as plain:
            plain.request("GET", "/health")
            with self.assertRaises((http.client.HTTPException, ConnectionError)):
                plain.getresponse()
        wait_for(lambda: "no TLS with it: http request" in self.server.logs())
        with self.assertRaises(ssl.SSLCertVerificationError):
            self.ask(self.address, "GET", "/health", context=self.context("stranger"))

    def test_old_protocols_are_refused(self):
        self.assertFalse(processes.takes_protocol(self.address, ssl.TLSVersion.TLSv1_1))
        self.assertTrue(processes.takes_protocol(self.address, ssl.TLSVersion.TLSv1_2))

    def test_monitoring_is_found_where_it_is_encrypted(self):
        status, targets = self.ask(self.server.addresses["metrics"], "GET", "/http_sd")
        self.assertEqual(status, 200)
        groups = json.loads(targets)
        self.assertEqual([group["labels"]["__scheme__"] for group in groups], ["https", "https"])
        for group in groups:
            self.assertEqual(self.ask(group["targets"][0], "GET", "/healthz")[0], 200)

    def test_the_load_tool_asks_by_it(self):
        done = subprocess.run([processes.BIN / "bellwether", "load", "--url", f"https://{self.address}", "--tls-authority",
                               self.path / "server/authority.pem", "--requests", "2", "--warm-up", "0", "--output-tokens", "2",
                               "--prompt-tokens", "3"], capture_output=True, text=True, timeout=processes.PATIENCE)
        self.assertEqual(done.returncode, 0, done.stderr)


class ClientsWithCertificates(Https):
    def test_clients_must_show_one_where_an_authority_for_them_is_given(self):
        server = self.serve("--tls-authority", self.path / "client/authority.pem")
        self.wait_until_serving(server, self.context(client="client"))
        for context in (self.context(), self.context(client="stranger")):
            with self.assertRaises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
                self.ask(server.http_address, "GET", "/health", context=context)


class Renewal(Https):
    def test_a_renewed_certificate_is_shown_and_no_stream_ends(self):
        server = self.serve()
        self.wait_until_serving(server)
        _, stream = self.open(server.http_address, "POST", "/v1/completions", {
            "model": "sheep-1b", "prompt": "a", "max_tokens": 2000, "stream": True, "ignore_eos": True})
        stream.readline()
        new, shown = self.path / "new", self.path / "server"
        processes.make_certificates(new, "127.0.0.1")
        # One file after the other: in between the key is not the certificate's, and the last pair is still shown.
        for name in ("127.0.0.1.key", "127.0.0.1.pem"):
            shutil.copy(new / name, shown / f"{name}.part")
            (shown / f"{name}.part").rename(shown / name)
        host, port = server.http_address.rsplit(":", 1)
        wait_for(lambda: ssl.get_server_certificate((host, int(port))) == (new / "127.0.0.1.pem").read_text())
        self.assertTrue(stream.read().decode().endswith("data: [DONE]\n\n"))
        self.assertEqual(self.ask(server.http_address, "GET", "/health", context=self.context("new"))[0], 200)


if __name__ == "__main__":
    unittest.main()
