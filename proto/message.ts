import type { BinaryReader, BinaryWriter } from './wire.ts';

type Builtin = Date | Uint8Array | string | number | boolean | bigint | undefined;

/** What `fromPartial` takes: any subset of the fields, at every depth; 64-bit numbers also as number or string. */
export type DeepPartial<T> = T extends bigint
  ? string | number | bigint
  : T extends Builtin
    ? T
    : T extends (infer U)[]
      ? DeepPartial<U>[]
      : T extends object
        ? { [K in keyof T]?: DeepPartial<T[K]> }
        : Partial<T>;

/** What the generated code offers for each message `T` with the full protobuf name `V`. */
export interface MessageFns<T, V extends string> {
  readonly $type: V;
  encode(message: T, writer?: BinaryWriter): BinaryWriter;
  /** `bytes` fields of the result are views into `input`: who keeps one keeps all of it, and must not reuse it. */
  decode(input: BinaryReader | Uint8Array, length?: number): T;
  create(base?: DeepPartial<T>): T;
  fromPartial(object: DeepPartial<T>): T;
}

/** A message type whose message is not known at compile time. Methods, not properties, so that any codec fits. */
export interface MessageCodec<T = unknown> {
  readonly $type: string;
  /** Bytes of their own each time: who sends them frees them (owned.ts). */
  encode(message: T): { finish(): Uint8Array };
  decode(input: Uint8Array): T;
  fromPartial(object: object): T;
}

/** One rpc as the generated definitions describe it. */
export interface MethodDefinition {
  /** As in the .proto: `Get`; the path of a call is `/${service.fullName}/${method.name}`. */
  readonly name: string;
  readonly requestType: MessageCodec;
  readonly requestStream: boolean;
  readonly responseType: MessageCodec;
  readonly responseStream: boolean;
}

/** One service; the keys of `methods` are the names in lower camel case: `get`, `closeIO`. */
export interface ServiceDefinition {
  readonly name: string;
  readonly fullName: string;
  readonly methods: Readonly<Record<string, MethodDefinition>>;
}

/**
 * Puts an entry into a protobuf map. Keys are chosen by clients: a plain assignment to `__proto__` would swap the
 * object's prototype (or drop the entry), so that one key is defined instead.
 */
export function setEntry<T>(map: { [key: string]: T }, key: string, value: T): void {
  if (key === '__proto__') {
    Object.defineProperty(map, key, { value, enumerable: true, configurable: true, writable: true });
  } else {
    map[key] = value;
  }
}
