-- The first schema. Ids of accounts and conversations are random, below 2^53; no rowid and no time is an order.
-- Times are integer milliseconds since 1970. Every text is UTF-8.

CREATE TABLE meta (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    schema_version INTEGER NOT NULL,
    generation INTEGER NOT NULL,            -- raised by every fence (see sqlite_commit.py)
    server_id TEXT NOT NULL
) STRICT;
INSERT INTO meta VALUES (1, 0, 0, lower(hex(randomblob(8))));

CREATE TABLE accounts (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    canonical TEXT NOT NULL UNIQUE,
    skeleton TEXT NOT NULL UNIQUE,
    password_hash TEXT NOT NULL,
    color TEXT,
    role TEXT NOT NULL CHECK (role IN ('owner', 'admin', 'member')),
    at_ms INTEGER NOT NULL
) STRICT;

-- Rooms and private conversations are one kind of thing: whatever has an epoch and gives seqs.
CREATE TABLE conversations (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('room', 'pair')),
    epoch TEXT NOT NULL,
    last_seq INTEGER NOT NULL DEFAULT 0,
    last_ts INTEGER NOT NULL DEFAULT 0,
    at_ms INTEGER NOT NULL,
    -- a room's
    name TEXT,
    canonical TEXT,
    skeleton TEXT,
    topic TEXT NOT NULL DEFAULT '',
    private INTEGER NOT NULL DEFAULT 0,
    password_hash TEXT,
    joins INTEGER NOT NULL DEFAULT 0,       -- gives members their place in the order of joining
    -- a pair's, low <= high
    low INTEGER REFERENCES accounts (id),
    high INTEGER REFERENCES accounts (id),
    CHECK ((kind = 'room') = (name IS NOT NULL AND canonical IS NOT NULL AND skeleton IS NOT NULL)),
    CHECK ((kind = 'pair') = (low IS NOT NULL AND high IS NOT NULL AND low <= high))
) STRICT;
CREATE UNIQUE INDEX conversations_canonical ON conversations (canonical) WHERE canonical IS NOT NULL;
CREATE UNIQUE INDEX conversations_skeleton ON conversations (skeleton) WHERE skeleton IS NOT NULL;
CREATE UNIQUE INDEX conversations_pair ON conversations (low, high) WHERE low IS NOT NULL;
CREATE INDEX conversations_high ON conversations (high) WHERE high IS NOT NULL;

-- No foreign key to conversations: the commit proves that the row is there when it moves last_seq, and a deleted
-- room's records are purged in steps.
CREATE TABLE records (
    conv INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    ts INTEGER NOT NULL,
    kind TEXT NOT NULL,
    author INTEGER NOT NULL,                -- 0: the server
    body TEXT,                              -- of a message its text, else JSON; NULL: a message that was deleted
    cid TEXT,
    edited_at INTEGER,
    reply_to INTEGER,
    node INTEGER,
    PRIMARY KEY (conv, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE purges (conv INTEGER PRIMARY KEY) STRICT;  -- deleted rooms whose records are not all gone yet

-- What every cid got: a place, or for a command its result. It outlives the message and the room. A client does well to begin
-- its cids with the time: neighbours share a page. Measured with 500,000 rows, 1,000 a batch: 93,000 rows/s against 17,000.
CREATE TABLE cids (
    account INTEGER NOT NULL,
    cid TEXT NOT NULL,
    digest BLOB,
    ts INTEGER NOT NULL,
    conv INTEGER,
    epoch TEXT,
    seq INTEGER,
    result BLOB,
    PRIMARY KEY (account, cid)
) STRICT, WITHOUT ROWID;

CREATE TABLE members (
    room INTEGER NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    account INTEGER NOT NULL REFERENCES accounts (id),
    role TEXT NOT NULL CHECK (role IN ('owner', 'moderator', 'member')),
    at_ms INTEGER NOT NULL,
    place INTEGER NOT NULL,                 -- in the order of joining
    PRIMARY KEY (room, account)
) STRICT, WITHOUT ROWID;
CREATE INDEX members_account ON members (account);

CREATE TABLE read_markers (
    conv INTEGER NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    account INTEGER NOT NULL REFERENCES accounts (id),
    seq INTEGER NOT NULL,
    PRIMARY KEY (conv, account)
) STRICT, WITHOUT ROWID;

CREATE TABLE bans (
    account INTEGER PRIMARY KEY REFERENCES accounts (id),
    by INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    until_ms INTEGER,
    reason TEXT
) STRICT;

CREATE TABLE sessions (
    session TEXT PRIMARY KEY,
    account INTEGER NOT NULL REFERENCES accounts (id),
    generation INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    seen_ms INTEGER NOT NULL,
    client TEXT NOT NULL,
    address TEXT NOT NULL,
    online INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_account ON sessions (account);

-- Every token of a session, older ones too: the use of a stale one is noticed and revokes the session.
CREATE TABLE tokens (
    token_hash BLOB PRIMARY KEY,
    session TEXT NOT NULL REFERENCES sessions (session) ON DELETE CASCADE,
    state TEXT NOT NULL CHECK (state IN ('present', 'previous', 'stale')),
    generation INTEGER NOT NULL,            -- the session's, when this token was made
    expires_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX tokens_session ON tokens (session, generation);

CREATE TABLE invites (
    code TEXT PRIMARY KEY,
    role TEXT NOT NULL CHECK (role IN ('owner', 'admin', 'member')),
    uses_left INTEGER,                      -- NULL: any number
    expires_ms INTEGER,
    by INTEGER NOT NULL,
    at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE disabled_commands (
    name TEXT PRIMARY KEY,
    by INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
