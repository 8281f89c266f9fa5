/** A directory for one test, on a file system of its own kind where that matters, gone afterwards; what is still mounted in it is a failure. */
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
    else rmSync(dir, { recursive: true, force: true, maxRetries: 3 });
  });
  return dir;
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
