/** grpc.health.v1.Health: only the daemon as a whole (service "") is known, as with containerd. */
import { setTimeout as sleep } from 'node:timers/promises';
import { Failure, type PluginContext, type Service } from 'troupe/plugin';
import { ImagesDefinition } from 'troupe/proto/containerd/services/images/v1/images.ts';
import { TasksDefinition } from 'troupe/proto/containerd/services/tasks/v1/tasks.ts';
import { VersionDefinition } from 'troupe/proto/containerd/services/version/v1/version.ts';
import {
  HealthCheckResponse_ServingStatus as Status,
  type HealthDefinition,
} from 'troupe/proto/grpc/health/v1/health.ts';
import { KernelDefinition } from 'troupe/proto/troupe/kernel/v1/kernel.ts';

/** How long one of the calls that are tried may take. */
const PROBE_MS = 3000;
/** Between two looks of Watch. */
const WATCH_MS = 1000;
/** A namespace of nobody's: what is listed there costs nothing and finds nothing. */
const NAMESPACE = 'health';

export class Health {
  readonly #ctx: Pick<PluginContext, 'id' | 'call' | 'log'>;
  #checking: Promise<Status> | undefined;

  constructor(ctx: Pick<PluginContext, 'id' | 'call' | 'log'>) {
    this.#ctx = ctx;
  }

  /** SERVING when every required plugin is ready and Version, Images.List and Tasks.List answer. Who asks meanwhile shares the answer. */
  status(): Promise<Status> {
    this.#checking ??= this.#check().finally(() => {
      this.#checking = undefined;
    });
    return this.#checking;
  }

  async #check(): Promise<Status> {
    const options = { namespace: NAMESPACE, timeoutMs: PROBE_MS };
    try {
      const [kernel] = await Promise.all([
        // Whether the required plugins are up is in every answer; describing them all would ask every thread.
        this.#ctx.call(KernelDefinition).list({ ids: [this.#ctx.id] }, { timeoutMs: PROBE_MS }),
        this.#ctx.call(VersionDefinition).version({}, options),
        ifServed(this.#ctx.call(ImagesDefinition).list({ filters: ['name==""'] }, options)),
        ifServed(this.#ctx.call(TasksDefinition).list({ filter: '' }, options)),
      ]);
      if (kernel.serving) return Status.SERVING;
      this.#ctx.log.warn('not serving', { error: 'a required plugin is not ready' });
    } catch (error) {
      this.#ctx.log.warn('not serving', { error: String(error) });
    }
    return Status.NOT_SERVING;
  }
}

/** A plugin that is not part of this daemon cannot fail it. */
async function ifServed(call: Promise<unknown>): Promise<void> {
  try {
    await call;
  } catch (error) {
    if (!Failure.is(error, 'Unimplemented')) throw error;
  }
}

export function serveHealth(health: Health): Service<typeof HealthDefinition> {
  return {
    async check({ service }) {
      if (service !== '') throw new Failure('NotFound', 'unknown service');
      return { status: await health.status() };
    },

    async *watch({ service }, call) {
      let told: Status | undefined;
      for (;;) {
        const status = service === '' ? await health.status() : Status.SERVICE_UNKNOWN;
        if (status !== told) yield { status };
        told = status;
        await sleep(WATCH_MS, undefined, { signal: call.signal });
      }
    },
  };
}
