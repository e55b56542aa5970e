"""Plain migration files and what is to be done with them: names, directives, checksums, the plan. Pure."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from supervisor.core.errors import MigrationError
from supervisor.migrations.progress import row_statement, unfinished_advice

EXPAND = "expand"
CONTRACT = "contract"
NO_TRANSACTION = "no-transaction"
IDEMPOTENT = "idempotent"
_DIRECTIVES = (NO_TRANSACTION, IDEMPOTENT, CONTRACT, EXPAND)
_NAME = re.compile(r"(\d+)_.+\.sql")
_DIRECTIVE = re.compile(r"^[ \t]*--[ \t]*supervisor[ \t]*:([^\n]*)", re.IGNORECASE | re.MULTILINE)
_HEAD = re.compile(r"(?:[ \t]*--[ \t]*supervisor[ \t]*:[^\n]*(?:\n|\Z))*", re.IGNORECASE)
_BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True)
class SqlFile:
    """One `NNNN_name.sql`. `text` is what is sent to the server; `sha256` does not see line ends or a byte order mark,
    so a checkout on another system counts as the same file."""

    name: str
    number: int
    text: str
    sha256: str
    directives: frozenset[str] = frozenset()

    @property
    def kind(self) -> str:
        """`expand`, which the code before it still works with, or `contract`, which it does not."""
        return CONTRACT if CONTRACT in self.directives else EXPAND

    @property
    def transaction(self) -> bool:
        """Whether it runs in one transaction."""
        return NO_TRANSACTION not in self.directives


@dataclass(frozen=True)
class LedgerRow:
    """A file the database knows. `applied` is False for one that was started without a transaction and did not end."""

    name: str
    sha256: str
    applied: bool
    started_at: datetime | None = None
    app: str = "app"


@dataclass(frozen=True)
class Plan:
    """What to do with a folder, given a ledger."""

    pending: tuple[SqlFile, ...]
    due: tuple[str, ...]
    already: int
    warnings: tuple[str, ...]


def parse_names(names: Iterable[str], folder: str) -> dict[str, int]:
    """The migrations among a folder's file names, by rising number. Hidden files and those not named `.sql` are none.

    Raises MigrationError naming those that are `.sql` but do not read `NNNN_name.sql`, or that share a number.
    """
    found = [name for name in names if name.lower().endswith(".sql") and not name.startswith(".")]
    if not found:
        raise MigrationError(
            f"cannot use migrations folder {folder!r}: there is no migration in it; put NNNN_name.sql files there, "
            f"or unset SUPERVISOR_MIGRATE_DIR"
        )
    undone = sorted(name for name in found if name.lower().endswith(".down.sql"))
    if undone:
        raise MigrationError(
            f"cannot use migrations folder {folder!r}: {_list(undone)} would undo a migration, and migrations only go "
            f"forward; remove it from the folder"
        )
    strange = sorted(name for name in found if not _NAME.fullmatch(name))
    if strange:
        raise MigrationError(
            f"cannot use migrations folder {folder!r}: {_list(strange)} is not named NNNN_name.sql (digits, an "
            f"underscore, a name), so its place in the order is not known; rename it, or move it out of the folder"
        )
    return _ordered(found, folder)


def _ordered(names: Iterable[str], folder: str) -> dict[str, int]:
    by_number: dict[int, list[str]] = {}
    for name in sorted(names):
        by_number.setdefault(_number(name), []).append(name)
    for number, same in sorted(by_number.items()):
        if len(same) > 1:
            raise MigrationError(
                f"cannot use migrations folder {folder!r}: {_list(same)} share number {number}, so their order is not "
                f"known; give the newer one the next free number, {max(by_number) + 1}"
            )
    return {same[0]: number for number, same in sorted(by_number.items())}


def _number(name: str) -> int:
    return int(name.partition("_")[0])


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:10])
    return shown if len(names) <= 10 else f"{shown} and {len(names) - 10} more"


def decode(data: bytes, name: str) -> str:
    """The text of a file, without a byte order mark; raises MigrationError when it is not UTF-8 text."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise MigrationError(
            f"cannot read migration {name!r}: line {line}: byte {error.start + 1} (0x{data[error.start]:02x}) is not "
            f"UTF-8; save the file as UTF-8"
        ) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise MigrationError(
            f"cannot read migration {name!r}: line {line} holds a NUL sign, so it is no UTF-8 text (UTF-16, perhaps); "
            f"save the file as UTF-8"
        )
    return text.removeprefix(_BYTE_ORDER_MARK)


def parse_file(name: str, data: bytes) -> SqlFile:
    """A migration from its bytes; raises MigrationError for text that is not UTF-8 and for unknown directives."""
    text = decode(data, name)
    sha256 = hashlib.sha256(text.replace("\r\n", "\n").encode()).hexdigest()
    return SqlFile(name, _number(name), text, sha256, parse_directives(name, text))


def parse_directives(name: str, text: str) -> frozenset[str]:
    """The words after `-- supervisor:` in the first lines; several, with commas or on lines of their own.

    One further down is an error rather than ignored: a contract migration must not run for a blank line above it.
    """
    head = _HEAD.match(text)
    assert head is not None, "it matches nothing too"
    late = _DIRECTIVE.search(text, head.end())
    if late is not None:
        line = text.count("\n", 0, late.end()) + 1
        raise MigrationError(
            f"cannot read migration {name!r}: line {line}: `-- supervisor:` counts in the first lines of a file only; "
            f"move it to the top"
        )
    words = [
        word for found in _DIRECTIVE.finditer(head.group()) for word in re.split(r"[,\s]+", found.group(1).lower())
    ]
    directives = frozenset(filter(None, words))
    for word in sorted(directives.difference(_DIRECTIVES)):
        raise MigrationError(f"cannot read migration {name!r}: {_unknown(word)}")
    if {EXPAND, CONTRACT} <= directives:
        raise MigrationError(f"cannot read migration {name!r}: it is declared expand and contract; keep one of them")
    return directives


def _unknown(word: str) -> str:
    near = difflib.get_close_matches(word, _DIRECTIVES, n=1)
    guess = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(_DIRECTIVES)}"
    return f"unknown directive {word!r} after `-- supervisor:`; {guess}"


def decide(files: Sequence[SqlFile], rows: Iterable[LedgerRow], *, kind: str = EXPAND, locked: bool = True) -> Plan:
    """What is pending, of that kind, due and odd. Raises MigrationError for what must not go on: an applied file that
    was changed, or renamed, or one without a transaction that was started and did not end; or a contract one with
    others to go first.

    Read without the lock (`locked` False), a started one may be in another supervisor's hands: it is pending then.

    A new file below the highest applied one is applied all the same, with a warning: two branches that were merged
    make this every day, and refusing would make the user renumber a file others have applied.
    """
    ledger = {row.name: row for row in rows}
    for file in files:
        _check_known(file, ledger.get(file.name), locked=locked)
    present = {file.name for file in files}
    gone = {_number(name): name for name in ledger if name not in present}
    unapplied = [file for file in files if file.name not in ledger or not ledger[file.name].applied]
    for file in unapplied:
        _check_not_renamed(file, gone)
    pending = tuple(file for file in unapplied if file.kind == kind)
    if kind == CONTRACT:
        _check_all_expanded(unapplied)
    return Plan(
        pending=pending,
        due=tuple(file.name for file in unapplied if file.kind == CONTRACT and file not in pending),
        already=len(files) - len(unapplied),
        warnings=(*_out_of_order(pending, ledger), *_removed(gone)),
    )


def _check_known(file: SqlFile, row: LedgerRow | None, *, locked: bool) -> None:
    if row is None:
        return
    if row.applied and row.sha256 != file.sha256:
        mend = row_statement(row.app, row.name, f"sha256 = '{file.sha256}'")
        raise MigrationError(
            f"cannot apply migrations: {file.name!r} was changed after it had been applied (SHA-256 "
            f"{row.sha256[:12]} then, {file.sha256[:12]} now); put its old text back and write the change as a new "
            f"migration, as migrations only go forward; if the change has no effect (a comment), say so with "
            f"{mend}"
        )
    if locked and not row.applied and IDEMPOTENT not in file.directives:
        since = f" at {row.started_at:%Y-%m-%d %H:%M:%S} UTC" if row.started_at else ""
        raise MigrationError(
            f"cannot apply migrations: {file.name!r}, which runs without a transaction, was started{since} and did not "
            f"end, so part of it may be in effect; {unfinished_advice(row.app, row.name)}"
        )


def _check_all_expanded(unapplied: Sequence[SqlFile]) -> None:
    first = [file.name for file in unapplied if file.kind == EXPAND]
    if first:
        raise MigrationError(
            f"cannot apply contract migrations: {_list(first)} is not applied yet and goes first; `supervisor reload`, "
            f"or apply a release, brings it in"
        )


def _check_not_renamed(file: SqlFile, gone: Mapping[int, str]) -> None:
    if file.number in gone:
        raise MigrationError(
            f"cannot apply migrations: {file.name!r} has the number of {gone[file.number]!r}, which was applied and "
            f"is no longer in the folder; if it was renamed, take the old name back, if it is new, give it a new number"
        )


def _out_of_order(pending: Sequence[SqlFile], ledger: Mapping[str, LedgerRow]) -> Iterable[str]:
    highest = max((row for row in ledger.values() if row.applied), key=lambda row: _number(row.name), default=None)
    for file in pending:
        if file.kind == CONTRACT:
            continue  # that others went before it is what it is for
        if highest is not None and file.number < _number(highest.name):
            yield f"{file.name!r} was applied after {highest.name!r}, which has a higher number"


def _removed(gone: Mapping[int, str]) -> Iterable[str]:
    if gone:
        names = [gone[number] for number in sorted(gone)]
        yield f"the database has migrations that are not in the folder: {_list(names)}"
