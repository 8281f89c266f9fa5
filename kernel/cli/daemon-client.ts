/** The daemon that runs, as commands speak to it. */
import { GrpcClient } from '../front/client.ts';
import { Failure } from '../sdk/failure.ts';

/** @throws Failure Unavailable which names the socket when no daemon is there */
export async function withDaemon<T>(address: string, work: (client: GrpcClient) => Promise<T>): Promise<T> {
  const client = new GrpcClient(address);
  try {
    await client.ready(5000).catch((cause: unknown) => {
      throw new Failure('Unavailable', `no daemon answers on ${address}: unavailable`, { cause });
    });
    return await work(client);
  } finally {
    client.close();
  }
}
