/** The namespace of a call: required by every service that keeps records, and a directory name in shims' paths. */
import { Failure } from 'troupe/plugin';
import { identifierProblem } from '../identifier/identifier.ts';

/**
 * The namespace that the call is about, valid.
 *
 * @throws Failure FailedPrecondition when the caller named none, InvalidArgument when it is no identifier or is reserved.
 */
export function requireNamespace(call: { readonly namespace: string }): string {
  if (call.namespace === '') throw new Failure('FailedPrecondition', 'namespace is required: failed precondition');
  const problem = identifierProblem(call.namespace) ?? reserved(call.namespace);
  if (problem !== undefined) throw new Failure('InvalidArgument', `namespace validation: ${problem}: invalid argument`);
  return call.namespace;
}

/** For the Namespaces service itself, where the name is an argument. @throws Failure InvalidArgument. */
export function validateNamespace(name: string): void {
  const problem = identifierProblem(name) ?? reserved(name);
  if (problem !== undefined) throw new Failure('InvalidArgument', `${problem}: invalid argument`);
}

// containerd keeps its schema version under that key beside the namespaces, so no client can have used it as a name.
function reserved(name: string): string | undefined {
  return name === 'version' ? 'namespace "version" is reserved' : undefined;
}
