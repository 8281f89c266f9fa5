/** Unix sockets: what Node's net does not reach. */
import type { Socket } from 'node:net';
import { errnos, type Path, SysError } from './errno.ts';
import { close } from './fd.ts';
import { check, declare, lastErrno, uninterrupted } from './libc.ts';

const socketC = declare<(domain: number, type: number, protocol: number) => number>('socket', 'int', [
  'int',
  'int',
  'int',
]);
const bindC = declare<(fd: number, address: Uint8Array, length: number) => number>('bind', 'int', [
  'int',
  'void *',
  'uint',
]);
const listenC = declare<(fd: number, backlog: number) => number>('listen', 'int', ['int', 'int']);
const connectC = declare<(fd: number, address: Uint8Array, length: number) => number>('connect', 'int', [
  'int',
  'void *',
  'uint',
]);
const sendtoC = declare<
  (fd: number, data: Uint8Array, size: number, flags: number, address: Uint8Array, length: number) => number
>('sendto', 'int64', ['int', 'void *', 'size_t', 'int', 'void *', 'uint']);
const getsockoptC = declare<
  (fd: number, level: number, option: number, value: Uint8Array, length: Uint8Array) => number
>('getsockopt', 'int', ['int', 'int', 'int', 'void *', 'void *']);

const AF_UNIX = 1;
export const SOCK_STREAM = 1;
export const SOCK_DGRAM = 2;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
const MSG_NOSIGNAL = 0x4000;

/** Bytes of sun_path, of which the last is kept for the NUL. */
export const unixPathLimit = 107;

export interface PeerCredentials {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
}

/**
 * Who was at the other end when the connection was made, as the kernel vouches for it. The pid is 0 for a process outside this pid namespace, and may have been
 * taken by another process since.
 */
export function peerCredentials(fd: number): PeerCredentials {
  // struct ucred: pid, uid, gid, 32 bits each.
  const value = Buffer.alloc(12);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(12);
  check(getsockoptC()(fd, SOL_SOCKET, SO_PEERCRED, value, length), 'getsockopt SO_PEERCRED');
  return { pid: value.readInt32LE(0), uid: value.readUInt32LE(4), gid: value.readUInt32LE(8) };
}

/** The descriptor under a connected or listening socket of Node; undefined once it is closed. It stays Node's: never close it. */
export function socketFd(socket: Socket | import('node:net').Server): number | undefined {
  const fd = (socket as { _handle?: { fd?: number } | null })._handle?.fd;
  return fd === undefined || fd < 0 ? undefined : fd;
}

/** A unix socket, closed on exec, not blocking. */
export function unixSocket(type: number): number {
  return check(socketC()(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), 'socket');
}

/**
 * struct sockaddr_un: family (16 bits), path. A leading '@' means the abstract namespace, as systemd writes it.
 * @throws SysError ENAMETOOLONG beyond 107 bytes
 */
export function unixAddress(path: string): Buffer {
  const bytes = Buffer.from(path);
  if (bytes.length === 0 || bytes.includes(0)) throw new SysError(errnos.EINVAL, 'bind', path);
  if (bytes.length > unixPathLimit) {
    throw new SysError(
      errnos.ENAMETOOLONG,
      'bind',
      path,
      undefined,
      `the path of a unix socket has at most ${unixPathLimit} bytes, this one ${bytes.length}`,
    );
  }
  const abstract = bytes[0] === 0x40;
  const address = Buffer.alloc(2 + bytes.length + (abstract ? 0 : 1));
  address.writeUInt16LE(AF_UNIX);
  bytes.copy(address, 2);
  if (abstract) address[2] = 0;
  return address;
}

export function bindUnix(fd: number, path: string): void {
  const address = unixAddress(path);
  check(bindC()(fd, address, address.length), 'bind', path);
}

export function listen(fd: number, backlog: number, path?: Path): void {
  check(listenC()(fd, backlog), 'listen', path);
}

/** Whether someone accepts connections at `path`. False when the socket there was left behind, or nothing is there. */
export function isListening(path: string): boolean {
  const address = unixAddress(path);
  const fd = unixSocket(SOCK_STREAM);
  try {
    if (uninterrupted(() => connectC()(fd, address, address.length)) === 0) return true;
    const errno = lastErrno();
    if (errno === errnos.ECONNREFUSED || errno === errnos.ENOENT) return false;
    // EAGAIN: its queue is full. EPROTOTYPE: it is there, of another kind.
    if (errno === errnos.EAGAIN || errno === errnos.EPROTOTYPE) return true;
    throw new SysError(errno, 'connect', path);
  } finally {
    close(fd);
  }
}

/** One datagram to a unix socket. */
export function sendDatagram(path: string, data: Uint8Array): void {
  const address = unixAddress(path);
  const fd = unixSocket(SOCK_DGRAM);
  try {
    check(
      uninterrupted(() => sendtoC()(fd, data, data.byteLength, MSG_NOSIGNAL, address, address.length)),
      'sendto',
      path,
    );
  } finally {
    close(fd);
  }
}
