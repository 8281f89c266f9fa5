/** 10. The daemon's descriptors and threads are back to what they were when it had nothing to do: within 5 % or 5 more. */
import { readlinkSync } from 'node:fs';
import { listDirectory } from './blobs.ts';
import { type Breach, Ledger } from './breach.ts';
import type { Picture, Resources } from './subject.ts';

/** Per task the daemon holds its shim's socket and its log, which is a FIFO opened for both sides. */
const descriptorsPerTask = 3;

export function measureResources(pid: number): Resources {
  return { descriptors: listDirectory(`/proc/${pid}/fd`).length, threads: listDirectory(`/proc/${pid}/task`).length };
}

export function checkResources({ pid, baseline, listing }: Pick<Picture, 'pid' | 'baseline' | 'listing'>): Breach[] {
  const ledger = new Ledger(10);
  if (baseline === undefined) return [];
  const now = measureResources(pid);
  const check = (what: 'descriptors' | 'threads', extra: number): void => {
    const limit = Math.max(Math.floor(baseline[what] * 1.05), baseline[what] + 5) + extra;
    if (now[what] > limit)
      ledger.unsettled(
        `pid ${pid}`,
        `has ${now[what]} ${what}, at most ${limit} expected (idle: ${baseline[what]})${what === 'descriptors' ? `: ${census(pid)}` : ''}`,
      );
  };
  check('descriptors', descriptorsPerTask * listing.tasks.length);
  check('threads', 0);
  return ledger.breaches;
}

/** What is open, by kind: enough to see which it is that grows. */
function census(pid: number): string {
  const counts = new Map<string, number>();
  for (const fd of listDirectory(`/proc/${pid}/fd`)) {
    try {
      const target = readlinkSync(`/proc/${pid}/fd/${fd}`)
        .replace(/:\[\d+\]$/, '')
        .replace(/\d+/g, 'N');
      counts.set(target, (counts.get(target) ?? 0) + 1);
    } catch {
      // Closed meanwhile.
    }
  }
  return [...counts]
    .sort((a, b) => b[1] - a[1])
    .map(([target, count]) => `${count} × ${target}`)
    .join(', ');
}
