/** `publish`: one event from stdin to the daemon. The way by which old shims, and scripts, tell what happened. */
import { EventsDefinition } from 'troupe/proto/containerd/services/events/v1/events.ts';
import { Any } from 'troupe/proto/google/protobuf/any.ts';
import { GrpcClient, typedClient } from '../front/client.ts';
import { Failure } from '../sdk/failure.ts';
import { readStdin } from './input.ts';

/** What a shim waits for at most before it goes on without. */
const timeoutMs = 10_000;

/** @param any bytes of a google.protobuf.Any. @throws Failure as the daemon answers, Unavailable when there is none */
export async function publish(address: string, namespace: string, topic: string, any: Uint8Array): Promise<void> {
  const event = decodeAny(any);
  const client = new GrpcClient(address, { namespace });
  try {
    await typedClient(client, EventsDefinition).publish({ topic, event }, { timeoutMs });
  } catch (error) {
    if (!Failure.is(error, 'Unavailable')) throw error;
    throw new Failure('Unavailable', `publish: no daemon answers on ${address}: unavailable`, { cause: error });
  } finally {
    client.close();
  }
}

export async function publishStdin(address: string, namespace: string, topic: string): Promise<void> {
  await publish(address, namespace, topic, await readStdin(4 << 20));
}

function decodeAny(bytes: Uint8Array): Any {
  try {
    return Any.decode(bytes);
  } catch (error) {
    throw new Error('publish: stdin is not a google.protobuf.Any', { cause: error });
  }
}
