/** Tasks, and all that a container's life goes through, are replaced while one runs: who waits is told its exit, exec works, every event comes once. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { TasksDefinition } from 'troupe/proto/containerd/services/tasks/v1/tasks.ts';
import { KernelDefinition } from 'troupe/proto/troupe/kernel/v1/kernel.ts';
import { useDaemon } from '../helpers/daemon.ts';
import { Feed } from '../helpers/feed.ts';
import { busyboxLayer, imageLayout, writeOciArchive } from '../helpers/image.ts';
import { needing } from '../helpers/privilege.ts';
import { useScratch } from '../helpers/scratch.ts';
import { useClient } from '../helpers/trouped.ts';

const containerTest = needing('root', 'mount', 'cgroup', 'program ctr', 'program runc', 'program busybox');
const tasksId = 'io.containerd.runtime.v2.task';
const fellows = [
  'io.containerd.event.v1.exchange',
  tasksId,
  'io.containerd.service.v1.containers-service',
  'io.containerd.service.v1.snapshots-service',
  'io.containerd.snapshotter.v1.overlayfs',
  'troupe.records.v1.records',
] as const;
const name = 'docker.io/library/box:1';
const untilTold = (exit: number): string => `trap "exit ${exit}" TERM; while :; do sleep 0.05; done`;

containerTest(
  'B14 a container runs on while tasks and its fellows are reloaded: Wait answers with its exit, exec works, each event comes once',
  async (t) => {
    t.timeout(120_000);
    const daemon = await useDaemon(t);
    const dir = useScratch(t, 'image');
    const archive = join(dir, 'image.tar');
    writeOciArchive(archive, imageLayout({ layers: [busyboxLayer], compression: 'none' }), name);
    const must = async (...args: string[]): Promise<string> => {
      const { code, signal, stdout, stderr } = await daemon.ctr(args);
      if (code !== 0) throw new Error(`ctr ${args.join(' ')}: ${code ?? signal}\n${stdout}${stderr}`);
      return stdout;
    };
    await must('images', 'import', archive);
    const kernel = useClient(t, daemon, KernelDefinition);
    const tasks = useClient(t, daemon, TasksDefinition);
    const feed = new Feed(daemon.address, []);
    t.teardown(() => feed.close());
    // It stands when the first comes.
    const stands = feed.until(/\/namespaces\/create/).then(() => true);
    for (let n = 0; !(await Promise.race([stands, sleep(20, false)])); n++) await must('namespaces', 'create', `n${n}`);

    await must('run', '-d', '--pid-file', join(dir, 'pid'), name, 'box', 'sh', '-c', untilTold(7));
    await must('tasks', 'exec', '-d', '--exec-id', 'early', 'box', 'sh', '-c', untilTold(5));
    const pid = readFileSync(join(dir, 'pid'), 'utf8');
    const over: string[] = [];
    const waits = ['', 'early'].map(async (execId) => {
      const { exitStatus } = await tasks.wait({ containerId: 'box', execId });
      over.push(`${execId} ${exitStatus}`);
      return exitStatus;
    });
    for (const wait of waits) wait.catch(() => {});
    /** Nothing tells that a call has been begun. */
    const waiting = async (): Promise<bigint | undefined> => {
      const { plugins } = await kernel.list({ ids: [tasksId] });
      return plugins[0]?.methods.find(({ method }) => method === 'containerd.services.tasks.v1.Tasks/Wait')?.inFlight;
    };
    while ((await waiting()) !== 2n) await Promise.race([sleep(10), ...waits]);

    for (let round = 1; round <= 2; round++) {
      for (const id of fellows) {
        const { outcome, reason } = await kernel.reload({ id, force: true });
        t.is(outcome, 'reloaded', `${id}: ${reason}`);
      }
      t.deepEqual(over, []);
      t.regex(await must('tasks', 'ls'), new RegExp(`^box +${pid} +RUNNING$`, 'm'));
      const exec = await daemon.ctr([
        'tasks',
        'exec',
        '--exec-id',
        `round${round}`,
        'box',
        'sh',
        '-c',
        `exit ${round}`,
      ]);
      t.is(exec.code, round, exec.stderr);
    }

    await must('tasks', 'kill', '-s', 'SIGTERM', '--exec-id', 'early', 'box');
    t.is(await waits[1], 5);
    t.deepEqual(over, ['early 5']);
    await must('tasks', 'kill', '-s', 'SIGTERM', 'box');
    t.is(await waits[0], 7);
    await must('tasks', 'rm', 'box').catch((error: Error) => t.regex(error.message, /: 7\n/));
    await must('containers', 'rm', 'box');
    // What has caused it comes before it.
    await feed.until(/\/containers\/delete /);
    const exits = feed.lines.filter((line) => line.includes(' /tasks/exit '));
    const exitOf = (id: string): unknown[] =>
      exits.filter((line) => line.includes(`"id":"${id}"`)).map((line) => /"exit_status":(\d+)/.exec(line)?.[1]);
    t.deepEqual(
      ['round1', 'round2', 'early', 'box'].map((id) => [id, ...exitOf(id)]),
      [
        ['round1', '1'],
        ['round2', '2'],
        ['early', '5'],
        ['box', '7'],
      ],
      feed.lines.join('\n'),
    );
    for (const topic of ['/tasks/create', '/tasks/start', '/tasks/delete'])
      t.is(feed.topics().filter((each) => each === topic).length, 1, `${topic}: ${feed.topics().join()}`);
    t.is(feed.topics().filter((each) => each === '/tasks/exec-started').length, 3);
    for (const { id, generation, restarts } of (await kernel.list({ ids: [...fellows] })).plugins)
      t.deepEqual([generation, restarts], [3, 0], id);
  },
);
