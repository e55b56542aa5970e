"""Loaded by Python before the app, in each of its processes: writes down which variables of the environment are read,
and where. What is read is answered as ever. Python 3.8 and newer; the standard library only.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import sys
import sysconfig
import threading
from collections.abc import Iterator
from types import CodeType, FrameType, ModuleType
from typing import Any

_RECORDS = "SUPERVISOR_DETECT_RECORDS"
_MAX_RECORD_BYTES = 4096  # a write of this size to a pipe is never torn, pipe(7)
_MAX_SEEN = 100_000
_PLAIN = (str, int, float, bool)
_LIBRARY = tuple(f"{os.sep}{name}{os.sep}" for name in ("site-packages", "dist-packages"))
_STANDARD = tuple({sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib")})
_PART_OF_READING = {__file__, os.__file__, "<frozen os>"}
_MAPPING = ("<frozen _collections_abc>", f"{os.sep}_collections_abc.py")
_NOTHING: Any = object()
_environ_class: Any = type(os.environ)
_busy = threading.local()


class _Channel:
    """Where the records go; opened anew where the app has closed what it did not open."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = -1
        self._seen: set[str] = set()

    def send(self, record: dict[str, Any]) -> None:
        line = (json.dumps(record) + "\n").encode()
        key = line.decode()
        if len(line) > _MAX_RECORD_BYTES or key in self._seen:
            return
        if len(self._seen) < _MAX_SEEN:
            self._seen.add(key)
        for _ in range(2):
            try:
                if self._descriptor < 0:
                    self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
                os.write(self._descriptor, line)
                return
            except OSError:
                self._descriptor = -1


class _Origin:
    """Who reads: the innermost frame decides what it is, the first frame of the app where it is."""

    def __init__(self, frame: FrameType | None) -> None:
        self.by, self.library, self.loading, self.file, self.line = "", "", False, "", 0
        self.at: tuple[CodeType, int] | None = None
        while frame is not None and not self.file:
            self._take(frame)
            frame = frame.f_back

    def _take(self, frame: FrameType) -> None:
        file = frame.f_code.co_filename
        if file in _PART_OF_READING or file.endswith(_MAPPING):
            return
        if not self.by:
            self.at = (frame.f_code, frame.f_lasti)
        if file.startswith("<frozen importlib"):
            self.loading = True
        elif any(part in file for part in _LIBRARY):
            self.by, self.library = self.by or "library", self.library or file
        elif file.startswith(("<frozen", *_STANDARD)):
            self.by = self.by or "runtime"
        elif not file.startswith("<"):
            self.by, self.file, self.line = self.by or "app", os.path.abspath(file), frame.f_lineno

    def said(self) -> dict[str, Any]:
        names = ("by", "library", "loading", "file", "line")
        return {name: getattr(self, name) for name in names}


class _Recorder:
    """Decides what of the reads is worth a record."""

    def __init__(self, channel: _Channel) -> None:
        self._channel = channel
        self._listed_at: tuple[CodeType, int] | None = None
        self._listed: set[str] = set()
        self._own: set[str] = set()  # names that the app gives itself: reading them tells nothing about what it needs

    def read(self, name: Any, frame: FrameType, **said: Any) -> None:
        """One read. dict(os.environ) asks for each name where it asked for the list: none of these."""
        text = os.fsdecode(name) if isinstance(name, bytes) else name
        if not isinstance(text, str) or text in self._own or getattr(_busy, "on", False):
            return
        _busy.on = True
        try:
            origin = _Origin(frame)
            if text not in self._listed or origin.at != self._listed_at:
                self._channel.send({"name": text, **said, **origin.said()})
        finally:
            _busy.on = False

    def listed(self, frame: FrameType) -> None:
        self._listed_at = _Origin(frame).at
        self._listed = {os.fsdecode(name) for name in _environ_class.__iter__(os.environ)}

    def changed(self, name: Any, frame: FrameType) -> None:
        text = os.fsdecode(name) if isinstance(name, bytes) else name
        if isinstance(text, str) and _Origin(frame).by == "app":
            self._own.add(text)


class _Environ(_environ_class):  # type: ignore[misc]
    """The mapping as it was, telling of reads."""

    def __getitem__(self, key: Any) -> Any:
        value = _value(self, key)
        _recorder.read(key, sys._getframe(1), how="item", absent=value is _NOTHING, raised=value is _NOTHING)
        return super().__getitem__(key)

    def get(self, key: Any, default: Any = None) -> Any:
        return self._asked(key, default, sys._getframe(1), "get")

    def __contains__(self, key: Any) -> bool:
        value = _value(self, key)
        _recorder.read(key, sys._getframe(1), how="in", absent=value is _NOTHING)
        return value is not _NOTHING

    def pop(self, key: Any, *default: Any) -> Any:
        value = self._asked(key, default[0], sys._getframe(1), "pop") if default else self[key]
        if _value(self, key) is not _NOTHING:
            super().__delitem__(key)
        return value

    def setdefault(self, key: Any, value: Any) -> Any:
        known = _value(self, key)
        _recorder.read(key, sys._getframe(1), how="setdefault", absent=known is _NOTHING, **_default(value))
        if known is _NOTHING:
            super().__setitem__(key, value)
        return super().__getitem__(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        _recorder.changed(key, sys._getframe(1))
        super().__setitem__(key, value)

    def __delitem__(self, key: Any) -> None:
        _recorder.changed(key, sys._getframe(1))
        super().__delitem__(key)

    def __iter__(self) -> Iterator[Any]:
        _recorder.listed(sys._getframe(1))
        return iter(list(super().__iter__()))

    def keys(self) -> Any:
        _recorder.listed(sys._getframe(1))
        return super().keys()

    def items(self) -> Any:
        return _plain(self).items()

    def values(self) -> Any:
        return _plain(self).values()

    def copy(self) -> Any:
        return _plain(self)

    def _asked(self, key: Any, default: Any, frame: FrameType, how: str) -> Any:
        value = _value(self, key)
        _recorder.read(key, frame, how=how, absent=value is _NOTHING, **_default(default))
        return default if value is _NOTHING else value


def _intercept() -> None:
    """Give `os.environ` and `os.environb` a class that tells; they stay the objects they are."""
    for environ in (os.environ, getattr(os, "environb", None)):
        if environ is not None:
            environ.__class__ = _Environ


def _value(environ: Any, key: Any) -> Any:
    try:
        return _environ_class.__getitem__(environ, key)
    except KeyError:
        return _NOTHING


def _plain(environ: Any) -> dict[Any, Any]:
    return {key: _environ_class.__getitem__(environ, key) for key in list(_environ_class.__iter__(environ))}


def _default(value: Any) -> dict[str, Any]:
    return {"default": value} if isinstance(value, _PLAIN) and len(str(value)) < 200 else {}


class _Patch(importlib.abc.MetaPathFinder):
    """pydantic-settings copies the whole environment and looks into the copy: it is asked for its fields instead."""

    def __init__(self, recorder: _Recorder) -> None:
        self._recorder = recorder

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        """The real one, with its execution followed by the patch."""
        if name != "pydantic_settings":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module
        recorder = self._recorder

        def executed(module: ModuleType) -> None:
            execute(module)
            _patch_settings(module, recorder)

        spec.loader.exec_module = executed  # type: ignore[method-assign]
        return spec


def _patch_settings(module: Any, recorder: _Recorder) -> None:
    source = getattr(module, "EnvSettingsSource", None)
    original = getattr(source, "get_field_value", None)
    if source is None or original is None:
        return

    def get_field_value(self: Any, field: Any, field_name: str) -> Any:
        try:
            _tell_field(self, field, field_name, recorder, sys._getframe(1))
        except Exception as error:  # another version of it: the app must not fail for that
            sys.stderr.write(f"environment detection: a field of pydantic-settings was not understood: {error}\n")
        return original(self, field, field_name)

    source.get_field_value = get_field_value


def _tell_field(source: Any, field: Any, field_name: str, recorder: _Recorder, frame: FrameType) -> None:
    kind = getattr(field.annotation, "__name__", "")
    for _, env_name, _ in source._extract_field_info(field, field_name):
        name = env_name if source.case_sensitive else env_name.upper()
        absent = source.env_vars.get(env_name) is None
        said = {"how": "field", "absent": absent, "raised": absent and field.is_required(), "type": kind}
        recorder.read(name, frame, declared=True, **said, **_default(field.default))


def _load_next() -> None:
    """Python loads one `sitecustomize`; the one that this hides gets its turn."""
    here = os.path.dirname(os.path.abspath(__file__))
    kept = sys.path[:]
    sys.path[:] = [folder for folder in kept if os.path.abspath(folder or ".") != here]
    ours = sys.modules.pop("sitecustomize", None)
    try:
        importlib.import_module("sitecustomize")
    except ImportError:
        if ours is not None:
            sys.modules["sitecustomize"] = ours
    finally:
        sys.path[:] = [folder for folder in kept if os.path.abspath(folder or ".") != here]


_recorder = _Recorder(_Channel(os.environ.get(_RECORDS, os.devnull)))
if _RECORDS in os.environ:
    _load_next()
    _intercept()
    sys.meta_path.insert(0, _Patch(_recorder))
