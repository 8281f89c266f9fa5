/**
 * gRPC → bus calls. Method path → slot, metadata → namespace, lease, deadline, trace; the bytes of messages are never looked at.
 *
 * Reading and writing are tied to the bus' credit on both sides: a client that does not read stops its producer within one window,
 * and a producer that is behind stops the client through HTTP/2's own window.
 */
import type {
  handleBidiStreamingCall,
  handleServerStreamingCall,
  handleUnaryCall,
  Metadata,
  Server,
  ServerDuplexStream,
  ServerWritableStream,
} from '@grpc/grpc-js';
import type { MethodShape, Provider, RoutedCall, Router, Routes } from '../bus/router.ts';
import { Failure } from '../sdk/failure.ts';
import { statusOf } from './status.ts';

/** Told of every call, for metrics. */
export interface CallObserver {
  began(path: string, kind: CallKind): void;
  ended(path: string, kind: CallKind, failure: Failure | undefined, ms: number): void;
}

export type CallKind = 'unary' | 'server_stream' | 'client_stream' | 'bidi_stream';

const asBuffer = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
const asBytes = (buffer: Buffer): Buffer => buffer;

/** Keeps `server`'s methods equal to what public providers serve. Methods that went away answer Unimplemented through their missing provider. */
export class GrpcRoutes {
  readonly #server: Server;
  readonly #router: Router;
  readonly #observer: CallObserver;
  readonly #known = new Set<string>();

  constructor(server: Server, router: Router, observer: CallObserver) {
    this.#server = server;
    this.#router = router;
    this.#observer = observer;
    this.#register(router.routes);
    router.onRoutes((routes) => this.#register(routes));
  }

  #register(routes: Routes): void {
    for (const [contract, providers] of Object.entries(routes)) {
      const provider = providers.find((each) => each.public);
      for (const shape of provider?.shapes ?? []) {
        if (this.#known.has(shape.path)) continue;
        this.#known.add(shape.path);
        this.#add(contract, shape);
      }
    }
  }

  #add(contract: string, shape: MethodShape): void {
    const { path, requestStream, responseStream } = shape;
    const bridge = new Bridge(this.#router, () => this.#provider(contract), path, kindOf(shape), this.#observer);
    const wire = `/${path}`;
    if (!requestStream && !responseStream) this.#server.register(wire, bridge.unary, asBuffer, asBytes, 'unary');
    else if (!requestStream) this.#server.register(wire, bridge.serverStream, asBuffer, asBytes, 'serverStream');
    // A client stream is served as both ways: one answer is a short stream.
    else this.#server.register(wire, bridge.bothWays, asBuffer, asBytes, 'bidi');
  }

  #provider(contract: string): Provider {
    const provider = this.#router.routes[contract]?.find((each) => each.public);
    if (provider === undefined) throw new Failure('Unimplemented', `unknown service ${contract}: not implemented`);
    return provider;
  }
}

function kindOf(shape: MethodShape): CallKind {
  if (shape.requestStream) return shape.responseStream ? 'bidi_stream' : 'client_stream';
  return shape.responseStream ? 'server_stream' : 'unary';
}

class Bridge {
  readonly #router: Router;
  readonly #provider: () => Provider;
  readonly #path: string;
  readonly #kind: CallKind;
  readonly #observer: CallObserver;

  constructor(router: Router, provider: () => Provider, path: string, kind: CallKind, observer: CallObserver) {
    this.#router = router;
    this.#provider = provider;
    this.#path = path;
    this.#kind = kind;
    this.#observer = observer;
  }

  readonly unary: handleUnaryCall<Buffer, Uint8Array> = (call, callback) => {
    const done = this.#begin();
    let reply: Uint8Array = new Uint8Array();
    let routed: RoutedCall | undefined;
    const fail = (failure: Failure) => {
      done(failure);
      callback(statusOf(failure));
    };
    try {
      routed = this.#router.call(
        this.#provider(),
        this.#path,
        { meta: metaOf(call.metadata, call.getDeadline()), payload: call.request, complete: true, single: true },
        {
          message: (bytes) => {
            reply = bytes;
          },
          end: () => {
            done(undefined);
            callback(null, reply);
          },
          fail,
          writable: () => {},
        },
      );
    } catch (error) {
      fail(Failure.from(error));
      return;
    }
    call.on('cancelled', () => {
      routed.cancel();
      done(new Failure('Canceled', 'context canceled'));
    });
  };

  readonly serverStream: handleServerStreamingCall<Buffer, Uint8Array> = (call) => {
    this.#stream(call, call.request);
  };

  readonly bothWays: handleBidiStreamingCall<Buffer, Uint8Array> = (call) => {
    const routed = this.#stream(call, undefined);
    if (routed === undefined) return;
    call.on('data', (message: Buffer) => {
      if (!routed.send(message)) call.pause();
    });
    call.on('end', () => routed.finish());
  };

  #stream(
    call: ServerWritableStream<Buffer, Uint8Array> | ServerDuplexStream<Buffer, Uint8Array>,
    request: Buffer | undefined,
  ): RoutedCall | undefined {
    const done = this.#begin();
    let ended = false;
    const fail = (failure: Failure) => {
      ended = true;
      done(failure);
      call.emit('error', statusOf(failure));
    };
    /** Bytes written that the client's window has not taken yet; the producer gets its credit back when it has. */
    let owed = 0;
    let routed: RoutedCall;
    call.on('drain', () => {
      routed.consumed(owed);
      owed = 0;
    });
    try {
      routed = this.#router.call(
        this.#provider(),
        this.#path,
        {
          meta: metaOf(call.metadata, call.getDeadline()),
          payload: request,
          complete: request !== undefined,
          single: this.#kind === 'client_stream',
        },
        {
          message: (bytes) => {
            if (ended) return;
            if (call.write(bytes)) routed.consumed(bytes.byteLength);
            else owed += bytes.byteLength;
          },
          end: () => {
            ended = true;
            done(undefined);
            call.end();
          },
          fail,
          writable: () => {
            if ('resume' in call) call.resume();
          },
        },
      );
    } catch (error) {
      fail(Failure.from(error));
      return undefined;
    }
    call.on('cancelled', () => {
      ended = true;
      routed.cancel();
      done(new Failure('Canceled', 'context canceled'));
    });
    // A client that resets or vanishes surfaces here as well; without a listener it would end the thread.
    call.on('error', () => {});
    return routed;
  }

  #begin(): (failure: Failure | undefined) => void {
    const began = performance.now();
    let open = true;
    this.#observer.began(this.#path, this.#kind);
    return (failure) => {
      if (!open) return;
      open = false;
      this.#observer.ended(this.#path, this.#kind, failure, performance.now() - began);
    };
  }
}

/** Clients that nest namespaces send the header twice, and Node joins them with a comma: the first is the innermost. */
function first(metadata: Metadata, key: string): string {
  const value = metadata.get(key)[0];
  if (value === undefined) return '';
  const text = String(value);
  const comma = text.indexOf(',');
  return comma === -1 ? text : text.slice(0, comma).trim();
}

function metaOf(metadata: Metadata, deadline: Date | number) {
  const at = typeof deadline === 'number' ? deadline : deadline.getTime();
  return {
    from: 'front',
    namespace: first(metadata, 'containerd-namespace'),
    lease: first(metadata, 'containerd-lease'),
    deadline: Number.isFinite(at) ? at : 0,
    trace: first(metadata, 'traceparent'),
    cursor: '',
  };
}
