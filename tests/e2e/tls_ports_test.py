"""Every port that has TLS, and whoever may knock: who has what is asked for is served, everybody else is cut off, and one line of the
listener's log says who it was and why. Renewed files end no stream and are shown at every port."""

import dataclasses
import pathlib
import re
import socket
import ssl
import sys
import tempfile
import time
import unittest
import warnings

try:
    import grpc
except ImportError:
    print("skipped: the grpc module is missing (Debian: python3-grpcio)")
    sys.exit(77)  # SKIP_RETURN_CODE of tests/CMakeLists.txt

from proto.bellwether.v1 import inference_pb2 as pb
from proto.bellwether.v1 import inference_pb2_grpc
from tests.e2e import processes
from tests.e2e.tls_test import wait_until_serving

MODEL = "random:llama?positions=20000:fp32"
NAME = "flock"  # of every port's certificate
AUTHORITIES = ("clients", "cluster", "monitoring", "nobody")
HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))  # and settings, none of which is said
HTTP1 = b"GET /healthz HTTP/1.1\r\nHost: " + NAME.encode() + b"\r\nConnection: close\r\n\r\n"


@dataclasses.dataclass(frozen=True)
class Port:
    name: str
    address: str
    authority: str  # of its certificate, and of what it asks for
    log: pathlib.Path
    grpc: bool

    def is_served(self, tls):
        """Whether somebody answers; under TLS 1.3 who connects is done before the other has looked at his certificate."""
        tls.sendall(HTTP2 if self.grpc else HTTP1)
        answer = tls.recv(9)
        return len(answer) == 9 and (answer[3] == 4 if self.grpc else answer.startswith(b"HTTP/1.1"))


@dataclasses.dataclass(frozen=True)
class Knock:
    """What somebody shows and believes. `own`, `another`: the port's authority, and one of another port."""
    shown: str = "own"  # whose certificate, by authority; empty: none
    file: str = "caller"
    trusted: str = "own"
    asked_for: str = NAME
    newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
    protocol: bool = True  # says by ALPN what it speaks
    encrypted: bool = True
    told: str = ""  # what the port's log says of it; empty: it is served


VERIFY = "certificate verify failed.*; its certificate is not signed by the authority that is asked for here, or has expired"
KNOCKS = {
    "who has what is asked for": Knock(),
    "who speaks TLS 1.2": Knock(newest=ssl.TLSVersion.TLSv1_2),
    "who shows no certificate": Knock(shown="", told="peer did not return a certificate"),
    "whose certificate is another authority's": Knock(shown="nobody", told=VERIFY),
    "whose certificate is for another port": Knock(shown="another", told=VERIFY),
    "whose certificate has expired": Knock(file="late", told=VERIFY),
    "who speaks TLS 1.1": Knock(newest=ssl.TLSVersion.TLSv1_1, told="unsupported protocol.*nothing newer than TLS 1.1"),
    "who speaks in clear": Knock(encrypted=False, told="http request.*does not speak TLS"),
    "who trusts another authority": Knock(trusted="nobody", told="alert unknown ca.*does not take the certificate of this port"),
    "who asks for another name": Knock(asked_for="elsewhere", told="alert bad certificate.*does not take the certificate of this port"),
    "who says by no ALPN what it speaks": Knock(protocol=False, told="asks for no protocol that is spoken here .ALPN: h2"),
}


class Ports(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        warnings.simplefilter("ignore", DeprecationWarning)  # of old protocols, which are the point
        directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(directory.cleanup)
        cls.path = pathlib.Path(directory.name)
        for authority in AUTHORITIES:
            processes.make_certificates(cls.path / authority, NAME, "caller")
            processes.make_certificates(cls.path / authority, "late", days=0)

    @classmethod
    def flags(cls, kind, authority):
        """The three flags of a port. `kind`: empty, cluster- or metrics-."""
        files = {"certificate": f"{NAME}.pem", "key": f"{NAME}.key", "authority": "authority.pem"}
        return [word for flag, file in files.items() for word in (f"--{kind}tls-{flag}", cls.path / authority / file)]

    @classmethod
    def serve(cls, workers):
        """A cluster whose workers take each other for other machines, and its ports."""
        metrics, cluster = cls.flags("metrics-", "monitoring"), cls.flags("cluster-", "cluster")
        served = processes.Cluster(MODEL, workers=0, coordinator_flags=[
            *cls.flags("", "clients"), *metrics, *cluster, "--workers", max(workers, 1), "--pipeline-parallel", max(workers, 1),
            "--tensor-parallel", 1, "--context-tokens", 20000])
        cls.addClassCleanup(served.close)
        log = served.directory / "bellwether-coordinator-0.log"
        ports = [Port("clients over gRPC", served.address, "clients", log, grpc=True),
                 Port("clients over HTTP", served.http_address, "clients", log, grpc=False),
                 Port("workers", served.worker_address, "cluster", log, grpc=True),
                 Port("monitoring of the coordinator", served.addresses["metrics"], "monitoring", log, grpc=False)]
        for i in range(workers):
            links, metrics_port = f"127.0.0.1:{processes.free_port()}", served.directory / f"worker-{i}.ports"
            served.start_worker("--model", MODEL, "--host-id", f"host-{i}", "--name", f"sheep-{i}", "--link-listen", links, "--port-file",
                                metrics_port, "--cluster-tls-server-name", NAME, *cluster, *metrics)
            wait_for(lambda: f"has joined [worker=sheep-{i}]" in served.logs(), "a worker listens and has joined")
            log = served.directory / f"bellwether-worker-{i + 1}.log"
            ports += [Port("links of a worker", links, "cluster", log, grpc=True),
                      Port("monitoring of a worker", metrics_port.read_text().split()[1], "monitoring", log, grpc=False)]
        return served, ports

    def context(self, port, knock):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.path / (port.authority if knock.trusted == "own" else knock.trusted) / "authority.pem")
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, knock.newest
        if knock.protocol:
            context.set_alpn_protocols(["h2" if port.grpc else "http/1.1"])
        another = {"clients": "cluster", "cluster": "clients", "monitoring": "cluster"}[port.authority]
        shown = {"own": port.authority, "another": another}.get(knock.shown, knock.shown)
        if shown:
            context.load_cert_chain(self.path / shown / f"{knock.file}.pem", self.path / shown / f"{knock.file}.key")
        return context

    def knock(self, port, knock):
        """Who knocked, as the log names him, and whether he is served."""
        host, _, number = port.address.rpartition(":")
        with socket.create_connection((host, int(number)), processes.PATIENCE) as connection:
            caller = "{}:{}".format(*connection.getsockname())
            try:
                if not knock.encrypted:
                    connection.sendall(HTTP1)
                    return caller, connection.recv(5) == b"HTTP/"
                with self.context(port, knock).wrap_socket(connection, server_hostname=knock.asked_for) as tls:
                    return caller, port.is_served(tls)
            except OSError:  # ssl.SSLError is one
                return caller, False

    @staticmethod
    def lines_of(port, caller):
        """What the log says of a caller; not what it says of one of another port whom the system gave the same number."""
        return [line for line in port.log.read_text().splitlines() if re.search(rf"\b{re.escape(caller)}\b", line)
                and (" cuts off " not in line or f" {port.address} cuts off " in line)]


def wait_for(condition, why):
    end = time.monotonic() + processes.PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(why)
        time.sleep(0.01)


class Knocks(Ports):
    def test_who_may_not_come_in_is_told_of_by_name_in_one_line(self):
        cluster, ports = self.serve(workers=1)
        callers = []
        for port in ports:
            host, _, number = port.address.rpartition(":")
            with socket.create_connection((host, int(number)), processes.PATIENCE) as connection:
                callers.append((port, "who looks whether anybody listens", "{}:{}".format(*connection.getsockname()), 0))
        for port in ports:
            for name, knock in KNOCKS.items():
                with self.subTest(name, port=port.name):
                    caller, served = self.knock(port, knock)
                    wanted = not knock.told or ("ALPN" in name and not port.grpc)  # which HTTP/1.1 can do without
                    self.assertEqual(served, wanted, self.lines_of(port, caller))
                    if not wanted:
                        wait_for(lambda: self.lines_of(port, caller), f"{port.name}: nothing is said of {name}")
                        self.assertRegex(self.lines_of(port, caller)[0], rf" {re.escape(port.address)} cuts off (client )?{caller}: no TLS "
                                                                         rf"with it: .*{knock.told}")
                    callers.append((port, name, caller, int(not wanted)))
        for port, name, caller, lines in callers:
            self.assertEqual(len(self.lines_of(port, caller)), lines, f"{port.name}: {name}")
        self.assertNotIn("gRPC: ", cluster.logs())

    def test_noise_at_one_port_hides_nobody_at_another(self):
        """Both gRPC ports of a coordinator had one allowance of lines, which whoever reached the clients' could use up."""
        _, (clients, _, workers, _) = self.serve(workers=0)
        stranger = KNOCKS["who says by no ALPN what it speaks"]
        noise = [self.knock(clients, stranger)[0] for _ in range(40)]
        caller, _ = self.knock(workers, stranger)
        wait_for(lambda: self.lines_of(workers, caller), "nothing is said of the one at the workers' port")
        self.assertFalse(all(self.lines_of(clients, each) for each in noise), "lines that strangers cause are few")


class Renewal(Ports):
    def certificate_of(self, port):
        host, _, number = port.address.rpartition(":")
        with socket.create_connection((host, int(number)), processes.PATIENCE) as connection, \
                self.context(port, Knock()).wrap_socket(connection, server_hostname=NAME) as tls:
            return tls.getpeercert(binary_form=True)

    def test_renewed_files_are_shown_at_every_port_and_no_stream_ends(self):
        served, ports = self.serve(workers=2)
        clients = self.path / "clients"
        credentials = grpc.ssl_channel_credentials(*((clients / file).read_bytes() for file in ("authority.pem", "caller.key", "caller.pem")))
        options = [("grpc.enable_http_proxy", 0), ("grpc.ssl_target_name_override", NAME)]
        with grpc.secure_channel(served.address, credentials, options) as channel:
            wait_until_serving(channel)
            stream = inference_pb2_grpc.InferenceStub(channel).Generate(pb.GenerateRequest(
                prompt=pb.Prompt(token_ids=pb.TokenIds(ids=[1, 2, 3])),
                options=pb.GenerationOptions(max_tokens=19000, ignore_eos=True)), timeout=processes.PATIENCE)
            next(stream)
            before = [self.certificate_of(port) for port in ports]
            for authority in ("clients", "cluster", "monitoring"):
                processes.make_certificates(self.path / authority, NAME)  # by the same authority: the script renews
            for port, old in zip(ports, before):
                wait_for(lambda: self.certificate_of(port) != old, f"{port.name}: the old certificate is still shown")
            for _ in range(3000):  # begun under the old ones; more than can lie on the way
                next(stream)
            stream.cancel()

            # New links and a worker that joins anew, all by the new files.
            served.processes[1].kill()
            served.processes[1].wait()
            log = ports[0].log
            epochs = log.read_text().count("serving in epoch")
            served.start_worker("--model", MODEL, "--host-id", "host-0", "--name", "sheep-0", "--link-listen", "127.0.0.1:0",
                                "--cluster-tls-server-name", NAME, *self.flags("cluster-", "cluster"), *self.flags("metrics-", "monitoring"))
            wait_for(lambda: log.read_text().count("serving in epoch") > epochs, "no other epoch is served")


if __name__ == "__main__":
    unittest.main()
