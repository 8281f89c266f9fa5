/** A worker's entry: hosts the plugins it is told to, answers the kernel, and beats. */
import { parentPort, workerData } from 'node:worker_threads';
import * as comlink from 'comlink';
import nodeEndpoint from 'comlink/dist/esm/node-adapter.mjs';
import { Deadlines } from '../bus/deadlines.ts';
import type { Port } from '../bus/frames.ts';
import { Scheduler } from '../bus/scheduler.ts';
import { ControlPage } from './control-page.ts';
import { Failure } from './failure.ts';
import { PluginHost, type Thread } from './host.ts';
import type { ToWorker, WorkerControl, WorkerInit } from './protocol.ts';

const init = workerData as WorkerInit;
const page = new ControlPage(init.page);
page.beat();

const thread: Thread = {
  init,
  scheduler: new Scheduler(),
  deadlines: new Deadlines(),
  page,
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
  activate: (id, state) => hostOf(id).activate(state),
  suspend: (id, quiesceMs) => hostOf(id).suspend(quiesceMs),
  release: async (id) => hostOf(id).release(),
  configure: (id, config) => hostOf(id).configure(config),
  stop: (id) => hostOf(id).stop(),
  stats: async (id) => hostOf(id).stats(),
};

init.channel.on('message', (message: ToWorker) => {
  switch (message.t) {
    case 'accept':
      hostOf(message.id).accept(message.from, message.port, message.page);
      return;
    case 'relink':
      hostOf(message.id).router.relink(message.slot, {
        generation: message.generation,
        port: message.port as unknown as Port,
        page: message.page,
      });
      return;
    case 'down':
      hostOf(message.id).router.down(message.slot, new Failure('Unavailable', message.reason));
      return;
    case 'routes':
      for (const host of hosts.values()) host.router.setRoutes(message.routes);
  }
});

comlink.expose(control, nodeEndpoint(parentPort!));
