/**
 * True when `event` came about in `limit` ms. What had come about by then counts, though it is still to be read: after a stall a loop runs its timers before it looks at
 * its descriptors, so the verdict waits until it has done that once.
 */
export async function settledWithin(event: Promise<unknown>, limit: number): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const timer = setTimeout(() => setImmediate(() => setImmediate(resolve, false)), limit);
  const settled = (): void => resolve(true);
  event.then(settled, settled);
  try {
    return await promise;
  } finally {
    clearTimeout(timer);
  }
}
