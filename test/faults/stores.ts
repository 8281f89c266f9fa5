/** The crash tests of content, records and snapshots, which stop at some points of the day in the suite, at all of theirs. */
import { fileURLToPath } from 'node:url';
import { run } from '../helpers/command.ts';
import type { Report } from './report.ts';

const checkout = fileURLToPath(new URL('../..', import.meta.url));
const tests = ['plugins/content/crash.test.ts', 'plugins/records/crash.test.ts', 'test/e2e/snapshots-crash.test.ts'];

export async function storesRuns(report: Report): Promise<void> {
  for (const path of tests) {
    const output: string[] = [];
    await report.run({ scenario: 'stores', name: path, replay: '--only stores', log: () => output }, async () => {
      const { code, signal, stdout, stderr } = await run(
        process.execPath,
        ['node_modules/ava/entrypoints/cli.js', path],
        { timeoutMs: 1_800_000, cwd: checkout, env: { ...process.env, TROUPE_FAULTS: 'all', NO_COLOR: '1' } },
      );
      output.push(...`${stdout}${stderr}`.split('\n'));
      return code === 0 ? [] : [`ended with ${code ?? signal}`, ...output.filter((line) => line.includes('✘'))];
    });
  }
}
