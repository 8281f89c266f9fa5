/** A container from the image: run with its output shown, and a process put into it. What `ctr run` and `ctr task exec` send. */
import { execFileSync } from 'node:child_process';
import { constants, closeSync, openSync, readSync } from 'node:fs';
import { basename, join } from 'node:path';
import {
  ContainersDefinition,
  CreateContainerRequest,
} from '../proto/gen/containerd/services/containers/v1/containers.ts';
import { SnapshotsDefinition } from '../proto/gen/containerd/services/snapshots/v1/snapshots.ts';
import {
  CreateTaskRequest,
  ExecProcessRequest,
  TasksDefinition,
} from '../proto/gen/containerd/services/tasks/v1/tasks.ts';
import { type GrpcClient, typedClient } from '../kernel/front/client.ts';
import { Failure } from '../kernel/sdk/failure.ts';

const specType = 'types.containerd.io/opencontainers/runtime-spec/1';
const encoder = new TextEncoder();

export interface Ran {
  readonly output: string;
  readonly exitStatus: number;
}

export class DemoContainer {
  readonly #client: GrpcClient;
  readonly #id: string;
  readonly #directory: string;
  readonly #snapshotter: string;

  /** @param directory the demo's own, for FIFOs; its name is that of the container's parent cgroup, too */
  constructor(client: GrpcClient, id: string, directory: string, snapshotter: string) {
    this.#client = client;
    this.#id = id;
    this.#directory = directory;
    this.#snapshotter = snapshotter;
  }

  async create(chain: string, image: string, args: readonly string[]): Promise<void> {
    await typedClient(this.#client, SnapshotsDefinition).prepare({
      snapshotter: this.#snapshotter,
      key: this.#id,
      parent: chain,
      labels: { 'containerd.io/gc.root': new Date().toISOString() },
    });
    await typedClient(this.#client, ContainersDefinition).create(
      CreateContainerRequest.fromPartial({
        container: {
          id: this.#id,
          image,
          snapshotter: this.#snapshotter,
          snapshotKey: this.#id,
          runtime: { name: 'io.containerd.runc.v2' },
          spec: {
            typeUrl: `${specType}/Spec`,
            value: encoder.encode(JSON.stringify(spec(this.#id, basename(this.#directory), args))),
          },
        },
      }),
    );
  }

  /** Starts the main process; what it prints comes when it ends. */
  async start(): Promise<{ pid: number; ended: Promise<Ran> }> {
    const tasks = typedClient(this.#client, TasksDefinition);
    const { mounts } = await typedClient(this.#client, SnapshotsDefinition).mounts({
      snapshotter: this.#snapshotter,
      key: this.#id,
    });
    const stdout = new Fifo(join(this.#directory, `${this.#id}.out`));
    await tasks.create(
      CreateTaskRequest.fromPartial({
        containerId: this.#id,
        rootfs: mounts,
        stdout: stdout.path,
        stderr: stdout.path,
      }),
    );
    const exit = tasks.wait({ containerId: this.#id, execId: '' }, { timeoutMs: 30_000 });
    const { pid } = await tasks.start({ containerId: this.#id, execId: '' });
    return { pid, ended: exit.then(({ exitStatus }) => ({ output: stdout.drain(), exitStatus })) };
  }

  async exec(args: readonly string[]): Promise<Ran> {
    const tasks = typedClient(this.#client, TasksDefinition);
    const execId = 'demo-exec';
    const stdout = new Fifo(join(this.#directory, `${execId}.out`));
    await tasks.exec(
      ExecProcessRequest.fromPartial({
        containerId: this.#id,
        execId,
        stdout: stdout.path,
        stderr: stdout.path,
        spec: { typeUrl: `${specType}/Process`, value: encoder.encode(JSON.stringify(processOf(args))) },
      }),
    );
    const exit = tasks.wait({ containerId: this.#id, execId }, { timeoutMs: 30_000 });
    await tasks.start({ containerId: this.#id, execId });
    const { exitStatus } = await exit;
    await tasks.deleteProcess({ containerId: this.#id, execId });
    return { output: stdout.drain(), exitStatus };
  }

  /** However far it came: what runs is ended first, and what is not there is fine. */
  async remove(): Promise<void> {
    const tasks = typedClient(this.#client, TasksDefinition);
    const name = { containerId: this.#id };
    try {
      await tasks.kill({ ...name, execId: '', signal: 9, all: true });
      await tasks.wait({ ...name, execId: '' }, { timeoutMs: 10_000 });
    } catch (error) {
      // No task, or one that has ended.
      if (!Failure.is(error, 'NotFound') && !Failure.is(error, 'FailedPrecondition')) throw error;
    }
    const snapshot = { snapshotter: this.#snapshotter, key: this.#id };
    for (const step of [
      () => tasks.delete(name),
      () => typedClient(this.#client, ContainersDefinition).delete({ id: this.#id }),
      () => typedClient(this.#client, SnapshotsDefinition).remove(snapshot),
    ]) {
      try {
        await step();
      } catch (error) {
        if (!Failure.is(error, 'NotFound')) throw error;
      }
    }
  }
}

/** A FIFO that we hold open at both ends, so that nobody waits for the other to come. Its 64 KiB hold what the demo prints. */
class Fifo {
  readonly path: string;
  readonly #fd: number;

  constructor(path: string) {
    execFileSync('mkfifo', ['-m', '600', path]);
    this.path = path;
    this.#fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
  }

  drain(): string {
    const buffer = Buffer.alloc(65_536);
    try {
      return buffer.toString('utf8', 0, readSync(this.#fd, buffer));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EAGAIN') return '';
      throw error;
    } finally {
      closeSync(this.#fd);
    }
  }
}

function processOf(args: readonly string[]) {
  const caps = ['CAP_CHOWN', 'CAP_KILL', 'CAP_SETUID', 'CAP_SETGID'];
  return {
    user: { uid: 0, gid: 0 },
    args,
    env: ['PATH=/bin'],
    cwd: '/',
    noNewPrivileges: true,
    capabilities: { bounding: caps, effective: caps, permitted: caps },
  };
}

/** OCI runtime spec: the least that isolates, with the namespaces and masked paths that `ctr run` gives. */
function spec(id: string, cgroup: string, args: readonly string[]) {
  return {
    ociVersion: '1.0.2',
    process: processOf(args),
    root: { path: 'rootfs' },
    hostname: id,
    mounts: [
      { destination: '/proc', type: 'proc', source: 'proc', options: ['nosuid', 'noexec', 'nodev'] },
      {
        destination: '/dev',
        type: 'tmpfs',
        source: 'tmpfs',
        options: ['nosuid', 'strictatime', 'mode=755', 'size=65536k'],
      },
      { destination: '/sys', type: 'sysfs', source: 'sysfs', options: ['nosuid', 'noexec', 'nodev', 'ro'] },
    ],
    linux: {
      cgroupsPath: `/${cgroup}/${id}`,
      resources: { devices: [{ allow: false, access: 'rwm' }] },
      namespaces: ['pid', 'ipc', 'uts', 'mount', 'network'].map((type) => ({ type })),
      maskedPaths: [
        '/proc/acpi',
        '/proc/kcore',
        '/proc/keys',
        '/proc/latency_stats',
        '/proc/timer_list',
        '/proc/sched_debug',
        '/sys/firmware',
        '/sys/devices/virtual/powercap',
      ],
      readonlyPaths: ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger'],
    },
  };
}
