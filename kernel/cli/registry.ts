/** `registry test`: every hop of a resolve, as the daemon makes it. */
import { type Hop, RegistryDefinition } from 'troupe/proto/troupe/registry/v1/registry.ts';
import { typedClient } from '../front/client.ts';
import { withDaemon } from './daemon-client.ts';
import type { ExitCode, Streams } from './run.ts';

export interface RegistryTest {
  readonly reference: string;
  readonly plainHttp: boolean;
  readonly hostsDir: string;
}

export function testRegistry(
  address: string,
  { reference, plainHttp, hostsDir }: RegistryTest,
  { out }: Streams,
): Promise<ExitCode> {
  return withDaemon(address, async (client) => {
    const request = { reference, plainHttp, hostDir: hostsDir };
    for await (const { host, hop, resolved } of typedClient(client, RegistryDefinition).test(request)) {
      if (host !== undefined)
        out(`host      ${host.url}  ${host.capabilities.join(',')}  ${host.source === '' ? 'default' : host.source}\n`);
      if (hop !== undefined) out(hopLine(hop));
      if (resolved !== undefined) out(`resolved  ${resolved.digest}  ${resolved.mediaType}  ${resolved.size} bytes\n`);
    }
    return 0;
  });
}

function hopLine({ method, url, capability, status, ms, note, address }: Hop): string {
  const answer = status === 0 ? '---' : String(status);
  const peer = address === '' ? '' : `  [${address}]`;
  return `${capability.padEnd(8)}  ${answer}  ${ms.toFixed(1).padStart(8)} ms  ${method} ${url}${peer}${note === '' ? '' : `  ${note}`}\n`;
}
