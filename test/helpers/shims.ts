/** Shims that run, by the server they were started for. */
import { readdirSync, readFileSync } from 'node:fs';

/** Shims of a server, of one of its containers when that is named. */
export function shimsOf(address: string, namespace?: string, id?: string): number[] {
  const found: number[] = [];
  for (const pid of readdirSync('/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    try {
      const argv = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
      if (!argv[0]?.includes('shim') || !argv.includes(address)) continue;
      if (namespace !== undefined && argv[argv.indexOf('-namespace') + 1] !== namespace) continue;
      if (id === undefined || argv[argv.indexOf('-id') + 1] === id) found.push(Number(pid));
    } catch {
      // It has ended meanwhile.
    }
  }
  return found;
}
