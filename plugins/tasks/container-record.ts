/** The container that a task is made of, from the containers plugin. */

import { type Call, type Client, Failure } from 'troupe/plugin';
import type { Container, ContainersDefinition } from 'troupe/proto/containerd/services/containers/v1/containers.ts';

export class ContainerRecords {
  readonly #containers: Client<typeof ContainersDefinition>;

  constructor(containers: Client<typeof ContainersDefinition>) {
    this.#containers = containers;
  }

  /** @throws Failure NotFound `container "web" in namespace "default": not found` */
  async get(id: string, call: Call): Promise<Container> {
    const { container } = await this.#containers.get({ id }, call);
    if (container === undefined) {
      throw new Failure('NotFound', `container "${id}" in namespace "${call.namespace}": not found`);
    }
    return container;
  }
}
