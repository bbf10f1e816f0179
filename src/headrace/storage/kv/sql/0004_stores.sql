-- A row of state belongs to a store: app, store, key. Windows have a table of their own. Until here an app
-- had one store for all its functions, which is now the one named `state`, and its windows lay beside it,
-- under app names that begin with a NUL (00 FF) and keys `_window/FUNCTION/...`.
-- A part of a key ends with the first 00: names have none, so `instr` finds it.

CREATE TABLE windows (key BLOB PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;

INSERT INTO windows
  WITH old(app, rest, value) AS (
    SELECT substr(key, 3, instr(substr(key, 3), x'00')),
           substr(key, 3 + instr(substr(key, 3), x'00') + 8),
           value
    FROM state WHERE substr(key, 1, 2) = x'00ff'
  )
  SELECT CAST(app || substr(rest, 1, instr(rest, x'2f') - 1) || x'00' || substr(rest, instr(rest, x'2f') + 1) AS BLOB),
         value
  FROM old;
DELETE FROM state WHERE substr(key, 1, 2) = x'00ff';
UPDATE state SET key = CAST(
  substr(key, 1, instr(key, x'00')) || x'737461746500' || substr(key, instr(key, x'00') + 1) AS BLOB);
