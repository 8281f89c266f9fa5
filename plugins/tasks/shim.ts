/**
 * One shim as an actor: a ttrpc connection, typed calls that all have an end, and the news of its death.
 */

import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { Failure, type Log } from 'troupe/plugin';
import { TaskDefinition } from 'troupe/proto/containerd/task/v2/task.ts';
import { peerCredentials, socketFd } from 'troupe/sys';
import { TtrpcClient, type TtrpcStub, ttrpcStub } from 'troupe/ttrpc';
import type { ShimAddress } from './shim-address.ts';
import { shimFailure } from './shim-failure.ts';

type TaskStub = TtrpcStub<typeof TaskDefinition>;
type Method = keyof TaskStub;
type Request<M extends Method> = Parameters<TaskStub[M]>[0];
type Reply<M extends Method> = Awaited<ReturnType<TaskStub[M]>>;

/** Version 3 has the messages of version 2 under another name. */
const TaskV3Definition = { ...TaskDefinition, fullName: 'containerd.task.v3.Task' } as const;

export interface ShimCallOptions {
  /** Milliseconds, or 'none' for a call that the shim ends when something happens. */
  readonly timeout: number | 'none';
  readonly signal?: AbortSignal;
}

export class Shim {
  readonly address: ShimAddress;
  /** Resolves when the connection is gone, by whichever side. */
  readonly closed: Promise<Failure>;
  readonly #client: TtrpcClient;
  readonly #metadata: Readonly<Record<string, string>>;
  #stub: TaskStub;
  #version: 2 | 3;

  private constructor(client: TtrpcClient, address: ShimAddress, namespace: string) {
    this.address = address;
    this.closed = client.closed;
    this.#client = client;
    this.#metadata = { 'containerd-namespace-ttrpc': namespace };
    this.#version = address.version;
    this.#stub = this.#version === 3 ? ttrpcStub(client, TaskV3Definition) : ttrpcStub(client, TaskDefinition);
  }

  /**
   * Connects to a shim's socket.
   * @throws Failure NotFound when nobody listens there (a dead shim's socket, or none), DeadlineExceeded when it does not come about in `timeout` ms,
   *   PermissionDenied when another user listens there.
   */
  static async connect(address: ShimAddress, namespace: string, timeout: number, log: Log): Promise<Shim> {
    const socket = await dial(address.path, timeout);
    const fd = socketFd(socket);
    const uid = fd === undefined ? undefined : peerCredentials(fd).uid;
    if (uid !== process.getuid?.()) {
      socket.destroy();
      throw new Failure('PermissionDenied', `shim socket ${address.path} belongs to uid ${uid}: permission denied`);
    }
    const onFault = (fault: string): void => log.warn(fault, { address: address.path, namespace });
    return new Shim(new TtrpcClient(socket, { onFault }), address, namespace);
  }

  get alive(): boolean {
    return this.#client.end === undefined;
  }

  /** One call. Rejects with the Failure that clients of the daemon should see. */
  async call<M extends Method>(method: M, request: Request<M>, options: ShimCallOptions): Promise<Reply<M>> {
    try {
      return await this.#invoke(method, request, options);
    } catch (error) {
      if (this.#version !== 3 || !Failure.is(error, 'Unimplemented')) throw shimFailure(error);
      // A shim that says 3 and serves only 2.
      this.#version = 2;
      this.#stub = ttrpcStub(this.#client, TaskDefinition);
    }
    try {
      return await this.#invoke(method, request, options);
    } catch (error) {
      throw shimFailure(error);
    }
  }

  /** Ends the connection; the shim lives on. */
  close(): void {
    this.#client.close();
  }

  #invoke<M extends Method>(method: M, request: Request<M>, options: ShimCallOptions): Promise<Reply<M>> {
    // The mapped type ties request and reply to the method; TypeScript does not see that through the union of all methods.
    const call = this.#stub[method] as unknown as (request: Request<M>, options: object) => Promise<Reply<M>>;
    return call(request, { ...options, metadata: this.#metadata });
  }
}

async function dial(path: string, timeout: number): Promise<Socket> {
  const socket = connect(path);
  const expiry = new AbortController();
  const timer = setTimeout(() => setImmediate(() => expiry.abort()), timeout);
  try {
    await once(socket, 'connect', { signal: expiry.signal });
    return socket;
  } catch (error) {
    socket.on('error', () => {});
    socket.destroy();
    const { code } = error as NodeJS.ErrnoException;
    // EACCES: a shim of ours runs as we do, so what may not be connected to is none (where shims of root have their sockets, for a daemon that is not root).
    if (code === 'ECONNREFUSED' || code === 'ENOENT' || code === 'ENOTSOCK' || code === 'EACCES') {
      throw new Failure('NotFound', `nobody listens at ${path}: not found`, { cause: error });
    }
    if ((error as Error).name === 'AbortError') {
      throw new Failure('DeadlineExceeded', `no connection to ${path} in ${timeout} ms: context deadline exceeded`);
    }
    throw new Failure('Unavailable', `connect ${path}: ${(error as Error).message}: unavailable`, { cause: error });
  } finally {
    clearTimeout(timer);
  }
}
