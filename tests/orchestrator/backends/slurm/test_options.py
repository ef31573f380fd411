"""What sbatch is told."""

from __future__ import annotations

import secrets
from dataclasses import replace

import pytest

from orchestrator.backends.slurm.options import changes, fixed, parameters, same_shape
from orchestrator.errors import BackendError
from orchestrator.model import Pool, Resources
from tests.orchestrator.backends.slurm.conftest import H100

GIB = 1024**3


def asked(make, options=None, resources=Resources()):  # noqa: B008
    request = make(secrets.token_hex(4), pool=Pool("p", options=options or {}), resources=resources)
    return parameters(request, "name", "comment")


def test_resources_become_slurms_own_terms(make):
    found = asked(make, {}, Resources(gpus=8, time_s=90, host_memory_bytes=900 * GIB, exclude_nodes=("n1", "n2")))
    assert (found["gres"], found["time"], found["exclude"]) == ("gpu:8", 2, "n1,n2")
    assert found["additional_parameters"]["mem"] == "921600M"


def test_what_is_not_asked_for_is_left_to_the_cluster(make):
    found = asked(make)
    assert not {key for key in ("gres", "time", "exclude", "partition", "account", "wckey") if found[key] is not None}
    assert "mem" not in found["additional_parameters"]


def test_a_pools_own_options_are_passed_on(make):
    options = {
        "partition": "gpu",
        "constraint": "h100&ib",
        "gres": "gpu:a:4",
        "account": "lab",
        "qos": "high",
        "cpus": 64,
    }
    found = asked(make, {**options, "reservation": "r", "container": "img.sqsh", "container_mounts": "/a:/a"})
    assert {key: found[key] for key in options if key != "cpus"} == {k: v for k, v in options.items() if k != "cpus"}
    assert found["cpus_per_task"] == 64
    more = found["additional_parameters"]
    assert (more["reservation"], more["container-image"], more["container-mounts"]) == ("r", "img.sqsh", "/a:/a")


def test_further_options_go_by_name(make):
    more = asked(make, {"extra": {"--licenses": "verl:1", "mail_type": "END"}})["additional_parameters"]
    assert (more["licenses"], more["mail-type"]) == ("verl:1", "END")


@pytest.mark.parametrize("name", ["array", "comment", "job_name", "--signal", "no-requeue", "output"])
def test_options_that_the_backend_needs_cannot_be_taken_away(make, name):
    with pytest.raises(BackendError, match="extra may not set"):
        asked(make, {"extra": {name: "x"}})


@pytest.mark.parametrize("options", [{"partition": ["a"]}, {"qos": True}, {"extra": "--x"}, {"extra": {"a b": 1}}])
def test_options_of_another_kind_are_refused(make, options):
    with pytest.raises(BackendError, match="pools"):
        asked(make, options)


@pytest.mark.parametrize("options", [{"account": "a\nrm -rf"}, {"extra": {"licenses": "a\nb"}}])
def test_nothing_gets_a_line_of_its_own_into_the_script(make, options):
    with pytest.raises(BackendError, match="control characters"):
        asked(make, options)


def test_nor_does_a_node_that_names_itself_so(make):
    with pytest.raises(BackendError, match="exclude holds control characters"):
        asked(make, {}, Resources(exclude_nodes=("n1\nrm",)))


def test_a_job_is_warned_ahead_and_may_be_started_anew(make):
    more = asked(make)["additional_parameters"]
    assert (more["signal"], more["requeue"]) == ("B:USR2@90", True)


def test_another_pool_of_the_same_kind_changes_only_what_slurm_lets_one_change(make):
    one = asked(make, {"partition": "h100", "constraint": "x"}, Resources(gpus=8, host_memory_bytes=GIB))
    other = asked(make, {"partition": "h200", "constraint": "y"}, Resources(gpus=8, host_memory_bytes=2 * GIB))
    assert fixed(one) == fixed(other)
    assert changes(other) == ["Partition=h200", "Features=y", "MinMemoryNode=2048"]


@pytest.mark.parametrize(
    ("options", "resources"),
    [
        ({"gres": "gpu:h200:8"}, Resources(gpus=8)),
        ({}, Resources(gpus=4)),
        ({}, Resources(gpus=8, time_s=3600)),
        ({}, Resources(gpus=8, host_memory_bytes=GIB)),
        ({"constraint": "x"}, Resources(gpus=8)),
        ({"account": "other"}, Resources(gpus=8)),
        ({"extra": {"licenses": "x"}}, Resources(gpus=8)),
    ],
)
def test_what_only_a_new_job_can_be_given(make, options, resources):
    assert fixed(asked(make, options, resources)) != fixed(asked(make, {}, Resources(gpus=8)))


def test_requests_of_one_shape_are_put_together_in_order(make):
    a, b, c = make("a"), make("b", resources=Resources(gpus=1)), make("c")
    assert same_shape([a, b, c]) == [[a, c], [b]]
    assert same_shape([a, replace(c, pool=replace(H100))]) == [[a, c]]
