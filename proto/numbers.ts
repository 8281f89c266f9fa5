import type { DescEnum, DescField, DescFile, DescMessage, DescService } from '@bufbuild/protobuf';
import { ScalarType } from '@bufbuild/protobuf';
import { messagesOf } from './descriptors.ts';

const scalar = (type: ScalarType) => ScalarType[type].toLowerCase();

function typeOf(field: DescField): string {
  const one = field.message?.typeName ?? field.enum?.typeName ?? scalar(field.scalar!);
  if (field.fieldKind === 'map') return `map<${scalar(field.mapKey)}, ${one}>`;
  if (field.fieldKind === 'list') return `repeated ${one}`;
  if (field.oneof) return `oneof ${field.oneof.name} ${one}`;
  return field.proto.proto3Optional ? `optional ${one}` : one;
}

function fieldLines(message: DescMessage): string[] {
  if (message.fields.length === 0) return [`message ${message.typeName}`];
  return message.fields.map((field) => `message ${message.typeName} ${field.name} ${field.number} ${typeOf(field)}`);
}

function valueLines(desc: DescEnum): string[] {
  return desc.values.map((value) => `enum ${desc.typeName} ${value.name} ${value.number}`);
}

function rpcLines(service: DescService): string[] {
  return service.methods.map(({ name, input, output, proto }) => {
    const request = proto.clientStreaming ? `stream ${input.typeName}` : input.typeName;
    const response = proto.serverStreaming ? `stream ${output.typeName}` : output.typeName;
    return `rpc ${service.typeName} ${name} ${request} -> ${response}`;
  });
}

/**
 * The wire format as text, one line for each field, enum value and rpc, sorted: kept in git, so that a changed number
 * or type shows as one changed line whatever was edited around it. Names of fields are in it because filters, field
 * masks and generated clients use them.
 */
export function numbers(files: readonly DescFile[]): string {
  const messages = files.flatMap(messagesOf);
  const enums = [...files.flatMap((file) => file.enums), ...messages.flatMap((message) => message.nestedEnums)];
  const services = files.flatMap((file) => file.services);
  const lines = [...messages.flatMap(fieldLines), ...enums.flatMap(valueLines), ...services.flatMap(rpcLines)];
  return `${lines.sort().join('\n')}\n`;
}

/** Lines of `before` that `after` lacks. */
export function lost(before: string, after: string): string[] {
  const kept = new Set(after.split('\n'));
  return before.split('\n').filter((line) => !kept.has(line));
}
