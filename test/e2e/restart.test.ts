/** Containers outlive their daemon, however it ends; the next one finds them, and what became of them meanwhile. */
import { spawn } from 'node:child_process';
import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { TasksDefinition } from 'troupe/proto/containerd/services/tasks/v1/tasks.ts';
import { GrpcClient, typedClient } from '../../kernel/front/client.ts';
import { usePair } from '../helpers/pair.ts';
import { mountsBelow } from '../helpers/scratch.ts';
import type { Side } from '../helpers/side.ts';

// A dead shim is cleaned up after when the test says so, which may take longer than a shim may as a rule.
const { test, both, ours } = usePair('[timeouts]\n"io.containerd.timeout.shim.cleanup" = "60s"\n');

const isAlive = (pid: number): boolean => existsSync(`/proc/${pid}/ns/pid`);

/** Resolves when `condition` holds; nothing tells when that is. @throws after a minute without it */
async function until(condition: () => boolean): Promise<void> {
  for (const end = performance.now() + 60_000; !condition(); await sleep(10))
    if (performance.now() > end) throw new Error(`never: ${condition}`);
}

/** Takes a process away, and sees that it went. */
async function kill(pid: number): Promise<void> {
  process.kill(pid, 'SIGKILL');
  await until(() => {
    try {
      return /^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
    } catch {
      return true;
    }
  });
}

/** The socket of a container's shim, from the bundle. */
const socketOf = (side: Side, id: string): string =>
  readFileSync(join(side.bundle(id), 'address'), 'utf8').replace(/^unix:\/\//, '');

/** `ctr tasks ls`, sorted: the order in which a daemon found its tasks is nobody's promise. */
const tasksOf = async (side: Side): Promise<string> => (await side.must(['tasks', 'ls'])).split('\n').sort().join('\n');

/** What of a container is still there. */
function remains(side: Side, id: string, socket: string): string {
  const parts = {
    shim: side.shims(id).length > 0,
    bundle: existsSync(side.bundle(id)),
    mounts: mountsBelow(side.bundle(id)).length > 0,
    socket: existsSync(socket),
    runc: existsSync(`/run/containerd/runc/${side.namespace}/${id}`),
    cgroup: existsSync(`/sys/fs/cgroup/memory/${side.namespace}/${id}`),
  };
  return Object.entries(parts)
    .filter(([, there]) => there)
    .map(([name]) => name)
    .join();
}

test('after kill -9 running containers are found again, and do all they did', async (t) => {
  const said = await both(t, async (side) => {
    await side.image();
    const one = await side.running('one', ['sh', '-c', 'while :; do sleep 0.05; done']);
    const two = await side.running('two');
    await side.must(['tasks', 'pause', 'two']);
    await side.must(['tasks', 'exec', '-d', '--exec-id', 'second', 'one', 'sleep', '1000']);
    await side.server.stop('SIGKILL');
    side.note(`alive: ${isAlive(one)} ${isAlive(two)}, shims ${side.shims('one').length} ${side.shims('two').length}`);
    await side.server.start();
    const events = await side.events();
    side.note(await tasksOf(side));
    await side.show(['containers', 'ls']);
    await side.exec('one', [], 'cat /etc/motd');
    side.note(
      (await side.ctr(['tasks', 'ps', 'one'])).stdout
        .replace(/^\d+ .*ExecID:second.*$/m, 'second')
        .replace(/^\d+ +-$/gm, 'PID -')
        .split('\n')
        // Between two naps there is one process of the container, else two.
        .filter((line, index, lines) => lines.indexOf(line) === index)
        .sort()
        .join('\n'),
    );
    side.note(`metrics ${(await side.ctr(['tasks', 'metrics', 'one'])).code}`);
    await side.show(['tasks', 'resume', 'two']);
    await side.show(['tasks', 'pause', 'one']);
    side.note(await tasksOf(side));
    await side.show(['tasks', 'resume', 'one']);
    await side.show(['tasks', 'kill', '--exec-id', 'second', '-s', '9', 'one']);
    await events.until(/\/tasks\/exit .*"second"/);
    await side.show(['tasks', 'rm', '--exec-id', 'second', 'one']);
    await side.talk(
      ['tasks', 'attach', 'one'],
      [{ after: /^/, input: () => void side.must(['tasks', 'kill', '-s', 'SIGKILL', 'one']).catch(() => {}) }],
    );
    side.note(await events.until(/\/tasks\/exit .*"id":"one"/));
    await side.show(['tasks', 'rm', '-f', 'two']);
    await side.show(['containers', 'rm', 'one', 'two']);
    await side.show(['run', '--rm', await side.image(), 'one', 'echo', 'anew']);
    await side.show(['tasks', 'ls']);
  });
  t.regex(said, /alive: true true, shims 1 1\n/);
  t.regex(said, /\none PID-OF-one RUNNING\ntwo PID-OF-two PAUSED\n/);
  t.regex(said, /hello from the second layer\nheard\nexit 0\n/);
  t.regex(said, /\nanew\nexit 0\n/);
});

test('SIGTERM leaves containers running as well', async (t) => {
  const said = await both(t, async (side) => {
    await side.image();
    const pid = await side.running('box');
    await side.server.stop('SIGTERM');
    side.note(`alive: ${isAlive(pid)}, shims ${side.shims('box').length}`);
    await side.server.start();
    await side.show(['tasks', 'ls']);
    await side.exec('box', [], 'echo still');
    await side.show(['tasks', 'rm', '-f', 'box']);
  });
  t.regex(said, /alive: true, shims 1\n/);
  t.regex(said, /\nbox PID-OF-box RUNNING\n/);
});

test('a container that ended while there was no daemon is found stopped, with its exit', async (t) => {
  const said = await both(t, async (side) => {
    await side.image();
    const pid = await side.running('box');
    const code = await side.running('coded', ['sh', '-c', 'trap "exit 4" TERM; while :; do sleep 0.05; done']);
    const socket = socketOf(side, 'box');
    // Its trap is there when something ran after it.
    await side.exec(
      'coded',
      [],
      'until [ "$(cat /proc/1/status | grep SigCgt | tail -c 5)" != 0000 ]; do sleep 0.05; done',
    );
    await side.server.stop('SIGKILL');
    process.kill(code, 'SIGTERM');
    await kill(pid);
    await until(() => !existsSync(`/proc/${code}`) && !existsSync(`/proc/${pid}`));
    await side.server.start();
    side.note(await tasksOf(side));
    await side.show(['tasks', 'exec', '--exec-id', 'late', 'box', 'true']);
    await side.show(['tasks', 'attach', 'coded']);
    await side.show(['tasks', 'ls']);
    await side.show(['tasks', 'rm', 'coded']);
    await side.show(['tasks', 'rm', 'box']);
    await side.show(['containers', 'rm', 'box', 'coded']);
    await until(() => side.shims('box').length === 0);
    side.note(`remains: ${remains(side, 'box', socket)}`);
  });
  t.regex(said, /\nbox PID-OF-box STOPPED\ncoded PID-OF-coded STOPPED\n/);
  t.regex(said, /\$ ctr tasks attach coded\n(⏎\n)?exit 4\n/);
  t.regex(said, /remains:\n/);
});

test('the exit of such a container is heard once, from its shim', async (t) => {
  const said = await ours(t, async (side) => {
    await side.image();
    const before = await side.events();
    const pid = await side.running('box');
    // What a shim could not say before the daemon ended it says again later, and that may be after the exit.
    await before.until(/\/tasks\/start/);
    const [shim] = side.shims('box');
    await side.server.stop('SIGKILL');
    await kill(pid);
    await until(() => !existsSync(`/proc/${pid}`));
    // The shim has seen the exit, and waits with it until somebody listens.
    process.kill(shim!, 'SIGSTOP');
    await side.server.start();
    const events = await side.events();
    process.kill(shim!, 'SIGCONT');
    await events.until(/\/tasks\/exit/);
    await side.show(['tasks', 'ls']);
    await side.show(['tasks', 'rm', 'box']);
    await side.must(['containers', 'rm', 'box']);
    await events.until(/\/containers\/delete/);
    for (const line of events.lines.filter((each) => each.includes('/tasks/'))) side.note(line);
  });
  t.regex(
    said,
    /exit 0\nTIME NAMESPACE \/tasks\/exit \{"container_id":"box","id":"box","pid":PID-OF-box,"exit_status":137,"exited_at":"TIME"\}\nTIME NAMESPACE \/tasks\/delete .*\n$/,
  );
});

test('the exit that its shim has given up is heard once, from the daemon (slow: the shim tries for 15 s)', async (t) => {
  const said = await ours(t, async (side) => {
    await side.image();
    const before = await side.events();
    const pid = await side.running('box');
    // What a shim could not say before the daemon ended it says again later, and that may be after the exit.
    await before.until(/\/tasks\/start/);
    const [shim] = side.shims('box');
    await side.server.stop('SIGKILL');
    // It says so in its log, which nobody else reads meanwhile.
    const log = spawn('cat', [join(side.bundle('box'), 'log')], { stdio: ['ignore', 'pipe', 'inherit'] });
    await kill(pid);
    for await (const line of createInterface({ input: log.stdout })) if (/evicting .tasks.exit /.test(line)) break;
    log.kill();
    // Found only when there is somebody to hear of it.
    process.kill(shim!, 'SIGSTOP');
    await side.server.start();
    const events = await side.events();
    process.kill(shim!, 'SIGCONT');
    side.note(await events.until(/\/tasks\/exit/));
    await side.show(['tasks', 'ls']);
    await side.show(['tasks', 'rm', 'box']);
    await side.must(['containers', 'rm', 'box']);
    await events.until(/\/containers\/delete/);
    side.note(events.topics(/\/tasks\//).join(' '));
  });
  t.regex(
    said,
    /\/tasks\/exit \{"container_id":"box","id":"box","pid":PID-OF-box,"exit_status":137,"exited_at":"TIME"\}\n/,
  );
  t.regex(said, /\nbox PID-OF-box STOPPED\n/);
  t.regex(said, /\n\/tasks\/exit \/tasks\/delete\n$/);
});

test('a shim that is killed takes its container with it, and nothing of either stays', async (t) => {
  const said = await both(t, async (side) => {
    const image = await side.image();
    // What ended soon after the start of the daemon is told to those who listen soon after it.
    const events = await side.events(`namespace==${side.namespace}`);
    const pid = await side.running('box');
    const socket = socketOf(side, 'box');
    side.note(`remains: ${remains(side, 'box', socket)}`);
    await kill(side.shims('box')[0]!);
    side.note(await events.until(/\/tasks\/exit/));
    side.note(await events.until(/\/tasks\/delete/));
    await until(() => !isAlive(pid) && !existsSync(side.bundle('box')));
    await side.show(['tasks', 'ls']);
    await side.show(['tasks', 'kill', 'box']);
    await side.show(['containers', 'ls', '-q']);
    await side.show(['tasks', 'start', '-d', 'box']);
    await side.must(['tasks', 'rm', '-f', 'box']);
    await side.show(['containers', 'rm', 'box']);
    await side.show(['run', '--rm', image, 'box', 'echo', 'anew']);
    if (side.name === 'troupe') t.is(remains(side, 'box', socket), '');
  });
  t.regex(said, /remains: shim,bundle,mounts,socket,runc,cgroup\n/);
  t.regex(
    said,
    /\/tasks\/exit \{"container_id":"box","id":"box","pid":PID-OF-box,"exit_status":137,"exited_at":"TIME"\}\n/,
  );
  t.regex(said, /\nanew\nexit 0\n/);
});

test('who waits for a container whose shim is killed is told its exit', async (t) => {
  // containerd tells the connection's end instead: `ttrpc: closed: unknown`.
  await ours(t, async (side) => {
    await side.image();
    await side.running('box');
    await side.must(['tasks', 'exec', '-d', '--exec-id', 'second', 'box', 'sleep', '1000']);
    const client = new GrpcClient(side.server.address, { namespace: side.namespace });
    try {
      const tasks = typedClient(client, TasksDefinition);
      const waits = ['', 'second'].map((execId) => tasks.wait({ containerId: 'box', execId }));
      // What is answered was asked after them, on the same way.
      await tasks.get({ containerId: 'box', execId: '' });
      await kill(side.shims('box')[0]!);
      for (const { exitStatus, exitedAt } of await Promise.all(waits)) {
        t.is(exitStatus, 137);
        t.truthy(exitedAt);
      }
      await t.throwsAsync(tasks.wait({ containerId: 'box', execId: '' }), { message: /task box not found: not found/ });
    } finally {
      client.close();
    }
  });
});

test('a shim that died while there was no daemon is cleaned up after by the next', async (t) => {
  const said = await ours(t, async (side) => {
    await side.image();
    const real = '/usr/bin/containerd-shim-runc-v2';
    const go = join(side.dir, 'go');
    const wrapper = join(side.dir, 'containerd-shim-waits-v2');
    // Its cleaning up waits until somebody listens.
    writeFileSync(
      wrapper,
      `#!/bin/sh\nfor last; do :; done\n[ "$last" != delete ] || until [ -e ${go} ]; do sleep 0.05; done\nexec ${real} "$@"\n`,
    );
    chmodSync(wrapper, 0o755);
    const pid = await side.running('box', ['sleep', '1000'], ['--runtime', wrapper]);
    const plain = await side.running('plain');
    const sockets = [socketOf(side, 'box'), socketOf(side, 'plain')];
    await side.server.stop('SIGKILL');
    for (const id of ['box', 'plain']) await kill(side.shims(id)[0]!);
    side.note(`alive: ${isAlive(pid)} ${isAlive(plain)}`);
    await side.server.start();
    const events = await side.events();
    writeFileSync(go, '');
    side.note(await events.until(/\/tasks\/exit .*"box"/));
    side.note(await events.until(/\/tasks\/delete .*"box"/));
    await until(() => !existsSync(side.bundle('box')) && !existsSync(side.bundle('plain')));
    await until(() => !isAlive(pid) && !isAlive(plain));
    side.note(`remains: ${remains(side, 'box', sockets[0]!)} ${remains(side, 'plain', sockets[1]!)}`);
    await side.show(['tasks', 'ls']);
    await side.show(['containers', 'ls', '-q']);
    await side.show(['tasks', 'start', '-d', '--null-io', 'plain']);
    await side.show(['tasks', 'rm', '-f', 'plain']);
    await side.show(['containers', 'rm', 'box', 'plain']);
  });
  t.regex(
    said,
    /\/tasks\/exit \{"container_id":"box","id":"box","pid":PID-OF-box,"exit_status":137,"exited_at":"TIME"\}\n/,
  );
  t.regex(said, /remains:\n/);
});
