{{/* Makes the names and labels of the release's objects. */}}

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

{{/* (prefix, name) in at most 63 characters. The prefix is cut, because names differ at their end. */}}
{{- define "redis-consumer.longName" -}}
{{- $name := index . 1 -}}
{{- printf "%s-%s" (index . 0 | trunc (int (sub 62 (len $name))) | trimSuffix "-") $name -}}
{{- end -}}

{{- define "redis-consumer.exporter" -}}
{{- include "redis-consumer.longName" (list (include "redis-consumer.fullname" .) "exporter") -}}
{{- end -}}

{{- define "redis-consumer.server" -}}
{{- include "redis-consumer.longName" (list (include "redis-consumer.fullname" .) "server") -}}
{{- end -}}

{{- define "redis-consumer.serviceAccount" -}}
{{- default (ternary (include "redis-consumer.fullname" .) "" .Values.serviceAccount.create) .Values.serviceAccount.name -}}
{{- end -}}

{{/* Labels of all pods of the release, and of no other pods. */}}
{{- define "redis-consumer.selector" -}}
app.kubernetes.io/name: {{ include "redis-consumer.name" . | quote }}
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
redis-consumer/worker: {{ (index . 1).fullname | quote }}
{{- end -}}

{{- define "redis-consumer.exporterSelector" -}}
{{ include "redis-consumer.selector" . }}
app.kubernetes.io/component: exporter
{{- end -}}

{{- define "redis-consumer.serverSelector" -}}
{{ include "redis-consumer.selector" . }}
app.kubernetes.io/component: server
{{- end -}}

{{/* The image without its digest if `own` sets a repository or tag, because the digest belongs to these: (image, own). */}}
{{- define "redis-consumer.dropDigest" -}}
{{- $own := index . 1 | default dict -}}
{{- if or $own.repository $own.tag -}}
{{- $_ := unset (index . 0) "digest" -}}
{{- end -}}
{{- end -}}

{{/* (root, image) */}}
{{- define "redis-consumer.image" -}}
{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default (index . 0).Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* Fails if a Service can't have the release's name. */}}
{{- define "redis-consumer.checkService" -}}
{{- $fullname := include "redis-consumer.fullname" . -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $fullname) -}}
{{- fail (printf "%s: no Service can have this name; set fullnameOverride to letters, digits and dashes, a letter first" $fullname) -}}
{{- end -}}
{{- end -}}
