/** Every thread of a real daemon dies or hangs at some time: a plugin's alone is replaced; one that nothing ends, or the main one, takes the daemon along, and no container. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { ContainersDefinition } from 'troupe/proto/containerd/services/containers/v1/containers.ts';
import { ContentDefinition } from 'troupe/proto/containerd/services/content/v1/content.ts';
import { ImagesDefinition } from 'troupe/proto/containerd/services/images/v1/images.ts';
import { LeasesDefinition } from 'troupe/proto/containerd/services/leases/v1/leases.ts';
import { NamespacesDefinition } from 'troupe/proto/containerd/services/namespaces/v1/namespaces.ts';
import { TasksDefinition } from 'troupe/proto/containerd/services/tasks/v1/tasks.ts';
import { VersionDefinition } from 'troupe/proto/containerd/services/version/v1/version.ts';
import { KernelDefinition } from 'troupe/proto/troupe/kernel/v1/kernel.ts';
import { Failure } from '../../kernel/sdk/failure.ts';
import type { Daemon } from '../helpers/daemon.ts';
import { busyboxLayer, imageLayout, upperLayer, writeOciArchive } from '../helpers/image.ts';
import { needing, rootTest } from '../helpers/privilege.ts';
import { useSabotagedDaemon } from '../helpers/sabotage.ts';
import { useScratch } from '../helpers/scratch.ts';
import { plugins, useClient } from '../helpers/trouped.ts';

const containerTest = needing('root', 'mount', 'cgroup', 'program ctr', 'program runc', 'program busybox');
const front = 'troupe.front.v1.front';
const records = 'troupe.records.v1.records';
const content = 'io.containerd.content.v1.content';
const name = 'docker.io/library/box:1';

const isReady = (id: string, generation: number) => (line: string) =>
  line.includes(`msg=plugin id=${id} generation=${generation} `) && line.includes(' to=ready');

async function must(daemon: Daemon, ...args: string[]): Promise<string> {
  const { code, signal, stdout, stderr } = await daemon.ctr(args);
  if (code !== 0) throw new Error(`ctr ${args.join(' ')}: ${code ?? signal}\n${stdout}${stderr}`);
  return stdout;
}

for (const [deed, what] of [
  ['throw', 'an exception that nobody catches'],
  ['reject', 'a promise whose rejection nobody handles'],
] as const) {
  rootTest.serial(
    `F4 ${what}, in each plugin: it alone is replaced, its calls under way are told so, and no other fails`,
    async (t) => {
      t.timeout(180_000);
      const { daemon, order } = await useSabotagedDaemon(t);
      const archive = join(useScratch(t, 'image'), 'image.tar');
      writeOciArchive(archive, imageLayout({ layers: [upperLayer] }), name);
      const images = useClient(t, daemon, ImagesDefinition);
      const containers = useClient(t, daemon, ContainersDefinition);
      const leases = useClient(t, daemon, LeasesDefinition);
      const namespaces = useClient(t, daemon, NamespacesDefinition);
      const tasks = useClient(t, daemon, TasksDefinition);
      const version = useClient(t, daemon, VersionDefinition);
      const blobs = useClient(t, daemon, ContentDefinition);
      const calls: Readonly<Record<string, () => Promise<unknown>>> = {
        'io.containerd.service.v1.images-service': () => images.list({ filters: [] }),
        'io.containerd.service.v1.containers-service': () => containers.list({ filters: [] }),
        'io.containerd.service.v1.leases-service': () => leases.list({ filters: [] }),
        'io.containerd.service.v1.namespaces-service': () => namespaces.list({ filter: '' }),
        'io.containerd.runtime.v2.task': () => tasks.list({ filter: '' }),
        'io.containerd.service.v1.introspection-service': () => version.version({}),
        [content]: () => blobs.listStatuses({ filters: [] }),
      };
      const died = new Set<string>();
      const failed = new Map<string, string[]>();
      let answers = 0;
      let over = false;
      const lanes = Object.entries(calls).map(async ([id, call]) => {
        while (!over) {
          await call().then(
            () => {
              answers += 1;
            },
            (error: unknown) => {
              const code = error instanceof Failure ? error.code : String(error);
              failed.set(id, [...(failed.get(id) ?? []), died.has(id) ? code : `${code}, and it had not died`]);
            },
          );
        }
      });

      const ids = (await plugins(daemon)).filter(({ state }) => state === 'ready').map(({ id }) => id);
      for (const id of ids.filter((each) => each !== front)) {
        died.add(id);
        await order(id, deed);
        await daemon.logged(isReady(id, 2));
      }
      over = true;
      await Promise.all(lanes);
      t.true(answers > 0);
      for (const [id, codes] of failed) t.deepEqual(codes, ['Unavailable'], id);
      // Its connections go with it: nobody calls meanwhile.
      await order(front, deed);
      await daemon.logged(isReady(front, 2));

      const reasons = daemon.log.filter((line) => line.includes('msg="plugin died"'));
      t.is(reasons.length, ids.length);
      t.true(reasons.every((line) => /reason="(thrown|rejected) by order/.test(line)));
      t.true(ids.includes(front));
      await must(daemon, 'images', 'import', archive);
      t.regex(await must(daemon, 'images', 'check'), /box:1 .* complete \(2\/2\).* true/);
      for (const { id, state, generation, restarts } of await plugins(daemon))
        if (ids.includes(id)) t.deepEqual([state, generation, restarts], ['ready', 2, 1], id);
    },
  );
}

test.serial(
  'F5 a loop in the writer of records, in content or in the front is ended and the plugin replaced, and what waited for it is done',
  async (t) => {
    t.timeout(120_000);
    const { daemon, order } = await useSabotagedDaemon(t, {
      config: 'version = 3\n[kernel]\nunresponsive = "500ms"\nkill = "750ms"\n',
    });
    const version = useClient(t, daemon, VersionDefinition);
    const namespaces = useClient(t, daemon, NamespacesDefinition);
    const blobs = useClient(t, daemon, ContentDefinition);
    let over = false;
    const failed: unknown[] = [];
    const lane = (async () => {
      while (!over) await version.version({}).catch((error: unknown) => failed.push(error));
    })();
    // A call that was not begun is nobody's loss: it waits for the next generation.
    for (const [id, work] of [
      [records, () => namespaces.create({ namespace: { name: 'made', labels: {} } })],
      [content, () => blobs.listStatuses({ filters: [] })],
    ] as const) {
      await order(id, 'spin');
      await work();
      const ended = await daemon.logged((line) => line.includes(`msg="plugin died" plugin=${id}`));
      t.regex(ended, /reason="its event loop does not turn, for \d+ ms"/);
      await daemon.logged(isReady(id, 2));
    }
    over = true;
    await lane;
    t.deepEqual(failed, []);
    await order(front, 'spin');
    await daemon.logged(isReady(front, 2));
    t.regex(await must(daemon, 'namespaces', 'ls', '-q'), /^made$/m);
    for (const { id, generation, restarts } of (await plugins(daemon)).filter(({ state }) => state === 'ready'))
      t.deepEqual([generation, restarts], [records, content, front].includes(id) ? [2, 1] : [1, 0], id);
  },
);

for (const [deed, what] of [
  ['compute', 'computes in a native call'],
  ['fifo', 'hangs at a file that nobody writes'],
] as const) {
  test.serial(
    `F6 a thread that ${what} cannot be ended: the daemon ends itself, and the next one serves`,
    async (t) => {
      t.timeout(120_000);
      const { daemon, order } = await useSabotagedDaemon(t, {
        config: 'version = 3\n[kernel]\nunresponsive = "500ms"\nkill = "500ms"\n',
      });
      await must(daemon, 'namespaces', 'create', 'kept');
      await order(content, deed);
      t.deepEqual(await daemon.exited, { code: null, signal: 'SIGKILL' });
      const last = daemon.log.findLast((line) => line.includes('level=fatal')) ?? '';
      t.regex(
        last,
        /msg="the daemon ends itself" reason="worker io\.containerd\.content\.v1\.content cannot be ended: /,
      );
      await daemon.stop();
      await daemon.start();
      t.regex(await must(daemon, 'namespaces', 'ls', '-q'), /^kept$/m);
      t.is((await daemon.stop()).code, 0);
    },
  );
}

test.serial('F6 SIGTERM ends a daemon that has such a thread as well', async (t) => {
  t.timeout(120_000);
  const { daemon, order } = await useSabotagedDaemon(t, { config: 'version = 3\n[kernel]\nkill = "0"\n' });
  await order(content, 'fifo');
  process.kill(daemon.pid, 'SIGTERM');
  t.deepEqual(await daemon.exited, { code: null, signal: 'SIGKILL' });
  t.regex(daemon.log.join('\n'), /level=fatal msg="the daemon ends itself" reason="worker \S+ .*cannot be ended"/);
  await daemon.stop();
  await daemon.start();
  t.regex(await must(daemon, 'version'), /Server:/);
});

for (const [deed, what, said] of [
  ['spin', 'loops', /the main thread has not come to rest for \d+ ms: the daemon ends itself/],
  ['wait', 'hangs in a call', /the main thread has waited in a call for \d+ ms: the daemon ends itself/],
] as const) {
  containerTest.serial(
    `F8 a main thread that ${what} is noticed by the workers: the daemon ends, its container runs on, and the next one has it again`,
    async (t) => {
      t.timeout(120_000);
      const { daemon, order } = await useSabotagedDaemon(t);
      const dir = useScratch(t, 'image');
      const archive = join(dir, 'image.tar');
      writeOciArchive(archive, imageLayout({ layers: [busyboxLayer] }), name);
      await must(daemon, 'images', 'import', archive);
      await must(daemon, 'run', '-d', '--pid-file', join(dir, 'pid'), name, 'box', 'sleep', '1000');
      const pid = readFileSync(join(dir, 'pid'), 'utf8');
      const { pid: before } = daemon;
      await order('main', deed);
      t.deepEqual(await daemon.exited, { code: null, signal: 'SIGKILL' });
      t.regex(daemon.log.at(-1) ?? '', said);
      t.true(existsSync(`/proc/${pid}/ns/pid`));
      await daemon.stop();
      await daemon.start();
      t.not(daemon.pid, before);
      t.regex(await must(daemon, 'tasks', 'ls'), new RegExp(`^box +${pid} +RUNNING$`, 'm'));
      await must(daemon, 'tasks', 'rm', '-f', 'box');
    },
  );
}

test.serial('F8 a main thread that stalls for a second is waited for', async (t) => {
  const { daemon, order } = await useSabotagedDaemon(t);
  const kernel = useClient(t, daemon, KernelDefinition);
  const { pid } = await kernel.list({ ids: [] });
  await order('main', 'pause');
  // It is the main thread that answers: when it is asked often enough, it is asked in the pause as well.
  for (const until = performance.now() + 1500; performance.now() < until; ) await kernel.list({ ids: [] });
  t.is((await kernel.list({ ids: [] })).pid, pid);
  t.is((await daemon.stop()).code, 0);
});
