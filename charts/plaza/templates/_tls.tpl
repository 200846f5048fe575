{{/* TLS of gRPC, as YAML under the keys `env`, `mounts` and `volumes`: dict "root", and of "serves" and "calls"
     what the pod does. */}}
{{- define "plaza.grpcTls" -}}
{{- $tls := .root.Values.grpc.tls -}}
{{- if $tls.existingSecret -}}
{{- $client := and .calls $tls.clientSecret -}}
env:
  {{- if .serves }}
  - { name: PLAZA_TLS_CERT, value: /etc/plaza/tls/tls.crt }
  - { name: PLAZA_TLS_KEY, value: /etc/plaza/tls/tls.key }
  {{- if $tls.clientSecret }}
  - { name: PLAZA_TLS_CLIENT_CA, value: /etc/plaza/tls/ca.crt }
  {{- end }}
  {{- end }}
  {{- if .calls }}
  - { name: PLAZA_UPSTREAM_CA, value: /etc/plaza/tls/ca.crt }
  {{- end }}
  {{- if $client }}
  - { name: PLAZA_UPSTREAM_CERT, value: /etc/plaza/tls/client.crt }
  - { name: PLAZA_UPSTREAM_KEY, value: /etc/plaza/tls/client.key }
  {{- end }}
mounts:
  - { name: grpc-tls, mountPath: /etc/plaza/tls, readOnly: true }
volumes:
  - name: grpc-tls
    projected:
      sources:
        - secret:
            name: {{ $tls.caSecret | default $tls.existingSecret | quote }}
            items: [{ key: ca.crt, path: ca.crt }]
        {{- if .serves }}
        - secret:
            name: {{ $tls.existingSecret | quote }}
            items: [{ key: tls.crt, path: tls.crt }, { key: tls.key, path: tls.key }]
        {{- end }}
        {{- if $client }}
        - secret:
            name: {{ $tls.clientSecret | quote }}
            items: [{ key: tls.crt, path: client.crt }, { key: tls.key, path: client.key }]
        {{- end }}
{{- else -}}
env: []
mounts: []
volumes: []
{{- end }}
{{- end -}}
