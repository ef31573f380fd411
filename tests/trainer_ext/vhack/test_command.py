"""The command line, as a user runs it: from a model to directions, and a trained model without what was routed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from trainer_ext.assets import tiny_qwen2
from trainer_ext.vhack import Projector, VhackConfig, load, weight_directions
from trainer_ext.vhack.__main__ import main
from trainer_ext.vhack.basis import linear_modules
from trainer_ext.vhack.file import as_written

TARGETS = "o_proj,down_proj"
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("model")
    tiny_qwen2.make(folder, seed=0)
    return folder


@pytest.fixture(scope="module")
def directions(model: Path) -> Path:
    path = model / "made" / "d.safetensors"
    assert main(["extract", "--model", str(model), "--generate", "3", "--out", str(path), "--targets", TARGETS]) == 0
    return path


def test_extract_writes_directions_of_every_target_module(directions: Path, model: Path) -> None:
    tensors = load_file(directions)
    expected = {f"model.layers.{layer}.{name}" for layer in (0, 1) for name in ("self_attn.o_proj", "mlp.down_proj")}
    assert {name for name in tensors if not name.startswith("_sv/")} == expected
    assert {tuple(t.shape) for name, t in tensors.items() if not name.startswith("_sv/")} == {(3, 64)}
    with safe_open(str(directions), framework="pt") as file:
        assert {"model": model.name, "k": "3", "pairs": "3", "targets": TARGETS}.items() <= file.metadata().items()


def test_what_is_there_already_is_not_made_again(directions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = directions.read_bytes()
    assert main(["extract", "--model", "absent", "--generate", "3", "--out", str(directions)]) == 0
    assert "is there already" in capsys.readouterr().out
    assert directions.read_bytes() == before


def test_show_says_what_the_noise_floor_leaves(directions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(directions), "--k", "2", "--drop-bottom-frac", "0.5"]) == 0
    assert "k_saved=3, k=2; axes=4/8 kept (drop_bottom_frac=0.5" in capsys.readouterr().out


def test_pairs_from_a_file_give_what_the_same_pairs_made_up_give(directions: Path, model: Path, tmp_path: Path) -> None:
    from trainer_ext.vhack.pairs import generated_pairs

    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps({**vars(pair), "note": "x"}) + "\n" for pair in generated_pairs(3, 0)))
    out = tmp_path / "d.safetensors"
    module = "layers.0.self_attn.o_proj"
    assert main(["extract", "--model", str(model), "--pairs", str(path), "--out", str(out), "--targets", module]) == 0
    same, made_up = load_file(out), load_file(directions)
    assert set(same) == {f"model.{module}", f"_sv/model.{module}"}
    assert all(torch.equal(same[name], made_up[name]) for name in same)


@pytest.mark.parametrize(("words", "message"), [
    (["show", "absent"], "absent: no such file"),
    (["extract", "--model", "m", "--pairs", "absent", "--out", "o"], "absent: No such file or directory"),
    (["extract", "--model", "m", "--generate", "0", "--out", "o"], "--generate: must be 1 or more, got 0"),
])  # fmt: skip
def test_what_cannot_be_done_is_one_line_and_exit_code_two(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("trainer_ext.vhack: ")
    assert message in error
    assert error.count("\n") == 1


def test_deploy_takes_what_was_routed_out_of_the_trained_model(
    directions: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoModelForCausalLM

    loaded: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    weights = {name: m.weight for name, m in linear_modules(loaded, tuple(TARGETS.split(","))).items()}
    start = {name: weight.detach().clone() for name, weight in weights.items()}
    v = load(directions, as_written(directions), 3, 0.25).v
    rows = weight_directions(weights, v)
    projector = Projector(weights, rows, VhackConfig(file=str(directions), mode="route", form="update"))
    with torch.no_grad(), projector.around(optimizer := torch.optim.SGD(weights.values(), lr=0.1)):
        for name, weight in weights.items():
            weight.grad = sum(r.view_as(weight) for r in rows.by_module.get(name, torch.zeros(1, weight.numel())))
        optimizer.step()
    loaded.save_pretrained(tmp_path / "trained")
    tiny_qwen2.make_tokenizer().save_pretrained(tmp_path / "trained")
    assert projector.routed is not None
    written = as_written(directions)
    state = {"routed": projector.routed.state_dict(), "directions": v, "dtype": "float32"}
    state |= {"basis": written.basis, "modules": list(written.ranks)}
    torch.save(state, tmp_path / "vhack_state.pt")
    words = ["deploy", "--base", str(model), "--model", str(tmp_path / "trained")]
    words += ["--routed", str(tmp_path / "vhack_state.pt"), "--out", str(tmp_path / "clean")]
    assert main(words) == 0
    clean = linear_modules(AutoModelForCausalLM.from_pretrained(tmp_path / "clean"), tuple(TARGETS.split(",")))
    for name, weight in weights.items():
        moved = name in v
        assert (float((weight - start[name]).norm()) > 0.01) == moved
        assert torch.allclose(clean[name].weight, start[name], atol=1e-5)
    assert main(words) == 2, "the folder exists by now"
    words[2], words[-1] = str(tmp_path / "trained"), str(tmp_path / "other")
    assert main(words) == 2
    assert "training did not begin with these weights" in capsys.readouterr().err
    (tmp_path / "vhack_state.pt").write_text("text")
    assert main(words) == 2
    assert "not a vhack_state.pt of a checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "message"), [
    ("", "holds no pairs"),
    ("[]", "holds no pairs"),
    ("{", "neither a JSON list nor JSON Lines"),
    ('{"prompt": "a", "hack": "b", "clean": "c"}\n{"prompt": "a", "hack": "b"}\n', "pair 2: needs the texts"),
    ('["a"]', "pair 1: needs the texts"),
    ('[{"prompt": "a", "hack": "", "clean": "c"}]', "pair 1: needs the texts"),
])  # fmt: skip
def test_pairs_that_cannot_be_read_are_named(text: str, message: str, tmp_path: Path) -> None:
    from trainer_ext.vhack.pairs import WrongPairs, read_pairs

    (tmp_path / "pairs").write_text(text)
    with pytest.raises(WrongPairs, match=message):
        read_pairs(tmp_path / "pairs")
