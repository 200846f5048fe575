{{/* A peer: the pods of a component of this release: dict "root" "component". */}}
{{- define "plaza.peer" -}}
- podSelector:
    matchLabels:
      {{- include "plaza.selector" . | nindent 6 }}
{{- end -}}

{{/* Head of a component's policy: dict "root" "component". Everything that the rules do not name is refused. */}}
{{- define "plaza.policy" -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "plaza.metadata" . | nindent 2 }}
spec:
  podSelector:
    matchLabels:
      {{- include "plaza.selector" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
{{- end -}}

{{/* A rule's `from`: the namespaces with these labels: dict "labels". Without labels: anywhere. */}}
{{- define "plaza.fromNamespaces" -}}
{{- with .labels -}}
from:
  - namespaceSelector:
      matchLabels: {{- toYaml . | nindent 8 }}
{{- end }}
{{- end -}}

{{/* Ingress rule of the scraper. */}}
{{- define "plaza.fromMonitoring" -}}
- ports: [{ port: 9090 }]
  {{- with include "plaza.fromNamespaces" (dict "labels" .Values.networkPolicy.monitoringNamespaceLabels) }}
  {{- . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* Ingress rule of a gRPC service: dict "root" "component" "port" "callers" (components). A GRPCRoute lets the gateway in. */}}
{{- define "plaza.fromCallers" -}}
{{- $c := . -}}
- ports: [{ port: {{ .port }} }]
  from:
    {{- range .callers }}
    {{- include "plaza.peer" (dict "root" $c.root "component" .) | nindent 4 }}
    {{- end }}
    {{- with (index .root.Values .component).allowFrom }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- $route := .root.Values.gateway.grpcRoute }}
{{- if and $route.enabled (has .component $route.services) }}
- ports: [{ port: {{ .port }} }]
  {{- with include "plaza.fromNamespaces" (dict "labels" .root.Values.networkPolicy.ingressNamespaceLabels) }}
  {{- . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Egress rule to components of this release: dict "root" "port" "component". */}}
{{- define "plaza.toComponent" -}}
- ports: [{ port: {{ .port }} }]
  to:
    {{- include "plaza.peer" . | nindent 4 }}
{{- end -}}

{{/* Egress rule to what is outside of this release: dict "root" "ports". */}}
{{- define "plaza.toExternal" -}}
- ports:
    {{- range .ports }}
    - port: {{ int . }}
    {{- end }}
  {{- with .root.Values.networkPolicy.externalCIDRs }}
  to:
    {{- range . }}
    - ipBlock: { cidr: {{ . | quote }} }
    {{- end }}
  {{- end }}
{{- end -}}

{{/* Egress rule to a store: dict "root" "store" "port". */}}
{{- define "plaza.toStore" -}}
{{- $store := index .root.Values .store -}}
{{- if $store.embedded.enabled -}}
{{- include "plaza.toComponent" (dict "root" .root "component" .store "port" .port) }}
{{- else -}}
{{- include "plaza.toExternal" (dict "root" .root "ports" $store.external.ports) }}
{{- end }}
{{- end -}}

{{/* Egress rules that every service has: names, telemetry, and the user's own. */}}
{{- define "plaza.toCommon" -}}
- ports: [{ port: 53, protocol: UDP }, { port: 53, protocol: TCP }]
{{- with .Values.otel.endpoint }}
{{- $port := regexFind ":[0-9]+$" (urlParse .).host | trimPrefix ":" | default (ternary "4317" "4318" (eq $.Values.otel.protocol "grpc")) }}
{{ include "plaza.toExternal" (dict "root" $ "ports" (list $port)) }}
{{- end }}
{{- with .Values.networkPolicy.extraEgress }}
{{ toYaml . }}
{{- end }}
{{- end -}}
