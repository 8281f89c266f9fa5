/**
 * A listening unix socket that is never seen with the wrong owner or mode, nor missing: it is bound in a private directory beside the public path, made ready,
 * and renamed into place. A rename also swaps it for a predecessor's without a refused connect. Since Node only sees a descriptor
 * (`server.listen({ fd })`), libuv does not unlink the public path when that server closes, which would take a successor's socket away.
 */
import { chmodSync, chownSync, constants, lstatSync, mkdirSync, mkdtempSync, rmSync, unlinkSync } from 'node:fs';
import { basename, dirname, isAbsolute, join } from 'node:path';
import { AT_FDCWD, O_PATH, openat, RENAME_NOREPLACE, renameat2 } from './at.ts';
import { errnos, isErrno, SysError } from './errno.ts';
import { close, fdPath, withFd } from './fd.ts';
import { bindUnix, isListening, listen, SOCK_STREAM, unixPathLimit, unixSocket } from './socket.ts';
import { tryFstatat } from './stat.ts';

export interface ListenOptions {
  /** Takes the place of a socket that is listened on; without it that is EADDRINUSE. */
  readonly replace?: boolean;
  /** Connections that wait to be accepted; Node's default for pipes, 511. The kernel caps it at net.core.somaxconn. */
  readonly backlog?: number;
}

export interface UnixListener {
  /** For `server.listen({ fd })`, which owns it from then on; `dup(fd)` first to keep one. */
  readonly fd: number;
  readonly path: string;
  /** Removes the public path if it still is this socket, not a successor's. Closes nothing. */
  unlink(): void;
}

/**
 * Missing parent directories are made 0711 root:root; existing ones are never touched.
 * @param path absolute, at most 107 bytes; abstract names are refused: they have no owner and no mode (CVE-2020-15257)
 * @param mode permission bits, 0o660 for a daemon's API
 * @param uid -1 leaves it ours
 * @param gid -1 leaves it ours
 * @throws SysError EEXIST when something else than a socket is at `path`, EADDRINUSE when someone listens there, ENAMETOOLONG, EINVAL
 */
export function listenUnix(path: string, mode: number, uid = -1, gid = -1, options: ListenOptions = {}): UnixListener {
  checkPath(path);
  makeParents(dirname(path));
  const existing = tryFstatat(AT_FDCWD, path);
  if (existing !== undefined && existing.kind !== 'socket') {
    throw new SysError(
      errnos.EEXIST,
      'bind',
      path,
      undefined,
      `a ${existing.kind} is there, not a socket; it is left alone`,
    );
  }
  if (existing !== undefined && options.replace !== true && isListening(path)) {
    throw new SysError(errnos.EADDRINUSE, 'bind', path, undefined, 'another process listens there');
  }
  const directory = mkdtempSync(join(dirname(path), '.socket-'));
  const fd = unixSocket(SOCK_STREAM);
  try {
    const made = join(directory, basename(path));
    bindNear(fd, directory, made);
    if (uid !== -1 || gid !== -1) chownSync(made, uid, gid);
    chmodSync(made, mode);
    listen(fd, options.backlog ?? 511, path);
    const status = tryFstatat(AT_FDCWD, made);
    // Where there was nothing, nothing may have come meanwhile that is not ours to replace.
    renameat2(AT_FDCWD, made, AT_FDCWD, path, existing === undefined ? RENAME_NOREPLACE : 0);
    return {
      fd,
      path,
      unlink() {
        const now = tryFstatat(AT_FDCWD, path);
        if (now !== undefined && now.ino === status?.ino && now.dev === status.dev) unlinkSync(path);
      },
    };
  } catch (error) {
    close(fd);
    throw error;
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** The name that is bound is longer than the public one; where it does not fit, the directory is named by its descriptor. */
function bindNear(fd: number, directory: string, made: string): void {
  if (Buffer.byteLength(made) <= unixPathLimit) bindUnix(fd, made);
  else {
    withFd(openat(AT_FDCWD, directory, O_PATH | constants.O_DIRECTORY), (dirfd) =>
      bindUnix(fd, fdPath(dirfd, basename(made))),
    );
  }
}

function checkPath(path: string): void {
  if (path.startsWith('@') || path.startsWith('\0')) {
    throw new SysError(errnos.EINVAL, 'bind', path, undefined, 'abstract sockets have neither owner nor mode');
  }
  if (!isAbsolute(path) || path.endsWith('/'))
    throw new SysError(errnos.EINVAL, 'bind', path, undefined, 'an absolute path of a file is needed');
  const length = Buffer.byteLength(path);
  if (length > unixPathLimit) {
    throw new SysError(
      errnos.ENAMETOOLONG,
      'bind',
      path,
      undefined,
      `the path of a unix socket has at most ${unixPathLimit} bytes, this one ${length}`,
    );
  }
}

function makeParents(directory: string): void {
  try {
    lstatSync(directory);
    return;
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error;
  }
  makeParents(dirname(directory));
  try {
    mkdirSync(directory, { mode: 0o711 });
  } catch (error) {
    if (isErrno(error, 'EEXIST')) return;
    throw error;
  }
  // mkdir takes the umask off; and a set-group-ID parent gives its group.
  chownSync(directory, 0, 0);
  chmodSync(directory, 0o711);
}
