/** A real containerd of the 1.6 series on a scratch root, without CRI: what a daemon of the same API is compared with. Debian's package `containerd` brings it. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { type Outcome, run, type RunOptions } from './command.ts';

export class Peer {
  readonly dir: string;
  readonly root: string;
  readonly state: string;
  readonly address: string;
  readonly log: string[] = [];
  #plugins = '';
  #child: ChildProcess | undefined;
  #exit: Promise<unknown> = Promise.resolve();

  constructor(dir: string) {
    this.dir = dir;
    this.root = join(dir, 'root');
    this.state = join(dir, 'state');
    this.address = join(dir, 'containerd.sock');
  }

  /** Whether this machine can run one: it needs root, and a containerd of the series whose answers are compared. */
  static async available(): Promise<boolean> {
    if (process.getuid?.() !== 0) return false;
    const version = await run('containerd', ['--version']).catch(() => undefined);
    return version !== undefined && / v?1\.6\./.test(version.stdout);
  }

  get pid(): number {
    return this.#child?.pid ?? 0;
  }

  /** `plugins`: tables of its config, after those that keep it on its scratch root; default those it had before. Resolves when it serves. */
  async start(plugins = this.#plugins): Promise<this> {
    this.#plugins = plugins;
    for (const dir of [this.dir, this.root, this.state]) mkdirSync(dir, { recursive: true });
    const config = join(this.dir, 'containerd.toml');
    const quote = (text: string): string => JSON.stringify(text);
    writeFileSync(
      config,
      `version = 2
root = ${quote(this.root)}
state = ${quote(this.state)}
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = ${quote(this.address)}
[ttrpc]
address = ${quote(`${this.address}.ttrpc`)}
[debug]
address = ${quote(join(this.dir, 'debug.sock'))}
[plugins."io.containerd.internal.v1.opt"]
path = ${quote(join(this.dir, 'opt'))}
${plugins}`,
    );
    const child = spawn('containerd', ['--config', config], { stdio: ['ignore', 'ignore', 'pipe'] });
    this.#child = child;
    const ready = Promise.withResolvers<void>();
    createInterface({ input: child.stderr! }).on('line', (line) => {
      this.log.push(line);
      if (line.includes('successfully booted')) ready.resolve();
    });
    this.#exit = new Promise((resolve) => {
      child.once('exit', (code, signal) => {
        resolve(undefined);
        ready.reject(
          new Error(`containerd ended with ${code ?? signal} before it served:\n${this.log.slice(-20).join('\n')}`),
        );
      });
    });
    await ready.promise;
    return this;
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    if (this.#child === undefined) return;
    this.#child.kill(signal);
    const timer = setTimeout(() => this.#child?.kill('SIGKILL'), 15_000);
    await this.#exit;
    clearTimeout(timer);
    this.#child = undefined;
  }

  ctr(args: readonly string[], options: RunOptions & { namespace?: string } = {}): Promise<Outcome> {
    return run('ctr', ['--address', this.address, '--namespace', options.namespace ?? 'default', ...args], options);
  }
}
