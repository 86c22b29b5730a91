"""Which of Istio's settings do something here; each of the others is named with its reason, nothing is dropped in silence."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from devmesh.config.model import Diagnostic
from devmesh.config.operator.schema import Setting

NO_EFFECT = "DM0007"
INGRESS, EGRESS = "istio-ingressgateway", "istio-egressgateway"
STANDARD_OUTPUT = ("", "/dev/stdout")
# Settings that are read, by their path below `spec`; `*` is one key.
HONOURED = re.compile(
    r"profile|values\.profile"
    r"|meshConfig\.(accessLogEncoding|enableTracing|connectTimeout|defaultConfig\.tracing\.sampling)"
    r"|meshConfig\.defaultHttpRetryPolicy\.(attempts|perTryTimeout|retryOn|backoff|retryIgnorePreviousHosts)"
    r"|meshConfig\.defaultConfig\.proxyMetadata\.SECRET_TTL"
    r"|values\.pilot\.traceSampling"
    r"|components\.(base|pilot)\.enabled|components\.(ingress|egress)Gateways\[\]\.enabled"
    r"|values\.gateways\.istio-(in|e)gressgateway\.enabled"
    r"|addonComponents\.(prometheus|grafana)\.enabled"
    r"|values\.global\.remotePilotAddress"
)
# Settings that may only say what is so anyway.
AS_IT_IS: Mapping[str, tuple[Any, ...]] = {
    "meshConfig.accessLogFormat": ("",),
    "meshConfig.enableAutoMtls": (True,),
    "meshConfig.enablePrometheusMerge": (True,),
    "meshConfig.rootNamespace": ("istio-system",),
    "meshConfig.trustDomain": ("cluster.local",),
    "meshConfig.proxyListenPort": (15001,),
    "meshConfig.proxyInboundListenPort": (15006,),
    "meshConfig.outboundTrafficPolicy.mode": ("ALLOW_ANY", "REGISTRY_ONLY", 0, 1),
    "meshConfig.inboundTrafficPolicy.mode": ("PASSTHROUGH", 0),
    "meshConfig.accessLogFile": STANDARD_OUTPUT,
    "meshConfig.defaultConfig.holdApplicationUntilProxyStarts": (True,),
    "values.global.proxy.holdApplicationUntilProxyStarts": (True,),
    "values.global.istioNamespace": ("istio-system",),
    "values.global.proxy.clusterDomain": ("cluster.local",),
    "values.telemetry.enabled": (True,),
    "values.telemetry.v2.enabled": (True,),
    "values.telemetry.v2.prometheus.enabled": (True,),
    "values.istiodRemote.enabled": (False,),
    "namespace": ("istio-system",),
    "components.cni.enabled": (False,),
    "components.ztunnel.enabled": (False,),
    "components.istiodRemote.enabled": (False,),
    "components.ingressGateways[].name": (INGRESS,),
    "components.egressGateways[].name": (EGRESS,),
    "components.ingressGateways[].namespace": ("istio-system",),
    "components.egressGateways[].namespace": ("istio-system",),
    "addonComponents.jaeger.enabled": (True,),
    "addonComponents.tracing.enabled": (True,),
    "addonComponents.kiali.enabled": (False,),
    "addonComponents.loki.enabled": (False,),
    "addonComponents.zipkin.enabled": (False,),
}
_IMAGES = "images are those of compose/images.yaml, each exchanged by its environment variable (docs/images.md)"
_KUBERNETES = "that is Kubernetes' business, and there is none here"
_ONE_PLACE = "all workloads of this mesh are in one place"
_NO_AMBIENT = "there is no ambient mode here, every workload has a sidecar"
_TRACES = "spans go to the mesh's own Jaeger over OTLP"
_REVISION = "one mesh has one control plane, of devmesh's own version"
# The first that matches gives the reason.
REASONS = tuple(
    (re.compile(path), reason)
    for path, reason in (
        (r"(.*\.)?k8s(\..*)?", _KUBERNETES),
        (r"(.*\.)?(hub|tag|image|imagePullPolicy|imagePullSecrets|variant)(\[\])?", _IMAGES),
        (
            r"(revision|compatibilityVersion|installPackagePath|values\.(revision|revisionTags|defaultRevision|compatibilityVersion).*)",
            _REVISION,
        ),
        (r"unvalidatedValues.*", "there are no templates of yours here"),
        (r"components\.(ingress|egress)Gateways\[\]\.name", f"only {INGRESS} and {EGRESS} exist here: this one is not made"),
        (r"(components|values)\.(ztunnel|cni|istio_cni|istioCni).*", _NO_AMBIENT),
        (r"addonComponents\.(kiali|loki|zipkin)\..*", "this addon does not exist here"),
        (r"addonComponents\.(jaeger|tracing)\..*", "the mesh always has its collector: traces are how you see why"),
        (r"meshConfig\.accessLogFile", "a sidecar's access log is what `devmesh logs --access` shows, whatever the file's name"),
        (r"meshConfig\.accessLogFormat", "the access log has Istio's default format"),
        (r"meshConfig\.outboundTrafficPolicy\.mode", "only ALLOW_ANY and REGISTRY_ONLY exist here: this is taken as ALLOW_ANY"),
        (r"meshConfig\.inboundTrafficPolicy\.mode", "what reaches no port of a service is passed to the app as it is (PASSTHROUGH)"),
        (r"meshConfig\.enableAutoMtls", "sidecars use mTLS with each other where the other side takes it"),
        (r"meshConfig\.(trustDomain|trustDomainAliases).*", "the trust domain is cluster.local"),
        (r"meshConfig\.(localityLbSetting|zoneAwareLbSetting|meshNetworks|serviceScopeConfigs|serviceSettings).*", _ONE_PLACE),
        (r"meshConfig\.(ca|caCertificates|certificates).*", "the mesh has a certificate authority of its own"),
        (r"meshConfig\.h2UpgradePolicy", "sidecars here carry HTTP/2 as plain TCP for now"),
        (
            r"meshConfig\.(extensionProviders|defaultProviders).*",
            "telemetry goes to the mesh's own collector, and ext_authz is not supported yet",
        ),
        (r"meshConfig\.ingress.*", "there is no Kubernetes Ingress here, only Gateway"),
        (r"meshConfig\.defaultConfig\.(tracing|zipkinAddress).*|values\.global\.(tracer|proxy\.tracer).*", _TRACES),
        (
            r"meshConfig\.defaultConfig\..*(discoveryAddress|configPath|binaryPath|proxyBootstrapTemplatePath|customConfigFile)",
            "the sidecar here is devmesh's own",
        ),
        (
            r"(meshConfig\.defaultConfig|values\.global\.proxy)\.holdApplicationUntilProxyStarts",
            "apps on Docker always wait for their sidecar",
        ),
        (
            r"values\.global\.proxy\.(include|exclude).*",
            "give the services in question Istio's annotation as a label, traffic.sidecar.istio.io/... (docs/docker.md)",
        ),
        (
            r"values\.global\.proxy\.autoInject|values\.sidecarInjectorWebhook.*",
            "every service is meshed but those with x-devmesh: {inject: false}",
        ),
        (r"values\.istiodRemote.*|components\.istiodRemote.*", "a mesh here has its control plane beside it"),
        (r"values\.global\.(multiCluster|network|meshNetworks|configCluster|externalIstiod|arch).*", _ONE_PLACE),
        (
            r"values\.pilot\.env",  # free keys, DEFAULT_WORKLOAD_CERT_TTL among them, which SECRET_TTL overrules in Istio
            "the control plane is devmesh's own, not istiod; the life of certificates is meshConfig.defaultConfig.proxyMetadata.SECRET_TTL",
        ),
        (r"values\.pilot\..*", "the control plane is devmesh's own, not istiod"),
        (r"values\.telemetry.*", "sidecars always count Istio's standard metrics"),
        (
            r".*(resources|[aA]ffinity|[tT]olerations|[nN]odeSelector|[aA]utoscale|replicaCount|priorityClassName|podAnnotations).*",
            _KUBERNETES,
        ),
        (r"values\.gateways\..*", _KUBERNETES),
    )
)
DEFAULT_REASON = "devmesh does not use it"


def without_effect(setting: Setting) -> Diagnostic | None:
    """Say why a setting does nothing here; None for one that is honoured, or that says what is so anyway."""
    path = setting.path.replace("values.meshConfig.", "meshConfig.", 1)
    if HONOURED.fullmatch(path) or setting.value in AS_IT_IS.get(path, ()):
        return None
    reason = next((words for pattern, words in REASONS if pattern.fullmatch(path)), DEFAULT_REASON)
    shown = setting.path.replace("[]", "")
    return Diagnostic("warning", NO_EFFECT, setting.where, f"{shown} has no effect here: {reason}")
