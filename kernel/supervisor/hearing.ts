/**
 * What workers say beside the bus, checked before it is believed: a plugin's code can reach the channel as well, and the kernel must not fall over what it
 * posts. Three messages that make no sense end the worker.
 */
import type { ToKernel } from '../sdk/protocol.ts';
import type { WorkerHandle } from './worker-handle.ts';

const maxStrikes = 3;
const levels = new Set(['debug', 'info', 'warn', 'error']);

export class Hearing {
  readonly #take: (message: ToKernel, from: WorkerHandle) => void;
  readonly #enough: (from: WorkerHandle, reason: string) => void;
  readonly #strikes = new WeakMap<WorkerHandle, number>();

  constructor(
    take: (message: ToKernel, from: WorkerHandle) => void,
    enough: (from: WorkerHandle, reason: string) => void,
  ) {
    this.#take = take;
    this.#enough = enough;
  }

  heard(message: unknown, from: WorkerHandle): void {
    if (isMessage(message) && from.plugins.includes(message.id)) {
      this.#take(message, from);
      return;
    }
    const strikes = (this.#strikes.get(from) ?? 0) + 1;
    this.#strikes.set(from, strikes);
    if (strikes === maxStrikes) this.#enough(from, `it has sent ${strikes} messages that make no sense to the kernel`);
  }
}

function isMessage(value: unknown): value is ToKernel {
  if (typeof value !== 'object' || value === null) return false;
  const message = value as Record<string, unknown>;
  if (typeof message.id !== 'string') return false;
  switch (message.t) {
    case 'introduce':
      return typeof message.slot === 'string' && Number.isInteger(message.links);
    case 'log':
      return levels.has(String(message.level)) && typeof message.message === 'string' && isFields(message.fields);
    case 'child':
      return Number.isInteger(message.pid) && Number(message.pid) > 1 && typeof message.running === 'boolean';
    case 'fatal':
      return typeof message.reason === 'string';
    default:
      return false;
  }
}

function isFields(value: unknown): boolean {
  return value === undefined || (typeof value === 'object' && value !== null && !Array.isArray(value));
}
