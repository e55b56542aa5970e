"""Numbered lines into log files, for ever: `python writes.py FOLDER FIRST`; prints each number once it is kept."""

from __future__ import annotations

import sys
from pathlib import Path

from supervisor.observe.logfiles.files import LogFiles
from supervisor.observe.logfiles.rotation import Keeping


def main(folder: Path, number: int) -> None:
    files: LogFiles[int] = LogFiles(
        folder,
        source_of=lambda number: "app",
        render=lambda number: f"{number:09}\n",
        tell=lambda text: print(text, file=sys.stderr),
        keeping=Keeping(max_bytes=2000, count=1_000_000),
    )
    while True:
        files.put(number, 100)
        files.flush(10)
        print(number, flush=True)
        number += 1


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
