/**
 * A reload: start(g2) → suspend(g1) → activate(g2, state) → flip. Whatever of g2 fails before the flip, g1 is activated again and serves on; several plugins
 * flip together or not at all. Calls wait with their callers from the suspend to the flip: they were never dispatched, so either generation may have them.
 */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { loadManifest, type Manifest } from '../plan/index.ts';
import { letGo, threadIdOf } from '../sdk/control-page.ts';
import { Failure } from '../sdk/failure.ts';
import type { HandedOver } from '../sdk/handover.ts';
import { type Build, freshBuild } from './builds.ts';
import { incompatibility } from './compat.ts';
import { type Generation, messageOf, startStep } from './generation.ts';
import { prepareRush, rush } from './rush.ts';
import type { Unit } from './unit.ts';

/** Where every call must have ended, it is worth waiting for them. */
const exclusiveHoldMs = 10_000;
/** Generations that only hold streams which end in their own time. */
const maxDraining = 8;
/** A reload waits so long for a place, and says for whom. */
const roomMs = 30_000;
/** One that is forced waits for calls with an end in sight as well, and not as long. */
const forcedMs = 10_000;
const roomPollMs = 100;

/** What the next generation is made from; what is left out is as the folder has it, and config as it is. */
export interface ReloadOptions {
  /** Also when the code on disk is the code that runs, or has crashed in probation; ends the oldest generation when eight hold streams already. */
  readonly force?: boolean;
  /** As it has been read anew, checked and planned. */
  readonly manifest?: Manifest;
  /** Validated against that manifest. */
  readonly config?: Readonly<Record<string, unknown>>;
}

export interface ReloadOutcome {
  readonly generation: number;
  /** How long calls waited. */
  readonly holdMs: number;
  readonly totalMs: number;
  /** `reloaded`; `kept` when the old generation serves on; `restarted` when it had to start anew; `unchanged` when there was nothing to do. */
  readonly outcome: 'reloaded' | 'kept' | 'restarted' | 'unchanged';
  readonly reason: string;
}

/** Why there is no flip, and at which step. */
class Refusal extends Error {
  readonly stage: string;

  constructor(stage: string, reason: string) {
    super(reason);
    this.stage = stage;
  }
}

/** One plugin's part of a reload. */
export class Handover {
  readonly unit: Unit;
  outcome: ReloadOutcome | undefined;
  /** The old generation died after it had been asked to let go. */
  oldDied: string | undefined;
  readonly #options: ReloadOptions;
  readonly #began = performance.now();
  #old: Generation | undefined;
  #next: Generation | undefined;
  #state: HandedOver | undefined;
  #heldAt = 0;
  #calm = (): void => {};
  /** What the old generation is in the middle of. */
  #phase: 'serving' | 'held' | 'suspended' | 'lost' = 'serving';

  constructor(unit: Unit, options: ReloadOptions) {
    this.unit = unit;
    this.#options = options;
  }

  /** Until the successor stands by. The generation that serves does not notice. @throws Refusal */
  async prepare(): Promise<void> {
    const { unit } = this;
    const old = unit.serving;
    const manifest = this.#manifest();
    if (unit.state !== 'ready' || old === undefined) {
      await this.#startAnew(manifest);
      return;
    }
    this.#old = old;
    const wrong =
      incompatibility(old.build.manifest, manifest, { before: unit.migrations, now: migrationsOf(manifest) }) ??
      unit.world.admit(manifest);
    if (wrong !== undefined) throw new Refusal('compat', wrong);
    const reading = unit.world.builds.read(manifest);
    const config = this.#options.config ?? configFor(manifest, unit.build.config);
    if (this.#options.force !== true) {
      const { digest } = await reading;
      const bad = unit.bad.get(digest);
      if (bad !== undefined)
        throw new Refusal('probation', `this build has crashed in probation (${bad}); change it, or force it`);
      if (digest === unit.build.digest && isDeepStrictEqual(config, unit.build.config)) {
        this.#settle('unchanged', '');
        return;
      }
    }
    const copying = reading
      .then((closure) => unit.world.builds.keep(manifest, closure))
      .catch((error: unknown) => {
        unit.world.log('warn', 'no copy of a build', { plugin: unit.id, error: messageOf(error) });
        return undefined;
      });
    await this.#room();
    const build: Build = { manifest, config, digest: undefined, dir: manifest.dir, copy: undefined };
    // While the folder is read and copied: what is loaded and what is read may differ when somebody writes there just then, either way.
    const next = await this.#successor(build);
    this.#next = next;
    const { digest } = await reading;
    next.build = { ...build, digest, copy: await copying };
  }

  #manifest(): Manifest {
    if (this.#options.manifest !== undefined) return this.#options.manifest;
    try {
      const fresh = loadManifest(this.unit.manifest.dir);
      // A folder that plugins are made from, one for each entry of the config, holds none of their manifests.
      return fresh.proxies === undefined ? fresh : this.unit.manifest;
    } catch (error) {
      throw new Refusal('manifest', messageOf(error));
    }
  }

  /** One that does not serve is started from what its folder holds. */
  async #startAnew(manifest: Manifest): Promise<void> {
    const { unit } = this;
    if (unit.state !== 'failed' && unit.state !== 'backoff' && unit.state !== 'skipped') {
      throw new Failure(
        'FailedPrecondition',
        `plugin ${unit.id} is ${unit.state}, only one that is ready can be reloaded: failed precondition`,
      );
    }
    const wrong = unit.world.admit(manifest);
    if (wrong !== undefined) throw new Refusal('compat', wrong);
    const was = `it was ${unit.state}: ${unit.reason}`;
    const config = this.#options.config ?? configFor(manifest, unit.build.config);
    try {
      await unit.bring(freshBuild(manifest, config), unit.world.required(unit), false);
    } catch (error) {
      await unit.giveUp(messageOf(error));
      throw new Refusal('start', messageOf(error));
    }
    unit.world.adopted(manifest);
    this.#settle('restarted', was);
  }

  /** A place for one more: two generations that run brief calls, and eight that hold streams. */
  async #room(): Promise<void> {
    const { unit } = this;
    const began = unit.world.clock.now();
    for (let told = false; ; told = true) {
      const inTheWay = await this.#inTheWay();
      if (inTheWay === undefined) return;
      const { generation, reason, brief } = inTheWay;
      const waited = unit.world.clock.now() - began;
      if (this.#options.force === true && (!brief || waited >= forcedMs)) {
        await unit.discard(generation, 'a newer generation needs its place');
        unit.draining.delete(generation);
        continue;
      }
      if (waited >= roomMs) throw new Failure('Unavailable', `plugin ${unit.id}: ${reason}: unavailable`);
      if (!told) unit.world.log('info', 'reload waits', { plugin: unit.id, reason });
      await sleep(roomPollMs);
    }
  }

  async #inTheWay(): Promise<{ generation: Generation; reason: string; brief: boolean } | undefined> {
    const { unit } = this;
    for (const generation of unit.draining) {
      const { handle, number } = generation;
      const stats = await handle.call('stats', [unit.id], 1000).catch(() => undefined);
      const brief = (stats?.brief ?? 0) > 0;
      if (!brief && unit.draining.size < maxDraining) continue;
      const calls = await handle.call('running', [unit.id], 1000).catch(() => []);
      const also = unit.draining.size < maxDraining ? '' : ` and ${unit.draining.size - 1} others`;
      return {
        generation,
        brief,
        reason: `generation ${number}${also} must end first, and still runs ${calls.join(', ')}`,
      };
    }
    return undefined;
  }

  async #successor(build: Build): Promise<Generation> {
    const { unit } = this;
    const { loadMs, startMs } = build.manifest.deadlines;
    const next = unit.makeOwn(build, unit.nextThread);
    unit.begins(next.handle, true);
    try {
      prepareRush();
      await startStep(next.handle, 'load', [unit.id], loadMs);
      const outcome = await startStep(next.handle, 'start', [unit.id], startMs);
      if (outcome.t === 'skipped') throw new Error(`skipped: ${outcome.reason}`);
      next.shapes = outcome.methods;
      return next;
    } catch (error) {
      await unit.discard(next, 'start failed');
      throw new Refusal('start', messageOf(error));
    } finally {
      unit.begins(undefined, false);
    }
  }

  /** The old generation lets go. @throws Refusal */
  async hold(): Promise<void> {
    const { unit } = this;
    const old = this.#old!;
    if (unit.serving !== old) {
      await this.#takeOver();
      return;
    }
    this.#heldAt = performance.now();
    this.#phase = 'held';
    unit.handing = this;
    unit.go('suspended', 'reload');
    const { exclusive, holdMs } = this.#hold;
    const threads = [old, this.#next!].map(({ handle }) => threadIdOf(handle.page));
    this.#calm = rush(threads);
    let answer: Awaited<ReturnType<typeof suspend>>;
    try {
      answer = await suspend();
    } catch (error) {
      this.#phase = 'lost';
      throw new Refusal('suspend', messageOf(error));
    }
    if (!answer.quiet) {
      throw new Refusal('suspend', `calls have not ended within ${holdMs} ms: ${answer.running.join(', ')}`);
    }
    this.#phase = 'suspended';
    this.#state = answer.state;

    function suspend() {
      const { page, plugins } = old.handle;
      if (plugins.length === 1) letGo(page);
      return old.handle.call('suspend', [unit.id, exclusive ? holdMs : undefined], exclusive ? 2 * holdMs : holdMs);
    }
  }

  get #hold(): { exclusive: boolean; holdMs: number } {
    const exclusive = this.#old!.build.manifest.reload === 'exclusive';
    return { exclusive, holdMs: exclusive ? exclusiveHoldMs : this.unit.world.holdMs };
  }

  /** The new one takes hold. @throws Refusal */
  async activate(): Promise<void> {
    if (this.outcome !== undefined) return;
    const left = Math.max(50, this.#hold.holdMs - (performance.now() - this.#heldAt));
    try {
      await this.#next!.handle.call('activate', [this.unit.id, this.#state], left);
    } catch (error) {
      throw new Refusal('activate', messageOf(error));
    }
  }

  /** Calls go to the new one from here on. Cannot fail. */
  flip(): void {
    if (this.outcome !== undefined) return;
    const { unit } = this;
    const [old, next] = [this.#old!, this.#next!];
    unit.handing = undefined;
    unit.serve(next);
    this.#calm();
    this.#settle('reloaded', '');
    unit.world.adopted(next.build.manifest);
    unit.onProbation(old.build, next);
    if (this.oldDied === undefined) void unit.drain(old);
  }

  /** No flip: as if nothing had been. */
  async back(stage: string, reason: string): Promise<void> {
    if (this.outcome !== undefined) return;
    this.#calm();
    const { unit } = this;
    const old = this.#old;
    const text = `${stage}: ${reason}`;
    if (this.#next !== undefined) await unit.discard(this.#next, text);
    if (old !== undefined && this.#phase !== 'serving') {
      const lost = await this.#letGoOn(old);
      unit.handing = undefined;
      if (lost !== undefined) {
        await this.#anew(old, [text, lost].filter((each) => each !== '').join('; and the old generation: '));
        return;
      }
      unit.go('ready', text);
      unit.world.serving(unit, old);
    }
    this.#settle('kept', text);
  }

  /** @returns why it cannot; empty when that is what it all began with */
  async #letGoOn(old: Generation): Promise<string | undefined> {
    const { unit } = this;
    if (this.#phase === 'lost') return '';
    try {
      if (this.#phase === 'held') await old.handle.call('resume', [unit.id], 1000);
      else await old.handle.call('activate', [unit.id, this.#state], old.build.manifest.deadlines.startMs);
      return this.oldDied;
    } catch (error) {
      return this.oldDied ?? messageOf(error);
    }
  }

  /** The old generation has let go and cannot go on: it has crashed, and its build starts anew. */
  async #anew(old: Generation, reason: string): Promise<void> {
    const { unit } = this;
    unit.serving = undefined;
    old.expected = true;
    unit.backOff(reason);
    await unit.discard(old, reason);
    await unit.recover();
    this.#settle('restarted', reason);
  }

  /** The old one died while the new one got ready: that comes at the right time, without state, as after any crash. */
  async #takeOver(): Promise<void> {
    const { unit } = this;
    const next = this.#next!;
    if (unit.state !== 'backoff') throw new Refusal('hold', `it is ${unit.state} meanwhile`);
    const { reason } = unit;
    unit.restarts += 1;
    unit.go('spawning', 'reload');
    unit.go('initializing', 'reload');
    try {
      await startStep(next.handle, 'activate', [unit.id, undefined], next.build.manifest.deadlines.startMs);
    } catch (error) {
      unit.backOff(messageOf(error));
      await unit.discard(next, 'activate failed');
      await unit.recover();
      this.#settle('restarted', messageOf(error));
      return;
    }
    unit.serve(next);
    unit.world.adopted(next.build.manifest);
    this.#settle('restarted', `the old generation died meanwhile: ${reason}`);
  }

  #settle(outcome: ReloadOutcome['outcome'], reason: string): void {
    const now = performance.now();
    const holdMs = this.#heldAt === 0 ? 0 : now - this.#heldAt;
    this.outcome = { generation: this.unit.generation, holdMs, totalMs: now - this.#began, outcome, reason };
  }
}

/** Reloads plugins that are held already (`exclusively`), given in the order of starting: all of them flip, or none. */
export async function reloadTogether(handovers: readonly Handover[]): Promise<ReloadOutcome[]> {
  try {
    const prepared = await Promise.allSettled(handovers.map((each) => each.prepare()));
    const failed = prepared.find((each) => each.status === 'rejected');
    if (failed !== undefined) throw failed.reason;
    // Those that use others let go first, and take hold last.
    for (const each of handovers.toReversed()) if (each.outcome === undefined) await each.hold();
    for (const each of handovers) await each.activate();
    for (const each of handovers) each.flip();
  } catch (error) {
    const [stage, reason] = error instanceof Refusal ? [error.stage, error.message] : ['kernel', messageOf(error)];
    for (const each of handovers.toReversed()) await each.back(stage, reason);
    if (!(error instanceof Refusal)) throw error;
    for (const { unit, outcome } of handovers) {
      if (outcome?.outcome === 'kept' || outcome?.outcome === 'restarted') unit.world.reloadFailed(unit, stage, reason);
    }
  }
  return handovers.map(({ outcome }) => outcome!);
}

/** Names of the files in its `migrations/`; none when it keeps no records. */
export function migrationsOf(manifest: Manifest): string[] {
  if (manifest.records.prefix === '') return [];
  try {
    return readdirSync(join(manifest.dir, 'migrations')).sort();
  } catch {
    return [];
  }
}

/** The config as it is, for a manifest whose keys may be others. */
function configFor(manifest: Manifest, config: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  const keys = Object.entries(manifest.config);
  return keys.length === 0
    ? config
    : Object.fromEntries(
        keys.map(([name, key]) => [name, name in config ? config[name] : structuredClone(key.default)]),
      );
}
