"""Secrets in files: whole and their reader's from the first moment, or an error that the restart policy knows."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from supervisor.core.errors import TransientError
from supervisor.core.secret import Secret
from supervisor.store.files import write_atomic
from supervisor.store.given_files import GivenFiles


def test_file_is_written_once_and_is_for_its_reader_alone(tmp_path: Path) -> None:
    files = GivenFiles(tmp_path / "given")
    path = files.path("api", "KEY", Secret("value"))
    files.write({path: Secret("value")}, (os.geteuid(), os.getegid()))
    before = path.stat()
    files.write({path: Secret("value")}, None)
    assert path.read_text() == "value"
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o400, 0o700)
    assert path.stat().st_ino == before.st_ino
    assert files.path("api", "KEY", Secret("other")) != path
    files.clear()
    assert not path.exists()


def test_what_the_disk_does_not_take_is_an_error_of_ours_without_the_value(tmp_path: Path) -> None:
    files = GivenFiles(tmp_path)
    path = files.path("api", "X" * 250, Secret("s3cret"))
    with pytest.raises(TransientError, match="File name too long; make room") as caught:
        files.write({path: Secret("s3cret")}, None)
    assert "s3cret" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_owner_is_there_before_the_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owners: list[int] = []
    replace = Path.replace

    def noted(self: Path, target: Path) -> Path:
        owners.append(self.stat().st_uid)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", noted)
    write_atomic(tmp_path / "file", "text", owner=(12345, 12345))
    assert owners == [12345]
