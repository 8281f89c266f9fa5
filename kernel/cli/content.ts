/** `content verify`: what of the content store is not what it was. */
import { VerificationDefinition } from 'troupe/proto/troupe/content/v1/verification.ts';
import { typedClient } from '../front/client.ts';
import { withDaemon } from './daemon-client.ts';
import type { ExitCode, Streams } from './run.ts';

export function verifyContent(address: string, drop: boolean, { out }: Streams): Promise<ExitCode> {
  return withDaemon(address, async (client) => {
    let damaged = 0;
    for await (const { damaged: blob, summary } of typedClient(client, VerificationDefinition).verify({
      drop,
      threads: 0,
    })) {
      if (blob !== undefined) {
        damaged++;
        out(`${blob.digest}  ${blob.problem}  (${blob.namespaces.join(', ')})${blob.dropped ? '  dropped' : ''}\n`);
      }
      if (summary !== undefined) {
        const rate = Number(summary.bytes) / 1e6 / Math.max(summary.ms / 1000, 1e-3);
        out(
          `${summary.blobs} blobs, ${summary.bytes} bytes, ${summary.damaged} damaged, ${(summary.ms / 1000).toFixed(2)} s, ${Math.round(rate)} MB/s\n`,
        );
      }
    }
    return damaged === 0 ? 0 : 1;
  });
}
