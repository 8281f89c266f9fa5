import test from 'ava';
import { TaskExit } from 'troupe/proto/containerd/events/task.ts';
import { ExitLedger } from './exits.ts';

const exit = (pid: number, id = 'web', exitStatus = 0) => ({
  namespace: 'default',
  event: TaskExit.fromPartial({ containerId: 'web', id, pid, exitStatus }),
});

test('an exit is published once, whoever comes first', async (t) => {
  const ledger = new ExitLedger();
  const published: number[] = [];
  const publish = async (_: string, event: TaskExit): Promise<void> => void published.push(event.pid);
  await Promise.all([ledger.publishOnce(exit(7), publish), ledger.publishOnce(exit(7), publish)]);
  t.true(ledger.note(exit(8)));
  t.false(ledger.note(exit(8)));
  await ledger.publishOnce(exit(8), publish);
  await ledger.publishOnce(exit(7, 'e1'), publish);
  t.deepEqual(published, [7, 7]);
});

test('an exit that could not be published is published at the next occasion', async (t) => {
  const ledger = new ExitLedger();
  await t.throwsAsync(ledger.publishOnce(exit(7), async () => Promise.reject(new Error('down'))));
  let published = 0;
  await ledger.publishOnce(exit(7), async () => void published++);
  t.is(published, 1);
});

test('a new container of the same name begins with nothing', (t) => {
  const ledger = new ExitLedger();
  ledger.note(exit(7));
  ledger.begin('default', 'web');
  t.false(ledger.has('default', exit(7).event));
  t.true(ledger.note(exit(7)));
});

test('the newest exit of a process is found, and moves to the next generation', (t) => {
  const ledger = new ExitLedger();
  ledger.note(exit(7, 'web', 1));
  ledger.note(exit(8, 'web', 2));
  ledger.note(exit(9, 'e1', 3));
  const next = new ExitLedger();
  next.import(structuredClone(ledger.export()));
  t.is(next.find('default', 'web', '')?.exitStatus, 2);
  t.is(next.find('default', 'web', 'e1')?.exitStatus, 3);
  t.is(next.find('other', 'web', ''), undefined);
});

test('a flood of exits does not grow it without end', (t) => {
  const ledger = new ExitLedger();
  for (let pid = 2; pid < 20_000; pid++) ledger.note(exit(pid));
  t.true(ledger.export().length <= 8192);
  t.true(ledger.has('default', exit(19_999).event));
});
