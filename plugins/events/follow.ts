/** Publishes from the outbox whenever records says that something was committed; looks once a second while it does not answer. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { PluginContext } from 'troupe/plugin';
import { RecordsDefinition } from 'troupe/proto/troupe/records/v1/records.ts';
import type { Outbox } from './outbox.ts';

const RETRY_MS = 1000;

/** Resolves when the signal aborts. */
export async function followOutbox(
  ctx: Pick<PluginContext, 'call' | 'log'>,
  outbox: Outbox,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    try {
      const changes = ctx.call(RecordsDefinition).changes({}, { signal });
      outbox.drain();
      for await (const _ of changes) {
        if (signal.aborted) return;
        outbox.drain();
      }
    } catch (error) {
      if (signal.aborted) return;
      ctx.log.warn('the feed of changes broke', { error: String(error) });
    }
    try {
      await sleep(RETRY_MS, undefined, { signal });
      outbox.drain();
    } catch (error) {
      if (!signal.aborted) ctx.log.warn('events of records wait', { error: String(error) });
    }
  }
}
