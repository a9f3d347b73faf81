"""A JobSet for GKE: one Job per slice, one pod per machine, one process per pod.

Sources, read November 2026: jobset.sigs.k8s.io (v1alpha2), kubernetes.io (pod failure policy, Indexed Jobs),
docs.cloud.google.com/kubernetes-engine/docs (how-to/tpu-multislice, Cloud Storage FUSE CSI driver), google/xpk.
"""

from __future__ import annotations

from typing import Any

import yaml

from gapt_jax.launch.spec import EXITS_FINAL, MOUNT, LaunchSpec, check_storage

_CONTAINER = "train"
_KEEP_FINISHED = 86_400  # seconds until a finished JobSet and its logs in the cluster are deleted


def jobset_yaml(spec: LaunchSpec) -> str:
    """The manifest as text; keys are sorted."""
    return yaml.safe_dump(jobset(spec), sort_keys=True, width=1_000_000, allow_unicode=True)


def jobset(spec: LaunchSpec) -> dict[str, Any]:
    """Exit codes 1, 2 and 3 end the JobSet; anything else restarts it whole, at most `restarts` times."""
    metadata: dict[str, Any] = {"name": spec.name}
    if spec.slice.vms > 1:  # a pool of several machines is one slice: no other job may take a part of it
        metadata["annotations"] = {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"}
    if spec.queue:
        metadata["labels"] = {"kueue.x-k8s.io/queue-name": spec.queue}
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": metadata,
        "spec": {
            "failurePolicy": {
                "maxRestarts": spec.restarts,
                "rules": [{"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}],
            },
            "replicatedJobs": [{"name": "slice", "replicas": spec.slices, "template": {"spec": _job(spec)}}],
            "ttlSecondsAfterFinished": _KEEP_FINISHED,
        },
    }


def _job(spec: LaunchSpec) -> dict[str, Any]:
    """One slice, a batch/v1 Job. It fails with its first pod; the first rule that fits says for which reason."""
    machines = spec.slice.vms
    return {
        "backoffLimit": 0,
        "completionMode": "Indexed",
        "completions": machines,
        "parallelism": machines,
        "podFailurePolicy": {
            "rules": [
                # Whatever code a preempted pod ends with, it is not the program that failed.
                {"action": "Count", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                {
                    "action": "FailJob",
                    "onExitCodes": {"containerName": _CONTAINER, "operator": "In", "values": list(EXITS_FINAL)},
                },
            ]
        },
        "template": _pod(spec),
    }


def _pod(spec: LaunchSpec) -> dict[str, Any]:
    found = spec.slice
    storage, annotations = _storage_volume(spec)
    selector = {
        "cloud.google.com/gke-tpu-accelerator": found.generation.gke_accelerator,
        "cloud.google.com/gke-tpu-topology": found.topology,
    }
    tolerations = [{"key": "google.com/tpu", "operator": "Exists"}]
    if spec.spot:
        selector["cloud.google.com/gke-spot"] = "true"
        tolerations.append({"key": "cloud.google.com/gke-spot", "operator": "Exists"})
    pod: dict[str, Any] = {
        "containers": [_container(spec)],
        "dnsPolicy": "ClusterFirstWithHostNet",
        "hostNetwork": True,
        "nodeSelector": selector,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": spec.grace_seconds,
        "tolerations": tolerations,
        "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory"}}, {"name": "storage", **storage}],
    }
    if spec.service_account:
        pod["serviceAccountName"] = spec.service_account
    return {"metadata": {"annotations": annotations}, "spec": pod} if annotations else {"spec": pod}


def _container(spec: LaunchSpec) -> dict[str, Any]:
    """No shell between Kubernetes and Python: SIGTERM reaches it, and no value is ever parsed."""
    chips = spec.slice.chips_per_vm
    return {
        "name": _CONTAINER,
        "image": spec.image,
        "args": [_literal(word) for word in spec.command],
        "env": [{"name": name, "value": _literal(value)} for name, value in sorted(environment(spec).items())],
        "resources": {"limits": {"google.com/tpu": chips}, "requests": {"google.com/tpu": chips}},
        # The files of TPU devices belong to root.
        "securityContext": {"privileged": True, "runAsUser": 0},
        "volumeMounts": [{"mountPath": "/dev/shm", "name": "shm"}, {"mountPath": MOUNT, "name": "storage"}],
    }


def environment(spec: LaunchSpec) -> dict[str, str]:
    """Environment of the containers of gke and tpu-vm."""
    defaults = {
        "JAX_COMPILATION_CACHE_DIR": f"{MOUNT}/xla-cache",  # a container's own disk does not survive a restart
        "JAX_PLATFORMS": "tpu,cpu",  # a TPU that does not start is an error, not a run on the CPU
    }
    return {**defaults, **dict(spec.env)}


def _literal(text: str) -> str:
    """Kubernetes replaces ``$(NAME)`` in arguments and values, and ``$$`` by ``$``."""
    return text.replace("$", "$$")


def _storage_volume(spec: LaunchSpec) -> tuple[dict[str, Any], dict[str, str]]:
    """The volume and the annotations that its pod needs."""
    kind, place, path = check_storage(spec.storage, spec.target)
    if kind == "nfs":
        return {"nfs": {"server": place, "path": path}}, {}
    if kind == "pvc":
        return {"persistentVolumeClaim": {"claimName": place}}, {}
    attributes = {
        "bucketName": place,
        "hostNetworkPodKSA": "true",  # the pod's identity, not the node's, although it uses the node's network
        # Each host must see at once what another has written.
        "mountOptions": "metadata-cache:ttl-secs:0,metadata-cache:negative-ttl-secs:0",
    }
    return (
        {"csi": {"driver": "gcsfuse.csi.storage.gke.io", "volumeAttributes": attributes}},
        {"gke-gcsfuse/volumes": "true"},
    )
