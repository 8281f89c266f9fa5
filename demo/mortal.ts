/** A plugin for the demo to kill: three files in a folder, as anybody's would be, and named in the config. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { GrpcClient } from '../kernel/front/client.ts';
import { definitionFromFile } from '../kernel/sdk/proto-file.ts';

export const mortalId = 'demo.mortal.v1.mortal';
const contract = 'demo.mortal.v1.Mortal';
/** Milliseconds of work that end its thread. */
export const dies = 666;

const files = {
  'plugin.toml': `api = 1
id = "${mortalId}"
[serves."${contract}"]
proto = "mortal.proto"
public = true
`,
  'mortal.proto': `syntax = "proto3";
package demo.mortal.v1;
service Mortal { rpc Work(WorkRequest) returns (WorkResponse); }
message WorkRequest { uint32 ms = 1; }
message WorkResponse { uint32 generation = 1; }
`,
  'index.ts': `import { setTimeout as sleep } from 'node:timers/promises';
import { definePlugin } from 'troupe/plugin';
export default definePlugin({
  start: ({ generation }) => ({
    serve: {
      '${contract}': {
        async work({ ms }) {
          if (ms === ${dies}) process.exit(1);
          await sleep(ms);
          return { generation };
        },
      },
    },
  }),
});
`,
};

export interface Mortal {
  /** @returns its generation */
  work(ms: number): Promise<number>;
}

export function writeMortal(dir: string): void {
  mkdirSync(dir, { recursive: true });
  for (const [name, text] of Object.entries(files)) writeFileSync(join(dir, name), text);
}

export function mortalOf(dir: string, client: GrpcClient): Mortal {
  const { requestType, responseType } = definitionFromFile(contract, join(dir, 'mortal.proto')).methods.work!;
  return {
    async work(ms) {
      const request = requestType.encode(requestType.fromPartial({ ms } as never)).finish();
      const reply = await client.unary(`${contract}/Work`, request, { timeoutMs: 30_000 });
      return (responseType.decode(reply) as { generation: number }).generation;
    },
  };
}
