/** Layers unpacked by a process without privilege: what it may not do is left out, and told. */

import { spawnSync } from 'node:child_process';
import { lstatSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { lacking, withoutPrivilege } from '../../../test/helpers/privilege.ts';
import { archive, entry, pax } from '../tar/craft.ts';
import { cap20, dir, file } from './crafted.ts';
import { scratch } from './scratch.ts';

const isRoot = lacking('root') === undefined;

test('without privilege, what may not be done is left out and told', (t) => {
  const { path, root } = scratch(t);
  writeFileSync(
    join(path, 'layer.tar'),
    archive(
      entry(dir('d', { uid: 5, mode: 0o711 })),
      pax({ 'SCHILY.xattr.security.capability': cap20 }),
      entry(file('d/f', 'x', { uid: 5, gid: 6, mode: 0o4755 })),
      entry({ name: 'null', type: '3', devMajor: 1, devMinor: 3 }),
      entry({ name: 'pipe', type: '6' }),
      entry(dir('closed', { mode: 0o555 })),
      entry(file('closed/secret', 'x', { mode: 0 })),
      entry(file('closed/gone', 'x')),
    ),
  );
  writeFileSync(
    join(path, 'above.tar'),
    archive(
      entry(file('closed/more', 'x')),
      entry(file('closed/.wh.gone')),
      entry(dir('gone', { mode: 0 })),
      entry(dir('gone/deeper', { mode: 0 })),
      entry(file('gone', 'now a file')),
    ),
  );
  const code = `
    import { openSync, readFileSync } from 'node:fs';
    import { applyLayer } from ${JSON.stringify(import.meta.resolve('./apply.ts'))};
    async function* source(name) { yield readFileSync(${JSON.stringify(path)} + '/' + name); }
    for (const name of ['layer.tar', 'above.tar']) {
      const { omitted } = await applyLayer(openSync(${JSON.stringify(root)}), source(name), { subject: 'layer x', mode: 'apply' });
      console.log(omitted.join());
    }
  `;
  const [command = '', ...args] = [
    ...withoutPrivilege,
    process.execPath,
    '--input-type=module',
    '-e',
    code,
  ] as string[];
  const { stdout, stderr } = spawnSync(command, args, { encoding: 'utf8' });
  // Root without capabilities still makes what belongs to root.
  t.is(stdout.trim(), `ownership,xattr,device,mode\n${isRoot ? 'mode' : 'ownership,mode'}`, stderr);
  t.deepEqual(readdirSync(root).sort(), ['closed', 'd', 'gone', 'pipe']);
  t.deepEqual(readdirSync(join(root, 'closed')).sort(), ['more', 'secret']);
  t.is(lstatSync(join(root, 'closed')).mode & 0o7777, 0o755);
  t.is(lstatSync(join(root, 'closed/secret')).mode & 0o7777, 0o400);
  const status = lstatSync(join(root, 'd/f'));
  t.deepEqual([status.uid, status.mode & 0o7777], [process.geteuid!(), 0o4755]);
});
