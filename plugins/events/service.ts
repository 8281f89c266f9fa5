/** containerd.services.events.v1.Events, and what shims call over ttrpc. */
import { type Call, Failure, failpoint, type Service } from 'troupe/plugin';
import type { EventsDefinition as TtrpcEventsDefinition } from 'troupe/proto/containerd/services/events/ttrpc/v1/events.ts';
import type { EventsDefinition } from 'troupe/proto/containerd/services/events/v1/events.ts';
import { type Filter, parseFilters } from '../lib/filter/filter.ts';
import { requireNamespace } from '../lib/namespace/namespace.ts';
import { now } from '../lib/timestamp/timestamp.ts';
import { type Event, requireEvent, validateEnvelope, validateTopic } from './envelope.ts';
import type { Exchange } from './exchange.ts';
import type { Missed } from './missed.ts';
import { loadCodecs, looksIntoMessages } from './fields.ts';

export interface Publisher {
  readonly exchange: Exchange;
  readonly missed: Missed;
  /** After all events of records that are durable by now: cause before effect. `trusted`: an exit may be told of again. */
  publish(event: Event, trusted: boolean): void;
}

export function serveEvents(publisher: () => Publisher): Service<typeof EventsDefinition> {
  return {
    publish(request, call) {
      const namespace = publisherNamespace(call);
      validateTopic(request.topic);
      const event = requireEvent(request.event, request.topic);
      publisher().publish({ timestamp: now(), namespace, topic: request.topic, event }, call.from !== 'front');
      failpoint('events.publish.reply');
      return {};
    },

    forward(request) {
      publisher().publish(validateEnvelope(request.envelope), true);
      failpoint('events.forward.reply');
      return {};
    },

    async *subscribe(request, call) {
      const filter = parse(request.filters);
      if (looksIntoMessages(request.filters)) await loadCodecs();
      const { exchange, missed } = publisher();
      const subscription = exchange.subscribe(filter, call.resume, (cursor) => call.cursor(cursor), missed.list());
      // Said before anything is sent, so that a stream which moves before its first event misses none.
      if (call.resume === '') call.cursor(exchange.cursor());
      try {
        for (;;) {
          const { sequence, event } = await subscription.next(call.signal);
          call.cursor(exchange.cursor(sequence));
          yield event;
        }
      } finally {
        subscription.close();
      }
    },
  };
}

export function serveShims(publisher: () => Publisher): Service<typeof TtrpcEventsDefinition> {
  return {
    forward(request) {
      publisher().publish(validateEnvelope(request.envelope), true);
      failpoint('events.forward.reply');
      return {};
    },
  };
}

function publisherNamespace(call: Call): string {
  try {
    return requireNamespace(call);
  } catch (error) {
    const { code, message } = Failure.from(error);
    throw new Failure(code, `failed publishing event: ${message}`);
  }
}

/** What containerd says of a filter that does not parse has no class here and its suffix once, unlike in the lists of records. */
function parse(filters: readonly string[]): Filter {
  try {
    return parseFilters(filters);
  } catch (error) {
    const message = Failure.from(error).message.replace(/(: invalid argument)+$/, ': invalid argument');
    throw new Failure('Unknown', `subscription error: failed parsing subscription filters: ${message}`);
  }
}
