/** A real containerd of the 1.6 series on a scratch root, without CRI: what a daemon of the same API is compared with. Debian's package `containerd` brings it. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Outcome, run, type RunOptions } from './command.ts';
import { ForeignDaemon } from './foreign-daemon.ts';

export class Peer {
  readonly dir: string;
  readonly root: string;
  readonly state: string;
  readonly address: string;
  readonly #daemon = new ForeignDaemon('containerd', 'successfully booted');
  #plugins = '';

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

  get log(): readonly string[] {
    return this.#daemon.log;
  }

  get pid(): number {
    return this.#daemon.pid;
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
    await this.#daemon.start(['--config', config]);
    return this;
  }

  stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    return this.#daemon.stop(signal);
  }

  ctr(args: readonly string[], options: RunOptions & { namespace?: string } = {}): Promise<Outcome> {
    return run('ctr', ['--address', this.address, '--namespace', options.namespace ?? 'default', ...args], options);
  }
}
