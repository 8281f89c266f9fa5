/** What `ctr events` prints, as it comes. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';

export class Feed {
  readonly lines: string[] = [];
  readonly #child: ChildProcess;
  readonly #ended: Promise<never>;
  #more = Promise.withResolvers<void>();

  constructor(address: string, filters: readonly string[]) {
    this.#child = spawn('ctr', ['--address', address, 'events', ...filters], { stdio: ['ignore', 'pipe', 'pipe'] });
    let complaint = '';
    this.#child.stderr?.on('data', (chunk) => {
      complaint += chunk;
    });
    this.#ended = once(this.#child, 'close').then(([code]) => {
      throw new Error(`ctr events ended with ${code}: ${complaint}\n${this.lines.join('\n')}`);
    });
    this.#ended.catch(() => {});
    createInterface({ input: this.#child.stdout! }).on('line', (line) => {
      this.lines.push(line);
      this.#more.resolve();
      this.#more = Promise.withResolvers();
    });
  }

  /** The first line, past or future, that has `wanted` in it. Rejects when there is none in a minute. */
  async until(wanted: RegExp): Promise<string> {
    const late = Promise.withResolvers<never>();
    const timer = setTimeout(() => {
      late.reject(new Error(`no event came that looks like ${wanted}, but\n${this.lines.join('\n')}`));
    }, 60_000);
    late.promise.catch(() => {});
    try {
      for (;;) {
        const line = this.lines.find((each) => wanted.test(each));
        if (line !== undefined) return line;
        await Promise.race([this.#more.promise, this.#ended, late.promise]);
      }
    } finally {
      clearTimeout(timer);
    }
  }

  /** Topics of what was heard so far. */
  topics(wanted = /./): string[] {
    return this.lines.filter((line) => wanted.test(line)).map((line) => / UTC \S+ (\S+) /.exec(line)?.[1] ?? line);
  }

  async close(): Promise<void> {
    this.#child.kill();
    await this.#ended.catch(() => {});
  }
}
