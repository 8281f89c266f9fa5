/**
 * Programs that say whether an image may be pulled: all of a directory, in the order of their names, each asked with
 *
 *     PROGRAM -name REFERENCE -digest DIGEST -stdin-media-type application/vnd.oci.descriptor.v1+json        the descriptor as JSON on its standard input
 *
 * Exit code 0 allows the image, any other keeps it out; what it prints is the reason. That is the protocol of containerd's bindir verifiers
 * (its docs/image-verification.md). Plugins that serve troupe.verifier.v1.Verifier are asked as well, and again for each layer when it is unpacked.
 */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Call, Failure, type PluginContext } from 'troupe/plugin';
import { Verifiers } from '../lib/verifier/verifiers.ts';
import type { Config } from './config.ts';

export interface Candidate {
  /** As the client names it. */
  readonly name: string;
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
}

type Parts = Pick<PluginContext<Config>, 'call' | 'config' | 'log' | 'providers' | 'spawn'>;

const mediaType = 'application/vnd.oci.descriptor.v1+json';
/** Of what a program prints on either output; what is more is read and dropped, so that it does not wait for a reader. */
const mostOutput = 16 << 10;
/** From a program's end to that of its outputs. */
const lastWordsMs = 1000;

/** @throws Failure FailedPrecondition with the reason of the first that says no, Unavailable when one cannot be asked */
export async function requireVerified(ctx: Parts, image: Candidate, call: Call): Promise<void> {
  const { bin_dir: dir, max_verifiers: most, per_verifier_timeout: timeoutMs } = ctx.config;
  const descriptor = { ...image, size: BigInt(image.size), annotations: {} };
  await new Verifiers(ctx, timeoutMs).require(descriptor, call, { what: `image ${image.name}`, name: image.name });
  const programs = await programsOf(dir, image);
  const asked = most < 0 ? programs : programs.slice(0, most);
  if (asked.length < programs.length)
    ctx.log.warn('image verifiers are left out: there are more than max_verifiers', {
      dir,
      found: programs.length,
      most,
    });
  for (const program of asked) {
    const { code, said } = await run(ctx, join(dir, program), image, timeoutMs, call.signal);
    if (code !== 0)
      throw new Failure(
        'FailedPrecondition',
        `image verifier bindir blocked pull of ${image.name} with digest ${image.digest} for reason: verifier ${program} rejected image (exit code ${code}): ${said}: failed precondition`,
      );
    ctx.log.info('image verifier allows a pull', {
      verifier: program,
      image: image.name,
      digest: image.digest,
      reason: said,
    });
  }
}

/** Sorted. A directory that is not there has none; one that cannot be read could have some. */
async function programsOf(dir: string, image: Candidate): Promise<string[]> {
  try {
    return (await readdir(dir)).sort();
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return [];
    throw new Failure('Unavailable', `pull of ${image.name}: image verifiers: ${message}: unavailable`);
  }
}

async function run(
  ctx: Parts,
  program: string,
  { name, ...image }: Candidate,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<{ code: number; said: string }> {
  const child = ctx.spawn(program, ['-name', name, '-digest', image.digest, '-stdin-media-type', mediaType], {
    stdio: ['pipe', 'pipe', 'pipe'],
    // A group of its own, which is ended as a whole: what it starts must not go on without it.
    detached: true,
  });
  const end = (): void => {
    if (child.pid !== undefined) killGroup(child.pid);
  };
  const [out, err] = [collect(child.stdout!), collect(child.stderr!)];
  child.stdin!.on('error', () => {});
  child.stdin!.end(JSON.stringify({ mediaType: image.mediaType, digest: image.digest, size: image.size }));
  const closed = new Promise((resolve) => child.once('close', resolve));
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    end();
  }, timeoutMs);
  signal.addEventListener('abort', end, { once: true });
  try {
    const code = await new Promise<number | null>((resolve, reject) => {
      child.once('error', reject);
      // Not `close`: something that it left behind may hold its outputs open.
      child.once('exit', resolve);
    });
    end();
    // What it has printed may still lie in the pipe. Nobody holds that any more, but for one that has left the group.
    await Promise.race([closed, sleep(lastWordsMs, undefined, { ref: false })]);
    if (signal.aborted) throw Failure.from(signal.reason);
    if (late) throw new Error(`no answer within ${timeoutMs} ms`);
    if (err() !== '') ctx.log.debug('image verifier says', { verifier: program, stderr: err() });
    if (code === null) throw new Error('it was ended by a signal');
    return { code, said: out() };
  } catch (error) {
    if (error instanceof Failure) throw error;
    throw new Failure(
      'Unavailable',
      `pull of ${name}: image verifier ${program}: ${(error as Error).message}: unavailable`,
      { cause: error },
    );
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', end);
    child.stdout!.destroy();
    child.stderr!.destroy();
  }
}

function killGroup(pid: number): void {
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // All of it has ended.
  }
}

/** @returns what has been printed so far, up to a limit */
function collect(stream: NodeJS.ReadableStream): () => string {
  const chunks: Buffer[] = [];
  let size = 0;
  stream.on('data', (chunk: Buffer) => {
    if (size < mostOutput) chunks.push(chunk.subarray(0, mostOutput - size));
    size += chunk.length;
  });
  return () => Buffer.concat(chunks).toString('utf8').trim();
}
