/**
 * What tests of tasks stand on: a host with directories, a ttrpc socket that takes shims' events, and a root file system of busybox for real containers.
 * Everything of it is gone after the test, processes and mounts too.
 */

import {
  accessSync,
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  copyFileSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  symlinkSync,
} from 'node:fs';
import { spawn, spawnSync } from 'node:child_process';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { locks } from 'node:worker_threads';
import type { ExecutionContext } from 'ava';
import { TaskDelete, TaskExit } from 'troupe/proto/containerd/events/task.ts';
import { ForwardRequest } from 'troupe/proto/containerd/services/events/ttrpc/v1/events.ts';
import { MNT_DETACH, unmountAll } from 'troupe/sys';
import { TtrpcServer } from 'troupe/ttrpc';
import type { TasksHost, Timeouts } from './host.ts';

export interface SeenEvent {
  readonly topic: string;
  readonly namespace: string;
  /** `shim` when it came over ttrpc, `daemon` when the manager published it. */
  readonly from: 'shim' | 'daemon';
  readonly exit?: TaskExit;
  readonly delete?: TaskDelete;
}

export interface Rig {
  readonly directory: string;
  readonly host: TasksHost;
  readonly events: SeenEvent[];
  readonly logs: { level: string; message: string; fields: Record<string, unknown> }[];
  /** Resolves with the first event, past or future, that the predicate takes. */
  event(wanted: (event: SeenEvent) => boolean): Promise<SeenEvent>;
  /** Called for each exit that a shim publishes, as the daemon's subscription would. */
  onExit: (namespace: string, event: TaskExit) => void;
  /** A new directory with busybox in it. */
  rootfs(): string;
  /** Stops and starts taking events, as the daemon's death and start do. */
  hangUp(): Promise<void>;
  answer(): Promise<void>;
}

const quick: Timeouts = {
  load: 2000,
  cleanup: 5000,
  shutdown: 3000,
  state: 1000,
  stats: 2000,
  start: 10_000,
  kill: 1000,
};

/** Why real containers cannot run here, or undefined when they can. */
export function whyNoContainers(): string | undefined {
  if (process.getuid?.() !== 0) return 'not root';
  for (const program of ['containerd-shim-runc-v2', 'runc', 'busybox']) {
    if (pathOf(program) === undefined) return `${program} is not installed`;
  }
  try {
    accessSync('/sys/fs/cgroup', constants.W_OK);
  } catch {
    return 'cgroups are not writable';
  }
  return undefined;
}

export function pathOf(program: string): string | undefined {
  return (process.env.PATH ?? '')
    .split(delimiter)
    .map((directory) => join(directory, program))
    .find((path) => existsSync(path));
}

export async function makeRig(t: ExecutionContext, timeouts: Partial<Timeouts> = {}): Promise<Rig> {
  const base = existsSync('/dev/shm') ? '/dev/shm' : tmpdir();
  const directory = mkdtempSync(join(base, 'tasks-'));
  const address = join(directory, 'd.sock');
  const events: SeenEvent[] = [];
  const waiting = new Set<() => void>();
  const logs: Rig['logs'] = [];
  const log =
    (level: string) =>
    (message: string, fields: Record<string, unknown> = {}) => {
      logs.push({ level, message, fields });
      if (process.env.TASKS_TEST_LOG !== undefined) t.log(level, message, fields);
    };
  const see = (event: SeenEvent): void => {
    events.push(event);
    for (const look of waiting) look();
  };
  let server: TtrpcServer<Socket>;
  let listener: Server | undefined;
  const rig: Rig = {
    directory,
    events,
    logs,
    onExit: () => {},
    host: {
      state: join(directory, 'state'),
      root: join(directory, 'root'),
      daemon: { address, ttrpcAddress: `${address}.ttrpc`, publishBinary: '/bin/false', version: '1.6.20' },
      log: { debug: log('debug'), info: log('info'), warn: log('warn'), error: log('error') },
      spawn: (file, args, options) => spawn(file, args, options ?? {}),
      starting: (start) => start(),
      exclusive: async (name, work) => locks.request(`${directory}:${name}`, async () => work()),
      timeouts: { ...quick, ...timeouts },
      publishExit: async (namespace, exit) => see({ topic: '/tasks/exit', namespace, from: 'daemon', exit }),
      publishDelete: async (namespace, event) =>
        see({ topic: '/tasks/delete', namespace, from: 'daemon', delete: event }),
    },
    event(wanted) {
      const { promise, resolve } = Promise.withResolvers<SeenEvent>();
      const look = (): void => {
        const found = events.find(wanted);
        if (found === undefined) return;
        waiting.delete(look);
        resolve(found);
      };
      waiting.add(look);
      look();
      return promise;
    },
    rootfs() {
      const path = mkdtempSync(join(directory, 'rootfs-'));
      for (const name of ['bin', 'proc', 'sys', 'dev', 'tmp', 'etc']) mkdirSync(join(path, name));
      copyFileSync(pathOf('busybox')!, join(path, 'bin/busybox'));
      for (const name of ['sh', 'sleep', 'echo', 'cat', 'true', 'stty'])
        symlinkSync('busybox', join(path, 'bin', name));
      return path;
    },
    async hangUp() {
      server.close();
      await new Promise((resolve) => listener?.close(resolve));
    },
    async answer() {
      server = new TtrpcServer<Socket>({
        dispatch: async (call) => {
          const { envelope } = ForwardRequest.decode(call.payload);
          const { topic = '', namespace = '', event } = envelope ?? {};
          const value = event?.value ?? new Uint8Array(0);
          if (topic === '/tasks/exit') {
            const exit = TaskExit.decode(value);
            rig.onExit(namespace, exit);
            see({ topic, namespace, from: 'shim', exit });
          } else
            see({
              topic,
              namespace,
              from: 'shim',
              ...(topic === '/tasks/delete' ? { delete: TaskDelete.decode(value) } : {}),
            });
          return new Uint8Array(0);
        },
      });
      listener = createServer((socket) => server.accept(socket));
      await new Promise<void>((resolve) => listener?.listen(rig.host.daemon.ttrpcAddress, resolve));
    },
  };
  await rig.answer();
  t.teardown(async () => {
    await rig.hangUp();
    killShims(address);
    for (const namespace of directoriesIn(rig.host.state)) {
      const state = join(runcState, namespace);
      for (const id of directoriesIn(state)) spawnSync('runc', ['--root', state, 'delete', '--force', id]);
      for (const path of [state, ...directoriesIn(cgroups).map((name) => join(cgroups, name, namespace))])
        removeEmpty(path);
    }
    unmountAll(directory, MNT_DETACH);
    rmSync(directory, { recursive: true, force: true });
  });
  return rig;
}

const runcState = '/run/containerd/runc';
const cgroups = '/sys/fs/cgroup';

function directoriesIn(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}

function removeEmpty(path: string): void {
  try {
    rmdirSync(path);
  } catch {
    // Not there, or another's.
  }
}

/** Kills what a failed test left running: shims of this rig and the processes below them. */
function killShims(address: string): void {
  for (const pid of shimsOf(address)) {
    for (const child of [...childrenOf(pid), pid]) {
      try {
        process.kill(child, 'SIGKILL');
      } catch {
        // Ended by itself.
      }
    }
  }
}

/** Pids of shims that were started for the daemon at `address`. */
export function shimsOf(address: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^[0-9]+$/.test(name) && commandOf(name).includes(`-address\0${address}\0`))
    .map(Number);
}

function commandOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8');
  } catch {
    return '';
  }
}

function childrenOf(pid: number): number[] {
  try {
    return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number);
  } catch {
    return [];
  }
}

/** An OCI spec for `args` on `rootfs`, small and with the namespaces of an ordinary container. */
export function specOf(
  rootfs: string,
  namespace: string,
  id: string,
  args: readonly string[],
  more: object = {},
): Uint8Array {
  return Buffer.from(
    JSON.stringify({
      ociVersion: '1.0.2',
      process: { user: { uid: 0, gid: 0 }, args, env: ['PATH=/bin'], cwd: '/', terminal: false },
      root: { path: rootfs },
      hostname: 'box',
      mounts: [
        { destination: '/proc', type: 'proc', source: 'proc', options: ['nosuid', 'noexec', 'nodev'] },
        { destination: '/dev', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'mode=755'] },
        {
          destination: '/dev/pts',
          type: 'devpts',
          source: 'devpts',
          options: ['newinstance', 'ptmxmode=0666', 'mode=0620'],
        },
      ],
      linux: {
        cgroupsPath: `/${namespace}/${id}`,
        namespaces: ['pid', 'ipc', 'uts', 'mount'].map((type) => ({ type })),
      },
      ...more,
    }),
  );
}
