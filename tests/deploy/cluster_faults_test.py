"""What cluster_test.py would not miss: a fault planted in each template of the chart keeps the cluster from serving, and is seen where
a person would look for it; and what this cluster does not honour it refuses.
"""

import copy
import dataclasses
import pathlib
import re
import shutil
import tempfile
import unittest

from tests.deploy import cluster_test  # first: it skips where nothing can run
from tests.deploy import chart, manifests, sandbox


@dataclasses.dataclass(frozen=True)
class Fault:
    template: str
    old: str
    new: str
    seen: str  # a pattern of what the events or the logs say
    when: str = "install"  # or ask, scrape, drain, open, route: pods are ready, but nobody is answered, or counted, or can leave, or anybody
    # is answered, or who comes by a route is not
    at_first_too: bool = False  # without a fault it may be seen too, until everything has started
    values: str = "pipeline"  # two pods over TLS; or demo: two ranks in one pod and an init container; or guarded: every door is closed; or
    # replicas: two whole clusters; or routed: demo, with all routes; or pooled: and a pool


FAULTS = {
    "a worker's variable is of a key that nobody has": Fault(
        "workers.yaml", "{{- toYaml . | nindent 8 }}\n        {{- end }}\n      ports", '{{- toYaml . | nindent 8 | replace "test" "tset" }}\n'
        "        {{- end }}\n      ports", "rank-0: there is no key tset of a secret keys", values="guarded"),
    "the cluster's certificate is asked for another name": Fault(
        "certificates.yaml", '"names" (list .Values.tls.clusterName)', '"names" (list .Release.Name)', "no coordinator at .*for another name",
        values="guarded"),
    "the clients' certificate is asked for another name": Fault(
        "certificates.yaml", "concat (list $full", "concat (list .Release.Name", "no coordinator answers", "ask", values="guarded"),
    "cert-manager writes another Secret": Fault(
        "certificates.yaml", "secretName: {{ .secret | quote }}", "secretName: {{ .name }}", "there is no secret client-tls", values="guarded"),
    "the workers' way to their leader is called as the clients' Service": Fault(
        "leader_worker_set.yaml", '"%s-replica"', '"%s"', "no coordinator at bell-bellwether-0.bell-bellwether.test:7401 .*DNS", values="replicas"),
    "workers do not know their leader": Fault(
        "leader_worker_set.yaml", "$(LWS_LEADER_ADDRESS)", "$(LEADER)", r"\(LEADER\):7401", values="replicas"),
    "a replica has too few workers": Fault(
        "leader_worker_set.yaml", "add 1 $group.pods", "add 0 $group.pods", "waiting for workers: 1 of 2 have joined", values="replicas",
        at_first_too=True),
    "workers come when their leader is ready": Fault(
        "leader_worker_set.yaml", "startupPolicy: LeaderCreated", "startupPolicy: LeaderReady", "honours only LeaderCreated", values="replicas"),
    "the clients' certificate is not mounted": Fault(
        "coordinator.yaml", "- {name: client-tls, mountPath: /etc/bellwether/client-tls, readOnly: true}", "",
        "client-tls/tls.crt.*No such file", values="guarded"),
    "nobody knows the keys": Fault(
        "coordinator.yaml", "- {name: api-keys, mountPath: /etc/bellwether/api-keys, readOnly: true}", "", "api-keys/keys.*No such file",
        values="guarded"),
    "workers are told another secret": Fault(
        "workers.yaml", '{{- include "bellwether.clusterSecurity" $.root | nindent 8 }}',
        '{{- include "bellwether.clusterSecurity" $.root | nindent 8 | replace "join/secret" "cluster-tls/ca.crt" }}',
        "its join secret is another", values="guarded"),
    "`helm test` shows no certificate": Fault(
        "tests/answer.yaml", "{{- if .Values.tls.requireClients }}", "{{- if false }}", "no coordinator answers", "ask", values="guarded"),
    "`helm test` says no key": Fault(
        "tests/answer.yaml", "name: BELLWETHER_API_KEY", "name: API_KEY", "an API key is needed", "ask", values="guarded"),
    "`helm test` takes its key from elsewhere": Fault(
        "tests/answer.yaml", "key: test, optional: true", "key: tset, optional: true", "an API key is needed", "ask", values="guarded"),
    "the certificate of a client is not asked for": Fault(
        "_helpers.tpl", "--tls-authority=/etc/bellwether/client-tls/ca.crt", "--insecure", "", "open", values="guarded"),
    "keys are not asked for": Fault("_helpers.tpl", "--api-keys=/etc/bellwether/api-keys/keys", "--insecure", "", "open", values="guarded"),
    "the coordinator listens elsewhere for workers": Fault(
        "coordinator.yaml", '--worker-listen=0.0.0.0:{{ include "bellwether.ports.worker" . }}', "--worker-listen=0.0.0.0:7499",
        "no coordinator at bell-bellwether-cluster:7401 .*Connection refused", at_first_too=True),
    "its plaintext is not asked for": Fault("_helpers.tpl", "- --insecure\n", "", "--listen 0.0.0.0:7400 is not this machine alone"),
    "it waits for more workers than there are": Fault(
        "coordinator.yaml", '--workers={{ include "bellwether.workers" . }}', "--workers=3", "waiting for workers: 2 of 3 have joined"),
    "its readiness is asked of another page": Fault(
        "coordinator.yaml", "httpGet: {path: /readyz, port: metrics}", "httpGet: {path: /ready, port: metrics}",
        "coordinator: readiness probe: HTTP/1.1 404"),
    "its liveness is asked of a port without a name": Fault(
        "coordinator.yaml", "httpGet: {path: /healthz, port: metrics}", "httpGet: {path: /healthz, port: metric}", "no port is called metric"),
    "a worker does not know its address": Fault(
        "workers.yaml", "        - {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}\n", "",
        r"\(POD_IP\):7410\" is no address"),
    "both ranks of a pod want one port": Fault(
        "workers.yaml", "--link-listen=$(POD_IP):{{ $port }}", "--link-listen=$(POD_IP):7410", "in use", values="demo"),
    "a worker asks for another name's certificate": Fault(
        "workers.yaml", ".Values.tls.clusterName", ".Release.Name", "no coordinator at .*for another name"),
    "workers look for the coordinator by its clients' name": Fault(
        "workers.yaml", '(printf "%s-cluster" $full)', "$full", "no coordinator at bell-bellwether:7401"),
    "certificates are not mounted": Fault(
        "_helpers.tpl", "- {name: cluster-tls, mountPath: /etc/bellwether/cluster-tls, readOnly: true}", "",
        "cluster-tls/tls.crt.*No such file"),
    "keys belong to nobody who may read them": Fault("_helpers.tpl", "fsGroup: 65532\n", "", "cluster-tls/tls.crt: Permission denied"),
    "the Secret has another name": Fault("_helpers.tpl", "secretName: {{ . | quote }}", "secretName: other", "there is no secret other"),
    "the init container may not write": Fault(
        "_helpers.tpl", "- {name: models, mountPath: /models}", "- {name: models, mountPath: /models, readOnly: true}",
        "Read-only file system", values="demo"),
    "the coordinator has a name only when it is ready": Fault(
        "services.yaml", "publishNotReadyAddresses: true\n  selector:\n    {{- include \"bellwether.selector\" . | nindent 4 }}\n"
        "    app.kubernetes.io/component: coordinator",
        "selector:\n    {{- include \"bellwether.selector\" . | nindent 4 }}\n    app.kubernetes.io/component: coordinator",
        "no coordinator at bell-bellwether-cluster:7401 .*DNS resolution failed", at_first_too=True),
    "the clients' Service leads to the workers' port": Fault(
        "services.yaml", "targetPort: grpc", "targetPort: workers", "no coordinator answers", "ask"),
    "the clients' Service has no pods": Fault(
        "services.yaml", "app.kubernetes.io/component: coordinator\n  ports:\n    {{- if .Values.tls.clientSecret }}",
        "app.kubernetes.io/component: door\n  ports:\n    {{- if .Values.tls.clientSecret }}",
        "no coordinator answers", "ask"),
    "`helm test` asks elsewhere": Fault(
        "tests/answer.yaml", "{{ .Values.service.port }}", "7401", "no coordinator answers", "ask"),
    "the policy keeps workers out": Fault(
        "policies.yaml", 'app.kubernetes.io/component: worker\n      ports:\n        - {protocol: TCP, port: {{ include "bellwether.ports.worker" . }}}',
        "app.kubernetes.io/component: worker\n      ports:\n        - {protocol: TCP, port: 7411}",
        "no coordinator at bell-bellwether-cluster:7401 .*No route to host"),
    "the policy keeps clients out": Fault(
        "policies.yaml", '- {protocol: TCP, port: {{ include "bellwether.ports.client" . }}}', "- {protocol: TCP, port: 7480}",
        "no coordinator answers", "ask"),
    "the policy lets nobody ask for names": Fault(
        "policies.yaml", "- {protocol: UDP, port: 53}\n        - {protocol: TCP, port: 53}", "- {protocol: TCP, port: 53}",
        "no coordinator at bell-bellwether-cluster:7401 .*Could not contact DNS servers"),
    "the policy cuts the links": Fault(
        "policies.yaml", "- {protocol: TCP, port: {{ $links }}, endPort: {{ sub (add $links $ranks) 1 }}}", "- {protocol: TCP, port: 7420}",
        "gives no link: failed to connect"),
    "the policy keeps Prometheus out": Fault(
        "policies.yaml", '- {protocol: TCP, port: {{ include "bellwether.ports.metrics" . }}}', "- {protocol: TCP, port: 7401}",
        "No route to host", "scrape"),
    "Prometheus asks for no port of the workers": Fault(
        "monitoring.yaml", 'printf "metrics-%d"', 'printf "metric-%d"', "1 != 3", "scrape"),
    "a gRPC route leads to the door of HTTP": Fault(
        "routes.yaml", "port: {{ $.Values.service.port }}", "port: {{ $.Values.service.httpPort }}", "no coordinator answers", "route", values="routed"),
    "an HTTP route leads to a Service that is not there": Fault(
        "routes.yaml", "- {name: {{ $full }}, port: {{ $.Values.service.httpPort }}}", "- {name: {{ $full }}-http, port: {{ $.Values.service.httpPort }}}",
        "Name or service not known", "route", values="routed"),
    "an Ingress leads to the door of gRPC": Fault("routes.yaml", "port: {name: http}", "port: {name: grpc}", "BadStatusLine|Error", "route", values="routed"),
    "a pool is made of workers": Fault(
        "routes.yaml", "component: coordinator", "component: worker", "No route to host|Connection refused", "route", values="pooled"),
    "a pool leads to a port for others than clients": Fault(
        "routes.yaml", 'number: {{ include "bellwether.ports.http" $ }}', 'number: {{ include "bellwether.ports.worker" $ }}', "No route to host", "route",
        values="pooled"),
    "no pod may ever leave": Fault("policies.yaml", "maxUnavailable: 1", "maxUnavailable: 0", "", "drain"),
    "the pods' account is another's": Fault(
        "policies.yaml", "kind: ServiceAccount\nmetadata:\n  name: {{ $full }}", "kind: ServiceAccount\nmetadata:\n  name: {{ $full }}-pods",
        "there is no ServiceAccount bell-bellwether"),
}


class Faults(cluster_test.Pipeline, cluster_test.Guarded, cluster_test.Replicas):
    test_stages_of_two_pods_talk_encrypted_and_renewal_ends_no_stream = test_a_node_is_lost = None
    test_a_coordinator_crashes_and_another_takes_its_place = test_an_upgrade_to_another_build = None
    test_an_answer_may_not_hold_up_the_end_of_a_pod = test_who_has_all_that_is_asked_for_is_answered_and_nobody_else = None
    test_every_replica_is_a_cluster_and_is_replaced_as_one = None

    def values_of(self, name):
        values = {"pipeline": self.values, "demo": (cluster_test.FETCH, cluster_test.DEMO), "guarded": self.guarded, "replicas": self.replicas(),
                  **{name: (cluster_test.FETCH, cluster_test.DEMO, *doors) for name, doors in zip(("routed", "pooled"), cluster_test.ROUTED)}}
        return *values[name], cluster_test.MONITORED

    def faulty(self, fault):
        """The manifests of a chart with the fault in it."""
        with tempfile.TemporaryDirectory(dir=sandbox.STATE) as directory:
            path = pathlib.Path(directory) / "bellwether"
            shutil.copytree(chart.CHART, path)
            template = path / "templates" / fault.template
            text = template.read_text()
            self.assertIn(fault.old, text)
            template.write_text(text.replace(fault.old, fault.new))
            return self.render(*self.values_of(fault.values), path=path)

    def test_every_template_has_one(self):
        templates = {str(path.relative_to(chart.CHART / "templates")) for path in (chart.CHART / "templates").rglob("*") if path.is_file()}
        self.assertEqual({fault.template for fault in FAULTS.values()}, templates - {"NOTES.txt"})

    async def test_a_fault_of_a_template_is_seen(self):
        for name, fault in FAULTS.items():
            with self.subTest(name):
                async with self.empty_cluster() as cluster:
                    await self.see(cluster, fault)

    async def test_nothing_of_it_is_seen_without_a_fault(self):
        for values in ("pipeline", "demo", "guarded", "replicas"):
            async with self.empty_cluster() as cluster:
                release, [test] = self.render(*self.values_of(values))
                self.issue(cluster, release)
                cluster.apply(release)
                await cluster.until_ready()
                await self.answer(cluster, self.ask(cluster, test))
                for name, fault in FAULTS.items():
                    if fault.seen and fault.values == values and not fault.at_first_too:
                        self.assertNotRegex(cluster.story(), fault.seen, name)

    async def see(self, cluster, fault):
        release, [test] = self.faulty(fault)
        self.issue(cluster, release)
        try:
            cluster.apply(release)
        except manifests.Refused as refused:
            self.assertRegex(str(refused), fault.seen)
            return
        if fault.when == "scrape":
            await cluster.until_ready()
            monitor = next(each for each in release if each["kind"] == "PodMonitor")
            with self.assertRaisesRegex(AssertionError, fault.seen):
                await self.scrape(cluster, test, monitor)
            return
        if fault.when == "route":
            await cluster.until_ready()
            with self.assertRaisesRegex(AssertionError, fault.seen):
                await self.follow_routes(cluster, test, release)
            return
        if fault.when == "open":
            await cluster.until_ready()
            clients = [self.ask(cluster, test, *arguments, command=program) for _, arguments, program, _ in self.strangers(test)]
            for each in clients:
                await cluster.until(each.over.is_set, f"{each.name} ends")
            self.assertIn(0, [each.containers[0].code for each in clients], cluster.story())
            return
        if fault.when == "drain":
            await cluster.until_ready()
            self.assertEqual([pod for pod in cluster.pods if cluster.evict(pod)], [])
            return
        if fault.when == "ask":
            await cluster.until_ready()
            self.assertRegex(await self.answer(cluster, self.ask(cluster, test), code=1), fault.seen)
            return

        def seen():
            return re.search(fault.seen, cluster.story() + "".join(cluster.failed))
        await cluster.until(lambda: seen() or cluster.failed, fault.seen)
        self.assertTrue(seen(), cluster.story())
        if fault.at_first_too:  # who was well would have been ready at the second time
            coordinator = cluster.pods_of("coordinator")[0]
            await cluster.until(lambda: coordinator.containers[0].asked["readiness"] > 2, "the coordinator is asked again")
        self.assertFalse(cluster.is_ready())


class Refusals(unittest.TestCase):
    """No field of a manifest is passed over in silence."""

    def test_what_is_not_honoured(self):
        release = chart.render(chart.values_of(chart.CHART / "values.yaml"))[0]
        workload = next(each for each in release if each["kind"] == "StatefulSet")
        manifests.read_workload(workload)
        for path, value in (("spec/minReadySeconds", 5), ("spec/template/spec/hostNetwork", True),
                            ("spec/template/spec/enableServiceLinks", True), ("spec/template/spec/securityContext/sysctls", []),
                            ("spec/template/spec/containers/0/lifecycle", {"postStart": {"exec": {"command": ["true"]}}}),
                            ("spec/template/spec/containers/0/readinessProbe/successThreshold", 2),
                            ("spec/template/spec/containers/0/env/0", {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "a", "key": "b"}}}),
                            ("spec/template/spec/containers/0/env/0",
                             {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}),
                            ("spec/template/spec/containers/0/volumeMounts/0/subPath", "a"),
                            ("spec/template/spec/containers/0/securityContext/privileged", True),
                            ("spec/template/spec/volumes/0", {"name": "models", "nfs": {"server": "a", "path": "/"}})):
            changed = copy.deepcopy(workload)
            *way, last = path.split("/")
            place = changed
            for each in way:
                place = place[int(each)] if each.isdigit() else place[each]
            place[int(last) if last.isdigit() else last] = value
            with self.assertRaises(manifests.Refused, msg=path):
                manifests.read_workload(changed)


if __name__ == "__main__":
    sandbox.enter("tests.deploy.cluster_faults_test")
    unittest.main()
