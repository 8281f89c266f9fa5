/**
 * A file system of its own for a daemon's root: memory that can be full, or an ext4 on a file in memory that can lose its power. Asks for root.
 */
import { spawnSync } from 'node:child_process';
import { closeSync, mkdirSync, openSync, rmSync, statfsSync, truncateSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { MNT_DETACH, shutdownFilesystem, unmountAll } from 'troupe/sys';

export type DiskKind = 'tmpfs' | 'ext4';

export class Disk {
  readonly kind: DiskKind;
  readonly point: string;
  readonly #image: string;

  /** @param point where it is mounted; beside it the image is kept. */
  constructor(kind: DiskKind, point: string, bytes: number) {
    this.kind = kind;
    this.point = point;
    this.#image = `${point}.img`;
    mkdirSync(point, { mode: 0o700 });
    if (kind === 'tmpfs') {
      command('mount', ['-t', 'tmpfs', '-o', `size=${bytes},mode=700`, 'tmpfs', point]);
      return;
    }
    writeFileSync(this.#image, '');
    truncateSync(this.#image, bytes);
    // Nothing of it is written later in the background, and no space is kept from root.
    command('mkfs.ext4', ['-q', '-m', '0', '-E', 'lazy_itable_init=0,lazy_journal_init=0', this.#image]);
    this.mount();
  }

  mount(): void {
    command('mount', ['-o', 'loop', this.#image, this.point]);
  }

  /** From now on every access fails, and what was not synced is lost once it is mounted again. */
  cut(): void {
    const fd = openSync(this.point, 'r');
    try {
      shutdownFilesystem(fd, 'discard');
    } finally {
      closeSync(fd);
    }
  }

  /** @throws Error naming who uses it, when it stays busy for 10 s */
  async unmount(): Promise<void> {
    for (let attempt = 0; ; attempt++) {
      const { status, stderr } = spawnSync('umount', [this.point], { encoding: 'utf8' });
      if (status === 0) return;
      if (attempt === 100) throw new Error(`umount ${this.point}: ${stderr.trim()}`);
      await sleep(100);
    }
  }

  /** Looks at it while it is not mounted. @throws Error with what is damaged */
  verify(): void {
    const { status, stdout, stderr } = spawnSync('e2fsck', ['-f', '-n', this.#image], { encoding: 'utf8' });
    if (status !== 0) throw new Error(`e2fsck: ${status}\n${stdout}${stderr}`);
  }

  get freeBytes(): number {
    const { bavail, bsize } = statfsSync(this.point);
    return bavail * bsize;
  }

  /** Takes it away, with all that is mounted below, whoever uses it. */
  dispose(): void {
    unmountAll(this.point, MNT_DETACH);
    rmSync(this.#image, { force: true });
  }
}

function command(file: string, args: readonly string[]): void {
  const { status, stderr, error } = spawnSync(file, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${file} ${args.join(' ')}: ${error?.message ?? stderr.trim()}`);
}
