/**
 * A third party's contract: its .proto file, compiled when the plugin loads. Messages look as those of generated code do: camelCase, 64-bit numbers as
 * bigint, bytes as Uint8Array, absent messages as undefined, enums as numbers.
 *
 * The compiler is loaded only by workers that have such a contract. Files it imports are looked for beside it; google's own are known.
 */
import { dirname, join } from 'node:path';
import protobuf from 'protobufjs';
import { Failure } from './failure.ts';
import type { Codec, MethodDefinition, ServiceDefinition } from './plugin.ts';

/** How deep a message may contain itself: a decoder that recurses is at the mercy of its input. */
const maxDepth = 64;

type Message = Record<string, unknown>;

/**
 * @param contract full name of the service
 * @throws Failure InvalidArgument with file and line for what does not parse, NotFound when the file does not describe the service
 */
export function definitionFromFile(contract: string, file: string): ServiceDefinition {
  const root = new protobuf.Root();
  root.resolvePath = (_origin, target) =>
    target === file ? file : protobuf.common.get(target) === null ? join(dirname(file), target) : target;
  try {
    root.loadSync(file, { keepCase: false, alternateCommentMode: true });
    root.resolveAll();
  } catch (error) {
    throw new Failure('InvalidArgument', `${file}: ${(error as Error).message}: invalid argument`, { cause: error });
  }
  const found = root.lookup(contract);
  if (!(found instanceof protobuf.Service)) {
    throw new Failure('NotFound', `${file} describes no service ${contract}: not found`);
  }
  const methods = found.methodsArray.map((method): [string, MethodDefinition] => [
    protobuf.util.lcFirst(method.name),
    {
      name: method.name,
      requestType: codecOf(method.resolvedRequestType!),
      requestStream: method.requestStream ?? false,
      responseType: codecOf(method.resolvedResponseType!),
      responseStream: method.responseStream ?? false,
    },
  ]);
  return { name: found.name, fullName: contract, methods: Object.fromEntries(methods) };
}

function codecOf(type: protobuf.Type): Codec<Message> & { readonly $type: string } {
  return {
    $type: type.fullName.slice(1),
    encode: (message) => type.encode(type.fromObject(outgoing(message, 0) as Message)),
    decode: (bytes) => incoming(type, type.decode(bytes) as unknown as Message, 0),
    fromPartial: (partial: Message) => ({ ...incoming(type, type.create() as unknown as Message, 0), ...partial }),
  };
}

/** bigint → what protobufjs takes. */
function outgoing(value: unknown, depth: number): unknown {
  if (depth > maxDepth) throw new RangeError(`message nested more than ${maxDepth} deep`);
  if (typeof value === 'bigint') return value.toString();
  if (Array.isArray(value)) return value.map((each) => outgoing(each, depth + 1));
  if (typeof value !== 'object' || value === null || value instanceof Uint8Array) return value;
  const entries = Object.entries(value).filter(([, each]) => each !== undefined);
  return Object.fromEntries(entries.map(([key, each]) => [key, outgoing(each, depth + 1)]));
}

function incoming(type: protobuf.Type, message: Message, depth: number): Message {
  if (depth > maxDepth) throw new RangeError(`message nested more than ${maxDepth} deep`);
  return Object.fromEntries(type.fieldsArray.map((field) => [field.name, fieldValue(field.resolve(), message, depth)]));
}

function fieldValue(field: protobuf.Field, message: Message, depth: number): unknown {
  const value = message[field.name];
  const present = Object.hasOwn(message, field.name);
  if (field instanceof protobuf.MapField) {
    return Object.fromEntries(
      Object.entries((value ?? {}) as Message).map(([key, each]) => [key, single(field, each, depth)]),
    );
  }
  if (field.repeated) return ((value ?? []) as unknown[]).map((each) => single(field, each, depth));
  const optional = field.partOf !== null || field.resolvedType instanceof protobuf.Type;
  if (optional && !present) return undefined;
  return single(field, value, depth);
}

function single(field: protobuf.Field, value: unknown, depth: number): unknown {
  if (field.resolvedType instanceof protobuf.Type) return incoming(field.resolvedType, value as Message, depth + 1);
  if (/64$/.test(field.type)) return BigInt(String(value ?? 0));
  // protobufjs reads bytes as Buffer, and an absent field as an empty array.
  if (field.type === 'bytes') return value instanceof Uint8Array ? value : new Uint8Array();
  return value;
}
