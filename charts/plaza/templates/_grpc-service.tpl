{{/* Deployment of session or fanout: dict "root" "component" "values" "port" "env" (list), optional "mounts", "volumes". */}}
{{- define "plaza.grpcDeployment" -}}
{{- $c := . -}}
{{- with .values }}
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "plaza.metadata" $c | nindent 2 }}
spec:
  replicas: {{ int .replicas }}
  revisionHistoryLimit: 3
  strategy:
    rollingUpdate: { maxUnavailable: 0, maxSurge: 1 }
  selector:
    matchLabels:
      {{- include "plaza.selector" $c | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "plaza.labels" $c | nindent 8 }}
        {{- with .podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with .podAnnotations }}
      annotations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      automountServiceAccountToken: false
      enableServiceLinks: false
      terminationGracePeriodSeconds: {{ int .terminationGracePeriodSeconds }}
      securityContext:
        {{- include "plaza.podSecurity" $c | nindent 8 }}
      {{- include "plaza.placement" $c | nindent 6 }}
      containers:
        - name: {{ $c.component }}
          image: {{ include "plaza.image" (dict "root" $c.root "image" .image) }}
          imagePullPolicy: {{ .image.pullPolicy }}
          {{- with .extraArgs }}
          args: {{- toYaml . | nindent 12 }}
          {{- end }}
          ports:
            - { name: grpc, containerPort: {{ $c.port }} }
            - { name: admin, containerPort: 9090 }
          env:
            {{- $env := concat (include "plaza.commonEnv" $c | fromYaml).env $c.env }}
            {{- if .reflection }}{{ $env = append $env (dict "name" "PLAZA_REFLECTION" "value" "true") }}{{ end }}
            {{- include "plaza.env" (dict "base" $env "extra" .extraEnv) | nindent 12 }}
          lifecycle:
            preStop:
              sleep: { seconds: 5 }
          startupProbe:
            httpGet: { path: /livez, port: admin }
            periodSeconds: 1
            failureThreshold: 60
          livenessProbe:
            httpGet: { path: /livez, port: admin }
            periodSeconds: 10
            failureThreshold: 3
          readinessProbe:
            httpGet: { path: /readyz, port: admin }
            periodSeconds: 2
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
