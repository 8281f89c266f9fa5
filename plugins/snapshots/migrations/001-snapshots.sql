-- Snapshots of all snapshotters. A snapshotter knows ids only; keys, kinds, parents and labels are here.
CREATE TABLE snapshots_snapshot (
  id INTEGER PRIMARY KEY,                 -- names the directory; from snapshots_sequence, never used twice
  ns TEXT NOT NULL,
  snapshotter TEXT NOT NULL,
  key TEXT NOT NULL,                      -- of a committed one: its name
  parent INTEGER,                         -- id of a committed snapshot of the same namespace and snapshotter
  kind INTEGER NOT NULL CHECK (kind IN (1, 2, 3)), -- containerd.services.snapshots.v1.Kind: view, active, committed
  size INTEGER NOT NULL DEFAULT 0,        -- bytes and inodes as measured by Commit
  inodes INTEGER NOT NULL DEFAULT 0,
  created INTEGER NOT NULL,               -- nanoseconds since the epoch
  updated INTEGER NOT NULL,
  labels TEXT NOT NULL DEFAULT '{}',
  UNIQUE (ns, snapshotter, key)
) STRICT;
CREATE INDEX snapshots_snapshot_parent ON snapshots_snapshot (parent) WHERE parent IS NOT NULL;

-- next: the first id that nobody has. floor: no record is made with an id below it, so that after a crash a directory without a record can be
-- removed although the commit that would have made its record may still be on its way.
CREATE TABLE snapshots_sequence (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  next INTEGER NOT NULL,
  floor INTEGER NOT NULL
) STRICT;
INSERT INTO snapshots_sequence VALUES (1, 1, 1);

-- References that labels express are kept by records; an insert replaces what the labels of the same node said before.
CREATE TRIGGER snapshots_snapshot_labels_insert AFTER INSERT ON snapshots_snapshot
  WHEN instr(new.labels, 'containerd.io/gc.') BEGIN
  INSERT INTO records_labels (kind, ns, id, labels) VALUES ('snapshot/' || new.snapshotter, new.ns, new.key, new.labels);
END;
-- A commit changes the key, and that is what the node is called.
CREATE TRIGGER snapshots_snapshot_labels_update AFTER UPDATE OF labels, key ON snapshots_snapshot
  WHEN instr(old.labels || new.labels, 'containerd.io/gc.') BEGIN
  INSERT INTO records_labels (kind, ns, id, labels) VALUES ('snapshot/' || old.snapshotter, old.ns, old.key, '{}');
  INSERT INTO records_labels (kind, ns, id, labels) VALUES ('snapshot/' || new.snapshotter, new.ns, new.key, new.labels);
END;
CREATE TRIGGER snapshots_snapshot_labels_delete AFTER DELETE ON snapshots_snapshot
  WHEN instr(old.labels, 'containerd.io/gc.') BEGIN
  INSERT INTO records_labels (kind, ns, id, labels) VALUES ('snapshot/' || old.snapshotter, old.ns, old.key, '{}');
END;

CREATE VIEW snapshots_gc_node (kind, ns, id) AS
  SELECT 'snapshot/' || snapshotter, ns, key FROM snapshots_snapshot;

CREATE VIEW snapshots_gc_root (kind, ns, id) AS
  SELECT 'snapshot/' || snapshotter, ns, key FROM snapshots_snapshot WHERE 0;

CREATE VIEW snapshots_gc_edge (kind, ns, id, to_kind, to_ns, to_id) AS
  SELECT 'snapshot/' || child.snapshotter, child.ns, child.key, 'snapshot/' || parent.snapshotter, parent.ns, parent.key
  FROM snapshots_snapshot AS child JOIN snapshots_snapshot AS parent ON parent.id = child.parent;

-- The collector and the views speak of 'snapshot/overlayfs'; asked for one node, SQLite finds it through this.
CREATE INDEX snapshots_snapshot_node ON snapshots_snapshot ('snapshot/' || snapshotter, ns, key);

CREATE TRIGGER snapshots_gc_sweep INSTEAD OF DELETE ON snapshots_gc_node BEGIN
  INSERT INTO records_trash (owner, path)
    SELECT 'io.containerd.service.v1.snapshots-service', id || '/' || snapshotter FROM snapshots_snapshot
    WHERE 'snapshot/' || snapshotter = old.kind AND ns = old.ns AND key = old.id;
  DELETE FROM snapshots_snapshot WHERE 'snapshot/' || snapshotter = old.kind AND ns = old.ns AND key = old.id;
  INSERT INTO records_event (ns, topic, type_url, first)
    VALUES (old.ns, '/snapshot/remove', 'containerd.events.SnapshotRemove', old.id);
END;
