/** The exchange of events: from records, plugins, shims and clients to everybody who subscribed. */
import { definePlugin, Failure, type PluginContext } from 'troupe/plugin';
import { EventsDefinition as TtrpcEventsDefinition } from 'troupe/proto/containerd/services/events/ttrpc/v1/events.ts';
import { EventsDefinition } from 'troupe/proto/containerd/services/events/v1/events.ts';
import { Exchange, type ExchangeState } from './exchange.ts';
import { Exits } from './exits.ts';
import { followOutbox } from './follow.ts';
import { Missed, type MissedState } from './missed.ts';
import { Outbox } from './outbox.ts';
import { type Publisher, serveEvents, serveShims } from './service.ts';

interface State {
  readonly exchange: ExchangeState;
  readonly exits: readonly string[];
  readonly published: number;
  readonly missed: MissedState;
}

interface Running extends Publisher {
  readonly outbox: Outbox;
  readonly exits: Exits;
}

export default definePlugin<Record<string, never>, State>({
  start(ctx) {
    let running: Running | undefined;
    let following = new AbortController();
    const publisher = (): Running => {
      if (running === undefined) throw new Failure('Unavailable', 'events are not being published yet: unavailable');
      return running;
    };

    return {
      serve: {
        [EventsDefinition.fullName]: serveEvents(publisher),
        [TtrpcEventsDefinition.fullName]: serveShims(publisher),
      },
      activate(state) {
        // After a reload that failed this generation goes on with what it has: its streams are still open.
        running ??= assemble(ctx, state);
        following = new AbortController();
        void followOutbox(ctx, running.outbox, AbortSignal.any([following.signal, ctx.signal]));
      },
      suspend() {
        following.abort();
        const { exchange, exits, outbox, missed } = publisher();
        return { exchange: exchange.state(), exits: exits.list(), published: outbox.published, missed: missed.state() };
      },
      async stop() {
        following.abort();
        await running?.outbox.trim();
      },
    };
  },
});

function assemble(ctx: PluginContext, state: State | undefined): Running {
  const exchange = new Exchange(state?.exchange);
  const exits = new Exits(state?.exits);
  const missed = new Missed(state?.missed);
  const outbox = new Outbox(ctx.records, ctx.log, (event) => void exchange.publish(event), state?.published);
  return {
    exchange,
    exits,
    outbox,
    missed,
    publish(event, trusted) {
      outbox.drain();
      if (!trusted) exchange.publish(event);
      else if (exits.admit(event)) missed.note(exchange.publish(event));
    },
  };
}
