"""infra/aws: the cluster by Ray's own schema, the instances by EC2's, the policies by a policy linter."""

from __future__ import annotations

import copy
import json
import logging
import re
import warnings
from pathlib import Path
from typing import Any

import botocore.session
import jsonschema
import pytest
import yaml
from botocore.validate import ParamValidator
from ray.autoscaler._private.util import prepare_config, validate_config

from dawnchorus import __version__, config, storage

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import parliament

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "infra" / "aws"
POLICIES = ["launcher", "reader", "writer"]
RAY_WORKER_PORTS = range(10_002, 20_000)


def _cluster() -> dict[str, Any]:
    return dict(yaml.safe_load((FOLDER / "cluster.yaml").read_text(encoding="utf-8")))


def _policy(name: str) -> dict[str, Any]:
    return dict(json.loads((FOLDER / "iam" / f"{name}.json").read_text(encoding="utf-8")))


def _instance_problems(node_config: dict[str, Any]) -> str:
    """What EC2's own model says of a RunInstances call; Ray does not look."""
    shape = (
        botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    )
    request = {**node_config, "MinCount": 1, "MaxCount": 1}
    return str(ParamValidator().validate(request, shape).generate_report())


def test_cluster_is_what_rays_own_schema_says(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.CRITICAL):
        prepared = prepare_config(_cluster())
        validate_config(prepared)
    commands = [c for k, v in prepared.items() if k.endswith("setup_commands") for c in v]
    assert commands == [], "Ray's default would install a nightly build of itself"


@pytest.mark.parametrize(
    "change",
    [{"max_worker": 8}, {"head_node_type": "haed"}, {"max_workers": -1}, {"docker": {"images": "x"}}],
)
def test_rays_schema_refuses(change: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.CRITICAL), pytest.raises((jsonschema.ValidationError, ValueError)):
        validate_config(prepare_config({**_cluster(), **change}))


def test_instances_are_what_ec2_says() -> None:
    for name, node in _cluster()["available_node_types"].items():
        assert _instance_problems(node["node_config"]) == "", name
    wrong = copy.deepcopy(_cluster()["available_node_types"]["gpu"]["node_config"])
    wrong["InstanceMarketOption"] = wrong.pop("InstanceMarketOptions")
    assert "InstanceMarketOption" in _instance_problems(wrong)


def test_head_is_on_demand_and_workers_are_spot_from_zero() -> None:
    types = _cluster()["available_node_types"]
    head = types.pop(_cluster()["head_node_type"])
    assert "InstanceMarketOptions" not in head["node_config"]
    assert head["resources"] == {"CPU": 0}, "nothing but the driver"
    for node in types.values():
        assert node["min_workers"] == 0
        assert node["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    for node in (head, *types.values()):
        assert node["node_config"]["MetadataOptions"] == {
            "HttpTokens": "required",
            "HttpPutResponseHopLimit": 2,
        }


def test_what_ray_up_does_not_check() -> None:
    cluster = _cluster()
    for kind in ("head", "worker"):
        image = cluster["docker"][f"{kind}_image"]
        assert image.rpartition(":")[2] == __version__
    started = " ".join([*cluster["head_start_ray_commands"], *cluster["worker_start_ray_commands"]])
    ports = {int(p) for p in re.findall(r"--port=(\d+)", started)}
    assert ports
    assert not ports & set(RAY_WORKER_PORTS)
    assert "RAY_JOB_STOP_WAIT_TIME_S=120" in started


def test_the_run_asks_for_what_the_cluster_can_give() -> None:
    text = (FOLDER / "cluster.yaml").read_text(encoding="utf-8")
    assert "dawnchorus submit infra/aws/run.yaml" in text
    workers = config.build(yaml.safe_load((FOLDER / "run.yaml").read_text(encoding="utf-8"))).workers
    gpu = _cluster()["available_node_types"]["gpu"]
    assert workers.engines == gpu["max_workers"] * gpu["resources"]["GPU"]
    assert workers.engines + workers.decoders <= gpu["max_workers"] * gpu["resources"]["CPU"]
    assert workers.min_engines == 1
    assert workers.wait_seconds


@pytest.mark.parametrize("name", POLICIES)
def test_policy_linter_finds_nothing_but_what_is_meant(name: str) -> None:
    text = json.dumps(_policy(name))
    found = parliament.analyze_policy_string(text, include_community_auditors=True).findings
    issues = sorted(f.issue for f in found)
    if name != "launcher":
        assert issues == []
        return
    # A head that may launch instances with a role has to pass one; which, is checked below. EC2 authorises
    # RunInstances resource by resource: in two statements, so that what holds for the instance (type, tag)
    # can be asked of it alone. The linter wants all resources in one.
    assert issues == ["PERMISSIONS_MANAGEMENT_ACTIONS", "PRIVILEGE_ESCALATION", *["RESOURCE_MISMATCH"] * 2]
    apart = [d["required_format"] for f in found if f.issue == "RESOURCE_MISMATCH" for d in f.detail]
    statements = _statements("launcher", "ec2:RunInstances")
    together = [r for s in statements for r in _list(s["Resource"])]
    assert {_kind(a) for a in apart} <= {_kind(t) for t in together}


def _kind(arn: str) -> str:
    """`subnet` of arn:aws:ec2:us-east-1:123456789012:subnet/*."""
    return arn.rsplit(":", 1)[1].partition("/")[0]


@pytest.mark.parametrize(
    ("action", "resource", "issue"),
    [
        ("s3:GetObjekt", "arn:aws:s3:::b/*", "UNKNOWN_ACTION"),
        ("s3:GetObject", "arn:aws:s3:::b", "RESOURCE_MISMATCH"),
        ("s3:ListBucket", "arn:aws:s3:::b/*", "RESOURCE_MISMATCH"),
    ],
)
def test_policy_linter_would_find(action: str, resource: str, issue: str) -> None:
    statement = {"Effect": "Allow", "Action": action, "Resource": resource}
    text = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    assert issue in [f.issue for f in parliament.analyze_policy_string(text).findings]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _statements(name: str, action: str) -> list[dict[str, Any]]:
    return [s for s in _policy(name)["Statement"] if action in _list(s["Action"])]


def test_policies_allow_one_bucket_prefix_each_and_nothing_wild() -> None:
    run = config.build(yaml.safe_load((FOLDER / "run.yaml").read_text(encoding="utf-8")))
    for name, url in (("reader", storage.parent(run.input)), ("writer", run.output)):
        bucket, _, prefix = url.removeprefix("s3://").rstrip("/").partition("/")
        for statement in _policy(name)["Statement"]:
            for resource in _list(statement["Resource"]):
                assert resource in (f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/{prefix}/*")
    for name in POLICIES:
        for statement in _policy(name)["Statement"]:
            assert statement["Effect"] == "Allow"
            actions = _list(statement["Action"])
            assert not [a for a in actions if "*" in a]
            if statement["Resource"] == "*":
                assert all(a.startswith("ec2:Describe") for a in actions)


def test_head_launches_and_ends_only_its_own_instances_with_the_workers_role() -> None:
    cluster = _cluster()
    worker = cluster["available_node_types"]["gpu"]["node_config"]
    tag = cluster["cluster_name"]
    (launch,) = [s for s in _statements("launcher", "ec2:RunInstances") if "Condition" in s]
    assert launch["Condition"]["StringEquals"] == {
        "aws:RequestTag/ray-cluster-name": tag,
        "ec2:InstanceType": [worker["InstanceType"]],
    }
    (end,) = _statements("launcher", "ec2:TerminateInstances")
    assert end["Condition"] == {"StringEquals": {"aws:ResourceTag/ray-cluster-name": tag}}
    (role,) = _statements("launcher", "iam:PassRole")
    assert role["Resource"].endswith(f":role/{worker['IamInstanceProfile']['Name']}")
    assert role["Condition"] == {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}
    regions = set(re.findall(r":ec2:([a-z0-9-]+):", json.dumps(_policy("launcher"))))
    assert regions == {cluster["provider"]["region"]}


def test_only_instances_may_use_the_roles() -> None:
    (statement,) = _policy("trust")["Statement"]
    assert statement["Principal"] == {"Service": "ec2.amazonaws.com"}
    assert statement["Action"] == "sts:AssumeRole"
