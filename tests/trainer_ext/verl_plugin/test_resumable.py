"""What the resumable trainer adds to verl, over verl's own saving and loading; without Ray, and with a model of one number."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from omegaconf import DictConfig
from torchdata.stateful_dataloader import StatefulDataLoader
from verl.trainer.ppo.utils import create_rl_sampler
from verl.utils.tracking import Tracking

from tests.trainer_ext.verl_plugin.engine_world import make_config
from trainer_ext import records
from trainer_ext.verl_plugin.resumable import ResumableTrainer
from trainer_ext.writer import ScoredResponse, write_step

STEPS = 5
pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")  # torchdata's


class Died(BaseException):
    """The process is gone: nothing may catch this."""


class Fate:
    """Lets one place, reached in one step, be the last."""

    def __init__(self, place: str = "", step: int = 0) -> None:
        self._end = (place, step)

    def meet(self, place: str, step: int) -> None:
        if (place, step) == self._end:
            raise Died


class Ranks:
    """Stands for the worker group. The weights are one number; a shard is written in two halves."""

    def __init__(self, fate: Fate) -> None:
        self.weights, self._fate = 1, fate

    def save_checkpoint(self, path: str, _remote: None, step: int, max_ckpt_to_keep: int | None) -> None:
        assert max_ckpt_to_keep is None, "verl would remove the older checkpoint before this one counts"
        Path(path).mkdir(parents=True, exist_ok=True)
        (Path(path) / "weights").write_text("")
        self._fate.meet(HALF, step)
        (Path(path) / "weights").write_text(str(self.weights))

    def load_checkpoint(self, local_path: str, **_: Any) -> None:
        self.weights = int((Path(local_path) / "weights").read_text())


PROMPTS = 3


def load_prompts(config: DictConfig) -> StatefulDataLoader[int]:
    """The data loader that verl makes, over so few prompts that an epoch ends within the run."""
    prompts = list(range(1, PROMPTS + 1))

    def collate(rows: list[int]) -> dict[str, Any]:
        return {"raw_prompt": np.array(rows, dtype=object)}

    sampler = create_rl_sampler(config.data, prompts)
    return StatefulDataLoader(prompts, batch_size=1, num_workers=0, drop_last=True, collate_fn=collate, sampler=sampler)


class File:
    """verl's file logger: it begins its file anew."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w")

    def log(self, data: dict[str, Any], step: int) -> None:
        self._file.write(json.dumps({"step": step, "data": data}) + "\n")
        self._file.flush()

    def finish(self) -> None:
        self._file.close()


class Job(ResumableTrainer):
    """One attempt. `run` does what verl's `fit` does in a step, in its order."""

    def __init__(self, config: DictConfig, attempt: Path, fate: Fate | None = None) -> None:
        super().__init__(config)
        self._attempt, self._fate = attempt, fate or Fate()
        self.actor_rollout_wg = Ranks(self._fate)
        self.train_dataloader, self.train_dataloader_it = load_prompts(config), None
        self.checkpoint_manager = SimpleNamespace(update_weights=lambda _step: None)
        self.total_training_steps = STEPS
        attempt.mkdir(parents=True)
        self._load_checkpoint()

    def _build_replay_buffer(self) -> Any:
        self.trainer_mode = "sync"

    def run(self) -> None:
        self.logger = Tracking("project", "experiment", [])
        self.logger.logger["file"] = File(self._attempt / records.METRICS)
        self.global_steps += 1
        self.on_train_begin()
        while self.global_steps <= self.total_training_steps:
            step, self.timing_raw = self.global_steps, {}
            self.train(step)
            self._fate.meet("scores written", step)
            if self.config.trainer.save_freq > 0 and step % self.config.trainer.save_freq == 0:
                self._save_checkpoint()
            self._fate.meet("saved", step)
            self.on_step_end()
            self._fate.meet("about to log", step)
            self.logger.log({"weights": self.actor_rollout_wg.weights}, step)
            self._fate.meet("logged", step)
            self.global_steps += 1

    def train(self, step: int) -> None:
        ranks = self.actor_rollout_wg
        (prompt,) = self._fetch_one_gen_batch()["raw_prompt"]
        ranks.weights = ranks.weights * 7 + prompt  # every step depends on all before
        tokens = np.full(2, ranks.weights)
        response = ScoredResponse(tokens, tokens.astype(float), np.ones(2, bool), True, 1.0, "prompt")
        write_step(self._attempt / records.INFLUENCE_DIR, step, [response], {})


HALF = "half a checkpoint"
PLACES = ("scores written", HALF, "saved", "about to log", "logged")


@pytest.fixture(scope="module")
def composed() -> DictConfig:
    return make_config(Path("model"))


@pytest.fixture
def configured(composed: DictConfig, tmp_path: Path) -> Callable[..., DictConfig]:
    """configured(save_freq, **keys of `trainer`)"""

    def configure(save_freq: int, **trainer: Any) -> DictConfig:
        config = copy.deepcopy(composed)
        config.trainer.update({"save_freq": save_freq, "default_local_dir": str(tmp_path / "checkpoints"), **trainer})
        return config

    return configure


def left(attempt: Path) -> tuple[dict[str, bytes], str]:
    files = {path.name: path.read_bytes() for path in sorted((attempt / records.INFLUENCE_DIR).iterdir())}
    return files, (attempt / records.METRICS).read_text()


@pytest.fixture
def undisturbed(configured: Callable[..., DictConfig], tmp_path: Path) -> tuple[dict[str, bytes], str]:
    Job(configured(-1), tmp_path / "undisturbed").run()
    files, metrics = left(tmp_path / "undisturbed")
    assert len(files) == len(metrics.splitlines()) == STEPS
    return files, metrics


@pytest.mark.parametrize(
    ("place", "save_freq"),
    [(place, save_freq) for place in PLACES for save_freq in (1, 2, -1) if (place, save_freq) != (HALF, -1)],
)
def test_a_job_killed_twice_anywhere_leaves_what_an_undisturbed_one_leaves(
    place: str,
    save_freq: int,
    configured: Callable[..., DictConfig],
    tmp_path: Path,
    undisturbed: tuple[dict[str, bytes], str],
) -> None:
    for attempt, step in (("1", 2), ("2", 4)):
        with pytest.raises(Died):
            Job(configured(save_freq), tmp_path / attempt, Fate(place, step)).run()
    Job(configured(save_freq), tmp_path / "3").run()
    assert left(tmp_path / "3") == undisturbed
    kept = [path.name for path in (tmp_path / "checkpoints").glob("global_step_*")]
    assert kept == {1: ["global_step_5"], 2: ["global_step_4"], -1: []}[save_freq]


@pytest.mark.parametrize("save_freq", [1, -1])
def test_a_job_that_is_asked_to_stop_finishes_its_step_saves_and_ends(
    save_freq: int,
    configured: Callable[..., DictConfig],
    tmp_path: Path,
    undisturbed: tuple[dict[str, bytes], str],
) -> None:
    asked = Job(configured(save_freq), tmp_path / "1")
    (tmp_path / "1" / records.STOP_REQUESTED).touch()
    asked.run()
    assert list(left(tmp_path / "1")[0]) == [records.npz_name(1)]
    note = records.Checkpoint.from_json((tmp_path / "1" / records.CHECKPOINT).read_text())
    assert note == records.Checkpoint(saved_after=1)
    Job(configured(save_freq), tmp_path / "2").run()
    assert left(tmp_path / "2") == undisturbed
    kept = [path.name for path in (tmp_path / "checkpoints").glob("global_step_*")]
    assert kept == (["global_step_5"] if save_freq > 0 else []), "nobody asked for one to be kept"


def test_a_request_in_the_last_step_changes_nothing(configured: Callable[..., DictConfig], tmp_path: Path) -> None:
    job = Job(configured(-1), tmp_path / "1")
    job.total_training_steps = 1
    (tmp_path / "1" / records.STOP_REQUESTED).touch()
    job.run()
    assert not (tmp_path / "checkpoints").exists()


def test_a_job_that_had_done_everything_restores_it_and_ends(
    configured: Callable[..., DictConfig], tmp_path: Path, undisturbed: tuple[dict[str, bytes], str]
) -> None:
    for attempt in ("1", "2"):
        Job(configured(1), tmp_path / attempt).run()
    assert left(tmp_path / "2") == undisturbed


def test_resuming_can_be_forbidden_and_aimed_as_in_verl(configured: Callable[..., DictConfig], tmp_path: Path) -> None:
    Job(configured(1, max_actor_ckpt_to_keep=None), tmp_path / "1").run()
    aimed = {"resume_mode": "resume_path", "resume_from_path": str(tmp_path / "checkpoints" / "global_step_3")}
    assert Job(configured(1, resume_mode="disable"), tmp_path / "2").global_steps == 0
    assert Job(configured(1, **aimed), tmp_path / "3").global_steps == 3
    assert Job(configured(1), tmp_path / "4").global_steps == STEPS


def test_prompts_are_named_by_their_step_and_place_also_when_they_come_in_pieces(
    configured: Callable[..., DictConfig], tmp_path: Path
) -> None:
    job = Job(configured(-1), tmp_path / "1")
    job.train_dataloader_it = iter([{"raw_prompt": np.array(["?"] * count, dtype=object)} for count in (2, 1, 2)])
    names = []
    for job.global_steps in (7, 7, 8):
        names.append(list(job._fetch_one_gen_batch()["uid"]))
    assert names == [["000007-00000", "000007-00001"], ["000007-00002"], ["000008-00000", "000008-00001"]]
