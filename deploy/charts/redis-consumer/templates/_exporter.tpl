{{/* Decides whether there is an exporter, and sets its image and variables. */}}

{{/* Whether the release has an exporter: it is enabled, or KEDA needs it. */}}
{{- define "redis-consumer.hasExporter" -}}
{{- $needed := .Values.exporter.enabled -}}
{{- range include "redis-consumer.workers" . | fromJsonArray -}}
{{- $needed = or $needed (and .keda.enabled (not .keda.prometheusAddress)) -}}
{{- end -}}
{{- if $needed }}true{{ end -}}
{{- end -}}

{{/* Its image in JSON. If the top of the values names none, the first worker's image is used, which also has the command. */}}
{{- define "redis-consumer.exporterImage" -}}
{{- $image := deepCopy .Values.image -}}
{{- if eq $image.repository "kiosk-redis-consumer" -}}
{{- $image = (index (include "redis-consumer.workers" . | fromJsonArray) 0).image -}}
{{- end -}}
{{- $own := include "redis-consumer.given" .Values.exporter.image | fromJson -}}
{{- include "redis-consumer.dropDigest" (list $image $own) -}}
{{- include "redis-consumer.overlay" (list $image $own) -}}
{{- toJson $image -}}
{{- end -}}

{{/* Its variables in JSON. */}}
{{- define "redis-consumer.exporterVariables" -}}
{{- $env := deepCopy (.Values.env | default dict) -}}
{{- include "redis-consumer.overlay" (list $env .Values.exporter.env) -}}
{{- include "redis-consumer.given" $env -}}
{{- end -}}
