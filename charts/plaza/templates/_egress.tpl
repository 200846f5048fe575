{{/* Egress to a store: embedded by its pods, external by CIDR: dict "root" "store" "port" "external". */}}
{{- define "plaza.storeEgress" -}}
{{- if (index .root.Values .store).embedded.enabled -}}
- ports: [{ port: {{ .port }} }]
  to:
    {{- include "plaza.peer" (dict "root" .root "component" .store) | nindent 4 }}
{{- else if .external -}}
- to: {{- toYaml .external | nindent 4 }}
{{- else -}}
- to: [{ ipBlock: { cidr: 0.0.0.0/0 } }, { ipBlock: { cidr: "::/0" } }]
{{- end }}
{{- end -}}

{{/* Egress to the telemetry endpoint and the user's own rules. */}}
{{- define "plaza.otelEgress" -}}
{{- if .root.Values.otel.endpoint -}}
- ports: [{ port: 4317 }, { port: 4318 }]
{{- with .external }}
  to: {{- toYaml . | nindent 4 }}
{{- end }}
{{- end }}
{{- with .root.Values.networkPolicy.extraEgress }}
{{ toYaml . }}
{{- end }}
{{- end -}}
