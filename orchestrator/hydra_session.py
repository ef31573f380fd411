"""The only place that talks to Hydra: open a config folder, parse overrides, compose, apply.

Hydra is imported inside functions, because it takes a quarter of a second. Applying overrides to an already composed
configuration has no public function in Hydra 1.3; the private one is called here and nowhere else, and a property test
holds its result against composing anew.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestrator.overrides import assignment
from orchestrator.suggest import did_you_mean


class OverrideRefused(Exception):
    """One override cannot be. `message` and `hint` are for users; the override's text is `override`."""

    def __init__(self, override: str, message: str, hint: str | None = None) -> None:
        self.override, self.message, self.hint = override, message, hint
        super().__init__(message)


class CompositionFailed(Exception):
    """The configuration itself cannot be composed, whatever the overrides; for users."""


class HydraSession:
    """One primary config with its search path. Use `open_session`."""

    def __init__(self, config_name: str, search_path: Sequence[Path]) -> None:
        from hydra.core.override_parser.overrides_parser import OverridesParser

        self._config_name = config_name
        self._search_path = [_search_path_override(search_path)] if search_path else []
        self._parser = OverridesParser.create()
        self._parsed: dict[str, Any] = {}
        self._options: dict[str, list[str]] = {}

    def parse(self, override: str) -> Any:
        """Hydra's `Override` of one word.

        Raises:
            OverrideRefused: not in Hydra's grammar, or a form that has no place in a point.
        """
        from hydra.errors import HydraException

        if override not in self._parsed:
            try:
                parsed = self._parser.parse_overrides([override])[0]
            except HydraException as error:
                raise OverrideRefused(override, f"cannot be read: {said(error)}", "quote the value") from None
            if parsed.is_sweep_override():
                raise OverrideRefused(override, "has several values", "list them under parameters")
            if parsed.key_or_group.split(".")[0].split("/")[0] == "hydra":
                raise OverrideRefused(override, "Hydra's own settings have no effect here", "drop it")
            self._parsed[override] = parsed
        return self._parsed[override]

    def is_group_choice(self, override: Any) -> bool:
        """Whether Hydra takes a parsed override as a choice of a config group, which only composing can apply."""
        return not isinstance(override.value(), dict) and bool(self.options(override.key_or_group))

    def options(self, group: str) -> list[str]:
        """The options of a config group; empty when there is no such group."""
        if group not in self._options:
            self._options[group] = _loader().get_group_options(
                group, results_filter=None, config_name=self._config_name, overrides=self._search_path
            )
        return self._options[group]

    def chooses(self, group: str) -> bool:
        """Whether the primary config, or one that it is made of, has this group in its defaults list."""
        from hydra.types import RunMode

        try:  # MULTIRUN: a choice that is left open (`group: ???`) is no error
            defaults = _loader().compute_defaults_list(self._config_name, self._search_path, RunMode.MULTIRUN)
        except Exception as error:  # Hydra lets YAML's and plain ValueErrors through
            raise CompositionFailed(said(error)) from None
        return group in defaults.overrides.known_choices

    def compose(self, overrides: Sequence[str]) -> Any:
        """The composed `DictConfig`, in struct mode, interpolations unresolved.

        Raises:
            OverrideRefused: an override that cannot be; the first one that is to blame.
            CompositionFailed: the config cannot be composed even without overrides.
        """
        try:
            return self._compose(overrides)
        except Exception as error:  # Hydra lets OmegaConf's, YAML's and plain ValueErrors through
            raise self._blame(overrides, error) from None

    def _compose(self, overrides: Sequence[str]) -> Any:
        from hydra import compose

        return compose(self._config_name, overrides=[*self._search_path, *overrides])

    def _blame(self, overrides: Sequence[str], error: Exception) -> Exception:
        """The override without which composing succeeds, else one without which it fails for another reason."""
        others: list[str] = []
        for override in sorted(overrides, key=lambda text: self.parse(text).key_or_group not in str(error)):
            if refusal := self._unknown_option(override):
                return refusal
            without = self._failure([other for other in overrides if other != override])
            if without is None:
                return self._refused(override, error)
            if said(without) != said(error) and not self.is_group_choice(self.parse(override)):
                others.append(override)
        return self._refused(others[0], error) if others else CompositionFailed(said(error))

    def _failure(self, overrides: Sequence[str]) -> Exception | None:
        try:
            self._compose(overrides)
        except Exception as error:  # the same ones as in `compose`
            return error
        return None

    def apply(self, overrides: Sequence[Any], config: Any) -> None:
        """Apply parsed overrides that are no group choices to a `DictConfig`, in place.

        Raises:
            OverrideRefused: an unknown key, a wrong type, a deletion of what is not there.
        """
        from hydra._internal.config_loader_impl import ConfigLoaderImpl

        for override in overrides:
            try:
                ConfigLoaderImpl._apply_overrides_to_config([override], config)
            except Exception as error:  # OmegaConf raises ValueError, IndexError and AssertionError besides its own
                raise self._refused(override.input_line, error) from None

    def _refused(self, text: str, error: Exception) -> OverrideRefused:
        return self._unknown_option(text) or OverrideRefused(text, said(error))

    def _unknown_option(self, text: str) -> OverrideRefused | None:
        override = self.parse(text)
        group, choice = override.key_or_group, override.value()
        options = self.options(group)
        if not options or not isinstance(choice, str) or choice in options:
            return None
        hint = did_you_mean(choice, options) or f"there are {', '.join(options)}"
        return OverrideRefused(text, f"no such option of the config group `{group}`", hint)


@contextmanager
def open_session(config_folder: Path, config_name: str, search_path: Sequence[Path]) -> Iterator[HydraSession]:
    """Hydra, pointed at one primary config; global state is put back at the end.

    Args:
        config_folder: absolute folder of the primary config.
        config_name: its name without suffix.
        search_path: absolute folders that hold what it is composed over.
    """
    from hydra import initialize_config_dir

    with warnings.catch_warnings(), initialize_config_dir(str(config_folder), version_base="1.3"):
        warnings.simplefilter("ignore", UserWarning)
        yield HydraSession(config_name, search_path)


def _loader() -> Any:
    from hydra.core.global_hydra import GlobalHydra

    return GlobalHydra.instance().config_loader()


def _search_path_override(folders: Sequence[Path]) -> str:
    quoted = ",".join(assignment("", f"file://{folder}").removeprefix("=") for folder in folders)
    return f"hydra.searchpath=[{quoted}]"


def said(error: BaseException) -> str:
    """What Hydra or OmegaConf says, without the lines for programmers, and the key that it is about."""
    text = str(error).strip() or str(error.__cause__ or type(error).__name__).strip()
    first, *more = text.splitlines()
    about = next((line.split(":", 1)[1].strip() for line in more if line.strip().startswith("full_key:")), "")
    return first.rstrip(".") + (f", at {about}" if about and about not in first else "")
