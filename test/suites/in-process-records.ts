/** The surroundings of a suite over the records in this thread: leases, outbox and collection, without the plugins that own them. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { type TestRecords, useRecords } from '../helpers/records.ts';
import type { SeenEvent, Subject } from './subject.ts';

// As much of leases as a commit asks about.
const leases = `
CREATE TABLE leases_test (ns TEXT NOT NULL, id TEXT NOT NULL, PRIMARY KEY (ns, id)) STRICT, WITHOUT ROWID;
CREATE VIEW leases_gc_node (kind, ns, id) AS SELECT 'lease', ns, id FROM leases_test;
CREATE VIEW leases_gc_root (kind, ns, id) AS SELECT 'lease', ns, id FROM leases_test;
CREATE VIEW leases_gc_edge (kind, ns, id, to_kind, to_ns, to_id) AS
  SELECT 'lease', ns, lease, CASE type WHEN 'ingests' THEN 'ingest' WHEN 'images' THEN 'image' ELSE type END, ns, id
  FROM records_lease_resource;
CREATE TRIGGER leases_gc_sweep INSTEAD OF DELETE ON leases_gc_node BEGIN
  DELETE FROM leases_test WHERE ns = old.ns AND id = old.id;
END;
`;

/** @param nouns as useRecords takes them; the first is the one under test. */
export function useSurroundings(t: ExecutionContext, ...nouns: string[]): Subject & TestRecords {
  const dir = mkdtempSync(join(tmpdir(), 'troupe-leases-'));
  writeFileSync(join(dir, '001-leases.sql'), leases);
  const test = useRecords(t, ...nouns, { prefix: 'leases', dir });
  rmSync(dir, { recursive: true });
  const leaser = test.as('leases');
  let seen = 0;
  return {
    ...test,
    namespace: 'suite',
    otherNamespace: 'other',
    async createLease(namespace, id) {
      await leaser.commit({
        statements: [{ sql: 'INSERT INTO leases_test (ns, id) VALUES (?, ?)', params: [namespace, id] }],
        namespace,
      });
    },
    async leaseResources(namespace, id) {
      return test.records.all(
        'SELECT type, id FROM records_lease_resource WHERE ns = ? AND lease = ? ORDER BY type, id',
        namespace,
        id,
      );
    },
    async events(namespace) {
      const rows = test.records.all<{ seq: number } & SeenEvent>(
        'SELECT seq, ns AS namespace, topic, type_url AS typeUrl, value FROM records_outbox WHERE seq > ? AND ns = ? ORDER BY seq',
        seen,
        namespace,
      );
      seen = rows.at(-1)?.seq ?? seen;
      return rows;
    },
  };
}
