"""One value of several sources: the first of them that says something wins. Nothing is read here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from supervisor.core.errors import ConfigurationError
from supervisor.core.secret import Secret
from supervisor.core.settings.checks import check_all
from supervisor.core.settings.mistakes import describe
from supervisor.core.settings.model import Loaded, Settings
from supervisor.core.settings.names import argument_name
from supervisor.core.settings.placeholder import is_placeholder, refusal
from supervisor.core.settings.sources import FETCHED, Given, Named, from_toml, unknown_variables

_MOST_MISTAKES = 100


def build(
    *,
    arguments: Mapping[str, Any] | None = None,
    named: Sequence[Named] = (),
    mounted: Mapping[str, tuple[str, str]] | None = None,
    toml: Mapping[str, Any] | None = None,
    toml_name: str = "supervisor.toml",
    defaults: Mapping[str, Any] | None = None,
    earlier: Sequence[str] = (),
) -> Loaded:
    """Merge the sources and validate. Raises ConfigurationError that lists every mistake, not only the first.

    `arguments` and `toml` map setting to value. `named` are the environment, what the secrets command printed and the
    `.env` files, the strongest first; `mounted` are path and text of the secrets' folder, by setting, which stand
    between the command and the files. `defaults` are what stands in for the model's own, and `earlier` the mistakes
    that were found while the sources were read.
    """
    mistakes = [*earlier, *(text for source in named for text in source.mistakes())]
    given = _by_setting(_in_order(arguments or {}, named, mounted or {}, from_toml(toml or {}, toml_name, mistakes)))
    values = {**(defaults or {}), **{name: one.value for name, one in given.items()}}
    settings, bad = _validated(values, given, mistakes)
    mistakes.extend(refusal(one.place) for one in given.values() if is_placeholder(one.value))
    # What needs a look at several settings, where all of those are good by themselves.
    mistakes.extend(check_all(settings, bad))
    if mistakes:
        raise ConfigurationError(_report(mistakes))
    unknown = (text for source in named if not source.shown for text in unknown_variables(source.values))
    return Loaded(
        settings=settings,
        origins={name: one.origin for name, one in given.items()},
        warnings=tuple(f"unknown setting {text}" for text in unknown),
        fetched=_for_app(source for source in named if source.shown == FETCHED),
        env_files=_for_app(source for source in reversed(named) if source.shown and source.shown != FETCHED),
    )


def _report(mistakes: Sequence[str]) -> str:
    shown = [*mistakes[:_MOST_MISTAKES]]
    if len(mistakes) > _MOST_MISTAKES:
        shown.append(f"and {len(mistakes) - _MOST_MISTAKES:,} more")
    return "cannot use the settings:\n" + "\n".join(f"  - {mistake}" for mistake in shown)


def _in_order(
    arguments: Mapping[str, Any],
    named: Sequence[Named],
    mounted: Mapping[str, tuple[str, str]],
    toml: Iterable[Given],
) -> Iterator[Given]:
    """All that was given, the weakest first."""
    strong = [source for source in named if not source.shown or source.shown == FETCHED]
    yield from toml
    for source in reversed([source for source in named if source not in strong]):
        yield from source.given()
    for name, (path, text) in mounted.items():
        yield Given(name, text.strip(), path, path)
    for source in reversed(strong):
        yield from source.given()
    for name, value in arguments.items():
        yield Given(name, value, argument_name(name), argument_name(name))


def _by_setting(given: Iterable[Given]) -> dict[str, Given]:
    return {one.setting: one for one in given}


def _validated(values: Mapping[str, Any], given: Mapping[str, Given], mistakes: list[str]) -> tuple[Settings, set[str]]:
    """The settings without those that are wrong by themselves, and the names of these."""
    try:
        return Settings(**values), set()
    except ValidationError as error:
        details = error.errors(include_url=False)
    mistakes.extend(describe(detail, given) for detail in details)
    bad = {str(detail["loc"][0]) for detail in details}
    return Settings(**{name: value for name, value in values.items() if name not in bad}), bad


def _for_app(sources: Iterable[Named]) -> dict[str, Secret]:
    return {name: Secret(value) for source in sources for name, value in source.for_app().items()}
