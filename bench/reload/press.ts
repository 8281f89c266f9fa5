/** Runs pressure.ts in a process of its own. */
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { Pressure, PressureKind } from './subjects.ts';

/** Resolves when every lane has been answered once. `end` stops it and tells how its calls went. */
export async function press(
  address: string,
  inFlight: number,
  kind: PressureKind,
): Promise<{ end(): Promise<Pressure> }> {
  const script = fileURLToPath(new URL('pressure.ts', import.meta.url));
  const child = spawn(process.execPath, [script, address, String(inFlight), kind], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const next = async (): Promise<string> => {
    const { value, done } = await lines.next();
    if (done === true) throw new Error(`the load has ended with ${child.exitCode}`);
    return value;
  };
  await next();
  return {
    async end() {
      child.stdin.end();
      return JSON.parse(await next()) as Pressure;
    },
  };
}
