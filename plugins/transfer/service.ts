/** containerd.services.transfer.v1.Transfer: what happens follows from the kinds of both ends. */
import { type Call, Failure, type PluginContext, type Service } from 'troupe/plugin';
import type { TransferDefinition } from 'troupe/proto/containerd/services/transfer/v1/transfer.ts';
import { StreamsDefinition } from 'troupe/proto/troupe/streaming/v1/streams.ts';
import { requireNamespace } from '../lib/namespace/namespace.ts';
import type { Transports } from '../lib/registry/transports.ts';
import { ClientStream } from './client-stream.ts';
import type { Config } from './config.ts';
import { type End, nameOf, parseEnd } from './ends.ts';
import { Progress } from './progress.ts';
import { clientsOf } from './scope.ts';
import type { Downloads } from './downloads.ts';
import type { Slots } from './together.ts';
import { type Work, works } from './works.ts';

export interface ServiceOptions {
  readonly ctx: PluginContext<Config>;
  readonly transports: Transports;
  readonly downloads: Downloads;
  readonly uploads: Slots;
}

export function transferService(options: ServiceOptions): Service<typeof TransferDefinition> {
  const { ctx } = options;
  const clients = clientsOf(ctx);
  return {
    async transfer({ source: from, destination: to, options: wishes }, incoming) {
      const namespace = requireNamespace(incoming);
      const [source, destination] = [parseEnd(from, 'source'), parseEnd(to, 'destination')];
      const work = find(source, destination);
      const call: Call & { namespace: string } = withSignal(incoming, namespace, ctx.signal);
      const id = wishes?.progressStream ?? '';
      const stream = id === '' ? undefined : await ClientStream.take(ctx.call(StreamsDefinition), id, call);
      const progress = new Progress(stream);
      try {
        await work({ ...options, clients, call, progress, source, destination });
        return {};
      } finally {
        await progress.end();
      }
    },
  };
}

function find(source: End, destination: End): Work {
  const work = works[`${source.kind} ${destination.kind}`];
  if (work !== undefined) return work;
  throw new Failure(
    'Unimplemented',
    `unable to transfer from ${nameOf(source)} to ${nameOf(destination)}: not implemented`,
  );
}

/** The call, with an end when the plugin stops as well. */
function withSignal(call: Call, namespace: string, stopped: AbortSignal): Call & { namespace: string } {
  const signal = AbortSignal.any([call.signal, stopped]);
  const { from, method, lease, deadline, trace, resume } = call;
  return { from, method, namespace, lease, deadline, trace, resume, signal, cursor: (value) => call.cursor(value) };
}
