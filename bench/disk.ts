/**
 * The disk that daemons are measured on: a loop-mounted ext4 whose file lies in memory. The journal of a real file system, without a neighbour's noise.
 *
 * All of its memory is there before anything is timed. On a virtual machine a page that the guest touches for the first time, or again after it has been
 * reported free to the host, has to be found by the host: measured at 250 MB/s instead of 2 GB/s, which would be most of what a bench of unpacking shows.
 */
import { execFileSync } from 'node:child_process';
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { leftover } from './leftovers.ts';

export interface Disk {
  readonly dir: string;
  remove(): void;
}

/** A disk's file, kept for the next that is as large: to fill it anew takes longer than what is measured. */
interface Image {
  readonly base: string;
  readonly megabytes: number;
}

const MiB = 2 ** 20;
/** Free blocks of 2^order pages and more are reported to the host; there are none above this order (Linux, mm/page_reporting.c). */
const reporting = '/sys/module/page_reporting/parameters/page_reporting_order';
const never = '11';

let spare: Image | undefined;
keepMemory();
leftover(discardSpare);

/** Free memory stays with the guest until this process ends. */
function keepMemory(): void {
  try {
    const before = readFileSync(reporting, 'utf8').trim();
    if (Number(before) >= Number(never)) return;
    writeFileSync(reporting, never);
    leftover(() => writeFileSync(reporting, before));
  } catch {
    // Not such a machine, or not ours to set: each measurement warms what it needs.
  }
}

/** @param megabytes size of the file system */
export function makeDisk(megabytes: number): Disk {
  const image = take(megabytes);
  const file = join(image.base, 'disk');
  const dir = join(image.base, 'mnt');
  // Discarding would give the memory back.
  execFileSync('mkfs.ext4', ['-q', '-F', '-E', 'nodiscard', file]);
  execFileSync('mount', ['-o', 'loop', file, dir]);
  const undone = leftover(() => {
    // Whoever still has a file of it open has been killed just now.
    execFileSync('umount', ['--lazy', dir]);
    rmSync(image.base, { recursive: true, force: true });
  });
  return {
    dir,
    remove() {
      execFileSync('umount', [dir]);
      undone();
      discardSpare();
      spare = image;
    },
  };
}

function take(megabytes: number): Image {
  const kept = spare;
  if (kept?.megabytes === megabytes) {
    spare = undefined;
    return kept;
  }
  discardSpare();
  const base = mkdtempSync('/dev/shm/troupe-bench-');
  mkdirSync(join(base, 'mnt'));
  fill(join(base, 'disk'), megabytes);
  return { base, megabytes };
}

function discardSpare(): void {
  if (spare !== undefined) rmSync(spare.base, { recursive: true, force: true });
  spare = undefined;
}

/** Has so much free memory be at hand, for the page cache of what is timed next; less where the machine has less. */
export function warmMemory(megabytes: number): void {
  const available = Number(/^MemAvailable:\s+(\d+)/m.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1] ?? 0) / 1024;
  const base = mkdtempSync('/dev/shm/troupe-bench-');
  try {
    fill(join(base, 'warm'), Math.floor(Math.min(megabytes, available / 2)));
  } finally {
    rmSync(base, { recursive: true });
  }
}

function fill(file: string, megabytes: number): void {
  const block = Buffer.alloc(MiB);
  const fd = openSync(file, 'wx');
  try {
    for (let written = 0; written < megabytes * MiB; ) written += writeSync(fd, block);
  } finally {
    closeSync(fd);
  }
}
