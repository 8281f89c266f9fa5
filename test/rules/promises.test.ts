/**
 * What the kernel promises (B), and which faults it is to survive (F), by the names that the titles of tests begin with: `grep` finds where each is shown. Not in the list,
 * because nobody offers them: B13, a plugin in a process of its own, and B19, calls on results that are not there yet.
 */
import test from 'ava';
import { sources } from './sources.ts';

const promises: Readonly<Record<string, string>> = {
  B1: 'a plugin goes only along the arrows between states that are drawn',
  B2: 'what it requires is ready before it starts, and nothing else is waited for',
  B3: 'cycles and what is missing are told, with the path, before anything is spawned',
  B4: 'ready is said by the plugin; one that never says it has failed',
  B5: 'to skip is not to fail',
  B6: 'the stop is in reverse, and one that hangs is ended',
  B7: 'a plugin that dies takes its own calls along and nobody else’s',
  B8: 'whoever holds a link is told of the death, once',
  B9: 'restarts with pauses, and an end to them',
  B10: 'state is not handed over after a crash',
  B11: 'one that hangs is told of, and ended',
  B12: 'memory has limits',
  B14: 'a reload fails no call and breaks no stream',
  B15: 'a reload holds calls for a moment only',
  B16: 'a successor that is broken leaves the old one in place',
  B17: 'versions of contracts and of state are checked before anything is spawned',
  B18: 'users of what is reloaded stay, and several flip together or not at all',
  B20: 'the front is reloaded like any other',
  B21: 'a config is taken as a whole, or refused with its place',
  B22: 'files of plugins are watched',
  B23: 'a deadline ends the work of all that a call has come through',
  B24: 'and so does a cancellation, which leaves nothing behind',
  B25: 'control before calls, calls before bulk',
  B26: 'no code of a plugin runs in a port’s message handler',
  B27: 'mailboxes are bounded',
  B28: 'streams have credit, from end to end',
  B29: 'calls of one caller begin in their order',
  B30: 'a failure keeps its class, text and details',
  B31: 'a call is one trace, and its method is counted',
  B32: 'a plugin can be measured alone, by calls that were recorded',
  F4: 'an exception or a rejection that nobody catches',
  F5: 'an endless loop',
  F6: 'a thread that cannot be ended',
  F7: 'a heap that fills up',
  F8: 'a main thread that stands still',
  F9: 'a plugin that dies again and again',
  F22: 'reloads under load, to versions that are broken as well',
};

test('each promise and each fault is at the beginning of a test’s title', (t) => {
  // The opening quote of a title follows that of its call.
  const title = /\(\s*['"`]((?:[BF]\d+ )+)/g;
  const named = new Set(
    sources()
      .filter(({ path }) => path.endsWith('.test.ts'))
      .flatMap(({ text }) => [...text.matchAll(title)].flatMap(([, names]) => names!.trim().split(' '))),
  );
  t.deepEqual(
    Object.keys(promises).filter((name) => !named.has(name)),
    [],
  );
  t.deepEqual(
    [...named].filter((name) => promises[name] === undefined),
    [],
  );
});
