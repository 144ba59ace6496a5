"""Kubernetes' manifests, as far as this cluster honours them. What it neither honours nor names as without effect, it refuses.

A reader takes field after field out of a manifest; what is left at its end was not understood.
"""

import dataclasses
import re
from typing import Optional

# Fields that change nothing here, and why. Every other field is read by what follows, or refused.
WITHOUT_EFFECT = {
    "Container.imagePullPolicy": "images are directories of this machine",
    "Container.resources": "there are no control groups; what programs make of a quota has tests of its own",
    "EmptyDirVolumeSource.sizeLimit": "nothing here outgrows it",
    "PodSpec.imagePullSecrets": "images are directories of this machine",
    "PodSpec.tolerations": "no node has a taint",
    "PodSpec.priorityClassName": "no pod has to give way to another",
    "PodSecurityContext.fsGroupChangePolicy": "the volumes of a pod are new, or read-only",
    "SeccompProfile.type": "RuntimeDefault is a container runtime's, and there is none",
    "ServicePort.appProtocol": "a hint to gateways, of which there are none",
    "ContainerPort.protocol": "checked to be TCP", "ServicePort.protocol": "checked to be TCP",
    "ServiceSpec.type": "what lies beyond the cluster is not here; within it all types are alike",
    "ObjectMeta.annotations": "for tools beyond the cluster", "ObjectMeta.namespace": "there is one",
    "ServiceAccount.metadata": "nobody asks for rights",
}
# Kinds that others than Kubernetes read.
READ_BY_OTHERS = {"ScaledObject": "KEDA", "HorizontalPodAutoscaler": "a controller that needs metrics of a cluster",
                  "PodMonitor": "Prometheus Operator", "PrometheusRule": "Prometheus Operator", "Certificate": "cert-manager",
                  "GRPCRoute": "a gateway", "HTTPRoute": "a gateway", "InferencePool": "a gateway", "Ingress": "a gateway"}


class Refused(Exception):
    """A field that this cluster does not honour, with its path."""


class Fields:
    """An object of a manifest, out of which fields are taken. `kind` is Kubernetes' name of its type."""

    def __init__(self, kind, fields, path):
        self.kind, self.path = kind, path
        self._left = dict(fields or {})

    def __enter__(self):
        return self

    def __exit__(self, failure, *_):
        left = [name for name in self._left if f"{self.kind}.{name}" not in WITHOUT_EFFECT]
        if left and failure is None:
            raise Refused(f"{self.path}.{left[0]}: this cluster neither honours it nor knows that it changes nothing")

    def take(self, name, default=None):
        return self._left.pop(name, default)

    def need(self, name):
        if name not in self._left:
            raise Refused(f"{self.path}.{name} is missing")
        return self.take(name)

    def only(self, name, *honoured, default):
        """A field of which some values alone are honoured."""
        value = self.take(name, default)
        if value not in honoured:
            raise Refused(f"{self.path}.{name}: {value}: this cluster honours only {', '.join(map(str, honoured))}")
        return value

    def object(self, name, kind):
        return Fields(kind, self.take(name), f"{self.path}.{name}")

    def has(self, name):
        return name in self._left

    def list(self, name, kind):
        for index, each in enumerate(self.take(name) or []):
            with Fields(kind, each, f"{self.path}.{name}[{index}]") as fields:
                yield fields


# -- Pods


@dataclasses.dataclass(frozen=True)
class Probe:
    check: str  # exec, grpc, httpGet or tcpSocket
    target: object  # a command, a port, or (port, path)
    service: str  # of grpc
    delay: int
    period: int
    timeout: int
    failures: int


@dataclasses.dataclass(frozen=True)
class User:
    number: int
    group: int
    volume_group: Optional[int]
    no_new_privileges: bool
    no_capabilities: bool
    root_is_read_only: bool


@dataclasses.dataclass(frozen=True)
class Variable:
    """Of an environment: a text, or what a field of the pod or a key of a Secret holds."""
    name: str
    text: str = ""
    field: Optional[str] = None
    secret: Optional[tuple] = None  # (name, key)
    optional: bool = False  # without its Secret it is not set


@dataclasses.dataclass(frozen=True)
class Container:
    name: str
    image: str
    program: list  # command and args, variables not yet expanded
    variables: list  # of Variable
    ports: dict
    mounts: list  # (volume, path, whether it may be written)
    user: User
    pre_stop: Optional[list]
    probes: dict  # startup, readiness, liveness


@dataclasses.dataclass(frozen=True)
class Volume:
    kind: str  # emptyDir, hostPath, secret or configMap
    source: str  # the path or the object's name
    mode: int


@dataclasses.dataclass(frozen=True)
class PodSpec:
    containers: list
    init_containers: list
    volumes: dict
    grace: int
    restart: str
    service_account: str
    node_selector: dict
    spread: list  # (label of nodes, labels of pods)


def read_pod(fields):
    """PodSpec of Kubernetes -> ours."""
    with fields:
        with fields.object("securityContext", "PodSecurityContext") as security:
            defaults = {name: security.take(name) for name in ("runAsNonRoot", "runAsUser", "runAsGroup", "fsGroup")}
            with security.object("seccompProfile", "SeccompProfile"):
                pass
        fields.only("enableServiceLinks", False, default=True)
        fields.only("automountServiceAccountToken", False, default=True)
        return PodSpec(
            init_containers=[read_container(each, defaults) for each in fields.list("initContainers", "Container")],
            containers=[read_container(each, defaults) for each in fields.list("containers", "Container")],
            volumes=dict(read_volume(each) for each in fields.list("volumes", "Volume")),
            grace=fields.take("terminationGracePeriodSeconds", 30),
            restart=fields.only("restartPolicy", "Always", "Never", default="Always"),
            service_account=fields.take("serviceAccountName", "default"),
            node_selector=fields.take("nodeSelector", {}),
            spread=[read_spread(each) for each in fields.list("topologySpreadConstraints", "TopologySpreadConstraint")])


def read_container(fields, defaults):
    user = read_user(fields.object("securityContext", "SecurityContext"), defaults)
    pre_stop = None
    with fields.object("lifecycle", "Lifecycle") as lifecycle, lifecycle.object("preStop", "LifecycleHandler") as handler:
        if handler.has("exec"):
            pre_stop = read_exec(handler)
    ports = {}
    for port in fields.list("ports", "ContainerPort"):
        port.only("protocol", "TCP", default="TCP")
        ports[port.need("name")] = port.need("containerPort")
    probes = {kind: read_probe(fields.object(f"{kind}Probe", "Probe"), ports)
              for kind in ("startup", "readiness", "liveness") if fields.has(f"{kind}Probe")}
    return Container(
        name=fields.need("name"), image=fields.need("image"), program=[*fields.take("command", []), *fields.take("args", [])],
        variables=[read_variable(each) for each in fields.list("env", "EnvVar")], ports=ports, user=user, pre_stop=pre_stop, probes=probes,
        mounts=[(mount.need("name"), mount.need("mountPath"), not mount.take("readOnly", False))
                for mount in fields.list("volumeMounts", "VolumeMount")])


def read_user(fields, defaults):
    with fields:
        values = {name: fields.take(name, defaults.get(name)) for name in ("runAsNonRoot", "runAsUser", "runAsGroup")}
        if values["runAsNonRoot"] and not values["runAsUser"]:
            raise Refused(f"{fields.path}: the image's user is root, and runAsNonRoot forbids it")
        with fields.object("capabilities", "Capabilities") as capabilities:
            dropped = capabilities.take("drop", [])
            if dropped not in ([], ["ALL"]):
                raise Refused(f"{capabilities.path}.drop: {dropped}")
        return User(number=values["runAsUser"] or 0, group=values["runAsGroup"] or 0, volume_group=defaults["fsGroup"],
                    no_new_privileges=not fields.take("allowPrivilegeEscalation", True), no_capabilities=dropped == ["ALL"],
                    root_is_read_only=fields.take("readOnlyRootFilesystem", False))


def read_exec(handler):
    with handler.object("exec", "ExecAction") as action:
        return action.need("command")


def read_variable(fields):
    name, text = fields.need("name"), fields.take("value")
    if text is not None or not fields.has("valueFrom"):
        return Variable(name, text or "")
    with fields.object("valueFrom", "EnvVarSource") as source:
        if source.has("secretKeyRef"):
            with source.object("secretKeyRef", "SecretKeySelector") as key:
                return Variable(name, secret=(key.need("name"), key.need("key")), optional=key.take("optional", False))
        with source.object("fieldRef", "ObjectFieldSelector") as field:
            return Variable(name, field=field.only("fieldPath", "metadata.name", "metadata.uid", "status.podIP", default=None))


def read_probe(fields, ports):
    def port_of(action):
        port = action.need("port")
        if isinstance(port, str) and port not in ports:
            raise Refused(f"{action.path}.port: no port is called {port}")
        return ports.get(port, port)

    with fields:
        service = ""
        check = next((each for each in ("exec", "grpc", "httpGet", "tcpSocket") if fields.has(each)), None)
        if check is None:
            raise Refused(f"{fields.path}: it does nothing")
        if check == "exec":
            target = read_exec(fields)
        else:
            with fields.object(check, f"Probe_{check}") as action:
                target = port_of(action)
                if check == "grpc":
                    service = action.take("service", "")
                if check == "httpGet":
                    target = (target, action.take("path", "/"))
                    action.only("scheme", "HTTP", default="HTTP")
        fields.only("successThreshold", 1, default=1)
        return Probe(check=check, target=target, service=service, delay=fields.take("initialDelaySeconds", 0),
                     period=fields.take("periodSeconds", 10), timeout=fields.take("timeoutSeconds", 1),
                     failures=fields.take("failureThreshold", 3))


def read_volume(fields):
    name = fields.need("name")
    if fields.has("emptyDir"):
        with fields.object("emptyDir", "EmptyDirVolumeSource") as source:
            source.only("medium", "", "Memory", default="")
            return name, Volume("emptyDir", "", 0)
    if fields.has("hostPath"):
        with fields.object("hostPath", "HostPathVolumeSource") as source:
            source.only("type", "", "Directory", default="")
            return name, Volume("hostPath", source.need("path"), 0)
    for kind, key in (("secret", "secretName"), ("configMap", "name")):
        if fields.has(kind):
            with fields.object(kind, "ProjectedSource") as source:
                return name, Volume(kind, source.need(key), source.take("defaultMode", 0o644))
    raise Refused(f"{fields.path}: of volumes this cluster has emptyDir, hostPath, secret and configMap")


def read_spread(fields):
    fields.only("maxSkew", 1, default=None)
    fields.only("whenUnsatisfiable", "ScheduleAnyway", default=None)
    return fields.need("topologyKey"), read_selector(fields.object("labelSelector", "LabelSelector"))


def read_selector(fields):
    with fields:
        return fields.take("matchLabels", {})


def selects(selector, labels):
    return selector.items() <= labels.items()


# -- What leads pods


@dataclasses.dataclass
class Metadata:
    name: str
    labels: dict


def read_metadata(fields):
    with fields:
        return Metadata(fields.take("name", ""), fields.take("labels", {}))


@dataclasses.dataclass
class Workload:
    """A Deployment or a StatefulSet, or what a LeaderWorkerSet makes for a replica: a Leader and its Workers."""
    kind: str
    name: str
    replicas: int
    service: str
    labels: dict  # of its pods
    template: dict  # as it was written: pods are replaced when it changes
    pod: PodSpec
    variables: dict = dataclasses.field(default_factory=dict)  # that its controller gives every container

    def names(self):
        """Of its pods, where they are always the same."""
        first = 1 if self.kind == "Workers" else 0
        return [self.name] if self.kind == "Leader" else [f"{self.name}-{first + i}" for i in range(self.replicas)]


def read_workload(manifest):
    with Fields(manifest["kind"], manifest, manifest["kind"]) as fields:
        fields.take("apiVersion"), fields.take("kind")
        metadata = read_metadata(fields.object("metadata", "ObjectMeta"))
        with fields.object("spec", f"{manifest['kind']}Spec") as spec:
            selector = read_selector(spec.object("selector", "LabelSelector"))
            if manifest["kind"] == "Deployment":
                with spec.object("strategy", "DeploymentStrategy") as strategy:
                    strategy.only("type", "Recreate", default="RollingUpdate")
            else:
                spec.only("podManagementPolicy", "Parallel", default="OrderedReady")
                with spec.object("updateStrategy", "StatefulSetUpdateStrategy") as strategy:
                    strategy.only("type", "OnDelete", default="RollingUpdate")
            replicas, service, template = spec.take("replicas", 1), spec.take("serviceName", ""), spec.need("template")
            path = f"{manifest['kind']}/{metadata.name}"
            labels, pod = read_template(template, path)
            if not selects(selector, labels):
                raise Refused(f"{path}: its selector does not match its own pods")
    return Workload(manifest["kind"], metadata.name, replicas, service, labels, template, pod)


def read_template(template, path):
    with Fields("PodTemplateSpec", template, path) as parts:
        return read_metadata(parts.object("metadata", "ObjectMeta")).labels, read_pod(parts.object("spec", "PodSpec"))


@dataclasses.dataclass
class Replicas:
    """A LeaderWorkerSet."""
    name: str
    groups: list  # (Leader, Workers), one a replica

    def service(self):
        """By which workers find their leader."""
        return Service(self.name, {f"{LEADER_WORKER_SET}/name": self.name}, headless=True, unready_too=True, ports=[])


LEADER_WORKER_SET = "leaderworkerset.sigs.k8s.io"


def read_replicas(manifest, namespace):
    with Fields("LeaderWorkerSet", manifest, "LeaderWorkerSet") as fields:
        fields.take("apiVersion"), fields.take("kind")
        name = read_metadata(fields.object("metadata", "ObjectMeta")).name
        with fields.object("spec", "LeaderWorkerSetSpec") as spec:
            count = spec.take("replicas", 1)
            spec.only("startupPolicy", "LeaderCreated", default="LeaderCreated")
            with spec.object("networkConfig", "NetworkConfig") as network:
                network.only("subdomainPolicy", "Shared", default="Shared")
            with spec.object("rolloutStrategy", "RolloutStrategy") as strategy:
                strategy.only("type", "RollingUpdate", default="RollingUpdate")
                with strategy.object("rollingUpdateConfiguration", "RollingUpdateConfiguration") as rolling:
                    rolling.only("maxUnavailable", 1, default=1)
                    rolling.only("maxSurge", 0, default=0)
            with spec.object("leaderWorkerTemplate", "LeaderWorkerTemplate") as parts:
                parts.only("restartPolicy", "None", default="RecreateGroupOnPodRestart")
                size = parts.need("size")
                templates = [(each, parts.need(key)) for each, key in (("Leader", "leaderTemplate"), ("Workers", "workerTemplate"))]
    read = [(kind, template, *read_template(template, f"{name}/{kind}")) for kind, template in templates]

    def workload(kind, template, labels, pod, index):
        return Workload(kind, f"{name}-{index}", 1 if kind == "Leader" else size - 1, name,
                        labels | {f"{LEADER_WORKER_SET}/name": name, f"{LEADER_WORKER_SET}/group-index": str(index)}, template, pod,
                        {"LWS_LEADER_ADDRESS": f"{name}-{index}.{name}.{namespace}", "LWS_GROUP_SIZE": str(size)})
    return Replicas(name, [tuple(workload(*each, index) for each in read) for index in range(count)])


def read_single_pod(manifest):
    with Fields("Pod", manifest, "Pod") as fields:
        fields.take("apiVersion"), fields.take("kind")
        metadata = read_metadata(fields.object("metadata", "ObjectMeta"))
        return metadata, read_pod(fields.object("spec", "PodSpec"))


# -- What lies around them


@dataclasses.dataclass
class Service:
    name: str
    selector: dict
    headless: bool
    unready_too: bool  # publishNotReadyAddresses
    ports: list  # (port, port of the pod: a number or a name)


def read_service(manifest):
    with Fields("Service", manifest, "Service") as fields:
        fields.take("apiVersion"), fields.take("kind")
        name = read_metadata(fields.object("metadata", "ObjectMeta")).name
        with fields.object("spec", "ServiceSpec") as spec:
            ports = []
            for port in spec.list("ports", "ServicePort"):
                port.only("protocol", "TCP", default="TCP")
                port.take("name")
                number = port.need("port")
                ports.append((number, port.take("targetPort", number)))
            return Service(name, spec.need("selector"), spec.only("clusterIP", None, "None", default=None) == "None",
                           spec.take("publishNotReadyAddresses", False), ports)


@dataclasses.dataclass
class Policy:
    name: str
    selector: dict
    rules: dict  # ingress, egress: of those it has, a list of (selectors of the others or None for all, [(protocol, first, last)])


def read_policy(manifest):
    with Fields("NetworkPolicy", manifest, "NetworkPolicy") as fields:
        fields.take("apiVersion"), fields.take("kind")
        name = read_metadata(fields.object("metadata", "ObjectMeta")).name
        with fields.object("spec", "NetworkPolicySpec") as spec:
            selector = read_selector(spec.object("podSelector", "LabelSelector"))
            types = [each.lower() for each in spec.need("policyTypes")]
            return Policy(name, selector, {each: [read_rule(rule, "from" if each == "ingress" else "to")
                                                  for rule in spec.list(each, "NetworkPolicyRule")] for each in types})


def read_rule(fields, others):
    selectors = None
    if fields.has(others):
        selectors = [read_selector(each.object("podSelector", "LabelSelector")) for each in fields.list(others, "NetworkPolicyPeer")]
    if not fields.has("ports"):
        return selectors, [("tcp", 1, 65535), ("udp", 1, 65535)]
    return selectors, [(port.only("protocol", "TCP", "UDP", default="TCP").lower(), first := port.need("port"), port.take("endPort", first))
                       for port in fields.list("ports", "NetworkPolicyPort")]


@dataclasses.dataclass
class Budget:
    name: str
    selector: dict
    unavailable: int


def read_budget(manifest):
    with Fields("PodDisruptionBudget", manifest, "PodDisruptionBudget") as fields:
        fields.take("apiVersion"), fields.take("kind")
        name = read_metadata(fields.object("metadata", "ObjectMeta")).name
        with fields.object("spec", "PodDisruptionBudgetSpec") as spec:
            return Budget(name, read_selector(spec.object("selector", "LabelSelector")), spec.need("maxUnavailable"))


VARIABLE = re.compile(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_]*)\)")


def expand(text, variables):
    """$(NAME) of a command line; a name that nobody declared stays as it is, as Kubernetes has it."""
    return VARIABLE.sub(lambda match: "$" if match.group() == "$$" else variables.get(match.group(1), match.group()), text)
