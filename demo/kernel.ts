/** Plugins are replaced and killed while they are called: what callers notice of it. */
import { setTimeout as sleep } from 'node:timers/promises';
import { type GrpcClient, typedClient } from '../kernel/front/client.ts';
import { Failure } from '../kernel/sdk/failure.ts';
import { ImagesDefinition } from '../proto/gen/containerd/services/images/v1/images.ts';
import { VersionDefinition } from '../proto/gen/containerd/services/version/v1/version.ts';
import { KernelDefinition } from '../proto/gen/troupe/kernel/v1/kernel.ts';
import { dies, type Mortal, mortalId } from './mortal.ts';

const lanes = 16;
const reloads = 5;
const images = 'io.containerd.service.v1.images-service';
/** The loads have this long before and after. */
const aroundMs = 200;

interface Load {
  calls: number;
  readonly failed: string[];
}

interface Loads {
  readonly of: Load;
  readonly others: Load;
}

/** Half of the lanes call one plugin and half another, from a moment before `work` to a moment after. */
async function under<T>(
  call: () => Promise<unknown>,
  other: () => Promise<unknown>,
  work: () => Promise<T>,
): Promise<Loads & { readonly value: T }> {
  const loads: Loads = { of: emptyLoad(), others: emptyLoad() };
  let over = false;
  const lane = async (load: Load, once: () => Promise<unknown>) => {
    while (!over) {
      load.calls += 1;
      await once().catch((error: unknown) => load.failed.push(Failure.from(error).message));
    }
  };
  const running = Array.from({ length: lanes }, (_, index) =>
    index % 2 === 0 ? lane(loads.of, call) : lane(loads.others, other),
  );
  try {
    await sleep(aroundMs);
    const value = await work();
    await sleep(aroundMs);
    return { value, ...loads };
  } finally {
    over = true;
    await Promise.all(running);
  }
}

const emptyLoad = (): Load => ({ calls: 0, failed: [] });

export async function reloadUnderLoad(client: GrpcClient): Promise<void> {
  const kernel = typedClient(client, KernelDefinition);
  const list = () => typedClient(client, ImagesDefinition).list({ filters: [] });
  const version = () => typedClient(client, VersionDefinition).version({});
  const { value, of, others } = await under(list, version, async () => {
    const outcomes = [];
    for (let each = 0; each < reloads; each++) outcomes.push(await kernel.reload({ id: images, force: true }));
    return outcomes;
  });
  for (const { outcome, reason } of value)
    if (outcome !== 'reloaded') throw new Error(`reload of ${images}: ${outcome}: ${reason}`);
  const hold = value.map(({ holdMs }) => holdMs).sort((a, b) => a - b);
  const total = value.map(({ totalMs }) => totalMs).sort((a, b) => a - b);
  const failed = [...of.failed, ...others.failed];
  console.log(
    `  ${images} reloaded ${reloads} times, ${lanes} calls open at any time: ${of.calls + others.calls} calls, ${failed.length} failed`,
  );
  console.log(
    `  its calls were held for ${middle(hold).toFixed(1)} ms (longest ${hold.at(-1)!.toFixed(1)}); from request to flip ${middle(total).toFixed(0)} ms`,
  );
  if (failed.length > 0) throw new Error(`a reload fails no call, and this one did: ${failed[0]}`);
}

export async function killUnderLoad(client: GrpcClient, mortal: Mortal): Promise<void> {
  const list = () => typedClient(client, ImagesDefinition).list({ filters: [] });
  const { value, of, others } = await under(
    () => mortal.work(50),
    list,
    async () => {
      const began = performance.now();
      await mortal.work(dies).catch(() => undefined);
      await mortal.work(0);
      return performance.now() - began;
    },
  );
  console.log(
    `  ${mortalId} killed: of its ${of.calls} calls ${of.failed.length} failed, those that ran in it; of the others' ${others.calls} failed ${others.failed.length}`,
  );
  console.log(`  it served again after ${value.toFixed(0)} ms; calls that had not begun were answered then`);
  if (others.failed.length > 0) throw new Error(`a plugin took others' calls along: ${others.failed[0]}`);
  if (of.failed.length > lanes / 2)
    throw new Error(`more calls failed than ran in it: ${[...new Set(of.failed)].join('; ')}`);
}

function middle(sorted: readonly number[]): number {
  return sorted[sorted.length >> 1]!;
}
