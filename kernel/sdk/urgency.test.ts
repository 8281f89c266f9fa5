import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { getPriority, setPriority } from 'node:os';
import { needing } from '../../test/helpers/privilege.ts';
import { gettid } from '../sys/thread.ts';
import { hurry, Urgency } from './urgency.ts';

const rootTest = needing('root').serial;

/** This thread as a new worker is: where the kernel's stands, before the others. */
function urgent(t: { teardown(work: () => void): void }): { urgency: Urgency; usual: number } {
  const usual = getPriority(0);
  t.teardown(() => setPriority(0, usual));
  setPriority(0, usual - 5);
  return { urgency: new Urgency(usual), usual };
}

rootTest('a thread starts where its maker stands, and settles among the others', (t) => {
  const { urgency, usual } = urgent(t);
  t.is(getPriority(0), usual - 5);
  urgency.settle();
  t.is(getPriority(0), usual);
});

rootTest('a process is started with the usual priority, also when somebody hurries its maker just then', async (t) => {
  const { urgency, usual } = urgent(t);
  const child = urgency.spawning(() => {
    t.is(getPriority(0), usual);
    setPriority(0, usual - 5);
    return spawn('sleep', ['60'], { stdio: 'ignore' });
  });
  t.is(getPriority(child.pid!), usual);
  child.kill();
  await once(child, 'exit');
});

rootTest('one hurries another to where one stands oneself, and nobody who is not there', (t) => {
  const { usual } = urgent(t);
  const tid = gettid();
  hurry(tid);
  t.is(getPriority(tid), usual - 5);
  t.notThrows(() => hurry(0));
  t.notThrows(() => hurry(2 ** 22 + 1));
});
