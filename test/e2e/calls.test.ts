/**
 * Calls that `ctr` has no command for, straight to both sockets: what each answers, and by which code it refuses. Where a code of ours is another on
 * purpose, it is left out of the comparison and stands by itself.
 */
import test, { type ExecutionContext } from 'ava';
import { Failure, type ServiceDefinition } from 'troupe/plugin';
import { Container, ContainersDefinition } from 'troupe/proto/containerd/services/containers/v1/containers.ts';
import {
  ContentDefinition,
  WriteAction,
  WriteContentRequest,
} from 'troupe/proto/containerd/services/content/v1/content.ts';
import { DiffDefinition } from 'troupe/proto/containerd/services/diff/v1/diff.ts';
import { EventsDefinition } from 'troupe/proto/containerd/services/events/v1/events.ts';
import { ImagesDefinition } from 'troupe/proto/containerd/services/images/v1/images.ts';
import { IntrospectionDefinition } from 'troupe/proto/containerd/services/introspection/v1/introspection.ts';
import { LeasesDefinition } from 'troupe/proto/containerd/services/leases/v1/leases.ts';
import { NamespacesDefinition } from 'troupe/proto/containerd/services/namespaces/v1/namespaces.ts';
import { SnapshotsDefinition } from 'troupe/proto/containerd/services/snapshots/v1/snapshots.ts';
import { TasksDefinition } from 'troupe/proto/containerd/services/tasks/v1/tasks.ts';
import { VersionDefinition } from 'troupe/proto/containerd/services/version/v1/version.ts';
import { GrpcClient, typedClient } from '../../kernel/front/client.ts';
import { useBoth } from '../helpers/both.ts';

const both = useBoth(test);
const digest = `sha256:${'0'.repeat(64)}`;
const target = { mediaType: 'application/x', digest, size: 3n, annotations: {} };

/** What one side does; `show` runs a call and notes what came of it. */
type Script = (
  on: <D extends ServiceDefinition>(definition: D) => ReturnType<typeof typedClient<D>>,
  show: Show,
) => Promise<void>;
type Show = (what: string, call: () => Promise<unknown>) => Promise<void>;

let count = 0;
async function compare(t: ExecutionContext, script: Script): Promise<string> {
  t.timeout(120_000);
  const namespace = `c${++count}`;
  const said: { lines: string; texts: string }[] = [];
  for (const address of both.addresses()) {
    const client = new GrpcClient(address, { namespace });
    const lines: string[] = [];
    const texts: string[] = [];
    try {
      await script(
        (definition) => typedClient(client, definition),
        async (what, call) => {
          const came = await call().then(
            (reply) => JSON.stringify(inOrder(reply), plain),
            (error) => {
              if (!(error instanceof Failure)) throw error;
              texts.push(`${what} → ${error.code}: ${error.message}`);
              return error.code;
            },
          );
          lines.push(`${what} → ${came}`);
        },
      );
    } finally {
      client.close();
    }
    said.push({ lines: lines.join('\n'), texts: texts.join('\n') });
  }
  const [ours, theirs] = said;
  t.is(ours!.lines, (theirs ?? ours!).lines);
  return ours!.texts;
}

function plain(key: string, value: unknown): unknown {
  if (/At$|^timestamp$/.test(key) && value !== undefined && value !== null) return 'TIME';
  if (key === 'source') return String(value).replace(/.*(?=\/io\.containerd)/, 'ROOT');
  if (typeof value === 'bigint') return Number(value);
  return value;
}

/** Maps come in any order. */
function inOrder(value: unknown): unknown {
  if (value === null || typeof value !== 'object') return value;
  if (Array.isArray(value)) return value.map(inOrder);
  return Object.fromEntries(
    Object.entries(value)
      .sort()
      .map(([key, of]) => [key, inOrder(of)]),
  );
}

async function* once<T>(message: T): AsyncGenerator<T> {
  yield message;
}

const unknownLease = { lease: 'no-such-lease' };

test.serial('under a lease that is not there', async (t) => {
  const ours = await compare(t, async (on, show) => {
    const containers = on(ContainersDefinition);
    const images = on(ImagesDefinition);
    const snapshots = on(SnapshotsDefinition);
    const leases = on(LeasesDefinition);
    const container = Container.fromPartial({
      id: 'c',
      runtime: { name: 'io.containerd.runc.v2' },
      spec: { typeUrl: 'x', value: new Uint8Array([1]) },
    });
    await show('containers.create', () => containers.create({ container }, unknownLease));
    await show('containers.list', () => containers.list({ filters: [] }, unknownLease));
    await show('images.get', () => images.get({ name: 'i' }, unknownLease));
    await show('snapshots.prepare', () =>
      snapshots.prepare({ snapshotter: 'native', key: 's', parent: '', labels: {} }, unknownLease),
    );
    await show('snapshots.view', () =>
      snapshots.view({ snapshotter: 'native', key: 's', parent: '', labels: {} }, unknownLease),
    );
    await show('snapshots.stat', () => snapshots.stat({ snapshotter: 'native', key: 's' }, unknownLease));
    await show('content.write', async () => {
      const request = WriteContentRequest.fromPartial({ action: WriteAction.STAT, ref: 'r' });
      for await (const _ of on(ContentDefinition).write(once(request), unknownLease)) return 'opened';
      return 'nothing';
    });
    await show('content.status', () => on(ContentDefinition).status({ ref: 'r' }));
    await show('leases.listResources', () => leases.listResources({ id: 'no-such-lease' }));
    await show('leases.addResource', () =>
      leases.addResource({ id: 'no-such-lease', resource: { id: digest, type: 'content' } }),
    );
    await show('leases.deleteResource', () =>
      leases.deleteResource({ id: 'no-such-lease', resource: { id: digest, type: 'content' } }),
    );
  });
  t.regex(ours, /^snapshots\.prepare → NotFound: lease "no-such-lease": not found$/m);
});

test.serial('resources of leases', async (t) => {
  await compare(t, async (on, show) => {
    const leases = on(LeasesDefinition);
    const snapshots = on(SnapshotsDefinition);
    await leases.create({ id: 'l', labels: {} });
    const add = (type: string, id: string) => () => leases.addResource({ id: 'l', resource: { type, id } });
    for (const [type, id] of [
      ['content', digest],
      ['content', 'nonsense'],
      ['content', ''],
      ['ingests', 'ref'],
      ['snapshots/overlayfs', 'key'],
      ['snapshots/nope', 'key'],
      ['snapshots', 'key'],
      ['snapshots/overlayfs/more', 'key'],
      ['nonsense', 'x'],
      ['', 'x'],
      ['content', digest],
    ] as const) {
      await show(`add ${type} ${id}`, add(type, id));
    }
    await show('list', () => leases.listResources({ id: 'l' }));
    await snapshots.prepare({ snapshotter: 'native', key: 's', parent: '', labels: {} }, { lease: 'l' });
    await show('list with a snapshot', () => leases.listResources({ id: 'l' }));
    await snapshots.remove({ snapshotter: 'native', key: 's' });
    await show('list, the snapshot is gone', () => leases.listResources({ id: 'l' }));
    await show('remove', () => leases.deleteResource({ id: 'l', resource: { type: 'content', id: digest } }));
    await show('remove again', () => leases.deleteResource({ id: 'l', resource: { type: 'content', id: digest } }));
    await show('list at the end', () => leases.listResources({ id: 'l' }));
    await show('delete', () => leases.delete({ id: 'l', sync: true }));
    await show('list, the lease is gone', () => leases.listResources({ id: 'l' }));
  });
});

test.serial('namespaces', async (t) => {
  await compare(t, async (on, show) => {
    const namespaces = on(NamespacesDefinition);
    await show('get unknown', () => namespaces.get({ name: 'unknown' }));
    await show('get bad', () => namespaces.get({ name: 'a..b' }));
    await show('get nothing', () => namespaces.get({ name: '' }));
    await show('create', () => namespaces.create({ namespace: { name: 'made', labels: { a: 'b', c: 'd' } } }));
    // containerd answers an update with nothing: what became of it is asked for.
    const update = (paths: string[] | undefined, labels: Record<string, string>) => async () => {
      await namespaces.update({ namespace: { name: 'made', labels }, updateMask: paths });
      return namespaces.get({ name: 'made' });
    };
    await show('update labels.a', update(['labels.a'], { a: 'x', z: 'z' }));
    await show('update labels.c away', update(['labels.c'], {}));
    await show('update a dotted label', update(['labels.x.y'], { 'x.y': '1' }));
    await show('update without a mask', update(undefined, { only: '1' }));
    await show('delete', () => namespaces.delete({ name: 'made' }));
    await show('delete again', () => namespaces.delete({ name: 'made' }));
  });
});

test.serial('snapshots', async (t) => {
  await compare(t, async (on, show) => {
    const snapshots = on(SnapshotsDefinition);
    const sn = { snapshotter: 'native' };
    await show('prepare', () => snapshots.prepare({ ...sn, key: 'a', parent: '', labels: { x: 'y' } }));
    const update =
      (paths: string[], labels: Record<string, string>, name = 'a') =>
      () =>
        snapshots.update({
          ...sn,
          info: { name, parent: '', kind: 0, createdAt: undefined, updatedAt: undefined, labels },
          updateMask: paths,
        });
    await show('update labels.k', update(['labels.k'], { k: 'v', other: 'w' }));
    await show('update labels.x away', update(['labels.x'], {}));
    await show('update labels', update(['labels'], { all: 'new' }));
    await show('update parent', update(['parent'], {}));
    await show('update nonsense', update(['nonsense'], {}));
    await show('update unknown', update(['labels'], {}, 'unknown'));
    await show('update a long label', update(['labels'], { l: 'x'.repeat(4096) }));
    await show('update without info', () => snapshots.update({ ...sn, info: undefined, updateMask: undefined }));
    await show('stat', () => snapshots.stat({ ...sn, key: 'a' }));
    await show('stat unknown', () => snapshots.stat({ ...sn, key: 'b' }));
    await show('usage of active', () => snapshots.usage({ ...sn, key: 'a' }));
    await show('commit', () => snapshots.commit({ ...sn, name: 'A', key: 'a', parent: '', labels: { c: 'd' } }));
    await show('stat committed', () => snapshots.stat({ ...sn, key: 'A' }));
    await show('commit again', () => snapshots.commit({ ...sn, name: 'A', key: 'a', parent: '', labels: {} }));
    await show('prepare a long label', () =>
      snapshots.prepare({ ...sn, key: 'l', parent: '', labels: { l: 'x'.repeat(4096) } }),
    );
    await show('prepare again', () => snapshots.prepare({ ...sn, key: 'A', parent: '', labels: {} }));
    await show('prepare with a target label that is there', () =>
      snapshots.prepare({ ...sn, key: 'extract', parent: '', labels: { 'containerd.io/snapshot.ref': 'A' } }),
    );
    await show('remove', () => snapshots.remove({ ...sn, key: 'extract' }));
    await show('no snapshotter', () => snapshots.stat({ snapshotter: '', key: 'A' }));
    await show('remove at last', () => snapshots.remove({ ...sn, key: 'A' }));
    await show('remove twice', () => snapshots.remove({ ...sn, key: 'A' }));
  });
});

test.serial('diff, tasks, images, containers of nothing', async (t) => {
  await compare(t, async (on, show) => {
    const diff = on(DiffDefinition);
    await show('apply nothing', () =>
      diff.apply({
        diff: { ...target, mediaType: 'application/vnd.oci.image.layer.v1.tar' },
        mounts: [],
        payloads: {},
        syncFs: false,
      }),
    );
    await show('diff of nothing', () =>
      diff.diff({ left: [], right: [], mediaType: 'text/plain', ref: '', labels: {}, sourceDateEpoch: undefined }),
    );
    const tasks = on(TasksDefinition);
    const id = { containerId: 'nope' };
    await show('tasks.get', () => tasks.get({ ...id, execId: '' }));
    await show('tasks.start', () => tasks.start({ ...id, execId: '' }));
    await show('tasks.kill', () => tasks.kill({ ...id, execId: '', signal: 9, all: false }));
    await show('tasks.delete', () => tasks.delete(id));
    await show('tasks.deleteProcess', () => tasks.deleteProcess({ ...id, execId: 'e' }));
    await show('tasks.pause', () => tasks.pause(id));
    await show('tasks.resume', () => tasks.resume(id));
    await show('tasks.listPids', () => tasks.listPids(id));
    await show('tasks.wait', () => tasks.wait({ ...id, execId: '' }));
    await show('tasks.closeIO', () => tasks.closeIO({ ...id, execId: '', stdin: true }));
    await show('tasks.resizePty', () => tasks.resizePty({ ...id, execId: '', width: 1, height: 1 }));
    await show('tasks.metrics', () => tasks.metrics({ filters: [] }));
    await show('tasks.metrics of id', () => tasks.metrics({ filters: ['id==nope'] }));
    await show('tasks.list', () => tasks.list({ filter: '' }));
    const images = on(ImagesDefinition);
    await show('images.get', () => images.get({ name: 'nope' }));
    await show('images.get nothing', () => images.get({ name: '' }));
    await show('images.delete', () => images.delete({ name: 'nope', sync: true }));
    const containers = on(ContainersDefinition);
    await show('containers.get', () => containers.get({ id: 'nope' }));
    await show('containers.delete', () => containers.delete({ id: 'nope' }));
    await show('containers.get bad', () => containers.get({ id: 'a..b' }));
  });
});

interface RawClient {
  readonly [method: string]: (
    request: Uint8Array | AsyncIterable<Uint8Array>,
  ) => Promise<unknown> & AsyncIterable<unknown>;
}

/** A contract whose requests are the bytes themselves. */
function raw({ methods, ...service }: ServiceDefinition): ServiceDefinition {
  const requestType = {
    $type: 'bytes',
    encode: (bytes: unknown) => ({ finish: () => bytes as Uint8Array }),
    decode: (bytes: Uint8Array): unknown => bytes,
    fromPartial: (bytes: object): unknown => bytes,
  };
  return {
    ...service,
    methods: Object.fromEntries(Object.entries(methods).map(([key, method]) => [key, { ...method, requestType }])),
  };
}

test.serial('requests that are no message of their type', async (t) => {
  const requests: Record<string, number[]> = {
    'a field number of 0': [0x02, 0x00],
    'a tag of 0': [0x00, 0x00],
    'a varint of eleven bytes': [0x10, ...new Array(10).fill(0x80), 1],
    'a wire type of 7': [0x0f, 0],
    'a group without end': [0x9b, 6],
    'the end of no group': [0x9c, 6],
    'a length beyond the end': [0x0a, 5, 0x61],
    'an unknown field, and nothing else': [0x9a, 6, 1, 9],
  };
  const ours = await compare(t, async (on, show) => {
    const unary = on(raw(ContainersDefinition)) as unknown as RawClient;
    const stream = on(raw(ContentDefinition)) as unknown as RawClient;
    for (const [what, bytes] of Object.entries(requests)) {
      const request = Uint8Array.from(bytes);
      await show(`create: ${what}`, () => unary.create!(request));
      await show(`write: ${what}`, async () => {
        for await (const _ of stream.write!(once(request))) return 'an answer';
        return 'nothing';
      });
      await show(`read: ${what}`, async () => {
        for await (const _ of stream.read!(request)) return 'an answer';
        return 'nothing';
      });
    }
    // The container is shorter than the id in it.
    await show('create: a field that is longer than its message', () =>
      unary.create!(Uint8Array.of(0x0a, 3, 0x0a, 5, 0x61, 0x62, 0x63, 0x64, 0x65)),
    );
    await show('create, as it should be', () =>
      on(ContainersDefinition).create({
        container: Container.fromPartial({ id: 'good', runtime: { name: 'x' }, spec: {} }),
      }),
    );
  });
  t.regex(
    ours,
    /^create: a tag of 0 → Internal: containerd\.services\.containers\.v1\.Containers\/Create: its request cannot be decoded: field number is none: internal$/m,
  );
});

test.serial('text that is no UTF-8 is refused, as containerd 2 does and 1.6 does not', async (t) => {
  const client = new GrpcClient(both.addresses()[0]!, { namespace: 'utf8' });
  t.teardown(() => client.close());
  const containers = typedClient(client, raw(ContainersDefinition)) as unknown as RawClient;
  for (const text of [
    [0xc3, 0x28],
    [0xc0, 0x80],
    [0xed, 0xa0, 0x80],
  ]) {
    const error = await t.throwsAsync(containers.get!(Uint8Array.of(0x0a, text.length, ...text)), {
      instanceOf: Failure,
    });
    t.is((error as Failure).code, 'Internal');
    t.regex(
      error!.message,
      /Containers\/Get: its request cannot be decoded: string field contains invalid UTF-8: internal$/,
    );
  }
});

test.serial('namespace headers that came twice, events, introspection, version', async (t) => {
  await compare(t, async (on, show) => {
    const twice = { namespace: 'bbb, aaa' };
    const leases = on(LeasesDefinition);
    await show('create', () => leases.create({ id: 'l', labels: {} }, twice));
    await show('list in the first', () => leases.list({ filters: [] }, { namespace: 'bbb' }));
    await show('list in the other', () => leases.list({ filters: [] }, { namespace: 'aaa' }));
    await show('delete', () => leases.delete({ id: 'l', sync: false }, twice));
    const events = on(EventsDefinition);
    await show('publish', () => events.publish({ topic: '/a/b', event: { typeUrl: 'x', value: new Uint8Array() } }));
    await show('publish to a bad topic', () =>
      events.publish({ topic: 'a', event: { typeUrl: 'x', value: new Uint8Array() } }),
    );
    await show('publish to no topic', () =>
      events.publish({ topic: '', event: { typeUrl: 'x', value: new Uint8Array() } }),
    );
    await show('publish to a topic with a bad part', () =>
      events.publish({ topic: '/a/../b', event: { typeUrl: 'x', value: new Uint8Array() } }),
    );
    await show('plugins', async () => {
      const { plugins } = await on(IntrospectionDefinition).plugins({ filters: ['id==overlayfs'] });
      return plugins.map(({ type, id, platforms, initErr }) => ({ type, id, platforms, initErr }));
    });
    await show('plugins by two filters', async () => {
      const { plugins } = await on(IntrospectionDefinition).plugins({
        filters: ['type==io.containerd.runtime.v2', 'id==nothing'],
      });
      return plugins.map(({ type, id, platforms }) => ({ type, id, platforms }));
    });
    // The versions differ, as what they serve does; that there is one of three numbers is what clients parse.
    await show('version', async () => /^v?\d+\.\d+\.\d+/.test((await on(VersionDefinition).version({})).version));
  });
});
