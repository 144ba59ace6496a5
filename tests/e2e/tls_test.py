"""TLS of both ports: who has the right certificate is served, everybody else hears why not, and renewal ends no stream."""

import contextlib
import json
import pathlib
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import unittest

try:
    import grpc
except ImportError:
    print("skipped: the grpc module is missing (Debian: python3-grpcio)")
    sys.exit(77)  # SKIP_RETURN_CODE of tests/CMakeLists.txt

from proto.bellwether.v1 import inference_pb2 as pb
from proto.bellwether.v1 import inference_pb2_grpc
from tests.e2e import processes

STRAIGHT = [("grpc.enable_http_proxy", 0)]
MODEL = "random:llama?positions=20000:fp32"


def run(program, *arguments, timeout=processes.PATIENCE):
    return subprocess.run([processes.BIN / program, *map(str, arguments)], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=timeout)


class Certificates(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(directory.cleanup)
        cls.path = pathlib.Path(directory.name)
        processes.make_certificates(cls.path / "server", "localhost")  # of the clients' port
        processes.make_certificates(cls.path / "client", "client")
        processes.make_certificates(cls.path / "cluster", "flock")
        processes.make_certificates(cls.path / "stranger", "localhost", "client", "flock")

    @classmethod
    def files(cls, authority, name, flag=""):
        return [f"--{flag}tls-certificate", cls.path / authority / f"{name}.pem",
                f"--{flag}tls-key", cls.path / authority / f"{name}.key"]

    @classmethod
    def authority(cls, authority, flag=""):
        return [f"--{flag}tls-authority", cls.path / authority / "authority.pem"]

    @classmethod
    def worker_flags(cls, authority="cluster", trust="cluster", name="flock"):
        return [*cls.files(authority, name, "cluster-"), *cls.authority(trust, "cluster-"),
                "--cluster-tls-server-name", "flock"]

    @classmethod
    def cluster(cls, *coordinator_flags, workers=1):
        cluster = processes.Cluster(
            MODEL, workers=workers, worker_flags=cls.worker_flags(), coordinator_flags=[
                *cls.files("server", "localhost"), *cls.files("cluster", "flock", "cluster-"),
                *cls.authority("cluster", "cluster-"), "--context-tokens", "20000", *coordinator_flags])
        cls.addClassCleanup(cluster.close)
        return cluster

    @classmethod
    def channel(cls, cluster, authority="server"):
        trusted = ssl_credentials(cls.path / authority / "authority.pem")
        return grpc.secure_channel(cluster.address, trusted, [*STRAIGHT, ("grpc.ssl_target_name_override", "localhost")])


def ssl_credentials(authority):
    return grpc.ssl_channel_credentials(root_certificates=authority.read_bytes())


def wait_until_serving(channel):
    watch = channel.unary_stream("/grpc.health.v1.Health/Watch")
    for state in watch(b"", timeout=processes.PATIENCE):
        if state == b"\x08\x01":  # HealthCheckResponse { status = SERVING }
            return


class Clients(Certificates):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.server = cls.cluster(workers=2)
        with cls.channel(cls.server) as channel:
            wait_until_serving(channel)

    def generate(self, *flags, address=None):
        return run("bellwether", "generate", "--connect", address or self.server.address, "--prompt-ids", "1,2,3",
                   "--max-tokens", 4, "--json", *flags)

    def test_who_trusts_the_authority_is_answered(self):
        port = self.server.address.rpartition(":")[2]
        for flags, address in ((["--tls-server-name", "localhost"], None), ([], f"localhost:{port}")):
            done = self.generate(*self.authority("server"), *flags, address=address)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(len(json.loads(done.stdout)["token_ids"]), 4)

    def test_nobody_is_served_in_clear_by_another_name_or_of_another_authority(self):
        for flags, advice in (
                ([], "perhaps it wants TLS"), (["--tls"], "not signed by the authority"),
                (self.authority("server"), "for another name"), (self.authority("stranger"), "not signed by the authority"),
                ([*self.authority("server"), "--tls-server-name", "elsewhere"], "for another name")):
            done = self.generate(*flags)
            self.assertNotEqual(done.returncode, 0, flags)
            self.assertIn("no coordinator answers", done.stderr)
            self.assertIn(advice, done.stderr)
            self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)

    def test_old_protocols_are_refused(self):
        self.assertFalse(processes.takes_protocol(self.server.address, ssl.TLSVersion.TLSv1_1))
        self.assertTrue(processes.takes_protocol(self.server.address, ssl.TLSVersion.TLSv1_2))

    def test_a_worker_needs_a_certificate_of_the_clusters_authority(self):
        wrong = {"none": ([], "perhaps it wants TLS"),
                 "another authority's": (self.worker_flags("stranger"), "a certificate of another authority"),
                 "a client's": (self.worker_flags("client", name="client"), "a certificate of another authority"),
                 "of another cluster": (self.worker_flags("stranger", trust="stranger"), "not signed by the authority")}
        for kind, (flags, advice) in wrong.items():
            worker = self.server.start_worker("--model", MODEL, "--name", "wolf", *flags)
            log = self.server.directory / f"bellwether-worker-{len(self.server.processes) - 1}.log"
            end = time.monotonic() + processes.PATIENCE
            while advice not in (text := log.read_text()):
                self.assertLess(time.monotonic(), end, f"{kind}: {text}")
            worker.kill()
            told = (self.server.directory / "bellwether-coordinator-0.log").read_text()
            self.assertNotIn("wolf", told, kind)
        self.assertRegex(told, rf"{self.server.worker_address} cuts off 127\.0\.0\.1:\d+: no TLS with it: certificate verify failed")


class OthersServers(Certificates):
    def test_an_expired_certificate_is_told_as_one(self):
        processes.make_certificates(self.path / "server", "late", days=0)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.path / "server/late.pem", self.path / "server/late.key")
        context.set_alpn_protocols(["h2"])
        with socket.create_server(("127.0.0.1", 0)) as listener:
            asked = subprocess.Popen(
                [processes.BIN / "bellwether", "generate", "--prompt-ids", "1", "--tls-server-name", "late", *self.authority("server"),
                 "--connect", f"127.0.0.1:{listener.getsockname()[1]}"], stderr=subprocess.PIPE, text=True)
            while asked.poll() is None:
                with contextlib.suppress(OSError):
                    listener.settimeout(0.2)
                    context.wrap_socket(listener.accept()[0], server_side=True).close()
        said = asked.stderr.read()
        asked.stderr.close()
        self.assertIn("certificate verify failed", said)
        self.assertIn("has expired", said)


class ClientsWithCertificates(Certificates):
    def test_clients_must_show_one_where_an_authority_for_them_is_given(self):
        server = self.cluster(*self.authority("client"))
        there = ["--connect", server.address, *self.authority("server"), "--tls-server-name", "localhost"]
        ask = ["generate", "--prompt-ids", "1,2", "--max-tokens", 2, *there]
        for flags in ([], self.files("stranger", "client")):
            self.assertIn("no coordinator answers", run("bellwether", *ask, *flags).stderr)
        shown = run("bellwether", *ask, *self.files("client", "client"))
        end = time.monotonic() + processes.PATIENCE
        while shown.returncode != 0 and time.monotonic() < end:  # until it serves
            shown = run("bellwether", *ask, *self.files("client", "client"))
        self.assertEqual(shown.returncode, 0, shown.stderr)
        loaded = run("bellwether", "load", "--requests", 2, "--warm-up", 0, "--output-tokens", 2, "--prompt-tokens", 3,
                     *there, *self.files("client", "client"))
        self.assertEqual(loaded.returncode, 0, loaded.stderr)


class Renewal(Certificates):
    def put(self, file):
        part = self.path / "server" / f"{file.name}.part"
        shutil.copy(file, part)
        part.rename(self.path / "server" / file.name)

    def test_a_renewed_certificate_is_shown_and_no_stream_ends(self):
        server = self.cluster()
        with self.channel(server) as channel:
            wait_until_serving(channel)
            stub = inference_pb2_grpc.InferenceStub(channel)
            stream = stub.Generate(pb.GenerateRequest(
                prompt=pb.Prompt(token_ids=pb.TokenIds(ids=[1, 2, 3])),
                options=pb.GenerationOptions(max_tokens=19000, ignore_eos=True)), timeout=processes.PATIENCE)
            next(stream)
            new = self.path / "new"
            processes.make_certificates(new, "localhost")
            host, _, port = server.address.rpartition(":")
            shown = lambda: ssl.get_server_certificate((host, int(port)))

            def wait_for(condition, why):
                end = time.monotonic() + processes.PATIENCE
                while not condition():
                    self.assertLess(time.monotonic(), end, why)

            # The key first: as long as it is not the certificate's, new connections get the last pair.
            old = shown()
            self.put(new / "localhost.key")
            wait_for(lambda: "localhost.key: not the key of" in server.logs(), "nothing is said of the key")
            self.assertEqual(shown(), old)
            self.put(new / "localhost.pem")
            wait_for(lambda: shown() == (new / "localhost.pem").read_text(), "the old certificate is still shown")
            for _ in range(5000):  # begun under the old one; more than can lie on the way
                next(stream)
            stream.cancel()
        with self.channel(server, "new") as channel:
            inference_pb2_grpc.InferenceStub(channel).GetModel(pb.GetModelRequest(), timeout=processes.PATIENCE)


class Refusals(Certificates):
    """What is wrong is said at the start, with the file or the flag."""

    def start(self, *flags):
        done = run("bellwether-coordinator", "--model", MODEL, "--listen", "127.0.0.1:0", "--worker-listen", "127.0.0.1:0",
                   *flags)
        self.assertNotEqual(done.returncode, 0)
        return done.stdout + done.stderr

    def test_files(self):
        processes.make_certificates(self.path / "old")
        processes.make_certificates(self.path / "old", "localhost", days=0)
        broken = self.path / "broken.pem"
        broken.write_text("no certificate")
        server, key = self.path / "server/localhost.pem", self.path / "server/localhost.key"
        for flags, words in (
                (["--tls-certificate", server], "belong together"),
                (["--tls-certificate", server, "--tls-key", self.path / "client/client.key"], "client.key: not the key of"),
                (["--tls-certificate", broken, "--tls-key", key], "broken.pem: no certificate in PEM"),
                (["--tls-certificate", server, "--tls-key", self.path / "none"], "/none"),
                (["--tls-certificate", server, "--tls-key", server], "localhost.pem: no private key"),
                (self.files("old", "localhost"), "localhost.pem: the certificate has expired"),
                (self.authority("client"), "needs a certificate"),
                (self.files("cluster", "flock", "cluster-"), "--cluster-tls-authority is missing")):
            self.assertIn(words, self.start(*flags))

    def test_files_of_every_port_and_program(self):
        processes.make_certificates(self.path / "cluster", "late", days=0)
        others_key = {"tls-certificate": self.path / "cluster/flock.pem", "tls-key": self.path / "client/client.key"}
        late = {"tls-certificate": self.path / "cluster/late.pem", "tls-key": self.path / "cluster/late.key"}
        for program in ("bellwether-coordinator", "bellwether-worker"):
            for kind in ("cluster-", "metrics-"):
                for files, words in ((others_key, "client.key: not the key of"), (late, "late.pem: the certificate has expired")):
                    flags = [f"--{kind}{flag}={file}" for flag, file in files.items()]
                    done = run(program, "--model", MODEL, *flags, *self.authority("cluster", kind))
                    self.assertNotEqual(done.returncode, 0)
                    self.assertIn(words, done.stdout + done.stderr, f"{program} {flags}")

    def test_nothing_is_said_in_clear_to_other_machines_unless_asked_for(self):
        said = self.start("--listen", "0.0.0.0:0")
        self.assertIn("--listen 0.0.0.0:0 is not this machine alone", said)
        self.assertIn("give --tls-certificate and --tls-key ", said)
        said = self.start("--worker-listen", "0.0.0.0:0")
        self.assertIn("--worker-listen 0.0.0.0:0 is not", said)
        self.assertIn("give --cluster-tls-certificate, --cluster-tls-key and --cluster-tls-authority ", said)
        for flags in (["--coordinator", "192.0.2.1:7401"], ["--link-listen", "0.0.0.0:0"]):
            done = run("bellwether-worker", "--model", MODEL, *flags)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(f"{flags[0]} {flags[1]} is not this machine alone", done.stdout + done.stderr)
        # `up` has no flags of TLS, so it asks for none.
        for flag in ("--listen", "--worker-listen", "--http-listen"):
            done = run("bellwether", "up", "--model", MODEL, flag, "0.0.0.0:0")
            self.assertEqual(done.returncode, 2)
            self.assertIn(f"{flag} 0.0.0.0:0 is not this machine alone", done.stderr)
            self.assertNotIn("--tls", done.stderr)
        done = run("bellwether", "generate", "--prompt-ids", "1", "--connect", "192.0.2.1:7400")
        self.assertIn("--connect 192.0.2.1:7400 is not this machine alone", done.stderr)
        for allowed in (["--insecure"], self.files("server", "localhost")):
            cluster = processes.Cluster(MODEL, workers=0, coordinator_flags=["--listen", "0.0.0.0:0", *allowed])
            cluster.close()


if __name__ == "__main__":
    unittest.main()
