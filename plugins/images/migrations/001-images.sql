-- Images: names, each pointing at one piece of content.
-- Times are nanoseconds since the epoch.

CREATE TABLE images_image (
  ns          TEXT    NOT NULL,
  name        TEXT    NOT NULL,
  digest      TEXT    NOT NULL,             -- of the target: a manifest or an index
  media_type  TEXT    NOT NULL,
  size        INTEGER NOT NULL,
  annotations TEXT    NOT NULL DEFAULT '{}',
  labels      TEXT    NOT NULL DEFAULT '{}',
  created     INTEGER NOT NULL,
  updated     INTEGER NOT NULL,
  revision    INTEGER NOT NULL DEFAULT 1,   -- grows with each update, so that one who read before it writes nothing
  PRIMARY KEY (ns, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX images_image_digest ON images_image (ns, digest);

CREATE TRIGGER images_image_labels_insert AFTER INSERT ON images_image
WHEN instr(new.labels, 'containerd.io/gc.') BEGIN
  INSERT INTO records_labels (kind, ns, id, labels) VALUES ('image', new.ns, new.name, new.labels);
END;
CREATE TRIGGER images_image_labels_update AFTER UPDATE OF labels ON images_image
WHEN instr(old.labels || new.labels, 'containerd.io/gc.') BEGIN
  INSERT INTO records_labels (kind, ns, id, labels) VALUES ('image', new.ns, new.name, new.labels);
END;
CREATE TRIGGER images_image_labels_delete AFTER DELETE ON images_image
WHEN instr(old.labels, 'containerd.io/gc.') BEGIN
  INSERT INTO records_labels (kind, ns, id, labels) VALUES ('image', old.ns, old.name, '{}');
END;

-- An image stays unless its label says until when, in RFC 3339. A label that is no time does not end it.
CREATE VIEW images_gc_root (kind, ns, id) AS
  SELECT 'image', ns, name FROM images_image
  WHERE coalesce(unixepoch(labels ->> '$."containerd.io/gc.expire"', 'subsec') > unixepoch('subsec'), 1);

CREATE VIEW images_gc_node (kind, ns, id) AS
  SELECT 'image', ns, name FROM images_image;

CREATE VIEW images_gc_edge (kind, ns, id, to_kind, to_ns, to_id) AS
  SELECT 'image', ns, name, 'content', ns, digest FROM images_image;

CREATE TRIGGER images_gc_sweep INSTEAD OF DELETE ON images_gc_node BEGIN
  DELETE FROM images_image WHERE ns = old.ns AND name = old.id;
  INSERT INTO records_event (ns, topic, type_url, first)
    VALUES (old.ns, '/images/delete', 'containerd.services.images.v1.ImageDelete', old.id);
END;
