/**
 * Plugins that answer for each other: who is started anew when one of them dies, how soon, and when that is enough. A plugin of no group is a group of its own;
 * plugins that share a thread are one, since the thread's death is everybody's.
 */
import type { Manifest } from '../plan/index.ts';
import type { Clock } from './clock.ts';
import { RestartBudget } from './restart-budget.ts';

/** A member as its group sees it. */
export interface GroupMember {
  readonly id: string;
  /** It has died, or could not be started, and waits to be started again. */
  backOff(reason: string): void;
  /** It is well, and has to go with another: stopped, and waits to be started again. Does nothing to one that is not up. */
  takeDown(reason: string): Promise<void>;
  /** Starts it if it (still) waits for that. */
  revive(): Promise<void>;
  /** It is not started again but by hand. */
  giveUp(reason: string): Promise<void>;
}

/**
 * The process had no descriptor or no memory left for a thread: that says nothing of the plugin, and passes. Counted against it, a moment of scarcity would take plugins
 * away for good.
 */
const scarcity = /\b(?:ERR_WORKER_INIT_FAILED|EMFILE|ENFILE)\b/;
const scarcityPauseMs = 1000;

export type Strategy = Manifest['strategy'];

export class RestartGroup {
  /** In the order of starting. */
  members: readonly GroupMember[] = [];
  readonly #strategy: Strategy;
  readonly #policy: Manifest['backoff'];
  readonly #budget: RestartBudget;
  readonly #clock: Clock;
  /** Pauses by what was the cause: a worker that takes several members along has died once. */
  readonly #pauses = new WeakMap<object, { readonly ms: number | undefined }>();

  constructor(strategy: Strategy, policy: Manifest['backoff'], clock: Clock, random?: () => number) {
    this.#strategy = strategy;
    this.#policy = policy;
    this.#clock = clock;
    this.#budget = new RestartBudget(policy, clock.now, random);
  }

  /** @param cause the worker that ended, or whatever stands for one failed attempt */
  failed(member: GroupMember, cause: object, reason: string): void {
    let pause = this.#pauses.get(cause);
    if (pause === undefined) {
      pause = { ms: scarcity.test(reason) ? scarcityPauseMs : this.#budget.next() };
      this.#pauses.set(cause, pause);
    }
    if (pause.ms === undefined) {
      const { restarts, withinMs } = this.#policy;
      void this.#giveUp(member, `more than ${restarts} restarts in ${withinMs / 1000} s: ${reason}`);
      return;
    }
    member.backOff(reason);
    const others = this.#alongWith(member);
    const down = this.#takeDown(others, `${member.id} died: ${reason}`);
    this.#clock.after(pause.ms, () => void this.#revive(member, others, down));
  }

  #alongWith(member: GroupMember): readonly GroupMember[] {
    switch (this.#strategy) {
      case 'one_for_one':
        return [];
      case 'rest_for_one':
        return this.members.slice(this.members.indexOf(member) + 1);
      case 'one_for_all':
        return this.members.filter((each) => each !== member);
    }
  }

  async #takeDown(others: readonly GroupMember[], reason: string): Promise<void> {
    for (const other of others.toReversed()) await other.takeDown(reason);
  }

  async #revive(member: GroupMember, others: readonly GroupMember[], down: Promise<void>): Promise<void> {
    await down;
    for (const each of this.members) {
      if (each === member || others.includes(each)) await each.revive();
    }
  }

  async #giveUp(member: GroupMember, reason: string): Promise<void> {
    await member.giveUp(reason);
    for (const other of this.members.toReversed()) {
      if (other !== member) await other.giveUp(`${member.id} of its group has failed: ${reason}`);
    }
  }
}
