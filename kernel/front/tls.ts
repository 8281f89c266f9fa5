/** The TCP address: TLS 1.3 with certificates on both sides, read anew when their files change. */
import { readFileSync, statSync } from 'node:fs';
import { createServer as createPlainServer, type Server, type Socket } from 'node:net';
import { createServer, type TLSSocket } from 'node:tls';
import { Failure } from '../sdk/failure.ts';
import type { Log } from '../sdk/plugin.ts';
import type { TcpPlace } from './config.ts';

/** Certificates that are rotated are noticed within this time. */
const lookMs = 10_000;

export interface TcpServer {
  readonly server: Server;
  /** Looks at the files now; done every {@link lookMs} anyway. */
  refresh(): void;
  stop(): void;
}

/**
 * @throws Failure FailedPrecondition when a certificate, key or authority is missing and `insecure` does not allow it; the system's error when a file cannot be
 * read; InvalidArgument when it holds no certificate or key.
 */
export function tcpServer(
  place: TcpPlace,
  limits: { maxTcpConnections: number; handshakeMs: number },
  log: Log,
  accept: (socket: Socket) => void,
): TcpServer {
  check(place, log);
  if (place.cert === '') {
    const server = createPlainServer({ noDelay: true }, accept);
    server.maxConnections = limits.maxTcpConnections;
    return { server, refresh: () => {}, stop: () => {} };
  }
  const files = [place.cert, place.key, ...(place.ca === '' ? [] : [place.ca])];
  const server = createServer(
    {
      ...credentials(place),
      minVersion: 'TLSv1.3',
      requestCert: place.ca !== '',
      rejectUnauthorized: place.ca !== '',
      ALPNProtocols: ['h2'],
      handshakeTimeout: limits.handshakeMs,
      noDelay: true,
    },
    (socket) => {
      if (isAllowed(socket, place, log)) accept(socket);
      else socket.destroy();
    },
  );
  // Counts those that have not finished their handshake as well.
  server.maxConnections = limits.maxTcpConnections;
  server.on('tlsClientError', (error, socket) => {
    log.debug('TLS handshake failed', { address: socket.remoteAddress, error: error.message });
    socket.destroy();
  });
  let seen = stamp(files);
  const refresh = () => {
    const now = stamp(files);
    if (now === seen) return;
    seen = now;
    try {
      server.setSecureContext({ ...credentials(place), minVersion: 'TLSv1.3' });
      log.info('certificates read anew', { cert: place.cert });
    } catch (error) {
      // Files are replaced one after the other; the next look finds them whole, and the old ones serve until then.
      log.warn('certificates cannot be read; those before stay', { cert: place.cert, error: String(error) });
    }
  };
  const timer = setInterval(refresh, lookMs);
  timer.unref();
  return { server, refresh, stop: () => clearInterval(timer) };
}

function check({ address, cert, key, ca, insecure }: TcpPlace, log: Log): void {
  const missing = Object.entries({ tcp_tls_cert: cert, tcp_tls_key: key, tcp_tls_ca: ca })
    .filter(([, file]) => file === '')
    .map(([name]) => `grpc.${name}`);
  if (missing.length === 0) return;
  const consequence = `grpc.tcp_address ${address} without ${missing.join(', ')}: whoever can connect is root`;
  if (!insecure || (cert === '') !== (key === '')) {
    throw new Failure(
      'FailedPrecondition',
      `${consequence}; kernel.front.insecure_tcp = true allows it: failed precondition`,
    );
  }
  log.warn(consequence, { allowed: 'kernel.front.insecure_tcp' });
}

function credentials({ cert, key, ca }: TcpPlace): { cert: Buffer; key: Buffer; ca?: Buffer } {
  return { cert: readFileSync(cert), key: readFileSync(key), ...(ca === '' ? {} : { ca: readFileSync(ca) }) };
}

/** Changes when a file is replaced, also behind a symbolic link. */
function stamp(files: readonly string[]): string {
  return files
    .map((file) => {
      const status = statSync(file, { throwIfNoEntry: false });
      return status === undefined ? '' : `${status.ino}:${status.mtimeMs}:${status.size}`;
    })
    .join();
}

function isAllowed(socket: TLSSocket, { ca, commonName }: TcpPlace, log: Log): boolean {
  if (ca === '') return true;
  const { subject } = socket.getPeerCertificate();
  const name = subject?.CN;
  if (commonName === '' || name === commonName) return true;
  log.warn('TCP connection refused', {
    reason: `common name is not "${commonName}"`,
    name: String(name),
    address: socket.remoteAddress,
  });
  return false;
}
