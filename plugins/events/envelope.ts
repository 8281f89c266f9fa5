/** What an event must be before anybody hears of it; texts as containerd has them. */
import { Failure } from 'troupe/plugin';
import type { Any } from 'troupe/proto/google/protobuf/any.ts';
import type { Timestamp } from 'troupe/proto/google/protobuf/timestamp.ts';
import { identifierProblem } from '../lib/identifier/identifier.ts';
import { quote } from '../lib/identifier/quote.ts';

/** An event as it is kept and sent: containerd.types.Envelope, complete. */
export interface Event {
  readonly timestamp: Timestamp;
  readonly namespace: string;
  readonly topic: string;
  readonly event: Any;
}

/** `/tasks/exit`: a slash in front of every component, each an identifier. @throws InvalidArgument */
export function validateTopic(topic: string): void {
  const problem = topicProblem(topic);
  if (problem !== undefined) {
    throw new Failure('InvalidArgument', `envelope topic ${quote(topic)}: ${problem}: invalid argument`);
  }
}

function topicProblem(topic: string): string | undefined {
  if (topic === '') return 'must not be empty';
  if (!topic.startsWith('/')) return "must start with '/'";
  if (topic === '/') return 'must have at least one component';
  for (const component of topic.slice(1).split('/')) {
    const problem = identifierProblem(component);
    if (problem !== undefined) return `failed validation on component ${quote(component)}: ${problem}`;
  }
  return undefined;
}

/** An event that somebody hands on: a shim, or another daemon. @throws InvalidArgument */
export function validateEnvelope(envelope: Partial<Event> | undefined): Event {
  if (envelope === undefined) throw new Failure('InvalidArgument', 'event envelope is required: invalid argument');
  const { namespace = '', topic = '', timestamp, event } = envelope;
  const problem = identifierProblem(namespace);
  if (problem !== undefined) {
    throw new Failure('InvalidArgument', `event envelope has invalid namespace: ${problem}: invalid argument`);
  }
  validateTopic(topic);
  if (timestamp === undefined) {
    throw new Failure('InvalidArgument', 'timestamp must be set on forwarded event: invalid argument');
  }
  return { namespace, topic, timestamp, event: requireEvent(event, topic) };
}

/** @throws InvalidArgument when there is none: nobody could tell such an event from any other. */
export function requireEvent(event: Any | undefined, topic: string): Any {
  if (event !== undefined) return event;
  throw new Failure('InvalidArgument', `envelope topic ${quote(topic)}: event is required: invalid argument`);
}
