{{/* Sets the metrics that decide the number of workers. */}}

{{/* The kiosk's own metric of each queue, in JSON: an Object that belongs to a Namespace of its name. */}}
{{- define "redis-consumer.keyRatios" -}}
{{- $metrics := list -}}
{{- $target := dict "type" "Value" "value" (toString .hpa.target) -}}
{{- range .queues -}}
{{- $name := printf "%s_consumer_key_ratio" (replace "-" "_" .) -}}
{{- $namespace := dict "apiVersion" "v1" "kind" "Namespace" "name" $name -}}
{{- $object := dict "describedObject" $namespace "metric" (dict "name" $name) "target" $target -}}
{{- $metrics = append $metrics (dict "type" "Object" "object" $object) -}}
{{- end -}}
{{- toJson $metrics -}}
{{- end -}}

{{/* One metric in the form of autoscaling/v2. v2beta2 has the same form; v2beta1 has another one. */}}
{{- define "redis-consumer.metric" -}}
{{- $key := untitle .type -}}
{{- $source := get . $key | default dict -}}
{{- if pick $source "metricName" "targetValue" "targetAverageValue" "targetAverageUtilization" -}}
{{- $source = include "redis-consumer.source" $source | fromJson -}}
{{- end -}}
{{- toYaml (dict "type" .type $key $source) -}}
{{- end -}}

{{/* The source of a metric of v2beta1, in the form of v2 and in JSON. */}}
{{- define "redis-consumer.source" -}}
{{- $source := dict -}}
{{- if .metricName -}}
{{- $metric := dict "name" .metricName -}}
{{- with .metricSelector | default .selector -}}{{- $_ := set $metric "selector" . -}}{{- end -}}
{{- $_ := set $source "metric" $metric -}}
{{- else -}}
{{- $source = pick . "name" "container" -}}
{{- end -}}
{{- with .target -}}{{- $_ := set $source "describedObject" . -}}{{- end -}}
{{- if hasKey . "targetAverageUtilization" -}}
{{- $_ := set $source "target" (dict "type" "Utilization" "averageUtilization" .targetAverageUtilization) -}}
{{- else if or (hasKey . "targetAverageValue") (hasKey . "averageValue") -}}
{{- $average := get . (ternary "averageValue" "targetAverageValue" (hasKey . "averageValue")) -}}
{{- $_ := set $source "target" (dict "type" "AverageValue" "averageValue" $average) -}}
{{- else -}}
{{- $_ := set $source "target" (dict "type" "Value" "value" .targetValue) -}}
{{- end -}}
{{- toJson $source -}}
{{- end -}}
