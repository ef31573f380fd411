"""A sweep as a report sees it: plain frozen records, filled from the store by whoever draws the report.

There is no database and no clock in this package. The same snapshot always gives the same bytes, and a snapshot
survives a round trip through JSON, so a report can be drawn again from a file when the sweep's folders are long gone.

Times are seconds since the epoch, sizes are bytes. None means "not known", and the report leaves it out.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from reports.trials import SearchSnapshot, TrialSnapshot

Scalar = str | int | float | bool | None

_T = TypeVar("_T")


@dataclass(frozen=True)
class GitState:
    """The repository a sweep was started from."""

    commit: str
    """Full hash."""
    branch: str | None = None
    """None when HEAD is detached."""
    dirty: bool | None = None
    """Changed or untracked files stand beside the commit; None when git could not tell in time."""
    diff_sha256: str | None = None
    """Of those changes; equal hashes mean equal changes. None for a clean tree."""
    remote: str | None = None
    """Name of the remote that the branch follows, else of the first one."""
    remote_url: str | None = None
    """Without user, password or query."""
    pushed: bool | None = None
    """The remote was seen holding the commit, as of the last fetch or push; None without a remote."""


@dataclass(frozen=True)
class CommitSnapshot:
    hash: str
    subject: str
    """First line of its message."""


@dataclass(frozen=True)
class FileChange:
    """One file that differs between two commits."""

    path: str
    change: str = "modified"
    """added | modified | deleted"""
    added: int | None = None
    """Lines; None for a binary file."""
    removed: int | None = None
    subjects: tuple[str, ...] = ()
    """Of the commits that touched it, oldest first."""


@dataclass(frozen=True)
class ChangesSnapshot:
    """What became of the code since an earlier sweep, or since a commit that was named."""

    base: str
    """Full hash."""
    head: str
    base_sweep: str | None = None
    """The sweep that ran on the base; None where a commit was named."""
    commits: tuple[CommitSnapshot, ...] = ()
    """Oldest first."""
    files: tuple[FileChange, ...] = ()
    """By path."""
    more_commits: int = 0
    """Older ones that are not kept."""
    more_files: int = 0


@dataclass(frozen=True)
class SimilarityRow:
    """One class of pairs of response gradients. None where there is no number."""

    matrix: str
    """RAW_DOT | HINV_DOT | PROJECTED | UNPROJECTED"""
    scope: str
    """PER_PROMPT | ALL_PROMPT"""
    pair: str
    """acc-acc | rej-rej | acc-rej"""
    mean: float | None = None
    cosine: float | None = None
    self_dot: float | None = None
    pairs: int = 0


@dataclass(frozen=True)
class SimilaritySnapshot:
    """What the similarity diagnostic found in one step, as the NPZ file's `meta` holds it."""

    rows: tuple[SimilarityRow, ...] = ()
    residual: float | None = None
    module: str | None = None
    """The one that was captured without projection too."""
    unprojected: tuple[SimilarityRow, ...] = ()
    """Its rows, PROJECTED and UNPROJECTED."""
    correlation: float | None = None
    """Of its dots before and after projection."""
    relative_error_of_self_dots: float | None = None


@dataclass(frozen=True)
class ModuleDims:
    """Modules of one type and one projected size, as the NPZ file's `meta` holds them."""

    module_type: str
    """Last part of their names: q_proj."""
    k_in: int
    k_out: int
    modules: int = 1
    """How many there are."""
    routes: tuple[str, ...] = ()
    """By which they were solved; sorted."""
    residual: float | None = None
    """The largest of theirs; None where nothing was solved."""

    @property
    def dim(self) -> int:
        """D, the side of a module's Hessian."""
        return self.k_in * self.k_out


@dataclass(frozen=True)
class HardwareSnapshot:
    """The node of a deciding attempt, as its wrapper saw it."""

    gpu: str | None = None
    """Product name of the cards."""
    gpus: int = 0
    """Cards that the job could see."""
    driver: str | None = None
    image: str | None = None
    """Reference of the container image, with its digest where that is known."""
    packages_sha256: str | None = None
    """Of the names and versions of all installed Python packages: equal hashes mean equal packages."""


@dataclass(frozen=True)
class NpzSnapshot:
    """Influence scores of one step: statistics in float64 over valid positions."""

    file: str
    """Relative to the attempt folder."""
    step: int | None = None
    error: str | None = None
    """Why it could not be read; the statistics are then left out."""
    responses: int = 0
    valid: int = 0
    mean: float | None = None
    std: float | None = None
    min: float | None = None
    max: float | None = None
    nan_in_valid: int = 0
    histogram: tuple[tuple[float, float, int], ...] = ()
    """(from, to, how many), ascending, of the finite ones; bins grow with the magnitude."""
    bytes: int | None = None
    """Size of the file."""
    similarity: SimilaritySnapshot | None = None


@dataclass(frozen=True)
class AttemptSnapshot:
    """One try of a point."""

    n: int
    pool: str | None = None
    state: str = ""
    verdict: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    reason: str | None = None
    """One sentence, from the verdict."""
    started_at: float | None = None
    ended_at: float | None = None
    gpu_hours: float | None = None
    patch: Mapping[str, Scalar] = field(default_factory=dict)
    """Keys of the configuration that the retry policy changed, with their values here."""
    unpatched: Mapping[str, Scalar] = field(default_factory=dict)
    """The values of the same keys as the sweep file has them."""
    moved: str | None = None
    """Why it ran on this pool and in this way, where that was a decision: a retry, or what other points had shown."""
    node: str | None = None
    gpu_peak_bytes: int | None = None
    host_peak_bytes: int | None = None
    evidence: tuple[str, ...] = ()
    """What its verdict stands on, each as `file:line: words` or `file: words`."""
    folder: str | None = None
    """Relative to the report."""


@dataclass(frozen=True)
class Expected:
    """A figure as it was predicted, and the interval that it was predicted in."""

    value: float
    low: float
    high: float
    basis: str = "shapes"
    """shapes | measured | scaled"""


@dataclass(frozen=True)
class PredictionSnapshot:
    """What the deciding attempt was expected to take on its pool, before it ran."""

    gpu_bytes: Expected | None = None
    host_bytes: Expected | None = None
    seconds: Expected | None = None


@dataclass(frozen=True)
class PointSnapshot:
    """One configuration with what its deciding attempt left behind."""

    id: str
    name: str
    parameters: Mapping[str, Scalar] = field(default_factory=dict)
    """Every axis of the sweep, replicate axes included."""
    replicate: Mapping[str, Scalar] = field(default_factory=dict)
    state: str = "planned"
    verdict: str | None = None
    reason: str | None = None
    anomalies: tuple[tuple[str, str], ...] = ()
    """(code, message)."""
    attempts: tuple[AttemptSnapshot, ...] = ()
    """Ascending; the last one decides."""
    metrics: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    """step -> name -> value."""
    npz: tuple[NpzSnapshot, ...] = ()
    resumed_after: int = 0
    """The deciding attempt went on after this step; the figures of the steps before are those of earlier attempts."""
    card_bytes: int | None = None
    """Physical memory of one card."""
    gpu_peak_bytes: int | None = None
    """NVML's peak over all cards."""
    host_peak_bytes: int | None = None
    host_limit_bytes: int | None = None
    """What the job's control group allows."""
    started_at: float | None = None
    ended_at: float | None = None
    evidence: tuple[str, ...] = ()
    """What the verdict stands on, each as `file:line: words` or `file: words`."""
    folder: str | None = None
    """The deciding attempt's folder, relative to the report."""
    predicted: PredictionSnapshot | None = None
    step_lines: Mapping[int, str] = field(default_factory=dict)
    """step -> where the deciding attempt's folder holds its metrics, as `metrics.jsonl:2`."""
    log_lines: int = 0
    """Lines of the deciding attempt's console log."""
    errors: tuple[str, ...] = ()
    """What looks like a failure in that log, whatever became of it, each as `file:line: words`."""
    dims: tuple[ModuleDims, ...] = ()
    hardware: HardwareSnapshot | None = None

    def has_anomaly(self, code: str) -> bool:
        return any(code == found for found, _ in self.anomalies)


@dataclass(frozen=True)
class SweepSnapshot:
    """Everything a report says."""

    name: str
    description: str = ""
    created_at: float | None = None
    finished_at: float | None = None
    state: str = ""
    spec_path: str | None = None
    command: str | None = None
    """As typed, for the reader who wants to run it again."""
    config: str | None = None
    profile: str | None = None
    overrides: tuple[str, ...] = ()
    """Fixed for all points."""
    axes: tuple[str, ...] = ()
    """Names of `PointSnapshot.parameters` in the sweep file's order, replicate axes last."""
    points: tuple[PointSnapshot, ...] = ()
    expected_steps: int | None = None
    expected_npz: int | None = None
    """Files a point should leave."""
    git: GitState | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    """Versions and hardware, in the order to print them."""
    gpu_hours: float | None = None
    gpu_hours_limit: float | None = None
    changes: ChangesSnapshot | None = None
    backend: str | None = None
    gpus: int = 0
    """Cards that one attempt asks for."""
    search: SearchSnapshot | None = None

    def to_json(self) -> str:
        """Equal snapshots give equal text. NaN and infinities are written as Python's json does."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> SweepSnapshot:
        """The inverse of `to_json`. Unknown keys are ignored, missing ones take their defaults.

        Raises:
            ValueError: not JSON, not an object, or a record lacks a required key.
        """
        data = json.loads(text)
        if not isinstance(data, dict):
            raise ValueError(f"a snapshot is a JSON object, not {type(data).__name__}")
        return _build(
            cls,
            data,
            points=tuple(_point(point) for point in data.get("points", ())),
            git=_optional(GitState, data.get("git")),
            changes=parse_changes(data["changes"]) if data.get("changes") else None,
            search=_search(data["search"]) if data.get("search") else None,
        )


def _point(data: Mapping[str, Any]) -> PointSnapshot:
    return _build(
        PointSnapshot,
        data,
        anomalies=tuple((code, message) for code, message in data.get("anomalies", ())),
        attempts=_each(AttemptSnapshot, data.get("attempts")),
        metrics={int(step): dict(values) for step, values in data.get("metrics", {}).items()},
        npz=tuple(_npz(file) for file in data.get("npz", ())),
        predicted=_prediction(data["predicted"]) if data.get("predicted") else None,
        step_lines={int(step): place for step, place in data.get("step_lines", {}).items()},
        dims=_each(ModuleDims, data.get("dims")),
        hardware=_optional(HardwareSnapshot, data.get("hardware")),
    )


def _npz(data: Mapping[str, Any]) -> NpzSnapshot:
    found = data.get("similarity")
    rows = {name: _each(SimilarityRow, found.get(name)) for name in ("rows", "unprojected")} if found else {}
    return _build(
        NpzSnapshot,
        data,
        histogram=tuple((low, high, number) for low, high, number in data.get("histogram", ())),
        similarity=_build(SimilaritySnapshot, found, **rows) if found else None,
    )


def parse_changes(data: Mapping[str, Any]) -> ChangesSnapshot:
    """The inverse of `dataclasses.asdict`.

    Raises:
        ValueError: a record lacks a required key.
    """
    commits, files = _each(CommitSnapshot, data.get("commits")), _each(FileChange, data.get("files"))
    return _build(ChangesSnapshot, data, commits=commits, files=files)


def _prediction(data: Mapping[str, Any]) -> PredictionSnapshot:
    return PredictionSnapshot(
        **{name: _build(Expected, data[name]) for name in ("gpu_bytes", "host_bytes", "seconds") if data.get(name)}
    )


def _search(data: Mapping[str, Any]) -> SearchSnapshot:
    return _build(SearchSnapshot, data, trials=_each(TrialSnapshot, data.get("trials")))


def _each(record: type[_T], items: Iterable[Mapping[str, Any]] | None) -> tuple[_T, ...]:
    return tuple(_build(record, item) for item in items or ())


def _optional(record: type[_T], data: Mapping[str, Any] | None) -> _T | None:
    return _build(record, data) if data else None


def _build(record: type[_T], data: Mapping[str, Any], **parsed: Any) -> _T:
    known = {f.name for f in dataclasses.fields(record)}  # type: ignore[arg-type]
    plain = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items() if key in known}
    try:
        return record(**{**plain, **parsed})
    except TypeError as error:
        raise ValueError(f"{record.__name__}: {error}") from error
