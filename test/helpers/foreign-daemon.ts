/** A daemon that is not ours, as a process of one test: its log, the line by which it says that it serves, and its end. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

export class ForeignDaemon {
  readonly log: string[] = [];
  readonly #program: string;
  readonly #ready: string;
  #child: ChildProcess | undefined;
  #exit: Promise<unknown> = Promise.resolve();

  /** `ready`: what its log says when it serves. */
  constructor(program: string, ready: string) {
    this.#program = program;
    this.#ready = ready;
  }

  /** 0: there is none. */
  get pid(): number {
    return this.#child?.pid ?? 0;
  }

  /** Resolves when it serves; rejects with its log when it ends before. */
  async start(args: readonly string[]): Promise<void> {
    const child = spawn(this.#program, args, { stdio: ['ignore', 'ignore', 'pipe'] });
    this.#child = child;
    const ready = Promise.withResolvers<void>();
    createInterface({ input: child.stderr! }).on('line', (line) => {
      this.log.push(line);
      if (line.includes(this.#ready)) ready.resolve();
    });
    this.#exit = new Promise((resolve) => {
      child.once('exit', (code, signal) => {
        resolve(undefined);
        const said = this.log.slice(-20).join('\n');
        ready.reject(new Error(`${this.#program} ended with ${code ?? signal} before it served:\n${said}`));
      });
    });
    await ready.promise;
  }

  /** Resolves when it has ended, by SIGKILL after 15 s. */
  async stop(signal: NodeJS.Signals): Promise<void> {
    if (this.#child === undefined) return;
    this.#child.kill(signal);
    const timer = setTimeout(() => this.#child?.kill('SIGKILL'), 15_000);
    await this.#exit;
    clearTimeout(timer);
    this.#child = undefined;
  }
}
