-- The embedded log. A log row's id is (partition uid << 40) | first offset, so that the table's own
-- order is the reading order and no other index is needed.

CREATE TABLE streams (
  uid  INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  spec BLOB NOT NULL
) STRICT;

-- `next` and `bytes` are as of the last sweep: rows from `next` on are counted at opening.
CREATE TABLE partitions (
  uid    INTEGER PRIMARY KEY,
  stream INTEGER NOT NULL,
  number INTEGER NOT NULL,
  next   INTEGER NOT NULL DEFAULT 0,
  bytes  INTEGER NOT NULL DEFAULT 0,
  UNIQUE (stream, number)
) STRICT;

CREATE TABLE log (
  id       INTEGER PRIMARY KEY,
  count    INTEGER NOT NULL,
  appended INTEGER NOT NULL,
  hops     INTEGER NOT NULL,
  origin   TEXT NOT NULL,
  offsets  BLOB,
  checksum INTEGER NOT NULL,
  body     BLOB NOT NULL
) STRICT;

CREATE TABLE dedupe (
  stream  INTEGER NOT NULL,
  id      TEXT NOT NULL,
  expires INTEGER NOT NULL,
  PRIMARY KEY (stream, id)
) STRICT, WITHOUT ROWID;
