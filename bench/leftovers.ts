/** What a benchmark would leave behind if it ended in the middle, by Ctrl-C say: undone when the process ends, the newest first. */

const undos = new Set<() => void>();

process.once('exit', () => {
  for (const undo of [...undos].reverse()) {
    try {
      undo();
    } catch (error) {
      console.error(`bench: left behind: ${String(error)}`);
    }
  }
});

/** A signal that is not handled ends the process without its `exit`. */
for (const [signal, number] of [
  ['SIGINT', 2],
  ['SIGTERM', 15],
] as const)
  process.once(signal, () => process.exit(128 + number));

/** @param undo synchronous. @returns what is called when it has been undone in the ordinary way */
export function leftover(undo: () => void): () => void {
  undos.add(undo);
  return () => undos.delete(undo);
}
