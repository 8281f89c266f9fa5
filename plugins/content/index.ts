/** Content: blobs and ingests. Wiring only. */
import { setTimeout as sleep } from 'node:timers/promises';
import { definePlugin } from 'troupe/plugin';
import { ContentDefinition } from 'troupe/proto/containerd/services/content/v1/content.ts';
import { VerificationDefinition } from 'troupe/proto/troupe/content/v1/verification.ts';
import { RecordsDefinition } from 'troupe/proto/troupe/records/v1/records.ts';
import { Disk } from './disk.ts';
import { contentService } from './service.ts';
import { type SharingPolicy, Store } from './store.ts';
import { Trash } from './trash.ts';
import { verificationService } from './verification.ts';
import { Writers } from './writers.ts';

interface Config {
  content_sharing_policy: SharingPolicy;
}

/** Between two looks at the trash, ms. */
const pause = 200;

/** Says that a generation before has left everything in order. */
interface State {
  clean: true;
}

export default definePlugin<Config, State>({
  start(ctx) {
    let config = ctx.config;
    const store = new Store(ctx.records);
    const disk = new Disk(ctx.root);
    const policy = () => store.sharingPolicy(config.content_sharing_policy);
    const writers = new Writers(
      store,
      disk,
      ctx.exclusive,
      policy,
      (digest) => trash?.reconsider(digest),
      (reason) => ctx.fatal(reason),
    );
    let trash: Trash | undefined;
    let active = new AbortController();
    const warn = (error: Error) => {
      if (!active.signal.aborted) ctx.log.warn('trash has to wait', { error: error.message });
    };

    return {
      serve: {
        [ContentDefinition.fullName]: contentService(store, disk, writers),
        [VerificationDefinition.fullName]: verificationService(store, disk),
      },
      async activate(state) {
        active = new AbortController();
        const signal = AbortSignal.any([active.signal, ctx.signal]);
        trash = new Trash(store, disk, ctx.exclusive, ctx.log, signal);
        disk.prepare();
        if (state === undefined) {
          await trash.reconcileIngests();
          trash.reconcileBlobs().catch(warn);
        }
        follow(trash, signal);
      },
      suspend() {
        active.abort();
        return { clean: true };
      },
      configure(next) {
        config = next;
        return undefined;
      },
      async stop() {
        active.abort();
        await writers.close();
        disk.close();
      },
    };

    /** Every change of the records may have left trash. Ends with `signal`. */
    async function follow(trash: Trash, signal: AbortSignal): Promise<void> {
      while (!signal.aborted) {
        await trash.empty().catch(warn);
        try {
          // Changes while it pauses are one: a row of trash costs a commit of its own otherwise, and every other noun's events a look.
          for await (const _ of ctx.call(RecordsDefinition).changes({}, { signal })) {
            await trash.empty().catch(warn);
            await sleep(pause, undefined, { signal });
          }
        } catch (error) {
          warn(error as Error);
        }
        await sleep(5 * pause, undefined, { signal }).catch(() => {});
      }
    }
  },
});
