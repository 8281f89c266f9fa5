/** Figures as a table: medians of the rounds, and the ratio to the peer measured in the same run. */
import { cpus, release, totalmem } from 'node:os';
import type { Chart } from './chart.ts';

export interface Row {
  readonly what: string;
  readonly unit: string;
  /** One figure a round. */
  readonly ours: readonly number[];
  /** Empty when the peer is not installed or has no such thing. */
  readonly peer: readonly number[];
  /** Whether more is better; decides which way the ratio is written. */
  readonly more: boolean;
}

export interface Report {
  readonly title: string;
  readonly peer: string;
  readonly rows: readonly Row[];
  readonly notes: readonly string[];
  readonly charts?: readonly Chart[];
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

export function machine(): string {
  return `${cpus().length} × ${cpus()[0]?.model.trim()}, ${(totalmem() / 2 ** 30).toFixed(0)} GiB, Linux ${release()}, Node ${process.version}`;
}

export function renderReport(report: Report): string {
  const cells = report.rows.map((row) => {
    const ours = median(row.ours);
    const peer = row.peer.length === 0 ? undefined : median(row.peer);
    const ratio = peer === undefined || peer === 0 ? '' : `${(row.more ? ours / peer : peer / ours).toFixed(2)}×`;
    return [
      row.what,
      `${shown(ours)} ${row.unit}`,
      spread(row.ours),
      peer === undefined ? '–' : `${shown(peer)} ${row.unit}`,
      ratio,
    ];
  });
  const table = [['', 'troupe', '(min–max)', report.peer, 'better by'], ...cells];
  const widths = table[0]!.map((_, column) => Math.max(...table.map((line) => line[column]!.length)));
  const lines = table.map((line) =>
    line.map((cell, column) => (column === 0 ? cell.padEnd(widths[0]!) : cell.padStart(widths[column]!))).join('  '),
  );
  return [`${report.title} — ${machine()}`, ...lines, ...report.notes.map((note) => `· ${note}`)].join('\n');
}

function spread(values: readonly number[]): string {
  return `(${shown(Math.min(...values))}–${shown(Math.max(...values))})`;
}

function shown(value: number): string {
  return value >= 1000 ? Math.round(value).toLocaleString('en') : value >= 10 ? value.toFixed(1) : value.toFixed(3);
}
