/** grpc_server_handling_seconds from counts that are kept elsewhere: prom-client's own would hash labels on the path of every call. */
import { Histogram, type MetricObject, type MetricObjectWithValues, type MetricValueWithName } from 'prom-client';
import { labelsOf } from './metric-labels.ts';
import { histogramBounds, type MethodTally } from './tally.ts';

const name = 'grpc_server_handling_seconds';
const help = 'How long calls took.';
type Labels = 'grpc_type' | 'grpc_service' | 'grpc_method';

export class GrpcHistogram extends Histogram<Labels> {
  readonly #tallies: () => readonly MethodTally[];

  constructor(tallies: () => readonly MethodTally[]) {
    super({ name, help, registers: [] });
    this.#tallies = tallies;
  }

  override get(): Promise<MetricObjectWithValues<MetricValueWithName<Labels>>> {
    const { type, aggregator, collect } = this as unknown as MetricObject;
    return Promise.resolve({ name, help, type, aggregator, collect, values: this.#tallies().flatMap(valuesOf) });
  }

  /** What the registry asks for when it writes text; the library's `get` goes through it too. */
  getForPromString(): Promise<MetricObjectWithValues<MetricValueWithName<Labels>>> {
    return this.get();
  }
}

function valuesOf(tally: MethodTally): MetricValueWithName<Labels>[] {
  const labels = labelsOf(tally);
  let count = 0;
  const values: MetricValueWithName<Labels>[] = tally.buckets.map((calls, at) => {
    count += calls;
    const le = histogramBounds[at] ?? '+Inf';
    return { value: count, metricName: `${name}_bucket`, labels: { ...labels, le } };
  });
  values.push({ value: tally.seconds, metricName: `${name}_sum`, labels });
  values.push({ value: count, metricName: `${name}_count`, labels });
  return values;
}
