/** systemd's two small protocols: sd_notify(3) and sd_listen_fds(3). Both are no more than environment variables where there is no systemd. */
import { fstatSync } from 'node:fs';
import { setCloseOnExec } from './fd.ts';
import { sendDatagram } from './socket.ts';

/**
 * Tells the service manager: 'READY=1', 'RELOADING=1' with MONOTONIC_USEC, 'STOPPING=1', 'STATUS=…', 'WATCHDOG=1'; several as lines. $NOTIFY_SOCKET
 * may be a path or abstract ('@…').
 * @returns false when nobody asked ($NOTIFY_SOCKET is unset)
 * @throws SysError ENOENT, ECONNREFUSED, EAGAIN when the manager does not take it: worth a warning, nothing more
 */
export function sdNotify(...lines: string[]): boolean {
  const path = process.env.NOTIFY_SOCKET;
  if (path === undefined || path === '') return false;
  sendDatagram(path, Buffer.from(lines.join('\n')));
  return true;
}

export interface InheritedFd {
  readonly fd: number;
  /** FileDescriptorName= of the socket unit, 'unknown' without one. */
  readonly name: string;
}

const FIRST = 3;

/** Descriptors that a socket unit passed to this very process, in the order of the unit; they are set to close on exec. Empty when there are none. */
export function listenFds(env: NodeJS.ProcessEnv = process.env): InheritedFd[] {
  // LISTEN_PID names the process that they are for: a child that inherits the environment must not take its own 3 and 4 for sockets.
  if (env.LISTEN_PID !== String(process.pid)) return [];
  const count = Number(env.LISTEN_FDS);
  if (!Number.isInteger(count) || count <= 0) return [];
  const names = (env.LISTEN_FDNAMES ?? '').split(':');
  const inherited: InheritedFd[] = [];
  for (let i = 0; i < count; i++) {
    const fd = FIRST + i;
    if (!fstatSync(fd).isSocket()) continue;
    setCloseOnExec(fd, true);
    inherited.push({ fd, name: names[i] === undefined || names[i] === '' ? 'unknown' : names[i]! });
  }
  return inherited;
}
