{{/* A worker's pod: (root, worker). */}}
{{- define "redis-consumer.pod" -}}
{{- $root := index . 0 -}}
{{- $worker := index . 1 -}}
metadata:
  labels:
    {{- include "redis-consumer.workerSelector" . | nindent 4 }}
    {{- with $worker.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    {{- /* Pods are replaced when something that they read at their start changes. */}}
    checksum/secrets: {{ list $root.Values.secrets $worker.ownSecrets $worker.code | toJson | sha256sum }}
    {{- with $worker.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  {{- include "redis-consumer.account" $root | nindent 2 }}
  terminationGracePeriodSeconds: {{ include "redis-consumer.terminationGracePeriod" $worker }}
  {{- with $worker.podSecurityContext }}
  securityContext:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $worker.priorityClassName }}
  priorityClassName: {{ . | quote }}
  {{- end }}
  {{- include "redis-consumer.placement" $worker | nindent 2 }}
  containers:
    - {{- include "redis-consumer.workerContainer" . | nindent 6 }}
  volumes:
    - name: tmp
      emptyDir:
        {{- toYaml (pick $worker.tmp "sizeLimit" "medium" | include "redis-consumer.given" | fromJson) | nindent 8 }}
    {{- if $worker.code }}
    - name: code
      configMap:
        name: {{ printf "%s-code" $worker.fullname | quote }}
    {{- end }}
    {{- with $worker.volumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{- define "redis-consumer.workerContainer" -}}
{{- $root := index . 0 -}}
{{- $worker := index . 1 -}}
name: worker
image: {{ include "redis-consumer.image" (list $root $worker.image) | quote }}
imagePullPolicy: {{ $worker.image.pullPolicy }}
{{- if $worker.serve }}
command:
  - redis-consumer
  - run
  {{- range $worker.serve }}
  - --serve
  - {{ . | quote }}
  {{- end }}
{{- end }}
{{- include "redis-consumer.env" $worker.variables }}
{{- $secrets := list }}
{{- if $worker.takesShared }}
{{- $secrets = append $secrets (include "redis-consumer.fullname" $root) }}
{{- end }}
{{- if $worker.ownSecrets }}
{{- $secrets = append $secrets (printf "%s-secrets" $worker.fullname) }}
{{- end }}
{{- if or $secrets $worker.envFrom }}
envFrom:
  {{- range $secrets }}
  - secretRef:
      name: {{ . | quote }}
  {{- end }}
  {{- with $worker.envFrom }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- with $worker.known.HEALTH_ADDRESS }}
ports:
  - name: health
    containerPort: {{ regexFind "[0-9]+$" . }}
{{- if $worker.probes.enabled }}
{{- range $kind, $path := dict "startup" "/live" "liveness" "/live" "readiness" "/ready" }}
{{- with get $worker.probes $kind }}
{{ $kind }}Probe:
  httpGet: { path: {{ $path }}, port: health }
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- with $worker.securityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $worker.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
volumeMounts:
  - name: tmp
    mountPath: /tmp
  {{- if $worker.code }}
  - name: code
    mountPath: /code
    readOnly: true
  {{- end }}
  {{- with $worker.volumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* The service account of a pod of the release. */}}
{{- define "redis-consumer.account" -}}
{{- with include "redis-consumer.serviceAccount" . -}}
serviceAccountName: {{ . | quote }}
{{ end -}}
automountServiceAccountToken: {{ .Values.serviceAccount.automountServiceAccountToken }}
{{- /* A Service called redis would set REDIS_PORT to an address. */}}
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Where a pod of a worker, of the exporter or of the server can run. */}}
{{- define "redis-consumer.placement" -}}
{{- range $key := list "nodeSelector" "tolerations" "affinity" "topologySpreadConstraints" }}
{{- with get $ $key }}
{{ $key }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}
