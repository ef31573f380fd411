from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from orchestrator.errors import EXIT_BAD_USAGE, SpecError
from orchestrator.model import Pool, Resources
from orchestrator.spec import SweepSpec, load

GOOD = """\
name: factor
description: a sweep
config: small
overrides: [influence.mode=inverse]
parameters:
  scope: [per_prompt, all_selected]
  factor: [512, 128, 64]
alias: {factor: influence.factor, scope: influence.scope}
zip: {lengths: {data.prompt: [1, 2], data.response: [10, 20]}}
include:
  - {factor: 32, scope: per_prompt}
exclude: ["scope == 'per_prompt' and factor < 512"]
replicates: {seed: [0, 1]}
job_name: "infl-{scope}-f{factor}-{data.prompt}"
backend: slurm
pools:
  h100: {gpus: 8, memory_mib: 81559, partition: big}
  h200: {gpus: 8, memory_mib: 143771}
resources: {gpus: 8, ladder: [h100, h200], time: 4h, host_memory: 900GiB}
retry: {budgets: {hang: 3}}
budget: {gpu_hours: 200, max_parallel: 4}
outputs: {npz: "influence/step_*.npz", steps: 2}
search: null
"""


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    folder = tmp_path / "conf"
    (folder / "profile").mkdir(parents=True)
    (folder / "small.yaml").write_text("influence: {factor: 1, scope: x, mode: y}\n")
    return folder


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    return path


def loaded(tmp_path: Path, configs: Path, text: str = GOOD, words: Sequence[str] = ()) -> SweepSpec:
    return load(written(tmp_path, text), words, configs=configs)


def refusal(tmp_path: Path, configs: Path, text: str, words: Sequence[str] = ()) -> str:
    with pytest.raises(SpecError) as caught:
        loaded(tmp_path, configs, text, words)
    assert caught.value.exit_code == EXIT_BAD_USAGE
    return str(caught.value).replace(str(tmp_path) + "/", "")


def test_a_whole_file_becomes_typed(tmp_path: Path, configs: Path) -> None:
    spec = loaded(tmp_path, configs)
    assert spec.parameters == {"scope": ("per_prompt", "all_selected"), "factor": (512, 128, 64)}
    assert spec.resources.model() == Resources(8, ("h100", "h200"), 14400.0, 900 * 2**30)
    assert spec.pool_models()["h100"] == Pool("h100", 8, 81559, {"partition": "big"})
    assert (spec.retry.budgets["hang"], spec.retry.budgets["gpu_oom"]) == (3, 2)
    assert spec.target("factor") == "influence.factor"
    assert list(spec.axes) == ["scope", "factor", "data.prompt", "data.response", "seed"]


def test_a_name_is_enough(tmp_path: Path, configs: Path) -> None:
    spec = loaded(tmp_path, configs, "name: x\nconfig: small\n")
    assert (spec.profile, spec.backend, spec.budget.max_parallel, spec.search) == ("auto", "auto", 1, None)


def test_plain_data_restores_it(tmp_path: Path, configs: Path) -> None:
    spec = loaded(tmp_path, configs)
    stored = json.loads(json.dumps(spec.model_dump(mode="json")))
    assert SweepSpec.model_validate(stored).model_dump() == spec.model_dump()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("name: factor", "name: Factor_1"),
            "sweep.yaml:1: name: may hold a-z, 0-9 and inner dashes alone; write factor-1",
        ),
        (("name: factor", "name: " + "a" * 41), "sweep.yaml:1: name: has 41 characters"),
        (("name: factor\n", ""), "sweep.yaml:1: name: is required"),
        (
            ("budget: {gpu_hours", "budget: {gpu_hour"),
            "sweep.yaml:21: budget.gpu_hour: unknown key (did you mean `gpu_hours`?)",
        ),
        (("replicates:", "replicats:"), "sweep.yaml:13: replicats: unknown key (did you mean `replicates`?)"),
        (("backend: slurm", "backend: slrm"), "sweep.yaml:15: backend: "),
        (("config: small", "config: smal"), "sweep.yaml:3: config: no such config: smal (did you mean `small`?)"),
        (("config: small", "config: my.yaml"), "sweep.yaml:3: config: no such file: "),
        (("[512, 128, 64]", "[]"), "sweep.yaml:7: parameters.factor: has no values"),
        (("[512, 128, 64]", "512"), "sweep.yaml:7: parameters.factor: must be a list of values; write [512]"),
        (("[512, 128, 64]", "[512, [1]]"), "sweep.yaml:7: parameters.factor[1]: must be one number"),
        (("[512, 128, 64]", "[512, {a: 1}]"), "sweep.yaml:7: parameters.factor[1]: must be one number"),
        (("[512, 128, 64]", "[512, .nan]"), "sweep.yaml:7: parameters.factor[1]: must not be NaN"),
        (("[512, 128, 64]", '["a\\nb"]'), "sweep.yaml:7: parameters.factor[0]: must not hold control characters"),
        (
            ("[512, 128, 64]", "[512, 64, 512]"),
            "sweep.yaml:7: parameters.factor[2]: the value 512 is already in this list",
        ),
        (("seed: [0, 1]", "seed: [0, 0]"), "sweep.yaml:13: replicates.seed[1]: the value 0 is already in this list"),
        (("  factor: [512", "  fcator: [512"), "sweep.yaml:7: parameters.fcator: `fcator` is neither an alias"),
        (("{factor: 32,", "{fctor: 32,"), "sweep.yaml:11: include[0].fctor: `fctor` is neither an alias"),
        (("{factor: 32, scope: per_prompt}", "{}"), "sweep.yaml:11: include[0]: sets nothing"),
        (
            ("factor: influence.factor", "factor: influence factor"),
            "sweep.yaml:8: alias.factor: `influence factor` is not a key",
        ),
        (
            ("data.response: [10, 20]", "data.response: [10]"),
            "sweep.yaml:9: zip.lengths: columns that move together need one",
        ),
        (("{data.prompt: [1, 2], data.response: [10, 20]}", "{}"), "sweep.yaml:9: zip.lengths: has no columns"),
        (
            ("[1, 2], data.response: [10, 20]", "[1, 1], data.response: [5, 5]"),
            "sweep.yaml:9: zip.lengths: row 2 (=1, =5)",
        ),
        (("data.response: [10", "factor: [10"), "sweep.yaml:9: zip.lengths.factor: is also swept elsewhere"),
        (
            ("data.response: [10", "influence.factor: [10"),
            "zip.lengths.influence.factor: sets `influence.factor`, and so does `factor`",
        ),
        (
            ("influence.mode=", "influence.factor="),
            "sweep.yaml:4: overrides[0]: `influence.factor=inverse` would be lost",
        ),
        (
            ("[influence.mode=inverse]", "[influence.mode]"),
            "sweep.yaml:4: overrides[0]: `influence.mode` is not key=value",
        ),
        (("[influence.mode=inverse]", "[{a: b}]"), "sweep.yaml:4: overrides[0]: "),
        (
            ("and factor < 512", "and factr < 512"),
            "exclude[0]: `factr` is no parameter of this sweep (did you mean `factor`?)",
        ),
        (("and factor < 512", "and len(scope)"), "sweep.yaml:12: exclude[0]: in the expression"),
        (("{scope}-f", "{scop}-f"), "sweep.yaml:14: job_name: unknown placeholder {scop} (did you mean `scope`?)"),
        (
            ("ladder: [h100, h200]", "ladder: [h100, h20]"),
            "resources.ladder[1]: unknown pool `h20` (did you mean `h200`?)",
        ),
        (
            ("ladder: [h100, h200]", "ladder: [h200, h100]"),
            "sweep.yaml:19: resources.ladder[1]: `h100` (81559 MiB) does not have more",
        ),
        (
            ("h200: {gpus: 8,", "h200: {gpus: 8, partiton: x,"),
            "pools.h200.partiton: is no key of a pool (did you mean `partition`?)",
        ),
        (("ladder: [h100, h200]", "ladder: [h100, h100]"), "resources.ladder: `h100` stands in it 2 times"),
        (("{gpus: 8, ladder", "{gpus: 16, ladder"), "sweep.yaml:19: resources.ladder[0]: a node of `h100` has 8 GPUs"),
        (("{gpus: 8, ladder", "{gpus: true, ladder"), "sweep.yaml:19: resources.gpus: "),
        (("time: 4h", "time: 4 parsecs"), "sweep.yaml:19: resources.time: '4 parsecs' is not a duration"),
        (("900GiB", "900Gigs"), "sweep.yaml:19: resources.host_memory: '900Gigs' is not a size"),
        (
            ("{hang: 3}", "{hung: 3}"),
            "sweep.yaml:20: retry.budgets.hung: is no cause that can be tried again (did you mean `hang`?)",
        ),
        (("{hang: 3}", "{hang: -1}"), "sweep.yaml:20: retry.budgets.hang: "),
        (
            ("gpu_hours: 200", "gpu_hours: -2"),
            "sweep.yaml:21: budget.gpu_hours: input should be greater than 0, not -2",
        ),
        (("max_parallel: 4", "max_parallel: 0"), "sweep.yaml:21: budget.max_parallel: "),
        (("search: null", "search: {trials: 3}"), "sweep.yaml:23: search.objectives: is required"),
    ],
)
def test_each_mistake_has_its_place_and_a_way_out(
    tmp_path: Path, configs: Path, change: tuple[str, str], message: str
) -> None:
    assert change[0] in GOOD
    assert message in refusal(tmp_path, configs, GOOD.replace(*change))


def test_all_mistakes_are_told_at_once(tmp_path: Path, configs: Path) -> None:
    text = GOOD.replace("config: small", "config: smal").replace("{scope}-f", "{scop}-f").replace("hang: 3", "hung: 3")
    assert refusal(tmp_path, configs, text).splitlines() == [
        "3 mistakes:",
        "  sweep.yaml:3: config: no such config: smal (did you mean `small`?)",
        "  sweep.yaml:14: job_name: unknown placeholder {scop} (did you mean `scope`?)",
        "  sweep.yaml:20: retry.budgets.hung: is no cause that can be tried again (did you mean `hang`?)",
    ]


def test_config_groups_and_dotted_keys_need_no_alias(tmp_path: Path, configs: Path) -> None:
    spec = loaded(tmp_path, configs, "name: x\nconfig: small\nparameters: {profile: [a, b], trainer.lr: [1e-5]}\n")
    assert spec.parameters["trainer.lr"] == (1e-5,)


def test_pools_may_be_a_file_beside_the_sweep(tmp_path: Path, configs: Path) -> None:
    (tmp_path / "pools.yaml").write_text("a: {gpus: 1}\nb:\n  gpus: 2\n  memory_mib: 4\n")
    spec = loaded(tmp_path, configs, "name: x\nconfig: small\npools: pools.yaml\n")
    assert [pool.gpus for pool in spec.pools.values()] == [1, 2]


def test_mistakes_in_a_pools_file_are_placed_in_that_file(tmp_path: Path, configs: Path) -> None:
    (tmp_path / "pools.yaml").write_text("a: {gpus: 1}\nb:\n  gpus: two\n")
    text = "name: x\nconfig: small\npools: pools.yaml\n"
    assert refusal(tmp_path, configs, text).startswith("pools.yaml:3: pools.b.gpus: ")
    message = refusal(tmp_path, configs, text.replace("pools.yaml", "pool.yaml"))
    assert message.startswith("sweep.yaml:3: pools: no such file: ")
    assert message.endswith("(did you mean `pools.yaml`?)")


def test_config_may_be_a_file_beside_the_sweep(tmp_path: Path, configs: Path) -> None:
    (tmp_path / "mine.yaml").write_text("a: 1\n")
    assert loaded(tmp_path, configs, "name: x\nconfig: mine.yaml\n").config == str(tmp_path / "mine.yaml")


def test_missing_sweep_file_suggests_the_nearest(tmp_path: Path, configs: Path) -> None:
    written(tmp_path, GOOD)
    with pytest.raises(SpecError, match=r"swep\.yaml: no such sweep file \(did you mean `.*/sweep\.yaml`\?\)"):
        load(tmp_path / "swep.yaml", configs=configs)


@pytest.mark.parametrize(
    ("word", "path", "value"),
    [
        ("budget.max_parallel=2", ("budget", "max_parallel"), 2),
        ("description=a: b", None, None),
        ("description='a: b'", ("description",), "a: b"),
        ("profile=null", ("profile",), None),
        ("parameters.factor=[64]", ("parameters", "factor"), [64]),
        ("parameters.trainer.lr=[1e-5, 2]", ("parameters", "trainer.lr"), [1e-5, 2]),
        ("zip.lengths.data.prompt=[3, 4]", ("zip", "lengths", "data.prompt"), [3, 4]),
        ("pools.h100.memory_mib=5", ("pools", "h100", "memory_mib"), 5),
        ("retry.budgets.gpu_oom=0", ("retry", "budgets", "gpu_oom"), 0),
        ("resources.time=90m", ("resources", "time"), 5400.0),
    ],
)
def test_words_replace_keys_of_the_file(
    tmp_path: Path, configs: Path, word: str, path: tuple[str, ...] | None, value: object
) -> None:
    if path is None:
        assert refusal(tmp_path, configs, GOOD, [word]).startswith("command line: description: ")
        return
    found = loaded(tmp_path, configs, words=[word]).model_dump(mode="json")
    for key in path:
        found = found[key]
    assert found == value


@pytest.mark.parametrize(
    "word", ["influence.lr=3", "+new.key=1", "++a=[1,2]", "~influence.scale", "influence=other", "actor@pkg=x"]
)
def test_other_words_are_overrides(tmp_path: Path, configs: Path, word: str) -> None:
    assert loaded(tmp_path, configs, words=[word]).overrides == ("influence.mode=inverse", word)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("factor=3", "command line: factor: is a parameter of this sweep (write parameters.factor=[3])"),
        ("seed=3", "command line: seed: is a parameter of this sweep (write replicates.seed=[3])"),
        ("budgt.max_parallel=3", "command line: budgt.max_parallel: unknown key (did you mean `budget.max_parallel`?)"),
        ("paramters=3", "command line: paramters: unknown key (did you mean `parameters`?)"),
        ("nonsense", "command line: `nonsense` is not key=value"),
        ("name.first=x", "command line: name.first: `name` is not a mapping in this sweep"),
        ("exclude=[", "command line: exclude: not valid YAML"),
        ("resources.tim=3", "command line: resources.tim: unknown key (did you mean `time`?)"),
        ("parameters.factor=64", "command line: parameters.factor: must be a list of values; write [64]"),
        ("influence.scope=x", "command line: overrides[1]: `influence.scope=x` would be lost: `scope` sweeps this key"),
    ],
)
def test_mistaken_words_are_refused(tmp_path: Path, configs: Path, word: str, message: str) -> None:
    assert refusal(tmp_path, configs, GOOD, [word]).startswith(message)


def test_a_word_is_blamed_for_what_it_breaks(tmp_path: Path, configs: Path) -> None:
    assert refusal(tmp_path, configs, GOOD, ["pools.h200.memory_mib=5"]).startswith(
        "sweep.yaml:19: resources.ladder[1]"
    )
    assert refusal(tmp_path, configs, GOOD, ["resources.ladder=[h200,h100]"]).startswith(
        "command line: resources.ladder[1]"
    )
