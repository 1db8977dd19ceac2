"""Keys of annotations and labels that other programs act on; the settings name the permission that they need."""

from __future__ import annotations

# Meshes and networks (they assign sidecars, policies and networks), and cloud identities with what clouds create for
# them.
_NETWORKS_AND_IDENTITIES = (
    "istio.io/*,*.istio.io/*,linkerd.io/*,*.linkerd.io/*,kuma.io/*,*.kuma.io/*,cilium.io/*,*.cilium.io/*"
    ",projectcalico.org/*,*.projectcalico.org/*,openservicemesh.io/*,*.openservicemesh.io/*,*.hashicorp.com/*"
    ",*.cni.cncf.io/*,*.ovn.org/*,*.kubeovn.io/*"
    ",*.amazonaws.com/*,*.k8s.aws/*,azure.workload.identity/*,*.azure.com/*,cloud.google.com/*,*.cloud.google.com/*,*.gke.io/*"
    ",spiffe.io/*,*.spiffe.io/*"
)
# Keys of annotations and labels by which pods get networks, identities, programs or devices of the node.
POD_KEYS = (
    _NETWORKS_AND_IDENTITIES,
    # This key decides how probes are sent.
    "!sidecar.istio.io/rewriteAppHTTPProbers",
    "v1.multus-cni.io/*,ovn.kubernetes.io/*,*.antrea.io/*,aadpodidbinding,dapr.io/*,*.opentelemetry.io/*",
    # Keys that container runtimes and their plugins act on: devices, mounts, properties of the system.
    "cdi.k8s.io/*,io.kubernetes.cri-o.*,*.cri-o.io,*.cri-o.io/*,*.crio.io,*.crio.io/*,io.katacontainers.*,io.containerd.*,run.oci.*"
    ",org.systemd.property.*,*.nri.io/*,*.noderesource.dev/*",
    "*.gatekeeper.sh/*,kyverno.io/*,*.kyverno.io/*",
    # Networks of OpenShift, and sidecars: of a mesh, of Jaeger, of Datadog.
    "*.network.openshift.io/*,networkservicemesh.io/*,*.jaegertracing.io/*,admission.datadoghq.com/*",
    # Further sidecars, with folders of cloud buckets; and limits of processes, set by a runtime.
    "gke-gcsfuse/*,telegraf.influxdata.com/*,injector.tumblr.com/*,ulimits.nri.containerd.io/*",
    # Operators that fetch secrets with their own rights.
    "*.banzaicloud.io/*,*.1password.io/*",
)
# Keys of labels and annotations of claims, config maps and secrets by which other programs fill or copy them.
OBJECT_KEYS = (
    # Claims: the data of another claim or of an address (CDI, Trident, Stork), and folders of a share or node by name.
    "k8s.io/CloneRequest,k8s.io/CloneOf,cdi.kubevirt.io/*,trident.netapp.io/*,stork.libopenstorage.org/*"
    ",nfs.io/*,openebs.io/*,*.openebs.io/*",
    # By these keys Kubernetes itself binds claims and chooses their provisioner.
    "pv.kubernetes.io/*,volume.kubernetes.io/*,volume.beta.kubernetes.io/*",
    # Config maps and secrets: copies from and to other namespaces, and the service account of a token.
    "replicator.v1.mittwald.de/*,reflector.v1.k8s.emberstack.com/*,kubed.appscode.com/*,synator/*,clustersecret.io/*"
    ",kyverno.io/*,*.kyverno.io/*,kubernetes.io/service-account.*",
)
# Keys of labels and annotations of Kubernetes namespaces that clusters, or programs installed on them, act on.
NAMESPACE_KEYS = (
    # Kubernetes: Pod Security, node selectors and tolerations, hierarchies; except the keys that name applications.
    "kubernetes.io/*,*.kubernetes.io/*,k8s.io/*,*.k8s.io/*,*.x-k8s.io/*,!app.kubernetes.io/*",
    # OpenShift: security context constraints, node selectors, ranges of user ids.
    "openshift.io/*,*.openshift.io/*",
    "istio-injection",
    _NETWORKS_AND_IDENTITIES,
    # Keys that exempt from policies or assign a namespace to another owner.
    "*.gatekeeper.sh/*,kyverno.io/*,*.kyverno.io/*,*.cattle.io/*,*.clastix.io/*,argocd.argoproj.io/*",
    # On AKS no admission webhook of any owner sees the contents of a namespace with the first of these keys.
    "control-plane,openpolicyagent.org/*,cert-manager.io/*",
    # KubeSphere: the workspace of a namespace, which decides what users may do in it.
    "kubesphere.io/*",
)
