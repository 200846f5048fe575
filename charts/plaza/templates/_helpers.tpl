{{/* The name that objects begin with. */}}
{{- define "plaza.name" -}}
{{- .Values.nameOverride | default .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Selector labels of a component: dict "root" . "component" "edge". */}}
{{- define "plaza.selector" -}}
app.kubernetes.io/name: plaza
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* All labels of a component. */}}
{{- define "plaza.labels" -}}
{{ include "plaza.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: plaza
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | quote }}
{{- end -}}

{{/* metadata of an object: dict "root" "component", optional "name" (suffix), "annotations", "labels".
     Of two labels or annotations of one name the more particular wins, and the selector's always. */}}
{{- define "plaza.metadata" -}}
name: {{ include "plaza.name" .root }}-{{ .name | default .component }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- $own := include "plaza.labels" . | fromYaml }}
  {{- merge $own (deepCopy (.labels | default dict)) .root.Values.commonLabels | toYaml | nindent 2 }}
{{- with merge (deepCopy (.annotations | default dict)) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* metadata of a pod template: dict "root" "component" "values", optional "annotations". Versions are no
     labels here: a chart that changes nothing in a pod must not restart it. */}}
{{- define "plaza.podMetadata" -}}
labels:
  {{- $own := include "plaza.selector" . | fromYaml }}
  {{- merge $own (deepCopy (.values.podLabels | default dict)) .root.Values.commonLabels | toYaml | nindent 2 }}
{{- with merge (deepCopy (.values.podAnnotations | default dict)) (.annotations | default dict) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Image of a service: dict "root" "image". */}}
{{- define "plaza.image" -}}
{{ .root.Values.imageRegistry }}{{ .image.repository }}
{{- if .image.digest }}@{{ .image.digest }}{{ else }}:{{ .image.tag | default .root.Chart.AppVersion }}{{ end }}
{{- end -}}

{{/* Environment list without doubles: dict "base" (list) "extra" (list). The later one wins. */}}
{{- define "plaza.env" -}}
{{- $seen := dict -}}
{{- $order := list -}}
{{- range concat .base .extra -}}
{{- if not (hasKey $seen .name) }}{{ $order = append $order .name }}{{ end -}}
{{- $_ := set $seen .name . -}}
{{- end -}}
{{- $list := list -}}
{{- range $order }}{{ $list = append $list (get $seen .) }}{{ end -}}
{{- toYaml $list -}}
{{- end -}}

{{/* Environment that every service has, as YAML under the key `env`: dict "root" "component". */}}
{{- define "plaza.commonEnv" -}}
env:
  - { name: PLAZA_LOG_FORMAT, value: {{ .root.Values.logs.format | quote }} }
  - { name: PLAZA_LOG_LEVEL, value: {{ .root.Values.logs.level | quote }} }
  - { name: POD_NAME, valueFrom: { fieldRef: { fieldPath: metadata.name } } }
  - { name: POD_IP, valueFrom: { fieldRef: { fieldPath: status.podIP } } }
  {{- with .root.Values.otel.endpoint }}
  - { name: NODE_NAME, valueFrom: { fieldRef: { fieldPath: spec.nodeName } } }
  - { name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ . | quote }} }
  - { name: OTEL_EXPORTER_OTLP_PROTOCOL, value: {{ $.root.Values.otel.protocol }} }
  - { name: OTEL_TRACES_SAMPLER, value: {{ $.root.Values.otel.sampler }} }
  - { name: OTEL_TRACES_SAMPLER_ARG, value: {{ $.root.Values.otel.samplerRatio | quote }} }
  - { name: OTEL_SERVICE_NAME, value: plaza-{{ $.component }} }
  - name: OTEL_RESOURCE_ATTRIBUTES
    value: k8s.pod.name=$(POD_NAME),k8s.node.name=$(NODE_NAME),k8s.namespace.name={{ $.root.Release.Namespace }}
  {{- end }}
{{- end -}}

{{/* Restricted pod security. */}}
{{- define "plaza.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: { type: RuntimeDefault }
{{- end -}}
{{- define "plaza.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end -}}

{{/* Which nodes a pod may go to: dict "root" "values". */}}
{{- define "plaza.scheduling" -}}
{{- range $key := list "nodeSelector" "tolerations" "affinity" "priorityClassName" }}
{{- with get $.values $key }}
{{ dict $key . | toYaml }}
{{- end }}
{{- end }}
{{- with .root.Values.imagePullSecrets }}
{{ dict "imagePullSecrets" . | toYaml }}
{{- end }}
{{- end -}}

{{/* How the pods of a service spread: dict "root" "component" "values". */}}
{{- define "plaza.spread" -}}
topologySpreadConstraints:
{{- with .values.topologySpreadConstraints }}
  {{- toYaml . | nindent 2 }}
{{- else }}
  {{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: ScheduleAnyway
    matchLabelKeys: [pod-template-hash]
    labelSelector:
      matchLabels:
        {{- include "plaza.selector" $ | nindent 8 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* The name of a component's Service inside the cluster: dict "root" "component". */}}
{{- define "plaza.host" -}}
{{ include "plaza.name" .root }}-{{ .component }}.{{ .root.Release.Namespace }}.svc.{{ .root.Values.clusterDomain }}
{{- end -}}

{{/* The load balancer's idle timeout that counts. */}}
{{- define "plaza.idleTimeout" -}}
{{- $given := int .Values.ingress.idleTimeoutSeconds -}}
{{- if $given }}{{ $given }}{{ else if eq .Values.ingress.preset "alb-aliyun" }}15{{ else }}60{{ end -}}
{{- end -}}

{{/* Seconds between pings. */}}
{{- define "plaza.ping" -}}
{{- $given := int .Values.edge.pingIntervalSeconds -}}
{{- if $given }}{{ $given }}{{ else if and (eq .Values.ingress.preset "alb-aliyun") (not (int .Values.ingress.idleTimeoutSeconds)) }}10{{ else }}20{{ end -}}
{{- end -}}

{{/* Seconds that an edge needs between the order to stop and its end: dict of edge.drain. */}}
{{- define "plaza.stopSeconds" -}}
{{ add (int .preStopSeconds) (int .windowSeconds) 15 }}
{{- end -}}
