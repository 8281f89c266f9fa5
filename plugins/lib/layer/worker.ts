/**
 * The pool's thread: tasks by name, `apply`, `assist`, `writeAhead`, `complete` and `diff`, each synchronous where it touches the file system. Behind the threads that answer
 * calls, since it takes all the processor that there is.
 */

import { createHash } from 'node:crypto';
import { closeSync, constants, fstatSync, openSync } from 'node:fs';
import { isMainThread, parentPort } from 'node:worker_threads';
import { Failure, failpoint } from 'troupe/plugin';
import { setBackground, syncfs, threadPriority, umask, unshareFs } from 'troupe/sys';
import { compress } from '../compression/compress.ts';
import { applyBlob, digestOfFile } from './apply.ts';
import { Arrival } from './arrival.ts';
import { assistFeed } from './assist.ts';
import { directoryBelow, layersBelow } from './below.ts';
import { ChunkSender } from './channel.ts';
import { completeLayer } from './complete.ts';
import { diffLayer, NotPlain } from './diff.ts';
import { FeedMemory } from './feed-memory.ts';
import { LowerLayers } from './lower.ts';
import { quote } from './name.ts';
import { layersOf, type SnapshotMount, withDirectories, withMounted } from './mounts.ts';
import { may } from '../privilege/privilege.ts';
import {
  type ApplyResult,
  type ApplyTask,
  type AssistTask,
  type CompleteTask,
  type DiffResult,
  type DiffTask,
  type Outcome,
  TaskControl,
  type WriteAheadTask,
} from './task.ts';

/** Beyond what the process has. */
const NICE = 5;
const SLICE_MS = 20;
const CHUNK = 1 << 20;
/** Headers are small: they go to the compressor a few hundred at a time. */
const BLOCK = 1 << 18;

const exactModes = ownUmask();

if (!isMainThread) setBackground(Math.min(threadPriority() + NICE, 19), SLICE_MS);

export function apply(task: ApplyTask): Promise<Outcome<ApplyResult>> {
  return outcome(() => runApply(task));
}

/** This thread starts neither processes nor threads, which would inherit it. */
function ownUmask(): boolean {
  if (isMainThread) return false;
  try {
    unshareFs();
    umask(0);
    return true;
  } catch {
    // A sandbox that forbids it: modes are set one by one.
    return false;
  }
}

/** For as long as it is of use. */
export function assist(task: AssistTask): Promise<Outcome<void>> {
  return outcome(async () => assistFeed(new FeedMemory(task.memory)));
}

/**
 * Has the file system of `path` write what it holds. Its errors are of no interest: who promises that a layer is durable syncs it in the end, by a descriptor
 * from before the writes, which is told of each that was lost (syncfs(2)).
 */
export function writeAhead({ path }: WriteAheadTask): Promise<Outcome<void>> {
  return outcome(() => withDirectories([path], async ([fd]) => syncfs(fd!)));
}

/** Settles what a detached layer left open; see `completeLayer`. False: it has to be applied anew, with the layers below known. */
export function complete(task: CompleteTask): Promise<Outcome<boolean>> {
  return outcome(() =>
    withDirectories([task.upper, ...task.lower], async ([upper, ...lower]) => {
      const completed = completeLayer(upper!, new LowerLayers(lower), task.deferred);
      if (completed && task.sync) syncfs(upper!);
      return completed;
    }),
  );
}

export function diff(task: DiffTask): Promise<Outcome<DiffResult>> {
  return outcome(() => runDiff(task));
}

async function outcome<T>(work: () => Promise<T>): Promise<Outcome<T>> {
  try {
    return { value: await work() };
  } catch (error) {
    return { failure: Failure.from(error).toRecord() };
  }
}

async function runApply(task: ApplyTask): Promise<ApplyResult> {
  const control = new TaskControl(task.control);
  if (control.canceled) throw new Failure('Canceled', `${task.subject}: context canceled`);
  const layers = layersOf(task.mounts);
  const writable = layers?.upper;
  if (writable === undefined) {
    // Nothing of ours may hold on to what is unmounted in the end: nothing is written ahead.
    return withMounted(task.mounts, task.scratch, (path) => applyTo(task, control, path, undefined, () => {}));
  }
  if (layers!.detached === true) return applyDetached(task, control, writable);
  return applyTo(task, control, writable, task.mounts[0]!.type === 'overlay' ? layers!.lower : undefined);
}

/**
 * A client that unpacks the layers of an image at once gives each an overlay without lower directories. It cannot come back and settle what a layer
 * leaves open, so such a layer is refused, and the client takes it in its turn.
 */
async function applyDetached(task: ApplyTask, control: TaskControl, upper: string): Promise<ApplyResult> {
  if (!may.mark) {
    const why = 'a daemon without CAP_SYS_ADMIN on the machine cannot write the marks of overlayfs';
    throw inOrder(task, why);
  }
  const applied = await applyTo({ ...task, detached: true }, control, upper, undefined);
  const { implied, rootOpaque, incomplete } = applied.deferred;
  if (incomplete) throw inOrder(task, 'it has a hard link to a file of a layer below');
  if (rootOpaque) throw inOrder(task, 'it hides everything below its root');
  const [first] = implied;
  if (first !== undefined) throw inOrder(task, `it does not list ${quote(first.path)} before what is in it`);
  return applied;
}

function inOrder(task: ApplyTask, why: string): Failure {
  return new Failure(
    'FailedPrecondition',
    `${task.subject}: ${why}; remove the snapshot, prepare it on its parent and apply the layer there: failed precondition`,
  );
}

/** @param lower of an overlay whose upper directory `path` is */
function applyTo(
  task: ApplyTask,
  control: TaskControl,
  path: string,
  lower: readonly string[] | undefined,
  writeAhead = () => parentPort?.postMessage({ path } satisfies WriteAheadTask),
): Promise<ApplyResult> {
  return withDirectories([path, ...(lower ?? [])], async ([root, ...below]) => {
    const [algorithm] = task.digest.split(':') as [string];
    const cancel = new Int32Array(task.control, 0, 1);
    const options = {
      subject: task.subject,
      mode: lower !== undefined || task.detached === true ? ('overlay' as const) : ('apply' as const),
      ...(lower === undefined ? {} : { lower: new LowerLayers(below) }),
      algorithm,
      exactModes,
      inflate: task.inflate,
      memory: new FeedMemory(task.memory),
      cancel,
      progressBytes: CHUNK,
      progress: (bytes: number) => {
        control.bytes = bytes;
      },
      writeAhead,
      ...(task.limits === undefined ? {} : { limits: task.limits }),
      ...(task.maxBytes === undefined ? {} : { maxBytes: task.maxBytes }),
    };
    const applied = await withBlob(task, async (fd) => {
      try {
        const arrival = arrivalOf(task, fd, cancel);
        const { digest, ...rest } = await applyBlob(root!, fd, { ...options, arrival });
        if (digest !== undefined) requireDigest(task, digest);
        return rest;
      } catch (error) {
        // Who made the layer has made it wrong, unless it rotted here.
        if (Failure.is(error, 'InvalidArgument') && task.arriving === undefined)
          requireDigest(task, digestOfFile(fd, algorithm));
        throw error;
      }
    });
    failpoint('layer.apply.before-sync');
    if (task.sync) syncfs(root!);
    failpoint('layer.apply.after-sync');
    return applied;
  });
}

function arrivalOf({ subject, size, arriving }: ApplyTask, fd: number, cancel: Int32Array): Arrival | undefined {
  if (arriving === undefined) return undefined;
  const { patienceMs, waiting } = arriving;
  return new Arrival(fd, { subject, size, patienceMs, cancel, waiting: new Int32Array(waiting) });
}

function requireDigest({ subject, digest }: ApplyTask, found: string): void {
  if (found !== digest) throw new Failure('DataLoss', `${subject}: the blob's bytes have digest ${found}: data loss`);
}

/** The content store's files are regular and its own; that this one still is one is looked at on the descriptor that is read. */
async function withBlob<T>(task: ApplyTask, use: (fd: number) => Promise<T>): Promise<T> {
  const fd = openBlob(task);
  try {
    const status = fstatSync(fd);
    if (!status.isFile()) throw new Failure('DataLoss', `${task.subject}: the blob is not a regular file: data loss`);
    if (task.arriving === undefined && task.size > 0 && status.size !== task.size) {
      throw new Failure(
        'DataLoss',
        `${task.subject}: the blob has ${status.size} bytes instead of ${task.size}: data loss`,
      );
    }
    return await use(fd);
  } finally {
    closeSync(fd);
  }
}

function openBlob(task: ApplyTask): number {
  try {
    return openSync(task.blob, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT';
    if (missing) throw new Failure('NotFound', `${task.subject}: the blob has no file: not found`, { cause: error });
    throw error;
  }
}

async function runDiff(task: DiffTask): Promise<DiffResult> {
  const sender = new ChunkSender(task.port);
  try {
    return await compareMounts(task, (entries) => sendDiff(task, entries, sender));
  } catch (error) {
    if (error instanceof NotPlain) {
      throw new Failure(
        'FailedPrecondition',
        `${task.subject}: the upper directory uses ${error.message}: failed precondition`,
      );
    }
    throw error;
  } finally {
    sender.end();
  }
}

type Entries = Generator<Buffer, void, undefined>;

/**
 * If `right` is one layer on top of those of `left`, that layer is the difference; otherwise both are looked at whole, where they lie if they are plain
 * directories, mounted if not.
 */
async function compareMounts<T>(task: DiffTask, use: (entries: Entries) => Promise<T>): Promise<T> {
  const { left, right, subject, scratch } = task;
  const newer = layersOf(right);
  const older = layersOf(left);
  if (newer !== undefined && older !== undefined) {
    const [top, ...below] = stack(newer);
    if (top !== undefined && sameList(below, stack(older))) {
      return withDirectories([top, ...below], ([root, ...lower]) =>
        use(diffLayer(root!, layersBelow(new LowerLayers(lower)), { overlay: true, subject })),
      );
    }
  }
  return withTree(right, scratch, (to) =>
    withTree(left, scratch, (from) =>
      withDirectories(from === undefined ? [to!] : [to!, from], ([root, below]) => {
        const against = below === undefined ? layersBelow(new LowerLayers([])) : directoryBelow(below);
        return use(diffLayer(root!, against, { overlay: false, subject }));
      }),
    ),
  );
}

function withTree<T>(
  mounts: readonly SnapshotMount[],
  scratch: string,
  use: (path: string | undefined) => Promise<T>,
): Promise<T> {
  const layers = layersOf(mounts);
  // The upper directory alone of an overlay has marks in it that are no files.
  const [only, more] = layers === undefined || layers.detached === true ? [] : stack(layers);
  if (mounts.length === 0) return use(undefined);
  return only !== undefined && more === undefined ? use(only) : withMounted(mounts, scratch, use);
}

function stack(layers: { upper: string | undefined; lower: readonly string[] }): readonly string[] {
  return layers.upper === undefined ? layers.lower : [layers.upper, ...layers.lower];
}

function sameList(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((path, i) => path === b[i]);
}

async function sendDiff(task: DiffTask, entries: Entries, sender: ChunkSender): Promise<DiffResult> {
  const control = new TaskControl(task.control);
  const hash = createHash('sha256');
  let size = 0;
  async function* hashed(): AsyncGenerator<Uint8Array, void, undefined> {
    for (const block of blocks(entries)) {
      if (control.canceled) throw new Failure('Canceled', `${task.subject}: context canceled`);
      hash.update(block);
      size += block.length;
      control.bytes = size;
      yield block;
    }
  }
  for await (const chunk of compress(hashed(), task.compression)) {
    if (!(await sender.send(chunk))) throw new Failure('Canceled', `${task.subject}: context canceled`);
  }
  return { diffId: `sha256:${hash.digest('hex')}`, size };
}

function* blocks(pieces: Iterable<Buffer>): Generator<Buffer, void, undefined> {
  let gathered: Buffer[] = [];
  let size = 0;
  for (const piece of pieces) {
    gathered.push(piece);
    size += piece.length;
    if (size < BLOCK) continue;
    yield gathered.length === 1 ? piece : Buffer.concat(gathered);
    gathered = [];
    size = 0;
  }
  if (size > 0) yield Buffer.concat(gathered);
}
