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

CREATE VIEW leases_gc_edge (kind, ns, id, to_kind, to_ns, to_id) AS
  SELECT 'lease', ns, lease, kind, ns, id FROM records_lease_resource;

-- What these hold is kept without what its labels refer to.
CREATE VIEW leases_gc_flat (kind, ns, id) AS
  SELECT 'lease', ns, id FROM leases_lease WHERE labels ->> '$."containerd.io/gc.flat"' IS NOT NULL;

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
