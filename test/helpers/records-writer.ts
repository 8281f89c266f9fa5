/**
 * A process that writes records until it is killed: `records-writer.ts DATABASE ORACLE COUNT`. After each answer it appends the number to ORACLE, so
 * that what was acknowledged is known on the outside. 16 commits are in flight; each writes two rows and an event that belong together.
 */
import { openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { CommitRequest } from 'troupe/proto/troupe/records/v1/records.ts';
import { encodeCommit } from '../../kernel/sdk/reader.ts';
import { collect } from '../../plugins/records/collect.ts';
import { Engine } from '../../plugins/records/engine.ts';
import { migrate } from '../../plugins/records/migrate.ts';

const [path, oracle, count] = process.argv.slice(2) as [string, string, string];
const engine = new Engine({
  path,
  reserve: 1 << 20,
  onEnd: (failure) => {
    console.error(failure.message);
    process.exitCode = 3;
  },
});
migrate(engine.database, [
  { prefix: 'records', dir: join(import.meta.dirname, '../../plugins/records/migrations') },
  { prefix: 'leases', dir: join(import.meta.dirname, '../../plugins/leases/migrations') },
]);
engine.ready();

const file = openSync(oracle, 'a');
const expired = '{"containerd.io/gc.expire":"2020-01-01T00:00:00Z"}';
const run = `${process.pid}`;
let next = 0;

async function write(): Promise<void> {
  while (next < Number(count)) {
    const number = next++;
    const name = `${run}-${number}`;
    const request = encodeCommit(
      {
        namespace: name,
        statements: [
          { sql: 'INSERT INTO leases_lease (ns, id, created_at) VALUES (?, ?, 1)', params: [name, 'kept'] },
          {
            sql: 'INSERT INTO leases_lease (ns, id, created_at, labels) VALUES (?, ?, 1, ?)',
            params: [name, 'expired', expired],
          },
        ],
        events: [{ namespace: name, topic: '/x', typeUrl: 'T', value: new Uint8Array() }],
      },
      'leases',
    );
    await engine.commit(CommitRequest.decode(request));
    writeSync(file, `${name}\n`);
    if (number % 200 === 199) await collect(engine, { thread: false });
  }
}

try {
  await Promise.all(Array.from({ length: 16 }, write));
} catch (error) {
  console.error((error as Error).message);
  process.exitCode ||= 4;
}
engine.close();
