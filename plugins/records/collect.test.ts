import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { useRecords } from '../../test/helpers/records.ts';
import { Collector, collect } from './collect.ts';
import { mark } from './graph.ts';

/** A noun with roots, parents and labels, of any kind: what images, content and snapshots are to collection. */
const migration = `
  CREATE TABLE things_thing (
    kind TEXT NOT NULL, ns TEXT NOT NULL, id TEXT NOT NULL, parent TEXT, root INTEGER NOT NULL DEFAULT 0, labels TEXT NOT NULL DEFAULT '{}',
    PRIMARY KEY (kind, ns, id)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX things_parent ON things_thing (kind, ns, parent);
  CREATE VIEW things_gc_node (kind, ns, id) AS SELECT kind, ns, id FROM things_thing;
  CREATE VIEW things_gc_root (kind, ns, id) AS SELECT kind, ns, id FROM things_thing WHERE root;
  CREATE VIEW things_gc_edge (kind, ns, id, to_kind, to_ns, to_id) AS
    SELECT kind, ns, id, kind, ns, parent FROM things_thing WHERE parent IS NOT NULL;
  CREATE TRIGGER things_gc_sweep INSTEAD OF DELETE ON things_gc_node BEGIN
    SELECT RAISE(ABORT, 'it has children') FROM things_thing WHERE kind = old.kind AND ns = old.ns AND parent = old.id;
    DELETE FROM things_thing WHERE kind = old.kind AND ns = old.ns AND id = old.id;
    INSERT INTO records_trash (owner, path) VALUES ('things', old.id);
  END;
  CREATE TRIGGER things_labels_insert AFTER INSERT ON things_thing WHEN instr(new.labels, 'containerd.io/gc.') BEGIN
    INSERT INTO records_labels (kind, ns, id, labels) VALUES (new.kind, new.ns, new.id, new.labels);
  END;
  CREATE TRIGGER things_labels_update AFTER UPDATE OF labels ON things_thing WHEN instr(old.labels || new.labels, 'containerd.io/gc.') BEGIN
    INSERT INTO records_labels (kind, ns, id, labels) VALUES (new.kind, new.ns, new.id, new.labels);
  END;
  CREATE TRIGGER things_labels_delete AFTER DELETE ON things_thing WHEN instr(old.labels, 'containerd.io/gc.') BEGIN
    INSERT INTO records_labels (kind, ns, id, labels) VALUES (old.kind, old.ns, old.id, '{}');
  END;
`;

interface Thing {
  kind: string;
  id: string;
  ns?: string;
  parent?: string;
  root?: boolean;
  labels?: { [key: string]: string };
}

function useThings(t: ExecutionContext) {
  const dir = mkdtempSync(join(tmpdir(), 'troupe-things-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  writeFileSync(join(dir, '001-things.sql'), migration);
  const test = useRecords(t, { prefix: 'things', dir }, 'leases');
  const leases = test.as('leases');
  return {
    ...test,
    async add(...things: Thing[]) {
      await test.records.commit({
        statements: things.map(({ kind, id, ns = 'n', parent, root, labels = {} }) => ({
          sql: 'INSERT INTO things_thing (kind, ns, id, parent, root, labels) VALUES (?, ?, ?, ?, ?, ?)',
          params: [kind, ns, id, parent ?? null, root ? 1 : 0, JSON.stringify(labels)],
        })),
      });
    },
    async label(kind: string, id: string, labels: { [key: string]: string }) {
      const sql = "UPDATE things_thing SET labels = ? WHERE kind = ? AND ns = 'n' AND id = ?";
      await test.records.commit({ statements: [{ sql, params: [JSON.stringify(labels), kind, id], rows: 1 }] });
    },
    async lease(id: string, labels: { [key: string]: string }, ...resources: [type: string, id: string][]) {
      await leases.commit({
        statements: [
          {
            sql: "INSERT INTO leases_lease (ns, id, created_at, labels) VALUES ('n', ?, 1, ?)",
            params: [id, JSON.stringify(labels)],
          },
        ],
        lease: { namespace: 'n', id, add: resources.map(([type, resource]) => ({ type, id: resource })) },
      });
    },
    left: () => test.rows<{ id: string }>('SELECT id FROM things_thing ORDER BY id').map(({ id }) => id),
  };
}

test('keeps what roots reach through columns and labels, removes the rest with its trash', async (t) => {
  const { add, collect, left, rows } = useThings(t);
  await add(
    { kind: 'image', id: 'i', root: true, labels: { 'containerd.io/gc.ref.content': 'm' } },
    {
      kind: 'content',
      id: 'm',
      labels: { 'containerd.io/gc.ref.content.config': 'c', 'containerd.io/gc.ref.content.l.0': 'l' },
    },
    { kind: 'content', id: 'c', labels: { 'containerd.io/gc.ref.snapshot.overlayfs': 's2' } },
    { kind: 'content', id: 'l' },
    { kind: 'snapshot/overlayfs', id: 's1' },
    { kind: 'snapshot/overlayfs', id: 's2', parent: 's1' },
    { kind: 'snapshot/native', id: 's2' },
    { kind: 'content', id: 'gone', labels: { 'containerd.io/gc.ref.content': 'gone too' } },
    { kind: 'content', id: 'gone too' },
    { kind: 'content', id: 'l', ns: 'other' },
  );
  const result = await collect();
  t.deepEqual(left(), ['c', 'i', 'l', 'm', 's1', 's2']);
  t.like(result, { swept: 4, marked: 6 });
  t.deepEqual(
    rows<{ path: string }>('SELECT path FROM records_trash')
      .map(({ path }) => path)
      .sort(),
    ['gone', 'gone too', 'l', 's2'],
  );
  t.is(rows("SELECT 1 FROM records_reference WHERE id = 'gone'").length, 0);
  t.like(await collect(), { swept: 0, marked: 6 });
});

test('every form of a label that keeps', async (t) => {
  const { add, label, collect, left } = useThings(t);
  await add(
    { kind: 'container', id: 'root', root: true },
    { kind: 'content', id: 'a' },
    { kind: 'content', id: 'b' },
    { kind: 'content', id: 'c' },
    { kind: 'image', id: 'd' },
    { kind: 'snapshot/overlayfs', id: 'e' },
    { kind: 'snapshot/overlayfs', id: 'f' },
    { kind: 'snapshot/my.own-one', id: 'g' },
    { kind: 'content', id: 'h', labels: { 'containerd.io/gc.bref.container': 'root' } },
    { kind: 'content', id: 'i', labels: { 'containerd.io/gc.bref.content.x': 'a' } },
    { kind: 'content', id: 'j', labels: { 'containerd.io/gc.bref.image': 'd' } },
    { kind: 'content', id: 'k', labels: { 'containerd.io/gc.bref.snapshot.overlayfs/1': 'e' } },
    { kind: 'content', id: 'l', labels: { 'containerd.io/gc.root': '' } },
    {
      kind: 'content',
      id: 'no',
      labels: { 'containerd.io/gc.bref.image': 'unknown', 'containerd.io/gc.reference': 'a' },
    },
  );
  await label('container', 'root', {
    'containerd.io/gc.ref.content': 'a',
    'containerd.io/gc.ref.content.1': 'b',
    'containerd.io/gc.ref.content/x': 'c',
    'containerd.io/gc.ref.image/1': 'd',
    'containerd.io/gc.ref.snapshot.overlayfs': 'e',
    'containerd.io/gc.ref.snapshot.overlayfs/1': 'f',
    'containerd.io/gc.ref.snapshot.my.own-one/x/y': 'g',
    'containerd.io/gc.ref.contents': 'no',
    'containerd.io/gc.ref.nothing': 'no',
    'containerd.io/gc.ref.snapshot': 'no',
  });
  await collect();
  t.deepEqual(left(), ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l', 'root']);
  await label('container', 'root', {});
  await collect();
  t.deepEqual(left(), ['h', 'l', 'root']);
});

test('a lease keeps what it holds until it is gone or its time is over', async (t) => {
  const { add, lease, as, collect, left, rows } = useThings(t);
  await add(
    { kind: 'content', id: 'a', labels: { 'containerd.io/gc.ref.content': 'b' } },
    { kind: 'content', id: 'b' },
    { kind: 'snapshot/overlayfs', id: 'c' },
    { kind: 'image', id: 'd' },
    { kind: 'ingest', id: 'e' },
    { kind: 'content', id: 'f' },
    { kind: 'content', id: 'g' },
  );
  await lease('one', {}, ['content', 'a'], ['snapshots/overlayfs', 'c'], ['images', 'd'], ['ingests', 'e']);
  await lease('expired', { 'containerd.io/gc.expire': '2020-01-01T00:00:00Z' }, ['content', 'f']);
  await lease('later', { 'containerd.io/gc.expire': '2120-01-01T00:00:00.5+02:00' }, ['content', 'g']);
  await lease('never', { 'containerd.io/gc.expire': 'tomorrow' });
  await collect();
  t.deepEqual(left(), ['a', 'b', 'c', 'd', 'e', 'g']);
  t.deepEqual(
    rows<{ id: string }>('SELECT id FROM leases_lease ORDER BY id').map(({ id }) => id),
    ['later', 'never', 'one'],
  );
  t.is(rows("SELECT 1 FROM records_lease_resource WHERE lease = 'expired'").length, 0);
  await as('leases').commit({ statements: [{ sql: "DELETE FROM leases_lease WHERE id IN ('one', 'later')" }] });
  await collect();
  t.deepEqual(left(), []);
});

test('a flat lease keeps what it holds and what that stands on, not what labels name', async (t) => {
  const { add, lease, collect, left } = useThings(t);
  await add(
    { kind: 'content', id: 'a', labels: { 'containerd.io/gc.ref.content': 'b' } },
    { kind: 'content', id: 'b' },
    { kind: 'snapshot/overlayfs', id: 'parent' },
    { kind: 'snapshot/overlayfs', id: 'child', parent: 'parent', labels: { 'containerd.io/gc.ref.content': 'b' } },
  );
  await lease('flat', { 'containerd.io/gc.flat': '' }, ['content', 'a'], ['snapshots/overlayfs', 'child']);
  await collect();
  t.deepEqual(left(), ['a', 'child', 'parent']);
  await lease('deep', {}, ['content', 'a']);
  await add({ kind: 'content', id: 'b' });
  await collect();
  t.deepEqual(left(), ['a', 'b', 'child', 'parent']);
});

test('circles and long chains', async (t) => {
  const { add, collect, left, rows } = useThings(t);
  const chain = Array.from({ length: 5000 }, (_, index) => ({
    kind: 'snapshot/overlayfs',
    id: `s${index}`,
    ...(index > 0 && { parent: `s${index - 1}` }),
  }));
  await add(
    ...chain,
    {
      kind: 'content',
      id: 'x',
      labels: { 'containerd.io/gc.ref.content': 'y' },
    },
    {
      kind: 'content',
      id: 'y',
      labels: { 'containerd.io/gc.ref.content': 'x', 'containerd.io/gc.ref.content.self': 'y' },
    },
  );
  t.like(await collect(), { swept: 5002, marked: 0 });
  t.deepEqual(left(), []);
  const order = rows<{ path: string }>("SELECT path FROM records_trash WHERE path GLOB 's*' ORDER BY seq").map(
    ({ path }) => path,
  );
  t.deepEqual(order, chain.map(({ id }) => id).reverse(), 'children before their parents');
});

test('what became reachable between mark and sweep stays', async (t) => {
  const { add, label, lease, engine, left } = useThings(t);
  await add(
    { kind: 'image', id: 'root', root: true },
    // Three ways to come back: by a label of what lives, by a lease, and below something that came back.
    { kind: 'content', id: 'a', labels: { 'containerd.io/gc.ref.content': 'a child' } },
    { kind: 'content', id: 'a child' },
    { kind: 'content', id: 'b' },
    { kind: 'content', id: 'c' },
    { kind: 'content', id: 'd' },
    { kind: 'content', id: 'gone', labels: { 'containerd.io/gc.ref.content': 'gone child' } },
    { kind: 'content', id: 'gone child' },
  );
  const result = await collect(engine, {
    thread: false,
    marked: async ({ dead }) => {
      t.is(dead.length, 7);
      await label('image', 'root', { 'containerd.io/gc.ref.content': 'a' });
      await lease('new', {}, ['content', 'b']);
      await add({ kind: 'image', id: 'new', root: true, labels: { 'containerd.io/gc.ref.content': 'c' } });
      await label('content', 'a child', { 'containerd.io/gc.ref.content': 'd' });
      // A new edge from what is dead itself brings nothing back.
      await label('content', 'gone', { 'containerd.io/gc.ref.content': 'gone child', 'containerd.io/gc.root.not': '' });
    },
  });
  t.is(result.swept, 2);
  t.deepEqual(left(), ['a', 'a child', 'b', 'c', 'd', 'new', 'root']);
});

test('a commit between two steps of a long sweep is seen too', async (t) => {
  const { add, label, engine, left } = useThings(t);
  const things = Array.from({ length: 2500 }, (_, index) => ({
    kind: 'content',
    id: `t${String(index).padStart(4, '0')}`,
  }));
  await add({ kind: 'image', id: 'root', root: true }, ...things);
  let step = 0;
  const stop = engine.onBatch(() => {
    step += 1;
    if (step === 1) void label('image', 'root', { 'containerd.io/gc.ref.content': 't2400' });
  });
  await collect(engine, { thread: false });
  stop();
  t.true(step >= 5);
  t.deepEqual(left(), ['root', 't2400']);
});

test('marks in a thread of its own while commits go on', async (t) => {
  const { add, engine, left } = useThings(t);
  await add({ kind: 'image', id: 'root', root: true }, { kind: 'content', id: 'gone' });
  const running = collect(engine, { thread: true });
  const meanwhile = Array.from({ length: 50 }, (_, index) => add({ kind: 'image', id: `new${index}`, root: true }));
  t.is((await running).swept, 1);
  await Promise.all(meanwhile);
  t.is(left().length, 51);
});

test('who asks while a collection runs shares the next', async (t) => {
  let runs = 0;
  const ends: (() => void)[] = [];
  const collector = new Collector(() => {
    runs += 1;
    return new Promise((resolve) => ends.push(() => resolve({ swept: runs, marked: 0, durationMs: 0 })));
  });
  const first = collector.collect();
  const second = collector.collect();
  const third = collector.collect();
  t.is(runs, 1);
  ends[0]!();
  t.is((await first).swept, 1);
  await new Promise((resolve) => setImmediate(resolve));
  t.is(runs, 2);
  ends[1]!();
  t.is((await second).swept, 2);
  t.is(await second, await third);
});

test('a failed collection does not stop the next', async (t) => {
  let runs = 0;
  const collector = new Collector(async () => {
    runs += 1;
    if (runs === 1) throw new Error('no');
    return { swept: 0, marked: 0, durationMs: 0 };
  });
  const results = await Promise.allSettled([collector.collect(), collector.collect()]);
  t.deepEqual(
    results.map(({ status }) => status),
    ['rejected', 'fulfilled'],
  );
});

test('edges to and from what does not exist mean nothing', async (t) => {
  const { add, engine } = useThings(t);
  await add({ kind: 'content', id: 'a', parent: 'missing', labels: { 'containerd.io/gc.bref.content': 'missing' } });
  const { dead, marked } = mark(engine.database);
  t.is(marked, 0);
  t.deepEqual(
    dead.map(({ id }) => id),
    ['a'],
  );
});
