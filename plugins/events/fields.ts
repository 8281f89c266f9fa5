/** Fields of an event for filters: `namespace`, `topic`, and `event.<path>` into its message, with the names of the .proto files. */
import { events } from 'troupe/proto/events.ts';
import type { MessageCodec } from '../../proto/message.ts';
import { type Adaptor, absent, type Field, field, labelField, present } from '../lib/filter/filter.ts';
import type { Event } from './envelope.ts';

const codecs = new Map<string, MessageCodec>();
let loading: Promise<void> | undefined;

/** Loads the codecs of all events that the daemon knows: before the first filter that looks into one, since a filter cannot wait. */
export function loadCodecs(): Promise<void> {
  loading ??= Promise.all(Object.entries(events).map(async ([name, load]) => codecs.set(name, await load()))).then(
    () => {},
  );
  return loading;
}

/** Whether one of the filters may look into messages; saying yes too often costs nothing but time. */
export function looksIntoMessages(filters: readonly string[]): boolean {
  return filters.some((filter) => filter.includes('event'));
}

/** The event with its message decoded at most once, however many filters ask. An event of unknown type has no fields. */
export function eventAdaptor(event: Event): Adaptor {
  let message: unknown;
  let decoded = false;
  return (path) => {
    switch (path[0]) {
      case 'namespace':
        return field(event.namespace);
      case 'topic':
        return field(event.topic);
      case 'event':
        if (!decoded) message = decode(event);
        decoded = true;
        return messageField(message, path.slice(1));
      default:
        return absent;
    }
  };
}

function decode({ event }: Event): unknown {
  try {
    // Some publishers write type URLs as Any.pack does, with a host in front.
    return codecs.get(event.typeUrl.slice(event.typeUrl.lastIndexOf('/') + 1))?.decode(event.value);
  } catch {
    return undefined;
  }
}

function messageField(value: unknown, path: readonly string[]): Field {
  if (path.length === 0) return absent;
  if (typeof value !== 'object' || value === null || value instanceof Uint8Array || Array.isArray(value)) return absent;
  const name = path[0]!.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
  if (!Object.hasOwn(value, name)) return absent;
  const found: unknown = (value as Record<string, unknown>)[name];
  if (path.length > 1) {
    // The rest of a path into a map is one key, dots and all.
    return name === 'labels' ? labelField(found as Record<string, string>, path) : messageField(found, path.slice(1));
  }
  switch (typeof found) {
    case 'string':
      return field(found);
    case 'number':
    case 'bigint':
    case 'boolean':
      return present(String(found));
    default:
      return absent;
  }
}
