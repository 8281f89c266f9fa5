-- Containers: what is to be run. What runs is a task, and not in here.
-- Times are nanoseconds since the epoch.

CREATE TABLE containers_container (
  ns              TEXT    NOT NULL,
  id              TEXT    NOT NULL,
  image           TEXT    NOT NULL,             -- a name, for people; refers to nothing
  runtime         TEXT    NOT NULL,             -- io.containerd.runc.v2
  runtime_options BLOB,                         -- google.protobuf.Any, as spec
  spec            BLOB    NOT NULL,
  snapshotter     TEXT    NOT NULL,
  snapshot_key    TEXT    NOT NULL,
  sandbox         TEXT    NOT NULL,
  extensions      BLOB    NOT NULL,             -- containerd.services.containers.v1.Container with nothing but them
  labels          TEXT    NOT NULL DEFAULT '{}',
  created         INTEGER NOT NULL,
  updated         INTEGER NOT NULL,
  revision        INTEGER NOT NULL DEFAULT 1,   -- grows with each update, so that one who read before it writes nothing
  PRIMARY KEY (ns, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX containers_container_snapshot ON containers_container (ns, snapshotter, snapshot_key);

CREATE TRIGGER containers_container_labels_insert AFTER INSERT ON containers_container
WHEN instr(new.labels, 'containerd.io/gc.') BEGIN
  INSERT INTO records_labels (kind, ns, id, labels) VALUES ('container', new.ns, new.id, new.labels);
END;
CREATE TRIGGER containers_container_labels_update AFTER UPDATE OF labels ON containers_container
WHEN instr(old.labels || new.labels, 'containerd.io/gc.') BEGIN
  INSERT INTO records_labels (kind, ns, id, labels) VALUES ('container', new.ns, new.id, new.labels);
END;
CREATE TRIGGER containers_container_labels_delete AFTER DELETE ON containers_container
WHEN instr(old.labels, 'containerd.io/gc.') BEGIN
  INSERT INTO records_labels (kind, ns, id, labels) VALUES ('container', old.ns, old.id, '{}');
END;

-- A container is never collected; somebody deletes it.
CREATE VIEW containers_gc_root (kind, ns, id) AS
  SELECT 'container', ns, id FROM containers_container;

CREATE VIEW containers_gc_node (kind, ns, id) AS
  SELECT 'container', ns, id FROM containers_container;

CREATE VIEW containers_gc_edge (kind, ns, id, to_kind, to_ns, to_id) AS
  SELECT 'container', ns, id, 'snapshot/' || snapshotter, ns, snapshot_key FROM containers_container WHERE snapshot_key <> '';

CREATE TRIGGER containers_gc_sweep INSTEAD OF DELETE ON containers_gc_node BEGIN
  SELECT RAISE(ABORT, 'a container is a root of the collection');
END;
