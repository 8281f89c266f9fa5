/**
 * The three ways in which a shim's binary is run as a command: `start`, `delete` and `-v`. Each has a deadline, after which its process group is killed, and
 * bounds on what it may print.
 */

import { once } from 'node:events';
import { constants } from 'node:os';
import type { Readable } from 'node:stream';
import { Failure } from 'troupe/plugin';
import { DeleteResponse } from 'troupe/proto/containerd/task/v2/task.ts';
import { canLaunch, launch, maxInputBytes } from '../lib/process/launch.ts';
import type { TasksHost } from './host.ts';
import { whenThereAreDescriptors } from './scarcity.ts';
import { settledWithin } from './settled.ts';
import { systemWords } from './shim-failure.ts';

/** An address, a DeleteResponse or a BootstrapResult; whatever prints more is no shim. */
const maxOutputBytes = 64 << 10;

/** What of an error's text is worth showing. */
const tailBytes = 8 << 10;

/** How long to wait, ms, for the pipes of a command that has ended: a child that kept them open must not hold the caller. */
const drainTime = 500;

export interface ShimCommand {
  readonly binary: string;
  readonly args: readonly string[];
  readonly cwd: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly stdin?: Uint8Array;
  /** Milliseconds. */
  readonly timeout: number;
  readonly signal?: AbortSignal;
}

export interface ShimOutput {
  /** null when it was ended by a signal. */
  readonly code: number | null;
  /** `SIGKILL` */
  readonly signal: string | null;
  readonly stdout: Buffer;
  /** Its last 8 KiB. */
  readonly stderr: Buffer;
}

/**
 * Runs a shim's binary to its end. Rejects with Unknown when it cannot be started, ResourceExhausted when it prints more than 64 KiB, DeadlineExceeded and
 * Canceled; a failed exit is not an error here.
 */
export function runShim(host: TasksHost, command: ShimCommand): Promise<ShimOutput> {
  const { binary, timeout, signal } = command;
  const { promise, resolve, reject } = Promise.withResolvers<ShimOutput>();
  if (signal?.aborted) {
    reject(Failure.from(signal.reason));
    return promise;
  }
  let program: Running;
  try {
    program = start(host, command);
  } catch (error) {
    reject(notStarted(binary, error));
    return promise;
  }
  const stdout: Buffer[] = [];
  let stderr: Buffer = Buffer.alloc(0);
  let printed = 0;
  let failure: Failure | undefined;
  let over = false;
  const end = (reason: Failure): void => {
    failure ??= reason;
    if (!over) killGroup(program.pid);
  };
  const timer = setTimeout(() => {
    end(new Failure('DeadlineExceeded', `${binary} ran longer than ${timeout} ms: context deadline exceeded`));
  }, timeout);
  const onAbort = (): void => end(Failure.from(signal?.reason));
  signal?.addEventListener('abort', onAbort, { once: true });
  program.stdout.on('data', (chunk: Buffer) => {
    printed += chunk.length;
    if (printed <= maxOutputBytes) stdout.push(chunk);
    else
      end(new Failure('ResourceExhausted', `${binary} printed more than ${maxOutputBytes} bytes: resource exhausted`));
  });
  program.stderr.on('data', (chunk: Buffer) => {
    stderr = Buffer.concat([stderr, chunk]).subarray(-tailBytes);
  });
  const drained = Promise.allSettled([once(program.stdout, 'close'), once(program.stderr, 'close')]);
  program.exited.then(
    async ({ code, signal: ended }) => {
      over = true;
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
      await settledWithin(drained, drainTime);
      program.stdout.destroy();
      program.stderr.destroy();
      if (failure !== undefined) reject(failure);
      else resolve({ code, signal: ended, stdout: Buffer.concat(stdout), stderr });
    },
    (error) => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
      reject(notStarted(binary, error));
    },
  );
  return promise;
}

interface Running {
  readonly pid: number;
  readonly stdout: Readable;
  readonly stderr: Readable;
  readonly exited: Promise<{ readonly code: number | null; readonly signal: string | null }>;
}

/**
 * In a session of its own: a signal to the daemon's group must not reach it, and all of it can be killed at once. Without forking where that is possible, for
 * a fork of the daemon costs more than the shim's whole start (launch.ts); by the SDK else.
 */
function start(host: TasksHost, { binary, args, cwd, env, stdin = new Uint8Array(0) }: ShimCommand): Running {
  const environment = { ...process.env, ...env };
  if (canLaunch && stdin.length <= maxInputBytes) {
    const { pid, stdout, stderr, exited } = host.starting(() => launch(binary, args, { cwd, env: environment, stdin }));
    const ended = exited.then(({ code, signal }) => ({ code: code ?? null, signal: signalName(signal) }));
    return { pid, stdout, stderr, exited: ended };
  }
  const child = host.spawn(binary, args, { cwd, env: environment, stdio: 'pipe', detached: true });
  const { promise: exited, resolve, reject } = Promise.withResolvers<Awaited<Running['exited']>>();
  child.on('error', reject);
  child.on('exit', (code, signal) => resolve({ code, signal }));
  // A shim that ends without reading its input closes the pipe; that is its choice.
  child.stdin?.on('error', () => {});
  child.stdin?.end(stdin);
  return { pid: child.pid ?? 0, stdout: child.stdout as Readable, stderr: child.stderr as Readable, exited };
}

function signalName(signal: number | undefined): string | null {
  if (signal === undefined) return null;
  return Object.entries(constants.signals).find(([, number]) => number === signal)?.[0] ?? `${signal}`;
}

function notStarted(binary: string, error: unknown): Failure {
  const reason = systemWords(error as NodeJS.ErrnoException);
  return new Failure('Unknown', `: fork/exec ${binary}: ${reason}: unknown`, { cause: error });
}

function killGroup(pid: number): void {
  if (pid <= 1) return;
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // Gone already.
  }
}

export interface ShimIdentity {
  readonly namespace: string;
  readonly id: string;
  /** Absolute path of the bundle, the command's current directory. */
  readonly bundle: string;
  readonly binary: string;
}

function flags(host: TasksHost, { namespace, id }: ShimIdentity): string[] {
  const { address, publishBinary } = host.daemon;
  return ['-namespace', namespace, '-address', address, '-publish-binary', publishBinary, '-id', id];
}

function environment(host: TasksHost, { namespace }: ShimIdentity): Record<string, string> {
  return {
    GOMAXPROCS: '2',
    MAX_SHIM_VERSION: '3',
    TTRPC_ADDRESS: host.daemon.ttrpcAddress,
    GRPC_ADDRESS: host.daemon.address,
    NAMESPACE: namespace,
  };
}

/** Starts a shim and returns what it printed. @throws Failure Unknown with its output when it fails. */
export async function startShim(
  host: TasksHost,
  shim: ShimIdentity,
  stdin: Uint8Array,
  signal?: AbortSignal,
): Promise<Buffer> {
  const output = await runShim(host, {
    binary: shim.binary,
    args: [...flags(host, shim), 'start'],
    cwd: shim.bundle,
    env: environment(host, shim),
    stdin,
    timeout: host.timeouts.start,
    ...(signal === undefined ? {} : { signal }),
  });
  if (output.code !== 0) throw new Failure('Unknown', `${said(output)}: ${ending(output)}: unknown`);
  if (output.stderr.length > 0)
    host.log.debug('shim printed to stderr at start', { ...about(shim), stderr: output.stderr.toString() });
  return output.stdout;
}

/**
 * Lets the shim's binary clean up after its dead daemon: end what is left of the container, undo its mounts. Undefined when it fails or says nothing sensible,
 * which the log then shows; the caller has to carry on either way.
 */
export async function deleteByShim(host: TasksHost, shim: ShimIdentity): Promise<DeleteResponse | undefined> {
  try {
    const output = await whenThereAreDescriptors(() =>
      runShim(host, {
        binary: shim.binary,
        args: [...flags(host, shim), '-bundle', shim.bundle, 'delete'],
        cwd: shim.bundle,
        env: environment(host, shim),
        timeout: host.timeouts.cleanup,
      }),
    );
    if (output.code !== 0) throw new Failure('Unknown', `${said(output)}: ${ending(output)}`);
    if (output.stderr.length > 0)
      host.log.warn('shim cleanup warns', { ...about(shim), stderr: output.stderr.toString() });
    return output.stdout.length === 0 ? undefined : DeleteResponse.decode(output.stdout);
  } catch (error) {
    host.log.warn('shim cleanup failed', { ...about(shim), error: Failure.from(error).message });
    return undefined;
  }
}

function about({ namespace, id }: ShimIdentity): { namespace: string; id: string } {
  return { namespace, id };
}

function said(output: ShimOutput): string {
  return Buffer.concat([output.stdout.subarray(-tailBytes), output.stderr])
    .subarray(-tailBytes)
    .toString();
}

function ending(output: ShimOutput): string {
  return output.signal === null ? `exit status ${output.code}` : `signal: ${output.signal}`;
}
