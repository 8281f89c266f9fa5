/** A registry on loopback that keeps what it is given in memory: the reference implementation, from Debian's package `docker-registry`. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

export class Registry {
  /** `127.0.0.1:PORT`, once it serves. */
  host = '';
  readonly log: string[] = [];
  readonly #dir: string;
  #child: ChildProcess | undefined;
  #exit: Promise<unknown> = Promise.resolve();

  constructor(dir: string) {
    this.#dir = dir;
  }

  async start(): Promise<this> {
    mkdirSync(this.#dir, { recursive: true });
    const config = join(this.#dir, 'registry.yml');
    writeFileSync(
      config,
      'version: 0.1\nlog: { level: info }\nstorage: { inmemory: {}, delete: { enabled: true } }\nhttp: { addr: "127.0.0.1:0" }\n',
    );
    const child = spawn('docker-registry', ['serve', config], {
      stdio: ['ignore', 'ignore', 'pipe'],
      // Nothing of it leaves this machine.
      env: { ...process.env, OTEL_TRACES_EXPORTER: 'none' },
    });
    this.#child = child;
    const ready = Promise.withResolvers<void>();
    createInterface({ input: child.stderr! }).on('line', (line) => {
      this.log.push(line);
      const host = /listening on (127\.0\.0\.1:\d+)/.exec(line)?.[1];
      if (host === undefined) return;
      this.host = host;
      ready.resolve();
    });
    this.#exit = new Promise((resolve) => {
      child.once('exit', (code, signal) => {
        resolve(undefined);
        ready.reject(new Error(`the registry ended with ${code ?? signal}:\n${this.log.slice(-20).join('\n')}`));
      });
    });
    await ready.promise;
    return this;
  }

  async stop(): Promise<void> {
    if (this.#child === undefined) return;
    this.#child.kill('SIGTERM');
    const timer = setTimeout(() => this.#child?.kill('SIGKILL'), 5000);
    await this.#exit;
    clearTimeout(timer);
    this.#child = undefined;
  }
}
