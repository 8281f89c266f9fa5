/**
 * Introductions: who asked for a link to whom, and what they are told. The kernel makes the channel, gives each side its end, and is out of it.
 *
 * Whoever holds a link to a generation is told once that it has died, whether it asked before, meanwhile or afterwards.
 */
import { MessageChannel, type MessagePort } from 'node:worker_threads';
import { dispatchPage } from '../bus/link.ts';

/** One generation as an end of links-to-be: a plugin in a worker, or the kernel itself. */
export interface Party {
  readonly id: string;
  /** It has ended; nothing reaches it. */
  readonly gone: boolean;
  /** A caller's link to this party. */
  accept(from: string, port: MessagePort, page: SharedArrayBuffer): void;
  /** This party's link to `slot`. */
  relink(slot: string, generation: number, port: MessagePort, page: SharedArrayBuffer): void;
  /** That generation, which this party holds a link to, has died. */
  died(slot: string, generation: number): void;
  /** Nothing serves the slot, and nothing will for now. */
  down(slot: string, reason: string): void;
}

/** What a caller has been given for a slot. */
interface Given {
  /** Those that it holds links to. */
  readonly generations: Set<number>;
  /** Links in all. */
  links: number;
}

interface SlotState {
  /** What serves it now. */
  provider: { party: Party; generation: number } | undefined;
  /** Why nothing does, when nothing will. */
  ended: string | undefined;
  /** Callers that have asked since it last served. */
  readonly waiting: Set<Party>;
  /** Callers that hold a link, or were told that there is none. */
  readonly callers: Map<Party, Given>;
}

export class Links {
  readonly #slots = new Map<string, SlotState>();

  /** @param links how many had come when it asked */
  introduce(caller: Party, slot: string, links: number): void {
    const state = this.#slot(slot);
    // Refused by a generation whose successor's link is on its way.
    if (links < (state.callers.get(caller)?.links ?? 0)) return;
    if (state.provider !== undefined) this.#join(caller, slot, state);
    else if (state.ended !== undefined) this.#deny(caller, slot, state, state.ended);
    else state.waiting.add(caller);
  }

  /** A generation serves `slot` now: callers move over, those who waited first. */
  serving(slot: string, party: Party, generation: number): void {
    const state = this.#slot(slot);
    state.provider = { party, generation };
    state.ended = undefined;
    const callers = new Set([...state.waiting, ...state.callers.keys()]);
    state.waiting.clear();
    for (const caller of callers) this.#join(caller, slot, state);
  }

  /** Nothing serves it for the moment; callers wait. */
  interrupted(slot: string): void {
    this.#slot(slot).provider = undefined;
  }

  /** A generation has ended, whether it still served or was replaced before. */
  died(slot: string, generation: number): void {
    const state = this.#slot(slot);
    if (state.provider?.generation === generation) state.provider = undefined;
    for (const [caller, { generations }] of state.callers) {
      if (caller.gone) state.callers.delete(caller);
      else if (generations.delete(generation)) caller.died(slot, generation);
    }
  }

  /** A party that has ended asks nothing any more. */
  left(party: Party): void {
    for (const { waiting, callers } of this.#slots.values()) {
      waiting.delete(party);
      callers.delete(party);
    }
  }

  /** Nothing serves it until it is started by hand. */
  ended(slot: string, reason: string): void {
    const state = this.#slot(slot);
    state.provider = undefined;
    state.ended = reason;
    const callers = new Set([...state.waiting, ...state.callers.keys()]);
    state.waiting.clear();
    for (const caller of callers) this.#deny(caller, slot, state, reason);
  }

  #join(caller: Party, slot: string, state: SlotState): void {
    if (caller.gone || state.provider === undefined) {
      state.callers.delete(caller);
      return;
    }
    const { party, generation } = state.provider;
    const given = this.#given(caller, state);
    given.generations.add(generation);
    given.links += 1;
    const { port1, port2 } = new MessageChannel();
    const page = dispatchPage();
    party.accept(caller.id, port1, page);
    caller.relink(slot, generation, port2, page);
  }

  #deny(caller: Party, slot: string, state: SlotState, reason: string): void {
    if (caller.gone) {
      state.callers.delete(caller);
      return;
    }
    this.#given(caller, state);
    caller.down(slot, reason);
  }

  #given(caller: Party, state: SlotState): Given {
    let given = state.callers.get(caller);
    if (given === undefined) {
      given = { generations: new Set(), links: 0 };
      state.callers.set(caller, given);
    }
    return given;
  }

  #slot(name: string): SlotState {
    let state = this.#slots.get(name);
    if (state === undefined) {
      state = { provider: undefined, ended: undefined, waiting: new Set(), callers: new Map() };
      this.#slots.set(name, state);
    }
    return state;
  }
}
