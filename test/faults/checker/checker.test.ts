/** Every invariant can be broken: a sound root passes, and each kind of damage is named. */
import { spawn } from 'node:child_process';
import {
  appendFileSync,
  chmodSync,
  closeSync,
  mkdirSync,
  openSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test, { type ExecutionContext } from 'ava';
import { MNT_DETACH, mountOn, unmountAll } from 'troupe/sys';
import { run } from '../../helpers/command.ts';
import { needing, rootTest } from '../../helpers/privilege.ts';
import { renderBreach } from './breach.ts';
import { checkPicture } from './check.ts';
import { type DamagedRoot, useRoot } from './damaged-root.ts';
import type { Line } from './oracle.ts';
import { processOf } from './processes.ts';
import { measureResources } from './resources.ts';
import type { Picture } from './subject.ts';

const found = (picture: Picture): string[] => checkPicture(picture).map(renderBreach);

/** The only breaches are these, by invariant and words. */
function breaks(t: ExecutionContext, picture: Picture, ...expected: [invariant: number, words: RegExp][]): void {
  const breaches = found(picture);
  for (const [invariant, words] of expected)
    t.true(
      breaches.some((line) => line.startsWith(`invariant ${invariant}: `) && words.test(line)),
      `${words}:\n${breaches.join('\n')}`,
    );
  const allowed = new Set(expected.map(([invariant]) => invariant));
  t.deepEqual(
    breaches.filter((line) => !allowed.has(Number(/\d+/.exec(line)![0]))),
    [],
  );
}

test('a sound root has no breach', (t) => {
  t.deepEqual(found(useRoot(t).picture()), []);
});

/** Title, damage, and what must be said of it. */
const damages: [title: string, damage: (root: DamagedRoot) => void, invariant: number, words: RegExp][] = [
  [
    'an acknowledged lease is gone',
    (r) => void Object.assign(r.listing, { leases: [] }),
    1,
    /lease\/ns\/lease.* there is null/,
  ],
  [
    'a label is another',
    (r) => void Object.assign(r.listing, { leases: [{ ns: 'ns', id: 'lease', labels: { a: 'c' } }] }),
    1,
    /"a":"b".*"a":"c"/,
  ],
  [
    'a snapshot is of another kind',
    (r) =>
      void Object.assign(r.listing, { snapshots: r.listing.snapshots.map((each) => ({ ...each, kind: 'active' })) }),
    1,
    /overlayfs\/layer/,
  ],
  ['what was deleted is back', (r) => void r.lines.push(...gone('lease/ns/lease')), 1, /told null/],
  [
    'an offset is less than acknowledged',
    (r) => {
      truncateSync(join(r.ingest, 'data'), 4);
      r.listing.ingests = [{ ns: 'ns', ref: 'ref', offset: 4, total: 0 }];
    },
    1,
    /ingest\/ns\/ref/,
  ],
  [
    'a commit in doubt is half there',
    (r) => void r.lines.push(half('lease/ns/lease', 'lease/ns/other')),
    1,
    /half done/,
  ],
  [
    'something that nobody asked for',
    (r) => void Object.assign(r.listing, { containers: [stranger] }),
    2,
    /container\/ns\/stranger: nobody/,
  ],
  ['a blob is missing', (r) => rmSync(r.blob), 3, /a record and no file/],
  [
    'a blob is shorter',
    (r) => {
      chmodSync(r.blob, 0o644);
      truncateSync(r.blob, 3);
      chmodSync(r.blob, 0o444);
    },
    3,
    /3 bytes, and its records say 6/,
  ],
  [
    'a blob holds something else',
    (r) => {
      rmSync(r.blob);
      writeFileSync(r.blob, 'a BLOB', { mode: 0o444 });
    },
    3,
    /holds sha256:/,
  ],
  ['a blob may be written', (r) => chmodSync(r.blob, 0o644), 3, /mode 0644/],
  ['a file among the blobs', (r) => writeFileSync(`${r.blob}.new`, ''), 3, /no record names/],
  ['a snapshot without directory', (r) => rmSync(r.snapshot, { recursive: true }), 4, /a record and no directory/],
  ['a directory without snapshot', (r) => mkdirSync(`${r.snapshot}7`, { mode: 0o700 }), 4, /no record names/],
  ['a file of a layer is empty', (r) => truncateSync(r.file, 0), 4, /must have 6 bytes, and has 0/],
  ['a file of a layer is another', (r) => writeFileSync(r.file, 'a BLOB'), 4, /must hold/],
  ['a file of a layer is missing', (r) => rmSync(r.file), 4, /not there/],
  [
    'a parent is missing',
    (r) => r.sql('UPDATE snapshots_snapshot SET parent = 9 WHERE id = 2'),
    4,
    /parent 9 is not there/,
  ],
  [
    'a parent is active',
    (r) => r.sql('UPDATE snapshots_snapshot SET kind = 2 WHERE id = 1'),
    4,
    /parent 1 is of kind 2/,
  ],
  ['trash stays', (r) => r.sql("INSERT INTO records_trash VALUES ('content', 'blobs/x')"), 4, /never removed/],
  [
    'removed files stay',
    (r) => mkdirSync(join(r.snapshot, '../../trash/1.abc'), { recursive: true }),
    4,
    /trash that nobody removes/,
  ],
  ['an ingest without directory', (r) => rmSync(r.ingest, { recursive: true }), 6, /directory .* is not there/],
  ['a directory without ingest', (r) => mkdirSync(`${r.ingest}-more`), 6, /no record names/],
  ['data is longer than the offset', (r) => appendFileSync(join(r.ingest, 'data'), '6'), 6, /6 bytes of data/],
  ['an ingest is of another ref', (r) => writeFileSync(join(r.ingest, 'ref'), 'ns/other'), 6, /ns\/other/],
  ['an ingest is not listed', (r) => r.sql("INSERT INTO content_ingest VALUES ('ns', 'x', 'one')"), 6, /not/],
  [
    'a bundle without task',
    (r) => mkdirSync(join(r.state, 'io.containerd.runtime.v2.task/ns/web'), { recursive: true }),
    7,
    /web: is a directory of no task/,
  ],
  [
    'a shim’s work directory without task',
    (r) => mkdirSync(join(r.root, 'io.containerd.runtime.v2.task/ns/web'), { recursive: true }),
    7,
    /root.*web: is a directory of no task/,
  ],
  ['a root that others may enter', (r) => chmodSync(r.root, 0o755), 11, /mode 0755, not 0700/],
  ['a socket for everybody', (r) => chmodSync(r.picture().address, 0o666), 11, /mode 0666/],
  ['records that others may read', (r) => chmodSync(r.picture().rows && dbOf(r), 0o644), 11, /others may read/],
  ['a file that everybody may write', (r) => chmodSync(join(r.ingest, 'data'), 0o666), 11, /everybody may write/],
];

const stranger = { ns: 'ns', id: 'stranger', image: '', snapshotter: '', snapshotKey: '', labels: {} };
const dbOf = (root: DamagedRoot): string => join(root.root, 'troupe.records.v1.records/records.db');

function gone(object: string): Line[] {
  return [
    { n: 2, say: 'ask', call: 'delete', whole: true, wants: [{ object, state: null }] },
    { n: 2, say: 'done' },
  ];
}

/** Asked for together, never answered: the first is to go, the second to come. */
function half(first: string, second: string): Line {
  const wants = [
    { object: first, state: null },
    { object: second, state: { labels: {} } },
  ];
  return { n: 3, say: 'ask', call: 'move', whole: true, wants };
}

for (const [title, damage, invariant, words] of damages) {
  test(title, (t) => {
    const root = useRoot(t);
    damage(root);
    if (title === 'a commit in doubt is half there') root.listing.leases = [];
    breaks(t, root.picture(), [invariant, words]);
  });
}

test('after a power cut offsets may be anything, records and what is on its way may not be gone', (t) => {
  const root = useRoot(t);
  root.listing.ingests = root.listing.ingests.map((ingest) => ({ ...ingest, offset: 0 }));
  truncateSync(join(root.ingest, 'data'), 0);
  breaks(t, root.picture(), [1, /ingest\/ns\/ref/]);
  root.lines.push({ say: 'power cut' });
  t.deepEqual(found(root.picture()), []);
  root.listing.leases = [];
  root.listing.ingests = [];
  root.sql('DELETE FROM content_ingest');
  rmSync(root.ingest, { recursive: true });
  breaks(t, root.picture(), [1, /lease/], [1, /ingest\/ns\/ref/]);
});

test('an image without its content or snapshots', (t) => {
  const root = useRoot(t);
  const digest = root.listing.blobs[0]!.digest;
  root.listing.images = [{ ns: 'ns', name: 'image', digest, labels: {} }];
  root.lines.push(
    {
      n: 2,
      say: 'ask',
      call: 'import',
      whole: false,
      wants: [{ object: 'image/ns/image', state: { digest, unpacked: true } }],
    },
    { n: 2, say: 'done' },
  );
  const image = { target: digest, blobs: { [digest]: 6 }, layers: [{ chainId: 'layer', files: {} }] };
  t.deepEqual(found(root.picture({ fixtures: { images: [image], loose: [] } })), []);
  const blobs = { ...image.blobs, 'sha256:other': 1 };
  const layers = [{ chainId: 'lost', files: {} }];
  breaks(
    t,
    root.picture({ fixtures: { images: [{ ...image, blobs, layers }], loose: [] } }),
    [1, /sha256:other of 1 bytes is not there/],
    [1, /snapshot lost is not there/],
  );
});

test('whatever is left when everything was removed', (t) => {
  breaks(t, useRoot(t).picture({ empty: true }), [2, /is left, and everything was removed/]);
});

rootTest('a mount that is no task’s', (t) => {
  const root = useRoot(t);
  const point = join(root.state, 'mounted');
  mkdirSync(point);
  mountOn(point, { type: 'tmpfs', source: 'tmpfs', options: [] });
  try {
    breaks(t, root.picture(), [5, /is no task's root/], [11, /everybody/]);
  } finally {
    unmountAll(point, MNT_DETACH);
  }
});

test('a task without mount, shim and bundle', (t) => {
  const root = useRoot(t);
  root.listing.tasks = [{ ns: 'ns', id: 'web', pid: 0, status: 'running' }];
  root.lines.push({ n: 2, say: 'ask', call: 'x', whole: true, wants: [{ object: 'task/ns/web', state: {} }] });
  breaks(t, root.picture(), [5, /is not mounted/], [7, /has no shim/], [7, /is not a bundle/], [7, /no process/]);
});

test('a shim of no task, and a zombie', async (t) => {
  const root = useRoot(t);
  const picture = root.picture();
  const argv = `exec -a containerd-shim-runc-v2 sh -c 'read x' -namespace ns -id web -address ${picture.address}`;
  const shim = spawn('bash', ['-c', argv], { stdio: ['pipe', 'ignore', 'ignore'] });
  // Its child ends and is not waited for: it has become a program that does not know of it.
  const parent = spawn('sh', ['-c', 'true & exec sleep 60'], { stdio: 'ignore' });
  t.teardown(() => {
    shim.kill('SIGKILL');
    parent.kill('SIGKILL');
  });
  await until(() => processOf(shim.pid!)?.argv[0]?.includes('shim') === true);
  await until(() => found(root.picture({ pid: parent.pid! })).some((line) => line.includes('zombie')));
  breaks(t, root.picture({ pid: parent.pid! }), [7, /is a shim of ns\/web/], [7, /is a zombie child/]);
});

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve));
}

needing('root')('what is left of a container in places that daemons share', (t) => {
  const ns = `checker-${process.pid}`;
  const path = `/run/containerd/runc/${ns}/web`;
  mkdirSync(path, { recursive: true });
  t.teardown(() => rmSync(`/run/containerd/runc/${ns}`, { recursive: true, force: true }));
  breaks(t, useRoot(t).picture({ namespaces: [ns] }), [7, /is left of a container/]);
});

test('a long runner that is another process, or lost a number', (t) => {
  const root = useRoot(t);
  const counter = join(root.state, 'counter');
  const { started } = processOf(process.pid)!;
  const runner = { pid: process.pid, started, counter };
  const tell = (state: object): void => {
    root.lines.push({
      n: 9,
      say: 'ask',
      call: 'start',
      whole: true,
      wants: [{ object: 'task/ns/run', state: { ...state } }],
    });
    root.lines.push({ n: 9, say: 'done' });
  };
  root.listing.tasks = [{ ns: 'ns', id: 'run', pid: process.pid, status: 'created' }];
  const broken = (): string[] => found(root.picture()).filter((line) => line.startsWith('invariant 8'));
  tell(runner);
  writeFileSync(counter, '1\n2\n3\n');
  t.deepEqual(broken(), []);
  writeFileSync(counter, '1\n3\n');
  t.regex(broken().join('\n'), /line 2 says "3"/);
  tell({ ...runner, started: '1' });
  writeFileSync(counter, '1\n');
  t.regex(broken().join('\n'), /began at tick 1/);
});

test('descriptors that are not given back', (t) => {
  const root = useRoot(t);
  const baseline = measureResources(process.pid);
  t.deepEqual(found(root.picture({ baseline })), []);
  const fds = Array.from({ length: Math.ceil(baseline.descriptors * 0.05) + 20 }, () => openSync('/dev/null', 'r'));
  t.teardown(() => fds.forEach(closeSync));
  breaks(t, root.picture({ baseline }), [10, /descriptors, at most/]);
});

test('a damaged database', (t) => {
  const root = useRoot(t);
  breaks(t, root.picture({ rows: { ...root.picture().rows, integrity: 'row 1 missing from index' } }), [12, /row 1/]);
});

test('the program ends with 2 when it cannot look', async (t) => {
  const main = fileURLToPath(new URL('./main.ts', import.meta.url));
  t.is((await run(process.execPath, [main])).code, 2);
  const root = useRoot(t);
  const flags = ['--root', root.root, '--state', root.state, '--address', join(root.root, 'nobody'), '--pid', '1'];
  const { code, stderr } = await run(process.execPath, [
    main,
    ...flags,
    '--oracle',
    root.root,
    '--fixtures',
    '/dev/null',
  ]);
  t.is(code, 2, stderr);
});
