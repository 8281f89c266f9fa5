/**
 * `[stream_processors.NAME]` of the config: programs that make a layer out of something that is none, an encrypted one say. Each reads what it accepts on its standard input
 * and writes what it returns; it is told the media type in STREAM_PROCESSOR_MEDIATYPE, and a payload of its name comes on descriptor 3 as an encoded google.protobuf.Any.
 * That is containerd's protocol (its docs/stream_processors.md). They are asked in the order of the config's end, each once, until a layer has come out.
 */
import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { Transform } from 'node:stream';
import { Failure, type PluginContext } from 'troupe/plugin';
import { Any } from 'troupe/proto/google/protobuf/any.ts';
import { LAYER } from './media-type.ts';

export interface StreamProcessor {
  readonly accepts: readonly string[];
  readonly returns: string;
  readonly path: string;
  readonly args: readonly string[];
  readonly env: readonly string[];
}

export interface Step {
  readonly name: string;
  /** That it is given. */
  readonly mediaType: string;
  readonly processor: StreamProcessor;
}

/** What came out, in a file of its own. */
export interface Processed {
  readonly path: string;
  readonly digest: string;
  readonly size: number;
  readonly mediaType: string;
}

const maxStderr = 4096;

/** Which programs a blob of this type goes through, and what comes out; no steps when none accepts it. */
export function stepsFor(
  mediaType: string,
  processors: Readonly<Record<string, StreamProcessor>>,
): { readonly steps: readonly Step[]; readonly returns: string } {
  const steps: Step[] = [];
  const left = new Map(Object.entries(processors).reverse());
  let at = mediaType;
  do {
    const found = [...left].find(([, { accepts }]) => accepts.includes(at));
    if (found === undefined) break;
    const [name, processor] = found;
    left.delete(name);
    steps.push({ name, mediaType: at, processor });
    at = processor.returns;
  } while (at !== LAYER);
  return { steps, returns: at };
}

/**
 * @param file where the result goes; removed when it fails
 * @throws Failure FailedPrecondition when a program cannot be started or ends with anything but 0, with the end of what it said; ResourceExhausted beyond `maxBytes`
 */
export async function processed(
  source: string,
  steps: readonly Step[],
  returns: string,
  payloads: Readonly<Record<string, Any>>,
  {
    spawn,
    file,
    maxBytes,
    signal,
  }: {
    readonly spawn: PluginContext['spawn'];
    readonly file: string;
    readonly maxBytes: number;
    readonly signal: AbortSignal;
  },
): Promise<Processed> {
  const hash = createHash('sha256');
  let size = 0;
  const measure = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      hash.update(chunk);
      size += chunk.length;
      const over = maxBytes > 0 && size > maxBytes;
      done(over ? new Failure('ResourceExhausted', `more than ${maxBytes} bytes: resource exhausted`) : null, chunk);
    },
  });
  const abort = new AbortController();
  const ended = AbortSignal.any([signal, abort.signal]);
  const programs: Promise<void>[] = [];
  let stream: Readable = createReadStream(source);
  try {
    for (const step of steps) {
      const { output, done } = run(step, stream, payloads[step.name], spawn, ended);
      programs.push(done);
      stream = output;
    }
    const written = pipeline(stream, measure, createWriteStream(file, { mode: 0o600 }), { signal: ended });
    await Promise.all([written, ...programs]);
    return { path: file, digest: `sha256:${hash.digest('hex')}`, size, mediaType: returns };
  } catch (error) {
    abort.abort();
    const settled = await Promise.allSettled(programs);
    await rm(file, { force: true });
    signal.throwIfAborted();
    // A program that fails is why its neighbours' pipes broke.
    throw settled.find((each) => each.status === 'rejected')?.reason ?? error;
  }
}

function run(
  { name, mediaType, processor }: Step,
  input: Readable,
  payload: Any | undefined,
  spawn: PluginContext['spawn'],
  signal: AbortSignal,
): { output: Readable; done: Promise<void> } {
  const { path, args, env } = processor;
  const own = Object.fromEntries(env.map((each) => [each.split('=', 1)[0]!, each.slice(each.indexOf('=') + 1)]));
  const child = spawn(path, args, {
    env: { ...process.env, ...own, STREAM_PROCESSOR_MEDIATYPE: mediaType },
    stdio: ['pipe', 'pipe', 'pipe', ...(payload === undefined ? [] : ['pipe' as const])],
    signal,
    killSignal: 'SIGKILL',
  });
  let said = '';
  child.stderr!.on('data', (chunk: Buffer) => {
    said = `${said}${chunk}`.slice(-maxStderr);
  });
  // One that does not read to the end may have what it needs: its exit tells.
  child.stdin!.on('error', () => {});
  input.on('error', () => child.kill('SIGKILL'));
  input.pipe(child.stdin!);
  if (payload !== undefined) {
    const pipe = child.stdio[3] as Writable;
    pipe.on('error', () => {});
    pipe.end(Any.encode(payload).finish());
  }
  const failed = (why: string) =>
    new Failure('FailedPrecondition', `stream processor "${name}" (${path}): ${why}: failed precondition`);
  const done = new Promise<void>((resolve, reject) => {
    child.once('error', (error) => reject(failed(error.message)));
    child.once('close', (code, killed) => {
      if (code === 0) resolve();
      else reject(failed(`ended with ${code ?? killed}${said === '' ? '' : `: ${said.trim()}`}`));
    });
  });
  done.catch(() => {});
  return { output: child.stdout!, done };
}

/** The programs of one daemon. */
export class Processors {
  readonly #processors: Readonly<Record<string, StreamProcessor>>;
  readonly #dir: string;
  readonly #spawn: PluginContext['spawn'];
  #count = 0;

  /** @param dir where results lie while they are unpacked */
  constructor(processors: Readonly<Record<string, StreamProcessor>>, dir: string, spawn: PluginContext['spawn']) {
    this.#processors = processors;
    this.#dir = dir;
    this.#spawn = spawn;
  }

  find(mediaType: string): ReturnType<typeof stepsFor> {
    return stepsFor(mediaType, this.#processors);
  }

  /** Undefined when there is nothing to run. `remove` is the caller's to call. @throws Failure as {@link processed} */
  async run(
    { steps, returns }: ReturnType<typeof stepsFor>,
    source: string,
    payloads: Readonly<Record<string, Any>>,
    maxBytes: number,
    signal: AbortSignal,
  ): Promise<(Processed & { remove(): Promise<void> }) | undefined> {
    if (steps.length === 0) return undefined;
    await mkdir(this.#dir, { recursive: true, mode: 0o700 });
    const file = join(this.#dir, `processed-${process.pid}-${++this.#count}`);
    const result = await processed(source, steps, returns, payloads, { spawn: this.#spawn, file, maxBytes, signal });
    return { ...result, remove: () => rm(file, { force: true }) };
  }
}
