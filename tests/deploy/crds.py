"""Manifests for others than Kubernetes, as their own definitions (CustomResourceDefinition) have them.

Written down by hand from the sources named, and only as far as the chart goes: a field that is not here is refused. What is here was held
against the sources field by field (types, bounds, patterns, enumerations, what must be there, and the rules between fields); it is nowhere
wider than they are, and narrower where the chart needs less.
"""

import jsonschema

NAME = {"type": "string", "minLength": 1, "maxLength": 253}
TEXT = {"type": "string"}
LABELS = {"type": "object", "additionalProperties": {"type": "string", "maxLength": 63,
                                                     "pattern": r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"}}
HOST = NAME | {"pattern": r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"}
PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
SECTION = NAME | {"pattern": r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"}
NAMESPACE = {"type": "string", "minLength": 1, "maxLength": 63, "pattern": r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"}
KIND = {"type": "string", "minLength": 1, "maxLength": 63, "pattern": r"^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$"}
GROUP = {"type": "string", "maxLength": 253, "pattern": r"^$|" + SECTION["pattern"]}
COUNT = {"type": "integer", "minimum": 0, "maximum": 1_000_000}
DURATION = {"type": "string", "pattern": r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"}  # of Gateway API
WAIT = {"type": "string", "pattern": r"^(0|(([0-9]+)y)?(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?(([0-9]+)ms)?)$"}  # of Prometheus


def record(*required, **fields):
    """An object of these fields and no others."""
    return {"type": "object", "additionalProperties": False, "required": list(required), "properties": fields}


def array(items, least=0, most=1000):
    return {"type": "array", "items": items, "minItems": least, "maxItems": most}


def route(**rule):
    reference = {"group": GROUP, "kind": KIND, "name": NAME, "namespace": NAMESPACE, "port": PORT}
    return record(parentRefs=array(record("name", sectionName=SECTION, **reference), most=32), hostnames=array(HOST, most=16),
                  rules=array(record(backendRefs=array(record("name", weight=COUNT, **reference), most=16), **rule), 1, 16))


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
    # github.com/cert-manager/cert-manager v1.21.1, deploy/crds.
    ("cert-manager.io/v1", "Certificate"): record(
        "secretName", "issuerRef", secretName=TEXT, issuerRef=record("name", name=TEXT, kind=TEXT, group=TEXT),
        dnsNames=array(TEXT), usages=array({"enum": ["server auth", "client auth"]}),
        privateKey=record(algorithm={"enum": ["RSA", "ECDSA", "Ed25519"]}, size={"type": "integer"}, rotationPolicy={"enum": ["Never", "Always"]})),
    # github.com/kubernetes-sigs/lws v0.9.0 and v0.10.0, config/crd/bases. The templates are Kubernetes' own.
    ("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet"): record(
        "leaderWorkerTemplate", replicas=COUNT, startupPolicy={"enum": ["LeaderCreated", "LeaderReady"]},
        networkConfig=record("subdomainPolicy", subdomainPolicy={"enum": ["Shared", "UniquePerReplica"]}),
        rolloutStrategy=record("type", type={"enum": ["RollingUpdate"]}, rollingUpdateConfiguration=record(
            maxUnavailable=COUNT, maxSurge=COUNT, partition=COUNT)),
        leaderWorkerTemplate=record("workerTemplate", size={"type": "integer", "minimum": 1}, leaderTemplate={"type": "object"},
                                    workerTemplate={"type": "object"},
                                    restartPolicy={"enum": ["Default", "RecreateGroupOnPodRestart", "RecreateGroupAfterStart", "None"]})),
    # github.com/kedacore/keda v2.20.2, config/crd/bases, and what pkg/scalers/prometheus_scaler.go reads of a trigger.
    ("keda.sh/v1alpha1", "ScaledObject"): record(
        "scaleTargetRef", "triggers", scaleTargetRef=record("name", apiVersion=TEXT, kind=TEXT, name=NAME),
        minReplicaCount=COUNT, maxReplicaCount=COUNT | {"minimum": 1},
        triggers=array(record("type", "metadata", type={"enum": ["prometheus"]},
                              metadata=record("serverAddress", "query", "threshold", serverAddress=TEXT, query=TEXT,
                                              threshold={"type": "string", "pattern": "^[0-9.]+$"})), 1)),
    # github.com/prometheus-operator/prometheus-operator v0.93.0, example/prometheus-operator-crd.
    ("monitoring.coreos.com/v1", "PodMonitor"): record(
        "selector", "podMetricsEndpoints", selector=record(matchLabels=LABELS),
        podMetricsEndpoints=array(record(port=TEXT, interval=WAIT, relabelings=array(record(
            sourceLabels=array(TEXT), targetLabel=TEXT, replacement=TEXT))))),
    ("monitoring.coreos.com/v1", "PrometheusRule"): record(groups=array(record(
        "name", name=NAME, interval=WAIT, rules=array(record("expr", record=TEXT, alert=NAME, expr=TEXT, **{
            "for": WAIT, "labels": {"type": "object", "additionalProperties": TEXT},
            "annotations": {"type": "object", "additionalProperties": TEXT}}))))),
}


def are_apart(references):
    """References to one parent name sections of it, each another."""
    sections = {}
    for each in references:
        parent = tuple(each.get(key, default) for key, default in (("group", ""), ("kind", "Gateway"), ("namespace", ""), ("name", "")))
        sections.setdefault(parent, []).append(each.get("sectionName", ""))
    return all(len(named) == 1 or (all(named) and len(named) == len(set(named))) for named in sections.values())


# What the definitions say of several fields at once (x-kubernetes-validations, keys of lists).
RULES = {
    "GRPCRoute": lambda spec: are_apart(spec["parentRefs"]) and has_ports(spec),
    "HTTPRoute": lambda spec: are_apart(spec["parentRefs"]) and has_ports(spec),
    "ScaledObject": lambda spec: spec.get("minReplicaCount", 0) <= spec.get("maxReplicaCount", 100),
    "PrometheusRule": lambda spec: len({group["name"] for group in spec["groups"]}) == len(spec["groups"]),
}


def has_ports(spec):
    """A Service, which a backend is unless it says otherwise, needs its port."""
    return all("port" in each or each.get("kind", "Service") != "Service" for rule in spec["rules"] for each in rule.get("backendRefs", []))


def values_of(node):
    inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    yield node
    for each in inner:
        yield from values_of(each)


def validate(manifest):
    spec = SPECS[manifest["apiVersion"], manifest["kind"]]
    jsonschema.validate(manifest, record("apiVersion", "kind", "metadata", "spec", apiVersion=TEXT, kind=TEXT, spec=spec,
                                         metadata=record("name", name=NAME, labels=LABELS, annotations={"type": "object"})))
    if None in values_of(manifest):  # which Kubernetes' own kinds pass over
        raise jsonschema.ValidationError(f"{manifest['kind']} {manifest['metadata']['name']}: a field without a value")
    if not RULES.get(manifest["kind"], lambda _: True)(manifest["spec"]):
        raise jsonschema.ValidationError(f"{manifest['kind']} {manifest['metadata']['name']}: its fields contradict each other")
