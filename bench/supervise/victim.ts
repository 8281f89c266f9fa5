/** A plugin that does what it is asked for, most of it bad: its folder is written beside the daemon's. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export const victimId = 'bench.victim.v1.victim';
export const victimContract = 'bench.victim.v1.Victim';
export const deeds = ['crash', 'hang', 'full heap', 'buffers'] as const;
export type Deed = (typeof deeds)[number];

const code = `
import { definePlugin } from 'troupe/plugin';
const held = [];
export default definePlugin({ start: (ctx) => ({ serve: { 'bench.victim.v1.Victim': {
  do({ what }) {
    switch (what) {
      case 'crash': process.exit(1);
      case 'hang': for (;;);
      case 'full heap': for (;;) held.push({ text: 'x'.repeat(32) + held.length, at: [held.length] });
      case 'buffers': { const fill = () => { held.push(Buffer.alloc(8 << 20, 1)); setImmediate(fill); }; fill(); return new Promise(() => {}); }
    }
    return { generation: ctx.generation };
  },
} } }) });
`;

/** @returns the path of its .proto */
export function writeVictim(dir: string): string {
  mkdirSync(dir, { recursive: true });
  writeFileSync(
    join(dir, 'plugin.toml'),
    `api = 1\nid = "${victimId}"\nlimits = { soft_mb = 96, hard_mb = 1024 }\n[backoff]\nrestarts = 1000\nmin = "0ms"\nmax = "1ms"\n[serves."${victimContract}"]\nproto = "victim.proto"\npublic = true\n`,
  );
  writeFileSync(
    join(dir, 'victim.proto'),
    'syntax = "proto3";\npackage bench.victim.v1;\nservice Victim { rpc Do(DoRequest) returns (DoResponse); }\nmessage DoRequest { string what = 1; }\nmessage DoResponse { uint32 generation = 1; }\n',
  );
  writeFileSync(join(dir, 'index.ts'), code);
  return join(dir, 'victim.proto');
}
