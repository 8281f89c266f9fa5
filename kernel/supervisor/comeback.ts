/**
 * How a plugin comes back when its worker has died or when it has to go with another of its group: as its policy and its group say, after a pause, by the build
 * that it ran or, when that was on probation, by the one before. Its state is not handed over: it may have been the cause.
 */
import type { Build } from './builds.ts';
import { stopGeneration } from './ending.ts';
import { type Generation, messageOf } from './generation.ts';
import { Probation } from './probation.ts';
import type { Unit } from './unit.ts';

export class Comeback {
  readonly #unit: Unit;
  readonly probation: Probation;
  /** Resolves when it has to go with another of its group. */
  #down = Promise.withResolvers<string>();

  constructor(unit: Unit) {
    this.#unit = unit;
    this.probation = new Probation(unit.world.clock);
  }

  /** The serving generation has died. */
  died(generation: Generation, reason: string): void {
    const unit = this.#unit;
    unit.serving = undefined;
    unit.world.log('error', 'plugin died', { plugin: unit.id, generation: generation.number, reason });
    if (unit.manifest.restart === 'transient' && reason === 'exited with code 0') {
      unit.go('draining', reason);
      unit.go('stopped', reason);
      unit.world.ended(unit, `plugin ${unit.id} has ended: unavailable`);
      return;
    }
    const before = this.probation.crashed(reason);
    if (before !== undefined) this.#goBack(before, reason);
    if (unit.manifest.restart === 'temporary') void unit.giveUp(reason);
    else this.#again(generation.handle, reason);
  }

  #goBack(before: Build, reason: string): void {
    const unit = this.#unit;
    unit.build = before;
    unit.world.reloadFailed(unit, 'probation', reason);
    unit.world.adopted(unit.manifest);
  }

  /** One more try, as the budget allows. */
  #again(cause: object, reason: string): void {
    const unit = this.#unit;
    if (unit.stopping || unit.state === 'failed') return;
    if (unit.group === undefined) void unit.giveUp(reason);
    else unit.group.failed(unit, cause, reason);
  }

  /** It is well, and has to go with another. */
  async takeDown(reason: string): Promise<void> {
    const unit = this.#unit;
    // One that is coming up may be waiting for the very one that it has to go along with.
    this.#down.resolve(reason);
    unit.breakOff(reason);
    await unit.exclusively(async () => {
      this.#down = Promise.withResolvers();
      const generation = unit.serving;
      if (generation === undefined || unit.state !== 'ready') return;
      unit.serving = undefined;
      generation.expected = true;
      unit.backOff(reason);
      await stopGeneration(unit, generation, reason);
    });
  }

  /** The pause is over. */
  async revive(): Promise<void> {
    await this.#unit.exclusively(async () => {
      if (this.#unit.state !== 'backoff') return;
      await this.recover();
    });
  }

  /** From backoff: the same build again, from its copy when its folder holds another by now. */
  async recover(): Promise<void> {
    const unit = this.#unit;
    unit.restarts += 1;
    const build = await unit.world.startable(unit.build);
    let takenDown: string | undefined;
    const down = this.#down.promise.then((reason) => {
      takenDown = reason;
      return reason;
    });
    try {
      await unit.bring(build, Promise.race([unit.world.required(unit), down]), false);
    } catch (error) {
      if (takenDown === undefined) this.#again({}, messageOf(error));
      else if (unit.state !== 'failed') unit.backOff(takenDown);
    }
  }
}
