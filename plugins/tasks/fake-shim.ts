/** For tests: shims that this process plays, behind a binary that is a script and prints where the process listens. */
import { chmodSync, existsSync, readdirSync, writeFileSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import {
  ConnectResponse,
  CreateTaskResponse,
  DeleteResponse,
  StateResponse,
} from 'troupe/proto/containerd/task/v2/task.ts';
import { Status } from 'troupe/proto/containerd/v1/types/task.ts';
import { TtrpcServer, type TtrpcServerCall } from 'troupe/ttrpc';
import type { CreateOptions } from './creation.ts';
import { TaskManager } from './manager.ts';
import type { Rig } from './rig.ts';

const nothing = new Uint8Array(0);

export function start(t: ExecutionContext, rig: Rig): TaskManager {
  const manager = new TaskManager(rig.host);
  manager.activate(undefined);
  t.teardown(() => manager.stop());
  return manager;
}

/** A shim's binary that does `onStart` (shell) when it is started; its `delete` answers `exit` and leaves a mark. */
export function binary(
  rig: Rig,
  onStart: string,
  exit = DeleteResponse.fromPartial({ pid: 4242, exitStatus: 137 }),
): string {
  const path = join(rig.directory, `shim-${readdirSync(rig.directory).length}`);
  const answer = join(rig.directory, `answer-${readdirSync(rig.directory).length}`);
  writeFileSync(answer, DeleteResponse.encode(exit).finish());
  writeFileSync(
    path,
    `#!/bin/sh\nfor last; do :; done\ncase "$last" in\n  start) ${onStart} ;;\n  delete) echo deleted >> ${path}.deleted; cat ${answer} ;;\nesac\n`,
  );
  chmodSync(path, 0o755);
  return path;
}

export function options(runtime: string, more: Partial<CreateOptions> = {}): CreateOptions {
  return {
    namespace: 'fake',
    id: 'web',
    spec: Buffer.from('{}'),
    runtime,
    runtimeOptions: undefined,
    taskOptions: undefined,
    rootfs: [],
    stdin: '',
    stdout: '',
    stderr: '',
    terminal: false,
    checkpoint: '',
    timeout: 10_000,
    ...more,
  };
}

export type Answer = (call: TtrpcServerCall) => Promise<Uint8Array>;

/** Listens as a shim does. */
export async function listen(t: ExecutionContext, path: string, dispatch: Answer): Promise<TtrpcServer<Socket>> {
  const server = new TtrpcServer<Socket>({ dispatch });
  const listener = createServer((socket) => server.accept(socket));
  await new Promise<void>((resolve) => listener.listen(path, resolve));
  t.teardown(async () => {
    server.close();
    await new Promise((resolve) => listener.close(resolve));
  });
  return server;
}

/** A shim that does what it should, for a container of pid 4242. */
export const proper: Answer = async ({ method }) => {
  switch (method) {
    case 'Create':
      return CreateTaskResponse.encode({ pid: 4242 }).finish();
    case 'Connect':
      return ConnectResponse.encode(ConnectResponse.fromPartial({ shimPid: process.pid, taskPid: 4242 })).finish();
    case 'State':
      return StateResponse.encode(StateResponse.fromPartial({ pid: 4242, status: Status.RUNNING })).finish();
    case 'Delete':
      return DeleteResponse.encode(DeleteResponse.fromPartial({ pid: 4242, exitStatus: 5 })).finish();
    default:
      return nothing;
  }
};

export const never: Answer = () => new Promise<never>(() => {});

export function nothingLeft(t: ExecutionContext, rig: Rig): void {
  t.false(existsSync(join(rig.host.state, 'fake/web')));
  t.false(existsSync(join(rig.host.root, 'fake/web')));
}
