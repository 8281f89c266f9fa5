-- Content: what is whole (content_blob) and what is on its way (content_ingest), per namespace. The bytes are files: see disk.ts.
-- Times are nanoseconds since the epoch.

-- One file may have a row in several namespaces; it goes when the last of them goes.
CREATE TABLE content_blob (
  ns      TEXT    NOT NULL,
  digest  TEXT    NOT NULL,
  size    INTEGER NOT NULL,
  created INTEGER NOT NULL,
  updated INTEGER NOT NULL,
  labels  TEXT    NOT NULL DEFAULT '{}',
  PRIMARY KEY (ns, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX content_blob_digest ON content_blob (digest, ns);

CREATE TABLE content_ingest (
  ns        TEXT NOT NULL,
  ref       TEXT NOT NULL,
  directory TEXT NOT NULL,           -- its name under ingest/
  expected  TEXT NOT NULL DEFAULT '', -- digest the client announced
  expires   INTEGER,                 -- NULL: lives as long as a lease holds it
  PRIMARY KEY (ns, ref)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX content_ingest_directory ON content_ingest (directory);
CREATE INDEX content_ingest_expected ON content_ingest (ns, expected);

-- The file is nobody's any more.
CREATE TRIGGER content_blob_trash AFTER DELETE ON content_blob
WHEN NOT EXISTS (SELECT 1 FROM content_blob WHERE digest = old.digest) BEGIN
  INSERT INTO records_trash (owner, path) VALUES ('io.containerd.content.v1.content', 'blobs/' || old.digest);
END;

CREATE TRIGGER content_blob_labels_insert AFTER INSERT ON content_blob
WHEN instr(new.labels, 'containerd.io/gc.') BEGIN
  INSERT INTO records_labels (kind, ns, id, labels) VALUES ('content', new.ns, new.digest, new.labels);
END;
CREATE TRIGGER content_blob_labels_update AFTER UPDATE OF labels ON content_blob
WHEN instr(old.labels || new.labels, 'containerd.io/gc.') BEGIN
  INSERT INTO records_labels (kind, ns, id, labels) VALUES ('content', new.ns, new.digest, new.labels);
END;
CREATE TRIGGER content_blob_labels_delete AFTER DELETE ON content_blob
WHEN instr(old.labels, 'containerd.io/gc.') BEGIN
  INSERT INTO records_labels (kind, ns, id, labels) VALUES ('content', old.ns, old.digest, '{}');
END;

-- An ingest without a lease stays until it expires; one with a lease is an edge of the lease.
CREATE VIEW content_gc_root (kind, ns, id) AS
  SELECT 'ingest', ns, ref FROM content_ingest WHERE expires > unixepoch('subsec') * 1000000000;

CREATE VIEW content_gc_node (kind, ns, id) AS
  SELECT 'content', ns, digest FROM content_blob
  UNION ALL
  SELECT 'ingest', ns, ref FROM content_ingest;

-- What an ingest will become may be there already, in this namespace, by another writer.
CREATE VIEW content_gc_edge (kind, ns, id, to_kind, to_ns, to_id) AS
  SELECT 'ingest', ns, ref, 'content', ns, expected FROM content_ingest WHERE expected <> '';

CREATE TRIGGER content_gc_node_delete INSTEAD OF DELETE ON content_gc_node BEGIN
  DELETE FROM content_blob WHERE old.kind = 'content' AND ns = old.ns AND digest = old.id;
  INSERT INTO records_trash (owner, path)
    SELECT 'io.containerd.content.v1.content', 'ingest/' || directory || '/' || ns || '/' || ref
    FROM content_ingest WHERE old.kind = 'ingest' AND ns = old.ns AND ref = old.id;
  DELETE FROM content_ingest WHERE old.kind = 'ingest' AND ns = old.ns AND ref = old.id;
END;

-- A namespace takes its ingests with it; it cannot go while it has blobs.
CREATE TRIGGER content_namespace_gone AFTER DELETE ON records_namespace BEGIN
  INSERT INTO records_trash (owner, path)
    SELECT 'io.containerd.content.v1.content', 'ingest/' || directory || '/' || ns || '/' || ref
    FROM content_ingest WHERE ns = old.name;
  DELETE FROM content_ingest WHERE ns = old.name;
END;
