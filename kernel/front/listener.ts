/** A listening socket that outlives bad moments: too many open files, a peer that is gone before it is accepted. */
import { createServer, type Server, type Socket } from 'node:net';
import { Failure } from '../sdk/failure.ts';
import type { Log } from '../sdk/plugin.ts';
import { listenUnix, type UnixListener } from '../sys/index.ts';
import type { SocketPlace } from './config.ts';

export interface Listening {
  /** Where, for messages. */
  readonly address: string;
  /** Takes no more connections; those that are open are their owners'. Leaves the path to a successor that has taken it. */
  close(): Promise<void>;
}

/** containerd's mode: the group of the socket may use it, and is as good as root. */
const socketMode = 0o660;

/**
 * @param replace a predecessor of ours still listens at the path: its place is taken without a refused connect
 * @throws Failure FailedPrecondition naming the path, caused by EADDRINUSE, ENAMETOOLONG, EEXIST (something else is there), EACCES
 */
export function serveUnix(place: SocketPlace, replace: boolean, log: Log, accept: (socket: Socket) => void): Listening {
  const made = listen(place, replace);
  const server = createServer(accept);
  watch(server, place.address, log);
  server.listen({ fd: made.fd });
  return { address: place.address, close: () => closed(server, () => made.unlink()) };
}

/** What is wrong with a path is the operator's to mend, and told to him without the place in our code that errors of ours carry. */
function listen(place: SocketPlace, replace: boolean): UnixListener {
  try {
    return listenUnix(place.address, socketMode, place.uid, place.gid, { replace });
  } catch (error) {
    const message = `cannot listen: ${(error as Error).message}: failed precondition`;
    throw new Failure('FailedPrecondition', message, { cause: error });
  }
}

/** @throws the system's error, naming `HOST:PORT` */
export async function serveTcp(server: Server, address: string, log: Log): Promise<Listening> {
  const { host, port } = hostPort(address);
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host, port }, () => {
      server.off('error', reject);
      resolve();
    });
  });
  watch(server, address, log);
  return { address, close: () => closed(server, () => {}) };
}

/** An IPv6 address stands in brackets: `[::1]:1234`. An empty host is every address. */
export function hostPort(address: string): { host: string | undefined; port: number } {
  const colon = address.lastIndexOf(':');
  const host = address.slice(0, colon).replace(/^\[(.*)\]$/, '$1');
  return { host: host === '' ? undefined : host, port: Number(address.slice(colon + 1)) };
}

/**
 * When descriptors run out libuv accepts with one that it keeps for this, and closes: the loop does not spin, and the client hears at once. What it cannot deal with comes
 * here, told once per second: an attack on the log is no better than one on descriptors.
 */
function watch(server: Server, address: string, log: Log): void {
  let told = 0;
  server.on('error', (error) => {
    const now = performance.now();
    if (now - told < 1000 && told !== 0) return;
    told = now;
    log.error('cannot accept a connection', { address, error: error.message });
  });
}

function closed(server: Server, unlink: () => void): Promise<void> {
  unlink();
  // `close` waits for open connections as well, which have owners of their own.
  server.close();
  return Promise.resolve();
}
