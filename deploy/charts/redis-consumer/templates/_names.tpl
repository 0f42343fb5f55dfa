{{/* What are things called? */}}

{{- define "redis-consumer.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "redis-consumer.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "redis-consumer.exporter" -}}
{{- include "redis-consumer.fullname" . | trunc 54 | trimSuffix "-" }}-exporter
{{- end -}}

{{- define "redis-consumer.serviceAccount" -}}
{{- default (ternary (include "redis-consumer.fullname" .) "" .Values.serviceAccount.create) .Values.serviceAccount.name -}}
{{- end -}}

{{/* Labels that all pods of the release have, and no other. */}}
{{- define "redis-consumer.selector" -}}
app.kubernetes.io/name: {{ include "redis-consumer.name" . }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "redis-consumer.labels" -}}
{{ include "redis-consumer.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{/* Labels of one worker's pods: (root, worker). */}}
{{- define "redis-consumer.workerSelector" -}}
{{ include "redis-consumer.selector" (index . 0) }}
app.kubernetes.io/component: worker
redis-consumer/worker: {{ (index . 1).fullname }}
{{- end -}}

{{- define "redis-consumer.exporterSelector" -}}
{{ include "redis-consumer.selector" . }}
app.kubernetes.io/component: exporter
{{- end -}}

{{- define "redis-consumer.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
