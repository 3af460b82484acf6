"""Brings a database to the newest schema: ``migrations/<dialect>/NNNN.sql``, each in one transaction with its version.

A file holds plain statements without BEGIN or COMMIT. The first one makes ``meta``, whose ``schema_version`` is the number
of the last file that was run.
"""

import sqlite3
from functools import cache
from importlib.resources import files


@cache
def migrations(dialect: str) -> dict[int, str]:
    """The SQL of each version, ascending from 1 without gap."""
    folder = files("chat") / "store" / "migrations" / dialect
    found = {int(file.name[:4]): file.read_text("utf-8") for file in folder.iterdir() if file.name.endswith(".sql")}
    assert sorted(found) == list(range(1, len(found) + 1)), sorted(found)
    return dict(sorted(found.items()))


def newest(dialect: str) -> int:
    return len(migrations(dialect))


def version_of(db: sqlite3.Connection) -> int:
    """The schema's version; 0 of an empty database. *Raises* sqlite3.DatabaseError if the file is no database of ours."""
    if db.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,):
        return 0
    (version,) = db.execute("SELECT schema_version FROM meta").fetchone()
    return int(version)


def migrate_sqlite(db: sqlite3.Connection, *, to: int | None = None) -> None:
    """Run what is missing, up to *to*. A migration that fails leaves the version before it."""
    assert db.isolation_level is None
    present = version_of(db)
    for version, sql in migrations("sqlite").items():
        if present < version <= (newest("sqlite") if to is None else to):
            try:
                db.executescript(f"BEGIN IMMEDIATE;\n{sql}\n;UPDATE meta SET schema_version = {version};\nCOMMIT;")  # noqa: S608
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
