"""Manifests for others than Kubernetes, as their own definitions (CustomResourceDefinition) have them.

Written down by hand from the sources named, and only as far as the chart goes: a field that is not here is refused.
"""

import jsonschema

NAME = {"type": "string", "minLength": 1, "maxLength": 253}
TEXT = {"type": "string"}
LABELS = {"type": "object", "additionalProperties": {"type": "string", "maxLength": 63,
                                                     "pattern": r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"}}
HOST = NAME | {"pattern": r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"}
PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
SECTION = NAME | {"pattern": r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"}
DURATION = {"type": "string", "pattern": r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"}  # of Gateway API
WAIT = {"type": "string", "pattern": r"^(0|(([0-9]+)y)?(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?(([0-9]+)ms)?)$"}  # of Prometheus


def record(*required, **fields):
    """An object of these fields and no others."""
    return {"type": "object", "additionalProperties": False, "required": list(required), "properties": fields}


def array(items, least=0, most=1000):
    return {"type": "array", "items": items, "minItems": least, "maxItems": most}


def route(**rule):
    reference = {"group": {"type": "string", "maxLength": 253}, "kind": NAME, "name": NAME, "namespace": NAME, "port": PORT}
    return record(parentRefs=array(record("name", sectionName=SECTION, **reference), most=32), hostnames=array(HOST, most=16),
                  rules=array(record(backendRefs=array(record("name", weight={"type": "integer"}, **reference), most=16), **rule), 1, 16))


# (apiVersion, kind): the schema of `spec`.
SPECS = {
    # github.com/kubernetes-sigs/gateway-api v1.6.1, config/crd/standard. HTTP alone has timeouts; "0s" is none.
    ("gateway.networking.k8s.io/v1", "GRPCRoute"): route(),
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): route(timeouts=record(request=DURATION, backendRequest=DURATION)),
    # github.com/kubernetes-sigs/gateway-api-inference-extension v1.6.0, config/crd/bases. A Service needs its port.
    ("inference.networking.k8s.io/v1", "InferencePool"): record(
        "selector", "targetPorts", selector=record("matchLabels", matchLabels=LABELS | {"minProperties": 1, "maxProperties": 64}),
        targetPorts=array(record("number", number=PORT), 1, 8),
        endpointPickerRef=record("name", "port", name=NAME, port=record("number", number=PORT),
                                 failureMode={"enum": ["FailOpen", "FailClose"]})),
    # github.com/cert-manager/cert-manager, deploy/crds at 0509c05ab4c8.
    ("cert-manager.io/v1", "Certificate"): record(
        "secretName", "issuerRef", secretName=TEXT, issuerRef=record("name", name=TEXT, kind=TEXT, group=TEXT),
        dnsNames=array(TEXT), usages=array({"enum": ["server auth", "client auth"]}),
        privateKey=record(algorithm={"enum": ["RSA", "ECDSA", "Ed25519"]}, size={"type": "integer"}, rotationPolicy={"enum": ["Never", "Always"]})),
    # github.com/kubernetes-sigs/lws v0.9.0, config/crd/bases. The templates are Kubernetes' own.
    ("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet"): record(
        "leaderWorkerTemplate", replicas={"type": "integer"}, startupPolicy={"enum": ["LeaderCreated", "LeaderReady"]},
        networkConfig=record("subdomainPolicy", subdomainPolicy={"enum": ["Shared", "UniquePerReplica"]}),
        rolloutStrategy=record("type", type={"enum": ["RollingUpdate"]}, rollingUpdateConfiguration=record(
            maxUnavailable={"type": "integer"}, maxSurge={"type": "integer"}, partition={"type": "integer"})),
        leaderWorkerTemplate=record("workerTemplate", size={"type": "integer", "minimum": 1}, leaderTemplate={"type": "object"},
                                    workerTemplate={"type": "object"},
                                    restartPolicy={"enum": ["Default", "RecreateGroupOnPodRestart", "RecreateGroupAfterStart", "None"]})),
    # github.com/kedacore/keda, config/crd/bases, and keda.sh's page on the scaler for Prometheus.
    ("keda.sh/v1alpha1", "ScaledObject"): record(
        "scaleTargetRef", "triggers", scaleTargetRef=record("name", apiVersion=TEXT, kind=TEXT, name=TEXT),
        minReplicaCount={"type": "integer"}, maxReplicaCount={"type": "integer"},
        triggers=array(record("type", "metadata", type={"enum": ["prometheus"]},
                              metadata=record("serverAddress", "query", "threshold", serverAddress=TEXT, query=TEXT, threshold=TEXT)), 1)),
    # github.com/prometheus-operator/prometheus-operator, PodMonitor and PrometheusRule of monitoring.coreos.com/v1.
    ("monitoring.coreos.com/v1", "PodMonitor"): record(
        "selector", "podMetricsEndpoints", selector=record(matchLabels=LABELS),
        podMetricsEndpoints=array(record(port=TEXT, interval=WAIT, relabelings=array(record(
            sourceLabels=array(TEXT), targetLabel=TEXT, replacement=TEXT))))),
    ("monitoring.coreos.com/v1", "PrometheusRule"): record(groups=array(record(
        "name", name=NAME, interval=WAIT, rules=array(record("expr", record=TEXT, alert=NAME, expr=TEXT, **{
            "for": WAIT, "labels": {"type": "object", "additionalProperties": TEXT},
            "annotations": {"type": "object", "additionalProperties": TEXT}}))))),
}


def validate(manifest):
    spec = SPECS[manifest["apiVersion"], manifest["kind"]]
    jsonschema.validate(manifest, record("apiVersion", "kind", "metadata", "spec", apiVersion=TEXT, kind=TEXT, spec=spec,
                                         metadata=record("name", name=NAME, labels=LABELS, annotations={"type": "object"})))
