/**
 * A typed face on a ttrpc client: one function per unary method of a generated service definition.
 */

import { Failure } from '../sdk/failure.ts';
import type { TtrpcCallOptions, TtrpcClient } from './client.ts';

interface Codec<T> {
  encode(message: T): { finish(): Uint8Array };
  decode(bytes: Uint8Array): T;
}

/** What proto/gen says of a service; only what a unary call needs. */
export interface ServiceDefinition {
  readonly fullName: string;
  readonly methods: Readonly<
    Record<string, { readonly name: string; readonly requestType: unknown; readonly responseType: unknown }>
  >;
}

type MessageOf<C> = C extends { decode(bytes: Uint8Array): infer T } ? T : never;

export type TtrpcStub<D extends ServiceDefinition> = {
  readonly [M in keyof D['methods']]: (
    request: MessageOf<D['methods'][M]['requestType']>,
    options: TtrpcCallOptions,
  ) => Promise<MessageOf<D['methods'][M]['responseType']>>;
};

/** Calls of `definition` over `client`. An answer that does not decode is an Internal Failure naming the method. */
export function ttrpcStub<D extends ServiceDefinition>(client: TtrpcClient, definition: D): TtrpcStub<D> {
  const methods = Object.entries(definition.methods).map(([key, method]) => {
    const requestType = method.requestType as Codec<unknown>;
    const responseType = method.responseType as Codec<unknown>;
    const call = async (request: unknown, options: TtrpcCallOptions): Promise<unknown> => {
      const reply = await client.call(definition.fullName, method.name, requestType.encode(request).finish(), options);
      try {
        return responseType.decode(reply);
      } catch (cause) {
        throw new Failure('Internal', `${definition.fullName}/${method.name}: the answer does not decode`, { cause });
      }
    };
    return [key, call];
  });
  return Object.fromEntries(methods) as TtrpcStub<D>;
}
