/** A daemon on a scratch root, in a session of its own: a Ctrl-C at the demo is the demo's, which still has a container to end before the daemon goes. */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { GrpcClient, typedClient } from '../kernel/front/client.ts';
import { HealthDefinition } from '../proto/gen/grpc/health/v1/health.ts';
import { writeMortal } from './mortal.ts';

export class DemoDaemon {
  readonly address: string;
  readonly client: GrpcClient;
  /** Folder of a plugin that may be killed. */
  readonly mortal: string;
  readonly #log: string;
  readonly #child: ChildProcess;
  readonly #ended: Promise<number | null>;
  #served = false;

  /** @param launcher path of `trouped` */
  constructor(launcher: string, scratch: string) {
    this.address = join(scratch, 'troupe.sock');
    this.#log = join(scratch, 'log');
    const config = join(scratch, 'config.toml');
    const plugins = join(scratch, 'plugins');
    this.mortal = join(plugins, 'mortal');
    writeMortal(this.mortal);
    writeFileSync(config, `version = 3\n[kernel]\nplugin_dirs = ["${plugins}"]\n`);
    const log = openSync(this.#log, 'w');
    const places = ['--address', this.address, '--root', join(scratch, 'root'), '--state', join(scratch, 'state')];
    this.#child = spawn(launcher, ['--config', config, ...places], { stdio: ['ignore', log, log], detached: true });
    closeSync(log);
    this.#ended = new Promise((resolve) => {
      this.#child.once('error', () => resolve(null));
      this.#child.once('exit', resolve);
    });
    this.client = new GrpcClient(this.address, { namespace: 'demo' });
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** Resolves when it says that it serves. */
  async ready(): Promise<void> {
    const gone = this.#ended.then((code) => {
      throw new Error(`the daemon ended with ${code}:\n${readFileSync(this.#log, 'utf8')}`);
    });
    gone.catch(() => undefined);
    await Promise.race([this.client.ready(60_000), gone]);
    const { status } = await typedClient(this.client, HealthDefinition).check({ service: '' });
    if (status !== 1) throw new Error('the daemon does not say SERVING');
    this.#served = true;
  }

  async stop(): Promise<void> {
    this.client.close();
    this.#child.kill('SIGTERM');
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), 15_000);
    const code = await this.#ended;
    clearTimeout(timer);
    // One that never served has said why already, or was ended before it could listen to signals.
    if (code !== 0 && this.#served) {
      const last = readFileSync(this.#log, 'utf8').split('\n').slice(-12).join('\n');
      console.log(`  the daemon ended with ${code}; its last words:\n${last}`);
    }
  }
}
