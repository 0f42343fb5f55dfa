{{/* Decides whether there is an exporter, and sets images and variables of exporter and server. */}}

{{/* Whether the release has an exporter: it is enabled, or KEDA needs it. */}}
{{- define "redis-consumer.hasExporter" -}}
{{- $needed := .Values.exporter.enabled -}}
{{- range include "redis-consumer.workers" . | fromJsonArray -}}
{{- $needed = or $needed (and .keda.enabled (not .keda.prometheusAddress)) -}}
{{- end -}}
{{- if $needed }}true{{ end -}}
{{- end -}}

{{/* An image in JSON: (root, own image). If the top of the values names none, the first worker's image is used, which also has
     the command. */}}
{{- define "redis-consumer.serviceImage" -}}
{{- $root := index . 0 -}}
{{- $image := deepCopy $root.Values.image -}}
{{- if eq $image.repository "kiosk-redis-consumer" -}}
{{- $image = (index (include "redis-consumer.workers" $root | fromJsonArray) 0).image -}}
{{- end -}}
{{- $own := include "redis-consumer.given" (index . 1) | fromJson -}}
{{- include "redis-consumer.dropDigest" (list $image $own) -}}
{{- include "redis-consumer.overlay" (list $image $own) -}}
{{- toJson $image -}}
{{- end -}}

{{/* Variables in JSON: (root, own variables). */}}
{{- define "redis-consumer.serviceVariables" -}}
{{- $env := deepCopy ((index . 0).Values.env | default dict) -}}
{{- include "redis-consumer.overlay" (list $env (index . 1)) -}}
{{- include "redis-consumer.given" $env -}}
{{- end -}}

{{/* The server's variables in JSON. Its own secrets override the `env` at the top, as those of a worker do. */}}
{{- define "redis-consumer.serverVariables" -}}
{{- $server := .Values.server -}}
{{- $variables := dict "WEB_FOLDER" "/data" -}}
{{- with $server.ingress -}}
{{- if .enabled -}}
{{- $_ := set $variables "PUBLIC_URL" (printf "%s://%s" (ternary "https" "http" (ne (.tlsSecret | default "") "")) .host) -}}
{{- end -}}
{{- end -}}
{{- if or $server.tokens $server.tokensSecret -}}
{{- $_ := set $variables "WEB_TOKENS" "/tokens/tokens.json" -}}
{{- end -}}
{{- include "redis-consumer.overlay" (list $variables (include "redis-consumer.serviceVariables" (list . $server.env) | fromJson)) -}}
{{- $told := include "redis-consumer.given" $server.env | fromJson -}}
{{- range $name, $_ := include "redis-consumer.given" $server.secrets | fromJson -}}
{{- if not (hasKey $told $name) -}}
{{- $_ := unset $variables $name -}}
{{- end -}}
{{- end -}}
{{- toJson $variables -}}
{{- end -}}

{{/* The server's variables and secrets, trimmed and in JSON. */}}
{{- define "redis-consumer.serverKnown" -}}
{{- $secrets := include "redis-consumer.given" .Values.secrets | fromJson -}}
{{- include "redis-consumer.overlay" (list $secrets (include "redis-consumer.given" .Values.server.secrets | fromJson)) -}}
{{- include "redis-consumer.known" (list $secrets (include "redis-consumer.serverVariables" . | fromJson)) -}}
{{- end -}}

{{/* Fails if the server would refuse to start, or could not be reached. */}}
{{- define "redis-consumer.checkServer" -}}
{{- include "redis-consumer.checkService" . -}}
{{- $server := .Values.server -}}
{{- $known := include "redis-consumer.serverKnown" . | fromJson -}}
{{- $login := $known.WEB_AUTH | default "none" | lower -}}
{{- if and (eq $login "none") (not $server.openToAll) (not .Values.envFrom) -}}
{{- fail "server: WEB_AUTH=none makes everybody who can reach the server an operator; set server.env.WEB_AUTH to token or proxy, or server.openToAll to true" -}}
{{- end -}}
{{- if and (eq $login "proxy") (not $known.TRUSTED_PROXIES) (not .Values.envFrom) -}}
{{- fail "server: WEB_AUTH=proxy needs the addresses of the proxy; set server.env.TRUSTED_PROXIES" -}}
{{- end -}}
{{- if and $server.tokens $server.tokensSecret -}}
{{- fail "server: tokens and tokensSecret are two sources of the same file; give one" -}}
{{- end -}}
{{- if and $server.ingress.enabled (not $server.ingress.host) -}}
{{- fail "server: an Ingress needs the name under which users reach it; set server.ingress.host" -}}
{{- end -}}
{{- end -}}
