/** troupe.records.v1.Records: request → engine → reply. */
import type { RecordsDefinition } from 'troupe/proto/troupe/records/v1/records.ts';
import type { Service } from 'troupe/plugin';
import type { Changes } from './changes.ts';
import type { Collected } from './collect.ts';
import type { Engine } from './engine.ts';

/** What serves while this generation has the file open. @throws Failure Unavailable when it has not. */
export interface Serving {
  readonly engine: Engine;
  collect(): Promise<Collected>;
}

export function recordsService(serving: () => Serving, changes: Changes): Service<typeof RecordsDefinition> {
  return {
    commit: (request) => serving().engine.commit(request),

    async *changes(_request, call) {
      for await (const sequence of changes.follow(call.signal)) yield { sequence };
    },

    async collect() {
      const { swept, marked, durationMs } = await serving().collect();
      const nanoseconds = BigInt(Math.round(durationMs * 1e6));
      return {
        swept: BigInt(swept),
        marked: BigInt(marked),
        duration: { seconds: nanoseconds / 1_000_000_000n, nanos: Number(nanoseconds % 1_000_000_000n) },
      };
    },

    stats() {
      const { commits, batches, fsyncs, walBytes, databaseBytes } = serving().engine.stats;
      return {
        commits: BigInt(commits),
        batches: BigInt(batches),
        fsyncs: BigInt(fsyncs),
        walBytes: BigInt(walBytes),
        databaseBytes: BigInt(databaseBytes),
      };
    },
  };
}
