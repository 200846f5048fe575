{{/* What a component may do with the API of Kubernetes, as rules of a Role; nothing when it does not use it:
     dict "root" "component". */}}
{{- define "plaza.apiRules" -}}
{{- $api := .root.Values.kubernetesApi -}}
{{- if and $api.discovery (ne .component "fanout") }}
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, list, watch]
{{- end }}
{{- if and $api.reaperLease (eq .component "session") }}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [{{ include "plaza.name" .root }}-reaper]
  verbs: [get, update]
{{- end }}
{{- if and $api.podDeletionCost (eq .component "edge") }}
- apiGroups: [""]
  resources: [pods]
  verbs: [patch]
{{- end }}
{{- if and $api.drainEvents (eq .component "edge") }}
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end }}
{{- end -}}

{{/* How a component is called by the others: dict "root" "component" "port". With TLS, in both ways by the name
     that its certificate carries. */}}
{{- define "plaza.target" -}}
{{- $tls := .root.Values.grpc.tls.existingSecret -}}
{{- $name := printf "%s-%s" (include "plaza.name" .root) .component -}}
{{- if .root.Values.kubernetesApi.discovery -}}
kubernetes:///{{ $name }}{{ if $tls }}.{{ .root.Release.Namespace }}{{ end }}:{{ .port }}
{{- else if $tls -}}
https://{{ $name }}.{{ .root.Release.Namespace }}.svc:{{ .port }}
{{- else -}}
http://{{ include "plaza.host" . }}:{{ .port }}
{{- end -}}
{{- end -}}

{{/* Egress rule to the API server, for those that use it: dict "root" "component". */}}
{{- define "plaza.toApi" -}}
{{- if include "plaza.apiRules" . | trim -}}
- ports:
    {{- range .root.Values.kubernetesApi.ports }}
    - port: {{ int . }}
    {{- end }}
  {{- with .root.Values.kubernetesApi.cidrs }}
  to:
    {{- range . }}
    - ipBlock: { cidr: {{ . | quote }} }
    {{- end }}
  {{- end }}
{{- end }}
{{- end -}}
