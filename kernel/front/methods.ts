/** `:path` → the method, and the plugin that serves it now. Follows the routes; only contracts that are public are in it. */
import type { Router } from '../bus/router.ts';
import type { MethodShape, Provider, Routes } from '../bus/routes.ts';
import { Failure } from '../sdk/failure.ts';
import { type CallKind, MethodTally, unknownTally } from './tally.ts';

export class Method {
  /** `containerd.services.images.v1.Images/Get` */
  readonly path: string;
  readonly kind: CallKind;
  readonly requestStream: boolean;
  readonly responseStream: boolean;
  readonly tally: MethodTally;
  /** Undefined when its contract has left the plan. */
  provider: Provider | undefined;

  /** It is over in a moment: neither a stream nor declared to wait for something. */
  get brief(): boolean {
    return this.kind === 'unary' && this.provider?.methods[this.tally.method]?.unbounded !== true;
  }

  constructor({ path, requestStream, responseStream }: MethodShape, tally?: MethodTally) {
    this.path = path;
    this.requestStream = requestStream;
    this.responseStream = responseStream;
    if (requestStream) this.kind = responseStream ? 'bidi_stream' : 'client_stream';
    else this.kind = responseStream ? 'server_stream' : 'unary';
    const slash = path.indexOf('/');
    this.tally = tally ?? new MethodTally(this.kind, path.slice(0, slash), path.slice(slash + 1));
  }
}

export class MethodTable {
  readonly #methods = new Map<string, Method>();
  #routes: Routes = {};

  constructor(router: Router) {
    this.#update(router.routes);
    router.onRoutes((routes) => this.#update(routes));
  }

  get methods(): IterableIterator<Method> {
    return this.#methods.values();
  }

  /** By exact text: a path is not decoded, and has no other spelling. @throws Failure Unimplemented */
  find(path: string): Method {
    const method = this.#methods.get(path);
    if (method?.provider !== undefined) return method;
    const parsed = /^\/([^/]+)\/([^/]+)$/.exec(path);
    if (parsed === null) throw new Failure('Unimplemented', `path "${path}" is not /SERVICE/METHOD: not implemented`);
    const [, service = '', name = ''] = parsed;
    const provider = publicProvider(this.#routes, service);
    if (provider === undefined) throw new Failure('Unimplemented', `unknown service ${service}: not implemented`);
    if (provider.shapes.length === 0) return starting(`${service}/${name}`, provider);
    throw new Failure('Unimplemented', `unknown method ${name} of service ${service}: not implemented`);
  }

  #update(routes: Routes): void {
    this.#routes = routes;
    for (const method of this.#methods.values()) method.provider = undefined;
    for (const contract of Object.keys(routes)) {
      const provider = publicProvider(routes, contract);
      if (provider === undefined) continue;
      for (const shape of provider.shapes) this.#learn(shape);
      // A plugin that is down says nothing of its methods; calls of those it had wait for it.
      for (const method of this.#methods.values()) {
        if (method.path.startsWith(`${contract}/`)) method.provider = provider;
      }
    }
  }

  #learn(shape: MethodShape): void {
    const path = `/${shape.path}`;
    const known = this.#methods.get(path);
    if (known?.requestStream === shape.requestStream && known.responseStream === shape.responseStream) return;
    this.#methods.set(path, new Method(shape));
  }
}

/**
 * What a plugin serves is known when it has started; until then a call of it waits on the bus, which is told when the plugin serves or has failed.
 * As streams both ways every kind of method can be carried, and whether there is one by this name the plugin will say.
 */
function starting(path: string, provider: Provider): Method {
  const method = new Method({ path, requestStream: true, responseStream: true }, unknownTally);
  method.provider = provider;
  return method;
}

function publicProvider(routes: Routes, contract: string): Provider | undefined {
  return Object.hasOwn(routes, contract) ? routes[contract]?.find((each) => each.public) : undefined;
}
