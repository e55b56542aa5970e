"""Tables at the end of a run: how long each ordeal took, and what each load asked for.

A plugin, as the process that writes the end of a run that is spread over several reads no conftest of a folder.
"""

from __future__ import annotations

import pytest

_TABLES = {
    "back": "until notes could be read and written, and until all ran",
    "load": "requests while releases were applied",
    "kills": "updates that docker kill ended",
}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for name, title in _TABLES.items():
        rows = [
            (str(value), report.nodeid.rpartition("/")[2])
            for word in ("passed", "failed")
            for report in terminalreporter.stats.get(word, [])
            for key, value in report.user_properties
            if key == name and report.when == "call"
        ]
        if rows:
            terminalreporter.section(title)
            for value, test in sorted(rows, key=lambda row: row[1]):
                terminalreporter.line(f"{value}  {test}")
