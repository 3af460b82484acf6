"""Faults under a real writer: its connection, with a say in what fails."""

import sqlite3


def error(code, message="disk I/O error"):
    exc = sqlite3.OperationalError(message)
    exc.sqlite_errorcode = code
    return exc


class Faults:
    """``before(sql)`` is called before each statement of *writer*, and may raise. It survives reopening."""

    def __init__(self, writer):
        self.log = []
        self.before = lambda sql: None
        self.reopened = 0
        self._connect = writer._connect
        writer._connect = self._reopen
        writer._db = Connection(writer._db, self)

    def _reopen(self):
        self.reopened += 1
        return Connection(self._connect(), self)

    def fail(self, words, code=sqlite3.SQLITE_IOERR_WRITE, *, times=10**9):
        """Fail statements that begin with one of *words*, *times* times."""
        left = [times]

        def before(sql):
            if sql.startswith(words) and left[0]:
                left[0] -= 1
                raise error(code)

        self.before = before

    def heal(self):
        self.before = lambda sql: None

    def count(self, words):
        return sum(sql.startswith(words) for sql in self.log)


class Connection:
    def __init__(self, db, faults):
        self._db = db
        self._faults = faults

    def execute(self, sql, *args):
        self._faults.log.append(sql)
        self._faults.before(sql)
        return self._db.execute(sql, *args)

    def __getattr__(self, name):
        return getattr(self._db, name)
