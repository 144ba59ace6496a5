{{/* Names and labels */}}
{{- define "bellwether.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "bellwether.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "bellwether.name" . -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "bellwether.selector" -}}
app.kubernetes.io/name: {{ include "bellwether.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "bellwether.labels" -}}
{{ include "bellwether.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "bellwether.image" -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}

{{/* Ports inside the pods: rank r of a pod listens for other pods' workers on links + r, for Prometheus on rankMetrics + r. */}}
{{- define "bellwether.ports.client" -}}7400{{- end -}}
{{- define "bellwether.ports.worker" -}}7401{{- end -}}
{{- define "bellwether.ports.http" -}}7480{{- end -}}
{{- define "bellwether.ports.metrics" -}}7490{{- end -}}
{{- define "bellwether.ports.links" -}}7410{{- end -}}
{{- define "bellwether.ports.rankMetrics" -}}7430{{- end -}}

{{/* Workers in all. */}}
{{- define "bellwether.workers" -}}
{{- $count := 0 -}}
{{- range .Values.workerGroups -}}{{- $count = add $count (mul .pods .ranks) -}}{{- end -}}
{{- $count -}}
{{- end -}}

{{/* Ranks of the largest pod. */}}
{{- define "bellwether.ranksMax" -}}
{{- $ranks := 0 -}}
{{- range .Values.workerGroups -}}{{- $ranks = max $ranks .ranks -}}{{- end -}}
{{- $ranks -}}
{{- end -}}

{{/* The ranks of every stage, or 0 where they differ and a layout says which. */}}
{{- define "bellwether.ranks" -}}
{{- $ranks := (first .Values.workerGroups).ranks | int -}}
{{- range .Values.workerGroups -}}
{{- if ne (int .ranks) $ranks -}}{{- $ranks = 0 -}}{{- end -}}
{{- end -}}
{{- if and (eq $ranks 0) (not .Values.layout) -}}
{{- fail "workerGroups differ in ranks: say with `layout` which layers have how many, such as 20x2,12x1" -}}
{{- end -}}
{{- $ranks -}}
{{- end -}}

{{/* Fits the restricted profile of Pod Security Standards. */}}
{{- define "bellwether.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}
{{- define "bellwether.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* What every pod has: the model and a place for scratch files. Arguments: root, pod (coordinator or a group). */}}
{{- define "bellwether.volumes" -}}
- name: models
  {{- toYaml (default (dict "emptyDir" dict) .root.Values.model.volume) | nindent 2 }}
- name: scratch
  emptyDir: {}
{{- with .root.Values.tls.clusterSecret }}
- name: cluster-tls
  secret: {secretName: {{ . | quote }}, defaultMode: 0440}
{{- end }}
{{- with .root.Values.joinSecret }}
- name: join-secret
  secret: {secretName: {{ . | quote }}, defaultMode: 0440}
{{- end }}
{{- with .pod.sharedMemory }}
- name: shared-memory
  emptyDir: {medium: Memory, sizeLimit: {{ . }}}
{{- end }}
{{- with .pod.shardCache }}
- name: shard-cache
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .pod.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
{{- define "bellwether.mounts" -}}
- {name: models, mountPath: /models, readOnly: true}
- {name: scratch, mountPath: /tmp}
{{- if .root.Values.tls.clusterSecret }}
- {name: cluster-tls, mountPath: /etc/bellwether/cluster-tls, readOnly: true}
{{- end }}
{{- if .root.Values.joinSecret }}
- {name: join-secret, mountPath: /etc/bellwether/join, readOnly: true}
{{- end }}
{{- if .pod.sharedMemory }}
- {name: shared-memory, mountPath: /dev/shm}
{{- end }}
{{- if .pod.shardCache }}
- {name: shard-cache, mountPath: /var/cache/bellwether}
{{- end }}
{{- with .pod.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Between the programs of the cluster. */}}
{{- define "bellwether.clusterSecurity" -}}
{{- if .Values.tls.clusterSecret }}
- --cluster-tls-certificate=/etc/bellwether/cluster-tls/tls.crt
- --cluster-tls-key=/etc/bellwether/cluster-tls/tls.key
- --cluster-tls-authority=/etc/bellwether/cluster-tls/ca.crt
{{- end }}
{{- if .Values.joinSecret }}
- --join-secret=/etc/bellwether/join/secret
{{- end }}
{{- end -}}

{{/* Between clients and the coordinator. */}}
{{- define "bellwether.clientSecurity" -}}
{{- if .Values.tls.clientSecret }}
- --tls-certificate=/etc/bellwether/client-tls/tls.crt
- --tls-key=/etc/bellwether/client-tls/tls.key
{{- if .Values.tls.requireClients }}
- --tls-authority=/etc/bellwether/client-tls/ca.crt
{{- end }}
{{- end }}
{{- if .Values.apiKeysSecret }}
- --api-keys=/etc/bellwether/api-keys/keys
{{- end }}
{{- if not (and .Values.tls.clientSecret .Values.tls.clusterSecret) }}
# What is in clear the network policy guards: it says who reaches it.
- --insecure
{{- end }}
{{- end -}}

{{- define "bellwether.fetch" -}}
{{- if .Values.model.fetch.image }}
initContainers:
  - name: fetch-model
    image: {{ .Values.model.fetch.image | quote }}
    {{- with .Values.model.fetch.command }}
    command: {{ toJson . }}
    {{- end }}
    {{- with .Values.model.fetch.args }}
    args: {{ toJson . }}
    {{- end }}
    {{- with .Values.model.fetch.env }}
    env:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with .Values.model.fetch.resources }}
    resources:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    securityContext:
      {{- include "bellwether.containerSecurity" . | nindent 6 }}
    volumeMounts:
      - {name: models, mountPath: /models}
      - {name: scratch, mountPath: /tmp}
{{- end }}
{{- end -}}

{{/* Where a pod may run. Argument: coordinator or a group. */}}
{{- define "bellwether.scheduling" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- end -}}
