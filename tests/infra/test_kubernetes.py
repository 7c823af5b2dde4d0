"""infra/kubernetes: every object by its official schema, and what no schema checks."""

from __future__ import annotations

import copy
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from rendering import apply, containers, render
from schemas_of_others import rayjob

from dawnchorus import __version__, config

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "infra" / "kubernetes"
FOLDERS = ["base", "overlays/gpu", "overlays/cpu"]
MODES = {"K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"}
SECRET_NAMES = re.compile(r"SECRET|TOKEN|PASSWORD|ACCESS_KEY")


def _objects(folder: str) -> dict[str, dict[str, Any]]:
    objects = {o["kind"]: o for o in render(FOLDER / folder)}
    assert set(objects) == {"ServiceAccount", "ConfigMap", "RayJob"}
    return objects


def _job(folder: str) -> dict[str, Any]:
    return dict(_objects(folder)["RayJob"])


def _groups(job: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {g["groupName"]: g for g in job["spec"]["rayClusterSpec"]["workerGroupSpecs"]}


def _templates(job: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "submitter", job["spec"]["submitterPodTemplate"]
    yield "head", job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]
    for name, group in _groups(job).items():
        yield name, group["template"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_rayjob_is_what_kuberays_own_schema_says(folder: str) -> None:
    errors = [f"{e.json_path}: {e.message}" for e in rayjob().iter_errors(_job(folder))]
    assert not errors


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("ttlSecondsAfterFinish", 60),
        ("backoffLimit", "two"),
        ("rayClusterSpec/workerGroupSpecs/0/minReplica", 0),
        ("rayClusterSpec/workerGroupSpecs/0/template/spec/containers/0/livenesProbe", {}),
        ("rayClusterSpec/autoscalerOptions/version", "v3"),
        ("rayClusterSpec/headGroupSpec/rayStartParams/num-cpus", 0),
    ],
)
def test_schema_refuses(path: str, value: Any) -> None:
    """The check is one: misspelt and mistyped fields at every depth."""
    job = copy.deepcopy(_job("base"))
    *parents, last = path.split("/")
    node: Any = job["spec"]
    for name in parents:
        node = node[int(name)] if isinstance(node, list) else node[name]
    node[last] = value
    assert list(rayjob().iter_errors(job))


@pytest.mark.parametrize("folder", FOLDERS)
def test_pods_and_core_objects_are_what_kubernetes_says(folder: str) -> None:
    objects = _objects(folder)
    pods = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": t["spec"]}
        for name, t in _templates(objects["RayJob"])
    ]
    for thing in (*pods, objects["ServiceAccount"], objects["ConfigMap"]):
        kubernetes_validate.validate(thing, "1.37.0", strict=True)
    pods[0]["spec"] = {**pods[0]["spec"], "restartPolicy": 1}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(pods[0], "1.37.0", strict=True)


@pytest.mark.parametrize("folder", FOLDERS)
def test_kubectl_makes_the_same_objects(folder: str) -> None:
    """The rest of this file looks at what `rendering.py` makes; this is the official tool."""
    tool = shutil.which("kubectl")
    if tool is None:
        pytest.skip("no kubectl here; rendering.py stands in for it")
    done = subprocess.run(
        [tool, "kustomize", FOLDER / folder], capture_output=True, text=True, timeout=60, check=True
    )
    theirs = {o["kind"]: o for o in yaml.safe_load_all(done.stdout)}
    assert theirs == _objects(folder)


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_the_operator_checks_and_the_schema_does_not(folder: str) -> None:
    spec = _job(folder)["spec"]
    assert spec["submissionMode"] in MODES
    assert spec["shutdownAfterJobFinishes"]
    assert spec["ttlSecondsAfterFinished"] >= 0
    assert "clusterSelector" not in spec, "excludes backoffLimit"
    assert spec["submitterConfig"]["backoffLimit"] == 0, "a second submitter is a second run"
    cluster = spec["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["enableInTreeAutoscaling"]
    for group in _groups(_job(folder)).values():
        assert group["minReplicas"] == group["replicas"] == 0 < group["maxReplicas"]
        assert group["template"]["spec"]["restartPolicy"] == "Never", "autoscaler v2"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"ray[data]=={cluster['rayVersion']}" in project["dependencies"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_run_asks_for_what_the_groups_can_give(folder: str) -> None:
    """More than there can be would be waited for in vain; less would idle."""
    objects = _objects(folder)
    job = objects["RayJob"]
    gpus = cpus = 0
    for group in _groups(job).values():
        (container,) = group["template"]["spec"]["containers"]
        gpus += group["maxReplicas"] * int(container["resources"]["limits"].get("nvidia.com/gpu", 0))
        cpus += group["maxReplicas"] * int(container["resources"]["limits"]["cpu"])
    head = dict(_templates(job))["head"]["spec"]
    (mount,) = [m for m in head["containers"][0]["volumeMounts"] if m["name"] == "run"]
    ((key, text),) = objects["ConfigMap"]["data"].items()
    assert shlex.split(job["spec"]["entrypoint"]) == ["dawnchorus", "run", f"{mount['mountPath']}/{key}"]
    workers = config.build(yaml.safe_load(text)).workers
    assert workers.engines
    assert workers.decoders
    assert workers.min_engines == 1
    assert workers.wait_seconds >= 900
    assert workers.engines == gpus or not gpus
    used = workers.engines + workers.decoders * (1.0 if gpus else 0.5)
    assert 0.85 * cpus <= used < cpus


@pytest.mark.parametrize("folder", FOLDERS)
def test_autoscaler_can_write_where_ray_logs(folder: str) -> None:
    """Ray's folder is below the head's TMPDIR; the operator mounts /tmp/ray only, and the sidecar ended."""
    cluster = _job(folder)["spec"]["rayClusterSpec"]
    (head,) = cluster["headGroupSpec"]["template"]["spec"]["containers"]
    scratch = next(e["value"] for e in head["env"] if e["name"] == "TMPDIR")
    (mine,) = [m for m in head["volumeMounts"] if m["mountPath"] == scratch]
    assert mine in cluster["autoscalerOptions"]["volumeMounts"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_configuration_is_one(folder: str) -> None:
    job, (text,) = _job(folder), _objects(folder)["ConfigMap"]["data"].values()
    built = config.build(yaml.safe_load(text))
    assert built.workers.address == "auto"
    assert (built.engine.device == "cuda") == ("gpu" in _groups(job))


@pytest.mark.parametrize("folder", FOLDERS)
def test_pods_are_bounded_unprivileged_and_hold_no_secret(folder: str) -> None:
    for name, template in _templates(_job(folder)):
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"], name
        assert spec["securityContext"]["runAsUser"] == 1000, name
        assert spec.get("automountServiceAccountToken", True) == (name == "head"), name
        for container in containers(spec):
            resources, security = container["resources"], container["securityContext"]
            assert {"cpu", "memory"} <= set(resources["limits"]), name
            assert set(resources["requests"]) == set(resources["limits"]), name
            assert security["allowPrivilegeEscalation"] is False, name
            assert security["capabilities"] == {"drop": ["ALL"]}, name
            assert not [e for e in container.get("env", ()) if SECRET_NAMES.search(e["name"])], name
            assert container["image"].rpartition(":")[2] == __version__, name


@pytest.mark.parametrize("folder", FOLDERS)
def test_leaving_fits_into_the_grace(folder: str) -> None:
    for name, template in list(_templates(_job(folder)))[1:]:
        spec = template["spec"]
        command = spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
        assert command[0] == "leave"
        assert int(command[1]) + 20 <= spec["terminationGracePeriodSeconds"], name
        env = {e["name"]: e["value"] for e in spec["containers"][0]["env"]}
        if name == "head":
            assert int(env["RAY_JOB_STOP_WAIT_TIME_S"]) >= int(command[1])


def test_gpus_are_asked_for_twice_alike_and_spot_is_only_for_workers() -> None:
    job = _job("overlays/gpu")
    limits = _groups(job)["gpu"]["template"]["spec"]["containers"][0]["resources"]
    assert limits["requests"]["nvidia.com/gpu"] == limits["limits"]["nvidia.com/gpu"]
    for name, group in _groups(job).items():
        keys = {t["key"] for t in group["template"]["spec"]["tolerations"]}
        assert {"cloud.google.com/gke-spot", "kubernetes.azure.com/scalesetpriority"} <= keys
        assert ("nvidia.com/gpu" in keys) == (name == "gpu")
    head = dict(_templates(job))["head"]["spec"]
    assert "tolerations" not in head
    terms = head["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert {e["operator"] for t in terms["nodeSelectorTerms"] for e in t["matchExpressions"]} == {"NotIn"}


def test_group_order_is_what_the_overlays_patch() -> None:
    """A patch that would hit the wrong group is an error, not another cluster."""
    assert list(_groups(_job("base"))) == ["gpu", "cpu"]
    with pytest.raises(ValueError, match="is 'a', not 'b'"):
        apply({"x": [{"n": "a"}]}, "test", "/x/0/n", "b")
