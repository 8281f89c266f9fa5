/**
 * The ground of one fault run: a disk, a daemon on it, images, oracle files, and the checker. All of it is gone after `dispose`, whatever state it was in.
 *
 *     <dir>/            memory
 *     ├── disk/root     the daemon's root: a file system of its own
 *     ├── state/        the daemon's state
 *     ├── troupe.sock
 *     ├── oracle/       what clients were told
 *     └── scratch/      what containers write
 */
import { randomBytes } from 'node:crypto';
import { globSync, mkdirSync, mkdtempSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { MNT_DETACH, unmountAll } from 'troupe/sys';
import { run } from '../helpers/command.ts';
import { Daemon } from '../helpers/daemon.ts';
import type { Line } from './checker/oracle.ts';
import { processes } from './checker/processes.ts';
import { measureResources } from './checker/resources.ts';
import type { Resources } from './checker/subject.ts';
import { Disk, type DiskKind } from './disk.ts';
import type { ImageSet } from './images.ts';
import { type Member, Mix } from './mix.ts';
import { type Ground, renderProblem, Turn } from './turn.ts';

const checker = fileURLToPath(new URL('./checker/main.ts', import.meta.url));

export interface RigOptions {
  readonly seed: string;
  readonly disk: DiskKind;
  readonly bytes?: number;
  /** Text of the daemon's config. */
  readonly config?: string;
  readonly images: ImageSet;
}

export interface Verdict {
  /** A line per breach, as the checker prints them. */
  readonly breaches: readonly string[];
}

/** Those that are not disposed yet. */
const rigs = new Set<Rig>();

let crowded = 0;

/** Starts of all rigs that ended because the machine was too busy. */
export function crowdedStarts(): number {
  return crowded;
}

/** For a run that is ended from outside. */
export async function disposeAll(): Promise<void> {
  await Promise.all([...rigs].map((rig) => rig.dispose()));
}

export class Rig {
  readonly dir: string;
  readonly ns = `faults-${randomBytes(4).toString('hex')}`;
  readonly disk: Disk;
  readonly images: ImageSet;
  readonly ground: Ground;
  readonly #options: RigOptions;
  /** Of the daemon when it has done everything once and nothing is asked of it. */
  baseline: Resources | undefined;
  epoch = 0;
  #daemon: Daemon | undefined;
  #mixes: Mix[] = [];
  #disposed = false;

  constructor(options: RigOptions) {
    rigs.add(this);
    this.#options = options;
    this.dir = mkdtempSync('/dev/shm/troupe-faults-');
    this.disk = new Disk(options.disk, join(this.dir, 'root'), options.bytes ?? 512 << 20);
    this.images = options.images;
    for (const name of ['oracle', 'scratch']) mkdirSync(join(this.dir, name));
    // Made now, so that the daemon's careless umask is not its mode.
    writeFileSync(join(this.dir, 'config.toml'), '', { mode: 0o644 });
    const { archives, base } = this.images;
    this.ground = {
      address: join(this.dir, 'troupe.sock'),
      ns: this.ns,
      oracle: join(this.dir, 'oracle'),
      scratch: join(this.dir, 'scratch'),
      archives,
      base,
    };
  }

  get daemon(): Daemon {
    if (this.#daemon === undefined) throw new Error('no daemon was started');
    return this.#daemon;
  }

  /** Newest last. */
  get log(): readonly string[] {
    return this.#daemon?.log ?? [];
  }

  /** Begins the start of a daemon, when the one before is dead. Its umask is the most careless one: what it makes must not depend on it. */
  async launch(env: NodeJS.ProcessEnv = {}): Promise<Daemon> {
    const { config } = this.#options;
    await this.#daemon?.stop('SIGKILL');
    if (this.#disposed) throw new Error('the run is over');
    this.#daemon = new Daemon(this.dir, { env, ...(config !== undefined && { config }) });
    const before = process.umask(0);
    try {
      // Spawned before this returns; waiting for it is the caller's.
      return this.#daemon.start();
    } finally {
      process.umask(before);
    }
  }

  /**
   * Starts it and waits until it serves. On a machine that is so busy that a thread is not scheduled within the ten seconds a plugin has for its start,
   * it is started again, and {@link crowdedStarts} says how often.
   */
  async start(env: NodeJS.ProcessEnv = {}): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      try {
        await this.launch(env);
        return;
      } catch (error) {
        if (attempt === 3 || !this.log.some((line) => /has not answered \w+ within 10000 ms/.test(line))) throw error;
        crowded += 1;
      }
    }
  }

  /**
   * Lets everybody do each thing once, and notes what the daemon keeps open when it is quiet again: pools and connections are made when they are first used.
   * @returns what went wrong
   */
  async warmUp(who: readonly Member[]): Promise<string[]> {
    const mix = this.mix(who, 1);
    await mix.finished();
    mix.abandon();
    const { breaches } = await this.check();
    this.baseline = measureResources(this.daemon.pid);
    return [...mix.problems.map(renderProblem), ...breaches];
  }

  /** The base image, which every container stands on. */
  async importBase(): Promise<void> {
    await this.once('base', async (turn) => {
      const { name, path, digest } = this.images.base;
      const state = { digest, unpacked: true };
      await turn.askInSteps('ctr images import', [{ object: turn.object('image', name), state }], () =>
        turn.ctr('images', 'import', '--snapshotter', 'overlayfs', path),
      );
    });
  }

  /** One client does one thing. @throws Failure, and Error when it had problems that it did not throw */
  async once(name: string, client: (turn: Turn) => Promise<void>): Promise<void> {
    const turn = new Turn(this.ground, name, ++this.epoch, this.#options.seed, []);
    try {
      await client(turn);
    } finally {
      turn.end();
    }
    const [problem] = turn.problems;
    if (problem !== undefined) throw new Error(`${name}: ${problem.call}: ${problem.code}: ${problem.message}`);
  }

  /** Writes a line of its own into the oracle, after all that was said so far. */
  tell(line: Line): void {
    const name = `${String(++this.epoch).padStart(6, '0')}-rig.jsonl`;
    writeFileSync(join(this.ground.oracle, name), `${JSON.stringify(line)}\n`, { flush: true });
  }

  mix(who: readonly Member[], rounds?: number): Mix {
    const mix = new Mix(this.ground, who, ++this.epoch, this.#options.seed, rounds);
    this.#mixes.push(mix);
    return mix;
  }

  /** SIGKILL, and all clients of the mix with it. */
  async kill(mix?: Mix): Promise<void> {
    await this.daemon.stop('SIGKILL');
    mix?.abandon();
    await mix?.finished();
  }

  /** Runs the checker beside the daemon. @throws Error when it cannot look */
  async check(options: { empty?: boolean; settleSeconds?: number } = {}): Promise<Verdict> {
    const { daemon, ground } = this;
    const flags = [
      ...['--root', daemon.root, '--state', daemon.state, '--address', daemon.address, '--pid', String(daemon.pid)],
      ...[
        '--oracle',
        ground.oracle,
        '--fixtures',
        this.images.fixtures,
        '--namespace',
        this.ns,
        '--namespace',
        `${this.ns}-b`,
      ],
      ...['--settle', String(options.settleSeconds ?? 30)],
      ...(this.baseline === undefined ? [] : ['--baseline', `${this.baseline.descriptors}:${this.baseline.threads}`]),
      ...(options.empty ? ['--empty'] : []),
    ];
    const { code, signal, stdout, stderr } = await run(process.execPath, [checker, ...flags], { timeoutMs: 180_000 });
    if (code !== 0 && code !== 1) throw new Error(`the checker ended with ${code ?? signal}: ${stderr}${stdout}`);
    return { breaches: stdout.split('\n').filter((line) => line !== '') };
  }

  /** Takes everything of this run away, whatever state it is in. */
  async dispose(): Promise<void> {
    this.#disposed = true;
    rigs.delete(this);
    for (const mix of this.#mixes) mix.abandon();
    await this.#daemon?.stop('SIGKILL');
    const shims = processes().filter(({ argv }) => argv[0]?.includes('shim') && argv.includes(this.ground.address));
    for (const { pid } of shims) kill(pid);
    const states = `/run/containerd/runc/${this.ns}`;
    for (const path of globSync(`${states}/*`))
      await run('runc', ['--root', states, 'delete', '--force', path.slice(states.length + 1)]);
    const leftovers = [
      states,
      ...globSync(`/sys/fs/cgroup/*/${this.ns}/*`),
      ...globSync(`/sys/fs/cgroup/*/${this.ns}`),
    ];
    for (const path of leftovers) removeEmpty(path);
    unmountAll(`${this.dir}/state`, MNT_DETACH);
    this.disk.dispose();
    rmSync(this.dir, { recursive: true, force: true });
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // Gone meanwhile.
  }
}

function removeEmpty(path: string): void {
  try {
    rmdirSync(path);
  } catch {
    // Not there, or somebody is still in it.
  }
}
