import type { DescField, DescFile, DescMessage } from '@bufbuild/protobuf';
import { ScalarType } from '@bufbuild/protobuf';

const kinds = new Map(Object.entries(ScalarType).map(([name, value]) => [value, name.toLowerCase()]));

function single(field: {
  message?: { typeName: string } | undefined;
  enum?: { typeName: string } | undefined;
  scalar?: ScalarType | undefined;
}): string {
  return field.message?.typeName ?? field.enum?.typeName ?? kinds.get(field.scalar!)!;
}

function typeOf(field: DescField): string {
  if (field.fieldKind === 'map') return `map<${kinds.get(field.mapKey)}, ${single(field)}>`;
  if (field.fieldKind === 'list') return `repeated ${single(field)}`;
  if (field.oneof) return `oneof ${field.oneof.name} ${single(field)}`;
  return field.proto.proto3Optional ? `optional ${single(field)}` : single(field);
}

function* message(desc: DescMessage): Generator<string> {
  if (desc.fields.length === 0) yield `message ${desc.typeName}`;
  for (const field of [...desc.fields].sort((a, b) => a.number - b.number)) {
    yield `message ${desc.typeName} ${field.name} ${field.number} ${typeOf(field)}`;
  }
  for (const nested of desc.nestedEnums) yield* enumeration(nested);
  for (const nested of desc.nestedMessages) yield* message(nested);
}

function* enumeration(desc: DescFile['enums'][number]): Generator<string> {
  for (const value of desc.values) yield `enum ${desc.typeName} ${value.name} ${value.number}`;
}

/**
 * The wire format as text, one line for each field, enum value and rpc, sorted: kept in git, so that a changed number
 * or type shows as one changed line whatever was edited around it. Names of fields are listed for the reader's sake.
 */
export function numbers(files: readonly DescFile[]): string {
  const lines: string[] = [];
  for (const file of files) {
    for (const desc of file.messages) lines.push(...message(desc));
    for (const desc of file.enums) lines.push(...enumeration(desc));
    for (const service of file.services) {
      for (const { name, methodKind, input, output } of service.methods) {
        const from = methodKind === 'client_streaming' || methodKind === 'bidi_streaming' ? 'stream ' : '';
        const to = methodKind === 'server_streaming' || methodKind === 'bidi_streaming' ? 'stream ' : '';
        lines.push(`rpc ${service.typeName} ${name} ${from}${input.typeName} -> ${to}${output.typeName}`);
      }
    }
  }
  return `${lines.sort().join('\n')}\n`;
}
