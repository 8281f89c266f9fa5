/** The kernel as a plugin among plugins: it serves `troupe.kernel.v1.Kernel` from the main thread, over links like everybody's. */
import type { MessagePort } from 'node:worker_threads';
import { CalleeLink } from '../bus/callee.ts';
import { Deadlines } from '../bus/deadlines.ts';
import type { Port } from '../bus/frames.ts';
import { Scheduler } from '../bus/scheduler.ts';
import { Dispatcher } from '../sdk/dispatcher.ts';
import type { Log, ServiceDefinition } from '../sdk/plugin.ts';
import type { Party } from './links.ts';

export const kernelSlot = 'troupe.kernel.v1.kernel';

export class KernelPeer implements Party {
  readonly id = kernelSlot;
  readonly gone = false;
  readonly dispatcher: Dispatcher;
  readonly #scheduler = new Scheduler();
  readonly #links = new Set<CalleeLink>();

  constructor(log: Log, definition: ServiceDefinition, service: object) {
    this.dispatcher = new Dispatcher(new Deadlines(), log, new Set());
    this.dispatcher.add(definition, service);
  }

  accept(from: string, port: MessagePort, page: SharedArrayBuffer): void {
    const link: CalleeLink = new CalleeLink(
      from,
      port as unknown as Port,
      page,
      this.#scheduler,
      (call) => this.dispatcher.serve(call),
      () => this.#links.delete(link),
    );
    this.#links.add(link);
    // A link must not keep a process alive that has otherwise ended.
    port.unref();
  }

  relink(_slot: string, _generation: number, port: MessagePort): void {
    port.close();
  }

  died(): void {}

  down(): void {}
}
