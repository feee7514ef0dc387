{{/* All names begin with this. It leaves room for suffixes within the 63 characters of a DNS label. */}}
{{- define "spendmesh.fullname" -}}
{{- if contains "spendmesh" .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-spendmesh" .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Cluster-scoped objects carry the namespace too, so that two releases of one name do not meet. */}}
{{- define "spendmesh.clusterName" -}}
{{- printf "%s:%s" .Release.Namespace (include "spendmesh.fullname" .) -}}
{{- end -}}

{{- define "spendmesh.webhookName" -}}
{{- printf "%s.%s" (include "spendmesh.fullname" .) .Release.Namespace -}}
{{- end -}}

{{- define "spendmesh.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "spendmesh.fullname" .) -}}
{{- end -}}

{{- define "spendmesh.selector" -}}
app.kubernetes.io/name: spendmesh
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "spendmesh.labels" -}}
{{ include "spendmesh.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | quote }}
{{- end -}}

{{- define "spendmesh.image" -}}
{{- if .image.digest -}}
{{- printf "%s@%s" .image.repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" .image.repository (.image.tag | default .chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* Kinds that people write. */}}
{{- define "spendmesh.kinds" -}}
[modelproviders, routingpolicies, modelbudgets, retrybudgets]
{{- end -}}

{{/* What the operator reads and where it writes, in every namespace that it serves. */}}
{{- define "spendmesh.servedRules" -}}
- apiGroups: [spendmesh.io]
  resources: {{ include "spendmesh.kinds" . }}
  verbs: [list, watch]
- apiGroups: [spendmesh.io]
  resources: [modelproviders/status, routingpolicies/status, modelbudgets/status, retrybudgets/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
- apiGroups: [apps]
  resources: [replicasets]
  verbs: [list, watch]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [list, watch]
- apiGroups: [""]
  resources: [events]
  verbs: [create]
{{- end -}}

{{/* Never where the operator itself or the cluster's own parts start: they could wait for each other. */}}
{{- define "spendmesh.servedNamespaces" -}}
{{- if eq .Values.scope "Namespace" -}}
- {key: kubernetes.io/metadata.name, operator: In, values: [{{ .Release.Namespace | quote }}]}
{{- else -}}
- {key: kubernetes.io/metadata.name, operator: NotIn, values: [kube-system, kube-node-lease, {{ .Release.Namespace | quote }}]}
{{- end -}}
{{- end -}}

{{/* Two releases that serve one namespace would refuse each other's pods. Empty, or the installation fails. */}}
{{- define "spendmesh.alone" -}}
{{- $own := include "spendmesh.webhookName" . -}}
{{- range (lookup "admissionregistration.k8s.io/v1" "MutatingWebhookConfiguration" "" "").items -}}
{{- $labels := .metadata.labels | default dict -}}
{{- if and (eq (get $labels "app.kubernetes.io/name") "spendmesh") (ne .metadata.name $own) -}}
{{- if or (eq $.Values.scope "Cluster") (ne (get $labels "spendmesh.io/scope") "Namespace") -}}
{{- fail (printf "another release of Spendmesh serves namespaces that this one would serve too (webhook %s): a release with scope Cluster has to be the only one; uninstall the other one, or install both with scope Namespace" .metadata.name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What all entries of the webhook share. */}}
{{- define "spendmesh.webhookCommon" -}}
admissionReviewVersions: [v1]
sideEffects: None
failurePolicy: {{ .Values.injection.failurePolicy }}
matchPolicy: Equivalent
# Another webhook may add containers after us; they need the addresses too.
reinvocationPolicy: IfNeeded
timeoutSeconds: 5
clientConfig:
  # caBundle is the operator's: it fills it, and renews it.
  service:
    name: {{ include "spendmesh.fullname" . }}-webhook
    namespace: {{ .Release.Namespace }}
    path: /inject
    port: 443
matchConditions:
  - name: not-a-mirror-of-a-static-pod
    expression: "!has(object.metadata.annotations) || !('kubernetes.io/config.mirror' in object.metadata.annotations)"
{{- end -}}
