"""The differences from the recordings that the simulated cluster may have, with the reasons.

`check` in `replay` fails if an entry no longer occurs, so obsolete entries are removed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.simulator.replay_compare import Difference


@dataclass(frozen=True)
class KnownDifference:
    """`path` is a regular expression that must match the whole path; `exchange` None means any."""

    recording: str
    exchange: int | None
    path: str
    reason: str

    def matches(self, difference: Difference) -> bool:
        """Returns whether this entry covers the difference."""
        return self.exchange in (None, difference.exchange) and bool(re.fullmatch(self.path, difference.path))


_DISCOVERY = "01-version-and-discovery"
_NOT_SIMULATED = "a kind that the simulator does not have"
_CUT = "the recording was cut to the resources its author used; the real server has this one too"

_ROLLOUT = "03d-deployment-rollout-watches"
_LOST = "05-node-lost"
_THREE = "28-deployment-of-three-containers-one-crashing"
_SIDECARS = "26-sidecars-and-init-containers"
_JOBS = ("20-job-success", "21-job-failure-and-backoff", "22b-job-suspend-resume", "23-cronjob")
_DAEMON_SET = "25-daemonset"
_STATEFUL_SET = "24-statefulset"
_DELETION = "03f-deployment-delete"
_POD_AMOUNTS = r".*\.status\.resources(\..*)?"
_POD_AMOUNTS_REASON = (
    "the recorded kubelet reads the pod's amounts back from cgroup v1: no limit shows as 2^63, and values vanish "
    "with the cgroup; the simulated one always shows those of the spec"
)

_LIVES = (
    "completed", "configerror-configmap", "crashloop", "deadline-exceeded", "evicted-by-api", "failed",
    "liveness-failing", "oomkilled", "readiness-failing", "running", "sidecar", "start-error", "terminating-grace",
    "two-containers",
)  # fmt: skip

KNOWN: tuple[KnownDifference, ...] = (
    KnownDifference(_DISCOVERY, 5, "text", "the checks named by /readyz?verbose are those of this server"),
    KnownDifference(
        _DISCOVERY,
        7,
        r"body\.groups\.authorization\.k8s\.io",
        _NOT_SIMULATED,
    ),
    KnownDifference(
        _DISCOVERY,
        8,
        r"body\.resources\.(pods/(attach|portforward)|serviceaccounts/token)",
        "a subresource that the simulator does not have",
    ),
    KnownDifference(
        _DISCOVERY,
        8,
        r"body\.resources\.(endpoints|nodes/status|persistentvolumeclaims/status|persistentvolumes(/status)?"
        r"|pods/binding|services/status)",
        _CUT,
    ),
    KnownDifference(
        _DISCOVERY,
        7,
        r"body\.groups\.(autoscaling|policy|(apiextensions|networking|scheduling|storage)\.k8s\.io)",
        _CUT,
    ),
    KnownDifference(
        _DISCOVERY,
        9,
        r"body\.resources\.(controllerrevisions|daemonsets(/status)?|statefulsets/status)",
        _CUT,
    ),
    KnownDifference(_DISCOVERY, 10, r"body\.resources\.cronjobs(/status)?", _CUT),
    KnownDifference(
        "31-httproute",
        6,
        r"header\.content-type|body\.(apiVersion|kind|spec|metadata\.(creationTimestamp|generation|resourceVersion|uid))",
        "the recording shows the name and the status of the definition alone",
    ),
    KnownDifference(_DISCOVERY, 14, r"body\.items\.batch\.versions\[0\]\.resources\.cronjobs", _CUT),
    KnownDifference(
        _DISCOVERY,
        13,
        r"body\.items\.core\.versions\[0\]\.resources\.(persistentvolumeclaims|pods|serviceaccounts|services)\.subresources.*",
        "subresources that the simulator does not have",
    ),
    KnownDifference(
        _DISCOVERY, 13, r"body\.items\.core\.versions\[0\]\.resources\.(endpoints|persistentvolumes)", _CUT
    ),
    KnownDifference(
        _DISCOVERY,
        14,
        r"body\.items\.(policy|(apiextensions|networking|rbac\.authorization|scheduling)\.k8s\.io)",
        _CUT,
    ),
    KnownDifference(
        _DISCOVERY, 14, r"body\.items\.apps\.versions\[0\]\.resources\.(controllerrevisions|daemonsets)", _CUT
    ),
    KnownDifference(
        _DISCOVERY,
        14,
        r"body\.items\.(autoscaling|discovery\.k8s\.io|events\.k8s\.io|storage\.k8s\.io)",
        "other groups, because other kinds, and because the recording was cut",
    ),
    KnownDifference(
        _DISCOVERY,
        23,
        r"body\.status\.(allocatable|capacity)\..*|body\.status\.addresses\.InternalIP\.address",
        "the simulated nodes are larger, and have no huge pages",
    ),
    KnownDifference(
        _DISCOVERY,
        23,
        r"body\.metadata\.(annotations|labels\.type)|body\.status\.(declaredFeatures|images\.length)"
        r"|body\.status\.nodeInfo\..*",
        "the simulated nodes have features, images and software of their own",
    ),
    KnownDifference(
        "06c-persistentvolumeclaims", 16, "text", "the simulated program does not write into its volume"
    ),
    KnownDifference(
        "06b-configmaps-and-secrets",
        None,
        "text",
        "a log follows from the script alone, and this one is not understood: what it reads is seen by exec",
    ),
    KnownDifference(
        _LOST,
        None,
        r"(body|lines\[real-0\]\[\d\]\.object)\.status\.(allocatable|capacity|images|nodeInfo)",
        "the recording was cut by this",
    ),
    KnownDifference(
        _LOST,
        None,
        r"(body|lines\[real-0\]\[\d\]\.object)\.(metadata\.annotations|status\.declaredFeatures)",
        "the simulated nodes have features of their own, and no controller that annotates them",
    ),
    KnownDifference(
        _LOST,
        2,
        r"lines\[real-0\.18eb017c5b5d2462\](\.types\[0\]|\[\d\]\.(type|object\.involvedObject\.resourceVersion))",
        "the recorded node had been lost before: its event counts up, and tells of the node as it was then",
    ),
    KnownDifference(
        _LOST,
        2,
        r"lines\[short\.18eb01be00a64c25\]\[\d\]\.object\.involvedObject\.(uid|resourceVersion)",
        "the taint controller knows pods by their name alone; the simulated events always say which",
    ),
    KnownDifference(
        _LOST,
        2,
        r"lines\[real-0\.18eb01bf[0-9a-f]{8}\]\.types\.length",
        "what a kubelet tells of its own start is not simulated",
    ),
    KnownDifference(
        _LOST,
        2,
        r"lines\[(plain\.18eb01bfa39f173c|plain\.18eb01c031198568|short\.18eb01bff7f9b946)\]\.types\.length",
        "an eviction that is called off, what still ran of a pod that was deleted by force, and a volume that was "
        "mounted again while its pod ended: told by events alone, which are not simulated",
    ),
    KnownDifference(
        "07b-authentication-and-rbac",
        20,
        r"body\.status\.reason",
        "the reason names the binding and the role; the simulated users have rules of their own",
    ),
    KnownDifference(_ROLLOUT, None, _POD_AMOUNTS, _POD_AMOUNTS_REASON),
    KnownDifference(_DELETION, None, _POD_AMOUNTS, _POD_AMOUNTS_REASON),
    KnownDifference(_STATEFUL_SET, None, _POD_AMOUNTS, _POD_AMOUNTS_REASON),
    KnownDifference(_DAEMON_SET, None, _POD_AMOUNTS, _POD_AMOUNTS_REASON),
    *(KnownDifference(job, None, _POD_AMOUNTS, _POD_AMOUNTS_REASON) for job in _JOBS),
    KnownDifference(_SIDECARS, None, _POD_AMOUNTS, _POD_AMOUNTS_REASON),
    KnownDifference(_SIDECARS, None, r".*f:resources\.(\.|f:limits)", _POD_AMOUNTS_REASON),
    KnownDifference(_SIDECARS, 7, "text", "the recorded runtime had lost the log"),
    KnownDifference(_THREE, 11, "text", "the recorded runtime had lost the log"),
    KnownDifference(
        _SIDECARS,
        None,
        r".*\.initContainers\[0\]\.startupProbe\.initialDelaySeconds",
        "the recorded probe looks for a file that the sidecar makes; this one waits as long",
    ),
    KnownDifference(
        _SIDECARS,
        None,
        r"(body|lines\[once\]\[1\]\.object)\.status\.initContainerStatuses\[0\]"
        r"\.(lastState\.terminated|restartCount)",
        "the recorded init container finds the file of its first run in a volume",
    ),
    KnownDifference(
        _SIDECARS,
        None,
        r"(body|lines\[rules\]\[1\]\.object)\.status\.containerStatuses\[0\]\.state\.(terminated|waiting)",
        "the recorded pod was read a moment before it showed its back-off",
    ),
    KnownDifference(
        _SIDECARS,
        0,
        r"lines\[web-594dd4679b-2pjsz\]\.types\.length",
        "no answer shows the replica set after which this pod is called",
    ),
    KnownDifference(
        "23-cronjob",
        None,
        r"(body\.items\[5\]|lines\[forbid-29933274\]\[1\]\.object)\.status\.terminating",
        "the recorded controller looks at a Job once a second, the simulated one at each change",
    ),
    KnownDifference(
        _DAEMON_SET,
        18,
        r"body\.(metadata\.annotations|status\..*)",
        "the simulated nodes have another size, and features, images and software of their own",
    ),
    KnownDifference(
        _DAEMON_SET,
        0,
        r"lines\[agent\]\[1\]\.object\.status\.updatedNumberScheduled",
        "the recorded DaemonSet was deleted while the old pod of its node took seconds to end",
    ),
    KnownDifference(_STATEFUL_SET, 13, r".*f:podIPs\.k:.*", "the pods have other addresses"),
    KnownDifference(
        _STATEFUL_SET,
        37,
        r"body\.status\.containerStatuses\[0\]\.state\.waiting\.reason",
        "a pod that cannot pull its image shows ErrImagePull and ImagePullBackOff by turns",
    ),
    KnownDifference(
        "05-pod-readiness-failing",
        1,
        r"lines\[notready\.18eb0114875ec156\]\.types\.length",
        "a probe that was under way when its container was killed",
    ),
    *(KnownDifference(f"05-pod-{life}", None, _POD_AMOUNTS, _POD_AMOUNTS_REASON) for life in _LIVES),
    *(
        KnownDifference(
            name,
            None,
            r"(body|lines.*\.object)\.spec\.volumes\[0\]\.projected\.sources\.length",
            "a controller of the recorded cluster gave each namespace a CA of its own, which its tokens bring along",
        )
        for name in ("05-pod-sidecar", "12-pod-resize")
    ),
    KnownDifference(
        "05-pod-imagepull",
        None,
        r"body\.status\.containerStatuses\[0\]\.state\.waiting\.reason",
        "the recorded status lags many seconds behind the events; the simulated one says what the events say",
    ),
)
