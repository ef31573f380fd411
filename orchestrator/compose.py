"""From raw points to points: Hydra's composition over verl's own configuration, resolved and hashed.

Composed once for each choice of config groups; what a point sets beyond that is merged into it (`merge`). A mistake in
an override is a `ComposeError` that names the place in the sweep file, the key and the nearest valid one.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from orchestrator.errors import ComposeError, EnvironmentProblem, SpecError
from orchestrator.expand import RawPoint
from orchestrator.hydra_session import CompositionFailed, HydraSession, OverrideRefused, open_session
from orchestrator.identity import point_hash, point_id
from orchestrator.job_section import JobSection, fill, job_section
from orchestrator.merge import Composed, Config
from orchestrator.model import Point
from orchestrator.overrides import assignment, override_key
from orchestrator.spec_model import IDENTITY_EXCLUDE, SweepSpec, default_config_dir
from orchestrator.spec_rules import is_config_file
from orchestrator.suggest import did_you_mean
from orchestrator.yaml_source import KeyPath

__all__ = ["JobSection", "compose_points", "fill", "find_verl_config", "job_section", "resolve_profile"]

PROFILE_GROUP = "profile"
LOCAL_PROFILE = "local"
CLUSTER_PROFILE = "h200x8"
VERL_CONFIG = "ppo_trainer"


def resolve_profile(spec: SweepSpec, can_use_gpu: bool, preferred: str | None = None) -> str | None:
    """The profile that `auto` stands for: the preferred one, else `h200x8` where jobs can use GPUs and `local` where not."""
    if spec.profile != "auto":
        return spec.profile
    return preferred or (CLUSTER_PROFILE if can_use_gpu else LOCAL_PROFILE)


def find_verl_config() -> Path | None:
    """The folder of verl's trainer configs, found without importing verl; None where verl is not installed."""
    found = importlib.util.find_spec("verl")
    if found is None or not found.submodule_search_locations:
        return None
    folder = Path(found.submodule_search_locations[0]) / "trainer" / "config"
    return folder if folder.is_dir() else None


def compose_points(
    spec: SweepSpec,
    raw_points: Sequence[RawPoint],
    *,
    config_dir: Path | None = None,
    verl_config_dir: Path | None = None,
) -> tuple[Point, ...]:
    """Compose, resolve and hash every point.

    The configurations of the points share what no parameter reaches: treat them as read-only.

    Args:
        spec: the sweep; its profile is one that `resolve_profile` gave, and is ignored where the config has none.
        raw_points: from `expand`.
        config_dir: folder of the named Hydra configs; by default trainer_ext's.
        verl_config_dir: folder of verl's configs; by default where verl is installed.

    Raises:
        ComposeError: a configuration or an override that cannot be.
        EnvironmentProblem: the config needs verl's, and verl is not installed.
        SpecError: two points are the same configuration.
    """
    with point_composer(spec, config_dir=config_dir, verl_config_dir=verl_config_dir) as compose:
        points = tuple(compose(raw) for raw in raw_points)
    _refuse_unknown_exclusions(spec, points)
    _refuse_twins(spec, points)
    return points


@contextmanager
def point_composer(
    spec: SweepSpec, *, config_dir: Path | None = None, verl_config_dir: Path | None = None
) -> Iterator[Callable[[RawPoint], Point]]:
    """One point at a time, for a search: Hydra stays open in between. Arguments and errors as in `compose_points`."""
    verl = verl_config_dir or find_verl_config()
    with _session(spec, config_dir or default_config_dir(), verl) as session:
        shared: list[_Composer] = []

        def compose(raw: RawPoint) -> Point:
            try:
                if not shared:
                    shared.append(_Composer(session, (*_profile_choice(spec, session), *spec.overrides)))
                return _point(spec, shared[0], raw)
            except CompositionFailed as error:
                raise _failed(spec, error, verl) from None

        yield compose


class _Composer:
    """Composes once for each choice of config groups. `shared` are the overrides that every point has."""

    def __init__(self, session: HydraSession, shared: tuple[str, ...]) -> None:
        self.session, self.shared = session, shared
        self._composed: dict[tuple[str, ...], Composed] = {}

    def config(self, own: Sequence[str]) -> Config:
        """The resolved configuration of a point with these overrides beside the shared ones."""
        parsed = [self.session.parse(override) for override in own]
        values = [override for override in parsed if not self.session.is_group_choice(override)]
        return self.composed(own).changed_by(values)

    def composed(self, own: Sequence[str]) -> Composed:
        choices = self.group_choices(own)
        if choices not in self._composed:
            for override in self.shared:
                self.session.parse(override)
            self._composed[choices] = Composed(self.session, self.session.compose([*self.shared, *choices]))
        return self._composed[choices]

    def group_choices(self, overrides: Sequence[str]) -> tuple[str, ...]:
        return tuple(text for text in overrides if self.session.is_group_choice(self.session.parse(text)))


@contextmanager
def _session(spec: SweepSpec, config_dir: Path, verl_config_dir: Path | None) -> Iterator[HydraSession]:
    folder, name, beneath = config_dir, spec.config, [verl_config_dir]
    if is_config_file(spec.config):
        file = Path(spec.config)
        folder, name, beneath = file.parent, file.stem, [config_dir, verl_config_dir]
    with open_session(folder.absolute(), name, [path.absolute() for path in beneath if path is not None]) as session:
        yield session


def _profile_choice(spec: SweepSpec, session: HydraSession) -> list[str]:
    """The profile's override, unless the sweep sets or crosses profiles itself, or the config knows none."""
    crossed = any(override_key(spec.target(name)) == PROFILE_GROUP for name in spec.axes)
    chosen = any(override_key(override) == PROFILE_GROUP for override in spec.overrides)
    if spec.profile is None or crossed or chosen or not session.chooses(PROFILE_GROUP):
        return []
    return [assignment(PROFILE_GROUP, spec.profile)]


def _point(spec: SweepSpec, composer: _Composer, raw: RawPoint) -> Point:
    own = raw.overrides[len(spec.overrides) :]
    try:
        config = composer.config(own)
    except OverrideRefused as refused:
        raise _located(spec, composer, raw, refused) from None
    full_hash = point_hash(config, spec.identity.exclude)
    return Point(
        id=point_id(full_hash),
        index=raw.index,
        name=raw.name,
        parameters=raw.parameters,
        replicate=raw.replicate,
        overrides=(*composer.shared, *own),
        config=config,
        hash=full_hash,
    )


def _located(spec: SweepSpec, composer: _Composer, raw: RawPoint, refused: OverrideRefused) -> ComposeError:
    """The refusal with its place in the sweep file and the nearest key that exists."""
    hint = refused.hint or _near_key(composer, raw, refused.override)
    path, message = _place(spec, raw, refused.override), f"`{refused.override}`: {refused.message}"
    if path[0] not in ("overrides", "profile"):
        message += f", in point {raw.name}"
    return ComposeError(str(spec.error(path, message, hint)))


def _place(spec: SweepSpec, raw: RawPoint, override: str) -> KeyPath:
    if override in spec.overrides:
        return ("overrides", spec.overrides.index(override))
    own = raw.overrides[len(spec.overrides) :]
    for name, text in zip(raw.parameters, own, strict=True):
        if text == override:
            return spec.place(name)
    return ("profile",)


def _near_key(composer: _Composer, raw: RawPoint, override: str) -> str | None:
    """The nearest key of the configuration with its groups chosen and nothing overridden, or how to add a new one."""
    key = override_key(override)
    try:
        choices = composer.group_choices([*composer.shared, *raw.overrides])
        paths = Composed(composer.session, composer.session.compose(list(dict.fromkeys(choices)))).paths()
    except (OverrideRefused, CompositionFailed):
        return None
    known = {*paths, *(path.rpartition(".")[0] for path in paths)} - {""}
    if override.startswith("+") or key in known:
        return None
    return did_you_mean(key, known) or (None if override.startswith("~") else f"to add a new key write +{override}")


def _failed(
    spec: SweepSpec, error: CompositionFailed, verl_config_dir: Path | None
) -> ComposeError | EnvironmentProblem:
    if VERL_CONFIG in str(error) and not (verl_config_dir and (verl_config_dir / f"{VERL_CONFIG}.yaml").is_file()):
        return EnvironmentProblem(
            f"the config `{spec.config}` is composed over verl's, and verl is not installed here; "
            "install the extra `trainer` of this package"
        )
    return ComposeError(str(spec.error(("config",), f"cannot compose `{spec.config}`: {error}")))


def _refuse_unknown_exclusions(spec: SweepSpec, points: Sequence[Point]) -> None:
    """A key of `identity.exclude` that the user wrote and no point has."""
    for index, key in enumerate(spec.identity.exclude):
        if key not in IDENTITY_EXCLUDE and not any(_has(point.config, key.split(".")) for point in points):
            raise spec.error(("identity", "exclude", index), f"no point has the key `{key}`")


def _has(config: object, keys: Sequence[str]) -> bool:
    for key in keys:
        if not isinstance(config, dict) or key not in config:
            return False
        config = config[key]
    return True


def _refuse_twins(spec: SweepSpec, points: Sequence[Point]) -> None:
    first: dict[str, Point] = {}
    for point in points:
        twin = first.setdefault(point.hash, point)
        if twin is not point:
            raise _twins(spec, twin, point)


def _twins(spec: SweepSpec, one: Point, other: Point) -> SpecError:
    differing = [name for name, value in other.parameters.items() if one.parameters.get(name) != value]
    message = f"points {one.name} and {other.name} are the same configuration"
    if not differing:
        return spec.error(("include",), message, "name each point once")
    names = " and ".join(f"`{name}` ({spec.target(name)})" for name in differing)
    path = spec.place(differing[0])
    return spec.error(path, message, f"does {names} change anything, or does identity.exclude hide it?")
