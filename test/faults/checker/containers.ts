/** 8. Containers that run for long have outlived the daemon: the same process as at their start, and no number missing in what they count. */
import { readFileSync } from 'node:fs';
import { type Breach, Ledger } from './breach.ts';
import { processOf } from './processes.ts';
import type { Picture } from './subject.ts';

/** Fields of a task's state that a client notes about a long runner: `{ pid, started, counter }`, the last one the file it counts in. */
export function checkContainers({ oracle }: Pick<Picture, 'oracle'>): Breach[] {
  const ledger = new Ledger(8);
  for (const [object, [state, ...doubts]] of oracle.possible) {
    if (!object.startsWith('task/') || doubts.length > 0 || state?.counter === undefined) continue;
    const { pid, started, counter } = state as { pid: number; started: string; counter: string };
    const now = processOf(pid);
    if (now === undefined || now.started !== started || now.state === 'Z')
      ledger.breach(
        object,
        `pid ${pid} that began at tick ${started} is ${now === undefined ? 'gone' : `one that began at ${now.started}`}`,
      );
    const lines = readFileSync(counter, 'utf8').split('\n').slice(0, -1);
    const gap = lines.findIndex((line, index) => line !== String(index + 1));
    if (gap >= 0) ledger.breach(counter, `line ${gap + 1} says ${JSON.stringify(lines[gap])}`);
    if (lines.length === 0) ledger.unsettled(counter, 'counts nothing');
  }
  return ledger.breaches;
}
