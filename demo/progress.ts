/** Progress of several things at once: a bar that moves on a terminal, one line a thing where the output is kept. */
interface Item {
  readonly label: string;
  done: number;
  total: number;
}

const width = 28;

export class Progress {
  readonly #items = new Map<string, Item>();
  readonly #live = process.stdout.isTTY;
  #drawn = 0;

  add(key: string, label: string, total: number): void {
    this.#items.set(key, { label, done: 0, total });
    this.#draw();
  }

  set(key: string, done: number, total: number): void {
    const item = this.#items.get(key);
    if (item === undefined) return;
    const finished = item.done < item.total && done >= total;
    item.done = done;
    item.total = total;
    if (this.#live) this.#draw();
    else if (finished) console.log(line(item));
  }

  close(): void {
    this.#draw();
    this.#items.clear();
    this.#drawn = 0;
  }

  #draw(): void {
    if (!this.#live) return;
    if (this.#drawn > 0) process.stdout.write(`\x1b[${this.#drawn}A`);
    for (const item of this.#items.values()) process.stdout.write(`\x1b[2K${line(item)}\n`);
    this.#drawn = this.#items.size;
  }
}

function line({ label, done, total }: Item): string {
  const filled = total === 0 ? width : Math.round((done / total) * width);
  return `  ${label.padEnd(34)} ${'█'.repeat(filled)}${'░'.repeat(width - filled)} ${megabytes(done).padStart(8)} of ${megabytes(total)}`;
}

export function megabytes(bytes: number): string {
  return bytes >= 1e6 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e3).toFixed(1)} kB`;
}
