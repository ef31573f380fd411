"""Patterns of the sweep file: they come first, their examples are tried, and mistakes are told with file, line and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import SpecError
from orchestrator.model import Verdict
from orchestrator.spec import load
from orchestrator.spec_model import SweepSpec
from orchestrator.triage.evidence import Role
from orchestrator.triage.own_patterns import book_of, check_examples
from orchestrator.triage.patterns import builtin

HEAD = "# ?\nname: s\nconfig: synthetic\n"
OWN = """\
triage:
  patterns:
    - code: lost_switch
      role: root
      verdict: node_failure
      literals: [FABRIC MANAGER]
      regex: 'FABRIC MANAGER LOST SWITCH \\d'
      match: [FABRIC MANAGER LOST SWITCH 3]
      reject: [FABRIC MANAGER ready]
"""


def spec_of(folder: Path, text: str) -> SweepSpec:
    (folder / "s.yaml").write_text(HEAD + text)
    spec = load(folder / "s.yaml")
    check_examples(spec)
    return spec


def test_a_pattern_of_ones_own_is_found_in_a_log(tmp_path: Path) -> None:
    found = book_of(spec_of(tmp_path, OWN)).classify("dgx-7: FABRIC MANAGER LOST SWITCH 3")
    assert found is not None
    assert (found.code, found.role, found.verdict) == ("lost_switch", Role.ROOT, Verdict.NODE_FAILURE)


def test_it_comes_before_the_built_in_ones_which_stay(tmp_path: Path) -> None:
    line = "RuntimeError: CUDA out of memory. Tried to allocate 2 GiB. in the reward model"
    own = OWN.replace("FABRIC MANAGER LOST SWITCH \\d", "in the reward model").replace(
        "[FABRIC MANAGER]", "[reward model]"
    )
    own = own.replace("[FABRIC MANAGER LOST SWITCH 3]", f"['{line}']")
    book = book_of(spec_of(tmp_path, own))
    special, general = book.classify(line), book.classify(line.removesuffix(" in the reward model"))
    assert special is not None
    assert general is not None
    assert (special.code, general.code) == ("lost_switch", "cuda_oom")


def test_advice_is_no_evidence_for_them_either(tmp_path: Path) -> None:
    assert book_of(spec_of(tmp_path, OWN)).classify("this may be due to FABRIC MANAGER LOST SWITCH 3") is None


def test_a_sweep_without_any_reads_logs_as_ever(tmp_path: Path) -> None:
    assert book_of(spec_of(tmp_path, "")) is builtin()


def test_they_may_stand_in_a_file_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "ours.yaml").write_text("\n".join(line[2:] for line in OWN.splitlines()[1:]) + "\n")
    spec = spec_of(tmp_path, "triage: ours.yaml\n")
    assert [pattern.code for pattern in spec.triage.patterns] == ["lost_switch"]
    (tmp_path / "ours.yaml").write_text("patterns: [{code: x}]\n")
    with pytest.raises(SpecError, match=r"ours\.yaml:1: triage\.patterns\[0\]\.role: is required"):
        load(tmp_path / "s.yaml")
    with pytest.raises(SpecError, match=r"s\.yaml:4: triage: no such file: .*our\.yaml .*did you mean `ours\.yaml`"):
        spec_of(tmp_path, "triage: our.yaml\n")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("role: root", "role: villain", r"s\.yaml:7: triage\.patterns\[0\]\.role: input should be 'root'"),
        ("node_failure", "bad_luck", r"s\.yaml:8: triage\.patterns\[0\]\.verdict: "),
        ("node_failure", "completed", r"s\.yaml:8: .*verdict: a root cannot lead to completed \(one of gpu_oom"),
        ("      verdict: node_failure\n", "", r"s\.yaml:6: .*verdict: a root needs a verdict"),
        (
            "role: root",
            "role: confirmation",
            r"s\.yaml:8: .*a confirmation cannot lead to node_failure \(leave it out\)",
        ),
        ("role: root", "colour: red", r"s\.yaml:7: triage\.patterns\[0\]\.colour: unknown key"),
        ("reject:", "rejects:", r"s\.yaml:12: triage\.patterns\[0\]\.rejects: unknown key \(did you mean `reject`\?\)"),
        ("SWITCH \\\\d'", "SWITCH ('", r"s\.yaml:10: triage\.patterns\[0\]\.regex: is no regular expression"),
        ("[FABRIC MANAGER]", "[FAB]", r"s\.yaml:9: triage\.patterns\[0\]\.literals\[0\]: "),
        ("[FABRIC MANAGER]", "[fabric manager]", r"s\.yaml:11: .*match\[0\]: holds none of the pattern's literals"),
        ("SWITCH 3]", "SWITCH x]", r"s\.yaml:11: .*match\[0\]: is not recognised: the regex does not fit"),
        ("[FABRIC MANAGER LOST", "[this may be FABRIC MANAGER LOST", r"match\[0\]: is not recognised: from 'this may"),
        ("MANAGER ready", "MANAGER LOST SWITCH 9", r"s\.yaml:12: .*reject\[0\]: is recognised, and must not be"),
        ("lost_switch", "cuda_oom", r"s\.yaml:6: .*code: `cuda_oom` is a built-in pattern"),
        ("lost_switch", "Lost Switch", r"s\.yaml:6: triage\.patterns\[0\]\.code: "),
        ("reject: [FABRIC MANAGER ready]", "reject: []", r"s\.yaml:12: triage\.patterns\[0\]\.reject: "),
    ],
)
def test_a_mistake_is_told_with_file_line_and_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = OWN.replace(old.replace("\\\\", "\\"), new)
    assert text != OWN
    with pytest.raises(SpecError, match=message):
        spec_of(tmp_path, text)


def test_a_code_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"s\.yaml:13: triage\.patterns\[1\]\.code: `lost_switch` names another"):
        spec_of(tmp_path, OWN + "\n".join(OWN.splitlines()[2:]) + "\n")


def test_they_survive_the_store(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, OWN)
    assert SweepSpec.model_validate(spec.model_dump(mode="json")).triage == spec.triage
