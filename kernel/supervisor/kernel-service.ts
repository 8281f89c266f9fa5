/** `troupe.kernel.v1.Kernel`: what the supervisor knows and can do, for clients. */
import { setTimeout as sleep } from 'node:timers/promises';
import {
  type KernelDefinition,
  Plugin,
  type ReloadConfigResponse,
  type Transition as TransitionMessage,
} from '../../proto/gen/troupe/kernel/v1/kernel.ts';
import { renderPlan } from '../plan/index.ts';
import { Failure } from '../sdk/failure.ts';
import type { Service } from '../sdk/plugin.ts';
import { dump } from './dump.ts';
import type { Supervisor } from './supervisor.ts';
import type { Transition } from './transitions.ts';
import type { ReloadOutcome } from './reload.ts';
import type { Unit } from './unit.ts';
import { Utilization } from './utilization.ts';

/** Transitions a watcher may be behind before it is cut off. */
const watchBacklog = 10_000;
/** How long a list waits for the last plugins of a boot. */
const settleMs = 5000;
const profileMs = 5000;
const longestProfileMs = 60_000;

/** What takes the config and the manifests on disk to do, which the supervisor does not know of. */
export interface Redeploy {
  /** Replaces a plugin by what its folder holds now, manifest included; starts it when it does not run. */
  reload(id: string, force: boolean): Promise<ReloadOutcome>;
  reloadConfig(dryRun: boolean): Promise<ReloadConfigResponse>;
}

export function kernelService(supervisor: Supervisor, redeploy: Redeploy): Service<typeof KernelDefinition> {
  const utilization = new Utilization(() => supervisor.units.flatMap((unit) => unit.serving?.handle ?? []));
  return {
    async list({ ids }) {
      // The front opens before the last plugins are up; a list that is asked for meanwhile would call them failed.
      // One that never gets ready must not keep the others from being seen.
      if (ids.length === 0) await Promise.race([supervisor.settled, sleep(settleMs, undefined, { ref: false })]);
      const units = ids.length === 0 ? supervisor.units : ids.map((id) => supervisor.unit(id));
      const skipped = ids.length === 0 ? supervisor.plan.skipped : [];
      const left = ids.length === 0 ? supervisor.plan.leftOut : [];
      return {
        plugins: [
          ...(await Promise.all(units.map((unit) => describe(supervisor, unit, utilization)))),
          ...skipped.map(({ id, reason }) => Plugin.fromPartial({ id, reason, state: 'disabled', responsive: true })),
          ...left.map(({ id, reason, dir }) =>
            Plugin.fromPartial({ id, reason, state: 'failed', responsive: true, folder: dir }),
          ),
        ],
        serving: supervisor.serving,
        rssBytes: BigInt(process.memoryUsage.rss()),
        pid: BigInt(process.pid),
      };
    },

    async *watch(_request, call) {
      const queue: Transition[] = [];
      let wake = () => {};
      const off = supervisor.onTransition((transition) => {
        queue.push(transition);
        wake();
      });
      call.signal.addEventListener('abort', () => wake());
      try {
        while (!call.signal.aborted) {
          if (queue.length > watchBacklog) {
            const text = `the watcher is ${queue.length} transitions behind: resource exhausted`;
            throw new Failure('ResourceExhausted', text);
          }
          const next = queue.shift();
          if (next !== undefined) yield message(next);
          else
            await new Promise<void>((resolve) => {
              wake = resolve;
            });
        }
      } finally {
        off();
      }
    },

    async reload({ id, force }) {
      return { ...(await redeploy.reload(id, force)) };
    },

    async restart({ id }) {
      const unit = supervisor.unit(id);
      await unit.stop('restart');
      await unit.start();
      return { generation: unit.generation };
    },

    async stop({ id }) {
      await supervisor.unit(id).stop('stopped by request');
      return {};
    },

    async start({ id }) {
      const unit = supervisor.unit(id);
      await unit.start();
      return { generation: unit.generation };
    },

    plan() {
      return { text: renderPlan(supervisor.plan), order: [...supervisor.plan.order] };
    },

    async dump() {
      return { text: await dump(supervisor) };
    },

    async profile({ id, milliseconds }, call) {
      return { profile: await profile(supervisor.unit(id), milliseconds || profileMs, call.signal) };
    },

    reloadConfig: ({ dryRun }) => redeploy.reloadConfig(dryRun),
  };
}

function message(transition: Transition): TransitionMessage {
  const { at, ...rest } = transition;
  return { ...rest, at: { seconds: BigInt(Math.floor(at / 1000)), nanos: (at % 1000) * 1_000_000 } };
}

/** Taken from outside, by V8, so that it works while the thread's own code never comes to rest. */
async function profile(unit: Unit, ms: number, signal: AbortSignal): Promise<Uint8Array> {
  if (ms > longestProfileMs) {
    throw new Failure('InvalidArgument', `a profile takes up to ${longestProfileMs} ms, not ${ms}: invalid argument`);
  }
  const handle = unit.serving?.handle ?? unit.starting;
  if (handle === undefined || handle.gone) {
    throw new Failure('FailedPrecondition', `plugin ${unit.id} is ${unit.state}: no thread: failed precondition`);
  }
  const taken = await handle.worker.startCpuProfile();
  let ended = false;
  // A thread that ends meanwhile takes its profile with it, and nobody would answer.
  const death = handle.exited.then((reason) => {
    if (!ended)
      throw new Failure('Unavailable', `plugin ${unit.id} ended while it was profiled: ${reason}: unavailable`);
    return new Uint8Array();
  });
  try {
    await Promise.race([sleep(ms, undefined, { signal }).catch(() => undefined), death]);
    return await Promise.race([Promise.resolve(taken.stop()).then((json) => Buffer.from(String(json))), death]);
  } finally {
    ended = true;
    death.catch(() => undefined);
  }
}

async function describe(supervisor: Supervisor, unit: Unit, utilization: Utilization): Promise<Plugin> {
  const { manifest } = unit;
  const handle = unit.serving?.handle;
  const worker = handle?.worker;
  const [stats, heap, cpu] = await Promise.all([
    unit.stats().catch(() => undefined),
    worker?.getHeapStatistics().catch(() => undefined),
    worker?.cpuUsage().catch(() => undefined),
  ]);
  const methods = stats?.methods ?? [];
  return {
    id: unit.id,
    thread: handle?.thread ?? '',
    state: unit.state,
    reason: unit.reason,
    generation: unit.generation,
    restarts: unit.restarts,
    heapBytes: BigInt(heap?.used_heap_size ?? 0),
    externalBytes: BigInt(heap?.external_memory ?? 0),
    cpuMs: cpu === undefined ? 0 : (cpu.user + cpu.system) / 1000,
    utilization: handle === undefined ? 0 : utilization.of(handle),
    calls: BigInt(methods.reduce((sum, method) => sum + method.calls, 0)),
    failures: BigInt(methods.reduce((sum, method) => sum + method.failures, 0)),
    queued: BigInt(stats?.queued ?? 0),
    methods: methods.map((method) => ({
      method: method.method,
      calls: BigInt(method.calls),
      failures: BigInt(method.failures),
      inFlight: BigInt(method.inFlight),
      p50Ms: method.p50,
      p99Ms: method.p99,
    })),
    aliases: [...manifest.aliases],
    requires: (supervisor.plan.dependencies.get(unit.id) ?? [])
      .filter((each) => each.kind === 'requires')
      .map((each) => each.on),
    capabilities: [...manifest.capabilities],
    exports: { ...manifest.exports },
    required: supervisor.plan.required.has(unit.id),
    platforms: [...manifest.platforms],
    responsive: handle === undefined || supervisor.responsive(handle),
    contracts: Object.keys(manifest.serves),
    running: BigInt(stats?.running ?? 0),
    folder: manifest.dir,
  };
}
