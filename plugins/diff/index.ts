/** Diff: layers unpacked into snapshots, differences of snapshots as layers. Wiring only. */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { definePlugin } from 'troupe/plugin';
import { ContentDefinition } from 'troupe/proto/containerd/services/content/v1/content.ts';
import { DiffDefinition } from 'troupe/proto/containerd/services/diff/v1/diff.ts';
import { SnapshotsDefinition } from 'troupe/proto/containerd/services/snapshots/v1/snapshots.ts';
import { ArrivalsDefinition } from 'troupe/proto/troupe/diff/v1/arrivals.ts';
import { arrivalsService } from './arrivals.ts';
import { Blobs } from './blobs.ts';
import { throughDiffers } from './differs.ts';
import { engines, type Inflate } from '../lib/compression/decoder.ts';
import { LayerPool } from '../lib/layer/pool.ts';
import { Verifiers } from '../lib/verifier/verifiers.ts';
import { OmissionRecords } from './omissions.ts';
import { Processors, type StreamProcessor } from './processors.ts';
import { Scratch } from './scratch.ts';
import { diffService } from './service.ts';

interface Config {
  readonly default: readonly string[];
  readonly sync_fs: boolean;
  readonly threads: number;
  readonly queue: number;
  readonly inflate: Inflate;
  readonly max_unpacked_bytes: number;
  readonly max_entries: number;
  readonly verify_timeout: number;
}

const contentId = 'io.containerd.content.v1.content';

export default definePlugin<Config>({
  start(ctx) {
    const { config } = ctx;
    const scratch = new Scratch(join(ctx.state, 'mounts'), ctx.generation);
    ctx.log.info('what layers are inflated by', engines(config.inflate));
    const pool = new LayerPool({ threads: config.threads, queue: config.queue, inflate: config.inflate });
    const blobs = new Blobs(ctx.records, ctx.rootOf(contentId), ctx.call(ContentDefinition));
    // What the kernel hands this plugin beside the context; nothing in tests.
    const { streamProcessors = {} } = ctx as { streamProcessors?: Readonly<Record<string, StreamProcessor>> };
    const processors = new Processors(
      streamProcessors,
      join(ctx.state, 'processed', String(ctx.generation)),
      ctx.spawn,
    );
    const verifiers = new Verifiers(ctx, config.verify_timeout);
    const options = {
      scratch: () => scratch.directory(),
      syncFs: config.sync_fs,
      maxBytes: config.max_unpacked_bytes,
      maxEntries: config.max_entries,
      processors,
      omissions: new OmissionRecords(ctx.records, ctx.call(SnapshotsDefinition), ctx.log),
    };
    return {
      serve: {
        [DiffDefinition.fullName]: throughDiffers(diffService(pool, blobs, options), {
          order: config.default,
          ctx,
          verifiers,
        }),
        [ArrivalsDefinition.fullName]: arrivalsService(pool, blobs, {
          ...options,
          verifiers,
          first: config.default[0],
        }),
      },
      activate(state) {
        // Nothing was handed over: nobody before this one is alive, in this daemon either.
        const alone = state === undefined;
        if (alone) rmSync(join(ctx.state, 'processed'), { recursive: true, force: true });
        return scratch.clean(ctx.log, alone);
      },
      suspend: () => ({ alive: true }),
      async stop() {
        await pool.close();
        scratch.remove();
      },
    };
  },
});
