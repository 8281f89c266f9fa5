/** A directory for one test, on a file system of its own kind where that matters, gone afterwards; what is still mounted in it is a failure. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';

/** Memory where there is some: a disk's caches and its slow deletes are not what tests are about. */
export function useScratch(t: ExecutionContext, name = 'test'): string {
  const dir = mkdtempSync(join(scratchBase(), `troupe-${name}-`));
  t.teardown(() => {
    const mounts = mountsBelow(dir);
    if (mounts.length > 0) t.fail(`still mounted: ${mounts.join(', ')}`);
    else removeAll(dir);
  });
  return dir;
}

/** Also without privilege, for whom directories that layers closed have to be opened first. */
export function removeAll(dir: string): void {
  try {
    rmSync(dir, { recursive: true, force: true, maxRetries: 3 });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EACCES') throw error;
    execFileSync('chmod', ['-R', 'u+rwx', dir]);
    rmSync(dir, { recursive: true, force: true, maxRetries: 3 });
  }
}

export function scratchBase(): string {
  return process.getuid?.() === 0 ? '/dev/shm' : tmpdir();
}

export function mountsBelow(dir: string): string[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[4] ?? '')
    .filter((point) => point === dir || point.startsWith(`${dir}/`));
}
