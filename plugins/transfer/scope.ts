/** What belongs to one transfer: whose it is, what keeps what it brings, and the parts of the daemon that it uses. */
import { randomBytes } from 'node:crypto';
import { type Call, type Client, Failure, type PluginContext } from 'troupe/plugin';
import { ContentDefinition } from 'troupe/proto/containerd/services/content/v1/content.ts';
import { DiffDefinition } from 'troupe/proto/containerd/services/diff/v1/diff.ts';
import { ImagesDefinition } from 'troupe/proto/containerd/services/images/v1/images.ts';
import { LeasesDefinition } from 'troupe/proto/containerd/services/leases/v1/leases.ts';
import { SnapshotsDefinition } from 'troupe/proto/containerd/services/snapshots/v1/snapshots.ts';
import { ArrivalsDefinition } from 'troupe/proto/troupe/diff/v1/arrivals.ts';
import { Content } from './content.ts';
import type { Progress } from './progress.ts';

export interface Clients {
  readonly arrivals: Client<typeof ArrivalsDefinition>;
  readonly content: Client<typeof ContentDefinition>;
  readonly diff: Client<typeof DiffDefinition>;
  readonly images: Client<typeof ImagesDefinition>;
  readonly leases: Client<typeof LeasesDefinition>;
  readonly snapshots: Client<typeof SnapshotsDefinition>;
}

export function clientsOf(ctx: Pick<PluginContext, 'call'>): Clients {
  return {
    arrivals: ctx.call(ArrivalsDefinition),
    content: ctx.call(ContentDefinition),
    diff: ctx.call(DiffDefinition),
    images: ctx.call(ImagesDefinition),
    leases: ctx.call(LeasesDefinition),
    snapshots: ctx.call(SnapshotsDefinition),
  };
}

export interface Scope {
  readonly namespace: string;
  readonly lease: string;
  readonly trace: string;
  readonly signal: AbortSignal;
  readonly clients: Clients;
  readonly content: Content;
  readonly progress: Progress;
}

/** Should the daemon die meanwhile, what was brought stays for the next try that long. */
const leaseLife = 24 * 3_600_000;
const cleanupMs = 30_000;

/** Runs `work` under the client's lease, or one of its own that ends with it. */
export async function withLease<T>(
  clients: Clients,
  call: Call & { readonly namespace: string },
  progress: Progress,
  work: (scope: Scope) => Promise<T>,
): Promise<T> {
  const { namespace, trace, signal } = call;
  const own = call.lease === '';
  const id = own ? `transfer-${Date.now()}-${randomBytes(6).toString('base64url')}` : call.lease;
  if (own) {
    const labels = { 'containerd.io/gc.expire': new Date(Date.now() + leaseLife).toISOString() };
    await clients.leases.create({ id, labels }, { namespace, signal });
  }
  const content = new Content(clients, { namespace, lease: id, trace });
  try {
    return await work({ namespace, lease: id, trace, signal, clients, content, progress });
  } finally {
    // What of it is not an image's by now is nobody's.
    if (own) await clients.leases.delete({ id, sync: false }, { namespace, timeoutMs: cleanupMs }).catch(ignoreGone);
  }
}

function ignoreGone(error: unknown): void {
  if (!Failure.is(error, 'NotFound')) throw error;
}
