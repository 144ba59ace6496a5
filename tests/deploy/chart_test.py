"""The Helm chart as a real Helm renders it: valid for Kubernetes, closed, and made of command lines that the programs take.

Needs PyPI's helm-python-sdk, kubernetes-validate and PyYAML (tools/check.sh chart installs them into build/); skipped without.
"""

import copy
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

from tests.e2e import processes

try:
    import helm_python
    import jsonschema
    import kubernetes_validate
    import yaml

    from tests.deploy import crds, golden, values_space
    from tests.deploy.chart import CHART, merged, render, values_of, workloads_of
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

DRAWN = int(os.environ.get("BELLWETHER_DRAWN", 100))  # sets of values
KUBERNETES = ("1.29", "1.33")
# Why the chart refuses what each value for itself may be: conditions between values in its schema, and its own words.
REFUSALS = ["at '/metrics/enabled': value must be true", "at '/http/enabled': value must be true", "parentRefs': minItems", "hosts': minItems",
            "at '/workerGroups': maxItems: got", "at '/leaderWorkerSet/enabled': value must be true",
            *re.findall(r'fail (?:\(printf )?"(?:%s-?)*([^"%]+)', "".join(path.read_text() for path in (CHART / "templates").glob("*.*")))]
FIELDS = {"$(POD_NAME)": "pod-0", "$(POD_UID)": "b5c3", "$(POD_IP)": "10.0.0.7",
          "$(LWS_LEADER_ADDRESS)": "bell-bellwether-replica-0.bell-bellwether-replica.test"}
GIVEN = {"$(LWS_LEADER_ADDRESS)"}  # by the controller of LeaderWorkerSets
# In templates/routes.yaml: of each kind of route what leads astray, and what a gateway would be told otherwise.
ROUTE_FAULTS = (
    ("port: {{ $.Values.service.port }}", "port: {{ $.Values.service.httpPort }}"),
    ("- {name: {{ $full }}, port: {{ $.Values.service.port }}}", '- {name: {{ $full }}}'),
    ("port: {{ $.Values.service.httpPort }}", "port: {{ $.Values.service.port }}"),
    ("- {name: {{ $full }}, port: {{ $.Values.service.httpPort }}}", "- {name: {{ $full }}-http, port: {{ $.Values.service.httpPort }}}"),
    ("kind: InferencePool, name: {{ $full }}", "kind: InferencePool, name: {{ $full }}-pool"),
    ("group: inference.networking.k8s.io, kind: InferencePool, ", ""),
    ("{{- toYaml .parentRefs | nindent 4 }}", "- {name: default}"),
    ("  {{- with .hostnames }}\n  hostnames: {{ toJson . }}\n  {{- end }}\n", ""),
    ("timeouts: {request: 0s}", "timeouts: {request: 30s}"),
    ("timeouts: {request: 0s}", "timeouts: {idle: 0s}"),
    ("component: coordinator", "component: worker"),
    ('number: {{ include "bellwether.ports.http" $ }}', 'number: {{ include "bellwether.ports.client" $ }}'),
    ("name: {{ .endpointPicker.name | quote }}", "name: {{ $full }}"),
    ("port: {number: {{ .endpointPicker.port }}}", "port: {{ .endpointPicker.port }}"),
    ("ingressClassName: {{ . }}", "className: {{ . }}"),
    ("secretName: {{ . | quote }}", "secretName: {{ $full }}"),
    ("port: {name: http}", "port: {name: grpc}"),
    ("service: {name: {{ $full }}", "service: {name: {{ $full }}-cluster"),
    ("- host: {{ . | quote }}", "- host: localhost"),
    ("{{- toYaml . | nindent 4 }}", "a: c"),
)


def pods_of(manifests):
    for manifest in workloads_of(manifests):
        if manifest["kind"] in ("Deployment", "StatefulSet"):
            yield manifest, manifest["spec"]["template"]["spec"]
        if manifest["kind"] == "Pod":
            yield manifest, manifest["spec"]


def drawn(space, defaults, chart, seed):
    """Values of the schema's, drawn again where the chart itself refuses them, and their manifests."""
    draw = random.Random(seed)
    for _ in range(100):
        values = merged(defaults, space.draw(draw))
        try:
            chart.validate_schema(values)
            return values, render(values)[0]
        except helm_python.HelmError as refused:
            if not any(each in str(refused) for each in REFUSALS):
                raise
    raise AssertionError(f"nothing that is drawn with {seed} is taken")


class Chart(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.defaults = values_of(CHART / "values.yaml")
        cls.cases = {path.name: merged(cls.defaults, values_of(path)) for path in sorted(CHART.glob("values*.yaml"))}
        cls.space = values_space.Space(json.loads((CHART / "values.schema.json").read_text()))
        cls.cases["everything"] = merged(cls.defaults, cls.space.draw(random.Random(0), everything=True))
        cls.rendered = {name: render(values)[0] for name, values in cls.cases.items()}
        with helm_python.Chart.load(CHART) as chart:
            for seed in range(DRAWN):
                name = f"random {seed}"
                cls.cases[name], cls.rendered[name] = drawn(cls.space, cls.defaults, chart, seed)

    def each(self):
        for name, values in self.cases.items():
            with self.subTest(name):
                yield name, values, self.rendered[name]

    def test_renders_what_was_reviewed(self):
        """Where a change is meant, `python -m tests.deploy.golden` writes these files anew."""
        files = {name for name in self.cases if name.endswith(".yaml")}
        self.assertEqual({path.name for path in golden.GOLDEN.glob("*.yaml")}, files | {golden.KEPT.name})
        for name in files:
            base = [] if name == golden.BASE else self.rendered[golden.BASE]
            self.assertEqual((golden.GOLDEN / name).read_text(), golden.golden_text(self.rendered[name], base), name)

    def test_an_upgrade_changes_nothing_that_cannot_be_changed(self):
        before = yaml.safe_load(golden.KEPT.read_text())
        for name in (name for name in self.cases if name.endswith(".yaml")):
            self.assertEqual(golden.kept(self.rendered[name]), before[name], name)
        for way, value in ((("selector", "matchLabels", "a"), "b"), (("serviceName",), "other"), (("volumeClaimTemplates",), [])):
            manifests = copy.deepcopy(self.rendered[golden.BASE])
            place = next(each for each in manifests if each["kind"] == "StatefulSet")["spec"]
            for each in way[:-1]:
                place = place[each]
            place[way[-1]] = value
            self.assertNotEqual(golden.kept(manifests), before[golden.BASE], way)

    def test_lints(self):
        for name, values in self.cases.items():
            report = helm_python.lint(CHART, values, strict=True, kube_version="v1.30.0")
            wrong = [message for message in report["messages"] if message["severity"] >= 2]
            self.assertEqual((wrong, report["errors"]), ([], []), name)

    def test_kubernetes_takes_every_manifest(self):
        seen = set()
        for _, _, manifests in self.each():
            for manifest in [*manifests, *workloads_of(manifests)]:
                text = json.dumps(manifest)
                if text in seen:
                    continue
                seen.add(text)
                if (manifest["apiVersion"], manifest["kind"]) in crds.SPECS:
                    crds.validate(manifest)
                    continue
                for version in KUBERNETES:
                    kubernetes_validate.validate(manifest, version, strict=True)
            names = [(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests]
            self.assertEqual(len(names), len(set(names)))

    def test_fits_the_restricted_profile(self):
        """Pod Security Standards, "restricted": https://kubernetes.io/docs/concepts/security/pod-security-standards/"""
        allowed = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
        for name, values, manifests in self.each():
            for manifest, pod in pods_of(manifests):
                self.assertTrue(pod["securityContext"]["runAsNonRoot"])
                self.assertGreater(pod["securityContext"]["runAsUser"], 0)
                self.assertEqual(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault")
                self.assertIs(pod["automountServiceAccountToken"], False)
                self.assertFalse({"hostNetwork", "hostPID", "hostIPC"} & pod.keys())
                for container in pod["containers"] + pod.get("initContainers", []):
                    self.assertEqual(container["securityContext"], {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]},
                                                                    "readOnlyRootFilesystem": True})
                    self.assertFalse(any("hostPort" in port for port in container.get("ports", [])))
                kinds = {kind for volume in pod.get("volumes", []) for kind in volume if kind != "name"}
                if "hostPath" not in values["model"].get("volume", {}):
                    self.assertLessEqual(kinds, allowed, name)

    def test_programs_take_their_command_lines(self):
        seen = set()
        for _, _, manifests in self.each():
            for manifest, pod in pods_of(manifests):
                for container in pod["containers"]:
                    arguments = [re.sub(r"\$\([A-Z_]+\)", lambda field: FIELDS[field.group()], each)
                                 for each in container["args"]]
                    declared = {f"$({entry['name']})" for entry in container.get("env", [])}
                    used = set(re.findall(r"\$\([A-Z_]+\)", " ".join(container["args"])))
                    self.assertLessEqual(used, declared | GIVEN)
                    if tuple(arguments) in seen:
                        continue
                    seen.add(tuple(arguments))
                    if len(seen) % 5 and container["command"] != ["bellwether"]:
                        continue  # a fifth of them: each is a process
                    done = subprocess.run([processes.BIN / container["command"][0], *arguments, "--print-config"],
                                          capture_output=True, text=True, timeout=processes.PATIENCE)
                    self.assertEqual(done.returncode, 0, done.stderr)

    def test_every_pod_may_have_its_image_and_its_place(self):
        for _, values, manifests in self.each():
            for manifest, pod in pods_of(manifests):
                self.assertEqual(pod.get("imagePullSecrets", []), values["imagePullSecrets"])
                if manifest["kind"] != "StatefulSet":
                    self.assertEqual(pod.get("tolerations", []), values["coordinator"]["tolerations"])

    def test_ports_meet(self):
        for _, values, manifests in self.each():
            containers, links = {}, []
            for manifest, pod in pods_of(manifests):
                component = manifest["metadata"]["labels"]["app.kubernetes.io/component"]
                for container in pod["containers"]:
                    for port in container.get("ports", []):
                        containers.setdefault(component, {})[port["name"]] = port["containerPort"]
                        links += [port] if port["name"].startswith("links") else []
                    listening = [int(each.rsplit(":", 1)[1]) for each in container["args"]
                                 if re.match(r"--(listen|http-listen|worker-listen|link-listen|metrics-listen)=.", each)]
                    self.assertEqual(sorted(listening), sorted(port["containerPort"] for port in container.get("ports", [])))
            for manifest in manifests:
                if manifest["kind"] == "Service":
                    component = manifest["spec"]["selector"]["app.kubernetes.io/component"]
                    for port in manifest["spec"]["ports"]:
                        self.assertIn(port["targetPort"], containers[component])
                if manifest["kind"] == "NetworkPolicy":
                    component = manifest["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
                    open_ports = set()
                    for rule in manifest["spec"]["ingress"]:
                        for port in rule.get("ports", []):
                            open_ports |= set(range(port["port"], port.get("endPort", port["port"]) + 1))
                    closed = set(containers[component].values()) - open_ports
                    self.assertLessEqual(open_ports, set(containers[component].values()))
                    # With NCCL workers reach each other at any port, and so at those of the links.
                    self.assertEqual(closed, {each["containerPort"] for each in links} if values["networkPolicy"]["nccl"] and component == "worker"
                                     else set())
            coordinator = next(pod for manifest, pod in pods_of(manifests) if manifest["kind"] == "Deployment")
            self.assertEqual(len(list(pods_of(manifests))), 2 + len(values["workerGroups"]))
            workers = sum(manifest["spec"]["replicas"] * len(pod["containers"]) for manifest, pod in pods_of(manifests)
                          if manifest["kind"] == "StatefulSet")
            self.assertIn(f"--workers={workers}", coordinator["containers"][0]["args"])
            for manifest, pod in pods_of(manifests):
                if manifest["kind"] != "Pod":
                    self.assertGreater(pod["terminationGracePeriodSeconds"], values["drainSeconds"])

    def test_prometheus_operator_and_grafana_get_all_there_is(self):
        enabled = {"enabled": True, "labels": {"release": "prometheus"}}
        manifests, _ = render(merged(self.defaults, {
            "metrics": {"podMonitor": enabled, "prometheusRule": enabled, "dashboards": {"enabled": True}},
            "workerGroups": [{"name": "a", "pods": 2, "ranks": 2}, {"name": "b", "pods": 1, "ranks": 2}]}))
        monitor, rules = (next(each for each in manifests if each["kind"] == kind) for kind in ("PodMonitor", "PrometheusRule"))
        self.assertEqual(monitor["metadata"]["labels"]["release"], "prometheus")
        ports = {port["name"] for _, pod in pods_of(manifests) for container in pod["containers"] for port in container.get("ports", [])}
        scraped = [endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]]
        self.assertEqual(sorted(scraped), sorted(port for port in ports if port.startswith("metrics")))
        for manifest, _ in pods_of(manifests):
            if manifest["kind"] != "Pod":
                labels = manifest["spec"]["template"]["metadata"]["labels"]
                self.assertLessEqual(monitor["spec"]["selector"]["matchLabels"].items(), labels.items())
        files = [yaml.safe_load(path.read_text())["groups"] for path in sorted((processes.ROOT / "monitoring/rules").glob("*.yml"))]
        self.assertEqual(rules["spec"]["groups"], sum(files, []))
        boards = {name: text for each in manifests if each["kind"] == "ConfigMap" for name, text in each["data"].items()}
        for path in (processes.ROOT / "monitoring/grafana/dashboards").glob("*.json"):
            self.assertEqual(json.loads(boards[f"bellwether-{path.name}"]), json.loads(path.read_text()))

    def test_scaling_asks_for_what_there_is(self):
        metrics = re.findall(r'"(bellwether_[a-z_]+)"', (processes.ROOT / "common/metrics/metric_table.h").read_text())
        scaled = {"enabled": True, "autoscaling": {"enabled": True}}
        for prometheus, kind in ("", "HorizontalPodAutoscaler"), ("http://prometheus:9090", "ScaledObject"):
            scaled["autoscaling"]["prometheus"] = prometheus
            manifests, notes = render(merged(self.defaults, {"leaderWorkerSet": scaled, "metrics": {"podMonitor": {"enabled": True}}}))
            [scaler], [groups], [monitor] = ([each for each in manifests if each["kind"] == name]
                                             for name in (kind, "LeaderWorkerSet", "PodMonitor"))
            self.assertNotIn("replicas", groups["spec"])  # the scaler's own
            self.assertEqual(scaler["spec"]["scaleTargetRef"],
                             {"apiVersion": groups["apiVersion"], "kind": groups["kind"], "name": groups["metadata"]["name"]})
            for metric in re.findall(r"bellwether_[a-z_]+", json.dumps(scaler["spec"])):
                self.assertIn(metric, metrics)
            if prometheus:
                [job] = re.findall(r'job=~"([^"]*)"', scaler["spec"]["triggers"][0]["metadata"]["query"])
                for endpoint in monitor["spec"]["podMetricsEndpoints"]:
                    self.assertRegex(endpoint["relabelings"][0]["replacement"].replace("$1", "17"), f"^{job}$")
            self.assertNotIn(groups["metadata"]["name"], [each["metadata"]["name"] for each in manifests if each["kind"] == "Service"])
            self.assertIn(f"leaderworkerset/{groups['metadata']['name']} ", notes)

    def follow_routes(self, values, manifests):
        """To ports that are open, by names that were given; the kinds that there are."""
        services = {each["metadata"]["name"]: {port["name"]: port["port"] for port in each["spec"]["ports"]}
                    for each in manifests if each["kind"] == "Service"}
        coordinator = next(each for each in workloads_of(manifests) if each["kind"] == "Deployment")["spec"]["template"]
        pools = {each["metadata"]["name"]: each["spec"] for each in manifests if each["kind"] == "InferencePool"}
        for pool in pools.values():
            self.assertEqual(pool["selector"]["matchLabels"]["app.kubernetes.io/component"], "coordinator")
            self.assertLessEqual(pool["selector"]["matchLabels"].items(), coordinator["metadata"]["labels"].items())
            self.assertIn({"name": "http", "containerPort": pool["targetPorts"][0]["number"]}, coordinator["spec"]["containers"][0]["ports"])
            picker = values["gateway"]["inferencePool"]["endpointPicker"]
            self.assertEqual(pool["endpointPickerRef"], {"name": picker["name"], "port": {"number": picker["port"]}})
        for each in manifests:
            if each["kind"] in ("GRPCRoute", "HTTPRoute"):
                given = values["gateway"]["grpcRoute" if each["kind"] == "GRPCRoute" else "httpRoute"]
                self.assertEqual(each["spec"]["parentRefs"], given["parentRefs"])
                self.assertEqual(each["spec"].get("hostnames", []), given["hostnames"])
                [rule] = each["spec"]["rules"]
                self.assertEqual(rule.get("timeouts"), {"request": "0s"} if each["kind"] == "HTTPRoute" else None)
                [backend] = rule["backendRefs"]
                self.assertEqual("kind" in backend, each["kind"] == "HTTPRoute" and bool(pools))
                if "kind" in backend:
                    self.assertIn(backend["name"], pools)
                else:
                    self.assertEqual(services[backend["name"]]["grpc" if each["kind"] == "GRPCRoute" else "http"], backend["port"])
            if each["kind"] == "Ingress":
                given, spec = values["ingress"], each["spec"]
                self.assertEqual([rule["host"] for rule in spec["rules"]], given["hosts"])
                self.assertEqual(spec.get("ingressClassName", ""), given["className"])
                self.assertEqual(each["metadata"].get("annotations", {}), given["annotations"])
                self.assertEqual(spec.get("tls", []), [{"hosts": given["hosts"], "secretName": given["tlsSecret"]}] if given["tlsSecret"] else [])
                for rule in spec["rules"]:
                    [path] = rule["http"]["paths"]
                    self.assertEqual((path["path"], path["pathType"]), ("/", "Prefix"))
                    service = path["backend"]["service"]
                    self.assertIn("http", services[service["name"]])
                    self.assertEqual(service["port"], {"name": "http"})
        return {each["kind"] for each in manifests} & {"GRPCRoute", "HTTPRoute", "InferencePool", "Ingress"}

    def test_every_route_leads_to_a_port_that_is_open(self):
        seen = set()
        for _, values, manifests in self.each():
            seen |= self.follow_routes(values, manifests)
        self.assertEqual({"GRPCRoute", "HTTPRoute", "InferencePool", "Ingress"}, seen)

    def test_a_fault_of_a_route_is_seen(self):
        """Of some a cluster can show the end (cluster_faults_test.py); the others are for gateways, of which none is here."""
        route = {"enabled": True, "parentRefs": [{"name": "public"}], "hostnames": ["chat.example"]}
        doors = {"gateway": {"grpcRoute": route, "httpRoute": route},
                 "ingress": {"enabled": True, "className": "nginx", "hosts": ["chat.example"], "tlsSecret": "a", "annotations": {"a": "b"}}}
        with_pool = merged(doors, {"gateway": {"inferencePool": {"enabled": True, "endpointPicker": {"name": "picker", "port": 9002}}}})
        cases = [merged(self.defaults, each) for each in (doors, with_pool)]

        def see(chart):
            for values in cases:
                manifests, _ = render(values, chart)
                self.follow_routes(values, manifests)
                for each in manifests:
                    if (each["apiVersion"], each["kind"]) in crds.SPECS:
                        crds.validate(each)
        see(CHART)
        text = (CHART / "templates" / "routes.yaml").read_text()
        with tempfile.TemporaryDirectory() as directory:
            chart = pathlib.Path(directory) / "bellwether"
            shutil.copytree(CHART, chart)
            for old, new in ROUTE_FAULTS:
                with self.subTest(old):
                    self.assertIn(old, text)
                    (chart / "templates" / "routes.yaml").write_text(text.replace(old, new))
                    with self.assertRaises((AssertionError, KeyError, ValueError, jsonschema.ValidationError)):
                        see(chart)

    def test_what_others_define_is_refused_where_their_rules_are_broken(self):
        values = merged(self.defaults, {"metrics": {"prometheusRule": {"enabled": True}}, "gateway": {"httpRoute": {
            "enabled": True, "parentRefs": [{"name": "public"}, {"name": "public", "sectionName": "https"}], "hostnames": []}}})
        route, rules = (next(each for each in render(values)[0] if each["kind"] == kind) for kind in ("HTTPRoute", "PrometheusRule"))
        rules["spec"]["groups"].append(rules["spec"]["groups"][0])
        for broken in route, rules:
            with self.assertRaisesRegex(jsonschema.ValidationError, "contradict each other"):
                crds.validate(broken)

    def test_cert_manager_makes_the_secrets_that_pods_mount(self):
        issuers = {"clusterIssuer": {"name": "cluster"}, "clientIssuer": {"kind": "ClusterIssuer", "name": "public"}, "dnsNames": ["chat.example"]}
        manifests, _ = render(merged(self.defaults, {"tls": {"clusterSecret": "a", "clientSecret": "b", "certManager": issuers}}))
        made = {each["spec"]["secretName"]: each["spec"] for each in manifests if each["kind"] == "Certificate"}
        mounted = {volume["secret"]["secretName"] for _, pod in pods_of(manifests) for volume in pod["volumes"] if "secret" in volume}
        self.assertEqual(set(made), mounted)
        self.assertEqual(made["a"]["issuerRef"], issuers["clusterIssuer"])
        self.assertEqual(made["b"]["issuerRef"], issuers["clientIssuer"])
        [worker] = (pod for manifest, pod in pods_of(manifests) if manifest["kind"] == "StatefulSet")
        self.assertIn(f"--cluster-tls-server-name={made['a']['dnsNames'][0]}", worker["containers"][0]["args"])
        self.assertEqual(made["b"]["dnsNames"], ["bell-bellwether", "bell-bellwether.test", "bell-bellwether.test.svc", "chat.example"])

    def test_wrong_values_are_refused_with_their_path(self):
        for path, wrong in (("quantize", {"quantize": "int3"}), ("replicas", {"replicas": 2}),
                            ("workerGroups/0/pods", {"workerGroups": [{"name": "a", "pods": 0, "ranks": 1}]}),
                            ("workerGroups/0/name", {"workerGroups": [{"name": "A b", "pods": 1, "ranks": 1}]}),
                            ("workerGroups/0", {"workerGroups": [{"name": "a", "pods": 1}]}),
                            ("layout", {"layout": "all"}),
                            ("leaderWorkerSet/enabled", {"leaderWorkerSet": {"autoscaling": {"enabled": True}}}),
                            ("workerGroups", {"leaderWorkerSet": {"enabled": True}, "workerGroups": [{"name": "a", "pods": 1, "ranks": 1},
                                                                                                      {"name": "b", "pods": 1, "ranks": 1}]}),
                            ("only more clusters do", {"autoscaling": {"enabled": True}}), ("drainSeconds", {"drainSeconds": "30s"}),
                            ("model/fetch", {"model": {"path": "/m", "fetch": {"command": ["x"]}}})):
            with helm_python.Chart.load(CHART) as chart:
                with self.assertRaises(helm_python.HelmError, msg=path) as refused:
                    chart.validate_schema(merged(self.defaults, wrong))
            self.assertIn(path.split("/")[-1], str(refused.exception).replace(".", "/"))

    def test_whatever_is_wrong_is_refused_with_its_path(self):
        with helm_python.Chart.load(CHART) as chart:
            chart.validate_schema(merged(self.defaults, self.space.draw(random.Random(0), everything=True)))
            for path, word, values in self.space.neighbours(random.Random(0)):
                with self.subTest(path, word=word):
                    with self.assertRaises(helm_python.HelmError) as refused:
                        chart.validate_schema(values)
                    self.assertRegex(str(refused.exception), f"- at '{path}': .*{word}")

    def test_every_value_stands_in_values_yaml(self):
        for path, node in self.space.places(self.defaults):
            written = values_space.at(self.defaults, path)
            if isinstance(written, dict) and written:  # else an object of others than the chart, or one whose comment says what may stand there
                missing = {name for name, each in node.get("properties", {}).items() if "const" not in each} - set(written)
                self.assertLessEqual(missing, {"global"}, path)

    def test_groups_that_differ_need_a_layout(self):
        groups = [{"name": "a", "pods": 1, "ranks": 2}, {"name": "b", "pods": 1, "ranks": 1}]
        with self.assertRaises(helm_python.HelmError) as refused:
            render(merged(self.defaults, {"workerGroups": groups}))
        self.assertIn("workerGroups differ in ranks", str(refused.exception))
        render(merged(self.defaults, {"workerGroups": groups, "layout": "20x2,12x1"}))
        groups[1]["name"] = "a"
        with self.assertRaises(helm_python.HelmError) as refused:
            render(merged(self.defaults, {"workerGroups": groups, "layout": "20x2,12x1"}))
        self.assertIn("two workerGroups are named a", str(refused.exception))

    def test_names_that_pods_could_not_have_are_refused(self):
        group = {"name": "a-rather-long-name", "pods": 1, "ranks": 1}
        with self.assertRaises(helm_python.HelmError) as refused:
            render(merged(self.defaults, {"fullnameOverride": "x" * 40, "workerGroups": [group]}))
        self.assertIn("use shorter names", str(refused.exception))

    def test_notes_say_what_comes_next(self):
        _, notes = render(self.defaults)
        self.assertIn("rollout status deployment/bell-bellwether-coordinator", notes)
        self.assertIn("Set model.volume or model.fetch", notes)
        _, notes = render(self.cases["values-mixed-machines.yaml"])
        self.assertIn("hostPath", notes)


if __name__ == "__main__":
    unittest.main()
