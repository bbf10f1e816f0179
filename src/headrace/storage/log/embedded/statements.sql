-- Every statement of the embedded log. A line `-- name:` begins a statement; `statements.py` reads them.
-- Identifiers are those of storage/kv/sql. A row of `log` has the id (partition uid << 40) | first offset.

-- name: streams
SELECT uid, spec FROM streams ORDER BY uid

-- name: partitions
SELECT uid, stream, number, next, bytes FROM partitions ORDER BY stream, number

-- name: create_stream
INSERT INTO streams (uid, name, spec) VALUES (?, ?, ?)

-- name: create_partition
INSERT INTO partitions (uid, stream, number) VALUES (?, ?, ?)

-- name: change_stream
UPDATE streams SET spec = ? WHERE uid = ?

-- The end and the size of a partition, so that an emptied one goes on where it was.
-- name: remember_end
UPDATE partitions SET next = ?, bytes = ? WHERE uid = ?

-- name: last_row
SELECT id, count, appended, offsets FROM log WHERE id BETWEEN ? AND ? ORDER BY id DESC LIMIT 1

-- name: first_row
SELECT id FROM log WHERE id BETWEEN ? AND ? ORDER BY id LIMIT 1

-- name: bytes_between
SELECT coalesce(sum(length(body)), 0) FROM log WHERE id BETWEEN ? AND ?

-- The row that holds an offset: the last one that begins at or before it.
-- name: row_holding
SELECT max(id) FROM log WHERE id BETWEEN ? AND ?

-- name: append_time
SELECT id, appended FROM log WHERE id = ?

-- name: next_row
SELECT id FROM log WHERE id >= ? AND id < ? ORDER BY id LIMIT 1

-- name: lowest_row
SELECT min(id) FROM log WHERE id >= ? AND id < ?

-- name: chunks
SELECT id, count, appended, hops, origin, offsets, checksum, body
FROM log WHERE id >= ? AND id < ? ORDER BY id

-- name: newest_chunks
SELECT id, count, appended, hops, origin, offsets, checksum, body
FROM log WHERE id >= ? AND id < ? ORDER BY id DESC LIMIT ?

-- name: oldest_sizes
SELECT id, length(body) FROM log WHERE id >= ? AND id < ? ORDER BY id LIMIT ?

-- name: insert_chunk
INSERT INTO log (id, count, appended, hops, origin, offsets, checksum, body)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)

-- name: delete_chunk
DELETE FROM log WHERE id = ?

-- name: delete_chunks
DELETE FROM log WHERE id >= ? AND id < ?

-- name: seen_ids
SELECT id FROM dedupe WHERE stream = ? AND id IN carray(?) AND expires > ?

-- name: mark_id
INSERT INTO dedupe (stream, id, expires) VALUES (?, ?, ?)
ON CONFLICT (stream, id) DO UPDATE SET expires = excluded.expires

-- name: has_expired_ids
SELECT 1 FROM dedupe WHERE expires < ? LIMIT 1

-- name: delete_expired_ids
DELETE FROM dedupe WHERE (stream, id) IN (SELECT stream, id FROM dedupe WHERE expires < ? LIMIT ?)
