/**
 * troupe.content.v1.Verification: every blob read and hashed again, by threads of its own that stay behind all others. What is damaged is told; if asked, its
 * records go in every namespace, so that the next pull brings it anew instead of being told that it is there.
 */
import { availableParallelism } from 'node:os';
import { Failure, type Service } from 'troupe/plugin';
import type { VerificationDefinition, VerifyResponse } from 'troupe/proto/troupe/content/v1/verification.ts';
import type { Digest } from '../lib/digest/digest.ts';
import { openThreads, type Threads } from '../lib/pool/threads.ts';
import type { Disk } from './disk.ts';
import type { Store } from './store.ts';
import type { VerifyTask } from './verify-thread.ts';

/** Digests per read of the records. */
const pageSize = 500;
const mostThreads = 64;

export function verificationService(store: Store, disk: Disk): Service<typeof VerificationDefinition> {
  return {
    async *verify({ drop, threads }, call) {
      const began = performance.now();
      const maxThreads = Math.min(threads > 0 ? threads : availableParallelism(), mostThreads);
      const pool = openThreads(new URL('./verify-thread.ts', import.meta.url), { maxThreads });
      const summary = { blobs: 0n, bytes: 0n, damaged: 0n, ms: 0 };
      try {
        for await (const { digest, size, problem } of checked(store, disk, pool, maxThreads, call.signal)) {
          summary.blobs++;
          summary.bytes += size;
          if (problem === '') continue;
          const namespaces = store.namespacesOf(digest);
          // Nobody has it any more: it went while it was read.
          if (namespaces.length === 0) continue;
          summary.damaged++;
          if (drop) await dropFrom(store, namespaces, digest);
          yield { damaged: { digest, size, problem, namespaces, dropped: drop } } satisfies VerifyResponse;
        }
        summary.ms = performance.now() - began;
        yield { summary } satisfies VerifyResponse;
      } finally {
        await pool.destroy();
      }
    },
  };
}

interface Checked {
  readonly digest: Digest;
  readonly size: bigint;
  /** Empty: none. */
  readonly problem: string;
}

/** In order; the next ones are read while one is told. */
async function* checked(
  store: Store,
  disk: Disk,
  { pool }: Threads,
  ahead: number,
  signal: AbortSignal,
): AsyncGenerator<Checked> {
  const running: Promise<Checked>[] = [];
  for (let after = ''; ; ) {
    const page = store.digests(after, pageSize);
    for (const { digest, size } of page) {
      const task: VerifyTask = { path: disk.blobPath(digest), digest, size: Number(size) };
      const run = (pool.run(task, { signal }) as Promise<string>).then(
        (problem) => ({ digest, size, problem }),
        (error: unknown) => {
          throw signal.aborted ? Failure.from(signal.reason) : error;
        },
      );
      run.catch(() => {});
      running.push(run);
      if (running.length > 2 * ahead) yield await running.shift()!;
    }
    if (page.length < pageSize) break;
    after = page.at(-1)!.digest;
  }
  for (const each of running) yield await each;
}

async function dropFrom(store: Store, namespaces: readonly string[], digest: Digest): Promise<void> {
  for (const namespace of namespaces) {
    await store.delete(namespace, digest, '').catch((error: unknown) => {
      if (!Failure.is(error, 'NotFound')) throw error;
    });
  }
}
