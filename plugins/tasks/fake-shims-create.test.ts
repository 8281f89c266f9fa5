/** Create with shims that fail, lie and stall: it says why, leaves nothing, and others go on. */
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { Failure } from 'troupe/plugin';
import { CreateTaskResponse } from 'troupe/proto/containerd/task/v2/task.ts';
import { binary, listen, never, nothingLeft, options, proper, start } from './fake-shim.ts';
import { makeRig } from './rig.ts';

const badStarts: [title: string, script: string, message: RegExp][] = [
  ['prints nothing', ':', /^failed to start shim: start failed: shim printed no address: unknown$/],
  ['prints garbage', 'echo hello', /start failed: shim printed "hello", which is no address: unknown$/],
  ['exits 1', 'echo out; echo went wrong >&2; exit 1', /start failed: out\nwent wrong\n: exit status 1: unknown$/],
  ['is killed', 'kill -9 $$', /start failed: : signal: SIGKILL: unknown$/],
  ['prints without end', 'cat /dev/zero', /printed more than 65536 bytes: resource exhausted$/],
  ['hangs', 'sleep 1000', /ran longer than 300 ms: context deadline exceeded$/],
  [
    'speaks version 99',
    `echo '{"version":99,"address":"unix:///x","protocol":"ttrpc"}'`,
    /version 99 .*: not implemented$/,
  ],
  [
    'speaks grpc',
    `echo '{"version":3,"address":"unix:///x","protocol":"grpc"}'`,
    /shim protocol "grpc": not implemented$/,
  ],
  ['listens on vsock', 'echo vsock://3:1024', /scheme vsock: not implemented$/],
  ['listens nowhere', 'echo unix:///nowhere/at/all', /nobody listens at \/nowhere\/at\/all: not found$/],
];

for (const [title, script, message] of badStarts) {
  test(`a shim that ${title} at its start fails Create, says why, and leaves nothing`, async (t) => {
    const rig = await makeRig(t, { start: title === 'hangs' ? 300 : 10_000 });
    const manager = start(t, rig);
    const failure = await t.throwsAsync(manager.create(options(binary(rig, script))), { instanceOf: Failure });
    t.regex(failure.message, message);
    nothingLeft(t, rig);
  });
}

test('the words of a failing shim are cut to their end', async (t) => {
  const rig = await makeRig(t, { shutdown: 200 });
  const script = 'head -c 100000 /dev/zero | tr "\\\\0" x >&2; echo the end >&2; exit 3';
  const failure = await t.throwsAsync(start(t, rig).create(options(binary(rig, script))), { instanceOf: Failure });
  t.regex(failure.message, /the end\n: exit status 3: unknown$/);
  t.true(failure.message.length < 9000);
});

test('what cannot be executed is refused with the words of the system', async (t) => {
  const rig = await makeRig(t, { shutdown: 200 });
  const path = join(rig.directory, 'not-a-program');
  writeFileSync(path, 'x');
  const failure = await t.throwsAsync(start(t, rig).create(options(path)), { instanceOf: Failure });
  t.is(failure.message, `failed to start shim: start failed: : fork/exec ${path}: permission denied: unknown`);
  nothingLeft(t, rig);
});

test('a shim that accepts and never answers costs Create its deadline, is cleaned up after, and others go on', async (t) => {
  const rig = await makeRig(t, { cleanup: 400, shutdown: 200 });
  const manager = start(t, rig);
  const silent = join(rig.directory, 'silent.sock');
  const good = join(rig.directory, 'good.sock');
  await listen(t, silent, never);
  await listen(t, good, proper);
  const shim = binary(rig, `echo unix://${silent}`);
  const stuck = manager.create(options(shim, { timeout: 300 }));
  const other = await manager.create(options(binary(rig, `echo unix://${good}`), { id: 'other' }));
  t.is(other.pid, 4242);
  const failure = await t.throwsAsync(stuck, { instanceOf: Failure });
  t.regex(
    failure.message,
    /^failed to create shim task: (containerd\.task\.v2\.Task\/Create: )?context deadline exceeded$/,
  );
  t.true(existsSync(`${shim}.deleted`));
  nothingLeft(t, rig);
});

for (const pid of [0, 1, 0xffff_ffff, process.pid]) {
  test(`a shim that claims pid ${pid === process.pid ? 'of the daemon' : pid} for its container is refused`, async (t) => {
    const rig = await makeRig(t, { shutdown: 200 });
    const path = join(rig.directory, 'liar.sock');
    await listen(t, path, async (call) =>
      call.method === 'Create' ? CreateTaskResponse.encode({ pid }).finish() : proper(call),
    );
    const failure = await t.throwsAsync(start(t, rig).create(options(binary(rig, `echo unix://${path}`))), {
      instanceOf: Failure,
    });
    t.is(failure.message, `failed to create shim task: shim claims pid ${pid} for the container: unknown`);
    nothingLeft(t, rig);
  });
}

test('every call of a shim carries the namespace', async (t) => {
  const rig = await makeRig(t, { shutdown: 200 });
  const namespaces = new Set<string>();
  const path = join(rig.directory, 'ns.sock');
  await listen(t, path, async (call) => {
    namespaces.add(call.metadata.get('containerd-namespace-ttrpc')?.join() ?? '');
    return proper(call);
  });
  await start(t, rig).create(options(binary(rig, `echo unix://${path}`)));
  t.deepEqual([...namespaces], ['fake']);
});

test('two creations of one name: one comes about', async (t) => {
  const rig = await makeRig(t, { shutdown: 200 });
  const path = join(rig.directory, 'one.sock');
  await listen(t, path, proper);
  const manager = start(t, rig);
  const shim = binary(rig, `echo unix://${path}`);
  const outcomes = await Promise.allSettled([manager.create(options(shim)), manager.create(options(shim))]);
  t.deepEqual(
    outcomes.map(({ status }) => status),
    ['fulfilled', 'rejected'],
  );
  t.is(outcomes[1]?.status === 'rejected' && (outcomes[1].reason as Failure).code, 'AlreadyExists');
});

test('a client that gives up in the middle of Create leaves nothing', async (t) => {
  const rig = await makeRig(t, { shutdown: 200 });
  const path = join(rig.directory, 'slow.sock');
  const controller = new AbortController();
  await listen(t, path, async (call) => {
    if (call.method !== 'Create') return proper(call);
    controller.abort();
    return never(call);
  });
  const creation = start(t, rig).create(options(binary(rig, `echo unix://${path}`), { signal: controller.signal }));
  const failure = await t.throwsAsync(creation, { instanceOf: Failure });
  t.is((failure as Failure).code, 'Canceled');
  nothingLeft(t, rig);
});
