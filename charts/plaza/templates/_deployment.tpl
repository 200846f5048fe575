{{/*
Deployment of a service:
  dict "root" "component" "values" "ports" (containerPorts by name, admin is added) "env" (list)
       "replicas" (0: an autoscaler has them) "maxSurge" "preStop" (seconds), optional "mounts" "volumes"
*/}}
{{- define "plaza.deployment" -}}
{{- $c := . -}}
{{- with .values }}
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "plaza.metadata" $c | nindent 2 }}
spec:
  {{- if $c.replicas }}
  replicas: {{ int $c.replicas }}
  {{- end }}
  revisionHistoryLimit: 3
  strategy:
    rollingUpdate: { maxUnavailable: 0, maxSurge: {{ $c.maxSurge }} }
  selector:
    matchLabels:
      {{- include "plaza.selector" $c | nindent 6 }}
  template:
    metadata:
      {{- include "plaza.podMetadata" $c | nindent 6 }}
    spec:
      {{- if include "plaza.apiRules" $c | trim }}
      serviceAccountName: {{ include "plaza.name" $c.root }}-{{ $c.component }}
      automountServiceAccountToken: true
      {{- else }}
      automountServiceAccountToken: false
      {{- end }}
      enableServiceLinks: false
      terminationGracePeriodSeconds: {{ int .terminationGracePeriodSeconds }}
      securityContext:
        {{- include "plaza.podSecurity" $c | nindent 8 }}
      {{- include "plaza.spread" $c | nindent 6 }}
      {{- with include "plaza.scheduling" $c | trim }}
      {{- . | nindent 6 }}
      {{- end }}
      containers:
        - name: {{ $c.component }}
          image: {{ include "plaza.image" (dict "root" $c.root "image" .image) }}
          imagePullPolicy: {{ .image.pullPolicy }}
          {{- with .extraArgs }}
          args: {{- toYaml . | nindent 12 }}
          {{- end }}
          ports:
            {{- range $name, $port := $c.ports }}
            - { name: {{ $name }}, containerPort: {{ $port }} }
            {{- end }}
            - { name: admin, containerPort: 9090 }
          env:
            {{- $env := concat (include "plaza.commonEnv" $c | fromYaml).env $c.env }}
            {{- include "plaza.env" (dict "base" $env "extra" .extraEnv) | nindent 12 }}
          {{- with $c.preStop }}
          lifecycle:
            preStop:
              sleep: { seconds: {{ int . }} }
          {{- end }}
          startupProbe:
            httpGet: { path: /livez, port: admin }
            periodSeconds: 1
            failureThreshold: 60
          livenessProbe:
            httpGet: { path: /livez, port: admin }
            periodSeconds: 10
            timeoutSeconds: 3
            failureThreshold: 3
          readinessProbe:
            httpGet: { path: /readyz, port: admin }
            periodSeconds: 2
            timeoutSeconds: 2
            failureThreshold: 1
          resources:
            {{- toYaml .resources | nindent 12 }}
          securityContext:
            {{- include "plaza.containerSecurity" $c | nindent 12 }}
          {{- with concat ($c.mounts | default list) .extraVolumeMounts }}
          volumeMounts: {{- toYaml . | nindent 12 }}
          {{- end }}
      {{- with concat ($c.volumes | default list) .extraVolumes }}
      volumes: {{- toYaml . | nindent 8 }}
      {{- end }}
{{- end }}
{{- end -}}
