/**
 * The socket that shims send their events to: ttrpc, of which one method is served. The payload goes to the bus as it came; who may connect is decided by the
 * kernel's word on who is at the other end, since the protocol itself says nothing of it.
 */
import type { Socket } from 'node:net';
import type { RoutedCall } from '../bus/routed-call.ts';
import type { Router } from '../bus/router.ts';
import { Failure } from '../sdk/failure.ts';
import type { Log } from '../sdk/plugin.ts';
import { peerCredentials, socketFd } from '../sys/index.ts';
import { TtrpcServer, type TtrpcServerCall } from '../ttrpc/index.ts';

const contract = 'containerd.services.events.ttrpc.v1.Events';

export function ttrpcEvents(router: Router, log: Log): TtrpcServer<Socket> {
  return new TtrpcServer<Socket>({
    admit: (socket) => isOurs(socket, log),
    dispatch: (call) => forward(router, call),
  });
}

/** The same user and group as the daemon, as containerd asks it of its shims. */
function isOurs(socket: Socket, log: Log): boolean {
  const fd = socketFd(socket);
  if (fd === undefined) return false;
  const { pid, uid, gid } = peerCredentials(fd);
  if (uid === process.geteuid?.() && gid === process.getegid?.()) return true;
  log.warn('ttrpc connection refused', { reason: 'another user', pid, uid, gid });
  return false;
}

function forward(router: Router, call: TtrpcServerCall): Promise<Uint8Array> {
  const { service, method, payload, metadata, timeout, signal } = call;
  if (service !== contract) return Promise.reject(new Failure('Unimplemented', `service ${service}: not implemented`));
  if (method !== 'Forward') {
    return Promise.reject(new Failure('Unimplemented', `method ${method} of service ${service}: not implemented`));
  }
  return new Promise((resolve, reject) => {
    let reply: Uint8Array = new Uint8Array();
    let routed: RoutedCall | undefined;
    try {
      routed = router.call(
        router.provider(contract),
        `${contract}/Forward`,
        {
          meta: {
            from: 'front',
            namespace: metadata.get('containerd-namespace-ttrpc')?.[0] ?? '',
            lease: '',
            deadline: timeout === undefined ? 0 : Date.now() + timeout,
            trace: '',
            cursor: '',
          },
          payload,
          complete: true,
          single: true,
        },
        {
          message: (bytes) => {
            reply = bytes;
          },
          end: () => resolve(reply),
          fail: reject,
          writable: () => {},
        },
      );
    } catch (error) {
      reject(error);
      return;
    }
    signal.addEventListener('abort', () => routed?.cancel(), { once: true });
  });
}
