/** A real daemon on a scratch root, started by the launcher as an operator would, and looked after: what it leaves behind fails the test. */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { ExecutionContext } from 'ava';
import { type Outcome, run, type RunOptions } from './command.ts';
import { mountsBelow, useScratch } from './scratch.ts';

const launcher = fileURLToPath(new URL('../../kernel/trouped', import.meta.url));

export interface DaemonOptions {
  /** Text of a config file. */
  readonly config?: string;
  readonly env?: NodeJS.ProcessEnv;
  /** A directory that is kept from one daemon to the next; default a fresh one. */
  readonly dir?: string;
  readonly args?: readonly string[];
  /** A command that starts it, with its arguments. */
  readonly prefix?: readonly string[];
}

export class Daemon {
  readonly dir: string;
  readonly root: string;
  readonly state: string;
  readonly address: string;
  readonly log: string[] = [];
  readonly #options: DaemonOptions;
  readonly #listeners = new Set<() => void>();
  #child: ChildProcess | undefined;
  #exit: Promise<{ code: number | null; signal: NodeJS.Signals | null }> | undefined;

  constructor(dir: string, options: DaemonOptions) {
    this.dir = dir;
    this.root = join(dir, 'root');
    this.state = join(dir, 'state');
    this.address = join(dir, 'troupe.sock');
    this.#options = options;
  }

  get pid(): number {
    return this.#child?.pid ?? 0;
  }

  /** Resolves when it serves; rejects with its log when it ends before. */
  async start(): Promise<this> {
    mkdirSync(this.dir, { recursive: true });
    const config = join(this.dir, 'config.toml');
    writeFileSync(config, this.#options.config ?? 'version = 3\n');
    const [program = launcher, ...before] = [...(this.#options.prefix ?? []), launcher];
    const child = spawn(
      program,
      [
        ...before,
        '--config',
        config,
        '--address',
        this.address,
        '--root',
        this.root,
        '--state',
        this.state,
        '--log-level',
        'debug',
        ...(this.#options.args ?? []),
      ],
      { env: { ...process.env, ...this.#options.env }, stdio: ['ignore', 'pipe', 'pipe'] },
    );
    this.#child = child;
    const ready = Promise.withResolvers<void>();
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream }).on('line', (line) => {
        this.log.push(line);
        for (const listener of [...this.#listeners]) listener();
        if (line.includes('successfully booted')) ready.resolve();
      });
    }
    this.#exit = new Promise((resolve) => {
      child.once('exit', (code, signal) => {
        resolve({ code, signal });
        ready.reject(
          new Error(`the daemon ended with ${code ?? signal} before it served:\n${this.log.slice(-40).join('\n')}`),
        );
      });
    });
    await ready.promise;
    return this;
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<{ code: number | null; signal: NodeJS.Signals | null }> {
    if (this.#child === undefined || this.#exit === undefined) return { code: 0, signal: null };
    this.#child.kill(signal);
    const timer = setTimeout(() => this.#child?.kill('SIGKILL'), 15_000);
    const exit = await this.#exit;
    clearTimeout(timer);
    this.#child = undefined;
    return exit;
  }

  /** The first line of its log, past or future, that `wanted` holds for. Rejects when it ends without one. */
  async logged(wanted: (line: string) => boolean): Promise<string> {
    let ended = false;
    void this.exited.then(() => {
      ended = true;
      for (const listener of [...this.#listeners]) listener();
    });
    for (;;) {
      const line = this.log.find(wanted);
      if (line !== undefined) return line;
      if (ended) throw new Error(`the daemon has ended, and did not say it:\n${this.log.slice(-20).join('\n')}`);
      await new Promise<void>((resolve) => {
        const listener = () => {
          this.#listeners.delete(listener);
          resolve();
        };
        this.#listeners.add(listener);
      });
    }
  }

  /** Its exit, however it comes. */
  get exited(): Promise<{ code: number | null; signal: NodeJS.Signals | null }> {
    return this.#exit ?? Promise.resolve({ code: 0, signal: null });
  }

  /** `ctr` against it, in `namespace`. */
  ctr(args: readonly string[], options: RunOptions & { namespace?: string } = {}): Promise<Outcome> {
    return run('ctr', ['--address', this.address, '--namespace', options.namespace ?? 'default', ...args], options);
  }

  /** Shims that were started for it: their `-address` is its socket. */
  shims(): number[] {
    return readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name))
      .filter((pid) => {
        try {
          const argv = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
          return argv[0]?.includes('shim') === true && argv.includes(this.address);
        } catch {
          return false;
        }
      })
      .map(Number);
  }
}

/** A daemon for one test. Afterwards it is stopped, and no shim, mount or socket of its may be left. */
export async function useDaemon(t: ExecutionContext, options: DaemonOptions = {}): Promise<Daemon> {
  const daemon = new Daemon(options.dir ?? useScratch(t, 'daemon'), options);
  t.teardown(async () => {
    const before = daemon.pid;
    const { code, signal } = await daemon.stop();
    if (before !== 0 && code !== 0) t.log(`the daemon ended with ${code ?? signal}`, daemon.log.slice(-20).join('\n'));
    for (const pid of daemon.shims()) {
      t.fail(`shim ${pid} was left behind`);
      process.kill(pid, 'SIGKILL');
    }
    const mounts = mountsBelow(daemon.dir);
    if (mounts.length > 0) {
      t.fail(`still mounted: ${mounts.join(', ')}`);
      await run('umount', ['-l', ...mounts.reverse()]);
    }
    if (before !== 0 && existsSync(daemon.address)) t.fail('the socket was left behind');
  });
  return daemon.start();
}
