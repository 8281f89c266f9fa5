/** What a daemon that has ended may not leave: mounts, processes, cgroups, files. */
import { existsSync, readdirSync, readFileSync, rmdirSync } from 'node:fs';
import { basename, join } from 'node:path';

export function leftovers(scratch: string, address: string): string[] {
  const found: string[] = [];
  for (const line of readFileSync('/proc/self/mountinfo', 'utf8').split('\n')) {
    const point = line.split(' ')[4] ?? '';
    if (point.startsWith(`${scratch}/`)) found.push(`mount ${point}`);
  }
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)) {
    try {
      const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim();
      if (command.includes(address)) found.push(`process ${pid}: ${command}`);
    } catch {
      // It ended while we looked.
    }
  }
  found.push(...cgroups('/sys/fs/cgroup', basename(scratch), 2));
  if (existsSync(scratch)) found.push(`files in ${scratch}`);
  return found;
}

/** This demo's own cgroups, of the name of its directory; empty ones that the runtime left for its next container are taken away. */
function cgroups(dir: string, name: string, depth: number): string[] {
  const own = join(dir, name);
  const found: string[] = [];
  if (existsSync(own)) {
    try {
      rmdirSync(own);
    } catch {
      found.push(`cgroup ${own}`);
    }
  }
  if (depth === 0 || !existsSync(dir)) return found;
  for (const entry of readdirSync(dir, { withFileTypes: true })) {
    if (entry.isDirectory() && dir === '/sys/fs/cgroup') found.push(...cgroups(join(dir, entry.name), name, 0));
  }
  return found;
}
