/** Listening for exits that shims publish, through the exchange they go to. */

import { setTimeout as delay } from 'node:timers/promises';
import type { PluginContext } from 'troupe/plugin';
import { TaskExit } from 'troupe/proto/containerd/events/task.ts';
import { EventsDefinition } from 'troupe/proto/containerd/services/events/v1/events.ts';
import type { ExitDelivery } from './exit-delivery.ts';

/** Pause, ms, before listening again after the exchange went away. */
const pause = 200;

/** Runs until `signal`. */
export async function followExits(
  ctx: Pick<PluginContext, 'call' | 'log'>,
  exits: ExitDelivery,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    try {
      const stream = ctx
        .call(EventsDefinition)
        .subscribe({ filters: ['topic=="/tasks/exit"'] }, { signal, deadline: 0 });
      exits.watching = true;
      for await (const { namespace, event } of stream) {
        if (event !== undefined) exits.note({ namespace, event: TaskExit.decode(event.value) });
      }
    } catch (error) {
      if (signal.aborted) break;
      ctx.log.debug('exits are not heard of', { error: String(error) });
    }
    exits.watching = false;
    await delay(pause, undefined, { signal }).catch(() => {});
  }
}
