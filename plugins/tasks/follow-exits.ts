/** Listening for exits that shims publish, through the exchange they go to. */

import { setTimeout as delay } from 'node:timers/promises';
import type { PluginContext } from 'troupe/plugin';
import { TaskExit } from 'troupe/proto/containerd/events/task.ts';
import type { Any } from 'troupe/proto/google/protobuf/any.ts';
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
        const exit = event && exitOf(event);
        if (exit === undefined) ctx.log.debug('an exit that is none is passed over', { namespace });
        else exits.note({ namespace, event: exit });
      }
    } catch (error) {
      if (signal.aborted) break;
      ctx.log.debug('exits are not heard of', { error: String(error) });
    }
    exits.watching = false;
    await delay(pause, undefined, { signal }).catch(() => {});
  }
}

/** Anybody may publish anything under the topic: what is no exit must not cost those that come after it. */
function exitOf({ typeUrl, value }: Any): TaskExit | undefined {
  if (typeUrl.slice(typeUrl.lastIndexOf('/') + 1) !== TaskExit.$type) return undefined;
  try {
    return TaskExit.decode(value);
  } catch {
    return undefined;
  }
}
