/** Plugins as a table for people: right-aligned numbers, reasons below, nothing wider than it must be. */
import type { Plugin } from 'troupe/proto/troupe/kernel/v1/kernel.ts';

const headings = [
  'ID',
  'STATE',
  'THREAD',
  'GEN',
  'RESTARTS',
  'HEAP',
  'EXTERNAL',
  'CPU',
  'LOOP',
  'CALLS',
  'FAILED',
  'RUNNING',
  'QUEUED',
];
/** The first columns are words. */
const words = 3;

export function pluginTable(plugins: readonly Plugin[]): string {
  const lines = table([headings, ...plugins.map(row)], words).split('\n');
  const head = lines.shift()!;
  const body = plugins.flatMap((plugin, i) => [
    lines[i]!,
    ...(plugin.reason === '' ? [] : plugin.reason.split('\n').map((line) => `  ↳ ${line}`)),
  ]);
  return `${[head, ...body].join('\n')}\n`;
}

function row(plugin: Plugin): string[] {
  const { id, state, responsive, thread, generation, restarts, heapBytes, externalBytes, cpuMs, utilization } = plugin;
  const lives = thread !== '';
  return [
    id,
    responsive ? state : `${state}, hangs`,
    thread === id || thread === '' ? '-' : thread,
    String(generation),
    String(restarts),
    lives ? mebibytes(heapBytes) : '-',
    lives ? mebibytes(externalBytes) : '-',
    lives ? seconds(cpuMs) : '-',
    lives ? percent(utilization) : '-',
    String(plugin.calls),
    String(plugin.failures),
    String(plugin.running),
    String(plugin.queued),
  ];
}

/** Two blanks between columns; those from `leftAligned` on are numbers. */
export function table(rows: readonly (readonly string[])[], leftAligned: number): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((cells) => cells[column]!.length)));
  return rows
    .map((cells) =>
      cells
        .map((cell, column) => (column < leftAligned ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!)))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

export function mebibytes(bytes: bigint): string {
  return `${(Number(bytes) / 2 ** 20).toFixed(1)}M`;
}

export function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(2)}s`;
}

export function percent(share: number): string {
  return `${(share * 100).toFixed(1)}%`;
}
