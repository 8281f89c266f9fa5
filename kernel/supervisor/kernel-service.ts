/** `troupe.kernel.v1.Kernel`: what the supervisor knows and can do, for clients. */
import type {
  KernelDefinition,
  Plugin,
  Transition as TransitionMessage,
} from '../../proto/gen/troupe/kernel/v1/kernel.ts';
import { renderPlan } from '../plan/index.ts';
import type { Service } from '../sdk/plugin.ts';
import { dump } from './dump.ts';
import type { Supervisor } from './supervisor.ts';
import type { Transition } from './transitions.ts';
import type { Unit } from './unit.ts';

/** Transitions a watcher may be behind before it is cut off. */
const watchBacklog = 10_000;

export function kernelService(supervisor: Supervisor): Service<typeof KernelDefinition> {
  return {
    async list({ ids }) {
      const units = ids.length === 0 ? supervisor.units : ids.map((id) => supervisor.unit(id));
      const skipped = ids.length === 0 ? supervisor.plan.skipped.map(({ id, reason }) => absent(id, reason)) : [];
      return {
        plugins: [...(await Promise.all(units.map((unit) => describe(supervisor, unit)))), ...skipped],
        serving: supervisor.serving,
        rssBytes: BigInt(process.memoryUsage.rss()),
        pid: BigInt(process.pid),
      };
    },

    async *watch(_request, call) {
      const queue: Transition[] = [];
      let wake = () => {};
      const off = supervisor.onTransition((transition) => {
        if (queue.length < watchBacklog) queue.push(transition);
        wake();
      });
      call.signal.addEventListener('abort', () => wake());
      try {
        while (!call.signal.aborted) {
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

    async reload({ id }) {
      const outcome = await supervisor.unit(id).reload();
      return { ...outcome };
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
  };
}

function message(transition: Transition): TransitionMessage {
  const { at, ...rest } = transition;
  return { ...rest, at: { seconds: BigInt(Math.floor(at / 1000)), nanos: (at % 1000) * 1_000_000 } };
}

async function describe(supervisor: Supervisor, unit: Unit): Promise<Plugin> {
  const { manifest } = unit;
  const worker = unit.serving?.handle.worker;
  const [stats, heap, cpu] = await Promise.all([
    unit.stats().catch(() => undefined),
    worker?.getHeapStatistics().catch(() => undefined),
    worker?.cpuUsage().catch(() => undefined),
  ]);
  const methods = stats?.methods ?? [];
  return {
    id: unit.id,
    thread: unit.serving?.handle.thread ?? '',
    state: unit.state,
    reason: unit.reason,
    generation: unit.generation,
    restarts: unit.restarts,
    heapBytes: BigInt(heap?.used_heap_size ?? 0),
    externalBytes: BigInt(heap?.external_memory ?? 0),
    cpuMs: cpu === undefined ? 0 : (cpu.user + cpu.system) / 1000,
    utilization: worker?.performance.eventLoopUtilization().utilization ?? 0,
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
    responsive: unit.serving === undefined || supervisor.responsive(unit.serving.handle),
    contracts: Object.keys(manifest.serves),
  };
}

/** A plugin that the plan leaves out. */
function absent(id: string, reason: string): Plugin {
  return {
    id,
    thread: '',
    state: 'disabled',
    reason,
    generation: 0,
    restarts: 0,
    heapBytes: 0n,
    externalBytes: 0n,
    cpuMs: 0,
    utilization: 0,
    calls: 0n,
    failures: 0n,
    queued: 0n,
    methods: [],
    aliases: [],
    requires: [],
    capabilities: [],
    exports: {},
    required: false,
    platforms: [],
    responsive: true,
    contracts: [],
  };
}
