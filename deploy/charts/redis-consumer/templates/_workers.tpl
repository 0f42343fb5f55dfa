{{/* Lists the workers of the release, with their variables, Secrets and queues. */}}

{{/* Merges the second map into the first: maps are merged, other values replace, null removes. Sprig's own merge
     ignores false, 0 and "". */}}
{{- define "redis-consumer.overlay" -}}
{{- $base := index . 0 -}}
{{- range $key, $value := index . 1 -}}
{{- if kindIs "invalid" $value -}}
{{- $_ := unset $base $key -}}
{{- else if and (kindIs "map" $value) (kindIs "map" (get $base $key)) -}}
{{- include "redis-consumer.overlay" (list (get $base $key) $value) -}}
{{- else -}}
{{- $_ := set $base $key $value -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* All workers as JSON: their values, with `fullname`, `ownSecrets`, `takesShared` (whether it uses the release's Secret),
     `variables`, `known` (those and the secrets, trimmed) and `queues`. */}}
{{- define "redis-consumer.workers" -}}
{{- $root := . -}}
{{- $fullname := include "redis-consumer.fullname" . -}}
{{- $workers := list -}}
{{- $names := list (include "redis-consumer.exporter" .) (include "redis-consumer.server" .) -}}
{{- range (.Values.consumers | default (list dict)) -}}
{{- $worker := omit (deepCopy $root.Values) "consumers" "global" "fullnameOverride" -}}
{{- include "redis-consumer.dropDigest" (list $worker.image .image) -}}
{{- include "redis-consumer.overlay" (list $worker .) -}}
{{- $own := $fullname -}}
{{- with .name -}}
{{- $own = include "redis-consumer.longName" (list $fullname .) -}}
{{- end -}}
{{- $_ := set $worker "fullname" (.fullnameOverride | default $own) -}}
{{- include "redis-consumer.secrets" (list $root $worker .) -}}
{{- $_ := set $worker "variables" (include "redis-consumer.variables" (list $worker .) | fromJson) -}}
{{- $_ := set $worker "known" (include "redis-consumer.known" (list $worker.secrets $worker.variables) | fromJson) -}}
{{- $_ := set $worker "queues" (include "redis-consumer.queues" $worker | fromJsonArray) -}}
{{- include "redis-consumer.check" $worker -}}
{{- if has $worker.fullname $names -}}
{{- fail (printf "consumers: %s is also the name of another entry, of the exporter or of the server; give each a different name" $worker.fullname) -}}
{{- end -}}
{{- $names = append $names $worker.fullname -}}
{{- $workers = append $workers $worker -}}
{{- end -}}
{{- toJson $workers -}}
{{- end -}}

{{- define "redis-consumer.check" -}}
{{- if and .hpa.enabled .keda.enabled -}}
{{- fail (printf "%s: hpa and keda both set the number of workers; enable one" .fullname) -}}
{{- end -}}
{{- if and .serve (or .type .queue) -}}
{{- fail (printf "%s: serve already names consumers and queues; leave type and queue empty" .fullname) -}}
{{- end -}}
{{- if and (or .probes.enabled .serviceMonitor.enabled) (regexMatch "^(127\\.|localhost:|\\[::1\\])" (.known.HEALTH_ADDRESS | default "" | lower)) -}}
{{- fail (printf "%s: with HEALTH_ADDRESS=%s no probe reaches the worker; use 0.0.0.0, or disable probes and serviceMonitor" .fullname .known.HEALTH_ADDRESS) -}}
{{- end -}}
{{- $budget := .podDisruptionBudget -}}
{{- if and $budget.enabled (kindIs "invalid" $budget.minAvailable) (kindIs "invalid" $budget.maxUnavailable) -}}
{{- fail (printf "%s: podDisruptionBudget has neither minAvailable nor maxUnavailable; give one" .fullname) -}}
{{- end -}}
{{- end -}}

{{/* Values that are set, as text, in JSON. Empty values, 0 and false are left out, so that the default applies. JSON has
     only one type of numbers, whether they come from a file, the command line or a parent chart. */}}
{{- define "redis-consumer.given" -}}
{{- $given := dict -}}
{{- range $name, $value := . | toJson | fromJson -}}
{{- if $value -}}
{{- $isWhole := and (kindIs "float64" $value) (eq (floor $value) (float64 $value)) -}}
{{- $_ := set $given $name (ternary (printf "%.0f" (float64 $value)) (toString $value) $isWhole) -}}
{{- end -}}
{{- end -}}
{{- toJson $given -}}
{{- end -}}

{{/* The Secrets of a worker: (root, worker, entry). A Secret can't remove a key of another Secret. If the entry removes one,
     the worker has its own Secret with all of its secrets. */}}
{{- define "redis-consumer.secrets" -}}
{{- $worker := index . 1 -}}
{{- $shared := include "redis-consumer.given" (index . 0).Values.secrets | fromJson -}}
{{- $merged := include "redis-consumer.given" $worker.secrets | fromJson -}}
{{- $own := ternary (include "redis-consumer.given" (index . 2).secrets | fromJson) dict (hasKey (index . 2) "name") -}}
{{- $isWhole := true -}}
{{- range $name, $_ := $shared -}}
{{- $isWhole = and $isWhole (hasKey $merged $name) -}}
{{- end -}}
{{- $_ := set $worker "ownSecrets" (ternary $own $merged $isWhole) -}}
{{- $_ := set $worker "takesShared" (and $isWhole (gt (len $shared) 0)) -}}
{{- end -}}

{{/* A worker's variables in JSON: (worker, entry). */}}
{{- define "redis-consumer.variables" -}}
{{- $worker := index . 0 -}}
{{- $entry := index . 1 -}}
{{- $variables := dict "ORT_DISABLE_TELEMETRY" "1" -}}
{{- if or $worker.probes.enabled $worker.serviceMonitor.enabled -}}
{{- $_ := set $variables "HEALTH_ADDRESS" (printf "0.0.0.0:%v" $worker.probes.port) -}}
{{- end -}}
{{- include "redis-consumer.overlay" (list $variables (include "redis-consumer.told" $worker | fromJson)) -}}
{{- /* A container's own variables override those of a Secret, but an entry's secret must override the `env` at the top. */ -}}
{{- $told := include "redis-consumer.told" $entry | fromJson -}}
{{- range $name, $_ := include "redis-consumer.given" $entry.secrets | fromJson -}}
{{- if not (hasKey $told $name) -}}
{{- $_ := unset $variables $name -}}
{{- end -}}
{{- end -}}
{{- if $worker.code -}}
{{- $_ := set $variables "PYTHONPATH" (list "/code" $variables.PYTHONPATH | compact | join ":") -}}
{{- end -}}
{{- toJson $variables -}}
{{- end -}}

{{/* The variables that `env`, `type` and `queue` of a map of values set, in JSON. */}}
{{- define "redis-consumer.told" -}}
{{- $told := include "redis-consumer.given" .env | fromJson -}}
{{- $named := include "redis-consumer.given" (dict "CONSUMER_TYPE" .type "QUEUE" .queue) | fromJson -}}
{{- include "redis-consumer.overlay" (list $told $named) -}}
{{- toJson $told -}}
{{- end -}}

{{- define "redis-consumer.redisPort" -}}
{{- $port := .REDIS_PORT | default "6379" -}}
{{- if .REDIS_URL -}}
{{- $port = regexFind ":[0-9]+(/[0-9]*)?$" .REDIS_URL | trimPrefix ":" | splitList "/" | first | default "6379" -}}
{{- end -}}
{{- if not (regexMatch "^[0-9]+$" $port) -}}
{{- fail (printf "REDIS_PORT=%s is not a port; give a number" $port) -}}
{{- end -}}
{{- $port -}}
{{- end -}}

{{/* The settings of a pod that the chart can read, trimmed and in JSON: (secrets, variables). */}}
{{- define "redis-consumer.known" -}}
{{- $known := include "redis-consumer.given" (index . 0) | fromJson -}}
{{- include "redis-consumer.overlay" (list $known (index . 1)) -}}
{{- range $name, $value := $known -}}
{{- $_ := set $known $name (trim $value) -}}
{{- end -}}
{{- toJson $known -}}
{{- end -}}

{{/* The lists in Redis that a worker takes jobs from, in JSON. */}}
{{- define "redis-consumer.queues" -}}
{{- $queues := list -}}
{{- range .serve -}}
{{- $queues = append $queues (regexReplaceAll "^.*=" . "" | lower) -}}
{{- end -}}
{{- if not .serve -}}
{{- $queue := .known.QUEUE | default "predict" | lower -}}
{{- $isZip := eq "zip" (.known.CONSUMER_TYPE | default "image" | lower) -}}
{{- $queues = list (ternary (printf "%s-zip" (trimSuffix "-zip" $queue)) $queue $isZip) -}}
{{- end -}}
{{- toJson $queues -}}
{{- end -}}

{{/* Variables of a container. */}}
{{- define "redis-consumer.env" -}}
{{- with . }}
env:
  {{- range $name, $value := . }}
  - name: {{ $name | quote }}
    value: {{ $value | quote }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Seconds between SIGTERM and SIGKILL: the grace period of jobs, five seconds until a slot is killed, and five more. */}}
{{- define "redis-consumer.terminationGracePeriod" -}}
{{- .terminationGracePeriodSeconds | default (add 10 (ceil (.known.GRACE_PERIOD | default "25" | float64))) | int -}}
{{- end -}}
