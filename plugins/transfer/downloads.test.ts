/** How many blobs come at once. */
import test from 'ava';
import { Downloads } from './downloads.ts';

const { signal } = new AbortController();

/** A download that tells when it has begun, and ends when it is told to. */
function download(downloads: Downloads, stop: AbortSignal = signal) {
  const begun = Promise.withResolvers<void>();
  const over = Promise.withResolvers<void>();
  let has = false;
  const done = downloads.use(stop, async () => {
    has = true;
    begun.resolve();
    await over.promise;
  });
  return {
    begun: begun.promise,
    done,
    get has() {
      return has;
    },
    end: () => {
      over.resolve();
      return done;
    },
  };
}

test('a line that is not filled is shared, up to the limit', async (t) => {
  const downloads = new Downloads(2, { everyMs: 1, enough: Number.POSITIVE_INFINITY });
  const [a, b, c] = [download(downloads), download(downloads), download(downloads)];
  await a.begun;
  await b.begun;
  t.false(c.has);
  await a.end();
  await c.begun;
  await Promise.all([b.end(), c.end()]);
});

test('one that fills the line has it for itself; the next begins when it ends', async (t) => {
  let looks = 0;
  const looked = Promise.withResolvers<void>();
  const downloads = new Downloads(3, {
    everyMs: 1,
    get enough() {
      if (++looks === 3) looked.resolve();
      return 0;
    },
  });
  const [a, b, c] = [download(downloads), download(downloads), download(downloads)];
  await a.begun;
  await looked.promise;
  t.deepEqual([b.has, c.has], [false, false]);
  await a.end();
  await b.begun;
  t.false(c.has);
  await b.end();
  await c.begun;
  await c.end();
});

test('one that waits for the line can be called off, and the others go on', async (t) => {
  const downloads = new Downloads(0, { everyMs: 1, enough: 0 });
  const stop = new AbortController();
  const a = download(downloads);
  await a.begun;
  const b = download(downloads, stop.signal);
  const c = download(downloads);
  await new Promise((resolve) => setImmediate(resolve));
  stop.abort(new Error('called off'));
  await t.throwsAsync(b.done, { message: 'called off' });
  await a.end();
  await c.begun;
  t.false(b.has);
  await c.end();
});
