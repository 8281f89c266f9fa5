-- Leases: names that keep things from collection while a client works on them. What each holds is in records_lease_resource, which is
-- records' own, because any commit may add to the lease of its caller.

CREATE TABLE leases_lease (
  ns         TEXT NOT NULL,
  id         TEXT NOT NULL,               -- free text
  created_at INTEGER NOT NULL,            -- ns since the epoch
  labels     TEXT NOT NULL DEFAULT '{}',
  PRIMARY KEY (ns, id)
) STRICT, WITHOUT ROWID;

CREATE VIEW leases_gc_node (kind, ns, id) AS SELECT 'lease', ns, id FROM leases_lease;

-- An expired one is kept by nothing, and the sweep takes it. A time that is none never comes.
CREATE VIEW leases_gc_root (kind, ns, id) AS
  SELECT 'lease', ns, id FROM leases_lease
  WHERE coalesce(unixepoch(labels ->> '$."containerd.io/gc.expire"') > unixepoch(), 1);

-- What a lease labelled gc.flat holds is kept without what its labels refer to.
CREATE VIEW leases_gc_edge (kind, ns, id, to_kind, to_ns, to_id) AS
  SELECT 'lease', r.ns, r.lease,
    CASE WHEN l.labels ->> '$."containerd.io/gc.flat"' IS NULL THEN '' ELSE 'flat ' END ||
    CASE r.type WHEN 'content' THEN 'content' WHEN 'ingests' THEN 'ingest' WHEN 'images' THEN 'image'
      ELSE 'snapshot/' || substr(r.type, 11) END,
    r.ns, r.id
  FROM records_lease_resource r JOIN leases_lease l ON l.ns = r.ns AND l.id = r.lease;

CREATE TRIGGER leases_gc_sweep INSTEAD OF DELETE ON leases_gc_node BEGIN
  DELETE FROM leases_lease WHERE ns = old.ns AND id = old.id;
END;

CREATE TRIGGER leases_lease_let_go AFTER DELETE ON leases_lease BEGIN
  DELETE FROM records_lease_resource WHERE ns = old.ns AND lease = old.id;
END;

-- A namespace takes its leases with it.
CREATE TRIGGER leases_namespace_gone AFTER DELETE ON records_namespace BEGIN
  DELETE FROM leases_lease WHERE ns = old.name;
END;
