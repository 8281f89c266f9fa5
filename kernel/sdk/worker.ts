/** A worker's entry: hosts the plugins it is told to, answers the kernel, and beats. */
import { readlinkSync } from 'node:fs';
import { basename } from 'node:path';
import { type MessagePort, parentPort, workerData } from 'node:worker_threads';
import * as comlink from 'comlink';
import nodeEndpoint from 'comlink/dist/esm/node-adapter.mjs';
import { Deadlines } from '../bus/deadlines.ts';
import type { Port } from '../bus/frames.ts';
import { Scheduler } from '../bus/scheduler.ts';
import { ControlPage } from './control-page.ts';
import { Failure } from './failure.ts';
import { collectGarbage } from './garbage.ts';
import { PluginHost, type Thread } from './host.ts';
import { KernelWatch } from './kernel-watch.ts';
import { rehearsal } from './prebuilt.ts';
import type { ToWorker, WorkerControl, WorkerInit } from './protocol.ts';
import { Urgency } from './urgency.ts';
import { awaitLoads } from '../sys/loading.ts';

const init = workerData as WorkerInit;
const urgency = new Urgency(init.niceness);
// One that comes after another is waited for from its first moment; those of the daemon's start all are, and the kernel by all of them.
if (init.plugins.some(({ generation }) => generation === 1)) urgency.settle();
// The threads of its pools end with it, also when it ends by itself.
process.once('exit', awaitLoads);
const page = new ControlPage(init.page);
page.threadId = Number(basename(readlinkSync('/proc/thread-self')));
const scheduler = new Scheduler();
const kernel = new KernelWatch(init.kernelPage, init.kernelStallMs);
page.beat(() => {
  page.waiting = scheduler.depth;
  kernel.tick();
});

const thread: Thread = {
  init,
  scheduler,
  deadlines: new Deadlines(),
  page,
  urgency,
  notify: (message) => init.channel.postMessage(message),
};
const hosts = new Map(init.plugins.map((plugin) => [plugin.id, new PluginHost(plugin, thread)]));

function hostOf(id: string): PluginHost {
  const host = hosts.get(id);
  if (host === undefined) throw new Failure('NotFound', `plugin ${id} is not in worker ${init.thread}: not found`);
  return host;
}

const control: WorkerControl = {
  load: (id) => hostOf(id).load(),
  start: (id) => hostOf(id).start(),
  async activate(id, state) {
    try {
      await hostOf(id).activate(state);
    } finally {
      // Behind the answer, which the callers wait for: it would wait for its turn among them.
      setImmediate(() => urgency.settle());
    }
    // Not left to the timer: the very first call may be the one that never ends.
    page.turned();
  },
  suspend(id, endMs) {
    const suspended = hostOf(id).suspend(endMs);
    page.holds();
    return suspended;
  },
  async resume(id) {
    urgency.settle();
    hostOf(id).resume();
  },
  drained: (id) => hostOf(id).drained(),
  running: async (id) => hostOf(id).dispatcher.runningMethods,
  collect: async () => collectGarbage(),
  async release(id) {
    urgency.settle();
    hostOf(id).release();
  },
  configure: (id, config) => hostOf(id).configure(config),
  async stop(id) {
    await hostOf(id).stop();
    rehearsal.keep();
  },
  stats: async (id) => hostOf(id).stats(),
};

/** Callers' ends of links, by plugin here and slot there, with the generation each leads to. */
const links = new Map<string, { generation: number; port: MessagePort }>();

init.channel.on('message', (message: ToWorker) => {
  switch (message.t) {
    case 'accept':
      hostOf(message.id).accept(message.from, message.port, message.page);
      return;
    case 'relink': {
      const { id, slot, generation, port } = message;
      links.set(`${id} ${slot}`, { generation, port });
      hostOf(id).router.relink(slot, { port: port as unknown as Port, page: message.page });
      return;
    }
    case 'died': {
      const link = links.get(`${message.id} ${message.slot}`);
      // Its own close comes first as a rule; a port that never arrived at the dead thread has none.
      if (link?.generation === message.generation) link.port.close();
      return;
    }
    case 'down':
      hostOf(message.id).router.down(message.slot, new Failure('Unavailable', message.reason));
      return;
    case 'routes':
      for (const host of hosts.values()) host.router.setRoutes(message.routes);
  }
});

comlink.expose(control, nodeEndpoint(parentPort!));
