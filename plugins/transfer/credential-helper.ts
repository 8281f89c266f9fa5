/** docker's credential helpers: `docker-credential-NAME get`, the server on stdin, JSON on stdout (docker-credential-helpers, "Development"). */
import type { PluginContext } from 'troupe/plugin';

const timeoutMs = 15_000;
const mostBytes = 64 << 10;

/** @returns what it prints. @throws Error with what it says when it fails, takes too long, or is not there */
export async function runHelper(
  ctx: Pick<PluginContext, 'spawn'>,
  name: string,
  server: string,
  signal: AbortSignal,
): Promise<string> {
  const limit = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
  const child = ctx.spawn(`docker-credential-${name}`, ['get'], {
    stdio: ['pipe', 'pipe', 'ignore'],
    signal: limit,
    killSignal: 'SIGKILL',
  });
  const chunks: Buffer[] = [];
  let size = 0;
  const ended = new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  child.stdout!.on('data', (chunk: Buffer) => {
    size += chunk.length;
    if (size > mostBytes) child.kill('SIGKILL');
    else chunks.push(chunk);
  });
  child.stdin!.on('error', () => {});
  child.stdin!.end(server);
  const code = await ended;
  const said = Buffer.concat(chunks).toString('utf8');
  if (size > mostBytes) throw new Error(`it printed more than ${mostBytes} bytes`);
  if (code !== 0) throw new Error(said.trim() || `it ended with ${code}`);
  return said;
}
