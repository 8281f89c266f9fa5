/** Making a task: bundle, shim, and the shim's Create. Whatever fails, what was made before it is taken away again. */

import { Failure, failpoint } from 'troupe/plugin';
import { Any } from 'troupe/proto/google/protobuf/any.ts';
import { BootstrapParams, Extension } from 'troupe/proto/containerd/runtime/bootstrap/v1/bootstrap.ts';
import type { Mount } from 'troupe/proto/containerd/types/mount.ts';
import type { Bundle } from './bundle.ts';
import { cleanAfterShim, removeBundle, retireShim, unlinkDeadSocket } from './burial.ts';
import type { TasksHost } from './host.ts';
import { resolveShimBinary, startInputOf } from './shim-binary.ts';
import { parseStartOutput } from './shim-address.ts';
import { during, withoutPrivilege } from './shim-failure.ts';
import { ShimLog } from './shim-log.ts';
import { plausiblePid } from './shim-pid.ts';
import { startShim } from './shim-process.ts';
import { Shim, type ShimCallOptions } from './shim.ts';
import { Task } from './task.ts';

export interface CreateOptions extends ShimCallOptions {
  readonly namespace: string;
  readonly id: string;
  /** The container's OCI spec as JSON. */
  readonly spec: Uint8Array;
  /** A runtime's name or the absolute path of a shim. */
  readonly runtime: string;
  /** Options of the runtime from the container's record. */
  readonly runtimeOptions: Any | undefined;
  /** Options of the task from the request; they come before the runtime's. */
  readonly taskOptions: Any | undefined;
  readonly rootfs: readonly Mount[];
  readonly stdin: string;
  readonly stdout: string;
  readonly stderr: string;
  readonly terminal: boolean;
  /** Directory of a checkpoint to restore from, or ''. */
  readonly checkpoint: string;
}

/**
 * @param inUse whether another task has the shim at this socket: shims group tasks by an annotation of their spec, and `start` then answers with the one there is.
 * @throws Failure with containerd's words: `failed to start shim: …` or `failed to create shim task: …`; PermissionDenied where this daemon lacks what it takes.
 */
export async function createTask(
  host: TasksHost,
  bundle: Bundle,
  options: CreateOptions,
  inUse: (socketPath: string) => boolean,
): Promise<Task> {
  const task = await started(host, bundle, options, inUse);
  try {
    const { id, rootfs, stdin, stdout, stderr, terminal, checkpoint, timeout, signal } = options;
    const reply = await task.connection.call(
      'create',
      {
        id,
        bundle: bundle.path,
        rootfs: [...rootfs],
        stdin,
        stdout,
        stderr,
        terminal,
        checkpoint,
        parentCheckpoint: '',
        options: options.taskOptions ?? options.runtimeOptions,
      },
      { timeout, ...(signal === undefined ? {} : { signal }) },
    );
    failpoint('tasks.shim.created');
    if (!plausiblePid(reply.pid))
      throw new Failure('Unknown', `shim claims pid ${reply.pid} for the container: unknown`);
    task.pid = reply.pid;
    return task;
  } catch (error) {
    await abandon(host, task, inUse);
    throw withoutPrivilege(during('failed to create shim task', error));
  }
}

/** A task with a shim that runs and is connected. */
async function started(
  host: TasksHost,
  bundle: Bundle,
  options: CreateOptions,
  inUse: (socketPath: string) => boolean,
): Promise<Task> {
  const binary = attempt('failed to start shim: failed to resolve runtime path', () =>
    resolveShimBinary(options.runtime, process.env.PATH ?? '', host.daemon.publishBinary),
  );
  await bundle.create(options.spec);
  const task = new Task(bundle, binary);
  let launched = false;
  try {
    await bundle.writeBinary(binary);
    task.log = new ShimLog(bundle, host.log);
    const stdin = await startInput(host, binary, options);
    failpoint('tasks.shim.start');
    launched = true;
    const identity = { namespace: bundle.namespace, id: bundle.id, bundle: bundle.path, binary };
    const address = parseStartOutput(await startShim(host, identity, stdin, options.signal));
    failpoint('tasks.shim.started');
    await bundle.writeAddress(address);
    task.shim = await Shim.connect(address, bundle.namespace, host.timeouts.load, host.log);
    return task;
  } catch (error) {
    if (launched) await abandon(host, task, inUse);
    else await discard(host, task);
    throw withoutPrivilege(during('failed to start shim: start failed', error));
  }
}

/** Up to 2.2 a shim reads an Any of its options, since then everything it should know. No options are no bytes. */
async function startInput(host: TasksHost, binary: string, options: CreateOptions): Promise<Uint8Array> {
  const { taskOptions, runtimeOptions } = options;
  const chosen = taskOptions !== undefined && taskOptions.value.length > 0 ? taskOptions : runtimeOptions;
  if ((await startInputOf(host, binary)) === 'options') {
    return chosen === undefined ? new Uint8Array(0) : Any.encode(chosen).finish();
  }
  const { address, ttrpcAddress, publishBinary, version } = host.daemon;
  return BootstrapParams.encode(
    BootstrapParams.fromPartial({
      instanceId: options.id,
      namespace: options.namespace,
      containerdVersion: version,
      containerdTtrpcAddress: ttrpcAddress,
      containerdGrpcAddress: address,
      containerdBinary: publishBinary,
      extensions: chosen === undefined ? [] : [Extension.fromPartial({ value: chosen })],
    }),
  ).finish();
}

/** Takes away a task that did not come about. The shim may hold the container half made, so its own Delete comes first, and its binary's when it cannot. */
async function abandon(host: TasksHost, task: Task, inUse: (socketPath: string) => boolean): Promise<void> {
  const { shim } = task;
  let clean = false;
  if (shim?.alive) {
    try {
      await shim.call('delete', { id: task.id, execId: '' }, { timeout: host.timeouts.cleanup });
      clean = true;
    } catch (error) {
      clean = Failure.is(error, 'NotFound');
    }
  }
  await retireShim(host, task, shim !== undefined && inUse(shim.address.path));
  if (!clean) await cleanAfterShim(host, task);
  await discard(host, task);
  if (shim !== undefined) unlinkDeadSocket(shim.address.path);
}

async function discard(host: TasksHost, task: Task): Promise<void> {
  await removeBundle(host, task);
  task.finish(undefined);
}

function attempt<T>(what: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw during(what, error);
  }
}
