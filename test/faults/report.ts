/** What came of the runs: a line for each as it ends, a table and a count at the end. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export interface Outcome {
  readonly scenario: string;
  readonly name: string;
  /** How to do exactly this again. */
  readonly replay: string;
  readonly seconds: number;
  /** Empty: it went as it must. */
  readonly faults: readonly string[];
  /** Of the daemon, for one that failed. */
  readonly log: readonly string[];
}

export class Report {
  readonly #outcomes: Outcome[] = [];
  readonly #conclusions: string[] = [];
  #complete = true;
  readonly #logs: string | undefined;
  readonly #print: (line: string) => void;

  /** @param logs directory for the daemon's whole log of each run that failed */
  constructor(logs?: string, print: (line: string) => void = console.log) {
    this.#logs = logs;
    this.#print = print;
  }

  get failed(): Outcome[] {
    return this.#outcomes.filter((outcome) => outcome.faults.length > 0);
  }

  get passed(): number {
    return this.#outcomes.length - this.failed.length;
  }

  /** Something passed, nothing failed, and nothing that had to be tried was left out. */
  get good(): boolean {
    return this.#complete && this.passed > 0 && this.failed.length === 0;
  }

  /** A line for the end. @param complete whether all was tried that it speaks of */
  conclude(line: string, complete: boolean): void {
    this.#conclusions.push(`${complete ? '✔' : '✖'} ${line}`);
    if (!complete) this.#complete = false;
  }

  /** Runs `work` and counts it. @param work returns what went wrong; what it throws has gone wrong too. @returns whether it passed */
  async run(
    about: { scenario: string; name: string; replay: string; log: () => readonly string[] },
    work: () => Promise<readonly string[]>,
  ): Promise<boolean> {
    const began = performance.now();
    let faults: readonly string[];
    try {
      faults = await work();
    } catch (error) {
      const lines = String(error instanceof Error ? error.stack : error).split('\n');
      faults = [lines.slice(0, 8).join('\n    ')];
    }
    const seconds = (performance.now() - began) / 1000;
    const { scenario, name, replay } = about;
    const log = faults.length === 0 ? [] : about.log().slice(-30);
    this.#outcomes.push({ scenario, name, replay, seconds, faults, log });
    this.#print(`${faults.length === 0 ? '✔' : '✖'} ${scenario}: ${name} (${seconds.toFixed(1)} s)`);
    for (const fault of faults.slice(0, 20)) this.#print(`    ${fault}`);
    if (faults.length > 20) this.#print(`    … and ${faults.length - 20} more`);
    if (faults.length > 0) {
      if (this.#logs !== undefined) {
        mkdirSync(this.#logs, { recursive: true });
        writeFileSync(join(this.#logs, `${scenario} ${name}.log`.replace(/[^\w.]+/g, '-')), about.log().join('\n'));
      }
      this.#print(`    again: npm run faults -- ${replay}`);
      for (const line of log) this.#print(`    | ${line.slice(0, 400)}`);
    }
    return faults.length === 0;
  }

  /** Runs, failures and seconds by scenario; then `N passed, N failed`. */
  summary(): string {
    const scenarios = [...new Set(this.#outcomes.map((outcome) => outcome.scenario))];
    const rows = scenarios.map((scenario) => {
      const all = this.#outcomes.filter((outcome) => outcome.scenario === scenario);
      const seconds = all.map((outcome) => outcome.seconds).sort((a, b) => a - b);
      const total = seconds.reduce((sum, value) => sum + value, 0);
      return [
        scenario,
        String(all.length),
        String(all.filter((outcome) => outcome.faults.length > 0).length),
        total.toFixed(0),
        seconds[seconds.length >> 1]!.toFixed(1),
        seconds.at(-1)!.toFixed(1),
      ];
    });
    const table = [['scenario', 'runs', 'failed', 'seconds', 'median', 'longest'], ...rows];
    const widths = table[0]!.map((_, column) => Math.max(...table.map((row) => row[column]!.length)));
    const lines = table.map((row) =>
      row.map((cell, column) => (column === 0 ? cell.padEnd(widths[0]!) : cell.padStart(widths[column]!))).join('  '),
    );
    const again = this.failed.map((outcome) => `again: npm run faults -- ${outcome.replay}`);
    return [
      '',
      ...lines,
      '',
      ...this.#conclusions,
      ...new Set(again),
      `${this.passed} passed, ${this.failed.length} failed`,
    ].join('\n');
  }
}
