{{/* Makes the rules of the NetworkPolicy. */}}

{{/* A rule for TCP: ("from" or "to", peers, ports). */}}
{{- define "redis-consumer.rule" -}}
{{- with index . 1 -}}
{{ index $ 0 }}:
  {{- toYaml . | nindent 2 }}
{{ end -}}
ports:
  {{- range index . 2 | uniq }}
  - { protocol: TCP, port: {{ . }} }
  {{- end }}
{{- end }}
