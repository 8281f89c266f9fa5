import test from 'ava';
import { useRecords } from '../../test/helpers/records.ts';
import { Changes } from './changes.ts';

const event = { namespace: 'n', topic: '/t', typeUrl: 'T', value: new Uint8Array() };

test('wakes at once, then for events and trash, once for many, and ends', async (t) => {
  const { records, engine } = useRecords(t);
  const changes = new Changes();
  changes.attach(engine);
  const stop = new AbortController();
  const follow = changes.follow(stop.signal);
  t.false((await follow.next()).done);

  const next = follow.next();
  await records.commit({ statements: [], namespace: 'quiet' });
  await records.commit({ statements: [], events: [event] });
  t.false((await next).done, 'an event wakes');

  for (let count = 0; count < 5; count++) await records.commit({ statements: [], trash: [{ owner: 'o', path: 'p' }] });
  t.false((await follow.next()).done, 'trash wakes');

  const quiet = follow.next();
  await records.commit({ statements: [], namespace: 'quiet' });
  stop.abort();
  t.true((await quiet).done, 'the five were one, and a namespace is none');
});

test('closing ends every reader', async (t) => {
  const { engine } = useRecords(t);
  const changes = new Changes();
  changes.attach(engine);
  const follow = changes.follow(new AbortController().signal);
  await follow.next();
  const next = follow.next();
  changes.close();
  t.true((await next).done);
});

test('rows that were written and removed before anybody looked still count', async (t) => {
  const { records, as, engine } = useRecords(t);
  const changes = new Changes();
  changes.attach(engine);
  const follow = changes.follow(new AbortController().signal);
  await follow.next();
  const next = follow.next();
  await Promise.all([
    records.commit({ statements: [], events: [event] }),
    as('events').commit({ statements: [{ sql: 'DELETE FROM records_outbox', rows: 1 }] }),
  ]);
  t.false((await next).done);
  changes.close();
});

test('a reader waits while the file is closed, and is woken when it is open again', async (t) => {
  const { engine } = useRecords(t);
  const changes = new Changes();
  const follow = changes.follow(new AbortController().signal);
  t.is((await follow.next()).value, 0n);
  const next = follow.next();
  changes.attach(engine);
  changes.detach();
  changes.attach(engine);
  t.false((await next).done);
  changes.close();
});
