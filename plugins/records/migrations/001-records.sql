-- What records itself keeps, and the building blocks that every noun's migrations use.
--
--   records_meta            key → value: the format of this file
--   records_migration       which migrations of which noun have run
--   records_commit          the newest commits by number and id, with their outcome: asking again returns it
--   records_namespace       every namespace, with its labels; written by namespaces, and by commits that name a new one
--   records_lease_resource  what each lease holds
--   records_outbox          events that became durable and are not published yet; events deletes them
--   records_trash           things on disk that no record names any more; their owner deletes row after file
--   records_reference       edges that labels express      ┐ both fed through the view records_labels
--   records_root            nodes that a label makes roots ┘
--
-- How a noun takes part in collection. It defines three views and one trigger (NOUN = its prefix; columns in this order):
--
--   CREATE VIEW images_gc_node (kind, ns, id) AS SELECT 'image', ns, name FROM images_image;      all that may be collected
--   CREATE VIEW images_gc_root (kind, ns, id) AS SELECT 'image', ns, name FROM images_image       where a walk starts
--     WHERE coalesce(unixepoch(labels ->> '$."containerd.io/gc.expire"') > unixepoch(), 1);         (unless it has expired)
--   CREATE VIEW images_gc_edge (kind, ns, id, to_kind, to_ns, to_id) AS                           what its own columns refer to
--     SELECT 'image', ns, name, 'content', ns, target_digest FROM images_image;
--   CREATE TRIGGER images_gc_sweep INSTEAD OF DELETE ON images_gc_node BEGIN                      how one node goes away
--     DELETE FROM images_image WHERE ns = old.ns AND name = old.id;
--     INSERT INTO records_event (ns, topic, type_url, first) VALUES (old.ns, '/images/delete', 'containerd.services.images.v1.ImageDelete', old.id);
--   END;
--
-- A sweep asks for nodes and edges by (kind, ns, id), and for edges by (to_kind, to_ns, to_id): give the columns behind both an index
-- (the primary key is one). A node that is gone from the view is gone; edges to nodes that do not exist are ignored.
-- Nodes are removed in the order of their edges, a node before what it refers to, so a child snapshot goes before its parent.
--
-- Edges and roots that labels express (gc.ref.*, gc.bref.*, gc.root) need no view: three triggers hand the labels over (the text of the
-- triggers is in plugins/lib/label/label.ts), saying `INSERT INTO records_labels (kind, ns, id, labels)`, which replaces what the node's labels said before.
--
-- Kinds: 'content' (id = digest), 'snapshot/' || snapshotter (id = key), 'image' (id = name), 'container', 'lease', 'ingest' (id = ref), 'sandbox'.
-- A fourth view may exist, NOUN_gc_flat (kind, ns, id): nodes (leases labelled gc.flat) whose edges keep only what they point at and what that refers to
-- by its own columns, not what its labels name.
--
-- Every write to these tables but namespaces', events' and an owner's deletion of its trash goes through triggers or the fields of a commit.

CREATE TABLE records_meta (
  key   TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO records_meta (key, value) VALUES ('format', '1');

CREATE TABLE records_commit (
  sequence INTEGER PRIMARY KEY,   -- counts commits of this file's life; the newest row is never trimmed
  id       BLOB NOT NULL,         -- 16 random bytes of whoever asked; found through memory, see outcomes.ts
  outcome  BLOB NOT NULL          -- troupe.records.v1.CommitResponse
) STRICT;

CREATE TABLE records_namespace (
  name   TEXT PRIMARY KEY,
  labels TEXT NOT NULL DEFAULT '{}'
) STRICT, WITHOUT ROWID;

CREATE TABLE records_lease_resource (
  ns    TEXT NOT NULL,
  lease TEXT NOT NULL,
  type  TEXT NOT NULL,            -- content, ingests, images, snapshots/<snapshotter>
  id    TEXT NOT NULL,            -- digest, ref, name, key
  kind  TEXT NOT NULL AS (        -- what it is to collection
    CASE type WHEN 'content' THEN 'content' WHEN 'ingests' THEN 'ingest' WHEN 'images' THEN 'image' ELSE 'snapshot/' || substr(type, 11) END
  ),
  PRIMARY KEY (ns, lease, type, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX records_lease_resource_held ON records_lease_resource (ns, id, kind);

CREATE TABLE records_outbox (
  seq      INTEGER PRIMARY KEY AUTOINCREMENT,   -- publish in this order; never used twice
  ns       TEXT NOT NULL,
  topic    TEXT NOT NULL,                       -- /images/create
  type_url TEXT NOT NULL,                       -- containerd.services.images.v1.ImageCreate
  value    BLOB NOT NULL,
  at       INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000 AS INTEGER) * 1000000)   -- ns since the epoch
) STRICT;

CREATE TABLE records_trash (
  seq   INTEGER PRIMARY KEY AUTOINCREMENT,
  owner TEXT NOT NULL,            -- id of the plugin that removes it from disk, then deletes the row
  path  TEXT NOT NULL             -- what the owner understands
) STRICT;

CREATE INDEX records_trash_owner ON records_trash (owner, seq);

CREATE TABLE records_reference (
  kind    TEXT NOT NULL,          -- the node that has the label
  ns      TEXT NOT NULL,
  id      TEXT NOT NULL,
  to_kind TEXT NOT NULL,          -- what the label names, in the same namespace
  to_id   TEXT NOT NULL,
  back    INTEGER NOT NULL,       -- 1: gc.bref, the edge runs from what the label names to the node
  PRIMARY KEY (kind, ns, id, back, to_kind, to_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX records_reference_named ON records_reference (to_kind, ns, to_id, back);

CREATE TABLE records_root (
  kind TEXT NOT NULL,
  ns   TEXT NOT NULL,
  id   TEXT NOT NULL,
  PRIMARY KEY (kind, ns, id)
) STRICT, WITHOUT ROWID;

CREATE VIEW records_gc_root (kind, ns, id) AS SELECT kind, ns, id FROM records_root;

CREATE VIEW records_gc_edge (kind, ns, id, to_kind, to_ns, to_id) AS
  SELECT kind, ns, id, to_kind, ns, to_id FROM records_reference WHERE back = 0
  UNION ALL
  SELECT to_kind, ns, to_id, kind, ns, id FROM records_reference WHERE back = 1;

-- Takes labels, holds nothing.
CREATE VIEW records_labels (kind, ns, id, labels) AS SELECT '', '', '', '' WHERE 0;

CREATE TRIGGER records_labels_replace INSTEAD OF INSERT ON records_labels BEGIN
  DELETE FROM records_reference WHERE kind = new.kind AND ns = new.ns AND id = new.id;
  DELETE FROM records_root WHERE kind = new.kind AND ns = new.ns AND id = new.id;
  INSERT OR IGNORE INTO records_reference (kind, ns, id, to_kind, to_id, back)
    SELECT new.kind, new.ns, new.id, to_kind, value, back FROM (
      SELECT value, back, CASE
        WHEN target = 'content' OR target GLOB 'content[./]*' THEN 'content'
        WHEN target = 'image' OR target GLOB 'image[./]*' THEN 'image'
        WHEN back AND (target = 'container' OR target GLOB 'container[./]*') THEN 'container'
        -- snapshot.<snapshotter>, and after a slash whatever tells several such labels apart.
        WHEN target GLOB 'snapshot.*' THEN
          'snapshot/' || substr(target, 10, CASE instr(target, '/') WHEN 0 THEN length(target) ELSE instr(target, '/') - 10 END)
      END AS to_kind FROM (
        SELECT value, 0 AS back, substr(key, 22) AS target FROM json_each(new.labels) WHERE key GLOB 'containerd.io/gc.ref.*'
        UNION ALL
        SELECT value, 1, substr(key, 23) FROM json_each(new.labels) WHERE key GLOB 'containerd.io/gc.bref.*'
      )
    ) WHERE to_kind IS NOT NULL;
  INSERT OR IGNORE INTO records_root (kind, ns, id)
    SELECT new.kind, new.ns, new.id FROM json_each(new.labels) WHERE key = 'containerd.io/gc.root';
END;

-- An event written by a trigger: a message whose field 1 is a text, and field 2 another or none, encoded as protobuf has it.
CREATE VIEW records_event (ns, topic, type_url, first, second) AS SELECT '', '', '', '', '' WHERE 0;

CREATE TRIGGER records_event_write INSTEAD OF INSERT ON records_event BEGIN
  INSERT INTO records_outbox (ns, topic, type_url, value) VALUES (new.ns, new.topic, new.type_url, unhex(
    CASE WHEN coalesce(new.first, '') = '' THEN '' ELSE '0a' || (
      SELECT CASE WHEN size < 128 THEN printf('%02x', size)
        WHEN size < 16384 THEN printf('%02x%02x', size & 127 | 128, size >> 7)
        ELSE printf('%02x%02x%02x', size & 127 | 128, size >> 7 & 127 | 128, size >> 14) END
      FROM (SELECT octet_length(new.first) AS size)) || hex(new.first) END ||
    CASE WHEN coalesce(new.second, '') = '' THEN '' ELSE '12' || (
      SELECT CASE WHEN size < 128 THEN printf('%02x', size)
        WHEN size < 16384 THEN printf('%02x%02x', size & 127 | 128, size >> 7)
        ELSE printf('%02x%02x%02x', size & 127 | 128, size >> 7 & 127 | 128, size >> 14) END
      FROM (SELECT octet_length(new.second) AS size)) || hex(new.second) END));
END;
