"""Keys of a sweep file that say what follows a failure: what they default to, what they take, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import SpecError
from orchestrator.planning import find_target, limits, retry_rules
from orchestrator.policy import Backoff, RetryRules
from orchestrator.spec import load
from orchestrator.spec_model import SweepSpec


def loaded(tmp_path: Path, text: str) -> SweepSpec:
    file = tmp_path / "s.yaml"
    file.write_text(f"name: s\nconfig: synthetic\nbackend: fake\n{text}")
    return load(file)


def refused(tmp_path: Path, text: str) -> str:
    with pytest.raises(SpecError) as raised:
        loaded(tmp_path, text)
    return str(raised.value).replace(str(tmp_path), "")


def test_without_a_word_about_it_the_policy_has_its_defaults(tmp_path: Path) -> None:
    spec = loaded(tmp_path, "")
    assert retry_rules(spec) == RetryRules(6, spec.retry.budgets, Backoff(), 1.5, None, {})
    assert (spec.hang.enabled, spec.preflight.choose_pool, spec.notify.urls) == (True, True, ())


def test_every_key_reaches_the_policy(tmp_path: Path) -> None:
    rules = retry_rules(
        loaded(
            tmp_path,
            "retry:\n"
            "  attempts_per_point: 9\n"
            "  budgets: {hang: 4}\n"
            "  backoff: {base: 1m, factor: 3, max: 1h, jitter: 0}\n"
            "  host_memory_growth: 2\n"
            "  host_memory_max: 1TiB\n"
            '  gpu_oom: {patch: {synthetic.max_length: "x - 2"}}\n'
            "  hang: {patch: {synthetic.seed: 7}}\n",
        )
    )
    assert (rules.attempts_per_point, rules.budgets["hang"]) == (9, 4)
    assert rules.backoff == Backoff(60, 3, 3600, 0)
    assert (rules.host_memory_growth, rules.host_memory_max) == (2, 1024**4)
    assert rules.patches == {"gpu_oom": {"synthetic.max_length": "x - 2"}, "hang": {"synthetic.seed": "7"}}


def test_the_worst_case_and_the_ladder_reach_the_planner(tmp_path: Path) -> None:
    spec = loaded(
        tmp_path,
        "pools: {a: {gpus: 8, memory_mib: 100}, b: {gpus: 8, memory_mib: 200}}\n"
        "resources: {gpus: 8, ladder: [a, b], time: 2h}\n"
        "budget: {gpu_hours: 100}\n"
        "preflight: {choose_pool: false}\n",
    )
    found = limits(spec, find_target(spec))
    assert (found.gpus_per_attempt, found.gpu_hours, found.time_limit_s) == (8, 100, 7200)
    assert ([pool.name for pool in found.ladder], found.choose_pool) == (["a", "b"], False)


def test_a_sweep_that_was_stored_reads_back_the_same(tmp_path: Path) -> None:
    spec = loaded(
        tmp_path,
        "retry: {backoff: {base: 1m}, gpu_oom: {patch: {a.b: x/2}}}\n"
        "hang: {step_floor: 30m}\n"
        "notify: {urls: [{env: HOOK}, {file: /etc/hook}], when: [stopped]}\n"
        "preflight: {model: qwen3-4b}\n",
    )
    again = SweepSpec.model_validate(spec.model_dump(mode="json"))
    assert again.model_dump() == spec.model_dump()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("retry: {gpu_oom: {pach: {a: x}}}", "retry.gpu_oom.pach: unknown key (did you mean `patch`?)"),
        ("retry: {gpu_om: {patch: {a: x}}}", "retry.gpu_om: unknown key (did you mean `gpu_oom`?)"),
        ("retry: {code_error: {patch: {a: x}}}", "retry.code_error: unknown key"),
        ("retry: {gpu_oom: {patch: {a: y - 1}}}", "retry.gpu_oom.patch.a: reads `y` (a patch knows x"),
        ("retry: {gpu_oom: {patch: {a: __import__('os')}}}", "retry.gpu_oom.patch.a: in the expression"),
        ("retry: {backoff: {factor: 0.5}}", "retry.backoff.factor: "),
        ("retry: {backoff: {jitter: 2}}", "retry.backoff.jitter: "),
        ("retry: {host_memory_growth: 1}", "retry.host_memory_growth: "),
        ("retry: {backoff: {factor: 1e308}}", "retry.backoff.factor: "),
        ("retry: {host_memory_growth: .inf}", "retry.host_memory_growth: "),
        ("hang: {step_factor: 1}", "hang.step_factor: "),
        ("hang: {step_factor: .inf}", "hang.step_factor: "),
        ("budget: {gpu_hours: .inf}", "budget.gpu_hours: input should be a finite number"),
        ("resources: {time: .inf}", "resources.time: must be finite"),
        ("hang: {step_flor: 1m}", "hang.step_flor: unknown key (did you mean `step_floor`?)"),
        (
            "preflight: {model: qwen3-4c}",
            "preflight.model: the shapes of `qwen3-4c` are not in the table (did you mean",
        ),
        ("notify: {when: [sometimes]}", "notify.when[0]: "),
        ("notify: {urls: [{env: 'NO NAME'}]}", "notify.urls[0].env: "),
        ("notify: {urls: [{env: A, file: b}]}", "notify.urls[0]: is a secret: write {env: NAME} or {file: PATH}"),
        ("resources: {gpus: 8, time: 1h}\nbudget: {gpu_hours: 7}", "budget.gpu_hours: does not cover a single attempt"),
    ],
)
def test_each_mistake_has_its_place_and_a_way_out(tmp_path: Path, text: str, message: str) -> None:
    assert message in refused(tmp_path, text)


@pytest.mark.parametrize("url", ["json://user:hunter2@host", "'slack://hunter2'", "{url: hunter2}", "3"])
def test_a_secret_that_was_written_out_is_refused_and_not_repeated(tmp_path: Path, url: str) -> None:
    said = refused(tmp_path, f"notify: {{urls: [{url}]}}")
    assert "notify.urls[0]" in said
    assert "hunter2" not in said


@pytest.mark.parametrize(
    "written", ["slack://hunter2", "{urls: 'slack://hunter2'}", "{urls: [{env: 'slack://hunter2'}]}"]
)
def test_a_secret_in_the_place_of_something_else_is_not_repeated_either(tmp_path: Path, written: str) -> None:
    said = refused(tmp_path, f"notify: {written}")
    assert "notify" in said
    assert "hunter2" not in said
