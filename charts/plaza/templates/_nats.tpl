{{/* How edge and fanout reach NATS, as YAML under the keys `env`, `mounts` and `volumes`. */}}
{{- define "plaza.nats" -}}
{{- $external := .Values.nats.external -}}
{{- if .Values.nats.embedded.enabled -}}
env:
  - { name: PLAZA_NATS_URL, value: "nats://{{ include "plaza.host" (dict "root" . "component" "nats") }}:4222" }
mounts: []
volumes: []
{{- else -}}
env:
  - { name: PLAZA_NATS_URL, value: {{ $external.url | quote }} }
  {{- if $external.existingSecret }}
  - { name: PLAZA_NATS_CREDS, value: /etc/plaza/nats/nats.creds }
mounts:
  - { name: nats-creds, mountPath: /etc/plaza/nats, readOnly: true }
volumes:
  - name: nats-creds
    secret:
      secretName: {{ $external.existingSecret | quote }}
      items: [{ key: {{ $external.existingSecretKey | quote }}, path: nats.creds }]
  {{- else }}
mounts: []
volumes: []
  {{- end }}
{{- end }}
{{- end -}}
