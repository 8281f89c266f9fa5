/** One plugin of records in the test's thread, with leases and collection beside it: where a suite runs first. */
import type { ExecutionContext } from 'ava';
import type { Call, Client, PluginDefinition, Service, ServiceDefinition } from 'troupe/plugin';
import { LeasesDefinition } from 'troupe/proto/containerd/services/leases/v1/leases.ts';
import { RecordsDefinition } from 'troupe/proto/troupe/records/v1/records.ts';
import leases from '../../plugins/leases/index.ts';
import { collect } from '../../plugins/records/collect.ts';
import { type InProcess, inProcess, type Running } from '../helpers/in-process.ts';
import type { TestRecords } from '../helpers/records.ts';
import { direct } from './direct.ts';
import type { SeenEvent, Subject } from './subject.ts';

export interface InProcessSubject<D extends ServiceDefinition> extends Subject {
  readonly client: Client<D>;
  readonly daemon: InProcess;
  readonly plugin: Running;
}

export interface PluginUnderTest {
  readonly id: string;
  /** Its folder and prefix. */
  readonly noun: string;
  readonly config?: Record<string, unknown>;
  /** What is to be on disk and in the records before it starts. */
  prepare?(daemon: InProcess): Promise<void> | void;
}

let subjects = 0;

export async function useSubject<D extends ServiceDefinition, C, S>(
  t: ExecutionContext,
  contract: D,
  definition: PluginDefinition<C, S>,
  { id, noun, config = {}, prepare }: PluginUnderTest,
): Promise<InProcessSubject<D>> {
  const daemon = inProcess(t, noun, 'leases');
  const { records } = daemon;
  daemon.serve(RecordsDefinition, {
    changes: (_request: unknown, call: Call) => follow(records.engine, call.signal),
    collect: () => collect(records.engine, { thread: false }),
  });
  await daemon.add(leases, { id: 'leases', prefix: 'leases' });
  await prepare?.(daemon);
  const plugin = await daemon.add(definition, { id, prefix: noun, config });
  const leasing = daemon.client(LeasesDefinition);
  let seen = 0;
  return {
    daemon,
    plugin,
    client: clientOf(contract, plugin),
    // Locks are the whole process's, and tests run side by side in it.
    namespace: `suite-${++subjects}`,
    otherNamespace: `other-${subjects}`,
    async createLease(namespace, lease) {
      await leasing.create({ id: lease }, { namespace });
    },
    async leaseResources(namespace, lease) {
      const { resources } = await leasing.listResources({ id: lease }, { namespace });
      return resources.map(({ type, id }) => ({ type, id }));
    },
    async events(namespace) {
      const rows = records.rows<{ seq: number; ns: string; topic: string; type_url: string; value: Uint8Array }>(
        'SELECT seq, ns, topic, type_url, value FROM records_outbox WHERE seq > ? ORDER BY seq',
        seen,
      );
      seen = rows.at(-1)?.seq ?? seen;
      return rows
        .filter(({ ns }) => ns === namespace)
        .map(({ ns, topic, type_url, value }): SeenEvent => ({ namespace: ns, topic, typeUrl: type_url, value }));
    },
    collect: () => collect(records.engine, { thread: false }),
  };
}

/** A client straight to a running plugin. */
export function clientOf<D extends ServiceDefinition>(contract: D, plugin: Running): Client<D> {
  return direct(contract, plugin.instance.serve[contract.fullName] as Service<D>);
}

/** One message now and one after each batch, or after several while nobody asks. */
async function* follow(engine: TestRecords['engine'], signal: AbortSignal): AsyncGenerator<{ sequence: bigint }> {
  let news = true;
  let wake = () => {};
  const notify = () => {
    news = true;
    wake();
  };
  signal.addEventListener('abort', notify);
  const off = engine.onBatch(notify);
  try {
    while (!signal.aborted) {
      if (!news) await new Promise<void>((resolve) => (wake = resolve));
      if (signal.aborted) return;
      news = false;
      yield { sequence: 0n };
    }
  } finally {
    off();
  }
}
