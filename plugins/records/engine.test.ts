import test from 'ava';
import { Failure } from 'troupe/plugin';
import { useRecords } from '../../test/helpers/records.ts';

test('smoke', async (t) => {
  const { as, rows, engine } = useRecords(t);
  const records = as('namespaces');
  const before = engine.stats;
  const n = 20000;
  const t0 = performance.now();
  await Promise.all(
    Array.from({ length: n }, (_, i) =>
      records.commit({
        statements: [{ sql: 'INSERT INTO records_namespace (name) VALUES (?)', params: [`n${i}`], rows: 1 }],
      }),
    ),
  );
  const ms = performance.now() - t0;
  t.log(((n / ms) * 1000) | 0, 'per s', engine.stats, before);
  t.is(rows('records_namespace').length, n);
  await t.throwsAsync(
    records.commit({
      statements: [
        {
          sql: 'INSERT INTO records_namespace (name) VALUES (?)',
          params: ['n1'],
          conflict: new Failure('AlreadyExists', 'x'),
        },
      ],
    }),
    { message: 'x' },
  );
});
