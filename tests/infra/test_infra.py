"""What reaches a cluster: image, runtime environment and KubeRay manifests, checked without any of them."""

import copy
import json
import re
import typing
from pathlib import Path

import jsonschema
import pytest
import yaml
from pydantic import BaseModel

import real_recordings

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
KINDS = {"raycluster": "RayCluster", "rayjob": "RayJob", "rayservice": "RayService"}
SCHEMAS = real_recordings.DATA / "kuberay"


def manifest(name):
    return yaml.safe_load((INFRA / "kubernetes/base" / f"{name}.yaml").read_text())


def cluster_spec(name):
    spec = manifest(name)["spec"]
    return spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or spec


def pod_specs(name):
    """Every pod that a manifest makes, by name."""
    cluster = cluster_spec(name)
    pods = {"head": cluster["headGroupSpec"]["template"]["spec"]}
    pods |= {group["groupName"]: group["template"]["spec"] for group in cluster["workerGroupSpecs"]}
    if "submitterPodTemplate" in manifest(name)["spec"]:
        pods["submitter"] = manifest(name)["spec"]["submitterPodTemplate"]["spec"]
    return pods


def containers(name):
    return {pod: container for pod, spec in pod_specs(name).items() for container in spec["containers"]}


def walk(value):
    yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from walk(part)


# --- KubeRay's schemas


def closed(schema):
    """A custom resource's schema as an API server applies it, but unknown fields refused, not dropped."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: closed(value) for key, value in schema.items()}
    if result.pop("x-kubernetes-int-or-string", False):
        result.pop("type", None)
        result["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    properties = result.get("properties")
    if isinstance(properties, dict) and result.get("type", "object") == "object":
        if not result.get("x-kubernetes-preserve-unknown-fields"):
            result.setdefault("additionalProperties", False)
        # The API server fills defaults in before it looks for what is required.
        required = [name for name in result.get("required", []) if "default" not in properties.get(name, {})]
        result.pop("required", None)
        if required:
            result["required"] = required
    return result


@pytest.fixture(scope="module")
def problems():
    """A function that lists what KubeRay's schema finds wrong with a manifest, a line each."""
    validators = {}

    def find(document):
        kind = document["kind"]
        if kind not in validators:
            schema = json.loads((SCHEMAS / f"{kind}.v1.schema.json").read_text())
            validators[kind] = jsonschema.Draft202012Validator(closed(schema))
        return [f"{error.json_path}: {error.message}" for error in validators[kind].iter_errors(document)]

    return find


@pytest.mark.parametrize("name", KINDS)
def test_kuberay_accepts_the_manifest(name, problems):
    assert problems(manifest(name)) == []


@pytest.mark.parametrize("name", KINDS)
def test_kuberay_schema_refuses_a_misspelt_field(name, problems):
    """At any depth: the check above is worth something only if it sees what an API server would drop."""

    def misspelt(path):
        document = copy.deepcopy(manifest(name))
        *parents, last = path
        place = document
        for key in parents:
            place = place[key]
        place[f"{last}s"] = place.pop(last)
        return document

    cluster = {"rayjob": ["rayClusterSpec"], "rayservice": ["rayClusterConfig"]}.get(name, [])
    pod = ["spec", *cluster, "workerGroupSpecs", 1, "template", "spec"]
    for path in (
        ["spec", *cluster, "rayVersion"],
        ["spec", *cluster, "authOptions", "mode"],
        [*pod, "tolerations", 0, "operator"],
        [*pod, "containers", 0, "resources", "limits"],
        [*pod, "containers", 0, "env", 0, "valueFrom", "secretKeyRef", "key"],
    ):
        assert any(path[-1] in line for line in problems(misspelt(path))), path


# --- Without the schemas


@pytest.mark.parametrize("name", KINDS)
def test_manifest_is_one_object_of_its_kind(name):
    (document,) = yaml.safe_load_all((INFRA / "kubernetes/base" / f"{name}.yaml").read_text())
    assert document["apiVersion"] == "ray.io/v1"
    assert document["kind"] == KINDS[name]


@pytest.mark.parametrize("name", KINDS)
def test_cluster_is_guarded_and_schedules_nothing_on_its_head(name):
    import ray

    spec = cluster_spec(name)
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["rayVersion"] == ray.__version__
    # rayStartParams are a map of strings: a number is refused.
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert spec["enableInTreeAutoscaling"] is True
    for group in spec["workerGroupSpecs"]:
        # Pools of jobs start from zero nodes; a server keeps one, so that the first answer does not wait for it.
        assert group["minReplicas"] == group["replicas"] == (name == "rayservice")
        assert group["maxReplicas"] > 1


@pytest.mark.parametrize("name", KINDS)
def test_pods_are_not_root_and_have_what_they_may_use(name):
    for pod, spec in pod_specs(name).items():
        assert spec["securityContext"]["runAsNonRoot"] is True, pod
        assert spec["securityContext"]["runAsUser"] > 0, pod
    for pod, container in containers(name).items():
        assert container["securityContext"]["allowPrivilegeEscalation"] is False, pod
        assert container["resources"]["limits"] == container["resources"]["requests"], pod
        if pod != "submitter":
            assert "/dev/shm" in [mount["mountPath"] for mount in container["volumeMounts"]], pod


@pytest.mark.parametrize("name", KINDS)
def test_a100_pool_is_where_the_gpus_are(name):
    gpus = {pod: c["resources"]["limits"].get("nvidia.com/gpu") for pod, c in containers(name).items()}
    assert {pod for pod, count in gpus.items() if count} == {"a100"}
    (group,) = [g for g in cluster_spec(name)["workerGroupSpecs"] if g["groupName"] == "a100"]
    assert group["labels"] == {"ray.io/accelerator-type": "A100"}
    pod = group["template"]["spec"]
    assert pod["nodeSelector"]
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod["tolerations"]


@pytest.mark.parametrize("name", KINDS)
def test_secrets_are_references(name):
    for pod, container in containers(name).items():
        if pod == "submitter":
            continue
        names = set()
        for variable in container["env"]:
            names.add(variable["name"])
            if re.search("KEY|SECRET|TOKEN|PASSWORD|URI|URL|^AWS_", variable["name"]):
                assert list(variable) == ["name", "valueFrom"], variable["name"]
                assert list(variable["valueFrom"]) == ["secretKeyRef"], variable["name"]
        assert {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_URI"} <= names
        assert ("BIOMECHGPT_API_KEY" in names) == (name == "rayservice")


def test_nothing_under_infra_looks_like_a_secret():
    pattern = re.compile(
        r"AKIA[0-9A-Z]{16}|BEGIN [A-Z ]*PRIVATE KEY|://[^/\s:]+:[^@\s]+@"
        r"|(?:key|secret|token|password)[\"']?\s*[:=]\s*[\"']?[A-Za-z0-9+/=_-]{16,}\b",
        re.IGNORECASE,
    )
    # The names of the keys in the Secrets are not secret.
    known = re.compile(r"key: (AWS_|MLFLOW_|BIOMECHGPT_)[A-Z_]+")
    for path in [p for p in INFRA.rglob("*") if p.is_file() and p.suffix != ".lock"]:
        assert pattern.search(known.sub("", path.read_text())) is None, path
    assert pattern.search("AWS_SECRET_ACCESS_KEY: wJalrXUtnFEMIK7MDENGbPxRfiCY")


@pytest.mark.parametrize("name", KINDS)
def test_image_is_a_placeholder_and_the_same_everywhere(name):
    images = [part["image"] for part in walk(manifest(name)) if isinstance(part, dict) and "image" in part]
    ours = "biomechgpt-serve" if name == "rayservice" else "biomechgpt"
    assert set(images) == {f"registry.example.org/{ours}:TAG"}


def test_job_runs_on_the_cluster_that_stays():
    """Two copies of one thing: kept the same here, since a RayJob cannot include a RayCluster."""
    job = json.dumps(cluster_spec("rayjob")).replace('"sweep"', '"jobs"')
    assert json.loads(job) == cluster_spec("raycluster")


def test_job_names_a_script_and_settings_that_exist():
    from biomechgpt.core.settings import load
    from biomechgpt.experiment.sweep import SweepSettings

    words = manifest("rayjob")["spec"]["entrypoint"].split()
    assert words[0] == "python"
    assert (ROOT / words[1]).is_file()
    options = dict(zip(words[2::2], words[3::2], strict=True))
    settings = load(
        SweepSettings, ROOT / options.pop("--config"), [w for item in options.items() for w in item]
    )
    assert settings.root.startswith("s3://")


def test_runtime_environments_agree():
    """Uploaded or from the image, a job and the service find the package in the same way."""
    from ray.runtime_env import RuntimeEnv

    submitted = yaml.safe_load((INFRA / "runtime_env.yaml").read_text())
    job = yaml.safe_load(manifest("rayjob")["spec"]["runtimeEnvYAML"])
    (application,) = serve_config()["applications"]
    assert submitted["env_vars"] == job["env_vars"] == application["runtime_env"]["env_vars"]
    assert (ROOT / submitted["env_vars"]["PYTHONPATH"] / "biomechgpt").is_dir()
    image = re.search(r"^WORKDIR (.+)$", (INFRA / "Dockerfile").read_text(), re.MULTILINE).group(1)
    assert job["working_dir"] == application["runtime_env"]["working_dir"] == f"local://{image}"
    for environment in (submitted, job, application["runtime_env"]):
        assert set(environment) <= RuntimeEnv.known_fields
        RuntimeEnv(**environment)


# --- Serve's part


def serve_config():
    return yaml.safe_load(manifest("rayservice")["spec"]["serveConfigV2"])


def unknown_keys(model, values, path="") -> list[str]:
    """Keys that Serve's schema does not know, at any depth; it would drop most of them without a word."""
    found = []
    for key, value in values.items():
        if key not in model.model_fields:
            found.append(f"{path}{key}")
            continue
        models = _models(model.model_fields[key].annotation)
        for part in value if isinstance(value, list) else [value]:
            if models and isinstance(part, dict):
                found += unknown_keys(models[0], part, f"{path}{key}.")
    return found


def _models(annotation):
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in _models(part)]


def test_serve_accepts_its_configuration():
    from ray.serve.schema import ServeDeploySchema

    config = serve_config()
    ServeDeploySchema.model_validate(config)
    assert unknown_keys(ServeDeploySchema, config) == []
    for path in (
        ["http_options"],
        ["applications", 0],
        ["applications", 0, "deployments", 1, "autoscaling_config"],
    ):
        wrong = copy.deepcopy(config)
        place = wrong
        for key in path:
            place = place[key]
        place["misspelt"] = 1
        assert [key.rsplit(".", 1)[-1] for key in unknown_keys(ServeDeploySchema, wrong)] == ["misspelt"]


def test_service_names_an_application_that_exists():
    (application,) = serve_config()["applications"]
    module, function = application["import_path"].split(":")
    source = (ROOT / f"{module.replace('.', '/')}.py").read_text()
    assert re.search(rf"^def {function}\(", source, re.MULTILINE)
    source += (ROOT / "serve/deployment.py").read_text()
    for deployment in application["deployments"]:
        assert re.search(rf"""class {deployment["name"]}\b|name="{deployment["name"]}\"""", source)
    assert [deployment["name"] for deployment in application["deployments"]] == ["Gateway", "Model", "Memory"]
    assert application["args"] == {"bundle": "models:/biomechgpt@champion"}


# --- The image


def test_image_copies_what_exists_and_is_not_ignored():
    ignore = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert ignore[0] == "*"
    sent = [line.removeprefix("!") for line in ignore if line.startswith("!")]
    lines = (INFRA / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    copies = [line.split()[1:] for line in lines if line.startswith(("COPY", "ADD"))]
    sources = [word for words in copies for word in words[:-1] if not word.startswith("--")]
    assert {"platform/", "jobs/", "serve/", "configs/", "infra/requirements.lock"} <= set(sources)
    here = [source for source in sources if not source.startswith("/")]  # the others come from another stage
    for source in [s.replace("${VARIANT}", variant) for s in here for variant in ("cpu", "cuda")]:
        assert (ROOT / source).exists(), source
        assert any(source.rstrip("/") == path or source.startswith(f"{path}/") for path in sent), source


def test_images_are_of_the_manifests_ray_and_not_root():
    import ray

    text = (INFRA / "Dockerfile").read_text()
    stages = dict(re.findall(r"^FROM \S+ AS (\w+)\n(.*?)(?=^FROM |\Z)", text, re.MULTILINE | re.DOTALL))
    for stage in ("serve", "train"):
        user = re.findall(r"^USER (\d+)", stages[stage], re.MULTILINE)[-1]
        assert int(user) == pod_specs("rayjob")["head"]["securityContext"]["runAsUser"] > 0
    assert f"ray=={ray.__version__}" in (INFRA / "requirements.lock").read_text().splitlines()
