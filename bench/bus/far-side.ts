/** The other thread of the bus benchmark: serves the same echo over our link, over comlink, and over a bare port. */
import { parentPort, workerData, type MessagePort } from 'node:worker_threads';
import * as comlink from 'comlink';
import nodeEndpoint from 'comlink/dist/esm/node-adapter.mjs';
import { CalleeLink } from '../../kernel/bus/callee.ts';
import { Deadlines } from '../../kernel/bus/deadlines.ts';
import type { Port } from '../../kernel/bus/frames.ts';
import { Scheduler } from '../../kernel/bus/scheduler.ts';
import { Dispatcher } from '../../kernel/sdk/dispatcher.ts';
import { echoDefinition, streamDefinition, takeDefinition } from './echo.ts';

const { link, page, comlinkPort, raw } = workerData as {
  link: MessagePort;
  page: SharedArrayBuffer;
  comlinkPort: MessagePort;
  raw: MessagePort;
};
const quiet = { debug() {}, info() {}, warn() {}, error() {} };
const dispatcher = new Dispatcher(new Deadlines(), quiet, new Set());
dispatcher.add(echoDefinition, { echo: (request: Uint8Array) => request });
dispatcher.add(takeDefinition, { take: () => ({}) });
dispatcher.add(streamDefinition, {
  async *stream(request: Uint8Array) {
    const view = new DataView(request.buffer, request.byteOffset);
    const [size, count] = [view.getUint32(0), view.getUint32(4)];
    const chunk = new Uint8Array(size);
    for (let index = 0; index < count; index++) {
      chunk[0] = index;
      yield chunk;
    }
  },
});
new CalleeLink('bench', link as unknown as Port, page, new Scheduler(), (call) => dispatcher.serve(call));

comlink.expose({ echo: (request: unknown) => request }, nodeEndpoint(comlinkPort));

let received = 0;
raw.on('message', (message: { id?: number; count?: number; size?: number }) => {
  if (message.count !== undefined) {
    const chunk = new Uint8Array(message.size!);
    for (let index = 0; index < message.count; index++) raw.postMessage({ chunk });
    return;
  }
  received += 1;
  raw.postMessage({ id: message.id, ack: received });
});
parentPort!.postMessage('ready');
