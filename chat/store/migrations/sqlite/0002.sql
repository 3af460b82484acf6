-- Moderation, settings of channels and of the server, plugins. Times are integer milliseconds since 1970.

-- A channel's own rules. History: 'all' (members read everything), 'since_join', 'none' (nothing is kept).
ALTER TABLE conversations ADD COLUMN slow_s INTEGER NOT NULL DEFAULT 0;          -- seconds between two messages of a member
ALTER TABLE conversations ADD COLUMN invite_only INTEGER NOT NULL DEFAULT 0;
ALTER TABLE conversations ADD COLUMN announce_only INTEGER NOT NULL DEFAULT 0;   -- only moderators write
ALTER TABLE conversations ADD COLUMN prefix TEXT;                                -- of commands; NULL: the server's
ALTER TABLE conversations ADD COLUMN history TEXT NOT NULL DEFAULT 'all' CHECK (history IN ('all', 'since_join', 'none'));
ALTER TABLE conversations ADD COLUMN retain_ms INTEGER;                          -- NULL: the server's retention
ALTER TABLE conversations ADD COLUMN retain_bytes INTEGER;
ALTER TABLE members ADD COLUMN from_seq INTEGER NOT NULL DEFAULT 1;              -- what since_join shows a member begins here

-- What the server's admins set while it runs: lockdown, retention, … (JSON values).
CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE channel_bans (
    room INTEGER NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    account INTEGER NOT NULL REFERENCES accounts (id),
    by INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    until_ms INTEGER,
    reason TEXT,
    PRIMARY KEY (room, account)
) STRICT, WITHOUT ROWID;

CREATE TABLE mutes (
    room INTEGER NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    account INTEGER NOT NULL REFERENCES accounts (id),
    by INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    until_ms INTEGER,
    reason TEXT,
    PRIMARY KEY (room, account)
) STRICT, WITHOUT ROWID;

-- Addresses that may not come: a network in canonical CIDR form.
CREATE TABLE address_bans (
    network TEXT PRIMARY KEY,
    by INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    until_ms INTEGER,
    reason TEXT
) STRICT, WITHOUT ROWID;

-- Where accounts came from in the last 30 days: for the preview of a ban.
CREATE TABLE addresses (
    account INTEGER NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    address TEXT NOT NULL,
    first_ms INTEGER NOT NULL,
    last_ms INTEGER NOT NULL,
    PRIMARY KEY (account, address)
) STRICT, WITHOUT ROWID;
CREATE INDEX addresses_last ON addresses (last_ms);

-- Who may come into an invite-only channel.
CREATE TABLE channel_invites (
    room INTEGER NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    account INTEGER NOT NULL REFERENCES accounts (id),
    by INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (room, account)
) STRICT, WITHOUT ROWID;

-- Words and patterns that are not stored; room 0: everywhere.
CREATE TABLE filters (
    room INTEGER NOT NULL,
    pattern TEXT NOT NULL,
    by INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (room, pattern)
) STRICT, WITHOUT ROWID;

CREATE TABLE ignores (
    account INTEGER NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    ignored INTEGER NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (account, ignored)
) STRICT, WITHOUT ROWID;

CREATE TABLE reports (
    id INTEGER PRIMARY KEY,
    by INTEGER NOT NULL,
    target INTEGER NOT NULL,
    room INTEGER,
    at_ms INTEGER NOT NULL,
    reason TEXT,
    around TEXT NOT NULL                    -- the records around it, as JSON
) STRICT;

-- The moderation log. texts_hash = SHA-256 of (salt, reason, before, after); hash = SHA-256 of (the hash before it, all columns but
-- salt, reason, before and after): chat/rooms/moderation/audit.py. So a person's texts can be erased, with their salt, and the chain still holds.
CREATE TABLE audit (
    n INTEGER PRIMARY KEY,                  -- 1, 2, 3 … without gap
    at_ms INTEGER NOT NULL,
    actor INTEGER NOT NULL,                 -- 0: the server itself, or its shell
    action TEXT NOT NULL,
    target INTEGER,                         -- an account
    room INTEGER,
    reason TEXT,
    before TEXT,                            -- JSON
    after TEXT,                             -- JSON
    salt BLOB,                              -- NULL: the texts were erased
    texts_hash BLOB NOT NULL,
    hash BLOB NOT NULL
) STRICT;
CREATE INDEX audit_target ON audit (target, n) WHERE target IS NOT NULL;
CREATE INDEX audit_room ON audit (room, n) WHERE room IS NOT NULL;

-- Commands switched off in one channel.
CREATE TABLE room_disabled_commands (
    room INTEGER NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    by INTEGER NOT NULL,
    PRIMARY KEY (room, name)
) STRICT, WITHOUT ROWID;

-- The last commands of each account, secrets left out.
CREATE TABLE command_history (
    account INTEGER NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    n INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    room INTEGER,
    line TEXT NOT NULL,
    PRIMARY KEY (account, n)
) STRICT, WITHOUT ROWID;

-- What plugins keep.
CREATE TABLE plugin_values (
    plugin TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,                    -- JSON
    PRIMARY KEY (plugin, key)
) STRICT, WITHOUT ROWID;

-- An account that the operator suspended has no sessions, and stays where it is; of one that was forgotten only the number stays.
ALTER TABLE accounts ADD COLUMN suspended_ms INTEGER;
ALTER TABLE accounts ADD COLUMN suspended_for TEXT;
ALTER TABLE accounts ADD COLUMN forgotten_ms INTEGER;

-- Forgotten accounts whose records are not all gone through yet, and the next one to look at.
CREATE TABLE erasures (
    account INTEGER PRIMARY KEY,
    keep_texts INTEGER NOT NULL,
    conv INTEGER NOT NULL DEFAULT 0,
    seq INTEGER NOT NULL DEFAULT 0
) STRICT;

-- What every cid got, by cid first: the bundled clients' cids begin with the time, so that what is sent at one time by many people is
-- written side by side. By account first, a batch of 1,000 messages of 1,000 people touched 1,000 leaves.
CREATE TABLE cids_by_time (
    cid TEXT NOT NULL,
    account INTEGER NOT NULL,
    digest BLOB,
    ts INTEGER NOT NULL,
    conv INTEGER,
    epoch TEXT,
    seq INTEGER,
    result BLOB,
    PRIMARY KEY (cid, account)
) STRICT, WITHOUT ROWID;
INSERT INTO cids_by_time SELECT cid, account, digest, ts, conv, epoch, seq, result FROM cids;
DROP TABLE cids;
ALTER TABLE cids_by_time RENAME TO cids;
