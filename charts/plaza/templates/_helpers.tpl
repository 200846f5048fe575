{{/* The name that objects begin with. */}}
{{- define "plaza.name" -}}
{{- $name := default .Release.Name .Values.nameOverride -}}
{{- $name | trunc 40 | trimSuffix "-" -}}
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
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* metadata of an object: dict "root" "component" "name" (suffix), optional "annotations", "labels". */}}
{{- define "plaza.metadata" -}}
name: {{ include "plaza.name" .root }}-{{ .name | default .component }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "plaza.labels" . | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- $annotations := merge (deepCopy (.annotations | default dict)) .root.Values.commonAnnotations }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Image of a service: dict "root" "image". */}}
{{- define "plaza.image" -}}
{{ .root.Values.imageRegistry }}{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
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
  - { name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ . | quote }} }
  - { name: OTEL_SERVICE_NAME, value: plaza-{{ $.component }} }
  - name: OTEL_RESOURCE_ATTRIBUTES
    value: k8s.pod.name=$(POD_NAME),k8s.namespace.name={{ $.root.Release.Namespace }}
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

{{/* Placement of a service's pods: dict "root" "component" "values". */}}
{{- define "plaza.placement" -}}
topologySpreadConstraints:
  {{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "plaza.selector" $ | nindent 8 }}
  {{- end }}
{{- with .values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Addresses inside the release. */}}
{{- define "plaza.sessionAddr" -}}
http://{{ include "plaza.name" . }}-session.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}:50051
{{- end -}}
{{- define "plaza.fanoutAddr" -}}
http://{{ include "plaza.name" . }}-fanout.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}:50052
{{- end -}}
{{- define "plaza.natsUrl" -}}
{{- if .Values.nats.embedded.enabled -}}
nats://{{ include "plaza.name" . }}-nats.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}:4222
{{- else -}}
{{ .Values.nats.external.url }}
{{- end -}}
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
