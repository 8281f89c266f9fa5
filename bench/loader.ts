/** Runs load.ts in a process of its own and reads what it found. */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

export interface Load {
  readonly calls: number;
  readonly seconds: number;
  readonly failures: number;
  /** Status and text of the first failure. */
  readonly failed: string;
  readonly p50: number;
  readonly p99: number;
}

export async function load(
  address: string,
  inFlight: number,
  amount: number,
  method: string,
  request: string,
): Promise<Load> {
  const child = spawn(
    process.execPath,
    [fileURLToPath(new URL('load.ts', import.meta.url)), address, String(inFlight), String(amount), method, request],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  );
  const chunks: Buffer[] = [];
  child.stdout.on('data', (chunk: Buffer) => chunks.push(chunk));
  await new Promise((resolve) => child.once('close', resolve));
  const result = JSON.parse(Buffer.concat(chunks).toString()) as Load;
  if (result.failures > 0)
    throw new Error(`${result.failures} of ${result.calls} calls of ${method} failed: ${result.failed}`);
  return result;
}
